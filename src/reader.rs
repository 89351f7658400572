//! Reading by reference: a reader that stays pinned, and iteration.

use crate::cache::Inner;
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
///
/// [`Cache::reader`]: crate::Cache::reader
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

/// All entries, in no useful order; made by [`Cache::iter`](crate::Cache::iter).
///
/// Weakly consistent: an entry that is there all the time comes exactly once; one that comes or goes meanwhile, at most
/// once per time it was inserted. Holds nothing between steps: a slow iteration delays nobody.
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
            // Cloning is user code: it may panic, or use the cache.
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
