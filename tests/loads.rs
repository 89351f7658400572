//! Single-flight loads: one loader per key at a time, whatever runs concurrently; and `compute`.

use hotset::{Cache, Change, Entry, LoadBuckets, LoadError, Policy};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn settled<K, V, S>(cache: &Cache<K, V, S>) {
    cache.run_pending();
    cache.validate();
}

/// Long enough that other threads are most likely waiting by then. No verdict depends on it, only
/// what the test covers.
fn a_moment() {
    thread::sleep(Duration::from_millis(20));
}

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

#[test]
fn load_by_many_threads_runs_once() {
    let cache: Cache<u64, u64> = Cache::new(1000);
    let loads = AtomicUsize::new(0);
    for key in 0..20 {
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let value = cache.get_or_insert_with(key, || {
                        loads.fetch_add(1, SeqCst);
                        thread::sleep(Duration::from_millis(2));
                        key * 2
                    });
                    assert_eq!(value, key * 2);
                });
            }
        });
    }
    assert_eq!(loads.load(SeqCst), 20);
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (20, 0));
    assert!(cache.stats().load_time >= Duration::from_millis(40));
    settled(&cache);
}

#[test]
fn waiters_get_a_value_that_is_not_admitted() {
    let cache: Cache<u64, u64> = Cache::new(0);
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(cache.get_or_insert_with(1, || (a_moment(), 5).1), 5);
            });
        }
    });
    settled(&cache);
    assert!(cache.is_empty());
}

#[test]
fn loader_that_panics_releases_waiters() {
    let cache: Cache<u64, u64> = Cache::new(10);
    let (begun, wait) = mpsc::channel();
    let calls = AtomicUsize::new(0);
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            panics(|| {
                cache.get_or_insert_with(1, || {
                    begun.send(()).unwrap();
                    a_moment();
                    panic!("as intended")
                })
            })
        });
        wait.recv().unwrap();
        for _ in 0..4 {
            scope.spawn(|| {
                let value = cache.get_or_insert_with(1, || {
                    calls.fetch_add(1, SeqCst);
                    8
                });
                assert_eq!(value, 8);
            });
        }
        assert!(first.join().unwrap());
    });
    assert_eq!(calls.load(SeqCst), 1, "one of the waiters loads");
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (1, 1));
    settled(&cache);
}

#[test]
fn loader_errors_are_shared_and_not_cached() {
    let cache: Cache<u64, u64> = Cache::new(10);
    let (begun, wait) = mpsc::channel();
    let calls = AtomicUsize::new(0);
    let load = || cache.try_get_or_insert_with(1, || Err::<u64, String>(calls.fetch_add(1, SeqCst).to_string()));
    thread::scope(|scope| {
        scope.spawn(|| {
            let failed = cache.try_get_or_insert_with(1, || {
                begun.send(()).unwrap();
                a_moment();
                Err::<u64, String>("first".to_owned())
            });
            assert!(matches!(failed, Err(LoadError::Failed(why)) if *why == "first"));
        });
        wait.recv().unwrap();
        scope.spawn(|| {
            let Err(LoadError::Failed(why)) = load() else {
                panic!("an error")
            };
            assert!(*why == "first" || *why == "0");
        });
        // Another type of error cannot be shared: this caller loads.
        scope.spawn(|| assert_eq!(cache.try_get_or_insert_with(2, || Ok::<_, u8>(2)).unwrap(), 2));
        scope.spawn(|| {
            let other = cache.try_get_or_insert_with(1, || Err::<u64, u8>(9));
            assert!(matches!(other, Err(LoadError::Failed(why)) if *why == 9));
        });
    });
    assert!(!cache.contains_key(&1));
    assert_eq!(cache.get_or_insert_with(1, || 3), 3);
    let error = LoadError::Failed(Arc::new(std::fmt::Error));
    assert!(std::error::Error::source(&error.clone()).is_some() && error.to_string().contains("loader"));
}

#[test]
fn load_of_a_key_in_its_own_loader_fails() {
    let cache: Cache<u64, u64> = Cache::new(10);
    let value = cache.get_or_insert_with(1, || {
        let inner = cache.try_get_or_insert_with(1, || Ok::<_, String>(0));
        assert!(matches!(inner, Err(LoadError::Reentrant)));
        assert!(panics(|| cache.get_or_insert_with(1, || 0)));
        // Through another key, too.
        let through = cache.get_or_insert_with(2, || {
            assert!(matches!(
                cache.try_get_or_insert_with(1, || Ok::<_, String>(0)),
                Err(LoadError::Reentrant)
            ));
            20
        });
        assert_eq!(cache.get(&2), Some(through));
        cache.get_or_insert_with(3, || 30) + 1
    });
    assert_eq!((value, cache.get(&1)), (31, Some(31)));
    settled(&cache);
}

#[test]
fn wait_cycle_of_loaders_fails() {
    let cache: Cache<u64, u64> = Cache::new(10);
    for threads in [2u64, 3, 5] {
        cache.clear();
        let barrier = Barrier::new(threads as usize);
        let errors = AtomicUsize::new(0);
        thread::scope(|scope| {
            for key in 0..threads {
                let (cache, barrier, errors) = (&cache, &barrier, &errors);
                scope.spawn(move || {
                    let value = cache.get_or_insert_with(key, || {
                        barrier.wait();
                        match cache.try_get_or_insert_with((key + 1) % threads, || Ok::<_, String>(99)) {
                            Ok(value) => value,
                            Err(LoadError::Reentrant) => {
                                errors.fetch_add(1, SeqCst);
                                7
                            }
                            Err(other) => panic!("{other}"),
                        }
                    });
                    assert_eq!(value, 7);
                });
            }
        });
        assert_eq!(errors.load(SeqCst), 1, "one gets the error, the others its result");
    }
    // The same over two caches.
    let other: Cache<u64, u64> = Cache::new(10);
    let barrier = Barrier::new(2);
    let ask = |first: &Cache<u64, u64>, second: &Cache<u64, u64>| {
        first.get_or_insert_with(77, || {
            barrier.wait();
            second.try_get_or_insert_with(77, || Ok::<_, String>(0)).unwrap_or(5)
        })
    };
    thread::scope(|scope| {
        let one = scope.spawn(|| ask(&cache, &other));
        assert_eq!(ask(&other, &cache), 5);
        assert_eq!(one.join().unwrap(), 5);
    });
}

/// A waiter that has its value but has not woken up yet is in no wait cycle.
#[test]
fn completed_load_is_no_wait_cycle() {
    let cache: Cache<(u64, u64), u64> = Cache::new(10);
    for round in 0..3000 {
        let asked = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                cache.get_or_insert_with((round, 2), || {
                    asked.wait();
                    cache.get_or_insert_with((round, 1), || 1) + 1
                })
            });
            cache.get_or_insert_with((round, 1), || {
                asked.wait();
                (0..200 * (round % 16)).for_each(|_| std::hint::spin_loop());
                1
            });
            let second = cache.try_get_or_insert_with((round, 2), || Ok::<_, String>(0));
            assert!(second.is_ok(), "round {round}: {second:?}");
        });
    }
}

#[test]
fn invalidation_beats_a_load_in_flight() {
    type Act = fn(&Cache<u64, u64>);
    let acts: [(Act, Option<u64>); 8] = [
        (|cache| assert_eq!(cache.remove(&1), None), None),
        (|cache| cache.insert(1, 5), Some(5)),
        (|cache| cache.clear(), None),
        (|cache| assert_eq!(cache.compute(1, |_| Some(6)), Some(6)), Some(6)),
        (|cache| assert_eq!(cache.compute(1, |_| None), None), None),
        (|cache| assert_eq!(cache.remove_if(&1, |_, _| true), None), None),
        (|cache| (cache.insert(1, 5), cache.remove(&1)).0, None),
        (|cache| cache.insert(2, 5), Some(100)),
    ];
    for policy in [Policy::WTinyLfu, Policy::Lru] {
        for (at, (act, expected)) in acts.iter().enumerate() {
            for from_inside in [false, true] {
                let cache = Cache::builder().max_entries(10).policy(policy).build().unwrap();
                let (begun, wait) = mpsc::channel();
                let (go, went) = mpsc::channel();
                thread::scope(|scope| {
                    let cache = &cache;
                    let loading = scope.spawn(move || {
                        cache.get_or_insert_with(1, || {
                            if from_inside {
                                act(cache);
                            }
                            begun.send(()).unwrap();
                            went.recv().unwrap();
                            100
                        })
                    });
                    wait.recv().unwrap();
                    let early = scope.spawn(|| cache.get_or_insert_with(1, || 200));
                    a_moment();
                    if !from_inside {
                        act(cache);
                    }
                    // A call that begins now must not be served by the invalidated load.
                    let late = (at == 0).then(|| scope.spawn(|| cache.get_or_insert_with(1, || 300)));
                    a_moment();
                    go.send(()).unwrap();
                    assert_eq!(loading.join().unwrap(), 100, "the loader's caller gets its value");
                    let early = early.join().unwrap();
                    assert!([Some(100), Some(200), Some(300), Some(5), *expected].contains(&Some(early)));
                    if let Some(late) = late {
                        assert!([200, 300].contains(&late.join().unwrap()));
                    } else if early != 200 {
                        assert_eq!(cache.get(&1), *expected, "{policy:?}, act {at}, inside: {from_inside}");
                    }
                });
                settled(&cache);
            }
        }
    }
}

/// The load began before the change, and ends while `decide` runs: its value is older.
#[test]
fn removal_by_change_sees_a_load_that_ends_while_it_decides() {
    let cache: Cache<u64, u64> = Cache::new(100);
    let (begun, end) = (Barrier::new(2), Barrier::new(2));
    let mut seen = Vec::new();
    thread::scope(|scope| {
        let mut load = Some(scope.spawn(|| {
            cache.get_or_insert_with(1, || {
                begun.wait();
                end.wait();
                10
            })
        }));
        begun.wait();
        cache.change(&1, |old| {
            seen.push(old.copied());
            if let Some(load) = load.take() {
                end.wait();
                assert_eq!(load.join().unwrap(), 10);
            }
            Change::Remove
        });
    });
    assert_eq!((seen, cache.get(&1)), (vec![None, Some(10)], None));
    settled(&cache);
}

/// A source and its cache: after `remove`, no load may insert a value that was read before.
#[test]
fn load_beside_changes_leaves_nothing_stale() {
    let cache: Cache<u64, u64> = Cache::new(100);
    let source: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for thread in 0..3u64 {
            let (cache, source) = (&cache, &source);
            scope.spawn(move || {
                for round in 0..20_000u64 {
                    let key = (round / 3 + thread) % 4;
                    if thread == 0 {
                        source[key as usize].fetch_add(1, SeqCst);
                        match round % 64 {
                            0 => cache.clear(),
                            1..8 => assert_eq!(cache.compute(key, |_| None), None),
                            _ => _ = cache.remove(&key),
                        }
                    } else {
                        let before = if thread == 1 {
                            0
                        } else {
                            source[key as usize].load(SeqCst)
                        };
                        let value = cache.get_or_insert_with(key, || source[key as usize].load(SeqCst));
                        // At most the update in progress (its removal follows) may be missing.
                        assert!(value + 1 >= before, "{value} of {before}");
                    }
                }
            });
        }
    });
    for (key, truth) in source.iter().enumerate() {
        assert!(cache.get(&(key as u64)).is_none_or(|value| value == truth.load(SeqCst)));
    }
    settled(&cache);
}

#[test]
fn remove_if_and_compute_get_the_entry() {
    let cache: Cache<u64, u64> = Cache::new(100);
    cache.insert(1, 10);
    assert_eq!(cache.remove_if(&1, |key, value| (*key, *value) == (1, 11)), None);
    assert_eq!(cache.remove_if(&1, |key, value| (*key, *value) == (1, 10)), Some(10));
    assert_eq!(cache.remove_if(&1, |_, _| unreachable!()), None);
    assert_eq!(cache.compute(1, |old| old), None);
    assert_eq!(cache.compute(1, |old| old.or(Some(3))), Some(3));
    assert_eq!(cache.compute(1, |old| old.map(|old| old + 1)), Some(4));
    assert_eq!(cache.compute(1, |_| None), None);
    assert!(!cache.contains_key(&1));
    let counters: HashMap<u64, u64> = (0..4).map(|key| (key, 40_000)).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..40_000 {
                    cache.compute(round % 4, |count| Some(count.unwrap_or(0) + 1));
                }
            });
        }
    });
    settled(&cache);
    assert_eq!(cache.iter().collect::<HashMap<_, _>>(), counters);
}

#[test]
fn stats_count_loads() {
    let cache: Cache<u64, u64> = Cache::new(100);
    assert_eq!(cache.stats().hit_ratio(), 0.0);
    cache.insert(1, 1);
    cache.insert(1, 2);
    cache.get(&1);
    cache.get(&2);
    cache.get_many(&[1, 1, 3]);
    cache.contains_key(&1);
    cache.reader().get(&1);
    cache.get_or_insert_with(4, || 4); // a miss and a load
    cache.get_or_insert_with(4, || unreachable!());
    let _ = cache.try_get_or_insert_with(5, || Err::<u64, _>("no"));
    cache.compute(6, |_| Some(1));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses), (5, 4));
    assert_eq!(
        (stats.insertions, stats.evictions, stats.rejections, stats.expirations),
        (4, 0, 0, 0)
    );
    assert_eq!((stats.loads, stats.load_failures), (1, 1));
    assert!((stats.hit_ratio() - 5.0 / 9.0).abs() < 1e-9);
    (0..1000).for_each(|key| cache.insert(key, key));
    settled(&cache);
    let stats = cache.stats();
    assert_eq!(stats.insertions, 1004);
    // Of these, the keys 1, 4 and 6 were replaced, and one more insertion of 1 before.
    assert_eq!(stats.evictions + stats.rejections + cache.len() as u64, 1000);
}

/// The listener is called after the loader has returned and the map has decided: it may load the
/// key again.
#[test]
fn listener_may_load_the_rejected_key() {
    static CACHE: OnceLock<Cache<u64, u64>> = OnceLock::new();
    static RELOADED: AtomicUsize = AtomicUsize::new(0);
    let cache = CACHE.get_or_init(|| {
        let cache = Cache::builder().max_entries(0).on_removal(|key: &u64, value: &u64, _| {
            if *value == 1 {
                let again = CACHE.get().unwrap().try_get_or_insert_with(*key, || Ok::<_, String>(2));
                assert_eq!(again.unwrap(), 2);
                RELOADED.fetch_add(1, SeqCst);
            }
        });
        cache.build().unwrap()
    });
    assert_eq!(cache.get_or_insert_with(5, || 1), 1);
    settled(cache);
    assert_eq!(RELOADED.load(SeqCst), 1);
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (2, 0));
}

/// Counts its live copies.
struct Key(u64, Option<Arc<AtomicUsize>>);

impl Clone for Key {
    fn clone(&self) -> Self {
        if let Some(living) = &self.1 {
            living.fetch_add(1, SeqCst);
        }
        Self(self.0, self.1.clone())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if let Some(living) = &self.1 {
            living.fetch_sub(1, SeqCst);
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    /// All hashes are equal, so that loads of different keys share a bucket.
    fn hash<H: Hasher>(&self, state: &mut H) {
        0.hash(state);
    }
}

#[test]
fn loads_of_keys_with_one_hash_stay_separate() {
    let living = Arc::new(AtomicUsize::new(0));
    let key = |id| {
        living.fetch_add(1, SeqCst);
        Key(id, Some(living.clone()))
    };
    let cache: Cache<Key, u64> = Cache::new(100);
    // Nested: each load begins while the others are in flight.
    fn nest(cache: &Cache<Key, u64>, key: &dyn Fn(u64) -> Key, id: u64) -> u64 {
        cache.get_or_insert_with(key(id), || {
            if id == 3 {
                // Invalidates the load of 1 only.
                cache.remove(&Key(1, None));
            }
            let again = cache.try_get_or_insert_with(key(id), || Ok::<_, String>(0));
            assert!(matches!(again, Err(LoadError::Reentrant)));
            if id < 5 { nest(cache, key, id + 1) + 1 } else { 1 }
        })
    }
    assert_eq!(nest(&cache, &key, 0), 6);
    for id in 0..6 {
        let expected = (id != 1).then_some(6 - id);
        assert_eq!(cache.get(&Key(id, None)), expected, "{id}");
    }
    // Concurrently, from several threads.
    let loads = AtomicUsize::new(0);
    for round in 1..50 {
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, key, loads, barrier) = (&cache, &key, &loads, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for step in 0..3 {
                        let id = 10 * round + (thread + step) % 3;
                        let value = cache.get_or_insert_with(key(id), || {
                            loads.fetch_add(1, SeqCst);
                            thread::yield_now();
                            id
                        });
                        assert_eq!(value, id);
                    }
                });
            }
        });
        cache.clear();
    }
    assert_eq!(loads.load(SeqCst), 49 * 3, "one load of each");
    settled(&cache);
    assert_eq!(cache.stats().loads, 49 * 3 + 6);
    drop(cache);
    assert_eq!(living.load(SeqCst), 0);
}

#[test]
fn loads_of_all_kinds_are_in_the_buckets() {
    let cache: Cache<u64, u64> = Cache::new(10);
    assert_eq!(cache.stats().load_buckets, Default::default());
    cache.get_or_insert_with(1, || 1);
    assert!(cache.try_get_or_insert_with(2, || Err::<u64, _>("no")).is_err());
    assert!(panics(|| cache.get_or_insert_with(3, || panic!("as intended"))));
    let keys = cache.get_many_or_insert_with([4, 5], |keys| keys.to_vec());
    assert_eq!(keys, [4, 5], "one load of two keys");
    for key in [6, 7] {
        match cache.entry(key).unwrap() {
            Entry::Vacant(vacant) if key == 6 => _ = vacant.insert(6),
            Entry::Vacant(abandoned) => drop(abandoned),
            Entry::Occupied(_) => unreachable!(),
        }
    }
    cache.get_or_insert_with(1, || unreachable!("a hit is not a load"));
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures), (3, 3));
    assert_eq!(stats.load_buckets.total(), 6);
}

#[test]
fn load_is_in_the_bucket_of_its_duration() {
    let cache: Cache<u64, u64> = Cache::new(10);
    for key in 0..3 {
        let before = cache.stats();
        let loaded = Instant::now();
        if key == 0 {
            cache.get_or_insert_with(key, || (a_moment(), 1).1);
        } else if let Entry::Vacant(vacant) = cache.entry(key).unwrap() {
            a_moment();
            if key == 1 {
                vacant.insert(1);
            }
        }
        // The bounds within which the load's duration lies, whatever else the machine does.
        let (shortest, longest) = (Duration::from_millis(19), loaded.elapsed() + Duration::from_millis(1));
        let now = cache.stats();
        let buckets = now.load_buckets.iter().zip(before.load_buckets.counts());
        let (bound, _) = buckets
            .map(|((bound, now), before)| (bound, now - before))
            .find(|(_, new)| *new == 1)
            .unwrap();
        let of = |time: Duration| LoadBuckets::BOUNDS.into_iter().find(|bound| time <= *bound).unwrap();
        assert!(of(shortest) <= bound && bound <= of(longest), "load {key}: {bound:?}");
        let measured = now.load_time - before.load_time;
        assert!(measured >= shortest && measured <= longest, "load {key}: {measured:?}");
    }
    assert_eq!(cache.stats().load_failures, 1);
}

#[test]
fn load_time_is_measured() {
    let cache: Cache<u64, u64> = Cache::new(10);
    assert_eq!(cache.stats().load_time, Duration::ZERO);
    let begun = Instant::now();
    cache.get_or_insert_with(1, || (a_moment(), 1).1);
    let failing = || {
        a_moment();
        panic!("as intended")
    };
    assert!(panics(|| cache.get_or_insert_with(2, failing)));
    let (all, measured) = (begun.elapsed(), cache.stats().load_time);
    assert!(measured >= Duration::from_millis(39) && measured <= all + Duration::from_millis(5));
    cache.get_or_insert_with(1, || unreachable!());
    let longer = cache.stats().load_time;
    assert!(
        longer.abs_diff(measured) < Duration::from_millis(1),
        "{longer:?} {measured:?}"
    );
}
