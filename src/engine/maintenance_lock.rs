//! The maintenance lock: a try-lock whose waiters park.
//!
//! A writer that fails to take the lock has already recorded its event in its own ring, and
//! returns. The lock holder, the next holder, or the writer itself (when its ring is full) applies
//! the event. A writer waits only for room in its ring.
//!
//! # States
//!
//! One word: free, held, held with waiters, or poisoned. An unlock is one swap, and wakes waiters
//! only if there are any. A waiter parks only after a compare-and-swap from "held" to "held with
//! waiters", so the swap sees it (invariant 21).
//!
//! # Poisoning
//!
//! No user code runs under the lock, so a panic there is a bug of this crate, and may leave the
//! policy's structures half changed. The lock is then *poisoned*: no thread takes it again, and
//! waiters get an error.
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

/// How long a writer waits for a lock holder that does not release the lock: it may be suspended.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// The result of a wait for the lock.
pub(crate) enum Waited<'l> {
    Held(Held<'l>),
    /// The caller's other condition became true.
    Done,
    /// The lock was not released within the caller's patience.
    NoProgress,
}

/// The error of a poisoned lock: an earlier lock holder panicked.
#[derive(Debug)]
pub(crate) struct Poisoned;

impl Poisoned {
    /// Panics on behalf of a call that needs the lock. Returns if the thread is already unwinding.
    #[cold]
    pub(crate) fn panic(self) {
        assert!(
            std::thread::panicking(),
            "hotset: the maintenance of this cache panicked earlier, which is a bug: the cache can be read, but not changed"
        );
    }
}

/// The held lock. Must be released by [`unlock`](Self::unlock): a drop without it, which only a
/// panic causes, poisons the lock.
#[must_use = "to be released by `unlock`"]
pub(crate) struct Held<'l>(&'l MaintenanceLock);

impl MaintenanceLock {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(FREE),
            parking: Parking::new(),
        }
    }

    /// Takes the lock if it is free. The relaxed load first avoids writes to a contended line.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Held<'_>> {
        // Acquire pairs with the Release of the unlocking swap: what the previous holder did is
        // seen.
        let taken = self.state.load(Ordering::Relaxed) == FREE
            && self
                .state
                .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        taken.then(|| Held(self)) // a closure: `then_some` would create and drop a `Held`
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> Result<Held<'_>, Poisoned> {
        loop {
            if let Waited::Held(held) = self.lock_unless(None, || false)? {
                return Ok(held);
            }
        }
    }

    /// Waits until the lock is taken, or `done` returns true. `done` is checked after each unlock
    /// that wakes this thread. With `patience`, gives up if the lock is not released within that
    /// time.
    pub(crate) fn lock_unless(
        &self,
        patience: Option<Duration>,
        mut done: impl FnMut() -> bool,
    ) -> Result<Waited<'_>, Poisoned> {
        loop {
            let mut held = None;
            // Spinning first: most visits end within a microsecond.
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

    /// Returns whether the lock can be tried now. Otherwise the lock holder knows of a waiter, and
    /// wakes it.
    fn is_free_or_announced(&self) -> bool {
        loop {
            // Relaxed: only the order of changes to this word matters; `try_lock` acquires what the
            // lock protects.
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
        // Release pairs with the Acquire in `try_lock`. The swap also returns whether a waiter has
        // announced itself.
        if self.state.swap(state, Ordering::Release) == AWAITED {
            self.parking.wake();
        }
    }
}

impl Held<'_> {
    /// Releases the lock and wakes its waiters.
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
