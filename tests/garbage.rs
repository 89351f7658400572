//! How soon, and in what portions, removed entries are freed, and what a reader delays.
//! (crossbeam-epoch decides by itself when it checks the readers, and has one domain for all
//! caches.)
#![cfg(not(feature = "crossbeam"))]

use hotset::{Cache, ManualClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Counts the live values of a test.
#[derive(Clone, Default)]
struct Living(Arc<AtomicUsize>);

struct Value(Living);

impl Living {
    fn value(&self) -> Arc<Value> {
        self.0.fetch_add(1, Relaxed);
        Arc::new(Value(self.clone()))
    }

    fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

type Shared = Cache<u64, Arc<Value>>;

/// The most values that may wait to be freed, whatever the capacity.
const FEW: usize = 8;

#[test]
fn overwritten_key_retains_few_values() {
    for capacity in [1, 4, 100, 10_000, 10_000_000] {
        let (cache, living) = (Shared::new(capacity), Living::default());
        let mut peak = 0;
        for _ in 0..1000 {
            cache.insert(1, living.value());
            peak = peak.max(living.count());
        }
        assert!(peak <= FEW, "capacity {capacity}: {peak} values of one key");
    }
}

#[test]
fn removed_values_are_freed_within_few_calls() {
    for capacity in [100, 10_000, 10_000_000] {
        let (cache, living) = (Shared::new(capacity), Living::default());
        (0..60).for_each(|key| cache.insert(key, living.value()));
        (0..60).for_each(|key| drop(cache.remove(&key)));
        assert!(living.count() < FEW, "capacity {capacity}: {}", living.count());
        assert_eq!(cache.len(), 0);
        assert_eq!(living.count(), 0, "capacity {capacity}: `len` applies what waits");
    }
}

#[test]
fn expired_values_are_freed_by_a_few_gets() {
    let (clock, living) = (Arc::new(ManualClock::new()), Living::default());
    let builder = Shared::builder().max_entries(100_000).clock(clock.clone());
    let cache = builder.time_to_live(Duration::from_secs(1)).build().unwrap();
    (0..60).for_each(|key| cache.insert(key, living.value()));
    let reader = cache.reader();
    clock.advance(Duration::from_secs(2));
    (0..FEW).for_each(|_| assert!(cache.get(&7).is_none()));
    assert_eq!(living.count(), 60, "a reader may see them");
    drop(reader);
    clock.advance(Duration::from_millis(2));
    (0..FEW).for_each(|_| assert!(cache.get(&7).is_none()));
    assert_eq!(living.count(), 0, "gets look again for what a reader held up");
    (0..60).for_each(|key| cache.insert(key, living.value()));
    clock.advance(Duration::from_secs(2));
    (0..FEW).for_each(|_| assert!(cache.get(&7).is_none()));
    assert_eq!(living.count(), 0);
}

#[test]
fn reader_delays_freeing_of_its_cache_only() {
    let (idle, busy, living) = (Shared::new(10), Shared::new(10), Living::default());
    idle.insert(1, living.value());
    std::thread::scope(|scope| {
        let (entered, is_entered) = std::sync::mpsc::channel();
        let (leave, may_leave) = std::sync::mpsc::channel::<()>();
        let idle = &idle;
        scope.spawn(move || {
            idle.get_with(&1, |_| {
                entered.send(()).unwrap();
                _ = may_leave.recv();
            })
        });
        is_entered.recv().unwrap();
        for key in 0..10_000 {
            busy.insert(key, living.value());
            assert!(living.count() <= 1 + 10 + FEW, "{}", living.count());
        }
        drop(leave);
    });
}

#[test]
fn leaked_reader_delays_freeing_of_its_cache_only() {
    let (cache, living) = (Shared::new(10), Living::default());
    let use_both = |forgotten: &Shared| {
        for key in 0..1000 {
            forgotten.insert(key, living.value());
            cache.insert(key, living.value());
            assert!(cache.get(&key).is_none_or(|value| Arc::strong_count(&value) >= 2));
        }
    };
    // In a thread that ends, and in this one, which continues to use other caches.
    for here in [false, true] {
        let forgotten = Shared::new(10);
        forgotten.insert(1, living.value());
        let forget = || {
            let reader = forgotten.reader();
            assert!(reader.get(&1).is_some());
            std::mem::forget(reader);
            use_both(&forgotten);
        };
        if here {
            forget();
        } else {
            std::thread::scope(|scope| _ = scope.spawn(forget));
        }
        use_both(&forgotten);
        cache.run_pending();
        forgotten.run_pending();
        assert_eq!(
            living.count(),
            cache.len() + 2001,
            "what the leaked reader may see is kept"
        );
        drop(forgotten);
        assert_eq!(living.count(), cache.len(), "until its cache is dropped");
    }
}

#[test]
fn leaked_reader_keeps_found_values_alive() {
    let cache: &'static Shared = Box::leak(Box::new(Shared::new(10)));
    let living = Living::default();
    cache.insert(1, living.value());
    // Its thread has ended, and the value is still borrowed.
    let find = || Box::leak(Box::new(cache.reader())).get(&1).unwrap();
    let value: &'static Arc<Value> = std::thread::spawn(find).join().unwrap();
    cache.remove(&1);
    (0..1000).for_each(|key| cache.insert(key, living.value()));
    cache.run_pending();
    assert_eq!((Arc::strong_count(value), value.0.count()), (1, 1001));
}

#[test]
fn backlog_is_freed_in_bounded_portions() {
    const BACKLOG: usize = 50_000;
    /// The entries that a visit unlinked, and 64 more.
    const PORTION: usize = 200;
    let (cache, living) = (Shared::new(1000), Living::default());
    let reader = cache.reader();
    (0..BACKLOG as u64).for_each(|key| cache.insert(key, living.value()));
    assert!(living.count() >= BACKLOG - 100);
    drop(reader);
    let mut calls = 0;
    while living.count() > 1200 {
        let before = living.count();
        cache.insert(calls, living.value());
        let freed = before + 1 - living.count();
        assert!(freed <= PORTION, "one call freed {freed} values");
        calls += 1;
        assert!(calls < BACKLOG as u64, "freeing keeps up with the insertions");
    }
    // One call may free all garbage if that is its purpose.
    let reader = cache.reader();
    (0..BACKLOG as u64).for_each(|key| cache.insert(key, living.value()));
    drop(reader);
    cache.run_pending();
    assert_eq!(living.count(), cache.len());
}

/// Retired entries are visited alive, even if the caller has all of them freed during the visit.
#[test]
fn unlinked_entries_stay_alive_while_visited() {
    let (cache, living) = (Shared::new(4096), Living::default());
    let reader = cache.reader();
    (0..2000).for_each(|key| cache.insert(key, living.value()));
    cache.clear();
    drop(reader);
    let (mut values, mut most) = (Vec::new(), 0);
    hotset::raw::visit_unlinked(&cache, |_, value| {
        if values.is_empty() {
            cache.run_pending();
        }
        // A dropped value would not have a count of at least one.
        assert!(Arc::strong_count(value) >= 1 && living.count() == 2000);
        values.push(Arc::as_ptr(value));
        most = most.max(values.len());
    });
    assert_eq!(most, 2000);
    cache.run_pending();
    assert_eq!(living.count(), 0);
}
