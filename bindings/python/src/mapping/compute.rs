//! What a mapping does to an entry in one step, whatever is there.

use super::Mapping;
use super::methods::Args;
use crate::flight::ttl;
use crate::objects::Ref;
use crate::sentinels::is_missing;
use crate::store::Store;
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{Found, Key, Value};
use hotset::{Change, Ttl};
use pyo3::prelude::*;

/// What is to become of an entry.
enum Decision<'py> {
    Unchanged,
    Remove,
    Set(Bound<'py, PyAny>, Ttl),
    /// Give it another time to live.
    Touch(Ttl),
}

impl Mapping {
    pub(super) fn setdefault(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let default = args.get(1).map_or_else(|| py.None().into_bound(py), Bound::clone);
        let there = self.change(py, &args[0], |current| match current {
            Some(_) => Ok(Decision::Unchanged),
            None => Ok(Decision::Set(default.clone(), Ttl::Default)),
        })?;
        Ok(there.unwrap_or_else(|| default.clone()).unbind())
    }

    pub(super) fn add(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<bool> {
        let ttl = ttl(args.get(2))?;
        let mut added = false;
        self.change(py, &args[0], |current| {
            added = current.is_none();
            match current {
                Some(_) => Ok(Decision::Unchanged),
                None => Ok(Decision::Set(args[1].clone(), ttl)),
            }
        })?;
        Ok(added)
    }

    /// The value is replaced by itself, of which the listener is not told.
    pub(super) fn touch(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<bool> {
        let ttl = ttl(args.get(1))?;
        let there = self.change(py, &args[0], |current| match current {
            Some(_) => Ok(Decision::Touch(ttl)),
            None => Ok(Decision::Unchanged),
        })?;
        Ok(there.is_some())
    }

    pub(super) fn compute(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let default = args.get(2).map_or_else(|| py.None().into_bound(py), Bound::clone);
        let ttl = match args.get(3) {
            None => Ttl::Keep,
            given => ttl(given)?,
        };
        let changed = self.change(py, &args[0], |current| {
            let new = args[1].call1((current.unwrap_or(&default),))?;
            if is_missing(&new) || (new.is_none() && default.is_none()) {
                return Ok(Decision::Remove);
            }
            Ok(Decision::Set(new, ttl))
        })?;
        Ok(changed.unwrap_or(default).unbind())
    }

    pub(super) fn peek(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut seen = None;
        self.with_search_py(&args[0], |search| {
            self.store.change(search, 1, |current| {
                let current = current.filter(|current| !current.is_error());
                // SAFETY: `change` keeps what it shows.
                seen = current.map(|current| unsafe { Bound::from_borrowed_ptr(py, current.object()) });
                Change::Keep
            })?;
            Ok(())
        })?;
        let default = || args.get(1).map_or_else(|| py.None().into_bound(py), Bound::clone);
        Ok(seen.unwrap_or_else(default).unbind())
    }

    /// Has an entry changed by what `decide` makes of it, if it is still the same then; else again. Returns what is there afterwards.
    /// Python code runs in `decide`, while nothing is held.
    fn change<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        mut decide: impl FnMut(Option<&Bound<'py, PyAny>>) -> PyResult<Decision<'py>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.with_search_py(key, |search| {
            loop {
                // What is there, with its identity: it is held, so no other value can take its place unseen.
                let mut seen: Option<Bound<'py, PyAny>> = None;
                self.store.change(search, 1, |current| {
                    let current = current.filter(|current| !current.is_error());
                    // SAFETY: `change` keeps what it shows.
                    seen = current.map(|current| unsafe { Bound::from_borrowed_ptr(py, current.object()) });
                    Change::Keep
                })?;
                let decision = decide(seen.as_ref())?;
                let (decision, touched) = match (decision, &seen) {
                    (Decision::Touch(ttl), Some(seen)) => (Decision::Set(seen.clone(), ttl), seen.as_ptr()),
                    (decision, _) => (decision, std::ptr::null_mut()),
                };
                let weight = match &decision {
                    Decision::Unchanged | Decision::Touch(_) => return Ok(seen),
                    Decision::Remove => 0,
                    Decision::Set(new, _) => self.store.weigh(&[key.as_ptr(), new.as_ptr()])?,
                };
                self.store.loads.invalidate(search)?;
                let mut same = false;
                let replace = |current: Option<&Value>| {
                    let current = current.filter(|current| !current.is_error());
                    let current = current.map(|current| current.object());
                    same = current == seen.as_ref().map(|seen| seen.as_ptr());
                    match (same, &decision) {
                        (false, _) | (true, Decision::Unchanged | Decision::Touch(_)) => Change::Keep,
                        (true, Decision::Remove) => Change::Remove,
                        (true, Decision::Set(new, ttl)) => {
                            let value = Value::new(new.clone().into());
                            Change::Set(Key::new(key.clone().into()), value, *ttl)
                        }
                    }
                };
                Store::without_notice(touched, || self.store.change(search, weight, replace))?;
                if same {
                    return Ok(match decision {
                        Decision::Set(new, _) => Some(new),
                        _ => None,
                    });
                }
            }
        })
    }

    pub(super) fn pop_coldest(&self, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Option<(Py<PyAny>, Py<PyAny>)>> {
        let _drain = DrainOnExit;
        loop {
            self.store.read_timer()?;
            let Some((key, found)) = self.store.pop_coldest() else {
                return Ok(None);
            };
            let key = key.into_bound(py);
            // (A load of it that is in progress is out of date, too.)
            self.with_search_py(&key, |search| Ok(self.store.loads.invalidate(search)?))?;
            // What is left of a load that failed is no entry.
            if let Found::Value(value) = found {
                return Ok(Some((key.unbind(), value.into_bound(py).unbind())));
            }
        }
    }

    pub(super) fn take_expired(&self, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Vec<(Py<PyAny>, Py<PyAny>)>> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let own = |object: Ref| object.into_bound(py).unbind();
        let taken = self.store.take_expired().into_iter();
        Ok(taken
            .filter_map(|(key, found)| Some((own(key), own(found.value()?))))
            .collect())
    }
}
