//! Snapshots, as the Python package drives them.
//!
//! The package gets entries, encodes them with its codec, and passes the bytes back. So the codec's
//! code runs while no lock is held, and the engine works between its calls.

mod classes;
mod values;

use crate::cache_ref::CacheRef;
use crate::gil_cell::GilCell;
use crate::objects::Ref;
use crate::store::Store;
use crate::store::deferred_drop::DrainOnExit;
use crate::store::snapshot::Entry;
use hotset::raw::{self, EntryMeta};
use hotset::snapshot::SnapshotError as EngineError;
use pyo3::exceptions::{PyException, PyIndexError, PyMemoryError, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pyo3::create_exception!(
    hotset,
    SnapshotError,
    PyException,
    "A snapshot cannot be saved, or a file cannot be loaded.

Attributes:
    reason: \"not a file\", \"not a snapshot\", \"version\", \"schema\", \"corrupt\", \"too large\" or
        \"codec\".

Example:
    >>> import hotset, tempfile
    >>> cache: hotset.Cache[str, int] = hotset.Cache(100)
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes(1000))
    ...     file.flush()
    ...     try:
    ...         cache.load(file.name)
    ...     except hotset.SnapshotError as error:
    ...         print(error.reason)
    not a snapshot
"
);

/// Returns the exception for an error of the engine. Errors of the system become an OSError.
fn error(py: Python<'_>, path: &Path, cause: EngineError) -> PyErr {
    let text = match &cause {
        EngineError::Io { .. } | EngineError::NotAFile { .. } => cause.to_string(),
        _ => format!("{}: {cause}", path.display()),
    };
    let reason = match cause {
        EngineError::Io { path, source, .. } => {
            if source.kind() == ErrorKind::OutOfMemory {
                return PyMemoryError::new_err(text);
            }
            let Some(number) = source.raw_os_error() else {
                return PyOSError::new_err(text);
            };
            // The system's text alone, since an OSError shows the path beside it.
            let said = source.to_string();
            let said = said.split(" (os error").next().unwrap_or_default().to_owned();
            return PyOSError::new_err((number, said, path.into_os_string()));
        }
        EngineError::NotAFile { .. } => "not a file",
        EngineError::NotASnapshot => "not a snapshot",
        EngineError::Version { .. } | EngineError::Endianness => "version",
        EngineError::Schema { .. } => "schema",
        EngineError::TooLarge { .. } => "too large",
        _ => "corrupt",
    };
    let error = SnapshotError::new_err(text);
    match error.value(py).setattr("reason", reason) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// A cache whose entries a snapshot holds.
pub(crate) trait SnapshotSource {
    /// Returns the store, or raises a TypeError if its keys cannot be in a snapshot.
    fn store_to_save(&self) -> PyResult<&Store>;

    /// Returns a key as the codec encodes it.
    fn codec_key<'py>(&self, py: Python<'py>, key: Ref) -> PyResult<Bound<'py, PyAny>>;

    /// Returns the weight of an entry whose key the codec has decoded; `None` if the key is in the
    /// cache already.
    fn weigh_absent(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Option<u64>>;

    /// Inserts an entry whose key the codec has decoded; returns whether it was inserted.
    fn restore(
        &self,
        key: &Bound<'_, PyAny>,
        value: Ref,
        weight: u64,
        meta: EntryMeta,
        session: &raw::LoadSession,
    ) -> PyResult<bool>;
}

/// State for one thread at a time: taken out while it is used, so that no lock is held while Python
/// code or other threads run.
struct Exclusive<T>(GilCell<Option<T>>);

impl<T> Exclusive<T> {
    fn new(state: T) -> Self {
        Self(GilCell::new(Some(state)))
    }

    fn swap(&self, state: Option<T>) -> Option<T> {
        std::mem::replace(&mut *self.0.lock(), state)
    }

    fn take(&self) -> PyResult<T> {
        self.swap(None)
            .ok_or_else(|| PyRuntimeError::new_err("this snapshot session has ended, or another thread uses it"))
    }

    /// Runs `f` with the state; after an error there is no state any more.
    fn with<R>(&self, f: impl FnOnce(&mut T) -> PyResult<R>) -> PyResult<R> {
        let mut state = self.take()?;
        let result = f(&mut state)?;
        self.swap(Some(state));
        Ok(result)
    }
}

/// A save in progress: call `batch` and `add` in turns, then `finish`. For one thread at a time.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct SaveSession {
    cache: CacheRef<dyn SnapshotSource>,
    path: PathBuf,
    /// The engine's session, and the metadata of the batch's entries that have not been added.
    state: Exclusive<(raw::SaveSession, Vec<Option<EntryMeta>>)>,
}

impl SaveSession {
    pub(crate) fn begin(
        py: Python<'_>,
        cache: CacheRef<dyn SnapshotSource>,
        path: PathBuf,
        schema: u64,
    ) -> PyResult<Py<Self>> {
        let _drain = DrainOnExit;
        let store = cache.store_to_save()?;
        store.read_timer()?;
        let session = store
            .begin_save(&path, schema)
            .map_err(|cause| error(py, &path, cause))?;
        let state = Exclusive::new((session, Vec::new()));
        Py::new(py, Self { cache, path, state })
    }
}

#[pymethods]
impl SaveSession {
    /// Returns the next keys and values, hottest first; none at the end.
    ///
    /// A Memo's keys are (args, kwargs).
    fn batch<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        let _drain = DrainOnExit;
        let store = self.cache.store_to_save()?;
        let batch = self.state.with(|(session, batch_meta)| {
            let batch = store.next_to_save(session);
            batch_meta.clear();
            batch_meta.extend(batch.iter().map(|entry| Some(entry.meta)));
            Ok(batch)
        })?;
        let pair = |entry: Entry| Ok((self.cache.codec_key(py, entry.key)?, entry.value.into_bound(py)));
        batch.into_iter().map(pair).collect()
    }

    /// Adds the encoded form of one entry of the last batch.
    ///
    /// Args:
    ///     at: The index of the entry in the batch; each is added at most once.
    ///     key: The encoded key.
    ///     value: The encoded value.
    #[pyo3(signature = (at, key, value, /))]
    fn add(&self, py: Python<'_>, at: usize, key: &[u8], value: &[u8]) -> PyResult<()> {
        self.state.with(|(session, batch_meta)| {
            let meta = batch_meta.get_mut(at).and_then(Option::take);
            let meta = meta.ok_or_else(|| PyIndexError::new_err("no such entry in the batch, or it was added"))?;
            let added = session.add(key, value, meta).and_then(|()| {
                if session.is_full() {
                    py.detach(|| session.flush())
                } else {
                    Ok(())
                }
            });
            added.map_err(|cause| error(py, &self.path, cause))
        })
    }

    /// Completes the file, gives it its name, and returns the number of its entries.
    fn finish(&self, py: Python<'_>) -> PyResult<u64> {
        let (session, _) = self.state.take()?;
        let saved = py.detach(|| session.finish());
        Ok(saved.map_err(|cause| error(py, &self.path, cause))?.entries)
    }

    /// Discards the file if it is not finished.
    fn abandon(&self) {
        drop(self.state.swap(None));
    }
}

/// An entry that the codec has decoded, and that `finish` inserts.
struct StagedEntry {
    key: Py<PyAny>,
    value: Py<PyAny>,
    weight: u64,
    meta: EntryMeta,
}

struct LoadState {
    session: raw::LoadSession,
    meta: Option<EntryMeta>,
    staged: Vec<StagedEntry>,
    room: u64,
}

/// A load in progress: iterate over the encoded entries, call `stage` for each, then `finish`.
///
/// Iteration yields encoded keys and values, hottest first, as long as the cache has room.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct LoadSession {
    cache: CacheRef<dyn SnapshotSource>,
    state: Exclusive<LoadState>,
}

impl LoadSession {
    pub(crate) fn begin(
        py: Python<'_>,
        cache: CacheRef<dyn SnapshotSource>,
        path: PathBuf,
        schema: u64,
    ) -> PyResult<Py<Self>> {
        let _drain = DrainOnExit;
        let store = cache.store_to_save()?;
        store.read_timer()?;
        let session = py.detach(|| store.begin_load(&path, schema));
        let state = Exclusive::new(LoadState {
            session: session.map_err(|cause| error(py, &path, cause))?,
            meta: None,
            staged: Vec::new(),
            room: store.room(),
        });
        Py::new(py, Self { cache, state })
    }
}

#[pymethods]
impl LoadSession {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
        self.state.with(|state| {
            if state.room == 0 {
                return Ok(None);
            }
            Ok(state.session.next().map(|(key, value, meta)| {
                state.meta = Some(meta);
                (PyBytes::new(py, key), PyBytes::new(py, value))
            }))
        })
    }

    /// Passes the decoded form of the entry that iteration yielded last.
    ///
    /// Args:
    ///     key: The key; (args, kwargs) for a Memo.
    ///     value: The value.
    #[pyo3(signature = (key, value, /))]
    fn stage(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _drain = DrainOnExit;
        let weight = self.cache.weigh_absent(key, value)?;
        self.state.with(|state| {
            if let Some(weight) = weight
                && let Some(room) = state.room.checked_sub(weight)
                && let Some(meta) = state.meta.take()
            {
                state.room = room;
                state.staged.push(StagedEntry {
                    key: key.clone().unbind(),
                    value: value.clone().unbind(),
                    weight,
                    meta,
                });
            }
            Ok(())
        })
    }

    /// Inserts all entries whose keys are absent, and returns their number.
    fn finish(&self, py: Python<'_>) -> PyResult<u64> {
        let _drain = DrainOnExit;
        let store = self.cache.store_to_save()?;
        store.read_timer()?;
        let LoadState { session, staged, .. } = self.state.take()?;
        store.begin_restoring(&session);
        let mut restored = 0;
        // The hottest last: to the policy, an entry that is inserted later is more recent.
        for staged in staged.into_iter().rev() {
            let StagedEntry {
                key,
                value,
                weight,
                meta,
            } = staged;
            let value = value.into_bound(py).into();
            restored += u64::from(self.cache.restore(key.bind(py), value, weight, meta, &session)?);
        }
        Ok(restored)
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("SnapshotError", module.py().get_type::<SnapshotError>())?;
    module.add_class::<SaveSession>()?;
    module.add_class::<LoadSession>()?;
    values::add(module)
}
