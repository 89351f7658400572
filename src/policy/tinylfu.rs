//! The default: a lazy W-TinyLFU.
//!
//! W-TinyLFU (Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017) lets new entries
//! live in a small window, and lets what leaves the window into the main part only if it was used more often than the main
//! part's victim. What is different here:
//!
//! - **Lazy**: a hit only sets the entry's mark. The queues are FIFO; marks are looked at when an entry reaches a tail, as in
//!   CLOCK and its descendants, and only then counted in the sketch. On 30 traces that costs no hits against exact LRU.
//! - **The window's size** follows ghosts (as in ARC; Megiddo and Modha 2003) instead of hill climbing: an entry that comes back soon
//!   after it left the window makes the window larger, one that comes back soon after it left the main part, smaller.
//! - **What left the window not too long ago** and comes back goes straight to the main part: it has shown its reuse distance.
//! - **Against hash flooding** a warm candidate that loses is let in once in 128 times, as in Caffeine.
//!
//! - **A key not seen before it came**, nor hit since, is turned away when it leaves the window of a full cache without asking
//!   the sketch again: it cannot win.
//!
//! The sketch and the ghosts are allocated when the cache is first full: until then nothing has to be decided, and a cache
//! that never fills pays nothing for them. Small caches, whose sketch is small too, allocate it when they are a 32nd full: there
//! what is counted during the first fill is worth more. A cache bounded by weight sizes them by the entries it holds when full, and
//! again whenever that number has doubled (the sketch keeps its counts, the ghosts start anew).
#![forbid(unsafe_code)]

mod room;
mod tick_counter;

use super::{Entries, Evictions, Policy, Rank, Verdict, weigh, xorshift};
use crate::prim::ghost::{Ghost, Now, Region};
use crate::prim::list::{Chunks, MAX_NOTE, Queue};
use crate::prim::sketch::Sketch;
use tick_counter::TickCounter;

/// Steps of the hands per decision. Unbounded, one walk took 52,974 steps; with this bound the mean is 1.33.
const STEPS: u32 = 64;
/// A candidate with this estimate is let in now and then though it lost.
const WARM: u8 = 6;
/// Among so many at a queue's end one that was not hit is looked for, by `coldest`.
const COLDEST_OF: usize = 64;
/// Caches of up to so many entries have a sketch as soon as there are former uses to be counted.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
const PRESIZE: u64 = 1 << 26;
/// The number of candidates compared with a remembered victim's estimate before it is looked up again.
const RIVALRY: u8 = 31;
/// The highest estimate there is.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
const MOST_USES: u8 = 15;
/// How rarely, less 1.
const RARELY: u32 = 127;
/// Caches of up to so many entries, which all have the smallest sketch (8 KiB), make it when they are a 32nd full.
const SMALL: u64 = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct TinyLfu<H> {
    capacity: u64,
    weighted: bool,
    total: u64,
    chunks: Chunks<H>,
    window: Queue,
    /// In the main part, not used again yet (or not lately).
    probation: Queue,
    /// In the main part, and used again there.
    protected: Queue,
    /// The target weight of the window.
    window_max: u64,
    /// Above this weight the protected queue gives back to probation.
    protected_max: u64,
    sketch: Sketch,
    ghost: Ghost,
    /// Arrivals are the window's time, departures from it the main part's.
    arrivals: TickCounter,
    departures: TickCounter,
    tick: u64,
    /// Above this total weight, `size_up` has to be asked; and above this number of entries it has something to do.
    size_check: u64,
    size_limit: u64,
    random: u32,
    /// The victim that beat the last candidate: the low bits of its hash.
    rival: u16,
    /// Its estimate then, and the number of further candidates that may be compared with it: `left 5 | uses 3`.
    rivalry: u8,
}

const WINDOW: u8 = 0;
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;

/// A fraction of a number that may be huge.
#[inline(always)]
fn mul_div(whole: u64, numerator: u64, denominator: u64) -> u64 {
    // Almost always, and then without a division where the denominator is a constant.
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
            size_check: Self::size_early(capacity, weighted),
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
        let most = mul_div(self.capacity, 80, 100).max(least);
        self.window_max = target.clamp(least, most);
        self.protected_max = mul_div(self.capacity.saturating_sub(self.window_max), 7, 10);
    }

    /// The total weight beyond which the sketch is needed.
    fn size_early(capacity: u64, weighted: bool) -> u64 {
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

    /// Makes the sketch and the ghosts fit, if they have to be larger than they are. Where there is no memory for that, those
    /// that are there are kept; without any, no candidate is admitted to a full main part.
    #[cold]
    fn size_up(&mut self) {
        let held = self.chunks.len() as u64;
        if held < self.size_limit {
            return;
        }
        // After a refusal it is tried again now and then.
        if self.sketch.was_refused() && xorshift(&mut self.random) & RARELY != 0 {
            return;
        }
        let entries = if self.weighted { held } else { self.capacity };
        if !self.sketch.resize(entries) {
            return;
        }
        // (Without memory for the ghosts, the window keeps its size.)
        self.ghost.reset(entries);
        // In a cache of capacity 0, `prepare` has to see every entry.
        (self.size_check, self.size_limit) = if self.weighted || self.capacity == 0 {
            (self.capacity, 2 * held.max(64))
        } else {
            (u64::MAX, u64::MAX)
        };
        self.tick = (entries / 10 / 32).max(1);
        (self.arrivals.left, self.departures.left) = (self.tick, self.tick);
    }

    /// If the entry was hit since it was last asked: counts that, clears the mark and returns its new estimate.
    #[inline(always)]
    fn flush<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H) -> Option<u8> {
        (entries.hits(handle) != 0).then(|| {
            entries.reset_hits(handle);
            self.sketch.add(entries.hash(handle))
        })
    }

    #[inline]
    fn weigh<E: Entries<Handle = H>>(&self, entries: &E, handle: H) -> u64 {
        weigh(entries, handle, self.weighted)
    }

    /// The entry has left its queue, and leaves the cache.
    #[inline]
    fn record_departure<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64, region: Region) {
        self.total -= weight;
        if region == Region::Main {
            self.departures.advance(self.tick);
        }
        self.ghost.put(entries.hash(handle), region, self.now());
    }

    /// Evicts the tail of the main part that `victim` has just found.
    #[inline]
    fn evict<E: Entries<Handle = H>>(&mut self, entries: &E, victim: H, out: &mut Evictions<H>) {
        self.rivalry = 0;
        let weight = self.weigh(entries, victim);
        // `victim` returns the tail of probation if there is one.
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

    /// The entry of the main part to go next: the first one without a mark. Marked ones on the way become protected.
    #[inline]
    fn victim<E: Entries<Handle = H>>(&mut self, entries: &E) -> Option<H> {
        let mut steps = 0;
        loop {
            if let Some((tail, _)) = self.chunks.back(&self.probation) {
                steps += 1;
                if self.flush(entries, tail).is_none() || steps >= STEPS {
                    return Some(tail);
                }
                if !self.chunks.reserve(&self.protected) {
                    return Some(tail);
                }
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.probation, entries, weight);
                self.push_reserved(PROTECTED, entries, tail, weight);
                self.trim(entries, &mut steps);
            } else {
                let (tail, _) = self.chunks.back(&self.protected)?;
                steps += 1;
                if self.flush(entries, tail).is_none() || steps >= STEPS || !self.recycle(entries, tail) {
                    return Some(tail);
                }
            }
        }
    }

    /// Moves the tail of the protected queue to its head. Returns false, and does nothing, if it has no place there.
    fn recycle<E: Entries<Handle = H>>(&mut self, entries: &E, tail: H) -> bool {
        if !self.chunks.reserve(&self.protected) {
            return false;
        }
        let weight = self.weigh(entries, tail);
        self.chunks.pop_back(&mut self.protected, entries, weight);
        self.push_reserved(PROTECTED, entries, tail, weight);
        true
    }

    /// Puts an entry, for which there is a reserved place, at the head of a queue of the main part.
    #[inline(always)]
    fn push_reserved<E: Entries<Handle = H>>(&mut self, queue: u8, entries: &E, handle: H, weight: u64) {
        let (chunks, queue) = self.queue(queue);
        let pushed = chunks.push_front(queue, entries, handle, weight, 0);
        debug_assert!(pushed, "its place was reserved");
    }

    /// Brings the protected queue back to its size.
    fn trim<E: Entries<Handle = H>>(&mut self, entries: &E, steps: &mut u32) {
        while self.protected.weight() > self.protected_max && *steps < STEPS {
            let Some((tail, _)) = self.chunks.back(&self.protected) else {
                return;
            };
            *steps += 1;
            if self.flush(entries, tail).is_some() {
                if !self.recycle(entries, tail) {
                    return;
                }
            } else {
                // (Without a place in probation it stays protected: that only lets it live longer.)
                if !self.chunks.reserve(&self.probation) {
                    return;
                }
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.protected, entries, weight);
                self.push_reserved(PROBATION, entries, tail, weight);
            }
        }
    }

    /// Whether the candidate takes the victim's place.
    #[inline]
    fn wins<E: Entries<Handle = H>>(&mut self, entries: &E, ours: u8, victim: H) -> bool {
        // Ties lose, and a key seen once never displaces another: so a scan cannot wash the main part out.
        let theirs = self.sketch.estimate(entries.hash(victim));
        let wins = ours > theirs || (ours >= WARM && xorshift(&mut self.random) & RARELY == 0);
        if !wins {
            self.rival = entries.hash(victim) as u16;
            self.rivalry = RIVALRY << 3 | theirs.clamp(1, WARM - 1);
        }
        wins
    }

    /// Brings the window back to its size, and lets go of what is too much.
    #[inline(always)]
    fn rebalance<E: Entries<Handle = H>>(&mut self, entries: &E, weighted: bool, out: &mut Evictions<H>) {
        while self.window.weight() > self.window_max {
            // The common case in a full cache: a candidate that arrived with no more uses than the victim it would have to
            // beat, and was not hit since, is rejected without consulting the sketch.
            let bar = self.bar(entries);
            let hopeless = |handle, uses| {
                let hopeless = uses < bar && entries.hits(handle) == 0;
                hopeless.then(|| weigh(entries, handle, weighted))
            };
            match self.chunks.pop_back_if(&mut self.window, entries, hopeless) {
                Some(tail) => self.evict_window(entries, tail, Verdict::Rejected, out),
                None => self.evaluate_candidate(entries, out),
            }
        }
        if self.total > self.capacity {
            self.shrink(entries, out);
        }
        // The next candidates' counters, and the places of their ghosts.
        if let Some(candidate) = self.chunks.soon(&self.window) {
            Policy::<E>::prefetch(self, entries.hash(candidate));
        }
    }

    /// The uses below which a candidate without a mark cannot win: one more than the victim's estimate.
    #[inline(always)]
    fn bar<E: Entries<Handle = H>>(&mut self, entries: &E) -> u8 {
        if !self.exceeds_capacity() {
            return 0;
        }
        if self.rivalry >> 3 > 0
            && let Some((tail, _)) = self.chunks.back(&self.probation)
            && entries.hits(tail) == 0
            && self.rival == entries.hash(tail) as u16
        {
            self.rivalry -= 1 << 3;
            return (self.rivalry & 7) + 1;
        }
        2
    }

    /// Whether something has to go, and there is a main part for it to compete with.
    #[inline(always)]
    fn exceeds_capacity(&self) -> bool {
        self.total > self.capacity && self.total > self.window.weight()
    }

    /// Moves the tail of the window, which is not empty, to the main part, or lets it go.
    #[inline(never)]
    fn evaluate_candidate<E: Entries<Handle = H>>(&mut self, entries: &E, out: &mut Evictions<H>) {
        let (candidate, _) = self.chunks.back(&self.window).expect("it weighs too much");
        let weight = self.weigh(entries, candidate);
        let flushed = self.flush(entries, candidate);
        let verdict = if self.total > self.capacity {
            let ours = flushed.unwrap_or_else(|| self.sketch.estimate(entries.hash(candidate)));
            self.compete(entries, ours, out)
        } else {
            None
        };
        let verdict = match verdict {
            None if !self.chunks.reserve(&self.probation) => Some(Verdict::Evicted),
            verdict => verdict,
        };
        self.chunks.pop_back(&mut self.window, entries, weight);
        match verdict {
            Some(verdict) => self.evict_window(entries, (candidate, weight), verdict, out),
            None => self.push_reserved(PROBATION, entries, candidate, weight),
        }
    }

    /// Makes room for a candidate with this estimate; or says why it has to go itself.
    #[inline]
    fn compete<E: Entries<Handle = H>>(&mut self, entries: &E, ours: u8, out: &mut Evictions<H>) -> Option<Verdict> {
        // By weight, the candidate may have to win several times, and a victim once beaten does not come back.
        while self.total > self.capacity {
            // The victim of a candidate that cannot win is not even looked for, which spares the hands' work and two
            // cache misses; over the traces the hit ratios stay within 0.005 points on average.
            if ours <= 1 && self.exceeds_capacity() {
                return Some(Verdict::Rejected);
            }
            let Some(victim) = self.victim(entries) else {
                return Some(Verdict::Evicted);
            };
            if !self.wins(entries, ours, victim) {
                return Some(Verdict::Rejected);
            }
            self.evict(entries, victim, out);
        }
        None
    }

    /// Lets go of what is too much though the window is not.
    #[inline(never)]
    fn shrink<E: Entries<Handle = H>>(&mut self, entries: &E, out: &mut Evictions<H>) {
        while self.total > self.capacity {
            if let Some(victim) = self.victim(entries) {
                self.evict(entries, victim, out);
            } else if let Some((tail, _)) = self.chunks.back(&self.window) {
                self.flush(entries, tail);
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.window, entries, weight);
                self.evict_window(entries, (tail, weight), Verdict::Evicted, out);
            }
        }
    }

    /// Takes in an entry that comes back: what the ghosts tell of its earlier stay moves the window's size and may skip
    /// the window.
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
            // By weight, a step is the weight of an average entry.
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

    fn queue(&mut self, id: u8) -> (&mut Chunks<H>, &mut Queue) {
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
        let calm = self.total.checked_add(weight).is_some_and(|sum| sum <= self.size_check);
        if !calm && !self.prepare(entries, handle, weight, out) {
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

    /// Makes ready for so much more weight, which is too much or the first to need a sketch. False if the entry cannot stay.
    #[cold]
    #[inline(never)]
    fn prepare<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64, out: &mut Evictions<H>) -> bool {
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return false;
        }
        if self.total.saturating_add(weight) > self.size_check {
            self.size_up();
        }
        if self.total.checked_add(weight).is_none() {
            self.make_room(entries, weight, out);
        }
        true
    }
}

impl<E: Entries> Policy<E> for TinyLfu<E::Handle> {
    #[inline]
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>) {
        // Twice, so that counting is not slowed down by what only weighing needs.
        if self.weighted {
            self.admit(entries, handle, true, out);
        } else {
            self.admit(entries, handle, false, out);
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
            self.trim(entries, &mut 0);
            self.rebalance(entries, self.weighted, out);
        }
    }

    fn remove(&mut self, entries: &E, handle: E::Handle) {
        self.rivalry = 0; // it may be the remembered victim
        let weight = self.weigh(entries, handle);
        let (chunks, queue) = self.queue(self.chunks.queue_id(entries.place(handle)));
        chunks.remove(queue, entries, handle, weight);
        self.total -= weight;
    }

    #[inline]
    fn prefetch(&self, hash: u32) {
        self.sketch.prefetch(hash);
        self.ghost.prefetch(hash);
    }

    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Evictions<E::Handle>) {
        let window = mul_div(self.window_max, capacity, self.capacity.max(1)).min(capacity);
        self.capacity = capacity;
        self.set_window(window);
        // Growing alone must not allocate: the sizes are looked at by a later insertion.
        (self.size_check, self.size_limit) = (Self::size_early(capacity, self.weighted), 0);
        if self.total > capacity {
            self.size_up();
        }
        self.trim(entries, &mut 0);
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
                // Marks may appear meanwhile: an entry could be missed or come twice, which a copy must not mind.
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
            queue: self.chunks.queue_id(entries.place(handle)),
            marked: entries.hits(handle) != 0,
        }
    }

    /// The sketch's counters themselves cannot come back: the next process hashes otherwise.
    fn restore(&mut self, entries: &E, handle: E::Handle, rank: Rank, out: &mut Evictions<E::Handle>) {
        let weight = self.weigh(entries, handle);
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return;
        }
        if self.weighted || self.capacity <= PRESIZE {
            self.size_up();
        }
        for _ in 0..rank.uses.min(MOST_USES) {
            self.sketch.add(entries.hash(handle));
        }
        entries.set_hits(handle, u8::from(rank.marked));
        let Some(total) = self.total.checked_add(weight).filter(|total| *total <= self.capacity) else {
            return self.insert(entries, handle, out);
        };
        self.total = total;
        let (chunks, queue) = self.queue(rank.queue);
        if !chunks.push_front(queue, entries, handle, weight, MAX_NOTE) {
            self.push_refused((rank.queue, MAX_NOTE), entries, (handle, weight), out);
        }
        self.trim(entries, &mut 0);
        self.rebalance(entries, self.weighted, out);
    }

    fn window(&self) -> u32 {
        mul_div(self.window_max, 1 << 32, self.capacity.max(1)).min(u64::from(u32::MAX)) as u32
    }

    fn set_window(&mut self, entries: &E, share: u32, out: &mut Evictions<E::Handle>) {
        if share != 0 {
            // Rounded up, so that it comes back as it was.
            let capacity = u128::from(self.capacity) * u128::from(share);
            Self::set_window(self, capacity.div_ceil(1 << 32) as u64);
            self.trim(entries, &mut 0);
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
