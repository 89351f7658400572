//! Tasks that wait for flights, under loom. A lost wake-up shows as a deadlock. See
//! `flight::loom_tests` for what stays std's.

use crate::flight::{ActorId, Flight, Flights, Joined, Outcome};
use crate::prim::block_on::{ThreadWaker, block_on};
use crate::prim::sync::Arc;
use loom::thread;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const KEY: u32 = 7;

type Shared = std::sync::Arc<Flights<u32, usize>>;

fn flights() -> Shared {
    let flights = Flights::new(0);
    flights.shards();
    Shared::new(flights)
}

fn join(flights: &Flights<u32, usize>, actor: ActorId) -> Joined<'_, u32, usize> {
    flights.join(1, |key| *key == KEY, KEY, actor)
}

fn awaited(flight: &Flight<u32, usize>) -> Option<usize> {
    match block_on(flight.completion().expect("no thread waits for this one")) {
        Some(Outcome::Loaded(value)) => Some(*value),
        Some(Outcome::Abandoned) => None,
        _ => panic!("it was loaded or abandoned"),
    }
}

/// Returns a shared flight whose leader is about to complete it.
fn shared(flights: &Flights<u32, usize>) -> (crate::flight::Leader<'_, u32, usize>, Arc<Flight<u32, usize>>) {
    let Joined::Lead { leader, .. } = join(flights, ActorId::new_future()) else {
        panic!("no other load is in flight")
    };
    let Joined::Wait(flight) = join(flights, ActorId::new_future()) else {
        panic!("it is being loaded")
    };
    (leader, flight)
}

#[test]
fn loom_flight_two_tasks() {
    loom::model(|| {
        let flights = flights();
        let load = |flights: &Flights<u32, usize>, value| match join(flights, ActorId::new_future()) {
            Joined::Lead { mut leader, .. } => {
                leader.complete(|| Outcome::Loaded(value));
                (value, true)
            }
            Joined::Wait(flight) => (awaited(&flight).expect("the leader has a value"), false),
        };
        let other = flights.clone();
        let other = thread::spawn(move || load(&other, 2));
        let (mine, led) = load(&flights, 1);
        let (others, other_led) = other.join().unwrap();
        assert_eq!(
            (led, other_led),
            (mine == 1, others == 2),
            "a waiter gets the other's value"
        );
    });
}

#[test]
fn loom_flight_task_and_thread_wait() {
    loom::model(|| {
        let flights = flights();
        let (mut leader, flight) = shared(&flights);
        let threads = flight.clone();
        let task = thread::spawn(move || assert_eq!(awaited(&flight), Some(1)));
        let thread = thread::spawn(move || {
            assert!(matches!(threads.wait(), Ok(Some(Outcome::Loaded(1)))));
        });
        leader.complete(|| Outcome::Loaded(1));
        task.join().unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn loom_flight_abandoned_wakes_task() {
    loom::model(|| {
        let flights = flights();
        let (leader, flight) = shared(&flights);
        let task = thread::spawn(move || assert_eq!(awaited(&flight), None));
        drop(leader);
        task.join().unwrap();
    });
}

#[test]
fn loom_flight_dropped_task_leaves_no_waker() {
    loom::model(|| {
        let flights = flights();
        let (mut leader, flight) = shared(&flights);
        let thread_waker = ThreadWaker::new();
        let waker = Waker::from(thread_waker.clone());
        let task = thread::spawn(move || {
            let mut completion = flight.completion().expect("no thread waits for this one");
            let polled = pin!(&mut completion).poll(&mut Context::from_waker(&waker));
            drop(completion);
            polled.is_pending()
        });
        leader.complete(|| Outcome::Loaded(1));
        let pending = task.join().unwrap();
        assert!(thread_waker.wakes() <= usize::from(pending), "woken once, if it waited");
        assert_eq!(std::sync::Arc::strong_count(&thread_waker), 1, "no waker is left");
    });
}

#[test]
fn loom_flight_task_changes_its_waker() {
    // Polled first with one waker, then with another, which is the one to wake.
    loom::model(|| {
        let flights = flights();
        let (mut leader, flight) = shared(&flights);
        let task = thread::spawn(move || {
            let mut completion = flight.completion().expect("no thread waits for this one");
            let first = Waker::from(ThreadWaker::new());
            let polled = pin!(&mut completion).poll(&mut Context::from_waker(&first));
            let outcome = match polled {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => block_on(completion),
            };
            assert!(matches!(outcome, Some(Outcome::Loaded(1))));
        });
        leader.complete(|| Outcome::Loaded(1));
        task.join().unwrap();
    });
}
