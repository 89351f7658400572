//! What every call begins and ends with: arguments are checked, and a panic becomes a status.

use crate::thread::{CancelDisabled, Errno};
use crate::types::{Status, hotset_status};
use libc::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// Runs a read and turns how it ended into a status. A read reaches no cancellation point but in callbacks, and no system call
/// that sets `errno`, so this costs it nothing.
#[inline(always)]
pub(crate) fn ffi_guard(call: impl FnOnce() -> Result<(), Status>) -> Status {
    // The result becomes a status inside, which keeps the compiler from carrying both out.
    let status = catch_unwind(AssertUnwindSafe(|| match call() {
        Ok(()) => hotset_status::HOTSET_OK.into(),
        Err(status) => status,
    }));
    status.unwrap_or_else(|panic| caught(panic).into())
}

/// [`ffi_guard`] for a write, which may wait for another thread: it keeps `errno` if it succeeds.
#[inline(always)]
pub(crate) fn ffi_guard_write(call: impl FnOnce() -> Result<(), Status>) -> Status {
    // std waits by futex here, which is no cancellation point.
    if cfg!(any(target_os = "linux", target_os = "android")) {
        keep_errno(|| ffi_guard(call))
    } else {
        ffi_guard_slow(call)
    }
}

/// [`ffi_guard`] for a call that may reach cancellation points: it cannot be canceled, and keeps `errno` if it succeeds.
#[inline]
pub(crate) fn ffi_guard_slow(call: impl FnOnce() -> Result<(), Status>) -> Status {
    let _disabled = CancelDisabled::new();
    keep_errno(|| ffi_guard(call))
}

#[inline(always)]
fn keep_errno(call: impl FnOnce() -> Status) -> Status {
    let errno = Errno::now();
    let status = call();
    if status == hotset_status::HOTSET_OK.into() {
        errno.restore();
    }
    status
}

#[cold]
pub(crate) fn caught(panic: Box<dyn std::any::Any + Send>) -> hotset_status {
    // Not dropped: that might panic too.
    std::mem::forget(panic);
    hotset_status::HOTSET_PANIC
}

/// Bytes from C.
///
/// # Safety
/// If `data` is not NULL, so many bytes can be read there for `'a`.
#[inline(always)]
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8], Status> {
    if data.is_null() {
        return if len == 0 {
            Ok(&[])
        } else {
            Err(hotset_status::HOTSET_INVALID.into())
        };
    }
    if len > isize::MAX as usize {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    // SAFETY: the caller's promise, and no object is longer than that.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// Where a result goes. A pointer and no reference: the caller's memory may be read by its callbacks while the call runs.
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    #[inline(always)]
    pub(crate) fn set(&self, value: T) {
        // SAFETY: `result` was promised that it can be written as long as the call runs.
        unsafe { self.0.write(value) }
    }
}

/// Where a result goes: set to `nothing` until there is one.
///
/// # Safety
/// If `out` is not NULL, it can be written as long as the call runs.
#[inline(always)]
pub(crate) unsafe fn result<T: Copy>(out: *mut T, nothing: T) -> Result<Out<T>, Status> {
    if out.is_null() {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    let out = Out(out);
    out.set(nothing);
    Ok(out)
}
