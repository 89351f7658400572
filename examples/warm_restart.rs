//! A process fills its cache from a trace and saves snapshots, is killed in the middle of one, and starts again: warm from the
//! snapshot, and beside it cold.
//!
//! ```sh
//! cargo run --release --example warm_restart                  # a workload of its own
//! cargo run --release --example warm_restart -- trace.u32.gz  # a trace; `replay --help` tells the formats
//! ```

#[path = "replay/csv.rs"]
#[allow(dead_code)]
mod csv;
#[path = "warm_restart/curves.rs"]
mod curves;
#[path = "replay/formats.rs"]
#[allow(dead_code)]
mod formats;
#[path = "replay/plot.rs"]
mod plot;
#[path = "replay/progress.rs"]
#[allow(dead_code)]
mod progress;
#[path = "warm_restart/service.rs"]
mod service;
#[path = "replay/trace.rs"]
#[allow(dead_code)]
mod trace;
#[path = "replay/workload.rs"]
#[allow(dead_code)]
mod workload;

use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use plotters::style::RGBColor;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use curves::Curve;
use service::{Event, Job};

/// Hit ratios before and after the restart are those of so many windows.
const COMPARED: usize = 10;
/// The service is killed in one of so many saves after its first.
const LATER_SAVES: usize = 4;

/// A job in a process of its own, and what it tells.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(job: &Job) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| format!("this program's own path: {e}"))?;
        let mut command = Command::new(program);
        // A test is started as a test.
        #[cfg(test)]
        command.args(["--exact", "tests::the_service", "--ignored", "--nocapture"]);
        let mut child = job
            .hand_to(&mut command)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start another process: {e}"))?;
        let out = child
            .stdout
            .take()
            .map(BufReader::new)
            .ok_or("no pipe to the process")?;
        Ok(Self { child, out })
    }

    /// What it tells next; nothing once it has ended.
    fn next(&mut self) -> Result<Option<Event>, String> {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.out.read_line(&mut line);
            if read.map_err(|e| format!("reading from the process: {e}"))? == 0 {
                return Ok(None);
            }
            if let Some(event) = Event::parse(&line) {
                return Ok(Some(event));
            }
        }
    }

    fn ended(&mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|e| format!("waiting for the process: {e}"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the process ended with {status}"))
        }
    }
}

impl Drop for Running {
    /// An error of ours must not leave it running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the first process told before it was killed.
struct Before {
    ratios: Vec<f64>,
    /// The request at which the last save began, and the one up to which the last finished save knows.
    begun: usize,
    saved: usize,
}

/// Fills and saves, and kills the process at a random moment of a later save.
fn fill_and_kill(job: &Job, random: &mut Xoshiro256PlusPlus) -> Result<Before, String> {
    let mut running = Running::start(job)?;
    let mut before = Before {
        ratios: Vec::new(),
        begun: 0,
        saved: 0,
    };
    let mut longest = Duration::from_millis(1);
    let mut saves = random.random_range(1..=LATER_SAVES);
    let mut begun = Instant::now();
    loop {
        match running.next()?.ok_or("the service ended before it could be killed")? {
            Event::Window(ratio) => before.ratios.push(ratio),
            Event::Saving(at) => {
                (before.begun, begun) = (at, Instant::now());
                if before.saved > 0 {
                    saves -= 1;
                }
                if saves == 0 {
                    break;
                }
            }
            Event::Saved(at) => (before.saved, longest) = (at, longest.max(begun.elapsed())),
            Event::Loaded { .. } | Event::FirstHit { .. } => {}
        }
    }
    std::thread::sleep(longest.mul_f64(random.random()));
    running
        .child
        .kill()
        .map_err(|e| format!("cannot kill the process: {e}"))?; // SIGKILL
    while let Some(event) = running.next()? {
        match event {
            Event::Window(ratio) => before.ratios.push(ratio),
            Event::Saving(at) => before.begun = at,
            Event::Saved(at) => before.saved = at,
            Event::Loaded { .. } | Event::FirstHit { .. } => {}
        }
    }
    Ok(before)
}

/// What a process told that goes on after the kill.
#[derive(Default)]
struct After {
    ratios: Vec<f64>,
    loaded: Option<(u64, Duration)>,
    first_hit: Option<(u64, Duration)>,
}

fn go_on(job: &Job) -> Result<After, String> {
    let mut running = Running::start(job)?;
    let mut after = After::default();
    while let Some(event) = running.next()? {
        match event {
            Event::Window(ratio) => after.ratios.push(ratio),
            Event::Loaded { entries, time } => after.loaded = Some((entries, time)),
            Event::FirstHit { request, time } => after.first_hit = Some((request, time)),
            Event::Saving(_) | Event::Saved(_) => {}
        }
    }
    running.ended()?;
    Ok(after)
}

fn mean(ratios: &[f64]) -> f64 {
    ratios.iter().sum::<f64>() / ratios.len().max(1) as f64
}

fn shown(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// The whole demonstration; true if it shows what it is to show.
fn demonstrate(trace: Option<PathBuf>, folder: &Path, svg: &Path, out: &mut impl Write) -> Result<bool, String> {
    let said = |e: io::Error| format!("standard output: {e}");
    let snapshot = folder.join("cache.hotset");
    let job = |role, from| Job {
        role,
        snapshot: snapshot.clone(),
        trace: trace.clone(),
        from,
    };
    // The kill must hit another place of the save in every run.
    let mut random = Xoshiro256PlusPlus::seed_from_u64(RandomState::new().hash_one(0));

    match &trace {
        Some(path) => writeln!(out, "Trace: {}", path.display()),
        None => writeln!(
            out,
            "No trace was given: a workload of its own, whose popular keys change."
        ),
    }
    .map_err(said)?;
    let before = fill_and_kill(&job(service::Role::Fill, 0), &mut random)?;
    let interrupted = before.begun > before.saved;
    writeln!(
        out,
        "Killed {} the save at request {}; the last one told to be finished was at request {}.",
        if interrupted { "during" } else { "after" },
        before.begun,
        before.saved
    )
    .map_err(said)?;
    let warm = go_on(&job(service::Role::Warm, before.begun))?;
    let cold = go_on(&job(service::Role::Cold, before.begun))?;

    let last = &before.ratios[before.ratios.len().saturating_sub(COMPARED)..];
    let first = |after: &After| mean(&after.ratios[..COMPARED.min(after.ratios.len())]);
    let (was, warm_is, cold_is) = (mean(last), first(&warm), first(&cold));
    if let Some((entries, time)) = warm.loaded {
        writeln!(out, "Opened a snapshot of {entries} entries in {}.\n", shown(time)).map_err(said)?;
    }
    writeln!(
        out,
        "| | time to first hit | at request | hit ratio, {COMPARED} windows |\n|---|---:|---:|---:|"
    )
    .map_err(said)?;
    writeln!(out, "| before the kill | | | {:.1}% |", was * 100.0).map_err(said)?;
    for (name, after, ratio) in [("warm restart", &warm, warm_is), ("cold start", &cold, cold_is)] {
        let (request, time) = after.first_hit.ok_or_else(|| format!("{name}: not a single hit"))?;
        writeln!(out, "| {name} | {} | {request} | {:.1}% |", shown(time), ratio * 100.0).map_err(said)?;
    }
    writeln!(out, "(Misses cost this service nothing; others wait for their source.)").map_err(said)?;
    let curves = [
        Curve {
            name: "before the kill",
            color: RGBColor(0x22, 0x22, 0x22),
            sign: '*',
            from: 0,
            ratios: &before.ratios,
        },
        Curve {
            name: "cold start",
            color: RGBColor(0x00, 0x72, 0xb2),
            sign: 'o',
            from: before.ratios.len(),
            ratios: &cold.ratios,
        },
        Curve {
            name: "warm restart",
            color: RGBColor(0xd5, 0x5e, 0x00),
            sign: '#',
            from: before.ratios.len(),
            ratios: &warm.ratios,
        },
    ];
    writeln!(out, "\n{}", curves::text(&curves, before.ratios.len())).map_err(said)?;
    let chart = curves::svg(&curves, before.ratios.len())?;
    std::fs::write(svg, chart).map_err(|e| format!("{}: {e}", svg.display()))?;
    writeln!(out, "Chart: {}", svg.display()).map_err(said)?;

    // A window is noisy, and popularity moves on while the service is down.
    let kept = (warm_is - cold_is) >= 0.5 * (was - cold_is);
    writeln!(out, "The restart is warm: {}", if kept { "yes" } else { "NO" }).map_err(said)?;
    Ok(kept)
}

/// Runs the demonstration in a folder that is removed afterwards.
fn in_a_folder(trace: Option<PathBuf>, svg: &Path, out: &mut impl Write) -> Result<bool, String> {
    let folder = std::env::temp_dir().join(format!("hotset-warm-restart-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let result = demonstrate(trace, &folder, svg, out);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

/// Kills a process while it saves its cache, and compares a warm restart from the snapshot with a
/// cold start.
#[derive(Parser)]
#[command(name = "warm_restart")]
struct Args {
    /// A trace to run on (`replay --help` lists the formats) [default: a generated workload]
    #[arg(value_name = "TRACE")]
    trace: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Job::handed() {
        Some(job) => job.and_then(|job| service::run(&job)).map(|()| true),
        None => in_a_folder(Args::parse().trace, &default_chart(), &mut io::stdout()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            let _ = writeln!(io::stderr(), "warm_restart: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The build's own folder when there is one, so that no file is left lying about.
fn default_chart() -> PathBuf {
    let folder = if Path::new("target").is_dir() { "target" } else { "." };
    Path::new(folder).join("warm-restart.svg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "the process that is killed, or started again; does nothing unless that test starts it"]
    fn the_service() {
        if let Some(job) = Job::handed() {
            println!(); // ends the line that the test harness began
            service::run(&job.unwrap()).unwrap();
        }
    }

    #[test]
    fn a_restart_is_warm() {
        let svg = std::env::temp_dir().join(format!("hotset-warm-restart-{}.svg", std::process::id()));
        let mut out = Vec::new();
        let warm = in_a_folder(None, &svg, &mut out).unwrap();
        let _ = std::fs::remove_file(&svg);
        assert!(warm, "{}", String::from_utf8_lossy(&out));
    }
}
