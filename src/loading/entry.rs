//! The entry of a key: its value, or a placeholder that the caller fills.

use super::{Found, infallible, shared};
use crate::cache::Cache;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight::{ActorId, Joined, Leader};
use crate::key::LoadKey;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;

/// The entry of a key, occupied or vacant. Created by [`Cache::entry`].
pub enum Entry<'c, K, V, S> {
    /// The key is present: a clone of its value.
    Occupied(V),
    /// The key is absent, and this caller loads it.
    Vacant(VacantEntry<'c, K, V, S>),
}

/// A placeholder for the value of a key that this caller loads. Created by [`Cache::entry`].
///
/// While it lives, callers that load the same key wait for it. [`insert`](Self::insert) hands them its value. Dropping it
/// abandons the load, and one of the waiting callers loads in its place. It is not `Send`: the thread that holds it is the one
/// that loads, for the detection of deadlocks.
pub struct VacantEntry<'c, K, V, S> {
    cache: &'c Cache<K, V, S>,
    hash: u64,
    key: K,
    leader: Leader<'c, K, V>,
    not_send: PhantomData<*const ()>,
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Returns the entry of `key`: its value, or a placeholder to fill.
    ///
    /// For loads that do not fit into a closure. `key` is passed by value or by reference, see [`LoadKey`]. Counts as a hit or a
    /// miss. A value that is due for a reload counts as present. A remembered failure is not returned: the caller may load.
    ///
    /// # Errors
    /// [`LoadError::Reentrant`] if this thread holds a placeholder for `key`, or is inside a loader of it.
    ///
    /// # Concurrency
    /// Waits for another caller's load of the key.
    ///
    /// # Examples
    ///
    /// ```
    /// use hotset::{Cache, Entry};
    ///
    /// let sizes = Cache::<String, u64>::new(100);
    /// let size_of = |path: &str| -> std::io::Result<u64> {
    ///     Ok(match sizes.entry(path).expect("not inside its own load") {
    ///         Entry::Occupied(size) => size,
    ///         Entry::Vacant(vacant) => vacant.insert(std::fs::metadata(path)?.len()),
    ///     })
    /// };
    /// # let path = std::env::current_exe().unwrap();
    /// # let path = path.to_str().unwrap();
    /// assert_eq!(size_of(path)?, size_of(path)?);
    /// assert!(size_of("/does/not/exist").is_err());
    /// # Ok::<_, std::io::Error>(())
    /// ```
    pub fn entry<T, F>(&self, key: T) -> Result<Entry<'_, K, V, S>, LoadError<Infallible>>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
    {
        let hash = self.0.hash(key.as_borrowed());
        let mut guard = match self.find(hash, key.as_borrowed()) {
            Found::Cached(value) => return Ok(Entry::Occupied(value)),
            Found::Due(value) => {
                // The claim of the reload is given back: the next loading call reloads.
                crate::raw::reload_abandoned(self, key.as_borrowed());
                return Ok(Entry::Occupied(value));
            }
            Found::Missing(guard) => guard,
        };
        let key = key.into_key();
        loop {
            match self.join(hash, &key, ActorId::this_thread()) {
                Joined::Lead { mut leader, recheck } => {
                    if let Some(value) = self.recheck_map(recheck, hash, &key, guard, &mut leader) {
                        return Ok(Entry::Occupied(value));
                    }
                    leader.begin_run();
                    return Ok(Entry::Vacant(VacantEntry {
                        cache: self,
                        hash,
                        key,
                        leader,
                        not_send: PhantomData,
                    }));
                }
                Joined::Wait(flight) => {
                    drop(guard);
                    if let Some(Ok(value)) = shared::<V, Infallible>(flight.wait()?) {
                        return Ok(Entry::Occupied(value));
                    }
                    guard = self.0.engine.pin();
                }
            }
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher> VacantEntry<'_, K, V, S> {
    /// Inserts the value, hands it to the waiting callers, and returns it.
    ///
    /// If the key was inserted, removed or computed since the placeholder was created, the value is not inserted.
    pub fn insert(self, value: V) -> V {
        self.insert_with_ttl(value, Ttl::Default)
    }

    /// Inserts the value as [`insert`](Self::insert) does, with a TTL of its own.
    pub fn insert_with_ttl(mut self, value: V, ttl: impl Into<Ttl>) -> V {
        self.leader.end_run();
        let loaded = Ok((value, ttl.into()));
        let inserted = self
            .cache
            .lead::<Infallible>(self.hash, self.key, &mut self.leader, loaded, |key, _| key);
        inserted.unwrap_or_else(|error| infallible(error))
    }
}

impl<K, V, S> VacantEntry<'_, K, V, S> {
    /// Returns the key.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: fmt::Debug, V: fmt::Debug, S> fmt::Debug for Entry<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied(value) => f.debug_tuple("Occupied").field(value).finish(),
            Self::Vacant(vacant) => f.debug_tuple("Vacant").field(vacant).finish(),
        }
    }
}

impl<K: fmt::Debug, V, S> fmt::Debug for VacantEntry<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VacantEntry")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
