//! The memory of a table's buckets: zeroed, aligned to cache lines, provided by the system when it
//! is first touched.
//!
//! std's allocator takes zeroed memory from `calloc` only for small alignments; for larger ones it
//! writes all of it. So [`Buckets`] requests a small alignment and aligns its start by hand. A
//! large empty table thus costs no time and no physical memory, and the page faults of filling it
//! are spread over the insertions.

use super::layout::SLOTS;
use crate::prim::sync::AtomicU64;
#[cfg(not(loom))]
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Deref;
#[cfg(not(loom))]
use std::ptr::NonNull;

/// Six slots, their tags, and the control word of the keys whose home bucket this is: one cache
/// line of 64 bytes.
#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) tags: AtomicU64,
    pub(super) slots: [AtomicU64; SLOTS],
    pub(super) control: AtomicU64,
}

impl Bucket {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            tags: AtomicU64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
            control: AtomicU64::new(0),
        }
    }

    /// Returns the slot that a match of tags, or a control word, names.
    #[inline(always)]
    pub(super) fn slot(&self, slot: usize) -> &AtomicU64 {
        debug_assert!(slot < SLOTS);
        // SAFETY: matches lie in the six lower bytes of a word of tags, and control words name
        // slots that were claimed.
        unsafe { self.slots.get_unchecked(slot) }
    }
}

/// Buckets that are zero at first, owned like a boxed slice.
#[cfg(not(loom))]
pub(super) struct Buckets {
    start: NonNull<Bucket>,
    len: usize,
    /// What the allocator returned: up to a cache line before `start`.
    block: NonNull<u8>,
}

#[cfg(loom)]
pub(super) struct Buckets(Box<[Bucket]>);

// SAFETY: it owns the buckets, which are made of atomics.
#[cfg(not(loom))]
unsafe impl Send for Buckets {}
// SAFETY: as above.
#[cfg(not(loom))]
unsafe impl Sync for Buckets {}

/// The alignment that is requested: std's allocators do not write zeroed memory for it.
#[cfg(not(loom))]
const REQUESTED: usize = 8;

#[cfg(not(loom))]
impl Buckets {
    /// Returns the layout of the block for `len` buckets, with room to align them, or `None` if it
    /// exceeds the address space.
    fn layout(len: usize) -> Option<Layout> {
        let size = len.checked_mul(size_of::<Bucket>())?;
        let slack = align_of::<Bucket>() - REQUESTED;
        Layout::from_size_align(size.checked_add(slack)?, REQUESTED).ok()
    }

    /// Returns `len` buckets, which must not be 0, or `None` if there is no memory for them.
    pub(super) fn zeroed(len: usize) -> Option<Self> {
        assert!(len > 0);
        let layout = Self::layout(len)?;
        // SAFETY: there are some buckets, so the size is not 0.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let align = align_of::<Bucket>();
        let offset = block.addr().get().next_multiple_of(align) - block.addr().get();
        debug_assert!(offset <= align - REQUESTED);
        // SAFETY: the allocator returns a multiple of `REQUESTED`, so the offset is at most the
        // slack of the layout.
        let start = unsafe { block.add(offset) }.cast::<Bucket>();
        let buckets = Self { start, len, block };
        buckets.prefer_huge_pages();
        Some(buckets)
    }
}

#[cfg(all(target_os = "linux", not(loom), not(miri)))]
impl Buckets {
    /// Requests huge pages: a lookup in a large table misses the TLB as surely as the cache.
    fn prefer_huge_pages(&self) {
        let start = self.start.addr().get().next_multiple_of(UNIT);
        let end = (self.start.addr().get() + self.len * size_of::<Bucket>()) / UNIT * UNIT;
        if end > start {
            // SAFETY: the range lies within the buckets, and the advice does not change them. A
            // failure is harmless.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
}

#[cfg(all(not(all(target_os = "linux", not(miri))), not(loom)))]
impl Buckets {
    fn prefer_huge_pages(&self) {}
}

#[cfg(not(loom))]
impl Deref for Buckets {
    type Target = [Bucket];

    #[inline(always)]
    fn deref(&self) -> &[Bucket] {
        // SAFETY: `zeroed` made room for `len` aligned buckets; all-zero bytes are valid buckets.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

#[cfg(not(loom))]
impl Drop for Buckets {
    fn drop(&mut self) {
        let layout = Self::layout(self.len).expect("it was allocated with this layout");
        // SAFETY: allocated by `zeroed` with this layout; buckets have no destructor.
        unsafe { dealloc(self.block.as_ptr(), layout) };
    }
}

#[cfg(loom)]
impl Buckets {
    pub(super) fn zeroed(len: usize) -> Option<Self> {
        Some(Self((0..len).map(|_| Bucket::new()).collect()))
    }
}

#[cfg(loom)]
impl Deref for Buckets {
    type Target = [Bucket];

    fn deref(&self) -> &[Bucket] {
        &self.0
    }
}

/// Size of a huge page. [`Buckets::release`] releases multiples of it, so that no huge page is
/// split.
#[cfg(all(target_os = "linux", not(loom), not(miri)))]
const UNIT: usize = 2 << 20;

impl Buckets {
    /// Returns up to `bytes` of the memory to the system, starting `from` bytes after its start;
    /// the contents are lost.
    ///
    /// Returns where the next call continues, or `None` if the rest is not worth a call of its own.
    #[cfg(all(target_os = "linux", not(loom), not(miri)))]
    pub(super) fn release(&mut self, from: usize, bytes: usize) -> Option<usize> {
        let start = self.start.addr().get();
        let end = (start + self.len * size_of::<Bucket>()) / UNIT * UNIT;
        let first = (start + from).next_multiple_of(UNIT);
        let last = first.saturating_add(bytes.next_multiple_of(UNIT)).min(end);
        if first >= last {
            return None;
        }
        let at = self.start.as_ptr().wrapping_byte_add(first - start);
        // SAFETY: the range lies within the buckets, to which this has exclusive access, and which
        // are valid when they are zero. A failure is harmless: the memory is returned when all of
        // it is freed.
        unsafe { libc::madvise(at.cast(), last - first, libc::MADV_DONTNEED) };
        (last < end).then_some(last - start)
    }

    /// Returns `None`: without a way to return parts of an allocation, all of it is freed in one
    /// step.
    #[cfg(any(not(target_os = "linux"), loom, miri))]
    pub(super) fn release(&mut self, _: usize, _: usize) -> Option<usize> {
        None
    }
}
