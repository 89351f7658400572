//! Workloads made up here, so that the demonstration runs without any file. They are the same on every machine.

use crate::trace::{Recorder, Trace};

const REQUESTS: usize = 600_000;
const KEYS: usize = 50_000;
/// Most measured web and storage popularity lies near this exponent.
const SKEW: f64 = 0.99;

/// SplitMix64: small, even enough, and seeded, unlike the standard library's hasher.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// A number in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Draws ranks, the lower the likelier: rank r comes with a chance in proportion to 1 / (r + 1)^SKEW.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=ranks)
            .map(|r| {
                sum += (r as f64).powf(-SKEW);
                sum
            })
            .collect();
        sums.iter_mut().for_each(|s| *s /= sum);
        Self(sums)
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let at = random.unit();
        self.0.partition_point(|&sum| sum <= at).min(self.0.len() - 1) as u64
    }
}

/// A size for a key: from 64 bytes to 64 KiB, each power of two as likely as the next.
fn size_of(key: u64) -> u64 {
    let bits = scramble(key ^ 0x5173);
    let power = 6 + bits % 10;
    (1 << power) + (bits >> 32) % (1 << power)
}

/// A kind of workload: what to call it, and which key comes with the n-th request.
type Kind = (&'static str, fn(usize, &Zipf, &mut Random) -> u64);

const KINDS: [Kind; 3] = [
    ("zipf 0.99", |_, zipf, random| zipf.draw(random)),
    // Two thousand of every ten thousand requests walk on through a loop of cold keys, as a backup or a report does:
    // LRU drops its hot keys for them.
    ("zipf with looping scans", |n, zipf, random| {
        let (round, within) = (n / 10_000, n % 10_000);
        if within < 2_000 {
            (KEYS + (round * 2_000 + within) % 20_000) as u64
        } else {
            zipf.draw(random)
        }
    }),
    // Every 50,000 requests the most popular 1,000 ranks go to keys never seen before: LFU clings to the former ones.
    ("shifting popularity", |n, zipf, random| {
        let rank = zipf.draw(random);
        if rank < 1_000 {
            (KEYS + n / 50_000 * 1_000) as u64 + rank
        } else {
            rank
        }
    }),
];

/// The names of the generated traces, to be handed to [`generate`].
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.0)
}

/// The generated trace called `name`.
pub(crate) fn generate(name: &str, limit: Option<usize>) -> Result<Trace, String> {
    let (name, key) = KINDS.iter().find(|kind| kind.0 == name).ok_or("no such workload")?;
    let zipf = Zipf::new(KEYS);
    let mut random = Random::new(0x686f_7473_6574);
    let mut recorder = Recorder::new(limit);
    for n in 0..REQUESTS {
        let key = key(n, &zipf, &mut random);
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
    fn zipf_favours_low_ranks() {
        let (zipf, mut random) = (Zipf::new(1_000), Random::new(7));
        let mut counts = [0u32; 1_000];
        (0..100_000).for_each(|_| counts[zipf.draw(&mut random) as usize] += 1);
        // 1 / H(1000, 0.99) is about 0.13.
        assert!((12_000..14_500).contains(&counts[0]), "{}", counts[0]);
        assert!(counts[0] > counts[10] && counts[10] > counts[500]);
    }
}
