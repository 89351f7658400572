//! Objects of the module's own.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ptr;

use crate::objects::{Object, Ref};
use hotset::Ttl;

/// What comes before the names in a key. Nobody else has it.
static KWARGS_MARK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// What stands for "no value" where None may be one.
static MISSING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A time to live: that of the entry that is replaced.
static KEEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// A time to live: none.
static NEVER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Says what it is, where it is shown.
#[pyclass(frozen, module = "hotset._hotset", name = "Missing")]
struct Missing;

/// What a time to live may be that is no number.
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

/// A result that says how long it is good.
#[pyclass(frozen, module = "hotset", name = "WithTtl")]
pub(crate) struct WithTtl {
    #[pyo3(get)]
    value: Py<PyAny>,
    /// As the native part takes it.
    #[pyo3(get)]
    ttl: Py<PyAny>,
}

#[pymethods]
impl WithTtl {
    #[new]
    fn new(value: Bound<'_, PyAny>, ttl: Bound<'_, PyAny>) -> PyResult<Self> {
        let checked = value.py().import("hotset._settings")?.call_method1("ttl_of", (ttl,))?;
        Ok(Self {
            value: value.unbind(),
            ttl: checked.unbind(),
        })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (value, ttl) = (self.value.bind(py).repr()?, self.ttl.bind(py).repr()?);
        Ok(format!("WithTtl({value}, {ttl})"))
    }
}

/// What was loaded, and how long it is good if it says so.
#[inline]
pub(crate) fn with_ttl(loaded: Ref, ttl: Ttl) -> PyResult<(Ref, Ttl)> {
    // SAFETY: what was loaded by a caller is so by an attached thread.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: it is held.
    let object = unsafe { Bound::from_borrowed_ptr(py, loaded.get()) };
    match object.cast_exact::<WithTtl>() {
        Ok(own) => {
            let own = own.get();
            let ttl = crate::flight::ttl(Some(own.ttl.bind(py)))?;
            Ok((own.value.bind(py).clone().into(), ttl))
        }
        Err(_) => Ok((loaded, ttl)),
    }
}

/// To be called before anything else.
pub(crate) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    KWARGS_MARK.get_or_try_init(py, || Py::new(py, Missing).map(Py::into_any))?;
    MISSING.get_or_try_init(py, || Py::new(py, Missing).map(Py::into_any))?;
    for (name, which) in [("KEEP", &KEEP), ("NEVER", &NEVER)] {
        let made = which.get_or_try_init(py, || Py::new(py, Lifetime(name)).map(Py::into_any))?;
        module.add(name, made.clone_ref(py))?;
    }
    module.add_class::<Lifetime>()?;
    module.add_class::<WithTtl>()?;
    module.add("MISSING", missing(py))
}

pub(crate) fn kwargs_mark() -> Object {
    // SAFETY: callers are attached, as all that comes here.
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
