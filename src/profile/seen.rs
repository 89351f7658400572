//! How many keys were seen for the first time: what even an infinite cache misses.

use super::mini::mix;

const BITS: u32 = 1 << 20;

/// A bitmap of the keys seen (linear counting, Whang et al., TODS 1990). 128 KiB.
#[derive(Debug)]
pub(crate) struct Seen {
    words: Vec<u64>,
    set: u32,
}

/// Returns the word of a key, and its bit in it.
fn place(hash: u32) -> (usize, u64) {
    let bit = mix(hash ^ 0x9e37_79b9) & (BITS - 1);
    (bit as usize / 64, 1 << (bit % 64))
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            words: vec![0; BITS as usize / 64],
            set: 0,
        }
    }

    /// Records a key. Returns the estimated number of new keys that this one stands for: 0 if its
    /// bit was set. A bit that was not set counts for the keys that find one set by another key.
    pub(crate) fn add(&mut self, hash: u32) -> f64 {
        let (at, mask) = place(hash);
        let word = &mut self.words[at];
        if *word & mask != 0 {
            return 0.0;
        }
        let unset = BITS - self.set;
        *word |= mask;
        self.set += 1;
        f64::from(BITS) / f64::from(unset)
    }

    /// Forgets a key, whose next lookup even an infinite cache misses. Also forgets the keys that
    /// share its bit.
    pub(crate) fn remove(&mut self, hash: u32) {
        let (at, mask) = place(hash);
        let word = &mut self.words[at];
        self.set -= u32::from(*word & mask != 0);
        *word &= !mask;
    }

    /// Returns whether too many bits are set to count new keys well.
    pub(crate) fn is_full(&self) -> bool {
        self.set > BITS / 8 * 7
    }
}
