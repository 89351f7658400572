//! Calls on two caches against a model, under a clock that the input moves. A cache with room for
//! all keys behaves exactly as the model; a small one may have evicted an entry, but never has
//! another value, or one that was removed or has expired.
#![no_main]

use std::collections::HashMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use hotset::{Cache, ManualClock};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Call {
    Get(u8),
    ContainsKey(u8),
    Remaining(u8),
    Insert(u8, u16),
    InsertWithTtl(u8, u16, u8),
    GetOrInsert(u8, u16),
    Compute(u8, Option<u16>),
    Remove(u8),
    Clear,
    Advance(u8),
    SetCapacity(u8),
    RunPending,
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// In seconds; without any if 0.
    time_to_live: u8,
    capacity: u8,
    calls: Vec<Call>,
}

/// Seconds since the clock's beginning.
type Seconds = u64;

struct Model {
    now: Seconds,
    time_to_live: Option<Seconds>,
    entries: HashMap<u8, (u16, Option<Seconds>)>,
}

impl Model {
    fn get(&self, key: u8) -> Option<u16> {
        Some(self.alive(key)?.0)
    }

    fn alive(&self, key: u8) -> Option<(u16, Option<Seconds>)> {
        let entry = *self.entries.get(&key)?;
        entry.1.is_none_or(|end| self.now < end).then_some(entry)
    }

    fn insert(&mut self, key: u8, value: u16, time_to_live: Option<Seconds>) {
        self.entries
            .insert(key, (value, time_to_live.map(|time| self.now + time)));
    }
}

fn build(capacity: usize, time_to_live: Option<Seconds>, clock: &ManualClock) -> Cache<u8, u16> {
    let builder = Cache::builder().max_entries(capacity).clock(clock.clone());
    let builder = match time_to_live {
        Some(seconds) => builder.time_to_live(Duration::from_secs(seconds)),
        None => builder,
    };
    builder.build().expect("these settings go together")
}

fuzz_target!(|input: Input| {
    let time_to_live = (input.time_to_live > 0).then_some(Seconds::from(input.time_to_live));
    let clock = ManualClock::new();
    let roomy = build(4_096, time_to_live, &clock);
    let small = build(usize::from(input.capacity % 32), time_to_live, &clock);
    let mut model = Model {
        now: 0,
        time_to_live,
        entries: HashMap::new(),
    };

    for call in &input.calls {
        match *call {
            Call::Get(key) => {
                let expected = model.get(key);
                assert_eq!(roomy.get(&key), expected);
                let found = small.get(&key);
                assert!(
                    found.is_none() || found == expected,
                    "{found:?} instead of {expected:?}"
                );
            }
            Call::ContainsKey(key) => {
                assert_eq!(roomy.contains_key(&key), model.get(key).is_some());
                assert!(!small.contains_key(&key) || model.get(key).is_some());
            }
            Call::Remaining(key) => {
                let expected = model
                    .alive(key)
                    .map(|entry| entry.1.map(|end| Duration::from_secs(end - model.now)));
                assert_eq!(roomy.remaining(&key), expected);
                let found = small.remaining(&key);
                assert!(
                    found.is_none() || found == expected,
                    "{found:?} instead of {expected:?}"
                );
            }
            Call::Insert(key, value) => {
                roomy.insert(key, value);
                small.insert(key, value);
                model.insert(key, value, model.time_to_live);
            }
            Call::InsertWithTtl(key, value, seconds) => {
                let seconds = Seconds::from(seconds);
                roomy.insert_with_ttl(key, value, Duration::from_secs(seconds));
                small.insert_with_ttl(key, value, Duration::from_secs(seconds));
                model.insert(key, value, Some(seconds));
            }
            Call::GetOrInsert(key, value) => {
                let expected = model.get(key);
                assert_eq!(roomy.get_or_insert_with(key, || value), expected.unwrap_or(value));
                // An entry that the small cache evicted is inserted again as the model has it, with
                // its remaining TTL.
                let found = small.get(&key);
                assert!(
                    found.is_none() || found == expected,
                    "{found:?} instead of {expected:?}"
                );
                if expected.is_none() {
                    model.insert(key, value, model.time_to_live);
                    assert_eq!(small.get_or_insert_with(key, || value), value);
                }
            }
            Call::Compute(key, value) => {
                let expected = model.get(key);
                let of_roomy = roomy.compute(key, |current| {
                    assert_eq!(current, expected);
                    value
                });
                assert_eq!(of_roomy, value);
                small.compute(key, |current| {
                    assert!(current.is_none() || current == expected);
                    value
                });
                match value {
                    Some(value) => model.insert(key, value, model.time_to_live),
                    None => drop(model.entries.remove(&key)),
                }
            }
            Call::Remove(key) => {
                let expected = model.get(key);
                assert_eq!(roomy.remove(&key), expected);
                let found = small.remove(&key);
                assert!(
                    found.is_none() || found == expected,
                    "{found:?} instead of {expected:?}"
                );
                model.entries.remove(&key);
            }
            Call::Clear => {
                roomy.clear();
                small.clear();
                model.entries.clear();
            }
            Call::Advance(seconds) => {
                clock.advance(Duration::from_secs(seconds.into()));
                model.now += Seconds::from(seconds);
            }
            Call::SetCapacity(capacity) => small.set_capacity(u64::from(capacity % 32)),
            Call::RunPending => {
                small.run_pending();
                assert!(
                    small.weight() <= small.capacity(),
                    "{} of {}",
                    small.weight(),
                    small.capacity()
                );
            }
        }
    }
    roomy.validate();
    small.validate();
});
