//! Who does the housekeeping: whoever finds it due and can take it without waiting.
//!
//! A lock that is only ever tried. Who fails to get it has left work in the backlog, and says so here: then the holder
//! looks again before it leaves. So work is done by the next who can, and never left behind by two who each thought
//! the other would see it.
#![forbid(unsafe_code)]

use crate::prim::sync::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const BUSY: u8 = 1;
/// Busy, and somebody has left work since the holder last looked.
const REQUIRED: u8 = 2;

/// See the [module's documentation](self).
pub(crate) struct Handover(AtomicU8);

impl Handover {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(IDLE))
    }

    /// Takes the lock if it is free. A relaxed look first spares a busy line.
    #[inline]
    pub(crate) fn try_enter(&self) -> bool {
        // Acquire pairs with the Release in `leave`: what the former holder did is seen.
        self.0.load(Ordering::Relaxed) == IDLE
            && self
                .0
                .compare_exchange(IDLE, BUSY, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Takes the lock, or makes its holder look at the backlog again. Call after the work is in the backlog.
    pub(crate) fn enter_or_require(&self) -> bool {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let to = if seen == IDLE { BUSY } else { REQUIRED };
            // AcqRel: Acquire as in `try_enter`; Release publishes the backlog to the holder, which acquires in `leave`.
            match self
                .0
                .compare_exchange_weak(seen, to, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return seen == IDLE,
                Err(now) => seen = now,
            }
        }
    }

    /// Gives the lock up and returns true; or, if work was left meanwhile, keeps it and returns false.
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        if self
            .0
            .compare_exchange(BUSY, IDLE, Ordering::Release, Ordering::Relaxed)
            .is_ok()
        {
            return true;
        }
        // Only the holder leaves BUSY or REQUIRED, so it was REQUIRED. Acquire: see the work that was left.
        self.0.swap(BUSY, Ordering::Acquire);
        false
    }

    /// Gives the lock up in any case: for a holder that has done its share. What is left is for the next who enters.
    pub(crate) fn leave_anyway(&self) {
        self.0.store(IDLE, Ordering::Release);
    }
}
