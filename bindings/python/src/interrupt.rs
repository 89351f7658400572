//! Exceptions that must end the program, raised where a call cannot stop: `KeyboardInterrupt`,
//! `SystemExit` and all others that are no `Exception`, raised by removal listeners and callbacks.
//!
//! Such code runs when a call has done its work and is about to return. What it raises is recorded,
//! the remaining listeners are notified, and the call raises the exception instead of returning its
//! result.

use crate::objects::Object;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// A reference to the exception that this thread's call must raise; null for none.
    static RECORDED: Cell<Object> = const { Cell::new(ptr::null_mut()) };
}

/// The number of threads with a recorded exception, so that calls can check without thread-local
/// storage.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Reports an exception of `callback`: records it for the running call to raise if it must end the
/// program, else passes it to `sys.unraisablehook`.
pub(crate) fn report_callback_error(error: PyErr, callback: &Bound<'_, PyAny>) {
    let py = callback.py();
    if error.is_instance_of::<PyException>(py) || !RECORDED.get().is_null() {
        error.write_unraisable(py, Some(callback));
        return;
    }
    RECORDED.set(error.into_value(py).into_ptr());
    // Relaxed: a thread only needs to see its own increment.
    THREADS.fetch_add(1, Ordering::Relaxed);
}

/// Takes the exception that this thread's call must raise.
pub(crate) fn take_recorded(py: Python<'_>) -> Option<PyErr> {
    if THREADS.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: an owned reference, or null.
    let recorded = unsafe { Bound::from_owned_ptr_or_opt(py, RECORDED.replace(ptr::null_mut())) }?;
    THREADS.fetch_sub(1, Ordering::Relaxed);
    Some(PyErr::from_value(recorded))
}

/// The return type of a function that CPython calls.
pub(crate) trait ReturnValue {
    /// Whether the function's caller checks for an exception.
    const RAISES: bool = true;
    /// Drops a result that is replaced by an exception. Runs Python code.
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

/// The return type of a destructor, which runs in the middle of another call and cannot raise.
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
    // SAFETY: CPython calls with the thread attached.
    let py = unsafe { Python::assume_attached() };
    let Some(error) = take_recorded(py) else {
        return result;
    };
    if let Some(context) = PyErr::take(py) {
        // SAFETY: both are exceptions, and the second reference is given away.
        unsafe { ffi::PyException_SetContext(error.value(py).as_ptr(), context.into_value(py).into_ptr()) };
    } else {
        result.discard();
    }
    error.restore(py);
    failed
}
