//! The changes of the map. Each is followed by the event that records it for the policy.
//!
//! A change first takes effect in the map. Then the thread calls the removal listener if an entry
//! was unlinked, and records one event.

use super::Engine;
use super::entry::{Deadlines, Entry, Handle};
use super::event::Event;
use crate::map::{Inserted, Mode, UNCONDITIONAL};
use crate::prim::panics::Panics;
use crate::reclaim::Guard;
use crate::stats::Cause;

impl<K, V> Engine<K, V> {
    /// Creates an entry that is not yet in the map. The caller must pass it to `insert`,
    /// `insert_absent` or `replace_exact`.
    #[inline]
    pub(crate) fn make(
        &self,
        hash: u64,
        contents: (K, V),
        weight: u64,
        deadlines: Option<Deadlines>,
        guard: &Guard,
    ) -> Handle {
        let mut recycled = None;
        if deadlines.is_some() == self.shape.timed {
            // SAFETY: the writer belongs to this thread, which is pinned.
            recycled = self
                .thread_states
                .writer(guard)
                .and_then(|writer| unsafe { writer.pop_recycled() });
        } else {
            // The first entry with a deadline in a cache without expiration settings: from now on
            // lookups must read the clock.
            self.activate_time();
        }
        // SAFETY: a recycled entry has the standard layout, went through `drop_contents`, and is
        // owned by the thread that takes it.
        unsafe { self.shape.make(recycled, hash, contents, weight, deadlines) }
    }

    /// Inserts the entry into the map, and makes room if necessary. If user code panics, the entry
    /// goes to the limbo.
    #[inline(always)]
    pub(super) fn enter(
        &self,
        hash: u64,
        new: Handle,
        mut equal: impl FnMut(&K, &K) -> bool,
        mode: Mode,
        mut invalidated: Option<impl FnMut() -> bool>,
        guard: &Guard,
    ) -> Inserted {
        let unwinding = OnUnwind {
            engine: self,
            handle: new,
        };
        let key = &Self::view(new.0).key;
        let mut tried = None;
        loop {
            let equal = |header| equal(&Self::view(header).key, key);
            let invalidated = invalidated.as_mut();
            let done = self.map.insert(hash, new.0, equal, mode, invalidated, guard);
            if done != Inserted::Full {
                std::mem::forget(unwinding);
                return done;
            }
            self.make_room(hash, tried, guard);
            tried = Some(self.map.table_id(guard));
        }
    }

    /// Inserts or replaces an entry. Waits only if the thread's ring is full (see `record`), or
    /// while its home bucket is moved.
    #[inline]
    pub(crate) fn insert(&self, hash: u64, new: Handle, equal: impl FnMut(&K, &K) -> bool, guard: Guard) {
        match self.enter(hash, new, equal, Mode::Upsert, UNCONDITIONAL, &guard) {
            Inserted::New => self.record_arrival(hash, new, guard),
            Inserted::Replaced(old) => self.replaced(new, Handle(old), guard),
            _ => unreachable!("an unconditional upsert inserts or replaces"),
        }
    }

    /// Inserts an entry if its key is absent, unless `invalidated` returns true before the commit
    /// or an invalidation kills it. Returns whether it was inserted. Otherwise the entry is freed.
    pub(crate) fn insert_absent(
        &self,
        hash: u64,
        new: Handle,
        equal: impl FnMut(&K, &K) -> bool,
        invalidated: Option<impl FnMut() -> bool>,
        guard: Guard,
    ) -> bool {
        let (mut equal, mut invalidated) = (equal, invalidated);
        let mut panics = Panics::default();
        let now = self.now_catching_panics(&mut panics);
        // `Some` if the entry was inserted, with the expired entry that it replaced.
        let outcome = loop {
            match self.enter(hash, new, &mut equal, Mode::IfAbsent, invalidated.as_mut(), &guard) {
                Inserted::New => break Some(None),
                // The existing entry has expired. `invalidated` is called after it was found: a
                // later invalidation changes the slot, and the replacement fails.
                Inserted::Present(old) if self.is_expired(old, now) => {
                    if invalidated.as_mut().is_some_and(|invalidated| invalidated()) {
                        break None;
                    }
                    if self.map.replace_exact(old, new.0, &guard) {
                        break Some(Some(Handle(old)));
                    }
                }
                _ => break None,
            }
        };
        drop(invalidated);
        match outcome {
            Some(None) => panics.catch(|| self.record_arrival(hash, new, guard)),
            Some(Some(old)) => panics.catch(|| self.replaced(new, old, guard)),
            // Another thread may have read the entry while it was LOADING, so it goes through the
            // limbo.
            None => panics.catch(|| self.record(Event::Released(new), guard)),
        }
        panics.resume();
        outcome.is_some()
    }

    /// Inserts or replaces an entry, unless `invalidated` returns true before the commit or an
    /// invalidation kills it. Returns whether it was inserted. Otherwise the entry is freed.
    pub(crate) fn insert_unless(
        &self,
        hash: u64,
        new: Handle,
        equal: impl FnMut(&K, &K) -> bool,
        invalidated: impl FnMut() -> bool,
        guard: Guard,
    ) -> bool {
        match self.enter(hash, new, equal, Mode::Upsert, Some(invalidated), &guard) {
            Inserted::New => self.record(Event::Arrived(new), guard),
            Inserted::Replaced(old) => self.replaced(new, Handle(old), guard),
            _ => {
                self.record(Event::Released(new), guard);
                return false;
            }
        }
        true
    }

    /// Replaces exactly `old` by `new`. Returns false, and frees `new`, if `old` is no longer in
    /// the map.
    pub(crate) fn replace_exact(&self, old: Handle, new: Handle, guard: Guard) -> bool {
        if self.map.replace_exact(old.0, new.0, &guard) {
            self.replaced(new, old, guard);
            true
        } else {
            self.record(Event::Released(new), guard);
            false
        }
    }

    /// Removes exactly `old`. Returns false if it is no longer in the map.
    pub(crate) fn remove_exact(&self, old: Handle, cause: Cause, guard: Guard) -> bool {
        let removed = self.map.remove_exact(old.0, &guard);
        if removed {
            self.retired(old, cause, guard);
        }
        removed
    }

    /// Removes all entries, one home bucket after another, and returns the table's memory. O(n).
    pub(crate) fn clear(&self) {
        let mut panics = Panics::default();
        panics.catch(|| self.retain(|_| false));
        self.clear_profile();
        panics.catch(|| self.fit_table(true));
        panics.resume();
    }

    /// Removes the entries for which `keep` returns false, one home bucket after another. O(n).
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Entry<K, V>) -> bool) {
        self.retain_by(|handle| keep(Self::view(handle.0)));
    }

    /// Same as [`retain`](Self::retain), by handles.
    pub(crate) fn retain_by(&self, mut keep: impl FnMut(Handle) -> bool) {
        let mut panics = Panics::default();
        let mut from = 0;
        while from < 1 << 32 {
            let mut handles = Vec::new();
            let guard = self.pin();
            let see = |header| {
                if !keep(Handle(header)) {
                    handles.push(Handle(header));
                }
            };
            from = self.map.walk(from, see, &guard);
            for handle in handles {
                panics.catch(|| _ = self.remove_exact(handle, Cause::Explicit, self.pin()));
            }
        }
        panics.resume();
    }

    /// Removes the entry of a key if `accept` returns true. `taken` is called with the entry before
    /// the listener is.
    pub(crate) fn remove<R>(
        &self,
        hash: u64,
        mut equal: impl FnMut(&K) -> bool,
        mut accept: impl FnMut(&Entry<K, V>) -> bool,
        kill: bool,
        taken: impl FnOnce(&Entry<K, V>) -> R,
    ) -> Option<R> {
        let now = self.now();
        let guard = self.pin();
        let old = self.map.remove(
            hash,
            |header| equal(&Self::view(header).key),
            |header| self.is_expired(header, now) || accept(Self::view(header)),
            kill,
            &guard,
        );
        let Some(old) = old else {
            if self.samples(hash) {
                self.sample_removal(hash, &guard);
            }
            return None;
        };
        let mut panics = Panics::default();
        let mut result = None;
        if !self.is_expired(old, now) {
            panics.catch(|| result = Some(taken(Self::view(old))));
        }
        self.retired_with(Handle(old), Cause::Explicit, guard, panics);
        self.expire_if_due(now);
        result
    }

    pub(super) fn notify(&self, handle: Handle, cause: Cause, panics: &mut Panics) {
        if let Some(listener) = &self.listener {
            let entry = Self::view(handle.0);
            // The policy does not know deadlines, and may evict an entry that has expired but is
            // not removed yet.
            let expired = cause == Cause::Size && self.is_expired(handle.0, self.now_catching_panics(panics));
            let cause = if expired { Cause::Expired } else { cause };
            panics.catch(|| listener(&entry.key, &entry.value, cause));
        }
    }

    #[inline]
    fn replaced(&self, new: Handle, old: Handle, guard: Guard) {
        let mut panics = Panics::default();
        let expired = self.is_expired(old.0, self.now_catching_panics(&mut panics));
        if self.listener.is_none() {
            self.record(Event::Replaced { new, old, expired }, guard);
            return panics.resume();
        }
        // The listener may run long, and its thread's guard must not delay reclamation. `old` is
        // alive until its event is recorded.
        drop(guard);
        let cause = if expired { Cause::Expired } else { Cause::Replaced };
        self.notify(old, cause, &mut panics);
        panics.catch(|| self.record(Event::Replaced { new, old, expired }, self.pin()));
        panics.resume();
    }

    fn retired(&self, old: Handle, cause: Cause, guard: Guard) {
        self.retired_with(old, cause, guard, Panics::default());
    }

    fn retired_with(&self, old: Handle, cause: Cause, guard: Guard, mut panics: Panics) {
        let expired = self.is_expired(old.0, self.now_catching_panics(&mut panics));
        drop(guard);
        self.notify(old, if expired { Cause::Expired } else { cause }, &mut panics);
        panics.catch(|| self.record(Event::Retired { old, expired }, self.pin()));
        panics.resume();
    }
}

/// Frees an entry that is not in the map if user code panics during its insertion.
struct OnUnwind<'e, K, V> {
    engine: &'e Engine<K, V>,
    handle: Handle,
}

impl<K, V> Drop for OnUnwind<'_, K, V> {
    fn drop(&mut self) {
        self.engine.record(Event::Released(self.handle), self.engine.pin());
    }
}
