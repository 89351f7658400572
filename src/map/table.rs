//! One table of buckets, and the protocol by which keys are inserted, replaced and removed in it.
//!
//! The searches are in `probe`; moves to another table in `migrate`. ARCHITECTURE.md, sections 4
//! and 5, has the invariants and why each step is safe; `loom_tests` checks them.
//!
//! # States of a slot
//!
//! free → PENDING → VISIBLE → free. A load's insertion is LOADING instead of PENDING, and an
//! invalidation may make it KILLED. A move makes VISIBLE FROZEN.
//!
//! # Insertion
//!
//! 1. Read the control word of the home bucket; make the last insertion visible (invariant 3); scan
//!    for the key.
//! 2. Claim: set the tag of a free slot, and write the entry there as PENDING or LOADING.
//! 3. Commit: a compare-and-swap of the control word, which fails if another insertion of that home
//!    bucket committed since step 1 (invariant 2).
//! 4. Publish: make the slot VISIBLE. Any thread may do this for the owner.
//!
//! # Other changes
//!
//! - Replacement: a compare-and-swap of the slot word.
//! - Removal: clear the last insertion in the control word if it names the slot; a compare-and-swap
//!   of the slot word to 0; free the tag.
//! - Invalidation: LOADING words of the key become KILLED (invariant 5); then a removal.
//!
//! # Why helping is safe
//!
//! A slot is not emptied while its home bucket's control word names it (invariant 4). So a helper
//! that finds the control word unchanged after it read the slot knows that the slot holds the
//! committed word.

use super::header::Header;
use super::layout::{self, MAX_DISTANCE, control, slot, tags};
use super::memory::{Bucket, Buckets};
use crate::prim::park::{Parking, spin};
use crate::prim::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::num::NonZeroU64;
use std::ptr::{self, NonNull};

/// A table of buckets, and the table that it moves to.
pub(crate) struct Table {
    pub(super) buckets: Buckets,
    /// The table that this one is moving to: set once. Of a discarded table, the next one in that
    /// list.
    pub(super) next: AtomicPtr<Table>,
    /// A thread may be waiting for a home bucket that is being moved.
    has_waiters: AtomicBool,
    /// The mover panicked, and left a home bucket that will never be moved.
    broken: AtomicBool,
    parking: Parking,
    /// A table that was allocated to follow this one, and is not installed yet.
    pub(super) prepared: AtomicPtr<Table>,
    /// Of a discarded table, the number of its bytes that have been freed.
    pub(super) released: usize,
}

/// The slot in which a search found a key, and the word that it held.
pub(super) struct Found {
    pub(super) bucket: usize,
    pub(super) slot: usize,
    pub(super) word: u64,
}

/// The result of an attempt in one table.
pub(super) enum Step<T> {
    Done(T),
    /// The key's home bucket has moved: try the next table.
    Moved,
}

/// How an insertion treats a key that is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Replaces it.
    Upsert,
    /// Leaves it.
    IfAbsent,
}

/// The `invalidated` of an insertion that is not a load's: no invalidation kills it.
pub(crate) const UNCONDITIONAL: Option<fn() -> bool> = None;

/// The result of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// The key was absent.
    New,
    /// The key was present; the caller now owns the old entry's retirement.
    Replaced(NonNull<Header>),
    /// The key is present, and the mode leaves it. The new entry is still the caller's.
    Present(NonNull<Header>),
    /// An invalidation came first: only an insertion with `invalidated` gets this. The new entry
    /// must be retired, not dropped, since other threads may have seen it.
    Killed,
    /// No slot is free within the largest distance. The new entry is still the caller's.
    Full,
}

/// Returns the entry of a slot word that is not empty.
#[inline]
pub(super) fn pointer(word: u64) -> NonNull<Header> {
    exact_pointer(word & slot::POINTER)
}

/// Returns the entry of a slot word whose other bits are cleared.
#[inline]
pub(super) fn exact_pointer(address: u64) -> NonNull<Header> {
    let pointer = ptr::with_exposed_provenance_mut::<Header>(address as usize);
    debug_assert!(!pointer.is_null());
    // SAFETY: the callers have seen a state in the word, so it is not 0, and such words hold an
    // entry's address.
    unsafe { NonNull::new_unchecked(pointer) }
}

/// Returns the pointer bits of a slot word for `entry`.
#[inline]
pub(super) fn address(entry: NonNull<Header>) -> u64 {
    let address = entry.as_ptr().expose_provenance() as u64;
    debug_assert_eq!(address & !slot::POINTER, 0);
    address
}

/// The place of a claimed slot: `bucket 56 | distance 5 | slot + 1 3`. One word, so that an
/// insertion keeps it in a register: as a structure it went through the stack, and its copy waited
/// for the stores, which took 4% of an insertion's time.
#[derive(Clone, Copy)]
struct Place(NonZeroU64);

impl Place {
    #[inline(always)]
    fn new(bucket: usize, distance: usize, slot: usize) -> Self {
        let place = (bucket as u64) << 8 | (distance as u64) << 3 | slot as u64;
        Self(NonZeroU64::MIN.saturating_add(place))
    }

    #[inline(always)]
    fn bucket(self) -> usize {
        (self.0.get() >> 8) as usize
    }

    #[inline(always)]
    fn distance(self) -> usize {
        (self.0.get() >> 3 & 31) as usize
    }

    #[inline(always)]
    fn slot(self) -> usize {
        (self.0.get() & 7) as usize - 1
    }
}

/// A slot that this thread owns until it commits. Dropped before that, it gives the slot back.
struct Claim<'t> {
    table: &'t Table,
    place: Place,
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        self.table.unclaim(self.place);
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

    /// Returns the home bucket for the upper half of a hash.
    #[inline]
    pub(super) fn home(&self, hash: u32) -> usize {
        layout::home(hash, self.buckets.len())
    }

    /// Returns the bucket at `index`.
    #[inline(always)]
    pub(super) fn bucket(&self, index: usize) -> &Bucket {
        debug_assert!(index < self.buckets.len());
        // SAFETY: `home` and `bucket_at` map into the table's buckets.
        unsafe { self.buckets.get_unchecked(index) }
    }

    /// Returns the largest distance of a key behind its home bucket.
    pub(super) fn max_distance(&self) -> usize {
        MAX_DISTANCE.min(self.buckets.len() - 1)
    }

    /// Returns the index of the bucket `distance` behind `home`. The table wraps around.
    #[inline]
    pub(super) fn bucket_at(&self, home: usize, distance: usize) -> usize {
        let at = home + distance;
        if at >= self.buckets.len() {
            at - self.buckets.len()
        } else {
            at
        }
    }

    /// Makes an empty slot available to later claims.
    fn free_tag(&self, bucket: usize, slot: usize) {
        // Release pairs with the Acquire of the next claim: before the slot can be claimed again,
        // it is empty and the control word no longer names it (invariant 4).
        self.buckets[bucket]
            .tags
            .fetch_and(!(0xff << (8 * slot)), Ordering::Release);
    }

    /// Makes the home bucket's last insertion visible if it is not (invariant 3). `control_word` is
    /// what the caller read.
    #[inline(always)]
    pub(super) fn finish_last_insert(&self, home: usize, control_word: u64) {
        // No branch on whether the word names an insertion, which cannot be predicted: pending
        // slots are rare.
        let (distance, slot) = control::place_of_last(control_word);
        let at = self.bucket(self.bucket_at(home, distance)).slot(slot);
        // Acquire pairs with the Release of a claim. If `word` is a later claimant's, the slot was
        // freed in between, and `help` sees that the control word has changed.
        let word = at.load(Ordering::Acquire);
        if slot::is_pending(word) {
            self.help(home, control_word, at, word);
        }
    }

    /// Publishes a committed insertion in place of its owner, if the control word still names it.
    #[cold]
    fn help(&self, home: usize, control_word: u64, at: &AtomicU64, word: u64) {
        if control::last(control_word).is_some() && self.bucket(home).control.load(Ordering::Acquire) == control_word {
            // Acquire, above: the control word was read after the slot and still names it. So the
            // slot has not been emptied since (invariant 4), and `word` is the committed one.
            // AcqRel: the entry's contents, seen with `word`, are passed on to readers. A failure
            // means that another thread published it, or killed it.
            let _ = at.compare_exchange(word, slot::published(word), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Claims a free slot in the home bucket or behind it. `pending` is the entry and the state of
    /// an insertion that is not visible yet.
    #[inline(always)]
    fn claim(&self, home: usize, hash: u64, pending: u64) -> Option<Claim<'_>> {
        let place = match self.claim_in(home, 0, hash, pending) {
            Some(place) => place,
            None => self.claim_beyond(home, hash, pending)?,
        };
        Some(Claim { table: self, place })
    }

    /// Gives a claimed slot back.
    #[cold]
    fn unclaim(&self, place: Place) {
        // Never committed, so no control word names the slot and no helper publishes it. At most an
        // invalidation changes it, from LOADING to KILLED.
        // A swap: loom does not order a store after an invalidation's compare-and-swap of what it
        // overwrites.
        self.bucket(place.bucket())
            .slot(place.slot())
            .swap(0, Ordering::Relaxed);
        self.free_tag(place.bucket(), place.slot());
    }

    #[inline(never)]
    fn claim_beyond(&self, home: usize, hash: u64, pending: u64) -> Option<Place> {
        (1..=self.max_distance())
            .find_map(|distance| self.claim_in(self.bucket_at(home, distance), distance, hash, pending))
    }

    /// Claims a free slot of the bucket at `index`, which is `distance` behind the home bucket.
    #[inline(always)]
    fn claim_in(&self, index: usize, distance: usize, hash: u64, pending: u64) -> Option<Place> {
        let bucket = self.bucket(index);
        let mut tags_word = bucket.tags.load(Ordering::Relaxed);
        loop {
            let slot = tags::free(tags_word)?;
            let claimed = tags_word | tags::of(hash) << (8 * slot);
            // The tag allocates the slot: one thread sets it. Acquire pairs with the Release in
            // `free_tag`: the previous entry has left the slot.
            match bucket
                .tags
                .compare_exchange(tags_word, claimed, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => {
                    let word = slot::high(hash, distance) | pending;
                    // Release: the entry's contents are seen by a thread that helps to publish it,
                    // and by an invalidation that compares its key.
                    bucket.slot(slot).store(word, Ordering::Release);
                    return Some(Place::new(index, distance, slot));
                }
                Err(now) => tags_word = now,
            }
        }
    }

    /// Inserts `entry`, whose hash is `hash` and whose key is the one that `equal` accepts.
    /// Lock-free, except for a home bucket that is being moved.
    ///
    /// `invalidated`, if any, marks a load's insertion. It is called once the claim is visible,
    /// before the commit: either it returns true, or the invalidation sees the claim (invariant
    /// 20).
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
            // 1. Read the control word first: the commit compares it, so it fails if the scan was
            //    outdated (invariant 2). The last insertion is visible now, so the scan sees it
            //    (invariant 3).
            let control_word = match self.writable_control(home) {
                Step::Done(control_word) => control_word,
                Step::Moved => return Step::Moved,
            };
            if let Some(found) = self.scan(home, control_word, hash, equal) {
                if mode == Mode::IfAbsent {
                    return Step::Done(Inserted::Present(pointer(found.word)));
                }
                if found.word & slot::STATE == slot::FROZEN {
                    // The home bucket was frozen after its control word was read: wait for it.
                    continue;
                }
                // Called after the slot was read: an invalidation that `invalidated` misses changes
                // that slot afterwards, so `replace_slot` fails.
                if invalidated() {
                    return Step::Done(Inserted::Killed);
                }
                if self.replace_slot(&found, entry) {
                    return Step::Done(Inserted::Replaced(pointer(found.word)));
                }
                continue;
            }
            // 2. Claim a slot. The claim does not depend on the control word, so it is kept when a
            //    commit fails.
            if claim.is_none() {
                claim = self.claim(home, hash, pending);
            }
            let Some(claimed) = &claim else {
                return Step::Done(Inserted::Full);
            };
            // After the claim: an invalidation that this call misses finds the claim, and kills or
            // removes it.
            if invalidated() {
                return Step::Done(Inserted::Killed);
            }
            // Entries that left may have lain further behind than those that remain, so the probe
            // limit is measured now and then. All committed keys are visible (invariant 3), and the
            // commit below fails if another one commits before it.
            let mut probe_limit = control::probe_limit(control_word);
            if probe_limit > 0 && control::is_eighth(control_word) {
                probe_limit = self.measure_probe_limit(home, control_word);
            }
            let place = claimed.place;
            let (distance, slot) = (place.distance(), place.slot());
            let committed = control::inserted(control_word, distance, slot, probe_limit.max(distance));
            // 3. Commit. Release publishes the claim; Acquire keeps the following accesses behind
            //    it.
            if self
                .bucket(home)
                .control
                .compare_exchange(control_word, committed, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                // The map owns the slot now: helpers may publish it, and removals may empty it.
                std::mem::forget(claim.take());
                let (bucket, word) = (place.bucket(), slot::high(hash, distance) | pending);
                let at = self.bucket(bucket).slot(slot);
                // 4. Publish. AcqRel: as in `help`. A failure means that a helper was first, or
                //    that an invalidation killed the word; a helper never changes it to KILLED.
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
        // Invariant 4: before the slot is emptied, the control word stops naming it.
        self.clear_last_insert(home, distance, slot);
        // Relaxed: no thread changes a KILLED word but its owner, and `free_tag` publishes the
        // emptying.
        self.bucket(bucket).slot(slot).store(0, Ordering::Relaxed);
        self.free_tag(bucket, slot);
    }

    /// Returns the home bucket's control word with its last insertion visible. Waits while the home
    /// bucket is being moved.
    #[inline(always)]
    fn writable_control(&self, home: usize) -> Step<u64> {
        let control_word = self.load_control(home);
        if control_word & (control::MOVED | control::FROZEN) != 0 {
            return self.writable_control_slow(home);
        }
        self.finish_last_insert(home, control_word);
        Step::Done(control_word)
    }

    /// [`writable_control`](Self::writable_control) for a home bucket that is being moved or has
    /// moved.
    #[cold]
    fn writable_control_slow(&self, home: usize) -> Step<u64> {
        loop {
            let control_word = self.load_control(home);
            // A broken table never becomes writable: `next_unbroken` panics for the caller.
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

    /// Returns whether a mover panicked, and left a home bucket that will never be moved.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Wakes the threads that wait for the home bucket that the caller has just marked as MOVED, by
    /// an AcqRel read-modify-write.
    #[inline]
    pub(super) fn wake_waiters(&self) {
        if self.has_waiters.load(Ordering::Relaxed) {
            // Cleared before the wake-up: a woken thread that waits for another home bucket sets it
            // again.
            self.has_waiters.store(false, Ordering::Relaxed);
            self.parking.wake();
        }
    }

    /// Returns the home bucket's control word.
    #[inline]
    pub(super) fn load_control(&self, home: usize) -> u64 {
        // Acquire pairs with the Release of an insertion's commit, and of the mover's MOVED.
        self.bucket(home).control.load(Ordering::Acquire)
    }

    /// Ensures that the home bucket's control word does not name a slot that is about to be emptied
    /// (invariant 4).
    #[inline(always)]
    fn clear_last_insert(&self, home: usize, distance: usize, slot: usize) {
        let control = &self.bucket(home).control;
        let mut control_word = control.load(Ordering::Acquire);
        while control::is_last(control_word, distance, slot) {
            // Release: for the thread that acquires the freed tag, this precedes the emptying.
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

    /// Empties the slot if it still holds `word`, which is VISIBLE. Returns true to exactly one
    /// caller per entry, which then owns its retirement.
    fn clear_slot(&self, home: usize, bucket: usize, slot: usize, word: u64) -> bool {
        // Invariant 4. If the exchange below fails the control word names no slot, which is safe:
        // the last insertion is visible.
        self.clear_last_insert(home, slot::distance(word), slot);
        // Acquire orders the entry's contents before its retirement. Release: a scan that reads 0
        // is ordered after the removal.
        let taken = self
            .bucket(bucket)
            .slot(slot)
            .compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        // Only the thread that emptied the slot frees its tag.
        if taken {
            self.free_tag(bucket, slot);
        }
        taken
    }

    /// Removes the key if `accept` returns true for its entry. Lock-free, except for a home bucket
    /// that is being moved.
    ///
    /// With `kill`, first kills pending insertions of loads of the key. The caller has marked those
    /// loads as invalidated.
    pub(super) fn remove(
        &self,
        hash: u64,
        equal: &mut impl FnMut(NonNull<Header>) -> bool,
        accept: &mut impl FnMut(NonNull<Header>) -> bool,
        kill: bool,
    ) -> Step<Option<NonNull<Header>>> {
        let home = self.home((hash >> 32) as u32);
        loop {
            // Before the control word is read: a claim that is not killed here has committed, so
            // the probe limit covers its slot, and the scan finds it (invariant 20).
            if kill {
                self.kill(home, hash, equal);
            }
            let control_word = match self.writable_control(home) {
                Step::Done(control_word) => control_word,
                Step::Moved => return Step::Moved,
            };
            let Some(found) = self.scan(home, control_word, hash, equal) else {
                return Step::Done(None);
            };
            // The home bucket was frozen after its control word was read: wait for it.
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

    /// Kills the pending insertions of loads of the key.
    fn kill(&self, home: usize, hash: u64, equal: &mut impl FnMut(NonNull<Header>) -> bool) {
        // Not only up to the probe limit: a claim that has not committed may lie beyond it.
        for distance in 0..=self.max_distance() {
            let high = slot::high(hash, distance);
            for at in &self.bucket(self.bucket_at(home, distance)).slots {
                let word = at.load(Ordering::Acquire);
                // Only LOADING (invariant 5): a plain insertion is newer than the invalidation, or
                // concurrent.
                if word & (slot::HIGH | slot::STATE) == high | slot::LOADING && equal(pointer(word)) {
                    let killed = word ^ slot::LOADING ^ slot::KILLED;
                    // AcqRel: the owner, which fails to publish, is ordered after this. A failure
                    // means that the insertion was published, or given up. Acquire pairs with the
                    // Release that published it: the commit is seen in the control word.
                    let _ = at.compare_exchange(word, killed, Ordering::AcqRel, Ordering::Acquire);
                }
            }
        }
    }

    /// Removes this very entry, or replaces it by `new`. Returns false if it is no longer in the
    /// map. Runs no user code.
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
            // Invariant 7: the slot never changes again. Wait, and try the next table.
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
            // The entry was replaced, removed or frozen: search again.
        }
    }

    /// Replaces the entry that was found by one with the same key. Returns false if the slot has
    /// changed.
    fn replace_slot(&self, found: &Found, new: NonNull<Header>) -> bool {
        // The slot keeps its tag, fingerprint and distance, so the key stays in at most one slot
        // (invariant 1).
        let word = found.word & (slot::HIGH | slot::STATE) | address(new);
        // Release publishes the new entry; Acquire orders the old one's contents before its
        // retirement.
        self.bucket(found.bucket)
            .slot(found.slot)
            .compare_exchange(found.word, word, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// Waits until a frozen home bucket is MOVED, or the table is broken. The caller is pinned, as the
/// mover is.
///
/// Cannot unwind, which `extern "C"` declares to the optimizer: so an insertion can keep its claim
/// in registers.
#[cold]
#[inline(never)]
extern "C" fn wait_until_moved(table: &Table, home: usize) {
    if !spin(|| table.load_control(home) & control::MOVED != 0) {
        table.parking.wait(|| {
            // Announced before the condition is read: see `prim::park`.
            table.has_waiters.store(true, Ordering::Relaxed);
            // AcqRel, a read-modify-write like the mover's. It precedes the mover's, which then
            // sees `has_waiters`, or follows it and sees MOVED (invariant 21).
            let control_word = table.bucket(home).control.fetch_or(0, Ordering::AcqRel);
            control_word & control::MOVED != 0 || table.is_broken()
        });
    }
}

/// Dropped by a panic of the mover: marks the table as broken, and wakes the threads that wait for
/// the home bucket, which panic.
pub(super) struct BreakOnPanic<'t>(pub(super) &'t Table);

impl Drop for BreakOnPanic<'_> {
    #[cold]
    fn drop(&mut self) {
        // Relaxed: waiters read it under the parking's mutex, through which `wake` passes.
        self.0.broken.store(true, Ordering::Relaxed);
        self.0.parking.wake();
    }
}
