//! Values that are loaded when they are missing, by one caller for all that ask.

mod bulk;
#[cfg(feature = "async")]
mod future;

use crate::cache::Cache;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Leader, Outcome, Reentrant, Role};
use crate::reclaim::Guard;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// The key's value; if it is absent, loads and inserts it. While one caller loads, others that ask for the key wait for
    /// it; calls for other keys go on.
    ///
    /// If the loader panics, that caller's panic goes on, and one of the waiting callers loads. If the key is inserted,
    /// removed or computed while it is being loaded, the loaded value is returned but does not enter the cache. The loader
    /// may use the cache.
    ///
    /// # Panics
    /// If the key is asked for from inside its own loader; use
    /// [`try_get_or_insert_with`](Self::try_get_or_insert_with) to get that as an error.
    pub fn get_or_insert_with(&self, key: K, load: impl FnOnce() -> V) -> V
    where
        K: Clone,
        V: Clone,
    {
        self.get_or_insert_with_ttl(key, || (load(), Ttl::Default))
    }

    /// [`get_or_insert_with`](Self::get_or_insert_with) with a loader that also says how long its value lives.
    ///
    /// # Panics
    /// If the key is asked for from inside its own loader.
    pub fn get_or_insert_with_ttl(&self, key: K, load: impl FnOnce() -> (V, Ttl)) -> V
    where
        K: Clone,
        V: Clone,
    {
        match self.try_get_or_insert_with_ttl(key, || Ok::<_, Infallible>(load())) {
            Ok(value) => value,
            Err(error) => infallible(error),
        }
    }

    /// Like [`get_or_insert_with`](Self::get_or_insert_with), for loaders that may fail. An error is not cached; the callers
    /// that waited for the failed load share it, if they expect an error of the same type (others load themselves).
    pub fn try_get_or_insert_with<E>(&self, key: K, load: impl FnOnce() -> Result<V, E>) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.try_get_or_insert_with_ttl(key, || Ok((load()?, Ttl::Default)))
    }

    /// [`try_get_or_insert_with`](Self::try_get_or_insert_with) with a loader that also says how long its value lives.
    pub fn try_get_or_insert_with_ttl<E>(
        &self,
        key: K,
        load: impl FnOnce() -> Result<(V, Ttl), E>,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let now = self.0.engine.now_and_expire();
        let hash = self.0.hash(&key);
        let guard = self.0.engine.pin();
        if let Some(entry) = self.0.lookup(&key, hash, &guard) {
            let value = entry.value.clone();
            if self.0.engine.claim_reload(entry, now, &guard) {
                drop(guard);
                return Ok(self.reload(hash, key, value, load));
            }
            return Ok(value);
        }
        self.load_missing(hash, key, guard, load, |key, _| key)
    }

    /// `stored` makes the key that is kept of the one that was asked for, and of the value.
    #[inline(never)]
    pub(crate) fn load_missing<E>(
        &self,
        hash: u64,
        key: K,
        mut guard: Guard,
        load: impl FnOnce() -> Result<(V, Ttl), E>,
        stored: impl FnOnce(K, &V) -> K,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.failed(hash, &key)?;
        loop {
            match self.join(hash, &key, ActorId::this_thread()) {
                Role::Lead { mut leader, recheck } => {
                    if let Some(value) = self.recheck_map(recheck, hash, &key, guard, &mut leader) {
                        return Ok(value);
                    }
                    let loaded = leader.run(load).map_err(Arc::new);
                    return self.lead(hash, key, &mut leader, loaded, stored);
                }
                Role::Wait(flight) => {
                    drop(guard);
                    if let Some(result) = shared(flight.wait()?) {
                        return result;
                    }
                    guard = self.0.engine.pin();
                }
            }
        }
    }

    /// An error if a load of the key failed lately, and the cache remembers it.
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
    fn join(&self, hash: u64, key: &K, actor: ActorId) -> Role<'_, K, V>
    where
        K: Clone,
    {
        self.0.flights.join(hash, |other| other == key, key.clone(), actor)
    }

    /// What another's load of the key has brought since it was missed, if it is late; that ends the new flight. What was
    /// inserted meanwhile other than by a load counts as inserted during this one. The caller is pinned no more.
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

    /// Ends the flight with what its loader returned.
    #[inline]
    fn lead<E>(
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
                self.0.forget_failure(hash, |failed| *failed == key);
                let new = self.0.engine.make(hash, (key, copy), weight, timing, &guard);
                // The flight leaves its table when the closure is dropped: after the map has decided, so that whoever misses
                // the flight finds the entry, and before listeners run, which may load the key if it was not admitted.
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

/// What a flight's outcome is to one who waited for it; if nothing, it must look again.
fn shared<V: Clone, E: Send + Sync + 'static>(outcome: Option<&Outcome<V>>) -> Option<Result<V, LoadError<E>>> {
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

/// Panics because of what went wrong around a loader that cannot fail.
#[cold]
pub(crate) fn infallible(error: LoadError<Infallible>) -> ! {
    match error {
        LoadError::Failed(never) => match *never {},
        LoadError::Reentrant => panic!("hotset: the key was requested from inside its own loader"),
        LoadError::WrongLength { asked, returned } => {
            panic!("hotset: the loader returned {returned} values, expected {asked}")
        }
    }
}
