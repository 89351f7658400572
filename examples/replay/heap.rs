//! A global allocator that counts, so that the memory printed is what the cache really took.
//!
//! Resident memory would include the trace itself and whatever the allocator keeps back; the sum of live
//! allocations above a baseline is the cache's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator with two counters in front.
pub(crate) struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grew(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    // The load spares the cache line a write on nearly every call: a peak is rare.
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

// SAFETY: every method passes its arguments unchanged to `System`, which keeps the contract; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is the one `System` asks for.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            grew(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`. Passed on so that large zeroed tables still come straight from the kernel.
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
            // Old and new may exist together for a moment; a peak of their sum would be a guess about `System`.
            LIVE.fetch_sub(layout.size(), Relaxed);
            grew(size);
        }
        moved
    }
}

/// Starts a measurement: forgets the earlier peak and returns the baseline to hand to [`peak_above`].
pub(crate) fn baseline() -> usize {
    let live = LIVE.load(Relaxed);
    PEAK.store(live, Relaxed);
    live
}

/// The most bytes alive at once since [`baseline`], above it.
pub(crate) fn peak_above(baseline: usize) -> usize {
    PEAK.load(Relaxed).saturating_sub(baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_block_stays_in_the_peak() {
        // Other tests allocate and start measurements of their own meanwhile: one of a few attempts goes undisturbed.
        assert!((0..20).any(|_| {
            let base = baseline();
            drop(std::hint::black_box(vec![1u8; 16 << 20]));
            (8 << 20..64 << 20).contains(&peak_above(base))
        }));
    }
}
