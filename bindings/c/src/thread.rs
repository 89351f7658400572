//! State of a thread that a call restores: whether it can be canceled, and `errno`.
//!
//! A canceled thread unwinds from a cancellation point (`open`, `fsync` and most calls that may
//! block), which Rust frames do not survive. So cancellation is disabled wherever a call may reach
//! one: in calls that use files, start or join threads or wait
//! ([`ffi_guard_slow`](crate::ffi::ffi_guard_slow)), and in every callback
//! ([`callback::within`](crate::callback::within)). Reads reach none outside of callbacks, and pay
//! nothing. Waiting for a lock is no cancellation point where std waits by futex; elsewhere writes
//! are slow calls in this respect.

use libc::c_int;

/// Disables cancellation of the calling thread until it is dropped.
pub(crate) struct CancelDisabled {
    #[cfg(not(any(target_os = "android", miri)))]
    before: c_int,
}

// (Android has no cancellation. Miri does not know it.)
#[cfg(not(any(target_os = "android", miri)))]
impl CancelDisabled {
    #[inline]
    pub(crate) fn new() -> Self {
        const DISABLE: c_int = if cfg!(target_vendor = "apple") { 0 } else { 1 };
        let mut before = DISABLE;
        // SAFETY: `before` can be written. It fails for no valid state.
        unsafe { pthread_setcancelstate(DISABLE, &mut before) };
        Self { before }
    }
}

#[cfg(not(any(target_os = "android", miri)))]
impl Drop for CancelDisabled {
    #[inline]
    fn drop(&mut self) {
        let mut ignored = self.before;
        // SAFETY: the state is what the thread had. No cancellation point: a request is acted upon
        // at the next one.
        unsafe { pthread_setcancelstate(self.before, &mut ignored) };
    }
}

#[cfg(not(any(target_os = "android", miri)))]
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// Ends the calling thread if a request to cancel it is pending. For the first line of a call that
/// is declared `extern "C-unwind"`: its frame has nothing to drop then, so the unwinding of the
/// thread may pass it.
#[inline(always)]
pub(crate) fn cancellation_point() {
    #[cfg(not(any(target_os = "android", miri)))]
    {
        unsafe extern "C-unwind" {
            fn pthread_testcancel();
        }
        // SAFETY: no frame between here and the C caller has anything to drop.
        unsafe { pthread_testcancel() };
    }
}

#[cfg(any(target_os = "android", miri))]
impl CancelDisabled {
    pub(crate) fn new() -> Self {
        Self {}
    }
}

/// The calling thread's `errno` at one instant.
#[derive(Clone, Copy)]
pub(crate) struct Errno(c_int);

impl Errno {
    #[inline]
    pub(crate) fn now() -> Self {
        // SAFETY: the thread's own.
        Self(unsafe { *location() })
    }

    pub(crate) fn of(code: c_int) -> Self {
        Self(code)
    }

    /// Sets it again.
    #[inline]
    pub(crate) fn restore(self) {
        // SAFETY: the thread's own.
        unsafe { *location() = self.0 }
    }
}

#[inline]
fn location() -> *mut c_int {
    // SAFETY: it takes nothing, and returns a pointer to what is the thread's own.
    unsafe {
        #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
        return libc::__error();
        #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
        return libc::__errno();
        #[cfg(not(any(
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "android",
            target_os = "netbsd",
            target_os = "openbsd"
        )))]
        return libc::__errno_location();
    }
}
