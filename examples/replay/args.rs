//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use hotset::Policy;

use crate::csv::{Column, Columns};
use crate::formats::Format;

const FORMATS: &str = "\
Formats, each plain or compressed (.gz, .zst):
  .u32 .u64   raw little-endian keys
  .lis        ARC: start, count, ignored, request number
  .trc        LIRS: one number per line
  .txt        one key per line, optionally followed by its size
  .csv        libCacheSim (time,obj,size,...) or Twitter (time,key,key_size,value_size,client,op,ttl)";

/// More threads than this are a typing error.
const MAX_THREADS: u64 = 1_024;

/// A capacity on the command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Capacity {
    Absolute(u64),
    Percent(f64),
}

impl Capacity {
    /// Returns the capacity for a trace of `total` keys or bytes: at least 1.
    pub(crate) fn of(&self, total: u64) -> u64 {
        match *self {
            Self::Absolute(n) => n,
            Self::Percent(p) => ((total as f64 * p / 100.0).round() as u64).max(1),
        }
    }
}

/// A policy that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    #[value(name = "wtinylfu", alias = "w-tinylfu")]
    WTinyLfu,
    Lru,
    Lfu,
    Fifo,
    Random,
}

impl Contender {
    pub(crate) fn policy(self) -> Policy {
        match self {
            Self::WTinyLfu => Policy::WTinyLfu,
            Self::Lru => Policy::Lru,
            Self::Lfu => Policy::Lfu,
            Self::Fifo => Policy::Fifo,
            Self::Random => Policy::Random,
        }
    }

    /// The name in tables and charts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WTinyLfu => "W-TinyLFU",
            Self::Lru => "LRU",
            Self::Lfu => "LFU",
            Self::Fifo => "FIFO",
            Self::Random => "Random",
        }
    }
}

/// Replays access traces through hotset's cache and compares its policies with Belady's optimum and
/// exact LRU.
///
/// Without a FILE it generates its own workloads: zipf, looping scans, shifting popularity.
#[derive(Debug, Parser)]
#[command(name = "replay", after_help = FORMATS)]
struct Args {
    /// Traces to replay
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Capacities, as entries or as percent of the trace's keys (with --bytes: bytes, or percent of
    /// their total size)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = capacity,
          default_value = "0.5%,1%,2%,5%,10%,25%")]
    capacity: Vec<Capacity>,
    /// Policies to compare
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        ignore_case = true,
        default_value = "wtinylfu,lru,lfu,fifo,random"
    )]
    policies: Vec<Contender>,
    /// Replays with N threads, which take turns in chunks of the trace
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=MAX_THREADS))]
    threads: usize,
    /// Bounds the cache by bytes; needs a trace with sizes
    #[arg(long)]
    bytes: bool,
    /// Replays only the first N requests of each trace
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: Option<usize>,
    /// The format of every FILE [default: by extension]
    #[arg(long, value_parser = format_parser())]
    format: Option<Format>,
    /// The CSV column of the key, by name or counted from 1 [default: guessed]
    #[arg(long, value_name = "C", value_parser = column)]
    key_column: Option<Column>,
    /// The CSV column of the size, by name or counted from 1 [default: guessed]
    #[arg(long, value_name = "C", value_parser = column)]
    size_column: Option<Column>,
    /// The file of the chart [default: target/replay.svg, or hit-ratio.svg without a target folder]
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The checked command line.
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

impl TryFrom<Args> for Options {
    type Error = clap::Error;

    fn try_from(args: Args) -> Result<Self, clap::Error> {
        let mut files = Vec::new();
        for path in args.files {
            let format = args.format.or_else(|| Format::of(&path)).ok_or_else(|| {
                let what = format!("the extension of {} names no format; give --format", path.display());
                Args::command().error(ErrorKind::ValueValidation, what)
            })?;
            files.push((path, format));
        }
        let mut contenders: Vec<Contender> = Vec::new();
        for contender in args.policies {
            if !contenders.contains(&contender) {
                contenders.push(contender);
            }
        }
        Ok(Self {
            files,
            capacities: args.capacity,
            contenders,
            threads: args.threads,
            bytes: args.bytes,
            limit: args.limit,
            columns: Columns {
                key: args.key_column,
                size: args.size_column,
            },
            svg: args.svg,
        })
    }
}

/// Parses the process's arguments. Prints help or an error and exits where there is nothing to run.
pub(crate) fn parse() -> Options {
    Options::try_from(Args::parse()).unwrap_or_else(|error| error.exit())
}

fn format_parser() -> impl TypedValueParser<Value = Format> {
    let names = Format::ALL.map(|(name, alias, _)| PossibleValue::new(name).aliases(alias));
    // The parser lets only these names and aliases pass.
    PossibleValuesParser::new(names).try_map(|name| Format::named(&name).ok_or("no such format"))
}

fn capacity(item: &str) -> Result<Capacity, String> {
    let item = item.trim();
    let wrong = || "neither a whole number above 0 nor a percentage above 0% up to 100%".to_owned();
    if let Some(percent) = item.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| wrong())?;
        let fits = percent > 0.0 && percent <= 100.0;
        return fits.then_some(Capacity::Percent(percent)).ok_or_else(wrong);
    }
    let entries = item.parse().ok().filter(|n| *n > 0);
    entries.map(Capacity::Absolute).ok_or_else(wrong)
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

    fn options(line: &str) -> Result<Options, clap::Error> {
        Args::try_parse_from(line.split_whitespace())?.try_into()
    }

    #[test]
    fn arguments_all_given_are_all_read() {
        let line = "replay --capacity=1%,50 --policies lru,W-TinyLFU,lru --threads 4 --bytes --limit=9 \
                    a.u32.gz -- -b.csv";
        let got = options(line).unwrap();
        assert_eq!(got.capacities, [Capacity::Percent(1.0), Capacity::Absolute(50)]);
        assert_eq!(got.contenders, [Contender::Lru, Contender::WTinyLfu]);
        assert_eq!((got.threads, got.bytes, got.limit), (4, true, Some(9)));
        assert_eq!(
            got.files,
            [("a.u32.gz".into(), Format::U32), ("-b.csv".into(), Format::Csv)]
        );
        for (name, format) in [("arc", Format::Arc), ("lis", Format::Arc), ("txt", Format::Text)] {
            let got = options(&format!("replay --format {name} x")).unwrap();
            assert_eq!(got.files, [("x".into(), format)]);
        }
        assert_eq!(options("replay -h").unwrap_err().kind(), ErrorKind::DisplayHelp);
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_absent_have_defaults() {
        let got = options("replay").unwrap();
        assert_eq!((got.capacities.len(), got.contenders.len(), got.threads), (6, 5, 1));
        assert!(got.files.is_empty() && !got.bytes && got.limit.is_none() && got.svg.is_none());
    }

    #[test]
    fn arguments_invalid_are_named_in_the_error() {
        for (line, what) in [
            ("--frobnicate", "'--frobnicate'"),
            ("-x", "'-x'"),
            ("--threads", "'--threads <N>'"),
            ("--threads 0", "0 is not in 1..=1024"),
            ("--threads 9999", "9999 is not in 1..=1024"),
            ("--capacity 0", "'0' for '--capacity <LIST>'"),
            ("--capacity 0%", "percentage"),
            ("--capacity NaN%", "percentage"),
            ("--capacity 101%", "percentage"),
            ("--capacity 1%,", "'' for '--capacity <LIST>'"),
            ("--policies arc", "'arc' for '--policies <LIST>'"),
            ("--format tar x", "[possible values: u32, u64, arc, lirs, text, csv]"),
            ("--key-column 0", "counted from 1"),
            ("--bytes=yes", "'yes' for '--bytes'"),
            ("--limit 0", "0 is not in 1.."),
            ("trace.bin", "trace.bin names no format"),
            ("trace.gz", "trace.gz names no format"),
        ] {
            let error = options(&format!("replay {line}")).unwrap_err().to_string();
            assert!(error.contains(what), "{line}: {error}");
        }
    }

    #[test]
    fn capacity_of_few_keys_is_at_least_one() {
        assert_eq!(Capacity::Percent(0.5).of(10), 1);
        assert_eq!(Capacity::Percent(5.0).of(1_000), 50);
        assert_eq!(Capacity::Absolute(7).of(1), 7);
    }
}
