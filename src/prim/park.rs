//! Waiting for another thread: a short spin, then sleep.
//!
//! A thread that only yields while it waits never lets a thread of a lower real-time priority run
//! on its processor. It also keeps the processor busy while that thread is suspended. A parked
//! thread does neither.
//!
//! # Protocol
//!
//! A waiter *announces* itself in a word that the awaited thread reads when it is done.
//! [`Parking::wait`] calls `ready`, which announces the waiter and checks the condition once more.
//! It holds the parking's mutex during that call, and until it sleeps. [`Parking::wake`] takes that
//! mutex first. So a wake-up is lost only if the announcement is (invariant 21). The caller
//! prevents that by ordering announcement and condition with read-modify-writes of one word.
#![forbid(unsafe_code)]

use super::sync::{Condvar, Mutex, MutexGuard};
use std::sync::PoisonError;
use std::time::Duration;

/// Rounds of a spin, each twice as long as the one before: about a microsecond in all.
const ROUNDS: u32 = if cfg!(loom) { 0 } else { 6 };

/// The place where threads sleep until one condition holds.
pub(crate) struct Parking {
    mutex: Mutex<()>,
    woken: Condvar,
}

impl Parking {
    pub(crate) fn new() -> Self {
        Self {
            mutex: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    // Poisoning is ignored: nothing panics while the mutex is held, and it guards no data.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until `ready` returns true. `ready` is called before the first sleep and after each
    /// wake-up, and must announce the waiter: see the [module's documentation](self).
    #[cold]
    pub(crate) fn wait(&self, mut ready: impl FnMut() -> bool) {
        let mut guard = self.lock();
        while !ready() {
            guard = self.woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Same as [`wait`](Self::wait), but returns false if the thread has slept for `patience`
    /// without a wake-up and `ready` still returns false.
    #[cold]
    pub(crate) fn wait_for(&self, patience: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let mut guard = self.lock();
        while !ready() {
            let (woken, expired) = self.sleep(guard, patience);
            if expired {
                return ready();
            }
            guard = woken;
        }
        true
    }

    #[cfg(not(loom))]
    fn sleep<'p>(&'p self, guard: MutexGuard<'p, ()>, patience: Duration) -> (MutexGuard<'p, ()>, bool) {
        let woken = self.woken.wait_timeout(guard, patience);
        let (guard, result) = woken.unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }

    /// Sleeps without a timeout: models have no suspended threads.
    #[cfg(loom)]
    fn sleep<'p>(&'p self, guard: MutexGuard<'p, ()>, _: Duration) -> (MutexGuard<'p, ()>, bool) {
        let woken = self.woken.wait(guard);
        (woken.unwrap_or_else(PoisonError::into_inner), false)
    }

    /// Wakes all waiters, which check their conditions.
    #[cold]
    pub(crate) fn wake(&self) {
        // A waiter that has announced itself holds the mutex until it sleeps.
        drop(self.lock());
        self.woken.notify_all();
    }
}

/// Spins until `done` returns true, for a bounded number of rounds. Returns whether it did.
#[inline]
pub(crate) fn spin(mut done: impl FnMut() -> bool) -> bool {
    for round in 0..ROUNDS {
        if done() {
            return true;
        }
        (0..1 << round).for_each(|_| std::hint::spin_loop());
    }
    done()
}
