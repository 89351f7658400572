//! Replays a trace through the real cache.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hotset::{Cache, Policy};

use crate::heap;
use crate::progress::Progress;
use crate::trace::Trace;

/// The requests that a thread takes in one step: enough that sharing the counter costs nothing, and
/// few enough that all threads stay near the same place in the trace.
const CHUNK: usize = 1_024;

/// The bound of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Entries(u64),
    Bytes(u64),
}

/// The result of one replay.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) hits: u64,
    pub(crate) elapsed: Duration,
    /// The peak of heap bytes above the baseline.
    pub(crate) peak: usize,
}

/// Replays `trace`: each request is a `get`, and an `insert` when that misses.
pub(crate) fn replay(
    trace: &Trace,
    policy: Policy,
    bound: Bound,
    threads: usize,
    progress: &Progress,
) -> Result<Outcome, String> {
    let base = heap::baseline();
    let built: Result<Cache<u64, u64>, _> = match bound {
        Bound::Entries(n) => {
            let entries = usize::try_from(n).unwrap_or(usize::MAX);
            Cache::builder().max_entries(entries).policy(policy).build()
        }
        // The value stands for an object of that many bytes without allocating them.
        Bound::Bytes(n) => Cache::builder()
            .max_weight(n)
            .weigher(|_: &u64, size: &u64| *size)
            .policy(policy)
            .build(),
    };
    let cache = built.map_err(|e| format!("the cache cannot be built with {bound:?}: {e}"))?;
    let turn = AtomicUsize::new(0);
    let hits = AtomicU64::new(0);
    let start = Instant::now();
    if threads == 1 {
        work(trace, &cache, &turn, &hits, progress);
    } else {
        thread::scope(|scope| {
            for _ in 0..threads {
                // Each thread has a handle of its own, as a program would.
                let cache = cache.clone();
                let (turn, hits) = (&turn, &hits);
                let started =
                    thread::Builder::new().spawn_scoped(scope, move || work(trace, &cache, turn, hits, progress));
                started.map_err(|e| format!("cannot start {threads} threads: {e}"))?;
            }
            Ok::<_, String>(())
        })?;
    }
    let elapsed = start.elapsed();
    let peak = heap::peak_above(base);
    let hits = hits.into_inner();
    let stats = cache.stats();
    let misses = trace.keys.len() as u64 - hits;
    if (stats.hits, stats.misses) != (hits, misses) {
        // The figures printed are counted here; a cache whose statistics differ is an error.
        return Err(format!(
            "{}: the replay saw {hits} hits and {misses} misses, but the cache's statistics say {} and {}",
            trace.name, stats.hits, stats.misses
        ));
    }
    Ok(Outcome { hits, elapsed, peak })
}

/// Takes chunk after chunk until none is left.
fn work(trace: &Trace, cache: &Cache<u64, u64>, turn: &AtomicUsize, hits: &AtomicU64, progress: &Progress) {
    let total = trace.keys.len();
    let mut mine = 0;
    loop {
        let from = turn.fetch_add(CHUNK, Relaxed);
        if from >= total {
            break;
        }
        let to = total.min(from + CHUNK);
        let keys = &trace.keys[from..to];
        match &trace.sizes {
            Some(sizes) => mine += requests(cache, keys.iter().zip(&sizes[from..to]).map(|(&k, &size)| (k, size))),
            None => mine += requests(cache, keys.iter().map(|&k| (k, 1))),
        }
        progress.add((to - from) as u64);
    }
    hits.fetch_add(mine, Relaxed);
}

fn requests(cache: &Cache<u64, u64>, requests: impl Iterator<Item = (u32, u64)>) -> u64 {
    let mut hits = 0;
    for (key, size) in requests {
        let key = u64::from(key);
        if cache.get(&key).is_some() {
            hits += 1;
        } else {
            cache.insert(key, size);
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Recorder;

    #[test]
    fn a_cache_with_room_misses_each_key_once() {
        let mut recorder = Recorder::new(None);
        (0..10_000).for_each(|n| recorder.push(n % 100, Some(3)).unwrap());
        let trace = recorder.finish("t".into()).unwrap();
        for bound in [Bound::Entries(10_000), Bound::Bytes(30_000)] {
            let progress = Progress::new(String::new(), 1);
            let outcome = replay(&trace, Policy::Lru, bound, 1, &progress).unwrap();
            assert_eq!(outcome.hits, 9_900);
            // Threads may miss a key together, but between them they make every request.
            let outcome = replay(&trace, Policy::WTinyLfu, bound, 4, &progress).unwrap();
            assert!((9_500..=9_900).contains(&outcome.hits), "{}", outcome.hits);
        }
    }
}
