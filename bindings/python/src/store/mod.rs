//! A cache of Python objects on the engine: what memoised functions and mappings stand on.

pub(crate) mod deferred_drop;
#[cfg(not(Py_GIL_DISABLED))]
mod graph;
pub(crate) mod key;
pub(crate) mod loads;
pub(crate) mod options;
#[cfg(not(Py_GIL_DISABLED))]
pub(crate) mod owners;
pub(crate) mod snapshot;
mod stats;
#[cfg(Py_GIL_DISABLED)]
mod sweep;
mod take;
pub(crate) mod trust;

#[cfg(Py_GIL_DISABLED)]
use crate::call::Call;
use crate::exception_copy::Failure;
use crate::flight::shared::Outcome;
use crate::flight::{Lead, failure};
use crate::gil_cell::{Counter, GilCell};
use crate::hash_seed::seeded;
use crate::objects::{Object, Raised, Ref};
use deferred_drop::{DeferredDrop, DrainOnExit, RemovalNotice, defer_drop};
use hotset::tier2::Trust;
use hotset::{BuildError, Cause, Ttl, raw};
use key::{ExceptQuery, Found, IdentityHasher, Key, KeyQuery, MatchesKey, Search, Value};
use loads::{AbandonOnDrop, LoadRole, LoadTable, LoadToken};
use options::Options;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use stats::Counts;
use std::cell::Cell;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use trust::TrustCell;

/// How a listener is told of an entry: `(told, key, value)`.
pub(crate) type Notify = fn(Python<'_>, &RemovalNotice, Object, Object) -> PyResult<()>;

type Cache = hotset::Cache<Key, Value, IdentityHasher>;

/// What the engine's callbacks share with the store. It holds references, which the store lets go of.
struct Hooks {
    on_removal: AtomicPtr<ffi::PyObject>,
    notify: Notify,
    /// Keys begin with a weak reference to a method's instance.
    method: AtomicBool,
    /// The user's clock when it was last asked, in nanoseconds.
    now: AtomicU64,
    /// How many instances have entries here.
    #[cfg_attr(Py_GIL_DISABLED, expect(dead_code, reason = "instances are known with the GIL only"))]
    owners: AtomicUsize,
    /// How many entries the objects of instances show to the collector.
    #[cfg_attr(Py_GIL_DISABLED, expect(dead_code, reason = "instances are known with the GIL only"))]
    owned: AtomicUsize,
}

/// The engine asks in the middle of its work, where no Python code may run: so the user's clock is asked before each call.
struct CachedTimer(Arc<Hooks>);

impl hotset::Clock for CachedTimer {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.now.load(Ordering::Relaxed))
    }
}

thread_local! {
    /// What the entry weighs that this thread is inserting: weighed before, since the engine may call its weigher where no Python code
    /// may run.
    static WEIGHT: Cell<u64> = const { Cell::new(1) };
    /// The value that this thread is replacing by itself, or null.
    static WITHOUT_NOTICE: Cell<Object> = const { Cell::new(ptr::null_mut()) };
}

pub(crate) struct Store {
    cache: Cache,
    hooks: Arc<Hooks>,
    pub(crate) loads: LoadTable,
    weigher: AtomicPtr<ffi::PyObject>,
    timer: AtomicPtr<ffi::PyObject>,
    negative_ttl: Option<Duration>,
    /// How many entries an instance may have, on average, if that bounds a method's cache; else 0.
    per_instance: AtomicU64,
    /// Searches that began anew, which the engine counted as misses.
    repeated_searches: Counter,
    /// Number of a method's insertions since the last sweep began.
    #[cfg(Py_GIL_DISABLED)]
    since_sweep: Counter,
    /// Number of entries that the last sweep kept, or `sweep::SWEEPING`.
    #[cfg(Py_GIL_DISABLED)]
    kept_by_sweep: AtomicU64,
    /// Misses of callers that then waited for another's load.
    joined_misses: Counter,
    /// What was counted before the last reset.
    counts_at_reset: GilCell<Counts>,
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
        let mut builder = hotset::Cache::<Key, Value>::builder()
            .hasher(IdentityHasher::default())
            .policy(options.policy);
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
            owners: AtomicUsize::new(0),
            owned: AtomicUsize::new(0),
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
        let built = builder.jitter(options.jitter).build();
        Ok(Self {
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

    /// Finds the load of a key, or begins it: [`LoadTable::join_or_lead`].
    #[inline]
    pub(crate) fn join_or_lead<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        task: bool,
    ) -> Result<LoadRole, Raised> {
        self.loads.join_or_lead(search, key, task, self.trust.allows_joins())
    }

    /// Makes this the first tier of another store: entries are found, and loads joined, only while `trust` allows that.
    pub(crate) fn set_trust(&self, trust: Option<Arc<Trust>>) {
        self.trust.set(trust);
    }

    /// Keys begin with a weak reference from now on.
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

    /// Asks the user's clock, if there is one: before any call of the engine that looks at times.
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
        // SAFETY: the store holds it; held here too while it runs.
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
        // To the nanosecond as long as a float is that exact, else to the microsecond: so the same differences are the same times. (Beyond
        // what can be told, and for what is no number, time stands still.)
        let nanos = if seconds < 1e6 {
            (seconds * 1e9).round() as u64
        } else {
            ((seconds * 1e6).round() as u64).saturating_mul(1000)
        };
        self.hooks.now.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the time by the user's clock when it was last asked, or by the system's.
    pub(crate) fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        if self.has_timer() {
            Duration::from_nanos(self.hooks.now.load(Ordering::Relaxed))
        } else {
            START.elapsed()
        }
    }

    /// What is there for a key, counted as a hit or a miss. The caller has asked the clock.
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
            // SAFETY: the calling thread holds the GIL; searches compare without Python code, and neither they nor `allows_hits_at` use a
            // cache.
            #[cfg(not(Py_GIL_DISABLED))]
            let found =
                unsafe { raw::get_alone_if(&self.cache, search, |now| self.trust.allows_hits_at(now), Value::found) };
            if found.is_some() || !sought.resolve()? {
                return Ok(found);
            }
            self.repeated_searches.increment(Ordering::Relaxed);
        }
    }

    /// A value that a single look finds, counted as a hit; else nothing was counted. `hash` and `equal` are a search's: `equal` runs no
    /// Python code. For memos without times, with the GIL.
    #[inline(always)]
    pub(crate) fn probe_hit(&self, hash: u64, equal: impl FnOnce(Object) -> bool) -> Option<Ref> {
        let equal = |key: &Key| {
            let key = key.object();
            !key.is_null() && equal(key)
        };
        // (Exceptions that are remembered have times.)
        // SAFETY: the calling thread holds the GIL; `equal` uses none.
        unsafe { raw::probe_exclusive(&self.cache, seeded(hash), equal, Value::value) }.flatten()
    }

    /// The same, and whether the caller is the one who is to reload what is there.
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

    /// A reload that `get_and_claim_reload` asked for came to nothing.
    pub(crate) fn reload_failed<T: MatchesKey>(&self, search: &Search<'_, T>) {
        raw::reload_failed(&self.cache, search as &dyn KeyQuery);
    }

    /// A reload that `get_and_claim_reload` requested was abandoned, so the next caller is to reload. May run Python code, to compare.
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

    /// [`get`](Self::get), where the engine has counted a miss already because Python had to be asked.
    pub(crate) fn get_again<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<Option<Found>, Raised> {
        search.resolve()?;
        self.repeated_searches.increment(Ordering::Relaxed);
        self.get(search)
    }

    /// Whether there is a value for a key, and not just a failure that is remembered.
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

    /// Returns a key's value and its remaining TTL; `None` in that: it does not expire. A remembered failure is no value. Counts nothing.
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

    /// Has the user's function weigh what is to be inserted.
    pub(crate) fn weigh(&self, args: &[Object]) -> Result<u64, Raised> {
        let weigher = self.weigher.load(Ordering::Relaxed);
        if weigher.is_null() {
            return Ok(1);
        }
        // SAFETY: held while it runs; the arguments are the caller's.
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

    /// Sets a key's value.
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
                // SAFETY: both are held here, and no code has run since the instance was seen alive.
                unsafe { owners::prepare_entry(new, value.object()) }?
            };
            if is_dead() {
                // Its results would outlive it.
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
                // Its results would outlive it.
                return Ok(());
            }
            self.sweep_dead_instances();
        }
        WEIGHT.set(weight);
        raw::insert(&self.cache, search as &dyn KeyQuery, Key::new(key), value, ttl);
        // It may have passed over an equal key, of which only Python can tell that it is.
        while search.resolve()? {
            self.cache.remove(&ExceptQuery(search, new) as &dyn KeyQuery);
        }
        Ok(())
    }

    /// Remembers that a load failed, if that is wanted.
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
            // What cannot be copied cannot be raised again.
            None => Ok(()),
        }
    }

    /// Ends a load that is led: `keep` keeps what came of it, unless the key was changed meanwhile; who waits is handed it.
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
            // What cannot be kept (its weigher raised, say) is an error for all.
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

    /// Ends a load that a task leads by `end`, or by what that raises: the clock, or the comparison of keys.
    pub(crate) fn end_task(
        &self,
        py: Python<'_>,
        lead: &Lead,
        outcome: &Outcome,
        end: impl FnOnce() -> Result<(), Raised>,
    ) -> PyResult<()> {
        let leading = AbandonOnDrop::new(&self.loads, lead.token);
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

    /// Removes a key, and returns what was there.
    pub(crate) fn remove<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<Option<Found>, Raised> {
        let mut removed = None;
        loop {
            // (Without the GIL, a race of insertions may have left two entries of which only Python can tell that they are equal.)
            match self.cache.remove(search as &dyn KeyQuery) {
                Some(value) => removed = Some(value),
                None if !search.resolve()? => break,
                None => {}
            }
        }
        Ok(removed.as_ref().map(Value::found))
    }

    /// Changes a key's value atomically: `decide` sees what is there, as a borrowed reference that is alive while it runs, and runs no
    /// Python code. Returns whether that was all; else it is to be called again.
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

    /// Removes all entries, and counts on.
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

    /// New references to keys and values, hottest first; without remembered exceptions.
    pub(crate) fn hottest(&self, py: Python<'_>) -> Vec<(Py<PyAny>, Py<PyAny>)> {
        let reader = self.cache.reader();
        let entries = reader
            .hottest()
            .filter(|(key, value)| !value.is_error() && !key.object().is_null());
        // SAFETY: the reader keeps the entries, which hold these.
        let own = |object| unsafe { Bound::from_borrowed_ptr(py, object) }.unbind();
        entries
            .map(|(key, value)| (own(key.object()), own(value.object())))
            .collect()
    }

    /// Returns new references to keys and values with their remaining times, hottest first; without remembered exceptions.
    pub(crate) fn hottest_with_remaining(&self) -> Vec<(Ref, Ref, raw::Remaining)> {
        raw::hottest_with_remaining(&self.cache, |key, value, left| {
            let object = key.object();
            if object.is_null() || value.is_error() {
                return None;
            }
            // SAFETY: the entry holds its key while it is shown.
            let key = unsafe { Ref::borrowed(object) };
            Some((key, value.found().value()?, left))
        })
    }

    /// Copies of the values of many keys.
    pub(crate) fn get_many(&self, searches: &[&dyn KeyQuery]) -> Vec<Option<Value>> {
        if !self.trust.allows_hits() {
            return searches.iter().map(|_| None).collect();
        }
        self.cache.get_many(searches.iter().copied())
    }

    /// Shows the collector what is held. Loads that are going on are not shown: they are held by who is at them.
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
            if owners::is_owned(&self.hooks, key.object()) {
                return;
            }
            see(key.object());
            see(value.object());
        });
        // What left holds its key and value until no reader can see it: a cycle through these alone would otherwise stay for ever.
        // The collector has stopped all other threads, at a point at which they are in no cache.
        #[cfg(Py_GIL_DISABLED)]
        raw::visit_unlinked(&self.cache, |key, value| {
            see(key.object());
            see(value.object());
        });
        stop
    }

    /// Lets go of everything, for the collector.
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

/// The exception for settings with which the engine builds no cache.
fn build_error(error: BuildError) -> PyErr {
    let text = error.to_string();
    match error {
        BuildError::NoMemory => PyMemoryError::new_err(text),
        BuildError::ThreadSpawn { source } => match source.raw_os_error() {
            Some(number) => PyOSError::new_err((number, text)),
            None => PyOSError::new_err(text),
        },
        // No setting is wrong: the process's allocator, or its platform, is one that no cache can be built on.
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

impl Hooks {
    /// An entry left the engine.
    fn entry_removed(&self, key: &Key, value: &Value, cause: Cause) {
        #[cfg(not(Py_GIL_DISABLED))]
        if self.method.load(Ordering::Relaxed) {
            owners::detach_entry(self, key.object());
        }
        let mut listener = self.on_removal.load(Ordering::Relaxed);
        if value.is_error() || (cause == Cause::Replaced && value.object() == WITHOUT_NOTICE.get()) {
            // A failure that was remembered is no value, and what is replaced by itself stays.
            listener = ptr::null_mut();
        }
        let notice = (!listener.is_null()).then(|| {
            // SAFETY: the store holds it.
            unsafe { ffi::Py_INCREF(listener) };
            RemovalNotice {
                listener,
                cause,
                notify: self.notify,
                method: self.method.load(Ordering::Relaxed),
            }
        });
        if cfg!(not(Py_GIL_DISABLED)) {
            let (key, value) = (key.take(), value.take());
            defer_drop(DeferredDrop { key, value, notice });
        } else if notice.is_some() {
            let (key, value) = (key.object(), value.object());
            // SAFETY: who unlinked the entry calls this, and holds it.
            unsafe {
                ffi::Py_INCREF(key);
                ffi::Py_INCREF(value);
            }
            defer_drop(DeferredDrop { key, value, notice });
        }
    }
}
