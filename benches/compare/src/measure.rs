//! Measurements of more than one job.

use crate::peers::Subject;
use crate::report::Watch;
use crate::workload::picks;
use std::time::Instant;

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
