//! Changes of a key: what every one of them does before it changes the map, and the calls that
//! insert and remove.
//!
//! A key's value can come from three places besides the map: a load in flight, a loaded snapshot,
//! and a remembered failure of a load. A change must beat them all. Otherwise a load that began
//! before the change would insert its older value after it. [`Inner::begin_change`] is the one
//! place that ensures this, and every change of a single key calls it:
//!
//! | change | calls | then |
//! |---|---|---|
//! | insertion by a caller | `begin_change` after a fenced pin | replaces whatever slot the key has, a pending one included |
//! | removal, `compute`, `change` | `begin_change` | kills pending insertions, if `begin_change` returns true |
//! | insertion by a load or a reload | [`Inner::begin_load`] | inserts unless it was invalidated itself |
//! | `clear` | [`Inner::begin_clear`] | removes all entries |
//!
//! A load does not invalidate other loads, since it is the only one of its key. It needs no look at
//! the snapshot either: the lookup that found the key missing has restored the key's entry or found
//! that the snapshot has none.

use crate::cache::{Cache, Inner};
use crate::engine::Entry;
use crate::expiry::Ttl;
use crate::map::UNCONDITIONAL;
use crate::prim::panics::Panics;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

/// Whether the calling thread has executed a SeqCst fence since the change was decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// It has, by [`pin_fenced`](crate::engine::Engine::pin_fenced).
    Executed,
    Needed,
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Makes all that could still insert an older value of `key` give way to a change that the
    /// caller makes next.
    ///
    /// Returns whether an insertion of the key may be pending in the map. The marks that this
    /// leaves keep such an insertion from becoming visible, unless it has looked for them already.
    /// So a removal must then kill it in the map. An insertion replaces it.
    #[inline(always)]
    pub(crate) fn begin_change<Q>(&self, hash: u64, key: &Q, fence: Fence) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let is_key = |other: &K| other.borrow() == key;
        let loading = match fence {
            Fence::Executed => self.flights.invalidate_fenced(hash, is_key),
            Fence::Needed => self.flights.invalidate(hash, is_key),
        };
        let restoring = self.snapshot_slot.invalidate(key);
        self.forget_failure(hash, is_key);
        loading | restoring
    }

    /// Prepares the insertion of a loaded value: an earlier failure of a load of `key` is
    /// forgotten.
    #[inline(always)]
    pub(crate) fn begin_load(&self, hash: u64, key: &K) {
        self.forget_failure(hash, |failed| failed == key);
    }

    /// Makes all that could still insert a value give way to the removal of all entries, and kills
    /// pending insertions.
    pub(crate) fn begin_clear(&self, panics: &mut Panics) {
        let engine = &self.engine;
        self.snapshot_slot.close(|hash| {
            panics.catch(|| _ = engine.remove(hash, |_| true, |_| true, true, |_| ()));
        });
        self.flights.invalidate_all(|hash, key| {
            panics.catch(|| _ = engine.remove(hash, |other| other == key, |_| true, true, |_| ()));
        });
        if let Some(failures) = &self.failures {
            failures.clear();
        }
    }

    /// Removes all entries, and invalidates all loads in flight.
    pub(crate) fn clear(&self) {
        let mut panics = Panics::default();
        self.begin_clear(&mut panics);
        panics.catch(|| self.engine.clear());
        panics.catch(|| self.engine.run_pending());
        panics.resume();
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Inserts `value` for `key`, and replaces an existing value.
    ///
    /// The entry can be read immediately, unless the policy does not admit it. A load of the key in
    /// flight is invalidated: its value is returned to its callers, and is not inserted.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// cache.insert("tea", 3);
    /// assert_eq!(cache.get("tea"), Some(3));
    /// ```
    ///
    /// # Complexity
    ///
    /// O(1). See [`Cache`] for when a writer waits.
    pub fn insert(&self, key: K, value: V) {
        if self.0.engine.time().is_active() {
            return self.insert_timed(key, value, Ttl::Default);
        }
        let hash = self.0.hash(&key);
        let weight = self.0.weigh(&key, &value);
        let guard = self.0.engine.pin_fenced();
        self.0.engine.map().prefetch(hash, &guard);
        self.0.begin_change(hash, &key, Fence::Executed);
        let new = self.0.engine.make(hash, (key, value), weight, None, &guard);
        self.0.engine.insert(hash, new, |a, b| a == b, guard);
    }

    /// Inserts `value` for `key` with a TTL of its own: a `Duration`, or a [`Ttl`].
    ///
    /// It replaces the cache's [`time_to_live`](crate::Builder::time_to_live) for this entry; other
    /// expiration settings still apply. With a TTL of zero, the key is absent afterwards.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// let cache = hotset::Cache::new(100);
    /// cache.insert_with_ttl("token", 17, Duration::from_secs(300));
    /// ```
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: impl Into<Ttl>) {
        self.insert_timed(key, value, ttl.into());
    }

    #[inline(never)]
    fn insert_timed(&self, key: K, value: V, ttl: Ttl) {
        let now = self.0.engine.now_for(ttl);
        let hash = self.0.hash(&key);
        let weight = self.0.weigh(&key, &value);
        let guard = self.0.engine.pin_fenced();
        self.0.engine.map().prefetch(hash, &guard);
        let timing = self.0.times(hash, (&key, &value), ttl, now, &guard);
        self.0.begin_change(hash, &key, Fence::Executed);
        let new = self.0.engine.make(hash, (key, value), weight, timing, &guard);
        self.0.engine.insert(hash, new, |a, b| a == b, guard);
        self.0.engine.expire_if_due(now);
    }

    /// Inserts `value` for `key` if the key is absent or expired. Returns whether it was inserted.
    ///
    /// If the key is present, nothing changes, and `key` and `value` are dropped. A load of the key
    /// in flight is invalidated if the value is inserted. Counts neither as a hit nor as a miss.
    ///
    /// # Examples
    ///
    /// ```
    /// let leases = hotset::Cache::new(100);
    /// assert!(leases.insert_if_absent("job", "ann"));
    /// assert!(!leases.insert_if_absent("job", "bob"));
    /// assert_eq!(leases.get("job"), Some("ann"));
    /// ```
    pub fn insert_if_absent(&self, key: K, value: V) -> bool {
        let inner = &*self.0;
        let now = inner.engine.now_and_expire();
        let hash = inner.hash(&key);
        let guard = inner.engine.pin_fenced();
        if inner.find_alive(hash, &key, now, &guard).is_some() {
            return false;
        }
        let weight = inner.weigh(&key, &value);
        let now = inner.engine.now_for(Ttl::Default);
        let timing = inner.times(hash, (&key, &value), Ttl::Default, now, &guard);
        // A load that is pending in the map counts as absent: it is killed, so that this value is
        // the one that stays.
        if inner.begin_change(hash, &key, Fence::Executed) {
            let keep = |_: &Entry<K, V>| false;
            inner.engine.remove(hash, |other| *other == key, keep, true, |_| ());
        }
        let new = inner.engine.make(hash, (key, value), weight, timing, &guard);
        inner
            .engine
            .insert_absent(hash, new, |a, b| a == b, UNCONDITIONAL, guard)
    }

    /// Removes `key` and returns a clone of its value, or `None` if it is absent or expired.
    ///
    /// A load of the key in flight is invalidated. [`invalidate`](Self::invalidate) does the same
    /// without a clone.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// cache.insert("tea", 3);
    /// assert_eq!(cache.remove("tea"), Some(3));
    /// assert_eq!(cache.remove("tea"), None);
    /// ```
    ///
    /// # Complexity
    ///
    /// O(1). See [`Cache`] for when a writer waits.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.remove_with(key, |_, _| true, |_, value| value.clone())
    }

    /// Removes `key` if `condition` holds for its entry, and returns a clone of its value.
    ///
    /// `condition` is called again if another thread changes the entry before the removal. A load
    /// of the key in flight is invalidated in any case.
    pub fn remove_if<Q>(&self, key: &Q, condition: impl FnMut(&K, &V) -> bool) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.remove_with(key, condition, |_, value| value.clone())
    }

    /// Removes `key`. Returns whether it was present and not expired.
    ///
    /// A load of the key in flight is invalidated. Neither key nor value is cloned.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// cache.insert("tea", 3);
    /// assert!(cache.invalidate("tea"));
    /// assert!(!cache.invalidate("tea"));
    /// ```
    ///
    /// # Complexity
    ///
    /// O(1). See [`Cache`] for when a writer waits.
    pub fn invalidate<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.remove_with(key, |_, _| true, |_, _| ()).is_some()
    }

    /// Removes `key` if `condition` holds for its entry. Returns whether it was removed. As
    /// [`remove_if`](Self::remove_if), without a clone.
    pub fn invalidate_if<Q>(&self, key: &Q, condition: impl FnMut(&K, &V) -> bool) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.remove_with(key, condition, |_, _| ()).is_some()
    }

    fn remove_with<Q, R>(
        &self,
        key: &Q,
        mut condition: impl FnMut(&K, &V) -> bool,
        take: impl FnOnce(&K, &V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.0.hash(key);
        // An entry that is in a snapshot only is restored first: this call may return its
        // value, and a listener is notified of it.
        if self.0.snapshot_slot.is_some() {
            self.0.find_alive(hash, key, self.0.engine.now(), &self.0.engine.pin());
        }
        let kill = self.0.begin_change(hash, key, Fence::Needed);
        self.0.engine.remove(
            hash,
            |candidate| candidate.borrow() == key,
            |entry| condition(&entry.key, &entry.value),
            kill,
            |entry| take(&entry.key, &entry.value),
        )
    }

    /// Removes every entry for which `keep` returns false.
    ///
    /// An entry that another thread inserts or replaces during the call may be visited or not; one
    /// that is replaced after `keep` saw it stays. Entries that are in a loaded snapshot only are
    /// not visited: call [`warm`](Self::warm) first.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache: hotset::Cache<u32, u32> = (0..10).map(|n| (n, n * n)).collect();
    /// cache.retain(|_, square| square % 2 == 0);
    /// assert!(!cache.contains_key(&3));
    /// ```
    ///
    /// # Complexity
    ///
    /// O(n).
    ///
    /// # Concurrency
    ///
    /// `keep` runs without a lock held. While it runs, the cache frees no memory, so it should be
    /// short. It may use the cache.
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.0.engine.retain(|entry| keep(&entry.key, &entry.value));
    }

    /// Removes all entries, and invalidates all loads in flight.
    ///
    /// Entries that other threads insert during the call may stay.
    ///
    /// # Complexity
    ///
    /// O(n).
    pub fn clear(&self) {
        self.0.clear();
    }
}
