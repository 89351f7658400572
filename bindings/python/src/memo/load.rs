//! The slow path of a call: a miss loads the result, or waits for another caller's load.

use super::reload::Reload;
use super::{CallSearch, Memo};
use crate::call::Call;
use crate::exception_copy::raise_copy;
use crate::ffi::raise;
use crate::flight::shared::{Completion, Outcome, SharedLoad, failure};
use crate::interrupt;
use crate::objects::{Object, Raised, Ref};
use crate::store::key::{self, Found, KeyQuery, Search, Value};
use crate::store::loads::{AbandonOnDrop, LoadId, LoadRole, LoadStart, LoadToken};
use crate::ttl::{is_with_ttl, unwrap_with_ttl};
use crate::types::NativeObject;
use hotset::Ttl;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use std::sync::atomic::Ordering;

impl Memo {
    /// Calls the function, and stores what it returns. `completed` is the number of completed loads
    /// before the key was missed.
    ///
    /// Recursion passes through here: what needs much stack is done by functions that have returned
    /// before the function runs.
    #[inline(never)]
    pub(super) fn load(
        &self,
        search: &CallSearch<'_, '_>,
        key: &Call<'_>,
        call: &Call<'_>,
        nargsf: usize,
        completed: u64,
    ) -> Result<Object, Raised> {
        let own = key.key()?;
        self.load_single_flight(search, &own, Some(completed), || self.run(call, nargsf))
            .map(Ref::into_raw)
    }

    /// Leads the key's load, or waits for its leader.
    ///
    /// If `completed` is given and other loads have completed since, looks the key up again first.
    #[inline(always)]
    pub(super) fn load_single_flight<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        completed: Option<u64>,
        load: impl FnOnce() -> Result<Ref, Raised>,
    ) -> Result<Ref, Raised> {
        let id = match self.begin_load(search, key, completed)? {
            LoadStart::Done(value) => return Ok(value),
            LoadStart::Bypass => return take_value(load(), &mut None),
            LoadStart::Lead(id) => id,
        };
        let leading = AbandonOnDrop::new(&self.store.loads, id.token(search));
        let mut own_ttl = None;
        let loaded = take_value(load(), &mut own_ttl);
        self.end_led_load(search, key, &loaded, own_ttl.as_ref().unwrap_or(&Ttl::Default), id)?;
        leading.disarm();
        loaded
    }

    #[inline(never)]
    fn begin_load<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        mut completed: Option<u64>,
    ) -> Result<LoadStart<LoadId>, Raised> {
        let loads = &self.store.loads;
        let mut missed = completed.is_some();
        loop {
            let before = loads.completed();
            // Without single flight a load is registered all the same, so that a change of the key
            // invalidates it. It is registered as a task's, which no thread leads: the function may
            // call itself.
            match self.store.join_or_lead(search, key, !self.single_flight)? {
                // Another caller leads the load whose result is stored; this one's result is for
                // its caller alone.
                LoadRole::Wait(_) | LoadRole::Reentrant if !self.single_flight => return Ok(LoadStart::Bypass),
                LoadRole::Reentrant => return Err(raise(reentrant_call_error())),
                LoadRole::Bypass => return Ok(LoadStart::Bypass),
                LoadRole::Wait(shared) => match self.wait(&shared, std::mem::take(&mut missed))? {
                    Completion::Value(value) => return Ok(LoadStart::Done(value)),
                    Completion::Error(failure) => return Err(raise_copy(failure)),
                    // The comparison below then looks the key up again.
                    Completion::Abandoned => completed = completed.and(Some(before)),
                },
                LoadRole::Lead(id) => {
                    let leading = AbandonOnDrop::new(loads, id.token(search));
                    if completed.is_some_and(|completed| loads.completed() != completed)
                        && let Some(found) = self.store.get(search)?
                    {
                        return found.or_raise().map(LoadStart::Done);
                    }
                    leading.disarm();
                    return Ok(LoadStart::Lead(id));
                }
            }
        }
    }

    /// Ends a load that this thread led, with what the function returned or raised.
    #[inline(never)]
    fn end_led_load<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        loaded: &Result<Ref, Raised>,
        ttl: &Ttl,
        id: LoadId,
    ) -> Result<(), Raised> {
        self.with_outcome(loaded, |outcome| {
            self.end_load(search, key, id.token(search), outcome, ttl)
        })
    }

    /// Runs `f` with the outcome of a load. An exception is set again afterwards, unless `f` raises
    /// another.
    fn with_outcome(
        &self,
        loaded: &Result<Ref, Raised>,
        f: impl FnOnce(&Outcome) -> Result<(), Raised>,
    ) -> Result<(), Raised> {
        match loaded {
            Ok(value) => f(&Outcome::Value(value.clone())),
            Err(Raised) => Python::attach(|py| {
                let error = PyErr::fetch(py);
                let outcome = failure(py, &error);
                f(&outcome)?;
                error.restore(py);
                Ok(())
            }),
        }
    }

    /// Waits for another caller's load. A lookup that `missed` before is not counted as a miss: it
    /// makes no call.
    fn wait(&self, shared: &SharedLoad, missed: bool) -> Result<Completion, Raised> {
        if missed {
            self.store.count_joined();
        }
        Python::attach(|py| shared.wait(py)).map_err(raise)
    }

    /// Reloads a stale value whose reload this caller has claimed: by the refresher, or in this
    /// call.
    #[inline(never)]
    pub(super) fn reload(
        &self,
        search: &CallSearch<'_, '_>,
        key: &Call<'_>,
        call: &Call<'_>,
        nargsf: usize,
        value: Ref,
    ) -> Result<Ref, Raised> {
        match self.reload_anywhere(search, key, call, nargsf) {
            Ok(loaded) => Ok(loaded.unwrap_or(value)),
            Err(raised) => {
                let error = PyErr::from(raised);
                // The claim is returned, unless the failed load has done so. The caller gets the
                // error only if there is no value left to serve.
                if Python::attach(|py| error.is_instance_of::<PyException>(py)) {
                    self.store.reload_failed(search);
                    self.log_stale(KeyQuery::hash(search), &error);
                    return Ok(value);
                }
                if let Err(raised) = self.store.reload_abandoned(search) {
                    drop(PyErr::from(raised));
                }
                Err(raise(error))
            }
        }
    }

    /// Logs that the expired value of the key with this hash is served because the function raised,
    /// once in an [`Outage`](super::Outage).
    #[cold]
    pub(crate) fn log_stale(&self, hash: u64, error: &PyErr) {
        if !self.outage.record_failure(hash, self.store.monotonic()) {
            return;
        }
        Python::attach(|py| {
            let this = self.to_python(py).into_bound(py);
            let module = py.import(pyo3::intern!(py, "hotset._refresh"));
            let logged = module.and_then(|module| module.call_method1("log_stale", (&this, error.value(py))));
            if let Err(error) = logged {
                // A logging filter of the user's may raise: the value is served all the same.
                interrupt::report_callback_error(error, &this);
            }
        });
    }

    /// Returns the new value if the caller has reloaded it, `None` if the refresher takes the
    /// reload.
    fn reload_anywhere(
        &self,
        search: &CallSearch<'_, '_>,
        key: &Call<'_>,
        call: &Call<'_>,
        nargsf: usize,
    ) -> Result<Option<Ref>, Raised> {
        let refresher = self.refresher.load(Ordering::Relaxed);
        if !refresher.is_null() {
            let reload = Reload::new(self, key, search, call)?;
            let taken = Python::attach(|py| {
                // SAFETY: the memo holds it while it is called.
                let refresher = unsafe { Bound::from_borrowed_ptr(py, refresher) };
                match refresher.call1((reload,)).and_then(|taken| taken.is_truthy()) {
                    Err(error) if error.is_instance_of::<PyException>(py) => {
                        error.write_unraisable(py, Some(&refresher));
                        Ok(true)
                    }
                    taken => taken.map_err(raise),
                }
            })?;
            if taken {
                return Ok(None);
            }
        }
        let own = key.key()?;
        self.load_single_flight(search, &own, None, || self.run(call, nargsf))
            .map(Some)
    }

    /// Stores the outcome of a load.
    fn store_outcome<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        outcome: &Outcome,
        ttl: &Ttl,
    ) -> Result<(), Raised> {
        match outcome {
            Outcome::Value(value) => {
                if self.reloads {
                    self.outage.record_success(KeyQuery::hash(search));
                }
                let weight = self.store.weigh(&[value.get()])?;
                self.store
                    .insert(search, key.clone(), Value::new(value.clone()), weight, *ttl)
            }
            Outcome::Abandoned if self.reloads => self.store.reload_abandoned(search),
            Outcome::Error(_) if self.reloads && self.store.contains(search)? => {
                self.store.reload_failed(search);
                Ok(())
            }
            Outcome::Error(error) => self.store.insert_error(search, key.clone(), error.clone()),
            Outcome::Abandoned => Ok(()),
        }
    }

    /// Ends a load that the caller leads: stores its outcome unless the load was invalidated, and
    /// hands it to the waiters.
    pub(super) fn end_load<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        token: LoadToken,
        outcome: &Outcome,
        ttl: &Ttl,
    ) -> Result<(), Raised> {
        self.store
            .end_load(search, token, outcome, || self.store_outcome(search, key, outcome, ttl))
    }
}

/// Returns the value that a function returned, and sets `own_ttl` if that was a `WithTtl`.
#[inline(always)]
fn take_value(loaded: Result<Ref, Raised>, own_ttl: &mut Option<Ttl>) -> Result<Ref, Raised> {
    match loaded {
        Ok(loaded) if is_with_ttl(&loaded) => {
            let (value, ttl) = unwrap_with_ttl(loaded, Ttl::Default).map_err(raise)?;
            *own_ttl = Some(ttl);
            Ok(value)
        }
        loaded => loaded,
    }
}

fn reentrant_call_error() -> PyErr {
    PyRuntimeError::new_err(
        "a cached function called itself with the same arguments, while it computed the result for them",
    )
}

impl Found {
    /// Returns the value, or raises the exception.
    #[inline(always)]
    pub(crate) fn or_raise(self) -> Result<Ref, Raised> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Error(failure) => Err(raise_copy(failure)),
        }
    }
}
