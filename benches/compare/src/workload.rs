//! Keys, and caches filled with them.

use crate::peers::{self, Subject, value_of};

/// SplitMix64: small, fast and good enough to choose keys.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x5851_F42D_4C95_7F2D)
    }
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.draw()) * n as u128) >> 64) as usize
    }
}

/// `count` picks, uniform, with repetition.
pub fn picks(from: &[u32], count: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| from[rng.below(from.len())]).collect()
}

/// Ranks `0..keys`, rank `r` with a probability proportional to `1 / (r + 1)^exponent`.
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub fn new(keys: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=keys)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Zipf { cumulative }
    }
    pub fn sequence(&self, count: usize, seed: u64) -> Vec<u32> {
        let mut rng = Rng::new(seed);
        let total = *self.cumulative.last().unwrap();
        (0..count)
            .map(|_| {
                let at = (rng.draw() >> 11) as f64 / (1u64 << 53) as f64 * total;
                self.cumulative
                    .partition_point(|c| *c <= at)
                    .min(self.cumulative.len() - 1) as u32
            })
            .collect()
    }
}

/// A cache of capacity `n`, full and churned: filled, then `churn` times `n` uniform reads of twice as many keys, each
/// miss inserted. Returns it with the ids of the keys that it holds, so that each cache is asked for what it kept: some
/// split their capacity over shards and hold slightly less than asked.
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
