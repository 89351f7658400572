//! What each thread has of its own in a cache: counters, and once it writes, a ring of changes for the policy and memory of
//! previous entries.
//!
//! Everything here is written by one thread at a time with plain loads and stores, on lines that it shares with no other; only
//! the rings have a second party, the holder of the maintenance lock. A thread is known by the index of its guard, so its
//! part may be used only while it is pinned. Up to [`THREADS`] threads at a time have a part.
//!
//! A part is two allocations. [`ThreadState`], 128 bytes, is made by a thread's first lookup or change; it stays until the cache is dropped,
//! and serves later threads with the same index, which are the lowest free ones: so there are as many as threads at a time used the
//! cache. [`Writer`], with the ring, is made by its first change. When its thread has ended, the lock holder takes it away
//! ([`ThreadStates::sweep`]): it claims the index itself, so that no new thread begins to use the part, applies what is left in the ring, and
//! gives the memory back.

#[cfg(all(test, loom))]
mod loom_tests;

use super::entry::Handle;
use super::overflow::Overflow;
use super::writer::{OldWriter, Writer};
use crate::prim::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::reclaim::{Guard, claim_index, release_index};
use std::alloc::{Layout, alloc};
use std::ptr::{self, NonNull};

/// Threads whose part is found with one look.
const NEAR: usize = 8;
/// The other threads' parts are in blocks, the first of this many, each further one of twice as many.
const BLOCK: usize = NEAR;
const BLOCKS: usize = if cfg!(loom) { 1 } else { 7 };
/// Threads that have a part of their own. The others wait for the maintenance lock when they write, and share counters.
pub(crate) const THREADS: usize = if cfg!(loom) {
    NEAR + 2
} else {
    NEAR + BLOCK * ((1 << BLOCKS) - 1)
};
/// Of the others' rings, so many are looked at per batch.
const FAR_PER_VISIT: usize = 8;
/// Indices in a word of those that have rings.
const WORD: usize = u64::BITS as usize;
/// The most changes that wait in a ring.
const RING: usize = 64;
/// The most changes that wait in all rings of a cache, unless it is large or more threads than that write.
const SLACK: u64 = 128;
/// One thread's counters, and what it writes with. See the [module's documentation](self).
#[repr(align(128))]
pub(crate) struct ThreadState {
    hits: AtomicU64,
    misses: AtomicU64,
    writer: AtomicPtr<Writer>,
}

impl ThreadState {
    fn new() -> Self {
        Self {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            writer: AtomicPtr::new(ptr::null_mut()),
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

    /// What the thread changes the cache with, if it has yet.
    #[inline(always)]
    fn writer(&self) -> Option<&Writer> {
        get(&self.writer)
    }
}

/// How far a thread may be ahead of the policy, for all threads alike.
#[derive(Default)]
pub(crate) struct DrainLimits {
    /// With so many changes in its ring, a thread tries to have them applied.
    pub(crate) batch: AtomicUsize,
    /// With so many, it must.
    pub(crate) max_events: AtomicUsize,
    /// And with so much weight come in.
    pub(crate) max_weight: AtomicU64,
}

/// The parts of the threads beyond the first.
struct Far {
    blocks: [AtomicPtr<AtomicPtr<ThreadState>>; BLOCKS],
    /// A bit for each part that has a ring.
    writing: [AtomicU64; THREADS.div_ceil(WORD)],
}

impl Far {
    fn new() -> Self {
        Self {
            blocks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            writing: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The block of a part, and where it is there.
    #[inline]
    fn place(index: usize) -> Option<(usize, usize)> {
        if index >= THREADS {
            return None;
        }
        let n = index - NEAR;
        let block = (n / BLOCK + 1).ilog2() as usize;
        Some((block, n - BLOCK * ((1 << block) - 1)))
    }

    #[inline]
    fn find(&self, index: usize) -> Option<&ThreadState> {
        let (block, offset) = Self::place(index)?;
        get(self.block(block)?.get(offset)?)
    }

    #[inline]
    fn block(&self, block: usize) -> Option<&[AtomicPtr<ThreadState>]> {
        let first: *const AtomicPtr<ThreadState> = get(&self.blocks[block])?;
        // SAFETY: made by `make` with that length, and freed only when the locals are dropped.
        Some(unsafe { std::slice::from_raw_parts(first, BLOCK << block) })
    }

    /// [`find`](Self::find), made if need be; `None` if there is no memory.
    fn make(&self, index: usize) -> Option<&ThreadState> {
        let (block, offset) = Self::place(index)?;
        if self.block(block).is_none() {
            let len = BLOCK << block;
            let mut new: Vec<AtomicPtr<ThreadState>> = Vec::new();
            new.try_reserve_exact(len).ok()?;
            new.extend((0..len).map(|_| AtomicPtr::new(ptr::null_mut())));
            let new = Box::into_raw(new.into_boxed_slice()).cast::<AtomicPtr<ThreadState>>();
            // AcqRel, Acquire: the parts that the pointer leads to are seen (see `get`).
            let first = self.blocks[block].compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
            if first.is_err() {
                // SAFETY: made above, and not shared.
                drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(new, len)) });
            }
        }
        get_or_make(self.block(block)?.get(offset)?, || Some(ThreadState::new()))
    }

    fn set_writing(&self, index: usize, writes: bool) {
        let (at, bit) = (&self.writing[index / WORD], 1 << (index % WORD));
        if writes {
            // Release pairs with the Acquire in `next_writing`: the ring is seen.
            at.fetch_or(bit, Ordering::Release);
        } else {
            at.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// The first part from `from` on that has a ring.
    fn next_writing(&self, from: usize) -> Option<usize> {
        let mut n = from / WORD;
        let mut bits = self.writing.get(n)?.load(Ordering::Acquire) & (u64::MAX << (from % WORD));
        while bits == 0 {
            n += 1;
            bits = self.writing.get(n)?.load(Ordering::Acquire);
        }
        Some(n * WORD + bits.trailing_zeros() as usize)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        for block in 0..BLOCKS {
            let first = self.blocks[block].load(Ordering::Relaxed);
            if !first.is_null() {
                // SAFETY: made from a Box of that length in `make`; `&mut`: no other reference is left.
                let mut thread_states = unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, BLOCK << block)) };
                thread_states.iter_mut().for_each(free);
            }
        }
    }
}

/// The parts of all threads.
pub(crate) struct ThreadStates {
    near: [AtomicPtr<ThreadState>; NEAR],
    far: AtomicPtr<Far>,
    /// How many changes a ring has room for.
    room: usize,
    /// How many rings there are.
    ring_count: AtomicUsize,
    pub(crate) drain_limits: DrainLimits,
    /// What no ring had room for.
    pub(super) overflow: Overflow,
    /// Changes are to be applied at once: the policy's order is exact.
    exact: bool,
    capacity: AtomicU64,
    shared_hits: AtomicU64,
    shared_misses: AtomicU64,
}

impl ThreadStates {
    pub(crate) fn new(capacity: u64, exact: bool) -> Self {
        let thread_states = Self {
            near: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            far: AtomicPtr::new(ptr::null_mut()),
            room: 1 << slack(capacity).ilog2().min(RING.ilog2()),
            ring_count: AtomicUsize::new(0),
            drain_limits: DrainLimits::default(),
            overflow: Overflow::new(),
            exact,
            capacity: AtomicU64::new(capacity),
            shared_hits: AtomicU64::new(0),
            shared_misses: AtomicU64::new(0),
        };
        thread_states.update_drain_limits();
        thread_states
    }

    /// The cache's capacity.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        // AcqRel, as where `get_or_make` changes: see `update_drain_limits`.
        self.capacity.swap(capacity, Ordering::AcqRel);
        self.update_drain_limits();
    }

    /// All rings together hold at most `slack` changes, or one for every thread.
    #[cold]
    fn update_drain_limits(&self) {
        // What the pace is made of is read by read-modify-writes, with Acquire and Release, the last time after the pace was
        // set. Whoever changes it later sees what was set here, and overwrites it; a change that came before is seen here.
        let (ring_count, capacity) = (&self.ring_count, &self.capacity);
        let read = || {
            (
                ring_count.fetch_add(0, Ordering::AcqRel),
                capacity.fetch_add(0, Ordering::AcqRel),
            )
        };
        let mut now = read();
        loop {
            let (ring_count, capacity) = now;
            let most = (slack(capacity) as usize / ring_count.max(1)).clamp(1, self.room);
            let batch = if self.exact {
                1
            } else {
                (most / 2).min((capacity / 64) as usize).max(1)
            };
            self.drain_limits.batch.store(batch, Ordering::Relaxed);
            self.drain_limits.max_events.store(most, Ordering::Relaxed);
            self.drain_limits
                .max_weight
                .store(capacity / 8 / ring_count.max(1) as u64, Ordering::Relaxed);
            let before = std::mem::replace(&mut now, read());
            if before == now {
                return;
            }
        }
    }

    fn find(&self, index: usize) -> Option<&ThreadState> {
        match self.near.get(index) {
            Some(at) => get(at),
            None => get(&self.far)?.find(index),
        }
    }

    /// The part of the calling thread, if it is found with one look.
    #[inline(always)]
    pub(crate) fn near(&self, guard: &Guard) -> Option<&ThreadState> {
        get(self.near.get(guard.thread_index())?)
    }

    /// What the calling thread changes the cache with, if it is found with one look.
    #[inline(always)]
    pub(crate) fn near_writer(&self, guard: &Guard) -> Option<&Writer> {
        self.near(guard)?.writer()
    }

    /// What the calling thread changes the cache with; `None` if there are too many threads, or there is no memory.
    #[inline(always)]
    pub(crate) fn writer(&self, guard: &Guard) -> Option<&Writer> {
        let near = self.near_writer(guard);
        if near.is_some() {
            return near;
        }
        self.make_writer(guard.thread_index())
    }

    /// [`writer`](Self::writer), if the thread has one yet.
    #[inline]
    pub(crate) fn writer_if_any(&self, guard: &Guard) -> Option<&Writer> {
        self.find(guard.thread_index())?.writer()
    }

    /// The part of the calling thread; `None` if there are too many threads, or there is no memory.
    #[inline(always)]
    fn of(&self, guard: &Guard) -> Option<&ThreadState> {
        let near = self.near(guard);
        if near.is_some() {
            return near;
        }
        self.make(guard.thread_index())
    }

    #[cold]
    #[inline(never)]
    fn make(&self, index: usize) -> Option<&ThreadState> {
        if let Some(state) = self.find(index) {
            return Some(state);
        }
        match self.near.get(index) {
            Some(at) => get_or_make(at, || Some(ThreadState::new())),
            None if index >= THREADS => None,
            None => get_or_make(&self.far, || Some(Far::new()))?.make(index),
        }
    }

    #[cold]
    #[inline(never)]
    fn make_writer(&self, index: usize) -> Option<&Writer> {
        let state = self.make(index)?;
        if let Some(writer) = state.writer() {
            return Some(writer);
        }
        let writer = get_or_make(&state.writer, || Writer::new(self.room))?;
        if index >= NEAR
            && let Some(far) = get(&self.far)
        {
            far.set_writing(index, true);
        }
        self.ring_count.fetch_add(1, Ordering::AcqRel); // see `update_drain_limits`
        self.update_drain_limits();
        Some(writer)
    }

    /// Counts a lookup of the calling thread.
    #[inline(always)]
    pub(crate) fn count(&self, guard: &Guard, hit: bool) {
        match self.of(guard) {
            Some(state) if hit => state.hit(),
            Some(state) => state.miss(),
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
        let mut add = |state: &ThreadState| {
            sum.0 += state.hits.load(Ordering::Relaxed);
            sum.1 += state.misses.load(Ordering::Relaxed);
        };
        self.near.iter().filter_map(get).for_each(&mut add);
        if let Some(far) = get(&self.far) {
            let blocks = (0..BLOCKS).filter_map(|block| far.block(block));
            blocks.flatten().filter_map(get).for_each(add);
        }
        sum
    }

    /// Visits what the threads change the cache with. For the holder of the maintenance lock, or callers that are pinned.
    #[inline]
    pub(crate) fn for_each_writer<'l>(&'l self, mut visit: impl FnMut(&'l Writer)) {
        self.near
            .iter()
            .filter_map(get)
            .filter_map(ThreadState::writer)
            .for_each(&mut visit);
        if let Some(far) = get(&self.far) {
            let mut from = NEAR;
            while let Some(index) = far.next_writing(from) {
                far.find(index)
                    .and_then(ThreadState::writer)
                    .into_iter()
                    .for_each(&mut visit);
                from = index + 1;
            }
        }
    }

    /// Visits the ring of the calling thread, those of the first threads, and some of the others: all of them in turn, as
    /// `cursor` goes round. So a batch costs no more when many threads use the cache. What `visit` sees with an index belongs
    /// to a thread that may have ended.
    #[inline]
    pub(crate) fn for_some_writers<'l>(
        &'l self,
        guard: &Guard,
        cursor: &mut usize,
        mut visit: impl FnMut(&'l Writer, usize),
    ) {
        for (index, state) in self.near.iter().enumerate() {
            if let Some(writer) = get(state).and_then(ThreadState::writer) {
                visit(writer, index);
            }
        }
        if let Some(far) = get(&self.far) {
            let own = guard.thread_index();
            if let Some(writer) = (own >= NEAR)
                .then(|| far.find(own))
                .flatten()
                .and_then(ThreadState::writer)
            {
                visit(writer, own);
            }
            for _ in 0..FAR_PER_VISIT {
                let Some(index) = far.next_writing((*cursor).max(NEAR)) else {
                    *cursor = NEAR;
                    break;
                };
                if let Some(writer) = far.find(index).and_then(ThreadState::writer) {
                    visit(writer, index);
                }
                *cursor = index + 1;
            }
        }
    }

    /// Takes away what a thread that has ended changed the cache with; `drain` applies what it left. For the holder of the
    /// maintenance lock, which frees it when no pinned thread can see it any more. `None` if a thread uses it.
    pub(crate) fn sweep(&self, index: usize, drain: impl FnOnce(&Writer)) -> Option<OldWriter> {
        // From here until it is released no thread has the index. (Acquire there: what the thread left is seen.)
        if !claim_index(index) {
            return None;
        }
        let state = self.find(index);
        let swept = state.and_then(|state| {
            let writer = state.writer.load(Ordering::Acquire);
            let writer = NonNull::new(writer)?;
            // SAFETY: made in `make_writer`, and freed only by the owner of what is returned below.
            drain(unsafe { writer.as_ref() });
            state.writer.store(ptr::null_mut(), Ordering::Relaxed);
            if index >= NEAR
                && let Some(far) = get(&self.far)
            {
                far.set_writing(index, false);
            }
            Some(OldWriter(writer))
        });
        release_index(index);
        if swept.is_some() {
            self.ring_count.fetch_sub(1, Ordering::AcqRel); // see `update_drain_limits`
            self.update_drain_limits();
        }
        swept
    }

    /// Takes the spare memory of all threads.
    pub(super) fn drain_recycled(&mut self, mut take: impl FnMut(Handle)) {
        self.for_each_writer(|writer| {
            // SAFETY: `&mut self`: no thread uses its part any more.
            while let Some(recycled) = unsafe { writer.pop_recycled() } {
                take(recycled);
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
    // SAFETY: set only by `get_or_make` or `Far::make`, and freed only when the locals are dropped; or by who swept it, when no thread
    // that could look here is pinned any more. Acquire pairs with the Release there.
    unsafe { pointer.load(Ordering::Acquire).as_ref() }
}

/// What `pointer` points to, made if need be; `None` if there is no memory.
fn get_or_make<T>(pointer: &AtomicPtr<T>, new: impl FnOnce() -> Option<T>) -> Option<&T> {
    if let Some(made) = get(pointer) {
        return Some(made);
    }
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
    if block.is_null() {
        return None;
    }
    // SAFETY: the block is one of a Box's layout, from the allocator that a Box takes it from; it is written before it is used.
    let new = unsafe {
        let mut block = Box::from_raw(block.cast::<std::mem::MaybeUninit<T>>());
        block.write(new()?);
        Box::into_raw(block).cast::<T>()
    };
    // AcqRel, Acquire: what the pointer leads to is seen (see `get`).
    match pointer.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: set now, and freed as `get` says.
        Ok(_) => Some(unsafe { &*new }),
        Err(first) => {
            // SAFETY: `new` was not shared; `first` is as above.
            unsafe {
                drop(Box::from_raw(new));
                Some(&*first)
            }
        }
    }
}

impl Drop for ThreadState {
    fn drop(&mut self) {
        free(&mut self.writer);
    }
}

impl Drop for ThreadStates {
    fn drop(&mut self) {
        self.near.iter_mut().for_each(free);
        free(&mut self.far);
    }
}

fn free<T>(pointer: &mut AtomicPtr<T>) {
    let made = pointer.load(Ordering::Relaxed);
    if !made.is_null() {
        // SAFETY: set once, made from a Box in `get_or_make`; `&mut`: nobody else is left.
        drop(unsafe { Box::from_raw(made) });
    }
}
