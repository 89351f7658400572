//! One table of buckets, and the protocol by which keys come, change and go in it.
//!
//! See ARCHITECTURE.md for the argument why each step is safe; `model` checks it with loom. In short:
//! - insert: scan; claim a free slot (its tag), write the entry there as PENDING; commit by a CAS of the home's control
//!   word, which fails if another key with this home came in since the scan; make it VISIBLE (anyone may help).
//! - replace: CAS of the slot word. remove: CAS of the slot word to 0, then free the tag.
//! - An insertion that an invalidation may kill (a load's) is LOADING instead of PENDING.
//! - A slot is not emptied while its home's control word still names it as the last insertion. So a helper that finds
//!   the word it is named in unchanged knows whose PENDING it sees.

use super::header::Header;
use super::layout::{self, MAX_DISTANCE, control, slot, tags};
use super::memory::{Bucket, Buckets};
use crate::prim::park::{Parking, spin};
use crate::prim::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::ptr::{self, NonNull};

pub(crate) struct Table {
    pub(super) buckets: Buckets,
    /// The table that this one is moving to: set once. Of a table that was discarded, the next one in that list.
    pub(super) next: AtomicPtr<Table>,
    /// A thread may wait for a home that is being moved.
    has_waiters: AtomicBool,
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

impl Table {
    /// Returns an empty table, or `None` if there is no memory for it.
    pub(super) fn new(buckets: usize) -> Option<Self> {
        Some(Self {
            buckets: Buckets::zeroed(buckets)?,
            next: AtomicPtr::new(ptr::null_mut()),
            has_waiters: AtomicBool::new(false),
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
    pub(super) fn max_distance(&self) -> usize {
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
    pub(super) fn finish_last_insert(&self, home: usize, control_word: u64) {
        // No branch on whether the word names an insertion, which cannot be predicted: pending slots are rare.
        let (distance, slot) = control::place_of_last(control_word);
        let at = self.bucket(self.bucket_at(home, distance)).slot(slot);
        // Acquire: what made a later claimant's word possible (the control word moving on) is seen below.
        let word = at.load(Ordering::Acquire);
        if slot::is_pending(word) {
            self.help(home, control_word, at, word);
        }
    }

    #[cold]
    fn help(&self, home: usize, control_word: u64, at: &AtomicU64, word: u64) {
        if control::last(control_word).is_some() && self.bucket(home).control.load(Ordering::Acquire) == control_word {
            // The control word still names the slot, so it has not been emptied since: this is the committed word.
            // AcqRel: the entry's contents, seen with `word`, are passed on to readers.
            let _ = at.compare_exchange(word, slot::published(word), Ordering::AcqRel, Ordering::Relaxed);
        }
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
        let mut tags_word = bucket.tags.load(Ordering::Relaxed);
        loop {
            let slot = tags::free(tags_word)?;
            let claimed = tags_word | tags::of(hash) << (8 * slot);
            // Acquire pairs with the Release in `free_tag`.
            match bucket
                .tags
                .compare_exchange(tags_word, claimed, Ordering::Acquire, Ordering::Relaxed)
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
                Err(now) => tags_word = now,
            }
        }
    }

    /// Inserts the entry, whose hash and key are what `hash` and `equal` look for. Lock-free, but for a home that is
    /// being moved. `invalidated`, if any, is asked once the claim is visible, before it takes effect.
    #[inline(always)]
    pub(super) fn insert(
        &self,
        hash: u64,
        entry: NonNull<Header>,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
        mode: Mode,
        invalidated: &mut Option<impl FnMut() -> bool>,
    ) -> Step<Inserted> {
        let home = self.home((hash >> 32) as u32);
        let pending = address(entry)
            | if invalidated.is_some() {
                slot::LOADING
            } else {
                slot::PENDING
            };
        let mut invalidated = || invalidated.as_mut().is_some_and(|invalidated| invalidated());
        let mut claim: Option<Claim<'_>> = None;
        loop {
            let control_word = match self.writable_control(home) {
                Step::Done(control_word) => control_word,
                Step::Moved => return Step::Moved,
            };
            if let Some(found) = self.scan(home, control_word, hash, equal) {
                if mode == Mode::IfAbsent {
                    return Step::Done(Inserted::Present(pointer(found.word)));
                }
                if found.word & slot::STATE == slot::FROZEN {
                    continue; // the home has been frozen since: wait for it
                }
                // Asked after the slot was read: who overtakes this insertion later changes that slot, so `replace_slot` fails.
                if invalidated() {
                    return Step::Done(Inserted::Killed);
                }
                if self.replace_slot(&found, entry) {
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
            if invalidated() {
                return Step::Done(Inserted::Killed);
            }
            // Keys that left may have reached further than those that are there. Looked into now and then.
            let mut probe_limit = control::probe_limit(control_word);
            if probe_limit > 0 && control::is_eighth(control_word) {
                probe_limit = self.measure_probe_limit(home, control_word);
            }
            let (distance, slot) = (claimed.distance, claimed.slot);
            let committed = control::inserted(control_word, distance, slot, probe_limit.max(distance));
            // Release publishes the claim; Acquire keeps what follows behind it.
            if self
                .bucket(home)
                .control
                .compare_exchange(control_word, committed, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                let claimed = claim.take().expect("claimed above");
                let (bucket, word) = (claimed.bucket, claimed.word);
                std::mem::forget(claimed); // the slot is the map's now
                let at = self.bucket(bucket).slot(slot);
                let published = at.compare_exchange(word, slot::published(word), Ordering::AcqRel, Ordering::Relaxed);
                if published.is_err_and(|now| now == word ^ slot::LOADING ^ slot::KILLED) {
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
    fn writable_control(&self, home: usize) -> Step<u64> {
        let control_word = self.load_control(home);
        if control_word & (control::MOVED | control::FROZEN) != 0 {
            return self.writable_control_slow(home);
        }
        self.finish_last_insert(home, control_word);
        Step::Done(control_word)
    }

    #[cold]
    fn writable_control_slow(&self, home: usize) -> Step<u64> {
        loop {
            let control_word = self.load_control(home);
            if control_word & control::MOVED != 0 || self.is_broken() {
                return Step::Moved;
            }
            if control_word & control::FROZEN == 0 {
                self.finish_last_insert(home, control_word);
                return Step::Done(control_word);
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
        if self.has_waiters.load(Ordering::Relaxed) {
            // Before the wake-up: a thread that is woken and waits for another home sets it again.
            self.has_waiters.store(false, Ordering::Relaxed);
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
        let mut control_word = control.load(Ordering::Acquire);
        while control::is_last(control_word, distance, slot) {
            // Release: it precedes the emptying for whoever acquires the free tag.
            match control.compare_exchange_weak(
                control_word,
                control_word & !control::LAST,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => control_word = now,
            }
        }
    }

    /// Empties the slot if it still holds `word`, which is visible. True for exactly one caller per entry.
    fn clear_slot(&self, home: usize, bucket: usize, slot: usize, word: u64) -> bool {
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
            let control_word = match self.writable_control(home) {
                Step::Done(control_word) => control_word,
                Step::Moved => return Step::Moved,
            };
            if kill {
                self.kill(home, hash, equal);
            }
            let Some(found) = self.scan(home, control_word, hash, equal) else {
                return Step::Done(None);
            };
            if found.word & slot::STATE == slot::FROZEN {
                continue;
            }
            if !accept(pointer(found.word)) {
                return Step::Done(None);
            }
            if self.clear_slot(home, found.bucket, found.slot, found.word) {
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

    /// Removes this very entry, or puts `new` in its place; false if it is no longer there. No user code.
    #[inline(always)]
    pub(super) fn change_exact(&self, hash: u32, old: NonNull<Header>, new: Option<NonNull<Header>>) -> Step<bool> {
        let home = self.home(hash);
        loop {
            let control_word = self.load_control(home);
            if control_word & control::MOVED != 0 {
                return Step::Moved;
            }
            let Some(found) = self.find_exact(home, control_word, old) else {
                return Step::Done(false);
            };
            if found.word & slot::STATE == slot::FROZEN {
                wait_until_moved(self, home);
                return Step::Moved;
            }
            let changed = match new {
                None => self.clear_slot(home, found.bucket, found.slot, found.word),
                Some(new) => self.replace_slot(&found, new),
            };
            if changed {
                return Step::Done(true);
            }
            // It was replaced, removed or frozen: look again.
        }
    }

    /// Puts an entry with the same key in the place of the one found, if that is still there.
    fn replace_slot(&self, found: &Found, new: NonNull<Header>) -> bool {
        let word = found.word & (slot::HIGH | slot::STATE) | address(new);
        // Release publishes the new entry; Acquire orders the old one's contents before its retirement.
        self.bucket(found.bucket)
            .slot(found.slot)
            .compare_exchange(found.word, word, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
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
            table.has_waiters.store(true, Ordering::Relaxed);
            // AcqRel, a read-modify-write: it comes before the mover's, which then sees `has_waiters`, or after it, and sees MOVED.
            let control_word = table.bucket(home).control.fetch_or(0, Ordering::AcqRel);
            control_word & control::MOVED != 0 || table.is_broken()
        });
    }
}

/// Dropped by a panic of the mover: threads that wait for its home are woken, and panic.
pub(super) struct BreakOnPanic<'t>(pub(super) &'t Table);

impl Drop for BreakOnPanic<'_> {
    #[cold]
    fn drop(&mut self) {
        // Relaxed: waiters read it under the parking's mutex, through which `wake` passes.
        self.0.broken.store(true, Ordering::Relaxed);
        self.0.parking.wake();
    }
}
