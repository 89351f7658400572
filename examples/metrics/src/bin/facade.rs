//! hotset's statistics through the `metrics` facade, here to metrics-exporter-prometheus.

use hotset_metrics_examples::used_cache;
use metrics_exporter_prometheus::PrometheusBuilder;

fn scrape() -> String {
    let exporter = PrometheusBuilder::new().install_recorder().expect("it is the first"); // once
    hotset::metrics::describe();
    let pages = used_cache();
    hotset::metrics::publish("pages", &pages); // on each scrape, before the text is rendered
    exporter.render()
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
            "# TYPE hotset_cache_requests_total counter",
            "hotset_cache_requests_total{cache=\"pages\",result=\"hit\"} 1",
            "hotset_cache_requests_total{cache=\"pages\",result=\"miss\"} 2",
            "hotset_cache_load_duration_seconds_bucket{cache=\"pages\",le=\"+Inf\"} 2",
            "hotset_cache_load_duration_seconds_count{cache=\"pages\"} 2",
            "hotset_cache_capacity{cache=\"pages\"} 1000",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
