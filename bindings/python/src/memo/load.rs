//! What a call does that finds nothing.

use super::Memo;
use crate::border::raise;
use crate::call::Call;
use crate::flight::failure;
use crate::flight::shared::Outcome;
use crate::objects::{Object, Raised};
use crate::store::key::{Found, Key, Look, Search, Value};
use crate::store::lanes::Opened;
use hotset::Ttl;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

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
        Python::attach(|py| {
            let own = key_object(py, key)?;
            if self.single_flight {
                return self.fly(py, search, &own, Some(landed), || self.run_bound(py, call, nargsf))
                    .map(Bound::unbind);
            }
            let loaded = self.run_bound(py, call, nargsf);
            let outcome = outcome(py, &loaded);
            self.store_outcome(search, &own, &outcome, Ttl::Default)?;
            loaded.map(Bound::unbind)
        })
        .map(|value| value.into_ptr())
        .map_err(raise)
    }

    fn run_bound<'py>(&self, py: Python<'py>, call: &Call<'_>, nargsf: usize) -> PyResult<Bound<'py, PyAny>> {
        let value = self.run(call, nargsf)?;
        // SAFETY: a new reference.
        Ok(unsafe { Bound::from_owned_ptr(py, value) })
    }

    /// Leads the key's load, or waits for who does. If `landed` is given, and others have landed since, looks again before.
    pub(super) fn fly<'py>(
        &self,
        py: Python<'py>,
        search: &Sought<'_, '_>,
        key: &Bound<'py, PyAny>,
        mut landed: Option<u64>,
        load: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        loop {
            let before = self.store.lanes.landed();
            match self.store.lanes.open(search, key.as_ptr(), false)? {
                Opened::Own => return Err(reentered()),
                Opened::Wait(shared) => match shared.wait(py)? {
                    Outcome::Value(value) => return Ok(value.into_bound(py)),
                    Outcome::Error(error) => return Err(PyErr::from_value(error.into_bound(py))),
                    Outcome::Abandoned => {
                        // It is looked for again, by the comparison below.
                        landed = landed.and(Some(before));
                    }
                },
                Opened::Lead(id) => {
                    let leading = Leading {
                        memo: self,
                        search,
                        key,
                        id,
                        ended: false,
                    };
                    if landed.is_some_and(|landed| self.store.lanes.landed() != landed)
                        && let Some(found) = self.store.get(search)?
                    {
                        return found_bound(py, found);
                    }
                    let loaded = load();
                    leading.end(py, outcome(py, &loaded), Ttl::Default)?;
                    return loaded;
                }
            }
        }
    }

    /// A value that is due for a reload, which the caller was told: reloads it elsewhere, or here. Takes over the reference.
    pub(super) fn reload(
        &self,
        search: &Sought<'_, '_>,
        key: &Call<'_>,
        call: &Call<'_>,
        nargsf: usize,
        value: Object,
    ) -> Result<Object, Raised> {
        use std::sync::atomic::Ordering;
        Python::attach(|py| {
            // SAFETY: the caller's reference; the memo is alive while it is called.
            let (value, this) = unsafe { (Bound::from_owned_ptr(py, value), Bound::from_borrowed_ptr(py, self.object())) };
            let refresher = self.refresher.load(Ordering::Relaxed);
            if !refresher.is_null() {
                // SAFETY: held while it is called.
                let refresher = unsafe { Bound::from_borrowed_ptr(py, refresher) };
                let (args, kwargs) = call.objects(py)?;
                if let Err(error) = refresher.call1((this, args, kwargs)) {
                    self.store.reload_failed(search);
                    error.write_unraisable(py, Some(&refresher));
                }
                return Ok(value.unbind());
            }
            let own = key_object(py, key)?;
            match self.fly(py, search, &own, None, || self.run_bound(py, call, nargsf)) {
                // What went wrong is the user's business only when nothing is left to serve.
                Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => Ok(value.unbind()),
                loaded => loaded.map(Bound::unbind),
            }
        })
        .map(|value| value.into_ptr())
        .map_err(raise)
    }

    /// Keeps what came of a load.
    fn store_outcome(
        &self,
        search: &Sought<'_, '_>,
        key: &Bound<'_, PyAny>,
        outcome: &Outcome,
        ttl: Ttl,
    ) -> Result<(), Raised> {
        match outcome {
            Outcome::Value(value) => {
                let weight = self.store.weigh(&[value.as_ptr()])?;
                let (key, value) = (key.clone().into_ptr(), value.clone_ref(key.py()).into_ptr());
                self.store.insert(search, Key::new(key), Value::new(value), weight, ttl)
            }
            Outcome::Error(_) | Outcome::Abandoned if self.reloads && self.store.contains(search)? => {
                self.store.reload_failed(search);
                Ok(())
            }
            Outcome::Error(error) => self.store.insert_error(search, key.as_ptr(), error.as_ptr()),
            Outcome::Abandoned => Ok(()),
        }
    }

    /// Ends a load that is led: keeps what came of it, unless the key was changed meanwhile, and hands it to who waits.
    pub(super) fn end_load(
        &self,
        py: Python<'_>,
        search: &Sought<'_, '_>,
        key: &Bound<'_, PyAny>,
        id: u64,
        outcome: &Outcome,
        ttl: Ttl,
    ) -> PyResult<()> {
        let (lanes, hash) = (&self.store.lanes, Look::hash(search));
        let mut kept = Ok(());
        if lanes.is_valid(hash, id) {
            kept = self.store_outcome(search, key, outcome, ttl).map_err(PyErr::from);
        }
        let valid = match &kept {
            Ok(()) => lanes.land(py, hash, id, outcome),
            // What cannot be kept (its weigher raised, say) is an error for all.
            Err(error) => lanes.land(py, hash, id, &failure(py, error)),
        };
        if !valid {
            drop_found(self.store.remove(search)?);
        }
        kept
    }
}

/// A load that this thread leads; abandoned if nothing else comes of it.
struct Leading<'l, 's, 'a, 'py> {
    memo: &'l Memo,
    search: &'l Sought<'s, 'a>,
    key: &'l Bound<'py, PyAny>,
    id: u64,
    ended: bool,
}

impl Leading<'_, '_, '_, '_> {
    fn end(mut self, py: Python<'_>, outcome: Outcome, ttl: Ttl) -> PyResult<()> {
        self.ended = true;
        self.memo.end_load(py, self.search, self.key, self.id, &outcome, ttl)
    }
}

impl Drop for Leading<'_, '_, '_, '_> {
    fn drop(&mut self) {
        if !self.ended {
            let hash = Look::hash(self.search);
            self.memo.store.lanes.land(self.key.py(), hash, self.id, &Outcome::Abandoned);
        }
    }
}

/// The key as an object, to be kept.
pub(super) fn key_object<'py>(py: Python<'py>, key: &Call<'_>) -> PyResult<Bound<'py, PyAny>> {
    let key = key.key()?;
    // SAFETY: a new reference.
    Ok(unsafe { Bound::from_owned_ptr(py, key) })
}

pub(super) fn reentered() -> PyErr {
    PyRuntimeError::new_err("a cached function called itself with the same arguments, while it was computing the result for them")
}

fn outcome(py: Python<'_>, loaded: &PyResult<Bound<'_, PyAny>>) -> Outcome {
    match loaded {
        Ok(value) => Outcome::Value(value.clone().unbind()),
        Err(error) => failure(py, error),
    }
}

/// What was found, to be returned or raised.
pub(super) fn found_bound(py: Python<'_>, found: Found) -> PyResult<Bound<'_, PyAny>> {
    match found {
        // SAFETY: a new reference.
        Found::Value(value) => Ok(unsafe { Bound::from_owned_ptr(py, value) }),
        Found::Error(error) => Err(super::raise_again(error).into()),
    }
}

/// Lets go of what was found.
pub(super) fn drop_found(found: Option<Found>) {
    if let Some(Found::Value(object) | Found::Error(object)) = found {
        // SAFETY: a new reference.
        unsafe { ffi::Py_DECREF(object) };
    }
}
