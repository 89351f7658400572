//! What a snapshot needs: all entries, hottest first, without holding on to any of them; and entries that come back.

use super::event::Event;
use super::maintenance::Rings;
use super::{Engine, Handle};
use crate::map::{Header, Inserted, Mode};
use crate::policy::{Policy, Rank};
use crate::prim::prefetch::prefetch;
use crate::reclaim::Guard;

/// Where an entry was when it was listed, and the upper half of its hash, as 64 bits: the list's memory then serves for
/// something else. The entry may be gone by now, and its memory used for another.
pub(crate) type Listed = [u64; 2];

impl<K, V> Engine<K, V> {
    /// The entries from the one worth most to the one that would go first, as of now; and the share of the capacity, in
    /// 2^-32, that the policy gives to new entries. Holds up the housekeeping while it copies.
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

    /// Those of the listed entries that are in the map, or what has taken their place there, and what the policy thinks of
    /// them.
    pub(crate) fn find_listed(&self, listed: &[Listed], guard: &Guard) -> Vec<(Handle, Rank)> {
        // Step by step, so that the cache misses of all overlap.
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

    /// The weight of an entry that was found in the map.
    pub(crate) fn weight_of(&self, found: Handle, _guard: &Guard) -> u64 {
        // SAFETY: found under the guard, so alive while it lives.
        unsafe { self.shape.weight(found) }
    }

    /// Deadline and limit of an entry that was found in the map.
    pub(crate) fn deadlines_of(&self, found: Handle, guard: &Guard) -> Option<(u64, u64)> {
        self.timing(found, guard)
            .map(|timing| (timing.deadline(), timing.max_deadline()))
    }

    /// Inserts an entry that comes back at the rank it had, if its key is absent and `invalidated` does not say no at the
    /// last moment. Whether it came in; it stays readable under the guard, even if the policy does not keep it.
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
            let deferred = self.maintain(held, guard, Rings::Subset, |core| core.restore(new, rank));
            self.run_deferred(deferred, self.pin());
        } else {
            // A miss waits for nobody: the entry comes back as a new one.
            self.record(Event::Arrived(new), self.pin());
        }
        if let Some(timing) = self.timing(new, guard) {
            self.time.note_deadline(timing.deadline());
        }
        true
    }

    /// Sets the share of the capacity that the policy gives to new entries.
    pub(crate) fn set_window(&self, share: u32) {
        let guard = self.pin();
        let deferred = self.with_core(&guard, |core| core.set_window(share));
        self.run_deferred(deferred, guard);
    }

    /// How much weight there is room for.
    pub(crate) fn room(&self) -> u64 {
        let mut room = 0;
        let guard = self.pin();
        let deferred = self.with_core(&guard, |core| {
            room = core.policy.capacity().saturating_sub(core.policy.weight());
        });
        self.run_deferred(deferred, guard);
        room
    }

    /// Whether entries may have other weights than 1.
    pub(crate) fn is_weighted(&self) -> bool {
        self.shape.weighted
    }
}
