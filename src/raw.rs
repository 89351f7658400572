//! For the bindings to other languages, whose keys and values lie together in memory of their own. Not part of the promise
//! that the rest of the crate makes: it may change in any version.

use crate::cache::Cache;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::map::reclaim::pin;
pub use crate::snapshot::EntryCodec;
use crate::snapshot::{LoadOptions, Loaded, SaveOptions, Saved, SnapshotError};
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::path::Path;

/// [`Cache::try_get_or_insert_with_ttl`] by a borrowed key: an owned one is made by `owned` where the key is missing, and what is
/// kept with a loaded value is the key that `stored` makes of it, which must be equal. Never reloads a value that is due.
pub fn try_get_or_insert<K, V, S, Q, E>(
    cache: &Cache<K, V, S>,
    key: &Q,
    owned: impl FnOnce() -> Result<K, E>,
    load: impl FnOnce() -> Result<(V, Ttl), E>,
    stored: impl FnOnce(&V) -> K,
) -> Result<V, LoadError<E>>
where
    K: Hash + Eq + Clone + Borrow<Q>,
    V: Clone,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
    E: Send + Sync + 'static,
{
    cache.0.engine.now_and_tick();
    let hash = cache.0.hash(key);
    let guard = pin();
    if let Some(entry) = cache.0.lookup(key, hash, &guard) {
        return Ok(entry.value.clone());
    }
    let key = owned().map_err(|error| LoadError::Failed(error.into()))?;
    cache.load_missing(hash, key, guard, load, |_, value| stored(value))
}

/// [`Cache::save_with`] by a codec for whole entries.
pub fn save<C: EntryCodec<K, V>, K: Hash + Eq, V, S: BuildHasher>(
    cache: &Cache<K, V, S>,
    path: &Path,
    options: &SaveOptions,
) -> Result<Saved, SnapshotError> {
    cache.0.save::<C>(path, options)
}

/// [`Cache::load_with`] by a codec for whole entries.
pub fn load<C: EntryCodec<K, V>, K: Hash + Eq, V, S: BuildHasher>(
    cache: &Cache<K, V, S>,
    path: &Path,
    options: &LoadOptions,
) -> Result<Loaded, SnapshotError> {
    cache.load_as::<C>(path, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_is_kept_is_the_values() {
        // Equal keys that can be told apart.
        #[derive(Clone)]
        struct Key(&'static str, u32);
        impl Borrow<str> for Key {
            fn borrow(&self) -> &str {
                self.0
            }
        }
        impl Hash for Key {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }
        impl PartialEq for Key {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl Eq for Key {}

        let cache: Cache<Key, u32> = Cache::new(10);
        let get = |value| {
            let owned = || Ok::<_, &str>(Key("a", 1));
            try_get_or_insert(&cache, "a", owned, || value, |value| Key("a", *value))
        };
        assert!(matches!(get(Err("no")), Err(LoadError::Failed(error)) if *error == "no"));
        assert!(matches!(get(Ok((7, Ttl::Default))), Ok(7)));
        assert!(matches!(get(Err("not asked")), Ok(7)));
        assert_eq!(
            cache.iter().map(|(key, value)| (key.1, value)).collect::<Vec<_>>(),
            [(7, 7)]
        );
        let refused = || Err("no memory");
        let missing = try_get_or_insert(&cache, "b", refused, || Ok((0, Ttl::Default)), |_| Key("b", 0));
        assert!(matches!(missing, Err(LoadError::Failed(error)) if *error == "no memory"));
    }
}
