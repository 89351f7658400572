//! Python's hashes of numbers are the numbers: stirred with a seed of the process's own, so that nobody who chooses keys can have them
//! all fall into one place.

use crate::objects::mix;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static SEED: AtomicU64 = AtomicU64::new(0);

/// To be called before any hash is stirred.
pub(crate) fn init() {
    static DRAWN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    SEED.store(*DRAWN, Ordering::Relaxed);
}

/// For who stirs by itself.
#[inline(always)]
pub(crate) fn seeded(hash: u64) -> u64 {
    hash ^ SEED.load(Ordering::Relaxed)
}

#[inline(always)]
pub(crate) fn mix_with_seed(hash: u64) -> u64 {
    mix(hash, SEED.load(Ordering::Relaxed))
}
