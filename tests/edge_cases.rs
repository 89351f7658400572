//! Limits of the cache's guarantees: extreme capacities and weights, unusual types, weak hashers,
//! counts and causes.

use hotset::{BuildError, Cache, Cause, Policy};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const POLICIES: [Policy; 5] = [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random];

/// A value that counts its live instances, and detects a double drop.
struct Counted(u64, Arc<AtomicIsize>, u32);

const ALIVE: u32 = 0xa11e_a11e;

impl Counted {
    fn new(id: u64, live: &Arc<AtomicIsize>) -> Self {
        live.fetch_add(1, Relaxed);
        Self(id, live.clone(), ALIVE)
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        assert_eq!(self.2, ALIVE, "cloned while alive");
        Self::new(self.0, &self.1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_eq!(std::mem::replace(&mut self.2, 0), ALIVE, "dropped once");
        self.1.fetch_sub(1, Relaxed);
    }
}

fn settled<K, V, S>(cache: &Cache<K, V, S>) {
    cache.run_pending();
    cache.validate();
}

/// Readers of other tests' caches delay the freeing of this one's garbage briefly.
fn freed<K, V, S>(cache: &Cache<K, V, S>, live: &AtomicIsize, expected: usize) {
    for _ in 0..10_000 {
        cache.run_pending();
        if live.load(Relaxed) == expected as isize {
            return;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{live:?} are alive, of which {expected} should be");
}

fn counted(policy: Policy, entries: usize) -> Cache<u64, u64> {
    Cache::builder().max_entries(entries).policy(policy).build().unwrap()
}

fn weighed(policy: Policy, capacity: u64) -> Cache<u64, u64> {
    Cache::builder()
        .max_weight(capacity)
        .weigher(|_, weight| *weight)
        .policy(policy)
        .build()
        .unwrap()
}

type Log = Arc<Mutex<Vec<(u64, u64, Cause)>>>;

fn logged(policy: Policy, entries: usize) -> (Cache<u64, u64>, Log) {
    let log = Log::default();
    let seen = log.clone();
    let builder = Cache::builder().max_entries(entries).policy(policy);
    let cache = builder
        .on_removal(move |k, v, cause| seen.lock().unwrap().push((*k, *v, cause)))
        .build()
        .unwrap();
    (cache, log)
}

#[test]
fn handles_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Cache<String, Vec<u8>>>();
    check::<hotset::Stats>();
    let cache: Cache<String, u32> = Cache::new(10);
    cache.insert("a".to_owned(), 1);
    let other = cache.clone();
    assert_eq!(thread::spawn(move || other.get("a")).join().unwrap(), Some(1));
    assert!(cache.contains_key("a") && !cache.contains_key("b"));
    assert_eq!(cache.remove("a"), Some(1));
    assert_eq!(cache.remove("a"), None);
    assert!(format!("{cache:?}").starts_with("Cache"));
}

#[test]
fn builder_with_conflicting_settings_fails() {
    let builder = Cache::<u64, u64>::builder;
    assert_eq!(builder().build().unwrap_err(), BuildError::MissingCapacity);
    assert_eq!(
        builder().max_entries(1).max_weight(1).build().unwrap_err(),
        BuildError::ConflictingCapacities
    );
    assert_eq!(builder().max_weight(1).build().unwrap_err(), BuildError::MissingWeigher);
    assert_eq!(
        builder().weigher(|_, _| 1).build().unwrap_err(),
        BuildError::MissingMaxWeight
    );
    assert_eq!(
        builder().max_entries(1).weigher(|_, _| 1).build().unwrap_err(),
        BuildError::MissingMaxWeight
    );
    assert!(builder().max_weight(1).weigher(|_, _| 1).build().is_ok());
    assert!(!BuildError::MissingCapacity.to_string().is_empty());
}

#[test]
fn capacity_zero_holds_nothing() {
    for policy in POLICIES {
        let (cache, log) = logged(policy, 0);
        for key in 0..100 {
            cache.insert(key, key);
            assert_eq!(cache.get_or_insert_with(key + 1000, || 7), 7);
        }
        settled(&cache);
        assert_eq!((cache.len(), cache.weight(), cache.capacity()), (0, 0, 0), "{policy:?}");
        assert!((0..2000).all(|key| cache.get(&key).is_none()));
        assert_eq!(cache.stats().rejections + cache.stats().evictions, 200, "{policy:?}");
        let log = log.lock().unwrap();
        assert_eq!(log.len(), 200);
        assert!(log.iter().all(|one| one.2 == Cause::Size));
    }
}

#[test]
fn capacity_one_holds_one_entry() {
    for policy in POLICIES {
        let cache = counted(policy, 1);
        for key in 0..1000 {
            cache.insert(key % 7, key);
            assert!(cache.get(&(key % 7)).is_none_or(|value| value == key), "{policy:?}");
            settled(&cache);
            assert_eq!(cache.len(), 1, "{policy:?}");
        }
        cache.clear();
        assert!(cache.is_empty());
    }
}

#[test]
fn insert_too_heavy_removes_the_old_value() {
    for policy in POLICIES {
        let cache = weighed(policy, 100);
        cache.insert(1, 10);
        cache.insert(2, 20);
        cache.insert(1, 101);
        settled(&cache);
        assert_eq!(cache.get(&1), None, "{policy:?}");
        assert_eq!(
            (cache.get(&2), cache.weight(), cache.len()),
            (Some(20), 20, 1),
            "{policy:?}"
        );
        cache.insert(3, u64::MAX);
        settled(&cache);
        assert_eq!((cache.get(&3), cache.get(&2)), (None, Some(20)), "{policy:?}");
        assert_eq!(cache.stats().rejections + cache.stats().evictions, 2, "{policy:?}");
        assert_eq!(cache.get_or_insert_with(4, || 1000), 1000);
        cache.compute(2, |_| Some(1000));
        settled(&cache);
        assert_eq!(
            (cache.get(&4), cache.get(&2), cache.len()),
            (None, None, 0),
            "{policy:?}"
        );
    }
}

#[test]
fn weight_zero_or_changed_is_accounted() {
    for policy in POLICIES {
        let cache = weighed(policy, 0);
        cache.insert(1, 0);
        cache.insert(2, 1);
        settled(&cache);
        assert_eq!(
            (cache.get(&1), cache.get(&2), cache.len(), cache.weight()),
            (Some(0), None, 1, 0),
            "{policy:?}"
        );

        let cache = weighed(policy, 1000);
        for key in 0..500 {
            cache.insert(key, 0);
        }
        settled(&cache);
        assert_eq!((cache.len(), cache.weight()), (500, 0), "{policy:?}");
        for weight in [5, 1, 900, 0, 1000, 3] {
            cache.insert(7, weight);
            settled(&cache);
            assert!(cache.get(&7).is_none_or(|value| value == weight), "{policy:?}");
            assert!(cache.weight() == weight || cache.weight() == 0, "{policy:?}");
        }
        for round in 0..2000u64 {
            cache.insert(round % 50, round * 7919 % 120);
            settled(&cache);
            assert!(cache.weight() <= 1000);
        }
    }
}

#[test]
fn unbounded_cache_evicts_nothing() {
    for policy in POLICIES {
        let cache = weighed(policy, u64::MAX);
        cache.insert(1, u64::MAX);
        cache.insert(1, 5);
        cache.insert(2, u64::MAX / 2);
        settled(&cache);
        assert_eq!(cache.get(&1), Some(5), "{policy:?}");
        let cache = counted(policy, usize::MAX);
        for key in 0..5000 {
            cache.insert(key, !key);
        }
        settled(&cache);
        assert!((0..5000).all(|key| cache.get(&key) == Some(!key)), "{policy:?}");
        assert_eq!(cache.len(), 5000);
    }
}

#[test]
fn removal_is_reported_once_with_its_cause() {
    for policy in POLICIES {
        let (cache, log) = logged(policy, 50);
        let mut id = 0;
        let mut next = || {
            id += 1;
            id
        };
        for round in 0..3000u64 {
            cache.insert(round * 31 % 120, next());
            match round % 10 {
                0 => drop(cache.remove(&(round % 120))),
                1 => drop(cache.remove_if(&(round % 120), |_, value| value % 2 == 0)),
                2 => drop(cache.compute(round % 120, |_| None)),
                3 => drop(cache.compute(round % 120, |_| Some(next()))),
                _ => {}
            }
        }
        settled(&cache);
        let left: HashSet<u64> = cache.iter().map(|(_, value)| value).collect();
        let gone: HashSet<u64> = log.lock().unwrap().iter().map(|one| one.1).collect();
        assert_eq!(gone.len(), log.lock().unwrap().len(), "{policy:?}: none twice");
        assert_eq!(
            (left.len() + gone.len()) as u64,
            cache.stats().insertions,
            "{policy:?}: none forgotten"
        );
        assert!(left.is_disjoint(&gone));
        log.lock().unwrap().clear();
        cache.clear();
        assert!(log.lock().unwrap().iter().all(|one| one.2 == Cause::Explicit));
        assert_eq!(log.lock().unwrap().len(), left.len());

        log.lock().unwrap().clear();
        cache.insert(1, 10);
        cache.insert(1, 11);
        cache.compute(1, |_| Some(12));
        cache.remove(&1);
        cache.insert(2, 20);
        cache.set_capacity(0);
        let expected = [
            (1, 10, Cause::Replaced),
            (1, 11, Cause::Replaced),
            (1, 12, Cause::Explicit),
            (2, 20, Cause::Size),
        ];
        assert_eq!(*log.lock().unwrap(), expected, "{policy:?}");
    }
}

#[test]
fn insert_of_the_same_keys_bounds_garbage() {
    let live = Arc::new(AtomicIsize::new(0));
    let peak = AtomicIsize::new(0);
    let cache: Cache<u64, Counted> = Cache::new(4);
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let (cache, live, peak) = (&cache, &live, &peak);
            scope.spawn(move || {
                for round in 0..250_000 {
                    let key = (round + thread) % 8;
                    cache.insert(key, Counted::new(key, live));
                    if round % 64 == 0 {
                        peak.fetch_max(live.load(Relaxed), Relaxed);
                        assert!(cache.get(&key).is_none_or(|value| value.0 == key));
                    }
                }
            });
        }
    });
    settled(&cache);
    assert!(cache.len() <= 4);
    assert!(peak.load(Relaxed) < 250_000, "garbage was freed on the way: {peak:?}");
    settled(&cache);
    assert_eq!(cache.stats().insertions, 1_000_000);
    drop(cache);
    assert_eq!(live.load(Relaxed), 0);
}

#[test]
fn cache_dropped_frees_everything() {
    for policy in POLICIES {
        let live = Arc::new(AtomicIsize::new(0));
        let cache: Cache<u64, Counted> = Cache::builder().max_entries(100).policy(policy).build().unwrap();
        for key in 0..1000 {
            cache.insert(key, Counted::new(key, &live));
            cache.get(&(key / 2));
        }
        cache.run_pending();
        freed(&cache, &live, cache.len());
        let other = cache.clone();
        drop(cache);
        assert!(live.load(Relaxed) > 0);
        drop(other);
        assert_eq!(live.load(Relaxed), 0, "{policy:?}");
    }
}

#[test]
fn get_many_returns_values_in_order() {
    let cache: Cache<u64, u64> = Cache::new(10_000);
    for key in (0..1000).step_by(2) {
        cache.insert(key, key * 10);
    }
    for count in [0, 1, 63, 64, 65, 200, 1000] {
        let keys: Vec<u64> = (0..count).map(|i| i * 37 % 100).collect(); // with duplicates and missing keys
        let expected: Vec<_> = keys.iter().map(|key| (key % 2 == 0).then_some(key * 10)).collect();
        assert_eq!(cache.get_many(&keys), expected);
        assert_eq!(
            cache.get_many(keys.iter().filter(|_| true)),
            expected,
            "without a size hint"
        );
    }
    let named: Cache<String, u8> = Cache::new(10);
    named.insert("b".into(), 2);
    assert_eq!(named.get_many(["a", "b", "b"]), [None, Some(2), Some(2)]);
}

#[test]
fn reader_keeps_found_values_alive() {
    let live = Arc::new(AtomicIsize::new(0));
    let cache: Cache<u64, Counted> = Cache::new(10);
    cache.insert(1, Counted::new(1, &live));
    let reader = cache.reader();
    let found = reader.get(&1).unwrap();
    assert!(reader.get(&2).is_none());
    for round in 0..5000 {
        cache.insert(round % 40, Counted::new(round % 40, &live));
    }
    cache.clear();
    assert_eq!((found.0, found.2), (1, ALIVE));
    assert_eq!(cache.get_with(&1, |value| value.0), None);
    drop(reader);
    freed(&cache, &live, 0);
}

#[test]
fn hottest_lists_the_reverse_eviction_order() {
    let order = |cache: &Cache<u64, u64>| cache.reader().hottest().map(|(key, _)| *key).collect::<Vec<_>>();
    for (policy, expected) in [(Policy::Lru, [2, 0, 4, 3, 1]), (Policy::Fifo, [4, 3, 2, 1, 0])] {
        let cache = counted(policy, 5);
        (0..5).for_each(|key| cache.insert(key, key));
        cache.get(&0);
        cache.get(&2);
        assert_eq!(order(&cache), expected, "{policy:?}");
        cache.insert(9, 9);
        let mut next = vec![9];
        next.extend(&expected[..4]);
        assert_eq!(order(&cache), next, "{policy:?}");
    }
    for policy in POLICIES {
        let cache = counted(policy, 300);
        (0..1000).for_each(|key| cache.insert(key, key));
        settled(&cache);
        let keys: HashSet<u64> = order(&cache).into_iter().collect();
        assert_eq!(keys, cache.iter().map(|(key, _)| key).collect(), "{policy:?}");
        assert_eq!(keys.len(), cache.len());
    }
}

#[test]
fn lru_evicts_the_least_recently_used() {
    let cache = counted(Policy::Lru, 20);
    let mut model: VecDeque<(u64, u64)> = VecDeque::new();
    let mut random = 1u64;
    for round in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = (random >> 33) % 40;
        let at = model.iter().position(|one| one.0 == key);
        let old = at.and_then(|at| model.remove(at));
        match random >> 60 {
            0 => assert_eq!(cache.remove(&key), old.map(|one| one.1)),
            1..=7 => {
                cache.insert(key, round);
                model.push_front((key, round));
                model.truncate(20);
            }
            _ => {
                assert_eq!(cache.get(&key), old.map(|one| one.1));
                old.into_iter().for_each(|one| model.push_front(one));
            }
        }
        if round % 16 == 0 {
            assert!(
                cache
                    .reader()
                    .hottest()
                    .eq(model.iter().map(|(key, value)| (key, value)))
            );
        }
    }
    settled(&cache);
}

#[test]
fn iteration_shows_stable_entries_once() {
    let cache: Cache<u64, u64> = Cache::builder().max_entries(usize::MAX).build().unwrap();
    const STABLE: u64 = 2000;
    (0..STABLE).for_each(|key| cache.insert(key, key));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 1..3u64 {
            let (cache, stop) = (&cache, &stop);
            scope.spawn(move || {
                // A bounded number of keys: otherwise an iteration by a thread that gets little
                // processor time takes ever longer.
                let mut step = 1000;
                while !stop.load(Relaxed) {
                    let key = (thread << 32) + step;
                    cache.insert(key, key); // the table grows
                    cache.remove(&(key - 1000));
                    cache.insert(STABLE + key % 100, key);
                    step += if key % 3 == 0 { 1001 } else { 1 };
                    step = 1000 + step % 100_000;
                }
            });
        }
        for _ in 0..40 {
            let mut seen = vec![0u8; STABLE as usize];
            for (key, value) in cache.iter() {
                if key < STABLE {
                    assert_eq!(key, value);
                    seen[key as usize] += 1;
                }
            }
            assert!(seen.iter().all(|&times| times == 1));
        }
        stop.store(true, Relaxed);
    });
    settled(&cache);
    assert_eq!(cache.iter().count(), cache.len());
}

#[test]
fn iteration_in_a_growing_table_misses_nothing() {
    let cache = counted(Policy::Fifo, usize::MAX);
    for key in 0..3000 {
        cache.insert(key, key);
        if key % 7 == 0 {
            assert!(cache.iter().map(|(key, _)| key).collect::<HashSet<_>>().len() as u64 == key + 1);
            cache.validate();
        }
    }
    for count in (0..2000).step_by(50) {
        let cache = counted(Policy::Lru, usize::MAX);
        (0..count).for_each(|key| cache.insert(key, key));
        cache.clear();
        assert_eq!((cache.len(), cache.iter().count()), (0, 0));
        settled(&cache);
    }
}

#[test]
fn set_capacity_grows_and_evicts() {
    for policy in POLICIES {
        let cache = counted(policy, 100);
        for (capacity, upto) in [(100, 1000), (10, 1000), (5000, 5000), (0, 100), (1, 50), (300, 1000)] {
            cache.set_capacity(capacity);
            assert_eq!(cache.capacity(), capacity);
            assert!(cache.len() as u64 <= capacity, "immediately");
            (0..upto).for_each(|key| cache.insert(key, key));
            settled(&cache);
            assert_eq!(cache.len() as u64, capacity, "{policy:?}: full");
        }
        let cache = weighed(policy, 1000);
        for capacity in [1000, 10, 0, u64::MAX, 500] {
            cache.set_capacity(capacity);
            (0..500).for_each(|key| cache.insert(key, key % 30));
            settled(&cache);
            assert!(cache.weight() <= capacity);
        }
    }
}

/// A hash of the key's bits.
#[derive(Clone, Copy)]
struct Weak(fn(u64) -> u64);

struct WeakHasher(u64, fn(u64) -> u64);

impl BuildHasher for Weak {
    type Hasher = WeakHasher;
    fn build_hasher(&self) -> WeakHasher {
        WeakHasher(0, self.0)
    }
}

impl Hasher for WeakHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | byte as u64;
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
    fn finish(&self) -> u64 {
        (self.1)(self.0)
    }
}

#[test]
fn constant_hash_stays_bounded() {
    for policy in POLICIES {
        // (With a capacity of 300 the table has its maximum size, and every bucket is near the one
        // home bucket.)
        for entries in [usize::MAX, 1000, 300, 100, 3] {
            let live = Arc::new(AtomicIsize::new(0));
            let gone = Arc::new(AtomicU64::new(0));
            let count = gone.clone();
            let cache: Cache<u64, Counted, Weak> = Cache::builder_with_hasher(Weak(|_| 42))
                .max_entries(entries)
                .policy(policy)
                .on_removal(move |key, value: &Counted, _| {
                    assert_eq!(*key, value.0);
                    count.fetch_add(1, Relaxed);
                })
                .build()
                .unwrap();
            for key in 0..1000 {
                cache.insert(key, Counted::new(key, &live));
                assert!(cache.get(&(key / 2)).is_none_or(|value| value.0 == key / 2));
            }
            settled(&cache);
            assert!(cache.len() <= entries.min(192), "{policy:?} {entries}: {}", cache.len());
            assert!(cache.len() >= entries.min(150), "{policy:?} {entries}: {}", cache.len());
            assert_eq!(gone.load(Relaxed) + cache.len() as u64, 1000, "{policy:?} {entries}");
            drop(cache);
            assert_eq!(live.load(Relaxed), 0);
        }
    }
}

#[test]
fn weak_hash_loses_nothing() {
    type Hasher = fn(u64) -> u64;
    let hashers: [(Hasher, u64); 5] = [
        (|key| key & 7, 1200),
        (|key| key << 32, 5000),
        (|key| key, 5000),
        (|key| key << 56, 5000),
        (|_| 0, 150),
    ];
    for (at, (hash, keys)) in hashers.into_iter().enumerate() {
        let cache: Cache<u64, u64, Weak> = Cache::builder_with_hasher(Weak(hash))
            .max_entries(usize::MAX)
            .build()
            .unwrap();
        (0..keys).for_each(|key| cache.insert(key, !key));
        settled(&cache);
        let missing = (0..keys).filter(|key| cache.get(key) != Some(!key)).count();
        assert_eq!(missing, 0, "hasher {at}: of {keys} keys");
        assert!((0..keys).all(|key| cache.remove(&key) == Some(!key)));
        settled(&cache);
        assert!(cache.is_empty());
    }
}

#[test]
fn cache_in_thread_local_destructors_works() {
    struct AtExit(Cache<u64, u64>, u64);
    impl Drop for AtExit {
        fn drop(&mut self) {
            self.0.insert(self.1, self.1);
            assert_eq!(self.0.get(&self.1), Some(self.1));
            assert_eq!(self.0.get_or_insert_with(self.1 + 1000, || 5), 5);
            let reader = self.0.reader();
            assert_eq!(reader.get(&self.1), Some(&self.1));
            assert_eq!(self.0.remove(&(self.1 + 1000)), Some(5));
        }
    }
    thread_local! {
        static FIRST: RefCell<Option<AtExit>> = const { RefCell::new(None) };
        static LAST: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    let cache: Cache<u64, u64> = Cache::new(10_000);
    for round in 0..50 {
        let handle = cache.clone();
        let thread = thread::spawn(move || {
            FIRST.set(Some(AtExit(handle.clone(), 2 * round))); // before the cache's own thread-locals are made
            if round % 3 > 0 {
                handle.insert(5000 + round, round);
            }
            LAST.set(Some(AtExit(handle, 2 * round + 1)));
        });
        thread.join().unwrap();
    }
    settled(&cache);
    assert!((0..100).all(|key| cache.get(&key) == Some(key)));
}

#[test]
fn types_of_large_alignment_or_no_size_work() {
    #[derive(Clone, PartialEq, Eq, Hash, Debug)]
    #[repr(align(128))]
    struct Key(u64);
    #[derive(Clone, PartialEq, Debug)]
    #[repr(align(64))]
    struct Value(u8);
    let hour = Duration::from_secs(3600);
    let (capacity, keys) = if cfg!(miri) { (20, 80) } else { (500, 2000) };
    for variant in 0..8 {
        let (weighted, expires) = (variant % 2 == 1, variant / 2);
        let builder = Cache::<Key, Value>::builder();
        let builder = match weighted {
            true => builder.max_weight(capacity as u64).weigher(|_, _| 1),
            false => builder.max_entries(capacity),
        };
        let builder = match expires {
            1 => builder.time_to_live(hour),
            2 => builder.time_to_idle(hour),
            _ => builder,
        };
        let cache = builder.build().unwrap();
        for key in 0..keys {
            match expires {
                3 if key % 2 == 0 => cache.insert_with_ttl(Key(key), Value(key as u8), hour),
                _ => cache.insert(Key(key), Value(key as u8)),
            }
            let is_timed = matches!((expires, key % 2), (1 | 2, _) | (3, 0));
            if let Some(remaining) = cache.remaining(&Key(key)) {
                assert_eq!(remaining.is_some(), is_timed);
            }
            cache.get_with(&Key(key), |value| {
                assert_eq!((&raw const *value).addr() % 64, 0);
                assert_eq!(*value, Value(key as u8));
            });
        }
        for (key, _) in cache.reader().hottest() {
            assert_eq!((&raw const *key).addr() % 128, 0);
        }
        settled(&cache);
    }
    let nothing: Cache<(), ()> = Cache::new(10);
    nothing.insert((), ());
    assert_eq!(nothing.get(&()), Some(()));
    assert_eq!(nothing.compute((), |_| None), None);
    settled(&nothing);
    let half: Cache<u8, ()> = Cache::builder().max_weight(20).weigher(|_, _| 1).build().unwrap();
    (0..=255).for_each(|key| half.insert(key, ()));
    settled(&half);
    assert_eq!(half.len(), 20);
}
