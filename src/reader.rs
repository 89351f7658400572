//! Reads by reference: a reader that stays pinned, and iteration.

use crate::cache::{Cache, Inner};
use crate::engine::{Engine, Entry, Handle};
use crate::reclaim::Guard;
use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// A pinned reader, whose lookups return references. Created by [`Cache::reader`].
///
/// What it finds stays readable until the reader is dropped. A series of lookups through one reader
/// pins once, and clones no values. A reader is not `Send`.
///
/// # Examples
///
/// ```
/// let cache = hotset::Cache::new(100);
/// cache.insert("tea", "Assam".to_owned());
/// let reader = cache.reader();
/// let tea: Option<&String> = reader.get("tea");
/// assert_eq!(tea.map(String::as_str), Some("Assam"));
/// ```
///
/// # Concurrency
///
/// While a reader exists, its cache frees nothing that is removed, replaced or evicted, however
/// much that is, so keep it for a short time only. Afterwards, calls free what waited, at most some
/// hundred entries each. Other caches of the process are not affected. A reader that is leaked
/// (`std::mem::forget`, `Box::leak`) has this effect until its cache is dropped, also when its
/// thread has ended, because what it found may still be borrowed. With the feature `crossbeam`, a
/// reader has this effect on all caches of the process.
pub struct Reader<'c, K, V, S> {
    pub(crate) inner: &'c Inner<K, V, S>,
    pub(crate) guard: Guard,
}

impl<K, V, S> Cache<K, V, S> {
    /// Returns a pinned [`Reader`], for lookups by reference.
    #[inline]
    pub fn reader(&self) -> Reader<'_, K, V, S> {
        Reader {
            inner: &self.0,
            guard: self.0.engine.pin(),
        }
    }

    /// Returns an iterator over clones of all entries, in no particular order. Counts no hits.
    ///
    /// Weakly consistent, see [`Iter`]. [`for_each`](Self::for_each) visits without clones.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache: hotset::Cache<u32, u32> = [(1, 10), (2, 20)].into_iter().collect();
    /// let total: u32 = cache.iter().map(|(_, value)| value).sum();
    /// assert_eq!(total, 30);
    /// ```
    pub fn iter(&self) -> Iter<'_, K, V, S> {
        Iter::new(&self.0)
    }

    /// Returns an iterator over clones of all keys, in no particular order. Counts no hits. Weakly
    /// consistent, as [`iter`](Self::iter).
    pub fn keys(&self) -> Keys<'_, K, V, S> {
        Keys::new(&self.0)
    }

    /// Calls `visit` for every entry that has not expired, in no particular order, without clones.
    /// Counts no hits.
    ///
    /// Weakly consistent: an entry that is in the cache during the whole call is visited exactly
    /// once.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache: hotset::Cache<u32, String> = [(1, "one".to_owned())].into_iter().collect();
    /// let mut bytes = 0;
    /// cache.for_each(|_, value| bytes += value.len());
    /// assert_eq!(bytes, 3);
    /// ```
    ///
    /// # Concurrency
    ///
    /// Takes no lock. `visit` may use the cache. The cache frees memory between the calls of
    /// `visit` only every few hundred entries, so `visit` should be short.
    pub fn for_each(&self, mut visit: impl FnMut(&K, &V)) {
        let mut scan = Scan::new(&self.0);
        while scan.visit_some(&mut visit) {}
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Reader<'_, K, V, S> {
    /// Returns a reference to the value for `key`, or `None` if it is absent or expired.
    ///
    /// Counts as a hit or a miss, like [`Cache::get`](crate::Cache::get), but does not free expired
    /// entries.
    ///
    /// # Complexity
    ///
    /// O(1).
    ///
    /// # Concurrency
    ///
    /// Lock-free.
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.inner
            .lookup(key, self.inner.hash(key), &self.guard)
            .map(|entry| &entry.value)
    }

    /// Returns an iterator over the entries, from the most to the least valuable to the policy, as
    /// of this call. Counts no hits.
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = hotset::Cache::builder().max_entries(100).policy(hotset::Policy::Lru).build()?;
    /// cache.insert("old", 1);
    /// cache.insert("new", 2);
    /// let reader = cache.reader();
    /// let keys: Vec<_> = reader.hottest().map(|(key, _)| *key).collect();
    /// assert_eq!(keys, ["new", "old"]);
    /// # Ok::<(), hotset::BuildError>(())
    /// ```
    ///
    /// # Complexity
    ///
    /// O(n) time, and 8 bytes per entry.
    ///
    /// # Concurrency
    ///
    /// Holds the maintenance lock while it copies the order. See [`Cache`](crate::Cache) for the
    /// calls that wait for that lock.
    pub fn hottest(&self) -> impl Iterator<Item = (&K, &V)> {
        let (engine, now) = (&self.inner.engine, self.inner.engine.now());
        let handles = engine.hottest(&self.guard).into_iter();
        let alive = handles.filter(move |handle| !engine.is_expired(handle.0, now));
        alive.map(|handle| {
            let entry: &Entry<K, V> = Engine::<K, V>::view(handle.0);
            (&entry.key, &entry.value)
        })
    }
}

impl<K, V, S> fmt::Debug for Reader<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// A walk over all entries, in steps of some hundred: the state of the iterators.
pub(crate) struct Scan<'c, K, V, S> {
    inner: &'c Inner<K, V, S>,
    /// The hash from which the walk continues; 2^32 at the end.
    from: u64,
}

impl<'c, K, V, S> Scan<'c, K, V, S> {
    pub(crate) fn new(inner: &'c Inner<K, V, S>) -> Self {
        Self { inner, from: 0 }
    }

    /// Visits the next entries that have not expired. Returns false at the end.
    pub(crate) fn visit_some(&mut self, visit: &mut impl FnMut(&K, &V)) -> bool {
        if self.from >= 1 << 32 {
            return false;
        }
        let engine = &self.inner.engine;
        let now = engine.now_and_expire();
        let guard = engine.pin();
        let mut handles = Vec::new();
        self.from = engine
            .map()
            .walk(self.from, |header| handles.push(Handle(header)), &guard);
        // `visit` is user code: it may panic, or use the cache. So it runs after the walk.
        handles.retain(|handle| !engine.is_expired(handle.0, now));
        for handle in handles {
            let entry: &Entry<K, V> = Engine::<K, V>::view(handle.0);
            visit(&entry.key, &entry.value);
        }
        true
    }
}

/// The items that a scan has cloned and the iterator has not returned yet.
struct Buffered<'c, K, V, S, T> {
    scan: Scan<'c, K, V, S>,
    ready: Vec<T>,
}

impl<K, V, S, T> Buffered<'_, K, V, S, T> {
    fn next(&mut self, clone: impl Fn(&K, &V) -> T) -> Option<T> {
        let ready = &mut self.ready;
        while ready.is_empty() && self.scan.visit_some(&mut |key, value| ready.push(clone(key, value))) {}
        ready.pop()
    }
}

/// An iterator over clones of all entries, in arbitrary order. Created by
/// [`Cache::iter`](crate::Cache::iter).
///
/// # Concurrency
///
/// Weakly consistent: an entry that is in the cache throughout the iteration is returned exactly
/// once. One that is inserted or removed during it is returned at most once per insertion. Between
/// two steps the iterator holds neither a lock nor memory of the cache, so a slow iteration delays
/// no other thread.
pub struct Iter<'c, K, V, S>(Buffered<'c, K, V, S, (K, V)>);

/// An iterator over clones of all keys, in arbitrary order. Created by
/// [`Cache::keys`](crate::Cache::keys). Weakly consistent, as [`Iter`].
pub struct Keys<'c, K, V, S>(Buffered<'c, K, V, S, K>);

impl<'c, K, V, S> Iter<'c, K, V, S> {
    pub(crate) fn new(inner: &'c Inner<K, V, S>) -> Self {
        Self(Buffered {
            scan: Scan::new(inner),
            ready: Vec::new(),
        })
    }
}

impl<'c, K, V, S> Keys<'c, K, V, S> {
    pub(crate) fn new(inner: &'c Inner<K, V, S>) -> Self {
        Self(Buffered {
            scan: Scan::new(inner),
            ready: Vec::new(),
        })
    }
}

impl<K: Clone, V: Clone, S> Iterator for Iter<'_, K, V, S> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        self.0.next(|key, value| (key.clone(), value.clone()))
    }
}

impl<K: Clone, V, S> Iterator for Keys<'_, K, V, S> {
    type Item = K;

    fn next(&mut self) -> Option<K> {
        self.0.next(|key, _| key.clone())
    }
}

impl<'c, K: Clone, V: Clone, S> IntoIterator for &'c Cache<K, V, S> {
    type Item = (K, V);
    type IntoIter = Iter<'c, K, V, S>;

    /// Returns an iterator over clones of all entries, as [`Cache::iter`] does.
    fn into_iter(self) -> Iter<'c, K, V, S> {
        self.iter()
    }
}

/// Inserts the pairs, as [`Cache::insert`] does.
impl<K: Hash + Eq, V, S: BuildHasher> Extend<(K, V)> for Cache<K, V, S> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        pairs.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

/// As for `Cache`: a shared handle is enough.
impl<K: Hash + Eq, V, S: BuildHasher> Extend<(K, V)> for &Cache<K, V, S> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        pairs.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

/// Builds a cache whose capacity is the number of pairs, with default settings, and inserts them.
///
/// # Panics
///
/// As [`Cache::new`].
impl<K: Hash + Eq, V> FromIterator<(K, V)> for Cache<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        let mut cache = Self::new(pairs.len());
        cache.extend(pairs);
        cache
    }
}

impl<K, V, S> fmt::Debug for Iter<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

impl<K, V, S> fmt::Debug for Keys<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}
