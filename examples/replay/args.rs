//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use hotset::Policy;

use crate::csv::{Column, Columns};
use crate::formats::Format;

pub(crate) const HELP: &str = "\
Replays access traces through hotset's cache and compares its policies with Belady's optimum and exact LRU.

Usage: replay [OPTIONS] [FILE...]

Without a FILE it generates its own workloads: zipf, looping scans, shifting popularity.

Options:
  --capacity LIST     capacities, as entries or as percent of the trace's keys (with --bytes: bytes, or percent of
                      their total size) [default: 0.5%,1%,2%,5%,10%,25%]
  --policies LIST     of wtinylfu, lru, lfu, fifo, random [default: all]
  --threads N         replay with N threads, which take turns in chunks of the trace [default: 1]
  --bytes             bound the cache by bytes; needs a trace that tells sizes
  --limit N           replay only the first N requests of each trace
  --format FORMAT     of every FILE: u32, u64, arc, lirs, text, csv [default: by extension]
  --key-column C      CSV column of the key, by name or counted from 1 [default: guessed]
  --size-column C     CSV column of the size, by name or counted from 1 [default: guessed]
  --svg FILE          where to draw the chart [default: target/replay.svg, or hit-ratio.svg without a target folder]
  -h, --help          print this

Formats, each plain or compressed (.gz, .zst):
  .u32 .u64   raw little-endian keys
  .lis        ARC: start, count, ignored, request number
  .trc        LIRS: one number per line
  .txt        one key per line, optionally followed by its size
  .csv        libCacheSim (time,obj,size,...) or Twitter (time,key,key_size,value_size,client,op,ttl)
";

const DEFAULT_CAPACITIES: &str = "0.5%,1%,2%,5%,10%,25%";
const DEFAULT_POLICIES: &str = "wtinylfu,lru,lfu,fifo,random";
/// More threads than this are a typing error.
const MAX_THREADS: usize = 1_024;

/// A capacity as asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Capacity {
    Absolute(u64),
    Percent(f64),
}

impl Capacity {
    /// The capacity for a trace of `total` keys or bytes; at least 1.
    pub(crate) fn of(&self, total: u64) -> u64 {
        match *self {
            Self::Absolute(n) => n,
            Self::Percent(p) => ((total as f64 * p / 100.0).round() as u64).max(1),
        }
    }
}

/// A policy and how tables and charts call it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    pub(crate) policy: Policy,
    pub(crate) name: &'static str,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) files: Vec<(PathBuf, Format)>,
    pub(crate) capacities: Vec<Capacity>,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) threads: usize,
    pub(crate) bytes: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) columns: Columns,
    pub(crate) svg: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    Help,
    Replay(Box<Options>),
}

/// Understands the arguments that follow the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut options = Options {
        files: Vec::new(),
        capacities: capacities(DEFAULT_CAPACITIES)?,
        contenders: contenders(DEFAULT_POLICIES)?,
        threads: 1,
        bytes: false,
        limit: None,
        columns: Columns::default(),
        svg: None,
    };
    let mut format = None;
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str().filter(|text| text.starts_with('-') && *text != "-") else {
            paths.push(arg.into());
            continue;
        };
        if text == "--" {
            paths.extend(args.by_ref().map(PathBuf::from));
            break;
        }
        let (flag, inline) = match text.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(OsString::from(value))),
            _ => (text, None),
        };
        match flag {
            "-h" | "--help" | "--bytes" if inline.is_some() => return Err(format!("{flag} takes no value")),
            "-h" | "--help" => return Ok(Request::Help),
            "--bytes" => options.bytes = true,
            "--capacity" | "--policies" | "--threads" | "--limit" | "--format" | "--key-column" | "--size-column"
            | "--svg" => {
                let raw = inline
                    .or_else(|| args.next())
                    .ok_or_else(|| format!("{flag} needs a value"))?;
                if flag == "--svg" {
                    options.svg = Some(raw.into());
                    continue;
                }
                let value = raw
                    .to_str()
                    .ok_or_else(|| format!("the value of {flag} is not UTF-8"))?;
                let wrong = |what: String| format!("{flag}: {what}");
                match flag {
                    "--capacity" => options.capacities = capacities(value).map_err(wrong)?,
                    "--policies" => options.contenders = contenders(value).map_err(wrong)?,
                    "--threads" => options.threads = count(value, MAX_THREADS).map_err(wrong)?,
                    "--limit" => options.limit = Some(count(value, usize::MAX).map_err(wrong)?),
                    "--format" => {
                        let known = Format::named(value);
                        let unknown = || wrong(format!("no format {value:?}; there are {}", Format::NAMES));
                        format = Some(known.ok_or_else(unknown)?);
                    }
                    "--key-column" => options.columns.key = Some(column(value).map_err(wrong)?),
                    _ => options.columns.size = Some(column(value).map_err(wrong)?),
                }
            }
            _ => return Err(format!("unknown option {flag:?}")),
        }
    }
    for path in paths {
        let known = format.or_else(|| Format::of(&path));
        let known = known.ok_or_else(|| {
            format!(
                "{}: the extension tells no format; give --format (one of {})",
                path.display(),
                Format::NAMES
            )
        })?;
        options.files.push((path, known));
    }
    Ok(Request::Replay(Box::new(options)))
}

fn count(value: &str, most: usize) -> Result<usize, String> {
    match value.parse() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        Ok(n) if n > most => Err(format!("{n} is more than {most}")),
        _ => Err(format!("{value:?} is not a whole number above 0")),
    }
}

fn capacities(list: &str) -> Result<Vec<Capacity>, String> {
    let one = |item: &str| {
        let wrong = || format!("{item:?} is neither a whole number above 0 nor a percentage above 0% up to 100%");
        if let Some(percent) = item.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            let fits = percent > 0.0 && percent <= 100.0;
            return if fits {
                Ok(Capacity::Percent(percent))
            } else {
                Err(wrong())
            };
        }
        item.parse()
            .ok()
            .filter(|n| *n > 0)
            .map(Capacity::Absolute)
            .ok_or_else(wrong)
    };
    list.split(',').map(|item| one(item.trim())).collect()
}

fn contenders(list: &str) -> Result<Vec<Contender>, String> {
    let mut chosen: Vec<Contender> = Vec::new();
    for item in list.split(',').map(str::trim) {
        let (policy, name) = match item.to_ascii_lowercase().as_str() {
            "wtinylfu" | "w-tinylfu" => (Policy::WTinyLfu, "W-TinyLFU"),
            "lru" => (Policy::Lru, "LRU"),
            "lfu" => (Policy::Lfu, "LFU"),
            "fifo" => (Policy::Fifo, "FIFO"),
            "random" => (Policy::Random, "Random"),
            _ => return Err(format!("no policy {item:?}; there are {DEFAULT_POLICIES}")),
        };
        if chosen.iter().all(|other| other.name != name) {
            chosen.push(Contender { policy, name });
        }
    }
    Ok(chosen)
}

fn column(value: &str) -> Result<Column, String> {
    match value.parse::<usize>() {
        Ok(0) => Err("columns are counted from 1".to_owned()),
        Ok(n) => Ok(Column::At(n - 1)),
        Err(_) if value.trim().is_empty() => Err("the name is empty".to_owned()),
        Err(_) => Ok(Column::Named(value.trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Request::Replay(options) => Ok(*options),
            Request::Help => Err("help".to_owned()),
        }
    }

    #[test]
    fn everything_at_once() {
        let got =
            options("--capacity=1%,50 --policies lru,wtinylfu,lru --threads 4 --bytes --limit=9 a.u32.gz -- -b.csv");
        let got = got.unwrap();
        assert_eq!(got.capacities, [Capacity::Percent(1.0), Capacity::Absolute(50)]);
        assert_eq!(
            got.contenders.iter().map(|c| c.name).collect::<Vec<_>>(),
            ["LRU", "W-TinyLFU"]
        );
        assert_eq!((got.threads, got.bytes, got.limit), (4, true, Some(9)));
        assert_eq!(
            got.files,
            [("a.u32.gz".into(), Format::U32), ("-b.csv".into(), Format::Csv)]
        );
        assert_eq!(options("--format arc x").unwrap().files, [("x".into(), Format::Arc)]);
        assert!(matches!(parse(["-h".into()]), Ok(Request::Help)));
    }

    #[test]
    fn bad_values_are_named() {
        for (line, what) in [
            ("--frobnicate", "unknown option \"--frobnicate\""),
            ("-x", "unknown option"),
            ("--threads", "--threads needs a value"),
            ("--threads 0", "above 0"),
            ("--threads 9999", "more than 1024"),
            ("--capacity 0", "--capacity: \"0\""),
            ("--capacity 0%", "percentage"),
            ("--capacity NaN%", "percentage"),
            ("--capacity 101%", "percentage"),
            ("--capacity 1%,", "\"\""),
            ("--policies arc", "no policy \"arc\""),
            ("--format tar x", "no format \"tar\""),
            ("--key-column 0", "counted from 1"),
            ("--bytes=yes", "takes no value"),
            ("--limit -1", "above 0"),
            ("trace.bin", "tells no format"),
            ("trace.gz", "tells no format"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(what), "{line}: {error}");
        }
    }

    #[test]
    fn capacities_are_never_zero() {
        assert_eq!(Capacity::Percent(0.5).of(10), 1);
        assert_eq!(Capacity::Percent(5.0).of(1_000), 50);
        assert_eq!(Capacity::Absolute(7).of(1), 7);
    }
}
