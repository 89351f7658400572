//! What happened in a cache, for its user to see.

use std::time::Duration;

/// Why an entry left the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Its time was over.
    Expired,
    /// It was evicted, or never admitted, to keep the cache within its capacity.
    Size,
    /// It was removed by `remove`, `remove_if`, `compute` or `clear`.
    Explicit,
    /// Another value was inserted for its key.
    Replaced,
}

/// What happened in a cache since it was built. Counts may lag behind other threads' calls that are still going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries that came in, replacements included.
    pub insertions: u64,
    /// Entries that had been admitted and left to make room.
    pub evictions: u64,
    /// Entries that left because their time was over.
    pub expirations: u64,
    /// New entries that were not admitted: lost against a resident entry, or heavier than the whole capacity.
    pub rejections: u64,
    /// Loaders that returned a value, or the values of several keys.
    pub loads: u64,
    /// Loaders that failed or panicked, and futures that were dropped while they loaded.
    pub load_failures: u64,
    /// Callers that came while their key was being loaded, and were to wait for that.
    pub waits: u64,
    /// The time spent in loaders: of a future, from its first poll until it is ready or dropped.
    pub load_time: Duration,
}

impl Stats {
    /// The share of lookups that were hits, from 0 to 1; 0 if there were none.
    pub fn hit_ratio(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 {
            0.0
        } else {
            self.hits as f64 / lookups as f64
        }
    }
}
