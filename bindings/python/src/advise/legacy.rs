//! The profile function of Python 3.11, which has no `sys.monitoring`.

use super::{Bound, Function, Kind, Known, Object, PyResult, Python, ffi, ffi_guard, recent, recording};
use std::ffi::c_int;
use std::ptr;

/// `RESUME` and `YIELD_VALUE` of Python 3.11.
const RESUME: u8 = 151;
const YIELD_VALUE: u8 = 86;

/// The instruction at which `frame` is, and its operand.
fn instruction(function: &Function, frame: *mut ffi::PyFrameObject) -> (u8, u8) {
    // SAFETY: the interpreter lends the frame for the duration of the callback.
    let at = unsafe { ffi::PyFrame_GetLasti(frame) };
    let at = usize::try_from(at).unwrap_or(0);
    let byte = |at: usize| function.bytecode.get(at).copied().unwrap_or(0);
    (byte(at), byte(at + 1))
}

pub(super) unsafe extern "C" fn profile(
    _: Object,
    frame: *mut ffi::PyFrameObject,
    what: c_int,
    value: Object,
) -> c_int {
    if what != ffi::PyTrace_CALL && what != ffi::PyTrace_RETURN {
        return 0;
    }
    // The fast path: a plain function that is only counted, or a call that is not observed.
    if let Some(recording) = recording() {
        // SAFETY: a new reference to the frame's code, which the frame keeps alive.
        let code = unsafe {
            let code: Object = ffi::PyFrame_GetCode(frame).cast();
            ffi::Py_DECREF(code);
            code
        };
        let done = match recent(recording, code) {
            Known::Other => true,
            Known::Observed(function) if function.kind != Kind::Plain => false,
            Known::Observed(function) if what == ffi::PyTrace_CALL => recording.count(function),
            Known::Observed(function) => {
                let value = (!value.is_null()).then_some(value);
                if recording.is_observed_end(function) {
                    return ffi_guard(-1, |py| recording.end(py, function, value).map(|()| 0));
                }
                true
            }
            Known::Unknown => false,
        };
        if done {
            return 0;
        }
    }
    ffi_guard(-1, |py| run(py, frame, what, value).map(|()| 0))
}

fn run(py: Python<'_>, frame: *mut ffi::PyFrameObject, what: c_int, value: Object) -> PyResult<()> {
    let Some(recording) = recording() else {
        // The recording has ended, on another thread.
        // SAFETY: the thread is attached.
        unsafe { ffi::PyEval_SetProfile(None, ptr::null_mut()) };
        return Ok(());
    };
    // SAFETY: a new reference to the frame's code.
    let code: Bound<'_, pyo3::PyAny> = unsafe { Bound::from_owned_ptr(py, ffi::PyFrame_GetCode(frame).cast()) };
    let function = match recording.known(code.as_ptr()) {
        Known::Observed(function) => function,
        Known::Unknown if what == ffi::PyTrace_CALL => match recording.decide(&code)? {
            Some(function) => function,
            None => return Ok(()),
        },
        Known::Unknown | Known::Other => return Ok(()),
    };
    if what == ffi::PyTrace_CALL {
        // A generator or coroutine that continues.
        if function.kind != Kind::Plain && matches!(instruction(function, frame), (RESUME, 1..)) {
            return Ok(());
        }
        return recording.start(py, function);
    }
    let raised = value.is_null();
    if !raised && function.kind != Kind::Plain && instruction(function, frame).0 == YIELD_VALUE {
        return Ok(());
    }
    recording.stop(py, function, (!raised).then_some(value))
}
