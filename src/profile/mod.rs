//! The miss-ratio curve that a cache draws of itself: miniature simulations of its own policy.
//!
//! A [`Simulation`] holds one [`Mini`] per size, from a quarter of the cache's capacity to eight
//! times of it. A mini simulates a cache of capacity `C` by one of capacity `R * C` that sees only
//! the keys whose hash is below a threshold, a share `R` of all (miniature simulation, Waldspurger
//! et al., ATC 2017). Each size has a threshold of its own, so that a large size does not need a
//! large mini. The driver passes [`Sample`]s in their order; it knows the keys, the clock and the
//! threads, of which this module knows nothing.
//!
//! # Corrections
//!
//! A few hot keys inside or outside of the sample would move the ratio by ten points. So the minis
//! provide differences only: each is compared with the real cache's hits on the same lookups, and
//! the hit ratio of the real cache is known exactly. Missing samples count as equal: the divisor is
//! the expected number of samples, `R` times the lookups (SHARDS-adj, Waldspurger et al., FAST
//! 2015). What the mini of the cache's own size differs by is an error of the method, and is
//! subtracted from the others.
//!
//! # Expiration
//!
//! Entries carry their TTL, since advice that ignores TTLs is too large (Sultan et al., `EuroSys`
//! 2024). Each mini expires its entry by the time at which that mini would have loaded it.
//!
//! # Other capacities
//!
//! When the cache's capacity changes, the minis change theirs and keep their entries, as the cache
//! does. An [`Autosize`] chooses a capacity from the advice, each time that every size has seen
//! [`PERIOD`] lookups. After a change, the first lookups only fill the sizes ([`WARM_UP`]). After
//! each decision, what was counted so far counts half.
#![forbid(unsafe_code)]

mod advice;
mod autosize;
mod mini;
mod optimum;
mod seen;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::policy::PolicyKind;
use mini::{Access, Mini, mix};
use seen::Seen;

pub use advice::{Advice, Doubt, Point};
pub(crate) use autosize::Autosize;
pub(crate) use mini::{NEVER, Traits};

/// The simulated sizes, in quarters of the capacity, ascending.
const QUARTERS: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// The index of the cache's own size.
const OWN: usize = 2;
/// The index of LRU at the cache's own size.
const LRU: usize = QUARTERS.len();
/// The number of entries of the minis, and of the one of LRU. A mini that sees the share `R` of the
/// keys costs `R` operations per lookup, so small sizes are the dear ones.
const ENTRIES: [u64; QUARTERS.len() + 1] = [160, 320, 640, 1_280, 3_072, 3_072, 512];
/// Periods until the sizes are filled after the capacity has grown, and after it has shrunk: then
/// keys join that the cache has, and the sizes do not.
const WARM_UP: (f64, f64) = (1.0, 3.0);
/// Number of lookups that are kept for the optimum.
const RECENT: usize = 1 << 15;
/// Number of misses whose insertion is expected.
const PENDING: u32 = 1 << 10;
/// A decision about the capacity needs this many lookups at each size: twice those of an advice.
/// The largest size sees the smallest share of the keys, so the cache had ten per entry.
const PERIOD: f64 = 4_000.0;
/// Number of insertions whose TTL is remembered.
const TTLS: u32 = 1 << 12;

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
    /// It was removed by the user. The cache may have evicted it before: larger ones have it.
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

/// One size: its mini, the share of the keys that it sees, and what it counted.
#[derive(Debug)]
struct Size {
    mini: Mini,
    /// The mini sees keys whose hash is below this.
    threshold: u32,
    /// The capacity that is simulated.
    capacity: u64,
    /// With more entries, the share is halved. Reached by weighted caches, whose number of entries
    /// is not known in advance.
    most: usize,
    counts: Counts,
}

/// What a size counted of the lookups that it saw. Halved with its share.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    lookups: f64,
    hits: f64,
    /// Hits of the real cache.
    real: f64,
    /// Lookups that even an infinite cache misses.
    cold: f64,
}

/// The miniature caches of all sizes. Sequential; the driver locks.
#[derive(Debug)]
pub(crate) struct Simulation {
    kind: PolicyKind,
    capacity: u64,
    weighted: bool,
    /// The time to idle; [`NEVER`] if there is none.
    idle: u64,
    /// The greatest threshold of all sizes.
    threshold: u32,
    /// The lookups that each size must see until the sizes are filled, and their estimates are
    /// good; 0 once they are.
    warm_up: f64,
    /// [`QUARTERS`], then LRU at the cache's own size, unless that is the cache's policy.
    sizes: Vec<Size>,
    /// Lookups of which the driver dropped the samples.
    lost: f64,
    seen: Seen,
    /// The last lookups that the cache's own size saw.
    recent: Vec<u32>,
    /// The position of the oldest lookup in `recent`, once that is full.
    oldest: usize,
    /// The last miss per place, whose insertion is a load and no update. A hash plus 1; 0 if none.
    pending: Vec<u32>,
    /// The last insertion per place, with its TTL: a hit of the real cache knows only what remains
    /// of it. Empty until an entry has a TTL.
    ttls: Vec<(u32, Traits)>,
}

/// Returns the share of the keys below a threshold; `u32::MAX` stands for all keys.
fn share(threshold: u32) -> f64 {
    f64::from(threshold) / f64::from(u32::MAX)
}

/// Returns the capacity of a mini.
fn scaled(capacity: u64, threshold: u32) -> u64 {
    if threshold == u32::MAX {
        return capacity.max(1);
    }
    let exact = (u128::from(capacity) * u128::from(threshold)) >> 32;
    u64::try_from(exact).unwrap_or(u64::MAX).max(1)
}

/// Returns the threshold by which a mini of `entries` simulates a capacity in entries.
fn threshold_for(capacity: u64, entries: u64) -> u32 {
    if capacity <= entries {
        return u32::MAX;
    }
    ((u128::from(entries) << 32) / u128::from(capacity)) as u32
}

/// Returns the simulated size that is this many quarters of the capacity.
fn quarters_of(capacity: u64, quarters: u64) -> u64 {
    u64::try_from(u128::from(capacity) * u128::from(quarters) / 4).unwrap_or(u64::MAX)
}

/// The simulated sizes in quarters of the capacity, with the number of entries of their minis.
fn ladder() -> impl Iterator<Item = (u64, u64)> {
    QUARTERS.into_iter().chain([QUARTERS[OWN]]).zip(ENTRIES)
}

impl Size {
    fn new(kind: PolicyKind, capacity: u64, weighted: bool, entries: u64) -> Self {
        // How many entries a weight holds shows later.
        let threshold = if weighted {
            u32::MAX
        } else {
            threshold_for(capacity, entries)
        };
        Self {
            mini: Mini::new(kind, scaled(capacity, threshold), weighted),
            threshold,
            capacity,
            most: entries as usize * 3 / 2,
            counts: Counts::default(),
        }
    }

    /// Halves the share of the keys, and with it all counters.
    fn halve(&mut self) {
        self.set_threshold(self.threshold / 2);
        self.counts.halve();
    }

    fn set_threshold(&mut self, threshold: u32) {
        self.threshold = threshold;
        self.mini.thin_out(threshold, scaled(self.capacity, threshold));
    }

    /// Simulates another capacity, with the entries that it has. If the capacity is smaller, the
    /// share of the keys is larger, and those that join it are missing at first.
    fn resize(&mut self, capacity: u64, weighted: bool, entries: u64) {
        let threshold = if weighted {
            // For about as many entries as before.
            let scaled = u128::from(self.threshold) * u128::from(self.capacity) / u128::from(capacity.max(1));
            u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
        } else {
            threshold_for(capacity, entries)
        };
        self.capacity = capacity;
        self.set_threshold(threshold);
    }
}

impl Counts {
    fn halve(&mut self) {
        let Self {
            lookups,
            hits,
            real,
            cold,
        } = self;
        for counter in [lookups, hits, real, cold] {
            *counter /= 2.0;
        }
    }
}

impl Simulation {
    pub(crate) fn new(kind: PolicyKind, capacity: u64, weighted: bool, idle: u64) -> Self {
        let sizes = ladder().enumerate().map(|(n, (quarters, entries))| {
            let kind = if n == LRU { PolicyKind::Lru } else { kind };
            Size::new(kind, quarters_of(capacity, quarters), weighted, entries)
        });
        let count = if kind == PolicyKind::Lru { LRU } else { LRU + 1 };
        let sizes: Vec<Size> = sizes.take(count).collect();
        Self {
            kind,
            capacity,
            weighted,
            idle,
            threshold: sizes.iter().map(|size| size.threshold).max().unwrap_or(0),
            warm_up: 0.0,
            sizes,
            lost: 0.0,
            seen: Seen::new(),
            recent: Vec::new(),
            oldest: 0,
            pending: vec![0; PENDING as usize],
            ttls: Vec::new(),
        }
    }

    /// Returns the bound of the sampled hashes.
    pub(crate) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Counts samples that the driver had to drop.
    pub(crate) fn lose(&mut self, samples: u64) {
        self.lost += samples as f64 / share(self.threshold);
    }

    /// Applies one operation to the minis that see the key.
    pub(crate) fn apply(&mut self, sample: Sample) {
        let Sample { hash, now, what } = sample;
        if hash >= self.threshold {
            return; // sampled before the threshold was lowered
        }
        let expected = &mut self.pending[(mix(hash) % PENDING) as usize];
        match what {
            What::Hit(traits) => {
                let known = self.remembered(hash, traits);
                self.look_up(hash, now, Some(known));
            }
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
                self.remember_ttl(hash, traits);
                for size in self.sizes.iter_mut().filter(|size| hash < size.threshold) {
                    if !load || !size.mini.contains(hash, now) {
                        size.mini.insert(hash, traits, now);
                    }
                }
            }
            What::Removed => {
                let sizes = self.sizes.iter_mut().filter(|size| hash < size.threshold);
                sizes.for_each(|size| size.mini.remove(hash));
                self.seen.remove(hash);
            }
        }
        if self.weighted {
            self.halve();
        }
    }

    /// A lookup. `real` is the real cache's entry, if it was a hit.
    fn look_up(&mut self, hash: u32, now: u64, real: Option<Traits>) {
        let cold = self.seen.add(hash);
        if hash < self.sizes[OWN].threshold {
            self.remember(hash);
        }
        // From the largest to the smallest: a larger cache knows the TTL with which a smaller one
        // would load the value.
        let mut known = real;
        let idle = self.idle;
        let (sizes, lru) = self.sizes.split_at_mut(LRU);
        for size in sizes.iter_mut().rev().chain(lru) {
            if hash >= size.threshold {
                continue;
            }
            size.counts.lookups += 1.0;
            size.counts.cold += cold;
            size.counts.real += f64::from(u8::from(real.is_some()));
            match size.mini.access(hash, now, idle) {
                Access::Hit(traits) => {
                    size.counts.hits += 1.0;
                    known = Some(traits);
                    continue;
                }
                Access::Expired(traits) => known = Some(traits),
                Access::Miss => {}
            }
            // After a miss of the real cache, its insertion follows.
            if let (Some(_), Some(traits)) = (real, known) {
                size.mini.insert(hash, traits, now);
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

    fn remember_ttl(&mut self, hash: u32, traits: Traits) {
        if self.ttls.is_empty() {
            if traits.max_ttl == NEVER && traits.ttl == NEVER {
                return;
            }
            self.ttls = vec![(0, Traits::PLAIN); TTLS as usize];
        }
        self.ttls[(mix(hash) % TTLS) as usize] = (hash, traits);
    }

    /// Returns the traits with which the real cache's entry was inserted, or, if another key has
    /// its place, those that remain.
    fn remembered(&self, hash: u32, remaining: Traits) -> Traits {
        match self.ttls.get((mix(hash) % TTLS) as usize) {
            Some(&(key, traits)) if key == hash && traits.weight == remaining.weight => traits,
            _ => remaining,
        }
    }

    /// Halves the shares of the sizes that hold too many entries.
    fn halve(&mut self) {
        let own = self.sizes[OWN].threshold;
        for size in &mut self.sizes {
            while size.mini.len() > size.most && size.threshold > 1 {
                size.halve();
            }
        }
        self.update_thresholds(own);
    }

    /// Updates what follows from the thresholds of the sizes. `own` is what that of the cache's own
    /// size was before.
    fn update_thresholds(&mut self, own: u32) {
        self.threshold = self.sizes.iter().map(|size| size.threshold).max().unwrap_or(0);
        let threshold = self.sizes[OWN].threshold;
        if threshold < own {
            self.recent.rotate_left(self.oldest);
            self.recent.retain(|&hash| hash < threshold);
            self.oldest = 0;
        } else if threshold > own {
            // It has gaps: keys that were not seen.
            (self.recent, self.oldest) = (Vec::new(), 0);
        }
    }

    /// Simulates multiples of another capacity. The miniature caches keep their entries, as the
    /// cache does; the counters begin anew.
    pub(crate) fn resize(&mut self, capacity: u64) {
        self.capacity = capacity;
        let own = self.sizes[OWN].threshold;
        for ((quarters, entries), size) in ladder().zip(&mut self.sizes) {
            size.resize(quarters_of(capacity, quarters), self.weighted, entries);
        }
        let joined = self.sizes[OWN].threshold > own;
        self.update_thresholds(own);
        self.warm_up(if joined { WARM_UP.1 } else { WARM_UP.0 });
    }

    /// Ignores the first lookups from now on: what is simulated is not filled as the cache is.
    pub(crate) fn require_warm_up(&mut self) {
        self.warm_up(WARM_UP.1);
    }

    fn warm_up(&mut self, periods: f64) {
        self.warm_up = PERIOD * periods;
        self.restart_counts();
    }

    pub(crate) fn is_warm(&self) -> bool {
        self.warm_up == 0.0
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns whether each size has seen enough lookups for a decision, or for the end of the
    /// warm-up.
    pub(crate) fn is_due(&self) -> bool {
        let lookups = self.warm_up.max(PERIOD);
        self.sizes.iter().all(|size| size.counts.lookups >= lookups)
    }

    /// Begins to count, after the warm-up.
    pub(crate) fn end_warm_up(&mut self) {
        self.warm_up = 0.0;
        self.restart_counts();
    }

    fn restart_counts(&mut self) {
        self.lost = 0.0;
        self.sizes.iter_mut().for_each(|size| size.counts = Counts::default());
    }

    /// Halves the weight of what was counted so far.
    pub(crate) fn halve_counts(&mut self) {
        self.lost /= 2.0;
        self.sizes.iter_mut().for_each(|size| size.counts.halve());
    }

    /// Removes all keys from all minis.
    pub(crate) fn clear(&mut self) {
        for size in &mut self.sizes {
            size.mini.clear(scaled(size.capacity, size.threshold));
        }
        self.seen = Seen::new();
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
        let size = |size: &Size| SizeFigures {
            share: share(size.threshold),
            counts: size.counts,
            entries: size.mini.len(),
        };
        Figures {
            kind: self.kind,
            capacity: self.capacity,
            own_entries: scaled(self.capacity, self.sizes[OWN].threshold),
            weighted: self.weighted,
            timed: self.sizes.iter().any(|size| size.mini.is_timed()),
            sizes: self.sizes.iter().map(size).collect(),
            lost: self.lost,
            is_warm: self.is_warm(),
            counts_new_keys: !self.seen.is_full(),
            recent: Vec::new(),
        }
    }
}

/// A copy of the counters of a [`Size`].
#[derive(Debug)]
struct SizeFigures {
    /// The share of the keys that it sees.
    share: f64,
    counts: Counts,
    entries: usize,
}

/// A copy of the counters of a [`Simulation`].
#[derive(Debug)]
pub(crate) struct Figures {
    kind: PolicyKind,
    capacity: u64,
    /// The capacity of the mini of the cache's own size.
    own_entries: u64,
    weighted: bool,
    timed: bool,
    sizes: Vec<SizeFigures>,
    lost: f64,
    is_warm: bool,
    /// Whether new keys could be distinguished from others.
    counts_new_keys: bool,
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
