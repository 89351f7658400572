//! How a cache is described before it is built.

use crate::cache::Cache;
use crate::engine::{Listener, Settings};
use crate::error::BuildError;
use crate::policy::PolicyKind;
use crate::stats::Cause;
use std::fmt;

/// The default hasher: foldhash, seeded anew for every process and cache.
pub type DefaultHasher = foldhash::fast::RandomState;

/// Says what an entry weighs.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// Describes a [`Cache`]; made by [`Cache::builder`].
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder<K, V, S = DefaultHasher> {
    pub(crate) max_entries: Option<usize>,
    pub(crate) max_weight: Option<u64>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) policy: PolicyKind,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) hasher: S,
}

impl<K, V> Builder<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            max_entries: None,
            max_weight: None,
            weigher: None,
            policy: PolicyKind::default(),
            listener: None,
            hasher: DefaultHasher::default(),
        }
    }
}

impl<K, V, S> Builder<K, V, S> {
    /// Holds at most so many entries. 0 makes a cache that keeps nothing; `usize::MAX` one without a bound.
    ///
    /// From 1,024 to 2^26 entries the table is sized for this number up front (about 18 bytes each; the operating system
    /// provides memory when it is first used); else it grows as it fills.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// Holds entries up to this total weight, in whatever unit the [`weigher`](Self::weigher) counts. 0 keeps only what
    /// weighs nothing; `u64::MAX` is no bound.
    pub fn max_weight(mut self, weight: u64) -> Self {
        self.max_weight = Some(weight);
        self
    }

    /// Says what an entry weighs. Called once for every entry, when it is inserted, by the inserting thread, under no
    /// lock; if it panics, nothing is inserted. A weight may be 0. An entry heavier than the whole capacity is not kept.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// Which entries make room for others; W-TinyLFU unless set.
    pub fn policy(mut self, policy: PolicyKind) -> Self {
        self.policy = policy;
        self
    }

    /// Calls `listener` once for every entry that leaves the cache, with the cause.
    ///
    /// The thread that unlinked the entry calls it, under no lock, before its own call returns; the listener may use the
    /// cache. The entry can no longer be found by then. If the listener panics, the cache finishes its work, and
    /// then the panic goes on in that call. Entries still in a cache that is dropped are not reported.
    /// A listener that holds a handle to its own cache keeps that cache alive for ever.
    pub fn on_removal(mut self, listener: impl Fn(&K, &V, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Hashes keys with `hasher` instead of [`DefaultHasher`]. A hasher without a random seed lets whoever chooses the keys
    /// send many of them to one place; keys beyond the 190 or so that fit there then evict each other.
    pub fn hasher<T>(self, hasher: T) -> Builder<K, V, T> {
        Builder {
            max_entries: self.max_entries,
            max_weight: self.max_weight,
            weigher: self.weigher,
            policy: self.policy,
            listener: self.listener,
            hasher,
        }
    }

    /// Builds the cache, or says which settings do not go together.
    pub fn build(self) -> Result<Cache<K, V, S>, BuildError> {
        let capacity = match (self.max_entries, self.max_weight) {
            (None, None) if self.weigher.is_some() => return Err(BuildError::NoMaxWeight),
            (None, None) => return Err(BuildError::NoCapacity),
            (Some(_), Some(_)) => return Err(BuildError::TwoCapacities),
            (Some(_), None) if self.weigher.is_some() => return Err(BuildError::NoMaxWeight),
            (None, Some(_)) if self.weigher.is_none() => return Err(BuildError::NoWeigher),
            (Some(entries), None) => u64::try_from(entries).unwrap_or(u64::MAX),
            (None, Some(weight)) => weight,
        };
        let settings = Settings {
            policy: self.policy,
            capacity,
            weighted: self.weigher.is_some(),
            listener: self.listener,
        };
        Ok(Cache::from_parts(settings, self.weigher, self.hasher))
    }
}

impl<K, V, S> fmt::Debug for Builder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_entries", &self.max_entries)
            .field("max_weight", &self.max_weight)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
