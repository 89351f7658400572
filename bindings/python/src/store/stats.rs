//! The counts of a cache.

use super::Store;
use super::loads::LOAD_BUCKETS;
use hotset::LoadBuckets;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::array;
use std::sync::atomic::Ordering;

/// The number of counters with a name of their own.
const NAMED: usize = 12;

/// The counters of a cache, as of one time.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    named: [u64; NAMED],
    load_buckets: [u64; LOAD_BUCKETS],
}

/// What is counted since the last reset. The first three are lookups.
const NAMES: [&str; NAMED] = [
    "hits",
    "misses",
    "stale_hits",
    "insertions",
    "evictions",
    "evicted_weight",
    "expirations",
    "rejections",
    "loads",
    "load_failures",
    "waits",
    LOAD_TIME,
];
/// Counted in nanoseconds, reported in seconds.
const LOAD_TIME: &str = "load_time";
const LOOKUPS: usize = 3;

impl Store {
    /// Returns all that was counted since the cache was made.
    fn counts(&self) -> Counts {
        let stats = self.cache.stats();
        let (loads, failures, waits) = self.loads.counts();
        let named = [
            stats.hits,
            stats.misses.saturating_sub(self.uncounted_misses()),
            stats.stale_hits,
            stats.insertions,
            stats.evictions,
            stats.evicted_weight,
            stats.expirations,
            stats.rejections,
            loads,
            failures,
            waits,
            self.loads.load_time().as_nanos() as u64,
        ];
        Counts {
            named,
            load_buckets: self.loads.buckets(),
        }
    }

    /// Returns the number of the engine's misses that are none to users.
    pub(super) fn uncounted_misses(&self) -> u64 {
        self.repeated_searches.get(Ordering::Relaxed) + self.joined_misses.get(Ordering::Relaxed)
    }

    /// Resets hits, misses and stale hits.
    pub(super) fn reset_lookups(&self) {
        let counts = self.counts();
        self.counts_at_reset.lock().named[..LOOKUPS].copy_from_slice(&counts.named[..LOOKUPS]);
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
        self.figures(py, self.counts(), Counts::default())
    }

    fn figures<'py>(&self, py: Python<'py>, counts: Counts, before: Counts) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for ((name, now), before) in NAMES.into_iter().zip(counts.named).zip(before.named) {
            // Another thread may have reset the counts since they were read here.
            let count = now.saturating_sub(before);
            if name == LOAD_TIME {
                dict.set_item(name, count as f64 / 1e9)?;
            } else {
                dict.set_item(name, count)?;
            }
        }
        let buckets: [_; LOAD_BUCKETS] = array::from_fn(|n| {
            let bound = LoadBuckets::BOUNDS
                .get(n)
                .map_or(f64::INFINITY, |bound| bound.as_secs_f64());
            (bound, counts.load_buckets[n].saturating_sub(before.load_buckets[n]))
        });
        dict.set_item("load_buckets", PyTuple::new(py, buckets)?)?;
        dict.set_item("entries", self.cache.len())?;
        dict.set_item("weight", self.cache.weight())?;
        dict.set_item("capacity", self.cache.capacity())?;
        Ok(dict)
    }
}
