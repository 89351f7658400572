//! Tests of the wheel against a sorted list, and without memory.

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
    /// How often a deadline was read: once for each timer moved or fired.
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
        self.at(handle).1.get() & ((1 << 23) - 1)
    }
    fn set_place(&self, handle: Handle, place: u32) {
        self.set_position(handle, place, 0);
    }
    const STORES_OFFSETS: bool = true;
    fn position(&self, handle: Handle) -> (u32, usize) {
        let position = self.at(handle).1.get();
        (position & ((1 << 23) - 1), (position >> 23) as usize)
    }
    fn set_position(&self, handle: Handle, place: u32, offset: usize) {
        assert!(place <= MAX_PLACE || place == IDLE);
        self.at(handle).1.set((offset as u32) << 23 | place);
    }
}

impl Timers for Store {
    fn deadline(&self, handle: Handle) -> u64 {
        self.asked.set(self.asked.get() + 1);
        self.at(handle).0.get()
    }
}

const NS: u64 = 1 << TICK;

/// The timers that the wheel should have.
#[derive(Default)]
struct Model {
    timers: BTreeMap<u64, BTreeSet<Handle>>,
    /// By handle: the tick it must fire in, which is the current one if it had expired when it was
    /// scheduled.
    order: BTreeMap<Handle, u64>,
    /// The tick of the timer that fired last.
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

/// The wheel and the model, driven in step.
struct Pair {
    store: Store,
    wheel: Wheel<Handle>,
    model: Model,
    /// The last time passed to `advance`, and the latest of all.
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

    /// Returns any entry that is scheduled.
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

    /// Calls `advance` once. Every fourth timer that fires is scheduled again, `delay` later.
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

    /// Advances until nothing is due, in as few calls as the budget allows.
    fn advance_until_done(&mut self, now: u64, budget: usize) {
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

/// Times of all magnitudes, and those where buckets and levels begin and end.
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
    fn wheel_behaves_like_a_sorted_map(
        steps in prop::collection::vec((0u8..12, any::<u8>(), any::<u32>(), any::<u64>()), 1..200),
        // Small steps keep the clock in the lower levels.
        top in 20u32..64,
    ) {
        let (mut pair, top) = (Pair::new(), u64::MAX >> (63 - top));
        for (op, kind, bits, value) in steps {
            // Small budgets leave buckets half emptied for the following steps.
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
                // To a time where a timer may be due, just before it, and again to the current
                // time.
                6 => more = Some(pair.advance(pair.wheel.next().min(top), budget, delay)),
                7 => more = Some(pair.advance(pair.wheel.next().min(top).saturating_sub(1), budget, delay)),
                8 => more = Some(pair.advance(pair.now, budget, delay)),
                9..11 => more = Some(pair.advance(at.min(top), budget, delay)),
                _ => pair.advance_until_done(at.min(top), budget.min(1000)),
            }
            pair.check(more);
        }
        pair.advance_until_done(u64::MAX, 1000);
        assert!(pair.model.timers.keys().all(|&deadline| deadline > u64::MAX / NS * NS));
    }
}

#[test]
fn wheel_with_a_million_due_timers_is_bounded() {
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
fn wheel_jump_of_centuries_is_one_step() {
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

/// A scheduled timer fires once; before its deadline only if it was moved and found no memory.
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
fn wheel_takes_nine_bytes_per_timer() {
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
