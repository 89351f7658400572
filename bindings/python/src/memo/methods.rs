//! The methods of a memoized function, which take its arguments as `(args, kwargs)`.

use super::{CallSearch, Memo};
use crate::cache_methods::cache_methods;
use crate::cache_ref::CacheRef;
use crate::call::{Call, check_equal};
use crate::ffi::{methods, raise};
use crate::flight::shared::Outcome;
use crate::flight::{Flight, Lead, LoadOwner};
use crate::objects::{Equal, Object, Raised};
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{Found, KeyQuery, Search, StoredKey, Value};
use crate::store::loads::{AbandonOnDrop, LoadRole, LoadToken};
use crate::ttl::parse_ttl;
use crate::types;
use hotset::Ttl;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::ptr;

pub(super) type Args<'a, 'py> = &'a [Bound<'py, PyAny>];

/// Arguments from Python objects, in the layout of a call.
pub(super) struct UnpackedArgs<'py> {
    pub(super) args: Vec<Object>,
    pub(super) positional: usize,
    pub(super) names: Option<Bound<'py, PyTuple>>,
    /// Holds the values of keyword arguments.
    _held: Bound<'py, PyDict>,
}

impl<'py> UnpackedArgs<'py> {
    pub(super) fn new(args: &Bound<'py, PyAny>, kwargs: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = args.py();
        let args = args
            .cast::<PyTuple>()
            .map_err(|_| PyTypeError::new_err("args must be a tuple"))?;
        // A copy, which other code cannot change while Python code runs.
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
    /// Runs `f` with the search for these arguments' key, what the key is made of, and the call,
    /// after reading the timer.
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
        // SAFETY: `unpacked` and the caller hold all of these.
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
        let ttl = parse_ttl(args.get(3))?;
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
                LoadRole::Lead(id) => {
                    let token = id.token(search);
                    let leading = AbandonOnDrop::new(&self.store.loads, token);
                    let cache = CacheRef::new(py, self, |memo| memo as &dyn LoadOwner);
                    let mut flight = Flight::lead(cache, own, token);
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

    /// Returns whether a call still has the key that it had when its load began: the load may have
    /// changed arguments of which a key function makes the key.
    fn has_key(&self, py: Python<'_>, lead: &Lead) -> Result<bool, Raised> {
        let Some((args, kwargs)) = &lead.call else {
            return Ok(true);
        };
        let unpacked = UnpackedArgs::new(args.bind(py), kwargs.bind(py)).map_err(raise)?;
        let names = unpacked.names.as_ref().map_or(ptr::null_mut(), |names| names.as_ptr());
        let (args, count) = (unpacked.args.as_ptr(), unpacked.positional);
        // SAFETY: `unpacked` and `lead` hold all of these.
        let call = unsafe { Call::new(args, count, names, self.typed, self.receiver(args, count)?) };
        // SAFETY: `lead` holds the key, which was made of such a call.
        self.with_key(&call, |key| unsafe {
            match key.compare(lead.key.get()) {
                Equal::Unknown => key.rich_compare(lead.key.get()),
                equal => Ok(equal == Equal::Yes),
            }
        })
    }

    /// Makes the first argument a method's instance from now on. Earlier results have keys of
    /// another form, so they are removed.
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

    /// Raises a TypeError if instances of this class can be cached neither weakly nor by equality.
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

    /// Returns `((args, kwargs), value)` of all results, hottest first.
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
}

impl LoadOwner for Memo {
    fn is_valid(&self, token: LoadToken) -> bool {
        self.store.loads.is_valid(token)
    }

    fn end_load(&self, py: Python<'_>, lead: &Lead, outcome: &Outcome, ttl: Ttl) -> PyResult<()> {
        let _drain = DrainOnExit;
        let stored = StoredKey::new(lead.key.clone(), self.store.is_method());
        let search = Search::resumed(&stored, lead.token.hash());
        if matches!(outcome, Outcome::Abandoned) && lead.reloads {
            self.store.loads.note_cancelled_reload(lead.token.hash());
        }
        self.store.end_task(py, lead.token, outcome, || {
            if matches!(outcome, Outcome::Value(_)) && !self.has_key(py, lead)? {
                // The loaded value belongs to other arguments than those that were looked up.
                if lead.reloads {
                    self.store.reload_failed(&search);
                }
                self.store.loads.complete(lead.token, outcome);
                return Ok(());
            }
            Memo::end_load(self, &search, &lead.key, lead.token, outcome, &ttl)
        })
    }

    fn log_stale(&self, hash: u64, error: &PyErr) {
        Memo::log_stale(self, hash, error);
    }
}

fn reply(py: Python<'_>, state: u8, with: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    Ok((state, with).into_pyobject(py)?.into_any().unbind())
}

pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    let mut methods = cache_methods!(Memo);
    methods.extend(methods![Memo;
        c"entries" => Memo::entries, 0..=0, c"entries($self, /)
--

Returns ((args, kwargs), value) of all results, hottest first.
";
        c"get" => Memo::get, 2..=3, c"get($self, args, kwargs, default=None, /)
--

Returns the value, or `default` if it is absent; counts as a hit or miss.

Raises:
    BaseException: The cached exception of this call.
";
        c"contains" => Memo::contains, 2..=2, c"contains($self, args, kwargs, /)
--

Returns whether there is a result; counts neither as a hit nor as a miss.
";
        c"set" => Memo::set, 3..=4, c"set($self, args, kwargs, value, ttl=None, /)
--

Stores a result.
";
        c"invalidate" => Memo::invalidate, 2..=2, c"invalidate($self, args, kwargs, /)
--

Removes a result and invalidates a load of it; returns whether there was a result.
";
        c"refresh" => Memo::refresh, 2..=2, c"refresh($self, args, kwargs, /)
--

Calls the function, stores its result and returns it, joining a load in progress.
";
        c"begin" => Memo::begin, 2..=3, c"begin($self, args, kwargs, refresh=False, /)
--

Begins a call for `async def`.

Args:
    args: The positional arguments.
    kwargs: The keyword arguments.
    refresh: Whether a result that is present is not a hit.

Returns:
    (0, value) for a hit (a cached exception is raised);
    (1, Flight) for the caller that must load, and then call finish, fail or abandon;
    (2, Flight) for a caller that finds a load in progress;
    (3, value, Flight) for a hit on a value past its ttl, which the caller must reload while
    the value may be returned;
    (4, value, Flight) for the same, if the last reload of it was abandoned.
";
        c"set_method" => Memo::set_method, 0..=0, c"set_method($self, /)
--

Makes the first argument a method's instance from now on, and removes all results.
";
        c"is_method" => Memo::is_method, 0..=0, c"is_method($self, /)
--

Returns whether the first argument is a method's instance.
";
        c"check_instances" => Memo::check_instances, 1..=1, c"check_instances($self, owner, /)
--

Raises a TypeError if instances can be cached neither weakly nor by equality.

Args:
    owner: The class of the instances.
";
        c"__reduce__" => types::reduce::<Memo>, 0..=0, c"Pickled by its qualified name";
        c"__copy__" => types::copy::<Memo>, 0..=0, c"A function is its own copy";
        c"__deepcopy__" => types::copy::<Memo>, 0..=1, c"A function is its own copy";
    ]);
    methods
}
