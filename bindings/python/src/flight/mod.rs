//! A load in progress, as Python code handles it.

pub(crate) mod actor;
pub(crate) mod shared;

use crate::cache_ref::CacheRef;
use crate::exception_copy::Failure;
use crate::interrupt;
use crate::objects::Ref;
use crate::sentinels::missing;
use crate::store::loads::LoadToken;
use crate::ttl::unwrap_with_ttl;
use hotset::Ttl;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use shared::{Completion, Outcome, SharedLoad, failure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The cache that a load belongs to.
pub(crate) trait LoadOwner {
    /// Ends the load that `lead` leads, even after errors: stores its outcome unless the load was
    /// invalidated, and hands it to the waiters.
    fn end_load(&self, py: Python<'_>, lead: &Lead, outcome: &Outcome, ttl: Ttl) -> PyResult<()>;

    /// Returns whether the load is in progress, and was not invalidated.
    fn is_valid(&self, token: LoadToken) -> bool;

    /// Logs that an expired value is served for the key with this hash, because its load raised
    /// `error`.
    fn log_stale(&self, _hash: u64, _error: &PyErr) {}
}

/// What the leader needs to end its load.
pub(crate) struct Lead {
    pub(crate) cache: CacheRef<dyn LoadOwner>,
    /// The key that the cache holds for the load's result.
    pub(crate) key: Ref,
    pub(crate) token: LoadToken,
    /// The call's `(args, kwargs)`, if a key function made the key of them.
    pub(crate) call: Option<(Py<PyAny>, Py<PyAny>)>,
    /// Whether it reloads a value that is still served.
    pub(crate) reloads: bool,
    pub(crate) ended: AtomicBool,
}

/// A load in progress, as Memo.begin and Cache.begin return it.
///
/// There is one kind for its leader, which ends it once, and another for callers that wait.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct Flight {
    pub(crate) lead: Option<Lead>,
    pub(crate) shared: Option<Arc<SharedLoad>>,
}

impl Flight {
    pub(crate) fn lead(cache: CacheRef<dyn LoadOwner>, key: Ref, token: LoadToken) -> Self {
        Self {
            lead: Some(Lead {
                cache,
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

    /// Ends the load; raises a RuntimeError if the caller does not lead it, or has ended it.
    fn end(&self, py: Python<'_>, outcome: &Outcome, ttl: Ttl) -> PyResult<()> {
        let lead = self.lead.as_ref();
        let lead = lead.ok_or_else(|| PyRuntimeError::new_err("only the leader of a load can end it"))?;
        if lead.ended.swap(true, Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the load has been ended already"));
        }
        lead.cache.end_load(py, lead, outcome, ttl)?;
        interrupt::take_recorded(py).map_or(Ok(()), Err)
    }

    /// Ends the load without an outcome.
    pub(crate) fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py, &Outcome::Abandoned, Ttl::Default)
    }

    fn waits_for(&self) -> PyResult<&SharedLoad> {
        let shared = self.shared.as_deref();
        shared.ok_or_else(|| PyRuntimeError::new_err("the leader of a load cannot wait for it"))
    }
}

/// Returns the value for a waiter, or raises its copy of the exception; MISSING if the load was
/// abandoned.
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

#[pymethods]
impl Flight {
    /// The number of the load in this process, the same for its leader and its waiters.
    #[getter]
    fn id(&self) -> Option<u64> {
        let lead = self.lead.as_ref().map(|lead| lead.token.id);
        lead.or_else(|| self.shared.as_ref().map(|shared| shared.id))
    }

    /// Whether a task leads the load, rather than a thread.
    #[getter]
    fn of_task(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.of_task())
    }

    /// Stores the loaded value, unless the load was invalidated, and passes it to all waiters.
    ///
    /// Called by the leader.
    ///
    /// Args:
    ///     value: The value.
    ///     ttl: Seconds, KEEP, NEVER, or None for the ttl of the cache.
    #[pyo3(signature = (value, ttl = None, /))]
    fn finish(&self, py: Python<'_>, value: Bound<'_, PyAny>, ttl: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let ttl = crate::ttl::parse_ttl(ttl.as_ref())?;
        let (value, ttl) = unwrap_with_ttl(value.into(), ttl)?;
        self.end(py, &Outcome::Value(value), ttl)
    }

    /// Raises `error` in all waiters, and caches an `Exception` for negative_ttl.
    ///
    /// Called by the leader.
    ///
    /// Args:
    ///     error: The exception.
    #[pyo3(signature = (error, /))]
    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        if !error.is_instance_of::<pyo3::exceptions::PyBaseException>() {
            return Err(PyTypeError::new_err("the error must be an exception"));
        }
        let outcome = failure(py, &PyErr::from_value(error));
        self.end(py, &outcome, Ttl::Default)
    }

    /// Logs, once per series of failures, that the load failed and the old value is returned.
    ///
    /// Args:
    ///     error: The exception of the load.
    #[pyo3(signature = (error, /))]
    fn log_stale(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(lead) = &self.lead {
            lead.cache.log_stale(lead.token.hash(), &PyErr::from_value(error));
        }
        interrupt::take_recorded(py).map_or(Ok(()), Err)
    }

    /// Gives the load up (because its task was cancelled, say): waiters try again.
    ///
    /// Dropping a leader's Flight does the same.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.give_up(py)
    }

    /// Returns whether the load that the caller leads has not ended, and was not invalidated.
    fn is_valid(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.cache.is_valid(lead.token))
    }

    /// Returns whether the load has ended.
    fn done(&self) -> bool {
        match (&self.lead, &self.shared) {
            (Some(lead), _) => lead.ended.load(Ordering::Relaxed),
            (None, shared) => shared.as_ref().is_some_and(|shared| shared.completion().is_some()),
        }
    }

    /// Returns the value of a load that is done; MISSING if it was abandoned.
    ///
    /// Raises:
    ///     BaseException: The exception of the load.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let completion = self.waits_for()?.completion();
        reply(
            py,
            completion.ok_or_else(|| PyRuntimeError::new_err("the load has not ended yet"))?,
        )
    }

    /// Blocks until the load is done, without holding the GIL; returns as `result` does.
    #[pyo3(name = "wait")]
    fn wait_done(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let completion = self.waits_for()?.wait(py)?;
        reply(py, completion)
    }

    /// Has `callback` called once when the load is done; immediately if it is done already.
    ///
    /// It is called without a lock, by the thread that ends the load.
    ///
    /// Args:
    ///     callback: The function.
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
                // A destructor may run while an exception is set, which must survive it.
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
