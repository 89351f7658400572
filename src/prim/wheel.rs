//! Timers: a hierarchical timing wheel (Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP 1987).
//!
//! Time is counted in ticks of 2^20 ns, about a millisecond, and the number of a tick written in digits of eight bits. A timer
//! lies at the level of the highest digit in which its tick differs from the present one, in the bucket of its own digit
//! there. So scheduling is O(1), and what comes first is in the first filled bucket of the lowest level that has any. A bitmap
//! tells it: empty buckets cost nothing, however far the clock jumps. When the present reaches a bucket of a higher level, the
//! timers in it move to lower ones: each at most once per level, and those of the next five hours lie at the lowest three.
//!
//! The buckets are queues of one slab (see [`list`](super::list)): about nine bytes per timer where they are dense, a chunk
//! of 256 bytes for a bucket that holds only a few, 6 kB for each level in use.
#![forbid(unsafe_code)]

use super::list::{Chunks, MAX_PLACE, Places, Queue};

/// What a wheel may ask of the entries it keeps timers for. Their places are the wheel's, and [`IDLE`] at first.
///
/// While an entry is scheduled, the wheel may use its handle freely; never outside of that span.
pub(crate) trait Timers: Places {
    /// When its time is over: nanoseconds since whatever moment the caller counts from. Constant while it is scheduled.
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
/// The bucket of timers whose time was already over when they were scheduled: the only one of a level above all others,
/// where every digit is 0.
const PAST: usize = LEVELS * SLOTS;

/// The first tick that begins when, or after, the deadline is over: nothing may fire early.
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
    /// The present. Timers of this tick and earlier ones are in `reached` or `PAST` only.
    tick: u64,
    /// The bucket that the present has reached and that is being emptied; `PAST` if there is none.
    reached: usize,
    /// A bit per bucket that is not empty.
    filled: [u64; PAST / 64 + 1],
    /// The buckets by level and digit, each with its level as id. A level has none before its first timer.
    queues: [Vec<Queue>; LEVELS + 1],
    chunks: Chunks<H>,
}

impl<H: Copy + Eq> Wheel<H> {
    /// An empty wheel; its present is the moment 0.
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

    /// Sets the timer of an entry that has none. If its deadline is over, it fires at the next `advance`. Returns false, and does
    /// nothing, if there is no memory for the timer. O(1).
    #[inline]
    #[must_use = "an entry whose timer was refused never fires"]
    pub(crate) fn schedule<T: Timers<Handle = H>>(&mut self, timers: &T, handle: H) -> bool {
        debug_assert!(!self.is_scheduled(timers, handle));
        self.put(timers, handle, due_tick(timers.deadline(handle)))
    }

    /// Puts a timer into its bucket, as seen from the present, if there is memory for that.
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
            // Its level was chosen by what was the present then, and may be another now.
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
        // What is at its level shares the higher digits with the present.
        let shift = DIGIT * (bucket / SLOTS) as u32;
        let tick = (self.tick >> shift >> DIGIT << DIGIT | (bucket % SLOTS) as u64) << shift;
        Some((bucket, tick))
    }

    /// Calling [`advance`](Self::advance) before this moment is in vain; 0 if there is something to do already, `u64::MAX` if
    /// there are no timers.
    pub(crate) fn next(&self) -> u64 {
        match self.first() {
            Some((_, tick)) if tick <= self.tick => 0,
            // The last tick of all begins just after the end of time.
            Some((_, tick)) => tick.saturating_mul(1 << TICK),
            None => u64::MAX,
        }
    }

    /// Makes `now` the present and gives what is due to `fire`: nothing before its deadline, everything at most a tick
    /// after it, and each tick's timers before those of the next. An entry that fires has no timer any more, and may be
    /// scheduled again at once. A timer fires early if there is no memory to keep it any longer: `fire` must compare deadlines.
    ///
    /// At most `budget` timers are moved or fired: if it returns true, there is more to do now. If it returns false, then
    /// `next() > now`. The present never goes back: a `now` before it counts as the present.
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

    /// Takes out the timers whose deadline is reached at `now`, but whose tick has not begun: what [`advance`](Self::advance), which must
    /// have been called for `now` and left nothing, fires up to a tick later. O(timers in that tick's bucket).
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::num::NonZeroU32;

    type Handle = NonZeroU32;

    /// Entries in a vector, named by their index plus 1.
    #[derive(Default)]
    struct Store {
        /// Deadline and place.
        entries: Vec<(Cell<u64>, Cell<u32>)>,
        /// How often a deadline was asked for: once for each timer moved or fired.
        asked: Cell<usize>,
    }

    impl Store {
        fn add(&mut self) -> Handle {
            self.entries.push((Cell::new(0), Cell::new(IDLE)));
            Handle::new(self.entries.len() as u32).unwrap()
        }

        fn at(&self, handle: Handle) -> &(Cell<u64>, Cell<u32>) {
            &self.entries[handle.get() as usize - 1]
        }

        fn schedule(&self, wheel: &mut Wheel<Handle>, handle: Handle, deadline: u64) {
            self.at(handle).0.set(deadline);
            assert!(wheel.schedule(self, handle));
        }
    }

    impl Places for Store {
        type Handle = Handle;

        fn place(&self, handle: Handle) -> u32 {
            self.at(handle).1.get()
        }
        fn set_place(&self, handle: Handle, place: u32) {
            assert!(place <= MAX_PLACE || place == IDLE);
            self.at(handle).1.set(place);
        }
    }

    impl Timers for Store {
        fn deadline(&self, handle: Handle) -> u64 {
            self.asked.set(self.asked.get() + 1);
            self.at(handle).0.get()
        }
    }

    const NS: u64 = 1 << TICK;

    /// What should be in the wheel.
    #[derive(Default)]
    struct Model {
        timers: BTreeMap<u64, BTreeSet<Handle>>,
        /// By handle: the tick it must fire in, which is the present one if its deadline was over when it was scheduled.
        order: BTreeMap<Handle, u64>,
        /// The tick of what fired last.
        last: u64,
    }

    impl Model {
        fn schedule(&mut self, handle: Handle, deadline: u64, present: u64) {
            assert!(self.timers.entry(deadline).or_default().insert(handle));
            self.order.insert(handle, due_tick(deadline).max(present));
        }

        fn remove(&mut self, handle: Handle, deadline: u64) -> u64 {
            let same = self.timers.get_mut(&deadline).expect("it was scheduled");
            assert!(same.remove(&handle), "fired or cancelled twice");
            if same.is_empty() {
                self.timers.remove(&deadline);
            }
            self.order.remove(&handle).unwrap()
        }

        fn fire(&mut self, handle: Handle, deadline: u64, now: u64) {
            assert!(deadline <= now, "{deadline} fired at {now}");
            let tick = self.remove(handle, deadline);
            assert!(tick >= self.last, "{tick} fired after {}", self.last);
            self.last = tick;
        }
    }

    /// The two side by side.
    struct Pair {
        store: Store,
        wheel: Wheel<Handle>,
        model: Model,
        /// The moment that `advance` was given last, and the latest of all.
        now: u64,
        latest: u64,
        idle: Vec<Handle>,
    }

    impl Pair {
        fn new() -> Self {
            let mut store = Store::default();
            Self {
                idle: (0..200).map(|_| store.add()).collect(),
                store,
                wheel: Wheel::new(),
                model: Model::default(),
                now: 0,
                latest: 0,
            }
        }

        /// Any entry that is scheduled.
        fn any(&self, choice: u64) -> Option<Handle> {
            let at = choice as usize % self.model.order.len().max(1);
            self.model.order.keys().nth(at).copied()
        }

        fn schedule(&mut self, deadline: u64) {
            if let Some(handle) = self.idle.pop() {
                self.store.schedule(&mut self.wheel, handle, deadline);
                assert!(self.wheel.is_scheduled(&self.store, handle));
                self.model.schedule(handle, deadline, self.wheel.tick);
            }
        }

        fn cancel(&mut self, handle: Handle) {
            self.wheel.cancel(&self.store, handle);
            assert!(!self.wheel.is_scheduled(&self.store, handle));
            self.model.remove(handle, self.store.at(handle).0.get());
            self.idle.push(handle);
        }

        /// One call of `advance`. Every fourth that fires is scheduled again there, `delay` later.
        fn advance(&mut self, now: u64, budget: usize, delay: u64) -> bool {
            let (next, mut fired, mut again) = (self.wheel.next(), 0, 0);
            self.store.asked.set(0);
            (self.now, self.latest) = (now, now.max(self.latest));
            let (latest, store, model, idle) = (self.latest, &self.store, &mut self.model, &mut self.idle);
            let more = self.wheel.advance(store, now, budget, |wheel, handle| {
                assert!(!wheel.is_scheduled(store, handle));
                let deadline = store.at(handle).0.get();
                model.fire(handle, deadline, latest);
                fired += 1;
                if fired % 4 == 0 {
                    let deadline = deadline.saturating_add(delay);
                    store.schedule(wheel, handle, deadline);
                    model.schedule(handle, deadline, wheel.tick);
                    again += 1;
                } else {
                    idle.push(handle);
                }
            });
            assert!(store.asked.get() - again <= budget);
            assert!(fired == 0 || next <= latest, "{fired} fired before next()");
            more
        }

        fn check(&self, more: Option<bool>) {
            self.wheel.validate(&self.store);
            assert_eq!(self.wheel.len(), self.model.order.len());
            let first = self.model.timers.keys().next();
            let next = self.wheel.next();
            match first {
                Some(&first) => assert!(
                    next <= due_tick(first).saturating_mul(NS),
                    "next() is {next}, {first} is due"
                ),
                None => assert_eq!(next, u64::MAX),
            }
            match more {
                Some(true) => assert!(next <= self.now),
                Some(false) => {
                    assert!(next > self.now || next == u64::MAX);
                    assert!(
                        first.is_none_or(|&first| first > self.now / NS * NS),
                        "{first:?} did not fire"
                    );
                }
                None => {}
            }
        }

        /// Until nothing more is due; in as few calls as the budget allows.
        fn settle(&mut self, now: u64, budget: usize) {
            let limit = (self.wheel.len() + 1) * (LEVELS + 2) * 2 / budget + 2;
            for _ in 0..limit {
                let more = self.advance(now, budget, 3 * NS);
                self.check(Some(more));
                if !more {
                    return;
                }
            }
            panic!("no end after {limit} calls");
        }
    }

    /// Moments of all magnitudes, and those where buckets and levels begin and end.
    fn moment(now: u64, kind: u8, bits: u32, value: u64) -> u64 {
        let (size, nudge) = (value >> (bits % 64), (value >> 32) as i64 % 3);
        let border = 1u64 << (TICK + DIGIT * (bits % LEVELS as u32));
        match kind % 16 {
            0..6 => now.saturating_add(size),
            6..8 => now.saturating_add(border).saturating_add_signed(nudge),
            8..10 => (now / border + value % 64)
                .saturating_mul(border)
                .saturating_add_signed(nudge),
            10 => now.saturating_sub(size),
            11 => now.saturating_add_signed(nudge << TICK),
            12 => now,
            13 => 0,
            14 => u64::MAX,
            _ => u64::MAX - 1,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn behaves_like_a_sorted_map(
            steps in prop::collection::vec((0u8..12, any::<u8>(), any::<u32>(), any::<u64>()), 1..200),
            // Low ones keep the clock among the lower levels.
            top in 20u32..64,
        ) {
            let (mut pair, top) = (Pair::new(), u64::MAX >> (63 - top));
            for (op, kind, bits, value) in steps {
                // Small ones leave buckets half emptied for the steps to come.
                let budget = if value % 4 < 3 { 1 + (value >> 8) as usize % 7 } else { usize::MAX };
                let (at, delay) = (moment(pair.now, kind, bits, value), value >> 30);
                let mut more = None;
                match op {
                    0..2 => pair.schedule(at),
                    2..4 => (0..value % 9).for_each(|n| pair.schedule(at.saturating_add(n << (bits % 28)))),
                    4 => if let Some(handle) = pair.any(value) {
                        pair.cancel(handle);
                        pair.wheel.cancel(&pair.store, handle);
                    },
                    5 => if let Some(handle) = pair.any(value) {
                        pair.cancel(handle);
                        pair.schedule(at);
                    },
                    // To where something may be due, to just before, and again to where the clock is.
                    6 => more = Some(pair.advance(pair.wheel.next().min(top), budget, delay)),
                    7 => more = Some(pair.advance(pair.wheel.next().min(top).saturating_sub(1), budget, delay)),
                    8 => more = Some(pair.advance(pair.now, budget, delay)),
                    9..11 => more = Some(pair.advance(at.min(top), budget, delay)),
                    _ => pair.settle(at.min(top), budget.min(1000)),
                }
                pair.check(more);
            }
            pair.settle(u64::MAX, 1000);
            assert!(pair.model.timers.keys().all(|&deadline| deadline > u64::MAX / NS * NS));
        }
    }

    #[test]
    fn a_million_due_at_once_stall_nobody() {
        let mut store = Store::default();
        let mut wheel = Wheel::new();
        let n = 1_000_000;
        let deadline = 3_600_000_000_000;
        for _ in 0..n {
            let handle = store.add();
            store.schedule(&mut wheel, handle, deadline);
        }
        let (mut fired, mut calls, mut more) = (0, 0, true);
        while more {
            store.asked.set(0);
            more = wheel.advance(&store, deadline + NS, 100, |_, _| fired += 1);
            assert!(store.asked.get() <= 100);
            calls += 1;
        }
        assert_eq!((fired, wheel.len(), wheel.next()), (n, 0, u64::MAX));
        assert!(calls <= n * LEVELS / 100 + 1, "{calls}");
    }

    #[test]
    fn a_jump_of_centuries_is_one_step() {
        let mut store = Store::default();
        let mut wheel = Wheel::new();
        let far = store.add();
        store.schedule(&mut wheel, far, u64::MAX / 2);
        for n in 1..60 {
            assert!(!wheel.advance(&store, (u64::MAX / 2) >> (60 - n), LEVELS, |_, _| panic!("too early")));
        }
        let mut fired = None;
        assert!(!wheel.advance(&store, u64::MAX, LEVELS, |_, handle| fired = Some(handle)));
        assert_eq!(fired, Some(far));
    }

    /// What was scheduled fires once; before its deadline only if it was moved and found no place.
    #[test]
    fn timer_without_memory_is_refused_or_fires() {
        for chunks in [0, 1, 2, 7, 40] {
            let mut store = Store::default();
            let mut wheel = crate::prim::list::with_limit(chunks, Wheel::new);
            let mut rng = crate::policy::testing::XorShift(chunks + 1);
            let (mut waiting, mut refused, mut early) = (BTreeSet::new(), 0, 0);
            for step in 0..4_000u64 {
                let handle = store.add();
                store.at(handle).0.set(step * NS + u64::from(rng.next()) * 2_000);
                if wheel.schedule(&store, handle) {
                    waiting.insert(handle);
                } else {
                    assert!(!wheel.is_scheduled(&store, handle));
                    refused += 1;
                }
                wheel.advance(&store, step * NS, 50, |_, handle| {
                    assert!(waiting.remove(&handle));
                    early += usize::from(store.at(handle).0.get() > step * NS);
                });
                if step % 64 == 0 {
                    wheel.validate(&store);
                    assert_eq!(wheel.len(), waiting.len());
                }
            }
            assert!(refused > 0 && waiting.len() <= 28 * chunks as usize);
            assert!(chunks < 7 || early < 400, "{early}");
            while wheel.advance(&store, u64::MAX, 50, |_, handle| assert!(waiting.remove(&handle))) {}
            assert!(waiting.is_empty());
        }
    }

    #[test]
    fn nine_bytes_per_timer_and_little_for_few() {
        let mut store = Store::default();
        let mut wheel = Wheel::new();
        let mut rng = crate::policy::testing::XorShift(1);
        let allocated = |wheel: &Wheel<Handle>| {
            let queues: usize = wheel.queues.iter().map(Vec::capacity).sum();
            queues * size_of::<Queue>() + wheel.chunks.bytes()
        };
        assert_eq!(allocated(&wheel), 0);
        let mut bytes = Vec::new();
        for n in 1..=300_000u64 {
            let handle = store.add();
            store.schedule(&mut wheel, handle, u64::from(rng.next()) * 20_000);
            if [1, 300, 300_000].contains(&n) {
                wheel.validate(&store);
                bytes.push(allocated(&wheel));
            }
        }
        // An eighth of the slab may be unused.
        assert!(bytes[0] < 13 << 10, "{bytes:?}");
        assert!(bytes[1] < 64 << 10, "{bytes:?}");
        assert!(bytes[2] < 300_000 * 10, "{bytes:?}");
    }
}
