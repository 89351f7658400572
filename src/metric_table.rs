//! The metrics of a cache as monitoring systems see them: names, help texts, and the figures that
//! they are made of. The Python package has the same names.

use crate::cache::Cache;
use crate::stats::Stats;
use std::hash::{BuildHasher, Hash};

/// The figures of a cache at one time.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// The counters.
    pub stats: Stats,
    /// The number of entries.
    pub entries: u64,
    /// The weight of all entries.
    pub weight: u64,
    /// The capacity; `None` without a bound.
    pub capacity: Option<u64>,
}

impl Figures {
    /// Returns the figures of `cache`.
    pub fn of<K: Hash + Eq, V, S: BuildHasher>(cache: &Cache<K, V, S>) -> Self {
        let capacity = cache.capacity();
        Self {
            stats: cache.stats(),
            entries: cache.len() as u64,
            weight: cache.weight(),
            capacity: (capacity != u64::MAX).then_some(capacity),
        }
    }
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that only rises.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// The histogram of the durations of loads, which has no [`Series`].
    Loads,
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// The name in Prometheus.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// What it measures.
    pub help: &'static str,
    /// Its values.
    pub series: &'static [Series],
}

/// A value of a metric.
#[derive(Debug)]
pub struct Series {
    /// The label that distinguishes it from the metric's other values.
    pub label: Option<(&'static str, &'static str)>,
    /// Returns the value, if the cache has it.
    pub read: fn(&Figures) -> Option<u64>,
}

const fn one(read: fn(&Figures) -> Option<u64>) -> Series {
    Series { label: None, read }
}

const fn result(result: &'static str, read: fn(&Figures) -> Option<u64>) -> Series {
    Series {
        label: Some(("result", result)),
        read,
    }
}

const fn metric(name: &'static str, kind: Kind, help: &'static str, series: &'static [Series]) -> Metric {
    Metric {
        name,
        kind,
        help,
        series,
    }
}

/// The metrics, in the order in which they are shown.
pub static METRICS: [Metric; 13] = [
    metric(
        "hotset_cache_requests_total",
        Kind::Counter,
        "Lookups by whether they found a value",
        &[
            result("hit", |of| Some(of.stats.hits)),
            result("miss", |of| Some(of.stats.misses)),
        ],
    ),
    metric(
        "hotset_cache_stale_hits_total",
        Kind::Counter,
        "Lookups that found a value which was due for a reload or had expired",
        &[one(|of| Some(of.stats.stale_hits))],
    ),
    metric(
        "hotset_cache_waits_total",
        Kind::Counter,
        "Calls that waited for the load of another caller",
        &[one(|of| Some(of.stats.waits))],
    ),
    metric(
        "hotset_cache_insertions_total",
        Kind::Counter,
        "Values that were stored",
        &[one(|of| Some(of.stats.insertions))],
    ),
    metric(
        "hotset_cache_evictions_total",
        Kind::Counter,
        "Entries that were removed to make room",
        &[one(|of| Some(of.stats.evictions))],
    ),
    metric(
        "hotset_cache_evicted_weight_total",
        Kind::Counter,
        "Weight of the entries that were removed to make room",
        &[one(|of| Some(of.stats.evicted_weight))],
    ),
    metric(
        "hotset_cache_expirations_total",
        Kind::Counter,
        "Entries that expired",
        &[one(|of| Some(of.stats.expirations))],
    ),
    metric(
        "hotset_cache_rejections_total",
        Kind::Counter,
        "New entries that were not admitted",
        &[one(|of| Some(of.stats.rejections))],
    ),
    metric(
        "hotset_cache_loads_total",
        Kind::Counter,
        "Calls of a loader by their result",
        &[
            result("success", |of| Some(of.stats.loads)),
            result("failure", |of| Some(of.stats.load_failures)),
        ],
    ),
    metric(
        "hotset_cache_load_duration_seconds",
        Kind::Loads,
        "Durations of calls of a loader",
        &[],
    ),
    metric(
        "hotset_cache_entries",
        Kind::Gauge,
        "Entries that are held",
        &[one(|of| Some(of.entries))],
    ),
    metric(
        "hotset_cache_weight",
        Kind::Gauge,
        "Weight of the entries that are held",
        &[one(|of| Some(of.weight))],
    ),
    metric(
        "hotset_cache_capacity",
        Kind::Gauge,
        "Capacity in entries or in weight",
        &[one(|of| of.capacity)],
    ),
];

/// The values of the label `le` of the buckets of loads: their bounds in seconds, as Prometheus'
/// Python client writes them, so that sums over programs in several languages match.
pub const LE: [&str; 23] = [
    "1e-05", "2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
    "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "25.0", "50.0", "100.0", "+Inf",
];

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::stats::LoadBuckets;

    #[test]
    fn le_labels_are_the_bounds() {
        for (label, bound) in LE.into_iter().zip(LoadBuckets::BOUNDS) {
            assert_eq!(label.parse::<f64>(), Ok(bound.as_secs_f64()));
        }
    }

    #[test]
    fn metric_names_follow_prometheus() {
        for metric in &METRICS {
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
            assert_eq!(metric.series.is_empty(), metric.kind == Kind::Loads, "{}", metric.name);
        }
    }
}
