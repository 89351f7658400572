//! The stats file: the figures of named stores, and the requests of its readers.

use super::Store;
use super::deferred_drop::{DeferredDrop, RemovalNotice, defer_drop};
use crate::gil_cell::GilCell;
use crate::objects::Object;
use hotset::raw::stats_file::{self as raw, Record, Registration, Source};
use hotset::stats_file::{self, Language};
use hotset::tier2::Namespace;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A store that is in the stats file. The store holds its registration, and drops it first.
struct StoreSource(*const Store);

// SAFETY: the pointer is used under the lock of the registry only, and the store leaves the
// registry, under the same lock, before it is dropped. What is read there are atomics.
unsafe impl Send for StoreSource {}
// SAFETY: as above.
unsafe impl Sync for StoreSource {}

/// The place of a store in the stats file.
#[derive(Default)]
pub(super) struct Published {
    registration: GilCell<Option<Registration>>,
    /// The second tier's part of this cache.
    tier2: Mutex<Option<Namespace>>,
}

/// The function that clears caches by their numbers: the package's.
static CLEAR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// The request that is being carried out, and the numbers of the caches to clear.
static CLEARS: GilCell<(u64, Vec<u64>)> = GilCell::new((0, Vec::new()));

impl Source for StoreSource {
    fn fill(&self, record: &mut Record) {
        // SAFETY: called under the registry's lock, so the store is alive.
        let store = unsafe { &*self.0 };
        raw::fill(&store.cache, record);
        store.fill_record(record);
    }

    fn observe(&self) {
        // SAFETY: called under the registry's lock, so the store is alive.
        raw::observe(unsafe { &(*self.0).cache });
    }

    fn clear(&self, request: u64, id: u64) -> bool {
        clear_later(request, id);
        false
    }
}

impl Store {
    /// Replaces what the engine counts by what users of the wheel see.
    fn fill_record(&self, record: &mut Record) {
        let (loads, failures, waits) = self.loads.counts();
        let buckets = self.loads.buckets();
        record.set_loads(
            loads.saturating_sub(failures),
            failures,
            self.loads.load_time(),
            &buckets,
        );
        // Not waited for: the registry's lock is held.
        if let Ok(tier2) = self.published.tier2.try_lock()
            && let Some(namespace) = &*tier2
        {
            let stats = namespace.stats();
            record.set_tier2(
                stats.hits.get() + stats.negative_hits.get() + stats.stale_while_revalidate.get(),
                stats.misses.get(),
                stats.unconfirmed.get(),
                stats.writes.get() + stats.fills.get(),
                stats.removals.get(),
            );
        }
        record.set_lookups(|hits, misses| (hits, misses.saturating_sub(self.uncounted_misses()), waits));
    }

    /// Has the stats file show the counters of the second tier as well.
    pub(crate) fn show_tier2(&self, namespace: Namespace) {
        let mut tier2 = self.published.tier2.lock().unwrap_or_else(PoisonError::into_inner);
        *tier2 = Some(namespace);
    }

    /// Puts the store into the stats file, under `name`, until it is dropped. Returns its number
    /// there, and a warning if `HOTSET_STATS` has no effect.
    ///
    /// The store must be at the address where it stays.
    pub(crate) fn publish(&self, name: &str) -> (u64, Option<String>) {
        let (registration, failed) = raw::register(name.to_owned(), Arc::new(StoreSource(self)), true);
        let id = registration.id();
        let previous = self.published.registration.lock().replace(registration);
        drop(previous); // unlocked: it waits for a thread that is rewriting the file
        (id, failed.map(|failed| failed.to_string()))
    }
}

/// Has the cache `id` cleared when the running call returns: by the package's function, which
/// knows what its object is.
fn clear_later(request: u64, id: u64) {
    let is_first = {
        let mut clears = CLEARS.lock();
        if clears.0 != request {
            *clears = (request, Vec::new());
        }
        clears.1.push(id);
        clears.1.len() == 1
    };
    // A thread in any call on a named cache runs this, so it is attached.
    let listener = Python::attach(|py| CLEAR.get(py).map(|clear| clear.clone_ref(py).into_ptr()));
    let Some(listener) = listener.filter(|_| is_first) else {
        return;
    };
    defer_drop(DeferredDrop {
        key: std::ptr::null_mut(),
        value: std::ptr::null_mut(),
        notice: Some(RemovalNotice {
            listener,
            cause: hotset::Cause::Explicit,
            notify: clear_now,
            method: false,
        }),
    });
}

/// Calls the package's function with the numbers of the caches, and answers the request.
fn clear_now(py: Python<'_>, notice: &RemovalNotice, _: Object, _: Object) -> PyResult<()> {
    let (request, ids) = std::mem::take(&mut *CLEARS.lock());
    // SAFETY: the notice's owner holds it while this runs.
    let clear = unsafe { Bound::from_borrowed_ptr(py, notice.listener) };
    let cleared = clear.call1((ids,));
    raw::answer_request(request, cleared.is_ok());
    cleared.map(drop)
}

/// Describes the process in its stats file. Called once.
///
/// Args:
///     program: The name of the program.
///     clear: Called with a list of numbers of caches: clears these.
#[pyfunction]
#[pyo3(signature = (program, clear, /))]
fn describe_process(py: Python<'_>, program: String, clear: Py<PyAny>) {
    _ = CLEAR.set(py, clear);
    raw::describe(Language::Python, Some(program), None);
}

/// Keeps the stats file of this process in a directory.
///
/// Args:
///     directory: The directory, which must exist.
///
/// Raises:
///     OSError: The directory does not exist, or cannot be written to.
///     ValueError: Other users can replace files in it, or the file is in another one.
#[pyfunction]
#[pyo3(signature = (directory, /))]
fn enable_stats_file(directory: PathBuf) -> PyResult<()> {
    stats_file::enable(&directory).map_err(|error| {
        let text = error.to_string();
        match error.io_error() {
            // The subclass of OSError is chosen by the number.
            Some(source) => PyOSError::new_err((source.raw_os_error(), text)),
            None => PyValueError::new_err(text),
        }
    })
}

/// Returns the path of this process's stats file, or None.
#[pyfunction]
fn stats_file_path() -> Option<PathBuf> {
    stats_file::path()
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(describe_process, module)?)?;
    module.add_function(wrap_pyfunction!(enable_stats_file, module)?)?;
    module.add_function(wrap_pyfunction!(stats_file_path, module)?)
}
