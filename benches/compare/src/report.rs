//! Medians, paired ratios, markdown tables, and how much other processes disturbed it all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The quantile `q` of `values` (nearest rank).
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

/// What a figure is held to.
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

/// The ratios of two series taken in the same rounds: their median, and the quartiles to judge the noise by.
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

/// One markdown table, printed row by row, so that a long run shows its progress.
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

/// Counts how long the calling thread, while ready to run, waits for a processor that others have.
pub struct Watch {
    start: Instant,
    waited: Option<u64>,
}

impl Watch {
    /// Linux tells (a blocked thread does not count as waiting); elsewhere nothing is reported.
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

/// To be printed after a job.
pub fn disturbance() {
    let (measured, waited) = (MEASURED.load(Relaxed), WAITED.load(Relaxed));
    if measured > 0 {
        let share = 100.0 * waited as f64 / measured as f64;
        let advice = if share > 2.0 {
            ": run it again on a quieter machine before believing it"
        } else {
            ""
        };
        println!("\nWhile measured, the threads waited {share:.1}% of the time for a processor{advice}.");
    }
}
