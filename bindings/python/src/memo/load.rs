//! What a call does that finds nothing.

use super::{Memo, raise_again};
use crate::border::raise;
use crate::call::Call;
use crate::flight::failure;
use crate::flight::shared::{Outcome, Shared};
use crate::objects::{Object, Raised, Ref};
use crate::statics::with_ttl;
use crate::store::key::{Found, Search, Value};
use crate::store::lanes::{Led, Opened};
use hotset::Ttl;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use std::sync::atomic::Ordering;

pub(super) type Sought<'s, 'a> = Search<'s, Call<'a>>;

impl Memo {
    /// Calls the function, and keeps what it returns. `landed` is how many loads had landed before the key was missed.
    #[inline(never)]
    pub(super) fn load(
        &self,
        search: &Sought<'_, '_>,
        key: &Call<'_>,
        call: &Call<'_>,
        nargsf: usize,
        landed: u64,
    ) -> Result<Object, Raised> {
        let own = key.key()?;
        let load = || self.run(call, nargsf);
        if self.single_flight {
            return self.fly(search, &own, Some(landed), load).map(Ref::into_raw);
        }
        // It is noted all the same, so that an invalidation can overtake it. (As a task's, for which no thread is answerable: the function
        // may call itself.)
        let loaded = match self.store.lanes.open(search, &own, true)? {
            Opened::Lead(led) => self.lead(led, search, &own, Some(landed), load),
            // Another is at it, whose result is kept; this one is the caller's alone.
            Opened::Wait(_) | Opened::Own => {
                load().and_then(|value| Ok(with_ttl(value, Ttl::Default).map_err(raise)?.0))
            }
        };
        loaded.map(Ref::into_raw)
    }

    /// A load that this thread leads. If `landed` is given, and others have landed since, looks again before.
    fn lead(
        &self,
        led: Led,
        search: &Sought<'_, '_>,
        key: &Ref,
        landed: Option<u64>,
        load: impl FnOnce() -> Result<Ref, Raised>,
    ) -> Result<Ref, Raised> {
        let leading = Leading {
            memo: self,
            led,
            ended: false,
        };
        if landed.is_some_and(|landed| self.store.lanes.landed() != landed)
            && let Some(found) = self.store.get(search)?
        {
            return found.or_raise();
        }
        let loaded = load().and_then(|value| with_ttl(value, Ttl::Default).map_err(raise));
        let ttl = loaded.as_ref().map_or(Ttl::Default, |(_, ttl)| *ttl);
        let loaded = loaded.map(|(value, _)| value);
        self.while_raised(&loaded, |outcome| leading.end(search, key, outcome, ttl))?;
        loaded
    }

    /// Runs `f` with what came of a load; if that is an exception, it is set again afterwards, unless `f` sets another.
    fn while_raised(
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

    /// Waits for another caller's load. If this one `missed` before, that was no miss: it makes no call.
    fn wait(&self, shared: &Shared, missed: bool) -> Result<Outcome, Raised> {
        if missed {
            self.store.count_joined();
        }
        Python::attach(|py| shared.wait(py)).map_err(raise)
    }

    /// Leads the key's load (see [`lead`](Self::lead)), or waits for who does.
    pub(super) fn fly(
        &self,
        search: &Sought<'_, '_>,
        key: &Ref,
        mut landed: Option<u64>,
        load: impl FnOnce() -> Result<Ref, Raised>,
    ) -> Result<Ref, Raised> {
        let lanes = &self.store.lanes;
        let mut missed = landed.is_some();
        loop {
            let before = lanes.landed();
            match lanes.open(search, key, false)? {
                Opened::Own => return Err(raise(reentered())),
                Opened::Wait(shared) => match self.wait(&shared, std::mem::take(&mut missed))? {
                    Outcome::Value(value) => return Ok(value),
                    Outcome::Error(error) => return Err(raise_again(error)),
                    // It is looked for again, by the comparison below.
                    Outcome::Abandoned => landed = landed.and(Some(before)),
                },
                Opened::Lead(led) => return self.lead(led, search, key, landed, load),
            }
        }
    }

    /// A value that is due for a reload, which the caller was told: reloads it elsewhere, or here.
    pub(super) fn reload(
        &self,
        search: &Sought<'_, '_>,
        key: &Call<'_>,
        call: &Call<'_>,
        nargsf: usize,
        value: Ref,
    ) -> Result<Ref, Raised> {
        let refresher = self.refresher.load(Ordering::Relaxed);
        if !refresher.is_null() {
            return Python::attach(|py| {
                // SAFETY: held while it is called; the memo is alive while it is called.
                let (refresher, this) = unsafe {
                    (
                        Bound::from_borrowed_ptr(py, refresher),
                        Bound::from_borrowed_ptr(py, self.object()),
                    )
                };
                let (args, kwargs) = call.objects(py)?;
                if let Err(error) = refresher.call1((this, args, kwargs)) {
                    self.store.reload_failed(search);
                    error.write_unraisable(py, Some(&refresher));
                }
                Ok(value)
            })
            .map_err(raise);
        }
        let own = key.key()?;
        self.fly(search, &own, None, || self.run(call, nargsf))
            .or_else(|Raised| {
                Python::attach(|py| {
                    let error = PyErr::fetch(py);
                    // What went wrong is the caller's business only when nothing is left to serve.
                    if error.is_instance_of::<PyException>(py) {
                        Ok(value)
                    } else {
                        Err(raise(error))
                    }
                })
            })
    }

    /// Keeps what came of a load.
    fn store_outcome(&self, search: &Sought<'_, '_>, key: &Ref, outcome: &Outcome, ttl: Ttl) -> Result<(), Raised> {
        match outcome {
            Outcome::Value(value) => {
                let weight = self.store.weigh(&[value.get()])?;
                #[cfg(Py_GIL_DISABLED)]
                if self.store.is_method() {
                    self.store.forget_the_gone();
                }
                self.store
                    .insert(search, key.clone(), Value::new(value.clone()), weight, ttl)
            }
            Outcome::Error(_) | Outcome::Abandoned if self.reloads && self.store.contains(search)? => {
                self.store.reload_failed(search);
                Ok(())
            }
            Outcome::Error(error) => self.store.insert_error(search, key.clone(), error.clone()),
            Outcome::Abandoned => Ok(()),
        }
    }

    /// Ends a load that is led: keeps what came of it, unless the key was changed meanwhile, and hands it to who waits.
    pub(super) fn end_load(
        &self,
        search: &Sought<'_, '_>,
        key: &Ref,
        led: Led,
        outcome: &Outcome,
        ttl: Ttl,
    ) -> Result<(), Raised> {
        self.store
            .end_load(search, led, outcome, || self.store_outcome(search, key, outcome, ttl))
    }
}

/// A load that this thread leads; abandoned if nothing else comes of it.
struct Leading<'l> {
    memo: &'l Memo,
    led: Led,
    ended: bool,
}

impl Leading<'_> {
    fn end(mut self, search: &Sought<'_, '_>, key: &Ref, outcome: &Outcome, ttl: Ttl) -> Result<(), Raised> {
        self.ended = true;
        self.memo.end_load(search, key, self.led, outcome, ttl)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.memo.store.lanes.land(self.led, &Outcome::Abandoned);
        }
    }
}

fn reentered() -> PyErr {
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
            Self::Error(error) => Err(raise_again(error)),
        }
    }
}
