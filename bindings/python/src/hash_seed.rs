//! A random seed for hashes.
//!
//! Python's hash of an int is the int. Without a secret seed, a client that chooses keys could have
//! them all share one bucket.

use crate::objects::mix;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static SEED: AtomicU64 = AtomicU64::new(0);

/// Draws the seed. Must be called before any hash is mixed with it.
pub(crate) fn init() {
    static DRAWN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    SEED.store(*DRAWN, Ordering::Relaxed);
}

/// Returns a hash with the seed in it, for users that mix hashes themselves.
#[inline(always)]
pub(crate) fn seeded(hash: u64) -> u64 {
    hash ^ SEED.load(Ordering::Relaxed)
}

#[inline(always)]
pub(crate) fn mix_with_seed(hash: u64) -> u64 {
    mix(hash, SEED.load(Ordering::Relaxed))
}
