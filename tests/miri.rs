//! A small test of every kind of call, for `make miri`, which checks each access against the rules
//! of both borrow models and for data races. It runs as an ordinary test, too.

#[cfg(feature = "snapshot")]
use hotset::snapshot::LoadOptions;
use hotset::{Cache, Change, ManualClock, Policy, Ttl};
use std::sync::Arc;
use std::time::Duration;

const POLICIES: [Policy; 5] = [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random];

type Shared = Cache<u32, Arc<String>>;

fn value(key: u32) -> Arc<String> {
    Arc::new(key.to_string())
}

/// One call of many kinds.
fn call(cache: &Shared, clock: &ManualClock, key: u32, kind: u32) {
    match kind % 11 {
        0..=2 => cache.insert(key, value(key)),
        3 => _ = cache.remove(&key),
        4 => _ = cache.get_or_insert_with(key, || value(key)),
        5 => _ = cache.compute(key, |found| found.or(Some(value(key)))),
        6 => cache.change(&key, |found| match found {
            Some(_) => Change::Remove,
            None => Change::Set(key, value(key), Ttl::Default),
        }),
        7 => {
            let reader = cache.reader();
            assert!(reader.get(&key).is_none_or(|found| **found == key.to_string()));
            _ = reader.hottest().count();
        }
        8 => cache.insert_with_ttl(key, value(key), Duration::from_millis(10)),
        9 => _ = cache.get_many(&[key, key + 1, key + 2]),
        _ => {
            _ = cache.iter().count();
            clock.advance(Duration::from_millis(7));
        }
    }
    assert!(cache.get(&key).is_none_or(|found| *found == key.to_string()));
}

/// Two threads on a few keys.
fn mixed(policy: Policy, timed: bool) {
    let clock = ManualClock::new();
    let mut builder = Shared::builder().max_entries(6).policy(policy).clock(clock.clone());
    builder = builder.on_removal(|key, value, _| assert_eq!(**value, key.to_string()));
    if timed {
        builder = builder
            .time_to_live(Duration::from_millis(50))
            .time_to_idle(Duration::from_millis(20));
    }
    let cache = builder.build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (cache, clock) = (&cache, &clock);
            scope.spawn(move || (0..22).for_each(|n| call(cache, clock, (n * 7 + thread * 3) % 11, n)));
        }
    });
    cache.run_pending();
    cache.validate();
    cache.set_capacity(3);
    cache.run_pending();
    cache.validate();
    cache.clear();
}

#[test]
fn mixed_calls_under_every_policy_are_sound() {
    POLICIES.into_iter().for_each(|policy| mixed(policy, false));
}

#[test]
fn mixed_calls_with_expiration_are_sound() {
    mixed(Policy::WTinyLfu, true);
    mixed(Policy::Lru, true);
}

#[test]
fn growth_beside_a_reader_is_sound() {
    let cache: Cache<u32, Box<u32>> = Cache::new(usize::MAX);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let cache = &cache;
            scope.spawn(move || {
                for n in 0..60 {
                    let key = n * 2 + thread;
                    cache.insert(key, Box::new(key));
                    assert!(cache.get(&(key / 2)).is_none_or(|found| *found == key / 2));
                }
            });
        }
    });
    cache.run_pending();
    cache.validate();
    assert!((0..120).all(|key| cache.get(&key) == Some(Box::new(key))));
}

#[test]
fn weights_near_u64_max_are_sound() {
    let cache: Cache<u32, u64> = Cache::builder()
        .max_weight(u64::MAX)
        .weigher(|_, weight| *weight)
        .build()
        .unwrap();
    for (key, weight) in [u64::MAX, 0, 1, u64::MAX - 1, u64::MAX / 2, 7].into_iter().enumerate() {
        cache.insert(key as u32 % 5, weight);
        cache.run_pending();
        cache.validate();
    }
}

#[test]
fn shared_loads_are_sound() {
    let cache: Shared = Cache::new(10);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(*cache.get_or_insert_with(1, || value(1)), "1"));
        }
    });
    let keys = [1, 2, 3];
    let found = cache.get_many_or_insert_with(keys, |missing: &[u32]| missing.iter().map(|key| value(*key)).collect());
    assert_eq!(found.len(), 3);
}

/// Saves and loads; Miri has no mapped files, so there the file is copied.
#[cfg(feature = "snapshot")]
#[test]
fn snapshot_round_trip_is_sound() {
    let path = std::env::temp_dir().join(format!("hotset-miri-{}", std::process::id()));
    let cache: Cache<u32, String> = Cache::new(10);
    (0..5).for_each(|key| cache.insert(key, key.to_string()));
    cache.save(&path).unwrap();
    for eager in [false, true] {
        let again: Cache<u32, String> = Cache::new(10);
        let options = LoadOptions::new().eager(eager).copy(cfg!(miri));
        again.load_with(&path, &options).unwrap();
        again.remove(&2);
        assert_eq!(again.get(&2), None);
        again.insert(4, "new".to_owned());
        assert_eq!(
            (again.get(&3), again.get(&4)),
            (Some("3".to_owned()), Some("new".to_owned()))
        );
        again.warm();
        assert_eq!(again.len(), 4);
        again.validate();
    }
    std::fs::remove_file(&path).unwrap();
}
