//! Per-thread state of a cache: counters, and for a thread that writes, a ring of events and
//! recycled memory.
//!
//! # Ownership
//!
//! One thread at a time writes its state with plain loads and stores, on cache lines that no other
//! thread writes. Only a ring has a second party, the holder of the maintenance lock (invariant
//! 12). A thread is identified by the index of its guard, so it may use its state only while it is
//! pinned. Up to [`THREADS`] threads at a time have a state.
//!
//! # Allocations
//!
//! [`ThreadState`], 128 bytes, is allocated by the first lookup or change of a thread. It stays
//! until the cache is dropped, and serves later threads with the same index. Threads take the
//! lowest free index, so there are as many states as threads used the cache at the same time.
//!
//! [`Writer`], with the ring, is allocated by the first change of a thread. After the thread has
//! ended, the lock holder takes the writer ([`ThreadStates::sweep`]): it claims the index, so that
//! no new thread starts to use the state, applies the remaining events, and frees the memory.

#[cfg(all(test, loom))]
mod loom_tests;

use super::entry::Handle;
use super::overflow::Overflow;
use super::writer::{OldWriter, Writer};
use crate::prim::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::reclaim::{Guard, claim_index, release_index};
use std::alloc::{Layout, alloc};
use std::ptr::{self, NonNull};

/// Threads whose state is found with one load.
const NEAR: usize = 8;
/// The states of other threads are in blocks: the first of this many, each further one twice as
/// large.
const BLOCK: usize = NEAR;
const BLOCKS: usize = if cfg!(loom) { 1 } else { 7 };
/// Threads that have a state of their own. Further threads wait for the maintenance lock when they
/// write, and share counters.
pub(crate) const THREADS: usize = if cfg!(loom) {
    NEAR + 2
} else {
    NEAR + BLOCK * ((1 << BLOCKS) - 1)
};
/// Far rings that are drained per visit.
const FAR_PER_VISIT: usize = 8;
/// Indices per word of the bitmap of writers.
const WORD: usize = u64::BITS as usize;
/// The largest number of events in one ring: several batches, so that a thread that finds the
/// maintenance lock held, perhaps by a suspended thread, need not wait for it soon. On two threads
/// that only insert, rings of 64 took 1.1 times as long.
const RING: usize = 256;
/// The largest number of events in all rings of a cache, unless it is large or has more writing
/// threads than this.
const SLACK: u64 = 128;
/// The largest number of events in a ring after which a thread tries to have them applied.
const BATCH: usize = 32;
/// One thread's counters, and its writer. See the [module's documentation](self).
#[repr(align(128))]
pub(crate) struct ThreadState {
    hits: AtomicU64,
    misses: AtomicU64,
    stale_hits: AtomicU64,
    writer: AtomicPtr<Writer>,
}

impl ThreadState {
    fn new() -> Self {
        Self {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            stale_hits: AtomicU64::new(0),
            writer: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Counts a hit of the calling thread. The state is its own, so no read-modify-write is needed.
    #[inline(always)]
    pub(crate) fn hit(&self) {
        self.hits
            .store(self.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts a miss of the calling thread.
    #[inline(always)]
    pub(crate) fn miss(&self) {
        self.misses
            .store(self.misses.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Returns the thread's writer, if it has one.
    #[inline(always)]
    fn writer(&self) -> Option<&Writer> {
        get(&self.writer)
    }
}

/// How far a thread may be ahead of the policy; the same for all threads.
#[derive(Default)]
pub(crate) struct DrainLimits {
    /// With this many events in its ring, a thread tries to have them applied.
    pub(crate) batch: AtomicUsize,
    /// With this many events in its ring, a thread must have them applied.
    pub(crate) max_events: AtomicUsize,
    /// With this much unapplied weight, a thread must have its events applied.
    pub(crate) max_weight: AtomicU64,
}

/// The states of threads with an index of [`NEAR`] or more.
struct Far {
    blocks: [AtomicPtr<AtomicPtr<ThreadState>>; BLOCKS],
    /// A bit for each state that has a writer.
    writing: [AtomicU64; THREADS.div_ceil(WORD)],
}

impl Far {
    fn new() -> Self {
        Self {
            blocks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            writing: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Returns the block of a state, and the offset in it.
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
        // SAFETY: allocated by `make` with that length, and freed only when the states are dropped.
        Some(unsafe { std::slice::from_raw_parts(first, BLOCK << block) })
    }

    /// Same as [`find`](Self::find), but allocates a missing state; `None` if there is no memory.
    fn make(&self, index: usize) -> Option<&ThreadState> {
        let (block, offset) = Self::place(index)?;
        if self.block(block).is_none() {
            let len = BLOCK << block;
            let mut new: Vec<AtomicPtr<ThreadState>> = Vec::new();
            new.try_reserve_exact(len).ok()?;
            new.extend((0..len).map(|_| AtomicPtr::new(ptr::null_mut())));
            let new = Box::into_raw(new.into_boxed_slice()).cast::<AtomicPtr<ThreadState>>();
            // AcqRel and Acquire pair with each other: the states that the pointer leads to are
            // seen (see `get`).
            let first = self.blocks[block].compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
            if first.is_err() {
                // SAFETY: allocated above, and not shared.
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

    /// Returns the first index from `from` on whose state has a writer.
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
                // SAFETY: allocated as a Box of that length in `make`; `&mut`: no other reference
                // is left.
                let mut thread_states = unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, BLOCK << block)) };
                thread_states.iter_mut().for_each(free);
            }
        }
    }
}

/// The states of all threads.
pub(crate) struct ThreadStates {
    near: [AtomicPtr<ThreadState>; NEAR],
    far: AtomicPtr<Far>,
    /// The capacity of a ring.
    ring_capacity: usize,
    /// The number of rings.
    ring_count: AtomicUsize,
    pub(crate) drain_limits: DrainLimits,
    /// Events for which no ring had room.
    pub(super) overflow: Overflow,
    /// Whether every event is applied immediately: the policy's order is exact.
    exact: bool,
    capacity: AtomicU64,
    shared_hits: AtomicU64,
    shared_misses: AtomicU64,
    shared_stale_hits: AtomicU64,
}

impl ThreadStates {
    pub(crate) fn new(capacity: u64, exact: bool) -> Self {
        let thread_states = Self {
            near: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            far: AtomicPtr::new(ptr::null_mut()),
            ring_capacity: 1 << slack(capacity).ilog2().min(RING.ilog2()),
            ring_count: AtomicUsize::new(0),
            drain_limits: DrainLimits::default(),
            overflow: Overflow::new(),
            exact,
            capacity: AtomicU64::new(capacity),
            shared_hits: AtomicU64::new(0),
            shared_misses: AtomicU64::new(0),
            shared_stale_hits: AtomicU64::new(0),
        };
        thread_states.update_drain_limits();
        thread_states
    }

    /// Returns the cache's capacity.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        // AcqRel pairs with the AcqRel where `ring_count` changes: see `update_drain_limits`.
        self.capacity.swap(capacity, Ordering::AcqRel);
        self.update_drain_limits();
    }

    /// Sets the limits so that all rings together hold at most `slack` events, or one per thread if
    /// that is more.
    #[cold]
    fn update_drain_limits(&self) {
        // The limits follow from the number of rings and the capacity. Both are read by AcqRel
        // read-modify-writes, the last time after the limits were stored. A thread that changes one
        // of them later sees these limits and overwrites them; an earlier change is seen here.
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
            let most = (slack(capacity) as usize / ring_count.max(1)).clamp(1, self.ring_capacity);
            let batch = if self.exact {
                1
            } else {
                (most / 2).min(BATCH).min((capacity / 64) as usize).max(1)
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

    /// Returns the state of the calling thread, if it is found with one load.
    #[inline(always)]
    pub(crate) fn near(&self, guard: &Guard) -> Option<&ThreadState> {
        get(self.near.get(guard.thread_index())?)
    }

    /// Returns the writer of the calling thread, if it is found with one load.
    #[inline(always)]
    pub(crate) fn near_writer(&self, guard: &Guard) -> Option<&Writer> {
        self.near(guard)?.writer()
    }

    /// Returns the writer of the calling thread, allocated if necessary; `None` if there are too
    /// many threads, or no memory.
    #[inline(always)]
    pub(crate) fn writer(&self, guard: &Guard) -> Option<&Writer> {
        let near = self.near_writer(guard);
        if near.is_some() {
            return near;
        }
        self.make_writer(guard.thread_index())
    }

    /// Returns the writer of the calling thread, if it has one.
    #[inline]
    pub(crate) fn writer_if_any(&self, guard: &Guard) -> Option<&Writer> {
        self.find(guard.thread_index())?.writer()
    }

    /// Returns the state of the calling thread, allocated if necessary; `None` if there are too
    /// many threads, or no memory.
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
        let writer = get_or_make(&state.writer, || Writer::new(self.ring_capacity))?;
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

    /// Counts a hit of the calling thread, which is counted as a hit already, as a stale one.
    #[inline]
    pub(crate) fn count_stale(&self, guard: &Guard) {
        match self.of(guard) {
            // The state is the thread's own, as in `ThreadState::hit`.
            Some(ThreadState { stale_hits, .. }) => {
                stale_hits.store(stale_hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            None => _ = self.shared_stale_hits.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Returns all hits, misses, and stale ones among the hits.
    pub(crate) fn lookups(&self) -> (u64, u64, u64) {
        let mut sum = (
            self.shared_hits.load(Ordering::Relaxed),
            self.shared_misses.load(Ordering::Relaxed),
            self.shared_stale_hits.load(Ordering::Relaxed),
        );
        let mut add = |state: &ThreadState| {
            sum.0 += state.hits.load(Ordering::Relaxed);
            sum.1 += state.misses.load(Ordering::Relaxed);
            sum.2 += state.stale_hits.load(Ordering::Relaxed);
        };
        self.near.iter().filter_map(get).for_each(&mut add);
        if let Some(far) = get(&self.far) {
            let blocks = (0..BLOCKS).filter_map(|block| far.block(block));
            blocks.flatten().filter_map(get).for_each(add);
        }
        sum
    }

    /// Calls `visit` with every writer. The caller holds the maintenance lock, or is pinned.
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

    /// Calls `visit` with the writer of the calling thread, those of the first [`NEAR`] threads,
    /// and up to [`FAR_PER_VISIT`] others, which `cursor` takes in turn. So the cost of a batch
    /// does not grow with the number of threads. A writer passed with an index may belong to a
    /// thread that has ended.
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

    /// Takes the writer of a thread that has ended, after `drain` has applied its events. `None` if
    /// a thread uses the index.
    ///
    /// The caller holds the maintenance lock, and frees the writer once no pinned thread can see
    /// it.
    pub(crate) fn sweep(&self, index: usize, drain: impl FnOnce(&Writer)) -> Option<OldWriter> {
        // No thread gets the index until it is released. Acquire there: the events of the ended
        // thread are seen.
        if !claim_index(index) {
            return None;
        }
        let state = self.find(index);
        let swept = state.and_then(|state| {
            let writer = state.writer.load(Ordering::Acquire);
            let writer = NonNull::new(writer)?;
            // SAFETY: allocated in `make_writer`, and freed only by the owner of the returned
            // `OldWriter`.
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

    /// Passes the recycled memory of all threads to `take`.
    pub(super) fn drain_recycled(&mut self, mut take: impl FnMut(Handle)) {
        self.for_each_writer(|writer| {
            // SAFETY: `&mut self`: no thread uses its state any more.
            while let Some(recycled) = unsafe { writer.pop_recycled() } {
                take(recycled);
            }
        });
    }
}

/// Returns how many events may wait in all rings: an eighth of a small capacity, a 64th of a large
/// one.
fn slack(capacity: u64) -> u64 {
    (capacity / 8).clamp(8, SLACK.max(capacity / 64))
}

/// Returns what `pointer` points to, unless it is null.
#[inline(always)]
fn get<T>(pointer: &AtomicPtr<T>) -> Option<&T> {
    // SAFETY: set only by `get_or_make` or `Far::make`. Freed only when the states are dropped, or
    // by the thread that swept it, once no thread is pinned that could have loaded it. Acquire
    // pairs with the Release of the set.
    unsafe { pointer.load(Ordering::Acquire).as_ref() }
}

/// Returns what `pointer` points to, allocated with `new` if it is null; `None` if there is no
/// memory.
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
    // SAFETY: the block has the layout of a Box and its allocator, and is written before it is
    // used.
    let new = unsafe {
        let mut block = Box::from_raw(block.cast::<std::mem::MaybeUninit<T>>());
        block.write(new()?);
        Box::into_raw(block).cast::<T>()
    };
    // AcqRel, Acquire: what the pointer leads to is seen (see `get`).
    match pointer.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: set now, and freed as described in `get`.
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
        // SAFETY: set once, from a Box in `get_or_make`; `&mut`: no other reference is left.
        drop(unsafe { Box::from_raw(made) });
    }
}
