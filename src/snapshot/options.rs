//! Options of saving and loading, and their results.

use std::fmt;
use std::time::Duration;

/// The progress of a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Entries processed so far.
    pub done: u64,
    /// Entries at the beginning of the save.
    pub total: u64,
}

type Observer = Box<dyn Fn(Progress) + Send + Sync>;

/// Options of [`Cache::save_with`](crate::Cache::save_with).
///
/// # Examples
///
/// ```
/// use hotset::Cache;
/// use hotset::snapshot::{LoadOptions, SaveOptions};
///
/// # fn main() -> Result<(), hotset::snapshot::SnapshotError> {
/// # let path = std::env::temp_dir().join(format!("hotset-options-{}", std::process::id()));
/// let cache: Cache<String, u64> = Cache::new(1000);
/// cache.insert("a".to_owned(), 1);
/// cache.save_with(&path, &SaveOptions::new().schema(2))?;
///
/// let cache: Cache<String, u64> = Cache::new(1000);
/// assert!(cache.load(&path).is_err()); // the file's schema is 2, not 0
/// cache.load_with(&path, &LoadOptions::new().schema(2).eager(true))?;
/// assert_eq!(cache.len(), 1);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct SaveOptions {
    pub(super) schema: u64,
    observer: Option<Observer>,
}

impl SaveOptions {
    /// Returns the defaults: schema 0 and no observer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a number that identifies the types of keys and values. A load must request the same
    /// number. Change it whenever the types, their `Codec` or their meaning changes.
    pub fn schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// Calls `observer` every few hundred kilobytes, and when all is written, just before the file
    /// replaces the previous one. It runs in the saving thread, under no lock, and may use the
    /// cache; if it panics, the save is abandoned, and the previous file stays.
    pub fn progress(mut self, observer: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    pub(super) fn report(&self, done: u64, total: u64) {
        if let Some(observer) = &self.observer {
            observer(Progress { done, total });
        }
    }
}

impl fmt::Debug for SaveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaveOptions")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// Options of [`Cache::load_with`](crate::Cache::load_with). See [`SaveOptions`] for an example.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    pub(super) schema: u64,
    pub(super) eager: bool,
    pub(super) copy: bool,
}

impl LoadOptions {
    /// Returns the defaults: schema 0, a mapped file, entries inserted when they are first looked
    /// up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the [schema](SaveOptions::schema) that the file must have.
    pub fn schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// Checks the whole file and inserts its entries, as far as there is room, before the call
    /// returns. A corrupt record anywhere in the file is an error.
    pub fn eager(mut self, eager: bool) -> Self {
        self.eager = eager;
        self
    }

    /// Reads the file into memory instead of mapping it, and checks all of it. Nothing that other
    /// programs do to the file afterwards affects the cache; [`Cache::load`](crate::Cache::load)
    /// lists what can happen to a mapped file. A corrupt record anywhere in the file is an error.
    /// Entries are still inserted when they are first looked up, unless the load is also
    /// [eager](Self::eager).
    ///
    /// The load takes the time to read the whole file, and memory of the file's size, which is
    /// released when a mapped file would be unmapped. It works on file systems that cannot map
    /// files, too.
    pub fn copy(mut self, copy: bool) -> Self {
        self.copy = copy;
        self
    }
}

/// The result of a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Entries in the file.
    pub entries: u64,
    /// The file's length in bytes.
    pub bytes: u64,
    /// The time the save took.
    pub elapsed: Duration,
    /// Whether the system confirmed that the file's name is on the disk, as its contents are. It
    /// does not where the directory may not be read, where the file system cannot sync directories,
    /// after an I/O error, and on Windows. The file is in place all the same; if the *system*
    /// crashes now, the previous file may be there afterwards.
    pub durable: bool,
}

/// The result of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Entries in the file. Some may not fit into the cache, and some may have expired.
    pub entries: u64,
    /// The file's length in bytes.
    pub bytes: u64,
    /// The time since the save, by the wall clock; 0 if the wall clock was set back.
    pub age: Duration,
}

/// The result of [`Cache::warm`](crate::Cache::warm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmed {
    /// Entries that were inserted.
    pub entries: u64,
    /// Entries whose records are corrupt.
    pub corrupt: u64,
}
