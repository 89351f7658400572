//! The frequency sketch against a naive one, and the ghost table against a list of evicted hashes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[allow(unused, unreachable_pub)]
#[path = "../../src/prim/mod.rs"]
mod prim;

use prim::ghost::{Ghost, Region};
use prim::sketch::{Sketch, naive};

#[derive(Arbitrary, Debug)]
enum Call {
    /// A hash, and how often.
    Add(u32, u8),
    Estimate(u32),
    /// A hash of a few, many of which share a bucket or a fingerprint.
    Leave(u8, bool),
    Return(u8),
    Pass(u16, u16),
}

#[derive(Arbitrary, Debug)]
struct Input {
    entries: u16,
    calls: Vec<Call>,
}

/// The ghost's time is 15 bits.
const TICKS: u32 = 0x7fff;

/// What left a bucket: `(fingerprint, region, tick)`, newest first, at most four.
type Left = Vec<(u32, Region, u32)>;

struct Model {
    buckets: Vec<Left>,
    now: [u32; 2],
}

impl Model {
    fn bucket(&mut self, hash: u32) -> &mut Left {
        let index = (u64::from(hash) * self.buckets.len() as u64) >> 32;
        &mut self.buckets[index as usize]
    }

    fn age(now: [u32; 2], one: (u32, Region, u32)) -> u32 {
        now[one.1 as usize].wrapping_sub(one.2) & TICKS
    }

    fn put(&mut self, hash: u32, region: Region) {
        let now = self.now;
        let bucket = self.bucket(hash);
        bucket.insert(0, ((hash & 0xffff).max(1), region, now[region as usize] & TICKS));
    }

    /// Checks a ghost's answer for a hash: any evicted entry with this fingerprint and this age.
    fn may_be(&mut self, hash: u32, found: (Region, u32)) -> bool {
        let now = self.now;
        let mut left = self.bucket(hash).iter();
        left.any(|one| one.0 == (hash & 0xffff).max(1) && one.1 == found.0 && Self::age(now, *one) == found.1)
    }
}

fn hash_of(key: u8) -> u32 {
    // Eight buckets' worth of the upper bits, and fingerprints that repeat.
    u32::from(key >> 5) << 29 | u32::from(key & 0x1f) % 24
}

fuzz_target!(|input: Input| {
    let entries = u64::from(input.entries) + 1;
    let (mut sketch, mut plain) = (Sketch::new(), naive::Sketch::new(entries));
    assert!(sketch.resize(entries), "there is memory");
    let mut ghost = Ghost::new();
    ghost.reset(entries);
    let mut model = Model {
        buckets: vec![Vec::new(); (entries / 2).max(192).div_ceil(4) as usize],
        now: [0; 2],
    };
    for call in input.calls {
        match call {
            Call::Add(hash, times) => (0..=times).for_each(|_| assert_eq!(sketch.add(hash), plain.add(hash))),
            Call::Estimate(hash) => assert_eq!(sketch.estimate(hash), plain.estimate(hash)),
            Call::Leave(key, main) => {
                let region = if main { Region::Main } else { Region::Window };
                ghost.put(hash_of(key), region, model.now);
                model.put(hash_of(key), region);
                // What left just now is remembered.
                let found = ghost.take(hash_of(key), model.now);
                assert_eq!(found, Some((region, 0)));
                ghost.put(hash_of(key), region, model.now);
            }
            Call::Return(key) => {
                if let Some(found) = ghost.take(hash_of(key), model.now) {
                    assert!(model.may_be(hash_of(key), found), "{found:?} never left");
                }
            }
            Call::Pass(window, main) => {
                model.now[0] = model.now[0].wrapping_add(window.into());
                model.now[1] = model.now[1].wrapping_add(main.into());
            }
        }
    }
});
