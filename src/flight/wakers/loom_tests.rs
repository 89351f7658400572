//! Tasks that wait for flights, under loom; see the model of the flights for what stays std's. A wake-up that is lost shows as a
//! deadlock.

use crate::flight::{ActorId, Flight, Flights, Outcome, Role, lock};
use crate::prim::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

const KEY: u32 = 7;

type Shared = std::sync::Arc<Flights<u32, usize>>;

fn flights() -> Shared {
    let flights = Flights::new(0);
    flights.shards();
    Shared::new(flights)
}

fn join(flights: &Flights<u32, usize>, actor: ActorId) -> Role<'_, u32, usize> {
    flights.join(1, |key| *key == KEY, KEY, actor)
}

/// Wakes a thread of the model.
struct Bell {
    rung: Mutex<usize>,
    heard: Condvar,
}

impl Bell {
    fn new() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self {
            rung: Mutex::new(0),
            heard: Condvar::new(),
        })
    }

    fn wait(&self) {
        let mut rung = lock(&self.rung);
        while *rung == 0 {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = 0;
    }
}

impl Wake for Bell {
    fn wake(self: std::sync::Arc<Self>) {
        *lock(&self.rung) += 1;
        self.heard.notify_one();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let bell = Bell::new();
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => bell.wait(),
        }
    }
}

fn awaited(flight: &Flight<u32, usize>) -> Option<usize> {
    match block_on(flight.landed().expect("nobody waits for this")) {
        Some(Outcome::Loaded(value)) => Some(*value),
        Some(Outcome::Abandoned) => None,
        _ => panic!("it was loaded or abandoned"),
    }
}

/// A flight that was met, its leader about to land.
fn shared(flights: &Flights<u32, usize>) -> (crate::flight::Leader<'_, u32, usize>, Arc<Flight<u32, usize>>) {
    let Role::Lead { leader, .. } = join(flights, ActorId::future()) else {
        panic!("nobody else is there")
    };
    let Role::Wait(flight) = join(flights, ActorId::future()) else {
        panic!("it is being loaded")
    };
    (leader, flight)
}

#[test]
fn loom_flight_two_tasks() {
    loom::model(|| {
        let flights = flights();
        let load = |flights: &Flights<u32, usize>, value| match join(flights, ActorId::future()) {
            Role::Lead { mut leader, .. } => {
                leader.complete(|| Outcome::Loaded(value));
                (value, true)
            }
            Role::Wait(flight) => (awaited(&flight).expect("the leader has a value"), false),
        };
        let other = flights.clone();
        let other = thread::spawn(move || load(&other, 2));
        let (mine, led) = load(&flights, 1);
        let (others, other_led) = other.join().unwrap();
        assert_eq!(
            (led, other_led),
            (mine == 1, others == 2),
            "actor waits gets the other's"
        );
    });
}

#[test]
fn loom_flight_a_task_and_a_thread_wait() {
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
fn loom_flight_abandoned_under_a_task() {
    loom::model(|| {
        let flights = flights();
        let (leader, flight) = shared(&flights);
        let task = thread::spawn(move || assert_eq!(awaited(&flight), None));
        drop(leader);
        task.join().unwrap();
    });
}

#[test]
fn loom_flight_a_task_goes_away() {
    loom::model(|| {
        let flights = flights();
        let (mut leader, flight) = shared(&flights);
        let bell = Bell::new();
        let waker = Waker::from(bell.clone());
        let task = thread::spawn(move || {
            let mut landed = flight.landed().expect("nobody waits for this");
            let polled = pin!(&mut landed).poll(&mut Context::from_waker(&waker));
            drop(landed);
            polled.is_pending()
        });
        leader.complete(|| Outcome::Loaded(1));
        let pending = task.join().unwrap();
        assert!(*lock(&bell.rung) <= usize::from(pending), "woken once, if it waited");
        assert_eq!(std::sync::Arc::strong_count(&bell), 1, "no waker is left");
    });
}

#[test]
fn loom_flight_a_task_wanders() {
    // Polled first with one waker, then with another, which is the one that counts.
    loom::model(|| {
        let flights = flights();
        let (mut leader, flight) = shared(&flights);
        let task = thread::spawn(move || {
            let mut landed = flight.landed().expect("nobody waits for this");
            let first = Waker::from(Bell::new());
            let polled = pin!(&mut landed).poll(&mut Context::from_waker(&first));
            let outcome = match polled {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => block_on(landed),
            };
            assert!(matches!(outcome, Some(Outcome::Loaded(1))));
        });
        leader.complete(|| Outcome::Loaded(1));
        task.join().unwrap();
    });
}
