//! Epoch-based reclamation in which only writers pay for collecting.
//!
//! Readers announce the epoch they started in. What was unlinked is freed once every announced epoch is later than the unlinking
//! (Fraser, "Practical lock-freedom", 2004). Unlike in crossbeam-epoch, a reader never collects, so its latency is its own; and
//! garbage belongs to the cache that made it, so no destructor runs after a cache is gone.
//!
//! # Domains
//! Each cache is a [`Domain`], with epochs of its own: a reader of one cache holds up nothing in another. A thread has one
//! [`Slot`], in which it announces an epoch together with the domain's id. A guard that begins while the slot is in use takes a
//! further slot of the thread's. So guards may end in any order, and one that is leaked keeps what *its* cache unlinks from then
//! on, until that cache is dropped; the values that a leaked guard protects may still be referenced, by other threads too, so
//! nothing else would be sound. (Ids have 12 bits. Two domains with the same id hold each other's garbage up at worst.)
//!
//! # Protocol
//! It is checked with loom below.
//! - A reader stores the epoch in its slot, then executes a SeqCst fence, then reads shared pointers.
//! - A collector unlinks, advances the epoch (the new epoch is the garbage's *tag*), then executes a SeqCst fence, then reads the
//!   slots. If it misses a reader's announcement, that reader's fence came later, and the reader sees the unlinking. If the reader
//!   announced an epoch >= tag, it read the epoch that the advance had published, so it sees the unlinking too.
//! - The same holds for a thread whose slot the collector does not visit because it misses the registration, which precedes the
//!   announcement.

use super::registry::Registry;
use crate::prim::sync::{AtomicU64, Ordering, fence};
use std::ptr;
// What only the owner of a slot uses is handed on with the slot, by the registry.
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64 as OwnU64, AtomicUsize};

/// An announcement: `epoch 51 | id 12 | COUNTED 1`; 0 when there is no guard.
const EPOCH: u32 = 13;
const ID: u64 = ((1 << 12) - 1) << 1;
/// What ends the guard must look at the slot's other fields.
const COUNTED: u64 = 1;

/// The readers of one cache, and the clock that orders what they may still see.
pub(crate) struct Domain {
    /// What a reader announces.
    now: AtomicU64,
    serial: u64,
}

/// A thread's announcement in one domain. Reused by later threads.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Slot {
    /// Written by the owning thread only.
    state: AtomicU64,
    // What follows is used by the owning thread only.
    /// Of a counted slot: the domain's serial number, and how many guards of it there are.
    serial: OwnU64,
    guards: AtomicU32,
    /// The thread is past its thread-local destructors, so its last guard gives its slots back. In the first slot.
    orphan: AtomicBool,
    /// The index of the slot in the registry.
    position: AtomicUsize,
    /// The thread's number: the position of its first slot.
    thread: AtomicUsize,
    /// The thread's first slot, and the next one.
    first: AtomicPtr<Slot>,
    next: AtomicPtr<Slot>,
}

impl Slot {
    #[inline(always)]
    fn is_free(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 0
    }

    fn first(&self) -> &Slot {
        // SAFETY: set by `Domain::register` to a slot of the same registry, whose slots are never freed before it.
        unsafe { &*self.first.load(Ordering::Relaxed) }
    }

    fn next(&self) -> Option<&Slot> {
        // SAFETY: as in `first`.
        unsafe { self.next.load(Ordering::Relaxed).as_ref() }
    }

    /// The slots of a thread, from its first on.
    fn chain(&self) -> impl Iterator<Item = &Slot> {
        std::iter::successors(Some(self), |slot| slot.next())
    }
}

impl Domain {
    /// A domain with a serial number that no other has.
    pub(crate) fn with_serial(serial: u64) -> Self {
        Self {
            now: AtomicU64::new(1 << EPOCH | (serial << 1 & ID)),
            serial,
        }
    }

    /// A slot for the calling thread: its first, or one more beside those it has. See [`Registry::claim`].
    fn register<'r>(threads: &'r Registry<Slot>, first: Option<&Slot>) -> &'r Slot {
        let (position, slot) = threads.claim();
        let first = first.unwrap_or(slot);
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

    /// Gives back the slots of a thread that ends, unless a guard still lives. Then the last guard does so.
    fn unregister(threads: &Registry<Slot>, first: &Slot) {
        if !first.chain().all(Slot::is_free) {
            first.orphan.store(true, Ordering::Relaxed);
            if !first.is_free() && first.state.load(Ordering::Relaxed) & COUNTED == 0 {
                first.serial.store(u64::MAX, Ordering::Relaxed); // no domain's
                first.guards.store(1, Ordering::Relaxed);
                // Release: as in `announce`.
                first
                    .state
                    .store(first.state.load(Ordering::Relaxed) | COUNTED, Ordering::Release);
            }
            return;
        }
        // The first slot's position is the thread's number: it goes last. A slot that was given back has a new owner's links.
        let mut next = first.next();
        while let Some(slot) = next {
            next = slot.next();
            threads.release(slot.position.load(Ordering::Relaxed));
        }
        threads.release(first.position.load(Ordering::Relaxed));
    }

    /// Announces a reader in a free slot of the calling thread; false if it is in use.
    #[inline(always)]
    fn enter(&self, slot: &Slot) -> bool {
        let free = slot.is_free();
        if free {
            self.announce(slot, 0);
        }
        free
    }

    #[inline(always)]
    fn announce(&self, slot: &Slot, counted: u64) {
        // Acquire pairs with `advance`: a reader in epoch e sees all that was unlinked before e began.
        let state = self.now.load(Ordering::Acquire) | counted;
        // Release: a collector that reads this epoch (Acquire) is ordered after the guards that ended before it.
        slot.state.store(state, Ordering::Release);
        // Partner: the fence in `has_passed`.
        fence(Ordering::SeqCst);
    }

    /// Announces a reader in a further slot of a thread whose first slot is in use.
    fn enter_more<'r>(&self, threads: &'r Registry<Slot>, first: &'r Slot) -> &'r Slot {
        let mut free = None;
        for slot in first.chain().skip(1) {
            if slot.is_free() {
                free = Some(slot);
            } else if slot.serial.load(Ordering::Relaxed) == self.serial {
                let guards = slot.guards.load(Ordering::Relaxed);
                slot.guards
                    .store(guards.checked_add(1).expect("too many readers"), Ordering::Relaxed);
                return slot;
            }
        }
        let slot = free.unwrap_or_else(|| Self::register(threads, Some(first)));
        self.enter_counted(slot);
        slot
    }

    fn enter_counted(&self, slot: &Slot) {
        slot.serial.store(self.serial, Ordering::Relaxed);
        slot.guards.store(1, Ordering::Relaxed);
        self.announce(slot, COUNTED);
    }

    /// Ends a guard, if it is the only one of its slot, and nothing but that slot has to be looked at. Else false.
    #[inline(always)]
    fn leave_fast(slot: &Slot) -> bool {
        let only = slot.state.load(Ordering::Relaxed) & COUNTED == 0;
        if only {
            // Release pairs with the Acquire in `has_passed`: the guard's reads come before the freeing.
            slot.state.store(0, Ordering::Release);
        }
        only
    }

    /// Ends a guard of a counted slot; true if the thread's slots must be given back.
    fn leave_counted(slot: &Slot) -> bool {
        let guards = slot.guards.load(Ordering::Relaxed) - 1;
        slot.guards.store(guards, Ordering::Relaxed);
        if guards > 0 {
            return false;
        }
        slot.state.store(0, Ordering::Release); // as in `leave_fast`
        slot.first().orphan.load(Ordering::Relaxed) && slot.first().chain().all(Slot::is_free)
    }

    /// Ends a guard; true if the thread's slots must be given back.
    #[cfg(test)]
    fn leave(slot: &Slot) -> bool {
        !Self::leave_fast(slot) && Self::leave_counted(slot)
    }

    /// Moves a slot with a single guard of this domain to the current epoch. The guard protects nothing that it protected
    /// before, and nothing later until the caller executes a SeqCst fence.
    fn renew(&self, slot: &Slot) {
        let counted = slot.state.load(Ordering::Relaxed) & COUNTED;
        if counted == 0 || slot.guards.load(Ordering::Relaxed) == 1 {
            // As in `announce`.
            slot.state
                .store(self.now.load(Ordering::Acquire) | counted, Ordering::Release);
        }
    }

    /// Begins a new epoch and returns it: the tag of all that was unlinked before.
    fn advance(&self) -> u64 {
        // AcqRel: Release publishes the unlinking to readers of the new epoch; Acquire orders earlier advances before.
        (self.now.fetch_add(1 << EPOCH, Ordering::AcqRel) >> EPOCH) + 1
    }

    /// Whether no reader can see garbage with this tag any more, and how many slots were visited to find out. O(living threads).
    fn has_passed(&self, threads: &Registry<Slot>, tag: u64) -> (bool, usize) {
        let id = self.serial << 1 & ID;
        let (mut passed, mut visited) = (true, 0);
        // Partner: the fence in `announce`.
        fence(Ordering::SeqCst);
        threads.each_used(|slot| {
            visited += 1;
            // Acquire pairs with the Release in `leave_fast` and in `announce`.
            let state = slot.state.load(Ordering::Acquire);
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

    /// The slots of all threads.
    static THREADS: Registry<Slot> = Registry::new();
    /// The serial number of the next domain.
    static NEXT: OwnU64 = OwnU64::new(0);

    /// The slot of threads that have none: never free to enter.
    static NONE: Slot = fixed(COUNTED);
    /// The slot of [`alone`]: it is not in the registry, since no collector looks for it.
    static ALONE: Slot = fixed(0);

    const fn fixed(state: u64) -> Slot {
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
        /// Without a destructor, so that reading it is one instruction.
        static SLOT: Cell<&'static Slot> = const { Cell::new(&NONE) };
        static OWNER: Owner = const { Owner };
    }

    struct Owner;

    impl Drop for Owner {
        fn drop(&mut self) {
            let slot = SLOT.replace(&NONE);
            if !ptr::eq(slot, &NONE) {
                Domain::unregister(&THREADS, slot);
            }
        }
    }

    /// While it lives, nothing that its thread can reach in its domain's map is freed. Not `Send`.
    pub(crate) struct Guard(&'static Slot, PhantomData<*const ()>);

    /// A guard that guards nothing. It is not dropped, since nothing was entered.
    ///
    /// # Safety
    /// While it is used, for lookups only, no other thread uses any cache of the process.
    #[inline(always)]
    pub(crate) unsafe fn unprotected() -> ManuallyDrop<Guard> {
        ManuallyDrop::new(Guard::new(&ALONE))
    }

    impl Domain {
        pub(crate) fn new() -> Self {
            Self::with_serial(NEXT.fetch_add(1, Ordering::Relaxed))
        }

        /// Pins the calling thread. Wait-free but for a thread's first call; nests.
        #[inline(always)]
        pub(crate) fn pin(&self) -> Guard {
            self.pin_first().unwrap_or_else(|| self.pin_more())
        }

        /// [`pin`](Self::pin), if the thread is registered and has no guard.
        #[inline(always)]
        fn pin_first(&self) -> Option<Guard> {
            let slot = SLOT.get();
            self.enter(slot).then(|| Guard::new(slot))
        }

        /// [`pin`](Self::pin), if the thread is registered and has no guard, for a call that ends before the thread does.
        #[inline(always)]
        pub(crate) fn pin_briefly(&self) -> Option<Brief> {
            self.pin_first().map(|guard| Brief(ManuallyDrop::new(guard)))
        }

        /// [`pin`](Self::pin), with a SeqCst fence: its own, unless the thread has a guard already.
        #[inline(always)]
        pub(crate) fn pin_fenced(&self) -> Guard {
            self.pin_first().unwrap_or_else(|| {
                fence(Ordering::SeqCst);
                self.pin_more()
            })
        }

        #[cold]
        #[inline(never)]
        fn pin_more(&self) -> Guard {
            let slot = SLOT.get();
            if !ptr::eq(slot, &NONE) {
                return Guard::new(self.enter_more(&THREADS, slot));
            }
            let slot = Self::register(&THREADS, None);
            if OWNER.try_with(|_| ()).is_ok() {
                SLOT.set(slot);
                self.enter(slot);
            } else {
                // The thread is past its destructors: the guard gives the slot back.
                slot.orphan.store(true, Ordering::Relaxed);
                self.enter_counted(slot);
            }
            Guard::new(slot)
        }

        /// Marks all that was unlinked so far.
        pub(crate) fn seal(&self) -> Seal {
            Seal(NonZero::new(self.advance()).expect("epochs do not end"))
        }

        /// [`seal`](Self::seal), by a thread whose `guard` is not to hold up what it seals.
        ///
        /// # Safety
        /// The guard is one of this domain. What was found under it before is not used any more, and nothing is looked up under
        /// it until [`passed`](Self::passed) was called.
        pub(crate) unsafe fn seal_renewing(&self, guard: &Guard) -> Seal {
            let seal = self.seal();
            self.renew(guard.0);
            seal
        }

        /// Whether no reader can see any more what was sealed, and how many readers were looked at to find out.
        pub(crate) fn passed(&self, seal: &Seal) -> (bool, usize) {
            self.has_passed(&THREADS, seal.0.get())
        }
    }

    impl Guard {
        #[inline(always)]
        fn new(slot: &'static Slot) -> Self {
            Self(slot, PhantomData)
        }

        /// A small number that no other living thread has.
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

    /// A guard in its thread's first slot that ends before the thread does: so it is not counted, and its end is one store.
    pub(crate) struct Brief(ManuallyDrop<Guard>);

    impl Brief {
        #[inline(always)]
        pub(crate) fn guard(&self) -> &Guard {
            &self.0
        }

        /// The same as a guard that may outlive its thread's registration.
        #[inline(always)]
        pub(crate) fn into_guard(self) -> Guard {
            let slot = self.0.0;
            std::mem::forget(self);
            Guard::new(slot)
        }
    }

    impl Drop for Brief {
        #[inline(always)]
        fn drop(&mut self) {
            debug_assert!(self.0.0.state.load(Ordering::Relaxed) & COUNTED == 0);
            // Release: as in `leave_fast`.
            self.0.0.state.store(0, Ordering::Release);
        }
    }

    #[cold]
    #[inline(never)]
    fn leave_slow(slot: &Slot) {
        if Domain::leave_counted(slot) {
            Domain::unregister(&THREADS, slot.first());
        }
    }

    /// Marks all that was unlinked so far.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Seal(NonZero<u64>);

    /// Claims the index of a thread that has ended, so that no thread begins to use it. False if a thread has it.
    pub(crate) fn claim_index(index: usize) -> bool {
        !THREADS.is_used(index) && THREADS.claim_exactly(index)
    }

    /// Gives back what [`claim_index`] claimed.
    pub(crate) fn release_index(index: usize) {
        THREADS.release(index);
    }

    /// In the child of a fork: ends every guard, and gives back the slots of the threads that the fork left behind, whatever
    /// they were doing: the registry is consistent at every instant.
    ///
    /// # Safety
    /// The calling thread is the only one, and uses no guard that it had at the fork.
    pub(crate) unsafe fn fork_child() {
        let own = SLOT.get();
        let has_own = !ptr::eq(own, &NONE);
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
        threads.each_used(|_| {
            used += 1;
            true
        });
        used
    }

    #[test]
    fn guards_may_end_in_any_order() {
        let threads = Registry::new();
        let (domain, other) = (Domain::with_serial(1), Domain::with_serial(2));
        let slot = Domain::register(&threads, None);
        let passed = |tag| domain.has_passed(&threads, tag).0;
        let first = domain.advance();
        assert!(domain.enter(slot) && !domain.enter(slot));
        let inner = domain.enter_more(&threads, slot);
        let foreign = other.enter_more(&threads, slot);
        assert!(!ptr::eq(inner, foreign));
        let guards = if cfg!(miri) { 20 } else { 100_000 };
        for _ in 0..guards {
            assert!(ptr::eq(inner, domain.enter_more(&threads, slot)));
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
    fn a_leaked_guard_holds_up_its_own_domain_only() {
        let threads = Registry::new();
        let (leaked, other) = (Domain::with_serial(1), Domain::with_serial(2));
        let slot = Domain::register(&threads, None);
        leaked.enter(slot);
        for _ in 0..10 {
            let guard = other.enter_more(&threads, slot);
            let tag = other.advance();
            assert!(!other.has_passed(&threads, tag).0);
            Domain::leave(guard);
            assert!(other.has_passed(&threads, tag).0);
        }
        Domain::unregister(&threads, slot); // the thread ends
        assert!(
            !leaked.has_passed(&threads, leaked.advance()).0,
            "its values may still be referenced"
        );
        assert!(other.has_passed(&threads, other.advance()).0);
        assert_eq!(used(&threads), 2);
    }

    #[test]
    fn the_last_guard_of_an_orphan_gives_its_slots_back() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let threads = Registry::new();
            let (domain, other) = (Domain::with_serial(1), Domain::with_serial(2));
            let slot = Domain::register(&threads, None);
            domain.enter(slot);
            let guards = [
                slot,
                domain.enter_more(&threads, slot),
                other.enter_more(&threads, slot),
            ];
            Domain::unregister(&threads, slot);
            let last = order.map(|at| Domain::leave(guards[at]));
            assert_eq!(last, [false, false, true]);
            Domain::unregister(&threads, guards[order[2]].first());
            assert_eq!(used(&threads), 0);
        }
    }

    #[test]
    fn readers_are_looked_at_while_their_threads_live() {
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
