//! Lookups: the fast path that most gets take, and the slow path out of line.
//!
//! [`Inner::lookup_fast`] decides a lookup by one probe of the home bucket, if the counters of the
//! calling thread are at hand. In a cache whose entries may expire, [`Inner::hit_alive`] then reads
//! the clock. [`Inner::lookup_slow`] continues with what they found: it probes further, checks the
//! deadline, restores the entry from a snapshot, and reports the hit to the policy.

use crate::cache::Inner;
use crate::clock::COARSE_LAG;
use crate::engine::{Engine, Entry, Handle};
use crate::map::Header;
use crate::reclaim::Guard;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::ptr::NonNull;

impl<K: Hash, V, S: BuildHasher> Inner<K, V, S> {
    /// Returns the key's entry if it is alive at `now`, restored from the snapshot if necessary.
    /// Counts nothing.
    pub(crate) fn find_alive<Q>(&self, hash: u64, key: &Q, now: u64, guard: &Guard) -> Option<Handle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.peek_alive(hash, key, now, guard);
        if found.is_none() && self.snapshot_slot.is_some() {
            return self.restore_on_miss(hash, key, guard);
        }
        found
    }

    /// Looks a key up, and counts a hit or a miss.
    #[inline(always)]
    pub(crate) fn lookup<'g, Q>(&self, key: &Q, hash: u64, guard: &'g Guard) -> Option<&'g Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lookup_fast(key, hash, guard)
            .unwrap_or_else(|found| self.lookup_further(key, hash, found, guard))
    }

    /// Continues with what [`lookup_fast`](Self::lookup_fast) found.
    #[inline(always)]
    fn lookup_further<'g, Q>(
        &self,
        key: &Q,
        hash: u64,
        found: Option<NonNull<Header>>,
        guard: &'g Guard,
    ) -> Option<&'g Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        found
            .and_then(|found| self.hit_alive(found, guard))
            .or_else(|| self.lookup_slow(key, hash, found, self.engine.now(), guard))
    }

    /// Does what [`lookup_slow`](Self::lookup_slow) does for an entry that was found, if that only
    /// takes a comparison of its deadline. Otherwise counts nothing and returns `None`.
    #[inline(always)]
    pub(crate) fn hit_alive<'g>(&self, found: NonNull<Header>, guard: &'g Guard) -> Option<&'g Entry<K, V>> {
        let local = self.engine.thread_states().near(guard)?;
        if !self.engine.try_hit_alive(found, guard) {
            return None;
        }
        local.hit();
        Some(Engine::<K, V>::view(found))
    }

    /// Returns the key's entry, expired or not. Counts nothing.
    pub(crate) fn peek<Q>(&self, hash: u64, key: &Q, guard: &Guard) -> Option<Handle>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let equal = |header| Engine::<K, V>::view(header).key.borrow() == key;
        self.engine.map().get(hash, equal, guard).map(Handle)
    }

    /// Returns the key's entry if it has not expired at `now`. Counts nothing.
    pub(crate) fn peek_alive<Q>(&self, hash: u64, key: &Q, now: u64, guard: &Guard) -> Option<Handle>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.peek(hash, key, guard)
            .filter(|found| !self.engine.is_expired(found.0, now))
    }

    /// Returns what [`lookup`](Self::lookup) returns, if the first probe decides it and the
    /// thread's counters are at hand. Otherwise counts nothing and returns what was found, for
    /// [`lookup_slow`](Self::lookup_slow) to continue with.
    #[inline(always)]
    pub(crate) fn lookup_fast<'g, Q>(
        &self,
        key: &Q,
        hash: u64,
        guard: &'g Guard,
    ) -> Result<Option<&'g Entry<K, V>>, Option<NonNull<Header>>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let equal = move |header| Engine::<K, V>::view(header).key.borrow() == key;
        match self.engine.map().get_fast(hash, equal, guard) {
            Some(Some(found)) => self.record_hit_fast(found, guard).map(Some).ok_or(Some(found)),
            Some(None) => match self.engine.thread_states().near(guard) {
                // Not in a cache with an expiration: there each call reads the clock, to free what
                // has expired. Nor beside a snapshot, which may have the entry. Nor for a sampled
                // key.
                Some(local)
                    if !self.engine.time().is_active()
                        && !self.snapshot_slot.is_some()
                        && !self.engine.samples(hash) =>
                {
                    local.miss();
                    Ok(None)
                }
                _ => Err(None),
            },
            None => Err(None),
        }
    }

    /// Returns the entry, and counts the hit, if one probe finds it and counting it only writes
    /// memory that is at hand. Otherwise counts nothing.
    #[inline(always)]
    pub(crate) fn probe<'g>(
        &self,
        hash: u64,
        equal: impl FnOnce(&K) -> bool,
        guard: &'g Guard,
    ) -> Option<&'g Entry<K, V>> {
        let found = self.engine.map().probe_unverified(hash, guard)?;
        if !equal(&Engine::<K, V>::view(found).key) {
            return None;
        }
        self.record_hit_fast(found, guard)
    }

    /// Counts a hit, for the statistics and for the policy, if that only writes memory that is at
    /// hand. Otherwise counts nothing and returns `None`.
    #[inline(always)]
    fn record_hit_fast<'g>(&self, found: NonNull<Header>, guard: &'g Guard) -> Option<&'g Entry<K, V>> {
        let local = self.engine.thread_states().near(guard)?;
        if !self.engine.try_mark_hit(found, guard) {
            return None;
        }
        local.hit();
        Some(Engine::<K, V>::view(found))
    }

    /// Continues with what [`lookup_fast`](Self::lookup_fast) found. `now` is 0 if no entry of the
    /// cache expires.
    #[inline(never)]
    pub(crate) fn lookup_slow<'g, Q>(
        &self,
        key: &Q,
        hash: u64,
        found: Option<NonNull<Header>>,
        now: u64,
        guard: &'g Guard,
    ) -> Option<&'g Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let equal = move |header| Engine::<K, V>::view(header).key.borrow() == key;
        let mut found = found
            .or_else(|| self.engine.map().get_slow(hash, equal, guard))
            .filter(|found| !self.engine.is_expired(*found, now));
        if found.is_none() && self.snapshot_slot.is_some() {
            found = self.restore_on_miss(hash, key, guard).map(|Handle(found)| found);
        }
        self.engine.thread_states().count(guard, found.is_some());
        if found.is_none() && self.engine.samples(hash) {
            self.engine.sample_miss(hash, now, guard);
        }
        let found = found?;
        Some(self.hit(found, now, guard))
    }

    /// Reports a hit to the policy, and updates the entry's deadline where hits move it.
    #[inline(always)]
    fn hit<'g>(&self, found: NonNull<Header>, now: u64, guard: &'g Guard) -> &'g Entry<K, V> {
        self.engine.hit(found, guard);
        if now != 0 && self.engine.time().hits_move_deadlines() {
            self.engine.update_deadline(Handle(found), now, guard);
        }
        Engine::<K, V>::view(found)
    }

    /// Does what [`hit_timed`](Self::hit_timed) does, at a time from `earliest` until
    /// [`COARSE_LAG`] later, if the entry is alive at any of them and no maintenance is due.
    #[inline(always)]
    pub(crate) fn hit_not_expiring<'g>(
        &self,
        found: NonNull<Header>,
        earliest: u64,
        guard: &'g Guard,
    ) -> Option<&'g Entry<K, V>> {
        let time = self.engine.time();
        let latest = earliest + COARSE_LAG;
        if time.hits_move_deadlines() || earliest >= time.next_deadline() {
            return None;
        }
        self.hit_timed(found, latest, guard)
    }

    /// Does what [`lookup_slow`](Self::lookup_slow) does for an entry that was found in a cache
    /// with an expiration, if the entry is alive and the thread's counters are at hand. Otherwise
    /// counts nothing and returns `None`.
    #[inline(always)]
    pub(crate) fn hit_timed<'g>(&self, found: NonNull<Header>, now: u64, guard: &'g Guard) -> Option<&'g Entry<K, V>> {
        let local = self.engine.thread_states().near(guard)?;
        if now == 0 || self.engine.is_expired(found, now) {
            return None;
        }
        local.hit();
        Some(self.hit(found, now, guard))
    }

    /// Does what [`lookup`](Self::lookup) does for a key whose home bucket was probed in a batch:
    /// `probed` is the entry that may be the key's.
    #[inline(always)]
    pub(crate) fn lookup_probed<'g, Q>(
        &self,
        key: &Q,
        hash: u64,
        probed: Option<NonNull<Header>>,
        guard: &'g Guard,
    ) -> Option<&'g Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = probed.filter(|header| Engine::<K, V>::view(*header).key.borrow() == key);
        found
            .and_then(|found| self.record_hit_fast(found, guard))
            .or_else(|| self.lookup_further(key, hash, found, guard))
    }
}
