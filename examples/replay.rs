//! Replays access traces through the real cache and compares its policies with the optimum and with exact LRU.
//!
//! ```sh
//! cargo run --release --example replay                       # workloads of its own
//! cargo run --release --example replay -- trace.csv.zst      # a trace; --help tells the formats
//! ```

#[path = "replay/args.rs"]
mod args;
#[path = "replay/chart.rs"]
mod chart;
#[path = "replay/csv.rs"]
mod csv;
#[path = "replay/formats.rs"]
mod formats;
#[path = "replay/heap.rs"]
mod heap;
#[path = "replay/oracle.rs"]
mod oracle;
#[path = "replay/plot.rs"]
mod plot;
#[path = "replay/progress.rs"]
mod progress;
#[path = "replay/report.rs"]
mod report;
#[path = "replay/run.rs"]
mod run;
#[path = "replay/trace.rs"]
mod trace;
#[path = "replay/workload.rs"]
mod workload;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use args::{Capacity, Options};
use progress::Progress;
use report::{Report, Row};
use run::Bound;
use trace::Trace;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// Why the program stops early.
enum Failure {
    /// A message for the user.
    Told(String),
    /// Nobody reads the output any more, as in `replay | head`: not worth a message.
    Closed,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Told(message)
    }
}

fn main() -> ExitCode {
    exit(replay_all(&args::parse()))
}

fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Told(message)) => {
            let _ = writeln!(io::stderr(), "replay: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output. `print!` would panic when that is closed.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Told(format!("standard output: {e}")),
        })
}

fn replay_all(options: &Options) -> Result<(), Failure> {
    let mut reports = Vec::new();
    // One trace in memory at a time: each may be large.
    for (path, format) in &options.files {
        let trace = formats::read(path, *format, &options.columns, options.limit)?;
        reports.push(measured(&trace, options)?);
    }
    if options.files.is_empty() {
        for name in workload::names() {
            reports.push(measured(&workload::generate(name, options.limit)?, options)?);
        }
    }
    let path = options.svg.clone().unwrap_or_else(default_chart);
    std::fs::write(&path, chart::draw(&reports)?).map_err(|e| format!("{}: {e}", path.display()))?;
    say(&format!("Chart: {}\n{}\n", path.display(), report::sentence(&reports)))
}

/// The build's own folder when there is one, so that no file is left lying about.
fn default_chart() -> PathBuf {
    let name = if Path::new("target").is_dir() {
        "target/replay.svg"
    } else {
        "hit-ratio.svg"
    };
    PathBuf::from(name)
}

/// Measures a trace and prints its table.
fn measured(trace: &Trace, options: &Options) -> Result<Report, Failure> {
    let report = measure(trace, options)?;
    say(&format!("{}\n", report.table()))?;
    Ok(report)
}

/// The capacities to try, smallest first, each once, with the percentage it came from.
fn capacities(asked: &[Capacity], total: u64) -> Vec<(u64, Option<f64>)> {
    let mut all: Vec<(u64, Option<f64>)> = (asked.iter())
        .map(|capacity| {
            (
                capacity.of(total),
                if let Capacity::Percent(p) = capacity {
                    Some(*p)
                } else {
                    None
                },
            )
        })
        .collect();
    all.sort_by_key(|entry| entry.0);
    all.dedup_by_key(|entry| entry.0);
    all
}

fn measure(trace: &Trace, options: &Options) -> Result<Report, String> {
    let smallest = if options.bytes {
        let sizes = trace.smallest_sizes();
        Some(sizes.ok_or_else(|| format!("{}: --bytes needs sizes, and this trace tells none", trace.name))?)
    } else {
        None
    };
    // The bounds on keys and sizes keep this sum inside 64 bits.
    let bytes: Option<u64> = smallest.as_ref().map(|sizes| sizes.iter().sum());
    let capacities = capacities(&options.capacities, bytes.unwrap_or(trace.unique as u64));
    let (optima, lru) = oracles(trace, &capacities, smallest.as_deref());

    let requests = trace.keys.len() as f64;
    let mut rows = Vec::new();
    for (i, &(capacity, percent)) in capacities.iter().enumerate() {
        let mut ratios = Vec::new();
        let (mut rate, mut peak) = (0.0, 0);
        for contender in &options.contenders {
            let label = format!(
                "{}: {}, capacity {capacity} ({}/{})",
                trace.name,
                contender.name(),
                i + 1,
                capacities.len()
            );
            let progress = Progress::new(label, trace.keys.len() as u64);
            let bound = if options.bytes {
                Bound::Bytes(capacity)
            } else {
                Bound::Entries(capacity)
            };
            let outcome = run::replay(trace, contender.policy(), bound, options.threads, &progress)?;
            if ratios.is_empty() {
                rate = requests / outcome.elapsed.as_secs_f64().max(1e-9);
                peak = outcome.peak;
            }
            ratios.push(outcome.hits as f64 / requests);
        }
        let (optimum, lru) = (optima[i] as f64 / requests, lru[i] as f64 / requests);
        rows.push(Row {
            capacity,
            percent,
            optimum,
            lru,
            ratios,
            rate,
            peak,
        });
    }
    Ok(Report {
        name: trace.name.clone(),
        requests: trace.keys.len(),
        unique: trace.unique,
        bytes,
        threads: options.threads,
        policies: options.contenders.iter().map(|contender| contender.name()).collect(),
        rows,
    })
}

/// The hits of the optimum (with sizes, a bound on it) and of exact LRU at each capacity.
fn oracles(trace: &Trace, capacities: &[(u64, Option<f64>)], smallest: Option<&[u64]>) -> (Vec<u64>, Vec<u64>) {
    let requests = trace.keys.len() as u64;
    let next = oracle::next_uses(trace);
    if let (Some(smallest), Some(sizes)) = (smallest, &trace.sizes) {
        let progress = Progress::new(format!("{}: exact LRU", trace.name), requests * capacities.len() as u64);
        let lru = capacities
            .iter()
            .map(|&(c, _)| oracle::lru_hits_bytes(trace, sizes, c, &progress))
            .collect();
        let wanted: Vec<u64> = capacities.iter().map(|entry| entry.0).collect();
        return (oracle::hit_bound_bytes(trace, &next, smallest, &wanted), lru);
    }
    // A cache larger than all keys together hits no more than one that just holds them.
    let entries = |capacity: u64| usize::try_from(capacity).unwrap_or(usize::MAX).min(trace.unique);
    let progress = Progress::new(format!("{}: exact LRU", trace.name), requests);
    let all = oracle::lru_hits(trace, &progress);
    drop(progress);
    let lru = capacities.iter().map(|&(c, _)| all[entries(c)]).collect();
    let progress = Progress::new(format!("{}: optimum", trace.name), requests * capacities.len() as u64);
    let optima = capacities
        .iter()
        .map(|&(c, _)| oracle::optimum_hits(trace, &next, entries(c), &progress))
        .collect();
    (optima, lru)
}
