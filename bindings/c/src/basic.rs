//! The calls that most programs need.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::ffi::{bytes, ffi_guard, ffi_guard_slow, ffi_guard_write, result};
use crate::memory;
use crate::types::{Status, hotset_options, hotset_status, hotset_value};
use libc::c_void;
use std::ptr;

/// The most bytes of a key, and of a value, that are copied while the cache frees no memory.
const SMALL: usize = 4 << 10;

/// ----------------------------------------------------------------------------------------------
/// 1. What most programs need: open, put, get, release, close
/// ----------------------------------------------------------------------------------------------
///
/// Writes the default options to `options`.
///
/// @param size sizeof(hotset_options).
/// @return HOTSET_OK; HOTSET_INVALID for NULL, or for a size that no version of the options has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_options_init(options: *mut hotset_options, size: usize) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard(|| unsafe { hotset_options::init(options, size) })
}

/// Opens a cache and stores it in `*cache`. All threads share it. Close it with hotset_close.
///
/// @param options NULL for the defaults: 64 MiB, W-TinyLFU, no expiration.
/// @return HOTSET_OK; HOTSET_INVALID, also for both max_entries and max_bytes, a jitter outside of
/// 0 to below 1, an unknown policy, or a size that hotset_options_init did not set; HOTSET_IO, with
/// errno, if the operating system refused the ticker's thread; HOTSET_NO_MEMORY. After a failure
/// `*cache` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_open(options: *const hotset_options, cache: *mut *mut hotset_cache) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (out, options) = unsafe { (result(cache, ptr::null_mut())?, hotset_options::read(options)?) };
        out.set(Box::into_raw(options.open()?));
        Ok(())
    })
}

/// Stores a copy of a value under a key, and replaces the entry of the key if there is one. A key
/// may be empty (NULL and 0), and so may a value.
///
/// The entry can be read immediately, unless the policy does not admit it, or it is larger than the
/// whole cache. Handles to the previous entry stay valid. A load of the key that is in progress is
/// invalidated: its value is not stored.
///
/// @return HOTSET_OK; HOTSET_TOO_LARGE, HOTSET_NO_MEMORY.
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
        let make = || {
            let blob = cache.blob(key, value)?;
            blob.arm(true);
            Ok(blob.into_entry())
        };
        if key.len().max(value.len()) > SMALL {
            let (key, value) = make()?;
            cache.engine().insert(key, value);
            return Ok(());
        }
        memory::ready()?;
        engine::raw::insert(cache.engine(), key, engine::Ttl::Default, make)
    })
}

/// Stores a handle to the entry of a key in `*value`. Nothing is copied. Release it with
/// hotset_release. Never waits for a lock.
///
/// @return HOTSET_OK; HOTSET_NOT_FOUND if the key is absent or expired. After a failure `*value` is
/// NULL.
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

/// Stores the address and the length of a handle's value. The bytes stay valid and unchanged until
/// the handle is released. They are aligned to 8, so they can be read in place as pointers, 64-bit
/// numbers and structs of such.
///
/// May also be called after hotset_close and after a fork.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_value_data(
    value: *const hotset_value,
    data: *mut *const c_void,
    len: *mut usize,
) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard(|| unsafe { crate::read::part(value, data, len, Blob::value) })
}

/// Releases a handle. Its bytes must not be read through it any more. Runs the destructor if this
/// was the last handle of an entry that has left the cache.
///
/// May also be called after hotset_close and after a fork.
///
/// @return HOTSET_OK; HOTSET_INVALID for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_release(value: *mut hotset_value) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers: the handle is valid, and this is the last use of
        // it.
        drop(unsafe { Blob::from_handle(value) }.ok_or(hotset_status::HOTSET_INVALID)?);
        Ok(())
    })
}

/// Closes a cache and frees its entries. Handles stay valid until they are released. It must be the
/// last call on the cache, and no other call on it may be in progress.
///
/// Frees every entry that no handle holds. After it has returned, no thread
/// of the library runs for this cache, no removal callback is called, and the destructor is called
/// only for entries that handles hold.
///
/// A later call on the cache is a mistake, which returns HOTSET_CLOSED for the 1,024 caches that
/// the process closed last. For older ones it is a use of freed memory.
///
/// @return HOTSET_OK; HOTSET_BUSY while iterators are open, HOTSET_REENTRANT in a callback of this
/// cache, HOTSET_FORKED in a child (after these three the cache is unchanged).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_close(cache: *mut hotset_cache) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard_slow(|| unsafe { hotset_cache::close(cache) })
}
