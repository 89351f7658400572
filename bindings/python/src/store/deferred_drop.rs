//! References that left a cache and are dropped later: with no lock held, no entry pinned, and all
//! structures consistent.
//!
//! Dropping a reference may run Python code (`__del__`, weak references' callbacks), which may call
//! the same cache.
//!
//! With the GIL no other thread can read an entry when it is unlinked, so its references are taken
//! out then, and dropped before the call returns. Without the GIL the engine drops an entry when no
//! reader can reference it any more; its references get here, too.

use crate::gil_cell::GilCell;
use crate::objects::Object;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The references of an entry that left a cache.
pub(crate) struct DeferredDrop {
    pub(crate) key: Object,
    pub(crate) value: Object,
    /// The notice for the removal listener, if there is one.
    pub(crate) notice: Option<RemovalNotice>,
}

/// Calls a listener for an entry: `(notice, key, value)`.
pub(crate) type Notify = fn(Python<'_>, &RemovalNotice, Object, Object) -> PyResult<()>;

pub(crate) struct RemovalNotice {
    pub(crate) listener: Object,
    pub(crate) cause: hotset::Cause,
    pub(crate) notify: Notify,
    /// Whether the key begins with a weak reference to a method's instance.
    pub(crate) method: bool,
}

// SAFETY: pointers to Python objects, which any attached thread may use.
unsafe impl Send for DeferredDrop {}

/// The references of all caches. Any thread that returns from a call drops them.
static DEFERRED: GilCell<Vec<DeferredDrop>> = GilCell::new(Vec::new());
/// The number of these, to be checked without the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Defers a drop to the return of the running call.
pub(crate) fn defer_drop(dropped: DeferredDrop) {
    let mut all = DEFERRED.lock();
    all.push(dropped);
    COUNT.store(all.len(), Ordering::Relaxed);
}

/// Drops all deferred references, and notifies listeners. Runs Python code; preserves an exception
/// that is set.
#[inline(always)]
pub(crate) fn drain_deferred() {
    if COUNT.load(Ordering::Relaxed) != 0 {
        drain_all();
    }
}

#[inline(never)]
fn drain_all() {
    // SAFETY: a thread that returns from a call is attached. The code that runs here must neither
    // see nor replace an exception that is set.
    let pending = unsafe {
        let pending = !ffi::PyErr_Occurred().is_null();
        pending.then(|| PyErr::fetch(Python::assume_attached()))
    };
    while COUNT.load(Ordering::Relaxed) != 0 {
        let mut some = {
            let mut all = DEFERRED.lock();
            COUNT.store(0, Ordering::Relaxed);
            std::mem::take(&mut *all)
        };
        // Unlocked: dropping runs Python code, which may call a cache and defer more drops. The
        // loop drops those, too.
        some.drain(..).for_each(DeferredDrop::release);
        // The vector's memory is reused, unless it is large.
        let mut all = DEFERRED.lock();
        if all.capacity() == 0 && some.capacity() <= 256 {
            *all = some;
        }
    }
    if let Some(pending) = pending {
        crate::ffi::raise(pending);
    }
}

impl DeferredDrop {
    fn release(self) {
        let Self { key, value, notice } = self;
        let mut listener = ptr::null_mut();
        if let Some(notice) = notice {
            listener = notice.listener;
            Python::attach(|py| {
                if let Err(error) = (notice.notify)(py, &notice, key, value) {
                    // SAFETY: `self` holds a reference.
                    let listener = unsafe { Bound::from_borrowed_ptr(py, listener) };
                    crate::interrupt::report_callback_error(error, &listener);
                }
            });
        }
        for object in [key, value, listener] {
            // SAFETY: `self` holds these references, and drops them once.
            unsafe { ffi::Py_XDECREF(object) };
        }
    }
}

impl RemovalNotice {
    /// Returns the name of the cause for users.
    pub(crate) fn cause(&self) -> &'static str {
        match self.cause {
            hotset::Cause::Expired => "expired",
            hotset::Cause::Size => "size",
            hotset::Cause::Explicit => "explicit",
            hotset::Cause::Replaced => "replaced",
            // The engine's enum is non-exhaustive.
            _ => "other",
        }
    }
}

/// Drops deferred references at the end of a call, also after errors.
pub(crate) struct DrainOnExit;

impl Drop for DrainOnExit {
    fn drop(&mut self) {
        drain_deferred();
    }
}
