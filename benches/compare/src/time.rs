//! The job `time`: hotset against itself, with a time to live and without, and with loads and without.

use crate::measure::{hits, inserts, interleave, ns_per_op};
use crate::peers;
use crate::report::{Latencies, Ratio, Table, Target, Watch, median};
use crate::workload::{full, picks};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The first is the reference of the second.
const BOTH: [&str; 2] = ["hotset", "hotset-ttl"];

fn row(table: &Table, label: &str, [base, judged]: [&[f64]; 2], digits: usize, target: Target) {
    let ratio = Ratio::of(judged, base);
    table.row(&[
        label.to_string(),
        format!("{:.digits$}", median(base)),
        format!("{:.digits$}", median(judged)),
        ratio.to_string(),
        target.text(),
        target.verdict(ratio.median).into(),
    ]);
}

pub fn time(quick: bool) {
    expirations(quick);
    loads(quick);
    herd(quick);
}

fn expirations(quick: bool) {
    let table = Table::new(
        "one thread, uniform random keys, full cache after churn, a time to live against none: ns",
        &["", "none", "TTL", "TTL / none", "target", ""],
    );
    for (label, n, ops, rounds) in [
        ("get, hit, 1k entries", 1_000, 1 << 20, 41),
        ("100k", 100_000, 1 << 20, 31),
        ("4M", 4_000_000, 1 << 21, 21),
    ] {
        let (rounds, ops) = if quick { (5, ops / 4) } else { (rounds, ops) };
        let caches = BOTH.map(|name| full(name, n, if quick { 1 } else { 4 }));
        let results = hits(&caches, n, ops, rounds);
        row(&table, label, [&results[0], &results[1]], 1, Target::AtMost(1.5));
    }
    let (n, rounds, ops) = if quick {
        (100_000, 5, 50_000)
    } else {
        (100_000, 41, 300_000)
    };
    let caches = BOTH.map(|name| peers::build(name, n));
    let results = inserts(&caches, n, ops, rounds);
    let label = "insert of a new key, 100k";
    row(&table, label, [&results[0], &results[1]], 1, Target::AtMost(1.3));
}

fn loads(quick: bool) {
    let table = Table::new(
        "a hit through get_or_insert_with, one thread: ns",
        &[
            "entries",
            "get",
            "get_or_insert_with",
            "get_or_insert_with / get",
            "target",
            "",
        ],
    );
    for (label, n, rounds) in [("1k", 1_000, 41), ("100k", 100_000, 31)] {
        let (rounds, ops) = if quick { (5, 1 << 18) } else { (rounds, 1 << 20) };
        let (cache, held) = full("hotset", n, 4);
        let ids = picks(&held, ops, 41);
        let call = |i, ids: &[u32]| {
            if i == 0 {
                cache.get32(ids)
            } else {
                cache.read_through(ids)
            }
        };
        let results = interleave(rounds, 2, |i, _| {
            let mut missing = call(i, &ids[..ops / 8]);
            let time = ns_per_op(ops, || missing += call(i, &ids));
            assert_eq!(missing, 0, "calls for resident keys missed");
            time
        });
        row(&table, label, [&results[0], &results[1]], 1, Target::AtMost(1.2));
    }
}

const HERD: usize = 8;
const LOAD: Duration = Duration::from_millis(50);

/// `HERD` threads look up a missing key, whose loader takes `LOAD`, while another thread gets and
/// inserts other keys.
fn herd(quick: bool) {
    let (n, rounds) = (100_000, if quick { 5 } else { 41 });
    let cache: hotset::Cache<u64, u64> = hotset::Cache::new(n);
    (0..3 * n as u64).for_each(|key| cache.insert(key, key));
    let next = AtomicU64::new(1 << 32);
    let loads = AtomicU64::new(0);
    const CALLS: [&str; 2] = ["get", "insert"];
    const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
    // seen[call][quantile][with the herd][round]
    let mut seen = CALLS.map(|_| QUANTILES.map(|_| [Vec::new(), Vec::new()]));
    interleave(rounds, 2, |herded, round| {
        let done = AtomicBool::new(false);
        let start = Barrier::new(2);
        let times = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                let mut times = CALLS.map(|_| Latencies::default());
                start.wait();
                let watch = Watch::start();
                while !done.load(Ordering::Relaxed) {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    let before = Instant::now();
                    cache.insert(key, key);
                    let between = Instant::now();
                    std::hint::black_box(cache.get(&(key - 100)));
                    let after = Instant::now();
                    times[0].record(after - between);
                    times[1].record(between - before);
                }
                watch.stop();
                times
            });
            start.wait();
            if herded == 1 {
                std::thread::scope(|scope| {
                    for _ in 0..HERD {
                        scope.spawn(|| {
                            cache.get_or_insert_with((1 << 62) + round as u64, || {
                                loads.fetch_add(1, Ordering::Relaxed);
                                std::thread::sleep(LOAD);
                                1
                            });
                        });
                    }
                });
            } else {
                std::thread::sleep(LOAD);
            }
            done.store(true, Ordering::Relaxed);
            others.join().expect("a measuring thread panicked")
        });
        for (seen, times) in seen.iter_mut().zip(&times) {
            for (seen, (_, q)) in seen.iter_mut().zip(QUANTILES) {
                seen[herded].push(times.quantile(q));
            }
        }
        0.0
    });
    let table = Table::new(
        &format!("calls for other keys beside {HERD} threads on one missing key: ns, the clock's own cost included"),
        &["", "alone", "the herd", "the herd / alone", "target", ""],
    );
    for (call, seen) in CALLS.iter().zip(&seen) {
        for ((label, _), [alone, herded]) in QUANTILES.iter().zip(seen) {
            let target = if *label == "p99.9" {
                Target::AtMost(1.5)
            } else {
                Target::None
            };
            row(&table, &format!("{call}, {label}"), [alone, herded], 0, target);
        }
    }
    let each = loads.into_inner() as f64 / rounds as f64;
    let target = Target::AtMost(1.0);
    let verdict = target.verdict(each).to_string();
    table.row(&[
        "loads per herd".into(),
        "-".into(),
        format!("{each}"),
        "-".into(),
        target.text(),
        verdict,
    ]);
}
