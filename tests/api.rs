//! The public API of the crate: calls and traits that the other tests do not cover.

use hotset::{
    Builder, Cache, Change, Entry, Freshness, Iter, Keys, LoadError, Loaded, ManualClock, Policy, Reader, Stats, Ttl,
};
use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A key that counts how often it is created from its borrowed form.
#[derive(Clone, Debug)]
struct Owned(String);

/// The borrowed form.
#[derive(PartialEq, Eq, Hash)]
#[repr(transparent)]
struct Name(str);

thread_local! {
    static CREATED: Cell<usize> = const { Cell::new(0) };
}

impl Name {
    fn of(text: &str) -> &Self {
        // SAFETY: transparent.
        unsafe { &*(std::ptr::from_ref(text) as *const Self) }
    }
}

impl Borrow<Name> for Owned {
    fn borrow(&self) -> &Name {
        Name::of(&self.0)
    }
}

impl ToOwned for Name {
    type Owned = Owned;
    fn to_owned(&self) -> Owned {
        CREATED.set(CREATED.get() + 1);
        Owned(self.0.to_owned())
    }
}

impl PartialEq for Owned {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Owned {}

impl Hash for Owned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn load_by_reference_creates_a_key_on_a_miss_only() {
    let cache = Cache::<Owned, u32>::new(100);
    assert_eq!(cache.get_or_insert_with(Name::of("a"), || 1), 1);
    assert_eq!(CREATED.get(), 1);
    for _ in 0..10 {
        assert_eq!(cache.get_or_insert_with(Name::of("a"), || 2), 1);
        assert_eq!(
            cache
                .try_get_or_insert_with(Name::of("a"), || Err::<u32, _>(()))
                .unwrap(),
            1
        );
        assert!(matches!(cache.entry(Name::of("a")), Ok(Entry::Occupied(1))));
    }
    assert_eq!(CREATED.get(), 1);
}

#[test]
fn load_takes_a_key_by_value_or_by_reference() {
    let strings = Cache::<String, u32>::new(100);
    strings.get_or_insert_with("a", || 1);
    strings.get_or_insert_with("b".to_owned(), || 2);
    strings.get_or_insert_with(&"c".to_owned(), || 3);
    let numbers = Cache::<u64, u32>::new(100);
    numbers.get_or_insert_with(1, || 1);
    numbers.get_or_insert_with(&2, || 2);
    let slices = Cache::<Vec<u8>, u32>::new(100);
    slices.get_or_insert_with(&[1u8, 2][..], || 1);
    let borrowed = Cache::<&str, u32>::new(100);
    borrowed.get_or_insert_with("a", || 1);
    borrowed.get_or_insert_with(&"b", || 1);
    assert_eq!(
        (strings.len(), numbers.len(), slices.len(), borrowed.len()),
        (3, 2, 1, 2)
    );
}

#[test]
fn compute_by_reference_creates_a_key_only_to_store() {
    let cache = Cache::<Owned, u32>::new(100);
    assert_eq!(cache.compute(Name::of("a"), |_| None), None);
    assert_eq!(CREATED.get(), 0);
    assert_eq!(cache.compute(Name::of("a"), |_| Some(1)), Some(1));
    assert_eq!(CREATED.get(), 1);
}

#[test]
fn insert_if_absent_keeps_a_present_value() {
    let clock = Arc::new(ManualClock::new());
    let cache: Cache<u32, u32> = Cache::builder()
        .max_entries(10)
        .time_to_live(Duration::from_secs(1))
        .clock(clock.clone())
        .build()
        .unwrap();
    assert!(cache.insert_if_absent(1, 10));
    assert!(!cache.insert_if_absent(1, 11));
    assert_eq!(cache.peek(&1), Some(10));
    clock.advance(Duration::from_secs(2));
    assert!(cache.insert_if_absent(1, 12), "an expired entry is absent");
    assert_eq!(cache.peek(&1), Some(12));
    cache.validate();
}

#[test]
fn insert_if_absent_of_many_threads_inserts_once() {
    for _ in 0..50 {
        let (cache, inserted) = (Cache::<u32, usize>::new(10), AtomicUsize::new(0));
        thread::scope(|scope| {
            for id in 0..4 {
                let (cache, inserted) = (&cache, &inserted);
                scope.spawn(move || {
                    if cache.insert_if_absent(7, id) {
                        inserted.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((inserted.into_inner(), cache.len()), (1, 1));
    }
}

/// What a load began before is older than what was inserted during it.
fn load_during(change: impl Fn(&Cache<u32, u32>)) -> Cache<u32, u32> {
    let cache = Cache::<u32, u32>::new(10);
    let loaded = cache.get_or_insert_with(1, || {
        change(&cache);
        100
    });
    assert_eq!(loaded, 100, "the caller gets its value");
    cache
}

#[test]
fn load_is_invalidated_by_every_change() {
    assert_eq!(load_during(|cache| cache.insert(1, 2)).get(&1), Some(2));
    assert_eq!(
        load_during(|cache| assert!(cache.insert_if_absent(1, 2))).get(&1),
        Some(2)
    );
    assert_eq!(
        load_during(|cache| assert_eq!(cache.replace(1, 2), None)).get(&1),
        Some(2)
    );
    assert_eq!(load_during(|cache| assert!(!cache.invalidate(&1))).get(&1), None);
    assert_eq!(
        load_during(|cache| assert!(!cache.invalidate_if(&1, |_, _| true))).get(&1),
        None
    );
    assert_eq!(load_during(|cache| assert_eq!(cache.remove(&1), None)).get(&1), None);
    assert_eq!(load_during(|cache| _ = cache.compute(1, |_| Some(2))).get(&1), Some(2));
    assert_eq!(load_during(|cache| _ = cache.compute(1, |_| None)).get(&1), None);
    assert_eq!(load_during(Cache::clear).get(&1), None);
    assert_eq!(
        load_during(|cache| cache.change(&1, |_| Change::Keep)).get(&1),
        Some(100)
    );
}

#[test]
fn replace_returns_the_previous_value() {
    let cache = Cache::<u32, u32>::new(10);
    assert_eq!(cache.replace(1, 10), None);
    assert_eq!(cache.replace(1, 11), Some(10));
    assert_eq!(cache.get(&1), Some(11));
}

/// A value that cannot be cloned.
#[derive(Debug, PartialEq)]
struct Unique(u32);

#[test]
fn removal_needs_no_clone() {
    let cache = Cache::<u32, Unique>::new(10);
    (0..10).for_each(|n| cache.insert(n, Unique(n)));
    assert!(cache.invalidate(&1) && !cache.invalidate(&1));
    assert!(!cache.invalidate_if(&2, |_, value| value.0 > 2));
    assert!(cache.invalidate_if(&3, |_, value| value.0 > 2));
    cache.retain(|_, value| value.0 % 2 == 0);
    let mut left = BTreeSet::new();
    cache.for_each(|key, value| assert!(left.insert(*key) && value.0 == *key));
    assert_eq!(left, BTreeSet::from([0, 2, 4, 6, 8]));
    cache.validate();
}

#[test]
fn peek_counts_and_moves_nothing() {
    let cache: Cache<u32, u32> = Cache::builder().max_entries(2).policy(Policy::Lru).build().unwrap();
    cache.insert(1, 1);
    cache.insert(2, 2);
    assert_eq!((cache.peek(&1), cache.peek(&9)), (Some(1), None));
    cache.insert(3, 3);
    cache.run_pending();
    assert_eq!(
        cache.peek(&1),
        None,
        "a peek is no use, so 1 was the least recently used"
    );
    assert_eq!((cache.stats().hits, cache.stats().misses), (0, 0));
}

#[test]
fn std_traits_build_extend_and_iterate() {
    let mut cache: Cache<u32, u32> = (0..100).map(|n| (n, n * n)).collect();
    assert_eq!((cache.len(), cache.capacity()), (100, 100));
    cache.set_capacity(200);
    cache.extend((100..150).map(|n| (n, n)));
    (&cache).extend([(150, 1)]);
    let pairs: BTreeSet<_> = (&cache).into_iter().collect();
    assert_eq!(pairs.len(), 151);
    let keys: BTreeSet<_> = cache.keys().collect();
    assert_eq!(keys, (0..=150).collect());
    assert!(Cache::<u32, u32>::from_iter([]).is_empty());
}

#[test]
fn get_or_load_reports_freshness() {
    let clock = Arc::new(ManualClock::new());
    let cache: Cache<&str, u32> = Cache::builder()
        .max_entries(10)
        .refresh_after(Duration::from_secs(10))
        .clock(clock.clone())
        .build()
        .unwrap();
    let load = |result: Result<u32, ()>| cache.get_or_load("a", || Ok::<_, ()>((result?, Ttl::Default)));
    let of = |loaded: Result<Loaded<u32>, LoadError<()>>| {
        let loaded = loaded.unwrap();
        (loaded.value, loaded.freshness)
    };
    assert_eq!(of(load(Ok(1))), (1, Freshness::Loaded));
    assert_eq!(of(load(Ok(2))), (1, Freshness::Cached));
    clock.advance(Duration::from_secs(11));
    assert_eq!(of(load(Err(()))), (1, Freshness::Stale));
    assert_eq!(
        of(load(Ok(3))),
        (1, Freshness::Cached),
        "the next try comes a quarter of the age later"
    );
    clock.advance(Duration::from_secs(11));
    assert_eq!(of(load(Ok(4))), (4, Freshness::Loaded));
}

#[test]
fn get_or_load_of_a_waiting_caller_is_shared() {
    let cache = Cache::<u32, u32>::new(10);
    let (begun, waits) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            cache.get_or_insert_with(1, || {
                begun.send(()).unwrap();
                // Until the other caller waits, which it counts.
                while cache.stats().waits == 0 {
                    thread::yield_now();
                }
                7
            })
        });
        waits.recv().unwrap();
        let loaded = cache.get_or_load(1, || Ok::<_, Infallible>((8, Ttl::Default))).unwrap();
        assert_eq!((loaded.value, loaded.freshness), (7, Freshness::Shared));
    });
}

#[test]
fn vacant_entry_hands_its_value_to_waiting_callers() {
    let cache = Cache::<String, u32>::new(10);
    let Ok(Entry::Vacant(vacant)) = cache.entry("a") else {
        panic!("the key is absent")
    };
    assert_eq!(vacant.key(), "a");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.get_or_insert_with("a", || 2));
        while cache.stats().waits == 0 {
            thread::yield_now();
        }
        assert_eq!(vacant.insert(1), 1);
        assert_eq!(waiting.join().unwrap(), 1);
    });
    assert!(matches!(cache.entry("a"), Ok(Entry::Occupied(1))));
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (1, 0));
}

#[test]
fn dropped_vacant_entry_lets_a_waiting_caller_load() {
    let cache = Cache::<String, u32>::new(10);
    let Ok(Entry::Vacant(vacant)) = cache.entry("a") else {
        panic!("the key is absent")
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.get_or_insert_with("a", || 2));
        while cache.stats().waits == 0 {
            thread::yield_now();
        }
        drop(vacant);
        assert_eq!(waiting.join().unwrap(), 2);
    });
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (1, 1));
    cache.validate();
}

#[test]
fn vacant_entry_of_a_changed_key_inserts_nothing() {
    let cache = Cache::<String, u32>::new(10);
    let Ok(Entry::Vacant(vacant)) = cache.entry("a") else {
        panic!("the key is absent")
    };
    cache.insert("a".to_owned(), 9);
    assert_eq!(vacant.insert(1), 1);
    assert_eq!(cache.get("a"), Some(9));
}

#[test]
fn entry_of_a_key_this_thread_loads_is_an_error() {
    let cache = Cache::<String, u32>::new(10);
    let Ok(Entry::Vacant(vacant)) = cache.entry("a") else {
        panic!("the key is absent")
    };
    assert!(matches!(cache.entry("a"), Err(LoadError::Reentrant)));
    assert!(matches!(
        cache.try_get_or_insert_with("a", || Ok::<_, ()>(2)),
        Err(LoadError::Reentrant)
    ));
    drop(vacant);
    assert_eq!(cache.get_or_insert_with("a", || 3), 3);
}

#[test]
fn cache_is_usable_after_a_panic_of_user_code() {
    let cache = Cache::<u32, u32>::new(10);
    cache.insert(1, 1);
    // No `AssertUnwindSafe`: the cache is unwind safe.
    assert!(catch_unwind(|| cache.get_with(&1, |_| panic!("in a reader"))).is_err());
    assert!(catch_unwind(|| cache.get_or_insert_with(2, || panic!("in a loader"))).is_err());
    assert!(catch_unwind(|| cache.compute(1, |_| panic!("in a change"))).is_err());
    assert!(catch_unwind(|| cache.retain(|_, _| panic!("in a predicate"))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| cache.for_each(|_, _| panic!("in a visitor")))).is_err());
    assert_eq!((cache.get(&1), cache.get_or_insert_with(2, || 2)), (Some(1), 2));
    cache.validate();
}

#[test]
fn public_types_have_the_usual_traits() {
    fn shared<T: Send + Sync + UnwindSafe + RefUnwindSafe + Debug>() {}
    fn debug<T: Debug>() {}
    shared::<Cache<u32, String>>();
    debug::<Builder<u32, String>>();
    debug::<Reader<'_, u32, String, ()>>();
    debug::<Iter<'_, u32, String, ()>>();
    debug::<Keys<'_, u32, String, ()>>();
    debug::<Entry<'_, u32, String, ()>>();
    debug::<Loaded<u32>>();
    debug::<Change<u32, u32>>();
    debug::<Stats>();
    debug::<ManualClock>();
    #[cfg(feature = "snapshot")]
    {
        debug::<hotset::snapshot::AutoSnapshot>();
        debug::<hotset::snapshot::SaveOptions>();
        debug::<hotset::snapshot::LoadOptions>();
    }
}

#[test]
fn evicted_weight_is_that_of_the_evicted_entries() {
    let weighted: Cache<u64, u64> = Cache::builder()
        .max_weight(10)
        .weigher(|_, value| *value)
        .policy(Policy::Lru)
        .build()
        .unwrap();
    (0..4).for_each(|key| weighted.insert(key, 3));
    weighted.insert(9, 9);
    weighted.insert(10, 11); // heavier than the capacity, so not admitted
    weighted.run_pending();
    let stats = weighted.stats();
    assert_eq!((stats.evictions, stats.rejections, stats.evicted_weight), (4, 1, 12));
    let plain: Cache<u64, u64> = Cache::builder().max_entries(10).policy(Policy::Fifo).build().unwrap();
    (0..15).for_each(|key| plain.insert(key, 3));
    plain.run_pending();
    let stats = plain.stats();
    assert_eq!((stats.evictions, stats.evicted_weight), (5, 5));
}
