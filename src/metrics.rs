//! The statistics of caches in the [`metrics`](https://docs.rs/metrics) facade, for any of its
//! exporters.
//!
//! Metrics are pulled: nothing is counted twice, and no call on a cache costs more. The program
//! calls [`publish`] for each cache when its metrics are collected, as before it renders the answer
//! to a scrape, or at an interval. The call sets absolute totals from [`Cache::stats`].
//!
//! # Metrics
//!
//! All have the label `cache`. They have the names that they have in Python and in C.
//!
//! | metric | type |
//! |---|---|
//! | `hotset_cache_requests_total{result="hit"\|"miss"}` | counter |
//! | `hotset_cache_stale_hits_total`, `_waits_total`, `_insertions_total`, `_evictions_total`, `_evicted_weight_total`, `_expirations_total`, `_rejections_total` | counters |
//! | `hotset_cache_loads_total{result="success"\|"failure"}` | counter |
//! | `hotset_cache_load_duration_seconds_bucket{le=".."}`, `_count` | counters, as a histogram in Prometheus has them |
//! | `hotset_cache_load_duration_seconds_sum` | gauge |
//! | `hotset_cache_entries`, `_weight`, `_capacity` | gauges |
//!
//! (The facade's histograms take one sample at a time, so totals cannot be set. The series of
//! [`LoadBuckets`](crate::LoadBuckets) are those of a classic histogram all the same:
//! `histogram_quantile` reads them.)
//!
//! # Examples
//!
//! ```
//! let pages = hotset::Cache::<String, String>::new(1_000);
//! hotset::metrics::describe(); // once, after the exporter is installed
//! pages.get_or_insert_with("/index", || "<html>".to_owned());
//! hotset::metrics::publish("pages", &pages); // whenever metrics are collected
//! ```

use crate::cache::Cache;
use crate::metric_table::{Figures, Kind, LE, METRICS};
use metrics::{Label, SharedString, Unit, counter, describe_counter, describe_gauge, gauge};
use std::hash::{BuildHasher, Hash};

/// The parts of the histogram of loads, by what follows its name.
const LOADS: [(&str, Kind); 3] = [
    ("hotset_cache_load_duration_seconds_bucket", Kind::Counter),
    ("hotset_cache_load_duration_seconds_count", Kind::Counter),
    ("hotset_cache_load_duration_seconds_sum", Kind::Gauge),
];

/// Gives the current recorder the units and descriptions of all metrics.
///
/// Optional. Call it once, after the exporter is installed.
pub fn describe() {
    let describe = |name: &'static str, kind, help: &'static str| match kind {
        Kind::Counter => describe_counter!(name, Unit::Count, help),
        Kind::Gauge | Kind::Loads => describe_gauge!(name, Unit::Count, help),
    };
    for metric in &METRICS {
        if metric.kind == Kind::Loads {
            for (name, kind) in LOADS {
                describe(name, kind, metric.help);
            }
        } else {
            describe(metric.name, metric.kind, metric.help);
        }
    }
}

/// Sets the metrics of `cache` in the current recorder to what it has counted since it was built.
///
/// `name` is the value of the label `cache`. Give each cache of a program another one: counters of
/// the facade never fall, so of two caches with one name the larger counts would show.
///
/// # Concurrency
///
/// Any thread may call it, at any time. Costs about as much as 45 look-ups of a metric in the
/// recorder.
pub fn publish<K, V, S>(name: impl Into<SharedString>, cache: &Cache<K, V, S>)
where
    K: Hash + Eq,
    S: BuildHasher,
{
    let (name, figures) = (name.into(), Figures::of(cache));
    let labels = |extra: Option<(&'static str, &'static str)>| {
        let cache = Label::new("cache", name.clone());
        let extra = extra.map(|(key, value)| Label::from_static_parts(key, value));
        std::iter::once(cache).chain(extra).collect::<Vec<_>>()
    };
    for metric in &METRICS {
        for series in metric.series {
            let Some(value) = (series.read)(&figures) else { continue };
            match metric.kind {
                Kind::Counter => counter!(metric.name, labels(series.label)).absolute(value),
                Kind::Gauge | Kind::Loads => gauge!(metric.name, labels(series.label)).set(value as f64),
            }
        }
    }
    let [(bucket, _), (count, _), (sum, _)] = LOADS;
    let mut total = 0;
    for (le, loads) in LE.into_iter().zip(figures.stats.load_buckets.counts()) {
        total += loads;
        counter!(bucket, labels(Some(("le", le)))).absolute(total);
    }
    counter!(count, labels(None)).absolute(total);
    gauge!(sum, labels(None)).set(figures.stats.load_time.as_secs_f64());
}
