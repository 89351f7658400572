//! How tasks wait for a flight, and how a future leads one.

#[cfg(all(test, loom))]
mod loom_tests;

use super::{ActorId, Flight, Leader, Outcome, Reentrant, lock};
use crate::prim::panics::Panics;
use crate::prim::sync::Ordering;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The tasks that wait for a flight, in the order in which they came. Kept under the flight's lock, but wakers are cloned,
/// woken and dropped outside of it: all that is user code.
#[derive(Default)]
pub(super) struct Wakers {
    tasks: BTreeMap<u64, Waker>,
    next: u64,
}

impl Wakers {
    /// Keeps the waker, under the ticket if there is one. The waker in its place goes back to the caller.
    fn keep(&mut self, ticket: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let ticket = *ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.tasks.insert(ticket, waker)
    }

    /// Wakes all of them, whatever some may do; the first panic goes on afterwards.
    pub(super) fn wake(self) {
        let mut panics = Panics::default();
        for waker in self.tasks.into_values() {
            panics.catch(|| waker.wake());
        }
        panics.resume();
    }
}

/// Waits for a flight's outcome, as [`Flight::wait`] does. If it is dropped before, nobody else notices.
pub(crate) struct Completion<'f, K, V> {
    flight: &'f Flight<K, V>,
    invalidated: bool,
    /// Under which the flight has a waker of this.
    ticket: Option<u64>,
}

impl<K, V> Flight<K, V> {
    /// [`wait`](Self::wait) for a task. Only loaders whose polls this thread is inside of, and threads that are blocked, are
    /// taken into account when looking for a ring: a task that waits may also do something else meanwhile.
    pub(crate) fn landed(&self) -> Result<Completion<'_, K, V>, Reentrant> {
        let invalidated = self.invalidated.load(Ordering::Relaxed);
        self.wait_state.check(self.leader)?;
        Ok(Completion {
            flight: self,
            invalidated,
            ticket: None,
        })
    }
}

impl<'f, K, V> Future for Completion<'f, K, V> {
    type Output = Option<&'f Outcome<V>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let flight = self.flight;
        let mut new = None;
        loop {
            let mut done = lock(&flight.done);
            if done.landed {
                drop(done);
                return Poll::Ready(if self.invalidated { None } else { flight.outcome.get() });
            }
            let kept = self.ticket.and_then(|ticket| done.wakers.tasks.get(&ticket));
            if kept.is_some_and(|kept| kept.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            let Some(waker) = new.take() else {
                drop(done);
                new = Some(cx.waker().clone());
                continue; // it may have landed meanwhile, and wakes nobody any more
            };
            let old = done.wakers.keep(&mut self.ticket, waker);
            drop(done);
            drop(old);
            return Poll::Pending;
        }
    }
}

impl<K, V> Drop for Completion<'_, K, V> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut done = lock(&self.flight.done);
            let unused = done.wakers.tasks.remove(&ticket);
            drop(done);
            drop(unused);
        }
    }
}

impl<K, V> Leader<'_, K, V> {
    /// [`run`](Self::run) for a loader that is a future, which `actor` polls.
    pub(crate) async fn run_future<F: Future, T, E>(
        &mut self,
        actor: ActorId,
        mut loader: Pin<&mut F>,
        end: impl FnOnce(F::Output) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut running = self.running();
        let output = poll_fn(|cx| {
            let _polled = actor.polled();
            loader.as_mut().poll(cx)
        });
        let loaded = end(output.await);
        running.ok = loaded.is_ok();
        loaded
    }
}
