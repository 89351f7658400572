//! Snapshots, as the Python package drives them: it is handed entries, has its codec make bytes of them, and hands these back. So that
//! code runs while nothing is held, and the engine's work goes on between its calls.

mod classes;
mod values;

use crate::gil_cell::GilCell;
use crate::mapping::Mapping;
use crate::memo::Memo;
use crate::objects::Ref;
use crate::store::Store;
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{MappingKey, Search};
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
    "A snapshot cannot be saved, or a file cannot be loaded; the text says why.\n\n`reason` is one of \"not a file\", \"not a snapshot\", \
     \"version\", \"schema\", \"corrupt\", \"too large\" and \"codec\"."
);

/// What the system refuses is an OSError of its own.
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
            // (The system's text alone, since the path comes beside it.)
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

/// Whose entries they are.
pub(crate) enum Of {
    Memo(Py<PyAny>),
    Mapping(Py<PyAny>),
}

impl Of {
    fn memo(memo: &Py<PyAny>) -> &Memo {
        // SAFETY: a memo put itself there.
        unsafe { &*memo.as_ptr().cast() }
    }

    fn store(&self) -> PyResult<&Store> {
        match self {
            Self::Memo(memo) => Self::memo(memo).store_to_save(),
            // SAFETY: likewise, of a mapping.
            Self::Mapping(mapping) => Ok(unsafe { &*mapping.as_ptr().cast::<Mapping>() }.store()),
        }
    }

    /// A key as the codec sees it.
    fn shown<'py>(&self, py: Python<'py>, key: Ref) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Memo(memo) => Self::memo(memo).shown(py, &key),
            Self::Mapping(_) => Ok(key.into_bound(py)),
        }
    }

    /// What an entry weighs, if its key, as the codec made it, is absent.
    fn weigh_absent(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let store = self.store()?;
        let (there, weight) = match self {
            Self::Memo(memo) => {
                let there = Self::memo(memo).with_shown(key, |search, _| Ok(store.contains(search)?))?;
                (there, store.weigh(&[value.as_ptr()])?)
            }
            Self::Mapping(_) => {
                let single = MappingKey(key.as_ptr());
                let there = store.contains(&search(&single)?)?;
                (there, store.weigh(&[key.as_ptr(), value.as_ptr()])?)
            }
        };
        Ok((!there).then_some(weight))
    }

    fn restore(&self, py: Python<'_>, staged: StagedEntry, session: &raw::LoadSession) -> PyResult<bool> {
        let store = self.store()?;
        let StagedEntry {
            key,
            value,
            weight,
            meta,
        } = staged;
        let (key, value) = (key.into_bound(py), value.into_bound(py).into());
        match self {
            Self::Memo(memo) => Self::memo(memo).with_shown(&key, |search, key| {
                Ok(store.restore(search, Entry { key, value, meta }, weight, session)?)
            }),
            Self::Mapping(_) => {
                let single = MappingKey(key.as_ptr());
                let search = search(&single)?;
                let key = key.clone().into();
                Ok(store.restore(&search, Entry { key, value, meta }, weight, session)?)
            }
        }
    }
}

/// The search for a mapping's key.
fn search(single: &MappingKey) -> PyResult<Search<'_, MappingKey>> {
    // SAFETY: who made it holds the key.
    let hash = unsafe { crate::objects::hash(single.0) }?;
    Ok(Search::new(single, hash))
}

/// What one thread uses at a time: taken out meanwhile, so that no lock is held while Python code runs or other threads do.
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
            .ok_or_else(|| PyRuntimeError::new_err("this snapshot is done with, or in another thread's hands"))
    }

    /// Runs `f` with the state; after an error there is none any more.
    fn with<R>(&self, f: impl FnOnce(&mut T) -> PyResult<R>) -> PyResult<R> {
        let mut state = self.take()?;
        let result = f(&mut state)?;
        self.swap(Some(state));
        Ok(result)
    }
}

/// A save that is going on. If it is dropped before it is finished, nothing was saved.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct SaveSession {
    of: Of,
    path: PathBuf,
    /// And what is known of the batch's entries that were not added yet.
    state: Exclusive<(raw::SaveSession, Vec<Option<EntryMeta>>)>,
}

impl SaveSession {
    pub(crate) fn begin(py: Python<'_>, of: Of, path: PathBuf, schema: u64) -> PyResult<Py<Self>> {
        let _drain = DrainOnExit;
        let store = of.store()?;
        store.read_timer()?;
        let session = store
            .begin_save(&path, schema)
            .map_err(|cause| error(py, &path, cause))?;
        let state = Exclusive::new((session, Vec::new()));
        Py::new(py, Self { of, path, state })
    }
}

#[pymethods]
impl SaveSession {
    fn batch<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        let _drain = DrainOnExit;
        let store = self.of.store()?;
        let batch = self.state.with(|(session, batch_meta)| {
            let batch = store.next_to_save(session);
            batch_meta.clear();
            batch_meta.extend(batch.iter().map(|entry| Some(entry.meta)));
            Ok(batch)
        })?;
        let pair = |entry: Entry| Ok((self.of.shown(py, entry.key)?, entry.value.into_bound(py)));
        batch.into_iter().map(pair).collect()
    }

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

    fn finish(&self, py: Python<'_>) -> PyResult<u64> {
        let (session, _) = self.state.take()?;
        let saved = py.detach(|| session.finish());
        Ok(saved.map_err(|cause| error(py, &self.path, cause))?.entries)
    }

    fn abandon(&self) {
        drop(self.state.swap(None));
    }
}

/// An entry that is to come in, as the codec made it.
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

/// A load that is going on. Until it is finished, nothing came in.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct LoadSession {
    of: Of,
    state: Exclusive<LoadState>,
}

impl LoadSession {
    pub(crate) fn begin(py: Python<'_>, of: Of, path: PathBuf, schema: u64) -> PyResult<Py<Self>> {
        let _drain = DrainOnExit;
        let store = of.store()?;
        store.read_timer()?;
        let session = py.detach(|| store.begin_load(&path, schema));
        let state = Exclusive::new(LoadState {
            session: session.map_err(|cause| error(py, &path, cause))?,
            meta: None,
            staged: Vec::new(),
            room: store.room(),
        });
        Py::new(py, Self { of, state })
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

    #[pyo3(signature = (key, value, /))]
    fn stage(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _drain = DrainOnExit;
        let weight = self.of.weigh_absent(key, value)?;
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

    fn finish(&self, py: Python<'_>) -> PyResult<u64> {
        let _drain = DrainOnExit;
        let store = self.of.store()?;
        store.read_timer()?;
        let LoadState { session, staged, .. } = self.state.take()?;
        store.begin_restoring(&session);
        let mut restored = 0;
        // The hottest last: what comes in later is worth more to the policy.
        for staged in staged.into_iter().rev() {
            restored += u64::from(self.of.restore(py, staged, &session)?);
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
