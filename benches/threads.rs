//! What ended threads and long readers cost other threads. Ratios within one process; the counts
//! behind them are asserted in `tests/garbage.rs`, `tests/thread_memory.rs` and the library's tests.

use hotset::Cache;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Returns the nanoseconds per evicting insertion: the best of five rounds.
fn rate(cache: &Cache<u64, u64>) -> f64 {
    let mut best = f64::MAX;
    for round in 0..5u64 {
        let start = Instant::now();
        (0..300_000).for_each(|n| cache.insert(round << 40 | n << 8, n));
        best = best.min(start.elapsed().as_nanos() as f64 / 300_000.0);
    }
    best
}

fn filled() -> Cache<u64, u64> {
    let cache = Cache::new(100_000);
    (0..300_000).for_each(|n| cache.insert(n, n));
    cache
}

/// Has `threads` threads use the cache, all alive at the same time.
fn together(threads: usize, cache: &Cache<u64, u64>, run: fn(&Cache<u64, u64>)) {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            let spawn = thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, || {
                run(cache);
                barrier.wait();
            });
            spawn.expect("the system has that many threads");
        }
    });
}

fn main() {
    println!("| evicting insertion, ns | before | after | ratio |\n|---|---|---|---|");
    let row =
        |what: &str, before: f64, after: f64| println!("| {what} | {before:.0} | {after:.0} | {:.2} |", after / before);
    let (cache, other) = (filled(), Cache::new(10));
    let before = rate(&cache);
    together(1000, &cache, |cache| _ = cache.get(&1));
    row("1,000 threads read this cache once and ended", before, rate(&cache));
    together(1000, &cache, |cache| cache.insert(1, 1));
    row("1,000 threads wrote it once and ended", before, rate(&cache));
    let before = rate(&filled());
    together(5000, &other, |cache| _ = cache.get(&1));
    row(
        "a new cache: 5,000 threads read another once and ended",
        before,
        rate(&filled()),
    );

    let cache: Cache<u64, Arc<[u8]>> = Cache::new(10_000);
    let insert = |key: u64| {
        let start = Instant::now();
        cache.insert(key, vec![0; 1024].into());
        start.elapsed()
    };
    (0..20_000).for_each(|key| _ = insert(key));
    let reader = cache.reader();
    let held = (0..500_000).map(insert).max().unwrap_or_default();
    drop(reader);
    let first = insert(1);
    let free = (0..1_000_000).map(insert).max().unwrap_or_default();
    let start = Instant::now();
    cache.run_pending();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "\n500,000 values of 1 kB retired while a reader is pinned: the longest insertion took {:.2} ms, the first one after it",
        ms(held)
    );
    println!(
        "{:.2} ms, the longest of a million after it {:.2} ms; `run_pending` behind them {:.2} ms",
        ms(first),
        ms(free),
        ms(start.elapsed())
    );
}
