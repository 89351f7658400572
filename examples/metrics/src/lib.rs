//! What the recipes of hotset's metrics share: the figures of caches of any type, by name.

use hotset::{Cache, Stats};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// The figures of a cache at one time.
pub struct Figures {
    pub stats: Stats,
    pub entries: u64,
    pub weight: u64,
    pub capacity: u64,
}

type Read = dyn Fn() -> Figures + Send + Sync;

/// The caches of a program by name, which is the label `cache` of their metrics. It holds a handle
/// of each.
#[derive(Clone, Default)]
pub struct Caches(Vec<(String, Arc<Read>)>);

impl Caches {
    /// Adds a cache. The names must differ.
    pub fn with<K, V, S>(mut self, name: &str, cache: &Cache<K, V, S>) -> Self
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let cache = cache.clone();
        let read = move || Figures {
            stats: cache.stats(),
            entries: cache.len() as u64,
            weight: cache.weight(),
            capacity: cache.capacity(),
        };
        self.0.push((name.to_owned(), Arc::new(read)));
        self
    }

    /// Returns the figures of each cache, as of now.
    pub fn read(&self) -> impl Iterator<Item = (&str, Figures)> {
        self.0.iter().map(|(name, read)| (name.as_str(), read()))
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// A cache with one hit, two misses, one load and one failed load, for the examples.
pub fn used_cache() -> Cache<u64, String> {
    let pages = Cache::new(1_000);
    pages.get_or_insert_with(1, || "<html>".to_owned());
    pages.get_or_insert_with(1, || unreachable!("it is cached"));
    assert!(
        pages
            .try_get_or_insert_with(2, || Err::<String, _>("no such page"))
            .is_err()
    );
    pages.run_pending();
    pages
}
