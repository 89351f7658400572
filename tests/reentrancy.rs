//! User code that panics, or calls back into the same cache, in every place where the cache runs any.

mod common;

use common::{Intended, Key, Value, key, springs, value};
use hotset::{Cache, Cause, Policy};
use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const POLICIES: [Policy; 5] = [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
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
}

const PLACES: [Place; 11] = [
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
];

thread_local! {
    /// Where user code does what it should not, after how many more times; then how often it did.
    static TRAP: Cell<(Place, u32)> = const { Cell::new((Place::Nowhere, 0)) };
    static SPRUNG: Cell<usize> = const { Cell::new(0) };
    static CALL_BACK: Cell<bool> = const { Cell::new(false) };
}

type Hostile = Cache<Key, Value>;

/// The cache that user code calls back into. Tests take turns.
static CACHE: Mutex<Option<Hostile>> = Mutex::new(None);
static TURN: Mutex<()> = Mutex::new(());
static LIVE: AtomicIsize = AtomicIsize::new(0);
static SHOWN: AtomicUsize = AtomicUsize::new(0);

fn count(change: isize) {
    LIVE.fetch_add(change, Relaxed);
}

fn trap(place: Place) {
    let (at, left) = TRAP.get();
    if at != place {
        return;
    }
    if left > 0 {
        return TRAP.set((at, left - 1));
    }
    TRAP.set((Place::Nowhere, 0));
    SPRUNG.set(SPRUNG.get() + 1);
    if !CALL_BACK.get() {
        if !std::thread::panicking() {
            resume_unwind(Box::new(Intended));
        }
        return;
    }
    let Some(cache) = CACHE.lock().unwrap().clone() else {
        return;
    };
    for k in 0..12 {
        cache.insert(key(k), value(k));
        cache.get(&key(k + 1));
        cache.remove(&key(k + 2));
        cache.compute(key(k + 3), |old| old.or_else(|| Some(value(k + 3))));
        let _ = cache.try_get_or_insert_with(key(k + 4), || Ok::<_, ()>(value(k + 4)));
        cache.get_many(&[key(k), key(k + 5)]);
    }
    assert!(cache.iter().count() < 1000);
    cache.run_pending();
    cache.clear();
}

fn cache(policy: Policy) -> Hostile {
    Cache::builder()
        .max_weight(20)
        .weigher(|_, value: &Value| {
            trap(Place::Weigh);
            value.weight()
        })
        .on_removal(|_, _, _| {
            SHOWN.fetch_add(1, Relaxed);
            trap(Place::Listen);
        })
        .policy(policy)
        .build()
        .unwrap()
}

fn calls() -> Vec<fn(&Hostile)> {
    vec![
        |cache| cache.insert(key(3), value(30)),
        |cache| cache.insert(key(50), value(5)),
        |cache| drop(cache.get(&key(3))),
        |cache| drop(cache.get_many(&[key(1), key(70), key(2)])),
        |cache| drop(cache.remove(&key(3))),
        |cache| drop(cache.remove_if(&key(3), |_, _| (trap(Place::Condition), true).1)),
        |cache| drop(cache.compute(key(3), |_| (trap(Place::Change), Some(value(1))).1)),
        |cache| drop(cache.compute(key(60), |_| (trap(Place::Change), Some(value(1))).1)),
        |cache| drop(cache.compute(key(3), |_| (trap(Place::Change), None).1)),
        |cache| drop(cache.get_or_insert_with(key(80), || (trap(Place::Load), value(2)).1)),
        |cache| drop(cache.get_or_insert_with(key(3), || (trap(Place::Load), value(2)).1)),
        |cache| _ = cache.iter().count(),
        |cache| cache.clear(),
        |cache| cache.set_capacity(2),
        |cache| cache.set_capacity(0),
        |cache| cache.run_pending(),
        |cache| (90..130).for_each(|k| cache.insert(key(k), value(k))),
    ]
}

fn everywhere(call_back: bool) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut sprung = 0;
    for policy in POLICIES {
        for place in PLACES {
            for (at, call) in calls().into_iter().enumerate() {
                for skip in [0, 1, 2, 7] {
                    LIVE.store(0, Relaxed);
                    SHOWN.store(0, Relaxed);
                    let cache = cache(policy);
                    (0..10).for_each(|k| cache.insert(key(k), value(k)));
                    *CACHE.lock().unwrap() = Some(cache.clone());
                    CALL_BACK.set(call_back);
                    SPRUNG.set(0);
                    TRAP.set((place, skip));
                    let panicked = springs(|| call(&cache));
                    TRAP.set((Place::Nowhere, 0));
                    sprung += SPRUNG.get();
                    assert!(
                        !panicked || (SPRUNG.get() == 1 && !call_back),
                        "{policy:?} {place:?} call {at}"
                    );
                    cache.run_pending();
                    cache.validate();
                    if at == 12 && !call_back && matches!(place, Place::Listen | Place::DropKey | Place::DropValue) {
                        assert_eq!(cache.len(), 0, "clear does its work, {place:?}");
                    }
                    // All still works.
                    cache.set_capacity(20);
                    cache.insert(key(3), value(33));
                    assert!(cache.get(&key(3)).is_none_or(|value| *value.0 == 33));
                    cache.get_or_insert_with(key(80), || value(2));
                    cache.run_pending();
                    cache.validate();
                    let left = cache.len() as u64;
                    assert_eq!(
                        SHOWN.load(Relaxed) as u64 + left,
                        cache.stats().insertions,
                        "{policy:?} {place:?} {at}"
                    );
                    *CACHE.lock().unwrap() = None;
                    drop(cache);
                    // If a destructor of an argument or local panics, the compiler forgets a value that was to be returned
                    // (rust-lang/rust#47949).
                    let forgotten = panicked && matches!(place, Place::DropKey | Place::DropValue) && at != 12;
                    let live = LIVE.load(Relaxed);
                    assert!(
                        (0..=isize::from(forgotten)).contains(&live),
                        "{live} {policy:?} {place:?} call {at} {skip}"
                    );
                }
            }
        }
    }
    assert!(sprung > 500, "{sprung}");
}

#[test]
fn panics_everywhere() {
    everywhere(false);
}

#[test]
fn calls_back_from_everywhere() {
    everywhere(true);
}

#[test]
fn destructors_that_panic_when_the_cache_goes() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for place in [Place::DropKey, Place::DropValue] {
        LIVE.store(0, Relaxed);
        let cache = cache(Policy::WTinyLfu);
        (0..10).for_each(|k| cache.insert(key(k), value(k)));
        CALL_BACK.set(false);
        TRAP.set((place, 4));
        assert!(springs(|| drop(cache)));
        assert_eq!(LIVE.load(Relaxed), 0);
    }
}

#[test]
fn a_listener_that_puts_back_what_was_removed() {
    let handle: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
    let inner = handle.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_entries(10)
        .on_removal(move |key, value, cause| {
            let cache = inner.lock().unwrap().clone();
            if let (Some(cache), Cause::Explicit) = (cache, cause) {
                assert!(!cache.contains_key(key), "it can no longer be found");
                cache.insert(*key, *value + 1);
            }
        })
        .build()
        .unwrap();
    *handle.lock().unwrap() = Some(cache.clone());
    cache.insert(1, 10);
    assert_eq!(cache.remove(&1), Some(10));
    assert_eq!(cache.get(&1), Some(11));
    handle.lock().unwrap().take();
    cache.run_pending();
    cache.validate();
}
