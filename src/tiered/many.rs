//! Calls with many keys: those of the same server share a packet.

use super::calls::{Loaded, Loading, NoValue, Removing, Writing, is_loading, is_no_value, needs_permit, ttl_nanos};
use super::clock::now;
use super::keys::{Name, TierKey};
use super::steps::{self, Steps};
use super::{Start, Tiered};
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::ActorId;
use crate::loading::shared;
use crate::tier2::Action;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Keys of a call, by their names.
struct Keys<'k, K: ?Sized> {
    keys: Vec<&'k K>,
    names: Vec<(Name, Option<Vec<u8>>)>,
    /// For each key the place of the first equal one.
    firsts: Vec<usize>,
}

/// A loader of many keys: it returns their values in their order.
type LoadMany<'l, 'k, K, V, E> = &'l mut dyn FnMut(&[&'k K]) -> Result<Vec<V>, E>;

/// # Many keys
///
/// Each takes about as many requests to the server as the call with one key; the commands for one
/// server are sent in one packet. Keys may repeat.
impl<K: TierKey + ?Sized, V: Clone + Send + Sync + 'static> Tiered<K, V> {
    /// Returns the values of `keys`, in their order.
    ///
    /// # Examples
    /// ```no_run
    /// # #[cfg(feature = "redis")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use hotset::tiered::{Bytes, Redis, Tiered};
    /// # let redis = Redis::open("redis://localhost:6379/0")?;
    /// # let prices: Tiered<str, String> = Tiered::builder("shop", "prices", redis, Bytes).max_entries(9).build()?;
    /// let found: Vec<Option<String>> = prices.get_many(&["tea", "coffee"]);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "redis"))]
    /// # fn main() {}
    /// ```
    pub fn get_many(&self, keys: &[&K]) -> Vec<Option<V>> {
        let found = self.find_many::<NoValue>(keys, None);
        found.unwrap_or_else(|_| vec![None; keys.len()])
    }

    /// Returns the values of `keys`, in their order. `load` is called with those that are in
    /// neither tier and that no other caller over all processes loads, and returns their values in
    /// the same order. The call then waits for the loads of other callers; `load` is called again
    /// if one of those returned no value.
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the error of `load`, which is the outcome of all keys it was
    /// called with, or that of another caller's load; [`LoadError::WrongLength`] if `load` returns
    /// another number of values; [`LoadError::Reentrant`] if a key is requested inside its loader.
    ///
    /// # Panics
    /// If `load` or the codec panics.
    pub fn get_or_load_many<'k, E: Send + Sync + 'static>(
        &self,
        keys: &[&'k K],
        mut load: impl FnMut(&[&'k K]) -> Result<Vec<V>, E>,
    ) -> Result<Vec<V>, LoadError<E>> {
        let found = self.find_many(keys, Some(&mut load))?;
        let values = found.into_iter().map(|value| value.expect("it was found or loaded"));
        Ok(values.collect())
    }

    /// Sets values on the server, then in tier 1, as [`set`](Self::set) does. Returns whether the
    /// server confirmed all of them.
    pub fn set_many(&self, entries: &[(&K, V)]) -> bool {
        let inner = &*self.0;
        if !inner.session.is_own() {
            return false;
        }
        let mut confirmed = true;
        let names: Vec<_> = entries.iter().map(|(key, _)| self.name_of(key)).collect();
        let mut all = Vec::with_capacity(entries.len());
        let mut values = Vec::with_capacity(entries.len());
        for ((name, full_key), (key, value)) in names.iter().zip(entries) {
            let shared = self.shared(name, full_key.as_deref());
            let (payload, whole) = shared.encode(value);
            if !whole {
                confirmed &= self.set(key, value.clone());
                continue;
            }
            let ttl = ttl_nanos(Ttl::Default);
            let operation = inner
                .namespace
                .write(name.as_bytes(), self.server_of(name), now(), ttl, &[]);
            let marks = self.marks(name, ActorId::this_thread());
            all.push(Steps::new(operation, Writing { shared, marks, payload }));
            values.push(value);
        }
        let ends = steps::run_all(&inner.session, &mut all, |_, _, _| {});
        for ((steps, end), value) in all.into_iter().zip(ends).zip(values) {
            let (call, operation) = steps.into_parts();
            confirmed &= call.end(end, &operation, value);
        }
        confirmed
    }

    /// Removes `keys` from both tiers, in all processes. Returns whether the server confirmed all
    /// of them; the others are removed once it answers.
    pub fn remove_many(&self, keys: &[&K]) -> bool {
        let inner = &*self.0;
        if !inner.session.is_own() {
            return false;
        }
        let names: Vec<_> = keys.iter().map(|key| self.name_of(key).0).collect();
        let begin = |name| {
            let operation = inner
                .namespace
                .remove(Name::as_bytes(name), self.server_of(name), now());
            let call = Removing {
                cache: &inner.cache,
                name: Some(name),
            };
            Steps::new(operation, call)
        };
        let mut all: Vec<_> = names.iter().map(begin).collect();
        let ends = steps::run_all(&inner.session, &mut all, |_, _, _| {});
        names
            .iter()
            .for_each(|name| inner.session.waiters.wake(name.as_bytes()));
        ends.iter().all(|end| *end == Action::Done)
    }

    fn keys_of<'k>(&self, keys: &[&'k K]) -> Keys<'k, K> {
        let names: Vec<_> = keys.iter().map(|key| self.name_of(key)).collect();
        let mut by_name = HashMap::with_capacity(keys.len());
        let firsts = names.iter().enumerate();
        let firsts = firsts
            .map(|(at, (name, _))| *by_name.entry(name.clone()).or_insert(at))
            .collect();
        Keys {
            keys: keys.to_vec(),
            names,
            firsts,
        }
    }

    fn find_many<'k, E: Send + Sync + 'static>(
        &self,
        keys: &[&'k K],
        mut load: Option<LoadMany<'_, 'k, K, V, E>>,
    ) -> Result<Vec<Option<V>>, LoadError<E>> {
        let keys = self.keys_of(keys);
        let mut values: Vec<Option<V>> = vec![None; keys.keys.len()];
        let mut missing = Vec::new();
        for (at, (name, _)) in keys.names.iter().enumerate() {
            if keys.firsts[at] == at {
                values[at] = self.hit(name.as_bytes());
                if values[at].is_none() {
                    missing.push(at);
                }
            }
        }
        let has_loader = load.is_some();
        if !missing.is_empty() && !self.0.session.is_own() {
            return self.load_in_child(&keys, values, &missing, load);
        }
        if has_loader && missing.iter().any(|&at| is_loading(&self.0.session, &keys.names[at].0)) {
            return Err(LoadError::Reentrant);
        }
        while !missing.is_empty() {
            missing = self.find_round(&keys, missing, &mut values, &mut load)?;
        }
        let value = |&first: &usize| values[first].clone();
        Ok(keys.firsts.iter().map(value).collect())
    }

    /// Loads in the child of a fork, for which there is no server.
    fn load_in_child<'k, E>(
        &self,
        keys: &Keys<'k, K>,
        mut values: Vec<Option<V>>,
        missing: &[usize],
        load: Option<LoadMany<'_, 'k, K, V, E>>,
    ) -> Result<Vec<Option<V>>, LoadError<E>> {
        if let Some(load) = load {
            let asked: Vec<_> = missing.iter().map(|&at| keys.keys[at]).collect();
            let loaded = load(&asked).map_err(|error| LoadError::Failed(Arc::new(error)))?;
            if loaded.len() != asked.len() {
                return Err(wrong_length(asked.len(), loaded.len()));
            }
            for (&at, value) in missing.iter().zip(loaded) {
                values[at] = Some(value);
            }
        }
        Ok(keys.firsts.iter().map(|&first| values[first].clone()).collect())
    }

    /// Reads the keys that no other caller of this process reads, loads what they lack, and only
    /// then waits for the other callers. Returns the keys that are still missing.
    fn find_round<'k, E: Send + Sync + 'static>(
        &self,
        keys: &Keys<'k, K>,
        missing: Vec<usize>,
        values: &mut [Option<V>],
        load: &mut Option<LoadMany<'_, 'k, K, V, E>>,
    ) -> Result<Vec<usize>, LoadError<E>> {
        let inner = &*self.0;
        let has_loader = load.is_some();
        let mut led = Vec::new();
        let mut flights = Vec::new();
        for at in missing {
            match self.start(&keys.names[at].0, ActorId::this_thread()) {
                Start::Value(value) => values[at] = Some(value),
                Start::Lead(leader) => led.push((at, leader)),
                Start::Wait(flight) => flights.push((at, flight)),
            }
        }
        let (mut places, mut all) = (Vec::new(), Vec::new());
        for (at, leader) in led {
            let (name, full_key) = &keys.names[at];
            let actor = ActorId::this_thread();
            all.push(self.reading::<E>(name, full_key.as_deref(), actor, leader, has_loader, &[]));
            places.push(at);
        }
        let mut wrong = None;
        let ends = steps::run_all(&inner.session, &mut all, |all, needing, is_limited| {
            let asked: Vec<_> = needing.iter().map(|&at| keys.keys[places[at]]).collect();
            let loaded = load.as_mut().map(|load| {
                let _permit = (is_limited && needs_permit(&inner.session)).then(|| inner.session.loads.begin());
                let name = |&at: &usize| &keys.names[places[at]].0;
                let _loading: Vec<_> = needing
                    .iter()
                    .map(|at| Loading::new(&inner.session, name(at), is_limited))
                    .collect();
                catch_unwind(AssertUnwindSafe(|| load(&asked)))
            });
            let mut loaded: Vec<Loaded<V, E>> = match loaded {
                Some(Ok(Ok(loaded))) if loaded.len() == asked.len() => {
                    loaded.into_iter().map(|value| Ok(Ok((value, Ttl::Default)))).collect()
                }
                Some(Ok(Ok(loaded))) => {
                    wrong = Some((asked.len(), loaded.len()));
                    Vec::new()
                }
                Some(Ok(Err(error))) => {
                    let error = Arc::new(error);
                    asked.iter().map(|_| Ok(Err(error.clone()))).collect()
                }
                // The first key continues it.
                Some(Err(panic)) => vec![Err(panic)],
                None => Vec::new(),
            };
            loaded.reverse();
            for &at in needing {
                let steps = &mut all[at];
                let end = match loaded.pop() {
                    Some(loaded) => steps.call.loaded(loaded),
                    None => steps.call.gave_up(),
                };
                steps.loaded(end);
            }
        });
        let mut error = None;
        let mut panic = None;
        for ((steps, end), at) in all.into_iter().zip(ends).zip(places) {
            let (mut call, operation) = steps.into_parts();
            panic = panic.or(call.take_panic());
            match call.end(end, &operation) {
                Ok(value) => values[at] = value,
                Err(failed) => error = error.or(Some(failed)),
            }
        }
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
        if let Some((keys, values)) = wrong {
            return Err(wrong_length(keys, values));
        }
        if let Some(error) = error {
            return Err(LoadError::Failed(error));
        }
        let mut again = Vec::new();
        for (at, flight) in flights {
            let outcome = match flight.wait() {
                Ok(outcome) => outcome,
                // Inside the key's own loader there is no value.
                Err(_) if load.is_none() => continue,
                Err(reentrant) => return Err(reentrant.into()),
            };
            if load.is_none() && is_no_value(outcome) {
                continue;
            }
            match shared::<V, E>(outcome) {
                Some(value) => values[at] = Some(value?),
                None => {
                    values[at] = self.hit(keys.names[at].0.as_bytes());
                    if values[at].is_none() {
                        again.push(at);
                    }
                }
            }
        }
        Ok(again)
    }
}

fn wrong_length<E>(asked: usize, returned: usize) -> LoadError<E> {
    LoadError::WrongLength { asked, returned }
}
