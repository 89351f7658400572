//! The flights under loom. `OnceLock`, `Instant` and the ring detection's mutex stay std's: the first is read only after `done`
//! was seen under its mutex, the last is never held while another thread can run.

use super::*;
use crate::prim::sync::AtomicUsize;
use loom::thread;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

const KEY: u32 = 7;

type Shared = std::sync::Arc<Flights<u32, usize>>;

fn join(flights: &Flights<u32, usize>) -> Role<'_, u32, usize> {
    flights.join(1, |key| *key == KEY, || KEY)
}

fn quiet(flights: &Flights<u32, usize>) {
    assert_eq!(flights.active.load(Ordering::Relaxed), 0);
    assert!(lock(&flights.table).is_empty());
}

/// Loads `value`, or waits; the value and whether this was the leader.
fn load(flights: &Flights<u32, usize>, value: usize) -> (usize, bool) {
    match join(flights) {
        Role::Lead(leader) => {
            leader.land(|| Outcome::Loaded(value));
            (value, true)
        }
        Role::Wait(flight) => match flight.wait() {
            Ok(Some(Outcome::Loaded(value))) => (*value, false),
            _ => panic!("the leader has a value"),
        },
    }
}

#[test]
fn loom_flight_a_leader_and_a_waiter() {
    let shared = std::sync::Arc::new([Count::new(0), Count::new(0)]);
    let waited = shared.clone();
    loom::model(move || {
        let flights = Shared::new(Flights::new());
        let other = flights.clone();
        let other = thread::spawn(move || load(&other, 2));
        let (mine, led) = load(&flights, 1);
        let (others, other_led) = other.join().unwrap();
        assert!(led || other_led, "somebody loads");
        assert_eq!((led, other_led), (mine == 1, others == 2), "who waits gets the other's");
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
        let flights = Shared::new(Flights::new());
        let Role::Lead(leader) = join(&flights) else {
            panic!("nobody else is there")
        };
        let waiters = [2, 3].map(|value| {
            let flights = flights.clone();
            thread::spawn(move || load(&flights, value))
        });
        leader.land(|| Outcome::Loaded(1));
        waiters.into_iter().for_each(|waiter| _ = waiter.join().unwrap());
        quiet(&flights);
    });
}

#[test]
fn loom_flight_abandoned() {
    loom::model(|| {
        let flights = Shared::new(Flights::new());
        let other = flights.clone();
        let Role::Lead(leader) = join(&flights) else {
            panic!("nobody else is there")
        };
        let other = thread::spawn(move || match join(&other) {
            Role::Lead(leader) => leader.land(|| Outcome::Loaded(2)),
            Role::Wait(flight) => assert!(matches!(flight.wait(), Ok(Some(Outcome::Abandoned)))),
        });
        drop(leader);
        other.join().unwrap();
        quiet(&flights);
    });
}

#[test]
fn loom_flight_superseded_or_seen() {
    // The leader's claim and the invalidation: one of them sees the other.
    loom::model(|| {
        let flights = Shared::new(Flights::new());
        let claim = std::sync::Arc::new(AtomicUsize::new(0));
        let (others, others_claim) = (flights.clone(), claim.clone());
        let Role::Lead(leader) = join(&flights) else {
            panic!("nobody else is there")
        };
        let other = thread::spawn(move || {
            let any = others.supersede(1, |key| *key == KEY);
            (any, others_claim.load(Ordering::Relaxed) == 1)
        });
        claim.store(1, Ordering::Relaxed);
        let superseded = leader.superseded();
        leader.land(|| Outcome::Loaded(1));
        let (any, seen) = other.join().unwrap();
        assert!(superseded || seen || !any, "one sees the other");
    });
}

#[test]
fn loom_flight_the_source_changes() {
    // The source is behind a lock: a load of its old value is found by the invalidation that follows the change.
    loom::model(|| {
        let flights = Shared::new(Flights::new());
        let source = std::sync::Arc::new(Mutex::new(1));
        let (others, others_source) = (flights.clone(), source.clone());
        let other = thread::spawn(move || {
            *lock(&others_source) = 2;
            others.supersede(1, |key| *key == KEY)
        });
        let Role::Lead(leader) = join(&flights) else {
            panic!("nobody else loads")
        };
        let value = *lock(&source);
        let any = other.join().unwrap();
        assert!(value == 2 || any, "the load was overtaken, and is told");
        assert!(value == 2 || leader.superseded());
        drop(leader);
    });
}

#[test]
fn loom_flight_a_source_without_a_lock_changes() {
    // As above, but nothing orders loader and caller except the source's own Release and Acquire: the fences must.
    loom::model(|| {
        let flights = Shared::new(Flights::new());
        let source = std::sync::Arc::new(AtomicUsize::new(1));
        let (others, others_source) = (flights.clone(), source.clone());
        let other = thread::spawn(move || {
            others_source.store(2, Ordering::Release);
            others.supersede(1, |key| *key == KEY)
        });
        let Role::Lead(leader) = join(&flights) else {
            panic!("nobody else loads")
        };
        let value = source.load(Ordering::Acquire);
        let any = other.join().unwrap();
        assert!(value == 2 || any, "the load was overtaken, and is told");
        drop(leader);
    });
}
