//! Exceptions that several threads raise, without the GIL.
//!
//! Whoever raises an exception writes its traceback and context into it, and CPython 3.13 does not protect these: one object raised by
//! several threads at once ends the process. So what a load raised is raised as it is by the one who led the load; all others, who wait for
//! it or find it in the cache, get a copy each.

use crate::objects::{Raised, Ref};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// An exception of the caller's own, to be raised: like this one, but for its traceback and context. May run Python code.
pub(crate) fn own(error: &Ref) -> Result<Ref, Raised> {
    Python::attach(|py| {
        let error = error.clone().into_bound(py);
        copy(&error).map(Ref::from).map_err(|failed| {
            failed.set_cause(py, Some(PyErr::from_value(error)));
            crate::border::raise(failed)
        })
    })
}

fn copy<'py>(error: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = error.py();
    let is_copy = |copy: &Bound<'_, PyAny>| copy.get_type().is(error.get_type()) && !copy.is(error);
    let copied = py.import("copy")?.call_method1("copy", (error,));
    let copy = match copied {
        Ok(copy) if is_copy(&copy) => copy,
        Err(failed) if !failed.is_instance_of::<PyException>(py) => return Err(failed),
        // The arguments of many a class are not what its exceptions have as `args`.
        _ => remade(error)?,
    };
    if !is_copy(&copy) {
        return Err(PyTypeError::new_err("an exception to be raised again cannot be copied"));
    }
    // SAFETY: both are exceptions, of one type; the new reference to the cause, if there is one, is given away.
    unsafe { ffi::PyException_SetCause(copy.as_ptr(), ffi::PyException_GetCause(error.as_ptr())) };
    copy.setattr("__suppress_context__", error.getattr("__suppress_context__")?)?;
    Ok(copy)
}

/// A copy made without `__init__`.
fn remade<'py>(error: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let class = error.get_type();
    let args = error.getattr("args")?.cast_into::<PyTuple>()?;
    let args = std::iter::once(class.clone().into_any()).chain(args.iter());
    let copy = class.call_method1("__new__", PyTuple::new(error.py(), args.collect::<Vec<_>>())?)?;
    let state = error.getattr("__dict__")?.cast_into::<PyDict>()?;
    copy.getattr("__dict__")?
        .cast_into::<PyDict>()?
        .update(state.as_mapping())?;
    Ok(copy)
}
