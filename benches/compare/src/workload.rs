//! Keys, and caches filled with them.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::Distribution;

use crate::peers::{self, Subject, value_of};

/// Returns a generator whose numbers are the same on every machine.
pub fn rng(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

/// Draws `count` elements, uniformly, with repetition.
pub fn picks(from: &[u32], count: usize, seed: u64) -> Vec<u32> {
    let mut rng = rng(seed);
    (0..count).map(|_| from[rng.random_range(0..from.len())]).collect()
}

/// Ranks `0..keys`: rank `r` has a probability proportional to `1 / (r + 1)^exponent`.
pub struct Zipf(rand_distr::Zipf<f64>);

impl Zipf {
    pub fn new(keys: usize, exponent: f64) -> Self {
        Zipf(rand_distr::Zipf::new(keys as f64, exponent).expect("keys and exponent are positive"))
    }
    /// Draws `count` ranks.
    pub fn sequence(&self, count: usize, seed: u64) -> Vec<u32> {
        let mut rng = rng(seed);
        // The distribution counts ranks from 1.
        (0..count).map(|_| self.0.sample(&mut rng) as u32 - 1).collect()
    }
}

/// Builds a cache of capacity `n`, fills it, and churns it by `churn` times `n` uniform reads of
/// twice as many keys, each miss inserted.
///
/// Returns it with the ids of the keys that it holds, so that each cache is read for keys that it
/// kept: some split their capacity over shards and hold slightly fewer entries.
pub fn full(name: &str, n: usize, churn: usize) -> (Box<dyn Subject>, Vec<u32>) {
    let cache = peers::build(name, n);
    let all: Vec<u32> = (0..2 * n as u32).collect();
    let seed = n as u64;
    cache.insert_ids(&all[..n]);
    for part in 0..churn {
        cache.cache_aside(&picks(&all, n, seed + part as u64));
    }
    cache.settle();
    let mut held = Vec::with_capacity(n);
    for id in all {
        match cache.lookup(u64::from(id)) {
            Some(v) if v == value_of(u64::from(id)) => held.push(id),
            Some(v) => panic!("{name}: key {id} has the value {v}"),
            None => {}
        }
    }
    cache.settle();
    // Sharded caches round the capacity of a shard up.
    assert!(
        held.len() >= n / 2 && held.len() <= n + n / 8 + 64,
        "{name}: holds {} of {n} entries",
        held.len()
    );
    (cache, held)
}
