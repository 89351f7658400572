//! The guard of every call: it checks arguments, and turns a panic into a status.

use crate::thread::{CancelDisabled, Errno};
use crate::types::{Status, hotset_status};
use libc::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// Runs a read and returns its status. A read reaches no cancellation point outside of callbacks,
/// and no system call that sets `errno`, so it needs no protection from either.
#[inline(always)]
pub(crate) fn ffi_guard(call: impl FnOnce() -> Result<(), Status>) -> Status {
    // The result is converted inside, so that the compiler does not move both result and status
    // out.
    let status = catch_unwind(AssertUnwindSafe(|| match call() {
        Ok(()) => hotset_status::HOTSET_OK.into(),
        Err(status) => status,
    }));
    status.unwrap_or_else(|panic| caught(panic).into())
}

/// [`ffi_guard`] for a write, which may wait for another thread: it keeps `errno` if it succeeds.
#[inline(always)]
pub(crate) fn ffi_guard_write(call: impl FnOnce() -> Result<(), Status>) -> Status {
    // std waits by futex on these systems, which is not a cancellation point.
    if cfg!(any(target_os = "linux", target_os = "android")) {
        keep_errno(|| ffi_guard(call))
    } else {
        ffi_guard_slow(call)
    }
}

/// [`ffi_guard`] for a call that may reach cancellation points: it cannot be canceled, and keeps
/// `errno` if it succeeds.
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
    // Not dropped: its drop might panic, too.
    std::mem::forget(panic);
    hotset_status::HOTSET_PANIC
}

/// Bytes from C.
///
/// # Safety
/// If `data` is not NULL, `len` bytes can be read there for `'a`.
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
    // SAFETY: the caller's promise; the length was checked.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// The destination of a result. A pointer, not a reference: callbacks may read the caller's memory
/// while the call runs.
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    #[inline(always)]
    pub(crate) fn set(&self, value: T) {
        // SAFETY: the caller of `result` promised that it can be written while the call runs.
        unsafe { self.0.write(value) }
    }
}

/// The destination of a result, set to `nothing` until there is one.
///
/// # Safety
/// If `out` is not NULL, it can be written while the call runs.
#[inline(always)]
pub(crate) unsafe fn result<T: Copy>(out: *mut T, nothing: T) -> Result<Out<T>, Status> {
    if out.is_null() {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    let out = Out(out);
    out.set(nothing);
    Ok(out)
}
