//! What threads take turns at: behind the GIL where there is one, else behind a lock of its own.
//!
//! A lock that nobody else wants costs two atomic operations, and a miss would take half a dozen of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Data for one thread at a time, each of which is attached to the interpreter. **No Python code runs while it is borrowed.**
#[cfg(not(Py_GIL_DISABLED))]
#[derive(Default)]
pub(crate) struct GilCell<T>(std::cell::RefCell<T>);

// SAFETY: who borrows holds the GIL, and gives it up only when Python code runs, which it does not while anything is borrowed.
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

/// A number that attached threads count up.
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

    /// Adds a number.
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts one; returns what it was before.
    #[inline(always)]
    pub(crate) fn increment(&self, order: Ordering) -> u64 {
        if cfg!(Py_GIL_DISABLED) {
            self.0.fetch_add(1, order)
        } else {
            // (Nobody else counts meanwhile.)
            let before = self.0.load(Ordering::Relaxed);
            self.0.store(before.wrapping_add(1), order);
            before
        }
    }
}
