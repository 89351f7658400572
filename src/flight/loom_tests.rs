//! Single flight under loom.
//!
//! `OnceLock` and the mutex of the deadlock detection stay std's: an outcome is read only after
//! `completed` was seen under its mutex, and the other mutex is never held while another thread can
//! run. The shards are allocated from the start, since loom would not see that a `OnceLock`
//! publishes them.

use super::*;
use crate::prim::sync::AtomicUsize;
use loom::thread;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

const KEY: u32 = 7;

type Shared = std::sync::Arc<Flights<u32, usize>>;

fn flights() -> Shared {
    let flights = Flights::new(0);
    flights.shards();
    Shared::new(flights)
}

fn join(flights: &Flights<u32, usize>) -> Joined<'_, u32, usize> {
    flights.join(1, |key| *key == KEY, KEY, ActorId::this_thread())
}

/// Begins a load of a key that is not in flight.
fn lead(flights: &Flights<u32, usize>) -> Leader<'_, u32, usize> {
    match join(flights) {
        Joined::Lead { leader, .. } => leader,
        Joined::Wait(_) => panic!("no other load is in flight"),
    }
}

fn invalidate(flights: &Flights<u32, usize>) -> bool {
    flights.invalidate(1, |key| *key == KEY)
}

fn quiet(flights: &Flights<u32, usize>) {
    for shard in flights.shards() {
        assert_eq!(shard.active.load(Ordering::Relaxed), 0);
        assert!(lock(&shard.state).table.is_empty());
    }
}

/// Loads `value`, or waits. Returns the value and whether this was the leader.
fn load(flights: &Flights<u32, usize>, value: usize) -> (usize, bool) {
    match join(flights) {
        Joined::Lead { mut leader, .. } => {
            leader.complete(|| Outcome::Loaded(value));
            (value, true)
        }
        Joined::Wait(flight) => match flight.wait() {
            Ok(Some(Outcome::Loaded(value))) => (*value, false),
            _ => panic!("the leader has a value"),
        },
    }
}

#[test]
fn loom_flight_leader_and_waiter() {
    let shared = std::sync::Arc::new([Count::new(0), Count::new(0)]);
    let waited = shared.clone();
    loom::model(move || {
        let flights = flights();
        let other = flights.clone();
        let other = thread::spawn(move || load(&other, 2));
        let (mine, led) = load(&flights, 1);
        let (others, other_led) = other.join().unwrap();
        assert!(led || other_led, "one of the two loads");
        assert_eq!(
            (led, other_led),
            (mine == 1, others == 2),
            "a waiter gets the other's value"
        );
        waited[usize::from(led && other_led)].fetch_add(1, SeqCst);
        quiet(&flights);
    });
    assert!(
        shared.iter().all(|count| count.load(SeqCst) > 0),
        "both happen: {shared:?}"
    );
}

#[test]
fn loom_flight_two_waiters() {
    loom::model(|| {
        let flights = flights();
        let mut leader = lead(&flights);
        let waiters = [2, 3].map(|value| {
            let flights = flights.clone();
            thread::spawn(move || load(&flights, value))
        });
        leader.complete(|| Outcome::Loaded(1));
        waiters.into_iter().for_each(|waiter| _ = waiter.join().unwrap());
        quiet(&flights);
    });
}

#[test]
fn loom_flight_abandoned() {
    loom::model(|| {
        let flights = flights();
        let other = flights.clone();
        let leader = lead(&flights);
        let other = thread::spawn(move || match join(&other) {
            Joined::Lead { mut leader, .. } => leader.complete(|| Outcome::Loaded(2)),
            Joined::Wait(flight) => assert!(matches!(flight.wait(), Ok(Some(Outcome::Abandoned)))),
        });
        drop(leader);
        other.join().unwrap();
        quiet(&flights);
    });
}

#[test]
fn loom_flight_invalidated_or_seen() {
    // The leader's claim and the invalidation: one of them sees the other.
    loom::model(|| {
        let flights = flights();
        let claim = std::sync::Arc::new(AtomicUsize::new(0));
        let (others, others_claim) = (flights.clone(), claim.clone());
        let mut leader = lead(&flights);
        let other = thread::spawn(move || {
            let any = invalidate(&others);
            (any, others_claim.load(Ordering::Relaxed) == 1)
        });
        claim.store(1, Ordering::Relaxed);
        let invalidated = leader.invalidated();
        leader.complete(|| Outcome::Loaded(1));
        let (any, seen) = other.join().unwrap();
        assert!(invalidated || seen || !any, "one sees the other");
    });
}

#[test]
fn loom_flight_locked_source_changes() {
    // The source is behind a lock. The invalidation that follows a change finds a load of the old
    // value.
    loom::model(|| {
        let flights = flights();
        let source = std::sync::Arc::new(Mutex::new(1));
        let (others, others_source) = (flights.clone(), source.clone());
        let other = thread::spawn(move || {
            *lock(&others_source) = 2;
            invalidate(&others)
        });
        let leader = lead(&flights);
        let value = *lock(&source);
        let any = other.join().unwrap();
        assert!(value == 2 || any, "the load was invalidated, and is marked");
        assert!(value == 2 || leader.invalidated());
        drop(leader);
    });
}

#[test]
fn loom_flight_atomic_source_changes() {
    // As above, but only the source's own Release and Acquire order loader and caller: the fences
    // must do the rest.
    loom::model(|| {
        let flights = flights();
        let source = std::sync::Arc::new(AtomicUsize::new(1));
        let (others, others_source) = (flights.clone(), source.clone());
        let other = thread::spawn(move || {
            others_source.store(2, Ordering::Release);
            invalidate(&others)
        });
        let leader = lead(&flights);
        let value = source.load(Ordering::Acquire);
        let any = other.join().unwrap();
        assert!(value == 2 || any, "the load was invalidated, and is marked");
        drop(leader);
    });
}

#[test]
fn loom_flight_invalidated_though_shared_before() {
    // As `loom_flight_invalidated_or_seen`, but a waiter has shared the load already, so the
    // invalidation does not count it.
    loom::model(|| {
        let flights = flights();
        let claim = std::sync::Arc::new(AtomicUsize::new(0));
        let (others, others_claim) = (flights.clone(), claim.clone());
        let mut leader = lead(&flights);
        let Joined::Wait(shared) = join(&flights) else {
            panic!("it is being loaded")
        };
        let other = thread::spawn(move || {
            let any = invalidate(&others);
            (any, others_claim.load(Ordering::Relaxed) == 1)
        });
        claim.store(1, Ordering::Relaxed);
        let invalidated = leader.invalidated();
        leader.complete(|| Outcome::Loaded(1));
        let (any, seen) = other.join().unwrap();
        assert!(invalidated || seen || !any, "one sees the other");
        assert!(matches!(shared.outcome.get(), Some(Outcome::Loaded(1))));
    });
}

#[test]
fn loom_flight_completed_load_is_in_the_map() {
    // An invalidation of a load of the old value finds the flight, or the entry that it left in the
    // map.
    let shared = std::sync::Arc::new([Count::new(0), Count::new(0)]);
    let found = shared.clone();
    loom::model(move || {
        let flights = flights();
        let source = std::sync::Arc::new(AtomicUsize::new(1));
        let map = std::sync::Arc::new(AtomicUsize::new(0));
        let (others, others_source, others_map) = (flights.clone(), source.clone(), map.clone());
        let other = thread::spawn(move || {
            others_source.store(2, Ordering::Release);
            (invalidate(&others), others_map.load(Ordering::Relaxed))
        });
        let mut leader = lead(&flights);
        let value = source.load(Ordering::Acquire);
        if !leader.invalidated() {
            map.store(value, Ordering::Relaxed);
        }
        leader.complete(|| Outcome::Loaded(value));
        drop(leader);
        let (any, seen) = other.join().unwrap();
        assert!(value == 2 || any || seen == 1, "the old value is not overlooked");
        if value == 1 {
            found[usize::from(any)].fetch_add(1, SeqCst);
        }
    });
    assert!(
        shared.iter().all(|count| count.load(SeqCst) > 0),
        "both happen: {shared:?}"
    );
}

#[test]
fn loom_flight_late_leader_rechecks_the_map() {
    // Two callers miss the key one after the other. The second loads only if the first has not.
    loom::model(|| {
        let flights = flights();
        let map = std::sync::Arc::new(AtomicUsize::new(0));
        let load = |flights: &Flights<u32, usize>, map: &AtomicUsize| {
            if map.load(Ordering::Relaxed) == 1 {
                return 0;
            }
            match join(flights) {
                Joined::Lead { mut leader, recheck } => {
                    if recheck && map.load(Ordering::Relaxed) == 1 {
                        return 0;
                    }
                    map.store(1, Ordering::Relaxed);
                    leader.complete(|| Outcome::Loaded(1));
                    1
                }
                Joined::Wait(flight) => {
                    assert!(matches!(flight.wait(), Ok(Some(Outcome::Loaded(1)))));
                    0
                }
            }
        };
        let (others, others_map) = (flights.clone(), map.clone());
        let other = thread::spawn(move || load(&others, &others_map));
        let loads = load(&flights, &map) + other.join().unwrap();
        assert_eq!(loads, 1);
        quiet(&flights);
    });
}

#[test]
fn loom_flight_all_invalidated_or_seen() {
    // As `loom_flight_invalidated_or_seen`, for `clear`, which removes entries of the map after
    // `kill`.
    loom::model(|| {
        let flights = flights();
        let source = std::sync::Arc::new(AtomicUsize::new(1));
        let claim = std::sync::Arc::new(AtomicUsize::new(0));
        let (others, others_source, others_claim) = (flights.clone(), source.clone(), claim.clone());
        let other = thread::spawn(move || {
            others_source.store(2, Ordering::Release);
            let mut seen = false;
            others.invalidate_all(|_, _| seen = others_claim.load(Ordering::Relaxed) == 1);
            seen || others_claim.load(Ordering::Relaxed) == 1
        });
        let mut leader = lead(&flights);
        let value = source.load(Ordering::Acquire);
        claim.store(1, Ordering::Relaxed);
        let invalidated = leader.invalidated();
        leader.complete(|| Outcome::Loaded(value));
        drop(leader);
        let seen = other.join().unwrap();
        assert!(value == 2 || invalidated || seen, "one sees the other");
    });
}
