//! The end of a thread's stack, before which recursion is a `RecursionError`.
//!
//! Python's limits count calls: how much stack a call takes is up to the functions in between, and how much there is, to the thread. A
//! function under a cache takes more of it than one without, so calls of user functions look at the stack itself, as Python
//! does from 3.14 on.

use crate::objects::Raised;
use pyo3::exceptions::PyRecursionError;
use std::cell::Cell;
use std::hint::black_box;

/// How much of a thread's stack is left for what a user's function calls: the smaller of this, and an eighth of the stack.
#[cfg(all(target_os = "linux", not(Py_3_14)))]
const MARGIN: usize = 128 << 10;

/// The stack of a thread, as addresses.
#[derive(Clone, Copy)]
struct Bounds {
    /// The lowest one at which a user's function may be called; `usize::MAX` while the others are not known, 0 if they cannot be.
    limit: usize,
    lowest: usize,
    highest: usize,
}

thread_local! {
    static BOUNDS: Cell<Bounds> = const {
        Cell::new(Bounds { limit: usize::MAX, lowest: 0, highest: 0 })
    };
}

/// Raises a `RecursionError` if the thread has hardly any stack left.
#[inline(always)]
pub(crate) fn check() -> Result<(), Raised> {
    let here = 0_u8;
    let here = black_box(&raw const here).addr();
    if here >= BOUNDS.get().limit {
        Ok(())
    } else {
        check_slow(here)
    }
}

#[cold]
#[inline(never)]
fn check_slow(here: usize) -> Result<(), Raised> {
    let mut bounds = BOUNDS.get();
    if bounds.limit == usize::MAX {
        bounds = bounds_of_thread();
        BOUNDS.set(bounds);
    }
    // (Outside of the thread's own stack it is one of another library's making, of which nothing is known.)
    if here >= bounds.limit || !(bounds.lowest..bounds.highest).contains(&here) {
        return Ok(());
    }
    let text = "maximum recursion depth exceeded: the thread's stack is used up";
    Err(crate::ffi::raise(PyRecursionError::new_err(text)))
}

const UNKNOWN: Bounds = Bounds {
    limit: 0,
    lowest: 0,
    highest: 0,
};

#[cfg(all(target_os = "linux", not(Py_3_14)))]
fn bounds_of_thread() -> Bounds {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the first call initializes the attributes if it returns 0, and the last one destroys them.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return UNKNOWN;
        }
        libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
    let lowest = lowest.addr();
    Bounds {
        limit: lowest + MARGIN.min(size / 8),
        lowest,
        highest: lowest + size,
    }
}

#[cfg(not(all(target_os = "linux", not(Py_3_14))))]
fn bounds_of_thread() -> Bounds {
    UNKNOWN
}
