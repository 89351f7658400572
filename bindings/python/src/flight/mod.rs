//! A load that is going on, as Python sees it.

pub(crate) mod shared;

use crate::mapping::Mapping;
use crate::memo::Memo;
use crate::statics::{is_keep, is_never, missing, with_ttl};
use crate::store::lanes::Led;
use crate::store::options::seconds;
use hotset::Ttl;
use pyo3::exceptions::{PyException, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use shared::{Outcome, Shared};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whose load it is, and of what.
pub(crate) enum Of {
    Memo {
        memo: Py<PyAny>,
        args: Py<PyAny>,
        kwargs: Py<PyAny>,
    },
    Mapping {
        mapping: Py<PyAny>,
        key: Py<PyAny>,
    },
}

/// What the leader has to see to.
pub(crate) struct Lead {
    pub(crate) of: Of,
    pub(crate) led: Led,
    pub(crate) ended: AtomicBool,
}

/// A load that is going on.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct Flight {
    pub(crate) lead: Option<Lead>,
    pub(crate) shared: Option<Arc<Shared>>,
}

impl Flight {
    pub(crate) fn lead(of: Of, led: Led) -> Self {
        let ended = AtomicBool::new(false);
        Self {
            lead: Some(Lead { of, led, ended }),
            shared: None,
        }
    }

    pub(crate) fn wait(shared: Arc<Shared>) -> Self {
        Self {
            lead: None,
            shared: Some(shared),
        }
    }

    /// Ends the load, if the caller leads it and has not ended it yet.
    fn end(&self, py: Python<'_>, outcome: &Outcome, ttl: Ttl) -> PyResult<()> {
        let lead = self.lead.as_ref();
        let lead = lead.ok_or_else(|| PyRuntimeError::new_err("only the leader of a load can end it"))?;
        if lead.ended.swap(true, Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the load has been ended already"));
        }
        match &lead.of {
            Of::Memo { memo, args, kwargs } => Memo::end(py, memo, args, kwargs, lead.led, outcome, ttl),
            Of::Mapping { mapping, key } => Mapping::end(py, mapping, key, lead.led, outcome, ttl),
        }
    }

    /// The leader needs no load any more.
    pub(crate) fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py, &Outcome::Abandoned, Ttl::Default)
    }

    fn waits_for(&self) -> PyResult<&Shared> {
        let shared = self.shared.as_deref();
        shared.ok_or_else(|| PyRuntimeError::new_err("who leads a load cannot wait for it"))
    }
}

/// What an outcome is to one who asked for the value; MISSING if there is none.
pub(crate) fn reply(py: Python<'_>, outcome: Outcome) -> PyResult<Py<PyAny>> {
    match outcome {
        Outcome::Value(value) => Ok(value.into_bound(py).unbind()),
        #[cfg(not(Py_GIL_DISABLED))]
        Outcome::Error(error) => Err(PyErr::from_value(error.into_bound(py))),
        #[cfg(Py_GIL_DISABLED)]
        Outcome::Error(error) => Err(PyErr::from_value(crate::apart::own(&error)?.into_bound(py))),
        Outcome::Abandoned => Ok(missing(py)),
    }
}

/// What came of a load that raised: an error for all, or nothing, if that was meant for its leader only.
pub(crate) fn failure(py: Python<'_>, error: &PyErr) -> Outcome {
    if error.is_instance_of::<PyException>(py) {
        Outcome::Error(error.clone_ref(py).into_value(py).into_bound(py).into_any().into())
    } else {
        Outcome::Abandoned
    }
}

/// The time to live that comes with a value: seconds (0 is over at once), `KEEP`, `NEVER`, or None for the default.
pub(crate) fn ttl(given: Option<&Bound<'_, PyAny>>) -> PyResult<Ttl> {
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

#[pymethods]
impl Flight {
    /// The load's number in this process, the same for all who have to do with it.
    #[getter]
    fn id(&self) -> Option<u64> {
        let lead = self.lead.as_ref().map(|lead| lead.led.id);
        lead.or_else(|| self.shared.as_ref().map(|shared| shared.id))
    }

    /// The leader has the value: stores it, unless the key was changed meanwhile, and hands it to all who wait.
    #[pyo3(signature = (value, ttl = None, /))]
    fn finish(&self, py: Python<'_>, value: Bound<'_, PyAny>, ttl: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let ttl = self::ttl(ttl.as_ref())?;
        let (value, ttl) = with_ttl(value.into(), ttl)?;
        self.end(py, &Outcome::Value(value), ttl)
    }

    /// The leader has none: all who wait get this error.
    #[pyo3(signature = (error, /))]
    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        if !error.is_instance_of::<pyo3::exceptions::PyBaseException>() {
            return Err(PyTypeError::new_err("an exception is needed"));
        }
        let outcome = failure(py, &PyErr::from_value(error));
        self.end(py, &outcome, Ttl::Default)
    }

    /// The leader gave up: who waits tries again.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.give_up(py)
    }

    /// Whether the load has ended.
    fn done(&self) -> bool {
        match (&self.lead, &self.shared) {
            (Some(lead), _) => lead.ended.load(Ordering::Relaxed),
            (None, shared) => shared.as_ref().is_some_and(|shared| shared.outcome().is_some()),
        }
    }

    /// The value, or raises the error; MISSING if the load was abandoned.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let outcome = self.waits_for()?.outcome();
        reply(
            py,
            outcome.ok_or_else(|| PyRuntimeError::new_err("the load has not ended yet"))?,
        )
    }

    /// Blocks until the load has ended, and then is as result().
    #[pyo3(name = "wait")]
    fn wait_done(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let outcome = self.waits_for()?.wait(py)?;
        reply(py, outcome)
    }

    /// Has the callback called when the load has ended.
    #[pyo3(signature = (callback, /))]
    fn add_done_callback(&self, callback: Bound<'_, PyAny>) -> PyResult<()> {
        self.waits_for()?.add_callback(callback);
        Ok(())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self
            .lead
            .as_ref()
            .is_some_and(|lead| !lead.ended.load(Ordering::Relaxed))
        {
            Python::attach(|py| {
                let pending = PyErr::take(py);
                if let Err(error) = self.end(py, &Outcome::Abandoned, Ttl::Default) {
                    error.write_unraisable(py, None);
                }
                if let Some(pending) = pending {
                    pending.restore(py);
                }
            });
        }
    }
}
