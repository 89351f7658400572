//! Objects of the module's own.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ptr;

use crate::objects::Object;

/// What comes before the names in a key. Nobody else has it.
static MARK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// What stands for "no value" where None may be one.
static MISSING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Says what it is, where it is shown.
#[pyclass(frozen, module = "hotset._hotset", name = "Missing")]
struct Missing;

#[pymethods]
impl Missing {
    fn __repr__(&self) -> &'static str {
        "MISSING"
    }

    fn __bool__(&self) -> bool {
        false
    }
}

/// To be called before anything else.
pub(crate) fn prepare(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    MARK.get_or_try_init(py, || Py::new(py, Missing).map(Py::into_any))?;
    MISSING.get_or_try_init(py, || Py::new(py, Missing).map(Py::into_any))?;
    module.add("MISSING", missing(py))
}

pub(crate) fn mark() -> Object {
    // SAFETY: callers are attached, as all that comes here.
    let py = unsafe { Python::assume_attached() };
    MARK.get(py).map_or(ptr::null_mut(), Py::as_ptr)
}

pub(crate) fn missing(py: Python<'_>) -> Py<PyAny> {
    MISSING
        .get(py)
        .map_or_else(|| py.None(), |missing| missing.clone_ref(py))
}

pub(crate) fn is_missing(object: &Bound<'_, PyAny>) -> bool {
    MISSING.get(object.py()).is_some_and(|missing| missing.is(object))
}
