//! Medians, paired ratios, latencies, markdown tables, and the noise caused by other processes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies in nanoseconds, with three significant digits; longer than a minute counts as a
/// minute.
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new_with_max(60_000_000_000, 3).expect("the bounds are valid"))
    }
}

impl Latencies {
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }
    pub fn clear(&mut self) {
        self.0.reset();
    }
    /// Returns the latency that the share `q` of the calls does not exceed.
    pub fn quantile(&self, q: f64) -> f64 {
        self.0.value_at_quantile(q) as f64
    }
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }
}

/// Returns the quantile `q` of `values` (nearest rank).
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n % 2 == 1 {
        sorted[n / 2]
    } else {
        (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0
    }
}

/// The target of a figure.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Target {
    pub fn text(self) -> String {
        match self {
            Target::AtMost(x) => format!("<= {x}"),
            Target::AtLeast(x) => format!(">= {x}"),
            Target::None => "-".into(),
        }
    }
    pub fn verdict(self, got: f64) -> &'static str {
        let met = match self {
            Target::AtMost(x) => got <= x,
            Target::AtLeast(x) => got >= x,
            Target::None => return "-",
        };
        if met { "met" } else { "MISSED" }
    }
}

/// The ratios of two series measured in the same rounds: their median, and the quartiles, which
/// show the noise.
pub struct Ratio {
    pub median: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    pub fn of(ours: &[f64], theirs: &[f64]) -> Self {
        let each: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Ratio {
            median: median(&each),
            low: quantile(&each, 0.25),
            high: quantile(&each, 0.75),
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "**{:.2}** ({:.2}..{:.2})", self.median, self.low, self.high)
    }
}

/// A markdown table, printed row by row, so that a long run shows its progress.
pub struct Table;

impl Table {
    pub fn new<S: AsRef<str>>(title: &str, columns: &[S]) -> Self {
        println!("\n### {title}\n");
        Table.row(columns);
        println!("|{}", "---|".repeat(columns.len()));
        Table
    }
    pub fn row<S: AsRef<str>>(&self, cells: &[S]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        println!("| {} |", cells.join(" | "));
    }
}

static MEASURED: AtomicU64 = AtomicU64::new(0);
static WAITED: AtomicU64 = AtomicU64::new(0);

/// Measures how long the calling thread, while ready to run, waits for a busy processor.
pub struct Watch {
    start: Instant,
    waited: Option<u64>,
}

impl Watch {
    /// Reads the time from Linux, which does not count a blocked thread as waiting. Elsewhere
    /// nothing is reported.
    fn waited() -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat")
            .ok()?
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    }
    pub fn start() -> Self {
        let waited = Self::waited();
        Watch {
            start: Instant::now(),
            waited,
        }
    }
    pub fn stop(self) {
        let time = self.start.elapsed().as_nanos() as u64;
        if let (Some(before), Some(now)) = (self.waited, Self::waited()) {
            MEASURED.fetch_add(time, Relaxed);
            WAITED.fetch_add(now - before, Relaxed);
        }
    }
}

/// Returns the share of the measured time for which threads waited for a processor, if any time was
/// measured.
pub fn waited() -> Option<f64> {
    let measured = MEASURED.load(Relaxed);
    (measured > 0).then(|| WAITED.load(Relaxed) as f64 / measured as f64)
}

/// Prints the share of the measured time for which threads waited. Called after a job.
pub fn disturbance() {
    if let Some(share) = waited() {
        let share = 100.0 * share;
        let advice = if share > 2.0 {
            ": run it again on a quieter machine before believing it"
        } else {
            ""
        };
        println!("\nWhile measured, the threads waited {share:.1}% of the time for a processor{advice}.");
    }
}
