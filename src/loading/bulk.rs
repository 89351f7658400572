//! Loads of many keys in one call.

use super::{infallible, shared};
use crate::cache::Cache;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Joined};
use hashbrown::HashTable;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// The values of many keys, in their order; those that are absent are loaded, all in one call of `load`, and inserted.
    ///
    /// `load` gets each key once that is neither in the cache nor being loaded by another caller, and returns the values in
    /// the same order. It is not called if there is none. When its values are in the cache, this waits for the loads
    /// of others, so that callers whose keys overlap never wait for each other in a ring. `load` is called again only if
    /// one of those brought nothing: it panicked, was dropped, failed, or was overtaken by an insertion or a removal.
    ///
    /// What is said of [`get_or_insert_with`](Self::get_or_insert_with) holds for each key: others that ask for it wait
    /// for this load, which an insertion or a removal beats. The statistics count one load per call of `load`. A value that
    /// is due for a reload is returned as it is.
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// cache.insert(2, 20);
    /// let values = cache.get_many_or_insert_with([1, 2, 3, 1], |missing| {
    ///     assert_eq!(missing, [1, 3]);
    ///     missing.iter().map(|key| key * 10).collect()
    /// });
    /// assert_eq!(values, [10, 20, 30, 10]);
    /// ```
    ///
    /// # Panics
    /// If `load` returns another number of values than it was asked for, or if a key is asked for from inside its own loader.
    pub fn get_many_or_insert_with(
        &self,
        keys: impl IntoIterator<Item = K>,
        mut load: impl FnMut(&[K]) -> Vec<V>,
    ) -> Vec<V>
    where
        K: Clone,
        V: Clone,
    {
        let values = self.try_get_many_or_insert_with(keys, |missing| Ok::<_, Infallible>(load(missing)));
        values.unwrap_or_else(|error| infallible(error))
    }

    /// Like [`get_many_or_insert_with`](Self::get_many_or_insert_with), for loaders that may fail: the error is that of all
    /// keys that were to be loaded, and reaches all who wait for them. It is also returned if the load of another caller
    /// fails that this one waited for; what was loaded here is in the cache all the same.
    pub fn try_get_many_or_insert_with<E>(
        &self,
        keys: impl IntoIterator<Item = K>,
        mut load: impl FnMut(&[K]) -> Result<Vec<V>, E>,
    ) -> Result<Vec<V>, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        self.0.engine.now_and_expire();
        let keys: Vec<K> = keys.into_iter().collect();
        let found = self.get_many(&keys);
        let (mut missing, places) = self.missing(keys, &found);
        let mut loaded = vec![None; missing.len()];
        while !missing.is_empty() {
            missing = self.load_round(missing, &mut loaded, &mut load)?;
        }
        let value = |(found, place): (Option<V>, Option<usize>)| found.or_else(|| loaded[place?].clone());
        let values = found
            .into_iter()
            .zip(places)
            .map(|both| value(both).expect("it was found or loaded"));
        Ok(values.collect())
    }

    /// The keys that were not found, each once, and for each key of all where it is among those.
    fn missing(&self, keys: Vec<K>, found: &[Option<V>]) -> (Vec<Missing<K>>, Vec<Option<usize>>) {
        let mut missing: Vec<Missing<K>> = Vec::new();
        let mut by_hash = HashTable::new();
        let place = |(key, found): (K, &Option<V>)| {
            if found.is_some() {
                return None;
            }
            let hash = self.0.hash(&key);
            let same = by_hash.find(hash, |at: &usize| missing[*at].key == key).copied();
            Some(same.unwrap_or_else(|| {
                let place = missing.len();
                missing.push(Missing { place, hash, key });
                by_hash.insert_unique(hash, place, |at| missing[*at].hash);
                place
            }))
        };
        let places = keys.into_iter().zip(found).map(place).collect();
        (missing, places)
    }

    /// Loads what nobody else loads, lands it, and only then waits for the others. Returns what is still missing.
    fn load_round<E>(
        &self,
        missing: Vec<Missing<K>>,
        loaded: &mut [Option<V>],
        load: &mut impl FnMut(&[K]) -> Result<Vec<V>, E>,
    ) -> Result<Vec<Missing<K>>, LoadError<E>>
    where
        K: Clone,
        V: Clone,
        E: Send + Sync + 'static,
    {
        let (mut asked, mut led, mut flights) = (Vec::new(), Vec::new(), Vec::new());
        for one in &missing {
            self.failed(one.hash, &one.key)?;
        }
        for one in missing {
            match self.join(one.hash, &one.key, ActorId::this_thread()) {
                // It may be late whatever is said: this thread itself has ended flights since the miss.
                Joined::Lead { mut leader, .. } => {
                    loaded[one.place] = self.recheck_map(true, one.hash, &one.key, self.0.engine.pin(), &mut leader);
                    if loaded[one.place].is_none() {
                        asked.push(one.key);
                        led.push((one.place, one.hash, leader));
                    }
                }
                Joined::Wait(flight) => flights.push((one, flight)),
            }
        }
        if let Some((_, _, first)) = led.first_mut() {
            let values = first.run(|| match load(&asked) {
                Ok(values) if values.len() != asked.len() => Err(LoadError::WrongLength {
                    asked: asked.len(),
                    returned: values.len(),
                }),
                loaded => loaded.map_err(|error| LoadError::Failed(Arc::new(error))),
            });
            let mut values = match values {
                Ok(values) => Ok(values.into_iter()),
                Err(LoadError::Failed(error)) => Err(error),
                Err(other) => return Err(other), // the flights are abandoned
            };
            for ((place, hash, mut leader), key) in led.into_iter().zip(asked) {
                let value = match &mut values {
                    Ok(values) => Ok((values.next().expect("they were counted"), Ttl::Default)),
                    Err(error) => Err(error.clone()),
                };
                loaded[place] = self.lead(hash, key, &mut leader, value, |key, _| key).ok();
            }
            if let Err(error) = values {
                return Err(LoadError::Failed(error));
            }
        }
        let mut missing = Vec::new();
        for (one, flight) in flights {
            match shared(flight.wait()?) {
                Some(value) => loaded[one.place] = Some(value?),
                None => missing.push(one),
            }
        }
        Ok(missing)
    }
}

/// A key that was not found.
struct Missing<K> {
    /// Where its value is kept.
    place: usize,
    hash: u64,
    key: K,
}
