//! What a cache counts.

use super::Store;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::atomic::Ordering;

/// In the order of [`NAMES`].
pub(super) type Counts = [u64; NAMES.len()];

/// What is counted from the last reset on. The first two are lookups.
const NAMES: [&str; 10] = [
    "hits",
    "misses",
    "insertions",
    "evictions",
    "expirations",
    "rejections",
    "loads",
    "load_failures",
    "waits",
    LOAD_TIME,
];
/// In nanoseconds, but told in seconds.
const LOAD_TIME: &str = "load_time";
const LOOKUPS: usize = 2;

impl Store {
    /// All that was counted since the cache was made.
    fn counts(&self) -> Counts {
        let stats = self.cache.stats();
        let (loads, failures, waits) = self.loads.counts();
        let no_misses = self.repeated_searches.get(Ordering::Relaxed) + self.joined_misses.get(Ordering::Relaxed);
        [
            stats.hits,
            stats.misses.saturating_sub(no_misses),
            stats.insertions,
            stats.evictions,
            stats.expirations,
            stats.rejections,
            loads,
            failures,
            waits,
            self.loads.load_time().as_nanos() as u64,
        ]
    }

    /// Hits and misses count from 0 again.
    pub(super) fn reset_lookups(&self) {
        let counts = self.counts();
        self.counts_at_reset.lock()[..LOOKUPS].copy_from_slice(&counts[..LOOKUPS]);
    }

    /// All counts are from 0 again.
    pub(crate) fn reset_stats(&self) {
        self.cache.run_pending();
        let counts = self.counts();
        *self.counts_at_reset.lock() = counts;
    }

    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.cache.run_pending();
        let (counts, before) = (self.counts(), *self.counts_at_reset.lock());
        let dict = PyDict::new(py);
        for ((name, now), before) in NAMES.into_iter().zip(counts).zip(before) {
            // (Another thread may have reset them since, after counts that this one did not see yet.)
            let count = now.saturating_sub(before);
            if name == LOAD_TIME {
                dict.set_item(name, count as f64 / 1e9)?;
            } else {
                dict.set_item(name, count)?;
            }
        }
        dict.set_item("entries", self.cache.len())?;
        dict.set_item("weight", self.cache.weight())?;
        dict.set_item("capacity", self.cache.capacity())?;
        Ok(dict)
    }
}
