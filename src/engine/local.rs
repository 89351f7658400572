//! What a thread has of its own in a cache: counters, the changes it made that the policy has not heard of, and memory of
//! former entries.
//!
//! Everything here is written by one thread at a time with plain loads and stores, on lines that it shares with nobody; only
//! the rings have a second party, the holder of the maintenance lock. A thread is known by the index of its guard, so its
//! part may be used only while it is pinned. Up to [`THREADS`] threads at a time have a part; made when first needed, it stays
//! until the cache is dropped, and serves later threads with the same index.

use super::entry::{Chain, Handle};
use crate::map::reclaim::Guard;
use crate::prim::ring::Ring;
use crate::prim::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::cell::UnsafeCell;
use std::ptr;

/// Threads whose part is found with one look.
const NEAR: usize = 8;
/// Threads that have a part of their own. The others wait for the maintenance lock when they write, and share counters.
pub(crate) const THREADS: usize = if cfg!(loom) { NEAR + 2 } else { 1024 };
/// Of the others' parts, so many are looked at per batch.
const AT_ONCE: usize = 8;
/// The most changes that wait in a ring.
const RING: usize = 64;
/// The most changes that wait in all rings of a cache, unless it is large or more threads than that write.
const SLACK: u64 = 128;
/// Former entries that are kept for new ones: so many, or of so many bytes.
const SPARES: usize = 64;
const SPARE_BYTES: usize = 16 << 10;

/// One thread's part. See the [module's documentation](self).
#[repr(align(128))]
pub(crate) struct Local {
    hits: AtomicU64,
    misses: AtomicU64,
    /// The weight that came in since the ring was last empty.
    ahead: AtomicU64,
    pub(crate) ring: Ring,
    spares: UnsafeCell<Chain>,
}

// SAFETY: `spares` is only touched by the one thread whose index this is (by contract of `spare` and `keep`), or by the
// owner of the whole cache.
unsafe impl Sync for Local {}

impl Local {
    fn new(room: usize) -> Self {
        Self {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
            ring: Ring::new(room),
            spares: UnsafeCell::new(Chain::new()),
        }
    }

    /// Counts a hit of the calling thread, whose part this is: no read-modify-write is needed.
    #[inline(always)]
    pub(crate) fn hit(&self) {
        self.hits
            .store(self.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts a miss, likewise.
    #[inline(always)]
    pub(crate) fn miss(&self) {
        self.misses
            .store(self.misses.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Adds to the weight that came in since the ring was last empty, of which `waiting` says how full it is now.
    #[inline]
    pub(super) fn add_weight(&self, weight: u64, waiting: usize) -> u64 {
        let before = if waiting > 1 {
            self.ahead.load(Ordering::Relaxed)
        } else {
            0
        };
        let ahead = before.saturating_add(weight);
        self.ahead.store(ahead, Ordering::Relaxed);
        ahead
    }

    /// Memory of a former entry.
    ///
    /// # Safety
    /// The caller is the thread whose part this is, and pinned.
    #[inline]
    pub(super) unsafe fn spare(&self) -> Option<Handle> {
        // SAFETY: only this thread touches it, and this reference ends here.
        unsafe { &mut *self.spares.get() }.pop()
    }

    /// Keeps the memory of former entries, of `size` bytes each, and returns what is more than enough.
    ///
    /// # Safety
    /// As for [`spare`](Self::spare); and the entries went through `drop_contents`, and are not used elsewhere.
    #[inline]
    pub(super) unsafe fn keep(&self, mut former: Chain, size: usize) -> Chain {
        // SAFETY: as in `spare`.
        let spares = unsafe { &mut *self.spares.get() };
        let most = SPARES.min(SPARE_BYTES / size);
        if spares.len() + former.len() <= most {
            spares.prepend(former);
            return Chain::new();
        }
        while spares.len() < most
            && let Some(one) = former.pop()
        {
            // SAFETY: the caller gives the memory up.
            unsafe { spares.push(one) };
        }
        former
    }
}

/// How far a thread may be ahead of the policy, for all threads alike.
#[derive(Default)]
pub(crate) struct Pace {
    /// With so many changes in its ring, a thread tries to have them applied.
    pub(crate) batch: AtomicUsize,
    /// With so many, it must.
    pub(crate) most: AtomicUsize,
    /// And with so much weight come in.
    pub(crate) weight: AtomicU64,
}

/// The parts of all threads.
pub(crate) struct Locals {
    near: [AtomicPtr<Local>; NEAR],
    far: AtomicPtr<[AtomicPtr<Local>; THREADS - NEAR]>,
    /// How many changes a ring has room for.
    room: usize,
    /// How many parts were made.
    made: AtomicUsize,
    pub(crate) pace: Pace,
    /// Changes are to be applied at once: the policy's order is exact.
    exact: bool,
    capacity: AtomicU64,
    shared_hits: AtomicU64,
    shared_misses: AtomicU64,
}

impl Locals {
    pub(crate) fn new(capacity: u64, exact: bool) -> Self {
        let locals = Self {
            near: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            far: AtomicPtr::new(ptr::null_mut()),
            room: 1 << slack(capacity).ilog2().min(RING.ilog2()),
            made: AtomicUsize::new(0),
            pace: Pace::default(),
            exact,
            capacity: AtomicU64::new(capacity),
            shared_hits: AtomicU64::new(0),
            shared_misses: AtomicU64::new(0),
        };
        locals.set_pace();
        locals
    }

    /// The cache's capacity.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        // AcqRel, as where `made` changes: see `set_pace`.
        self.capacity.swap(capacity, Ordering::AcqRel);
        self.set_pace();
    }

    /// All rings together hold at most `slack` changes, or one for every thread.
    #[cold]
    fn set_pace(&self) {
        // What the pace is made of is read by read-modify-writes, with Acquire and Release, the last time after the pace was
        // set. Whoever changes it later sees what was set here, and overwrites it; a change that came before is seen here.
        let (made, capacity) = (&self.made, &self.capacity);
        let read = || {
            (
                made.fetch_add(0, Ordering::AcqRel),
                capacity.fetch_add(0, Ordering::AcqRel),
            )
        };
        let mut now = read();
        loop {
            let (made, capacity) = now;
            let most = (slack(capacity) as usize / made.max(1)).clamp(1, self.room);
            let batch = if self.exact {
                1
            } else {
                (most / 2).min((capacity / 64) as usize).max(1)
            };
            self.pace.batch.store(batch, Ordering::Relaxed);
            self.pace.most.store(most, Ordering::Relaxed);
            self.pace
                .weight
                .store(capacity / 8 / made.max(1) as u64, Ordering::Relaxed);
            let before = std::mem::replace(&mut now, read());
            if before == now {
                return;
            }
        }
    }

    fn find(&self, index: usize) -> Option<&Local> {
        let at = match self.near.get(index) {
            Some(at) => at,
            None => get(&self.far)?.get(index - NEAR)?,
        };
        get(at)
    }

    /// The part of the calling thread, if it is found with one look.
    #[inline(always)]
    pub(crate) fn near(&self, guard: &Guard) -> Option<&Local> {
        get(self.near.get(guard.thread_index())?)
    }

    /// The part of the calling thread; `None` if there are too many threads.
    #[inline(always)]
    pub(crate) fn of(&self, guard: &Guard) -> Option<&Local> {
        let near = self.near(guard);
        if near.is_some() {
            return near;
        }
        self.make(guard.thread_index())
    }

    #[cold]
    #[inline(never)]
    fn make(&self, index: usize) -> Option<&Local> {
        if let Some(local) = self.find(index) {
            return Some(local);
        }
        let at = match self.near.get(index) {
            Some(at) => at,
            None if index >= THREADS => return None,
            None => {
                let none = || std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
                &made(&self.far, none)[index - NEAR]
            }
        };
        let local = made(at, || Local::new(self.room));
        self.made.fetch_add(1, Ordering::AcqRel); // see `set_pace`
        self.set_pace();
        Some(local)
    }

    /// Counts a lookup of the calling thread.
    #[inline(always)]
    pub(crate) fn count(&self, guard: &Guard, hit: bool) {
        match self.of(guard) {
            Some(local) if hit => local.hit(),
            Some(local) => local.miss(),
            None if hit => _ = self.shared_hits.fetch_add(1, Ordering::Relaxed),
            None => _ = self.shared_misses.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// All hits and misses.
    pub(crate) fn lookups(&self) -> (u64, u64) {
        let mut sum = (
            self.shared_hits.load(Ordering::Relaxed),
            self.shared_misses.load(Ordering::Relaxed),
        );
        self.each(|local| {
            sum.0 += local.hits.load(Ordering::Relaxed);
            sum.1 += local.misses.load(Ordering::Relaxed);
        });
        sum
    }

    /// Visits the parts of all threads.
    #[inline]
    pub(crate) fn each<'l>(&'l self, mut visit: impl FnMut(&'l Local)) {
        self.near.iter().filter_map(get).for_each(&mut visit);
        if let Some(far) = get(&self.far) {
            far.iter().filter_map(get).for_each(visit);
        }
    }

    /// Visits the part of the calling thread, those of the first threads, and some of the others: all of them in turn, as
    /// `cursor` goes round. So a batch costs no more when many threads have used the cache.
    #[inline]
    pub(crate) fn each_soon<'l>(&'l self, guard: &Guard, cursor: &mut usize, mut visit: impl FnMut(&'l Local)) {
        self.near.iter().filter_map(get).for_each(&mut visit);
        if let Some(far) = get(&self.far) {
            let own = guard.thread_index().checked_sub(NEAR).and_then(|index| far.get(index));
            let end = (*cursor + AT_ONCE).min(THREADS - NEAR);
            let some = far[*cursor..end].iter();
            own.into_iter().chain(some).filter_map(get).for_each(visit);
            *cursor = end % (THREADS - NEAR);
        }
    }

    /// Takes the spare memory of all threads.
    pub(super) fn drain_spares(&mut self, mut take: impl FnMut(Handle)) {
        self.each(|local| {
            // SAFETY: `&mut self`: no thread uses its part any more.
            while let Some(spare) = unsafe { local.spare() } {
                take(spare);
            }
        });
    }
}

/// How many changes may wait in all rings: an eighth of a small capacity, a 64th of a large one.
fn slack(capacity: u64) -> u64 {
    (capacity / 8).clamp(8, SLACK.max(capacity / 64))
}

/// What `pointer` points to, if it was made.
#[inline(always)]
fn get<T>(pointer: &AtomicPtr<T>) -> Option<&T> {
    // SAFETY: set only by `made`, and freed only when the locals are dropped. Acquire pairs with the Release there.
    unsafe { pointer.load(Ordering::Acquire).as_ref() }
}

/// What `pointer` points to, made if need be.
fn made<T>(pointer: &AtomicPtr<T>, new: impl FnOnce() -> T) -> &T {
    if let Some(made) = get(pointer) {
        return made;
    }
    let new = Box::into_raw(Box::new(new()));
    // AcqRel, Acquire: what the pointer leads to is seen (see `get`).
    match pointer.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: set now, and freed only when the locals are dropped.
        Ok(_) => unsafe { &*new },
        Err(first) => {
            // SAFETY: `new` was not shared; `first` is as above.
            unsafe {
                drop(Box::from_raw(new));
                &*first
            }
        }
    }
}

impl Drop for Locals {
    fn drop(&mut self) {
        self.near.iter_mut().for_each(free);
        let far = self.far.load(Ordering::Relaxed);
        if !far.is_null() {
            // SAFETY: set once, made from a Box in `made`; `&mut`: nobody else is left.
            let mut far = unsafe { Box::from_raw(far) };
            far.iter_mut().for_each(free);
        }
    }
}

fn free<T>(pointer: &mut AtomicPtr<T>) {
    let made = pointer.load(Ordering::Relaxed);
    if !made.is_null() {
        // SAFETY: set once, made from a Box in `made`; `&mut`: nobody else is left.
        drop(unsafe { Box::from_raw(made) });
    }
}

/// The making of the parts, and of what all are told of the pace, under loom.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::map::reclaim::{INDEX, pin};
    use loom::thread;
    use std::sync::Arc;

    const CAPACITY: u64 = 1024;

    /// Runs `threads` at once, on one index each, and then looks whether the pace is right for so many and `capacity`.
    fn model<const N: usize>(first: usize, threads: [fn(&Locals); N], capacity: u64) {
        loom::model(move || {
            let locals = Arc::new(Locals::new(CAPACITY, false));
            let run = |n: usize| {
                let locals = locals.clone();
                move || {
                    INDEX.with(|index| index.set(first + n));
                    threads[n](&locals);
                }
            };
            let others: Vec<_> = (1..N).map(|n| thread::spawn(run(n))).collect();
            run(0)();
            others.into_iter().for_each(|other| other.join().unwrap());
            let mut parts = 0;
            locals.each(|_| parts += 1);
            assert_eq!(locals.made.load(Ordering::Relaxed), parts);
            let want = Locals::new(capacity, false);
            want.made.store(parts, Ordering::Relaxed);
            want.set_pace();
            let pace = |locals: &Locals| {
                let pace = &locals.pace;
                let [batch, most] = [&pace.batch, &pace.most].map(|at| at.load(Ordering::Relaxed));
                (batch, most, pace.weight.load(Ordering::Relaxed))
            };
            assert_eq!(pace(&locals), pace(&want), "the pace is that of {parts} threads");
        });
    }

    fn hit(locals: &Locals) {
        let guard = pin();
        let (before, _) = locals.lookups();
        let local = locals.of(&guard).expect("few threads have parts");
        local.hit();
        assert_eq!(local.ring.push([1, 2]), 1, "nobody else has it");
        let (after, _) = locals.lookups();
        assert!(after > before, "its own hit is counted");
    }

    #[test]
    fn loom_local_two_parts() {
        model(0, [hit, hit], CAPACITY);
    }

    #[test]
    fn loom_local_two_far_parts() {
        model(NEAR, [hit, hit], CAPACITY);
    }

    #[test]
    fn loom_local_a_part_and_a_capacity() {
        model(0, [hit, |locals| locals.set_capacity(8 * CAPACITY)], 8 * CAPACITY);
    }
}
