//! What can be asked of saving and loading, and what they tell.

use std::fmt;
use std::time::Duration;

/// How far a save has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Entries that are done with.
    pub done: u64,
    /// Entries there were at the beginning.
    pub total: u64,
}

type Observer = Box<dyn Fn(Progress) + Send + Sync>;

/// How to save; for [`Cache::save_with`](crate::Cache::save_with).
#[derive(Default)]
pub struct SaveOptions {
    pub(super) schema: u64,
    observer: Option<Observer>,
}

impl SaveOptions {
    /// Schema 0, and nobody watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number of your own for the types of keys and values: only who asks for the same can load the file. To be changed
    /// whenever they, their `Codec` or what they mean changes.
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

/// How to load; for [`Cache::load_with`](crate::Cache::load_with).
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

    /// The [schema](SaveOptions::schema) that the file must have.
    pub fn schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// Checks the whole file, and brings everything in before the call returns. Anything damaged anywhere is an error then.
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

/// What was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Entries in the file.
    pub entries: u64,
    /// The file's length.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether the system confirmed that the file's name is on the disk, as its contents are. It
    /// does not where the directory may not be read, where the file system cannot sync directories,
    /// after an I/O error, and on Windows. The file is in place all the same; if the *system*
    /// crashes now, the previous file may be there afterwards.
    pub durable: bool,
}

/// What was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Entries in the file. Not all may fit into the cache, and some may have ended.
    pub entries: u64,
    /// The file's length.
    pub bytes: u64,
    /// The time since it was saved, by the wall clock; 0 if that went back.
    pub age: Duration,
}

/// What [`Cache::warm`](crate::Cache::warm) brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmed {
    /// Entries that came in.
    pub entries: u64,
    /// Entries whose records are damaged.
    pub corrupt: u64,
}
