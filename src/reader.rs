//! Reads by reference: a reader that stays pinned, and iteration.

use crate::cache::Inner;
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
///
/// [`Cache::reader`]: crate::Cache::reader
pub struct Reader<'c, K, V, S> {
    pub(crate) inner: &'c Inner<K, V, S>,
    pub(crate) guard: Guard,
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

/// An iterator over clones of all entries, in arbitrary order. Created by
/// [`Cache::iter`](crate::Cache::iter).
///
/// # Concurrency
///
/// Weakly consistent: an entry that is in the cache throughout the iteration is returned exactly
/// once. One that is inserted or removed during it is returned at most once per insertion. Between
/// two steps the iterator holds neither a lock nor memory of the cache, so a slow iteration delays
/// no other thread.
pub struct Iter<'c, K, V, S> {
    inner: &'c Inner<K, V, S>,
    from: u64,
    ready: Vec<(K, V)>,
}

impl<'c, K, V, S> Iter<'c, K, V, S> {
    pub(crate) fn new(inner: &'c Inner<K, V, S>) -> Self {
        Self {
            inner,
            from: 0,
            ready: Vec::new(),
        }
    }
}

impl<K: Clone, V: Clone, S> Iterator for Iter<'_, K, V, S> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        while self.ready.is_empty() && self.from < 1 << 32 {
            let now = self.inner.engine.now_and_expire();
            let guard = self.inner.engine.pin();
            let mut handles = Vec::new();
            self.from = self
                .inner
                .engine
                .map()
                .walk(self.from, |header| handles.push(Handle(header)), &guard);
            // Only after the walk: cloning is user code, which may panic or use the cache.
            handles.retain(|handle| !self.inner.engine.is_expired(handle.0, now));
            self.ready.extend(handles.into_iter().map(|handle| {
                let entry: &Entry<K, V> = Engine::<K, V>::view(handle.0);
                (entry.key.clone(), entry.value.clone())
            }));
        }
        self.ready.pop()
    }
}

impl<K, V, S> fmt::Debug for Iter<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
