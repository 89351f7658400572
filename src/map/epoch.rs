//! Epoch-based reclamation in which only writers pay for collecting.
//!
//! Readers announce the epoch they started in; what was unlinked is freed once every announced epoch is later than
//! the unlinking (Fraser, "Practical lock-freedom", 2004). Unlike crossbeam-epoch, a reader never collects, so its
//! latency is its own; and garbage belongs to the cache that made it, so no destructor runs after a cache is gone.
//!
//! The protocol, checked with loom below:
//! - A reader stores the epoch in its thread's slot, then a SeqCst fence, then reads shared pointers.
//! - A collector unlinks, advances the epoch (the new epoch is the garbage's *tag*), then a SeqCst fence, then scans the
//!   slots. If it misses a reader's announcement, that reader's fence came later, and it sees the unlinking. If the
//!   reader announced an epoch >= tag, it read the epoch that the advance had published, so it sees the unlinking too.

use crate::prim::sync::{AtomicPtr, AtomicU8, AtomicU64, Ordering, Padded, fence};
use std::ptr;

/// A slot's state: `epoch 48 | ORPHAN 1 | number of living guards 15`; 0 when no guard lives.
const GUARDS: u64 = ORPHAN - 1;
/// The slot's thread is past its thread-local destructors, so the last guard gives the slot back.
const ORPHAN: u64 = 1 << 15;
const EPOCH: u32 = 16;

/// The readers of all caches, and the clock that orders what they may still see.
pub(crate) struct Domain {
    /// What a reader announces: the epoch and one guard.
    now: Padded<AtomicU64>,
    slots: AtomicPtr<Slot>,
}

/// One thread's announcement. Never freed; reused by later threads.
#[repr(align(128))]
pub(crate) struct Slot {
    /// Written by the owning thread only.
    state: AtomicU64,
    used: AtomicU8,
    /// Dense, from 0: lets per-thread counters live in arrays.
    pub(crate) index: u32,
    next: AtomicPtr<Slot>,
}

impl Domain {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            now: Padded(AtomicU64::new(1 << EPOCH | 1)),
            slots: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            now: Padded(AtomicU64::new(1 << EPOCH | 1)),
            slots: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// A slot for the calling thread: a returned one, or a new one. O(slots).
    pub(crate) fn register(&self) -> &'static Slot {
        // Acquire pairs with the Release of the push below: the slot's fields are seen.
        let mut at = self.slots.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: slots are leaked boxes, valid for ever.
            let slot: &'static Slot = unsafe { &*at };
            // Acquire pairs with the Release in `unregister`: the former owner is done with the slot.
            if slot.used.load(Ordering::Relaxed) == 0
                && slot
                    .used
                    .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return slot;
            }
            at = slot.next.load(Ordering::Relaxed);
        }
        let new = Box::into_raw(Box::new(Slot {
            state: AtomicU64::new(0),
            used: AtomicU8::new(1),
            index: 0,
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let mut head = self.slots.load(Ordering::Acquire);
        loop {
            // SAFETY: `new` is not shared yet. The index stays unique: it exceeds every slot below it in the list.
            unsafe {
                (*new).next.store(head, Ordering::Relaxed);
                (*new).index = if head.is_null() { 0 } else { (*head).index + 1 };
            }
            match self
                .slots
                .compare_exchange(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                // SAFETY: as above.
                Ok(_) => return unsafe { &*new },
                Err(now) => head = now,
            }
        }
    }

    /// Gives a slot back. No guard of it may live.
    pub(crate) fn unregister(slot: &Slot) {
        slot.used.store(0, Ordering::Release);
    }

    /// Announces the slot's owner as a reader. False if it is one already: see [`enter_again`](Self::enter_again).
    #[inline(always)]
    pub(crate) fn enter(&self, slot: &Slot) -> bool {
        let first = slot.state.load(Ordering::Relaxed) == 0;
        if first {
            // Acquire pairs with `advance`: a reader in epoch e sees all that was unlinked before e began.
            let state = self.now.0.load(Ordering::Acquire);
            // Release: a collector that reads this epoch (Acquire) is ordered after the guards that ended before it.
            slot.state.store(state, Ordering::Release);
            // Partner: the fence in `horizon`.
            fence(Ordering::SeqCst);
        }
        first
    }

    /// Counts one more guard of a reader; they may end in any order.
    pub(crate) fn enter_again(slot: &Slot) {
        let state = slot.state.load(Ordering::Relaxed);
        // Guards may be leaked: their number must not run into what is above it.
        assert!(state & GUARDS < GUARDS, "too many readers live at once on one thread");
        // Release: as in `enter`.
        slot.state.store(state + 1, Ordering::Release);
    }

    /// Ends one guard; true if the slot must be given back (see `ORPHAN`).
    #[inline(always)]
    pub(crate) fn leave(slot: &Slot) -> bool {
        let state = slot.state.load(Ordering::Relaxed);
        let last = state & (ORPHAN | GUARDS) == 1;
        if last {
            // Release pairs with the Acquire in `horizon`: the guard's reads come before the freeing.
            slot.state.store(0, Ordering::Release);
        }
        !last && Self::leave_some(slot, state)
    }

    #[cold]
    fn leave_some(slot: &Slot, state: u64) -> bool {
        let last = state & GUARDS == 1;
        // Release: as in `leave`, and as in `enter`.
        slot.state.store(if last { 0 } else { state - 1 }, Ordering::Release);
        last
    }

    #[cfg(not(loom))]
    fn is_in_use(slot: &Slot) -> bool {
        slot.state.load(Ordering::Relaxed) != 0
    }

    /// Sees to it that the slot is given back by its last guard.
    #[cfg(not(loom))]
    fn orphan(slot: &Slot) {
        // Release: as in `enter`.
        slot.state
            .store(slot.state.load(Ordering::Relaxed) | ORPHAN, Ordering::Release);
    }

    /// Ends every guard, and gives back the slots of all threads but the caller's: for the child of a fork, where only the
    /// caller lives. The list is whole at every instant, so whatever other threads were doing at the fork.
    #[cfg(not(loom))]
    fn keep_only(&self, mine: &Slot) {
        let mut at = self.slots.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: slots are leaked boxes, valid for ever.
            let slot = unsafe { &*at };
            slot.state.store(0, Ordering::Relaxed);
            if !ptr::eq(slot, mine) {
                slot.used.store(0, Ordering::Relaxed);
            }
            at = slot.next.load(Ordering::Relaxed);
        }
    }

    /// Begins a new epoch and returns it: the tag of all that was unlinked before.
    pub(crate) fn advance(&self) -> u64 {
        // AcqRel: Release publishes the unlinking to readers of the new epoch; Acquire orders earlier advances before.
        (self.now.0.fetch_add(1 << EPOCH, Ordering::AcqRel) >> EPOCH) + 1
    }

    /// Garbage with a tag up to the returned epoch can be seen by no reader. O(threads).
    pub(crate) fn horizon(&self) -> u64 {
        let mut horizon = self.now.0.load(Ordering::Acquire) >> EPOCH;
        // Partner: the fence in `enter`.
        fence(Ordering::SeqCst);
        let mut at = self.slots.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: slots are leaked boxes, valid for ever.
            let slot = unsafe { &*at };
            let state = slot.state.load(Ordering::Acquire);
            if state != 0 {
                horizon = horizon.min(state >> EPOCH);
            }
            at = slot.next.load(Ordering::Relaxed);
        }
        horizon
    }
}

#[cfg(not(loom))]
mod global {
    use super::*;
    use std::cell::Cell;
    use std::marker::PhantomData;
    use std::mem::ManuallyDrop;

    static DOMAIN: Domain = Domain::new();

    /// The slot of threads that have none: never free to enter.
    static NONE: Slot = Slot {
        state: AtomicU64::new(GUARDS),
        used: AtomicU8::new(1),
        index: u32::MAX,
        next: AtomicPtr::new(ptr::null_mut()),
    };

    thread_local! {
        /// Without a destructor, so that reading it is one instruction.
        static SLOT: Cell<&'static Slot> = const { Cell::new(&NONE) };
        static OWNER: Owner = const { Owner };
    }

    struct Owner;

    impl Drop for Owner {
        fn drop(&mut self) {
            let slot = SLOT.get();
            if Domain::is_in_use(slot) {
                // A guard outlives this destructor (in another thread-local): the last one gives the slot back.
                Domain::orphan(slot);
            } else {
                give_back(slot);
            }
        }
    }

    /// While it lives, nothing that its thread can reach in a map is freed. Not `Send`.
    pub(crate) struct Guard(&'static Slot, PhantomData<*const ()>);

    impl Guard {
        #[inline(always)]
        fn new(slot: &'static Slot) -> Self {
            Self(slot, PhantomData)
        }
    }

    /// Who has everything to itself: it is in no list, since nobody looks for it.
    static ALONE: Slot = Slot {
        state: AtomicU64::new(0),
        used: AtomicU8::new(1),
        index: 0,
        next: AtomicPtr::new(ptr::null_mut()),
    };

    /// A guard that guards nothing. It is not dropped, since nothing was entered.
    ///
    /// # Safety
    /// While it is used, for lookups only, no other thread uses any cache of the process.
    #[inline(always)]
    pub(crate) unsafe fn alone() -> ManuallyDrop<Guard> {
        ManuallyDrop::new(Guard::new(&ALONE))
    }

    /// Pins the calling thread. Wait-free but for a thread's first call; nests.
    #[inline(always)]
    pub(crate) fn pin() -> Guard {
        pin_first().unwrap_or_else(|| pin_again(SLOT.get()))
    }

    /// [`pin`], if the thread is registered and has no guard.
    #[inline(always)]
    pub(crate) fn pin_first() -> Option<Guard> {
        let slot = SLOT.get();
        DOMAIN.enter(slot).then(|| Guard::new(slot))
    }

    /// [`pin`], with a SeqCst fence: its own, unless the thread has a guard already.
    #[inline(always)]
    pub(crate) fn pin_fenced() -> Guard {
        pin_first().unwrap_or_else(|| {
            fence(Ordering::SeqCst);
            pin_again(SLOT.get())
        })
    }

    #[cold]
    #[inline(never)]
    fn pin_again(slot: &'static Slot) -> Guard {
        if !ptr::eq(slot, &NONE) {
            Domain::enter_again(slot);
            return Guard::new(slot);
        }
        let slot = DOMAIN.register();
        DOMAIN.enter(slot);
        SLOT.set(slot);
        if OWNER.try_with(|_| ()).is_err() {
            Domain::orphan(slot);
        }
        Guard::new(slot)
    }

    impl Guard {
        /// A small number that no other living thread has.
        #[inline]
        pub(crate) fn thread_index(&self) -> usize {
            self.0.index as usize
        }
    }

    impl Drop for Guard {
        #[inline(always)]
        fn drop(&mut self) {
            if Domain::leave(self.0) {
                give_back(self.0);
            }
        }
    }

    #[cold]
    fn give_back(slot: &Slot) {
        SLOT.set(&NONE);
        Domain::unregister(slot);
    }

    /// In the child of a fork: frees what the threads held that the fork left behind.
    ///
    /// # Safety
    /// The calling thread is the only one, and uses no guard that it had at the fork.
    pub(crate) unsafe fn fork_child() {
        DOMAIN.keep_only(SLOT.get());
    }

    /// Marks all that was unlinked so far.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Seal(u64);

    /// See [`Seal`].
    pub(crate) fn seal() -> Seal {
        Seal(DOMAIN.advance())
    }

    /// Answers for any number of seals whether readers are past them, with one look at the readers.
    pub(crate) struct Horizon(u64);

    impl Horizon {
        pub(crate) fn now() -> Self {
            Self(DOMAIN.horizon())
        }

        pub(crate) fn passed(&self, seal: &Seal) -> bool {
            seal.0 <= self.0
        }
    }
}

#[cfg(not(loom))]
pub(crate) use global::*;

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::prim::sync::AtomicUsize;
    use loom::cell::UnsafeCell;
    use loom::thread;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

    /// A chain of objects, of which `current` is the one that is linked.
    struct World {
        domain: Domain,
        current: AtomicUsize,
        objects: [UnsafeCell<bool>; 3],
    }

    // SAFETY: that the objects are not freed while they are read is what loom checks.
    unsafe impl Sync for World {}
    // SAFETY: as above.
    unsafe impl Send for World {}

    impl World {
        fn new() -> Arc<Self> {
            let objects = std::array::from_fn(|_| UnsafeCell::new(true));
            Arc::new(Self {
                domain: Domain::new(),
                current: AtomicUsize::new(0),
                objects,
            })
        }

        fn slot(&self) -> &Slot {
            self.domain.register()
        }

        fn enter(&self, slot: &Slot) {
            if !self.domain.enter(slot) {
                Domain::enter_again(slot);
            }
        }

        fn find(&self) -> usize {
            self.current.load(Ordering::Acquire)
        }

        fn read(&self, found: usize) {
            // SAFETY: checked by loom.
            assert!(
                self.objects[found].with(|at| unsafe { *at }),
                "it is not freed while a guard lives"
            );
        }

        /// A guard around another, which ends first, and a use after that.
        fn read_nested(&self, slot: &Slot) {
            self.enter(slot);
            let found = self.find();
            self.enter(slot);
            self.read(self.find());
            assert!(!Domain::leave(slot));
            self.read(found);
            Domain::leave(slot);
        }

        fn read_once(&self, slot: &Slot) {
            self.enter(slot);
            self.read(self.find());
            Domain::leave(slot);
        }

        /// Unlinks the current object; its tag.
        fn unlink(&self, next: usize) -> u64 {
            self.current.store(next, Ordering::Release);
            self.domain.advance()
        }

        /// Frees an object if its tag is past.
        fn free(&self, object: usize, tag: u64) -> bool {
            let past = self.domain.horizon() >= tag;
            if past {
                // SAFETY: checked by loom.
                self.objects[object].with_mut(|at| unsafe { *at = false });
            }
            past
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            let mut at = self.domain.slots.load(Ordering::Relaxed);
            while !at.is_null() {
                // SAFETY: made from a Box in `register`; the threads are done.
                at = unsafe { Box::from_raw(at) }.next.load(Ordering::Relaxed);
            }
        }
    }

    /// Runs the model, and sees to it that something was freed in one execution, and in another not at the first try.
    fn check(model: impl Fn(&Count, &Count) + Send + Sync + 'static) {
        let counts = Arc::new((Count::new(0), Count::new(0)));
        let seen = counts.clone();
        loom::model(move || model(&counts.0, &counts.1));
        assert!(
            seen.0.load(SeqCst) > 0 && seen.1.load(SeqCst) > 0,
            "both happen: {seen:?}"
        );
    }

    fn count(freed: bool, yes: &Count, no: &Count) {
        if freed { yes } else { no }.fetch_add(1, SeqCst);
    }

    #[test]
    fn loom_epoch_a_reader_and_a_collector() {
        check(|yes, no| {
            let world = World::new();
            let one = world.clone();
            let reader = thread::spawn(move || one.read_nested(one.slot()));
            let tag = world.unlink(1);
            count(world.free(0, tag), yes, no);
            reader.join().unwrap();
        });
    }

    #[test]
    fn loom_epoch_two_readers() {
        check(|yes, no| {
            let world = World::new();
            let readers = [0; 2].map(|_| {
                let one = world.clone();
                thread::spawn(move || one.read_once(one.slot()))
            });
            let tag = world.unlink(1);
            count(world.free(0, tag), yes, no);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }

    #[test]
    fn loom_epoch_two_objects() {
        // A reader that comes twice, while two objects are unlinked and freed one after the other.
        check(|yes, no| {
            let world = World::new();
            let one = world.clone();
            let reader = thread::spawn(move || {
                let slot = one.slot();
                one.read_once(slot);
                one.read_nested(slot);
            });
            let first = world.unlink(1);
            let freed = world.free(0, first);
            count(freed, yes, no);
            let second = world.unlink(2);
            if world.free(1, second) && !freed {
                assert!(world.free(0, first), "a later tag is past only if the earlier is");
            }
            reader.join().unwrap();
        });
    }

    #[test]
    fn loom_epoch_a_slot_is_used_again() {
        check(|yes, no| {
            let world = World::new();
            let readers = [0; 2].map(|_| {
                let one = world.clone();
                thread::spawn(move || {
                    let slot = one.slot();
                    one.read_once(slot);
                    Domain::unregister(slot);
                    slot.index
                })
            });
            let tag = world.unlink(1);
            let freed = world.free(0, tag);
            let indices = readers.map(|reader| reader.join().unwrap());
            assert!(indices.into_iter().max() <= Some(1));
            count(freed, yes, no);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn guards_do_not_run_into_the_epoch() {
        let domain = Domain::new();
        let slot = domain.register();
        let tag = domain.advance();
        assert!(domain.enter(slot));
        for _ in 1..GUARDS {
            assert!(!domain.enter(slot));
            Domain::enter_again(slot);
        }
        assert!(std::panic::catch_unwind(|| Domain::enter_again(slot)).is_err());
        let later = domain.advance();
        for _ in 0..GUARDS {
            assert_eq!(domain.horizon(), tag);
            assert!(!Domain::leave(slot), "the slot stays its thread's");
        }
        assert_eq!(domain.horizon(), later);
        assert!(domain.enter(slot));
    }

    #[test]
    fn an_orphan_is_given_back_by_its_last_guard() {
        let domain = Domain::new();
        let slot = domain.register();
        domain.enter(slot);
        Domain::enter_again(slot);
        Domain::orphan(slot);
        assert!(!domain.enter(slot), "an orphan counts its guards, too");
        Domain::enter_again(slot);
        assert!(!Domain::leave(slot) && !Domain::leave(slot));
        assert!(Domain::leave(slot));
        assert!(!Domain::is_in_use(slot));
    }
}
