//! The maintenance lock: a try-lock whose waiters park.
//!
//! A writer that fails to lock it has left its change in its own ring and returns: the lock holder may find the change there, or
//! the next holder, or the writer itself when its ring is full. Only then does it wait.
//!
//! The state is one word: free, held, held with waiters, or poisoned. An unlock is one swap, and wakes waiters only if there
//! are any. A waiter parks only after a compare-and-swap from "held" to "held with waiters", so the swap sees it.
//!
//! A panic while the lock is held is a bug of this crate, since no user code runs there, and may leave the policy's
//! structures half changed. The lock is then *poisoned*: it is never taken again, and waiters get an error.
#![forbid(unsafe_code)]

use crate::prim::park::{Parking, spin};
use crate::prim::sync::{AtomicU8, Ordering};
use std::time::Duration;

const FREE: u8 = 0;
const HELD: u8 = 1;
/// Held, and a waiter may be parked.
const AWAITED: u8 = 2;
const POISONED: u8 = 3;

/// See the [module's documentation](self).
pub(crate) struct MaintenanceLock {
    state: AtomicU8,
    parking: Parking,
}

/// The time that a writer waits for a lock holder that does not release the lock: it may be suspended.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// How a wait for the lock ended.
pub(crate) enum Waited<'l> {
    Held(Held<'l>),
    /// What else was waited for has happened.
    Done,
    /// The lock was not released during the caller's patience.
    NoProgress,
}

/// An earlier lock holder panicked.
#[derive(Debug)]
pub(crate) struct Poisoned;

impl Poisoned {
    /// Panics on behalf of a call that needs the lock; returns if the thread is already unwinding.
    #[cold]
    pub(crate) fn panic(self) {
        assert!(
            std::thread::panicking(),
            "hotset: the maintenance of this cache panicked earlier, which is a bug: the cache can be read, but not changed"
        );
    }
}

/// The lock, held. To be released by [`unlock`](Self::unlock): a drop without it, which only a panic causes, poisons the lock.
#[must_use = "to be released by `unlock`"]
pub(crate) struct Held<'l>(&'l MaintenanceLock);

impl MaintenanceLock {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(FREE),
            parking: Parking::new(),
        }
    }

    /// Takes the lock if it is free. A relaxed load first spares a contended line.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Held<'_>> {
        // Acquire pairs with the Release of the unlocking swap: what the previous holder did is seen.
        let taken = self.state.load(Ordering::Relaxed) == FREE
            && self
                .state
                .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        taken.then(|| Held(self)) // (not `then_some`, which would make and drop one)
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> Result<Held<'_>, Poisoned> {
        loop {
            if let Waited::Held(held) = self.lock_unless(None, || false)? {
                return Ok(held);
            }
        }
    }

    /// Waits until the lock is taken, or until `done` returns true, which is checked after each unlock that wakes this thread;
    /// or, with `patience`, until the lock has not been released for so long.
    pub(crate) fn lock_unless(
        &self,
        patience: Option<Duration>,
        mut done: impl FnMut() -> bool,
    ) -> Result<Waited<'_>, Poisoned> {
        loop {
            let mut held = None;
            let ready = spin(|| {
                held = self.try_lock();
                held.is_some() || done()
            });
            if ready {
                return Ok(held.map_or(Waited::Done, Waited::Held));
            }
            let mut ready = || self.is_free_or_announced() || done();
            match patience {
                None => self.parking.wait(ready),
                Some(patience) if !self.parking.wait_for(patience, &mut ready) => return Ok(Waited::NoProgress),
                Some(_) => {}
            }
            if self.is_poisoned() {
                return Err(Poisoned);
            }
        }
    }

    /// Whether the lock need not be waited for; if it must, its holder now knows of a waiter.
    fn is_free_or_announced(&self) -> bool {
        loop {
            // Relaxed: what matters is the order of this word's changes; `try_lock` acquires what they protect.
            match self.state.load(Ordering::Relaxed) {
                HELD => {
                    let announced = self
                        .state
                        .compare_exchange(HELD, AWAITED, Ordering::Relaxed, Ordering::Relaxed);
                    if announced.is_ok() {
                        return false;
                    }
                }
                AWAITED => return false,
                _ => return true,
            }
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.state.load(Ordering::Relaxed) == POISONED
    }

    #[inline]
    fn release(&self, state: u8) {
        // Release pairs with the Acquire in `try_lock`. A swap, which returns whether a waiter has announced itself.
        if self.state.swap(state, Ordering::Release) == AWAITED {
            self.parking.wake();
        }
    }
}

impl Held<'_> {
    /// Releases the lock, and wakes the threads that wait for it.
    #[inline]
    pub(crate) fn unlock(self) {
        let lock = self.0;
        std::mem::forget(self);
        lock.release(FREE);
    }
}

impl Drop for Held<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.release(POISONED);
    }
}
