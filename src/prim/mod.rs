//! Building blocks that know nothing of caches.

pub(crate) mod clock;
pub(crate) mod ghost;
pub(crate) mod list;
pub(crate) mod memory;
pub(crate) mod panics;
pub(crate) mod park;
pub(crate) mod prefetch;
pub(crate) mod ring;
pub(crate) mod sketch;
pub(crate) mod sync;
pub(crate) mod wheel;
