//! Who does the housekeeping: whoever finds it due and can take it without waiting.
//!
//! A lock that is only ever tried. Who fails to get it has left work in its own ring, and goes on: the holder may find it
//! there, or the next who enters, or the thread itself when its ring has filled up.
#![forbid(unsafe_code)]

use crate::prim::sync::{AtomicBool, Ordering};

/// See the [module's documentation](self).
pub(crate) struct Handover(AtomicBool);

impl Handover {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Takes the lock if it is free. A relaxed look first spares a busy line.
    #[inline]
    pub(crate) fn try_enter(&self) -> bool {
        // Acquire pairs with the Release in `leave`: what the former holder did is seen.
        !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Acquire)
    }

    /// Gives the lock up.
    #[inline]
    pub(crate) fn leave(&self) {
        // A swap: loom does not order a store after another thread's racing swap, and once per batch it costs nothing.
        self.0.swap(false, Ordering::Release);
    }
}
