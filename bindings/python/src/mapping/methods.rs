//! The methods of a mapping.

use super::{KeySearch, Mapping, key_error};
use crate::cache_methods::cache_methods;
use crate::cache_ref::CacheRef;
use crate::exception_copy::raise_copy;
use crate::ffi::methods;
use crate::flight::shared::{Completion, Outcome, SharedLoad, failure};
use crate::flight::{Flight, Lead, LoadOwner};
use crate::objects::{Raised, Ref};
use crate::sentinels::is_missing;
use crate::stack;
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{self, Found, KeyQuery, MappingKey, Search, Value};
use crate::store::loads::{AbandonOnDrop, LoadRole, LoadStart, LoadToken};
use crate::ttl::{parse_ttl, unwrap_with_ttl};
use hotset::Ttl;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

pub(super) type Args<'a, 'py> = &'a [Bound<'py, PyAny>];

impl Mapping {
    /// [`with_search`](Self::with_search), for functions that fail as PyO3's do.
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

    /// Returns new references to all keys and values, hottest first.
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
        let lives = parse_ttl(args.get(2))?;
        let (key, value) = (args[0].as_ptr(), args[1].as_ptr());
        Ok(self.with_search(key, |search| self.insert_value(search, key, value, lives))?)
    }

    fn set_with_ttl(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let lives = if args[2].is_none() {
            Ttl::Never
        } else {
            parse_ttl(args.get(2))?
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

    /// Waits for another caller's load of a key that was missed.
    fn wait(&self, shared: &SharedLoad, py: Python<'_>) -> PyResult<Completion> {
        self.store.count_joined();
        shared.wait(py)
    }

    fn get_or_load(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (key, ttl) = (&args[0], parse_ttl(args.get(2))?);
        // What needs much stack is done by functions that have returned before the loader runs: it
        // may recurse.
        let token = match self.begin_load(key, py)? {
            LoadStart::Done(value) => return Ok(value.into_bound(py).unbind()),
            LoadStart::Bypass => None,
            LoadStart::Lead(token) => Some(AbandonOnDrop::new(&self.store.loads, token)),
        };
        stack::check()?;
        let loaded = args[1]
            .call1((key,))
            .and_then(|value| unwrap_with_ttl(value.into(), ttl));
        if let Some(leading) = token {
            self.end_led_load(key, &loaded, leading.token)?;
            leading.disarm();
        }
        loaded.map(|(value, _)| value.into_bound(py).unbind())
    }

    /// Finds the key's value, waits for another caller's load, or makes the caller the leader.
    #[inline(never)]
    fn begin_load(&self, key: &Bound<'_, PyAny>, py: Python<'_>) -> PyResult<LoadStart<LoadToken>> {
        self.with_search_py(key, |search| {
            loop {
                let completed = self.store.loads.completed();
                if let Some(found) = self.store.get(search)? {
                    return Ok(LoadStart::Done(found.or_raise()?));
                }
                match self.store.join_or_lead(search, &key.clone().into(), false)? {
                    LoadRole::Reentrant => {
                        let text = "a loader requested the key that it is loading";
                        return Err(PyRuntimeError::new_err(text));
                    }
                    LoadRole::Bypass => return Ok(LoadStart::Bypass),
                    LoadRole::Wait(shared) => match self.wait(&shared, py)? {
                        Completion::Value(value) => return Ok(LoadStart::Done(value)),
                        Completion::Error(failure) => return Err(raise_copy(failure).into()),
                        Completion::Abandoned => {}
                    },
                    LoadRole::Lead(id) => {
                        let token = id.token(search);
                        // Another caller's load may have completed between the miss and this load's
                        // start.
                        if self.store.loads.completed() == completed {
                            return Ok(LoadStart::Lead(token));
                        }
                        self.store.loads.complete(token, &Outcome::Abandoned);
                    }
                }
            }
        })
    }

    /// Ends a load that this thread led, with what its loader returned or raised.
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

    /// Ends a load that the caller leads: stores its outcome unless the load was invalidated, and
    /// hands it to the waiters.
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
                    LoadRole::Lead(id) => {
                        let token = id.token(search);
                        let leading = AbandonOnDrop::new(&self.store.loads, token);
                        let cache = CacheRef::new(py, self, |mapping| mapping as &dyn LoadOwner);
                        let flight = Flight::lead(cache, key.clone().into(), token);
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

    fn count_repeat(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        self.store.count_repeat();
        Ok(())
    }

    fn get_many(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let keys = args[0].try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let default = args.get(1).map_or_else(|| py.None().into_bound(py), Bound::clone);
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let singles: Vec<MappingKey> = keys.iter().map(|key| MappingKey(key.as_ptr())).collect();
        let mut searches = Vec::with_capacity(keys.len());
        for single in &singles {
            // SAFETY: `keys` holds the objects.
            let hash = unsafe { crate::objects::hash(single.0) }?;
            searches.push(Search::new(single, hash));
        }
        let queries: Vec<&dyn KeyQuery> = searches.iter().map(|search| search as &dyn KeyQuery).collect();
        let values = self.store.get_many(&queries);
        let mut found = Vec::with_capacity(values.len());
        for (value, search) in values.into_iter().zip(&searches) {
            let value = match value {
                Some(value) => Some(value.found()),
                // Some comparison needs Python code, so search again.
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

    /// Returns each entry with its remaining time, or with the upper bound of that, however often
    /// the entry is used.
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
}

impl LoadOwner for Mapping {
    fn is_valid(&self, token: LoadToken) -> bool {
        self.store.loads.is_valid(token)
    }

    fn end_load(&self, py: Python<'_>, lead: &Lead, outcome: &Outcome, ttl: Ttl) -> PyResult<()> {
        let _drain = DrainOnExit;
        let key = lead.key.clone().into_bound(py);
        let single = MappingKey(lead.key.get());
        let search = Search::resumed(&single, lead.token.hash());
        self.store.end_task(py, lead.token, outcome, || {
            Mapping::end_load(self, &search, &key, lead.token, outcome, ttl)
        })
    }
}

pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    let mut methods = cache_methods!(Mapping);
    methods.extend(methods![Mapping;
        c"get" => Mapping::get, 1..=2, c"get($self, key, default=None, /)
--

Returns the value, or `default` if the key is absent; counts as a hit or miss.
";
        c"set" => Mapping::set_value, 2..=3, c"set($self, key, value, ttl=None, /)
--

Sets the value for `key`.
";
        c"set_with_ttl" => Mapping::set_with_ttl, 3..=3, c"set_with_ttl($self, key, value, ttl, /)
--

Sets the value for `key`; a `ttl` of None stands for no expiration.
";
        c"delete" => Mapping::delete, 1..=1, c"delete($self, key, /)
--

Removes `key` and invalidates a load of it in progress; returns whether it was present.
";
        c"add" => Mapping::add, 2..=3, c"add($self, key, value, ttl=None, /)
--

Inserts `value` if `key` is absent; returns whether it was.
";
        c"touch" => Mapping::touch, 1..=2, c"touch($self, key, ttl=None, /)
--

Sets the time to live of the entry, counted from now; returns whether it is present.
";
        c"peek" => Mapping::peek, 1..=2, ["key", "default"], c"peek($self, key, default=None)
--

Returns the value, or `default`, without counting or affecting eviction.
";
        c"pop_coldest" => Mapping::pop_coldest, 0..=0, c"pop_coldest($self, /)
--

Removes and returns the coldest entry; None if the cache is empty.
";
        c"take_expired" => Mapping::take_expired, 0..=0, c"take_expired($self, /)
--

Removes and returns all expired entries that are still held.
";
        c"pop" => Mapping::pop, 1..=2, ["key", "default"], c"pop($self, key, default=MISSING)
--

Removes `key` and returns its value, or `default`.

Raises:
    KeyError: The key is absent, and `default` is MISSING.
";
        c"setdefault" => Mapping::setdefault, 1..=2, ["key", "default"], c"setdefault($self, key, default=None)
--

Returns the value for `key`, after inserting `default` if it is absent.
";
        c"compute" => Mapping::compute, 2..=4, c"compute($self, key, change, default=None, ttl=None, /)
--

Replaces the value by change(value), atomically.

Args:
    key: The key.
    change: Called with the value, or with `default` if the key is absent; called again if
        another thread changed the value first. MISSING removes the entry, as does None
        where that is the default.
    default: What `change` is called with for an absent key.
    ttl: The time to live of the new value.

Returns:
    The value that the cache then holds, or `default`.
";
        c"get_or_load" => Mapping::get_or_load, 2..=3, c"get_or_load($self, key, loader, ttl=None, /)
--

Returns the value, calling loader(key) if it is absent.

Concurrent callers wait for that one load.

Args:
    key: The key.
    loader: Called with the key.
    ttl: The time to live of the loaded value.
";
        c"begin" => Mapping::begin, 1..=1, c"begin($self, key, /)
--

Begins a load; returns what `Memo.begin` returns.
";
        c"count_repeat" => Mapping::count_repeat, 0..=0, c"count_repeat($self, /)
--

Has the next lookup not count as a miss: it repeats one that did.
";
        c"get_many" => Mapping::get_many, 1..=2, c"get_many($self, keys, default=None, /)
--

Returns the values in the order of `keys`, `default` for each absent key.
";
        c"items_hottest" => Mapping::items_hottest, 0..=0, c"items_hottest($self, /)
--

Returns all entries as (key, value), hottest first, counting no hits.
";
        c"remaining" => Mapping::remaining, 1..=1, ["key"], c"remaining($self, key)
--

Returns the seconds until the entry expires, None if it never does.

Raises:
    KeyError: The key is absent.
";
        c"peek_with_remaining" => Mapping::peek_with_remaining, 1..=1, c"peek_with_remaining($self, key, /)
--

Returns the value and the seconds until it expires (None: never); None if it is absent.
";
        c"entries_with_remaining" => Mapping::items_with_remaining, 1..=1, c"entries_with_remaining($self, at_most, /)
--

Returns (key, value, seconds until it expires) of all entries, hottest first.

Args:
    at_most: Whether the seconds of an entry that may idle are those of its ttl alone.
";
    ]);
    methods
}
