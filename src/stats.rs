//! Statistics of a cache, and the causes of removals.

use std::time::Duration;

/// The reason why an entry left the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The entry expired.
    Expired,
    /// The entry was evicted, or never admitted, to keep the cache within its capacity.
    Size,
    /// The entry was removed by `remove`, `remove_if`, `compute` or `clear`.
    Explicit,
    /// Another value was inserted for the key.
    Replaced,
}

/// The counters of a cache since it was built. They may lag behind calls of other threads that are
/// in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of lookups that found their key.
    pub hits: u64,
    /// Number of lookups that did not find their key.
    pub misses: u64,
    /// Number of entries inserted, replacements included.
    pub insertions: u64,
    /// Number of admitted entries that were evicted.
    pub evictions: u64,
    /// Number of entries that expired.
    pub expirations: u64,
    /// Number of new entries that were not admitted: they lost against a resident entry, or were
    /// heavier than the capacity.
    pub rejections: u64,
    /// Number of loaders that returned a value, or the values of several keys.
    pub loads: u64,
    /// Number of loaders that failed or panicked, and of futures dropped while loading.
    pub load_failures: u64,
    /// Number of calls that waited for another caller's load of the same key.
    pub waits: u64,
    /// Time spent in loaders; of a future, from its first poll until it is ready or dropped.
    pub load_time: Duration,
}

impl Stats {
    /// Returns the share of lookups that were hits, from 0 to 1; 0 if there were none.
    pub fn hit_ratio(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 {
            0.0
        } else {
            self.hits as f64 / lookups as f64
        }
    }
}
