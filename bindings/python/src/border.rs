//! Where Python calls: panics become exceptions, errors are raised, arguments are counted.

use crate::interrupt::{Returned, instead_of};
use crate::objects::{Object, Raised};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
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

/// Runs what Python calls, quickly: `f` uses nothing of PyO3 that needs to know that the thread is attached.
#[inline(always)]
pub(crate) fn quickly<R: Returned + Copy>(failed: R, f: impl FnOnce() -> Result<R, Raised>) -> R {
    let result = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(result)) => result,
        Ok(Err(Raised)) => failed,
        Err(panic) => {
            raise(panicked(&*panic));
            failed
        }
    };
    instead_of(result, failed)
}

/// Runs what Python calls.
pub(crate) fn enter<R: Returned + Copy>(failed: R, f: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    quickly(failed, || Python::attach(f).map_err(raise))
}

/// What methods return.
pub(crate) trait Reply {
    fn reply(self, py: Python<'_>) -> PyResult<Object>;
}

impl<T: for<'py> IntoPyObject<'py>> Reply for PyResult<T> {
    fn reply(self, py: Python<'_>) -> PyResult<Object> {
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
    R: Reply,
{
    enter(ptr::null_mut(), |py| {
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
        f(this, args, py).reply(py)
    })
}

/// A table of methods for [`crate::types::Class`]: `c"name" => Type::function, least..=most, c"doc";`
macro_rules! methods {
    ($this:ty; $($name:literal => $function:expr, $least:literal..=$most:literal, $doc:literal;)*) => {
        vec![$({
            unsafe extern "C" fn call(
                this: $crate::objects::Object,
                args: *mut $crate::objects::Object,
                count: pyo3::ffi::Py_ssize_t,
            ) -> $crate::objects::Object {
                // SAFETY: Python calls methods with objects of their type, and arguments as METH_FASTCALL says.
                unsafe { $crate::border::method::<$this, _>(this, args, count, ($least, $most), $function) }
            }
            pyo3::ffi::PyMethodDef {
                ml_name: $name.as_ptr(),
                ml_meth: pyo3::ffi::PyMethodDefPointer { PyCFunctionFast: call },
                ml_flags: pyo3::ffi::METH_FASTCALL,
                ml_doc: $doc.as_ptr(),
            }
        }),*]
    };
}
pub(crate) use methods;
