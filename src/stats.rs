//! Counters that cost a hit no shared line.

use crate::prim::sync::{AtomicPtr, AtomicU64, Ordering};
use std::ptr;
use std::time::Duration;

/// Why an entry left the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Its time was over.
    Expired,
    /// It was evicted, or never admitted, to keep the cache within its capacity.
    Size,
    /// It was removed by `remove`, `remove_if`, `compute` or `clear`.
    Explicit,
    /// Another value was inserted for its key.
    Replaced,
}

/// What happened in a cache since it was built. Counts may lag behind other threads' calls that are still going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries that came in, replacements included.
    pub insertions: u64,
    /// Entries that had been admitted and left to make room.
    pub evictions: u64,
    /// Entries that left because their time was over.
    pub expirations: u64,
    /// New entries that were not admitted: lost against a resident entry, or heavier than the whole capacity.
    pub rejections: u64,
    /// Loaders that returned a value.
    pub loads: u64,
    /// Loaders that failed or panicked.
    pub load_failures: u64,
    /// The time spent in loaders.
    pub load_time: Duration,
}

impl Stats {
    /// The share of lookups that were hits, from 0 to 1; 0 if there were none.
    pub fn hit_ratio(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 { 0.0 } else { self.hits as f64 / lookups as f64 }
    }
}

/// A thread's own line.
#[derive(Default)]
#[repr(align(64))]
struct Line {
    hits: AtomicU64,
    misses: AtomicU64,
}

const LINES: usize = 4;
const GROUPS: usize = 16;

/// Hits and misses, counted on a line per thread. Up to `LINES * GROUPS` threads at a time have lines of their own; the
/// others share one.
pub(crate) struct Lookups {
    groups: [AtomicPtr<[Line; LINES]>; GROUPS],
    shared: [AtomicU64; 2],
}

impl Lookups {
    pub(crate) fn new() -> Self {
        Self {
            groups: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            shared: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// Counts `count` lookups by the thread with this index, which no other living thread has.
    #[inline]
    pub(crate) fn count(&self, thread: usize, hit: bool, count: u64) {
        let Some(group) = self.groups.get(thread / LINES) else {
            self.shared[hit as usize].fetch_add(count, Ordering::Relaxed);
            return;
        };
        // Acquire pairs with the Release in `make`: the zeros are seen.
        let mut lines = group.load(Ordering::Acquire);
        if lines.is_null() {
            lines = Self::make(group);
        }
        // SAFETY: once set, a group stays until the counters are dropped.
        let line = unsafe { &(&*lines)[thread % LINES] };
        let counter = if hit { &line.hits } else { &line.misses };
        // Only this thread writes the counter, so no read-modify-write is needed.
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    #[cold]
    fn make(group: &AtomicPtr<[Line; LINES]>) -> *mut [Line; LINES] {
        let new = Box::into_raw(Box::<[Line; LINES]>::default());
        match group.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            Err(first) => {
                // SAFETY: `new` was not shared.
                drop(unsafe { Box::from_raw(new) });
                first
            }
        }
    }

    /// All hits and misses.
    pub(crate) fn sum(&self) -> (u64, u64) {
        let mut sum = (self.shared[1].load(Ordering::Relaxed), self.shared[0].load(Ordering::Relaxed));
        for group in &self.groups {
            let lines = group.load(Ordering::Acquire);
            if !lines.is_null() {
                // SAFETY: once set, a group stays until the counters are dropped.
                for line in unsafe { &*lines } {
                    sum.0 += line.hits.load(Ordering::Relaxed);
                    sum.1 += line.misses.load(Ordering::Relaxed);
                }
            }
        }
        sum
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        for group in &mut self.groups {
            let lines = group.load(Ordering::Relaxed);
            if !lines.is_null() {
                // SAFETY: made from a Box in `make`; nobody counts any more.
                drop(unsafe { Box::from_raw(lines) });
            }
        }
    }
}
