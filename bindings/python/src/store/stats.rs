//! The counts of a cache.

use super::{COUNTS, Store};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::atomic::Ordering;

/// What is counted since the last reset. The first two are lookups.
const NAMES: [&str; COUNTS] = [
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
/// Counted in nanoseconds, reported in seconds.
const LOAD_TIME: &str = "load_time";
const LOOKUPS: usize = 2;

impl Store {
    /// Returns all that was counted since the cache was made.
    fn counts(&self) -> [u64; COUNTS] {
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

    /// Resets hits and misses.
    pub(super) fn reset_lookups(&self) {
        let counts = self.counts();
        self.counts_at_reset.lock()[..LOOKUPS].copy_from_slice(&counts[..LOOKUPS]);
    }

    /// Resets all counts.
    pub(crate) fn reset_stats(&self) {
        self.cache.run_pending();
        let counts = self.counts();
        *self.counts_at_reset.lock() = counts;
    }

    /// Returns what was counted since the last reset, and what is held.
    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.cache.run_pending();
        let (counts, before) = (self.counts(), *self.counts_at_reset.lock());
        self.figures(py, counts, before)
    }

    /// Returns what was counted since the cache was made, resets ignored, and what is held.
    pub(crate) fn totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.cache.run_pending();
        self.figures(py, self.counts(), [0; COUNTS])
    }

    fn figures<'py>(&self, py: Python<'py>, counts: [u64; COUNTS], before: [u64; COUNTS]) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for ((name, now), before) in NAMES.into_iter().zip(counts).zip(before) {
            // Another thread may have reset the counts since they were read here.
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
