//! Timers: a hierarchical timing wheel (Varghese and Lauck, "Hashed and hierarchical timing
//! wheels", SOSP 1987).
//!
//! Time is counted in ticks of 2^20 ns, about a millisecond, and the number of a tick written in
//! digits of eight bits. A timer lies at the level of the highest digit in which its tick differs
//! from the current one, in the bucket of its own digit there. So scheduling is O(1), and what
//! comes first is in the first filled bucket of the lowest level that has any. A bitmap finds it:
//! empty buckets cost nothing, however far the clock jumps. When the current tick reaches a bucket
//! of a higher level, the timers in it move to lower ones: each at most once per level, and those
//! of the next five hours lie at the lowest three.
//!
//! The buckets are queues of one slab (see [`list`](super::list)): about nine bytes per timer where
//! they are dense, a chunk of 256 bytes for a bucket that holds only a few, 6 kB for each level in
//! use.
#![forbid(unsafe_code)]

use super::list::{Chunks, MAX_PLACE, Places, Queue};

/// What a wheel may ask of the entries it keeps timers for. Their places are the wheel's, and
/// [`IDLE`] at first.
///
/// While an entry is scheduled, the wheel may use its handle freely; never outside of that span.
pub(crate) trait Timers: Places {
    /// Its deadline: nanoseconds since an instant of the caller's choice. Constant while it is
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
/// The bucket of timers whose time was already over when they were scheduled: the only one of a
/// level above all others, where every digit is 0.
const PAST: usize = LEVELS * SLOTS;

/// The first tick that begins at or after the deadline: nothing may fire early.
#[inline]
fn due_tick(deadline: u64) -> u64 {
    deadline.div_ceil(1 << TICK)
}

/// The bucket at this level for timers of this tick.
#[inline]
fn bucket(level: usize, tick: u64) -> usize {
    level * SLOTS + (tick >> (DIGIT * level as u32)) as usize % SLOTS
}

/// The queue of a bucket, whose level has been made.
#[inline]
fn queue(queues: &mut [Vec<Queue>], bucket: usize) -> &mut Queue {
    &mut queues[bucket / SLOTS][bucket % SLOTS]
}

/// The wheel. [`Wheel::new`] allocates nothing.
#[derive(Debug)]
pub(crate) struct Wheel<H> {
    /// The current tick. Timers of this tick and earlier ones are in `reached` or `PAST` only.
    tick: u64,
    /// The bucket that the current tick has reached and that is being emptied; `PAST` if there is
    /// none.
    reached: usize,
    /// A bit per bucket that is not empty.
    filled: [u64; PAST / 64 + 1],
    /// The buckets by level and digit, each with its level as id. A level has none before its first
    /// timer.
    queues: [Vec<Queue>; LEVELS + 1],
    chunks: Chunks<H>,
}

impl<H: Copy + Eq> Wheel<H> {
    /// An empty wheel at timestamp 0.
    pub(crate) fn new() -> Self {
        Self {
            tick: 0,
            reached: PAST,
            filled: [0; PAST / 64 + 1],
            queues: Default::default(),
            chunks: Chunks::new(),
        }
    }

    /// The number of timers.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether an entry has a timer.
    #[inline]
    pub(crate) fn is_scheduled<T: Timers<Handle = H>>(&self, timers: &T, handle: H) -> bool {
        timers.place(handle) != IDLE
    }

    /// Sets the timer of an entry that has none. If its deadline has passed, it fires at the next
    /// `advance`. Returns false, and does nothing, if there is no memory for the timer. O(1).
    #[inline]
    #[must_use = "an entry whose timer was refused never fires"]
    pub(crate) fn schedule<T: Timers<Handle = H>>(&mut self, timers: &T, handle: H) -> bool {
        debug_assert!(!self.is_scheduled(timers, handle));
        self.put(timers, handle, due_tick(timers.deadline(handle)))
    }

    /// Puts a timer into its bucket relative to the current tick, if there is memory for that.
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
        let pushed = self
            .chunks
            .push_front(queue(&mut self.queues, bucket), timers, handle, 0, 0);
        self.filled[bucket / 64] |= u64::from(pushed) << (bucket % 64);
        pushed
    }

    /// Makes a level's buckets, if there is memory for them.
    #[cold]
    fn allocate_level(&mut self, level: usize) -> bool {
        let slots = if level < LEVELS { SLOTS } else { 1 };
        let mut queues = Vec::new();
        if queues.try_reserve_exact(slots).is_err() {
            return false;
        }
        queues.extend((0..slots).map(|_| Queue::new(level as u8)));
        self.queues[level] = queues;
        true
    }

    /// Takes back an entry's timer, if it has one. O(1).
    pub(crate) fn cancel<T: Timers<Handle = H>>(&mut self, timers: &T, handle: H) {
        if self.is_scheduled(timers, handle) {
            // Its level was chosen by the current tick then, and may be another now.
            let level = self.chunks.queue_id(timers.place(handle));
            let bucket = bucket(level.into(), due_tick(timers.deadline(handle)));
            self.chunks.remove(queue(&mut self.queues, bucket), timers, handle, 0);
            self.clear_if_empty(bucket);
            timers.set_place(handle, IDLE);
        }
    }

    /// To be called when something was taken out of a bucket.
    #[inline]
    fn clear_if_empty(&mut self, bucket: usize) {
        if queue(&mut self.queues, bucket).is_empty() {
            self.filled[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    /// The bucket to be emptied first, and the tick when it is time to.
    #[inline]
    fn first(&self) -> Option<(usize, u64)> {
        for bucket in [self.reached, PAST] {
            if self.filled[bucket / 64] >> (bucket % 64) & 1 != 0 {
                return Some((bucket, self.tick));
            }
        }
        let word = self.filled.iter().position(|&buckets| buckets != 0)?;
        let bucket = word * 64 + self.filled[word].trailing_zeros() as usize;
        // Timers at its level share the higher digits with the current tick.
        let shift = DIGIT * (bucket / SLOTS) as u32;
        let tick = (self.tick >> shift >> DIGIT << DIGIT | (bucket % SLOTS) as u64) << shift;
        Some((bucket, tick))
    }

    /// Calling [`advance`](Self::advance) before this timestamp has no effect; 0 if there is
    /// something to do already, `u64::MAX` if there are no timers.
    pub(crate) fn next(&self) -> u64 {
        match self.first() {
            Some((_, tick)) if tick <= self.tick => 0,
            // The last tick of all begins just after the end of time.
            Some((_, tick)) => tick.saturating_mul(1 << TICK),
            None => u64::MAX,
        }
    }

    /// Advances to `now` and calls `fire` with each due entry: nothing before its deadline,
    /// everything at most a tick after it, and each tick's timers before those of the next. An
    /// entry that fires has no timer any more, and may be scheduled again immediately. A timer
    /// fires early if there is no memory to keep it any longer: `fire` must compare deadlines.
    ///
    /// At most `budget` timers are moved or fired: if it returns true, there is more to do now. If
    /// it returns false, then `next() > now`. The wheel never goes back: a `now` before the current
    /// tick counts as the current tick.
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
            self.clear_if_empty(bucket);
        }
        (self.tick, self.reached) = (target, PAST);
        false
    }

    /// Takes out the timers whose deadline is reached at `now`, but whose tick has not begun: what
    /// [`advance`](Self::advance), which must have been called for `now` and left nothing, fires up
    /// to a tick later. O(timers in that tick's bucket).
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
            assert_eq!(usize::from(queue.id()), level);
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

#[cfg(test)]
mod tests;
