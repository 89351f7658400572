//! How long entries live.

use std::time::Duration;

/// How long each entry lives, by its key and value; for [`Builder::expiry`](crate::Builder::expiry).
///
/// Each function returns the time from now on after which the entry ends, or `None` for no end. Together with a time to
/// live or to idle, the earliest end counts. What is passed as `remaining` is the time that the entry has left by all of
/// them together, and by default is returned as it is.
///
/// The functions run in the calls that create, update and read entries, under no lock; they may use the cache. If one
/// panics, the call has no effect.
pub trait Expiry<K, V>: Send + Sync {
    /// The key was absent.
    fn after_create(&self, key: &K, value: &V) -> Option<Duration>;

    /// The key had an entry with `remaining` left when the call began; `value` is the new value.
    fn after_update(&self, key: &K, value: &V, remaining: Option<Duration>) -> Option<Duration> {
        let _ = (key, value);
        remaining
    }

    /// The entry was found by a lookup. Called for every hit. If this brings the end nearer, the lookup waits for
    /// housekeeping that is going on.
    fn after_read(&self, key: &K, value: &V, remaining: Option<Duration>) -> Option<Duration> {
        let _ = (key, value);
        remaining
    }
}

/// How long one entry lives, for the calls that say so themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// As the cache's settings say.
    #[default]
    Default,
    /// As long as the entry that it replaces; as the cache's settings say if there is none.
    Keep,
    /// So long from now on, less the cache's jitter.
    After(Duration),
    /// Until something else than a time to live ends it.
    Never,
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}
