//! Epoch-based reclamation in which only writers pay for collecting.
//!
//! Readers announce the epoch they started in; what was unlinked is freed once every announced epoch is later than
//! the unlinking (Fraser, "Practical lock-freedom", 2004). Unlike crossbeam-epoch, a reader never collects, so its
//! latency is its own; and garbage belongs to the cache that made it, so no destructor runs after a cache is gone.
//!
//! The protocol, checked with loom below:
//! - A reader stores `epoch | ACTIVE` in its thread's slot, then a SeqCst fence, then reads shared pointers.
//! - A collector unlinks, advances the epoch (the new epoch is the garbage's *tag*), then a SeqCst fence, then scans the
//!   slots. If it misses a reader's announcement, that reader's fence came later, and it sees the unlinking. If the
//!   reader announced an epoch >= tag, it read the epoch that the advance had published, so it sees the unlinking too.

use crate::prim::sync::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, Padded, fence};
use std::ptr;

const ACTIVE: u64 = 1;
const STEP: u64 = 2;
/// In `Slot::depth`: the slot's thread is past its thread-local destructors, so the last guard gives the slot back.
const ORPHAN: usize = 1 << (usize::BITS - 1);

/// The readers of all caches, and the clock that orders what they may still see.
pub(crate) struct Domain {
    epoch: Padded<AtomicU64>,
    slots: AtomicPtr<Slot>,
}

/// One thread's announcement. Never freed; reused by later threads.
#[repr(align(128))]
pub(crate) struct Slot {
    /// `epoch | ACTIVE` while a guard lives, else 0.
    state: AtomicU64,
    /// The number of living guards; touched by the owning thread only.
    depth: AtomicUsize,
    used: AtomicU8,
    /// Dense, from 0: lets per-thread counters live in arrays.
    pub(crate) index: u32,
    next: *mut Slot,
}

impl Domain {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            epoch: Padded(AtomicU64::new(STEP)),
            slots: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            epoch: Padded(AtomicU64::new(STEP)),
            slots: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// A slot for the calling thread: a returned one, or a new one. O(slots).
    pub(crate) fn register(&self) -> *const Slot {
        // Acquire pairs with the Release of the push below: the slot's fields are seen.
        let mut at = self.slots.load(Ordering::Acquire);
        let mut index = 0;
        while !at.is_null() {
            // SAFETY: slots are leaked boxes, valid for ever.
            let slot = unsafe { &*at };
            // Acquire pairs with the Release in `unregister`: the former owner is done with the slot's fields.
            if slot.used.load(Ordering::Relaxed) == 0
                && slot
                    .used
                    .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return at;
            }
            index = index.max(slot.index + 1);
            at = slot.next;
        }
        let new = Box::into_raw(Box::new(Slot {
            state: AtomicU64::new(0),
            depth: AtomicUsize::new(0),
            used: AtomicU8::new(1),
            index,
            next: ptr::null_mut(),
        }));
        let mut head = self.slots.load(Ordering::Acquire);
        loop {
            // SAFETY: `new` is not shared yet. The index stays unique: it exceeds every slot below it in the list.
            unsafe {
                (*new).next = head;
                (*new).index = if head.is_null() { 0 } else { (*head).index + 1 };
            }
            match self
                .slots
                .compare_exchange(head, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return new,
                Err(now) => head = now,
            }
        }
    }

    /// Gives a slot back. No guard of it may live.
    pub(crate) fn unregister(slot: &Slot) {
        slot.depth.store(0, Ordering::Relaxed);
        slot.used.store(0, Ordering::Release);
    }

    /// Announces the slot's owner as a reader; its guards may nest and end in any order.
    #[inline]
    pub(crate) fn enter(&self, slot: &Slot) {
        let depth = slot.depth.load(Ordering::Relaxed);
        slot.depth.store(depth + 1, Ordering::Relaxed);
        if depth & !ORPHAN == 0 {
            // Acquire pairs with `advance`: a reader in epoch e sees all that was unlinked before e began.
            let epoch = self.epoch.0.load(Ordering::Acquire);
            // Release: a collector that reads this epoch (Acquire) is ordered after the guards that ended before it.
            slot.state.store(epoch | ACTIVE, Ordering::Release);
            // Partner: the fence in `horizon`.
            fence(Ordering::SeqCst);
        }
    }

    /// Ends one guard; true if the slot must be given back (see `ORPHAN`).
    #[inline]
    pub(crate) fn leave(slot: &Slot) -> bool {
        let depth = slot.depth.load(Ordering::Relaxed) - 1;
        slot.depth.store(depth, Ordering::Relaxed);
        if depth & !ORPHAN == 0 {
            // Release pairs with the Acquire in `horizon`: the guard's reads come before the freeing.
            slot.state.store(0, Ordering::Release);
            return depth != 0;
        }
        false
    }

    /// Begins a new epoch and returns it: the tag of all that was unlinked before.
    pub(crate) fn advance(&self) -> u64 {
        // AcqRel: Release publishes the unlinking to readers of the new epoch; Acquire orders earlier advances before.
        self.epoch.0.fetch_add(STEP, Ordering::AcqRel) + STEP
    }

    /// Garbage with a tag up to the returned epoch can be seen by no reader. O(threads).
    pub(crate) fn horizon(&self) -> u64 {
        let mut horizon = self.epoch.0.load(Ordering::Acquire);
        // Partner: the fence in `enter`.
        fence(Ordering::SeqCst);
        let mut at = self.slots.load(Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: slots are leaked boxes, valid for ever.
            let slot = unsafe { &*at };
            let state = slot.state.load(Ordering::Acquire);
            if state & ACTIVE != 0 {
                horizon = horizon.min(state & !ACTIVE);
            }
            at = slot.next;
        }
        horizon
    }
}

#[cfg(not(loom))]
mod global {
    use super::*;
    use std::cell::Cell;

    static DOMAIN: Domain = Domain::new();

    thread_local! {
        /// Without a destructor, so that reading it is one instruction.
        static SLOT: Cell<*const Slot> = const { Cell::new(ptr::null()) };
        static OWNER: Owner = const { Owner };
    }

    struct Owner;

    impl Drop for Owner {
        fn drop(&mut self) {
            let slot = SLOT.replace(ptr::null());
            if !slot.is_null() {
                // SAFETY: slots are never freed, and this one is this thread's.
                let slot = unsafe { &*slot };
                if slot.depth.load(Ordering::Relaxed) & !ORPHAN == 0 {
                    Domain::unregister(slot);
                } else {
                    // A guard outlives this destructor (in another thread-local): the last one gives the slot back.
                    slot.depth
                        .store(slot.depth.load(Ordering::Relaxed) | ORPHAN, Ordering::Relaxed);
                    SLOT.set(slot);
                }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn register() -> *const Slot {
        let slot = DOMAIN.register();
        SLOT.set(slot);
        if OWNER.try_with(|_| ()).is_err() {
            // SAFETY: slots are never freed, and this one is this thread's.
            unsafe { (*slot).depth.store(ORPHAN, Ordering::Relaxed) };
        }
        slot
    }

    /// While it lives, nothing that its thread can reach in a map is freed. Not `Send`.
    pub(crate) struct Guard(*const Slot);

    /// Pins the calling thread. Wait-free but for a thread's first call; nests.
    #[inline]
    pub(crate) fn pin() -> Guard {
        let mut slot = SLOT.get();
        if slot.is_null() {
            slot = register();
        }
        // SAFETY: slots are never freed.
        DOMAIN.enter(unsafe { &*slot });
        Guard(slot)
    }

    impl Guard {
        /// A small number that no other living thread has.
        #[inline]
        pub(crate) fn thread_index(&self) -> usize {
            // SAFETY: slots are never freed.
            unsafe { (*self.0).index as usize }
        }
    }

    impl Drop for Guard {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: slots are never freed; the guard is not Send, so this is the slot's owner.
            if Domain::leave(unsafe { &*self.0 }) {
                give_back(self.0);
            }
        }
    }

    #[cold]
    fn give_back(slot: *const Slot) {
        SLOT.set(ptr::null());
        // SAFETY: slots are never freed.
        Domain::unregister(unsafe { &*slot });
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
            // SAFETY: freed with the world.
            unsafe { &*self.domain.register() }
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
            self.domain.enter(slot);
            let found = self.find();
            self.domain.enter(slot);
            self.read(self.find());
            assert!(!Domain::leave(slot));
            self.read(found);
            Domain::leave(slot);
        }

        fn read_once(&self, slot: &Slot) {
            self.domain.enter(slot);
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
                at = unsafe { Box::from_raw(at) }.next;
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
