//! The timing wheel against a list of deadlines: no timer fires early or twice, each fires at most
//! a tick after its deadline and in its tick's order, and `next` is never too late.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

#[allow(unused, unreachable_pub)]
#[path = "../../src/prim/mod.rs"]
mod prim;

use prim::list::{MAX_PLACE, Places};
use prim::wheel::{IDLE, Timers, Wheel};

/// A tick in nanoseconds, and its logarithm.
const TICK: u64 = 1 << SHIFT;
const SHIFT: u32 = 20;

#[derive(Arbitrary, Debug)]
enum Call {
    /// From now on: the second number is shifted left by the first.
    Schedule(u8, u8, u16),
    ScheduleAt(u8, u64),
    Cancel(u8),
    Advance(u8, u16, u8),
    AdvanceTo(u64, u8),
    ToNext(u8),
    Empty,
}

type Handle = NonZeroU32;

struct Store(Vec<(Cell<u64>, Cell<u32>)>);

impl Store {
    fn at(&self, handle: Handle) -> &(Cell<u64>, Cell<u32>) {
        &self.0[handle.get() as usize - 1]
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
        self.at(handle).0.get()
    }
}

fn name(timer: u8) -> Handle {
    Handle::MIN.saturating_add(timer.into())
}

struct Case {
    store: Store,
    wheel: Wheel<Handle>,
    now: u64,
    /// Deadlines, and whether they were not over yet when they were set.
    model: BTreeMap<Handle, (u64, bool)>,
    /// The tick of the last that fired of those.
    last: u64,
}

impl Case {
    fn schedule(&mut self, timer: u8, deadline: u64) {
        let handle = name(timer);
        assert_eq!(
            self.wheel.is_scheduled(&self.store, handle),
            self.model.contains_key(&handle)
        );
        self.wheel.cancel(&self.store, handle);
        self.store.at(handle).0.set(deadline);
        assert!(self.wheel.schedule(&self.store, handle), "there is memory");
        self.model
            .insert(handle, (deadline, deadline.div_ceil(TICK) > self.now >> SHIFT));
    }

    /// Whether there is more to do.
    fn advance(&mut self, now: u64, budget: usize) -> bool {
        self.now = self.now.max(now);
        let mut count = 0;
        let (wheel, model, last, present) = (&mut self.wheel, &mut self.model, &mut self.last, self.now);
        let more = wheel.advance(&self.store, now, budget, |_, handle| {
            let (deadline, ahead) = model.remove(&handle).expect("it fires once, if it was scheduled");
            assert!(deadline <= present, "too early: {deadline} at {present}");
            if ahead {
                assert!(deadline.div_ceil(TICK) >= *last, "out of order");
                *last = deadline.div_ceil(TICK);
            }
            count += 1;
        });
        assert!(count <= budget);
        if !more {
            let left = self.model.values().map(|timer| timer.0).min();
            assert!(
                left.is_none_or(|deadline| deadline > now >> SHIFT << SHIFT),
                "{left:?} is due at {now}"
            );
            assert!(self.wheel.next() > now || now == u64::MAX, "there is nothing to do yet");
        }
        more
    }
}

fuzz_target!(|calls: Vec<Call>| {
    let mut case = Case {
        store: Store((0..256).map(|_| (Cell::new(0), Cell::new(IDLE))).collect()),
        wheel: Wheel::new(),
        now: 0,
        model: BTreeMap::new(),
        last: 0,
    };
    let after = |now: u64, shift: u8, by: u16| now.saturating_add(u64::from(by) << (shift % 48));
    for call in calls {
        match call {
            Call::Schedule(timer, shift, by) => case.schedule(timer, after(case.now, shift, by)),
            Call::ScheduleAt(timer, deadline) => case.schedule(timer, deadline),
            Call::Cancel(timer) => {
                case.wheel.cancel(&case.store, name(timer));
                case.model.remove(&name(timer));
            }
            Call::Advance(shift, by, budget) => _ = case.advance(after(case.now, shift, by), budget.into()),
            Call::AdvanceTo(now, budget) => _ = case.advance(now, budget.into()),
            Call::ToNext(budget) => {
                let next = case.wheel.next();
                assert_eq!(next == u64::MAX && case.wheel.len() == 0, case.model.is_empty());
                if next != u64::MAX {
                    case.advance(next, budget.into());
                }
            }
            Call::Empty => while case.advance(case.now, 7) {},
        }
        assert_eq!(case.wheel.len(), case.model.len());
        case.wheel.validate(&case.store);
    }
    while case.advance(u64::MAX, 64) {}
    assert!(
        case.model.values().all(|timer| timer.0 > u64::MAX >> SHIFT << SHIFT),
        "the last tick of all never comes"
    );
});
