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
        if lookups == 0 {
            0.0
        } else {
            self.hits as f64 / lookups as f64
        }
    }
}

/// A thread's own line.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Line {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Threads that find their line with one look.
const NEAR: usize = 8;
/// Threads that have a line of their own at all.
const FAR: usize = 128;

/// Hits and misses, counted on a line per thread, made when first needed. Up to `FAR` threads at a time have lines of
/// their own; the others share one.
pub(crate) struct Lookups {
    near: [AtomicPtr<Line>; NEAR],
    far: AtomicPtr<[Line; FAR - NEAR]>,
    shared: Line,
}

impl Lookups {
    pub(crate) fn new() -> Self {
        Self {
            near: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            far: AtomicPtr::new(ptr::null_mut()),
            shared: Line::default(),
        }
    }

    /// The line of the thread with this index, which no other living thread has, if it is found with one look.
    #[inline(always)]
    pub(crate) fn near(&self, thread: usize) -> Option<&Line> {
        get(self.near.get(thread)?)
    }

    /// Counts a lookup by the thread with this index.
    #[inline(always)]
    pub(crate) fn count(&self, thread: usize, hit: bool) {
        match self.near(thread) {
            Some(line) => line.count(hit),
            None => self.count_slow(thread, hit),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_slow(&self, thread: usize, hit: bool) {
        if let Some(line) = self.near.get(thread) {
            made(line).count(hit);
        } else if thread < FAR {
            made(&self.far)[thread - NEAR].count(hit);
        } else {
            let counter = if hit { &self.shared.hits } else { &self.shared.misses };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All hits and misses.
    pub(crate) fn sum(&self) -> (u64, u64) {
        let near = self.near.iter().filter_map(get);
        let far = get(&self.far).into_iter().flatten();
        near.chain(far)
            .chain([&self.shared])
            .fold((0, 0), |(hits, misses), line| {
                (
                    hits + line.hits.load(Ordering::Relaxed),
                    misses + line.misses.load(Ordering::Relaxed),
                )
            })
    }
}

impl Line {
    /// For the line's one thread: no read-modify-write is needed.
    #[inline(always)]
    pub(crate) fn count(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// What `pointer` points to, if it was made.
#[inline(always)]
fn get<T>(pointer: &AtomicPtr<T>) -> Option<&T> {
    // SAFETY: set only by `made`, and freed only when the counters are dropped. Acquire pairs with the Release there.
    unsafe { pointer.load(Ordering::Acquire).as_ref() }
}

/// What `pointer` points to, made if need be.
fn made<T>(pointer: &AtomicPtr<T>) -> &T
where
    Box<T>: Zeroed,
{
    if let Some(made) = get(pointer) {
        return made;
    }
    let new = Box::into_raw(Box::<T>::zeroed());
    match pointer.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: set now, and freed only when the counters are dropped.
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

trait Zeroed {
    fn zeroed() -> Self;
}

impl Zeroed for Box<Line> {
    fn zeroed() -> Self {
        Box::default()
    }
}

impl Zeroed for Box<[Line; FAR - NEAR]> {
    fn zeroed() -> Self {
        Box::new(std::array::from_fn(|_| Line::default()))
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        for line in &mut self.near {
            free(line);
        }
        free(&mut self.far);
    }
}

fn free<T>(pointer: &mut AtomicPtr<T>) {
    let made = pointer.load(Ordering::Relaxed);
    if !made.is_null() {
        // SAFETY: made from a Box in `made`; `&mut`: nobody counts any more.
        drop(unsafe { Box::from_raw(made) });
    }
}
