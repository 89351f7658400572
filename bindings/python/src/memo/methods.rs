//! The methods of a memoised function, by `(args, kwargs)`.

use super::Memo;
use super::load::CallSearch;
use crate::call::{Call, check_equal};
use crate::ffi::{methods, raise};
use crate::flight::shared::Outcome;
use crate::flight::{Flight, Lead, Of, ttl};
use crate::objects::{Equal, Object, Raised};
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{Found, KeyQuery, Search, StoredKey, Value};
use crate::store::loads::{AbandonOnDrop, LoadRole};
use crate::store::options::capacity;
use crate::tier2::PyTier;
use hotset::Ttl;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::ptr;

pub(super) type Args<'a, 'py> = &'a [Bound<'py, PyAny>];

/// Arguments that came as objects, as a call has them.
pub(super) struct UnpackedArgs<'py> {
    pub(super) args: Vec<Object>,
    pub(super) positional: usize,
    pub(super) names: Option<Bound<'py, PyTuple>>,
    /// Holds the values of those by name.
    _held: Bound<'py, PyDict>,
}

impl<'py> UnpackedArgs<'py> {
    pub(super) fn new(args: &Bound<'py, PyAny>, kwargs: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = args.py();
        let args = args
            .cast::<PyTuple>()
            .map_err(|_| PyTypeError::new_err("args must be a tuple"))?;
        // A copy, which nobody changes while other code runs.
        let kwargs = if kwargs.is_none() {
            PyDict::new(py)
        } else {
            kwargs
                .cast::<PyDict>()
                .map_err(|_| PyTypeError::new_err("kwargs must be a dict"))?
                .copy()?
        };
        let mut all: Vec<Object> = args.iter_borrowed().map(|arg| arg.as_ptr()).collect();
        let mut names = Vec::new();
        for (name, value) in &kwargs {
            all.push(value.as_ptr());
            names.push(name);
        }
        Ok(Self {
            args: all,
            positional: args.len(),
            names: if names.is_empty() {
                None
            } else {
                Some(PyTuple::new(py, names)?)
            },
            _held: kwargs,
        })
    }
}

impl Memo {
    /// Runs `f` with the call of these arguments, and what its key is made of. The clock has been asked.
    fn with_arguments<R>(
        &self,
        args: &Bound<'_, PyAny>,
        kwargs: &Bound<'_, PyAny>,
        f: impl FnOnce(&CallSearch<'_, '_>, &Call<'_>, &Call<'_>) -> PyResult<R>,
    ) -> PyResult<R> {
        let unpacked = UnpackedArgs::new(args, kwargs)?;
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let names = unpacked.names.as_ref().map_or(ptr::null_mut(), |names| names.as_ptr());
        let (args, count) = (unpacked.args.as_ptr(), unpacked.positional);
        // SAFETY: `spread` and the caller hold all of these.
        let call = unsafe { Call::new(args, count, names, self.typed, self.receiver(args, count)?) };
        let mut result = None;
        self.with_key(&call, |key| {
            let search = Search::new(key, key.hash()?);
            result = Some(f(&search, key, &call));
            Ok(())
        })?;
        result.expect("with_key returned without an error")
    }

    fn get(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.with_arguments(&args[0], &args[1], |search, _, _| match self.store.get(search)? {
            Some(found) => Ok(found.or_raise()?.into_bound(py).unbind()),
            None => Ok(args
                .get(2)
                .map_or_else(|| py.None(), |default| default.clone().unbind())),
        })
    }

    fn contains(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<bool> {
        self.with_arguments(&args[0], &args[1], |search, _, _| Ok(self.store.contains(search)?))
    }

    fn set(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let ttl = ttl(args.get(3))?;
        let value = &args[2];
        self.with_arguments(&args[0], &args[1], |search, key, _| {
            let own = key.key()?;
            let weight = self.store.weigh(&[value.as_ptr()])?;
            self.store.loads.invalidate(search)?;
            let value = Value::new(value.clone().into());
            Ok(self.store.insert(search, own, value, weight, ttl)?)
        })
    }

    fn invalidate(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<bool> {
        self.with_arguments(&args[0], &args[1], |search, _, _| {
            self.store.loads.invalidate(search)?;
            Ok(self.store.remove(search)?.is_some())
        })
    }

    fn refresh(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.with_arguments(&args[0], &args[1], |search, key, call| {
            let own = key.key()?;
            let loaded = self.load_single_flight(search, &own, None, || self.run(call, call.positional()))?;
            Ok(loaded.into_bound(py).unbind())
        })
    }

    fn begin(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let refresh = args.get(2).map_or(Ok(false), |refresh| refresh.is_truthy())?;
        self.with_arguments(&args[0], &args[1], |search, key, _| {
            let completed = self.store.loads.completed();
            let mut stale = None;
            if !refresh {
                match self.store.get_and_claim_reload(search)? {
                    Some((found, true)) if !matches!(found, Found::Error(_)) => {
                        stale = Some(found.or_raise()?.into_bound(py))
                    }
                    Some((found, _)) => return reply(py, 0, found.or_raise()?.into_bound(py)),
                    None => {}
                }
            }
            let own = key.key()?;
            match self.store.join_or_lead(search, &own, true)? {
                LoadRole::Lead(token) => {
                    let leading = AbandonOnDrop::new(&self.store.loads, token);
                    // SAFETY: the memo is alive while it is called.
                    let memo = unsafe { Bound::from_borrowed_ptr(py, self.object()) }.unbind();
                    let mut flight = Flight::lead(Of::Memo(memo), own, token);
                    if let Some(lead) = &mut flight.lead {
                        let call = || (args[0].clone().unbind(), args[1].clone().unbind());
                        lead.call = self.has_key_function().then(call);
                        lead.reloads = stale.is_some();
                    }
                    let flight = Bound::new(py, flight)?;
                    leading.disarm();
                    if let Some(value) = stale {
                        let interrupted = self.store.loads.take_cancelled_reload(KeyQuery::hash(search));
                        let kind = if interrupted { 4 } else { 3 };
                        return Ok((kind, value, flight).into_pyobject(py)?.into_any().unbind());
                    }
                    if !refresh
                        && self.store.loads.completed() != completed
                        && let Some(found) = self.store.get(search)?
                    {
                        flight.get().give_up(py)?;
                        return reply(py, 0, found.or_raise()?.into_bound(py));
                    }
                    reply(py, 1, flight.into_any())
                }
                LoadRole::Wait(shared) => {
                    if let Some(value) = stale {
                        return reply(py, 0, value);
                    }
                    if !refresh {
                        self.store.count_joined();
                    }
                    reply(py, 2, Bound::new(py, Flight::wait(shared))?.into_any())
                }
                LoadRole::Reentrant | LoadRole::Bypass => unreachable!("tasks wait"),
            }
        })
    }

    /// Ends a load that [`begin`](Self::begin) began, whatever happens.
    pub(crate) fn end(py: Python<'_>, memo: &Py<PyAny>, lead: &Lead, outcome: &Outcome, ttl: Ttl) -> PyResult<()> {
        // SAFETY: `begin` put a memo there.
        let this = unsafe { &*memo.as_ptr().cast::<Self>() };
        let _drain = DrainOnExit;
        let stored = StoredKey::new(lead.key.clone(), this.store.is_method());
        let search = Search::resumed(&stored, lead.token.hash());
        if matches!(outcome, Outcome::Abandoned) && lead.reloads {
            this.store.loads.note_cancelled_reload(lead.token.hash());
        }
        this.store.end_task(py, lead, outcome, || {
            if matches!(outcome, Outcome::Value(_)) && !this.has_key(py, lead)? {
                // What was loaded is of other arguments than what was looked up.
                if lead.reloads {
                    this.store.reload_failed(&search);
                }
                this.store.loads.complete(lead.token, outcome);
                return Ok(());
            }
            this.end_load(&search, &lead.key, lead.token, outcome, ttl)
        })
    }

    /// A task serves the expired value because its load failed.
    pub(crate) fn end_stale(memo: &Py<PyAny>, hash: u64, error: &PyErr) {
        // SAFETY: `begin` put a memo there.
        unsafe { &*memo.as_ptr().cast::<Self>() }.log_stale(hash, error);
    }

    /// Whether a call still has the key that it had when its load began: the load may have changed the arguments, of which a function
    /// makes the key.
    fn has_key(&self, py: Python<'_>, lead: &Lead) -> Result<bool, Raised> {
        let Some((args, kwargs)) = &lead.call else {
            return Ok(true);
        };
        let unpacked = UnpackedArgs::new(args.bind(py), kwargs.bind(py)).map_err(raise)?;
        let names = unpacked.names.as_ref().map_or(ptr::null_mut(), |names| names.as_ptr());
        let (args, count) = (unpacked.args.as_ptr(), unpacked.positional);
        // SAFETY: `spread` and `lead` hold all of these.
        let call = unsafe { Call::new(args, count, names, self.typed, self.receiver(args, count)?) };
        // SAFETY: `lead` holds the key, which was made of such a call.
        self.with_key(&call, |key| unsafe {
            match key.compare(lead.key.get()) {
                Equal::Unknown => key.rich_compare(lead.key.get()),
                equal => Ok(equal == Equal::Yes),
            }
        })
    }

    /// From now on the first argument is a method's instance. What was kept before was kept by other keys.
    fn set_method(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let _drain = DrainOnExit;
        if !self.store.is_method() {
            self.store.loads.invalidate_all();
            self.store.set_method();
            self.store.clear();
        }
        Ok(())
    }

    fn is_method(&self, _: Args<'_, '_>, _: Python<'_>) -> PyResult<bool> {
        Ok(self.store.is_method())
    }

    /// Raises a TypeError if instances of this class can be kept neither weakly nor by equality.
    fn check_instances(&self, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
        let class = args[0].cast::<PyType>()?.as_type_ptr();
        // SAFETY: the caller holds the class.
        unsafe {
            if (*class).tp_weaklistoffset == 0 {
                check_equal(class)?;
            }
        }
        Ok(())
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

    /// `((args, kwargs), value)` of all results, hottest first.
    fn entries(&self, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Vec<(Py<PyAny>, Py<PyAny>)>> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let entries = self.store.hottest(py).into_iter();
        let method = self.store.is_method();
        let shown = entries.map(|(key, value)| {
            // SAFETY: the key is held, and was made for this memo.
            let (args, kwargs) = unsafe { Call::arguments(py, key.as_ptr(), self.typed, method)? };
            Ok(((args, kwargs).into_pyobject(py)?.into_any().unbind(), value))
        });
        shown.collect()
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

    fn itself(&self, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        // SAFETY: it is alive, since it is being called.
        Ok(unsafe { Bound::from_borrowed_ptr(py, self.object()) }.unbind())
    }

    fn reduce(&self, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        // SAFETY: as above.
        let this = unsafe { Bound::from_borrowed_ptr(py, self.object()) };
        this.getattr("__qualname__").map(Bound::unbind)
    }
}

fn reply(py: Python<'_>, state: u8, with: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    Ok((state, with).into_pyobject(py)?.into_any().unbind())
}

pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    methods![Memo;
        c"stats" => Memo::stats, 0..=0, c"stats($self, /)\n--\n\nWhat happened since the last clear.";
        c"reset_stats" => Memo::reset_stats, 0..=0, c"reset_stats($self, /)\n--\n\nCounts from 0 again.";
        c"entries" => Memo::entries, 0..=0, c"entries($self, /)\n--\n\nThe arguments of all results, and these, hottest first.";
        c"clear" => Memo::clear_all, 0..=0, c"clear($self, /)\n--\n\nRemoves all results.";
        c"clear_entries" => Memo::clear_entries, 0..=0, c"clear_entries($self, /)\n--\n\nRemoves everything, and counts on.";
        c"invalidate_loads" => Memo::invalidate_loads, 0..=0, c"invalidate_loads($self, /)\n--\n\nWhat is being loaded is not kept, and serves no later caller.";
        c"set_trust" => Memo::set_trust, 1..=1, c"set_trust($self, tier, /)\n--\n\nHas entries found only while this Tier2 trusts them; None: always.";
        c"run_pending" => Memo::run_pending, 0..=0, c"run_pending($self, /)\n--\n\nDoes the housekeeping that is due.";
        c"resize" => Memo::resize, 1..=1, c"resize($self, capacity, /)\n--\n\nChanges the bound.";
        c"get" => Memo::get, 2..=3, c"get($self, args, kwargs, default=None, /)\n--\n\nThe result for these arguments, if it is there.";
        c"contains" => Memo::contains, 2..=2, c"contains($self, args, kwargs, /)\n--\n\nWhether there is a result for these arguments.";
        c"set" => Memo::set, 3..=4, c"set($self, args, kwargs, value, ttl=None, /)\n--\n\nSets the result for these arguments.";
        c"invalidate" => Memo::invalidate, 2..=2, c"invalidate($self, args, kwargs, /)\n--\n\nRemoves the result for these arguments.";
        c"refresh" => Memo::refresh, 2..=2, c"refresh($self, args, kwargs, /)\n--\n\nComputes the result for these arguments anew.";
        c"begin" => Memo::begin, 2..=3, c"begin($self, args, kwargs, refresh=False, /)\n--\n\nThe result, or a load to lead or to wait for.";
        c"save_session" => Memo::save_session, 2..=2, c"save_session($self, path, schema, /)\n--\n\nBegins to save the results to a file.";
        c"load_session" => Memo::load_session, 2..=2, c"load_session($self, path, schema, /)\n--\n\nBegins to load results from a file.";
        c"set_method" => Memo::set_method, 0..=0, c"set_method($self, /)\n--\n\nThe first argument is a method's instance from now on.";
        c"is_method" => Memo::is_method, 0..=0, c"is_method($self, /)\n--\n\nWhether the first argument is a method's instance.";
        c"check_instances" => Memo::check_instances, 1..=1, c"check_instances($self, owner, /)\n--\n\nWhether a method of this class can keep its results.";
        c"__reduce__" => Memo::reduce, 0..=0, c"Pickled by its qualified name";
        c"__copy__" => Memo::itself, 0..=0, c"A function is its own copy";
        c"__deepcopy__" => Memo::itself, 0..=1, c"A function is its own copy";
    ]
}
