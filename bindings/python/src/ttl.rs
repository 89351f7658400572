//! Times to live, as Python code gives them.

use crate::objects::Ref;
use crate::sentinels::{is_keep, is_never};
use crate::store::options::seconds;
use hotset::Ttl;
use pyo3::prelude::*;
use std::time::Duration;

/// The time to live that comes with a value: seconds (0 is over at once), `KEEP`, `NEVER`, or None for the default.
pub(crate) fn parse_ttl(given: Option<&Bound<'_, PyAny>>) -> PyResult<Ttl> {
    let Some(given) = given.filter(|given| !given.is_none()) else {
        return Ok(Ttl::Default);
    };
    if is_keep(given) {
        return Ok(Ttl::Keep);
    }
    if is_never(given) {
        return Ok(Ttl::Never);
    }
    match given.extract::<f64>() {
        Ok(seconds) if seconds <= 0.0 => Ok(Ttl::After(Duration::ZERO)),
        _ => seconds("ttl", given).map(Ttl::After),
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
pub(crate) fn unwrap_with_ttl(loaded: Ref, ttl: Ttl) -> PyResult<(Ref, Ttl)> {
    // SAFETY: what was loaded by a caller is so by an attached thread.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: it is held.
    let object = unsafe { Bound::from_borrowed_ptr(py, loaded.get()) };
    match object.cast_exact::<WithTtl>() {
        Ok(own) => {
            let own = own.get();
            let ttl = parse_ttl(Some(own.ttl.bind(py)))?;
            Ok((own.value.bind(py).clone().into(), ttl))
        }
        Err(_) => Ok((loaded, ttl)),
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<WithTtl>()
}
