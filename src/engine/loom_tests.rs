//! Loom models of the rings, the maintenance lock, and the whole engine. Nothing is freed before
//! the engine is dropped (reclamation has its own models). By then every entry must be in the limbo
//! once, or in the map.

use super::maintenance_lock::{Held, MaintenanceLock, PATIENCE, Waited};
use super::*;
use crate::clock::TimeSource;
use crate::prim::ring::Ring;
use crate::reclaim::INDEX;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

/// A model of `record` and `maintain` with a sum in place of the core.
struct Sum {
    lock: MaintenanceLock,
    rings: Vec<Ring>,
    sum: loom::cell::UnsafeCell<u64>,
}

// SAFETY: that the sum is only touched under the lock is what loom checks.
unsafe impl Sync for Sum {}
// SAFETY: as above.
unsafe impl Send for Sum {}

impl Sum {
    fn new(threads: usize, room: usize) -> Arc<Self> {
        let sum = loom::cell::UnsafeCell::new(0);
        Arc::new(Self {
            lock: MaintenanceLock::new(),
            rings: (0..threads).map(|_| Ring::new(room)).collect(),
            sum,
        })
    }

    fn record(&self, thread: usize, add: u64, most: usize) {
        let ring = &self.rings[thread];
        ring.push([add, add]).expect("a ring never overflows");
        let held = match self.lock.try_lock() {
            Some(held) => held,
            None if ring.len() < most => return,
            None => match self.lock.lock_unless(Some(PATIENCE), || ring.len() < most).unwrap() {
                Waited::Held(held) => held,
                Waited::Done => return,
                Waited::NoProgress => unreachable!("models have no timeouts"),
            },
        };
        self.maintain(&held);
        held.unlock();
    }

    fn maintain(&self, _: &Held<'_>) {
        for ring in &self.rings {
            ring.drain(|batch| {
                for [first, second] in batch {
                    assert_eq!(first, second, "a pair stays together");
                    // SAFETY: the lock is held; checked by loom.
                    self.sum.with_mut(|at| unsafe { *at += first });
                }
            });
        }
    }

    fn check(&self, sum: u64) {
        let held = self.lock.try_lock().expect("the lock is free");
        self.maintain(&held);
        // SAFETY: as above.
        assert_eq!(self.sum.with(|at| unsafe { *at }), sum, "nothing is lost or done twice");
        held.unlock();
    }
}

/// Has every thread record `each` events, of which fewer than `most` may wait.
fn hand_over(most: usize, threads: u64, each: u64) {
    loom::model(move || {
        let sum = Sum::new(threads as usize, most);
        let record = move |sum: &Sum, thread: u64| {
            (0..each).for_each(|n| sum.record(thread as usize, 1 << (8 * (thread * each + n)), most));
        };
        let others: Vec<_> = (1..threads)
            .map(|n| {
                let sum = sum.clone();
                thread::spawn(move || record(&sum, n))
            })
            .collect();
        record(&sum, 0);
        others.into_iter().for_each(|other| other.join().unwrap());
        sum.check((0..threads * each).map(|n| 1 << (8 * n)).sum());
    });
}

#[test]
fn loom_rings_two_threads() {
    hand_over(4, 2, 2);
}

#[test]
fn loom_rings_three_threads() {
    hand_over(4, 3, 1);
}

#[test]
fn loom_rings_full() {
    hand_over(2, 2, 4);
}

#[test]
fn loom_rings_no_slack() {
    hand_over(1, 2, 2);
}

/// A counter that the lock protects.
struct Locked {
    lock: MaintenanceLock,
    count: loom::cell::UnsafeCell<u64>,
}

// SAFETY: that the count is only touched under the lock is what loom checks.
unsafe impl Sync for Locked {}
// SAFETY: as above.
unsafe impl Send for Locked {}

impl Locked {
    fn add(&self, held: Held<'_>) {
        // SAFETY: the lock is held; checked by loom.
        self.count.with_mut(|at| unsafe { *at += 1 });
        held.unlock();
    }
}

/// Runs `threads` concurrently on one lock. A thread that waits forever is a deadlock, which loom
/// reports.
fn lock<const N: usize>(threads: [fn(&Locked); N], counts: std::ops::RangeInclusive<u64>) {
    loom::model(move || {
        let locked = Arc::new(Locked {
            lock: MaintenanceLock::new(),
            count: loom::cell::UnsafeCell::new(0),
        });
        let others: Vec<_> = threads[1..]
            .iter()
            .map(|&run| {
                let locked = locked.clone();
                thread::spawn(move || run(&locked))
            })
            .collect();
        threads[0](&locked);
        others.into_iter().for_each(|other| other.join().unwrap());
        // SAFETY: the other threads have ended.
        assert!(counts.contains(&locked.count.with(|at| unsafe { *at })));
    });
}

fn lock_and_add(locked: &Locked) {
    locked.add(locked.lock.lock().unwrap());
}

#[test]
fn loom_maintenance_lock_two_threads() {
    lock(
        [
            |locked| (0..2).for_each(|_| lock_and_add(locked)),
            |locked| (0..2).for_each(|_| lock_and_add(locked)),
        ],
        4..=4,
    );
}

#[test]
fn loom_maintenance_lock_two_waiters() {
    lock([lock_and_add; 3], 3..=3);
}

#[test]
fn loom_maintenance_lock_poisoned_with_waiters() {
    let add_or_fail = |locked: &Locked| {
        if let Ok(held) = locked.lock.lock() {
            locked.add(held);
        }
    };
    // Dropped without an unlock, as by a panic.
    let poison = |locked: &Locked| drop(locked.lock.lock().unwrap());
    lock([poison, add_or_fail, add_or_fail], 0..=2);
}

/// A value that counts its drops.
struct Value(Arc<Count>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

struct Case {
    engine: Engine<u64, Value>,
    made: Count,
    dropped: Arc<Count>,
}

impl Case {
    fn insert(&self, key: u64) {
        self.made.fetch_add(1, SeqCst);
        let guard = self.engine.pin();
        let value = Value(self.dropped.clone());
        let new = self.engine.make(key << 32, (key, value), 1, None, &guard);
        self.engine.insert(key << 32, new, |a, b| a == b, guard);
    }

    fn remove(&self, key: u64) -> bool {
        self.engine
            .remove(key << 32, |other| *other == key, |_| true, false, |_| ())
            .is_some()
    }

    fn check(&self) {
        let engine = &self.engine;
        engine.work.0.lock.try_lock().expect("the lock is free").unlock();
        engine.validate();
        assert_eq!(self.dropped.load(SeqCst), 0);
    }
}

/// Runs `before`, then all `threads` concurrently, in a FIFO cache of `capacity`.
fn engine<const N: usize>(capacity: u64, before: fn(&Case), threads: [fn(&Case); N]) {
    loom::model(move || {
        let settings = Settings {
            policy: PolicyKind::Fifo,
            capacity,
            weighted: false,
            listener: None,
            pointee: None,
            time: ExpirySettings::new(TimeSource::System),
            profile: false,
            autosize: None,
        };
        let dropped = Arc::new(Count::new(0));
        let case = Arc::new(Case {
            engine: Engine::new(settings).unwrap(),
            made: Count::new(0),
            dropped: dropped.clone(),
        });
        before(&case);
        let others: Vec<_> = threads[1..]
            .iter()
            .enumerate()
            .map(|(n, &run)| {
                let case = case.clone();
                thread::spawn(move || {
                    INDEX.with(|index| index.set(n + 1));
                    run(&case);
                })
            })
            .collect();
        threads[0](&case);
        others.into_iter().for_each(|other| other.join().unwrap());
        case.check();
        let made = case.made.load(SeqCst);
        drop(case);
        assert_eq!(dropped.load(SeqCst), made, "every entry is freed once");
    });
}

#[test]
fn loom_engine_two_arrivals() {
    engine(4, |_| (), [|case| case.insert(1), |case| case.insert(2)]);
}

#[test]
fn loom_engine_arrival_and_retirement() {
    engine(4, |_| (), [|case| case.insert(1), |case| _ = case.remove(1)]);
}

#[test]
fn loom_engine_arrival_and_replacement() {
    engine(4, |_| (), [|case| case.insert(1), |case| case.insert(1)]);
}

#[test]
fn loom_engine_replacement_and_retirement() {
    engine(
        4,
        |case| case.insert(1),
        [|case| case.insert(1), |case| _ = case.remove(1)],
    );
}

#[test]
fn loom_engine_eviction_and_retirement() {
    // The policy evicts the entry that is being removed.
    engine(
        1,
        |case| case.insert(1),
        [|case| case.insert(2), |case| _ = case.remove(1)],
    );
}

#[test]
#[ignore = "minutes: `make loom` runs it"]
fn loom_engine_three_threads() {
    engine(
        1,
        |case| case.insert(1),
        [|case| case.insert(2), |case| case.insert(1), |case| _ = case.remove(1)],
    );
}
