//! A cache that loads its snapshot when it is built, and saves it at an interval and when its last
//! handle is dropped.

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

/// The outcome of a load or save that the cache performed by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotEvent {
    /// The snapshot was loaded when the cache was built.
    Loaded(Loaded),
    /// The file does not exist: the cache begins empty.
    NoFile,
    /// The file cannot be used: the cache begins empty, and the next save replaces the file.
    NotLoaded(SnapshotError),
    /// The cache was saved.
    Saved(Saved),
    /// The save failed; the previous file is unchanged.
    NotSaved(SnapshotError),
}

impl SnapshotEvent {
    /// Returns the error, if the load or save failed.
    pub fn error(&self) -> Option<&SnapshotError> {
        match self {
            Self::NotLoaded(error) | Self::NotSaved(error) => Some(error),
            _ => None,
        }
    }
}

/// Configures when a cache loads and saves its snapshot. Used by
/// [`Builder::snapshot`](crate::Builder::snapshot).
///
/// # Examples
///
/// ```
/// use hotset::Cache;
/// use hotset::snapshot::AutoSnapshot;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), hotset::BuildError> {
/// # let path = std::env::temp_dir().join(format!("hotset-keep-{}", std::process::id()));
/// let snapshot = AutoSnapshot::new(&path, |event| {
///     if let Some(error) = event.error() {
///         eprintln!("the cache's snapshot: {error}");
///     }
/// });
/// let cache: Cache<String, Vec<u8>> = Cache::builder()
///     .max_entries(10_000)
///     .snapshot(snapshot.load_at_build().save_every(Duration::from_secs(300)).save_on_drop())
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
    /// Returns a configuration for the file `path` that neither loads nor saves yet.
    ///
    /// `observer` is called with the outcome of every load and save; no other way reports their
    /// errors. An observer that holds a handle to its own cache keeps that cache alive forever.
    ///
    /// # Concurrency
    ///
    /// `observer` runs on the thread that loaded or saved, without a lock held.
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

    /// Sets the [schema](SaveOptions::schema) of saves and loads.
    pub fn schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// Loads the file when the cache is built. If the load fails, the cache is built empty, and the
    /// observer is called with the error.
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

    /// Saves when the last handle to the cache is dropped, before the drop returns, also while a
    /// panic unwinds. A process that exits without dropping it, or is killed, saves nothing.
    pub fn save_on_drop(mut self) -> Self {
        self.save_on_drop = true;
        self
    }

    /// Saves after every `interval`, on a thread named `hotset-saver` that stops with the last
    /// handle. Dropping the last handle waits for a save in progress.
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

/// The part of a cache that performs its [`AutoSnapshot`].
pub(crate) struct AutoSnapshotter<K, V, S> {
    config: Arc<AutoSnapshot>,
    save: fn(&AutoSnapshot, &Inner<K, V, S>),
    saver: Mutex<Option<Service>>,
}

impl<K, V, S> AutoSnapshotter<K, V, S> {
    /// Stops the thread, then saves. Called when the last handle is dropped.
    pub(crate) fn end(&self, inner: &Inner<K, V, S>) {
        drop(self.saver.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.config.save_on_drop {
            // A panic, which the hook has reported, must not leave a destructor.
            _ = catch_unwind(AssertUnwindSafe(|| (self.save)(&self.config, inner)));
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Codec + Send + Sync + 'static,
    V: Codec + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Loads the snapshot and starts the saving thread, with the settings of `config`.
    pub(crate) fn start_auto_snapshot(&self, config: AutoSnapshot) -> io::Result<AutoSnapshotter<K, V, S>> {
        if config.load {
            let options = LoadOptions::new().schema(config.schema).copy(config.copy);
            let loaded = self.load_with(&config.path, &options);
            (config.observer)(match loaded {
                Ok(loaded) => SnapshotEvent::Loaded(loaded),
                Err(SnapshotError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    SnapshotEvent::NoFile
                }
                Err(error) => SnapshotEvent::NotLoaded(error),
            });
        }
        let config = Arc::new(config);
        let saver = config
            .every
            .map(|every| self.start_saver(config.clone(), every))
            .transpose()?;
        Ok(AutoSnapshotter {
            config,
            save: AutoSnapshot::save,
            saver: Mutex::new(saver),
        })
    }

    fn start_saver(&self, config: Arc<AutoSnapshot>, every: Duration) -> io::Result<Service> {
        let cache: Weak<Inner<K, V, S>> = Arc::downgrade(&self.0);
        Service::start(Kind::Saver, every, move || {
            let Some(inner) = cache.upgrade() else { return false };
            // The observer or an `encode` panicked. The hook has reported it, and the next save may
            // succeed.
            _ = catch_unwind(AssertUnwindSafe(|| config.save(&inner)));
            _ = catch_unwind(AssertUnwindSafe(|| drop(inner)));
            true
        })
    }
}
