//! Failed loads that are remembered for a short time, so that a source that is down is not asked by everyone (negative
//! caching).

use crate::clock::TimeSource;
use crate::engine::{Engine, ExpirySettings, Settings};
use crate::error::BuildError;
use crate::expiry::Ttl;
use crate::policy::PolicyKind;
use std::any::Any;
use std::sync::Arc;

/// An error of whatever type.
type Failure = Arc<dyn Any + Send + Sync>;

/// The keys whose loads failed lately: a small cache of its own, on the same engine.
pub(crate) struct Failures<K>(Engine<K, Failure>);

/// How many keys are remembered, at least and at most.
const LEAST: u64 = 16;
const MOST: u64 = 1 << 14;

impl<K: Eq> Failures<K> {
    /// Looks the key's failure up, if it is an error of this type and not too old.
    pub(crate) fn get<E: Send + Sync + 'static>(&self, hash: u64, key: &K) -> Option<Arc<E>> {
        let (now, guard) = (self.0.now_and_expire(), self.0.pin());
        let equal = |header| Engine::<K, Failure>::view(header).key == *key;
        let found = self.0.map().get(hash, equal, &guard)?;
        if self.0.is_expired(found, now) {
            return None;
        }
        Engine::<K, Failure>::view(found).value.clone().downcast().ok()
    }

    pub(crate) fn insert(&self, hash: u64, key: K, error: Failure) {
        let (now, guard) = (self.0.now_and_expire(), self.0.pin());
        let timing = self.0.time().for_insert(hash, (&key, &error), Ttl::Default, None, now);
        let new = self.0.make(hash, (key, error), 1, timing, &guard);
        self.0.insert(hash, new, |a, b| a == b, guard);
    }

    /// The key was changed by other means: what failed before says nothing about it.
    pub(crate) fn forget(&self, hash: u64, is: impl Fn(&K) -> bool) {
        _ = self.0.remove(hash, is, |_| true, false, |_| ());
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }
}

impl<K> Failures<K> {
    /// Remembers failures of a cache of this capacity for so many nanoseconds.
    pub(crate) fn new(capacity: u64, ttl: u64, clock: TimeSource) -> Result<Self, BuildError> {
        if !clock.is_available() {
            return Err(BuildError::NoClock);
        }
        let mut time = ExpirySettings::new(clock);
        time.time_to_live = Some(ttl);
        let engine = Engine::new(Settings {
            policy: PolicyKind::Fifo,
            capacity: (capacity / 8).clamp(LEAST, MOST),
            weighted: false,
            listener: None,
            time,
        })?;
        Ok(Self(engine))
    }
}
