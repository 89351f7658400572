//! Failed allocations. Without memory for a table, building returns an error and growth is
//! deferred; without memory for the policy, entries are evicted to make room.

use hotset::{BuildError, Cache, Policy, Stats};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The largest table, in bytes, that may be allocated. A table is a zeroed allocation of whole
/// cache lines, with room to align them; all other allocations succeed, since std aborts the
/// program when one fails.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);
/// The largest allocation of any kind, in bytes, that may succeed.
static MOST_OF_ALL: AtomicUsize = AtomicUsize::new(usize::MAX);
/// How many tables were refused.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// The tests change what they share.
static ONE: Mutex<()> = Mutex::new(());

fn one() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Scarce;

// SAFETY: it is the system's allocator, or returns null, which `GlobalAlloc` allows.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST_OF_ALL.load(SeqCst) {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST_OF_ALL.load(SeqCst) {
            return ptr::null_mut();
        }
        if layout.size() % 64 == 56 && layout.align() == 8 && layout.size() - 56 > MOST.load(SeqCst) {
            REFUSED.fetch_add(1, SeqCst);
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > MOST_OF_ALL.load(SeqCst) {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static SCARCE: Scarce = Scarce;

/// Runs `run` while tables of at most `most` bytes can be allocated. Returns how many were refused.
fn scarce(most: usize, run: impl FnOnce()) -> usize {
    REFUSED.store(0, SeqCst);
    MOST.store(most, SeqCst);
    run();
    MOST.store(usize::MAX, SeqCst);
    REFUSED.load(SeqCst)
}

/// Runs `run` while no allocation of more than `most` bytes succeeds.
fn scarce_memory(most: usize, run: impl FnOnce()) {
    MOST_OF_ALL.store(most, SeqCst);
    run();
    MOST_OF_ALL.store(usize::MAX, SeqCst);
}

/// A cache that is small when it is built, whatever its capacity.
fn growing(policy: Policy) -> Cache<u64, String> {
    Cache::builder()
        .max_weight(1 << 40)
        .weigher(|_, _| 1)
        .policy(policy)
        .build()
        .unwrap()
}

/// Every inserted entry is there or was evicted; every entry that is there has its value.
fn check(cache: &Cache<u64, String>, inserted: u64) -> Stats {
    cache.run_pending();
    cache.validate();
    let there: BTreeMap<u64, String> = cache.iter().collect();
    assert_eq!(there.len(), cache.len());
    assert!(there.iter().all(|(key, value)| *value == key.to_string()));
    assert!(there.keys().all(|key| cache.contains_key(key)));
    let stats = cache.stats();
    assert_eq!(stats.insertions, inserted);
    assert_eq!(there.len() as u64, inserted - stats.evictions - stats.rejections);
    stats
}

fn insert(cache: &Cache<u64, String>, keys: std::ops::Range<u64>) {
    keys.for_each(|key| cache.insert(key, key.to_string()));
}

#[test]
fn table_that_cannot_grow_evicts() {
    let _one = one();
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random] {
        let cache = growing(policy);
        // 256 buckets of six.
        let refused = scarce(256 * 64, || insert(&cache, 0..20_000));
        assert!(
            (1..1_000).contains(&refused),
            "it does not try at every insertion: {refused}"
        );
        let stats = check(&cache, 20_000);
        let most = 256 * 6; // or half of it: tables double
        assert!((most / 4..=most).contains(&cache.len()), "{policy:?}: {}", cache.len());
        assert_eq!(stats.evictions, 20_000 - cache.len() as u64);
        // It grows once memory is available.
        insert(&cache, 20_000..40_000);
        let now = check(&cache, 40_000);
        assert!(now.evictions - stats.evictions < 2_000, "{policy:?}: {now:?}");
    }
}

/// Queues and timers that cannot grow: entries are evicted to make room, and the cache grows once
/// memory is available.
#[test]
fn cache_without_memory_for_its_queues_evicts() {
    let _one = one();
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random] {
        for timed in [false, true] {
            let cache = growing(policy);
            let insert = |keys: std::ops::Range<u64>| {
                for key in keys {
                    if timed {
                        let ttl = std::time::Duration::from_secs(1_000 + key % 7_777);
                        cache.insert_with_ttl(key, key.to_string(), ttl);
                    } else {
                        cache.insert(key, key.to_string());
                    }
                    assert!(cache.get(&(key / 2)).is_none_or(|value| value == (key / 2).to_string()));
                }
            };
            insert(0..1_000);
            scarce_memory(20 << 10, || insert(1_000..20_000));
            let stats = check(&cache, 20_000);
            assert!((500..8_000).contains(&cache.len()), "{policy:?}: {}", cache.len());
            insert(20_000..40_000);
            let now = check(&cache, 40_000);
            assert!(now.evictions - stats.evictions < 3_000, "{policy:?}: {now:?}");
        }
    }
}

/// A sketch that cannot be allocated: the cache keeps its bound, and allocates the sketch once
/// memory is available.
#[test]
fn cache_without_memory_for_its_sketch_keeps_its_bound() {
    let _one = one();
    let cache: Cache<u64, String> = Cache::new(20_000);
    let uses = |keys: std::ops::Range<u64>| {
        for key in keys {
            cache.insert(key, key.to_string());
            _ = cache.get(&(key % 1_000));
        }
    };
    insert(&cache, 0..19_000);
    scarce_memory(100 << 10, || uses(19_000..49_000));
    assert_eq!(check(&cache, 49_000).evictions, 0, "all that left was rejected");
    assert_eq!(cache.len(), 20_000);
    // Frequently used keys now evict others.
    for _ in 0..20 {
        for key in 50_000..53_000 {
            if cache.get(&key).is_none() {
                cache.insert(key, key.to_string());
            }
        }
    }
    cache.run_pending();
    cache.validate();
    // The window alone holds a third of them.
    let admitted = (50_000..53_000).filter(|key| cache.contains_key(key)).count();
    assert!(admitted > 2_000, "{admitted}");
}

#[test]
fn insert_without_memory_to_grow_completes() {
    let _one = one();
    let cache = growing(Policy::default());
    let refused = scarce(64 * 64, || {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for key in 0..5_000 {
                        let key = key * 4 + thread;
                        cache.insert(key, key.to_string());
                        assert!(cache.get(&(key / 2)).is_none_or(|value| value == (key / 2).to_string()));
                        if key % 5 == 0 {
                            cache.remove(&key);
                        }
                    }
                });
            }
        });
    });
    assert!(refused > 0);
    cache.run_pending();
    cache.validate();
    assert!((64..=64 * 6).contains(&cache.len()), "{}", cache.len());
}

#[test]
fn build_without_memory_for_the_table_fails() {
    let _one = one();
    let build = |entries| Cache::<u64, u64>::builder().max_entries(entries).build();
    let refused = scarce(1 << 20, || {
        assert_eq!(build(10_000_000).unwrap_err(), BuildError::NoMemory);
        assert!(build(10_000).is_ok());
        // With such a capacity the table begins small.
        assert!(build(usize::MAX).is_ok());
    });
    assert_eq!(refused, 1);
    let failures = |entries| {
        Cache::<u64, u64>::builder()
            .max_entries(entries)
            .negative_ttl(std::time::Duration::from_secs(1))
            .build()
    };
    scarce(1 << 10, || {
        assert_eq!(failures(100_000).unwrap_err(), BuildError::NoMemory)
    });
    assert!(failures(100_000).is_ok());
}

#[test]
fn capacity_of_usize_max_is_accepted() {
    let _one = one();
    for entries in [usize::MAX, usize::MAX / 2, usize::MAX >> 24, (1 << 26) + 1] {
        let cache: Cache<u64, u64> = Cache::new(entries);
        (0..5_000).for_each(|key| cache.insert(key, key));
        cache.run_pending();
        cache.validate();
        assert_eq!((cache.len(), cache.capacity()), (5_000, entries as u64));
    }
}
