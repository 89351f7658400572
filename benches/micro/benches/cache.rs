//! Microbenchmarks of one cache on one thread: `cargo bench --bench cache`, or with a filter:
//! `cargo bench --bench cache -- get`. Criterion compares each figure with that of the run before.
//!
//! They show whether a change made a call faster or slower on one machine. Comparisons with other
//! caches need turns, which criterion cannot take: those are in `benches/compare`.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hotset::snapshot::LoadOptions;
use hotset::{Cache, ManualClock, Ttl};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// In the processor's caches, and far beyond them.
const SIZES: [u64; 2] = [1_000, 1_000_000];
/// The capacity of benchmarks with one size.
const CAPACITY: u64 = 100_000;
const TTL: Duration = Duration::from_secs(3_600);
/// The timers that one sample of `expiry/expire` lets expire.
const EXPIRING: u64 = 10_000;
/// The entries of the snapshot, and the bytes of each value.
const SAVED: u64 = 100_000;
const VALUE: usize = 100;

/// Returns a cache that holds the keys below `n`, after enough evictions to be in a steady state.
fn churned(n: u64) -> (Cache<u64, u64>, Vec<u64>) {
    let cache = Cache::new(n as usize);
    (0..3 * n).for_each(|key| cache.insert(key, key));
    let mut held: Vec<u64> = cache.iter().map(|(key, _)| key).collect();
    // Iteration follows the table: in its order, neighboring lookups would share cache lines.
    held.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(n));
    (cache, held)
}

/// Calls `call` with the keys in turn, one for each iteration.
fn with_keys<T>(bencher: &mut criterion::Bencher<'_>, keys: &[u64], mut call: impl FnMut(u64) -> T) {
    let mut next = keys.iter().copied().cycle();
    bencher.iter(|| next.next().map(&mut call));
}

fn get(c: &mut Criterion) {
    let mut group = c.benchmark_group("get");
    for n in SIZES {
        let (cache, held) = churned(n);
        let absent: Vec<u64> = held.iter().map(|key| key + (1 << 40)).collect();
        group.bench_function(BenchmarkId::new("hit", n), |b| {
            with_keys(b, &held, |key| cache.get(&key))
        });
        group.bench_function(BenchmarkId::new("miss", n), |b| {
            with_keys(b, &absent, |key| cache.get(&key))
        });
    }
    group.finish();
}

fn insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert");
    let (cache, held) = churned(CAPACITY);
    group.bench_function("replace", |b| with_keys(b, &held, |key| cache.insert(key, key)));
    let mut next = 1 << 40;
    group.bench_function("evict", |b| {
        b.iter(|| {
            next += 1;
            cache.insert(next, next);
        });
    });
    // A batch fits into a new cache: nothing is evicted.
    group.throughput(Throughput::Elements(CAPACITY));
    group.bench_function("fill", |b| {
        b.iter_batched_ref(
            || Cache::new(CAPACITY as usize),
            |cache: &mut Cache<u64, u64>| (0..CAPACITY).for_each(|key| cache.insert(key, key)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn compute(c: &mut Criterion) {
    let mut group = c.benchmark_group("compute");
    let (cache, held) = churned(CAPACITY);
    group.bench_function("replace", |b| {
        with_keys(b, &held, |key| cache.compute(key, |old| old.map(|n| n.wrapping_add(1))));
    });
    let absent: Vec<u64> = held.iter().map(|key| key + (1 << 40)).collect();
    group.bench_function("keep_absent", |b| {
        with_keys(b, &absent, |key| cache.compute(key, |_| None))
    });
    group.finish();
}

fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    let (cache, held) = churned(CAPACITY);
    group.bench_function("hit", |b| {
        with_keys(b, &held, |key| cache.get_or_insert_with(key, || key));
    });
    let mut next = 1 << 40;
    group.bench_function("miss", |b| {
        b.iter(|| {
            next += 1;
            cache.get_or_insert_with(next, || black_box(next))
        });
    });
    group.finish();
}

fn expiry(c: &mut Criterion) {
    let mut group = c.benchmark_group("expiry");
    let build = |clock: Option<&ManualClock>| -> Cache<u64, u64> {
        let builder = Cache::builder().max_entries(CAPACITY as usize).time_to_live(TTL);
        let builder = match clock {
            Some(clock) => builder.clock(clock.clone()),
            None => builder,
        };
        builder.build().expect("the settings are compatible")
    };
    let cache = build(None);
    let mut held: Vec<u64> = (0..CAPACITY / 2).collect();
    held.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(1));
    held.iter().for_each(|&key| cache.insert(key, key));
    group.bench_function("get_with_ttl", |b| with_keys(b, &held, |key| cache.get(&key)));
    group.bench_function("replace_with_ttl", |b| {
        with_keys(b, &held, |key| cache.insert_with_ttl(key, key, Ttl::After(TTL)));
    });
    // All entries of a new cache expire, and one call frees them.
    let clock = ManualClock::new();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
    group.throughput(Throughput::Elements(EXPIRING));
    group.bench_function("expire", |b| {
        b.iter_batched_ref(
            || {
                let cache = build(Some(&clock));
                for key in 0..EXPIRING {
                    let ttl = TTL.mul_f64(random.random());
                    cache.insert_with_ttl(key, key, ttl);
                }
                clock.advance(TTL);
                cache
            },
            |cache| cache.run_pending(),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// A folder that is removed with its files.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the build's own folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(10).throughput(Throughput::Elements(SAVED));
    // On the disk of the build: a temporary folder may be in memory, where fsync costs nothing.
    let folder = format!("bench-micro-{}", std::process::id());
    let folder = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder));
    std::fs::create_dir_all(&folder.0).expect("the build's folder is writable");
    let file = folder.0.join("saved");
    let empty = || Cache::<u64, Vec<u8>>::new(SAVED as usize * 9 / 8);

    let cache = empty();
    (0..SAVED).for_each(|key| cache.insert(key, vec![key as u8; VALUE]));
    group.bench_function("save", |b| b.iter(|| cache.save(&file).expect("the disk has room")));
    for (name, eager) in [("load_lazy", false), ("load_eager", true)] {
        let options = LoadOptions::new().eager(eager);
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                empty,
                |cache| cache.load_with(&file, &options).expect("it was saved above"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, get, insert, compute, load, expiry, snapshot);
criterion_main!(benches);
