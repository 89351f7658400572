//! What the cache is measured against, computed without it: exact LRU and the optimum.

use std::collections::BinaryHeap;

use crate::progress::Progress;
use crate::trace::Trace;

/// "Never again", as a position in the trace. Traces are shorter than this (see `MAX_REQUESTS`).
const NEVER: u32 = u32::MAX;
/// "No neighbour" in a linked list of keys.
const NONE: u32 = u32::MAX;
/// How many requests pass between two reports of progress.
const REPORT: usize = 1 << 14;

fn report(progress: &Progress, at: usize) {
    if at.is_multiple_of(REPORT) {
        progress.add(REPORT as u64);
    }
}

/// The hits of exact LRU at every capacity at once: `result[c]` is what a cache of `c` entries would score.
///
/// LRU keeps exactly the keys used most recently, so a request hits in every cache larger than the number of different
/// keys used since its last turn. A Fenwick tree over positions, with a mark at each key's latest use, counts those in
/// logarithmic time.
pub(crate) fn lru_hits(trace: &Trace, progress: &Progress) -> Vec<u64> {
    let mut hits = vec![0u64; trace.unique + 1];
    let mut marks = Fenwick::new(trace.keys.len());
    let mut last = vec![NEVER; trace.unique];
    let mut marked = 0u32;
    for (now, &key) in trace.keys.iter().enumerate() {
        report(progress, now);
        let before = std::mem::replace(&mut last[key as usize], now as u32);
        if before == NEVER {
            marked += 1;
        } else {
            // Keys used at or after `before`, this one included: the smallest cache that still has it.
            let depth = marked - marks.before(before as usize);
            hits[depth as usize] += 1;
            marks.add(before as usize, false);
        }
        marks.add(now, true);
    }
    let mut sum = 0;
    for slot in &mut hits {
        sum += *slot;
        *slot = sum;
    }
    hits
}

/// Counts marks on positions.
struct Fenwick(Vec<u32>);

impl Fenwick {
    fn new(len: usize) -> Self {
        Self(vec![0; len + 1])
    }

    fn add(&mut self, position: usize, mark: bool) {
        let mut i = position + 1;
        while i < self.0.len() {
            // Wrapping: a partial sum may be lowered before it is raised, never below zero in the end.
            self.0[i] = if mark {
                self.0[i].wrapping_add(1)
            } else {
                self.0[i].wrapping_sub(1)
            };
            i += i & i.wrapping_neg();
        }
    }

    /// The marks at positions below `position`.
    fn before(&self, position: usize) -> u32 {
        let mut sum = 0u32;
        let mut i = position;
        while i > 0 {
            sum = sum.wrapping_add(self.0[i]);
            i &= i - 1;
        }
        sum
    }
}

/// For each request, the position of the next one for the same key.
pub(crate) fn next_uses(trace: &Trace) -> Vec<u32> {
    let mut coming = vec![NEVER; trace.unique];
    let mut next = vec![NEVER; trace.keys.len()];
    for (now, &key) in trace.keys.iter().enumerate().rev() {
        next[now] = std::mem::replace(&mut coming[key as usize], now as u32);
    }
    next
}

/// The hits of Belady's optimum with `capacity` entries: keep whatever is asked for soonest.
///
/// The cache may turn a new key away, as W-TinyLFU may: made to admit every key, an optimum could be beaten.
pub(crate) fn optimum_hits(trace: &Trace, next: &[u32], capacity: usize, progress: &Progress) -> u64 {
    // A cached key is known by the position of its next use, so positions are all the heap needs. One that has passed
    // is stale and smaller than every one to come: it never surfaces before a live one, and a sweep drops it.
    let mut heap: BinaryHeap<u32> = BinaryHeap::new();
    let mut cached = vec![false; trace.unique];
    let mut count = 0usize;
    let mut hits = 0;
    if capacity == 0 {
        return 0;
    }
    for (now, (&key, &next)) in trace.keys.iter().zip(next).enumerate() {
        report(progress, now);
        let key = key as usize;
        if cached[key] {
            hits += 1;
            if next == NEVER {
                cached[key] = false;
                count -= 1;
            } else {
                heap.push(next);
            }
        } else if next != NEVER {
            if count < capacity {
                count += 1;
                cached[key] = true;
                heap.push(next);
            } else if let Some(mut furthest) = heap.peek_mut()
                && *furthest > next
            {
                cached[trace.keys[*furthest as usize] as usize] = false;
                cached[key] = true;
                *furthest = next;
            }
        }
        if heap.len() > capacity.saturating_mul(2).saturating_add(1_024) {
            heap.retain(|&position| position as usize > now);
        }
    }
    hits
}

/// The hits of exact LRU bounded by bytes. Sizes break the order that lets one pass serve all capacities.
pub(crate) fn lru_hits_bytes(trace: &Trace, sizes: &[u64], capacity: u64, progress: &Progress) -> u64 {
    // A doubly linked list through arrays; `held` is the size of a cached key and 0 for any other.
    let mut held = vec![0u64; trace.unique];
    let mut newer = vec![NONE; trace.unique];
    let mut older = vec![NONE; trace.unique];
    let (mut newest, mut oldest) = (NONE, NONE);
    let (mut used, mut hits) = (0u64, 0u64);
    for (now, (&key, &size)) in trace.keys.iter().zip(sizes).enumerate() {
        report(progress, now);
        let k = key as usize;
        if held[k] > 0 {
            hits += 1;
            if newest == key {
                continue;
            }
            let (up, down) = (newer[k], older[k]);
            // It is not the newest, so it has a newer neighbour.
            older[up as usize] = down;
            if down == NONE {
                oldest = up;
            } else {
                newer[down as usize] = up;
            }
        } else {
            if size > capacity {
                continue;
            }
            while used > capacity - size {
                let victim = oldest as usize;
                used -= std::mem::take(&mut held[victim]);
                oldest = newer[victim];
                if oldest == NONE {
                    newest = NONE;
                } else {
                    older[oldest as usize] = NONE;
                }
            }
            held[k] = size;
            used += size;
        }
        older[k] = newest;
        newer[k] = NONE;
        if newest == NONE {
            oldest = key;
        } else {
            newer[newest as usize] = key;
        }
        newest = key;
    }
    hits
}

/// An upper bound on the hits of any cache bounded by bytes, for each of `capacities`. With sizes the true optimum is
/// NP-hard.
///
/// This is PFOO-L (Berger, Beckmann and Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object
/// Sizes", 2018): to hit, an object must occupy its bytes from one use to the next, and a cache of `c` bytes has
/// `c * requests` of such byte-requests to give; the cheapest reuses are granted first. Each key counts with its
/// smallest size, so the bound holds when sizes change.
pub(crate) fn hit_bound_bytes(trace: &Trace, next: &[u32], smallest: &[u64], capacities: &[u64]) -> Vec<u64> {
    let mut costs: Vec<u128> = (trace.keys.iter().zip(next).enumerate())
        .filter(|&(_, (_, &next))| next != NEVER)
        .map(|(now, (&key, &next))| u128::from(smallest[key as usize]) * (next as usize - now) as u128)
        .collect();
    costs.sort_unstable();
    let granted = |capacity: u64| {
        let budget = u128::from(capacity) * trace.keys.len() as u128;
        let mut spent = 0u128;
        costs
            .iter()
            .take_while(|&&cost| {
                spent += cost;
                spent <= budget
            })
            .count() as u64
    };
    capacities.iter().map(|&capacity| granted(capacity)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Recorder;
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    fn quiet() -> Progress {
        Progress::new(String::new(), 1)
    }

    fn random_trace(seed: u64, requests: usize, keys: u64, largest: u64) -> Trace {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut recorder = Recorder::new(None);
        for _ in 0..requests {
            // The product of two favors small keys, so that some are worth keeping.
            let key = random.random_range(0..keys) * random.random_range(0..keys) / keys;
            recorder.push(key, Some(1 + key * 7919 % largest)).unwrap();
        }
        recorder.finish("random".into()).unwrap()
    }

    fn naive_lru(trace: &Trace, sizes: &[u64], capacity: u64) -> u64 {
        let mut stack: Vec<(u32, u64)> = Vec::new();
        let mut hits = 0;
        for (&key, &size) in trace.keys.iter().zip(sizes) {
            if let Some(at) = stack.iter().position(|e| e.0 == key) {
                hits += 1;
                let entry = stack.remove(at);
                stack.push(entry);
            } else if size <= capacity {
                stack.push((key, size));
                while stack.iter().map(|e| e.1).sum::<u64>() > capacity {
                    stack.remove(0);
                }
            }
        }
        hits
    }

    fn naive_optimum(trace: &Trace, capacity: usize) -> u64 {
        let mut cached: Vec<u32> = Vec::new();
        let mut hits = 0;
        for (now, key) in trace.keys.iter().enumerate() {
            if cached.contains(key) {
                hits += 1;
                continue;
            }
            cached.push(*key);
            if cached.len() > capacity {
                let later = &trace.keys[now + 1..];
                let wait = |k: &u32| later.iter().position(|other| other == k).unwrap_or(usize::MAX);
                let furthest = (0..cached.len()).max_by_key(|&i| wait(&cached[i])).unwrap();
                cached.swap_remove(furthest);
            }
        }
        hits
    }

    #[test]
    fn agree_with_the_slow_way() {
        for seed in 0..20 {
            let trace = random_trace(seed, 400, 40, 30);
            let sizes = trace.sizes.clone().unwrap();
            let ones = vec![1; trace.keys.len()];
            let next = next_uses(&trace);
            let lru = lru_hits(&trace, &quiet());
            for (capacity, &hits) in lru.iter().enumerate().skip(1) {
                assert_eq!(hits, naive_lru(&trace, &ones, capacity as u64), "LRU of {capacity}");
                assert_eq!(hits, lru_hits_bytes(&trace, &ones, capacity as u64, &quiet()));
                let optimum = optimum_hits(&trace, &next, capacity, &quiet());
                assert_eq!(optimum, naive_optimum(&trace, capacity), "optimum of {capacity}");
                assert!(hit_bound_bytes(&trace, &next, &vec![1; trace.unique], &[capacity as u64])[0] >= optimum);
            }
            for capacity in [1, 10, 50, 200, 10_000] {
                let exact = lru_hits_bytes(&trace, &sizes, capacity, &quiet());
                assert_eq!(exact, naive_lru(&trace, &sizes, capacity), "LRU of {capacity} bytes");
                let bound = hit_bound_bytes(&trace, &next, &trace.smallest_sizes().unwrap(), &[capacity])[0];
                assert!(bound >= exact);
            }
        }
    }

    #[test]
    fn the_heap_is_swept_without_harm() {
        let trace = random_trace(1, 20_000, 30, 2);
        let optimum = optimum_hits(&trace, &next_uses(&trace), 5, &quiet());
        assert_eq!(optimum, naive_optimum(&trace, 5));
    }
}
