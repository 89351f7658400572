//! How a key is looked up: the short way that most gets go, and what is not usual apart from it.
//!
//! In a cache whose entries may have times every hit goes the other way: it has to look at the clock.

use crate::cache::Inner;
use crate::engine::{Engine, Entry, Handle};
use crate::map::Header;
use crate::reclaim::Guard;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::ptr::NonNull;

impl<K: Hash, V, S: BuildHasher> Inner<K, V, S> {
    /// [`peek_alive`](Self::peek_alive), and if there is none, the entry that a snapshot has.
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

    #[inline(always)]
    pub(crate) fn lookup<'g, Q>(&self, key: &Q, hash: u64, guard: &'g Guard) -> Option<&'g Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lookup_fast(key, hash, guard)
            .unwrap_or_else(|found| self.lookup_slow(key, hash, found, self.engine.now(), guard))
    }

    /// The key's entry, be its time over or not. Counts nothing.
    pub(crate) fn peek<Q>(&self, hash: u64, key: &Q, guard: &Guard) -> Option<Handle>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let equal = |header| Engine::<K, V>::view(header).key.borrow() == key;
        self.engine.map().get(hash, equal, guard).map(Handle)
    }

    /// The key's entry, unless its time was over at `now`. Counts nothing.
    pub(crate) fn peek_alive<Q>(&self, hash: u64, key: &Q, now: u64, guard: &Guard) -> Option<Handle>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.peek(hash, key, guard)
            .filter(|found| !self.engine.is_expired(found.0, now))
    }

    /// What [`lookup`](Self::lookup) returns, if the first look tells and the counters are at hand. Else nothing is counted,
    /// and what was found is returned for [`lookup_slow`](Self::lookup_slow) to go on with.
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
                // (In a cache with times the clock is to be looked at, for the sake of others' entries.)
                // (And an entry that is not here may still be in a snapshot.)
                Some(local) if !self.engine.time().is_active() && !self.snapshot_slot.is_some() => {
                    local.miss();
                    Ok(None)
                }
                _ => Err(None),
            },
            None => Err(None),
        }
    }

    /// A hit, if the first look finds it, and counting it is nothing but writing it down. Else nothing was counted.
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

    /// Counts a hit, for the statistics and for the policy, if that is nothing but writing it down.
    #[inline(always)]
    fn record_hit_fast<'g>(&self, found: NonNull<Header>, guard: &'g Guard) -> Option<&'g Entry<K, V>> {
        let local = self.engine.thread_states().near(guard)?;
        if !self.engine.mark(found, guard) {
            return None;
        }
        local.hit();
        Some(Engine::<K, V>::view(found))
    }

    /// Goes on with what [`lookup_fast`](Self::lookup_at_once) found; `now` is 0 if nothing has times.
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
        let found = found?;
        Some(self.hit(found, now, guard))
    }

    /// A hit that is told to the policy, and may move the entry's deadline.
    #[inline(always)]
    fn hit<'g>(&self, found: NonNull<Header>, now: u64, guard: &'g Guard) -> &'g Entry<K, V> {
        self.engine.hit(found, guard);
        if now != 0 && self.engine.time().moves() {
            self.engine.update_deadline(Handle(found), now, guard);
        }
        Engine::<K, V>::view(found)
    }

    /// [`lookup_slow`](Self::lookup_slow) of what was found in a cache with times, if it is alive and the counters are at
    /// hand.
    #[inline(always)]
    pub(crate) fn hit_timed<'g>(&self, found: NonNull<Header>, now: u64, guard: &'g Guard) -> Option<&'g Entry<K, V>> {
        let local = self.engine.thread_states().near(guard)?;
        if now == 0 || self.engine.is_expired(found, now) {
            return None;
        }
        local.hit();
        Some(self.hit(found, now, guard))
    }

    /// [`lookup`](Self::lookup) of a key for which the map had a glance at this entry.
    #[inline(always)]
    pub(crate) fn lookup_glanced<'g, Q>(
        &self,
        key: &Q,
        hash: u64,
        glanced: Option<NonNull<Header>>,
        guard: &'g Guard,
    ) -> Option<&'g Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = glanced.filter(|header| Engine::<K, V>::view(*header).key.borrow() == key);
        found
            .and_then(|found| self.record_hit_fast(found, guard))
            .or_else(|| self.lookup_slow(key, hash, found, self.engine.now(), guard))
    }
}
