//! Tests of the engine under a cache: behavior that users cannot see.

use crate::policy::PolicyKind;
use crate::prim::list::with_limit;
use crate::{Cache, Cause, ManualClock};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

const POLICIES: [PolicyKind; 5] = [
    PolicyKind::WTinyLfu,
    PolicyKind::Lru,
    PolicyKind::Lfu,
    PolicyKind::Fifo,
    PolicyKind::Random,
];

#[test]
fn table_grows_at_seven_tenths_of_its_slots() {
    let cache: Cache<u32, ()> = Cache::builder().max_weight(1 << 40).weigher(|_, _| 1).build().unwrap();
    let slots = || cache.0.engine.map().slots(&cache.0.engine.pin());
    let (mut before, mut growths) = (slots(), 0);
    assert_eq!(before, 12, "an empty cache has two buckets");
    for entries in 1..if cfg!(miri) { 100 } else { 20_000 } {
        cache.insert(entries as u32, ());
        cache.run_pending();
        let now = slots();
        if now != before {
            // Growth starts at seven tenths, and more entries arrive while home buckets move.
            // Of the first table, one entry is a twelfth.
            let filled = before / 10 * 7..(before * 3 / 4).max(10);
            assert!(filled.contains(&entries), "{entries} entries in {before} slots");
            (before, growths) = (now, growths + 1);
        }
    }
    assert!(growths >= if cfg!(miri) { 2 } else { 5 });
}

/// Hashes a number to itself, before [`Cache`] mixes the hash.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 is hashed");
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The inverse of the multiplier that mixes hashes.
const INVERSE: u64 = 0xf1de_83e1_9937_733d;

/// Returns the key whose hash under [`Identity`] has these halves.
fn key_with_hash(upper: u32, lower: u32) -> u64 {
    (u64::from(upper) << 32 | u64::from(lower)).wrapping_mul(INVERSE)
}

/// A smaller table may have no room for an entry whose arrival is not recorded yet: the listener of
/// the replaced value runs in between.
#[test]
#[cfg_attr(miri, ignore = "fills a large table")]
fn eviction_before_arrival_is_recorded_is_notified() {
    const HOMES: u32 = 40_000;
    let crowded = |n: u32| key_with_hash((1 << 31) + n / 100 * 40 * (u32::MAX / HOMES), n);
    let last = crowded(299);
    type Numbers = Cache<u64, u32, BuildHasherDefault<Identity>>;
    let notified = Arc::new(Mutex::new(Vec::new()));
    let shrunk: Arc<OnceLock<Weak<Numbers>>> = Arc::default();
    let (seen, shrinks) = (notified.clone(), shrunk.clone());
    let cache: Arc<Numbers> = Arc::new(
        Cache::builder_with_hasher(BuildHasherDefault::default())
            .max_weight(1 << 40)
            .weigher(|_, _| 1)
            .on_removal(move |key, value, cause| {
                seen.lock().unwrap().push((*key, *value));
                if *key == last && cause == Cause::Replaced {
                    // Entries that are not crowded are removed, and the others move to a small
                    // table.
                    let cache = shrinks.get().and_then(Weak::upgrade).unwrap();
                    crate::raw::retain(&cache, |_, value| *value != 0);
                    cache.set_capacity(1 << 40);
                }
            })
            .build()
            .unwrap(),
    );
    shrunk.set(Arc::downgrade(&cache)).unwrap();
    let buckets = || cache.0.engine.map().buckets(&cache.0.engine.pin());
    let mut spreads = 0u32;
    while buckets() < HOMES as usize {
        cache.insert(key_with_hash(spreads.wrapping_mul(0x9e37_79b9), spreads), 0);
        cache.run_pending();
        spreads += 1;
    }
    for n in 0..300 {
        cache.insert(crowded(n), 1);
    }
    cache.insert(last, 2);
    cache.run_pending();
    cache.validate();
    let notified = notified.lock().unwrap();
    let count = |entry: (u64, u32)| notified.iter().filter(|of| **of == entry).count();
    assert_eq!(cache.get(&last), None, "the smaller table had no room for it");
    assert_eq!((count((last, 1)), count((last, 2))), (1, 1));
    for key in (0..299).map(crowded) {
        assert_eq!(count((key, 1)) + usize::from(cache.contains_key(&key)), 1);
    }
    let stats = cache.stats();
    assert_eq!(stats.insertions - cache.len() as u64, notified.len() as u64);
}

/// In a large table some keys find no slot near their home bucket long before it is full. Such an
/// insertion moves only its own home bucket.
#[cfg_attr(miri, ignore = "fills a large table")]
#[test]
fn insertion_without_a_free_slot_moves_one_home() {
    let spread = |n: u32| key_with_hash(n.wrapping_mul(0x9e37_79b9), n);
    let crowded = |n: u32| key_with_hash(1 << 31, n);
    let cache: Cache<u64, (), BuildHasherDefault<Identity>> = Cache::builder_with_hasher(BuildHasherDefault::default())
        .max_weight(1 << 40)
        .weigher(|_, _| 1)
        .build()
        .unwrap();
    let engine = &cache.0.engine;
    let (slots, table) = (
        || engine.map().slots(&engine.pin()),
        || engine.map().table_id(&engine.pin()),
    );
    let mut spreads = 0;
    while slots() < 8 * 6 * super::sizing::MAX_HOMES_PER_STEP || spreads < slots() as u32 / 20 * 9 {
        cache.insert(spread(spreads), ());
        cache.run_pending();
        spreads += 1;
    }
    let before = table();
    // More keys of one home bucket than free slots within the probe limit: the last ones find none.
    let crowd = 120;
    for n in 0..crowd {
        cache.insert(crowded(n), ());
        assert_eq!(table(), before, "insertion {n} moved all homes");
        assert!(cache.contains_key(&crowded(n)));
    }
    // More than slots within the probe limit of the next table, too: other entries are evicted, and
    // no more than necessary.
    for n in crowd..2 * crowd {
        cache.insert(crowded(n), ());
        assert_eq!(table(), before, "insertion {n} moved all homes");
        assert!(cache.contains_key(&crowded(n)));
    }
    assert!(cache.stats().evictions <= u64::from(crowd));
    (0..2 * crowd).for_each(|n| _ = cache.remove(&crowded(n)));
    let evicted: Vec<u32> = (0..spreads).filter(|n| !cache.contains_key(&spread(*n))).collect();
    evicted.iter().for_each(|n| cache.insert(spread(*n), ()));
    (0..crowd).for_each(|n| cache.insert(crowded(n), ()));
    // The others move as entries arrive: more than one home bucket per entry.
    let after = spreads + slots() as u32 / 60;
    for n in spreads..after {
        cache.insert(spread(n), ());
        cache.run_pending();
    }
    assert_ne!(table(), before);
    cache.validate();
    assert!((0..after).all(|n| cache.contains_key(&spread(n))));
    assert!((0..crowd).all(|n| cache.contains_key(&crowded(n))));
}

#[cfg(target_pointer_width = "64")]
#[cfg_attr(miri, ignore = "the insertion that panics leaks its entry")]
#[test]
fn tagged_pointers_are_rejected_by_build() {
    use super::entry::TAG;
    use crate::BuildError;
    let build = || Cache::<u64, u64>::builder().max_entries(100).build();
    for tag in [0xb4 << 56, 1 << 56, 1 << 48, 0x7fff << 48] {
        TAG.set(tag);
        let refused = build().unwrap_err();
        TAG.set(0);
        assert_eq!(refused, BuildError::TaggedPointers);
        assert!(refused.to_string().contains("tag"));
    }
    let cache = build().unwrap();
    cache.insert(1, 1);
    // An allocator that starts to tag pointers later: nothing is inserted, and nothing breaks.
    TAG.set(1 << 60);
    let insert = std::panic::AssertUnwindSafe(|| (2..1000).for_each(|key| cache.insert(key, key)));
    let panicked = std::panic::catch_unwind(insert).is_err();
    TAG.set(0);
    assert!(panicked);
    cache.run_pending();
    cache.validate();
    assert_eq!((cache.len(), cache.get(&1)), (1, Some(1)));
}

/// The events just applied may have evicted entries that are still in the map.
#[cfg_attr(miri, ignore = "too long for an interpreter")]
#[test]
fn validate_with_pending_events_unlinks_evictions() {
    for policy in POLICIES {
        let cache: Cache<u64, u64> = Cache::builder().max_entries(5_000).policy(policy).build().unwrap();
        (0..5_000).for_each(|key| cache.insert(key, key));
        for key in 5_000..5_300 {
            cache.insert(key, key);
            cache.validate();
        }
    }
}

/// The number of hits under exact LRU that found the lock taken, in all caches.
pub(super) static MARKED: AtomicUsize = AtomicUsize::new(0);

/// Prints the table in the documentation of [`Policy`](crate::Policy): the share of the hits that
/// only mark their entry.
#[test]
#[ignore = "measures, and prints a table: see the documentation of `Policy`"]
fn lru_hits_that_only_mark() {
    for threads in [1, 2, 4, 8] {
        let cache: Cache<u64, u64> = Cache::builder()
            .max_entries(10_000)
            .policy(PolicyKind::Lru)
            .build()
            .unwrap();
        (0..10_000).for_each(|key| cache.insert(key, key));
        let mut shares = Vec::new();
        for others in [0, 1_000] {
            let (before, lookups) = (MARKED.load(SeqCst), 2_000_000 / threads);
            thread::scope(|scope| {
                for thread in 0..threads {
                    let cache = &cache;
                    scope.spawn(move || {
                        let mut key = thread as u64 * 997;
                        for _ in 0..lookups {
                            key = (key * 25_173 + 13_849) % 10_000;
                            assert!(cache.get(&key).is_some());
                            // What a caller does between its lookups.
                            (0..others).for_each(|n| _ = std::hint::black_box(n));
                        }
                    });
                }
            });
            let marked = MARKED.load(SeqCst) - before;
            shares.push(format!("{:.1}%", 100.0 * marked as f64 / (lookups * threads) as f64));
        }
        println!("| {threads} | {} |", shares.join(" | "));
    }
}

/// A value that counts the live values.
#[derive(Clone)]
struct Value(#[expect(dead_code, reason = "counted")] Arc<()>);

/// Without memory for policy and wheel, entries are evicted, each leaves once, and the counts are
/// right.
#[cfg_attr(miri, ignore = "too long for an interpreter")]
#[test]
fn cache_with_full_slabs_evicts() {
    for policy in POLICIES {
        for chunks in [0, 1, 2, 20] {
            let (live, clock) = (Arc::new(()), ManualClock::new());
            let cache: Cache<u64, Value> = with_limit(chunks, || {
                let cache = Cache::builder()
                    .max_entries(2_000)
                    .policy(policy)
                    .clock(clock.clone())
                    .build()
                    .unwrap();
                // The wheel is allocated with the first timer.
                cache.insert_with_ttl(0, Value(live.clone()), Duration::from_secs(1));
                cache.run_pending();
                cache
            });
            for key in 0..5_000u64 {
                let (ttl, value) = (Duration::from_millis(1 + key * 7919 % 100_000), Value(live.clone()));
                if key % 3 > 0 {
                    cache.insert_with_ttl(key, value, ttl);
                } else {
                    cache.insert(key, value);
                }
                _ = cache.get(&(key / 2));
                match key % 16 {
                    0 => _ = cache.remove(&(key / 3)),
                    1 => cache.insert(key - 1, Value(live.clone())),
                    2 => clock.advance(Duration::from_millis(40)),
                    3 if key % 64 == 3 => cache.validate(),
                    _ => {}
                }
            }
            cache.run_pending();
            cache.validate();
            let most = 32 * chunks as usize;
            assert!(cache.len() <= most, "{policy:?}: {} of {most}", cache.len());
            assert_eq!(cache.iter().count(), cache.len());
            assert!(chunks < 2 || cache.len() >= 14, "{policy:?}: {}", cache.len());
            clock.advance(Duration::from_secs(1_000));
            cache.run_pending();
            cache.validate();
            assert!(cache.iter().all(|(key, _)| key % 3 == 0 || key % 16 == 0));
            drop(cache);
            assert_eq!(Arc::strong_count(&live), 1, "{policy:?}: all values are freed");
        }
    }
}

/// Panics under the maintenance lock of a cache, as a bug would.
fn panic_under_lock(cache: &Cache<u64, Value>) {
    let engine = &cache.0.engine;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let guard = engine.pin();
        let deferred = engine.with_core(&guard, |_| panic!("injected"));
        engine.run_deferred(deferred, guard);
    }));
    assert!(panicked.is_err());
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    *panic.downcast::<String>().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().expect("a message");
        Box::new((*text).to_owned())
    })
}

/// Reads continue, changes fail with a clear panic, and no thread hangs.
#[cfg_attr(miri, ignore = "too long for an interpreter")]
#[test]
fn panic_under_the_lock_poisons_maintenance() {
    for policy in POLICIES {
        let live = Arc::new(());
        let cache: Cache<u64, Value> = Cache::builder().max_entries(1_000).policy(policy).build().unwrap();
        (0..900).for_each(|key| cache.insert(key, Value(live.clone())));
        cache.run_pending();
        panic_under_lock(&cache);
        assert!(cache.get(&3).is_some());
        assert_eq!((cache.iter().count(), cache.len()), (900, 900));
        for _ in 0..2 {
            let changing = || (0..200).for_each(|key| cache.insert(key, Value(live.clone())));
            let text = message(catch_unwind(AssertUnwindSafe(changing)).unwrap_err());
            assert!(text.contains("maintenance of this cache panicked"), "{text}");
        }
        for _ in 0..200 {
            _ = catch_unwind(AssertUnwindSafe(|| cache.insert(5, Value(live.clone()))));
            _ = catch_unwind(AssertUnwindSafe(|| cache.remove(&5)));
        }
        assert!(catch_unwind(AssertUnwindSafe(|| cache.run_pending())).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| cache.set_capacity(5))).is_err());
        // A thread that is already unwinding is not aborted by a second panic.
        struct InsertOnDrop<'c>(&'c Cache<u64, Value>, Value);
        impl Drop for InsertOnDrop<'_> {
            fn drop(&mut self) {
                (0..200).for_each(|key| self.0.insert(key, self.1.clone()));
            }
        }
        let unwinding = || {
            let _insert = InsertOnDrop(&cache, Value(live.clone()));
            panic!("first");
        };
        assert_eq!(message(catch_unwind(AssertUnwindSafe(unwinding)).unwrap_err()), "first");
        drop(cache);
        assert!(Arc::strong_count(&live) < 2_500, "what is in the map is freed");
    }
}

/// Threads that wait for the lock when its holder panics are woken.
#[test]
fn panic_under_the_lock_wakes_waiters() {
    let cache: Cache<u64, Value> = Cache::new(1_000);
    let waiting = AtomicUsize::new(0);
    thread::scope(|scope| {
        let engine = &cache.0.engine;
        let guard = engine.pin();
        let held = engine.work.0.lock.try_lock().expect("it is free");
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    waiting.fetch_add(1, SeqCst);
                    cache.run_pending();
                })
            })
            .collect();
        while waiting.load(SeqCst) < 3 {
            thread::yield_now();
        }
        let mut work = |_: &mut super::core::Core| panic!("injected");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            _ = engine.maintain(held, &guard, super::maintenance::Rings::All, &mut work);
        }));
        assert!(panicked.is_err());
        for waiter in waiters {
            let text = message(waiter.join().unwrap_err());
            assert!(text.contains("maintenance of this cache panicked"), "{text}");
        }
    });
}

/// Visits that find the rings of several threads full free as much as they unlink.
#[cfg_attr(miri, ignore = "too long for an interpreter")]
#[cfg_attr(feature = "crossbeam", ignore = "crossbeam decides when entries are freed")]
#[test]
fn large_visits_leave_no_garbage() {
    const WRITERS: u64 = 4;
    const EVENTS: u64 = 200;
    let cache: Cache<u64, u64> = Cache::new(100_000);
    (0..110_000).for_each(|key| cache.insert(key, key));
    cache.run_pending();
    let engine = &cache.0.engine;
    let turn = std::sync::Barrier::new(WRITERS as usize + 1);
    thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let (cache, turn) = (&cache, &turn);
            scope.spawn(move || {
                for round in 0..40 {
                    turn.wait();
                    let first = (writer << 40) + round * EVENTS;
                    (first..first + EVENTS).for_each(|key| cache.insert(key, key));
                    turn.wait();
                }
            });
        }
        for round in 0..40 {
            // No thread applies what the others record.
            let held = engine.work.0.lock.try_lock().expect("it is free");
            turn.wait();
            turn.wait();
            held.unlock();
            let first = (1 << 50) + round * 40;
            (first..first + 40).for_each(|key| cache.insert(key, key));
        }
    });
    let left = engine.unlinked(&engine.pin()).len() as u64;
    assert!(left < 2 * WRITERS * EVENTS, "{left} entries wait to be freed");
}

#[cfg_attr(miri, ignore = "too long for an interpreter")]
#[test]
fn ended_threads_leave_no_ring() {
    let cache: Cache<u64, u64> = Cache::new(100_000);
    let rings = || {
        let mut rings = 0;
        cache.0.engine.thread_states().for_each_writer(|_| rings += 1);
        rings
    };
    cache.insert(0, 0);
    let together = Arc::new(std::sync::Barrier::new(100));
    let threads: Vec<_> = (1..=100)
        .map(|thread| {
            let (cache, together) = (cache.clone(), together.clone());
            thread::spawn(move || {
                cache.get(&0);
                // Half of the threads only read.
                if thread % 2 == 0 {
                    cache.insert(thread, thread);
                }
                together.wait();
            })
        })
        .collect();
    // A join also waits for the thread's destructors, which a scope does not.
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((rings(), cache.stats().hits), (51, 100));
    // A visit checks few rings, so this takes some batches; more if a thread of another test has
    // the same index.
    for _ in 0..1000 {
        (1000..20_000).for_each(|key| cache.insert(key, key));
        if rings() == 1 {
            break;
        }
    }
    assert_eq!((rings(), cache.stats().hits), (1, 100), "and no hit was lost");
    cache.run_pending();
    cache.validate();
    assert_eq!(cache.len(), 1 + 50 + 19_000);
}

/// With a suspended lock holder all writers finish, and no event is lost.
#[cfg_attr(miri, ignore = "too long for an interpreter")]
#[test]
fn writers_beside_a_suspended_lock_holder_finish() {
    for policy in POLICIES {
        for capacity in [100, 100_000] {
            let live = Arc::new(());
            let cache: Cache<u64, Value> = Cache::builder().max_entries(capacity).policy(policy).build().unwrap();
            (0..50).for_each(|key| cache.insert(key, Value(live.clone())));
            let held = cache.0.engine.work.0.lock.try_lock().expect("it is free");
            thread::scope(|scope| {
                // Joined while the lock is held.
                let writer = scope.spawn(|| {
                    (50..130).for_each(|key| cache.insert(key, Value(live.clone())));
                    (120..126).for_each(|key| cache.insert(key, Value(live.clone())));
                    (126..130).for_each(|key| drop(cache.remove(&key)));
                    cache.insert_with_ttl(200, Value(live.clone()), Duration::from_secs(1000));
                    assert!(cache.contains_key(&200) && cache.contains_key(&125) && !cache.contains_key(&126));
                });
                writer.join().unwrap();
            });
            held.unlock();
            assert!(cache.len() <= capacity);
            cache.run_pending();
            // On crossbeam-epoch the readers of other tests' caches also delay reclamation here.
            while cfg!(feature = "crossbeam") && Arc::strong_count(&live) > 1 + cache.len() {
                thread::yield_now();
                cache.run_pending();
            }
            cache.validate();
            assert!(capacity == 100 || cache.len() == 127);
            assert_eq!(
                Arc::strong_count(&live),
                1 + cache.len(),
                "{policy:?}: no value is kept or freed twice"
            );
            drop(cache);
            assert_eq!(Arc::strong_count(&live), 1, "{policy:?}");
        }
    }
}
