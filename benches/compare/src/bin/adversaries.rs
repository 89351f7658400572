//! Hostile workloads: floods of keys with one hash, scans, keys that are all hot, a writer that
//! reinserts the same three keys forever. For each, the latency of a lookup (with the insertion that
//! follows a miss) and the hit ratio, beside quick_cache's and moka's.
//!
//! `adversaries [--quick]`. A measured call includes one reading of the clock: its cost is the first
//! row.

use clap::Parser;
use foldhash::fast::RandomState;
use hotset_compare::report::Latencies;
use hotset_compare::workload::{Zipf, rng};
use rand::RngExt;
use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

const CAPACITY: usize = 10_000;

/// Has 16 hashes: what an attacker achieves against a hasher without a seed.
#[derive(Clone, Default)]
struct Weak;

struct Low(u64);

impl BuildHasher for Weak {
    type Hasher = Low;
    fn build_hasher(&self) -> Low {
        Low(0)
    }
}

impl Hasher for Low {
    fn finish(&self) -> u64 {
        (self.0 & 15).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

trait Peer: Send + Sync {
    fn get(&self, key: u64) -> Option<u64>;
    fn insert(&self, key: u64);
}

impl<S: BuildHasher + Send + Sync> Peer for hotset::Cache<u64, u64, S> {
    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key)
    }
    fn insert(&self, key: u64) {
        self.insert(key, key);
    }
}

type Quick<S> = quick_cache::sync::Cache<u64, u64, quick_cache::UnitWeighter, S>;

impl<S: BuildHasher + Clone + Send + Sync> Peer for Quick<S> {
    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key)
    }
    fn insert(&self, key: u64) {
        self.insert(key, key);
    }
}

impl<S: BuildHasher + Clone + Send + Sync + 'static> Peer for moka::sync::Cache<u64, u64, S> {
    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key)
    }
    fn insert(&self, key: u64) {
        self.insert(key, key);
    }
}

fn build<S: BuildHasher + Clone + Send + Sync + 'static>(hasher: &S) -> [(&'static str, Box<dyn Peer>); 3] {
    let hotset = hotset::Cache::builder().max_entries(CAPACITY).hasher(hasher.clone());
    let quick = Quick::with(
        CAPACITY,
        CAPACITY as u64,
        quick_cache::UnitWeighter,
        hasher.clone(),
        quick_cache::sync::DefaultLifecycle::default(),
    );
    let moka = moka::sync::Cache::builder().max_capacity(CAPACITY as u64);
    [
        ("hotset", Box::new(hotset.build().expect("settings that go together"))),
        ("quick_cache", Box::new(quick)),
        ("moka", Box::new(moka.build_with_hasher(hasher.clone()))),
    ]
}

/// One adversary: the keys that are looked up, and what another thread inserts concurrently.
struct Job {
    name: &'static str,
    keys: Vec<u64>,
    /// Whether a key counts for the hit ratio.
    counts: fn(u64) -> bool,
    /// Keys that another thread inserts repeatedly.
    beside: &'static [u64],
}

fn jobs(calls: usize) -> Vec<(Job, bool)> {
    let mut rng = rng(7);
    let zipf = Zipf::new(20_000, 1.0).sequence(calls, 1);
    let own: fn(u64) -> bool = |key| key < SCANNED;
    let job = |name, keys, beside| Job {
        name,
        keys,
        counts: own,
        beside,
    };
    // 8,000 keys that would all fit, 500 with each hash of the weak hasher.
    let flood: Vec<u64> = (0..calls).map(|_| rng.random_range(0..8_000)).collect();
    let mut next = SCANNED;
    let scan = zipf.iter().flat_map(|rank| {
        next += 1;
        [u64::from(*rank), next]
    });
    let scan: Vec<u64> = scan.take(calls).collect();
    let zipf: Vec<u64> = zipf.into_iter().map(u64::from).collect();
    let hot = (0..calls).map(|_| rng.random_range(0..1_000)).collect();
    vec![
        (job("no adversary (zipf 1.0)", zipf.clone(), &[]), false),
        (job("hash flood, weak hasher", flood.clone(), &[]), true),
        (job("the same keys, default hasher", flood, &[]), false),
        (job("every other key of a scan", scan, &[]), false),
        (job("all hot (1,000 keys)", hot, &[]), false),
        (
            job("a writer of three keys beside", zipf, &[1 << 50, 1 << 51, 1 << 52]),
            false,
        ),
    ]
}

/// Keys from here on are a scan's.
const SCANNED: u64 = 1 << 40;

/// The latency of each call, and hits and lookups of the keys that count.
#[derive(Default)]
struct Result {
    times: Latencies,
    hits: u64,
    lookups: u64,
}

fn run(cache: &dyn Peer, job: &Job, result: &mut Result) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        if !job.beside.is_empty() {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    job.beside.iter().for_each(|key| cache.insert(*key));
                }
            });
        }
        for key in &job.keys {
            let start = Instant::now();
            let found = cache.get(*key);
            if found.is_none() {
                cache.insert(*key);
            }
            result.times.record(start.elapsed());
            assert!(found.is_none_or(|found| found == *key), "a wrong value");
            if (job.counts)(*key) {
                result.lookups += 1;
                result.hits += u64::from(found.is_some());
            }
        }
        done.store(true, Relaxed);
    });
}

fn percentiles(times: &Latencies) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|q| times.quantile(q))
}

/// Measures hotset, quick_cache and moka under hostile workloads.
#[derive(Parser)]
struct Args {
    /// Runs fewer and shorter rounds: to see that it works, not to judge by
    #[arg(long)]
    quick: bool,
}

fn main() {
    let (calls, rounds) = if Args::parse().quick {
        (100_000, 3)
    } else {
        (400_000, 7)
    };
    println!("| adversary | cache | p50 ns | p99 ns | p99.9 ns | hit ratio |");
    println!("|---|---|---|---|---|---|");
    let mut empty = Latencies::default();
    for _ in 0..calls {
        let start = Instant::now();
        empty.record(black_box(start).elapsed());
    }
    let [p50, p99, p999] = percentiles(&empty);
    println!("| nothing at all | | {p50} | {p99} | {p999} | |");
    for (job, weak) in jobs(calls) {
        let caches = if weak {
            build(&Weak)
        } else {
            build(&RandomState::default())
        };
        let mut results = caches.each_ref().map(|_| Result::default());
        // The caches take turns; the first round warms them up.
        for round in 0..=rounds {
            for ((_, cache), result) in caches.iter().zip(&mut results) {
                if round == 1 {
                    (result.hits, result.lookups) = (0, 0);
                    result.times.clear();
                }
                run(&**cache, &job, result);
            }
        }
        for ((name, _), result) in caches.iter().zip(results) {
            let ratio = 100.0 * result.hits as f64 / result.lookups as f64;
            let [p50, p99, p999] = percentiles(&result.times);
            println!("| {} | {name} | {p50} | {p99} | {p999} | {ratio:.2}% |", job.name);
        }
    }
}
