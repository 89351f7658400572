//! The stats file, for bindings: sources with figures of their own, and what a file states of its
//! process. See [`crate::stats_file`].

use crate::cache::Cache;
use crate::stats_file::StatsFileError;
pub use crate::stats_file::registry::{
    Record, Registration, Source, answer_request, describe, fork_child, register, rewrite,
};
use std::hash::{BuildHasher, Hash};

/// Puts a cache into the stats file under `name` until the registration is dropped, which must
/// happen before the cache is dropped: until then the cache is alive. If this is the first
/// name and `HOTSET_STATS` is set, the file is enabled; an error of that is returned, too.
pub fn register_cache<K, V, S>(cache: &Cache<K, V, S>, name: String) -> (Registration, Option<StatsFileError>)
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    register(name, cache.0.clone(), false)
}

/// Writes the figures of a cache, as of its last maintenance, into `record`. Waits for no thread
/// and runs no user code.
pub fn fill<K, V, S>(cache: &Cache<K, V, S>, record: &mut Record) {
    cache.0.fill_record(record);
}

/// Has the calls on a cache rewrite the file when it is due.
pub fn observe<K, V, S>(cache: &Cache<K, V, S>) {
    cache.0.engine.observe_pulse();
}
