//! Building blocks that know nothing of caches: queues, timers, counters, clocks, and
//! synchronization.
//!
//! - Sequential: [`list`], [`wheel`], [`sketch`], [`ghost`].
//! - Concurrent: [`ring`], [`park`], [`sync`].
//! - Platform: [`clock`], [`memory`], [`prefetch`].
//! - `pulse`: work of the process once in an interval.
//! - [`panics`] keeps panics of user code until work is done.

#[cfg(all(test, loom, feature = "async"))]
pub(crate) mod block_on;
pub(crate) mod clock;
pub(crate) mod ghost;
pub(crate) mod list;
pub(crate) mod memory;
pub(crate) mod panics;
pub(crate) mod park;
pub(crate) mod prefetch;
#[cfg(all(feature = "stats-file", unix))]
pub(crate) mod pulse;
pub(crate) mod ring;
pub(crate) mod sketch;
pub(crate) mod sync;
pub(crate) mod wheel;
