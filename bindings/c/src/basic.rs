//! The calls that most programs need.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::ffi::{bytes, ffi_guard, ffi_guard_slow, ffi_guard_write, result};
use crate::types::{Status, hotset_options, hotset_status, hotset_value};
use libc::c_void;
use std::ptr;

/// ---------------------------------------------------------------------------------------------------------------------
/// 1. What most programs need: open, put, get, release, close
/// ---------------------------------------------------------------------------------------------------------------------
///
/// Fills the options with the defaults; `size` is sizeof(hotset_options).
///
/// Returns HOTSET_OK, or HOTSET_INVALID for NULL or a size that no version of the options has. Any thread may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_options_init(options: *mut hotset_options, size: usize) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard(|| unsafe { hotset_options::init(options, size) })
}

/// Opens a cache; NULL for the options stands for the defaults (64 MiB, W-TinyLFU, no times). It is yours, to be closed by
/// hotset_close; all threads share it.
///
/// Returns HOTSET_OK; HOTSET_INVALID (`*cache` is then NULL, as after all failures) if options do not go together: both
/// max_entries and max_bytes, a jitter outside of 0 to below 1, an unknown policy, a size that hotset_options_init did not
/// set; HOTSET_IO if there was no thread for the ticker (errno says why); HOTSET_NO_MEMORY, HOTSET_PANIC. Any thread may
/// call it, callbacks included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_open(options: *const hotset_options, cache: *mut *mut hotset_cache) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (out, options) = unsafe { (result(cache, ptr::null_mut())?, hotset_options::read(options)?) };
        out.set(Box::into_raw(options.open()?));
        Ok(())
    })
}

/// Puts a value under a key, in the place of whatever is there; key and value are copied. A key may be empty (NULL and 0), and
/// so may a value.
///
/// The entry can be read at once, unless the policy does not admit it, or it is larger than the whole cache. Who holds a handle to
/// the former entry keeps that. A load of the key that is going on will not come into the cache.
///
/// Returns HOTSET_OK, HOTSET_INVALID, HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may
/// call it, callbacks included. With a destructor in the options: the value belongs to the library if it returns HOTSET_OK, and
/// to the caller otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_put(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> Status {
    ffi_guard_write(|| {
        // SAFETY: the header's rules for callers.
        let (cache, key, value) = unsafe {
            (
                hotset_cache::get(cache)?,
                bytes(key, key_len)?,
                bytes(value, value_len)?,
            )
        };
        let blob = cache.blob(key, value)?;
        blob.arm(true);
        let (key, value) = blob.into_entry();
        cache.engine().insert(key, value);
        Ok(())
    })
}

/// Gets the entry of a key, as a handle that is yours until hotset_release: nothing is copied.
///
/// Returns HOTSET_OK; HOTSET_NOT_FOUND (`*value` is then NULL, as after all failures); HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED,
/// HOTSET_PANIC. Any thread may call it, callbacks included; it never waits for a lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    value: *mut *mut hotset_value,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe {
            let out = result(value, ptr::null_mut())?;
            (out, hotset_cache::get(cache)?, bytes(key, key_len)?)
        };
        let found = cache.engine().get_with(key, Blob::clone);
        out.set(found.ok_or(hotset_status::HOTSET_NOT_FOUND)?.into_handle());
        Ok(())
    })
}

/// The bytes of a value. They stay valid, and as they are, until the handle is released. Aligned to 8, so that they can be read
/// in place as pointers, 64-bit numbers and structs of such.
///
/// Returns HOTSET_OK, HOTSET_INVALID. Any thread may call it, callbacks included, also after hotset_close and after a fork.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_value_data(
    value: *const hotset_value,
    data: *mut *const c_void,
    len: *mut usize,
) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard(|| unsafe { crate::read::part(value, data, len, Blob::value) })
}

/// Gives a handle back. Its bytes must not be read any more through it.
///
/// Returns HOTSET_OK, or HOTSET_INVALID for NULL; HOTSET_PANIC. Any thread may call it, callbacks included, also after hotset_close
/// and after a fork. Runs the destructor, if this was the last handle of an entry that has left the cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_release(value: *mut hotset_value) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers: the handle is valid, and this is the last use of it.
        drop(unsafe { Blob::from_handle(value) }.ok_or(hotset_status::HOTSET_INVALID)?);
        Ok(())
    })
}

/// Closes a cache and frees its entries. Handles stay valid until they are released. No other call on the cache may be going on
/// or come later.
///
/// Joins the ticker, and frees every entry that no handle holds: once it has returned, no thread of the library's runs for this
/// cache, no removal callback, and the destructor only for entries that handles hold. Returns HOTSET_OK; HOTSET_BUSY while iterators are open, HOTSET_REENTRANT in a callback of this cache, HOTSET_FORKED in a
/// child (the cache is unchanged by all three); HOTSET_INVALID for NULL; HOTSET_PANIC.
///
/// A call on a closed cache is a mistake that the library tells (HOTSET_CLOSED) for the 1,024 caches that the process closed
/// last; beyond those it is as undefined as any use of freed memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_close(cache: *mut hotset_cache) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard_slow(|| unsafe { hotset_cache::close(cache) })
}
