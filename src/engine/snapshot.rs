//! What snapshots need from the engine: a list of all entries, hottest first, which keeps none of
//! them alive; and the restoring of entries.

use super::event::Event;
use super::maintenance::Rings;
use super::{Engine, Handle};
use crate::map::{Header, Inserted, Mode};
use crate::policy::{Policy, Rank};
use crate::prim::prefetch::prefetch;
use crate::reclaim::Guard;

/// The address of an entry when it was listed, and the upper half of its hash, both as 64 bits so
/// that the list's memory can be reused. The entry may have been freed since, and its memory
/// reused.
pub(crate) type Listed = [u64; 2];

impl<K, V> Engine<K, V> {
    /// Returns the entries from the most to the least valuable, as of now, and the policy's window
    /// as a share of the capacity in 2^-32. Holds the maintenance lock while it copies.
    pub(crate) fn list(&self) -> (Vec<Listed>, u32) {
        let (mut list, mut window) = (Vec::new(), 0);
        let guard = self.pin();
        let deferred = self.with_core(&guard, |core| {
            list.reserve_exact(core.policy.len());
            window = core.policy.window();
            core.policy.hottest(&core.policy_view, &mut |handle| {
                let hash = crate::policy::Entries::hash(&core.policy_view, handle);
                list.push([handle.0.as_ptr().addr() as u64, u64::from(hash)]);
                true
            });
        });
        self.run_deferred(deferred, guard);
        (list, window)
    }

    /// Returns those of the listed entries that are still in the map, or entries that have taken
    /// their place, with their ranks.
    pub(crate) fn find_listed(&self, listed: &[Listed], guard: &Guard) -> Vec<(Handle, Rank)> {
        // One pass per memory access, so that the cache misses of all entries overlap.
        listed.iter().for_each(|[_, hash]| self.map.prefetch(hash << 32, guard));
        let find = |[address, hash]: &Listed| {
            let found = self.map.find_address(*hash as u32, *address as usize, guard)?;
            prefetch::<Header>(found.as_ptr());
            Some((Handle(found), Rank::default()))
        };
        let mut found: Vec<_> = listed.iter().filter_map(find).collect();
        let deferred = self.with_core(guard, |core| {
            for (handle, rank) in &mut found {
                *rank = core.rank(*handle);
            }
        });
        self.run_deferred(deferred, self.pin());
        found
    }

    /// Returns the weight of an entry that was found in the map.
    pub(crate) fn weight_of(&self, found: Handle, _guard: &Guard) -> u64 {
        // SAFETY: found under the guard, so alive while it lives.
        unsafe { self.shape.weight(found) }
    }

    /// Returns the deadline and the latest deadline of an entry that was found in the map.
    pub(crate) fn deadlines_of(&self, found: Handle, guard: &Guard) -> Option<(u64, u64)> {
        self.timing(found, guard)
            .map(|timing| (timing.deadline(), timing.max_deadline()))
    }

    /// Inserts a restored entry with its `rank`, if its key is absent and `invalidated` does not
    /// return true before the commit. Returns whether it was inserted. The entry stays readable
    /// under the guard even if the policy evicts it.
    pub(crate) fn restore(
        &self,
        (hash, new): (u64, Handle),
        rank: Rank,
        equal: impl FnMut(&K, &K) -> bool,
        invalidated: impl FnMut() -> bool,
        guard: &Guard,
    ) -> bool {
        let inserted = self.enter(hash, new, equal, Mode::IfAbsent, Some(invalidated), guard);
        if inserted != Inserted::New {
            self.record(Event::Released(new), self.pin());
            return false;
        }
        if let Some(held) = self.work.0.lock.try_lock() {
            let deferred = self.maintain(held, guard, Rings::Subset, &mut |core| core.restore(new, rank));
            self.run_deferred(deferred, self.pin());
        } else {
            // A miss must not wait for the lock: the entry is restored without its rank.
            self.record(Event::Arrived(new), self.pin());
        }
        if let Some(timing) = self.timing(new, guard) {
            self.time.note_deadline(timing.deadline());
        }
        true
    }

    /// Sets the policy's window as a share of the capacity in 2^-32.
    pub(crate) fn set_window(&self, share: u32) {
        let guard = self.pin();
        let deferred = self.with_core(&guard, |core| core.set_window(share));
        self.run_deferred(deferred, guard);
    }

    /// Returns how much weight fits before the cache is full.
    pub(crate) fn room(&self) -> u64 {
        let mut room = 0;
        let guard = self.pin();
        let deferred = self.with_core(&guard, |core| {
            room = core.policy.capacity().saturating_sub(core.policy.weight());
        });
        self.run_deferred(deferred, guard);
        room
    }

    /// Returns whether entries may have other weights than 1.
    pub(crate) fn is_weighted(&self) -> bool {
        self.shape.weighted
    }
}
