//! Generated workloads, so that the demonstration runs without any file. They are the same on every
//! machine: the generator and its seed are fixed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::trace::{Recorder, Trace};

const REQUESTS: usize = 600_000;
const KEYS: usize = 50_000;
/// Most measured web and storage popularity lies near this exponent.
const SKEW: f64 = 0.99;

/// Draws ranks from 0: rank `r` has a probability proportional to `1 / (r + 1)^SKEW`.
struct Popularity {
    zipf: Zipf<f64>,
    random: Xoshiro256PlusPlus,
}

impl Popularity {
    fn new(ranks: usize, seed: u64) -> Result<Self, String> {
        Ok(Self {
            zipf: Zipf::new(ranks as f64, SKEW).map_err(|e| format!("no zipf distribution: {e}"))?,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
        })
    }

    fn rank(&mut self) -> u64 {
        // The distribution counts ranks from 1.
        self.zipf.sample(&mut self.random) as u64 - 1
    }
}

/// Returns the size of the object `key`: from 64 bytes to 64 KiB, each power of two equally likely.
fn size_of(key: u64) -> u64 {
    // Seeded by the key: an object has the same size at each of its requests.
    let mut random = Xoshiro256PlusPlus::seed_from_u64(key);
    let base = 1 << random.random_range(6..16);
    base + random.random_range(0..base)
}

/// A kind of workload: its name, and the key of the n-th request.
type Kind = (&'static str, fn(usize, &mut Popularity) -> u64);

const KINDS: [Kind; 3] = [
    ("zipf 0.99", |_, popularity| popularity.rank()),
    // Of every 10,000 requests, 2,000 advance through a loop of cold keys, as a backup or a report
    // does: LRU evicts its hot keys for them.
    ("zipf with looping scans", |n, popularity| {
        let (round, within) = (n / 10_000, n % 10_000);
        if within < 2_000 {
            (KEYS + (round * 2_000 + within) % 20_000) as u64
        } else {
            popularity.rank()
        }
    }),
    // Every 50,000 requests, the 1,000 most popular ranks move to new keys: LFU keeps the old ones.
    ("shifting popularity", |n, popularity| {
        let rank = popularity.rank();
        if rank < 1_000 {
            (KEYS + n / 50_000 * 1_000) as u64 + rank
        } else {
            rank
        }
    }),
];

/// Returns the names of the generated traces, for [`generate`].
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.0)
}

/// Generates the trace called `name`, of at most `limit` requests.
pub(crate) fn generate(name: &str, limit: Option<usize>) -> Result<Trace, String> {
    let (name, key) = KINDS.iter().find(|kind| kind.0 == name).ok_or("no such workload")?;
    let mut popularity = Popularity::new(KEYS, 0x686f_7473_6574)?;
    let mut recorder = Recorder::new(limit);
    for n in 0..REQUESTS {
        let key = key(n, &mut popularity);
        recorder.push(key, Some(size_of(key)))?;
    }
    recorder.finish((*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_repeat_and_differ() {
        let mut seen = Vec::new();
        for name in names() {
            let trace = generate(name, Some(60_000)).unwrap();
            assert_eq!(trace.keys, generate(name, Some(60_000)).unwrap().keys);
            assert_eq!(trace.keys.len(), 60_000);
            assert!(!seen.contains(&trace.keys), "{name} is like another");
            seen.push(trace.keys);
        }
    }

    #[test]
    fn popularity_follows_the_zipf_law() {
        let mut popularity = Popularity::new(1_000, 7).unwrap();
        let mut counts = [0u32; 1_000];
        (0..100_000).for_each(|_| counts[popularity.rank() as usize] += 1);
        // The most popular key has 1 / H(1000, 0.99), about 0.13, of the requests.
        assert!((12_000..14_500).contains(&counts[0]), "{}", counts[0]);
        assert!(counts[0] > counts[10] && counts[10] > counts[500]);
    }

    #[test]
    fn sizes_repeat_and_are_bounded() {
        for key in 0..1_000 {
            assert_eq!(size_of(key), size_of(key));
            assert!((64..1 << 16).contains(&size_of(key)));
        }
    }
}
