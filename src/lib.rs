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
//! A [`Cache`] is a handle: clone it for every thread. Lookups take no lock and, on an entry that
//! is known to be hot, write nothing that another thread reads. See [`Builder`] for weights, other
//! policies and removal listeners.
//!
//! Loads: [`Cache::get_or_insert_with`] and its variants have one caller load what all wait for;
//! [`Cache::get_many_or_insert_with`] loads many keys in one call.
//!
//! # Features
//!
//! | feature | default | adds | dependencies |
//! |---|---|---|---|
//! | `snapshot` | yes | the module [`snapshot`]: a cache in a file, for a warm restart | memmap2, xxhash-rust, libc |
//! | `huge-pages` | yes | huge pages for large tables, on Linux | libc |
//! | `stats-file` | yes | the module [`stats_file`], and `Builder::name`: figures of named caches in a file | crc32fast, libc |
//! | `async` | no | `get_or_insert_async` and its variants: loaders that are futures, on any executor | – |
//! | `metrics` | no | the module `metrics`: statistics in the facade of that name | metrics |
//! | `serde` | no | `snapshot::Serde`: keys and values that serde can serialize, in snapshots | serde, postcard |
//! | `tier2` | no | the module `tier2`: the protocol by which processes share a second tier, without I/O | – |
//! | `tiered` | no | the module `tiered`: a cache in front of a second tier | `tier2`, blake2, libc |
//! | `redis` | no | `tiered::Redis`: a Redis or Valkey server as the second tier | `tiered`, redis |
//! | `memcached` | no | `tiered::Memcached`: memcached servers as the second tier | `tiered` |
//! | `json` | no | `tiered::Json`: values that serde can serialize, as JSON there | `tiered`, serde, `serde_json` |
//! | `crossbeam` | no | reclamation by crossbeam-epoch in place of hotset's own | crossbeam-epoch |
//!
//! With `default-features = false` the crate needs std and two crates of pure Rust, hashbrown and
//! foldhash. The oldest supported compiler is Rust 1.90.
//!
//! # Costs and bounds
//!
//! `get`, `insert` and `remove` are O(1). Lookups are lock-free. Writers share maintenance
//! (eviction, expiration, freeing, growth) under a try-lock: the call that finds it due performs
//! it, unless another thread does; there is no background thread, unless one is set
//! ([`Builder::ticker`]). A writer that outruns maintenance waits for it, so that the bounds are
//! hard: after any call returns, the cache holds at most its capacity and what its threads have not
//! had recorded yet, which is at most 128 entries or a 64th of the capacity (a small cache: an
//! eighth, but 8; or one per writing thread, if that is more); after [`Cache::run_pending`] at most
//! its capacity. See [`Cache`] for what waits, and for what.
#![cfg_attr(docsrs, feature(doc_cfg))]
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
mod metric_table;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod negative;
mod policy;
mod prim;
mod profile;
#[doc(hidden)]
pub mod raw;
mod reader;
mod reclaim;
mod refresh;
mod settings;
#[cfg(feature = "snapshot")]
#[cfg_attr(docsrs, doc(cfg(feature = "snapshot")))]
pub mod snapshot;
#[cfg(not(feature = "snapshot"))]
#[path = "snapshot_off.rs"]
mod snapshot;
mod stats;
#[cfg(feature = "stats-file")]
#[cfg_attr(docsrs, doc(cfg(feature = "stats-file")))]
pub mod stats_file;
mod ticker;
#[cfg(feature = "tier2")]
#[cfg_attr(docsrs, doc(cfg(feature = "tier2")))]
pub mod tier2;
#[cfg(feature = "tiered")]
#[cfg_attr(docsrs, doc(cfg(feature = "tiered")))]
pub mod tiered;
mod write;

pub use builder::Builder;
pub use cache::Cache;
pub use clock::{Clock, ManualClock};
pub use compute::Change;
pub use error::{AdviseError, BuildError, LoadError};
pub use expiry::{Expiry, Ttl};
pub use key::{ByReference, ByValue, LoadKey};
pub use loading::{Entry, Freshness, Loaded, VacantEntry};
pub use policy::PolicyKind as Policy;
pub use profile::{Advice, Doubt, Point};
pub use reader::{Iter, Keys, Reader};
pub use settings::{DefaultHasher, RefreshTask};
pub use stats::{Cause, LoadBuckets, Stats};

#[cfg(doctest)]
mod doc_tests;
