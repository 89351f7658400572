//! A cache of Python objects on the engine, on which memoized functions and mappings are built.

mod advice;
pub(crate) mod deferred_drop;
#[cfg(not(Py_GIL_DISABLED))]
mod graph;
mod hooks;
pub(crate) mod key;
pub(crate) mod loads;
pub(crate) mod options;
#[cfg(not(Py_GIL_DISABLED))]
pub(crate) mod owners;
#[cfg(unix)]
pub(crate) mod publish;
#[cfg(not(unix))]
#[path = "publish_off.rs"]
pub(crate) mod publish;
pub(crate) mod snapshot;
mod stats;
#[cfg(Py_GIL_DISABLED)]
mod sweep;
mod take;
pub(crate) mod trust;

#[cfg(Py_GIL_DISABLED)]
use crate::call::Call;
use crate::exception_copy::Failure;
use crate::flight::shared::{Outcome, failure};
use crate::gil_cell::{Counter, GilCell};
use crate::hash_seed::seeded;
use crate::objects::{Object, Raised, Ref};
use deferred_drop::{DeferredDrop, DrainOnExit, Notify, defer_drop};
use hooks::{CachedTimer, Hooks};
use hotset::tier2::Trust;
use hotset::{BuildError, Ttl, raw};
use key::{ExceptQuery, Found, IdentityHasher, Key, KeyQuery, MatchesKey, Search, Value};
use loads::{AbandonOnDrop, LoadRole, LoadTable, LoadToken};
use options::Options;
use publish::Published;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use trust::TrustCell;

type Cache = hotset::Cache<Key, Value, IdentityHasher>;

thread_local! {
    /// The weight of the entry that this thread is inserting. It is computed before, since the
    /// engine calls its weigher where no Python code may run.
    static WEIGHT: Cell<u64> = const { Cell::new(1) };
}

pub(crate) struct Store {
    /// The first field, so that it is dropped before the others, which the stats file reads.
    #[cfg_attr(not(unix), expect(dead_code))]
    published: Published,
    cache: Cache,
    hooks: Arc<Hooks>,
    pub(crate) loads: LoadTable,
    weigher: AtomicPtr<ffi::PyObject>,
    timer: AtomicPtr<ffi::PyObject>,
    negative_ttl: Option<Duration>,
    /// The number of entries per instance, on average, that bounds a method's cache; 0 if it has
    /// another bound.
    per_instance: AtomicU64,
    /// Repeated searches, which the engine has counted as misses.
    repeated_searches: Counter,
    /// The number of a method's insertions since the last sweep began.
    #[cfg(Py_GIL_DISABLED)]
    since_sweep: Counter,
    /// The number of entries that the last sweep kept, or `sweep::SWEEPING`.
    #[cfg(Py_GIL_DISABLED)]
    kept_by_sweep: AtomicU64,
    /// Misses of callers that then waited for another caller's load.
    joined_misses: Counter,
    /// The counts at the last reset.
    counts_at_reset: GilCell<stats::Counts>,
    trust: TrustCell,
}

impl Store {
    pub(crate) fn new(options: &Options<'_>, notify: Notify) -> PyResult<Self> {
        let reference = |object: &Option<Bound<'_, PyAny>>| {
            AtomicPtr::new(
                object
                    .as_ref()
                    .map_or(ptr::null_mut(), |object| object.clone().into_ptr()),
            )
        };
        let mut builder =
            hotset::Cache::<Key, Value, _>::builder_with_hasher(IdentityHasher::default()).policy(options.policy);
        builder = match (options.capacity, &options.weigher) {
            (capacity, None) => {
                let entries = capacity.map_or(usize::MAX, |entries| usize::try_from(entries).unwrap_or(usize::MAX));
                builder.max_entries(entries)
            }
            (capacity, Some(_)) => {
                let weight = capacity.unwrap_or(u64::MAX);
                builder.max_weight(weight).weigher(|_, _| WEIGHT.get())
            }
        };
        let hooks = Arc::new(Hooks {
            on_removal: reference(&options.on_removal),
            notify,
            method: AtomicBool::new(options.method),
            now: AtomicU64::new(0),
            #[cfg(not(Py_GIL_DISABLED))]
            counts: owners::OwnerCounts::default(),
        });
        if let Some(ttl) = options.ttl {
            let stale = options.stale_while_revalidate.max(options.stale_if_error);
            builder = builder.time_to_live(ttl.saturating_add(stale.unwrap_or_default()));
            if stale.is_some() {
                builder = builder.refresh_after(ttl);
            }
        }
        if let Some(tti) = options.tti {
            builder = builder.time_to_idle(tti);
        }
        if let Some(grace) = options.stale_if_error {
            builder = builder.stale_if_error(grace);
        }
        if options.timer.is_some() {
            builder = builder.clock(CachedTimer(hooks.clone()));
        }
        if cfg!(not(Py_GIL_DISABLED)) || options.on_removal.is_some() {
            let hooks = hooks.clone();
            builder = builder.on_removal(move |key, value, cause| hooks.entry_removed(key, value, cause));
        }
        if options.profile {
            builder = builder.profile();
        }
        if let Some((low, high, target)) = options.autosize {
            builder = builder.autosize(low..=high, target);
        }
        let built = builder.jitter(options.jitter).build();
        Ok(Self {
            published: Published::default(),
            cache: built.map_err(build_error)?,
            hooks,
            loads: LoadTable::default(),
            weigher: reference(&options.weigher),
            timer: reference(&options.timer),
            negative_ttl: options.negative_ttl,
            per_instance: AtomicU64::new(options.capacity.filter(|_| options.per_instance).unwrap_or(0)),
            repeated_searches: Counter::default(),
            #[cfg(Py_GIL_DISABLED)]
            since_sweep: Counter::default(),
            #[cfg(Py_GIL_DISABLED)]
            kept_by_sweep: AtomicU64::new(0),
            joined_misses: Counter::default(),
            counts_at_reset: GilCell::default(),
            trust: TrustCell::default(),
        })
    }

    /// Joins the key's load in flight, or makes the caller its leader: [`LoadTable::join_or_lead`].
    #[inline]
    pub(crate) fn join_or_lead<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        task: bool,
    ) -> Result<LoadRole, Raised> {
        self.loads.join_or_lead(search, key, task, self.trust.allows_joins())
    }

    /// Makes this the first tier of another store: entries are found, and loads joined, only while
    /// `trust` allows it.
    pub(crate) fn set_trust(&self, trust: Option<Arc<Trust>>) {
        self.trust.set(trust);
    }

    /// Makes keys begin with a weak reference to an instance from now on.
    pub(crate) fn set_method(&self) {
        self.hooks.method.store(true, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn is_method(&self) -> bool {
        self.hooks.method.load(Ordering::Relaxed)
    }

    pub(crate) fn has_timer(&self) -> bool {
        !self.timer.load(Ordering::Relaxed).is_null()
    }

    /// Calls the user's timer, if there is one. Must be called before any operation of the engine
    /// that depends on time.
    #[inline(always)]
    pub(crate) fn read_timer(&self) -> Result<(), Raised> {
        let timer = self.timer.load(Ordering::Relaxed);
        if timer.is_null() {
            Ok(())
        } else {
            self.call_timer(timer)
        }
    }

    #[cold]
    fn call_timer(&self, timer: Object) -> Result<(), Raised> {
        // SAFETY: the store holds the timer, and it is held here while it runs.
        let seconds = unsafe {
            ffi::Py_INCREF(timer);
            let now = ffi::PyObject_CallNoArgs(timer);
            ffi::Py_DECREF(timer);
            if now.is_null() {
                return Err(Raised);
            }
            let seconds = ffi::PyFloat_AsDouble(now);
            ffi::Py_DECREF(now);
            if seconds == -1.0 && !ffi::PyErr_Occurred().is_null() {
                return Err(Raised);
            }
            seconds
        };
        // To the nanosecond while a float is that exact, else to the microsecond: so equal
        // differences are equal durations. Times out of range, and NaN, become the nearest time
        // that can be represented.
        let nanos = if seconds < 1e6 {
            (seconds * 1e9).round() as u64
        } else {
            ((seconds * 1e6).round() as u64).saturating_mul(1000)
        };
        self.hooks.now.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the time by the user's timer when it was last called, or by the system's clock.
    pub(crate) fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        if self.has_timer() {
            Duration::from_nanos(self.hooks.now.load(Ordering::Relaxed))
        } else {
            START.elapsed()
        }
    }

    /// Returns the key's value or failure, counted as a hit or a miss. The caller has read the
    /// timer.
    #[inline(always)]
    pub(crate) fn get<T: MatchesKey>(&self, sought: &Search<'_, T>) -> Result<Option<Found>, Raised> {
        loop {
            let search = sought as &dyn KeyQuery;
            #[cfg(Py_GIL_DISABLED)]
            let found = if self.trust.allows_hits() {
                self.cache.get_with(search, Value::found)
            } else {
                None
            };
            // SAFETY: the calling thread holds the GIL; searches compare without Python code, and
            // neither they nor `allows_hits_at` use a cache.
            #[cfg(not(Py_GIL_DISABLED))]
            let found = unsafe {
                raw::get_exclusive_if(&self.cache, search, |now| self.trust.allows_hits_at(now), Value::found)
            };
            if found.is_some() || !sought.resolve()? {
                return Ok(found);
            }
            self.repeated_searches.increment(Ordering::Relaxed);
        }
    }

    /// Returns a value that one probe finds, counted as a hit; counts nothing otherwise.
    ///
    /// `hash` and `equal` are those of a search: `equal` runs no Python code. For memos without
    /// expiration, with the GIL.
    #[inline(always)]
    pub(crate) fn probe_hit(&self, hash: u64, equal: impl FnOnce(Object) -> bool) -> Option<Ref> {
        let equal = |key: &Key| {
            let key = key.object();
            !key.is_null() && equal(key)
        };
        // Cached failures always expire, so there are none here.
        // SAFETY: the calling thread holds the GIL; `equal` uses no cache.
        unsafe { raw::probe_exclusive(&self.cache, seeded(hash), equal, Value::value) }.flatten()
    }

    /// Returns what [`get`](Self::get) does, and whether the caller has claimed its reload.
    pub(crate) fn get_and_claim_reload<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
    ) -> Result<Option<(Found, bool)>, Raised> {
        if !self.trust.allows_hits() {
            return Ok(None);
        }
        loop {
            let found = raw::get_due(&self.cache, search as &dyn KeyQuery, |value, due| (value.found(), due));
            if found.is_some() || !search.resolve()? {
                return Ok(found);
            }
            self.repeated_searches.increment(Ordering::Relaxed);
        }
    }

    /// Reports that a claimed reload failed.
    pub(crate) fn reload_failed<T: MatchesKey>(&self, search: &Search<'_, T>) {
        raw::reload_failed(&self.cache, search as &dyn KeyQuery);
    }

    /// Returns the claim of an abandoned reload, for the next caller. May run Python code, to
    /// compare keys.
    pub(crate) fn reload_abandoned<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<(), Raised> {
        while !raw::reload_abandoned(&self.cache, search as &dyn KeyQuery) && search.resolve()? {}
        Ok(())
    }

    pub(crate) fn contains<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<bool, Raised> {
        if !self.trust.allows_hits() {
            return Ok(false);
        }
        loop {
            if self.cache.contains_key(search as &dyn KeyQuery) {
                return Ok(true);
            }
            if !search.resolve()? {
                return Ok(false);
            }
        }
    }

    /// Has the next search not count as a miss: it repeats one that did, of the same lookup.
    pub(crate) fn count_repeat(&self) {
        self.repeated_searches.increment(Ordering::Relaxed);
    }

    /// Repeats a [`get`](Self::get) that the engine has counted as a miss, after a rich comparison.
    pub(crate) fn get_again<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<Option<Found>, Raised> {
        search.resolve()?;
        self.repeated_searches.increment(Ordering::Relaxed);
        self.get(search)
    }

    /// Returns whether there is a value for the key, and not just a cached failure.
    pub(crate) fn contains_value<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<bool, Raised> {
        if self.negative_ttl.is_none() {
            return self.contains(search);
        }
        let mut is_value = false;
        self.change(search, 0, |current| {
            is_value = current.is_some_and(|current| !current.is_error());
            hotset::Change::Keep
        })?;
        Ok(is_value)
    }

    /// Returns a key's value and its remaining TTL, `None` if it does not expire. A cached failure
    /// is no value. Counts nothing.
    pub(crate) fn peek_with_remaining<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
    ) -> Result<Option<(Ref, Option<Duration>)>, Raised> {
        loop {
            let found = raw::peek_with_remaining(&self.cache, search as &dyn KeyQuery, Value::found);
            if let Some((found, left)) = found {
                return Ok(found.value().map(|value| (value, left)));
            }
            if !search.resolve()? {
                return Ok(None);
            }
        }
    }

    /// Returns the weight of an entry by the user's weigher, 1 if there is none.
    #[inline]
    pub(crate) fn weigh(&self, args: &[Object]) -> Result<u64, Raised> {
        let weigher = self.weigher.load(Ordering::Relaxed);
        if weigher.is_null() {
            return Ok(1);
        }
        Self::call_weigher(weigher, args)
    }

    fn call_weigher(weigher: Object, args: &[Object]) -> Result<u64, Raised> {
        // SAFETY: the weigher is held while it runs; the caller holds the arguments.
        let weight = unsafe {
            ffi::Py_INCREF(weigher);
            let weight = ffi::PyObject_Vectorcall(weigher, args.as_ptr(), args.len(), ptr::null_mut());
            ffi::Py_DECREF(weigher);
            if weight.is_null() {
                return Err(Raised);
            }
            weight
        };
        Python::attach(|py| {
            // SAFETY: a new reference.
            let weight = unsafe { Bound::from_owned_ptr(py, weight) };
            weight.extract::<u64>().map_err(|error| {
                if error.is_instance_of::<PyTypeError>(py) {
                    return PyTypeError::new_err("the weigher must return an int");
                }
                PyValueError::new_err("a weight must be from 0 to 2**64 - 1")
            })
        })
        .map_err(crate::ffi::raise)
    }

    /// Sets a key's value. May run Python code, to compare keys.
    pub(crate) fn insert<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: Ref,
        value: Value,
        weight: u64,
        ttl: Ttl,
    ) -> Result<(), Raised> {
        let new = key.get();
        #[cfg(not(Py_GIL_DISABLED))]
        if self.is_method() {
            // SAFETY: the key is held here.
            let is_dead = || unsafe { owners::is_dead(new) };
            let prepared = if is_dead() {
                None
            } else {
                // SAFETY: both are held here, and no code has run since the instance was found
                // alive.
                unsafe { owners::prepare_entry(new, value.object()) }?
            };
            if is_dead() {
                // The instance died: its results would outlive it.
                return Ok(());
            }
            if let Some(prepared) = prepared {
                self.scale_capacity();
                prepared.register(self, new, value.object(), KeyQuery::hash(search));
            }
        }
        #[cfg(Py_GIL_DISABLED)]
        if self.is_method() {
            // SAFETY: the key is held here.
            if unsafe { Call::is_dead(new) } {
                // The instance died: its results would outlive it.
                return Ok(());
            }
            self.sweep_dead_instances();
        }
        WEIGHT.set(weight);
        let make = || Ok::<_, Infallible>((Key::new(key), value));
        let Ok(()) = raw::insert(&self.cache, search as &dyn KeyQuery, ttl, make);
        // The engine may have passed over an equal key that needs Python's rich comparison: only
        // the new entry stays.
        while search.resolve()? {
            self.cache.remove(&ExceptQuery(search, new) as &dyn KeyQuery);
        }
        Ok(())
    }

    /// Caches the failure of a load, if the cache has a `negative_ttl`.
    pub(crate) fn insert_error<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: Ref,
        error: Ref,
    ) -> Result<(), Raised> {
        let Some(ttl) = self.negative_ttl else {
            return Ok(());
        };
        let failure = Python::attach(|py| {
            let failure = Failure::new(&error.into_bound(py), false)?;
            Ok(failure.map(|failure| Ref::from(failure.into_any())))
        });
        match failure.map_err(crate::ffi::raise)? {
            Some(failure) => self.insert(search, key, Value::error(failure), 1, Ttl::After(ttl)),
            // A failure that cannot be copied cannot be raised again.
            None => Ok(()),
        }
    }

    /// Ends a load that the caller leads: `keep` stores the outcome unless the load was
    /// invalidated, and the waiters get the outcome.
    ///
    /// The check before `keep` saves the insertion. The one after it, in `complete`, decides: a
    /// load that was invalidated in between has its result removed.
    pub(crate) fn end_load<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        token: LoadToken,
        outcome: &Outcome,
        keep: impl FnOnce() -> Result<(), Raised>,
    ) -> Result<(), Raised> {
        let kept = if self.loads.is_valid(token) { keep() } else { Ok(()) };
        let valid = match &kept {
            Ok(()) => self.loads.complete(token, outcome),
            // An outcome that cannot be stored (its weigher raised, say) is an error for all
            // callers.
            Err(Raised) => Python::attach(|py| {
                let error = PyErr::fetch(py);
                let valid = self.loads.complete(token, &failure(py, &error));
                error.restore(py);
                valid
            }),
        };
        if !valid && kept.is_ok() {
            self.remove(search)?;
        }
        kept
    }

    /// Ends a load that a task leads by `end`, or by the exception of the timer or of `end`.
    pub(crate) fn end_task(
        &self,
        py: Python<'_>,
        token: LoadToken,
        outcome: &Outcome,
        end: impl FnOnce() -> Result<(), Raised>,
    ) -> PyResult<()> {
        let leading = AbandonOnDrop::new(&self.loads, token);
        let now = match outcome {
            Outcome::Abandoned => Ok(()),
            _ => self.read_timer(),
        };
        if let Err(raised) = now.and_then(|()| end()) {
            let error = PyErr::from(raised);
            self.loads.complete(leading.disarm(), &failure(py, &error));
            return Err(error);
        }
        leading.disarm();
        Ok(())
    }

    /// Removes a key, and returns its value or failure.
    pub(crate) fn remove<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<Option<Found>, Raised> {
        let mut removed = None;
        loop {
            // Without the GIL, concurrent insertions may have left two entries whose keys only
            // Python's rich comparison finds equal.
            match self.cache.remove(search as &dyn KeyQuery) {
                Some(value) => removed = Some(value),
                None if !search.resolve()? => break,
                None => {}
            }
        }
        Ok(removed.as_ref().map(Value::found))
    }

    /// Changes a key's value atomically.
    ///
    /// `decide` gets the current value as a borrowed reference, which is alive while it runs, and
    /// runs no Python code.
    pub(crate) fn change<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        weight: u64,
        decide: impl FnMut(Option<&Value>) -> hotset::Change<Key, Value>,
    ) -> Result<(), Raised> {
        self.contains(search)?;
        WEIGHT.set(weight);
        self.cache.change(search as &dyn KeyQuery, decide);
        Ok(())
    }

    pub(crate) fn clear(&self) {
        self.cache.clear();
        #[cfg(Py_GIL_DISABLED)]
        self.kept_by_sweep.store(0, Ordering::Relaxed);
        self.reset_lookups();
    }

    /// Removes all entries; hits and misses continue to count.
    pub(crate) fn clear_entries(&self) {
        self.cache.clear();
    }

    pub(crate) fn run_pending(&self) {
        self.cache.run_pending();
    }

    pub(crate) fn len(&self) -> usize {
        self.cache.run_pending();
        self.cache.len()
    }

    pub(crate) fn resize(&self, capacity: u64) {
        self.per_instance.store(0, Ordering::Relaxed);
        self.cache.set_capacity(capacity);
        self.cache.run_pending();
    }

    /// Returns new references to keys and values, hottest first, without cached failures.
    pub(crate) fn hottest(&self, py: Python<'_>) -> Vec<(Py<PyAny>, Py<PyAny>)> {
        let reader = self.cache.reader();
        let entries = reader
            .hottest()
            .filter(|(key, value)| !value.is_error() && !key.object().is_null());
        // SAFETY: the reader keeps the entries, which hold these objects.
        let own = |object| unsafe { Bound::from_borrowed_ptr(py, object) }.unbind();
        entries
            .map(|(key, value)| (own(key.object()), own(value.object())))
            .collect()
    }

    /// Returns new references to keys and values with their remaining times, hottest first, without
    /// cached failures.
    pub(crate) fn hottest_with_remaining(&self) -> Vec<(Ref, Ref, raw::Remaining)> {
        raw::hottest_with_remaining(&self.cache, |key, value, left| {
            let object = key.object();
            if object.is_null() || value.is_error() {
                return None;
            }
            // SAFETY: the entry holds its key while it is visited.
            let key = unsafe { Ref::borrowed(object) };
            Some((key, value.found().value()?, left))
        })
    }

    /// Returns copies of the values of many keys.
    pub(crate) fn get_many(&self, searches: &[&dyn KeyQuery]) -> Vec<Option<Value>> {
        if !self.trust.allows_hits() {
            return searches.iter().map(|_| None).collect();
        }
        self.cache.get_many(searches.iter().copied())
    }

    /// Shows the collector the references that the store holds. Loads in flight are not shown:
    /// their leaders hold them.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        let mut stop = 0;
        let mut see = |object| {
            if stop == 0 {
                stop = visit(object);
            }
        };
        for held in [&self.weigher, &self.timer, &self.hooks.on_removal] {
            see(held.load(Ordering::Relaxed));
        }
        raw::visit(&self.cache, |key, value| {
            #[cfg(not(Py_GIL_DISABLED))]
            if owners::is_owned(&self.hooks.counts, key.object()) {
                return;
            }
            see(key.object());
            see(value.object());
        });
        // An entry that was unlinked holds its key and value until no reader can reference it; a
        // cycle through these alone would otherwise never be freed. The collector has stopped all
        // other threads, at a point where they use no cache.
        #[cfg(Py_GIL_DISABLED)]
        raw::visit_unlinked(&self.cache, |key, value| {
            see(key.object());
            see(value.object());
        });
        stop
    }

    /// Drops all references, for the collector.
    pub(crate) fn clear_for_gc(&self) {
        let _drain = DrainOnExit;
        for held in [&self.weigher, &self.timer, &self.hooks.on_removal] {
            let object = held.swap(ptr::null_mut(), Ordering::Relaxed);
            defer_drop(DeferredDrop {
                key: object,
                value: ptr::null_mut(),
                notice: None,
            });
        }
        self.cache.clear();
    }
}

/// Returns the exception for settings with which the engine builds no cache.
fn build_error(error: BuildError) -> PyErr {
    let text = error.to_string();
    match error {
        BuildError::NoMemory => PyMemoryError::new_err(text),
        BuildError::ThreadSpawn { source } => match source.raw_os_error() {
            Some(number) => PyOSError::new_err((number, text)),
            None => PyOSError::new_err(text),
        },
        // No setting is wrong: the process's allocator or its platform does not support a cache.
        BuildError::TaggedPointers | BuildError::NoClock => PyRuntimeError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

#[cfg(not(Py_GIL_DISABLED))]
impl Drop for Store {
    fn drop(&mut self) {
        owners::detach_store(self);
    }
}
