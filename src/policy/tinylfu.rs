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
//! The sketch and the ghosts are allocated when the cache is first full: until then nothing has to be decided, and a cache
//! that never fills pays nothing for them. A cache bounded by weight sizes them by the entries it holds then, and again
//! whenever that number has doubled (the sketch keeps its counts, the ghosts start anew).
#![forbid(unsafe_code)]

use super::{Entries, Out, Policy, Verdict, weigh, xorshift};
use crate::prim::ghost::{Ghost, Now, Region};
use crate::prim::list::{Chunks, Queue};
use crate::prim::sketch::Sketch;

/// Steps of the hands per decision. Unbounded, one walk took 52,974 steps; with this bound the mean is 1.33.
const STEPS: u32 = 64;
/// A candidate with this estimate is let in now and then though it lost.
const WARM: u8 = 6;
/// How rarely, less 1.
const RARELY: u32 = 127;

/// Counts departures or arrivals in ticks, without a division per event.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    ticks: u32,
    rest: u64,
}

impl Clock {
    #[inline]
    fn advance(&mut self, tick: u64) {
        self.rest += 1;
        if self.rest >= tick {
            self.rest = 0;
            self.ticks = self.ticks.wrapping_add(1);
        }
    }
}

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
    arrivals: Clock,
    departures: Clock,
    tick: u64,
    /// Above this total weight, `size_up` has to be asked; and above this number of entries it has something to do.
    size_check: u64,
    size_limit: u64,
    random: u32,
}

const WINDOW: u8 = 0;
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;

/// A fraction of a number that may be huge.
#[inline(always)]
fn part(whole: u64, numerator: u64, denominator: u64) -> u64 {
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
            arrivals: Clock::default(),
            departures: Clock::default(),
            tick: 1,
            size_check: capacity,
            size_limit: 0,
            random: 0x9E37_79B9,
        };
        policy.set_window(part(capacity, 5, 100));
        policy
    }

    /// Sets the window's target, within its bounds.
    fn set_window(&mut self, target: u64) {
        let least = part(self.capacity, 1, 100).max(1);
        let most = part(self.capacity, 80, 100).max(least);
        self.window_max = target.clamp(least, most);
        self.protected_max = part(self.capacity.saturating_sub(self.window_max), 7, 10);
    }

    fn now(&self) -> Now {
        [self.arrivals.ticks, self.departures.ticks]
    }

    fn entries(&self) -> usize {
        self.window.len() + self.probation.len() + self.protected.len()
    }

    /// Called when the cache is full: makes the sketch and the ghosts fit.
    #[cold]
    fn size_up(&mut self) {
        let held = self.entries() as u64;
        if held < self.size_limit {
            return;
        }
        let entries = if self.weighted { held } else { self.capacity };
        (self.size_check, self.size_limit) = if self.weighted {
            (self.capacity, 2 * held.max(64))
        } else {
            (u64::MAX, u64::MAX)
        };
        self.sketch.resize(entries);
        self.ghost.reset(entries);
        self.tick = (entries / 10 / 32).max(1);
    }

    /// If the entry was hit since it was last asked: counts that, clears the mark and returns true.
    #[inline]
    fn flush<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H) -> bool {
        let hit = entries.hits(handle) != 0;
        if hit {
            self.sketch.add(entries.hash(handle));
            entries.reset_hits(handle);
        }
        hit
    }

    #[inline]
    fn weigh<E: Entries<Handle = H>>(&self, entries: &E, handle: H) -> u64 {
        weigh(entries, handle, self.weighted)
    }

    /// The entry has left its queue, and leaves the cache.
    #[inline]
    fn gone<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64, region: Region) {
        self.total -= weight;
        if region == Region::Main {
            self.departures.advance(self.tick);
        }
        self.ghost.put(entries.hash(handle), region, self.now());
    }

    /// Evicts the tail of the main part that `victim` has just found.
    #[inline]
    fn evict<E: Entries<Handle = H>>(&mut self, entries: &E, victim: H, out: &mut Out<H>) {
        let weight = self.weigh(entries, victim);
        // `victim` returns the tail of probation if there is one.
        let queue = if self.probation.len() > 0 {
            &mut self.probation
        } else {
            &mut self.protected
        };
        self.chunks.pop_back(queue, entries, weight);
        self.gone(entries, victim, weight, Region::Main);
        out.push((victim, Verdict::Evicted));
    }

    /// Evicts the tail of the window.
    #[inline]
    fn evict_window<E: Entries<Handle = H>>(&mut self, entries: &E, tail: H, verdict: Verdict, out: &mut Out<H>) {
        let weight = self.weigh(entries, tail);
        self.chunks.pop_back(&mut self.window, entries, weight);
        self.gone(entries, tail, weight, Region::Window);
        out.push((tail, verdict));
    }

    /// Moves the tail of the window to the main part.
    #[inline]
    fn graduate<E: Entries<Handle = H>>(&mut self, entries: &E, tail: H) {
        let weight = self.weigh(entries, tail);
        self.chunks.pop_back(&mut self.window, entries, weight);
        self.chunks.push_front(&mut self.probation, entries, tail, weight);
    }

    /// The entry of the main part to go next: the first one without a mark. Marked ones on the way become protected.
    #[inline]
    fn victim<E: Entries<Handle = H>>(&mut self, entries: &E) -> Option<H> {
        let mut steps = 0;
        loop {
            if let Some(tail) = self.chunks.back(&self.probation) {
                steps += 1;
                if !self.flush(entries, tail) || steps >= STEPS {
                    return Some(tail);
                }
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.probation, entries, weight);
                self.chunks.push_front(&mut self.protected, entries, tail, weight);
                self.trim(entries, &mut steps);
            } else {
                let tail = self.chunks.back(&self.protected)?;
                steps += 1;
                if !self.flush(entries, tail) || steps >= STEPS {
                    return Some(tail);
                }
                self.recycle(entries, tail);
            }
        }
    }

    /// Moves the tail of the protected queue to its head.
    fn recycle<E: Entries<Handle = H>>(&mut self, entries: &E, tail: H) {
        let weight = self.weigh(entries, tail);
        self.chunks.pop_back(&mut self.protected, entries, weight);
        self.chunks.push_front(&mut self.protected, entries, tail, weight);
    }

    /// Brings the protected queue back to its size.
    fn trim<E: Entries<Handle = H>>(&mut self, entries: &E, steps: &mut u32) {
        while self.protected.weight() > self.protected_max && *steps < STEPS {
            let Some(tail) = self.chunks.back(&self.protected) else {
                return;
            };
            *steps += 1;
            if self.flush(entries, tail) {
                self.recycle(entries, tail);
            } else {
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.protected, entries, weight);
                self.chunks.push_front(&mut self.probation, entries, tail, weight);
            }
        }
    }

    /// Whether the candidate takes the victim's place.
    #[inline]
    fn wins<E: Entries<Handle = H>>(&mut self, entries: &E, ours: u8, victim: H) -> bool {
        // Ties lose, and a key seen once never displaces another: so a scan cannot wash the main part out.
        let theirs = self.sketch.estimate(entries.hash(victim));
        ours > theirs || (ours >= WARM && xorshift(&mut self.random) & RARELY == 0)
    }

    /// Lets go of what is too much.
    #[inline]
    fn rebalance<E: Entries<Handle = H>>(&mut self, entries: &E, out: &mut Out<H>) {
        while self.window.weight() > self.window_max {
            let Some(candidate) = self.chunks.back(&self.window) else {
                break;
            };
            self.flush(entries, candidate);
            // By weight, the candidate may have to win several times, and a victim once beaten does not come back.
            let stays = loop {
                if self.total <= self.capacity {
                    break true;
                }
                // The victim of a candidate that cannot win is not even looked for, which spares the hands' work and two
                // cache misses; over the traces the hit ratios stay within 0.005 points on average.
                let ours = self.sketch.estimate(entries.hash(candidate));
                if ours <= 1 && self.probation.len() + self.protected.len() > 0 {
                    self.evict_window(entries, candidate, Verdict::Rejected, out);
                    break false;
                }
                let Some(victim) = self.victim(entries) else {
                    self.evict_window(entries, candidate, Verdict::Evicted, out);
                    break false;
                };
                if !self.wins(entries, ours, victim) {
                    self.evict_window(entries, candidate, Verdict::Rejected, out);
                    break false;
                }
                self.evict(entries, victim, out);
            };
            if stays {
                self.graduate(entries, candidate);
            }
        }
        while self.total > self.capacity {
            if let Some(victim) = self.victim(entries) {
                self.evict(entries, victim, out);
            } else if let Some(tail) = self.chunks.back(&self.window) {
                self.flush(entries, tail);
                self.evict_window(entries, tail, Verdict::Evicted, out);
            }
        }
    }

    /// Evicts until adding `weight` cannot overflow. Only weights near 2^64 come here.
    #[cold]
    fn make_room<E: Entries<Handle = H>>(&mut self, entries: &E, weight: u64, out: &mut Out<H>) {
        let capacity = std::mem::replace(&mut self.capacity, u64::MAX - weight);
        self.rebalance(entries, out);
        self.capacity = capacity;
    }

    /// Where a new entry goes: what the ghosts tell of an earlier stay moves the window's size and may skip the window.
    #[inline]
    fn destination(&mut self, hash: u32) -> u8 {
        let Some((region, ticks)) = self.ghost.take(hash, self.now()) else {
            return WINDOW;
        };
        let entries = if self.weighted {
            self.entries() as u64
        } else {
            self.capacity
        };
        let age = u64::from(ticks) * self.tick;
        let soon = age <= entries / 10;
        // By weight, a step is the weight of an average entry.
        let step = if self.weighted {
            (self.total / entries.max(1)).max(1)
        } else {
            1
        };
        match region {
            Region::Window => {
                if soon {
                    self.set_window(self.window_max.saturating_add(step));
                }
                if age <= part(entries, 3, 10) { PROBATION } else { WINDOW }
            }
            Region::Main => {
                if soon {
                    self.set_window(self.window_max.saturating_sub(step));
                }
                WINDOW
            }
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

    /// Takes an entry out of its queue and returns which it was.
    fn unlink<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H) -> u8 {
        let weight = self.weigh(entries, handle);
        let id = self.chunks.queue_id(entries.place(handle));
        let (chunks, queue) = self.queue(id);
        chunks.remove(queue, entries, handle, weight);
        self.total -= weight;
        id
    }
}

impl<E: Entries> Policy<E> for TinyLfu<E::Handle> {
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Out<E::Handle>) {
        let weight = self.weigh(entries, handle);
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return;
        }
        if self.total.saturating_add(weight) > self.size_check {
            self.size_up();
        }
        if self.total.checked_add(weight).is_none() {
            self.make_room(entries, weight, out);
        }
        let hash = entries.hash(handle);
        self.sketch.add(hash);
        self.arrivals.advance(self.tick);
        self.total += weight;
        let id = self.destination(hash);
        let (chunks, queue) = self.queue(id);
        chunks.push_front(queue, entries, handle, weight);
        self.rebalance(entries, out);
    }

    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Out<E::Handle>) {
        let weight = self.weigh(entries, new);
        // The mark a hit would have left cannot be set here: what would come of it is done at once.
        self.sketch.add(entries.hash(new));
        if weight > self.capacity {
            self.unlink(entries, old);
            out.push((new, Verdict::Rejected));
            return;
        }
        let id = self.chunks.queue_id(entries.place(old));
        let room = self.total - self.weigh(entries, old);
        if id == WINDOW && room.checked_add(weight).is_some() {
            let old = (old, self.weigh(entries, old));
            self.chunks.replace(&mut self.window, entries, old, (new, weight));
            self.total = room + weight;
        } else {
            self.unlink(entries, old);
            if self.total.checked_add(weight).is_none() {
                self.make_room(entries, weight, out);
            }
            let id = if id == WINDOW { WINDOW } else { PROTECTED };
            self.total += weight;
            let (chunks, queue) = self.queue(id);
            chunks.push_front(queue, entries, new, weight);
            self.trim(entries, &mut 0);
        }
        self.rebalance(entries, out);
    }

    fn remove(&mut self, entries: &E, handle: E::Handle) {
        self.unlink(entries, handle);
    }

    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Out<E::Handle>) {
        let window = part(self.window_max, capacity, self.capacity.max(1)).min(capacity);
        self.capacity = capacity;
        self.set_window(window);
        // Growing alone must not allocate: the sizes are looked at when the cache is full again.
        (self.size_check, self.size_limit) = (capacity, 0);
        if self.total > capacity {
            self.size_up();
        }
        self.trim(entries, &mut 0);
        self.rebalance(entries, out);
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn len(&self) -> usize {
        self.entries()
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
mod tests {
    use super::*;
    use crate::policy::testing::{Naive, Store, XorShift};

    #[test]
    fn decides_as_the_naive_one() {
        for (cap, keys) in [(1, 9), (2, 9), (7, 30), (50, 200), (333, 1000), (800, 3000)] {
            let mut rng = XorShift(cap as u32);
            let mut store = Store::default();
            let mut policy = TinyLfu::new(cap as u64, false);
            let mut oracle = Naive::new(cap);
            let mut map = std::collections::HashMap::new();
            let mut out = Vec::new();
            for step in 0..6000 + 4 * keys {
                // Skewed uses, with a scan through the keys now and then.
                let skewed = rng.below(keys) * rng.below(keys) / keys;
                let key = if step / 500 % 4 == 3 { step % keys } else { skewed };
                let hash = key.wrapping_mul(0x9E37_79B9) ^ key << 7;
                if let Some(&handle) = map.get(&hash) {
                    store.touch(handle, 1);
                    oracle.marks.insert(handle);
                    continue;
                }
                let handle = store.add(hash, 1);
                map.insert(hash, handle);
                policy.insert(&store, handle, &mut out);
                oracle.insert(&store, handle);
                assert!(
                    out.iter().map(|&(handle, _)| handle).eq(oracle.out.drain(..)),
                    "cap {cap}, step {step}"
                );
                for (gone, _) in out.drain(..) {
                    map.remove(&store.hash(gone));
                    oracle.marks.remove(&gone);
                }
                assert_eq!(policy.window_max, oracle.w as u64);
            }
            assert!(
                policy
                    .chunks
                    .iter(&policy.protected)
                    .eq(oracle.protected.iter().copied())
            );
            assert!(
                policy
                    .chunks
                    .iter(&policy.probation)
                    .eq(oracle.probation.iter().copied())
            );
            Policy::<Store>::validate(&policy, &store);
        }
    }

    #[test]
    fn memory_is_small_and_comes_late() {
        let mut store = Store::default();
        let mut out = Vec::new();
        for (capacity, full) in [(100, 11 << 10), (40_000, 40_000 * 20)] {
            let mut policy = TinyLfu::new(capacity, false);
            for n in 0..5 * capacity as u32 {
                let handle = store.add(n.wrapping_mul(0x9E37_79B9), 1);
                policy.insert(&store, handle, &mut out);
                if u64::from(n) + 1 == capacity {
                    assert_eq!(policy.sketch.bytes() + policy.ghost.bytes(), 0);
                }
            }
            let bytes = size_of_val(&policy) + policy.chunks.bytes() + policy.sketch.bytes() + policy.ghost.bytes();
            println!("{capacity}: {bytes}");
            assert!(bytes <= full, "{bytes}");
        }
    }
}
