//! Time to live, time to idle, per-entry TTLs and custom expiry, under a manual clock.

use hotset::{Cache, Cause, Clock, Expiry, ManualClock, Policy, Ttl};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

type Log = Arc<Mutex<Vec<(u32, u32, Cause)>>>;

fn cache(
    clock: &ManualClock,
    set: impl FnOnce(hotset::Builder<u32, u32>) -> hotset::Builder<u32, u32>,
) -> (Cache<u32, u32>, Log) {
    let log = Log::default();
    let seen = log.clone();
    let builder = Cache::builder()
        .max_entries(100)
        .clock(clock.clone())
        .on_removal(move |k: &u32, v: &u32, cause| seen.lock().unwrap().push((*k, *v, cause)));
    (set(builder).build().unwrap(), log)
}

fn taken(log: &Log) -> Vec<(u32, u32, Cause)> {
    let mut log = std::mem::take(&mut *log.lock().unwrap());
    log.sort_by_key(|entry| entry.0);
    log
}

#[test]
fn entry_due_at_the_start_of_a_tick_is_freed() {
    // The cache's timestamps begin at 1, so this deadline is 2^20, where a tick of the wheel
    // begins.
    let clock = ManualClock::new();
    let life = Duration::from_nanos((1 << 20) - 1);
    let (cache, log) = cache(&clock, |builder| builder.time_to_live(life));
    cache.insert(1, 10);
    cache.run_pending();
    clock.advance(life);
    cache.run_pending();
    assert_eq!(taken(&log), [(1, 10, Cause::Expired)]);
}

#[test]
fn expired_entry_is_a_miss_and_freed_by_next_call() {
    let clock = ManualClock::new();
    let (cache, log) = cache(&clock, |builder| builder.time_to_live(secs(10)));
    cache.insert(1, 10);
    clock.advance(secs(5));
    cache.insert(2, 20);
    clock.advance(secs(5) - Duration::from_nanos(1));
    assert_eq!(cache.get(&1), Some(10));
    clock.advance(Duration::from_nanos(1));
    assert_eq!(cache.get(&1), None);
    assert!(!cache.contains_key(&1));
    assert_eq!(cache.get_many([&1, &2]), [None, Some(20)]);
    assert_eq!(cache.reader().get(&1), None);
    assert_eq!(cache.iter().collect::<Vec<_>>(), [(2, 20)]);
    assert_eq!(cache.reader().hottest().count(), 1);
    assert_eq!(cache.remove(&1), None);
    // A tick later the wheel has advanced, and any operation frees the entry: this one concerns
    // another key.
    clock.advance(millis(2));
    assert_eq!(cache.get(&2), Some(20));
    assert_eq!(taken(&log), [(1, 10, Cause::Expired)]);
    assert_eq!((cache.len(), cache.stats().expirations), (1, 1));
    clock.advance(secs(1000));
    assert!(cache.is_empty());
    assert_eq!(taken(&log), [(2, 20, Cause::Expired)]);
    cache.run_pending();
    cache.validate();
}

#[test]
fn removal_of_an_expired_entry_reports_expired() {
    let clock = ManualClock::new();
    let (cache, log) = cache(&clock, |builder| builder.time_to_live(secs(1)));
    for key in 0..4 {
        cache.insert(key, key);
    }
    cache.run_pending();
    clock.advance(secs(1));
    // Within the wheel's tick: the calls themselves detect expired entries.
    assert_eq!(cache.remove(&0), None);
    cache.insert(1, 100);
    assert_eq!(
        cache.compute(2, |current| current.map(|_| unreachable!("it has expired"))),
        None
    );
    assert_eq!(cache.get_or_insert_with(3, || 300), 300);
    let expired: Vec<_> = (0..4).map(|key| (key, key, Cause::Expired)).collect();
    assert_eq!(taken(&log), expired);
    assert_eq!((cache.get(&1), cache.get(&3)), (Some(100), Some(300)));
    assert_eq!(cache.stats().expirations, 4);
    cache.run_pending();
    cache.validate();
}

#[test]
fn hit_extends_the_idle_deadline() {
    let clock = ManualClock::new();
    let (cache, log) = cache(&clock, |builder| builder.time_to_idle(secs(10)).time_to_live(secs(60)));
    cache.insert(1, 1);
    cache.insert(2, 2);
    for _ in 0..7 {
        clock.advance(secs(8));
        assert_eq!(cache.get(&1), Some(1));
    }
    assert_eq!(cache.get(&2), None);
    cache.run_pending();
    cache.validate();
    assert_eq!(taken(&log), [(2, 2, Cause::Expired)]);
    // After 56 seconds the time to live expires it in 4 more, used or not.
    assert_eq!(cache.remaining(&1), Some(Some(secs(4))));
    clock.advance(secs(4));
    assert_eq!(cache.get(&1), None);
    clock.advance(secs(1));
    assert_eq!(cache.len(), 0);
}

#[test]
fn entry_ttl_works_in_a_cache_without_expiration() {
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random] {
        let clock = ManualClock::new();
        let (cache, log) = cache(&clock, |builder| builder.policy(policy));
        cache.insert(1, 1);
        cache.insert_with_ttl(2, 2, secs(5));
        cache.insert_with_ttl(3, 3, Ttl::Never);
        cache.insert_with_ttl(4, 4, Duration::ZERO);
        assert_eq!(cache.get(&4), None);
        assert_eq!(cache.remaining(&1), Some(None));
        assert_eq!(cache.remaining(&2), Some(Some(secs(5))));
        assert_eq!(cache.remaining(&4), None);
        clock.advance(secs(6));
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some(1), None, Some(3)));
        cache.run_pending();
        cache.validate();
        assert_eq!(taken(&log), [(2, 2, Cause::Expired), (4, 4, Cause::Expired)]);
        // Replaced by an entry without a deadline, its timer is gone.
        cache.insert_with_ttl(1, 10, secs(5));
        cache.insert(1, 11);
        clock.advance(secs(100));
        assert_eq!(cache.get(&1), Some(11));
        cache.run_pending();
        cache.validate();
        assert_eq!(cache.len(), 2);
    }
}

#[test]
fn entry_ttl_overrides_the_cache_ttl() {
    let clock = ManualClock::new();
    let (cache, _) = cache(&clock, |builder| builder.time_to_live(secs(10)));
    cache.insert_with_ttl(1, 1, secs(100));
    cache.insert_with_ttl(2, 2, Ttl::Never);
    cache.insert_with_ttl(3, 3, secs(1));
    cache.insert_with_ttl(4, 4, Duration::MAX);
    clock.advance(secs(50));
    assert_eq!(
        [1, 2, 3, 4].map(|key| cache.get(&key)),
        [Some(1), Some(2), None, Some(4)]
    );
    clock.advance(secs(1 << 33));
    assert_eq!([1, 2, 4].map(|key| cache.get(&key)), [None, Some(2), Some(4)]);
}

#[test]
fn compute_resets_or_keeps_the_deadline() {
    let clock = ManualClock::new();
    let (cache, _) = cache(&clock, |builder| builder.time_to_live(secs(10)));
    let more = |n: Option<u32>| n.unwrap_or(0) + 1;
    cache.compute(1, |n| Some(more(n)));
    cache.compute_with_ttl(2, |n| Some((more(n), Ttl::Keep)));
    clock.advance(secs(6));
    assert_eq!(cache.compute(1, |n| Some(more(n))), Some(2));
    assert_eq!(cache.compute_with_ttl(2, |n| Some((more(n), Ttl::Keep))), Some(2));
    clock.advance(secs(6));
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(2), None));
    assert_eq!(
        cache.compute_with_ttl(2, |n| Some((more(n), Ttl::After(secs(1))))),
        Some(1)
    );
    clock.advance(secs(1));
    assert_eq!(cache.get(&2), None);
}

/// TTLs in seconds, encoded in the value: on insertion, after updates, after reads; 0 for none.
struct ByValue;

impl Expiry<u32, u32> for ByValue {
    fn after_create(&self, _: &u32, value: &u32) -> Option<Duration> {
        (*value > 0).then(|| secs(u64::from(*value)))
    }

    fn after_update(&self, _: &u32, value: &u32, remaining: Option<Duration>) -> Option<Duration> {
        if *value == 1000 { remaining } else { Some(secs(2)) }
    }

    fn after_read(&self, key: &u32, _: &u32, remaining: Option<Duration>) -> Option<Duration> {
        if *key == 7 { Some(secs(1)) } else { remaining }
    }
}

#[test]
fn custom_expiry_sets_deadlines() {
    let clock = ManualClock::new();
    let (cache, log) = cache(&clock, |builder| builder.expiry(ByValue));
    cache.insert(1, 5);
    cache.insert(2, 0);
    cache.insert(3, 9);
    cache.insert(3, 1000);
    cache.insert(4, 9);
    cache.insert(4, 9);
    cache.insert(7, 50);
    assert_eq!(
        [1, 2, 3, 4].map(|key| cache.remaining(&key).unwrap()),
        [Some(secs(5)), None, Some(secs(9)), Some(secs(2))]
    );
    assert_eq!(cache.get(&7), Some(50));
    assert_eq!(
        cache.remaining(&7),
        Some(Some(secs(1))),
        "a read may bring the end nearer"
    );
    cache.run_pending();
    taken(&log);
    clock.advance(secs(1) + millis(2));
    assert_eq!(cache.get(&1), Some(5));
    assert_eq!(taken(&log), [(7, 50, Cause::Expired)], "and the entry is freed then");
    clock.advance(secs(1000));
    cache.run_pending();
    assert_eq!(cache.iter().collect::<Vec<_>>(), [(2, 0)]);
    cache.validate();
}

#[test]
fn jitter_spreads_deadlines() {
    let clock = ManualClock::new();
    let build = |jitter| {
        let builder = Cache::builder().max_entries(10_000).clock(clock.clone());
        builder.time_to_live(secs(100)).jitter(jitter).build().unwrap()
    };
    let cache: Cache<u32, u32> = build(0.2);
    (0..1000).for_each(|key| cache.insert(key, key));
    let mut left: Vec<_> = (0..1000).map(|key| cache.remaining(&key).unwrap().unwrap()).collect();
    left.sort();
    assert!(left[0] > secs(80) && left[0] < secs(81) && left[999] <= secs(100) && left[999] > secs(99));
    let mean = left.iter().sum::<Duration>() / 1000;
    assert!((secs(89)..secs(91)).contains(&mean), "{mean:?}");
    let even: Cache<u32, u32> = build(0.0);
    even.insert(1, 1);
    assert_eq!(even.remaining(&1), Some(Some(secs(100))));
}

#[test]
fn invalid_settings_fail_to_build() {
    let build = |set: fn(hotset::Builder<u32, u32>) -> hotset::Builder<u32, u32>| {
        set(Cache::builder().max_entries(1)).build().unwrap_err().to_string()
    };
    assert!(build(|b| b.time_to_live(Duration::ZERO)).contains("longer than zero"));
    assert!(build(|b| b.time_to_idle(Duration::ZERO)).contains("longer than zero"));
    assert!(build(|b| b.ticker(Duration::ZERO)).contains("longer than zero"));
    for jitter in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        let built = Cache::<u32, u32>::builder().max_entries(1).jitter(jitter).build();
        assert!(built.unwrap_err().to_string().contains("jitter"));
    }
}

#[test]
fn burst_of_expirations_is_freed_in_portions() {
    let clock = ManualClock::new();
    let gone = Arc::new(AtomicUsize::new(0));
    let count = gone.clone();
    let cache: Cache<u32, u32> = Cache::builder()
        .max_entries(200_000)
        .time_to_live(secs(1))
        .clock(clock.clone())
        .on_removal(move |_, _, _| _ = count.fetch_add(1, SeqCst))
        .build()
        .unwrap();
    (0..100_000).for_each(|key| cache.insert(key, key));
    cache.run_pending();
    assert_eq!(gone.load(SeqCst), 0);
    clock.advance(secs(2));
    // Timers that move to lower levels of the wheel count, too.
    for _ in 0..10_000 {
        let before = gone.load(SeqCst);
        assert_eq!(cache.get(&7), None);
        let freed = gone.load(SeqCst) - before;
        assert!(freed <= 64, "{freed} in one call");
    }
    assert_eq!(gone.load(SeqCst), 100_000);
    cache.run_pending();
    assert_eq!((gone.load(SeqCst), cache.len()), (100_000, 0));
    cache.validate();
}

#[test]
fn ticker_frees_while_idle_and_stops_with_cache() {
    let expired = Arc::new(AtomicUsize::new(0));
    let count = expired.clone();
    let cache: Cache<u32, Arc<()>> = Cache::builder()
        .max_entries(100)
        .time_to_live(millis(20))
        .ticker(millis(5))
        .on_removal(move |_, _, cause| {
            assert_eq!(std::thread::current().name(), Some("hotset-ticker"));
            assert_eq!(cause, Cause::Expired);
            count.fetch_add(1, SeqCst);
        })
        .build()
        .unwrap();
    let value = Arc::new(());
    cache.insert(1, value.clone());
    while expired.load(SeqCst) == 0 {
        std::thread::sleep(millis(1));
    }
    while Arc::strong_count(&value) > 1 {
        std::thread::sleep(millis(1));
    }
    // The thread's reference to the cache is weak: dropping the handle frees what is in it.
    cache.insert(2, value.clone());
    drop(cache);
    assert_eq!(
        Arc::strong_count(&value),
        1,
        "the drop of the last handle waits for the thread"
    );
}

/// Whatever the ticker does when the last handle is dropped, it has ended and all is freed when the
/// drop returns.
#[test]
fn last_handle_dropped_beside_ticker_waits() {
    for _ in 0..20 {
        let (enter, entered) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (enter, released) = (Mutex::new(enter), Mutex::new(released));
        let finished = Arc::new(AtomicUsize::new(0));
        let finish = finished.clone();
        let cache: Cache<u32, Arc<()>> = Cache::builder()
            .max_entries(100)
            .time_to_live(millis(2))
            .ticker(millis(1))
            .on_removal(move |key, _, _| {
                if *key == 1 {
                    enter.lock().unwrap().send(()).unwrap();
                    _ = released.lock().unwrap().recv();
                    finish.fetch_add(1, SeqCst);
                }
            })
            .build()
            .unwrap();
        let value = Arc::new(());
        cache.insert(1, value.clone());
        entered.recv().unwrap();
        (2..50).for_each(|key| cache.insert(key, value.clone()));
        let other = std::thread::spawn(move || {
            // By then the drop below has most likely begun.
            (0..200).for_each(|_| std::thread::yield_now());
            release.send(()).unwrap();
        });
        drop(cache);
        assert_eq!((finished.load(SeqCst), Arc::strong_count(&value)), (1, 1));
        other.join().unwrap();
    }
}

/// A value whose destructor drops a handle.
#[derive(Clone)]
#[expect(dead_code, reason = "its fields are only dropped")]
struct Holds(Option<Cache<u32, Holds>>, Arc<()>);

/// The ticker thread does not wait for itself, nor for another cache's.
#[test]
fn last_handle_dropped_by_a_ticker_does_not_deadlock() {
    let build = || -> Cache<u32, Holds> {
        Cache::builder()
            .max_entries(100)
            .time_to_live(millis(1))
            .ticker(millis(1))
            .build()
            .unwrap()
    };
    for _ in 0..50 {
        let value = Arc::new(());
        let (own, one, other) = (build(), build(), build());
        own.insert(1, Holds(Some(own.clone()), value.clone()));
        one.insert(1, Holds(Some(other.clone()), value.clone()));
        other.insert(1, Holds(Some(one.clone()), value.clone()));
        drop((own, one, other));
        while Arc::strong_count(&value) > 1 {
            std::thread::yield_now();
        }
    }
}

/// A faulty clock: it jumps back.
struct Broken(Arc<AtomicU64>);

impl Clock for Broken {
    fn now(&self) -> Duration {
        secs(self.0.load(SeqCst))
    }
}

#[test]
fn clock_that_jumps_harms_nothing() {
    let time = Arc::new(AtomicU64::new(1_000_000));
    let cache: Cache<u32, u32> = Cache::builder()
        .max_entries(100)
        .time_to_live(secs(10))
        .clock(Broken(time.clone()))
        .build()
        .unwrap();
    for (step, now) in [1_000_000, 5, 1_000_005, 0, 1 << 33, 17].into_iter().enumerate() {
        time.store(now, SeqCst);
        let key = step as u32;
        cache.insert(key, key);
        assert_eq!(cache.get(&key), Some(key));
        cache.run_pending();
        cache.validate();
    }
    time.store(1 << 34, SeqCst);
    cache.run_pending();
    assert_eq!(cache.len(), 0);
}
