//! A reload that a hit found due, for another thread to run.

use super::Memo;
use super::load::CallSearch;
use crate::call::Call;
use crate::interrupt;
use crate::objects::{Raised, Ref};
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{KeyQuery, Search, StoredKey};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::atomic::{AtomicBool, Ordering};

/// The right and the duty to reload one result. If it is abandoned or dropped before it has run, the next caller gets another.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct Reload {
    memo: Py<PyAny>,
    args: Py<PyTuple>,
    kwargs: Py<PyDict>,
    key: Ref,
    /// The key's, seed included.
    hash: u64,
    done: AtomicBool,
}

impl Reload {
    pub(super) fn new(
        memo: &Memo,
        key: &Call<'_>,
        search: &CallSearch<'_, '_>,
        call: &Call<'_>,
    ) -> Result<Self, Raised> {
        let own = key.key()?;
        Python::attach(|py| {
            let (args, kwargs) = call.objects(py)?;
            Ok(Self {
                // SAFETY: the memo is alive while it is called.
                memo: unsafe { Bound::from_borrowed_ptr(py, memo.object()) }.unbind(),
                args: args.unbind(),
                kwargs: kwargs.unbind(),
                key: own,
                hash: KeyQuery::hash(search),
                done: AtomicBool::new(false),
            })
        })
        .map_err(crate::ffi::raise)
    }

    fn memo(&self) -> &Memo {
        // SAFETY: `new` put a memo there.
        unsafe { &*self.memo.as_ptr().cast() }
    }

    fn stored(&self) -> StoredKey {
        StoredKey::new(self.key.clone(), self.memo().store.is_method())
    }
}

#[pymethods]
impl Reload {
    /// Calls the function, and stores what it returns. Raises what it raises; the value that is there is then soon due again.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        if self.done.swap(true, Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the reload has been run or abandoned already"));
        }
        let (memo, stored) = (self.memo(), self.stored());
        let search = Search::resumed(&stored, self.hash);
        let _drain = DrainOnExit;
        let loaded = memo.store.read_timer().and_then(|()| {
            memo.load_single_flight(&search, &self.key, None, || {
                memo.run_with(self.args.bind(py), self.kwargs.bind(py))
                    .map_err(crate::ffi::raise)
            })
        });
        if let Err(raised) = loaded {
            let error = PyErr::from(raised);
            // (If the load itself failed, that has been done. The claim is given back at most once.)
            if !error.is_instance_of::<PyException>(py) || memo.store.contains(&search).is_ok_and(|there| there) {
                memo.store.reload_failed(&search);
            }
            return Err(error);
        }
        interrupt::take_recorded(py).map_or(Ok(()), Err)
    }

    /// The reload will not run: the next caller is to reload.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        if self.done.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.forked(py)
    }

    /// In a child after a fork, even if it is running: in the parent.
    fn forked(&self, py: Python<'_>) -> PyResult<()> {
        self.done.store(true, Ordering::Relaxed);
        let stored = self.stored();
        let abandoned = self.memo().store.reload_abandoned(&Search::resumed(&stored, self.hash));
        abandoned.map_err(PyErr::from)?;
        interrupt::take_recorded(py).map_or(Ok(()), Err)
    }

    /// Whether it has been run, or is running, or was abandoned.
    fn done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// The function's name, for messages.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let memo = self.memo.bind(py);
        let name = memo.getattr(pyo3::intern!(py, "__qualname__"));
        Ok(name.or_else(|_| memo.repr().map(Bound::into_any))?.unbind())
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        if !self.done.load(Ordering::Relaxed) {
            Python::attach(|py| {
                let pending = PyErr::take(py);
                if let Err(error) = self.abandon(py) {
                    error.write_unraisable(py, None);
                }
                if let Some(pending) = pending {
                    pending.restore(py);
                }
            });
        }
    }
}
