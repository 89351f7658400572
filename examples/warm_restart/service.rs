//! The process that has a cache: what it is to do, what it tells, and its work.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hotset::Cache;

use crate::csv::Columns;
use crate::formats::{self, Format};
use crate::trace::Trace;
use crate::workload;

/// A window is so small a part of the trace.
const WINDOWS: usize = 500;
/// The cache holds so small a part of the trace's keys.
const PART: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Replays more than half of the trace, saves, and goes on to save after every window.
    Fill,
    /// Loads the snapshot, and replays from where the first process was killed.
    Warm,
    /// Does the same without the snapshot.
    Cold,
}

/// What a process is to do. It is handed over in the environment.
pub(crate) struct Job {
    pub(crate) role: Role,
    pub(crate) snapshot: PathBuf,
    pub(crate) trace: Option<PathBuf>,
    /// The first request.
    pub(crate) from: usize,
}

const ROLES: [(&str, Role); 3] = [("fill", Role::Fill), ("warm", Role::Warm), ("cold", Role::Cold)];
const ROLE: &str = "HOTSET_RESTART_ROLE";
const SNAPSHOT: &str = "HOTSET_RESTART_SNAPSHOT";
const TRACE: &str = "HOTSET_RESTART_TRACE";
const FROM: &str = "HOTSET_RESTART_FROM";

impl Job {
    pub(crate) fn hand_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let name = ROLES.iter().find(|role| role.1 == self.role).map_or("", |role| role.0);
        command
            .env(ROLE, name)
            .env(SNAPSHOT, &self.snapshot)
            .env(TRACE, self.trace.as_deref().unwrap_or(Path::new("")))
            .env(FROM, self.from.to_string())
    }

    /// The job that this process was started for, if it was started for one.
    pub(crate) fn handed() -> Option<Result<Self, String>> {
        let role = std::env::var_os(ROLE)?;
        let read = |name| std::env::var_os(name).ok_or_else(|| format!("{name} is not set"));
        let job = || {
            let trace: OsString = read(TRACE)?;
            Ok(Self {
                role: ROLES.iter().find(|known| role == known.0).ok_or("no such role")?.1,
                snapshot: read(SNAPSHOT)?.into(),
                trace: (!trace.is_empty()).then(|| trace.into()),
                from: read(FROM)?
                    .to_str()
                    .and_then(|n| n.parse().ok())
                    .ok_or("no number of a request")?,
            })
        };
        Some(job())
    }
}

/// What a process tells, a line each.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// The hit ratio of one more window.
    Window(f64),
    /// A save of what the requests up to this one left begins.
    Saving(usize),
    Saved(usize),
    Loaded {
        entries: u64,
        time: Duration,
    },
    /// How many requests it took, and how long since before the cache was built.
    FirstHit {
        request: u64,
        time: Duration,
    },
}

impl Event {
    fn tell(&self) {
        match self {
            Self::Window(ratio) => println!("window {ratio}"),
            Self::Saving(at) => println!("saving {at}"),
            Self::Saved(at) => println!("saved {at}"),
            Self::Loaded { entries, time } => println!("loaded {entries} {}", time.as_nanos()),
            Self::FirstHit { request, time } => println!("first-hit {request} {}", time.as_nanos()),
        }
    }

    /// Nothing for a line that is no event, or was cut off by the kill.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        let (kind, number) = (words.next()?, words.next()?);
        let mut time = || Some(Duration::from_nanos(words.next()?.parse().ok()?));
        Some(match kind {
            "window" => Self::Window(number.parse().ok()?),
            "saving" => Self::Saving(number.parse().ok()?),
            "saved" => Self::Saved(number.parse().ok()?),
            "loaded" => Self::Loaded {
                entries: number.parse().ok()?,
                time: time()?,
            },
            "first-hit" => Self::FirstHit {
                request: number.parse().ok()?,
                time: time()?,
            },
            _ => return None,
        })
    }
}

fn read_trace(path: Option<&Path>) -> Result<Trace, String> {
    match path {
        None => workload::generate("shifting popularity", None),
        Some(path) => {
            let format =
                Format::of(path).ok_or_else(|| format!("{}: the extension names no format", path.display()))?;
            formats::read(path, format, &Columns::default(), None)
        }
    }
}

/// What the service would fetch from its source for a key.
fn value(key: u64) -> Vec<u8> {
    let mut value = vec![0; 100];
    value[..8].copy_from_slice(&key.to_le_bytes());
    value
}

/// One window: a get per request, and an insertion if that misses. Its hit ratio, and the first hit's request.
fn replay(cache: &Cache<u64, Vec<u8>>, keys: &[u32], mut hit: impl FnMut(usize)) -> Result<f64, String> {
    let mut hits = 0;
    for (at, &key) in keys.iter().enumerate() {
        let key = u64::from(key);
        match cache.get(&key) {
            Some(found) if found == value(key) => {
                hits += 1;
                hit(at);
            }
            Some(_) => return Err(format!("a wrong value for key {key}")),
            None => cache.insert(key, value(key)),
        }
    }
    Ok(hits as f64 / keys.len() as f64)
}

/// Does the job of this process.
pub(crate) fn run(job: &Job) -> Result<(), String> {
    let trace = read_trace(job.trace.as_deref())?;
    let window = (trace.keys.len() / WINDOWS).max(1);
    let start = Instant::now();
    let cache: Cache<u64, Vec<u8>> = Cache::new((trace.unique / PART).max(1));
    let failed = |e| format!("{}: {e}", job.snapshot.display());
    if job.role == Role::Warm {
        let loaded = cache.load(&job.snapshot).map_err(failed)?;
        Event::Loaded {
            entries: loaded.entries,
            time: start.elapsed(),
        }
        .tell();
    }
    let mut at = job.from.min(trace.keys.len());
    let mut waiting = job.role != Role::Fill;
    while at + window <= trace.keys.len() {
        let ratio = replay(&cache, &trace.keys[at..at + window], |hit| {
            if std::mem::take(&mut waiting) {
                let request = (at + hit - job.from + 1) as u64;
                Event::FirstHit {
                    request,
                    time: start.elapsed(),
                }
                .tell();
            }
        })?;
        at += window;
        Event::Window(ratio).tell();
        if job.role == Role::Fill && at >= trace.keys.len() / 100 * 55 {
            Event::Saving(at).tell();
            cache.save(&job.snapshot).map_err(failed)?;
            Event::Saved(at).tell();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_or_none() {
        assert_eq!(Event::parse("window 0.5\n"), Some(Event::Window(0.5)));
        let (request, time) = (3, Duration::from_nanos(70));
        assert_eq!(
            Event::parse("first-hit 3 70\n"),
            Some(Event::FirstHit { request, time })
        );
        for line in ["", "\n", "window 0.5", "first-hit 3\n", "running 1 test\n", "saved x\n"] {
            assert_eq!(Event::parse(line), None, "{line:?}");
        }
    }
}
