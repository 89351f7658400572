//! Measurements of more than one job.

use crate::peers::Subject;
use crate::report::Watch;
use crate::workload::picks;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Runs `rounds` rounds over `count` things, forwards and backwards in turn:
/// `results[thing][round]`.
pub fn interleave(rounds: usize, count: usize, mut one: impl FnMut(usize, usize) -> f64) -> Vec<Vec<f64>> {
    let mut results = vec![Vec::with_capacity(rounds); count];
    for round in 0..rounds {
        for i in 0..count {
            let i = if round % 2 == 0 { i } else { count - 1 - i };
            results[i].push(one(i, round));
        }
    }
    results
}

pub fn ns_per_op(ops: usize, what: impl FnOnce()) -> f64 {
    let watch = Watch::start();
    let start = Instant::now();
    what();
    let time = start.elapsed();
    watch.stop();
    time.as_nanos() as f64 / ops as f64
}

/// Measures nanoseconds per get of random keys that caches of `n` entries hold, on one thread:
/// `results[cache][round]`.
pub fn hits(caches: &[(Box<dyn Subject>, Vec<u32>)], n: usize, ops: usize, rounds: usize) -> Vec<Vec<f64>> {
    // Few keys: short indices and a sequence that stays in the second-level cache, yet is far too
    // long for the branch predictor to learn. Many keys: as many picks as gets.
    let small = n <= 1 << 15;
    let length = if small { 1 << 16 } else { ops };
    let sequences: Vec<Vec<u32>> = caches.iter().map(|(_, held)| picks(held, length, 7)).collect();
    let short: Vec<Vec<u16>> = if small {
        sequences
            .iter()
            .map(|s| s.iter().map(|id| u16::try_from(*id).unwrap()).collect())
            .collect()
    } else {
        Vec::new()
    };
    interleave(rounds, caches.len(), |i, _| {
        let cache = &caches[i].0;
        let mut missing = 0;
        let time = if small {
            cache.get16(&short[i]);
            ns_per_op(ops, || {
                for _ in 0..ops / length {
                    missing += cache.get16(&short[i]);
                }
            })
        } else {
            cache.get32(&sequences[i][..length / 8]);
            ns_per_op(ops, || missing = cache.get32(&sequences[i]))
        };
        assert_eq!(missing, 0, "{}: gets of resident keys missed", cache.name());
        time
    })
}

/// Measures nanoseconds per insert of a new key into caches of `n` entries, which it fills first:
/// `results[cache][round]`.
pub fn inserts(caches: &[Box<dyn Subject>], n: usize, ops: usize, rounds: usize) -> Vec<Vec<f64>> {
    for cache in caches {
        cache.insert_new(1, 3 * n as u64);
    }
    let mut next = vec![3 * n as u64 + 1; caches.len()];
    interleave(rounds, caches.len(), |i, _| {
        // Evicts the other caches' lines from the processor's caches.
        let warm = n as u64 / 4;
        caches[i].insert_new(next[i], warm);
        next[i] += warm;
        let time = ns_per_op(ops, || caches[i].insert_new(next[i], ops as u64));
        next[i] += ops as u64;
        time
    })
}

/// Returns the operations per second of `threads` threads that repeat `chunk(thread, number)`,
/// which does `per_chunk` operations and returns its misses, and the share of misses. Each thread
/// warms up with `warm` chunks first.
pub fn throughput(
    threads: usize,
    time: Duration,
    warm: usize,
    per_chunk: usize,
    chunk: impl Fn(usize, usize) -> u64 + Sync,
) -> (f64, f64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (barrier, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let counts: Vec<(f64, u64, u64)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, stop, chunk) = (&barrier, &stop, &chunk);
                scope.spawn(move || {
                    for number in 0..warm {
                        chunk(thread, number);
                    }
                    barrier.wait();
                    // More threads than cores wait for each other in any case.
                    let watch = (threads <= cores).then(Watch::start);
                    let (start, mut number, mut misses) = (Instant::now(), warm, 0);
                    while !stop.load(Ordering::Relaxed) {
                        misses += chunk(thread, number);
                        number += 1;
                    }
                    let time = start.elapsed();
                    if let Some(watch) = watch {
                        watch.stop();
                    }
                    let ops = ((number - warm) * per_chunk) as u64;
                    (ops as f64 / time.as_secs_f64(), ops, misses)
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        running
            .into_iter()
            .map(|t| t.join().expect("a measuring thread panicked"))
            .collect()
    });
    let (ops, misses) = counts.iter().fold((0, 0), |sum, c| (sum.0 + c.1, sum.1 + c.2));
    (counts.iter().map(|c| c.0).sum(), misses as f64 / ops.max(1) as f64)
}
