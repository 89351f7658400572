//! The caches that are calling back on this thread: closing one of them would wait for this thread
//! itself.

use crate::thread::{CancelDisabled, Errno};
use libc::c_void;
use std::cell::Cell;
use std::ptr;

struct Frame {
    cache: u64,
    around: *const Frame,
}

thread_local!(static INNERMOST: Cell<*const Frame> = const { Cell::new(ptr::null()) });

/// Runs user code that this cache calls. Cancellation is disabled: it would unwind the frames of
/// the call.
#[inline]
pub(crate) fn within<R>(cache: u64, call: impl FnOnce() -> R) -> R {
    let frame = Frame {
        cache,
        around: INNERMOST.get(),
    };
    INNERMOST.set(&frame);
    let _disabled = CancelDisabled::new();
    // C code does not unwind: an exception that leaves a callback ends the process.
    let result = call();
    INNERMOST.set(frame.around);
    result
}

/// [`within`], for user code that must not change the `errno` of the call's caller.
#[inline]
pub(crate) fn notify(cache: u64, call: impl FnOnce()) {
    let errno = Errno::now();
    within(cache, call);
    errno.restore();
}

/// Whether this thread is in user code that this cache called.
pub(crate) fn is_within(cache: u64) -> bool {
    let mut at = INNERMOST.get();
    // SAFETY: a frame lies on this thread's stack, further up, until `within` takes it off the
    // list.
    while let Some(frame) = unsafe { at.as_ref() } {
        if frame.cache == cache {
            return true;
        }
        at = frame.around;
    }
    false
}

/// A function of the user, and its argument.
pub(crate) struct UserCallback<F>(F, *mut c_void);

// SAFETY: the header states that any thread calls it.
unsafe impl<F: Send> Send for UserCallback<F> {}
// SAFETY: the header states that several threads call it concurrently.
unsafe impl<F: Sync> Sync for UserCallback<F> {}

impl<F: Copy> UserCallback<F> {
    pub(crate) fn new(call: Option<F>, arg: *mut c_void) -> Option<Self> {
        call.map(|call| Self(call, arg))
    }

    pub(crate) fn parts(&self) -> (F, *mut c_void) {
        (self.0, self.1)
    }
}
