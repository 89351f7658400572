//! Epoch-based reclamation in which only writers pay for collecting.
//!
//! Readers announce the epoch in which they started. An unlinked entry is freed once every
//! announced epoch is later than its unlinking (Fraser, "Practical lock-freedom", 2004). Unlike in
//! crossbeam-epoch, a reader never collects, so its latency is its own. Garbage belongs to the
//! cache that made it, so no destructor runs after a cache is dropped.
//!
//! Main types: [`Domain`] (the epochs of one cache), [`Slot`] (a thread's announcement), [`Guard`]
//! (a pinned reader), [`FastGuard`] (one that ends before its thread does), [`Seal`] (a mark that
//! readers pass).
//!
//! # Domains
//! Each cache is a [`Domain`], with epochs of its own: a reader of one cache delays no freeing in
//! another. A thread has one [`Slot`], in which it announces an epoch together with the domain's
//! id. A guard that begins while the slot is in use takes a further slot of the thread. So guards
//! may end in any order.
//!
//! A leaked guard keeps what *its* cache unlinks from then on, until that cache is dropped. The
//! values that it protects may still be referenced, by other threads too, so nothing else would be
//! sound. Ids have 12 bits: two domains with the same id delay each other's freeing at worst.
//!
//! # Protocol
//! Invariants 15 and 16 of ARCHITECTURE.md; `loom_tests` checks them.
//! - Pin: a reader stores the epoch in its slot, executes a SeqCst fence, and then reads shared
//!   pointers.
//! - Seal and pass: a collector unlinks, advances the epoch (the new epoch is the garbage's *tag*),
//!   executes a SeqCst fence, and then reads the slots. If it misses a reader's announcement, that
//!   reader's fence came later, and the reader sees the unlinking. If the reader announced an epoch
//!   >= tag, it read the epoch that the advance had published, so it sees the unlinking too.
//! - The same holds for a thread whose slot the collector does not visit because it misses the
//!   registration, which precedes the announcement.
//! - Renew: a collector moves its own guard to the new epoch, so that it does not delay the freeing
//!   of what it has just sealed.
//! - Orphan: a thread that ends while a guard of it lives leaves its slots to that guard, which
//!   releases them when it ends.

use super::registry::Registry;
use crate::prim::sync::{AtomicU64, Ordering, fence};
use std::ptr;
// Fields that only the owner of a slot uses are std's, also under loom: the registry hands them
// over with the slot.
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64 as OwnU64, AtomicUsize};

/// Lowest bit of the epoch in an announcement: `epoch 51 | id 12 | COUNTED 1`; 0 without a guard.
const EPOCH: u32 = 13;
/// Mask of the domain's id in an announcement.
const ID: u64 = ((1 << 12) - 1) << 1;
/// Marks a slot whose guards are counted in its other fields, so the end of a guard must read them.
const COUNTED: u64 = 1;

/// The readers of one cache, and the epochs that order what they may still reference.
pub(crate) struct Domain {
    /// The announcement of a reader that pins now.
    now: AtomicU64,
    /// A number that no other domain of the process has. Its lower 12 bits are the id.
    serial: u64,
}

/// A thread's announcement in one domain. Slots are reused by later threads.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Slot {
    /// The announcement. Written by the owning thread only, read by collectors.
    state: AtomicU64,
    /// Of a counted slot: the serial number of the domain, and the number of its guards. The owning
    /// thread alone uses this field and those that follow.
    serial: OwnU64,
    guards: AtomicU32,
    /// In the first slot: the thread is past its thread-local destructors, so its last guard
    /// releases its slots.
    orphan: AtomicBool,
    /// The index of the slot in the registry.
    position: AtomicUsize,
    /// The thread's index: the position of its first slot.
    thread: AtomicUsize,
    /// The thread's first slot, and the one that follows this slot.
    first: AtomicPtr<Slot>,
    next: AtomicPtr<Slot>,
}

impl Slot {
    /// Returns whether no guard uses the slot.
    #[inline(always)]
    fn is_free(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 0
    }

    /// Returns the thread's first slot.
    fn first(&self) -> &Slot {
        // SAFETY: set by `Domain::register` to a slot of the same registry, whose slots are never
        // freed before it.
        unsafe { &*self.first.load(Ordering::Relaxed) }
    }

    /// Returns the thread's slot that follows this one.
    fn next(&self) -> Option<&Slot> {
        // SAFETY: as in `first`.
        unsafe { self.next.load(Ordering::Relaxed).as_ref() }
    }

    /// Returns the thread's slots from this one on.
    fn chain(&self) -> impl Iterator<Item = &Slot> {
        std::iter::successors(Some(self), |slot| slot.next())
    }
}

impl Domain {
    /// Returns a domain with this serial number, which no other domain may have.
    pub(crate) fn with_serial(serial: u64) -> Self {
        Self {
            now: AtomicU64::new(1 << EPOCH | (serial << 1 & ID)),
            serial,
        }
    }

    /// Claims a slot for the calling thread: its first, or a further one beside `first`. See
    /// [`Registry::claim`].
    fn register<'r>(threads: &'r Registry<Slot>, first: Option<&Slot>) -> &'r Slot {
        let (position, slot) = threads.claim();
        let first = first.unwrap_or(slot);
        // Relaxed, here and below: only this thread uses these fields until it releases the slot.
        slot.position.store(position, Ordering::Relaxed);
        slot.first.store(ptr::from_ref(first).cast_mut(), Ordering::Relaxed);
        slot.orphan.store(false, Ordering::Relaxed);
        if ptr::eq(first, slot) {
            slot.thread.store(position, Ordering::Relaxed);
            slot.next.store(ptr::null_mut(), Ordering::Relaxed);
        } else {
            slot.thread
                .store(first.thread.load(Ordering::Relaxed), Ordering::Relaxed);
            slot.next.store(first.next.load(Ordering::Relaxed), Ordering::Relaxed);
            first.next.store(ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
        }
        slot
    }

    /// Releases the slots of a thread that ends. If a guard still lives, leaves that to the last
    /// guard.
    fn unregister(threads: &Registry<Slot>, first: &Slot) {
        if !first.chain().all(Slot::is_free) {
            // A guard outlives the thread's registration, or was leaked. The last one to end sees
            // `orphan`, and calls this again.
            first.orphan.store(true, Ordering::Relaxed);
            // A guard in the first slot is not counted yet. Counting it makes its end take the slow
            // path, where `orphan` is read.
            if !first.is_free() && first.state.load(Ordering::Relaxed) & COUNTED == 0 {
                // The serial number of no domain: no further guard joins this slot.
                first.serial.store(u64::MAX, Ordering::Relaxed);
                first.guards.store(1, Ordering::Relaxed);
                // Release: as in `announce`.
                first
                    .state
                    .store(first.state.load(Ordering::Relaxed) | COUNTED, Ordering::Release);
            }
            return;
        }
        // The first slot goes last, since its position is the thread's index. `next` is read before
        // a slot is released: then it belongs to a new owner.
        let mut next = first.next();
        while let Some(slot) = next {
            next = slot.next();
            threads.release(slot.position.load(Ordering::Relaxed));
        }
        threads.release(first.position.load(Ordering::Relaxed));
    }

    /// Announces a reader in a free slot of the calling thread. Returns false if the slot is in
    /// use.
    #[inline(always)]
    fn enter(&self, slot: &Slot) -> bool {
        let free = slot.is_free();
        if free {
            self.announce(slot, 0);
        }
        free
    }

    /// Announces a reader in a slot, and fences (invariant 16).
    #[inline(always)]
    fn announce(&self, slot: &Slot, counted: u64) {
        // Acquire pairs with `advance`: a reader in epoch e sees all that was unlinked before e
        // began.
        let state = self.now.load(Ordering::Acquire) | counted;
        // Release: a collector that reads this epoch (Acquire) is ordered after the guards that
        // ended before it.
        slot.state.store(state, Ordering::Release);
        // Partner: the fence in `has_passed`. Either the collector sees the announcement, or the
        // reader sees the unlinking.
        fence(Ordering::SeqCst);
    }

    /// Announces a reader in a further slot of a thread whose first slot is in use. Returns the
    /// slot.
    fn enter_further_slot<'r>(&self, threads: &'r Registry<Slot>, first: &'r Slot) -> &'r Slot {
        let mut free = None;
        for slot in first.chain().skip(1) {
            if slot.is_free() {
                free = Some(slot);
            } else if slot.serial.load(Ordering::Relaxed) == self.serial {
                // The guards of a domain share a slot: its announcement is the oldest, so it
                // protects for all of them.
                let guards = slot.guards.load(Ordering::Relaxed);
                slot.guards
                    .store(guards.checked_add(1).expect("too many readers"), Ordering::Relaxed);
                return slot;
            }
        }
        // All further slots are in use by other domains: the thread takes one more, and keeps it.
        let slot = free.unwrap_or_else(|| Self::register(threads, Some(first)));
        self.enter_counted(slot);
        slot
    }

    /// Announces the first guard of a counted slot.
    fn enter_counted(&self, slot: &Slot) {
        // Relaxed: only the owning thread reads these.
        slot.serial.store(self.serial, Ordering::Relaxed);
        slot.guards.store(1, Ordering::Relaxed);
        self.announce(slot, COUNTED);
    }

    /// Ends a guard that is the only one of its slot, if no other field must be read. Returns false
    /// otherwise.
    #[inline(always)]
    fn leave_fast(slot: &Slot) -> bool {
        let only = slot.state.load(Ordering::Relaxed) & COUNTED == 0;
        if only {
            // Release pairs with the Acquire in `has_passed`: the guard's reads come before the
            // freeing.
            slot.state.store(0, Ordering::Release);
        }
        only
    }

    /// Ends a guard of a counted slot. Returns true if the thread's slots must be released.
    fn leave_counted(slot: &Slot) -> bool {
        let guards = slot.guards.load(Ordering::Relaxed) - 1;
        slot.guards.store(guards, Ordering::Relaxed);
        if guards > 0 {
            return false;
        }
        // Release: as in `leave_fast`.
        slot.state.store(0, Ordering::Release);
        // The last guard of an orphaned thread releases the slots.
        slot.first().orphan.load(Ordering::Relaxed) && slot.first().chain().all(Slot::is_free)
    }

    /// Ends a guard. Returns true if the thread's slots must be released.
    #[cfg(test)]
    fn leave(slot: &Slot) -> bool {
        !Self::leave_fast(slot) && Self::leave_counted(slot)
    }

    /// Moves a slot with a single guard of this domain to the current epoch.
    ///
    /// The guard no longer protects anything that it protected before. It protects nothing found
    /// later until the caller executes a SeqCst fence.
    fn renew(&self, slot: &Slot) {
        let counted = slot.state.load(Ordering::Relaxed) & COUNTED;
        // With more guards, the others still rely on the old epoch.
        if counted == 0 || slot.guards.load(Ordering::Relaxed) == 1 {
            // Acquire and Release: as in `announce`. The fence follows in `has_passed`.
            slot.state
                .store(self.now.load(Ordering::Acquire) | counted, Ordering::Release);
        }
    }

    /// Begins a new epoch and returns it: the tag of all that was unlinked before.
    fn advance(&self) -> u64 {
        // AcqRel: Release publishes the unlinking to readers of the new epoch; Acquire orders
        // earlier advances before this one.
        (self.now.fetch_add(1 << EPOCH, Ordering::AcqRel) >> EPOCH) + 1
    }

    /// Returns whether no reader can reference garbage with this tag, and the number of slots
    /// visited to find out. O(living threads).
    fn has_passed(&self, threads: &Registry<Slot>, tag: u64) -> (bool, usize) {
        let id = self.serial << 1 & ID;
        let (mut passed, mut visited) = (true, 0);
        // Partner: the fence in `announce`. The unlinking is before this fence, the slots are read
        // after it (invariant 16).
        fence(Ordering::SeqCst);
        threads.visit_used(|slot| {
            visited += 1;
            // Acquire pairs with the Release in `leave_fast` and in `announce`: what the ended
            // guards read is ordered before the freeing.
            let state = slot.state.load(Ordering::Acquire);
            // No guard; a guard of another domain; or one that began after the unlinking.
            passed = state == 0 || state & ID != id || state >> EPOCH >= tag;
            passed
        });
        (passed, visited)
    }
}

#[cfg(not(loom))]
mod global {
    use super::*;
    use std::cell::Cell;
    use std::marker::PhantomData;
    use std::mem::ManuallyDrop;
    use std::num::NonZero;

    /// The slots of all threads of the process.
    static THREADS: Registry<Slot> = Registry::new();
    /// The serial number of the next domain.
    static NEXT_SERIAL: OwnU64 = OwnU64::new(0);

    /// The slot of threads that have none. It is never free to enter.
    static UNREGISTERED: Slot = static_slot(COUNTED);
    /// The slot of [`unprotected`]. It is not in the registry, so no collector reads it.
    static UNPROTECTED: Slot = static_slot(0);

    /// Returns a slot with this announcement, which no registry owns.
    const fn static_slot(state: u64) -> Slot {
        Slot {
            state: AtomicU64::new(state),
            serial: OwnU64::new(u64::MAX),
            guards: AtomicU32::new(0),
            orphan: AtomicBool::new(false),
            position: AtomicUsize::new(usize::MAX),
            thread: AtomicUsize::new(0),
            first: AtomicPtr::new(ptr::null_mut()),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    thread_local! {
        /// The thread's first slot. Without a destructor, so that reading it is one instruction.
        static SLOT: Cell<&'static Slot> = const { Cell::new(&UNREGISTERED) };
        /// Releases the slots when the thread ends.
        static SLOT_OWNER: SlotOwner = const { SlotOwner };
    }

    struct SlotOwner;

    impl Drop for SlotOwner {
        fn drop(&mut self) {
            // A pin in a later destructor registers again, as an orphan: see `pin_slow`.
            let slot = SLOT.replace(&UNREGISTERED);
            if !ptr::eq(slot, &UNREGISTERED) {
                Domain::unregister(&THREADS, slot);
            }
        }
    }

    /// A pinned reader: while it lives, nothing that its thread can reach in its domain's map is
    /// freed. Not `Send`.
    pub(crate) struct Guard(&'static Slot, PhantomData<*const ()>);

    /// Returns a guard that protects nothing. It is not dropped, since no slot was entered.
    ///
    /// # Safety
    /// While the guard is used, for lookups only, no other thread uses any cache of the process.
    #[inline(always)]
    pub(crate) unsafe fn unprotected() -> ManuallyDrop<Guard> {
        ManuallyDrop::new(Guard::new(&UNPROTECTED))
    }

    impl Domain {
        /// Returns a domain of its own for a cache.
        pub(crate) fn new() -> Self {
            Self::with_serial(NEXT_SERIAL.fetch_add(1, Ordering::Relaxed))
        }

        /// Pins the calling thread. Wait-free except for a thread's first call; nests.
        #[inline(always)]
        pub(crate) fn pin(&self) -> Guard {
            self.pin_first_slot().unwrap_or_else(|| self.pin_slow())
        }

        /// Pins the calling thread if it is registered and its first slot is free.
        #[inline(always)]
        fn pin_first_slot(&self) -> Option<Guard> {
            let slot = SLOT.get();
            self.enter(slot).then(|| Guard::new(slot))
        }

        /// [`pin`](Self::pin) for a call that ends before the thread does. Returns `None` unless
        /// the thread is registered and its first slot is free.
        #[inline(always)]
        pub(crate) fn pin_fast(&self) -> Option<FastGuard> {
            self.pin_first_slot().map(|guard| FastGuard(ManuallyDrop::new(guard)))
        }

        /// [`pin`](Self::pin) that always executes a SeqCst fence: that of the announcement, or its
        /// own if the thread has a guard already.
        #[inline(always)]
        pub(crate) fn pin_fenced(&self) -> Guard {
            self.pin_first_slot().unwrap_or_else(|| {
                fence(Ordering::SeqCst);
                self.pin_slow()
            })
        }

        /// [`pin`](Self::pin) for a thread that is not registered, or whose first slot is in use.
        #[cold]
        #[inline(never)]
        fn pin_slow(&self) -> Guard {
            let slot = SLOT.get();
            if !ptr::eq(slot, &UNREGISTERED) {
                return Guard::new(self.enter_further_slot(&THREADS, slot));
            }
            let slot = Self::register(&THREADS, None);
            if SLOT_OWNER.try_with(|_| ()).is_ok() {
                // The destructor of `SLOT_OWNER` is registered, so the slot will be released.
                SLOT.set(slot);
                self.enter(slot);
            } else {
                // The thread is past its thread-local destructors: the guard is counted, and
                // releases the slot when it ends.
                slot.orphan.store(true, Ordering::Relaxed);
                self.enter_counted(slot);
            }
            Guard::new(slot)
        }

        /// Marks all that was unlinked so far.
        pub(crate) fn seal(&self) -> Seal {
            Seal(NonZero::new(self.advance()).expect("epochs do not end"))
        }

        /// [`seal`](Self::seal) by a thread whose `guard` should not delay the freeing of what it
        /// seals.
        ///
        /// # Safety
        /// The guard is one of this domain. What was found under it before is not used any more,
        /// and nothing is looked up under it until [`passed`](Self::passed) has been called.
        pub(crate) unsafe fn seal_renewing(&self, guard: &Guard) -> Seal {
            let seal = self.seal();
            self.renew(guard.0);
            seal
        }

        /// Returns whether no reader can reference what was sealed, and the number of slots visited
        /// to find out.
        pub(crate) fn passed(&self, seal: &Seal) -> (bool, usize) {
            self.has_passed(&THREADS, seal.0.get())
        }
    }

    impl Guard {
        #[inline(always)]
        fn new(slot: &'static Slot) -> Self {
            Self(slot, PhantomData)
        }

        /// Returns the thread's index: a small number that no other living thread has.
        #[inline]
        pub(crate) fn thread_index(&self) -> usize {
            self.0.thread.load(Ordering::Relaxed)
        }
    }

    impl Drop for Guard {
        #[inline(always)]
        fn drop(&mut self) {
            if !Domain::leave_fast(self.0) {
                leave_slow(self.0);
            }
        }
    }

    /// A guard in its thread's first slot that ends before the thread does. So it is never counted,
    /// and its end is one store.
    pub(crate) struct FastGuard(ManuallyDrop<Guard>);

    impl FastGuard {
        /// Returns the guard.
        #[inline(always)]
        pub(crate) fn guard(&self) -> &Guard {
            &self.0
        }

        /// Returns the same guard as one that may outlive its thread's registration.
        #[inline(always)]
        pub(crate) fn into_guard(self) -> Guard {
            let slot = self.0.0;
            std::mem::forget(self);
            Guard::new(slot)
        }
    }

    impl Drop for FastGuard {
        #[inline(always)]
        fn drop(&mut self) {
            debug_assert!(self.0.0.state.load(Ordering::Relaxed) & COUNTED == 0);
            // Release: as in `leave_fast`.
            self.0.0.state.store(0, Ordering::Release);
        }
    }

    /// Ends a guard of a counted slot, and releases the slots of an orphaned thread.
    #[cold]
    #[inline(never)]
    fn leave_slow(slot: &Slot) {
        if Domain::leave_counted(slot) {
            Domain::unregister(&THREADS, slot.first());
        }
    }

    /// A mark of all that was unlinked before it: the tag of [`Domain`]'s protocol.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Seal(NonZero<u64>);

    /// Claims the index of a thread that has ended, so that no thread begins to use it. Returns
    /// false if a thread has it.
    pub(crate) fn claim_index(index: usize) -> bool {
        !THREADS.is_used(index) && THREADS.claim_exactly(index)
    }

    /// Releases an index that [`claim_index`] claimed.
    pub(crate) fn release_index(index: usize) {
        THREADS.release(index);
    }

    /// In the child of a fork: ends every guard, and releases the slots of the threads that the
    /// fork left behind. What they were doing does not matter: the registry is consistent at every
    /// instant.
    ///
    /// # Safety
    /// The calling thread is the only one, and uses no guard that it had at the fork.
    pub(crate) unsafe fn fork_child() {
        let own = SLOT.get();
        let has_own = !ptr::eq(own, &UNREGISTERED);
        let is_own = |slot: &Slot| has_own && own.chain().any(|mine| ptr::eq(mine, slot));
        let end = |slot: &Slot| slot.state.store(0, Ordering::Relaxed);
        THREADS.release_others(is_own, end);
        if has_own {
            own.chain().for_each(end);
        }
    }
}

#[cfg(not(loom))]
pub(crate) use global::*;

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn used(threads: &Registry<Slot>) -> usize {
        let mut used = 0;
        threads.visit_used(|_| {
            used += 1;
            true
        });
        used
    }

    #[test]
    fn guards_dropped_in_any_order_unpin_once() {
        let threads = Registry::new();
        let (domain, other) = (Domain::with_serial(1), Domain::with_serial(2));
        let slot = Domain::register(&threads, None);
        let passed = |tag| domain.has_passed(&threads, tag).0;
        let first = domain.advance();
        assert!(domain.enter(slot) && !domain.enter(slot));
        let inner = domain.enter_further_slot(&threads, slot);
        let foreign = other.enter_further_slot(&threads, slot);
        assert!(!ptr::eq(inner, foreign));
        let guards = if cfg!(miri) { 20 } else { 100_000 };
        for _ in 0..guards {
            assert!(ptr::eq(inner, domain.enter_further_slot(&threads, slot)));
        }
        let second = domain.advance();
        let check = |held: bool| assert_eq!((passed(first), passed(second)), (true, !held));
        check(true);
        assert!(!Domain::leave(slot));
        for _ in 0..=guards {
            check(true);
            assert!(!Domain::leave(inner));
        }
        check(false);
        assert!(!other.has_passed(&threads, other.advance()).0, "the other has a reader");
        assert!(!Domain::leave(foreign));
        assert!(other.has_passed(&threads, other.advance()).0);
        assert_eq!(used(&threads), 3, "the slots stay the thread's");
        Domain::unregister(&threads, slot);
        assert_eq!(used(&threads), 0);
    }

    #[test]
    fn leaked_guard_delays_its_own_domain_only() {
        let threads = Registry::new();
        let (leaked, other) = (Domain::with_serial(1), Domain::with_serial(2));
        let slot = Domain::register(&threads, None);
        leaked.enter(slot);
        for _ in 0..10 {
            let guard = other.enter_further_slot(&threads, slot);
            let tag = other.advance();
            assert!(!other.has_passed(&threads, tag).0);
            Domain::leave(guard);
            assert!(other.has_passed(&threads, tag).0);
        }
        Domain::unregister(&threads, slot);
        assert!(
            !leaked.has_passed(&threads, leaked.advance()).0,
            "its values may still be referenced"
        );
        assert!(other.has_passed(&threads, other.advance()).0);
        assert_eq!(used(&threads), 2);
    }

    #[test]
    fn last_guard_of_an_orphan_releases_its_slots() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let threads = Registry::new();
            let (domain, other) = (Domain::with_serial(1), Domain::with_serial(2));
            let slot = Domain::register(&threads, None);
            domain.enter(slot);
            let guards = [
                slot,
                domain.enter_further_slot(&threads, slot),
                other.enter_further_slot(&threads, slot),
            ];
            Domain::unregister(&threads, slot);
            let last = order.map(|at| Domain::leave(guards[at]));
            assert_eq!(last, [false, false, true]);
            Domain::unregister(&threads, guards[order[2]].first());
            assert_eq!(used(&threads), 0);
        }
    }

    #[test]
    fn collector_visits_living_threads_only() {
        let threads = Registry::new();
        let domain = Domain::with_serial(1);
        let count = if cfg!(miri) { 20 } else { 5000 };
        let all: Vec<_> = (0..count).map(|_| Domain::register(&threads, None)).collect();
        assert_eq!(domain.has_passed(&threads, domain.advance()), (true, count));
        let (last, ended) = all.split_last().unwrap();
        ended.iter().for_each(|slot| Domain::unregister(&threads, slot));
        assert_eq!(domain.has_passed(&threads, domain.advance()), (true, 1));
        domain.enter(last);
        assert_eq!(domain.has_passed(&threads, domain.advance()), (false, 1));
    }
}
