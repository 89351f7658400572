//! The layer that the bindings to other languages stand on: calls that Rust programs do not need,
//! or that promise less than the public API.
//!
//! A binding keeps a key and its value together in memory of its own, looks entries up by a
//! borrowed form of the key, and may have a lock of its own around every call. So this module has
//!
//! - calls by a borrowed key whose stored key is made late: [`try_get_or_insert`], [`insert`];
//! - lookups for a process with an interpreter lock: [`get_exclusive`], [`get_exclusive_if`],
//!   [`probe_exclusive`];
//! - reloads whose loader runs in the other language: [`get_due`], [`reload_failed`],
//!   [`reload_abandoned`];
//! - views of all entries: [`visit`], [`visit_unlinked`], [`hottest_with_remaining`];
//! - snapshots by a codec for whole entries: [`save`], [`load`], [`SaveSession`], [`LoadSession`];
//! - statistics as monitoring systems see them: [`metrics`], [`load_bucket`];
//! - the clock by which loads are timed: [`ticks`], [`ticks_to_nanos`];
//! - the child of a fork: [`fork_child`];
//! - the stats file: `stats_file`.
//!
//! # Stability
//!
//! This module is exempt from semantic versioning: it may change in any version. It is hidden from
//! the documentation for that reason.
//!
//! # Concurrency
//!
//! Where a function does not say otherwise, any thread may call it, callbacks included. It takes no
//! lock around a callback, which may use the cache.

#[cfg(all(feature = "stats-file", unix))]
pub mod stats_file;

use crate::builder::Builder;
use crate::cache::{Cache, Inner};
use crate::clock::COARSE_LAG;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::flight;
use crate::prim::clock;
use crate::reclaim::{self, unprotected};
#[cfg(feature = "snapshot")]
pub use crate::snapshot::EntryCodec;
#[cfg(feature = "snapshot")]
pub use crate::snapshot::session::{EntryMeta, LoadSession, SaveSession};
#[cfg(feature = "snapshot")]
use crate::snapshot::{LoadOptions, Loaded, SaveOptions, Saved, SnapshotError};
use crate::stats::Cause;
use crate::write::Fence;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
#[cfg(feature = "snapshot")]
use std::path::Path;
use std::time::Duration;

/// The metrics of caches as monitoring systems see them.
pub mod metrics {
    pub use crate::metric_table::{Figures, Kind, LE, METRICS, Metric, Series};
}

/// Returns the value for `key`, calling `load` to compute and insert it if absent: that is
/// [`Cache::try_get_or_insert_with_ttl`] by a borrowed key.
///
/// If the key is absent, `owned` makes the key by which the load is joined. A loaded value is
/// stored under the key that `stored` makes from it, which must be equal to `key`. A value that is
/// due for a reload is returned as it is.
///
/// # Errors
///
/// [`LoadError::Failed`] with the error of `owned`, of `load`, or of another caller's load of the
/// key that this call waited for; [`LoadError::Reentrant`] if the key is requested from inside its
/// own loader.
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

/// Saves the cache to the file `path`, with keys and values that `C` encodes together. See
/// [`Cache::save_with`].
///
/// # Errors
///
/// As [`Cache::save`].
#[cfg(feature = "snapshot")]
pub fn save<C: EntryCodec<K, V>, K: Hash + Eq, V, S: BuildHasher>(
    cache: &Cache<K, V, S>,
    path: &Path,
    options: &SaveOptions,
) -> Result<Saved, SnapshotError> {
    cache.0.save::<C>(path, options)
}

/// Loads the snapshot `path`, whose keys and values `C` decodes together. See [`Cache::load_with`].
///
/// # Errors
///
/// As [`Cache::load_with`].
#[cfg(feature = "snapshot")]
pub fn load<C: EntryCodec<K, V>, K: Hash + Eq, V, S: BuildHasher>(
    cache: &Cache<K, V, S>,
    path: &Path,
    options: &LoadOptions,
) -> Result<Loaded, SnapshotError> {
    cache.load_as::<C>(path, options)
}

/// Returns the result of `read` for the value of `key`, or `None` if it is absent or expired: that
/// is [`Cache::get_with`] for a process in which one lock is held around every use of every cache,
/// such as an interpreter's.
///
/// No other thread can free the entry during the call, so it is not pinned. Pinning is half of the
/// cost of a lookup.
///
/// # Safety
///
/// No other thread uses any cache of the process during the call. Hashing, comparing and `read` use
/// no cache.
#[inline(always)]
pub unsafe fn get_exclusive<K, V, S, Q, R>(cache: &Cache<K, V, S>, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    // SAFETY: the caller keeps the contract of this function, which is the same.
    unsafe { get_exclusive_if(cache, key, |_| true, read) }
}

/// Does what [`get_exclusive`] does, with a condition: in a cache whose entries may expire, an
/// entry that was found is a miss unless `allowed` returns true for the current time, in
/// nanoseconds of [`clock_nanos`], or a time that is a little later. In other caches `allowed` is
/// called with 0, or not at all.
///
/// # Safety
///
/// As for [`get_exclusive`]. `allowed` uses no cache either.
#[inline(always)]
pub unsafe fn get_exclusive_if<K, V, S, Q, R>(
    cache: &Cache<K, V, S>,
    key: &Q,
    allowed: impl Fn(u64) -> bool,
    read: impl FnOnce(&V) -> R,
) -> Option<R>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    // SAFETY: the caller keeps this function's contract: no other thread uses a cache.
    let guard = unsafe { unprotected() };
    match cache.0.lookup_fast(key, cache.0.hash(key), &guard) {
        Ok(entry) => entry.map(|entry| read(&entry.value)),
        Err(Some(found)) if cache.0.engine.hits_only_mark() => {
            if let Some(earliest) = cache.0.engine.coarse_now()
                && allowed(earliest + COARSE_LAG)
                && let Some(entry) = cache.0.hit_not_expiring(found, earliest, &guard)
            {
                return Some(read(&entry.value));
            }
            let now = cache.0.engine.now();
            if !allowed(now) {
                cache.0.engine.thread_states().count(&guard, false);
                return None;
            }
            let Some(entry) = cache.0.hit_timed(found, now, &guard) else {
                return get_protected(cache, key, read);
            };
            let result = read(&entry.value);
            // Not before `read`: this may free entries, and nothing is pinned.
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

/// Returns the current time of caches without a clock of their own, in nanoseconds since an
/// arbitrary instant of this process. It is late by about a millisecond at most.
pub fn clock_nanos() -> u64 {
    clock::nanos()
}

/// Returns the current time in ticks, whose differences [`ticks_to_nanos`] converts. For durations:
/// a reading costs less than one of `Instant`.
#[inline]
pub fn ticks() -> u64 {
    clock::now()
}

/// Converts a difference of [`ticks`] to nanoseconds.
#[inline]
pub fn ticks_to_nanos(ticks: u64) -> u64 {
    clock::to_nanos(ticks)
}

/// Returns the result of `read` for a hit of [`get_exclusive`] that one probe finds. Otherwise
/// returns `None` and counts nothing: the key may be present.
///
/// `hash` is the hash of the key by the cache's hasher. `equal` returns whether a stored key is the
/// key.
///
/// # Safety
///
/// As for [`get_exclusive`].
#[inline(always)]
pub unsafe fn probe_exclusive<K: Hash, V, S: BuildHasher, R>(
    cache: &Cache<K, V, S>,
    hash: u64,
    equal: impl FnOnce(&K) -> bool,
    read: impl FnOnce(&V) -> R,
) -> Option<R> {
    // SAFETY: the caller keeps this function's contract: no other thread uses a cache.
    let guard = unsafe { unprotected() };
    let hash = Inner::<K, V, S>::mix_hash(hash);
    cache.0.probe(hash, equal, &guard).map(|entry| read(&entry.value))
}

/// Calls `found` with the value of each of `keys`, in their order: that is [`Cache::get_many`]
/// without memory for the results. No value is freed while `found` runs.
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

/// Prepares the clock, unless that was done: on Linux the first reading of the clock reads a file.
pub fn start_clock() {
    _ = clock::now();
}

/// Prepares the child of a fork for caches of its own, whatever the other threads of its parent
/// were doing: it resets the state that all caches of a process share. Inherited caches must not be
/// used in the child.
///
/// Allocates nothing and waits for nothing, so an `atfork` handler may call it.
///
/// # Safety
///
/// The calling thread is the only one of the process, and never returns into a call of this crate
/// that was in progress at the fork.
pub unsafe fn fork_child() {
    // SAFETY: the caller keeps this function's contract.
    unsafe { reclaim::fork_child() };
    flight::fork_child();
}

/// Does what [`Cache::get_with`] does. It is out of line, so that [`get_exclusive`] does not save
/// the registers that pinning needs.
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

/// Inserts the key and the value that `make` returns, as [`Cache::insert_with_ttl`] does. The key
/// is hashed and compared by `sought`, its borrowed form. While `make` runs, the memory of the
/// key's place in the cache is prefetched; it must run no code of the user's. Returns its error.
#[inline]
pub fn insert<K, V, S, Q, E>(
    cache: &Cache<K, V, S>,
    sought: &Q,
    ttl: Ttl,
    make: impl FnOnce() -> Result<(K, V), E>,
) -> Result<(), E>
where
    K: Hash + Eq + Borrow<Q>,
    S: BuildHasher,
    Q: Hash + Eq + ?Sized,
{
    let inner = &*cache.0;
    let now = inner.engine.now_for(ttl);
    let hash = inner.hash(sought);
    let guard = inner.engine.pin_fenced();
    inner.engine.map().prefetch(hash, &guard);
    let (key, value) = make()?;
    let weight = inner.weigh(&key, &value);
    let times = inner.times(hash, (&key, &value), ttl, now, &guard);
    inner.begin_change(hash, sought, Fence::Executed);
    let new = inner.engine.make(hash, (key, value), weight, times, &guard);
    inner
        .engine
        .insert(hash, new, |other, _| other.borrow() == sought, guard);
    inner.engine.expire_if_due(now);
    Ok(())
}

/// Has a cache prefetch what `pointee` returns for nearly all values that it drops: the address
/// of the memory that the destructor reads first, which is cold once a value is evicted. The cache
/// misses of several values then overlap.
///
/// `pointee` runs no code of the user's, and reads no more than the value itself.
pub fn prefetch_dropped<K, V, S>(mut builder: Builder<K, V, S>, pointee: fn(&V) -> *const ()) -> Builder<K, V, S> {
    builder.pointee = Some(pointee);
    builder
}

/// Returns the result of `read` for the value of `key`, as [`Cache::get_with`] does, and passes to
/// it whether the value is due for a reload ([`Builder::refresh_after`]).
///
/// For one caller the second argument is true: it has claimed the reload. It must insert a new
/// value, or call [`reload_failed`] or [`reload_abandoned`]; otherwise no other caller reloads that
/// entry.
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

/// Gives back a reload that [`get_due`] handed out and that failed. The old value stays for the
/// cache's grace ([`Builder::stale_if_error`]), and is due again after a quarter of the refresh
/// age.
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
            times.extend_deadline(now.saturating_add(time.grace));
        }
        times.unclaim_reload(now.saturating_add(time.retry_delay()));
    }
}

/// Gives back a reload that [`get_due`] handed out and that was not tried: the value is due again
/// immediately. Returns whether the key is present.
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

/// Returns the index of the bucket of [`LoadBuckets`](crate::LoadBuckets) that a load of `nanos`
/// nanoseconds is counted in.
pub fn load_bucket(nanos: u64) -> usize {
    crate::stats::bucket(nanos)
}

/// Calls `see` with every entry, expired ones included. Each is visited once if no thread changes
/// the cache during the call.
///
/// Takes no lock. Frees all memory that it allocates.
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

/// Calls `see` with every entry that was unlinked and is not freed yet. Together with [`visit`]
/// this visits all that the cache holds, each entry once, if no thread uses the cache during the
/// calls.
///
/// Never waits for a lock: while another thread holds the maintenance lock, nothing is visited.
/// Frees all memory that it allocates.
pub fn visit_unlinked<K, V, S>(cache: &Cache<K, V, S>, mut see: impl FnMut(&K, &V)) {
    let guard = cache.0.engine.pin();
    for entry in cache.0.engine.unlinked(&guard) {
        let entry = Engine::<K, V>::view(entry.0);
        see(&entry.key, &entry.value);
    }
}

/// Removes each entry for which `keep` returns false when it is visited. Other threads may use the
/// cache during the call.
///
/// # Complexity
///
/// O(n).
pub fn retain<K, V, S>(cache: &Cache<K, V, S>, mut keep: impl FnMut(&K, &V) -> bool) {
    cache.0.engine.retain(|entry| keep(&entry.key, &entry.value));
}

/// Removes the entry that the policy would evict first, and returns the result of `take` for it, or
/// `None` if the cache is empty.
///
/// `take` may be called more than once, if another thread removes the entry first. The last call is
/// for the entry that was removed.
///
/// # Complexity
///
/// O(1) for the policy.
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

/// Removes all expired entries, and returns the results of `take` for them.
///
/// # Complexity
///
/// O(n).
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

/// Returns the result of `read` for the value of `key`, and the remaining TTL of the same entry:
/// `None` if it never expires. Returns `None` if the key is absent or expired. Counts nothing.
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
    // The clock is read again: the entry may have been restored from a snapshot in between, as the
    // first of the cache with an expiration.
    let left = timing.and_then(|timing| timing.remaining(inner.engine.now()));
    Some((read(&Engine::<K, V>::view(found.0).value), left))
}

/// The remaining TTL of an entry. Each field is `None` if the entry never expires by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// The TTL of an entry that is not used again.
    pub unused: Option<Duration>,
    /// The longest TTL that hits can extend the entry to: its time to live.
    pub used: Option<Duration>,
}

/// Returns the results of `take` for each entry and its remaining TTL, from the most to the least
/// valuable to the policy. An entry for which `take` returns `None` is left out. Counts nothing.
pub fn hottest_with_remaining<K, V, S, R>(
    cache: &Cache<K, V, S>,
    mut take: impl FnMut(&K, &V, Remaining) -> Option<R>,
) -> Vec<R> {
    let engine = &cache.0.engine;
    let guard = engine.pin();
    let handles = engine.hottest(&guard);
    // Read after the order was copied: an entry restored in between may be the first with an
    // expiration.
    let now = engine.now();
    let alive = handles.into_iter().filter(|handle| !engine.is_expired(handle.0, now));
    let taken = alive.filter_map(|handle| {
        let timing = engine.timing(handle, &guard);
        let remaining = Remaining {
            unused: timing.and_then(|timing| timing.remaining(now)),
            used: timing.and_then(|timing| timing.max_remaining(now)),
        };
        let entry = Engine::<K, V>::view(handle.0);
        take(&entry.key, &entry.value, remaining)
    });
    taken.collect()
}

#[cfg(test)]
mod tests;
