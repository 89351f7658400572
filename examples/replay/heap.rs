//! A global allocator that counts, for exact figures of what a cache allocates: requested sizes, not
//! what the system's allocator rounds them up to or keeps in reserve.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with counters of live bytes, their peak, and allocations.
pub(crate) struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

fn grew(bytes: usize) {
    CALLS.fetch_add(1, Relaxed);
    let live = LIVE.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    // The load spares the cache line a write on nearly every call: a new peak is rare.
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

// SAFETY: every method passes its arguments unchanged to `System`, which keeps the contract; the
// counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is also that of `System`.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            grew(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // Passed on, so that large zeroed tables still come straight from the kernel.
        // SAFETY: as in `alloc`.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            grew(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from this allocator, hence from `System`, with this layout.
        unsafe { System.dealloc(block, layout) };
        LIVE.fetch_sub(layout.size(), Relaxed);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`, and the caller vouches for `size`.
        let moved = unsafe { System.realloc(block, layout, size) };
        if !moved.is_null() {
            // `System` may hold the old and the new block at the same time; counting both would be
            // a guess.
            LIVE.fetch_sub(layout.size(), Relaxed);
            grew(size);
        }
        moved
    }
}

/// Returns the bytes that are allocated now.
pub(crate) fn live() -> usize {
    LIVE.load(Relaxed)
}

/// Returns the number of allocations and reallocations so far.
#[allow(dead_code)]
pub(crate) fn calls() -> u64 {
    CALLS.load(Relaxed)
}

/// Starts a measurement: resets the peak, and returns the baseline for [`peak_above`].
pub(crate) fn baseline() -> usize {
    let live = live();
    PEAK.store(live, Relaxed);
    live
}

/// Returns the most bytes allocated at the same time since [`baseline`], above `baseline`.
pub(crate) fn peak_above(baseline: usize) -> usize {
    PEAK.load(Relaxed).saturating_sub(baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_includes_freed_blocks() {
        // Other tests allocate and start measurements of their own concurrently: one of a few
        // attempts is undisturbed.
        assert!((0..20).any(|_| {
            let base = baseline();
            drop(std::hint::black_box(vec![1u8; 16 << 20]));
            (8 << 20..64 << 20).contains(&peak_above(base))
        }));
    }
}
