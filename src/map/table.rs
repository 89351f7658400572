//! One table of buckets, and the protocol by which keys come, change and go in it.
//!
//! See ARCHITECTURE.md for the argument why each step is safe; `model` checks it with loom. In short:
//! - insert: scan; claim a free slot (its tag), write the entry there as PENDING; commit by a CAS of the home's control
//!   word, which fails if another key with this home came in since the scan; make it VISIBLE (anyone may help).
//! - replace: CAS of the slot word. remove: CAS of the slot word to 0, then free the tag.
//! - An insertion that an invalidation may kill (a load's) is LOADING instead of PENDING.
//! - A slot is not emptied while its home's control word still names it as the last insertion. So a helper that finds
//!   the word it is named in unchanged knows whose PENDING it sees.

use super::Header;
use super::layout::{self, MAX_DISTANCE, SLOTS, control, slot, tags};
use super::memory::Buckets;
use crate::prim::park::{Parking, spin};
use crate::prim::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};
use std::ptr::{self, NonNull};

/// 64 bytes: one cache line.
#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) tags: AtomicU64,
    pub(super) slots: [AtomicU64; SLOTS],
    pub(super) control: AtomicU64,
}

pub(crate) struct Table {
    pub(super) buckets: Buckets,
    /// The table that this one is moving to: set once. Of a table that was discarded, the next one in that list.
    pub(super) next: AtomicPtr<Table>,
    /// A thread may wait for a home that is being moved.
    awaited: AtomicBool,
    /// The mover panicked, and left a home that will never be moved.
    broken: AtomicBool,
    parking: Parking,
    /// One that was allocated to follow, and is not installed yet.
    pub(super) prepared: AtomicPtr<Table>,
    /// Of a table that was discarded, how many bytes of it have been freed.
    pub(super) released: usize,
}

/// Where a search found a key.
pub(super) struct Found {
    pub(super) bucket: usize,
    pub(super) slot: usize,
    pub(super) word: u64,
}

/// What an attempt in one table came to.
pub(super) enum Step<T> {
    Done(T),
    /// The key's home is no longer in this table.
    Moved,
}

/// How an insertion treats a key that is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Replace it.
    Upsert,
    /// Leave it.
    IfAbsent,
}

/// Asked by an insertion whether it has been overtaken. Only one that asks may be killed.
pub(crate) const UNCONDITIONAL: Option<fn() -> bool> = None;

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// The key was absent.
    New,
    /// The key was present; the caller now owns the old entry's retirement.
    Replaced(NonNull<Header>),
    /// The key is present, and the mode said to leave it. The new entry is still the caller's.
    Present(NonNull<Header>),
    /// An invalidation came first, as only an insertion that asks may find. The new entry must be retired, not dropped: others may have seen it.
    Killed,
    /// No slot is free within reach. The new entry is still the caller's.
    Full,
}

#[inline]
pub(super) fn pointer(word: u64) -> NonNull<Header> {
    exact_pointer(word & slot::POINTER)
}

/// The pointer that is left of a slot word without its other bits.
#[inline]
pub(super) fn exact_pointer(address: u64) -> NonNull<Header> {
    let pointer = ptr::with_exposed_provenance_mut::<Header>(address as usize);
    debug_assert!(!pointer.is_null());
    // SAFETY: the callers have seen a state in the word, so it is not 0, and such words hold an entry's address.
    unsafe { NonNull::new_unchecked(pointer) }
}

#[inline]
pub(super) fn address(entry: NonNull<Header>) -> u64 {
    let address = entry.as_ptr().expose_provenance() as u64;
    debug_assert_eq!(address & !slot::POINTER, 0);
    address
}

/// A slot that this thread owns until it commits or gives it back.
struct Claim<'t> {
    table: &'t Table,
    distance: usize,
    bucket: usize,
    slot: usize,
    word: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // Never committed, so nobody else touches the slot.
        let bucket = self.table.bucket(self.bucket);
        // A swap: loom does not order a store after an invalidation's compare-and-swap of what it overwrites.
        bucket.slot(self.slot).swap(0, Ordering::Relaxed);
        self.table.free_tag(self.bucket, self.slot);
    }
}

impl Bucket {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            tags: AtomicU64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
            control: AtomicU64::new(0),
        }
    }

    /// The slot that a match of tags, or a control word, names.
    #[inline(always)]
    pub(super) fn slot(&self, slot: usize) -> &AtomicU64 {
        debug_assert!(slot < SLOTS);
        // SAFETY: matches lie in the six lower bytes of a word of tags, and control words name slots that were claimed.
        unsafe { self.slots.get_unchecked(slot) }
    }
}

impl Table {
    /// Returns an empty table, or `None` if there is no memory for it.
    pub(super) fn new(buckets: usize) -> Option<Self> {
        Some(Self {
            buckets: Buckets::zeroed(buckets)?,
            next: AtomicPtr::new(ptr::null_mut()),
            awaited: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            parking: Parking::new(),
            prepared: AtomicPtr::new(ptr::null_mut()),
            released: 0,
        })
    }

    #[inline]
    pub(super) fn home(&self, hash: u32) -> usize {
        layout::home(hash, self.buckets.len())
    }

    #[inline(always)]
    pub(super) fn bucket(&self, index: usize) -> &Bucket {
        debug_assert!(index < self.buckets.len());
        // SAFETY: `home` and `bucket_at` map into the table's buckets.
        unsafe { self.buckets.get_unchecked(index) }
    }

    /// The furthest that a key may lie from its home.
    fn max_distance(&self) -> usize {
        MAX_DISTANCE.min(self.buckets.len() - 1)
    }

    #[inline]
    pub(super) fn bucket_at(&self, home: usize, distance: usize) -> usize {
        let at = home + distance;
        if at >= self.buckets.len() {
            at - self.buckets.len()
        } else {
            at
        }
    }

    fn free_tag(&self, bucket: usize, slot: usize) {
        // Release pairs with the Acquire of the next claim: the slot is empty, and the home's control word points
        // elsewhere, before the slot can be claimed again.
        self.buckets[bucket]
            .tags
            .fetch_and(!(0xff << (8 * slot)), Ordering::Release);
    }

    /// Makes the home's last insertion visible, if it is not yet. `seen` is its control word.
    #[inline(always)]
    pub(super) fn finish(&self, home: usize, seen: u64) {
        // No branch on whether the word names an insertion, which cannot be predicted: pending slots are rare.
        let (distance, slot) = control::place_of_last(seen);
        let at = self.bucket(self.bucket_at(home, distance)).slot(slot);
        // Acquire: what made a later claimant's word possible (the control word moving on) is seen below.
        let word = at.load(Ordering::Acquire);
        if slot::is_pending(word) {
            self.help(home, seen, at, word);
        }
    }

    #[cold]
    fn help(&self, home: usize, seen: u64, at: &AtomicU64, word: u64) {
        if control::last(seen).is_some() && self.bucket(home).control.load(Ordering::Acquire) == seen {
            // The control word still names the slot, so it has not been emptied since: this is the committed word.
            // AcqRel: the entry's contents, seen with `word`, are passed on to readers.
            let _ = at.compare_exchange(word, slot::shown(word), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

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
        seen: u64,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
    ) -> Option<Found> {
        let found = self.scan_bucket(home, 0, hash, equal);
        if found.is_some() || control::probe_limit(seen) == 0 {
            return found;
        }
        self.scan_beyond(home, seen, hash, equal)
    }

    #[inline(never)]
    fn scan_beyond(
        &self,
        home: usize,
        seen: u64,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
    ) -> Option<Found> {
        (1..=control::probe_limit(seen))
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
    fn measure_probe_limit(&self, home: usize, seen: u64) -> usize {
        let mut probe_limit = control::probe_limit(seen);
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

    /// Claims a free slot near the home. `pending` is the entry and the state until it takes effect.
    #[inline(always)]
    fn claim(&self, home: usize, hash: u64, pending: u64) -> Option<Claim<'_>> {
        let claim = self.claim_in(home, 0, hash, pending);
        if claim.is_some() {
            return claim;
        }
        self.claim_beyond(home, hash, pending)
    }

    #[inline(never)]
    fn claim_beyond(&self, home: usize, hash: u64, pending: u64) -> Option<Claim<'_>> {
        (1..=self.max_distance())
            .find_map(|distance| self.claim_in(self.bucket_at(home, distance), distance, hash, pending))
    }

    #[inline(always)]
    fn claim_in(&self, index: usize, distance: usize, hash: u64, pending: u64) -> Option<Claim<'_>> {
        let bucket = self.bucket(index);
        let mut seen = bucket.tags.load(Ordering::Relaxed);
        loop {
            let slot = tags::free(seen)?;
            let claimed = seen | tags::of(hash) << (8 * slot);
            // Acquire pairs with the Release in `free_tag`.
            match bucket
                .tags
                .compare_exchange(seen, claimed, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => {
                    let word = slot::high(hash, distance) | pending;
                    // Release: the entry's contents are seen by whoever helps it to become visible.
                    bucket.slot(slot).store(word, Ordering::Release);
                    return Some(Claim {
                        table: self,
                        distance,
                        bucket: index,
                        slot,
                        word,
                    });
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Inserts the entry, whose hash and key are what `hash` and `equal` look for. Lock-free, but for a home that is
    /// being moved. `killed`, if any, is asked once the claim is visible, before it takes effect.
    #[inline(always)]
    pub(super) fn insert(
        &self,
        hash: u64,
        entry: NonNull<Header>,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
        mode: Mode,
        killed: &mut Option<impl FnMut() -> bool>,
    ) -> Step<Inserted> {
        let home = self.home((hash >> 32) as u32);
        let pending = address(entry) | if killed.is_some() { slot::LOADING } else { slot::PENDING };
        let mut killed = || killed.as_mut().is_some_and(|killed| killed());
        let mut claim: Option<Claim<'_>> = None;
        loop {
            let seen = match self.settled(home) {
                Step::Done(seen) => seen,
                Step::Moved => return Step::Moved,
            };
            if let Some(found) = self.scan(home, seen, hash, equal) {
                if mode == Mode::IfAbsent {
                    return Step::Done(Inserted::Present(pointer(found.word)));
                }
                if found.word & slot::STATE == slot::FROZEN {
                    continue; // the home has been frozen since: wait for it
                }
                // Asked after the slot was read: who overtakes this insertion later changes that slot, so `put` fails.
                if killed() {
                    return Step::Done(Inserted::Killed);
                }
                if self.put(&found, entry) {
                    return Step::Done(Inserted::Replaced(pointer(found.word)));
                }
                continue;
            }
            if claim.is_none() {
                claim = self.claim(home, hash, pending);
            }
            let Some(claimed) = &claim else {
                return Step::Done(Inserted::Full);
            };
            if killed() {
                return Step::Done(Inserted::Killed);
            }
            // Keys that left may have reached further than those that are there. Looked into now and then.
            let mut probe_limit = control::probe_limit(seen);
            if probe_limit > 0 && control::is_eighth(seen) {
                probe_limit = self.measure_probe_limit(home, seen);
            }
            let (distance, slot) = (claimed.distance, claimed.slot);
            let committed = control::inserted(seen, distance, slot, probe_limit.max(distance));
            // Release publishes the claim; Acquire keeps what follows behind it.
            if self
                .bucket(home)
                .control
                .compare_exchange(seen, committed, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                let claimed = claim.take().expect("claimed above");
                let (bucket, word) = (claimed.bucket, claimed.word);
                std::mem::forget(claimed); // the slot is the map's now
                let at = self.bucket(bucket).slot(slot);
                let shown = at.compare_exchange(word, slot::shown(word), Ordering::AcqRel, Ordering::Relaxed);
                if shown.is_err_and(|now| now == word ^ slot::LOADING ^ slot::KILLED) {
                    self.discard_killed(home, distance, bucket, slot);
                    return Step::Done(Inserted::Killed);
                }
                return Step::Done(Inserted::New);
            }
        }
    }

    /// Empties a slot whose insertion was killed after its commit.
    #[cold]
    fn discard_killed(&self, home: usize, distance: usize, bucket: usize, slot: usize) {
        self.clear_last_insert(home, distance, slot);
        self.bucket(bucket).slot(slot).store(0, Ordering::Relaxed);
        self.free_tag(bucket, slot);
    }

    /// The home's control word with its last insertion visible; waits if the home is just being moved.
    #[inline(always)]
    fn settled(&self, home: usize) -> Step<u64> {
        let seen = self.load_control(home);
        if seen & (control::MOVED | control::FROZEN) != 0 {
            return self.wait_until_moved(home);
        }
        self.finish(home, seen);
        Step::Done(seen)
    }

    #[cold]
    fn wait_until_moved(&self, home: usize) -> Step<u64> {
        loop {
            let seen = self.load_control(home);
            if seen & control::MOVED != 0 || self.is_broken() {
                return Step::Moved;
            }
            if seen & control::FROZEN == 0 {
                self.finish(home, seen);
                return Step::Done(seen);
            }
            wait_until_moved(self, home);
        }
    }

    /// Whether a mover panicked, and left a home that will never be moved.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Wakes the threads that wait for the home that the caller has just marked as moved, by an AcqRel read-modify-write.
    #[inline]
    pub(super) fn wake_waiters(&self) {
        if self.awaited.load(Ordering::Relaxed) {
            // Before the wake-up: a thread that is woken and waits for another home sets it again.
            self.awaited.store(false, Ordering::Relaxed);
            self.parking.wake();
        }
    }

    #[inline]
    pub(super) fn load_control(&self, home: usize) -> u64 {
        // Acquire pairs with the Release of an insertion's commit, and of the mover's MOVED.
        self.bucket(home).control.load(Ordering::Acquire)
    }

    /// Sees to it that the home's control word does not name a slot that is about to be emptied.
    #[inline(always)]
    fn clear_last_insert(&self, home: usize, distance: usize, slot: usize) {
        let control = &self.bucket(home).control;
        let mut seen = control.load(Ordering::Acquire);
        while control::is_last(seen, distance, slot) {
            // Release: it precedes the emptying for whoever acquires the free tag.
            match control.compare_exchange_weak(seen, seen & !control::LAST, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Empties the slot if it still holds `word`, which is visible. True for exactly one caller per entry.
    fn take(&self, home: usize, bucket: usize, slot: usize, word: u64) -> bool {
        self.clear_last_insert(home, slot::distance(word), slot);
        // Acquire orders the entry's contents before its retirement.
        let taken = self
            .bucket(bucket)
            .slot(slot)
            .compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if taken {
            self.free_tag(bucket, slot);
        }
        taken
    }

    /// Removes the key, if `accept` says so of its entry. Lock-free, but for a home that is being moved.
    /// With `kill`, also keeps loads of the key that are pending, and that this call invalidates, from taking effect.
    pub(super) fn remove(
        &self,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
        accept: &mut impl FnMut(NonNull<Header>) -> bool,
        kill: bool,
    ) -> Step<Option<NonNull<Header>>> {
        let home = self.home((hash >> 32) as u32);
        loop {
            let seen = match self.settled(home) {
                Step::Done(seen) => seen,
                Step::Moved => return Step::Moved,
            };
            if kill {
                self.kill(home, hash, equal);
            }
            let Some(found) = self.scan(home, seen, hash, equal) else {
                return Step::Done(None);
            };
            if found.word & slot::STATE == slot::FROZEN {
                continue;
            }
            if !accept(pointer(found.word)) {
                return Step::Done(None);
            }
            if self.take(home, found.bucket, found.slot, found.word) {
                return Step::Done(Some(pointer(found.word)));
            }
        }
    }

    /// Kills the pending insertions of the key that are a load's.
    fn kill(&self, home: usize, hash: u64, equal: &mut impl FnMut(NonNull<Header>) -> bool) {
        for distance in 0..=self.max_distance() {
            let high = slot::high(hash, distance);
            for at in &self.bucket(self.bucket_at(home, distance)).slots {
                let word = at.load(Ordering::Acquire);
                if word & (slot::HIGH | slot::STATE) == high | slot::LOADING && equal(pointer(word)) {
                    let killed = word ^ slot::LOADING ^ slot::KILLED;
                    let _ = at.compare_exchange(word, killed, Ordering::AcqRel, Ordering::Relaxed);
                }
            }
        }
    }

    /// Finds the slot of one entry by its address. No user code.
    #[inline(always)]
    fn find_exact(&self, home: usize, seen: u64, entry: NonNull<Header>) -> Option<Found> {
        // Most entries are found in their home bucket by their tag.
        // SAFETY: the caller keeps the entry alive (module contract).
        let hash = u64::from(unsafe { entry.as_ref() }.hash()) << 32;
        let found = self.find_exact_in(home, hash, entry);
        if found.is_some() || control::probe_limit(seen) == 0 {
            return found;
        }
        self.find_exact_beyond(home, seen, hash, entry)
    }

    #[inline(never)]
    fn find_exact_beyond(&self, home: usize, seen: u64, hash: u64, entry: NonNull<Header>) -> Option<Found> {
        (1..=control::probe_limit(seen))
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

    /// Removes this very entry, or puts `new` in its place; false if it is no longer there. No user code.
    #[inline(always)]
    pub(super) fn change_exact(&self, hash: u32, old: NonNull<Header>, new: Option<NonNull<Header>>) -> Step<bool> {
        let home = self.home(hash);
        loop {
            let seen = self.load_control(home);
            if seen & control::MOVED != 0 {
                return Step::Moved;
            }
            let Some(found) = self.find_exact(home, seen, old) else {
                return Step::Done(false);
            };
            if found.word & slot::STATE == slot::FROZEN {
                wait_until_moved(self, home);
                return Step::Moved;
            }
            let changed = match new {
                None => self.take(home, found.bucket, found.slot, found.word),
                Some(new) => self.put(&found, new),
            };
            if changed {
                return Step::Done(true);
            }
            // It was replaced, removed or frozen: look again.
        }
    }

    /// Puts an entry with the same key in the place of the one found, if that is still there.
    fn put(&self, found: &Found, new: NonNull<Header>) -> bool {
        let word = found.word & (slot::HIGH | slot::STATE) | address(new);
        // Release publishes the new entry; Acquire orders the old one's contents before its retirement.
        self.bucket(found.bucket)
            .slot(found.slot)
            .compare_exchange(found.word, word, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Calls `visit` for the entries of one home, which must not be moved. Weakly consistent.
    pub(super) fn for_each_of(&self, home: usize, seen: u64, mut visit: impl FnMut(u64, u32)) {
        for distance in 0..=control::probe_limit(seen) {
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

    /// Some entry that could make room for this hash, preferably one that `spare` is true of. No user code.
    pub(super) fn candidate(&self, hash: u64, spare: impl Fn(NonNull<Header>) -> bool) -> Option<NonNull<Header>> {
        let home = self.home((hash >> 32) as u32);
        let mut any = None;
        for distance in 0..=self.max_distance() {
            for at in &self.bucket(self.bucket_at(home, distance)).slots {
                let word = at.load(Ordering::Acquire);
                if word & slot::STATE == slot::VISIBLE {
                    if spare(pointer(word)) {
                        return Some(pointer(word));
                    }
                    any = any.or(Some(pointer(word)));
                }
            }
        }
        any
    }
}

/// Waits for the mover of a home that is frozen, or moved already; or until the table is broken. The caller is pinned, as the
/// mover is.
///
/// Cannot unwind, which `extern "C"` tells the optimizer: so an insertion can keep its claim in registers.
#[cold]
#[inline(never)]
extern "C" fn wait_until_moved(table: &Table, home: usize) {
    if !spin(|| table.load_control(home) & control::MOVED != 0) {
        table.parking.wait(|| {
            table.awaited.store(true, Ordering::Relaxed);
            // AcqRel, a read-modify-write: it comes before the mover's, which then sees `awaited`, or after it, and sees MOVED.
            let seen = table.bucket(home).control.fetch_or(0, Ordering::AcqRel);
            seen & control::MOVED != 0 || table.is_broken()
        });
    }
}

/// Dropped by a panic of the mover: threads that wait for its home are woken, and panic.
pub(super) struct OnPanic<'t>(pub(super) &'t Table);

impl Drop for OnPanic<'_> {
    #[cold]
    fn drop(&mut self) {
        // Relaxed: waiters read it under the parking's mutex, through which `wake` passes.
        self.0.broken.store(true, Ordering::Relaxed);
        self.0.parking.wake();
    }
}
