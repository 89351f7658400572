//! hotset's statistics through OpenTelemetry: observable instruments, whose callbacks the reader
//! calls when it collects.

use hotset_metrics_examples::{Caches, Figures};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// The value of the attribute and the figure; no attribute where there is one figure only.
type Counts = &'static [(Option<(&'static str, &'static str)>, Read)];

type Read = fn(&Figures) -> u64;

const REQUEST: &str = "hotset.cache.request.type";
const LOAD: &str = "hotset.cache.load.result";

const COUNTERS: [(&str, &str, Counts); 9] = [
    (
        "hotset.cache.requests",
        "{request}",
        &[
            (Some((REQUEST, "hit")), |of| of.stats.hits),
            (Some((REQUEST, "miss")), |of| of.stats.misses),
        ],
    ),
    (
        "hotset.cache.stale_hits",
        "{request}",
        &[(None, |of| of.stats.stale_hits)],
    ),
    ("hotset.cache.waits", "{call}", &[(None, |of| of.stats.waits)]),
    (
        "hotset.cache.insertions",
        "{entry}",
        &[(None, |of| of.stats.insertions)],
    ),
    ("hotset.cache.evictions", "{entry}", &[(None, |of| of.stats.evictions)]),
    (
        "hotset.cache.evicted_weight",
        "1",
        &[(None, |of| of.stats.evicted_weight)],
    ),
    (
        "hotset.cache.expirations",
        "{entry}",
        &[(None, |of| of.stats.expirations)],
    ),
    (
        "hotset.cache.rejections",
        "{entry}",
        &[(None, |of| of.stats.rejections)],
    ),
    (
        "hotset.cache.loads",
        "{load}",
        &[
            (Some((LOAD, "success")), |of| of.stats.loads),
            (Some((LOAD, "failure")), |of| of.stats.load_failures),
        ],
    ),
];

const HELD: [(&str, &str, Read); 3] = [
    ("hotset.cache.entries", "{entry}", |of| of.entries),
    ("hotset.cache.weight", "1", |of| of.weight),
    ("hotset.cache.capacity", "1", |of| of.capacity),
];

/// The upper bounds of the buckets of loads in seconds, as the Python package writes them, so that
/// sums over programs in several languages match.
const BOUNDS: [&str; 23] = [
    "1e-05", "2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
    "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "25.0", "50.0", "100.0", "+Inf",
];

/// Registers the instruments; to be called once.
pub fn observe(meter: &Meter, caches: &Caches) {
    for (name, unit, counts) in COUNTERS {
        let caches = caches.clone();
        let counter = meter.u64_observable_counter(name).with_unit(unit);
        _ = counter
            .with_callback(move |observer| {
                for (cache, figures) in caches.read() {
                    for (attribute, read) in counts {
                        let mut attributes = vec![KeyValue::new("hotset.cache.name", cache.to_owned())];
                        attributes.extend(attribute.map(|(key, value)| KeyValue::new(key, value)));
                        observer.observe(read(&figures), &attributes);
                    }
                }
            })
            .build();
    }
    // Observable instruments have no histogram: so each bucket is a counter, with those before it.
    let all = caches.clone();
    let buckets = meter
        .u64_observable_counter("hotset.cache.load.duration.bucket")
        .with_unit("{load}");
    _ = buckets
        .with_callback(move |observer| {
            for (cache, figures) in all.read() {
                let mut total = 0;
                for (le, loads) in BOUNDS.into_iter().zip(figures.stats.load_buckets.counts()) {
                    total += loads;
                    let name = KeyValue::new("hotset.cache.name", cache.to_owned());
                    observer.observe(total, &[name, KeyValue::new("le", le)]);
                }
            }
        })
        .build();
    let all = caches.clone();
    let time = meter.f64_observable_counter("hotset.cache.load.time").with_unit("s");
    _ = time
        .with_callback(move |observer| {
            for (cache, figures) in all.read() {
                let name = KeyValue::new("hotset.cache.name", cache.to_owned());
                observer.observe(figures.stats.load_time.as_secs_f64(), &[name]);
            }
        })
        .build();
    for (name, unit, read) in HELD {
        let caches = caches.clone();
        let held = meter.i64_observable_up_down_counter(name).with_unit(unit);
        _ = held
            .with_callback(move |observer| {
                for (cache, figures) in caches.read() {
                    let value = i64::try_from(read(&figures)).unwrap_or(i64::MAX);
                    observer.observe(value, &[KeyValue::new("hotset.cache.name", cache.to_owned())]);
                }
            })
            .build();
    }
}

fn main() {
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};

    // Use the exporter of opentelemetry-otlp here.
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let caches = Caches::default().with("pages", &hotset_metrics_examples::used_cache());
    observe(&provider.meter("hotset"), &caches);
    provider.force_flush().expect("the exporter is in memory");
    for metrics in exporter.get_finished_metrics().expect("there are some") {
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            println!("{} [{}] {:?}", metric.name(), metric.unit(), metric.data());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotset_metrics_examples::used_cache;
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, SumDataPoint};
    use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};

    fn series<T: Copy>(name: &str, point: &SumDataPoint<T>) -> (String, T) {
        let mut attributes: Vec<_> = point
            .attributes()
            .map(|one| format!("{}={}", one.key, one.value))
            .collect();
        attributes.sort();
        (format!("{name} {}", attributes.join(" ")), point.value())
    }

    #[test]
    fn collection_has_the_statistics() {
        let exporter = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(exporter.clone()).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let caches = Caches::default()
            .with("pages", &used_cache())
            .with("users", &used_cache());
        observe(&provider.meter("hotset"), &caches);
        provider.force_flush().unwrap();
        let finished = exporter.get_finished_metrics().unwrap();
        let (mut counts, mut held, mut seconds) = (Vec::new(), Vec::new(), 0);
        for metric in finished
            .last()
            .unwrap()
            .scope_metrics()
            .flat_map(|scope| scope.metrics())
        {
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic());
                    counts.extend(sum.data_points().map(|point| series(metric.name(), point)));
                }
                AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                    held.extend(sum.data_points().map(|point| series(metric.name(), point)));
                }
                AggregatedMetrics::F64(MetricData::Sum(sum)) => seconds += sum.data_points().count(),
                other => panic!("{}: {other:?}", metric.name()),
            }
        }
        let of = |text: &str, value| assert!(counts.contains(&(text.to_owned(), value)), "{text} in {counts:?}");
        of(
            "hotset.cache.requests hotset.cache.name=pages hotset.cache.request.type=hit",
            1,
        );
        of(
            "hotset.cache.requests hotset.cache.name=users hotset.cache.request.type=miss",
            2,
        );
        of(
            "hotset.cache.loads hotset.cache.load.result=failure hotset.cache.name=pages",
            1,
        );
        of("hotset.cache.insertions hotset.cache.name=pages", 1);
        assert!(held.contains(&("hotset.cache.capacity hotset.cache.name=pages".to_owned(), 1_000)));
        of("hotset.cache.load.duration.bucket hotset.cache.name=pages le=+Inf", 2);
        // Of each cache 11 counts, and 23 buckets.
        assert_eq!((counts.len(), held.len(), seconds), (2 * (11 + 23), 6, 2));
    }
}
