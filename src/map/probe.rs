//! The searches of a table: for a key, for an entry by its address, and for all entries of a home
//! bucket.
//!
//! None of them writes. A search compares the tags of a bucket in one step, then the fingerprint,
//! distance and state of each candidate, then its key. It begins in the home bucket, and continues
//! behind it up to the probe limit of the control word that the caller read: a key that was
//! committed before that lies within it. So an answer is right for the time at which the control
//! word was read, or a later one.

use super::header::Header;
use super::layout::{control, slot, tags};
use super::table::{Found, Table, address, pointer};
use crate::prim::sync::{AtomicU64, Ordering};
use std::ptr::NonNull;

impl Table {
    /// Returns the key's slot in the bucket at `index`, which is `distance` behind the home bucket.
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
        // Acquire pairs with the Release in `free_tag`: a tag that is missing because of a removal
        // is ordered after it.
        let mut matching = tags::matching(bucket.tags.load(Ordering::Acquire), hash);
        while matching != 0 {
            let slot = tags::slot(matching);
            matching &= matching - 1;
            // Acquire pairs with the Release that made the entry visible: its contents are seen.
            let word = bucket.slot(slot).load(Ordering::Acquire);
            // Fingerprint and distance before the key: they spare nearly all cache misses of
            // entries with another key, and exclude keys of other home buckets.
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

    /// Returns the key's slot, if it is present. `control_word` is the home bucket's.
    #[inline(always)]
    pub(super) fn scan(
        &self,
        home: usize,
        control_word: u64,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
    ) -> Option<Found> {
        let found = self.scan_bucket(home, 0, hash, equal);
        // Mostly nothing lies behind the home bucket.
        if found.is_some() || control::probe_limit(control_word) == 0 {
            return found;
        }
        self.scan_beyond(home, control_word, hash, equal)
    }

    /// [`scan`](Self::scan) in the buckets behind the home bucket.
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

    /// Returns an entry that is visible `distance` behind the home bucket with this tag and
    /// fingerprint. Keys are not compared.
    #[inline]
    pub(super) fn probe_bucket(&self, home: usize, distance: usize, hash: u64) -> Option<NonNull<Header>> {
        let bucket = &self.buckets[self.bucket_at(home, distance)];
        let want = slot::high(hash, distance) | slot::VISIBLE;
        // Relaxed: a missed entry only costs the caller a full search.
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

    /// Returns the probe limit: no key of this home bucket lies further behind it while it is in
    /// this table.
    #[inline]
    pub(super) fn probe_limit(&self, home: usize) -> usize {
        control::probe_limit(self.load_control(home))
    }

    /// Returns the largest distance of a key of this home bucket, at most the probe limit of
    /// `control_word`.
    ///
    /// The probe limit of a control word is never too small, but removals may leave it too large.
    #[cold]
    pub(super) fn measure_probe_limit(&self, home: usize, control_word: u64) -> usize {
        let mut probe_limit = control::probe_limit(control_word);
        while probe_limit > 0 {
            let bucket = self.bucket(self.bucket_at(home, probe_limit));
            // Branch-free over all slots. A claim that is not visible yet does not count: its own
            // commit raises the probe limit.
            let of_home = |at: &AtomicU64| slot::is_present_at(at.load(Ordering::Acquire), probe_limit);
            if bucket.slots.iter().fold(false, |any, at| any | of_home(at)) {
                break;
            }
            probe_limit -= 1;
        }
        probe_limit
    }

    /// Returns the slot of one entry, found by its address. Runs no user code.
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

    /// [`find_exact`](Self::find_exact) in the buckets behind the home bucket.
    #[inline(never)]
    fn find_exact_beyond(&self, home: usize, control_word: u64, hash: u64, entry: NonNull<Header>) -> Option<Found> {
        (1..=control::probe_limit(control_word))
            .find_map(|distance| self.find_exact_in(self.bucket_at(home, distance), hash, entry))
    }

    /// Returns the slot of the entry in the bucket at `index`. The upper half of `hash` selects the
    /// tag.
    #[inline(always)]
    fn find_exact_in(&self, index: usize, hash: u64, entry: NonNull<Header>) -> Option<Found> {
        let address = address(entry);
        let bucket = self.bucket(index);
        // An entry's tag is set before its slot is written, and cleared after its slot is emptied.
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

    /// Calls `visit` with the slot word and the upper half of the hash of each entry of a home
    /// bucket that has not moved. Weakly consistent.
    pub(super) fn for_each_in_home(&self, home: usize, control_word: u64, mut visit: impl FnMut(u64, u32)) {
        for distance in 0..=control::probe_limit(control_word) {
            for at in &self.bucket(self.bucket_at(home, distance)).slots {
                let word = at.load(Ordering::Acquire);
                if slot::is_present(word) && slot::distance(word) == distance {
                    // SAFETY: the entry was present after the caller was pinned (invariant 15).
                    visit(word, unsafe { pointer(word).as_ref() }.hash());
                }
            }
        }
    }

    /// Returns an entry whose removal could make room for this hash, preferably one that `prefer`
    /// accepts. Runs no user code.
    pub(super) fn candidate(&self, hash: u64, prefer: impl Fn(NonNull<Header>) -> bool) -> Option<NonNull<Header>> {
        let home = self.home((hash >> 32) as u32);
        let mut any = None;
        for distance in 0..=self.max_distance() {
            for at in &self.bucket(self.bucket_at(home, distance)).slots {
                let word = at.load(Ordering::Acquire);
                // A FROZEN entry is about to leave this table anyway.
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
