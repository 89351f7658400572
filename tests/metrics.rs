//! The statistics of caches in the `metrics` facade.

use hotset::Cache;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// A recorder that keeps what it is given.
#[derive(Default)]
struct Kept {
    values: Mutex<BTreeMap<String, Arc<Value>>>,
    described: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct Value(Mutex<f64>);

impl CounterFn for Value {
    fn increment(&self, _: u64) {
        panic!("a total was expected");
    }
    fn absolute(&self, value: u64) {
        let mut current = self.0.lock().unwrap();
        assert!(*current <= value as f64, "a counter fell");
        *current = value as f64;
    }
}

impl GaugeFn for Value {
    fn increment(&self, _: f64) {
        panic!("a value was expected");
    }
    fn decrement(&self, _: f64) {
        panic!("a value was expected");
    }
    fn set(&self, value: f64) {
        *self.0.lock().unwrap() = value;
    }
}

impl Kept {
    fn value(&self, kind: &str, key: &Key) -> Arc<Value> {
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        let labels = labels.collect::<Vec<_>>().join(",");
        let series = format!("{kind} {}{{{labels}}}", key.name());
        self.values.lock().unwrap().entry(series).or_default().clone()
    }

    fn of(&self, series: &str) -> Option<f64> {
        let values = self.values.lock().unwrap();
        values.get(series).map(|value| *value.0.lock().unwrap())
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned());
    }
    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned());
    }
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("a histogram takes no totals");
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value("counter", key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value("gauge", key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("a histogram takes no totals");
    }
}

#[test]
fn published_metrics_are_the_statistics() {
    let recorder = Kept::default();
    let pages: Cache<u64, u64> = Cache::builder().max_weight(10).weigher(|_, v| *v).build().unwrap();
    let endless: Cache<u64, u64> = Cache::builder().max_entries(usize::MAX).build().unwrap();
    with_local_recorder(&recorder, || {
        for round in 1..=3 {
            pages.get_or_insert_with(1, || 2);
            assert!(pages.try_get_or_insert_with(2, || Err::<u64, _>("no")).is_err());
            pages.run_pending();
            // The rate of the processor's counter, by which durations are converted, is refined
            // once in a while: then the two readings differ.
            let stats = loop {
                let before = pages.stats();
                hotset::metrics::publish("pages", &pages);
                if pages.stats().load_time == before.load_time {
                    break before;
                }
            };
            hotset::metrics::publish(format!("endless {}", 1), &endless);
            let of = |series: &str| recorder.of(series).unwrap_or_else(|| panic!("{series} is missing"));
            let r = f64::from(round);
            assert_eq!(
                of("counter hotset_cache_requests_total{cache=pages,result=hit}"),
                r - 1.0
            );
            assert_eq!(
                of("counter hotset_cache_requests_total{cache=pages,result=miss}"),
                r + 1.0
            );
            assert_eq!(of("counter hotset_cache_loads_total{cache=pages,result=success}"), 1.0);
            assert_eq!(of("counter hotset_cache_loads_total{cache=pages,result=failure}"), r);
            assert_eq!(of("counter hotset_cache_insertions_total{cache=pages}"), 1.0);
            let loads = "hotset_cache_load_duration_seconds";
            assert_eq!(of(&format!("counter {loads}_count{{cache=pages}}")), r + 1.0);
            assert_eq!(of(&format!("counter {loads}_bucket{{cache=pages,le=+Inf}}")), r + 1.0);
            assert_eq!(
                of(&format!("gauge {loads}_sum{{cache=pages}}")),
                stats.load_time.as_secs_f64()
            );
            assert_eq!(of("gauge hotset_cache_entries{cache=pages}"), 1.0);
            assert_eq!(of("gauge hotset_cache_weight{cache=pages}"), 2.0);
            assert_eq!(of("gauge hotset_cache_capacity{cache=pages}"), 10.0);
            assert_eq!(
                of("counter hotset_cache_requests_total{cache=endless 1,result=hit}"),
                0.0
            );
        }
    });
    assert_eq!(
        recorder.of("gauge hotset_cache_capacity{cache=endless 1}"),
        None,
        "there is no bound"
    );
    let values = recorder.values.lock().unwrap();
    let buckets: Vec<_> = values
        .iter()
        .filter(|(series, _)| series.contains("_bucket{cache=pages"))
        .collect();
    assert_eq!(buckets.len(), 23);
}

#[test]
fn every_published_metric_is_described() {
    let recorder = Kept::default();
    with_local_recorder(&recorder, || {
        hotset::metrics::describe();
        hotset::metrics::publish("a", &Cache::<u64, u64>::new(10));
    });
    let published: BTreeSet<String> = recorder
        .values
        .lock()
        .unwrap()
        .keys()
        .map(|series| {
            let name = series.split_once(' ').unwrap().1;
            name.split_once('{').unwrap().0.to_owned()
        })
        .collect();
    assert_eq!(published, *recorder.described.lock().unwrap());
}
