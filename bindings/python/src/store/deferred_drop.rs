//! What left a cache, until it is let go of: with no lock held, no thread pinned, and no structure half changed.
//!
//! With the GIL nobody else can be looking at an entry when it is unlinked, so what it held is taken out there and then, and let go of
//! before the call returns. Without it, the engine drops what it held when no reader can see it any more; that comes here, too.

use crate::gil_cell::GilCell;
use crate::objects::Object;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Something that left a cache, with a reference to each.
pub(crate) struct DeferredDrop {
    pub(crate) key: Object,
    pub(crate) value: Object,
    /// Who wants to be told, and what.
    pub(crate) notice: Option<RemovalNotice>,
}

pub(crate) struct RemovalNotice {
    pub(crate) listener: Object,
    pub(crate) cause: hotset::Cause,
    pub(crate) notify: super::Notify,
    /// The key begins with a weak reference to a method's instance.
    pub(crate) method: bool,
}

// SAFETY: pointers to Python objects, which any attached thread may use.
unsafe impl Send for DeferredDrop {}

/// Of all caches; whoever comes out of a call lets go of what is here.
static DEFERRED: GilCell<Vec<DeferredDrop>> = GilCell::new(Vec::new());
/// How many there are, for a look without the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Leaves something to be let go of when the call that is going on returns.
pub(crate) fn defer_drop(dropped: DeferredDrop) {
    let mut all = DEFERRED.lock();
    all.push(dropped);
    COUNT.store(all.len(), Ordering::Relaxed);
}

/// Lets go of all that left. Runs Python code; an exception that is set stays so.
#[inline(always)]
pub(crate) fn drain_deferred() {
    if COUNT.load(Ordering::Relaxed) != 0 {
        drain_all();
    }
}

#[inline(never)]
fn drain_all() {
    // SAFETY: whoever comes out of a call is attached. An exception that is set must not meet the code that runs here.
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
        some.drain(..).for_each(DeferredDrop::release);
        // Its memory serves for the next, unless there was very much.
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
                    // SAFETY: this holds a reference.
                    let listener = unsafe { Bound::from_borrowed_ptr(py, listener) };
                    crate::interrupt::report_callback_error(error, &listener);
                }
            });
        }
        for object in [key, value, listener] {
            // SAFETY: these references are this one's, and are let go of once.
            unsafe { ffi::Py_XDECREF(object) };
        }
    }
}

impl RemovalNotice {
    /// What the user calls the cause.
    pub(crate) fn cause(&self) -> &'static str {
        match self.cause {
            hotset::Cause::Expired => "expired",
            hotset::Cause::Size => "size",
            hotset::Cause::Explicit => "explicit",
            hotset::Cause::Replaced => "replaced",
            // (The engine reserves the right to more.)
            _ => "other",
        }
    }
}

/// Lets go of what left when a call ends, however it does.
pub(crate) struct DrainOnExit;

impl Drop for DrainOnExit {
    fn drop(&mut self) {
        drain_deferred();
    }
}
