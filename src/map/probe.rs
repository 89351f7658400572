//! How a table is searched: for a key, for an entry by its address, and for all entries of one home.

use super::header::Header;
use super::layout::{control, slot, tags};
use super::table::{Found, Table, address, pointer};
use crate::prim::sync::{AtomicU64, Ordering, fence};
use std::ptr::NonNull;

impl Table {
    /// The key's slot in one bucket of its probe set.
    #[inline(always)]
    fn scan_bucket(
        &self,
        index: usize,
        distance: usize,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
    ) -> Option<Found> {
        let bucket = self.bucket(index);
        let high = slot::high(hash, distance);
        let mut matching = tags::matching(bucket.tags.load(Ordering::Acquire), hash);
        while matching != 0 {
            let slot = tags::slot(matching);
            matching &= matching - 1;
            // Acquire pairs with the Release that made the entry visible: its contents are seen.
            let word = bucket.slot(slot).load(Ordering::Acquire);
            if word & slot::HIGH == high && slot::is_present(word) && equal(pointer(word)) {
                return Some(Found {
                    bucket: index,
                    slot,
                    word,
                });
            }
        }
        None
    }

    /// The key's slot.
    #[inline(always)]
    pub(super) fn scan(
        &self,
        home: usize,
        control_word: u64,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
    ) -> Option<Found> {
        let found = self.scan_bucket(home, 0, hash, equal);
        if found.is_some() || control::probe_limit(control_word) == 0 {
            return found;
        }
        self.scan_beyond(home, control_word, hash, equal)
    }

    #[inline(never)]
    fn scan_beyond(
        &self,
        home: usize,
        control_word: u64,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
    ) -> Option<Found> {
        (1..=control::probe_limit(control_word))
            .find_map(|distance| self.scan_bucket(self.bucket_at(home, distance), distance, hash, equal))
    }

    /// An entry that is visible `distance` behind its home with this tag and label.
    #[inline]
    pub(super) fn probe_bucket(&self, home: usize, distance: usize, hash: u64) -> Option<NonNull<Header>> {
        let bucket = &self.buckets[self.bucket_at(home, distance)];
        let want = slot::high(hash, distance) | slot::VISIBLE;
        let mut matching = tags::matching(bucket.tags.load(Ordering::Relaxed), hash);
        while matching != 0 {
            // Acquire: as in `scan_bucket`.
            let word = bucket.slots[tags::slot(matching)].load(Ordering::Acquire);
            if word & !slot::POINTER == want {
                return Some(pointer(word));
            }
            matching &= matching - 1;
        }
        None
    }

    /// No key with this home lies further than this behind it, while it is in this table.
    #[inline]
    pub(super) fn probe_limit(&self, home: usize) -> usize {
        control::probe_limit(self.load_control(home))
    }

    /// How far keys with this home reach in truth: its control word only ever says more.
    #[cold]
    pub(super) fn measure_probe_limit(&self, home: usize, control_word: u64) -> usize {
        let mut probe_limit = control::probe_limit(control_word);
        while probe_limit > 0 {
            let bucket = self.bucket(self.bucket_at(home, probe_limit));
            // All slots, branch-free.
            let of_home = |at: &AtomicU64| slot::is_present_at(at.load(Ordering::Acquire), probe_limit);
            if bucket.slots.iter().fold(false, |any, at| any | of_home(at)) {
                break;
            }
            probe_limit -= 1;
        }
        probe_limit
    }

    /// Finds the slot of one entry by its address. No user code.
    #[inline(always)]
    pub(super) fn find_exact(&self, home: usize, control_word: u64, entry: NonNull<Header>) -> Option<Found> {
        // Most entries are found in their home bucket by their tag.
        // SAFETY: the caller keeps the entry alive (module contract).
        let hash = u64::from(unsafe { entry.as_ref() }.hash()) << 32;
        let found = self.find_exact_in(home, hash, entry);
        if found.is_some() || control::probe_limit(control_word) == 0 {
            return found;
        }
        self.find_exact_beyond(home, control_word, hash, entry)
    }

    #[inline(never)]
    fn find_exact_beyond(&self, home: usize, control_word: u64, hash: u64, entry: NonNull<Header>) -> Option<Found> {
        (1..=control::probe_limit(control_word))
            .find_map(|distance| self.find_exact_in(self.bucket_at(home, distance), hash, entry))
    }

    #[inline(always)]
    fn find_exact_in(&self, index: usize, hash: u64, entry: NonNull<Header>) -> Option<Found> {
        let address = address(entry);
        let bucket = self.bucket(index);
        // An entry's tag is set before its slot is written and cleared after its slot is emptied.
        let mut matching = tags::matching(bucket.tags.load(Ordering::Acquire), hash);
        while matching != 0 {
            let slot = tags::slot(matching);
            let word = bucket.slot(slot).load(Ordering::Acquire);
            if (word ^ address) & slot::POINTER == 0 && slot::is_present(word) {
                return Some(Found {
                    bucket: index,
                    slot,
                    word,
                });
            }
            matching &= matching - 1;
        }
        None
    }

    /// Calls `visit` for the entries of one home, which must not be moved. Weakly consistent.
    pub(super) fn for_each_in_home(&self, home: usize, control_word: u64, mut visit: impl FnMut(u64, u32)) {
        for distance in 0..=control::probe_limit(control_word) {
            for at in &self.bucket(self.bucket_at(home, distance)).slots {
                let mut word = at.load(Ordering::Acquire);
                while slot::is_present(word) && slot::distance(word) == distance {
                    // SAFETY: present while the caller is pinned.
                    let hash = unsafe { pointer(word).as_ref() }.hash();
                    // Acquire pairs with the Release in `Header::set_link`.
                    fence(Ordering::Acquire);
                    // An entry that has left the map may hold a link in place of its hash, and another may be in its slot.
                    let now = at.load(Ordering::Acquire);
                    if (now ^ word) & !slot::STATE == 0 && now != 0 {
                        visit(word, hash);
                        break;
                    }
                    word = now;
                }
            }
        }
    }

    /// Some entry that could make room for this hash, preferably one that `prefer` is true of. No user code.
    pub(super) fn candidate(&self, hash: u64, prefer: impl Fn(NonNull<Header>) -> bool) -> Option<NonNull<Header>> {
        let home = self.home((hash >> 32) as u32);
        let mut any = None;
        for distance in 0..=self.max_distance() {
            for at in &self.bucket(self.bucket_at(home, distance)).slots {
                let word = at.load(Ordering::Acquire);
                if word & slot::STATE == slot::VISIBLE {
                    if prefer(pointer(word)) {
                        return Some(pointer(word));
                    }
                    any = any.or(Some(pointer(word)));
                }
            }
        }
        any
    }
}
