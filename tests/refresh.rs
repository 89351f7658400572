//! Refresh-ahead, values that outlive a failing source, and negative caching.

use hotset::{Builder, Cache, LoadError, ManualClock, RefreshTask, Ttl};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn cache(clock: &ManualClock, set: impl FnOnce(Builder<u32, u32>) -> Builder<u32, u32>) -> Cache<u32, u32> {
    let builder = Cache::builder().max_entries(100).clock(clock.clone());
    set(builder.time_to_live(secs(60)).refresh_after(secs(10)))
        .build()
        .unwrap()
}

fn load(cache: &Cache<u32, u32>, value: Result<u32, &'static str>) -> Result<u32, &'static str> {
    cache.try_get_or_insert_with(1, || value).map_err(|error| match error {
        LoadError::Failed(error) => *error,
        other => panic!("{other}"),
    })
}

#[test]
fn value_is_reloaded_once_due_and_not_before() {
    let clock = ManualClock::new();
    let cache = cache(&clock, |builder| builder);
    assert_eq!(load(&cache, Ok(1)), Ok(1));
    clock.advance(secs(9));
    assert_eq!(load(&cache, Ok(2)), Ok(1));
    clock.advance(secs(1));
    assert_eq!(cache.get(&1), Some(1), "a get has no loader");
    assert_eq!(load(&cache, Ok(3)), Ok(3));
    assert_eq!(load(&cache, Ok(4)), Ok(3), "the age restarts");
    assert_eq!(cache.remaining(&1), Some(Some(secs(60))));
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures), (2, 0));
    cache.run_pending();
    cache.validate();
}

#[test]
fn reload_by_one_caller_serves_others_the_old_value() {
    let clock = ManualClock::new();
    let cache = cache(&clock, |builder| builder);
    cache.insert(1, 1);
    clock.advance(secs(10));
    let (begun, end) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let reloader = scope.spawn(|| {
            cache.get_or_insert_with(1, || {
                begun.wait();
                end.wait();
                2
            })
        });
        begun.wait();
        for _ in 0..3 {
            assert_eq!(load(&cache, Ok(99)), Ok(1));
            assert_eq!(cache.get(&1), Some(1));
        }
        end.wait();
        assert_eq!(reloader.join().unwrap(), 2);
    });
    assert_eq!(cache.get(&1), Some(2));
    assert_eq!(cache.stats().loads, 1);
}

#[test]
fn failed_reload_keeps_the_value_and_is_retried() {
    let clock = ManualClock::new();
    let cache = cache(&clock, |builder| builder);
    cache.insert(1, 1);
    clock.advance(secs(10));
    assert_eq!(load(&cache, Err("down")), Ok(1));
    assert_eq!(load(&cache, Ok(2)), Ok(1), "not immediately");
    clock.advance(Duration::from_millis(2500));
    assert_eq!(load(&cache, Ok(2)), Ok(2));
    assert_eq!(cache.stats().load_failures, 1);
    // Without a grace, the value expires at its time to live.
    clock.advance(secs(59));
    assert_eq!(load(&cache, Err("down")), Ok(2));
    clock.advance(secs(1));
    assert_eq!(load(&cache, Err("down")), Err("down"));
}

#[test]
fn grace_serves_the_value_beyond_its_deadline() {
    let clock = ManualClock::new();
    let cache = cache(&clock, |builder| builder.stale_if_error(secs(300)));
    cache.insert(1, 1);
    clock.advance(secs(59));
    assert_eq!(load(&cache, Err("down")), Ok(1));
    for _ in 0..10 {
        clock.advance(secs(299));
        assert_eq!(load(&cache, Err("down")), Ok(1));
        cache.run_pending();
        cache.validate();
    }
    clock.advance(secs(300));
    assert_eq!(cache.get(&1), None);
    cache.run_pending();
    assert_eq!(cache.len(), 0);
}

#[test]
fn panicking_reload_reaches_its_caller_and_is_retried() {
    let clock = ManualClock::new();
    let cache = cache(&clock, |builder| builder);
    cache.insert(1, 1);
    clock.advance(secs(10));
    let reload = || cache.get_or_insert_with(1, || panic!("loader"));
    assert!(catch_unwind(AssertUnwindSafe(reload)).is_err());
    assert_eq!(load(&cache, Ok(2)), Ok(1));
    clock.advance(secs(3));
    assert_eq!(load(&cache, Ok(2)), Ok(2));
    cache.run_pending();
    cache.validate();
}

#[test]
fn change_during_a_reload_wins() {
    let clock = ManualClock::new();
    for change in [0, 1, 2, 3] {
        let cache = cache(&clock, |builder| builder);
        cache.insert(1, 1);
        clock.advance(secs(10));
        let value = cache.get_or_insert_with(1, || {
            match change {
                0 => _ = cache.remove(&1),
                1 => cache.insert(1, 50),
                2 => _ = cache.compute(1, |old| Some(old.unwrap() + 100)),
                _ => cache.clear(),
            }
            7
        });
        assert_eq!(value, 7, "the caller gets what it loaded");
        assert_eq!(cache.get(&1), [None, Some(50), Some(101), None][change]);
        cache.run_pending();
        cache.validate();
    }
}

#[test]
fn lookup_in_its_own_reload_gets_the_old_value() {
    let clock = ManualClock::new();
    let cache = cache(&clock, |builder| builder);
    cache.insert(1, 1);
    clock.advance(secs(10));
    let value = cache.get_or_insert_with(1, || cache.get_or_insert_with(1, || unreachable!()) + 1);
    assert_eq!((value, cache.get(&1)), (2, Some(2)));
}

#[test]
fn reload_runs_on_the_refresh_executor() {
    let clock = ManualClock::new();
    let tasks: Arc<Mutex<Vec<RefreshTask>>> = Arc::default();
    let queue = tasks.clone();
    let cache = cache(&clock, |builder| {
        builder.refresh_executor(move |task| queue.lock().unwrap().push(task))
    });
    assert_eq!(cache.get_or_refresh_with(1, || 1), 1, "the first value is waited for");
    clock.advance(secs(10));
    assert_eq!(cache.get_or_refresh_with(1, || 2), 1);
    assert_eq!(cache.get_or_refresh_with(1, || 3), 1);
    let task = tasks.lock().unwrap().pop().unwrap();
    assert!(tasks.lock().unwrap().is_empty(), "one caller asks");
    task();
    assert_eq!(cache.get_or_refresh_with(1, || 4), 2);
    // The reload of a dropped task is retried, and that of a failed one.
    clock.advance(secs(10));
    assert_eq!(cache.get_or_refresh_with(1, || 5), 2);
    tasks.lock().unwrap().clear();
    clock.advance(secs(3));
    assert_eq!(cache.try_get_or_refresh_with(1, || Err::<u32, _>("down")).unwrap(), 2);
    tasks.lock().unwrap().pop().unwrap()();
    clock.advance(secs(3));
    assert_eq!(cache.get_or_refresh_with(1, || 6), 2);
    tasks.lock().unwrap().pop().unwrap()();
    assert_eq!(cache.get(&1), Some(6));
    // Removed before its task runs, the key is inserted as by any load.
    clock.advance(secs(10));
    cache.get_or_refresh_with(1, || 7);
    cache.remove(&1);
    tasks.lock().unwrap().pop().unwrap()();
    assert_eq!(cache.stats().load_failures, 1);
    cache.run_pending();
    cache.validate();
}

/// The old value has not expired, so the caller gets it; the reload is abandoned, and is due again
/// after a quarter of its age.
#[test]
fn executor_that_panics_abandons_the_reload() {
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let cache = cache(&clock, |builder| {
        builder.refresh_executor(move |task| match count.fetch_add(1, SeqCst) {
            0 => panic!("no thread for it"),
            1 => drop(task),
            _ => task(),
        })
    });
    assert_eq!(cache.get_or_refresh_with(1, || 1), 1);
    clock.advance(secs(10));
    assert_eq!(cache.get_or_refresh_with(1, || 2), 1);
    assert_eq!(cache.get_or_refresh_with(1, || 3), 1);
    assert_eq!(calls.load(SeqCst), 1, "it is not due again immediately");
    clock.advance(secs(3));
    assert_eq!(cache.get_or_refresh_with(1, || 4), 1);
    assert_eq!(calls.load(SeqCst), 2);
    clock.advance(secs(3));
    // This one runs in the call, and its loader panics.
    assert_eq!(cache.get_or_refresh_with(1, || panic!("down")), 1);
    clock.advance(secs(3));
    assert_eq!(cache.get_or_refresh_with(1, || 5), 1);
    assert_eq!((cache.get(&1), calls.load(SeqCst)), (Some(5), 4));
    cache.run_pending();
    cache.validate();
}

#[test]
fn failure_is_cached_until_its_ttl_elapses() {
    let clock = ManualClock::new();
    let asked = AtomicUsize::new(0);
    let cache: Cache<u32, u32> = Cache::builder()
        .max_entries(100)
        .negative_ttl(secs(5))
        .clock(clock.clone())
        .build()
        .unwrap();
    let load = |outcome: Result<u32, &'static str>| {
        cache.try_get_or_insert_with(1, || {
            asked.fetch_add(1, SeqCst);
            outcome
        })
    };
    let failed = |outcome| matches!(outcome, Err(LoadError::Failed(error)) if *error == "down");
    assert!(failed(load(Err("down"))));
    assert!(failed(load(Ok(1))), "no loader runs");
    assert_eq!((asked.load(SeqCst), cache.get(&1)), (1, None));
    // A call with another error type ignores the cached failure.
    assert_eq!(cache.try_get_or_insert_with(1, || Ok::<_, u8>(1)).unwrap(), 1);
    cache.remove(&1);
    assert!(failed(load(Err("down"))), "removing the key ends it");
    clock.advance(secs(5));
    assert_eq!(load(Ok(2)).unwrap(), 2);
    assert_eq!(asked.load(SeqCst), 3);
    for end in 0..3 {
        cache.remove(&1);
        assert!(failed(load(Err("down"))));
        match end {
            0 => cache.insert(1, 1),
            1 => _ = cache.compute(1, |_| Some(1)),
            _ => cache.clear(),
        }
        if end < 2 {
            cache.remove(&1);
        }
        assert_eq!(load(Ok(9)).unwrap(), 9);
    }
}

#[test]
fn loader_sets_the_ttl_of_its_value() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = Cache::builder().max_entries(100).clock(clock.clone()).build().unwrap();
    assert_eq!(cache.get_or_insert_with_ttl(1, || (1, Ttl::After(secs(5)))), 1);
    assert_eq!(cache.get_or_insert_with_ttl(2, || (2, Ttl::Default)), 2);
    let failing = cache.try_get_or_insert_with_ttl(3, || Err::<(u32, Ttl), _>("down"));
    assert!(failing.is_err());
    assert_eq!(
        (cache.remaining(&1), cache.remaining(&2)),
        (Some(Some(secs(5))), Some(None))
    );
    clock.advance(secs(5));
    assert_eq!(cache.get_or_insert_with_ttl(1, || (10, Ttl::Never)), 10);
    assert_eq!(cache.remaining(&1), Some(None));
}

#[test]
fn stale_hits_are_those_past_the_refresh_age() {
    let clock = ManualClock::new();
    let cache = cache(&clock, |builder| builder.stale_if_error(secs(60)));
    cache.insert(1, 1);
    let stale_hits = || cache.stats().stale_hits;
    assert_eq!(load(&cache, Ok(2)), Ok(1));
    assert_eq!(stale_hits(), 0, "the value is fresh");
    clock.advance(secs(10));
    // The call that reloads, and in its loader one that gets the old value.
    let reloaded = cache.get_or_insert_with(1, || load(&cache, Ok(2)).unwrap() + 4);
    assert_eq!((reloaded, stale_hits()), (5, 2));
    assert_eq!(load(&cache, Ok(6)), Ok(5));
    assert_eq!(stale_hits(), 2, "the new value is fresh");
    clock.advance(secs(10));
    assert_eq!(load(&cache, Err("down")), Ok(5));
    assert_eq!(load(&cache, Ok(6)), Ok(5), "the time of the retry has not come");
    assert_eq!(stale_hits(), 4);
    clock.advance(secs(3));
    assert_eq!((load(&cache, Ok(7)), load(&cache, Ok(8))), (Ok(7), Ok(7)));
    assert_eq!((stale_hits(), cache.stats().hits), (5, 8));
}

#[test]
fn endless_refresh_age_makes_no_hit_stale() {
    let clock = ManualClock::new();
    let endless: Cache<u32, u32> = Cache::builder()
        .max_entries(10)
        .clock(clock.clone())
        .refresh_after(Duration::MAX)
        .build()
        .unwrap();
    endless.insert(1, 1);
    clock.advance(secs(1_000_000));
    assert_eq!((load(&endless, Ok(2)), endless.stats().stale_hits), (Ok(1), 0));
}
