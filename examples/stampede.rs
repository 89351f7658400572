//! A stampede: a thousand threads look up one absent key at the same time. Its loader runs once, and
//! all threads get its value; calls for other keys do not wait.
//!
//!     cargo run --release --example stampede

use hdrhistogram::Histogram;
use hotset::Cache;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Has `threads` threads load `key` concurrently. Returns how often the loader ran, and whether all
/// threads got its value.
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

/// The latencies in nanoseconds of gets and of inserts.
type Latencies = [Histogram<u64>; 2];

/// Measures gets and inserts of other keys while `work` runs.
fn beside(cache: &Cache<u64, u64>, work: impl FnOnce()) -> Latencies {
    let (ready, done) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            // Three significant digits; longer than a minute counts as a minute.
            let empty = || Histogram::new_with_max(60_000_000_000, 3).expect("valid bounds");
            let mut times = [empty(), empty()];
            ready.wait();
            for i in 0.. {
                let before = Instant::now();
                cache.get(&(i % 1000));
                let between = Instant::now();
                cache.insert(1_000_000 + i, i);
                let after = Instant::now();
                times[0].saturating_record((between - before).as_nanos() as u64);
                times[1].saturating_record((after - between).as_nanos() as u64);
                if done.load(Relaxed) {
                    break;
                }
            }
            times
        });
        ready.wait();
        work();
        done.store(true, Relaxed);
        watcher.join().expect("the measuring thread does not panic")
    })
}

fn print(what: &str, [gets, inserts]: &Latencies) {
    for (call, times) in [("get", gets), ("insert", inserts)] {
        let at = |q: f64| Duration::from_nanos(times.value_at_quantile(q));
        println!(
            "{what:<22} {call:<6} p50 {:>8.0?}  p99.9 {:>8.0?}  worst {:>8.0?}  ({} calls)",
            at(0.5),
            at(0.999),
            at(1.0),
            times.len()
        );
    }
}

/// Runs `crowd` threads on one key; then eight threads on another key beside calls for other keys,
/// with a loader that takes `load`. Returns whether the loader ran once and no other call waited.
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

    // If calls for other keys waited for the load, few of them would complete while it runs.
    let done = herded[0].len() as f64 / alone[0].len() as f64;
    println!("calls for other keys completed during the load: {done:.2} times those without the herd");
    ok && done > 0.1
}

fn main() -> ExitCode {
    if run(1000, Duration::from_millis(300)) {
        ExitCode::SUCCESS
    } else {
        eprintln!("stampede: a loader ran more than once, or other calls waited for it");
        ExitCode::FAILURE
    }
}

#[test]
fn stampede_runs_one_loader() {
    assert!(run(100, Duration::from_millis(30)));
}
