//! Expiration of entries as users set it: [`Expiry`] for each entry, [`Ttl`] for one call.

use std::time::Duration;

/// Computes the expiration of each entry from its key and value; for
/// [`Builder::expiry`](crate::Builder::expiry).
///
/// Each function returns the time from now until the entry expires, or `None` if it never expires.
/// With a time to live or to idle, the earliest deadline applies. `remaining` is the time until
/// that earliest deadline; by default it is returned unchanged.
///
/// # Panics
///
/// If a function panics, the call has no effect.
///
/// # Concurrency
///
/// The functions run in the calls that create, update and read entries, while no lock is held. They
/// may use the cache.
pub trait Expiry<K, V>: Send + Sync {
    /// Returns the expiration of an entry whose key was absent.
    fn after_create(&self, key: &K, value: &V) -> Option<Duration>;

    /// Returns the expiration of an entry that replaces one with `remaining` time left; `value` is
    /// the new value.
    fn after_update(&self, key: &K, value: &V, remaining: Option<Duration>) -> Option<Duration> {
        let _ = (key, value);
        remaining
    }

    /// Returns the expiration of an entry that a lookup found. Called for every hit. A hit that
    /// moves the deadline earlier waits for maintenance that is in progress.
    fn after_read(&self, key: &K, value: &V, remaining: Option<Duration>) -> Option<Duration> {
        let _ = (key, value);
        remaining
    }
}

/// The expiration of one entry, for calls that set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// The cache's settings apply.
    #[default]
    Default,
    /// The entry keeps the deadline of the entry that it replaces. If there is none, the cache's
    /// settings apply.
    Keep,
    /// The entry expires after this time, less the cache's jitter.
    After(Duration),
    /// No TTL: only other settings, such as a time to idle, expire the entry.
    Never,
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}
