//! Times to live, as Python code passes them.

use crate::objects::Ref;
use crate::sentinels::{is_keep, is_never};
use crate::store::options::seconds;
use hotset::Ttl;
use pyo3::prelude::*;
use std::time::Duration;

/// Returns the time to live that `given` stands for: seconds (0 expires immediately), `KEEP`,
/// `NEVER`, or None for the cache's default.
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

/// A result with its own time to live.
///
/// A function under `cached`, or a loader, may return this instead of a value. Its callers get the
/// value alone.
///
/// Args:
///     value: The value.
///     ttl: Seconds or a timedelta (0 or less: the value is not kept), None for no expiration, `...`
///         for the cache's setting.
///
/// Raises:
///     TypeError: `ttl` is none of these.
///     ValueError: `ttl` is not a number.
///
/// Example:
///     >>> import hotset
///     >>> @hotset.cached
///     ... def token(user):
///     ...     return hotset.WithTtl(f\"token of {user}\", ttl=30)
///     >>> token(\"ann\")
///     'token of ann'
#[pyclass(frozen, module = "hotset", name = "WithTtl")]
pub(crate) struct WithTtl {
    #[pyo3(get)]
    value: Py<PyAny>,
    /// Seconds (float), KEEP, NEVER, or None for the cache's setting.
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

/// Returns what was loaded and its time to live, which a [`WithTtl`] overrides.
#[inline]
pub(crate) fn unwrap_with_ttl(loaded: Ref, ttl: Ttl) -> PyResult<(Ref, Ttl)> {
    // SAFETY: a load's result is handled by the attached thread that ran it.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `loaded` holds a reference.
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
