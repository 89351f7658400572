//! The cache as its users see it: keys, values and handles.

use crate::builder::{Builder, DefaultHasher, Weigher};
use crate::compute::Change;
use crate::engine::{Deadlines, Engine, Entry, Settings};
use crate::error::BuildError;
use crate::expiry::Ttl;
use crate::flight::Flights;
use crate::map::Header;
use crate::negative::Failures;
use crate::prim::panics::Panics;
use crate::prim::sync::Ordering;
use crate::reader::{Iter, Reader};
use crate::reclaim::{Brief, Guard};
use crate::refresh::Runner;
use crate::snapshot::{AutoSnapshotter, SnapshotSlot};
use crate::stats::Stats;
use crate::ticker::Service;
use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A concurrent cache. Cloning gives another handle to the same cache.
///
/// Keys and values may be dropped by any thread that uses the cache, some time after they left it.
///
/// # Concurrency
/// - **Lookups are lock-free**: `get`, `get_with`, `get_many`, `contains_key` and those of a [`Reader`] wait for no other thread.
///   With [`Policy::Lru`](crate::Policy::Lru), and where entries expire, a lookup may take the maintenance lock, if it is free, to
///   do work that is due. Two kinds of lookups may wait: one after which an [`Expiry`](crate::Expiry) moves the deadline earlier
///   waits for the maintenance lock, and a miss in a cache with a lazily loaded [snapshot](crate::snapshot) for its locks.
/// - **Writers** (`insert`, `remove`, `compute`, loads that insert) change the table without a lock and leave a note of the change
///   in a buffer of their own thread. With a batch of notes the thread tries the maintenance lock, under which the policy and
///   the timers are kept, entries are evicted and the table grows; if another thread holds it, the call returns. A writer waits
///   in three cases: its buffer is full, which bounds memory (caches of fewer than 128 entries, and exact LRU, have room for
///   one note); a few entries near its own are just being moved to another table; more than 1,024 threads use the cache.
/// - `run_pending`, `set_capacity` and `save` wait for the maintenance lock. Loading calls wait for another caller's load of the
///   same key.
/// - A waiting thread spins for about a microsecond and then sleeps, so it does not keep a lock holder of lower priority from
///   running. While a lock holder is suspended, lookups continue, and so do writers: one whose buffer is full waits 10
///   milliseconds per change, and then leaves the change aside. So a cache exceeds its capacity by up to 100 entries per second
///   and writing thread while a lock holder is suspended. Only a writer that needs an entry which the lock holder was just
///   moving to another table waits for it.
/// - No user code runs under the maintenance lock. If a bug makes maintenance panic nevertheless, the cache can still be read;
///   calls that need maintenance panic from then on, instead of waiting for ever, and what the cache can no longer free is leaked.
///
/// # Limits
/// A cache holds at most 234 million entries (268 million with [`Policy::Random`](crate::Policy::Random)), and at least 84 million,
/// however removals fragment its queues; about as many can have a deadline. Beyond that, and where the policy finds no memory
/// to grow, the cache evicts entries before its capacity is reached.
pub struct Cache<K, V, S = DefaultHasher>(pub(crate) Arc<Inner<K, V, S>>);

pub(crate) struct Inner<K, V, S> {
    pub(crate) engine: Engine<K, V>,
    hasher: S,
    weigher: Option<Weigher<K, V>>,
    pub(crate) flights: Flights<K, V>,
    pub(crate) background: Option<Runner>,
    pub(crate) failures: Option<Box<Failures<K>>>,
    pub(crate) snapshot_slot: SnapshotSlot<K, V>,
    services: OnceLock<Box<Services<K, V, S>>>,
}

/// The threads of a cache that has any, and the number of its handles. Its threads have none, so that a save in progress does
/// not pass for a user of the cache.
struct Services<K, V, S> {
    handles: AtomicUsize,
    ticker: Mutex<Option<Service>>,
    auto_snapshot: Option<AutoSnapshotter<K, V, S>>,
}

impl<K, V, S> Clone for Cache<K, V, S> {
    fn clone(&self) -> Self {
        if let Some(services) = self.0.services.get() {
            services.handles.fetch_add(1, Ordering::Relaxed);
        }
        Self(self.0.clone())
    }
}

impl<K, V, S> Drop for Cache<K, V, S> {
    fn drop(&mut self) {
        // AcqRel pairs with itself: what was done through other handles is saved.
        if let Some(services) = self.0.services.get()
            && services.handles.fetch_sub(1, Ordering::AcqRel) == 1
        {
            // The threads end first, so that the cache ends on this one.
            drop(services.ticker.lock().unwrap_or_else(PoisonError::into_inner).take());
            if let Some(auto_snapshot) = &services.auto_snapshot {
                auto_snapshot.end(&self.0);
            }
        }
    }
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// A cache of at most `max_entries` entries, with the W-TinyLFU policy.
    ///
    /// # Panics
    /// If there is no memory for its table, which [`Builder::build`] returns as an error.
    pub fn new(max_entries: usize) -> Self {
        Self::builder()
            .max_entries(max_entries)
            .build()
            .expect("a number of entries, and memory for their table, is all a cache needs")
    }
}

impl<K, V> Cache<K, V> {
    /// Begins to describe a cache.
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }
}

impl<K: Hash, V, S: BuildHasher> Inner<K, V, S> {
    /// The key's hash, stirred: weak hashers vary only some bits, and the upper half of the default one's hashes of keys in
    /// arithmetic progression is another such progression, which in some processes would fill only some buckets.
    #[inline]
    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        Self::mix_hash(self.hasher.hash_one(key))
    }

    #[inline]
    pub(crate) fn mix_hash(hash: u64) -> u64 {
        let hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    }

    #[inline]
    pub(crate) fn weigh(&self, key: &K, value: &V) -> u64 {
        match &self.weigher {
            None => 1,
            Some(weigher) => weigher(key, value),
        }
    }

    /// A load of the key failed. Forgotten again if the key was changed meanwhile: asked for after it can be found.
    pub(crate) fn remember_failure<E>(&self, hash: u64, key: &K, error: Arc<E>, invalidated: impl FnOnce() -> bool)
    where
        K: Eq + Clone,
        E: Send + Sync + 'static,
    {
        if let Some(failures) = &self.failures {
            failures.insert(hash, key.clone(), error);
            if invalidated() {
                failures.forget(hash, |failed| failed == key);
            }
        }
    }

    /// The key is changed: a load of it that failed is no longer remembered.
    #[inline(always)]
    pub(crate) fn forget_failure(&self, hash: u64, is: impl Fn(&K) -> bool)
    where
        K: Eq,
    {
        if let Some(failures) = &self.failures {
            failures.forget(hash, is);
        }
    }

    /// The times of a new entry.
    pub(crate) fn times(
        &self,
        hash: u64,
        (key, value): (&K, &V),
        ttl: Ttl,
        now: u64,
        guard: &Guard,
    ) -> Option<Deadlines>
    where
        K: Eq,
    {
        let time = self.engine.time();
        let asks = ttl == Ttl::Keep || time.expiry.is_some();
        let old = asks.then(|| self.find_alive(hash, key, now, guard)).flatten();
        let old = old.map(|old| self.engine.timing(old, guard));
        time.for_insert(hash, (key, value), ttl, old, now)
    }
}

/// How many lookups of a batch are in flight at once: their cache misses overlap.
const BATCH: usize = 64;

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// A copy of the key's value. Lock-free; O(1).
    #[inline(always)]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.get_with(key, V::clone)
    }

    /// What `read` makes of the key's value, without cloning it. Lock-free; O(1).
    ///
    /// While `read` runs, this cache frees no memory, so it should be short. It may use the cache.
    #[inline(always)]
    pub fn get_with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.0.hash(key);
        let mut found = None;
        let guard = self.0.engine.pin_briefly();
        if let Some(guard) = &guard {
            match self.0.lookup_fast(key, hash, guard.guard()) {
                Ok(entry) => return entry.map(|entry| read(&entry.value)),
                Err(some) => found = some,
            }
        }
        self.get_slow(key, guard.map(Brief::into_guard), hash, found, read)
    }

    /// Goes on where `get_with` leaves what is not usual, and all hits of a cache with times: apart, it costs the rest no
    /// registers.
    #[inline(never)]
    fn get_slow<Q, R>(
        &self,
        key: &Q,
        guard: Option<Guard>,
        hash: u64,
        found: Option<NonNull<Header>>,
        read: impl FnOnce(&V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let guard = guard.unwrap_or_else(|| self.0.engine.pin());
        let now = self.0.engine.now();
        let entry = found
            .and_then(|found| self.0.hit_timed(found, now, &guard))
            .or_else(|| self.0.lookup_slow(key, hash, found, now, &guard));
        let result = entry.map(|entry| read(&entry.value));
        drop(guard);
        self.0.engine.expire_if_due(now);
        result
    }

    /// Copies of the values of many keys, in their order. Faster than as many `get`s when the cache is larger than the
    /// processor's: the memory accesses of up to 64 keys overlap.
    pub fn get_many<'k, Q>(&self, keys: impl IntoIterator<Item = &'k Q>) -> Vec<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized + 'k,
        V: Clone,
    {
        let keys = keys.into_iter();
        let mut values = Vec::with_capacity(keys.size_hint().0);
        self.get_each(keys, |value| values.push(value.cloned()));
        values
    }

    /// Shows the values of many keys to `found`, in their order.
    pub(crate) fn get_each<'k, Q>(&self, keys: impl IntoIterator<Item = &'k Q>, mut found: impl FnMut(Option<&V>))
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized + 'k,
    {
        let mut keys = keys.into_iter();
        loop {
            let (mut hashes, mut batch) = ([0; BATCH], [None; BATCH]);
            let mut n = 0;
            for ((hash, slot), key) in hashes.iter_mut().zip(&mut batch).zip(keys.by_ref()) {
                (*hash, *slot) = (self.0.hash(key), Some(key));
                n += 1;
            }
            if n == 0 {
                self.0.engine.now_and_expire();
                return;
            }
            let guard = self.0.engine.pin();
            let mut glanced = [None; BATCH];
            let size = size_of::<Entry<K, V>>();
            self.0
                .engine
                .map()
                .probe_batch(&hashes[..n], &mut glanced[..n], size, &guard);
            for ((hash, key), glanced) in hashes.into_iter().zip(batch.into_iter().flatten()).zip(glanced) {
                let entry = self.0.lookup_glanced(key, hash, glanced, &guard);
                found(entry.map(|entry| &entry.value));
            }
        }
    }

    /// Returns a pinned reader, for lookups by reference.
    #[inline]
    pub fn reader(&self) -> Reader<'_, K, V, S> {
        Reader {
            inner: &self.0,
            guard: self.0.engine.pin(),
        }
    }

    /// Whether the key is in the cache. Counts neither as a hit nor as a miss. Lock-free; O(1).
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.0.engine.now_and_expire();
        let hash = self.0.hash(key);
        self.0.find_alive(hash, key, now, &self.0.engine.pin()).is_some()
    }

    /// Sets the key's value, and overtakes a load of the key that is going on. O(1); see [`Cache`] for when it waits.
    ///
    /// The entry can be read at once, unless the policy does not admit it.
    pub fn insert(&self, key: K, value: V) {
        if self.0.engine.time().is_active() {
            return self.insert_timed(key, value, Ttl::Default);
        }
        let hash = self.0.hash(&key);
        let weight = self.0.weigh(&key, &value);
        let guard = self.0.engine.pin_fenced();
        self.0.engine.map().prefetch(hash, &guard);
        self.0.flights.invalidate_fenced(hash, |loading| *loading == key);
        self.0.snapshot_slot.invalidate(&key);
        self.0.forget_failure(hash, |failed| *failed == key);
        let new = self.0.engine.make(hash, (key, value), weight, None, &guard);
        self.0.engine.insert(hash, new, |a, b| a == b, guard);
    }

    /// Sets the key's value as [`insert`](Self::insert) does, for a time of its own: a `Duration`, or a [`Ttl`].
    ///
    /// It takes the place of the cache's [`time_to_live`](Builder::time_to_live); other settings of time still apply.
    /// After a time to live of zero, the key is absent.
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
        let now = self.0.engine.time().clock.now();
        let hash = self.0.hash(&key);
        let weight = self.0.weigh(&key, &value);
        let guard = self.0.engine.pin_fenced();
        let timing = self.0.times(hash, (&key, &value), ttl, now, &guard);
        self.0.flights.invalidate_fenced(hash, |loading| *loading == key);
        self.0.snapshot_slot.invalidate(&key);
        self.0.forget_failure(hash, |failed| *failed == key);
        let new = self.0.engine.make(hash, (key, value), weight, timing, &guard);
        self.0.engine.insert(hash, new, |a, b| a == b, guard);
        self.0.engine.expire_if_due(now);
    }

    /// How long the key's entry will live if it is not used again; `None` if there is no entry, `Some(None)` if it has no
    /// end. Counts nothing.
    pub fn remaining<Q>(&self, key: &Q) -> Option<Option<Duration>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.0.engine.now_and_expire();
        let hash = self.0.hash(key);
        let guard = self.0.engine.pin();
        let found = self.0.find_alive(hash, key, now, &guard)?;
        let timing = self.0.engine.timing(found, &guard);
        // (It may have come from a snapshot, as the first with times: so the clock is asked again.)
        Some(timing.and_then(|timing| timing.left(self.0.engine.now())))
    }

    /// Removes the key and returns a copy of its value. A load of the key that is going on will not enter the cache.
    /// O(1); see [`Cache`] for when it waits.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.remove_with(key, |_, _| true, |_, value| value.clone())
    }

    /// Removes the key if `condition` holds for its entry at that moment, and returns a copy of its value. `condition` is
    /// called again if another thread changes the entry meanwhile.
    pub fn remove_if<Q>(&self, key: &Q, condition: impl FnMut(&K, &V) -> bool) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.remove_with(key, condition, |_, value| value.clone())
    }

    fn remove_with<Q, R>(
        &self,
        key: &Q,
        mut condition: impl FnMut(&K, &V) -> bool,
        taken: impl FnOnce(&K, &V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.0.hash(key);
        if self.0.snapshot_slot.is_some() {
            self.0.find_alive(hash, key, self.0.engine.now(), &self.0.engine.pin());
        }
        let kill =
            self.0.flights.invalidate(hash, |loading| loading.borrow() == key) | self.0.snapshot_slot.invalidate(key);
        self.0.forget_failure(hash, |failed| failed.borrow() == key);
        self.0.engine.remove(
            hash,
            |candidate| candidate.borrow() == key,
            |entry| condition(&entry.key, &entry.value),
            kill,
            |entry| taken(&entry.key, &entry.value),
        )
    }

    /// Replaces the key's value by what `change` makes of it, atomically: `None` stands for absence, both ways. Returns a
    /// copy of what is in the cache afterwards. Overtakes a load of the key that is going on.
    ///
    /// `change` runs under no lock, and runs again if the key was changed meanwhile (so it must not change it itself). If it
    /// panics, nothing changes.
    ///
    /// ```
    /// let hits = hotset::Cache::<&str, u32>::new(100);
    /// hits.compute("home", |count| Some(count.unwrap_or(0) + 1));
    /// assert_eq!(hits.compute("home", |count| Some(count.unwrap_or(0) + 1)), Some(2));
    /// ```
    pub fn compute(&self, key: K, mut change: impl FnMut(Option<V>) -> Option<V>) -> Option<V>
    where
        K: Clone,
        V: Clone,
    {
        self.compute_with_ttl(key, |current| Some((change(current)?, Ttl::Default)))
    }

    /// [`compute`](Self::compute) with a [`Ttl`] for the new value: [`Ttl::Keep`] leaves the end of the entry where it is.
    ///
    /// ```
    /// use hotset::{Cache, Ttl};
    /// use std::time::Duration;
    /// let windows = Cache::<&str, u32>::new(100);
    /// let count = |client| windows.compute_with_ttl(client, |count| match count {
    ///     None => Some((1, Ttl::After(Duration::from_secs(60)))), // the window begins
    ///     Some(count) => Some((count + 1, Ttl::Keep)),
    /// });
    /// count("ann");
    /// assert_eq!(count("ann"), Some(2));
    /// ```
    pub fn compute_with_ttl(&self, key: K, mut change: impl FnMut(Option<V>) -> Option<(V, Ttl)>) -> Option<V>
    where
        K: Clone,
        V: Clone,
    {
        let mut changed = None;
        self.change(&key, |current| {
            let (value, ttl) = change(current.cloned()).unzip();
            changed = value;
            match &changed {
                None => Change::Remove,
                Some(value) => Change::Set(key.clone(), value.clone(), ttl.unwrap_or_default()),
            }
        });
        changed
    }

    /// Removes all entries, and overtakes all loads that are going on. Entries that others insert meanwhile may stay. O(n).
    pub fn clear(&self) {
        let engine = &self.0.engine;
        let mut panics = Panics::default();
        self.0.snapshot_slot.close(|hash| {
            panics.catch(|| _ = engine.remove(hash, |_| true, |_| true, true, |_| ()));
        });
        self.0.flights.invalidate_all(|hash, key| {
            panics.catch(|| _ = engine.remove(hash, |other| other == key, |_| true, true, |_| ()));
        });
        if let Some(failures) = &self.0.failures {
            failures.clear();
        }
        panics.catch(|| engine.clear());
        panics.catch(|| self.run_pending());
        panics.resume();
    }
}

impl<K, V, S> Cache<K, V, S> {
    pub(crate) fn from_parts(
        settings: Settings<K, V>,
        weigher: Option<Weigher<K, V>>,
        background: Option<Runner>,
        failures: Option<Box<Failures<K>>>,
        hasher: S,
    ) -> Result<Self, BuildError> {
        Ok(Self(Arc::new(Inner {
            flights: Flights::new(settings.capacity),
            background,
            failures,
            snapshot_slot: SnapshotSlot::new(),
            services: OnceLock::new(),
            engine: Engine::new(settings)?,
            hasher,
            weigher,
        })))
    }

    /// Gives a new cache what looks after it, if there is anything.
    pub(crate) fn attach_services(&self, ticker: Option<Service>, auto_snapshot: Option<AutoSnapshotter<K, V, S>>) {
        if ticker.is_some() || auto_snapshot.is_some() {
            _ = self.0.services.set(Box::new(Services {
                handles: AtomicUsize::new(1),
                ticker: Mutex::new(ticker),
                auto_snapshot,
            }));
        }
    }

    /// Copies of all entries, in no useful order. Weakly consistent; delays nobody. Counts no hits.
    pub fn iter(&self) -> Iter<'_, K, V, S> {
        Iter::new(&self.0)
    }

    /// The number of entries, those included whose time is over and that have not been freed yet: exact when nothing else
    /// goes on and nothing ends.
    pub fn len(&self) -> usize {
        self.0.engine.published().len.load(Ordering::Relaxed) as usize
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The total weight (the number of entries, if they are not weighed), as of the last housekeeping.
    pub fn weight(&self) -> u64 {
        self.0.engine.published().weight.load(Ordering::Relaxed)
    }

    /// The bound on [`weight`](Self::weight).
    pub fn capacity(&self) -> u64 {
        self.0.engine.thread_states().capacity()
    }

    /// Changes the capacity: a weight, or a number of entries, as the cache was built. A smaller one evicts at once.
    pub fn set_capacity(&self, capacity: u64) {
        self.0.engine.set_capacity(capacity);
    }

    /// Does all housekeeping that is due: afterwards the weight is within the capacity, and memory that no reader holds has
    /// been freed. Waits for housekeeping that is going on. Never needed for correctness; good in tests and idle moments.
    pub fn run_pending(&self) {
        self.0.engine.run_pending();
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        let (hits, misses) = self.0.engine.thread_states().lookups();
        let published = self.0.engine.published();
        let mut stats = Stats {
            hits,
            misses,
            insertions: published.insertions.load(Ordering::Relaxed),
            evictions: published.evictions.load(Ordering::Relaxed),
            expirations: published.expirations.load(Ordering::Relaxed),
            rejections: published.rejections.load(Ordering::Relaxed),
            ..Stats::default()
        };
        self.0.flights.count(&mut stats);
        stats
    }

    /// Applies pending changes, checks every invariant of the cache's structures, and panics if one is broken. For tests: no
    /// other thread may use the cache while it runs. O(n).
    #[doc(hidden)]
    pub fn validate(&self) {
        self.0.engine.validate();
    }
}

impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("len", &self.len())
            .field("weight", &self.weight())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_part_is_nine_double_lines() {
        // A field more may cost 128 bytes, of which `make heap` counts every one.
        assert_eq!(size_of::<Inner<u64, u64, crate::DefaultHasher>>(), 9 * 128);
    }
}
