//! Callables that many threads call, without the GIL.
//!
//! Whoever calls one counts a reference to it, up and down: two threads that write to one counter are slower than one. CPython spares its
//! own functions that: those that are not nested in others "defer" their counts, and only the garbage collector frees them. A function
//! with a cache is to scale as it would without one, so it is made as its function is.

use crate::objects::Object;
use pyo3::prelude::*;
use pyo3::types::PyFunction;

/// Code that is nested in a function's (`inspect.CO_NESTED`).
const NESTED: i64 = 0x10;

/// Has the references to an object deferred, if those to the function are.
///
/// # Safety
/// The object is new: no other thread knows it. The collector tracks it.
pub(crate) unsafe fn as_function(object: Object, function: &Bound<'_, PyAny>) {
    let flags = || function.getattr("__code__")?.getattr("co_flags")?.extract::<i64>();
    if function.is_exact_instance_of::<PyFunction>() && flags().is_ok_and(|flags| flags & NESTED == 0) {
        // SAFETY: the caller's promise.
        unsafe { defer(object, function) };
    }
}

/// # Safety
/// As `as_function`.
#[cfg(Py_3_14)]
unsafe fn defer(object: Object, _: &Bound<'_, PyAny>) {
    unsafe extern "C" {
        fn PyUnstable_Object_EnableDeferredRefcount(object: Object) -> std::ffi::c_int;
    }
    // SAFETY: the caller's promise.
    unsafe { PyUnstable_Object_EnableDeferredRefcount(object) };
}

/// CPython 3.13 has no function for this that others may call, and will not change any more: this is what its own does. When the first thread
/// begins it makes all objects of this kind immortal. After that nothing is deferred here: what is made anew by and by would never be freed.
///
/// # Safety
/// As `as_function`.
#[cfg(not(Py_3_14))]
unsafe fn defer(object: Object, function: &Bound<'_, PyAny>) {
    use std::sync::atomic::Ordering;

    const DEFERRED: u8 = 1 << 6;
    const IMMORTAL: u32 = u32::MAX;
    const QUEUED: isize = 2;
    // SAFETY: the caller's promise: this thread owns the object, and nobody else writes to it; the function is alive.
    unsafe {
        let function = function.as_ptr();
        if (*function).ob_gc_bits & DEFERRED == 0 || (*function).ob_ref_local.load(Ordering::Relaxed) == IMMORTAL {
            return;
        }
        (*object).ob_gc_bits |= DEFERRED;
        let local = (*object).ob_ref_local.load(Ordering::Relaxed);
        (*object).ob_ref_local.store(local + 1, Ordering::Relaxed);
        (*object).ob_ref_shared.store(QUEUED, Ordering::Relaxed);
    }
}
