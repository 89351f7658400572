//! Defects that were found and mended, each held down by the sequence that showed it.

use hotset::{Cache, ManualClock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn builder<K: 'static, V: 'static>(clock: &ManualClock) -> hotset::Builder<K, V> {
    Cache::builder().max_entries(100_000).clock(clock.clone())
}

#[test]
fn a_load_that_was_overtaken_does_not_come_in_when_the_newer_value_is_over() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = builder(&clock).time_to_live(100 * SECOND).build().unwrap();
    cache.get_or_insert_with(1, || {
        cache.insert_with_ttl(1, 2, Duration::ZERO);
        1
    });
    assert_eq!(cache.get(&1), None);
}

#[test]
fn a_listener_that_looks_at_the_cache_does_not_nest() {
    static CACHE: OnceLock<Cache<u32, u32>> = OnceLock::new();
    static DEPTH: AtomicUsize = AtomicUsize::new(0);
    static HEARD: AtomicUsize = AtomicUsize::new(0);
    let clock = ManualClock::new();
    let listener = |_: &u32, _: &u32, _| {
        assert!(DEPTH.fetch_add(1, SeqCst) < 3);
        assert!(!CACHE.get().unwrap().contains_key(&1));
        DEPTH.fetch_sub(1, SeqCst);
        HEARD.fetch_add(1, SeqCst);
    };
    let cache = builder(&clock)
        .time_to_live(SECOND)
        .on_removal(listener)
        .build()
        .unwrap();
    _ = CACHE.set(cache.clone());
    (0..20_000).for_each(|key| cache.insert(key, key));
    clock.advance(2 * SECOND);
    cache.get(&7);
    cache.run_pending();
    assert_eq!((HEARD.load(SeqCst), cache.len()), (20_000, 0));
}

#[test]
fn housekeeping_ends_though_the_clock_goes_back() {
    /// The time in milliseconds, and how often it may still be asked for.
    struct Back(AtomicU64, AtomicU64);
    impl hotset::Clock for Back {
        fn now(&self) -> Duration {
            let left = self.1.fetch_sub(1, SeqCst);
            assert_ne!(left, 0, "the housekeeping goes round");
            Duration::from_millis(self.0.load(SeqCst))
        }
    }
    let clock = Arc::new(Back(AtomicU64::new(1_000_000), AtomicU64::new(1_000)));
    let built = Cache::builder()
        .max_entries(1000)
        .time_to_live(SECOND)
        .clock(clock.clone())
        .build();
    let cache: Cache<u32, u32> = built.unwrap();
    (0..200).for_each(|key| cache.insert(key, key));
    cache.run_pending();
    clock.0.store(2_000_000, SeqCst);
    // Until the wheel has come to the tick in which all of them end, and some have been taken out.
    while cache.stats().expirations == 0 {}
    assert!(cache.stats().expirations < 200, "as many are left as one look leaves");
    clock.0.store(1_000_000, SeqCst);
    cache.run_pending();
    cache.validate();
}

#[test]
fn an_event_is_not_lost_when_the_clock_panics() {
    struct Frail(Arc<AtomicBool>, Arc<AtomicUsize>);
    impl hotset::Clock for Frail {
        fn now(&self) -> Duration {
            let left = self.1.load(SeqCst);
            self.1.store(left.saturating_sub(1), SeqCst);
            assert!(left != 1 || !self.0.load(SeqCst), "the clock is broken");
            Duration::ZERO
        }
    }
    for operation in 0..3 {
        for call in 1..8 {
            let (armed, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let clock = Frail(armed.clone(), left.clone());
            let cache: Cache<u32, Arc<()>> = Cache::builder()
                .max_entries(1000)
                .time_to_live(SECOND)
                .clock(clock)
                .build()
                .unwrap();
            let value = Arc::new(());
            cache.insert(1, value.clone());
            cache.insert(2, value.clone());
            cache.run_pending();
            left.store(call, SeqCst);
            armed.store(true, SeqCst);
            _ = catch_unwind(AssertUnwindSafe(|| match operation {
                0 => cache.insert(1, value.clone()),
                1 => drop(cache.remove(&1)),
                _ => drop(cache.get_or_insert_with(3, || value.clone())),
            }));
            armed.store(false, SeqCst);
            cache.run_pending();
            cache.validate();
            drop(cache);
            assert_eq!(Arc::strong_count(&value), 1, "operation {operation}, call {call}");
        }
    }
}

#[test]
fn a_removal_that_was_declined_does_not_end_reloading() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = builder(&clock).refresh_after(10 * SECOND).build().unwrap();
    cache.insert(1, 1);
    clock.advance(11 * SECOND);
    cache.get_or_insert_with(1, || {
        cache.remove_if(&1, |_, _| false);
        2
    });
    clock.advance(11 * SECOND);
    assert_eq!(cache.get_or_insert_with(1, || 3), 3);
}

#[test]
fn a_fresh_value_is_not_reloaded_early() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = builder(&clock).refresh_after(100 * SECOND).build().unwrap();
    cache.insert(1, 1);
    clock.advance(101 * SECOND);
    _ = cache.try_get_or_insert_with(1, || {
        cache.insert(1, 2);
        Err::<u32, &str>("down")
    });
    clock.advance(30 * SECOND);
    assert_eq!(cache.get_or_insert_with(1, || unreachable!("it is 30 seconds old")), 2);
}

#[test]
fn a_source_that_fails_slowly_gets_its_grace() {
    let clock = ManualClock::new();
    let built = builder(&clock).time_to_live(60 * SECOND).refresh_after(50 * SECOND);
    let cache: Cache<u32, u32> = built.stale_if_error(1000 * SECOND).build().unwrap();
    cache.insert(1, 1);
    clock.advance(55 * SECOND);
    let value = cache.try_get_or_insert_with(1, || {
        clock.advance(30 * SECOND);
        Err("timeout")
    });
    assert_eq!((value.unwrap(), cache.get(&1)), (1, Some(1)));
}

#[test]
fn a_success_ends_a_failure() {
    let clock = ManualClock::new();
    let built = builder(&clock).negative_ttl(100 * SECOND).time_to_live(SECOND);
    let cache: Cache<u32, u32> = built.build().unwrap();
    _ = cache.try_get_or_insert_with(1, || Err::<u32, u8>(1));
    cache.get_or_insert_with(1, || 5);
    clock.advance(2 * SECOND);
    assert_eq!(cache.try_get_or_insert_with(1, || Ok::<_, u8>(6)).unwrap(), 6);
}

#[test]
fn anothers_panic_does_not_undo_a_call() {
    let clock = ManualClock::new();
    let listener = |key: &u32, _: &u32, _| assert_ne!(*key, 1, "the listener panics");
    let cache = builder(&clock)
        .time_to_live(SECOND)
        .on_removal(listener)
        .build()
        .unwrap();
    cache.insert(1, 1);
    cache.run_pending();
    clock.advance(2 * SECOND);
    assert!(catch_unwind(AssertUnwindSafe(|| cache.insert(2, 2))).is_err());
    assert_eq!(cache.get(&2), Some(2));
}

#[test]
fn a_short_time_to_idle_is_prolonged() {
    let clock = ManualClock::new();
    let cache: Cache<u32, u32> = builder(&clock).time_to_idle(Duration::from_millis(1)).build().unwrap();
    cache.insert(1, 1);
    for _ in 0..5 {
        clock.advance(Duration::from_micros(400));
        assert_eq!(cache.get(&1), Some(1));
    }
}

#[test]
fn a_batch_of_lookups_frees_what_is_over() {
    let clock = ManualClock::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let listener = move |_: &u32, _: &u32, _| _ = count.fetch_add(1, SeqCst);
    let cache = builder(&clock)
        .time_to_live(SECOND)
        .on_removal(listener)
        .build()
        .unwrap();
    (0..500).for_each(|key| cache.insert(key, key));
    clock.advance(2 * SECOND);
    (0..1000).for_each(|_| drop(cache.get_many([&1, &2, &3])));
    assert_eq!(heard.load(SeqCst), 500);
}

#[test]
fn a_computation_that_keeps_a_key_absent_removes_nothing_it_did_not_see() {
    let cache: Cache<u32, u32> = Cache::new(100);
    cache.get_or_insert_with(1, || {
        let mut seen = Vec::new();
        cache.compute(1, |current| {
            if seen.is_empty() {
                std::thread::scope(|scope| _ = scope.spawn(|| cache.insert(1, 5)));
            }
            seen.push(current);
            current
        });
        assert_eq!(seen, [None, Some(5)]);
        1
    });
    assert_eq!(cache.get(&1), Some(5));
}
