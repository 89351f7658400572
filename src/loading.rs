//! Single-flight loads: one caller loads a missing value, concurrent callers for its key wait for
//! that load.
//!
//! A loading call looks its key up, joins the key's load in [`flight`](crate::flight), and either
//! runs the loader, or waits for the caller that does. This module is what both do;
//! [`refresh`](crate::refresh) reloads values before they expire.

mod bulk;
mod entry;
#[cfg(feature = "async")]
mod future;

pub use entry::{Entry, VacantEntry};

use crate::cache::Cache;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Joined, Leader, Outcome, Reentrant};
use crate::key::LoadKey;
use crate::reclaim::Guard;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// A loaded or cached value, and where it comes from. Returned by [`Cache::get_or_load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded<V> {
    /// The value.
    pub value: V,
    /// Where it comes from.
    pub freshness: Freshness,
}

/// Where a value that a loading call returns comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// It was in the cache.
    Cached,
    /// This call loaded it.
    Loaded,
    /// Another caller loaded it while this call waited, or just before it could begin a load.
    Shared,
    /// It was in the cache and due for a reload (see
    /// [`refresh_after`](crate::Builder::refresh_after)), which this call tried and which failed.
    Stale,
}

/// What a lookup before a load found.
pub(crate) enum Found<V> {
    Cached(V),
    /// A value whose reload this caller has claimed.
    Due(V),
    /// Nothing. The guard is that of the lookup.
    Missing(Guard),
}

#[cfg(feature = "async")]
impl<V> Found<V> {
    /// Returns the value, if any, and whether this caller must reload it. Drops the guard.
    fn unpinned(self) -> Option<(V, bool)> {
        match self {
            Self::Cached(value) => Some((value, false)),
            Self::Due(value) => Some((value, true)),
            Self::Missing(_) => None,
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Returns the value for `key`, calling `load` to compute and insert it if it is absent or
    /// expired.
    ///
    /// `key` is passed by value or by reference, see [`LoadKey`]. If `load` panics, the panic
    /// continues in this call, and one of the waiting callers loads in its place. If the key is
    /// inserted, removed or computed during the load, the loaded value is returned and not
    /// inserted.
    ///
    /// # Examples
    ///
    /// ```
    /// let pages = hotset::Cache::<String, String>::new(100);
    /// let page = pages.get_or_insert_with("/index", || "<html>".to_owned());
    /// assert_eq!(pages.get("/index"), Some(page));
    /// ```
    ///
    /// # Panics
    ///
    /// If `key` is requested from inside its own loader.
    /// [`try_get_or_insert_with`](Self::try_get_or_insert_with) returns that as an error.
    ///
    /// # Concurrency
    ///
    /// Concurrent calls for the same key wait for that one load. Calls for other keys are not
    /// blocked. `load` runs without a lock held, and may use the cache.
    pub fn get_or_insert_with<T, F>(&self, key: T, load: impl FnOnce() -> V) -> V
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
    {
        self.get_or_insert_with_ttl(key, || (load(), Ttl::Default))
    }

    /// Returns the value for `key` as [`get_or_insert_with`](Self::get_or_insert_with) does, with a
    /// loader that also returns the value's [`Ttl`].
    ///
    /// # Panics
    ///
    /// If `key` is requested from inside its own loader.
    pub fn get_or_insert_with_ttl<T, F>(&self, key: T, load: impl FnOnce() -> (V, Ttl)) -> V
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
    {
        match self.try_get_or_insert_with_ttl(key, || Ok::<_, Infallible>(load())) {
            Ok(value) => value,
            Err(error) => infallible(error),
        }
    }

    /// Returns the value for `key` as [`get_or_insert_with`](Self::get_or_insert_with) does, with a
    /// loader that may fail.
    ///
    /// # Examples
    ///
    /// ```
    /// let numbers = hotset::Cache::<String, u32>::new(100);
    /// let parse = |text: &str| numbers.try_get_or_insert_with(text, || text.parse::<u32>());
    /// assert_eq!(parse("7").unwrap(), 7);
    /// assert!(parse("seven").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError::Failed`] if `load` returns an error, or another caller's load of the key that
    /// this call waited for does. An error is not cached, unless
    /// [`negative_ttl`](crate::Builder::negative_ttl) is set. Callers that expect another type of
    /// error than that of the failed load do not share it and load themselves.
    /// [`LoadError::Reentrant`] if `key` is requested from inside its own loader.
    pub fn try_get_or_insert_with<T, F, E>(
        &self,
        key: T,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, LoadError<E>>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.try_get_or_insert_with_ttl(key, || Ok((load()?, Ttl::Default)))
    }

    /// Returns the value for `key` as [`try_get_or_insert_with`](Self::try_get_or_insert_with)
    /// does, with a loader that also returns the value's [`Ttl`].
    ///
    /// # Errors
    ///
    /// As [`try_get_or_insert_with`](Self::try_get_or_insert_with).
    pub fn try_get_or_insert_with_ttl<T, F, E>(
        &self,
        key: T,
        load: impl FnOnce() -> Result<(V, Ttl), E>,
    ) -> Result<V, LoadError<E>>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.get_or_load(key, load).map(|loaded| loaded.value)
    }

    /// Returns the value for `key` and where it comes from, calling `load` to compute and insert it
    /// if it is absent or expired.
    ///
    /// The general form of the other loading calls: `load` returns the value and its [`Ttl`], or an
    /// error.
    ///
    /// # Examples
    ///
    /// ```
    /// use hotset::{Cache, Freshness, Ttl};
    /// use std::convert::Infallible;
    ///
    /// let cache = Cache::<String, u32>::new(100);
    /// let load = || cache.get_or_load("tea", || Ok::<_, Infallible>((3, Ttl::Default)));
    /// assert_eq!(load().unwrap().freshness, Freshness::Loaded);
    /// assert_eq!(load().unwrap().freshness, Freshness::Cached);
    /// ```
    ///
    /// # Errors
    ///
    /// As [`try_get_or_insert_with`](Self::try_get_or_insert_with).
    #[inline]
    pub fn get_or_load<T, F, E>(
        &self,
        key: T,
        load: impl FnOnce() -> Result<(V, Ttl), E>,
    ) -> Result<Loaded<V>, LoadError<E>>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let hash = self.0.hash(key.as_borrowed());
        match self.find(hash, key.as_borrowed()) {
            Found::Cached(value) => Ok(Loaded {
                value,
                freshness: Freshness::Cached,
            }),
            Found::Due(old) => Ok(self.reload(hash, key.into_key(), old, load)),
            Found::Missing(guard) => self.load_missing(hash, key.into_key(), guard, load, |key, _| key),
        }
    }

    /// Looks a key up, before a load.
    #[inline(always)]
    pub(crate) fn find<Q>(&self, hash: u64, key: &Q) -> Found<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let engine = &self.0.engine;
        if engine.time().is_active() && engine.hits_only_mark() && engine.time().refresh_after.is_none() {
            let guard = engine.pin();
            match self.0.lookup_fast(key, hash, &guard) {
                // Decided and counted: the first deadline is just being set by another thread.
                Ok(None) => return Found::Missing(guard),
                Ok(Some(entry)) => return Found::Cached(entry.value.clone()),
                Err(found) => {
                    if let Some(entry) = found.and_then(|found| self.0.hit_alive(found, &guard)) {
                        return Found::Cached(entry.value.clone());
                    }
                }
            }
        }
        let now = engine.now_and_expire();
        let guard = engine.pin();
        let Some(entry) = self.0.lookup(key, hash, &guard) else {
            return Found::Missing(guard);
        };
        let value = entry.value.clone();
        match engine.claim_reload(entry, now, &guard) {
            true => Found::Due(value),
            false => Found::Cached(value),
        }
    }

    /// Loads a key that is missing. `stored` returns the key to insert, made from the requested one
    /// and the value.
    #[inline(never)]
    pub(crate) fn load_missing<E>(
        &self,
        hash: u64,
        key: K,
        mut guard: Guard,
        load: impl FnOnce() -> Result<(V, Ttl), E>,
        stored: impl FnOnce(K, &V) -> K,
    ) -> Result<Loaded<V>, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let shared_value = |value| Loaded {
            value,
            freshness: Freshness::Shared,
        };
        self.failed(hash, &key)?;
        loop {
            match self.join(hash, &key, ActorId::this_thread()) {
                Joined::Lead { mut leader, recheck } => {
                    if let Some(value) = self.recheck_map(recheck, hash, &key, guard, &mut leader) {
                        return Ok(shared_value(value));
                    }
                    let loaded = leader.run(load).map_err(Arc::new);
                    let value = self.lead(hash, key, &mut leader, loaded, stored)?;
                    let freshness = Freshness::Loaded;
                    return Ok(Loaded { value, freshness });
                }
                Joined::Wait(flight) => {
                    drop(guard);
                    if let Some(result) = shared(flight.wait()?) {
                        return result.map(shared_value);
                    }
                    guard = self.0.engine.pin();
                }
            }
        }
    }

    /// Returns the remembered error of an earlier load of the key, if there is one of this type.
    #[inline]
    fn failed<E: Send + Sync + 'static>(&self, hash: u64, key: &K) -> Result<(), LoadError<E>> {
        match &self.0.failures {
            None => Ok(()),
            Some(failures) => failures
                .get(hash, key)
                .map_or(Ok(()), |error| Err(LoadError::Failed(error))),
        }
    }

    #[inline]
    fn join(&self, hash: u64, key: &K, actor: ActorId) -> Joined<'_, K, V>
    where
        K: Clone,
    {
        self.0.flights.join(hash, |other| other == key, key.clone(), actor)
    }

    /// Looks a key up again if `recheck` is true: another load of it may have completed since it
    /// was missed. A value that is found completes the new load. A value that was inserted by other
    /// means counts as inserted during this load.
    #[inline]
    fn recheck_map(&self, recheck: bool, hash: u64, key: &K, guard: Guard, leader: &mut Leader<'_, K, V>) -> Option<V>
    where
        V: Clone,
    {
        if !recheck {
            return None;
        }
        let old = self.0.peek_alive(hash, key, self.0.engine.now(), &guard)?;
        let value = Engine::<K, V>::view(old.0).value.clone();
        drop(guard);
        leader.complete(|| Outcome::Loaded(value.clone()));
        Some(value)
    }

    /// Completes a load with the result of its loader: inserts the value, or remembers the failure.
    #[inline]
    pub(crate) fn lead<E>(
        &self,
        hash: u64,
        key: K,
        leader: &mut Leader<'_, K, V>,
        loaded: Result<(V, Ttl), Arc<E>>,
        stored: impl FnOnce(K, &V) -> K,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        match loaded {
            Ok((value, ttl)) => {
                let key = stored(key, &value);
                let weight = self.0.weigh(&key, &value);
                let copy = value.clone();
                let guard = self.0.engine.pin();
                let now = self.0.engine.now_for(ttl);
                let timing = self.0.times(hash, (&key, &value), ttl, now, &guard);
                self.0.begin_load(hash, &key);
                let new = self.0.engine.make(hash, (key, copy), weight, timing, &guard);
                // The load leaves its table when the closure is dropped. That is after the map has
                // decided, so that a caller that misses the load finds the entry. And it is before
                // listeners run, which may load the key if it was not admitted.
                let leaving = leader.leave_on_drop();
                let invalidated = move || leaving.invalidated();
                self.0
                    .engine
                    .insert_absent(hash, new, |a, b| a == b, Some(invalidated), guard);
                leader.complete(|| Outcome::Loaded(value.clone()));
                Ok(value)
            }
            Err(error) => {
                self.0
                    .remember_failure(hash, &key, error.clone(), || leader.invalidated());
                leader.complete(|| Outcome::Failed(error.clone()));
                Err(LoadError::Failed(error))
            }
        }
    }
}

/// Returns the outcome of a load to a caller that waited for it. `None`: the caller must look the
/// key up again.
pub(crate) fn shared<V: Clone, E: Send + Sync + 'static>(
    outcome: Option<&Outcome<V>>,
) -> Option<Result<V, LoadError<E>>> {
    match outcome {
        Some(Outcome::Loaded(value)) => Some(Ok(value.clone())),
        Some(Outcome::Failed(error)) => {
            let error = error.clone().downcast::<E>().ok()?;
            Some(Err(LoadError::Failed(error)))
        }
        Some(Outcome::Abandoned) | None => None,
    }
}

impl<E> From<Reentrant> for LoadError<E> {
    fn from(_: Reentrant) -> Self {
        Self::Reentrant
    }
}

/// Panics with an error of a load whose loader cannot fail.
#[cold]
pub(crate) fn infallible(error: LoadError<Infallible>) -> ! {
    match error {
        LoadError::Failed(never) => match *never {},
        error => panic!("hotset: {error}"),
    }
}
