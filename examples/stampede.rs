//! A stampede: a thousand threads ask for one cold key at the same moment. Its loader runs once, and all get its value; calls for
//! other keys do not wait.
//!
//!     cargo run --release --example stampede

use hotset::Cache;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often the loader ran when so many threads asked for `key` at once, and whether all got its value.
fn herd(cache: &Cache<u64, u64>, key: u64, threads: usize, load: Duration) -> (usize, bool) {
    let (loads, right, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(threads));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                start.wait();
                let value = cache.get_or_insert_with(key, || {
                    loads.fetch_add(1, Relaxed);
                    std::thread::sleep(load); // a query to a database, say
                    key * 10
                });
                right.fetch_add(usize::from(value == key * 10), Relaxed);
            });
        }
    });
    (loads.into_inner(), right.into_inner() == threads)
}

/// The sorted latencies of gets and inserts of other keys while `work` runs.
fn beside(cache: &Cache<u64, u64>, work: impl FnOnce()) -> [Vec<Duration>; 2] {
    let (ready, done) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut times = [Vec::new(), Vec::new()];
            ready.wait();
            for i in 0.. {
                let before = Instant::now();
                cache.get(&(i % 1000));
                let between = Instant::now();
                cache.insert(1_000_000 + i, i);
                times[1].push(between.elapsed());
                times[0].push(between - before);
                if done.load(Relaxed) {
                    break;
                }
            }
            times.iter_mut().for_each(|times| times.sort());
            times
        });
        ready.wait();
        work();
        done.store(true, Relaxed);
        watcher.join().unwrap()
    })
}

fn print(what: &str, [gets, inserts]: &[Vec<Duration>; 2]) {
    for (call, times) in [("get", gets), ("insert", inserts)] {
        let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
        println!(
            "{what:<22} {call:<6} p50 {:>8.0?}  p99.9 {:>8.0?}  worst {:>8.0?}  ({} calls)",
            at(0.5),
            at(0.999),
            at(1.0),
            times.len()
        );
    }
}

/// `crowd` threads on one key; then eight beside calls for other keys, with a loader that takes `load`.
fn run(crowd: usize, load: Duration) -> bool {
    let start = Instant::now();
    let (loads, right) = herd(&Cache::new(10_000), 1, crowd, load);
    println!(
        "{crowd} threads on one cold key: {loads} load, in {:.0?}",
        start.elapsed()
    );
    let mut ok = loads == 1 && right;

    let cache = Cache::new(10_000);
    (0..10_000).for_each(|key| cache.insert(key, key));
    let alone = beside(&cache, || std::thread::sleep(load));
    let mut loads = 0;
    let herded = beside(&cache, || loads = herd(&cache, 500_000, 8, load).0);
    println!("8 threads on another, beside calls for other keys: {loads} load");
    print("other keys, no herd", &alone);
    print("other keys, the herd", &herded);
    ok &= loads == 1;

    // Had other keys waited for the load, one call at least would have taken as long, and few would have been done.
    let done = herded[0].len() as f64 / alone[0].len() as f64;
    println!("calls for other keys done meanwhile: {done:.2} times those without the herd");
    ok && done > 0.1
}

fn main() -> ExitCode {
    if run(1000, Duration::from_millis(300)) {
        ExitCode::SUCCESS
    } else {
        eprintln!("stampede: it did not hold");
        ExitCode::FAILURE
    }
}

#[test]
fn the_loader_runs_once() {
    assert!(run(100, Duration::from_millis(30)));
}
