//! The types of settings that both the builder and the cache hold.

/// The default hasher: foldhash, with a random seed for each process and cache.
pub type DefaultHasher = foldhash::fast::RandomState;

/// Returns the weight of an entry.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// A reload, to be run on a thread of the user's choice. Passed to the function set by
/// [`Builder::refresh_executor`](crate::Builder::refresh_executor).
///
/// Call it once. If it is dropped instead, the value is due again after a quarter of the refresh
/// age.
pub type RefreshTask = Box<dyn FnOnce() + Send>;

/// Runs a task where the user wants it to run.
pub(crate) type Runner = Box<dyn Fn(RefreshTask) + Send + Sync>;
