//! The changes of the map, each followed by the event that brings it to the policy.

use super::Engine;
use super::entry::{Deadlines, Entry, Handle};
use super::event::Event;
use crate::map::{Inserted, Mode, UNCONDITIONAL};
use crate::prim::panics::Panics;
use crate::reclaim::Guard;
use crate::stats::Cause;

impl<K, V> Engine<K, V> {
    /// A new entry, not yet in the map. It must be given to `insert`, `insert_absent` or `replace_exact`.
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
            // SAFETY: the part is this thread's, which is pinned.
            recycled = self
                .thread_states
                .writer(guard)
                .and_then(|writer| unsafe { writer.pop_recycled() });
        } else {
            // An entry with times where others have none: from now on somebody must look.
            self.activate_time();
        }
        // SAFETY: spares are of the usual size, went through `drop_contents`, and belong to whoever takes them.
        unsafe { self.shape.make(recycled, hash, contents, weight, deadlines) }
    }

    /// Gives the entry to the map, making room if need be. If user code panics, the entry goes to the limbo.
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

    /// Inserts or replaces. Waits only if the thread's ring is full (see `record`), or the home is being moved.
    #[inline]
    pub(crate) fn insert(&self, hash: u64, new: Handle, equal: impl FnMut(&K, &K) -> bool, guard: Guard) {
        match self.enter(hash, new, equal, Mode::Upsert, UNCONDITIONAL, &guard) {
            Inserted::New => self.record_arrival(new, guard),
            Inserted::Replaced(old) => self.replaced(new, Handle(old), guard),
            _ => unreachable!("upserts replace, room is made, and what asks nobody is not killed"),
        }
    }

    /// Inserts a key that is absent, unless `invalidated`, if any, says no at the last moment or an invalidation kills it. Returns
    /// whether it came in; else the new entry is discarded.
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
        // What it replaced, if it came in.
        let came_in = loop {
            match self.enter(hash, new, &mut equal, Mode::IfAbsent, invalidated.as_mut(), &guard) {
                Inserted::New => break Some(None),
                // What is there is over. Asked after it was found: who overtakes this insertion later changes the slot.
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
        match came_in {
            Some(None) => panics.catch(|| self.record(Event::Arrived(new), guard)),
            Some(Some(old)) => panics.catch(|| self.replaced(new, old, guard)),
            // Another thread may have looked at it, so it goes through the limbo.
            None => panics.catch(|| self.record(Event::Released(new), guard)),
        }
        panics.resume();
        came_in.is_some()
    }

    /// Inserts or replaces, unless `invalidated` says no at the last moment or an invalidation kills it: whether it came in.
    /// Else the new entry is discarded.
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

    /// Puts `new` in the place of this very entry; if it is no longer in the map, gives `new` to the limbo.
    pub(crate) fn replace_exact(&self, old: Handle, new: Handle, guard: Guard) -> bool {
        if self.map.replace_exact(old.0, new.0, &guard) {
            self.replaced(new, old, guard);
            true
        } else {
            self.record(Event::Released(new), guard);
            false
        }
    }

    /// Removes this very entry; false if it is no longer in the map.
    pub(crate) fn remove_exact(&self, old: Handle, cause: Cause, guard: Guard) -> bool {
        let removed = self.map.remove_exact(old.0, &guard);
        if removed {
            self.retired(old, cause, guard);
        }
        removed
    }

    /// Removes all entries, one home after another, and returns the table's memory. O(n).
    pub(crate) fn clear(&self) {
        let mut panics = Panics::default();
        panics.catch(|| self.retain(|_| false));
        panics.catch(|| self.fit_table(true));
        panics.resume();
    }

    /// Removes the entries that `keep` says no to, one home after another. O(n).
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Entry<K, V>) -> bool) {
        self.retain_by(|handle| keep(Self::view(handle.0)));
    }

    /// The same, by handles.
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

    /// Removes the key if `accept` agrees; `taken` sees the entry before anything else does.
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
        )?;
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
            // The policy, which knows no time, may choose what was over and not yet taken out.
            let over = cause == Cause::Size && self.is_expired(handle.0, self.now_catching_panics(panics));
            let cause = if over { Cause::Expired } else { cause };
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
        // The listener may run long: it must not hold up everybody's garbage. `old` stays until its event is recorded.
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

/// Gives an entry that is in no map to the limbo if user code panics during its insertion.
struct OnUnwind<'e, K, V> {
    engine: &'e Engine<K, V>,
    handle: Handle,
}

impl<K, V> Drop for OnUnwind<'_, K, V> {
    fn drop(&mut self) {
        self.engine.record(Event::Released(self.handle), self.engine.pin());
    }
}
