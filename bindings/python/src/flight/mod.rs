//! A load that is going on, as Python sees it.

pub(crate) mod actor;
pub(crate) mod shared;

use crate::exception_copy::Failure;
use crate::interrupt;
use crate::mapping::Mapping;
use crate::memo::Memo;
use crate::objects::Ref;
use crate::sentinels::{is_keep, is_never, missing, with_ttl};
use crate::store::loads::LoadToken;
use crate::store::options::seconds;
use hotset::Ttl;
use pyo3::exceptions::{PyException, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use shared::{Completion, Outcome, SharedLoad};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The cache that a load is for.
pub(crate) enum Of {
    Memo(Py<PyAny>),
    Mapping(Py<PyAny>),
}

/// What the leader has to see to.
pub(crate) struct Lead {
    pub(crate) of: Of,
    /// The key that the cache holds, or would.
    pub(crate) key: Ref,
    pub(crate) token: LoadToken,
    /// The call's `(args, kwargs)`, if a function made the key of them.
    pub(crate) call: Option<(Py<PyAny>, Py<PyAny>)>,
    /// It reloads a value that is served.
    pub(crate) reloads: bool,
    pub(crate) ended: AtomicBool,
}

/// A load that is going on.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct Flight {
    pub(crate) lead: Option<Lead>,
    pub(crate) shared: Option<Arc<SharedLoad>>,
}

impl Flight {
    pub(crate) fn lead(of: Of, key: Ref, token: LoadToken) -> Self {
        Self {
            lead: Some(Lead {
                of,
                key,
                token,
                call: None,
                reloads: false,
                ended: AtomicBool::new(false),
            }),
            shared: None,
        }
    }

    pub(crate) fn wait(shared: Arc<SharedLoad>) -> Self {
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
            Of::Memo(memo) => Memo::end(py, memo, lead, outcome, ttl)?,
            Of::Mapping(mapping) => Mapping::end(py, mapping, lead, outcome, ttl)?,
        }
        interrupt::take_recorded(py).map_or(Ok(()), Err)
    }

    /// The leader needs no load any more.
    pub(crate) fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py, &Outcome::Abandoned, Ttl::Default)
    }

    fn waits_for(&self) -> PyResult<&SharedLoad> {
        let shared = self.shared.as_deref();
        shared.ok_or_else(|| PyRuntimeError::new_err("who leads a load cannot wait for it"))
    }
}

/// The value for a waiter, or an exception of its own; MISSING if the load was abandoned.
pub(crate) fn reply(py: Python<'_>, completion: Completion) -> PyResult<Py<PyAny>> {
    match completion {
        Completion::Value(value) => Ok(value.into_bound(py).unbind()),
        Completion::Error(failure) => {
            let failure = failure.into_bound(py).cast_into::<Failure>()?;
            Err(PyErr::from_value(failure.get().exception(py)?))
        }
        Completion::Abandoned => Ok(missing(py)),
    }
}

/// What came of a load that raised: an error for all, or nothing, if that was meant for its leader only.
pub(crate) fn failure(py: Python<'_>, error: &PyErr) -> Outcome {
    if error.is_instance_of::<PyException>(py) {
        let value = error.value(py);
        // (Before 3.12 Python keeps the two apart.)
        if let Some(traceback) = error.traceback(py) {
            // SAFETY: an exception, and a traceback.
            unsafe { pyo3::ffi::PyException_SetTraceback(value.as_ptr(), traceback.as_ptr()) };
        }
        Outcome::Error(value.clone().into_any().into())
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
        let lead = self.lead.as_ref().map(|lead| lead.token.id);
        lead.or_else(|| self.shared.as_ref().map(|shared| shared.id))
    }

    /// Whether a task leads it.
    #[getter]
    fn of_task(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.of_task())
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

    /// The leader's load failed with this error, and its caller serves the expired value: logs that, once in a spell of failures.
    #[pyo3(signature = (error, /))]
    fn log_stale(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(Lead {
            of: Of::Memo(memo),
            token,
            ..
        }) = &self.lead
        {
            Memo::end_stale(memo, token.hash(), &PyErr::from_value(error));
        }
        interrupt::take_recorded(py).map_or(Ok(()), Err)
    }

    /// The leader gave up: who waits tries again.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.give_up(py)
    }

    /// Whether the load has ended.
    fn done(&self) -> bool {
        match (&self.lead, &self.shared) {
            (Some(lead), _) => lead.ended.load(Ordering::Relaxed),
            (None, shared) => shared.as_ref().is_some_and(|shared| shared.completion().is_some()),
        }
    }

    /// The value, or raises the error; MISSING if the load was abandoned.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let completion = self.waits_for()?.completion();
        reply(
            py,
            completion.ok_or_else(|| PyRuntimeError::new_err("the load has not ended yet"))?,
        )
    }

    /// Blocks until the load has ended, and then is as result().
    #[pyo3(name = "wait")]
    fn wait_done(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let completion = self.waits_for()?.wait(py)?;
        reply(py, completion)
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
