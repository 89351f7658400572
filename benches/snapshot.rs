//! What a snapshot costs, beside the references of its targets: `cargo bench --bench snapshot`, or
//! with a number of entries and of rounds: `cargo bench --bench snapshot -- 100000 5`.
//!
//! The two sides of a ratio are measured in turn, and the median of the rounds' ratios is printed:
//! the speed of a shared machine changes from round to round.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use hotset::Cache;
use hotset::snapshot::LoadOptions;

const VALUE: usize = 100;

type Bytes = Cache<u64, Vec<u8>>;

fn empty(entries: u64) -> Bytes {
    // Nothing is evicted.
    Cache::new(entries as usize + entries as usize / 8)
}

fn value(key: u64) -> Vec<u8> {
    let mut value = vec![key as u8; VALUE];
    value[..8].copy_from_slice(&key.to_le_bytes());
    value
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = run();
    (start.elapsed(), result)
}

/// Writes `bytes` bytes and syncs them to disk: the reference for saving.
fn write_plainly(path: &Path, bytes: u64) {
    let block = vec![0x5a; 1 << 16];
    let mut file = File::create(path).unwrap();
    let mut left = bytes as usize;
    while left > 0 {
        let part = left.min(block.len());
        file.write_all(&block[..part]).unwrap();
        left -= part;
    }
    file.sync_all().unwrap();
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn ms(times: &[Duration]) -> f64 {
    median(times.iter().map(|time| time.as_secs_f64() * 1e3).collect())
}

/// Returns the median of the ratios of each round.
fn ratio(over: &[Duration], under: &[Duration]) -> f64 {
    median(
        over.iter()
            .zip(under)
            .map(|(a, b)| a.as_secs_f64() / b.as_secs_f64())
            .collect(),
    )
}

/// A folder on the disk of the build: a temporary one may be in memory, where fsync costs nothing.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Measures what saving and loading a snapshot costs.
#[derive(Parser)]
#[command(name = "snapshot")]
struct Args {
    /// The entries of the cache
    #[arg(default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    entries: u64,
    /// The rounds of which the median is printed
    #[arg(default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let Args { entries, rounds, .. } = Args::parse();
    let folder = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-snapshot-{}", std::process::id())));
    fs::create_dir_all(&folder.0).unwrap();
    let (saved, plain) = (folder.0.join("saved"), folder.0.join("plain"));

    let cache = empty(entries);
    (0..entries).for_each(|key| cache.insert(key, value(key)));
    cache.save(&saved).unwrap();
    let bytes = fs::metadata(&saved).unwrap().len();
    println!("{entries} entries with values of {VALUE} bytes: a file of {bytes} bytes; medians of {rounds} rounds\n");

    let (mut saves, mut writes) = (Vec::new(), Vec::new());
    let (mut opens, mut hits, mut eager) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        saves.push(timed(|| cache.save(&saved).unwrap()).0);
        writes.push(timed(|| write_plainly(&plain, bytes)).0);

        let lazy = empty(entries);
        let key = round * 7_919 % entries;
        let (open, _) = timed(|| lazy.load(&saved).unwrap());
        let (hit, found) = timed(|| lazy.get(&key));
        assert_eq!(found, Some(value(key)));
        opens.push(open);
        hits.push(open + hit);
        drop(lazy);

        let full = empty(entries);
        let options = LoadOptions::new().eager(true);
        eager.push(timed(|| full.load_with(&saved, &options).unwrap()).0);
        assert_eq!(full.get(&key), Some(value(key)));
    }

    println!("| what | ms | ratio | target |\n|---|---:|---:|---:|");
    println!("| std::fs writes as many bytes, and fsync | {:.1} | | |", ms(&writes));
    println!(
        "| save: throughput against that | {:.1} | {:.2} | at least 0.5 |",
        ms(&saves),
        ratio(&writes, &saves)
    );
    println!("| eager load | {:.1} | | |", ms(&eager));
    println!(
        "| open: eager load against it | {:.3} | {:.0} | at least 50 |",
        ms(&opens),
        ratio(&eager, &opens)
    );
    println!(
        "| open and first hit: eager load against it | {:.3} | {:.0} | under 5 ms |",
        ms(&hits),
        ratio(&eager, &hits)
    );
}
