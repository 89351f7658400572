//! The miss-ratio curve that a cache draws of itself: miniature simulations of its own policy.
//!
//! A [`Simulation`] holds one [`Mini`] per size, from a quarter of the cache's capacity to eight
//! times of it. A mini simulates a cache of capacity `C` by one of capacity `R * C` that sees only
//! the keys whose hash is below a threshold, a share `R` of all (miniature simulation, Waldspurger
//! et al., ATC 2017). The driver passes [`Sample`]s in their order; it knows the keys, the clock
//! and the threads, of which this module knows nothing.
//!
//! # Corrections
//!
//! A few hot keys inside or outside of the sample would move the ratio by ten points. So missing
//! samples count as hits: the divisor is the expected number of samples, `R` times the lookups of
//! the cache (SHARDS-adj, Waldspurger et al., FAST 2015). And the minis provide
//! differences only: the hit ratio at the cache's own capacity is known exactly.
//!
//! # Expiration
//!
//! Entries carry their TTL, since advice that ignores TTLs is too large (Sultan et al., `EuroSys`
//! 2024). Each mini expires its entry by the time at which that mini would have loaded it.
#![forbid(unsafe_code)]

mod advice;
mod mini;
mod optimum;
mod seen;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::policy::PolicyKind;
use mini::{Access, Mini, mix};
use seen::Seen;

pub use advice::{Advice, Doubt, Point};
pub(crate) use mini::{NEVER, Traits};

/// The simulated sizes, in quarters of the capacity, ascending.
const QUARTERS: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// The index of the cache's own size.
const OWN: usize = 2;
/// The smallest mini has this many entries, unless the whole cache is simulated. With a quarter as
/// many, an estimate from 100,000 lookups was 1.9 points off
/// (`estimates_are_within_a_point_of_replays`).
const SMALLEST: u64 = 512;
/// With more entries in the largest mini, the share of sampled keys is halved. Reached by weighted
/// caches, whose number of entries is not known in advance.
const MOST: usize = 17_000;
/// Number of lookups that are kept for the optimum.
const RECENT: usize = 1 << 15;
/// Number of misses whose insertion is expected.
const PENDING: u32 = 1 << 10;

/// Whether a cache of this capacity can be profiled. One without a bound has no size to compare
/// others with.
pub(crate) fn is_bound(capacity: u64, weighted: bool) -> bool {
    (1..=if weighted { u64::MAX / 8 } else { 1 << 28 }).contains(&capacity)
}

/// What happened to a sampled key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A lookup found it. The TTL is the time that remains.
    Hit(Traits),
    /// A lookup did not find it.
    Miss,
    Inserted(Traits),
    /// It was removed by the user.
    Removed,
}

/// One operation on a sampled key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) hash: u32,
    /// In nanoseconds; 0 in a cache without an expiration.
    pub(crate) now: u64,
    pub(crate) what: What,
}

/// The real cache's counters since the simulation began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Truth {
    pub(crate) hits: u64,
    pub(crate) lookups: u64,
    /// Memory per entry without a weigher, without what keys and values point to.
    pub(crate) entry_bytes: u64,
}

/// The miniature caches of all sizes. Sequential; the driver locks.
#[derive(Debug)]
pub(crate) struct Simulation {
    kind: PolicyKind,
    capacity: u64,
    weighted: bool,
    /// The time to idle; [`NEVER`] if there is none.
    idle: u64,
    /// Keys whose hash is below this are sampled.
    threshold: u32,
    minis: [Mini; QUARTERS.len()],
    /// LRU at the cache's own size, unless that is the cache's policy.
    lru: Option<Mini>,
    /// What the driver counted, in samples of the current share: halved with it.
    hits: [f64; QUARTERS.len()],
    lru_hits: f64,
    sampled: f64,
    lost: f64,
    /// Lookups that even an infinite cache misses.
    cold: f64,
    seen: Seen,
    recent: Vec<u32>,
    /// The position of the oldest lookup in `recent`, once that is full.
    oldest: usize,
    /// The last miss per place, whose insertion is a load and no update. A hash plus 1; 0 if none.
    pending: Vec<u32>,
}

/// Returns the capacity of a mini.
fn scaled(capacity: u64, quarters: u64, threshold: u32) -> u64 {
    // A threshold of `u32::MAX` samples all keys.
    let share = if threshold == u32::MAX {
        1 << 32
    } else {
        u128::from(threshold)
    };
    let exact = u128::from(capacity) * u128::from(quarters) * share / (4 << 32);
    u64::try_from(exact).unwrap_or(u64::MAX).max(1)
}

impl Simulation {
    pub(crate) fn new(kind: PolicyKind, capacity: u64, weighted: bool, idle: u64) -> Self {
        let wanted = SMALLEST * 4; // the capacity whose quarter is the smallest mini
        let threshold = if weighted || capacity <= wanted {
            u32::MAX
        } else {
            ((u128::from(wanted) << 32) / u128::from(capacity)) as u32
        };
        let mini = |quarters| Mini::new(kind, scaled(capacity, quarters, threshold), weighted);
        let lru = || Mini::new(PolicyKind::Lru, scaled(capacity, 4, threshold), weighted);
        Self {
            kind,
            capacity,
            weighted,
            idle,
            threshold,
            minis: QUARTERS.map(mini),
            lru: (kind != PolicyKind::Lru).then(lru),
            hits: [0.0; QUARTERS.len()],
            lru_hits: 0.0,
            sampled: 0.0,
            lost: 0.0,
            cold: 0.0,
            seen: Seen::new(),
            recent: Vec::new(),
            oldest: 0,
            pending: vec![0; PENDING as usize],
        }
    }

    /// Returns the bound of the sampled hashes.
    pub(crate) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Counts samples that the driver had to drop.
    pub(crate) fn lose(&mut self, samples: u64) {
        self.lost += samples as f64;
    }

    /// Applies one operation to all minis.
    pub(crate) fn apply(&mut self, sample: Sample) {
        let Sample { hash, now, what } = sample;
        if hash >= self.threshold {
            return; // sampled before the threshold was lowered
        }
        let expected = &mut self.pending[(mix(hash) % PENDING) as usize];
        match what {
            What::Hit(traits) => self.look_up(hash, now, Some(traits)),
            What::Miss => {
                *expected = hash + 1;
                self.look_up(hash, now, None);
            }
            What::Inserted(traits) => {
                // After a miss, only the caches that missed as well load the value. Without one,
                // all caches get the new value.
                let load = *expected == hash + 1;
                *expected = 0;
                if !load {
                    self.seen.add(hash);
                }
                for mini in self.minis.iter_mut().chain(&mut self.lru) {
                    if !load || !mini.contains(hash, now) {
                        mini.insert(hash, traits, now);
                    }
                }
            }
            What::Removed => self
                .minis
                .iter_mut()
                .chain(&mut self.lru)
                .for_each(|mini| mini.remove(hash)),
        }
        while self.minis[QUARTERS.len() - 1].len() > MOST && self.threshold > 1 {
            self.halve();
        }
    }

    /// A lookup. `real` is the real cache's entry, if it was a hit.
    fn look_up(&mut self, hash: u32, now: u64, real: Option<Traits>) {
        self.sampled += 1.0;
        self.cold += self.seen.add(hash);
        self.remember(hash);
        // From the largest to the smallest: a larger cache knows the TTL with which a smaller one
        // would load the value, while the real one knows only what remains of it.
        let mut known = real;
        let sizes = self.minis.iter_mut().zip(&mut self.hits).rev();
        for (mini, hits) in sizes.chain(self.lru.iter_mut().zip([&mut self.lru_hits])) {
            match mini.access(hash, now, self.idle) {
                Access::Hit(traits) => {
                    *hits += 1.0;
                    known = Some(traits);
                    continue;
                }
                Access::Expired(traits) => known = Some(traits),
                Access::Miss => {}
            }
            // After a miss of the real cache, its insertion follows.
            if let (Some(_), Some(traits)) = (real, known) {
                mini.insert(hash, traits, now);
            }
        }
    }

    fn remember(&mut self, hash: u32) {
        if self.recent.len() < RECENT {
            self.recent.push(hash);
        } else {
            self.recent[self.oldest] = hash;
            self.oldest = (self.oldest + 1) % RECENT;
        }
    }

    /// Halves the share of sampled keys, and with it all counters.
    fn halve(&mut self) {
        self.threshold /= 2;
        let (capacity, threshold) = (self.capacity, self.threshold);
        for (mini, quarters) in self.minis.iter_mut().zip(QUARTERS) {
            mini.thin_out(threshold, scaled(capacity, quarters, threshold));
        }
        if let Some(lru) = &mut self.lru {
            lru.thin_out(threshold, scaled(capacity, 4, threshold));
        }
        self.hits.iter_mut().for_each(|hits| *hits /= 2.0);
        for counter in [&mut self.lru_hits, &mut self.sampled, &mut self.lost, &mut self.cold] {
            *counter /= 2.0;
        }
        self.recent.rotate_left(self.oldest);
        self.recent.retain(|&hash| hash < threshold);
        self.oldest = 0;
    }

    /// Removes all keys from all minis.
    pub(crate) fn clear(&mut self) {
        let new = Self::new(self.kind, self.capacity, self.weighted, self.idle);
        self.minis = new.minis;
        self.lru = new.lru;
        let (capacity, threshold) = (self.capacity, self.threshold);
        for (mini, quarters) in self.minis.iter_mut().zip(QUARTERS) {
            mini.thin_out(threshold, scaled(capacity, quarters, threshold));
        }
        if let Some(lru) = &mut self.lru {
            lru.thin_out(threshold, scaled(capacity, 4, threshold));
        }
        self.pending.fill(0);
    }

    /// Returns what [`Figures::advice`] needs, so that the driver can unlock before that.
    pub(crate) fn figures(&self) -> Figures {
        let mut recent = self.recent.clone();
        recent.rotate_left(self.oldest);
        Figures {
            recent,
            ..self.counters()
        }
    }

    /// Same as [`figures`](Self::figures), without the last lookups: the advice has no optimum, and
    /// takes no time.
    pub(crate) fn counters(&self) -> Figures {
        Figures {
            kind: self.kind,
            capacity: self.capacity,
            weighted: self.weighted,
            timed: self.minis.iter().any(Mini::is_timed),
            share: f64::from(self.threshold) / f64::from(u32::MAX),
            hits: self.hits,
            lru_hits: self.lru.is_some().then_some(self.lru_hits),
            sampled: self.sampled,
            lost: self.lost,
            cold: (!self.seen.is_full()).then_some(self.cold),
            entries: self.minis.each_ref().map(Mini::len),
            recent: Vec::new(),
        }
    }
}

/// A copy of the counters of a [`Simulation`].
#[derive(Debug)]
pub(crate) struct Figures {
    kind: PolicyKind,
    capacity: u64,
    weighted: bool,
    timed: bool,
    /// The share of keys that are sampled.
    share: f64,
    hits: [f64; QUARTERS.len()],
    lru_hits: Option<f64>,
    sampled: f64,
    lost: f64,
    cold: Option<f64>,
    entries: [usize; QUARTERS.len()],
    recent: Vec<u32>,
}

/// Returns the hits on a stream of lookups, each miss of which inserts, starting empty.
fn replay(kind: PolicyKind, stream: &[u32], capacity: u64) -> u64 {
    let mut mini = Mini::new(kind, capacity, false);
    let mut hits = 0;
    for &hash in stream {
        match mini.access(hash, 0, NEVER) {
            Access::Hit(_) => hits += 1,
            _ => mini.insert(hash, Traits::PLAIN, 0),
        }
    }
    hits
}
