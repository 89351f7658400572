//! hotset's statistics through prometheus-client: a `Collector`, which is called on each scrape.

use hotset_metrics_examples::{Caches, Figures, used_cache};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;

/// The label `result` and the figure of a counter; the label is empty where there is one only.
type Counts = &'static [(&'static str, Read)];

type Read = fn(&Figures) -> u64;

// (The encoder appends "_total".)
const COUNTERS: [(&str, &str, Counts); 9] = [
    (
        "hotset_cache_requests",
        "Lookups by whether they found a value",
        &[("hit", |of| of.stats.hits), ("miss", |of| of.stats.misses)],
    ),
    (
        "hotset_cache_stale_hits",
        "Lookups that found a value which was due for a reload or had expired",
        &[("", |of| of.stats.stale_hits)],
    ),
    (
        "hotset_cache_waits",
        "Calls that waited for the load of another caller",
        &[("", |of| of.stats.waits)],
    ),
    (
        "hotset_cache_insertions",
        "Values that were stored",
        &[("", |of| of.stats.insertions)],
    ),
    (
        "hotset_cache_evictions",
        "Entries that were removed to make room",
        &[("", |of| of.stats.evictions)],
    ),
    (
        "hotset_cache_evicted_weight",
        "Weight of the entries that were removed to make room",
        &[("", |of| of.stats.evicted_weight)],
    ),
    (
        "hotset_cache_expirations",
        "Entries that expired",
        &[("", |of| of.stats.expirations)],
    ),
    (
        "hotset_cache_rejections",
        "New entries that were not admitted",
        &[("", |of| of.stats.rejections)],
    ),
    (
        "hotset_cache_loads",
        "Calls of a loader by their result",
        &[
            ("success", |of| of.stats.loads),
            ("failure", |of| of.stats.load_failures),
        ],
    ),
];

const GAUGES: [(&str, &str, Read); 3] = [
    ("hotset_cache_entries", "Entries that are held", |of| of.entries),
    ("hotset_cache_weight", "Weight of the entries that are held", |of| {
        of.weight
    }),
    ("hotset_cache_capacity", "Capacity in entries or in weight", |of| {
        of.capacity
    }),
];

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let all: Vec<_> = self.0.read().collect();
        for (name, help, counts) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (cache, figures) in &all {
                for (result, read) in counts {
                    let labels = [("cache", *cache), ("result", result)];
                    let labels = if result.is_empty() { &labels[..1] } else { &labels[..] };
                    ConstCounter::new(read(figures)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let (name, help) = ("hotset_cache_load_duration_seconds", "Durations of calls of a loader");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (cache, figures) in &all {
            let loads = &figures.stats.load_buckets;
            // The encoder sums them up, and knows the last bucket by its infinite bound.
            let mut buckets: Vec<_> = loads
                .iter()
                .map(|(bound, count)| (bound.as_secs_f64(), count))
                .collect();
            buckets.last_mut().expect("there are 23").0 = f64::INFINITY;
            let sum = figures.stats.load_time.as_secs_f64();
            family
                .encode_family(&[("cache", *cache)])?
                .encode_histogram::<NoLabelSet>(sum, loads.total(), &buckets, None)?;
        }
        for (name, help, read) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (cache, figures) in &all {
                let gauge = ConstGauge::<f64>::new(read(figures) as f64);
                gauge.encode(family.encode_family(&[("cache", *cache)])?)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct CacheCollector(Caches);

fn scrape() -> String {
    let mut registry = Registry::default();
    let caches = Caches::default().with("pages", &used_cache());
    registry.register_collector(Box::new(CacheCollector(caches))); // once, at the start
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes any text"); // on each scrape
    text
}

fn main() {
    print!("{}", scrape());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrape_has_the_statistics() {
        let text = scrape();
        for line in [
            "hotset_cache_requests_total{cache=\"pages\",result=\"hit\"} 1",
            "hotset_cache_requests_total{cache=\"pages\",result=\"miss\"} 2",
            "hotset_cache_loads_total{cache=\"pages\",result=\"failure\"} 1",
            "hotset_cache_insertions_total{cache=\"pages\"} 1",
            "# TYPE hotset_cache_load_duration_seconds histogram",
            "hotset_cache_load_duration_seconds_count{cache=\"pages\"} 2",
            "hotset_cache_load_duration_seconds_bucket{le=\"+Inf\",cache=\"pages\"} 2",
            "hotset_cache_entries{cache=\"pages\"} 1.0",
            "hotset_cache_capacity{cache=\"pages\"} 1000.0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
