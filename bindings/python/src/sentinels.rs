//! Sentinel objects of the module.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ptr;

use crate::objects::Object;

/// Separates positional arguments from the names of keyword arguments in a key. No Python code can
/// get hold of it.
static KWARGS_MARK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// Stands for "no value" where None may be a value.
static MISSING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A time to live: that of the entry that is replaced.
static KEEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// A time to live: the entry does not expire.
static NEVER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The type of sentinels for "no value", with a readable `repr`.
#[pyclass(frozen, module = "hotset._hotset", name = "Missing")]
struct Missing;

/// A time to live that is not a number of seconds: KEEP or NEVER.
#[pyclass(frozen, module = "hotset._hotset", name = "Lifetime")]
struct Lifetime(&'static str);

#[pymethods]
impl Lifetime {
    fn __repr__(&self) -> &'static str {
        self.0
    }

    fn __reduce__(&self) -> &'static str {
        self.0
    }
}

#[pymethods]
impl Missing {
    fn __repr__(&self) -> &'static str {
        "MISSING"
    }

    fn __bool__(&self) -> bool {
        false
    }
}

/// Creates the sentinels. Must be called before any other function here.
pub(crate) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    KWARGS_MARK.get_or_try_init(py, || Py::new(py, Missing).map(Py::into_any))?;
    MISSING.get_or_try_init(py, || Py::new(py, Missing).map(Py::into_any))?;
    for (name, which) in [("KEEP", &KEEP), ("NEVER", &NEVER)] {
        let made = which.get_or_try_init(py, || Py::new(py, Lifetime(name)).map(Py::into_any))?;
        module.add(name, made.clone_ref(py))?;
    }
    module.add_class::<Lifetime>()?;
    module.add("MISSING", missing(py))
}

pub(crate) fn kwargs_mark() -> Object {
    // SAFETY: all callers are attached.
    let py = unsafe { Python::assume_attached() };
    KWARGS_MARK.get(py).map_or(ptr::null_mut(), Py::as_ptr)
}

pub(crate) fn missing(py: Python<'_>) -> Py<PyAny> {
    MISSING
        .get(py)
        .map_or_else(|| py.None(), |missing| missing.clone_ref(py))
}

pub(crate) fn is_missing(object: &Bound<'_, PyAny>) -> bool {
    MISSING.get(object.py()).is_some_and(|missing| missing.is(object))
}

pub(crate) fn is_keep(object: &Bound<'_, PyAny>) -> bool {
    KEEP.get(object.py()).is_some_and(|keep| keep.is(object))
}

pub(crate) fn is_never(object: &Bound<'_, PyAny>) -> bool {
    NEVER.get(object.py()).is_some_and(|never| never.is(object))
}
