//! The default policy: a lazy W-TinyLFU.
//!
//! W-TinyLFU (Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy",
//! 2017) inserts new entries into a small window. An entry that leaves the window (the candidate)
//! is admitted to the main part only if it was used more often than the main part's victim.
//!
//! # Differences from the paper
//!
//! - **Lazy**: a hit only sets the entry's mark. The queues are FIFO. A mark is read when its entry
//!   reaches a tail, as in CLOCK and its descendants, and only then counted in the sketch. On 30
//!   traces this costs no hits against exact LRU.
//! - **Window size**: follows ghosts (as in ARC; Megiddo and Modha 2003) instead of hill climbing.
//!   An entry that is inserted again soon after it left the window enlarges the window. One that is
//!   inserted again soon after it left the main part shrinks it.
//! - **Recent departures from the window** that are inserted again go straight to the main part:
//!   they have shown their reuse distance.
//! - **Hash flooding**: a warm candidate that loses is admitted once in 128 times, as in Caffeine.
//! - **One-hit candidates**: a key that was new when it was inserted, and not hit since, cannot
//!   win. It is rejected without reading the sketch again.
//!
//! # Memory
//!
//! The sketch and the ghosts are allocated when the cache is first full. Until then there is no
//! decision to make, and a cache that never fills does not pay for them. Small caches, whose sketch
//! is small too, allocate it when they are a 32nd full: counts from the first fill are worth more
//! there. A cache bounded by weight sizes them by its number of entries when full, and again
//! whenever that number has doubled. The sketch then keeps its counts, and the ghosts start empty.
#![forbid(unsafe_code)]

mod admission;
mod room;
mod tick_counter;

use super::{Entries, Evictions, Policy, Rank, Verdict, weigh, xorshift};
use crate::prim::ghost::{Ghost, Now, Region};
use crate::prim::list::{Chunks, MAX_NOTE, Queue};
use crate::prim::sketch::Sketch;
use tick_counter::TickCounter;

/// The most steps of the queues' tails per decision. Unbounded, one walk took 52,974 steps; with
/// this bound the mean is 1.33.
const STEPS: u32 = 64;
/// A candidate with at least this estimate is sometimes admitted although it lost.
const WARM: u8 = 6;
/// `coldest` searches this many entries at a queue's tail for one that was not hit.
const COLDEST_OF: usize = 64;
/// Caches of at most this capacity have a sketch as soon as entries are restored with their uses.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
const PRESIZE: u64 = 1 << 26;
/// How many candidates are compared with the remembered victim's estimate before it is read again.
const RIVAL_USES: u8 = 31;
/// The highest estimate.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
const MOST_USES: u8 = 15;
/// The mask of a random number that is 0 once in 128 times.
const ONE_IN_128: u32 = 127;
/// Caches of at most this capacity, whose sketch has at most 8 KiB, allocate it when they are a
/// 32nd full.
const SMALL: u64 = 1024;

/// The policy. See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct TinyLfu<H> {
    capacity: u64,
    weighted: bool,
    total: u64,
    chunks: Chunks<H>,
    window: Queue,
    /// Entries of the main part that were not used again there, or not recently.
    probation: Queue,
    /// Entries of the main part that were used again there.
    protected: Queue,
    /// The target weight of the window.
    window_max: u64,
    /// The weight above which the protected queue demotes entries to probation.
    protected_max: u64,
    sketch: Sketch,
    ghost: Ghost,
    /// The window's time counts arrivals; the main part's time counts departures from it.
    arrivals: TickCounter,
    departures: TickCounter,
    tick: u64,
    /// `resize_history` must be called above this total weight, and resizes above this number of
    /// entries.
    size_check: u64,
    size_limit: u64,
    random: u32,
    /// The low bits of the hash of the victim that won against the last candidate.
    rival: u16,
    /// The victim's estimate, and the number of further candidates to compare with it: `left 5 |
    /// uses 3`.
    rivalry: u8,
}

const WINDOW: u16 = 0;
const PROBATION: u16 = 1;
const PROTECTED: u16 = 2;

/// Returns `whole * numerator / denominator`, also where the product overflows.
#[inline(always)]
fn mul_div(whole: u64, numerator: u64, denominator: u64) -> u64 {
    // The usual case, without a division if the denominator is a constant.
    if let Some(product) = whole.checked_mul(numerator) {
        return product / denominator;
    }
    (u128::from(whole) * u128::from(numerator) / u128::from(denominator)) as u64
}

impl<H: Copy + Eq> TinyLfu<H> {
    pub(crate) fn new(capacity: u64, weighted: bool) -> Self {
        let mut policy = Self {
            capacity,
            weighted,
            total: 0,
            chunks: Chunks::new(),
            window: Queue::new(WINDOW),
            probation: Queue::new(PROBATION),
            protected: Queue::new(PROTECTED),
            window_max: 0,
            protected_max: 0,
            sketch: Sketch::new(),
            ghost: Ghost::new(),
            arrivals: TickCounter { ticks: 0, left: 1 },
            departures: TickCounter { ticks: 0, left: 1 },
            tick: 1,
            size_check: Self::history_threshold(capacity, weighted),
            size_limit: 0,
            random: 0x9E37_79B9,
            rival: 0,
            rivalry: 0,
        };
        policy.set_window(mul_div(capacity, 5, 100));
        policy
    }

    /// Sets the window's target, within its bounds.
    fn set_window(&mut self, target: u64) {
        let least = mul_div(self.capacity, 1, 100).max(1);
        // Nearly all: a stream of new keys, each requested again soon, has no use for a main part.
        let most = mul_div(self.capacity, 99, 100).max(least);
        self.window_max = target.clamp(least, most);
        self.protected_max = mul_div(self.capacity.saturating_sub(self.window_max), 7, 10);
    }

    /// Returns the total weight above which the sketch is needed.
    fn history_threshold(capacity: u64, weighted: bool) -> u64 {
        if weighted || capacity > SMALL {
            capacity
        } else {
            capacity / 32
        }
    }

    #[inline(always)]
    fn now(&self) -> Now {
        [self.arrivals.ticks, self.departures.ticks]
    }

    /// Allocates larger sketch and ghosts, if the cache has outgrown them. Without memory, keeps
    /// those that it has. Without any sketch, no candidate is admitted to a full main part.
    #[cold]
    fn resize_history(&mut self) {
        let held = self.chunks.len() as u64;
        if held < self.size_limit {
            return;
        }
        // After a refusal, tries again now and then.
        if self.sketch.was_refused() && xorshift(&mut self.random) & ONE_IN_128 != 0 {
            return;
        }
        let entries = if self.weighted { held } else { self.capacity };
        if !self.sketch.resize(entries) {
            return;
        }
        // Without memory for the ghosts, the window keeps its size.
        self.ghost.reset(entries);
        // In a cache of capacity 0, `prepare` must check every entry.
        (self.size_check, self.size_limit) = if self.weighted || self.capacity == 0 {
            (self.capacity, 2 * held.max(64))
        } else {
            (u64::MAX, u64::MAX)
        };
        self.tick = (entries / 10 / 32).max(1);
        (self.arrivals.left, self.departures.left) = (self.tick, self.tick);
    }

    /// Counts the mark of an entry, if it has one: resets the mark, and returns the new estimate.
    #[inline(always)]
    fn take_hit<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H) -> Option<u8> {
        (entries.hits(handle) != 0).then(|| {
            entries.reset_hits(handle);
            self.sketch.add(entries.hash(handle))
        })
    }

    /// Prefetches a key's counters, and the bucket of its ghost.
    #[inline(always)]
    fn prefetch_history(&self, hash: u32) {
        self.sketch.prefetch(hash);
        self.ghost.prefetch(hash);
    }

    #[inline]
    fn weigh<E: Entries<Handle = H>>(&self, entries: &E, handle: H) -> u64 {
        weigh(entries, handle, self.weighted)
    }

    /// Records that an entry, already out of its queue, leaves the cache.
    #[inline]
    fn record_departure<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64, region: Region) {
        self.total -= weight;
        if region == Region::Main {
            self.departures.advance(self.tick);
        }
        self.ghost.put(entries.hash(handle), region, self.now());
    }

    /// Evicts the tail of the main part that `victim` has just returned.
    #[inline]
    fn evict<E: Entries<Handle = H>>(&mut self, entries: &E, victim: H, out: &mut Evictions<H>) {
        self.rivalry = 0;
        let weight = self.weigh(entries, victim);
        // `victim` returns the tail of probation unless that is empty.
        let queue = if self.probation.is_empty() {
            &mut self.protected
        } else {
            &mut self.probation
        };
        self.chunks.pop_back(queue, entries, weight);
        self.record_departure(entries, victim, weight, Region::Main);
        out.push((victim, Verdict::Evicted));
    }

    /// Evicts an entry that was taken out of the window.
    #[inline(always)]
    fn evict_window<E>(&mut self, entries: &E, (tail, weight): (H, u64), verdict: Verdict, out: &mut Evictions<H>)
    where
        E: Entries<Handle = H>,
    {
        self.record_departure(entries, tail, weight, Region::Window);
        out.push((tail, verdict));
    }

    /// Returns the entry of the main part to evict next: the first one without a mark. Marked ones
    /// on the way become protected.
    #[inline]
    fn victim<E: Entries<Handle = H>>(&mut self, entries: &E) -> Option<H> {
        let mut steps = 0;
        loop {
            if let Some((tail, _)) = self.chunks.back(&self.probation) {
                steps += 1;
                if self.take_hit(entries, tail).is_none() || steps >= STEPS {
                    return Some(tail);
                }
                if !self.chunks.reserve(&self.protected) {
                    return Some(tail);
                }
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.probation, entries, weight);
                self.push_reserved(PROTECTED, entries, tail, weight);
                self.trim_protected(entries, &mut steps);
            } else {
                let (tail, _) = self.chunks.back(&self.protected)?;
                steps += 1;
                if self.take_hit(entries, tail).is_none() || steps >= STEPS || !self.rotate_protected(entries, tail) {
                    return Some(tail);
                }
            }
        }
    }

    /// Moves the tail of the protected queue to its head. Returns false, and does nothing, if there
    /// is no place for it.
    fn rotate_protected<E: Entries<Handle = H>>(&mut self, entries: &E, tail: H) -> bool {
        if !self.chunks.reserve(&self.protected) {
            return false;
        }
        let weight = self.weigh(entries, tail);
        self.chunks.pop_back(&mut self.protected, entries, weight);
        self.push_reserved(PROTECTED, entries, tail, weight);
        true
    }

    /// Pushes an entry, whose place was reserved, to the head of a queue of the main part.
    #[inline(always)]
    fn push_reserved<E: Entries<Handle = H>>(&mut self, queue: u16, entries: &E, handle: H, weight: u64) {
        let (chunks, queue) = self.queue(queue);
        let pushed = chunks.push_front(queue, entries, handle, weight, 0);
        debug_assert!(pushed, "its place was reserved");
    }

    /// Demotes entries until the protected queue has its target weight.
    fn trim_protected<E: Entries<Handle = H>>(&mut self, entries: &E, steps: &mut u32) {
        while self.protected.weight() > self.protected_max && *steps < STEPS {
            let Some((tail, _)) = self.chunks.back(&self.protected) else {
                return;
            };
            *steps += 1;
            if self.take_hit(entries, tail).is_some() {
                if !self.rotate_protected(entries, tail) {
                    return;
                }
            } else {
                // Without a place in probation it stays protected, which only extends its stay.
                if !self.chunks.reserve(&self.probation) {
                    return;
                }
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.protected, entries, weight);
                self.push_reserved(PROBATION, entries, tail, weight);
            }
        }
    }

    /// Inserts an entry that the ghosts remember. Its earlier departure may change the window's
    /// size, and may let it skip the window.
    #[inline(never)]
    fn readmit<E>(
        &mut self,
        entries: &E,
        (handle, weight): (H, u64),
        (region, ticks): (Region, u32),
        out: &mut Evictions<H>,
    ) where
        E: Entries<Handle = H>,
    {
        let held = if self.weighted {
            self.chunks.len() as u64
        } else {
            self.capacity
        };
        let age = u64::from(ticks) * self.tick;
        if age <= held / 10 {
            // With weights, a step is the weight of an average entry.
            let step = if self.weighted {
                (self.total / held.max(1)).max(1)
            } else {
                1
            };
            self.set_window(match region {
                Region::Window => self.window_max.saturating_add(step),
                Region::Main => self.window_max.saturating_sub(step),
            });
        }
        let skips = region == Region::Window && age <= mul_div(held, 3, 10);
        let id = if skips { PROBATION } else { WINDOW };
        let (chunks, queue) = self.queue(id);
        if !chunks.push_front(queue, entries, handle, weight, MAX_NOTE) {
            self.push_refused((id, MAX_NOTE), entries, (handle, weight), out);
        }
    }

    fn queue(&mut self, id: u16) -> (&mut Chunks<H>, &mut Queue) {
        let queue = match id {
            WINDOW => &mut self.window,
            PROBATION => &mut self.probation,
            _ => &mut self.protected,
        };
        (&mut self.chunks, queue)
    }

    /// Inserts an entry.
    #[inline(always)]
    fn admit<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weighted: bool, out: &mut Evictions<H>) {
        let weight = weigh(entries, handle, weighted);
        let fits = self.total.checked_add(weight).is_some_and(|sum| sum <= self.size_check);
        if !fits && !self.prepare(entries, handle, weight, out) {
            return;
        }
        let hash = entries.hash(handle);
        let count = self.sketch.add(hash);
        self.arrivals.advance(self.tick);
        self.total += weight;
        match self.ghost.take(hash, self.now()) {
            None => {
                if !self.chunks.push_front(&mut self.window, entries, handle, weight, count) {
                    self.push_refused((WINDOW, count), entries, (handle, weight), out);
                }
            }
            Some(found) => self.readmit(entries, (handle, weight), found, out),
        }
        self.rebalance(entries, weighted, out);
    }

    /// Prepares for an entry that needs the sketch, or more room than there is. Returns false if
    /// the entry is rejected.
    #[cold]
    #[inline(never)]
    fn prepare<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64, out: &mut Evictions<H>) -> bool {
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return false;
        }
        if self.total.saturating_add(weight) > self.size_check {
            self.resize_history();
        }
        if self.total.checked_add(weight).is_none() {
            self.make_room(entries, weight, out);
        }
        true
    }
}

impl<E: Entries> Policy<E> for TinyLfu<E::Handle> {
    #[inline(never)]
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>) {
        self.admit(entries, handle, self.weighted, out);
    }

    #[inline]
    fn insert_all<I>(&mut self, entries: &E, handles: I, out: &mut Evictions<E::Handle>)
    where
        I: Iterator<Item = E::Handle>,
    {
        // A copy of its own, so that counting entries does not pay for weights.
        if self.weighted {
            handles.for_each(|handle| self.insert(entries, handle, out));
        } else {
            handles.for_each(|handle| self.admit(entries, handle, false, out));
        }
    }

    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Evictions<E::Handle>) {
        let (before, weight) = (self.weigh(entries, old), self.weigh(entries, new));
        if weight > self.capacity {
            Policy::<E>::remove(self, entries, old);
            return self.insert(entries, new, out);
        }
        let id = self.chunks.queue_id(entries.place(old));
        let total = (self.total - before).checked_add(weight);
        match total.filter(|&total| total <= self.capacity) {
            Some(total) => {
                self.rivalry = 0;
                let (chunks, queue) = self.queue(id);
                chunks.replace(queue, entries, (old, before), (new, weight));
                entries.set_hits(new, 1);
                self.total = total;
            }
            None => {
                Policy::<E>::remove(self, entries, old);
                self.push_grown(id, entries, (new, weight), out);
            }
        }
        if weight != before {
            self.trim_protected(entries, &mut 0);
            self.rebalance(entries, self.weighted, out);
        }
    }

    fn remove(&mut self, entries: &E, handle: E::Handle) {
        self.rivalry = 0; // the entry may be the remembered victim
        let weight = self.weigh(entries, handle);
        let (chunks, queue) = self.queue(self.chunks.queue_id(entries.place(handle)));
        chunks.remove(queue, entries, handle, weight);
        self.total -= weight;
    }

    #[inline]
    fn prefetch(&self, hashes: impl Iterator<Item = u32>) {
        hashes.for_each(|hash| self.prefetch_history(hash));
    }

    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Evictions<E::Handle>) {
        let window = mul_div(self.window_max, capacity, self.capacity.max(1)).min(capacity);
        self.capacity = capacity;
        self.set_window(window);
        // Growing alone must not allocate: a later insertion checks the sizes.
        (self.size_check, self.size_limit) = (Self::history_threshold(capacity, self.weighted), 0);
        if self.total > capacity {
            self.resize_history();
        }
        self.trim_protected(entries, &mut 0);
        self.rebalance(entries, self.weighted, out);
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn len(&self) -> usize {
        self.chunks.len()
    }

    fn weight(&self) -> u64 {
        self.total
    }

    fn hit_limit(&self) -> u8 {
        1
    }

    fn hottest(&self, entries: &E, visit: &mut dyn FnMut(E::Handle) -> bool) {
        for queue in [&self.protected, &self.probation, &self.window] {
            for hit in [true, false] {
                // Marks may be set concurrently, so an entry may be missed or visited twice.
                // Callers copy, and tolerate both.
                let mut some = self
                    .chunks
                    .iter(queue)
                    .filter(|&handle| (entries.hits(handle) != 0) == hit);
                if !some.all(&mut *visit) {
                    return;
                }
            }
        }
    }

    fn coldest(&mut self, entries: &E) -> Option<E::Handle> {
        let queues = [&self.window, &self.probation, &self.protected];
        queues.into_iter().find_map(|queue| {
            let mut last = self.chunks.iter_back(queue).take(COLDEST_OF);
            let unmarked = last.find(|&handle| entries.hits(handle) == 0);
            unmarked.or_else(|| self.chunks.back(queue).map(|(handle, _)| handle))
        })
    }

    fn rank(&mut self, entries: &E, handle: E::Handle) -> Rank {
        Rank {
            uses: self.sketch.estimate(entries.hash(handle)),
            queue: self.chunks.queue_id(entries.place(handle)) as u8, // one of three
            marked: entries.hits(handle) != 0,
        }
    }

    /// Restores an entry. The sketch's counters cannot be restored themselves, since the next
    /// process has another hash seed.
    fn restore(&mut self, entries: &E, handle: E::Handle, rank: Rank, out: &mut Evictions<E::Handle>) {
        let weight = self.weigh(entries, handle);
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return;
        }
        if self.weighted || self.capacity <= PRESIZE {
            self.resize_history();
        }
        for _ in 0..rank.uses.min(MOST_USES) {
            self.sketch.add(entries.hash(handle));
        }
        entries.set_hits(handle, u8::from(rank.marked));
        let Some(total) = self.total.checked_add(weight).filter(|total| *total <= self.capacity) else {
            return self.insert(entries, handle, out);
        };
        self.total = total;
        let (chunks, queue) = self.queue(rank.queue.into());
        if !chunks.push_front(queue, entries, handle, weight, MAX_NOTE) {
            self.push_refused((rank.queue.into(), MAX_NOTE), entries, (handle, weight), out);
        }
        self.trim_protected(entries, &mut 0);
        self.rebalance(entries, self.weighted, out);
    }

    fn window(&self) -> u32 {
        mul_div(self.window_max, 1 << 32, self.capacity.max(1)).min(u64::from(u32::MAX)) as u32
    }

    fn set_window(&mut self, entries: &E, share: u32, out: &mut Evictions<E::Handle>) {
        if share != 0 {
            // Rounded up, so that the window is restored exactly.
            let capacity = u128::from(self.capacity) * u128::from(share);
            Self::set_window(self, capacity.div_ceil(1 << 32) as u64);
            self.trim_protected(entries, &mut 0);
            self.rebalance(entries, self.weighted, out);
        }
    }

    fn validate(&self, entries: &E) {
        let queues = [&self.window, &self.probation, &self.protected];
        self.chunks
            .validate(queues.into_iter(), entries, |handle| self.weigh(entries, handle));
        assert_eq!(self.total, queues.map(Queue::weight).iter().sum::<u64>());
        assert!(self.total <= self.capacity);
        assert!(self.window_max >= 1 && self.window_max <= self.capacity.max(1));
        assert!(self.window.weight() <= self.window_max);
    }
}

#[cfg(test)]
mod tests;
