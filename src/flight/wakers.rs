//! The wakers of the tasks that wait for a flight.

use crate::prim::panics::Panics;
use std::collections::BTreeMap;
use std::task::Waker;

/// The tasks that wait for a flight, in the order in which they came. Kept under the flight's lock, but wakers are cloned,
/// woken and dropped outside of it: all that is user code.
#[derive(Default)]
pub(super) struct Wakers {
    pub(super) tasks: BTreeMap<u64, Waker>,
    next: u64,
}

impl Wakers {
    /// Keeps the waker, under the ticket if there is one. The waker in its place goes back to the caller.
    pub(super) fn keep(&mut self, ticket: &mut Option<u64>, waker: Waker) -> Option<Waker> {
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
