//! An embedded cache engine: a lock-free concurrent map with W-TinyLFU admission.
//!
//! ```
//! use hotset::Cache;
//!
//! let cache: Cache<String, Vec<u8>> = Cache::new(10_000); // at most 10,000 entries
//! let page = cache.get_or_insert_with("/index".to_owned(), || b"<html>".to_vec());
//! assert_eq!(cache.get("/index"), Some(page));
//! ```
//!
//! A [`Cache`] is a handle: clone it for every thread. Lookups take no lock and, on an entry that is known to be hot,
//! write nothing that another thread reads. See [`Builder`] for weights, other policies and removal listeners.
//!
//! Loads: [`Cache::get_or_insert_with`] and its kin have one caller load what all wait for; [`Cache::get_many_or_insert_with`] loads
//! many keys in one call. The cargo feature `async` adds `get_or_insert_async` and its kin, for loaders that are futures, on any
//! executor; it brings no dependencies.
//!
//! The cargo feature `tier2` adds the module `tier2`: the protocol by which caches of several processes share a second tier (a Redis),
//! without I/O and without dependencies.
//!
//! Costs: `get`, `insert` and `remove` are O(1). Lookups are lock-free. Writers share maintenance (eviction, expiration,
//! freeing, growth) under a try-lock: the call that finds it due performs it, unless another thread does; there is no
//! background thread, unless one is set ([`Builder::ticker`]). A writer that outruns maintenance waits for it, so
//! that the bounds are hard: after any call returns, the cache holds at most its capacity and
//! what its threads have not had recorded yet, which is at most 128 entries or a 64th of the capacity (a small cache: an
//! eighth, but 8; or one per writing thread, if that is more); after [`Cache::run_pending`] at most its capacity.
//! See [`Cache`] for what waits, and for what.
#![warn(missing_docs)]

mod builder;
mod cache;
mod clock;
mod compute;
mod engine;
mod error;
mod expiry;
mod flight;
mod key;
mod loading;
mod lookup;
mod map;
mod negative;
mod policy;
mod prim;
#[doc(hidden)]
pub mod raw;
mod reader;
mod reclaim;
mod refresh;
pub mod snapshot;
mod stats;
mod ticker;
#[cfg(feature = "tier2")]
pub mod tier2;
mod write;

pub use builder::{Builder, DefaultHasher};
pub use cache::Cache;
pub use clock::{Clock, ManualClock};
pub use compute::Change;
pub use error::{BuildError, LoadError};
pub use expiry::{Expiry, Ttl};
pub use key::{ByReference, ByValue, LoadKey};
pub use loading::{Entry, Freshness, Loaded, VacantEntry};
pub use policy::PolicyKind as Policy;
pub use reader::{Iter, Keys, Reader};
pub use refresh::RefreshTask;
pub use stats::{Cause, Stats};

#[cfg(doctest)]
mod doc_tests;
