//! Data that one thread uses at a time: guarded by the GIL where there is one, else by a mutex.
//!
//! An uncontended mutex costs two atomic operations, and a miss would take half a dozen mutexes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Data for one thread at a time, which must be attached to the interpreter. **No Python code runs
/// while it is borrowed.**
#[cfg(not(Py_GIL_DISABLED))]
#[derive(Default)]
pub(crate) struct GilCell<T>(std::cell::RefCell<T>);

// SAFETY: a borrowing thread holds the GIL. It could give the GIL up only by running Python code,
// which it does not do while it borrows.
#[cfg(not(Py_GIL_DISABLED))]
unsafe impl<T: Send> Sync for GilCell<T> {}

#[cfg(not(Py_GIL_DISABLED))]
impl<T> GilCell<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(std::cell::RefCell::new(data))
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> std::cell::RefMut<'_, T> {
        self.0.borrow_mut()
    }
}

#[cfg(Py_GIL_DISABLED)]
#[derive(Default)]
pub(crate) struct GilCell<T>(std::sync::Mutex<T>);

#[cfg(Py_GIL_DISABLED)]
impl<T> GilCell<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(std::sync::Mutex::new(data))
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A counter for attached threads.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline(always)]
    pub(crate) fn get(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    #[cfg(Py_GIL_DISABLED)]
    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Adds `more` to the count.
    #[inline(always)]
    pub(crate) fn add(&self, more: u64) {
        self.add_ordered(more, Ordering::Relaxed);
    }

    /// Adds one; returns the previous count.
    #[inline(always)]
    pub(crate) fn increment(&self, order: Ordering) -> u64 {
        self.add_ordered(1, order)
    }

    #[inline(always)]
    fn add_ordered(&self, more: u64, order: Ordering) -> u64 {
        if cfg!(Py_GIL_DISABLED) {
            self.0.fetch_add(more, order)
        } else {
            // The GIL is held from the load to the store, so no other thread counts in between.
            let before = self.0.load(Ordering::Relaxed);
            self.0.store(before.wrapping_add(more), order);
            before
        }
    }
}
