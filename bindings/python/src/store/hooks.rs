//! The callbacks that the engine calls, and what they share with the store.

use super::deferred_drop::{DeferredDrop, Notify, RemovalNotice, defer_drop};
use super::key::{Key, Value};
#[cfg(not(Py_GIL_DISABLED))]
use super::owners::{self, OwnerCounts};
use crate::objects::Object;
use hotset::Cause;
use pyo3::ffi;
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;

thread_local! {
    /// The value that this thread is replacing by itself, or null.
    pub(super) static WITHOUT_NOTICE: Cell<Object> = const { Cell::new(ptr::null_mut()) };
}

/// What the engine's callbacks share with the store. The store drops the references.
pub(super) struct Hooks {
    pub(super) on_removal: AtomicPtr<ffi::PyObject>,
    pub(super) notify: Notify,
    /// Whether keys begin with a weak reference to a method's instance.
    pub(super) method: AtomicBool,
    /// The result of the user's timer when it was last called, in nanoseconds.
    pub(super) now: AtomicU64,
    #[cfg(not(Py_GIL_DISABLED))]
    pub(super) counts: OwnerCounts,
}

/// The engine's clock for a cache with a timer of the user's.
///
/// The engine reads its clock where no Python code may run. So the timer is called before each
/// operation, and the engine reads that result.
pub(super) struct CachedTimer(pub(super) Arc<Hooks>);

impl hotset::Clock for CachedTimer {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.now.load(Ordering::Relaxed))
    }
}

impl Hooks {
    /// Defers the drop of an entry that left the engine, and its notice.
    pub(super) fn entry_removed(&self, key: &Key, value: &Value, cause: Cause) {
        #[cfg(not(Py_GIL_DISABLED))]
        if self.method.load(Ordering::Relaxed) {
            owners::detach_entry(&self.counts, key.object());
        }
        // The engine calls this in the middle of its work, where no Python code may run: nothing is
        // dropped and no listener is called here.
        let mut listener = self.on_removal.load(Ordering::Relaxed);
        if value.is_error() || (cause == Cause::Replaced && value.object() == WITHOUT_NOTICE.get()) {
            // A cached failure is no value, and a value that is replaced by itself stays.
            listener = ptr::null_mut();
        }
        let notice = (!listener.is_null()).then(|| {
            // SAFETY: the store holds it.
            unsafe { ffi::Py_INCREF(listener) };
            RemovalNotice {
                listener,
                cause,
                notify: self.notify,
                method: self.method.load(Ordering::Relaxed),
            }
        });
        if cfg!(not(Py_GIL_DISABLED)) {
            // With the GIL no other thread reads the entry any more, so its references need not
            // wait until the engine frees it.
            let (key, value) = (key.take(), value.take());
            defer_drop(DeferredDrop { key, value, notice });
        } else if notice.is_some() {
            // Other threads may still read the entry, which keeps its references until the engine
            // frees it: the notice has its own.
            let (key, value) = (key.object(), value.object());
            // SAFETY: the thread that unlinked the entry calls this, and holds the entry.
            unsafe {
                ffi::Py_INCREF(key);
                ffi::Py_INCREF(value);
            }
            defer_drop(DeferredDrop { key, value, notice });
        }
    }
}
