//! Timers: a hierarchical timing wheel (Varghese and Lauck, "Hashed and hierarchical timing
//! wheels", SOSP 1987).
//!
//! Time is counted in ticks of 2^20 ns, about a millisecond. A tick's number is written in digits
//! of eight bits. A timer's level is that of the highest digit in which its tick differs from the
//! current one; its bucket is its own digit there. So scheduling is O(1), and the next timer is in
//! the first filled bucket of the lowest level that has any.
//!
//! A bitmap has a bit per filled bucket: empty buckets cost nothing, however far the clock jumps.
//! When the current tick reaches a bucket of a higher level, its timers move to lower levels, each
//! at most once per level. Timers of the next five hours are at the lowest three levels.
//!
//! The buckets are queues of one slab (see [`list`](super::list)): about nine bytes per timer where
//! they are dense, a chunk of 256 bytes for a bucket with few timers, and 6 kB for each level in
//! use.
#![forbid(unsafe_code)]

use super::list::{Chunks, MAX_PLACE, Places, Queue};

/// What a wheel reads of the entries it has timers for. Their places belong to the wheel, and are
/// [`IDLE`] at first.
///
/// While an entry is scheduled, the wheel may use its handle freely; never outside of that span.
pub(crate) trait Timers: Places {
    /// Returns the deadline in nanoseconds since a fixed instant. Constant while the entry is
    /// scheduled.
    fn deadline(&self, handle: Self::Handle) -> u64;
}

/// The place of an entry that is not scheduled.
pub(crate) const IDLE: u32 = MAX_PLACE + 1;

/// A tick is 2 to this many nanoseconds.
const TICK: u32 = 20;
/// Bits of a digit.
const DIGIT: u32 = 8;
/// Buckets per level.
const SLOTS: usize = 1 << DIGIT;
/// Enough digits for the 45 bits of a tick's number.
const LEVELS: usize = 6;
/// The bucket of timers that had already expired when they were scheduled: the only one of a level
/// above all others, where every digit is 0.
const PAST: usize = LEVELS * SLOTS;

/// Returns the first tick that begins at or after the deadline: no timer may fire early.
#[inline]
fn due_tick(deadline: u64) -> u64 {
    deadline.div_ceil(1 << TICK)
}

/// Returns the bucket at this level for timers of this tick.
#[inline]
fn bucket(level: usize, tick: u64) -> usize {
    level * SLOTS + (tick >> (DIGIT * level as u32)) as usize % SLOTS
}

/// Returns the queue of a bucket, whose level is allocated.
#[inline]
fn queue(queues: &mut [Vec<Queue>], bucket: usize) -> &mut Queue {
    &mut queues[bucket / SLOTS][bucket % SLOTS]
}

/// The wheel. [`Wheel::new`] allocates nothing.
#[derive(Debug)]
pub(crate) struct Wheel<H> {
    /// The current tick. Timers of this tick and earlier ones are only in `reached` and `PAST`.
    tick: u64,
    /// The bucket that the current tick has reached and that is being emptied; `PAST` if there is
    /// none.
    reached: usize,
    /// A bit per bucket that is not empty.
    filled: [u64; PAST / 64 + 1],
    /// The buckets by level and digit, each with its number as id. A level is allocated with its
    /// first timer.
    queues: [Vec<Queue>; LEVELS + 1],
    chunks: Chunks<H>,
}

impl<H: Copy + Eq> Wheel<H> {
    /// Returns an empty wheel whose current time is 0.
    pub(crate) fn new() -> Self {
        Self {
            tick: 0,
            reached: PAST,
            filled: [0; PAST / 64 + 1],
            queues: Default::default(),
            chunks: Chunks::new(),
        }
    }

    /// Returns the number of timers.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Returns whether an entry has a timer.
    #[inline]
    pub(crate) fn is_scheduled<T: Timers<Handle = H>>(&self, timers: &T, handle: H) -> bool {
        timers.place(handle) != IDLE
    }

    /// Sets the timer of an entry that has none. If the entry has expired, the timer fires at the
    /// next `advance`. Returns false, and does nothing, if there is no memory for the timer. O(1).
    #[inline]
    #[must_use = "an entry whose timer was refused never fires"]
    pub(crate) fn schedule<T: Timers<Handle = H>>(&mut self, timers: &T, handle: H) -> bool {
        debug_assert!(!self.is_scheduled(timers, handle));
        self.put(timers, handle, due_tick(timers.deadline(handle)))
    }

    /// Puts a timer into its bucket, as of the current tick. Returns false if there is no memory.
    #[inline]
    fn put<T: Timers<Handle = H>>(&mut self, timers: &T, handle: H, due: u64) -> bool {
        let level = if due <= self.tick {
            LEVELS
        } else {
            ((due ^ self.tick).ilog2() / DIGIT) as usize
        };
        let bucket = bucket(level, due);
        if self.queues[level].is_empty() && !self.allocate_level(level) {
            return false;
        }
        let queue = queue(&mut self.queues, bucket);
        let was_empty = queue.is_empty();
        let pushed = self.chunks.push_front(queue, timers, handle, 0, 0);
        if was_empty {
            self.filled[bucket / 64] |= u64::from(pushed) << (bucket % 64);
        }
        pushed
    }

    /// Allocates a level's buckets. Returns false if there is no memory.
    #[cold]
    fn allocate_level(&mut self, level: usize) -> bool {
        let slots = if level < LEVELS { SLOTS } else { 1 };
        let mut queues = Vec::new();
        if queues.try_reserve_exact(slots).is_err() {
            return false;
        }
        queues.extend((0..slots).map(|slot| Queue::new((level * SLOTS + slot) as u16)));
        self.queues[level] = queues;
        true
    }

    /// Cancels an entry's timer, if it has one. O(1).
    pub(crate) fn cancel<T: Timers<Handle = H>>(&mut self, timers: &T, handle: H) {
        let place = timers.place(handle);
        if place == IDLE {
            return;
        }
        // The level was chosen by an earlier current tick, so the bucket is read and not computed.
        let bucket = usize::from(self.chunks.queue_id(place));
        let queue = queue(&mut self.queues, bucket);
        self.chunks.remove(queue, timers, handle, 0);
        if queue.is_empty() {
            self.clear_filled(bucket);
        }
        timers.set_place(handle, IDLE);
    }

    /// Clears the bit of a bucket that has become empty.
    #[cold]
    fn clear_filled(&mut self, bucket: usize) {
        self.filled[bucket / 64] &= !(1 << (bucket % 64));
    }

    /// Returns the bucket to empty first, and the tick at which it is reached.
    #[inline]
    fn first(&self) -> Option<(usize, u64)> {
        for bucket in [self.reached, PAST] {
            if self.filled[bucket / 64] >> (bucket % 64) & 1 != 0 {
                return Some((bucket, self.tick));
            }
        }
        let word = self.filled.iter().position(|&buckets| buckets != 0)?;
        let bucket = word * 64 + self.filled[word].trailing_zeros() as usize;
        // Timers at this level share the higher digits with the current tick.
        let shift = DIGIT * (bucket / SLOTS) as u32;
        let tick = (self.tick >> shift >> DIGIT << DIGIT | (bucket % SLOTS) as u64) << shift;
        Some((bucket, tick))
    }

    /// Returns the time before which [`advance`](Self::advance) has nothing to do; 0 if it has now,
    /// `u64::MAX` if there are no timers.
    pub(crate) fn next(&self) -> u64 {
        match self.first() {
            Some((_, tick)) if tick <= self.tick => 0,
            // The last tick begins just after the largest time.
            Some((_, tick)) => tick.saturating_mul(1 << TICK),
            None => u64::MAX,
        }
    }

    /// Advances the current time to `now`, and calls `fire` with the timers that are due: none
    /// before its deadline, each at most a tick after it, and each tick's timers before those of
    /// the next. An entry that fires has no timer any more, and may be scheduled again immediately.
    /// A timer fires early if there is no memory to keep it, so `fire` must compare deadlines.
    ///
    /// At most `budget` timers are moved or fired. Returns true if there is more to do now; false
    /// means `next() > now`. The current time never goes back: an earlier `now` counts as the
    /// current time.
    pub(crate) fn advance<T>(&mut self, timers: &T, now: u64, budget: usize, mut fire: impl FnMut(&mut Self, H)) -> bool
    where
        T: Timers<Handle = H>,
    {
        let target = self.tick.max(now >> TICK);
        let mut left = budget;
        while let Some((bucket, tick)) = self.first()
            && tick <= target
        {
            if left == 0 {
                return true;
            }
            (self.tick, self.reached) = (tick, bucket);
            while left > 0 {
                let queue = queue(&mut self.queues, bucket);
                let Some((handle, _)) = self.chunks.pop_back_if(queue, timers, |_, _| Some(0)) else {
                    break;
                };
                left -= 1;
                let due = due_tick(timers.deadline(handle));
                if due <= tick || !self.put(timers, handle, due) {
                    timers.set_place(handle, IDLE);
                    fire(self, handle);
                }
            }
            if queue(&mut self.queues, bucket).is_empty() {
                self.clear_filled(bucket);
            }
        }
        (self.tick, self.reached) = (target, PAST);
        false
    }

    /// Takes the timers whose deadline is reached at `now`, but whose tick has not begun.
    /// [`advance`](Self::advance), which must have returned false for `now`, would fire them up to
    /// a tick later. O(timers in that tick's bucket).
    pub(crate) fn take_reached<T>(&mut self, timers: &T, now: u64) -> Vec<H>
    where
        T: Timers<Handle = H>,
    {
        let next = self.tick + 1;
        if now >> TICK != self.tick {
            return Vec::new();
        }
        let level = ((next ^ self.tick).ilog2() / DIGIT) as usize;
        let bucket = bucket(level, next);
        if level >= LEVELS || self.filled[bucket / 64] >> (bucket % 64) & 1 == 0 {
            return Vec::new();
        }
        let queue = &self.queues[level][bucket % SLOTS];
        let reached: Vec<H> = self
            .chunks
            .iter(queue)
            .filter(|handle| timers.deadline(*handle) <= now)
            .collect();
        for handle in &reached {
            self.cancel(timers, *handle);
        }
        reached
    }

    /// Panics if an invariant is broken. O(n).
    pub(crate) fn validate<T: Timers<Handle = H>>(&self, timers: &T) {
        self.chunks.validate(self.queues.iter().flatten(), timers, |_| 0);
        let buckets = (0..).zip(&self.queues).flat_map(|(level, queues)| {
            let first = level * SLOTS;
            (first..).zip(queues)
        });
        let mut filled = [0; PAST / 64 + 1];
        for (index, queue) in buckets.filter(|(_, queue)| !queue.is_empty()) {
            filled[index / 64] |= 1 << (index % 64);
            let level = index / SLOTS;
            assert_eq!(usize::from(queue.id()), index);
            for handle in self.chunks.iter(queue) {
                let due = due_tick(timers.deadline(handle));
                assert_eq!(bucket(level, due), index);
                if index == PAST {
                    assert!(due <= self.tick);
                } else if index == self.reached {
                    assert!(due >= self.tick && bucket(level, self.tick) == index);
                } else {
                    assert!(due > self.tick);
                    assert_eq!((due ^ self.tick).ilog2() / DIGIT, level as u32);
                }
            }
        }
        assert_eq!(self.filled, filled);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
