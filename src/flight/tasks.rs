//! How tasks wait for a flight ([`Completion`]), and how a future leads one
//! ([`Leader::run_future`]).
//!
//! A waiting task keeps its waker in the flight, under the lock that guards `completed`, so no
//! wake-up is lost (invariant 21).

#[cfg(all(test, loom))]
mod loom_tests;

use super::{ActorId, Flight, Leader, Outcome, Reentrant, lock};
use crate::prim::sync::Ordering;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that waits for a flight's outcome, as [`Flight::wait`] does. Dropping it affects no
/// other waiter.
pub(crate) struct Completion<'f, K, V> {
    flight: &'f Flight<K, V>,
    /// The load was invalidated before the wait began.
    invalidated: bool,
    /// The ticket under which the flight keeps a waker of this task.
    ticket: Option<u64>,
}

impl<K, V> Flight<K, V> {
    /// [`wait`](Self::wait) for a task.
    ///
    /// Returns an error for a wait cycle through blocked threads and the futures whose polls this
    /// thread is inside of. Other waiting tasks are not considered: they may do something else
    /// while they wait.
    pub(crate) fn completion(&self) -> Result<Completion<'_, K, V>, Reentrant> {
        let invalidated = self.invalidated.load(Ordering::Relaxed);
        self.wait_state.check_deadlock(self.leader)?;
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
            let mut waiters = lock(&flight.waiters);
            if waiters.completed {
                drop(waiters);
                return Poll::Ready(if self.invalidated { None } else { flight.outcome.get() });
            }
            // The waker of the last poll counts.
            let kept = self.ticket.and_then(|ticket| waiters.wakers.tasks.get(&ticket));
            if kept.is_some_and(|kept| kept.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            let Some(waker) = new.take() else {
                drop(waiters);
                new = Some(cx.waker().clone());
                // Cloned outside the lock. The flight may have completed in between, and then wakes
                // no task any more: check again.
                continue;
            };
            // Under the lock under which `completed` was false: the leader takes this waker
            // (invariant 21).
            let old = waiters.wakers.keep(&mut self.ticket, waker);
            drop(waiters);
            // User code, so outside the lock.
            drop(old);
            return Poll::Pending;
        }
    }
}

impl<K, V> Drop for Completion<'_, K, V> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut waiters = lock(&self.flight.waiters);
            let unused = waiters.wakers.tasks.remove(&ticket);
            drop(waiters);
            // User code, so outside the lock.
            drop(unused);
        }
    }
}

impl<K, V> Leader<'_, K, V> {
    /// [`run`](Self::run) for a loader that is a future, which `actor` polls. `end` makes the
    /// result of its output.
    pub(crate) async fn run_future<F: Future, T, E>(
        &mut self,
        actor: ActorId,
        mut loader: Pin<&mut F>,
        end: impl FnOnce(F::Output) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut timer = self.start_timer();
        let output = poll_fn(|cx| {
            // For the deadlock detection: what this thread does in the poll, the future does.
            let _polled = actor.enter_poll();
            loader.as_mut().poll(cx)
        });
        let loaded = end(output.await);
        timer.ok = loaded.is_ok();
        loaded
    }
}
