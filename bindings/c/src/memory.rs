//! Memory that may be refused, and a reserve for allocations that must not fail.
//!
//! A refusal of an entry's memory is returned as a status ([`try_alloc`]). Beside it the engine and
//! std make small allocations (a node, a list that grows, an `Arc`) in the middle of a call, where
//! a refusal ends the process. Such an allocation is served from a reserve when `malloc` refuses
//! it, and returns there when it is freed. A call that takes memory first refills the reserve, and
//! returns HOTSET_NO_MEMORY, with nothing changed, where that fails. So the reserve is for the
//! calls in progress: the process is aborted only if these need more than it has, or more in one
//! piece.

use crate::thread::Errno;
use crate::types::{Status, hotset_status};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// The blocks of the reserve: how many of which size. Pages that are never touched are not
/// resident.
const BLOCKS: [(usize, usize); 4] = [(32, 128), (16, 512), (8, 4096), (2, 16384)];
const COUNT: usize = {
    let (mut count, mut at) = (0, 0);
    while at < BLOCKS.len() {
        count += BLOCKS[at].0;
        at += 1;
    }
    count
};
/// The largest alignment of a block.
const ALIGN: usize = 128;

/// Blocks of `malloc`, in the order of [`BLOCKS`], or null. Each is taken by a swap, so a fork
/// leaves no lock locked.
static RESERVE: [AtomicPtr<u8>; COUNT] = [const { AtomicPtr::new(ptr::null_mut()) }; COUNT];
/// The blocks that were taken and not freed, each in its place.
static LENT: [AtomicPtr<u8>; COUNT] = [const { AtomicPtr::new(ptr::null_mut()) }; COUNT];
/// Their number: while it is 0, freed memory is not compared with them.
static LENT_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Whether blocks are missing.
static SHORT: AtomicBool = AtomicBool::new(true);

/// The size of each block.
fn sizes() -> impl Iterator<Item = usize> {
    BLOCKS
        .into_iter()
        .flat_map(|(count, size)| std::iter::repeat_n(size, count))
}

fn block_layout(size: usize) -> Layout {
    Layout::from_size_align(size, ALIGN).expect("both are powers of two")
}

/// Puts a block in its place, unless another thread has filled it.
fn put_back(place: &AtomicPtr<u8>, size: usize, memory: *mut u8) {
    // Release pairs with the Acquire in `lend`, which hands the block to another thread; Acquire
    // with the Release of another `put_back`, whose block is freed here.
    let other = place.swap(memory, Ordering::AcqRel);
    if !other.is_null() {
        // SAFETY: a block of the same size, which no thread has any more.
        unsafe { System.dealloc(other, block_layout(size)) };
    }
}

/// Ensures that the reserve is full, before a call that takes memory.
#[inline(always)]
pub(crate) fn ready() -> Result<(), Status> {
    if SHORT.load(Ordering::Relaxed) {
        refill()
    } else {
        Ok(())
    }
}

#[cold]
#[inline(never)]
fn refill() -> Result<(), Status> {
    // Before the blocks are read: a thread that takes one from now on sets it again. This store and
    // the loads below are SeqCst, like the swap and the store of `lend`, in the opposite order: if
    // this store replaces that of `lend`, the load of the block finds it taken.
    SHORT.store(false, Ordering::SeqCst);
    for (block, size) in RESERVE.iter().zip(sizes()) {
        if !block.load(Ordering::SeqCst).is_null() {
            continue;
        }
        // SAFETY: the size is not 0.
        let memory = unsafe { System.alloc(block_layout(size)) };
        if memory.is_null() {
            SHORT.store(true, Ordering::SeqCst);
            return Err(hotset_status::HOTSET_NO_MEMORY.into());
        }
        put_back(block, size, memory);
    }
    Ok(())
}

/// A block of the reserve; null if there is none that fits.
#[cold]
#[inline(never)]
fn lend(layout: Layout) -> *mut u8 {
    if layout.align() > ALIGN {
        return ptr::null_mut();
    }
    let places = RESERVE.iter().zip(&LENT).zip(sizes());
    for ((block, lent), _) in places.filter(|(_, size)| *size >= layout.size()) {
        // Acquire pairs with the Release in `put_back`: the previous use of the block has ended.
        // SeqCst, with the store below, pairs with the store and the loads of `refill`.
        let memory = block.swap(ptr::null_mut(), Ordering::SeqCst);
        if memory.is_null() {
            continue;
        }
        // After the block is taken. SeqCst: see the swap.
        SHORT.store(true, Ordering::SeqCst);
        // Counted first, so that the count is never less than the number of lent blocks.
        LENT_COUNT.fetch_add(1, Ordering::Relaxed);
        // A block that was lent from this place before is an ordinary allocation from now on.
        // AcqRel pairs with the exchange in `take_back`.
        if !lent.swap(memory, Ordering::AcqRel).is_null() {
            LENT_COUNT.fetch_sub(1, Ordering::Relaxed);
        }
        return memory;
    }
    ptr::null_mut()
}

/// Takes a block back, if the memory is one; no thread uses it any more.
#[cold]
#[inline(never)]
fn take_back(memory: *mut u8) -> bool {
    for ((block, lent), size) in RESERVE.iter().zip(&LENT).zip(sizes()) {
        // AcqRel pairs with the swap in `lend`.
        let exchanged = lent.compare_exchange(memory, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
        if exchanged.is_ok() {
            LENT_COUNT.fetch_sub(1, Ordering::Relaxed);
            put_back(block, size, memory);
            return true;
        }
    }
    false
}

/// In the child of a fork: blocks that were lent to the parent's threads are ordinary memory, since
/// the threads may have been about to count them.
pub(crate) fn fork_child() {
    LENT.iter()
        .for_each(|lent| lent.store(ptr::null_mut(), Ordering::Relaxed));
    LENT_COUNT.store(0, Ordering::Relaxed);
    SHORT.store(true, Ordering::Relaxed);
}

/// Whether freed memory may be a block. Relaxed: the thread that frees a block is ordered after the
/// one that borrowed it.
#[inline(always)]
fn any_lent() -> bool {
    LENT_COUNT.load(Ordering::Relaxed) != 0
}

/// The system's allocator, with the reserve behind it. It leaves `errno` unchanged: `malloc` may
/// set it also where it succeeds, as glibc's does when it cannot extend the heap and maps memory
/// instead. (`free` may not, by POSIX.1-2024.)
struct Reserving;

#[global_allocator]
static ALLOCATOR: Reserving = Reserving;

impl Reserving {
    #[inline]
    fn alloc_by(&self, layout: Layout, alloc: impl FnOnce() -> *mut u8) -> *mut u8 {
        let errno = Errno::now();
        let memory = alloc();
        errno.restore();
        if memory.is_null() { lend(layout) } else { memory }
    }
}

// SAFETY: memory is the system allocator's, also that of the reserve, and freed and grown by it: on
// all supported systems by `free` and `realloc`, with any size and alignment.
unsafe impl GlobalAlloc for Reserving {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.alloc_by(layout, || unsafe { System.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let mut zeroed = true;
        let memory = self.alloc_by(layout, || {
            // SAFETY: the caller's promise.
            let memory = unsafe { System.alloc_zeroed(layout) };
            zeroed = !memory.is_null();
            memory
        });
        if !zeroed && !memory.is_null() {
            // SAFETY: it has the layout's size.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // A block must not be moved by `realloc`, which would free it.
        if !any_lent() {
            let errno = Errno::now();
            // SAFETY: the caller's promise.
            let grown = unsafe { System.realloc(memory, layout, size) };
            errno.restore();
            if !grown.is_null() {
                return grown;
            }
        }
        // SAFETY: the caller's promise: the new layout is valid, and the old memory has the old
        // one.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(memory, new, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            new
        }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if any_lent() && take_back(memory) {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Allocates without recourse to the reserve. Freed by `std::alloc::dealloc`.
#[inline]
pub(crate) fn try_alloc(layout: Layout) -> Result<NonNull<u8>, Status> {
    debug_assert!(layout.size() != 0);
    let errno = Errno::now();
    // SAFETY: the size is not 0.
    let memory = unsafe { System.alloc(layout) };
    errno.restore();
    NonNull::new(memory).ok_or(hotset_status::HOTSET_NO_MEMORY.into())
}

/// `Box::new` that may be refused memory.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, Status> {
    const { assert!(size_of::<T>() != 0) };
    let at = try_alloc(Layout::new::<T>())?.cast::<T>();
    // SAFETY: new memory with `T`'s layout, which the global allocator frees.
    unsafe {
        at.write(value);
        Ok(Box::from_raw(at.as_ptr()))
    }
}
