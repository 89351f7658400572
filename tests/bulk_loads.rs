//! Loads of many keys in one call: the keys that the loader gets, and loads of several callers that
//! overlap.

use hotset::{Cache, Cause, LoadError};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

type Numbers = Cache<u64, u64>;

fn settled<K, V, S>(cache: &Cache<K, V, S>) {
    cache.run_pending();
    cache.validate();
}

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// Long enough that other threads are most likely waiting by then. No verdict depends on it, only
/// what the test covers.
fn a_moment() {
    thread::sleep(Duration::from_millis(20));
}

fn tenfold(missing: &[u64]) -> Vec<u64> {
    missing.iter().map(|key| key * 10).collect()
}

#[test]
fn bulk_loader_runs_once_for_missing_keys() {
    let cache = Numbers::new(1000);
    let asked = RefCell::new(Vec::new());
    let load = |missing: &[u64]| {
        asked.borrow_mut().push(missing.to_vec());
        tenfold(missing)
    };
    cache.insert(3, 33);
    assert_eq!(
        cache.get_many_or_insert_with([5, 3, 1, 5, 1, 2], load),
        [50, 33, 10, 50, 10, 20]
    );
    assert_eq!(*asked.borrow(), [[5, 1, 2]]);
    assert_eq!(
        cache.get_many_or_insert_with([1, 2, 3, 5, 5], load),
        [10, 20, 33, 50, 50]
    );
    assert_eq!(cache.get_many_or_insert_with([], load), [0u64; 0]);
    assert_eq!(asked.borrow().len(), 1, "nothing was missing");
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures, stats.waits), (1, 0, 0));
    assert_eq!((stats.hits, stats.misses), (6, 5));
    let all = cache.get_many_or_insert_with(0..700, load);
    assert!(
        (0..700)
            .zip(all)
            .all(|(key, value)| value == if key == 3 { 33 } else { key * 10 })
    );
    assert_eq!(asked.borrow()[1].len(), 696);
    settled(&cache);
    assert_eq!(cache.len(), 700);
    // Values need not be admitted, and keys need not be numbers.
    let nothing: Cache<String, String> = Cache::new(0);
    let shout = |missing: &[String]| missing.iter().map(|key| key.to_uppercase()).collect();
    assert_eq!(
        nothing.get_many_or_insert_with(["a".into(), "b".into(), "a".into()], shout),
        ["A", "B", "A"]
    );
}

#[test]
fn bulk_failure_reaches_waiters_and_inserts_nothing() {
    let cache = Numbers::new(100);
    let (begun, wait) = mpsc::channel();
    thread::scope(|scope| {
        let cache = &cache;
        let bulk = scope.spawn(move || {
            cache.try_get_many_or_insert_with([1, 2], |_| {
                begun.send(()).unwrap();
                a_moment();
                Err("no")
            })
        });
        wait.recv().unwrap();
        let waiters = [1, 2].map(|key| scope.spawn(move || cache.try_get_or_insert_with(key, || Err("late"))));
        assert!(matches!(bulk.join().unwrap(), Err(LoadError::Failed(why)) if *why == "no"));
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), Err(LoadError::Failed(_))));
        }
    });
    assert!(!cache.contains_key(&1) && !cache.contains_key(&2));
    assert_eq!(cache.stats().loads, 0);
    settled(&cache);
}

#[test]
fn bulk_failure_is_cached() {
    let builder = Cache::builder().max_entries(100);
    let cache: Numbers = builder.negative_ttl(Duration::from_secs(3600)).build().unwrap();
    let failed = |asked: Result<_, LoadError<&str>>| matches!(asked, Err(LoadError::Failed(why)) if *why == "no");
    assert!(failed(cache.try_get_many_or_insert_with([1, 2], |_| Err("no"))));
    assert!(failed(cache.try_get_many_or_insert_with([3, 2], |_| unreachable!())));
    assert!(failed(
        cache
            .try_get_or_insert_with(1, || unreachable!())
            .map(|value| vec![value])
    ));
    // A loader that cannot fail, or with another error type, ignores the cached failure.
    assert_eq!(cache.get_many_or_insert_with([1, 2, 3], tenfold), [10, 20, 30]);
    settled(&cache);
}

#[test]
fn bulk_loader_with_wrong_length_fails() {
    let cache = Numbers::new(100);
    for returned in [0, 1, 3] {
        let failed = cache.try_get_many_or_insert_with([1, 2], |_| Ok::<_, String>(vec![7; returned]));
        let Err(error @ LoadError::WrongLength { asked: 2, .. }) = failed else {
            panic!("{failed:?}")
        };
        assert!(
            error
                .clone()
                .to_string()
                .contains(&format!("returned {returned} values, expected 2"))
        );
        assert!(panics(|| cache.get_many_or_insert_with([1, 2], |_| vec![7; returned])));
    }
    assert_eq!(cache.iter().count(), 0);
    assert_eq!((cache.stats().loads, cache.stats().load_failures), (0, 6));
    assert_eq!(cache.get_many_or_insert_with([1, 2], tenfold), [10, 20]);
    settled(&cache);
}

#[test]
fn bulk_loader_that_panics_releases_waiters() {
    let cache = Numbers::new(100);
    let (begun, wait) = mpsc::channel();
    thread::scope(|scope| {
        let cache = &cache;
        let bulk = scope.spawn(move || {
            panics(|| {
                cache.get_many_or_insert_with([1, 2, 3], |_| {
                    begun.send(()).unwrap();
                    a_moment();
                    panic!("as intended")
                })
            })
        });
        wait.recv().unwrap();
        let waiters = [1, 2].map(|key| scope.spawn(move || cache.get_or_insert_with(key, || key + 1)));
        // It waits for the other bulk load, which is abandoned: then it loads these keys, too.
        let calls = RefCell::new(Vec::new());
        let values = cache.get_many_or_insert_with([3, 4], |missing| {
            calls.borrow_mut().push(missing.to_vec());
            tenfold(missing)
        });
        assert_eq!(values, [30, 40]);
        assert!([vec![vec![4], vec![3]], vec![vec![3, 4]]].contains(&calls.into_inner()));
        assert!(bulk.join().unwrap());
        assert_eq!(waiters.map(|waiter| waiter.join().unwrap()), [2, 3]);
    });
    settled(&cache);
}

#[test]
fn load_of_a_key_in_its_own_loader_fails() {
    let cache = Numbers::new(100);
    let reentrant = |asked: Result<Vec<u64>, LoadError<&str>>| assert!(matches!(asked, Err(LoadError::Reentrant)));
    let values = cache.get_many_or_insert_with([1, 2], |missing| {
        for key in [1, 2] {
            let one = cache.try_get_or_insert_with(key, || Ok::<_, String>(0));
            assert!(matches!(one, Err(LoadError::Reentrant)));
        }
        // It loads the keys that it can.
        reentrant(cache.try_get_many_or_insert_with([3, 2], |missing| Ok(tenfold(missing))));
        assert_eq!(cache.get(&3), Some(30));
        assert!(panics(|| cache.get_many_or_insert_with([2], tenfold)));
        tenfold(missing)
    });
    assert_eq!(values, [10, 20]);
    let value = cache.get_or_insert_with(5, || {
        reentrant(cache.try_get_many_or_insert_with([5], |missing| Ok(tenfold(missing))));
        5
    });
    assert_eq!(value, 5);
    settled(&cache);
}

#[test]
fn overlapping_bulk_loads_do_not_deadlock() {
    let cache = Numbers::new(1000);
    let loaded = AtomicUsize::new(0);
    for round in 0..100 {
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            for thread in 0..3 {
                let (cache, loaded, barrier) = (&cache, &loaded, &barrier);
                scope.spawn(move || {
                    // Each load begins with the keys at the end of the others.
                    let keys = (0..6).map(|at| round * 10 + (at + thread * 2) % 6);
                    barrier.wait();
                    let values = cache.get_many_or_insert_with(keys.clone(), |missing| {
                        loaded.fetch_add(missing.len(), SeqCst);
                        thread::yield_now();
                        tenfold(missing)
                    });
                    assert_eq!(values, tenfold(&keys.collect::<Vec<_>>()));
                });
            }
        });
    }
    assert_eq!(loaded.load(SeqCst), 600, "each key once");
    settled(&cache);
}

#[test]
fn bulk_load_waits_for_others_last() {
    let cache = Numbers::new(100);
    let (begun, wait) = mpsc::channel();
    let (go, went) = mpsc::channel::<Result<u64, &str>>();
    let (inner, outer) = (&cache, &cache);
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            inner.try_get_or_insert_with(1, || {
                begun.send(()).unwrap();
                went.recv().unwrap()
            })
        });
        wait.recv().unwrap();
        let bulk = scope.spawn(|| outer.try_get_many_or_insert_with([1, 2], |missing| Ok::<_, &str>(tenfold(missing))));
        while outer.get(&2).is_none() {
            thread::yield_now();
        }
        assert_eq!(outer.stats().waits, 1);
        go.send(Err("no")).unwrap();
        assert!(matches!(bulk.join().unwrap(), Err(LoadError::Failed(why)) if *why == "no"));
        assert!(other.join().unwrap().is_err());
    });
    assert_eq!(cache.get(&2), Some(20));
    settled(&cache);
}

#[test]
fn invalidation_beats_a_bulk_load_in_flight() {
    let cache = Numbers::new(100);
    let values = cache.get_many_or_insert_with([1, 2, 3], |missing| {
        cache.remove(&1);
        cache.insert(2, 5);
        tenfold(missing)
    });
    assert_eq!(values, [10, 20, 30]);
    assert_eq!(cache.get_many([&1, &2, &3]), [None, Some(5), Some(30)]);
    settled(&cache);
}

#[test]
fn listener_that_panics_leaves_no_load_in_flight() {
    let listened = Arc::new(AtomicUsize::new(0));
    let counted = listened.clone();
    let cache: Numbers = Cache::builder()
        .max_entries(0)
        .on_removal(move |_, _, cause| {
            assert_eq!(cause, Cause::Size);
            assert!(counted.fetch_add(1, SeqCst) != 1, "as intended");
        })
        .build()
        .unwrap();
    assert!(panics(|| cache.get_many_or_insert_with([1, 2, 3], tenfold)));
    assert_eq!(cache.get_many_or_insert_with([3, 2, 1], tenfold), [30, 20, 10]);
    assert!(listened.load(SeqCst) >= 5);
    settled(&cache);
}
