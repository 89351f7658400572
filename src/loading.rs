//! Values that are loaded when they are missing, by one caller for all that ask.

use crate::cache::Cache;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{Leader, Outcome, Reentrant, Role};
use crate::map::reclaim::{Guard, pin};
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
            Err(LoadError::Failed(never)) => match *never {},
            Err(LoadError::Reentrant) => panic!("hotset: the key was asked for from inside its own loader"),
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
        let now = self.0.engine.now_and_tick();
        let hash = self.0.hash(&key);
        let guard = pin();
        if let Some(entry) = self.0.lookup(&key, hash, &guard) {
            let value = entry.value.clone();
            if self.0.engine.claim_reload(entry, now, &guard) {
                drop(guard);
                return Ok(self.reload(hash, key, value, load));
            }
            return Ok(value);
        }
        self.load(hash, key, guard, load)
    }

    #[inline(never)]
    pub(crate) fn load<E>(
        &self,
        hash: u64,
        key: K,
        mut guard: Guard,
        load: impl FnOnce() -> Result<(V, Ttl), E>,
    ) -> Result<V, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        if let Some(error) = self.0.failures.as_ref().and_then(|failures| failures.get(hash, &key)) {
            return Err(LoadError::Failed(error));
        }
        loop {
            match self.0.flights.join(hash, |other| *other == key, key.clone()) {
                Role::Lead { mut leader, late } => {
                    // What was inserted since the miss, other than by a load, counts as inserted during this one.
                    if late && let Some(old) = self.0.peek_alive(hash, &key, self.0.engine.now(), &guard) {
                        let value = Engine::<K, V>::view(old.0).value.clone();
                        drop(guard);
                        leader.land(|| Outcome::Loaded(value.clone()));
                        return Ok(value);
                    }
                    drop(guard);
                    return self.lead(hash, key, &mut leader, load);
                }
                Role::Wait(flight) => {
                    drop(guard);
                    match flight.wait() {
                        Err(Reentrant) => return Err(LoadError::Reentrant),
                        Ok(Some(Outcome::Loaded(value))) => return Ok(value.clone()),
                        Ok(Some(Outcome::Failed(error))) => {
                            if let Ok(error) = error.clone().downcast::<E>() {
                                return Err(LoadError::Failed(error));
                            }
                        }
                        Ok(Some(Outcome::Abandoned) | None) => {}
                    }
                    guard = pin();
                }
            }
        }
    }

    #[inline]
    fn lead<E>(
        &self,
        hash: u64,
        key: K,
        leader: &mut Leader<'_, K, V>,
        load: impl FnOnce() -> Result<(V, Ttl), E>,
    ) -> Result<V, LoadError<E>>
    where
        V: Clone,
        E: Send + Sync + 'static,
    {
        match leader.run(load) {
            Ok((value, ttl)) => {
                let weight = self.0.weigh(&key, &value);
                let copy = value.clone();
                let guard = pin();
                let now = self.0.engine.now_for(ttl);
                let timing = self.0.times(hash, (&key, &value), ttl, now, &guard);
                let new = self.0.engine.make(hash, (key, copy), weight, timing, &guard);
                // The flight leaves its table when the closure is dropped: after the map has decided, so that whoever misses
                // the flight finds the entry, and before listeners run, which may load the key if it was not admitted.
                let leaving = leader.leaving();
                let superseded = move || leaving.superseded();
                self.0.engine.insert_absent(hash, new, |a, b| a == b, superseded, guard);
                leader.land(|| Outcome::Loaded(value.clone()));
                Ok(value)
            }
            Err(error) => {
                let error = Arc::new(error);
                if let Some(failures) = &self.0.failures
                    && !leader.superseded()
                {
                    failures.insert(hash, key, error.clone());
                }
                leader.land(|| Outcome::Failed(error.clone()));
                Err(LoadError::Failed(error))
            }
        }
    }
}
