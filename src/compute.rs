//! Atomic changes of an entry that depend on its current value: `change`, and `compute` on top of
//! it.

use crate::cache::Cache;
use crate::engine::{Engine, Entry};
use crate::expiry::Ttl;
use crate::key::LoadKey;
use crate::map::UNCONDITIONAL;
use crate::stats::Cause;
use crate::write::Fence;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

/// The decision of a closure that is passed to [`Cache::change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<K, V> {
    /// Leaves the entry as it is, and loads of the key in flight, too.
    Keep,
    /// Removes the entry, if there is one.
    Remove,
    /// Stores this key and value with this TTL. The key must be equal to the requested one.
    Set(K, V, Ttl),
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Inserts `value` for `key`, and returns a clone of the value that it replaced, or `None` if
    /// the key was absent or expired.
    ///
    /// Atomic. Invalidates a load of the key in flight.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// assert_eq!(cache.replace("tea", 3), None);
    /// assert_eq!(cache.replace("tea", 4), Some(3));
    /// ```
    pub fn replace(&self, key: K, value: V) -> Option<V>
    where
        K: Clone,
        V: Clone,
    {
        let mut previous = None;
        self.change(&key, |current| {
            previous = current.cloned();
            Change::Set(key.clone(), value.clone(), Ttl::Default)
        });
        previous
    }

    /// Replaces the value for `key` by the result of `change`, atomically. Returns a clone of the
    /// value that is in the cache afterwards.
    ///
    /// `change` is called with a clone of the current value, or `None` if the key is absent or
    /// expired. If it returns `None`, the entry is removed. `key` is passed by value or by
    /// reference, see [`LoadKey`]. A load of the key in flight is invalidated. If `change` panics,
    /// nothing changes.
    ///
    /// # Examples
    ///
    /// ```
    /// let hits = hotset::Cache::<String, u32>::new(100);
    /// hits.compute("home", |count| Some(count.unwrap_or(0) + 1));
    /// assert_eq!(hits.compute("home", |count| Some(count.unwrap_or(0) + 1)), Some(2));
    /// ```
    ///
    /// # Concurrency
    ///
    /// `change` runs without a lock held. It is called again if another thread changed the key
    /// before its result was stored. So it must not change the key itself.
    pub fn compute<T, F>(&self, key: T, mut change: impl FnMut(Option<V>) -> Option<V>) -> Option<V>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
    {
        self.compute_with_ttl(key, |current| Some((change(current)?, Ttl::Default)))
    }

    /// Replaces the value for `key` as [`compute`](Self::compute) does, with a [`Ttl`] for the new
    /// value. [`Ttl::Keep`] keeps the entry's deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use hotset::{Cache, Ttl};
    /// use std::time::Duration;
    /// let windows = Cache::<String, u32>::new(100);
    /// let count = |client: &str| windows.compute_with_ttl(client, |count| match count {
    ///     None => Some((1, Ttl::After(Duration::from_secs(60)))), // the window begins
    ///     Some(count) => Some((count + 1, Ttl::Keep)),
    /// });
    /// count("ann");
    /// assert_eq!(count("ann"), Some(2));
    /// ```
    pub fn compute_with_ttl<T, F>(&self, key: T, mut change: impl FnMut(Option<V>) -> Option<(V, Ttl)>) -> Option<V>
    where
        T: LoadKey<K, F>,
        K: Clone + Borrow<T::Borrowed>,
        V: Clone,
    {
        let mut changed = None;
        self.change(key.as_borrowed(), |current| {
            let (value, ttl) = change(current.cloned()).unzip();
            changed = value;
            match &changed {
                None => Change::Remove,
                Some(value) => Change::Set(key.to_key(), value.clone(), ttl.unwrap_or_default()),
            }
        });
        changed
    }

    /// Calls `decide` with the current value for `key`, by reference, and applies its decision
    /// atomically.
    ///
    /// The most general form of [`compute`](Self::compute): clones neither key nor value, and can
    /// leave the entry as it is. Counts neither as a hit nor as a miss. Any decision but
    /// [`Change::Keep`] invalidates a load of the key in flight. If `decide` panics, nothing
    /// changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use hotset::{Cache, Change, Ttl};
    /// let owners = Cache::<String, u32>::new(100);
    /// // Inserts if absent, and returns whether it did.
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
    ///
    /// # Concurrency
    ///
    /// `decide` runs without a lock held. It is called again if another thread changed the key
    /// before the decision was applied; its last decision is applied. So it must not change the key
    /// itself. While it runs, the cache frees no memory, so it should be short.
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
            let kill = self.0.begin_change(hash, key, Fence::Needed);
            let done = match (old, change) {
                (_, Change::Keep) => unreachable!("returned above"),
                (None, Change::Remove) => {
                    // A load that has not committed will not do so. One that has, and that may have
                    // ended while `decide` ran, is a current value that `decide` must see first.
                    let mut present = false;
                    let look = |_: &Entry<K, V>| {
                        present = true;
                        false
                    };
                    engine.remove(hash, |other: &K| other.borrow() == key, look, kill, |_| ());
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
