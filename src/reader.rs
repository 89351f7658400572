//! Reading by reference: a reader that stays pinned, and iteration.

use crate::cache::{Cache, Inner};
use crate::engine::{Engine, Entry, Handle};
use crate::reclaim::Guard;
use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// A pinned reader: what it finds stays readable, by reference, until it is dropped. Made by [`Cache::reader`].
///
/// It saves a series of lookups the cost of pinning each, and of cloning values. Not `Send`.
///
/// # Concurrency
/// While it lives, its cache frees nothing that is removed, replaced or evicted, however much that is, so keep it for moments.
/// Afterwards calls free what waited, at most some hundred entries each. Other caches of the process are not concerned. A
/// reader that is leaked (`std::mem::forget`, `Box::leak`) has this effect until its cache is dropped, also when its
/// thread has ended: what it found may still be borrowed. (With the feature `crossbeam` a reader holds up all caches of the process.)
pub struct Reader<'c, K, V, S> {
    pub(crate) inner: &'c Inner<K, V, S>,
    pub(crate) guard: Guard,
}

impl<K: Hash + Eq, V, S: BuildHasher> Reader<'_, K, V, S> {
    /// The key's value. Counts as a hit or a miss, like [`Cache::get`](crate::Cache::get); but does not begin to free entries
    /// whose time is over.
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

    /// The entries from the one worth most to the one that would make room first, as of this call. Counts nothing.
    ///
    /// Takes O(n) time and 8n bytes, and holds up housekeeping (not other calls) while the order is copied.
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

/// An iterator over clones of all entries, in no particular order. Created by [`Cache::iter`](crate::Cache::iter).
///
/// Weakly consistent: an entry that is in the cache during the whole iteration is returned exactly once. One that is inserted
/// or removed during the iteration is returned at most once per insertion. No guard is held between steps: a slow iteration
/// does not delay the freeing of memory.
pub struct Iter<'c, K, V, S>(Buffered<'c, K, V, S, (K, V)>);

/// An iterator over clones of all keys, in no particular order. Created by [`Cache::keys`](crate::Cache::keys). Weakly
/// consistent, as [`Iter`].
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
