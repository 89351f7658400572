//! For the bindings to other languages, whose keys and values lie together in memory of their own. Not part of the promise
//! that the rest of the crate makes: it may change in any version.

use crate::cache::{Cache, Inner};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight;
use crate::prim::clock;
use crate::reclaim::{self, unprotected};
pub use crate::snapshot::EntryCodec;
pub use crate::snapshot::session::{EntryMeta, LoadSession, SaveSession};
use crate::snapshot::{LoadOptions, Loaded, SaveOptions, Saved, SnapshotError};
use crate::stats::Cause;
use crate::write::Fence;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::path::Path;
use std::time::Duration;

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
    cache.0.engine.now_and_expire();
    let hash = cache.0.hash(key);
    let guard = cache.0.engine.pin();
    if let Some(entry) = cache.0.lookup(key, hash, &guard) {
        return Ok(entry.value.clone());
    }
    let key = owned().map_err(|error| LoadError::Failed(error.into()))?;
    let loaded = cache.load_missing(hash, key, guard, load, |_, value| stored(value));
    loaded.map(|loaded| loaded.value)
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

/// [`Cache::get_with`] for a process in which one lock is held around every use of every cache, as by an interpreter: what nobody can
/// free meanwhile need not be protected, which is half of what a lookup costs.
///
/// # Safety
/// No other thread uses any cache of the process meanwhile; and hashing, comparing and `read` use none.
#[inline(always)]
pub unsafe fn get_exclusive<K, V, S, Q, R>(cache: &Cache<K, V, S>, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    // SAFETY: the caller's promise.
    unsafe { get_alone_if(cache, key, |_| true, read) }
}

/// [`get_exclusive`], where every entry that is found is a miss unless `allowed` returns true for the current time: nanoseconds of
/// [`clock_nanos`], or 0 in a cache whose entries never expire.
///
/// # Safety
/// As for [`get_exclusive`]; `allowed` uses no cache either.
#[inline(always)]
pub unsafe fn get_alone_if<K, V, S, Q, R>(
    cache: &Cache<K, V, S>,
    key: &Q,
    allowed: impl FnOnce(u64) -> bool,
    read: impl FnOnce(&V) -> R,
) -> Option<R>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    // SAFETY: the caller's promise.
    let guard = unsafe { unprotected() };
    match cache.0.lookup_fast(key, cache.0.hash(key), &guard) {
        Ok(entry) => entry.map(|entry| read(&entry.value)),
        Err(Some(found)) if cache.0.engine.hits_are_quiet() => {
            let now = cache.0.engine.now();
            if !allowed(now) {
                cache.0.engine.thread_states().count(&guard, false);
                return None;
            }
            let Some(entry) = cache.0.hit_timed(found, now, &guard) else {
                return get_protected(cache, key, read);
            };
            let result = read(&entry.value);
            // From here on entries may be freed.
            cache.0.engine.expire_if_due(now);
            Some(result)
        }
        Err(found) => {
            if found.is_some() && !allowed(cache.0.engine.now()) {
                cache.0.engine.thread_states().count(&guard, false);
                return None;
            }
            get_protected(cache, key, read)
        }
    }
}

/// Returns the current time of caches without a clock of their own: nanoseconds since some instant of this process, about a millisecond late
/// at most.
pub fn clock_nanos() -> u64 {
    clock::nanos()
}

/// The hits of [`get_exclusive`] that need a single look; of others nothing is known then, and nothing was counted. `hash` is what the
/// cache's hasher makes of the key, `equal` tells the key.
///
/// # Safety
/// As for [`get_exclusive`].
#[inline(always)]
pub unsafe fn probe_exclusive<K: Hash, V, S: BuildHasher, R>(
    cache: &Cache<K, V, S>,
    hash: u64,
    equal: impl FnOnce(&K) -> bool,
    read: impl FnOnce(&V) -> R,
) -> Option<R> {
    // SAFETY: the caller's promise.
    let guard = unsafe { unprotected() };
    let hash = Inner::<K, V, S>::mix_hash(hash);
    cache.0.probe(hash, equal, &guard).map(|entry| read(&entry.value))
}

/// [`Cache::get_many`] without memory of its own: shows the values of `keys`, in their order, while none of them is freed.
pub fn get_each<'k, K, V, S, Q>(
    cache: &Cache<K, V, S>,
    keys: impl IntoIterator<Item = &'k Q>,
    found: impl FnMut(Option<&V>),
) where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized + 'k,
{
    cache.get_each(keys, found);
}

/// Reads the clock for the first time, which looks into a file on Linux, unless that was done.
pub fn start_clock() {
    _ = clock::now();
}

/// Makes the child of a fork ready for caches of its own, whatever other threads of its parent were doing: what all caches of
/// a process share is left by the threads that the fork left behind. Inherited caches are not: they must not be used.
///
/// Allocates nothing and waits for nothing, so an atfork handler may call it.
///
/// # Safety
/// The calling thread is the only one of the process, and never returns into a call of this crate that it was in at the fork.
pub unsafe fn fork_child() {
    // SAFETY: the caller's promise.
    unsafe { reclaim::fork_child() };
    flight::fork_child();
}

/// [`Cache::get_with`], apart: so [`get_exclusive`] needs nothing of what protects it.
#[cold]
#[inline(never)]
fn get_protected<K, V, S, Q, R>(cache: &Cache<K, V, S>, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    cache.get_with(key, read)
}

/// [`Cache::insert_with_ttl`] of a key that was looked for by a borrowed form of it, by which it is hashed and compared.
pub fn insert<K, V, S, Q>(cache: &Cache<K, V, S>, sought: &Q, key: K, value: V, ttl: Ttl)
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    let inner = &*cache.0;
    let timed = ttl != Ttl::Default || inner.engine.time().is_active();
    let now = if timed { inner.engine.now_for(ttl) } else { 0 };
    let hash = inner.hash(sought);
    let weight = inner.weigh(&key, &value);
    let guard = cache.0.engine.pin_fenced();
    inner.engine.map().prefetch(hash, &guard);
    let times = timed
        .then(|| inner.times(hash, (&key, &value), ttl, now, &guard))
        .flatten();
    inner.begin_change(hash, sought, Fence::Executed);
    let new = inner.engine.make(hash, (key, value), weight, times, &guard);
    inner
        .engine
        .insert(hash, new, |other, _| other.borrow() == sought, guard);
    inner.engine.expire_if_due(now);
}

/// [`Cache::get_with`], which also tells `read` whether the value is due for a reload ([`Builder::refresh_after`]). It tells one
/// caller, who is to insert a new value, or to say that there is none ([`reload_failed`]).
///
/// [`Builder::refresh_after`]: crate::Builder::refresh_after
pub fn get_due<K, V, S, Q, R>(cache: &Cache<K, V, S>, key: &Q, read: impl FnOnce(&V, bool) -> R) -> Option<R>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    let now = cache.0.engine.now_and_expire();
    let guard = cache.0.engine.pin();
    let entry = cache.0.lookup(key, cache.0.hash(key), &guard)?;
    let due = cache.0.engine.claim_reload(entry, now, &guard);
    Some(read(&entry.value, due))
}

/// A reload that [`get_due`] asked for came to nothing: the old value lives on for the cache's grace ([`Builder::stale_if_error`]),
/// and is soon due again.
///
/// [`Builder::stale_if_error`]: crate::Builder::stale_if_error
pub fn reload_failed<K, V, S, Q>(cache: &Cache<K, V, S>, key: &Q)
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    let (inner, guard) = (&*cache.0, cache.0.engine.pin());
    let (now, time) = (inner.engine.now(), inner.engine.time());
    let found = inner.peek(inner.hash(key), key, &guard);
    if let Some(times) = found.and_then(|found| inner.engine.timing(found, &guard)) {
        if time.grace > 0 {
            times.extend(now.saturating_add(time.grace));
        }
        times.unclaim_reload(now.saturating_add(time.retry()));
    }
}

/// Gives back a reload that [`get_due`] handed out and that was not tried: the next caller gets it. Returns whether the key is there.
pub fn reload_abandoned<K, V, S, Q>(cache: &Cache<K, V, S>, key: &Q) -> bool
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    let (inner, guard) = (&*cache.0, cache.0.engine.pin());
    let found = inner.peek(inner.hash(key), key, &guard);
    if let Some(times) = found.and_then(|found| inner.engine.timing(found, &guard)) {
        times.unclaim_reload(inner.engine.now());
    }
    found.is_some()
}

/// Shows every entry, those included whose time is over: each once, if nobody changes the cache meanwhile. Takes no lock, and
/// allocates nothing that it does not free.
pub fn visit<K, V, S>(cache: &Cache<K, V, S>, mut see: impl FnMut(&K, &V)) {
    let (guard, mut from) = (cache.0.engine.pin(), 0);
    while from < 1 << 32 {
        let see = |header| {
            let entry = Engine::<K, V>::view(header);
            see(&entry.key, &entry.value);
        };
        from = cache.0.engine.map().walk(from, see, &guard);
    }
}

/// Shows every entry that was unlinked and is not freed yet: with [`visit`] all that the cache holds, each once, if nobody uses it
/// meanwhile. Takes no lock that it would have to wait for, and allocates nothing that it does not free.
pub fn visit_unlinked<K, V, S>(cache: &Cache<K, V, S>, mut see: impl FnMut(&K, &V)) {
    let guard = cache.0.engine.pin();
    for entry in cache.0.engine.unlinked(&guard) {
        let entry = Engine::<K, V>::view(entry.0);
        see(&entry.key, &entry.value);
    }
}

/// Removes the entries that `keep` says no to, as of the moment that it sees them: O(n).
pub fn retain<K, V, S>(cache: &Cache<K, V, S>, mut keep: impl FnMut(&K, &V) -> bool) {
    cache.0.engine.retain(|entry| keep(&entry.key, &entry.value));
}

/// Removes the entry that would go first, and returns what `take` makes of it; `None` if there is none. The policy's part is O(1). `take` may
/// be called for an entry that another thread removes at that moment: its last result is the one of what was removed.
pub fn pop_coldest<K, V, S, R>(cache: &Cache<K, V, S>, mut take: impl FnMut(&K, &V) -> R) -> Option<R> {
    let engine = &cache.0.engine;
    loop {
        let (now, guard) = (engine.now_and_expire(), engine.pin());
        let coldest = engine.coldest(&guard)?;
        let taken = (!engine.is_expired(coldest.0, now)).then(|| {
            let entry = Engine::<K, V>::view(coldest.0);
            take(&entry.key, &entry.value)
        });
        if engine.remove_exact(coldest, Cause::Explicit, guard) && taken.is_some() {
            return taken;
        }
    }
}

/// Removes the entries that have expired, and returns what `take` makes of them: O(n).
pub fn take_expired<K, V, S, R>(cache: &Cache<K, V, S>, mut take: impl FnMut(&K, &V) -> R) -> Vec<R> {
    let (engine, now) = (&cache.0.engine, cache.0.engine.now());
    let mut expired = Vec::new();
    engine.retain_by(|handle| {
        let is_expired = engine.is_expired(handle.0, now);
        if is_expired {
            let entry = Engine::<K, V>::view(handle.0);
            expired.push(take(&entry.key, &entry.value));
        }
        !is_expired
    });
    expired
}

/// Returns what `read` makes of the key's value, and the remaining TTL of the entry (`None`: it does not expire); `None` if the key is
/// absent or expired. Both are of one entry. Counts nothing.
pub fn peek_with_remaining<K, V, S, Q, R>(
    cache: &Cache<K, V, S>,
    key: &Q,
    read: impl FnOnce(&V) -> R,
) -> Option<(R, Option<Duration>)>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    let (inner, now) = (&*cache.0, cache.0.engine.now_and_expire());
    let hash = inner.hash(key);
    let guard = inner.engine.pin();
    let found = inner.find_alive(hash, key, now, &guard)?;
    let timing = inner.engine.timing(found, &guard);
    // (It may have come from a snapshot, as the first with an expiration: so the clock is read again.)
    let left = timing.and_then(|timing| timing.left(inner.engine.now()));
    Some((read(&Engine::<K, V>::view(found.0).value), left))
}

/// An entry's remaining time: until it expires if it is not used again, and however often it is used. `None`: it does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Until its deadline.
    pub unused: Option<Duration>,
    /// Until the limit that hits cannot move the deadline beyond: its time to live.
    pub used: Option<Duration>,
}

/// Returns what `take` makes of each entry and its remaining time, from the one worth most to the one that would make room first. Counts
/// nothing.
pub fn hottest_with_remaining<K, V, S, R>(
    cache: &Cache<K, V, S>,
    mut take: impl FnMut(&K, &V, Remaining) -> Option<R>,
) -> Vec<R> {
    let engine = &cache.0.engine;
    let guard = engine.pin();
    let handles = engine.hottest(&guard);
    // (After the order: an entry of a snapshot may be the first with an expiration.)
    let now = engine.now();
    let alive = handles.into_iter().filter(|handle| !engine.is_expired(handle.0, now));
    let taken = alive.filter_map(|handle| {
        let timing = engine.timing(handle, &guard);
        let remaining = Remaining {
            unused: timing.and_then(|timing| timing.left(now)),
            used: timing.and_then(|timing| timing.left_at_most(now)),
        };
        let entry = Engine::<K, V>::view(handle.0);
        take(&entry.key, &entry.value, remaining)
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;
    use std::sync::Arc;
    use std::time::Duration;

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

    #[test]
    fn what_is_inserted_as_sought_is_found_and_seen() {
        let cache: Cache<String, u32> = Cache::new(100);
        insert(&cache, "a", "a".to_owned(), 1, Ttl::Default);
        insert(&cache, "a", "a".to_owned(), 2, Ttl::Default);
        insert(&cache, "b", "b".to_owned(), 3, Ttl::After(Duration::from_secs(60)));
        assert_eq!((cache.get("a"), cache.get("b"), cache.len()), (Some(2), Some(3), 2));
        assert!(cache.remaining("b").flatten().is_some());
        let mut seen = Vec::new();
        visit(&cache, |key, value| seen.push((key.clone(), *value)));
        seen.sort();
        assert_eq!(seen, [("a".to_owned(), 2), ("b".to_owned(), 3)]);
        retain(&cache, |key, _| key == "b");
        assert_eq!((cache.get("a"), cache.get("b"), cache.len()), (None, Some(3), 1));
    }

    #[test]
    fn all_that_is_held_is_seen_once() {
        for (policy, weighted, listened) in [
            (crate::Policy::WTinyLfu, false, false),
            (crate::Policy::WTinyLfu, true, true),
            (crate::Policy::Lru, false, true),
            (crate::Policy::Random, true, false),
        ] {
            let mut builder = Cache::<u32, (u32, Arc<()>)>::builder().policy(policy);
            builder = if weighted {
                builder.max_weight(300).weigher(|key, _| u64::from(key % 5))
            } else {
                builder.max_entries(100)
            };
            if listened {
                builder = builder.on_removal(|_, _, _| ());
            }
            let cache = builder.build().unwrap();
            let held = Arc::new(());
            let check = || {
                let mut seen = Vec::new();
                visit(&cache, |_, value| seen.push(value.0));
                visit_unlinked(&cache, |_, value| seen.push(value.0));
                let count = seen.len();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!((count, seen.len()), (Arc::strong_count(&held) - 1, count));
            };
            let fill = |round: u32, thread: u32| {
                for n in 0..500 {
                    cache.insert(n * 7 % 200, ((round * 4 + thread) * 500 + n, held.clone()));
                    if n % 3 == 0 {
                        cache.remove(&(n % 200));
                    }
                }
            };
            for round in 0..10 {
                // One holds back what others unlink.
                let reader = (round % 2 == 0).then(|| cache.reader());
                std::thread::scope(|scope| {
                    let spawn = |thread| scope.spawn(move || fill(round, thread));
                    (0..4).for_each(|thread| _ = spawn(thread));
                });
                check();
                drop(reader);
                check();
            }
            cache.clear();
            cache.run_pending();
            check();
            // On crossbeam-epoch the readers of other tests' caches hold this one's entries up, too.
            while cfg!(feature = "crossbeam") && Arc::strong_count(&held) > 1 {
                std::thread::yield_now();
                cache.run_pending();
            }
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }

    #[test]
    fn a_look_alone_sees_what_others_see() {
        // (A cache with the default policy, one with exact LRU, and both with times.) No other test's cache may be used meanwhile, which
        // cannot be had here: so this test is a process of its own.
        if std::env::var_os("HOTSET_ALONE").is_none() {
            let name = "raw::tests::a_look_alone_sees_what_others_see";
            let this = std::env::current_exe().unwrap();
            let status = std::process::Command::new(this)
                .args(["--exact", name])
                .env("HOTSET_ALONE", "1")
                .status();
            return assert!(status.unwrap().success());
        }
        for (policy, timed) in [
            (crate::Policy::WTinyLfu, false),
            (crate::Policy::Lru, false),
            (crate::Policy::WTinyLfu, true),
            (crate::Policy::Lru, true),
        ] {
            let clock = ManualClock::new();
            let mut builder = Cache::<String, u32>::builder()
                .max_entries(50)
                .policy(policy)
                .clock(clock.clone());
            if timed {
                builder = builder.time_to_live(Duration::from_secs(10));
            }
            let cache = builder.build().unwrap();
            // SAFETY: this process has one thread that uses caches.
            let look = |key: &str| unsafe { get_exclusive(&cache, key, |value| *value) };
            for i in 0..200 {
                cache.insert(i.to_string(), i);
                cache.run_pending();
                for j in 0..=i {
                    assert_eq!(
                        look(&j.to_string()),
                        cache.get(&*j.to_string()),
                        "{policy:?} {timed} {i} {j}"
                    );
                }
            }
            clock.advance(Duration::from_secs(11));
            assert_eq!(look("199"), (!timed).then_some(199));
            let stats = cache.stats();
            assert!(stats.hits > 0 && stats.misses > 0);
        }
    }

    #[test]
    fn pop_coldest_empties_every_policy() {
        for policy in [
            crate::Policy::WTinyLfu,
            crate::Policy::Lru,
            crate::Policy::Lfu,
            crate::Policy::Fifo,
            crate::Policy::Random,
        ] {
            let cache = Cache::<u32, u32>::builder()
                .max_entries(500)
                .policy(policy)
                .build()
                .unwrap();
            for n in 0..2000 {
                cache.insert(n, n + 1);
                cache.get(&(n / 3));
            }
            cache.run_pending();
            let count = cache.len();
            let coldest = {
                let reader = cache.reader();
                reader.hottest().last().map(|(key, _)| *key)
            };
            if matches!(policy, crate::Policy::Lru | crate::Policy::Fifo | crate::Policy::Random) {
                assert_eq!(pop_coldest(&cache, |key, _| *key), coldest);
                cache.insert(coldest.unwrap(), coldest.unwrap() + 1);
            }
            let mut popped: Vec<_> = std::iter::from_fn(|| pop_coldest(&cache, |key, value| (*key, *value))).collect();
            popped.sort_unstable();
            popped.dedup();
            assert_eq!((popped.len(), cache.len()), (count, 0), "{policy:?}");
            assert!(popped.iter().all(|(key, value)| key + 1 == *value));
            cache.validate();
        }
    }

    #[test]
    fn expired_entries_are_gone_at_their_deadline() {
        let second = Duration::from_secs(1);
        // Where the wheel's next tick is, and is not, in a bucket of a higher level.
        for offset in [0, 1, 255 << 20, (256 << 20) - 1, 65_535 << 20] {
            let clock = Arc::new(ManualClock::new());
            let builder = Cache::<u32, u32>::builder().max_entries(500).clock(clock.clone());
            let cache = builder.build().unwrap();
            clock.advance(Duration::from_nanos(offset));
            for n in 0..100 {
                cache.insert_with_ttl(
                    n,
                    n,
                    if n % 2 == 0 {
                        second
                    } else {
                        second + Duration::from_nanos(1)
                    },
                );
            }
            clock.advance(second);
            cache.run_pending();
            assert_eq!((cache.len(), cache.stats().expirations), (50, 50), "{offset}");
            assert_eq!(take_expired(&cache, |key, _| *key), [0; 0]);
            clock.advance(Duration::from_nanos(1));
            let mut taken = take_expired(&cache, |key, _| *key);
            taken.sort_unstable();
            assert_eq!(taken, (0..50).map(|n| 2 * n + 1).collect::<Vec<_>>());
            cache.run_pending();
            assert_eq!((cache.len(), cache.stats().expirations), (0, 100));
            cache.validate();
        }
    }

    #[test]
    fn one_caller_is_told_that_a_value_is_due() {
        let clock = Arc::new(ManualClock::new());
        let cache: Cache<&str, u32> = Cache::builder()
            .max_entries(10)
            .time_to_live(Duration::from_secs(10))
            .refresh_after(Duration::from_secs(4))
            .stale_if_error(Duration::from_secs(30))
            .clock(clock.clone())
            .build()
            .unwrap();
        let look = || get_due(&cache, "a", |value, due| (*value, due));
        cache.insert("a", 1);
        assert_eq!(look(), Some((1, false)));
        clock.advance(Duration::from_secs(5));
        assert_eq!((look(), look()), (Some((1, true)), Some((1, false))));
        reload_failed(&cache, "a");
        clock.advance(Duration::from_secs(20)); // beyond its time, within the grace
        assert_eq!((look(), look()), (Some((1, true)), Some((1, false))));
        // One that was not tried is due again immediately.
        assert!(reload_abandoned(&cache, "a") && !reload_abandoned(&cache, "b"));
        assert_eq!((look(), look()), (Some((1, true)), Some((1, false))));
        insert(&cache, "a", "a", 2, Ttl::Default);
        assert_eq!(look(), Some((2, false)));
        clock.advance(Duration::from_secs(11));
        assert_eq!(look(), None);
    }

    #[test]
    fn remaining_is_of_the_entry_that_is_read() {
        let clock = ManualClock::new();
        let cache: Cache<u32, u32> = Cache::builder()
            .max_entries(10)
            .time_to_live(Duration::from_secs(60))
            .time_to_idle(Duration::from_secs(20))
            .clock(clock.clone())
            .build()
            .unwrap();
        cache.insert(1, 10);
        cache.insert_with_ttl(2, 20, crate::Ttl::Never);
        clock.advance(Duration::from_secs(5));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(peek_with_remaining(&cache, &1, |value| *value), Some((10, seconds(15))));
        assert_eq!(peek_with_remaining(&cache, &3, |value| *value), None);
        assert_eq!(cache.get(&1), Some(10));
        clock.advance(Duration::from_secs(1));
        let mut all = hottest_with_remaining(&cache, |&key, &value, left| Some((key, value, left.unused, left.used)));
        all.sort_unstable();
        assert_eq!(all[0], (1, 10, seconds(19), seconds(54)));
        assert_eq!((all.len(), all[1].3), (2, None));
        clock.advance(Duration::from_secs(19));
        assert_eq!(peek_with_remaining(&cache, &1, |value| *value), None);
        assert_eq!(
            hottest_with_remaining(&cache, |&key, _, left| (left.used.is_some()).then_some(key)),
            []
        );
        assert_eq!((cache.stats().hits, cache.stats().misses), (1, 0));
    }
}
