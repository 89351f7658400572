//! Allocations that return `None` without memory, where std has no stable call that does not abort
//! the process.

use std::alloc::{Layout, alloc, alloc_zeroed};
use std::ptr::NonNull;

/// Types that are valid as all-zero bytes, and need no drop.
///
/// # Safety
///
/// All-zero bytes are a valid value.
pub(crate) unsafe trait Zero: Copy {}

// SAFETY: zero is a number.
unsafe impl Zero for u64 {}
// SAFETY: four zeros.
unsafe impl Zero for [u32; 4] {}

/// Returns `len` zeros, or `None` if there is no memory. The operating system provides large
/// allocations on first touch.
pub(crate) fn zeroed<T: Zero>(len: usize) -> Option<Vec<T>> {
    let layout = Layout::array::<T>(len).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    #[cfg(test)]
    if refusal::is_refused(layout.size()) {
        return None;
    }
    // SAFETY: the size is not 0.
    let start = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<T>())?;
    // SAFETY: allocated just now by the global allocator with the layout of `len` elements, which
    // are valid as zeros.
    Some(unsafe { Vec::from_raw_parts(start.as_ptr(), len, len) })
}

/// Returns `value` in a box, or `None` if there is no memory.
pub(crate) fn boxed<T>(value: T) -> Option<Box<T>> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Some(Box::new(value));
    }
    // SAFETY: the size is not 0.
    let start = NonNull::new(unsafe { alloc(layout) }.cast::<T>())?;
    // SAFETY: allocated just now by the global allocator with the layout of `T`; written before it
    // is a box.
    unsafe {
        start.write(value);
        Some(Box::from_raw(start.as_ptr()))
    }
}

#[cfg(test)]
pub(crate) mod refusal {
    use std::cell::Cell;

    thread_local! {
        static MOST: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn is_refused(bytes: usize) -> bool {
        bytes > MOST.get()
    }

    /// Calls `run`, in which this thread gets no [`zeroed`](super::zeroed) memory of more than
    /// `most` bytes.
    pub(crate) fn with_most<T>(most: usize, run: impl FnOnce() -> T) -> T {
        let before = MOST.replace(most);
        let result = run();
        MOST.set(before);
        result
    }
}
