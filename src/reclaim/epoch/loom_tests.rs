//! The protocol of the epochs under loom: readers pin, a collector unlinks and frees. A model fails
//! if an object is freed while a guard that could find it lives.

use super::*;
use crate::prim::sync::AtomicUsize;
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

/// Objects, of which `current` is the one that is linked.
struct World {
    threads: Registry<Slot>,
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
            threads: Registry::new(),
            domain: Domain::with_serial(5),
            current: AtomicUsize::new(0),
            objects,
        })
    }

    fn slot(&self) -> &Slot {
        Domain::register(&self.threads, None)
    }

    /// Pins the thread with this first slot. Returns the slot of the guard.
    fn enter<'w>(&'w self, first: &'w Slot) -> &'w Slot {
        if self.domain.enter(first) {
            return first;
        }
        self.domain.enter_further_slot(&self.threads, first)
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

    /// Reads under two guards, of which the first ends first, and after that.
    fn read_nested(&self, slot: &Slot) {
        let outer = self.enter(slot);
        let found = self.find();
        let inner = self.enter(slot);
        let later = self.find();
        self.read(found);
        assert!(!Domain::leave(outer));
        self.read(later);
        assert!(!Domain::leave(inner));
    }

    /// Reads under one guard.
    fn read_once(&self, slot: &Slot) {
        self.enter(slot);
        self.read(self.find());
        Domain::leave(slot);
    }

    /// Links object `next` instead of the current one. Returns the tag of the unlinked one.
    fn unlink(&self, next: usize) -> u64 {
        self.current.store(next, Ordering::Release);
        self.domain.advance()
    }

    /// Frees an object if no reader can reference it. Returns whether it did.
    fn free(&self, object: usize, tag: u64) -> bool {
        let (past, _) = self.domain.has_passed(&self.threads, tag);
        if past {
            // SAFETY: checked by loom.
            self.objects[object].with_mut(|at| unsafe { *at = false });
        }
        past
    }
}

/// Runs the model, and checks that an object was freed in one execution, and in another not at the
/// first attempt.
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
fn loom_epoch_reader_and_collector() {
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
    // A reader that pins twice, while two objects are unlinked and freed one after the other.
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
fn loom_epoch_slot_is_reused() {
    check(|yes, no| {
        let world = World::new();
        let readers = [0; 2].map(|_| {
            let one = world.clone();
            thread::spawn(move || {
                let slot = one.slot();
                one.read_once(slot);
                Domain::unregister(&one.threads, slot);
                slot.thread.load(Ordering::Relaxed)
            })
        });
        let tag = world.unlink(1);
        let freed = world.free(0, tag);
        let indices = readers.map(|reader| reader.join().unwrap());
        assert!(indices.into_iter().max() <= Some(1));
        count(freed, yes, no);
    });
}

#[test]
fn loom_epoch_reader_of_two_domains() {
    // A thread that reads another domain's map under a guard of this one's, and a collector of the
    // other domain.
    check(|yes, no| {
        let world = World::new();
        let one = world.clone();
        let reader = thread::spawn(move || {
            let (slot, outer) = (one.slot(), Domain::with_serial(6));
            assert!(outer.enter(slot));
            let inner = one.enter(slot);
            one.read(one.find());
            assert!(!Domain::leave(slot));
            one.read(one.find());
            assert!(!Domain::leave(inner));
        });
        let tag = world.unlink(1);
        count(world.free(0, tag), yes, no);
        reader.join().unwrap();
    });
}

#[test]
fn loom_epoch_collector_renews_its_guard() {
    // Two threads that read, unlink and collect under guards of their own. A guard must delay only
    // the freeing of the other thread's garbage.
    check(|yes, no| {
        let world = World::new();
        let one = world.clone();
        let reader = thread::spawn(move || {
            let slot = one.slot();
            one.enter(slot);
            one.read(one.find());
            one.domain.advance();
            one.domain.renew(slot);
            // As in `Domain::passed`: the guard protects again from here on.
            fence(Ordering::SeqCst);
            one.read(one.find());
            Domain::leave(slot);
        });
        let slot = world.slot();
        world.enter(slot);
        let tag = world.unlink(1);
        world.domain.renew(slot);
        count(world.free(0, tag), yes, no);
        Domain::leave(slot);
        reader.join().unwrap();
    });
}
