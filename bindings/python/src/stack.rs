//! A check of the thread's stack, so that deep recursion raises a `RecursionError` and does not
//! crash.
//!
//! Python's limit counts calls, but the stack that a call takes depends on the functions in
//! between, and the stack's size on the thread. A cached function takes more stack than the
//! function alone. So calls of user functions compare the stack pointer with the stack's end, as
//! Python does from 3.14 on.

use crate::objects::Raised;
use pyo3::exceptions::PyRecursionError;
use std::cell::Cell;
use std::hint::black_box;

/// The stack that is reserved for what a user's function calls: the smaller of this and an eighth
/// of the stack.
#[cfg(all(target_os = "linux", not(Py_3_14)))]
const MARGIN: usize = 128 << 10;

/// The addresses of a thread's stack.
#[derive(Clone, Copy)]
struct Bounds {
    /// The lowest address at which a user's function may be called; `usize::MAX` while the bounds
    /// are unknown, 0 if they cannot be known.
    limit: usize,
    lowest: usize,
    highest: usize,
}

thread_local! {
    static BOUNDS: Cell<Bounds> = const {
        Cell::new(Bounds { limit: usize::MAX, lowest: 0, highest: 0 })
    };
}

/// Raises a `RecursionError` if the thread has too little stack left for a user's function.
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
    // Outside of the thread's own stack this is one that another library has made (of a greenlet,
    // say), whose bounds are unknown.
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
    // SAFETY: the first call initializes the attributes if it returns 0, and the last one destroys
    // them.
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
