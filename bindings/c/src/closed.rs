//! What was closed stays allocated for a while, so that a call on it is refused instead of reading
//! freed memory.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// How many are remembered.
const REMEMBERED: usize = if cfg!(miri) { 4 } else { 1024 };

/// The last ones that were closed.
pub(crate) struct Closed<T> {
    places: [AtomicPtr<T>; REMEMBERED],
    next: AtomicUsize,
}

impl<T> Closed<T> {
    pub(crate) const fn new() -> Self {
        Self {
            places: [const { AtomicPtr::new(ptr::null_mut()) }; REMEMBERED],
            next: AtomicUsize::new(0),
        }
    }

    /// Keeps it allocated until [`REMEMBERED`] others were closed after it. Takes no lock, which a
    /// fork could leave locked, and no memory.
    ///
    /// # Safety
    /// It was leaked from a `Box`, is closed, and is not remembered yet.
    pub(crate) unsafe fn keep(&self, closed: *mut T) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % REMEMBERED;
        // Release and Acquire pair with each other: the thread that frees one is ordered after the
        // one that closed it.
        let oldest = self.places[place].swap(closed, Ordering::AcqRel);
        if !oldest.is_null() {
            // SAFETY: the promise of the call that kept it; the header states that such an old one
            // must not be used.
            drop(unsafe { Box::from_raw(oldest) });
        }
    }
}
