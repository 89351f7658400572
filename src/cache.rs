//! The cache: its handle, its lookups and its statistics.

use crate::engine::{Deadlines, Engine, Entry, Published, Settings};
use crate::error::{AdviseError, BuildError};
use crate::expiry::Ttl;
use crate::flight::Flights;
use crate::map::Header;
use crate::negative::Failures;
use crate::prim::sync::Ordering;
use crate::profile::Advice;
use crate::reclaim::{FastGuard, Guard};
use crate::settings::{DefaultHasher, Runner, Weigher};
use crate::snapshot::SnapshotSlot;
use crate::stats::Stats;
#[cfg(all(feature = "stats-file", unix))]
use crate::stats_file::{Record, Registration, Source};
use crate::ticker::Service;
use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A concurrent cache of keys `K` and values `V`. Cloning it returns another handle to the same
/// cache.
///
/// Keys and values may be dropped by any thread that uses the cache, some time after they were
/// removed from it.
///
/// # Examples
///
/// ```
/// use hotset::Cache;
///
/// let cache: Cache<String, usize> = Cache::new(10_000); // at most 10,000 entries
/// let handle = cache.clone();
/// std::thread::spawn(move || handle.insert("a".to_owned(), 1)).join().unwrap();
/// assert_eq!(cache.get("a"), Some(1));
/// assert_eq!(cache.get_or_insert_with("b", || 2), 2); // loads and inserts
/// ```
///
/// # Concurrency
///
/// - **Lookups are lock-free**: `get`, `get_with`, `get_many`, `contains_key` and those of a
///   [`Reader`](crate::Reader) wait for no other thread. With [`Policy::Lru`](crate::Policy::Lru),
///   and where entries expire, a lookup may take the maintenance lock, if it is free, to do work
///   that is due. Two kinds of lookups may wait: one after which an [`Expiry`](crate::Expiry) moves
///   the deadline earlier waits for the maintenance lock, and a miss in a cache with a lazily
///   loaded [snapshot](crate::snapshot) for its locks.
/// - **Writers** (`insert`, `remove`, `compute`, loads that insert) change the table without a lock
///   and record the change in a buffer of their own thread. With a batch of records the thread
///   tries the maintenance lock, under which the policy and the timers are kept, entries are
///   evicted and the table grows; if another thread holds it, the call returns. A writer waits in
///   three cases: its buffer is full, which bounds memory (caches of fewer than 128 entries, and
///   exact LRU, have room for one record); a few entries near its own are just being moved to
///   another table; more than 1,024 threads use the cache.
/// - `run_pending`, `set_capacity` and `save` wait for the maintenance lock. Loading calls wait for
///   another caller's load of the same key.
/// - A waiting thread spins for about a microsecond and then sleeps, so it does not keep a lock
///   holder of lower priority from running. While a lock holder is suspended, lookups continue, and
///   so do writers: one whose buffer is full waits 10 milliseconds per change, and then leaves the
///   change aside. So a cache exceeds its capacity by up to 100 entries per second and writing
///   thread while a lock holder is suspended. Only a writer that needs an entry which the lock
///   holder was just moving to another table waits for it.
/// - No user code runs under the maintenance lock. If a bug makes maintenance panic nevertheless,
///   the cache can still be read; calls that need maintenance panic from then on, instead of
///   waiting for ever, and what the cache can no longer free is leaked.
///
/// # Limits
///
/// A cache holds at most 234 million entries (268 million with
/// [`Policy::Random`](crate::Policy::Random)), and at least 84 million, however removals fragment
/// its queues; about as many can have a deadline. Beyond that, and where the policy finds no memory
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

/// The threads of a cache that has any, and the number of its handles. The threads hold no handle,
/// so that a save in progress does not keep the cache alive.
struct Services<K, V, S> {
    handles: AtomicUsize,
    ticker: Mutex<Option<Service>>,
    last_drop: Option<OnLastDrop<K, V, S>>,
    #[cfg(all(feature = "stats-file", unix))]
    registration: Mutex<Option<Registration>>,
}

/// Called when the last handle is dropped.
pub(crate) type OnLastDrop<K, V, S> = Box<dyn Fn(&Inner<K, V, S>) + Send + Sync>;

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
        // AcqRel pairs with itself: the last handle saves the changes made through all others.
        if let Some(services) = self.0.services.get()
            && services.handles.fetch_sub(1, Ordering::AcqRel) == 1
        {
            // The threads are joined first, so that the cache is dropped by this thread.
            drop(services.ticker.lock().unwrap_or_else(PoisonError::into_inner).take());
            if let Some(last_drop) = &services.last_drop {
                last_drop(&self.0);
            }
            #[cfg(all(feature = "stats-file", unix))]
            drop(
                services
                    .registration
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
        }
    }
}

// After a panic of user code (hasher, equality, loader, weigher, listener, destructor) the cache is
// consistent and usable: no user code runs under a lock, or between two steps that must both
// happen.
impl<K, V, S> UnwindSafe for Cache<K, V, S> {}
impl<K, V, S> RefUnwindSafe for Cache<K, V, S> {}

impl<K: Hash, V, S: BuildHasher> Inner<K, V, S> {
    /// Returns the hash of a key, mixed. Weak hashers vary only some bits. And the upper half of
    /// the default hasher's hashes of an arithmetic progression is an arithmetic progression, which
    /// in some processes would fill only some buckets.
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

    /// Remembers that a load of `key` failed, unless the key was changed since the load began.
    /// `invalidated` is called once the failure can be found, so that a concurrent change either is
    /// seen here or finds the failure and removes it.
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

    /// Removes the remembered failure of a key.
    #[inline(always)]
    pub(crate) fn forget_failure(&self, hash: u64, is: impl Fn(&K) -> bool)
    where
        K: Eq,
    {
        if let Some(failures) = &self.failures {
            failures.forget(hash, is);
        }
    }

    /// Returns the deadlines of a new entry, if it needs any.
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
        if ttl == Ttl::Default && !time.is_active() {
            return None;
        }
        let asks = ttl == Ttl::Keep || time.expiry.is_some();
        let old = asks.then(|| self.find_alive(hash, key, now, guard)).flatten();
        let old = old.map(|old| self.engine.timing(old, guard));
        time.for_insert(hash, (key, value), ttl, old, now)
    }
}

/// Lookups of a batch whose cache misses overlap.
const BATCH: usize = 64;

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Returns a clone of the value for `key`, or `None` if it is absent or expired.
    ///
    /// Counts as a hit or a miss.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::<String, u32>::new(100);
    /// cache.insert("tea".to_owned(), 3);
    /// assert_eq!(cache.get("tea"), Some(3));
    /// assert_eq!(cache.get("milk"), None);
    /// ```
    ///
    /// # Complexity
    ///
    /// O(1).
    ///
    /// # Concurrency
    ///
    /// Lock-free, see [`Cache`].
    #[inline(always)]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.get_with(key, V::clone)
    }

    /// Calls `read` with the value for `key`, and returns its result, or `None` if the key is
    /// absent or expired.
    ///
    /// Counts as a hit or a miss.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// cache.insert("page", "<html>".to_owned());
    /// assert_eq!(cache.get_with("page", String::len), Some(6));
    /// ```
    ///
    /// # Concurrency
    ///
    /// Lock-free. While `read` runs, this cache frees no memory, so it should be short. It may use
    /// the cache.
    #[inline(always)]
    pub fn get_with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.0.hash(key);
        let mut found = None;
        let guard = self.0.engine.pin_fast();
        if let Some(guard) = &guard {
            match self.0.lookup_fast(key, hash, guard.guard()) {
                Ok(entry) => return entry.map(|entry| read(&entry.value)),
                Err(some) => {
                    if let Some(entry) = some.and_then(|some| self.0.hit_alive(some, guard.guard())) {
                        return Some(read(&entry.value));
                    }
                    found = some;
                }
            }
        }
        self.get_slow(key, guard.map(FastGuard::into_guard), hash, found, read)
    }

    /// Completes a `get_with` that the fast path could not. Out of line, so that it costs that no
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
        // Hits that are examined: of a profiled cache, or an eager policy's.
        if let Some((found, earliest)) = found.zip(self.0.engine.coarse_now())
            && let Some(entry) = self.0.hit_not_expiring(found, earliest, &guard)
        {
            return Some(read(&entry.value));
        }
        let now = self.0.engine.now();
        let entry = found
            .and_then(|found| self.0.hit_timed(found, now, &guard))
            .or_else(|| self.0.lookup_slow(key, hash, found, now, &guard));
        let result = entry.map(|entry| read(&entry.value));
        drop(guard);
        self.0.engine.expire_if_due(now);
        result
    }

    /// Returns clones of the values of many keys, in their order, `None` for each that is absent or
    /// expired.
    ///
    /// Faster than single [`get`](Self::get)s when the entries exceed the processor's caches: the
    /// memory accesses of up to 64 keys overlap.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// cache.insert(1, "one");
    /// assert_eq!(cache.get_many(&[1, 2]), [Some("one"), None]);
    /// ```
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

    /// Calls `found` with the values of many keys, in their order.
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
            let mut probed = [None; BATCH];
            let size = size_of::<Entry<K, V>>();
            self.0
                .engine
                .map()
                .probe_batch(&hashes[..n], &mut probed[..n], size, &guard);
            for ((hash, key), probed) in hashes.into_iter().zip(batch.into_iter().flatten()).zip(probed) {
                let entry = self.0.lookup_probed(key, hash, probed, &guard);
                found(entry.map(|entry| &entry.value));
            }
        }
    }

    /// Returns a clone of the value for `key`, without an effect on the policy, the statistics or
    /// the entry's time to idle.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::new(100);
    /// cache.insert("tea", 3);
    /// assert_eq!(cache.peek("tea"), Some(3));
    /// assert_eq!(cache.stats().hits, 0);
    /// ```
    ///
    /// # Concurrency
    ///
    /// Lock-free.
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let now = self.0.engine.now_and_expire();
        let guard = self.0.engine.pin();
        let found = self.0.find_alive(self.0.hash(key), key, now, &guard)?;
        Some(Engine::<K, V>::view(found.0).value.clone())
    }

    /// Whether `key` is in the cache and not expired. Counts neither as a hit nor as a miss.
    ///
    /// # Concurrency
    ///
    /// Lock-free.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.0.engine.now_and_expire();
        let hash = self.0.hash(key);
        self.0.find_alive(hash, key, now, &self.0.engine.pin()).is_some()
    }

    /// Returns the time until the entry of `key` expires if it is not used again: `None` if there
    /// is no entry, `Some(None)` if it never expires. Counts neither as a hit nor as a miss.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// let cache = hotset::Cache::new(100);
    /// cache.insert_with_ttl("token", 17, Duration::from_secs(300));
    /// assert!(cache.remaining("token").unwrap().unwrap() <= Duration::from_secs(300));
    /// ```
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
        // The entry may come from a snapshot, as the first one with a deadline. So the clock is
        // read again.
        Some(timing.and_then(|timing| timing.remaining(self.0.engine.now())))
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

    /// Attaches its threads to a new cache.
    pub(crate) fn attach_services(
        &self,
        ticker: Option<Service>,
        last_drop: Option<OnLastDrop<K, V, S>>,
        #[cfg(all(feature = "stats-file", unix))] registration: Option<Registration>,
    ) {
        let has_any = ticker.is_some() || last_drop.is_some();
        #[cfg(all(feature = "stats-file", unix))]
        let has_any = has_any || registration.is_some();
        if has_any {
            _ = self.0.services.set(Box::new(Services {
                handles: AtomicUsize::new(1),
                ticker: Mutex::new(ticker),
                last_drop,
                #[cfg(all(feature = "stats-file", unix))]
                registration: Mutex::new(registration),
            }));
        }
    }

    /// Returns the number of entries, including expired ones that have not been freed yet. Exact
    /// when no other call runs.
    pub fn len(&self) -> usize {
        self.0.engine.published().len.load(Ordering::Relaxed) as usize
    }

    /// Whether there are no entries, as [`len`](Self::len) counts them.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the total weight as of the last maintenance. Without a weigher it is the number of
    /// entries.
    pub fn weight(&self) -> u64 {
        self.0.engine.published().weight.load(Ordering::Relaxed)
    }

    /// Returns the bound on [`weight`](Self::weight).
    pub fn capacity(&self) -> u64 {
        self.0.engine.thread_states().capacity()
    }

    /// Changes the capacity: a weight, or a number of entries, as the cache was built. A smaller
    /// one evicts before the call returns.
    pub fn set_capacity(&self, capacity: u64) {
        self.0.engine.set_capacity(capacity);
    }

    /// Returns the hit ratio that this cache would have at other sizes, and what to do about it.
    ///
    /// The cache simulates itself at a quarter, half, 1, 2, 4 and 8 times its capacity, with its
    /// own policy, over a sample of its keys. A change of the capacity begins a new simulation.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = hotset::Cache::builder().max_entries(500).profile().build()?;
    /// for n in 0..20_000u32 {
    ///     cache.get_or_insert_with(n % 800, || n); // a loop over more keys than fit
    /// }
    /// let advice = cache.advise()?;
    /// assert_eq!(advice.doubt, None);
    /// let double = advice.points.iter().find(|point| point.factor == 2.0).unwrap();
    /// assert!(double.hit_ratio > 0.95); // 1,000 entries: the loop fits
    /// assert!(advice.hit_ratio < 0.7);
    /// assert!(advice.to_string().starts_with("Make it larger: the hit ratio is "));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AdviseError::NotProfiled`] if the cache was built without
    /// [`profile`](crate::Builder::profile), and [`AdviseError::NoBound`] if its capacity was set
    /// to 0 or above 2^28 entries.
    ///
    /// # Complexity
    ///
    /// Some milliseconds: it replays the last 32,768 lookups of sampled keys.
    ///
    /// # Concurrency
    ///
    /// Waits for a thread that is simulating. No other call waits for this one.
    pub fn advise(&self) -> Result<Advice, AdviseError> {
        if self.0.engine.is_profiled() && !crate::profile::is_bound(self.capacity(), self.0.weigher.is_some()) {
            return Err(AdviseError::NoBound);
        }
        self.0.engine.advise().ok_or(AdviseError::NotProfiled)
    }

    /// Performs all maintenance that is due. Afterwards the weight is within the capacity, and
    /// memory that no reader holds has been freed.
    ///
    /// Never needed for correctness. Useful in tests and while a program is idle.
    ///
    /// # Concurrency
    ///
    /// Waits for maintenance by another thread.
    pub fn run_pending(&self) {
        self.0.engine.run_pending();
    }

    /// Returns the statistics since the cache was built.
    pub fn stats(&self) -> Stats {
        self.0.stats(self.0.engine.published())
    }

    /// Applies pending changes, checks every invariant of the cache's structures, and panics if one
    /// is broken. For tests: no other thread may use the cache while it runs. O(n).
    #[doc(hidden)]
    pub fn validate(&self) {
        self.0.engine.validate();
    }
}

impl<K, V, S> Inner<K, V, S> {
    /// Returns the statistics as of `published`.
    pub(crate) fn stats(&self, published: &Published) -> Stats {
        let (hits, misses, stale_hits) = self.engine.thread_states().lookups();
        let mut stats = Stats {
            hits,
            misses,
            stale_hits,
            insertions: published.insertions.load(Ordering::Relaxed),
            evictions: published.evictions.load(Ordering::Relaxed),
            evicted_weight: self.engine.evicted_weight(published),
            expirations: published.expirations.load(Ordering::Relaxed),
            rejections: published.rejections.load(Ordering::Relaxed),
            ..Stats::default()
        };
        self.flights.fill_stats(&mut stats);
        stats
    }
}

#[cfg(all(feature = "stats-file", unix))]
impl<K, V, S> Inner<K, V, S> {
    /// Writes the figures of the cache, as of the last maintenance, into `record`. Takes no lock
    /// but those of the flights' shards, briefly, and runs no user code.
    pub(crate) fn fill_record(&self, record: &mut Record) {
        let published = self.engine.last_published();
        let capacity = self.engine.thread_states().capacity();
        // `usize::MAX` entries, and a weight of `u64::MAX`, are no bound.
        let bounded = capacity != u64::MAX;
        record.set(
            &self.stats(published),
            self.weigher.is_some(),
            (
                published.len.load(Ordering::Relaxed),
                published.weight.load(Ordering::Relaxed),
                bounded.then_some(capacity),
            ),
        );
        if crate::profile::is_bound(capacity, self.weigher.is_some())
            && let Some(advice) = self.engine.curve()
        {
            let points = advice.points.iter();
            record.set_curve(points.map(|point| (point.capacity, point.hit_ratio, point.bytes)));
        }
    }
}

#[cfg(all(feature = "stats-file", unix))]
impl<K, V, S> Source for Inner<K, V, S>
where
    K: Hash + Eq + Send + Sync,
    V: Send + Sync,
    S: BuildHasher + Send + Sync,
{
    fn fill(&self, record: &mut Record) {
        self.fill_record(record);
    }

    fn observe(&self) {
        self.engine.observe_pulse();
    }

    fn clear(&self, _: u64, _: u64) -> bool {
        Inner::clear(self);
        true
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
