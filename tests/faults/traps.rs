//! Keys, values and settings whose code panics when it is told to, and which are counted.
//!
//! All is kept per thread: a test has its thread, and only that uses its cache.

#[path = "../common/mod.rs"]
mod common;

use common::Intended;
pub(crate) use common::{Key, Value, key, springs, value};
use hotset::snapshot::Codec;
use hotset::{Builder, Cache, Clock, Expiry, ManualClock, Policy};
use std::cell::Cell;
use std::panic::resume_unwind;
use std::time::Duration;

/// Where user code runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Nowhere,
    Hash,
    Eq,
    CloneKey,
    CloneValue,
    DropKey,
    DropValue,
    Weigh,
    Listen,
    Load,
    Change,
    Condition,
    Now,
    Create,
    Update,
    Read,
    Background,
    #[cfg(feature = "async")]
    Poll,
    #[cfg(feature = "async")]
    Wake,
    Encode,
    Decode,
    Progress,
}

pub(crate) const PLACES: &[Place] = &[
    Place::Hash,
    Place::Eq,
    Place::CloneKey,
    Place::CloneValue,
    Place::DropKey,
    Place::DropValue,
    Place::Weigh,
    Place::Listen,
    Place::Load,
    Place::Change,
    Place::Condition,
    Place::Now,
    Place::Create,
    Place::Update,
    Place::Read,
    Place::Background,
    #[cfg(feature = "async")]
    Place::Poll,
    #[cfg(feature = "async")]
    Place::Wake,
    Place::Encode,
    Place::Decode,
    Place::Progress,
];

thread_local! {
    /// Where user code panics, after how many more times.
    static TRAP: Cell<(Place, u32)> = const { Cell::new((Place::Nowhere, 0)) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static SHOWN: Cell<u64> = const { Cell::new(0) };
}

/// User code runs here.
pub(crate) fn trap(place: Place) {
    let (at, left) = TRAP.get();
    // A second panic while one goes on would end the program, which is the language's doing.
    if at != place || std::thread::panicking() {
        return;
    }
    if left > 0 {
        return TRAP.set((at, left - 1));
    }
    TRAP.set((Place::Nowhere, 0));
    resume_unwind(Box::new(Intended));
}

/// The next `call` at `place` but `skip` panics.
pub(crate) fn arm(place: Place, skip: u32) {
    TRAP.set((place, skip));
}

/// Whether nothing has panicked since [`arm`].
pub(crate) fn is_armed() -> bool {
    TRAP.get().0 != Place::Nowhere
}

/// Keys and values that are alive.
pub(crate) fn live() -> isize {
    LIVE.get()
}

/// Entries that the listener was shown since it was asked last.
pub(crate) fn shown() -> u64 {
    SHOWN.replace(0)
}

fn count(change: isize) {
    LIVE.set(LIVE.get() + change);
}

impl Codec for Key {
    fn encode(&self, out: &mut Vec<u8>) {
        trap(Place::Encode);
        self.0.encode(out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        trap(Place::Decode);
        u64::decode(bytes).map(key)
    }
}

impl Codec for Value {
    fn encode(&self, out: &mut Vec<u8>) {
        trap(Place::Encode);
        self.0.encode(out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        trap(Place::Decode);
        u64::decode(bytes).map(value)
    }
}

struct Lives;

impl Expiry<Key, Value> for Lives {
    fn after_create(&self, _: &Key, _: &Value) -> Option<Duration> {
        trap(Place::Create);
        Some(Duration::from_secs(20))
    }
    fn after_update(&self, _: &Key, _: &Value, remaining: Option<Duration>) -> Option<Duration> {
        trap(Place::Update);
        remaining
    }
    fn after_read(&self, _: &Key, value: &Value, remaining: Option<Duration>) -> Option<Duration> {
        trap(Place::Read);
        // Some come nearer, some move on.
        remaining.map(|left| if value.weight() == 1 { left / 2 } else { left * 2 })
    }
}

struct Ticking(ManualClock);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        trap(Place::Now);
        self.0.now()
    }
}

/// Every setting that brings user code, those of time only with a clock.
pub(crate) fn build(policy: Policy, clock: Option<&ManualClock>) -> Cache<Key, Value> {
    let builder: Builder<Key, Value> = Cache::builder()
        .max_weight(24)
        .weigher(|_, value: &Value| {
            trap(Place::Weigh);
            value.weight()
        })
        .on_removal(|_, _, _| {
            SHOWN.set(SHOWN.get() + 1);
            trap(Place::Listen);
        })
        .policy(policy);
    let builder = match clock {
        None => builder,
        Some(clock) => builder
            .clock(Ticking(clock.clone()))
            .time_to_live(Duration::from_secs(15))
            .expiry(Lives)
            .refresh_after(Duration::from_secs(3))
            .stale_if_error(Duration::from_secs(5))
            .negative_ttl(Duration::from_secs(2))
            .refresh_executor(|task| {
                trap(Place::Background);
                task();
            }),
    };
    builder.build().expect("the settings go together")
}

/// Tidies up, and checks that the structures are sound, and that weight and count are those of what is there.
pub(crate) fn check(cache: &Cache<Key, Value>) {
    cache.run_pending();
    cache.validate();
    let (mut count, mut weight) = (0, 0);
    let reader = cache.reader();
    reader.hottest().for_each(|(_, value)| {
        count += 1;
        weight += value.weight();
    });
    assert_eq!((cache.len(), cache.weight()), (count, weight), "count and weight");
}
