//! Where Python calls: panics become exceptions, errors are raised, arguments are counted.

use crate::interrupt::{ReturnValue, raise_recorded};
use crate::objects::{Object, Raised};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{BoundObject, ffi};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;

impl From<Raised> for PyErr {
    fn from(_: Raised) -> Self {
        // SAFETY: where an exception can be set, the thread is attached.
        PyErr::fetch(unsafe { Python::assume_attached() })
    }
}

/// Sets an exception.
pub(crate) fn raise(error: PyErr) -> Raised {
    // SAFETY: as above.
    error.restore(unsafe { Python::assume_attached() });
    Raised
}

#[cold]
fn panicked(panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
    PyRuntimeError::new_err(format!("hotset panicked, which is a bug: {text}"))
}

/// Runs what Python calls, catch_panics: `f` uses nothing of PyO3 that needs to know that the thread is attached.
#[inline(always)]
pub(crate) fn catch_panics<R: ReturnValue + Copy>(failed: R, f: impl FnOnce() -> Result<R, Raised>) -> R {
    let result = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(result)) => result,
        Ok(Err(Raised)) => failed,
        Err(panic) => {
            raise(panicked(&*panic));
            failed
        }
    };
    raise_recorded(result, failed)
}

/// Runs what Python calls.
pub(crate) fn ffi_guard<R: ReturnValue + Copy>(failed: R, f: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    catch_panics(failed, || Python::attach(f).map_err(raise))
}

/// What methods return.
pub(crate) trait MethodResult {
    fn into_object(self, py: Python<'_>) -> PyResult<Object>;
}

impl<T: for<'py> IntoPyObject<'py>> MethodResult for PyResult<T> {
    fn into_object(self, py: Python<'_>) -> PyResult<Object> {
        Ok(self?
            .into_pyobject(py)
            .map_err(Into::into)?
            .into_any()
            .unbind()
            .into_ptr())
    }
}

/// Runs a method that takes its arguments by position, at least and at most so many.
///
/// # Safety
/// As for METH_FASTCALL; `this` is a `T`.
pub(crate) unsafe fn method<T, R>(
    this: Object,
    args: *const Object,
    count: ffi::Py_ssize_t,
    (least, most): (usize, usize),
    f: impl for<'py> FnOnce(&T, &[Bound<'py, PyAny>], Python<'py>) -> R,
) -> Object
where
    R: MethodResult,
{
    ffi_guard(ptr::null_mut(), |py| {
        let count = count as usize;
        if !(least..=most).contains(&count) {
            let wanted = if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            };
            return Err(PyTypeError::new_err(format!(
                "expected {wanted} arguments, got {count}"
            )));
        }
        // SAFETY: the caller's promise; `Bound` is a pointer, and these are borrowed for as long as the caller's.
        let (this, args) = unsafe {
            let args = if count == 0 {
                &[][..]
            } else {
                slice::from_raw_parts(args.cast::<Bound<'_, PyAny>>(), count)
            };
            (&*this.cast::<T>(), args)
        };
        f(this, args, py).into_object(py)
    })
}

/// [`method`] of a function whose parameters have names; `least` of them must be given.
///
/// # Safety
/// As for METH_FASTCALL with METH_KEYWORDS; `this` is a `T`.
#[inline(always)]
pub(crate) unsafe fn named_method<T, R, const N: usize>(
    this: Object,
    (args, count, names): (*const Object, ffi::Py_ssize_t, Object),
    least: usize,
    parameters: [&str; N],
    f: impl for<'py> FnOnce(&T, &[Bound<'py, PyAny>], Python<'py>) -> R,
) -> Object
where
    R: MethodResult,
{
    // SAFETY: the caller's promise; `sorted` holds no references of its own, but the caller's.
    unsafe {
        if names.is_null() {
            return method(this, args, count, (least, N), f);
        }
        match sort_by_name(args, count as usize, names, least, parameters) {
            Ok((sorted, count)) => method(this, sorted.as_ptr(), count as ffi::Py_ssize_t, (least, N), f),
            Err(Raised) => ptr::null_mut(),
        }
    }
}

/// Puts arguments by name into their places; returns how many places are filled.
///
/// # Safety
/// As for METH_FASTCALL with METH_KEYWORDS.
#[cold]
unsafe fn sort_by_name<const N: usize>(
    args: *const Object,
    count: usize,
    names: Object,
    least: usize,
    parameters: [&str; N],
) -> Result<([Object; N], usize), Raised> {
    let mut sorted = [ptr::null_mut(); N];
    Python::attach(|py| {
        // SAFETY: the caller's promise: a tuple, and as many arguments as are by position or named.
        let (names, args) = unsafe {
            let names = Bound::from_borrowed_ptr(py, names).cast_into_unchecked::<PyTuple>();
            (
                slice::from_raw_parts(args.add(count), names.len()).iter().zip(names),
                slice::from_raw_parts(args, count),
            )
        };
        if count > N {
            return Err(PyTypeError::new_err(format!(
                "expected at most {N} arguments, got {count}"
            )));
        }
        sorted[..count].copy_from_slice(args);
        for (arg, name) in names {
            let name = name.extract::<String>()?;
            let Some(at) = parameters.iter().position(|parameter| *parameter == name) else {
                return Err(PyTypeError::new_err(format!(
                    "got an unexpected keyword argument {name:?}"
                )));
            };
            if !sorted[at].is_null() {
                return Err(PyTypeError::new_err(format!(
                    "got multiple values for argument {name:?}"
                )));
            }
            sorted[at] = *arg;
        }
        let filled = sorted.iter().take_while(|arg| !arg.is_null()).count();
        if filled < least || sorted[filled..].iter().any(|arg| !arg.is_null()) {
            return Err(PyTypeError::new_err(format!(
                "missing the argument {:?}",
                parameters[filled]
            )));
        }
        Ok((sorted, filled))
    })
    .map_err(raise)
}

/// A table of methods for [`crate::types::TypeSpec`]: `c"name" => Type::function, least..=most, c"doc";`, where the names of the parameters may
/// come before the text, `["key", "default"]`, if they may be given by name.
macro_rules! methods {
    (@one $this:ty, $name:literal, $function:expr, $least:literal, $most:literal, $doc:literal) => {{
        unsafe extern "C" fn call(
            this: $crate::objects::Object,
            args: *mut $crate::objects::Object,
            count: pyo3::ffi::Py_ssize_t,
        ) -> $crate::objects::Object {
            // SAFETY: Python calls methods with objects of their type, and arguments as METH_FASTCALL says.
            unsafe { $crate::ffi::method::<$this, _>(this, args, count, ($least, $most), $function) }
        }
        pyo3::ffi::PyMethodDef {
            ml_name: $name.as_ptr(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { PyCFunctionFast: call },
            ml_flags: pyo3::ffi::METH_FASTCALL,
            ml_doc: $doc.as_ptr(),
        }
    }};
    (@one $this:ty, $name:literal, $function:expr, $least:literal, $most:literal, [$($parameter:literal),*], $doc:literal) => {{
        unsafe extern "C" fn call(
            this: $crate::objects::Object,
            args: *const $crate::objects::Object,
            count: pyo3::ffi::Py_ssize_t,
            names: $crate::objects::Object,
        ) -> $crate::objects::Object {
            const PARAMETERS: [&str; $most] = [$($parameter),*];
            // SAFETY: Python calls methods with objects of their type, and arguments as METH_FASTCALL with METH_KEYWORDS says.
            unsafe {
                $crate::ffi::named_method::<$this, _, _>(this, (args, count, names), $least, PARAMETERS, $function)
            }
        }
        pyo3::ffi::PyMethodDef {
            ml_name: $name.as_ptr(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: call },
            ml_flags: pyo3::ffi::METH_FASTCALL | pyo3::ffi::METH_KEYWORDS,
            ml_doc: $doc.as_ptr(),
        }
    }};
    ($this:ty; $($name:literal => $function:expr, $least:literal..=$most:literal, $([$($parameter:literal),*],)? $doc:literal;)*) => {
        vec![$($crate::ffi::methods!(@one $this, $name, $function, $least, $most, $([$($parameter),*],)? $doc)),*]
    };
}
pub(crate) use methods;
