//! The methods of a mapping.

use super::{KeySearch, Mapping, key_error};
use crate::exception_copy::raise_copy;
use crate::ffi::methods;
use crate::flight::shared::{Completion, Outcome, SharedLoad};
use crate::flight::{Flight, Lead, Of, failure, ttl};
use crate::objects::{Raised, Ref};
use crate::sentinels::{is_missing, with_ttl};
use crate::stack;
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{self, Found, KeyQuery, MappingKey, Search, Value};
use crate::store::loads::{AbandonOnDrop, LoadRole, LoadStart, LoadToken};
use crate::store::options::capacity;
use crate::tier2::PyTier;
use hotset::Ttl;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

pub(super) type Args<'a, 'py> = &'a [Bound<'py, PyAny>];

impl Mapping {
    /// [`seek`](Self::seek), for what may fail as PyO3 does.
    pub(super) fn with_search_py<R>(
        &self,
        key: &Bound<'_, PyAny>,
        f: impl FnOnce(&KeySearch<'_>) -> PyResult<R>,
    ) -> PyResult<R> {
        let mut result = None;
        self.with_search(key.as_ptr(), |search| {
            result = Some(f(search));
            Ok(())
        })?;
        result.expect("with_search returned without an error")
    }

    /// New references to all keys and values, hottest first.
    pub(super) fn entries(&self, py: Python<'_>) -> PyResult<Vec<(Py<PyAny>, Py<PyAny>)>> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        Ok(self.store.hottest(py))
    }

    fn get(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match self.get_value(args[0].as_ptr())? {
            Some(value) => value.into_bound(py).unbind(),
            None => args
                .get(1)
                .map_or_else(|| py.None(), |default| default.clone().unbind()),
        })
    }

    fn delete(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<bool> {
        Ok(self
            .with_search(args[0].as_ptr(), |search| self.remove_value(search))?
            .is_some())
    }

    fn set_value(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let lives = ttl(args.get(2))?;
        let (key, value) = (args[0].as_ptr(), args[1].as_ptr());
        Ok(self.with_search(key, |search| self.insert_value(search, key, value, lives))?)
    }

    fn set_with_ttl(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let lives = if args[2].is_none() {
            Ttl::Never
        } else {
            ttl(args.get(2))?
        };
        let (key, value) = (args[0].as_ptr(), args[1].as_ptr());
        Ok(self.with_search(key, |search| self.insert_value(search, key, value, lives))?)
    }

    fn pop(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.with_search(args[0].as_ptr(), |search| self.remove_value(search))? {
            Some(value) => Ok(value.into_bound(py).unbind()),
            None => match args.get(1).filter(|default| !is_missing(default)) {
                Some(default) => Ok(default.clone().unbind()),
                None => Err(key_error(args[0].as_ptr()).into()),
            },
        }
    }

    /// Waits for another caller's load, of what was missed.
    fn wait(&self, shared: &SharedLoad, py: Python<'_>) -> PyResult<Completion> {
        self.store.count_joined();
        shared.wait(py)
    }

    fn get_or_load(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (key, ttl) = (&args[0], ttl(args.get(2))?);
        // (What takes much stack is done by functions that have returned when the loader runs.)
        let token = match self.begin_load(key, py)? {
            LoadStart::Done(value) => return Ok(value.into_bound(py).unbind()),
            LoadStart::Bypass => None,
            LoadStart::Lead(token) => Some(AbandonOnDrop::new(&self.store.loads, token)),
        };
        stack::check()?;
        let loaded = args[1].call1((key,)).and_then(|value| with_ttl(value.into(), ttl));
        if let Some(leading) = token {
            self.end_led_load(key, &loaded, leading.token)?;
            leading.disarm();
        }
        loaded.map(|(value, _)| value.into_bound(py).unbind())
    }

    /// Finds the key's value, or waits for it, or has the caller load it.
    #[inline(never)]
    fn begin_load(&self, key: &Bound<'_, PyAny>, py: Python<'_>) -> PyResult<LoadStart> {
        self.with_search_py(key, |search| {
            loop {
                let completed = self.store.loads.completed();
                if let Some(found) = self.store.get(search)? {
                    return Ok(LoadStart::Done(found.or_raise()?));
                }
                match self.store.join_or_lead(search, &key.clone().into(), false)? {
                    LoadRole::Reentrant => {
                        let text = "a loader asked for the key that it is loading";
                        return Err(PyRuntimeError::new_err(text));
                    }
                    LoadRole::Bypass => return Ok(LoadStart::Bypass),
                    LoadRole::Wait(shared) => match self.wait(&shared, py)? {
                        Completion::Value(value) => return Ok(LoadStart::Done(value)),
                        Completion::Error(failure) => return Err(raise_copy(failure).into()),
                        Completion::Abandoned => {}
                    },
                    LoadRole::Lead(token) => {
                        // It may have been loaded in between.
                        if self.store.loads.completed() == completed {
                            return Ok(LoadStart::Lead(token));
                        }
                        self.store.loads.complete(token, &Outcome::Abandoned);
                    }
                }
            }
        })
    }

    /// Ends a load that this thread led, by what its loader returned or raised.
    #[inline(never)]
    fn end_led_load(&self, key: &Bound<'_, PyAny>, loaded: &PyResult<(Ref, Ttl)>, token: LoadToken) -> PyResult<()> {
        let (outcome, ttl) = match loaded {
            Ok((value, ttl)) => (Outcome::Value(value.clone()), *ttl),
            Err(error) => (failure(key.py(), error), Ttl::Default),
        };
        let _drain = DrainOnExit;
        let single = MappingKey(key.as_ptr());
        Ok(self.end_load(&Search::resumed(&single, token.hash()), key, token, &outcome, ttl)?)
    }

    /// Ends a load that is led: keeps what came of it, unless the key was changed meanwhile, and hands it to who waits.
    fn end_load<T: key::MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Bound<'_, PyAny>,
        token: LoadToken,
        outcome: &Outcome,
        ttl: Ttl,
    ) -> Result<(), Raised> {
        let keep = || match outcome {
            Outcome::Value(value) => {
                let weight = self.store.weigh(&[key.as_ptr(), value.get()])?;
                self.store
                    .insert(search, key.clone().into(), Value::new(value.clone()), weight, ttl)
            }
            Outcome::Error(error) => self.store.insert_error(search, key.clone().into(), error.clone()),
            Outcome::Abandoned => Ok(()),
        };
        self.store.end_load(search, token, outcome, keep)
    }

    fn begin(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let key = &args[0];
        let reply = |state: u8, with: Bound<'_, PyAny>| Ok((state, with).into_pyobject(py)?.into_any().unbind());
        self.with_search_py(key, |search| {
            loop {
                let completed = self.store.loads.completed();
                if let Some(found) = self.store.get(search)? {
                    return reply(0, found.or_raise()?.into_bound(py));
                }
                match self.store.join_or_lead(search, &key.clone().into(), true)? {
                    LoadRole::Lead(token) => {
                        let leading = AbandonOnDrop::new(&self.store.loads, token);
                        // SAFETY: the mapping is alive while it is called.
                        let mapping = unsafe { Bound::from_borrowed_ptr(py, self.object()) }.unbind();
                        let flight = Flight::lead(Of::Mapping(mapping), key.clone().into(), token);
                        let flight = Bound::new(py, flight)?;
                        leading.disarm();
                        if self.store.loads.completed() != completed {
                            flight.get().give_up(py)?;
                            continue;
                        }
                        return reply(1, flight.into_any());
                    }
                    LoadRole::Wait(shared) => {
                        self.store.count_joined();
                        return reply(2, Bound::new(py, Flight::wait(shared))?.into_any());
                    }
                    LoadRole::Reentrant | LoadRole::Bypass => unreachable!("tasks wait"),
                }
            }
        })
    }

    /// Ends a load that [`begin`](Self::begin) began, whatever happens.
    pub(crate) fn end(py: Python<'_>, mapping: &Py<PyAny>, lead: &Lead, outcome: &Outcome, ttl: Ttl) -> PyResult<()> {
        // SAFETY: `begin` put a mapping there.
        let this = unsafe { &*mapping.as_ptr().cast::<Self>() };
        let _drain = DrainOnExit;
        let key = lead.key.clone().into_bound(py);
        let single = MappingKey(lead.key.get());
        let search = Search::resumed(&single, lead.token.hash());
        this.store.end_task(py, lead, outcome, || {
            this.end_load(&search, &key, lead.token, outcome, ttl)
        })
    }

    fn get_many(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let keys = args[0].try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let default = args.get(1).map_or_else(|| py.None().into_bound(py), Bound::clone);
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let singles: Vec<MappingKey> = keys.iter().map(|key| MappingKey(key.as_ptr())).collect();
        let mut searches = Vec::with_capacity(keys.len());
        for single in &singles {
            // SAFETY: `keys` holds them.
            let hash = unsafe { crate::objects::hash(single.0) }?;
            searches.push(Search::new(single, hash));
        }
        let queries: Vec<&dyn KeyQuery> = searches.iter().map(|search| search as &dyn KeyQuery).collect();
        let values = self.store.get_many(&queries);
        let mut found = Vec::with_capacity(values.len());
        for (value, search) in values.into_iter().zip(&searches) {
            let value = match value {
                Some(value) => Some(value.found()),
                // Python has to be asked.
                None if !search.is_conclusive() => self.store.get_again(search)?,
                None => None,
            };
            let value = value.and_then(Found::value);
            found.push(value.map_or_else(|| default.clone(), |value| value.into_bound(py)));
        }
        Ok(pyo3::types::PyList::new(py, found)?.into_any().unbind())
    }

    fn items_hottest(&self, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let items = self
            .entries(py)?
            .into_iter()
            .map(|pair| PyTuple::new(py, [pair.0, pair.1]));
        let items = items.collect::<PyResult<Vec<_>>>()?;
        Ok(pyo3::types::PyList::new(py, items)?.into_any().unbind())
    }

    fn remaining(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<Option<f64>> {
        let found = self.with_search(args[0].as_ptr(), |search| self.store.peek_with_remaining(search))?;
        let (_, left) = found.ok_or_else(|| PyErr::from(key_error(args[0].as_ptr())))?;
        Ok(left.map(|left| left.as_secs_f64()))
    }

    fn peek_with_remaining(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Option<(Py<PyAny>, Option<f64>)>> {
        let found = self.with_search(args[0].as_ptr(), |search| self.store.peek_with_remaining(search))?;
        Ok(found.map(|(value, left)| (value.into_bound(py).unbind(), left.map(|left| left.as_secs_f64()))))
    }

    /// Each entry with its remaining time, or with what it is at most, however often the entry is used.
    fn items_with_remaining(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let at_most = args[0].is_truthy()?;
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let entries = self.store.hottest_with_remaining().into_iter();
        let items = entries.map(|(key, value, left)| {
            let left = if at_most { left.used } else { left.unused };
            let left = left.map(|left| left.as_secs_f64());
            (key.into_bound(py), value.into_bound(py), left).into_pyobject(py)
        });
        let items = items.collect::<PyResult<Vec<_>>>()?;
        Ok(pyo3::types::PyList::new(py, items)?.into_any().unbind())
    }

    fn stats(&self, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        Ok(self.store.stats(py)?.into_any().unbind())
    }

    fn reset_stats(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        self.store.reset_stats();
        Ok(())
    }

    fn clear_all(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        self.store.loads.invalidate_all();
        self.store.clear();
        Ok(())
    }

    fn clear_entries(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        self.store.loads.invalidate_all();
        self.store.clear_entries();
        Ok(())
    }

    fn invalidate_loads(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        self.store.loads.invalidate_all();
        Ok(())
    }

    fn set_trust(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let tier: Option<PyRef<'_, PyTier>> = args[0].extract()?;
        self.store.set_trust(tier.map(|tier| tier.trust()));
        Ok(())
    }

    fn run_pending(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        self.store.run_pending();
        Ok(())
    }

    fn resize(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        self.store.resize(capacity("capacity", &args[0])?);
        Ok(())
    }
}

pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    methods![Mapping;
        c"get" => Mapping::get, 1..=2, c"get($self, key, default=None, /)\n--\n\nThe key's value, or the default.";
        c"set" => Mapping::set_value, 2..=3, c"set($self, key, value, ttl=None, /)\n--\n\nSets the key's value.";
        c"set_with_ttl" => Mapping::set_with_ttl, 3..=3, c"set_with_ttl($self, key, value, ttl, /)\n--\n\nSets the key's value, for so many seconds; None: without an end.";
        c"delete" => Mapping::delete, 1..=1, c"delete($self, key, /)\n--\n\nRemoves the key; returns whether it was there.";
        c"add" => Mapping::add, 2..=3, c"add($self, key, value, ttl=None, /)\n--\n\nSets the key's value if it is absent; returns whether it was.";
        c"touch" => Mapping::touch, 1..=2, c"touch($self, key, ttl=None, /)\n--\n\nGives the key's entry another time to live; returns whether it is there.";
        c"peek" => Mapping::peek, 1..=2, ["key", "default"], c"peek($self, key, default=None)\n--\n\nThe key's value, or the default. Counts nothing.";
        c"pop_coldest" => Mapping::pop_coldest, 0..=0, c"pop_coldest($self, /)\n--\n\nRemoves the entry that would go first, and returns it; None if there is none.";
        c"take_expired" => Mapping::take_expired, 0..=0, c"take_expired($self, /)\n--\n\nRemoves what has expired, and returns it.";
        c"reset_stats" => Mapping::reset_stats, 0..=0, c"reset_stats($self, /)\n--\n\nCounts from 0 again.";
        c"pop" => Mapping::pop, 1..=2, ["key", "default"], c"pop($self, key, default=MISSING)\n--\n\nRemoves the key and returns its value.";
        c"setdefault" => Mapping::setdefault, 1..=2, ["key", "default"], c"setdefault($self, key, default=None)\n--\n\nThe key's value, which is set if it is absent.";
        c"compute" => Mapping::compute, 2..=4, c"compute($self, key, change, default=None, ttl=None, /)\n--\n\nReplaces the key's value by change(value), atomically.";
        c"get_or_load" => Mapping::get_or_load, 2..=3, c"get_or_load($self, key, loader, ttl=None, /)\n--\n\nThe key's value, or what loader(key) returns.";
        c"begin" => Mapping::begin, 1..=1, c"begin($self, key, /)\n--\n\nThe value, or a load to lead or to wait for.";
        c"get_many" => Mapping::get_many, 1..=2, c"get_many($self, keys, default=None, /)\n--\n\nThe values of many keys.";
        c"items_hottest" => Mapping::items_hottest, 0..=0, c"items_hottest($self, /)\n--\n\nAll entries, hottest first.";
        c"remaining" => Mapping::remaining, 1..=1, ["key"], c"remaining($self, key)\n--\n\nHow many seconds the key's entry has left.";
        c"peek_with_remaining" => Mapping::peek_with_remaining, 1..=1, c"peek_with_remaining($self, key, /)\n--\n\nReturns the key's value and how many seconds its entry has left, or None. Counts nothing.";
        c"entries_with_remaining" => Mapping::items_with_remaining, 1..=1, c"entries_with_remaining($self, at_most, /)\n--\n\nReturns all entries with the seconds that each has left, hottest first.";
        c"stats" => Mapping::stats, 0..=0, c"stats($self, /)\n--\n\nWhat happened since the last clear.";
        c"clear" => Mapping::clear_all, 0..=0, c"clear($self, /)\n--\n\nRemoves everything.";
        c"save_session" => Mapping::save_session, 2..=2, c"save_session($self, path, schema, /)\n--\n\nBegins to save the entries to a file.";
        c"load_session" => Mapping::load_session, 2..=2, c"load_session($self, path, schema, /)\n--\n\nBegins to load entries from a file.";
        c"clear_entries" => Mapping::clear_entries, 0..=0, c"clear_entries($self, /)\n--\n\nRemoves everything, and counts on.";
        c"invalidate_loads" => Mapping::invalidate_loads, 0..=0, c"invalidate_loads($self, /)\n--\n\nWhat is being loaded is not kept, and serves no later caller.";
        c"set_trust" => Mapping::set_trust, 1..=1, c"set_trust($self, tier, /)\n--\n\nHas entries found only while this Tier2 trusts them; None: always.";
        c"run_pending" => Mapping::run_pending, 0..=0, c"run_pending($self, /)\n--\n\nDoes the housekeeping that is due.";
        c"resize" => Mapping::resize, 1..=1, c"resize($self, capacity, /)\n--\n\nChanges the bound.";
    ]
}
