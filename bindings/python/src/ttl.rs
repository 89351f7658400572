//! Times to live, as Python code passes them.

use crate::objects::Ref;
use crate::sentinels::{is_keep, is_never};
use crate::store::options::seconds;
use hotset::Ttl;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
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

/// A value with a time to live of its own, as a cached function or a loader may return it.
///
/// Callers get the value alone.
///
/// Args:
///     value: The value.
///     ttl: Seconds or a timedelta (0 or less: it is not stored), None for no expiration, `...` for
///         the ttl of the cache.
///
/// Example:
///     >>> import hotset
///     >>> @hotset.cached(ttl=60)
///     ... def rate(currency: str) -> float:
///     ...     return hotset.WithTtl(1.1, 5)  # expires after 5 s
///     >>> rate("EUR")
///     1.1
#[pyclass(frozen, module = "hotset", name = "WithTtl")]
pub(crate) struct WithTtl {
    #[pyo3(get)]
    value: Py<PyAny>,
    /// Seconds (float), KEEP, NEVER, or None for the ttl of the cache.
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

/// The type of [`WithTtl`], which lives as long as the process.
static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// Returns whether what was loaded is a [`WithTtl`].
#[inline(always)]
pub(crate) fn is_with_ttl(loaded: &Ref) -> bool {
    // SAFETY: `loaded` holds a reference.
    unsafe { ffi::Py_TYPE(loaded.get()) == TYPE.load(Ordering::Relaxed) }
}

/// Returns what was loaded and its time to live, which a [`WithTtl`] overrides.
#[inline]
pub(crate) fn unwrap_with_ttl(loaded: Ref, ttl: Ttl) -> PyResult<(Ref, Ttl)> {
    if is_with_ttl(&loaded) {
        return unwrap_own_ttl(loaded, ttl);
    }
    Ok((loaded, ttl))
}

#[cold]
fn unwrap_own_ttl(loaded: Ref, ttl: Ttl) -> PyResult<(Ref, Ttl)> {
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
    module.add_class::<WithTtl>()?;
    // The reference is kept.
    let class = module.py().get_type::<WithTtl>().into_ptr();
    TYPE.store(class.cast(), Ordering::Relaxed);
    Ok(())
}
