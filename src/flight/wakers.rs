//! The wakers of the tasks that wait for a flight.

use crate::prim::panics::wake_all;
use std::collections::BTreeMap;
use std::task::Waker;

/// The wakers of the tasks that wait for a flight, in the order in which they began to wait.
///
/// Kept under the flight's lock. Wakers are cloned, woken and dropped outside of it, since all that
/// is user code (invariant 10).
#[derive(Default)]
pub(super) struct Wakers {
    pub(super) tasks: BTreeMap<u64, Waker>,
    next: u64,
}

impl Wakers {
    /// Keeps a waker under the ticket, or under a new one. Returns the waker that it replaces,
    /// which the caller drops outside the lock.
    pub(super) fn keep(&mut self, ticket: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let ticket = *ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.tasks.insert(ticket, waker)
    }

    /// Wakes all tasks, even if some of the wakers panic. The first panic is resumed at the end.
    pub(super) fn wake(self) {
        wake_all(self.tasks.into_values());
    }
}
