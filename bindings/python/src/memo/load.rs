//! What a call does that finds nothing.

use super::Memo;
use super::reload::Reload;
use crate::call::Call;
use crate::exception_copy::raise_copy;
use crate::ffi::raise;
use crate::flight::failure;
use crate::flight::shared::{Completion, Outcome, SharedLoad};
use crate::interrupt;
use crate::objects::{Object, Raised, Ref};
use crate::sentinels::with_ttl;
use crate::store::key::{self, Found, KeyQuery, Search, Value};
use crate::store::loads::{AbandonOnDrop, LoadRole, LoadStart, LoadToken};
use hotset::Ttl;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use std::sync::atomic::Ordering;

pub(super) type CallSearch<'s, 'a> = Search<'s, Call<'a>>;

impl Memo {
    /// Calls the function, and keeps what it returns. `landed` is how many loads had landed before the key was missed.
    ///
    /// Recursion goes through here: what takes much stack is done by functions that have returned when the function runs.
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

    /// Leads the key's load, or waits for its leader. If `landed` is given, and others have landed since, looks again before.
    #[inline(always)]
    pub(super) fn load_single_flight<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        completed: Option<u64>,
        load: impl FnOnce() -> Result<Ref, Raised>,
    ) -> Result<Ref, Raised> {
        let token = match self.begin_load(search, key, completed)? {
            LoadStart::Done(value) => return Ok(value),
            LoadStart::Bypass => return split_ttl(load()).map(|(value, _)| value),
            LoadStart::Lead(token) => token,
        };
        let leading = AbandonOnDrop::new(&self.store.loads, token);
        let loaded = split_ttl(load());
        self.end_led_load(search, key, &loaded, token)?;
        leading.disarm();
        loaded.map(|(value, _)| value)
    }

    #[inline(never)]
    fn begin_load<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        mut completed: Option<u64>,
    ) -> Result<LoadStart, Raised> {
        let loads = &self.store.loads;
        let mut missed = completed.is_some();
        loop {
            let before = loads.completed();
            // Without single flight a load is noted all the same, so that an invalidation can overtake it. (As a task's, for which no thread
            // is answerable: the function may call itself.)
            match self.store.join_or_lead(search, key, !self.single_flight)? {
                // Another is at it, whose result is kept; this one is the caller's alone.
                LoadRole::Wait(_) | LoadRole::Reentrant if !self.single_flight => return Ok(LoadStart::Bypass),
                LoadRole::Reentrant => return Err(raise(reentrant_call_error())),
                LoadRole::Bypass => return Ok(LoadStart::Bypass),
                LoadRole::Wait(shared) => match self.wait(&shared, std::mem::take(&mut missed))? {
                    Completion::Value(value) => return Ok(LoadStart::Done(value)),
                    Completion::Error(failure) => return Err(raise_copy(failure)),
                    // It is looked for again, by the comparison below.
                    Completion::Abandoned => completed = completed.and(Some(before)),
                },
                LoadRole::Lead(token) => {
                    let leading = AbandonOnDrop::new(loads, token);
                    if completed.is_some_and(|completed| loads.completed() != completed)
                        && let Some(found) = self.store.get(search)?
                    {
                        return found.or_raise().map(LoadStart::Done);
                    }
                    return Ok(LoadStart::Lead(leading.disarm()));
                }
            }
        }
    }

    /// Ends a load that this thread led, by what the function returned or raised.
    #[inline(never)]
    fn end_led_load<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        loaded: &Result<(Ref, Ttl), Raised>,
        token: LoadToken,
    ) -> Result<(), Raised> {
        let ttl = loaded.as_ref().map_or(Ttl::Default, |(_, ttl)| *ttl);
        self.with_outcome(loaded, |outcome| self.end_load(search, key, token, outcome, ttl))
    }

    /// Runs `f` with what came of a load; if that is an exception, it is set again afterwards, unless `f` sets another.
    fn with_outcome(
        &self,
        loaded: &Result<(Ref, Ttl), Raised>,
        f: impl FnOnce(&Outcome) -> Result<(), Raised>,
    ) -> Result<(), Raised> {
        match loaded {
            Ok((value, _)) => f(&Outcome::Value(value.clone())),
            Err(Raised) => Python::attach(|py| {
                let error = PyErr::fetch(py);
                let outcome = failure(py, &error);
                f(&outcome)?;
                error.restore(py);
                Ok(())
            }),
        }
    }

    /// Waits for another caller's load. If this one `missed` before, that was no miss: it makes no call.
    fn wait(&self, shared: &SharedLoad, missed: bool) -> Result<Completion, Raised> {
        if missed {
            self.store.count_joined();
        }
        Python::attach(|py| shared.wait(py)).map_err(raise)
    }

    /// A value that is due for a reload, which the caller was told: reloads it elsewhere, or here.
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
                // The claim is given back, unless the load that failed has done that. What went wrong is the caller's business only when
                // nothing is left to serve.
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

    /// Logs that the expired value of the key with this hash is served because the function raised, once in a [`Spell`](super::Spell).
    #[cold]
    pub(crate) fn log_stale(&self, hash: u64, error: &PyErr) {
        if !self.outage.record_failure(hash, self.store.monotonic()) {
            return;
        }
        Python::attach(|py| {
            // SAFETY: the memo is alive while it is called.
            let this = unsafe { Bound::from_borrowed_ptr(py, self.object()) };
            let module = py.import(pyo3::intern!(py, "hotset._refresh"));
            let logged = module.and_then(|module| module.call_method1("log_stale", (&this, error.value(py))));
            if let Err(error) = logged {
                // A filter of the user's, say: the value is served all the same.
                interrupt::report_callback_error(error, &this);
            }
        });
    }

    /// The new value, if the caller has reloaded it.
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
                // SAFETY: held while it is called.
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

    /// Keeps what came of a load.
    fn store_outcome<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        outcome: &Outcome,
        ttl: Ttl,
    ) -> Result<(), Raised> {
        match outcome {
            Outcome::Value(value) => {
                if self.reloads {
                    self.outage.record_success(KeyQuery::hash(search));
                }
                let weight = self.store.weigh(&[value.get()])?;
                self.store
                    .insert(search, key.clone(), Value::new(value.clone()), weight, ttl)
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

    /// Ends a load that is led: keeps what came of it, unless the key was changed meanwhile, and hands it to who waits.
    pub(super) fn end_load<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        token: LoadToken,
        outcome: &Outcome,
        ttl: Ttl,
    ) -> Result<(), Raised> {
        self.store
            .end_load(search, token, outcome, || self.store_outcome(search, key, outcome, ttl))
    }
}

/// What a function returned, and the time to live that comes with it if the function says one.
#[inline(never)]
fn split_ttl(loaded: Result<Ref, Raised>) -> Result<(Ref, Ttl), Raised> {
    with_ttl(loaded?, Ttl::Default).map_err(raise)
}

fn reentrant_call_error() -> PyErr {
    PyRuntimeError::new_err(
        "a cached function called itself with the same arguments, while it was computing the result for them",
    )
}

impl Found {
    /// What was found, or raises it.
    #[inline(always)]
    pub(crate) fn or_raise(self) -> Result<Ref, Raised> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Error(failure) => Err(raise_copy(failure)),
        }
    }
}
