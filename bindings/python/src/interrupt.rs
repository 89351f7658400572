//! Exceptions that must end the program, raised where a call cannot stop: `KeyboardInterrupt`, `SystemExit`, and all that are no
//! `Exception`, out of removal listeners and callbacks.
//!
//! Such code runs when a call has done its work and is about to return. What it raises is recorded, the remaining listeners are notified,
//! and the call raises it instead of returning its result.

use crate::objects::Object;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// The exception that this thread's call must raise; null for none. A reference.
    static RECORDED: Cell<Object> = const { Cell::new(ptr::null_mut()) };
}

/// How many threads have one, for a check without a lookup of the thread's own.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Reports what `callback` raised: to `sys.unraisablehook`, or by the call of this library that is running.
pub(crate) fn report_callback_error(error: PyErr, callback: &Bound<'_, PyAny>) {
    let py = callback.py();
    if error.is_instance_of::<PyException>(py) || !RECORDED.get().is_null() {
        error.write_unraisable(py, Some(callback));
        return;
    }
    RECORDED.set(error.into_value(py).into_ptr());
    // Relaxed: each thread looks for its own.
    THREADS.fetch_add(1, Ordering::Relaxed);
}

/// Takes what this thread's call must raise.
pub(crate) fn take_recorded(py: Python<'_>) -> Option<PyErr> {
    if THREADS.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: a reference that is given away, or null.
    let recorded = unsafe { Bound::from_owned_ptr_or_opt(py, RECORDED.replace(ptr::null_mut())) }?;
    THREADS.fetch_sub(1, Ordering::Relaxed);
    Some(PyErr::from_value(recorded))
}

/// What a function that Python calls returns.
pub(crate) trait ReturnValue {
    /// Whether its caller expects an exception.
    const RAISES: bool = true;
    /// Drops a result that is not returned. Runs Python code.
    fn discard(self);
}

impl ReturnValue for Object {
    fn discard(self) {
        // SAFETY: a new reference, or null.
        unsafe { ffi::Py_XDECREF(self) }
    }
}

impl ReturnValue for c_int {
    fn discard(self) {}
}

impl ReturnValue for ffi::Py_ssize_t {
    fn discard(self) {}
}

/// A destructor's, which runs in the middle of another call.
impl ReturnValue for () {
    const RAISES: bool = false;
    fn discard(self) {}
}

/// Returns `result`; or `failed`, with the recorded exception set, if there is one.
#[inline(always)]
pub(crate) fn raise_recorded<R: ReturnValue>(result: R, failed: R) -> R {
    if R::RAISES && THREADS.load(Ordering::Relaxed) != 0 {
        raise_recorded_slow(result, failed)
    } else {
        result
    }
}

#[cold]
fn raise_recorded_slow<R: ReturnValue>(result: R, failed: R) -> R {
    // SAFETY: what Python calls is attached.
    let py = unsafe { Python::assume_attached() };
    let Some(error) = take_recorded(py) else {
        return result;
    };
    if let Some(context) = PyErr::take(py) {
        // SAFETY: two exceptions, the second of which is given away.
        unsafe { ffi::PyException_SetContext(error.value(py).as_ptr(), context.into_value(py).into_ptr()) };
    } else {
        result.discard();
    }
    error.restore(py);
    failed
}
