//! Changing an entry atomically, whatever was there: what `compute` and its kin stand on.

use crate::cache::Cache;
use crate::engine::{Engine, Entry};
use crate::expiry::Ttl;
use crate::map::UNCONDITIONAL;
use crate::stats::Cause;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

/// What [`Cache::change`] is to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<K, V> {
    /// Leave everything as it is, loads of the key that are going on included.
    Keep,
    /// Remove the entry, if there is one.
    Remove,
    /// Store this key and value, for so long. The key must be equal to the one that was asked for.
    Set(K, V, Ttl),
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Looks at the key's value, in place, and then does what `decide` says, atomically. [`compute`](Self::compute) in its most
    /// general form: no key and no value is cloned, and what is there can be left alone. Counts neither as a hit nor as a
    /// miss. Anything but [`Change::Keep`] overtakes a load of the key that is going on.
    ///
    /// `decide` runs under no lock, and runs again if the key was changed meanwhile (so it must not change it itself); its last
    /// answer is what was done. While it runs, no cache of the process frees memory, so it should be short. If it panics,
    /// nothing changes.
    ///
    /// ```
    /// use hotset::{Cache, Change, Ttl};
    /// let owners = Cache::<String, u32>::new(100);
    /// // Inserts if absent, and tells whether it did.
    /// let claim = |name: &str, id| {
    ///     let mut claimed = false;
    ///     owners.change(name, |owner| {
    ///         claimed = owner.is_none();
    ///         match owner {
    ///             None => Change::Set(name.to_owned(), id, Ttl::Default),
    ///             Some(_) => Change::Keep,
    ///         }
    ///     });
    ///     claimed
    /// };
    /// assert!(claim("lamp", 1));
    /// assert!(!claim("lamp", 2));
    /// assert_eq!(owners.get("lamp"), Some(1));
    /// ```
    pub fn change<Q>(&self, key: &Q, mut decide: impl FnMut(Option<&V>) -> Change<K, V>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.0.hash(key);
        let engine = &self.0.engine;
        loop {
            let now = engine.now();
            let guard = engine.pin();
            let mut old = self.0.peek(hash, key, &guard);
            if old.is_none() && self.0.snapshot_slot.is_some() {
                old = self.0.find_alive(hash, key, now, &guard);
            }
            let alive = old.filter(|old| !engine.is_expired(old.0, now));
            let change = decide(alive.map(|old| &Engine::<K, V>::view(old.0).value));
            if matches!(change, Change::Keep) {
                drop(guard);
                return engine.expire_if_due(now);
            }
            let invalidated = self.0.flights.invalidate(hash, |loading| loading.borrow() == key)
                | self.0.snapshot_slot.invalidate(key);
            self.0.forget_failure(hash, |failed| failed.borrow() == key);
            let done = match (old, change) {
                (_, Change::Keep) => unreachable!("it has returned"),
                (None, Change::Remove) => {
                    // What a load has not committed yet, it will not. What is there by now, `decide` has to see first.
                    let mut present = false;
                    if invalidated {
                        let look = |_: &Entry<K, V>| {
                            present = true;
                            false
                        };
                        engine.remove(hash, |other: &K| other.borrow() == key, look, true, |_| ());
                    }
                    !present
                }
                (Some(old), Change::Remove) => engine.remove_exact(old, Cause::Explicit, guard),
                (old, Change::Set(own, value, ttl)) => {
                    let weight = self.0.weigh(&own, &value);
                    let old_times = alive.map(|old| engine.timing(old, &guard));
                    let timing = engine
                        .time()
                        .for_insert(hash, (&own, &value), ttl, old_times, engine.now_for(ttl));
                    let new = engine.make(hash, (own, value), weight, timing, &guard);
                    match old {
                        Some(old) => engine.replace_exact(old, new, guard),
                        None => engine.insert_absent(hash, new, |other, _| other.borrow() == key, UNCONDITIONAL, guard),
                    }
                }
            };
            if done {
                return engine.expire_if_due(now);
            }
        }
    }
}
