//! Failed loads that are cached for a short time, so that a failing source is not called by every
//! request (negative caching).
//!
//! [`Failures`] is a small FIFO cache on the same engine as the cache it belongs to: it has a
//! capacity, a TTL, and the same clock. An entry's value is the loader's error, of any type.

use crate::clock::TimeSource;
use crate::engine::{Engine, ExpirySettings, Settings};
use crate::error::BuildError;
use crate::expiry::Ttl;
use crate::policy::PolicyKind;
use std::any::Any;
use std::sync::Arc;

/// An error of any type.
type Failure = Arc<dyn Any + Send + Sync>;

/// The keys whose loads failed within the negative TTL, and their errors.
pub(crate) struct Failures<K>(Engine<K, Failure>);

/// The bounds of the table's capacity, which is an eighth of the cache's in between.
const MIN_KEYS: u64 = 16;
const MAX_KEYS: u64 = 1 << 14;

impl<K: Eq> Failures<K> {
    /// Returns the error of the key's failed load, or `None` if there is none, it has expired, or
    /// it is not an `E`.
    pub(crate) fn get<E: Send + Sync + 'static>(&self, hash: u64, key: &K) -> Option<Arc<E>> {
        let (now, guard) = (self.0.now_and_expire(), self.0.pin());
        let equal = |header| Engine::<K, Failure>::view(header).key == *key;
        let found = self.0.map().get(hash, equal, &guard)?;
        if self.0.is_expired(found, now) {
            return None;
        }
        Engine::<K, Failure>::view(found).value.clone().downcast().ok()
    }

    /// Caches the error of a failed load of `key`.
    pub(crate) fn insert(&self, hash: u64, key: K, error: Failure) {
        let (now, guard) = (self.0.now_and_expire(), self.0.pin());
        let timing = self.0.time().for_insert(hash, (&key, &error), Ttl::Default, None, now);
        let new = self.0.make(hash, (key, error), 1, timing, &guard);
        self.0.insert(hash, new, |a, b| a == b, guard);
    }

    /// Discards the error of the key that `is` accepts, because the key was changed: the failure
    /// of an earlier load does not apply to it.
    pub(crate) fn forget(&self, hash: u64, is: impl Fn(&K) -> bool) {
        _ = self.0.remove(hash, is, |_| true, false, |_| ());
    }

    /// Discards all errors.
    pub(crate) fn clear(&self) {
        self.0.clear();
    }
}

impl<K> Failures<K> {
    /// Returns a table for a cache of this capacity, whose errors expire after `ttl` nanoseconds.
    pub(crate) fn new(capacity: u64, ttl: u64, clock: TimeSource) -> Result<Self, BuildError> {
        if !clock.is_available() {
            return Err(BuildError::NoClock);
        }
        let mut time = ExpirySettings::new(clock);
        time.time_to_live = Some(ttl);
        let engine = Engine::new(Settings {
            policy: PolicyKind::Fifo,
            capacity: (capacity / 8).clamp(MIN_KEYS, MAX_KEYS),
            weighted: false,
            listener: None,
            pointee: None,
            time,
            profile: false,
            autosize: None,
        })?;
        Ok(Self(engine))
    }
}
