//! A cache that keeps itself in a file: loaded when it is built, saved every so often and when nobody holds it any more.

use super::codec::{Codec, PerTypeCodec};
use super::error::SnapshotError;
use super::options::{LoadOptions, Loaded, SaveOptions, Saved};
use crate::cache::{Cache, Inner};
use crate::ticker::{Kind, Service};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// What became of a snapshot that the cache loaded or saved by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotEvent {
    /// It was loaded when the cache was built.
    Loaded(Loaded),
    /// There is no file yet: the cache begins empty.
    NoFile,
    /// There is a file that cannot be used, and says why: the cache begins empty. The next save takes its place.
    NotLoaded(SnapshotError),
    /// It was saved.
    Saved(Saved),
    /// It was not; the former file is whole.
    NotSaved(SnapshotError),
}

impl SnapshotEvent {
    /// What went wrong, if something did.
    pub fn error(&self) -> Option<&SnapshotError> {
        match self {
            Self::NotLoaded(error) | Self::NotSaved(error) => Some(error),
            _ => None,
        }
    }
}

/// When a cache loads and saves a snapshot by itself; for [`Builder::snapshot`](crate::Builder::snapshot).
///
/// ```
/// use hotset::Cache;
/// use hotset::snapshot::Keep;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), hotset::BuildError> {
/// # let path = std::env::temp_dir().join(format!("hotset-keep-{}", std::process::id()));
/// let keep = Keep::at(&path, |kept| {
///     if let Some(error) = kept.error() {
///         eprintln!("the cache's snapshot: {error}");
///     }
/// });
/// let cache: Cache<String, Vec<u8>> = Cache::builder()
///     .max_entries(10_000)
///     .snapshot(keep.load_at_build().save_every(Duration::from_secs(300)).save_on_drop())
///     .build()?;
/// # drop(cache);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
pub struct AutoSnapshot {
    path: PathBuf,
    schema: u64,
    load: bool,
    copy: bool,
    save_on_drop: bool,
    pub(crate) every: Option<Duration>,
    observer: Box<dyn Fn(SnapshotEvent) + Send + Sync>,
}

impl AutoSnapshot {
    /// In this file; but nothing yet. `observer` is told of every load and save, under no lock, by the thread that did it: nobody
    /// else would learn of an error. One that holds a handle to its own cache keeps that alive for ever.
    pub fn new(path: impl Into<PathBuf>, observer: impl Fn(SnapshotEvent) + Send + Sync + 'static) -> Self {
        Self {
            path: path.into(),
            schema: 0,
            load: false,
            copy: false,
            save_on_drop: false,
            every: None,
            observer: Box::new(observer),
        }
    }

    /// The [schema](SaveOptions::schema) to save with, and to ask for.
    pub fn schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// Loads the file when the cache is built. If that cannot be done the cache is built all the same, empty, and the observer
    /// is told why.
    pub fn load_at_build(mut self) -> Self {
        self.load = true;
        self
    }

    /// Reads the file into memory when the cache is built, instead of mapping it: see
    /// [`LoadOptions::copy`].
    pub fn copy(mut self, copy: bool) -> Self {
        self.copy = copy;
        self
    }

    /// Saves when the last handle to the cache is dropped, before that returns; also while a panic unwinds. (A process that
    /// exits without dropping it, or is killed, saves nothing.)
    pub fn save_on_drop(mut self) -> Self {
        self.save_on_drop = true;
        self
    }

    /// Saves every so often, from a thread named `hotset-saver`, which ends with the last handle. Dropping that waits for a
    /// save that is going on.
    pub fn save_every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    fn save<K: Hash + Eq + Codec, V: Codec, S: BuildHasher>(&self, inner: &Inner<K, V, S>) {
        let saved = inner.save::<PerTypeCodec>(&self.path, &SaveOptions::new().schema(self.schema));
        (self.observer)(saved.map_or_else(SnapshotEvent::NotSaved, SnapshotEvent::Saved));
    }
}

impl fmt::Debug for AutoSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoSnapshot")
            .field("path", &self.path)
            .field("schema", &self.schema)
            .field("load_at_build", &self.load)
            .field("copy", &self.copy)
            .field("save_on_drop", &self.save_on_drop)
            .field("save_every", &self.every)
            .finish_non_exhaustive()
    }
}

/// Part of a cache that saves itself.
pub(crate) struct AutoSnapshotter<K, V, S> {
    keep: Arc<AutoSnapshot>,
    save: fn(&AutoSnapshot, &Inner<K, V, S>),
    saver: Mutex<Option<Service>>,
}

impl<K, V, S> AutoSnapshotter<K, V, S> {
    /// The last handle is dropped: ends the thread, and then saves.
    pub(crate) fn end(&self, inner: &Inner<K, V, S>) {
        drop(self.saver.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.keep.save_on_drop {
            // A panic, which the hook has reported, must not leave a destructor.
            _ = catch_unwind(AssertUnwindSafe(|| (self.save)(&self.keep, inner)));
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Codec + Send + Sync + 'static,
    V: Codec + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Loads, and begins to save, as `keep` says.
    pub(crate) fn start_auto_snapshot(&self, keep: AutoSnapshot) -> io::Result<AutoSnapshotter<K, V, S>> {
        if keep.load {
            let options = LoadOptions::new().schema(keep.schema).copy(keep.copy);
            let loaded = self.load_with(&keep.path, &options);
            (keep.observer)(match loaded {
                Ok(loaded) => SnapshotEvent::Loaded(loaded),
                Err(SnapshotError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    SnapshotEvent::NoFile
                }
                Err(error) => SnapshotEvent::NotLoaded(error),
            });
        }
        let keep = Arc::new(keep);
        let saver = keep
            .every
            .map(|every| self.start_saver(keep.clone(), every))
            .transpose()?;
        Ok(AutoSnapshotter {
            keep,
            save: AutoSnapshot::save,
            saver: Mutex::new(saver),
        })
    }

    fn start_saver(&self, keep: Arc<AutoSnapshot>, every: Duration) -> io::Result<Service> {
        let cache: Weak<Inner<K, V, S>> = Arc::downgrade(&self.0);
        Service::start(Kind::Saver, every, move || {
            let Some(inner) = cache.upgrade() else { return false };
            // What panics is the observer or an `encode`; the hook has reported it, and the next save may go well.
            _ = catch_unwind(AssertUnwindSafe(|| keep.save(&inner)));
            _ = catch_unwind(AssertUnwindSafe(|| drop(inner)));
            true
        })
    }
}
