//! Other ways to write.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::change::store_if;
use crate::ffi::{bytes, ffi_guard_write, result};
use crate::ttl::ttl;
use crate::types::{Status, hotset_status, hotset_value};
use engine::Ttl;
use libc::c_void;
use std::ptr;

/// ----------------------------------------------------------------------------------------------
/// 3. Other ways to write
/// ----------------------------------------------------------------------------------------------
///
/// Stores a value as hotset_put does, with a TTL of its own. A time to idle still applies.
///
/// @param ttl_ms Milliseconds, HOTSET_TTL_DEFAULT, HOTSET_TTL_NONE or HOTSET_TTL_KEEP.
/// @return As hotset_put.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_put_ttl(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    ttl_ms: u64,
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
        match ttl(ttl_ms) {
            Ttl::Default => cache.engine().insert(key, value),
            ttl => cache.engine().insert_with_ttl(key, value, ttl),
        }
        Ok(())
    })
}

/// Stores a value if the key is absent or expired. Otherwise `*existing` becomes a handle to the
/// current entry, to be released.
///
/// @param ttl_ms As for hotset_put_ttl.
/// @param existing May be NULL. Becomes NULL unless the call returns HOTSET_EXISTS.
/// @return HOTSET_OK if the value was stored; HOTSET_EXISTS if the key is present;
/// HOTSET_TOO_LARGE, HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_put_if_absent(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    ttl_ms: u64,
    existing: *mut *mut hotset_value,
) -> Status {
    ffi_guard_write(|| {
        let wanted = !existing.is_null();
        let mut ignored = ptr::null_mut();
        let existing = if wanted { existing } else { &raw mut ignored };
        // SAFETY: the header's rules for callers.
        let (out, cache, key, value) = unsafe {
            let out = result(existing, ptr::null_mut())?;
            (
                out,
                hotset_cache::get(cache)?,
                bytes(key, key_len)?,
                bytes(value, value_len)?,
            )
        };
        let mut there = None;
        let done = store_if(cache, key, value, ttl(ttl_ms), |current| {
            there = current.filter(|_| wanted).cloned();
            current.map_or(Ok(()), |_| Err(hotset_status::HOTSET_EXISTS.into()))
        });
        out.set(there.map_or(ptr::null_mut(), Blob::into_handle));
        done
    })
}

/// Removes a key. A load of it that is in progress is invalidated: its value is not stored.
///
/// @return HOTSET_OK if it was present; HOTSET_NOT_FOUND if it was absent or expired.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_remove(cache: *mut hotset_cache, key: *const c_void, key_len: usize) -> Status {
    ffi_guard_write(|| {
        // SAFETY: the header's rules for callers.
        let (cache, key) = unsafe { (hotset_cache::get(cache)?, bytes(key, key_len)?) };
        let removed = cache.engine().remove(key);
        removed.map(drop).ok_or(hotset_status::HOTSET_NOT_FOUND.into())
    })
}

/// Removes a key, and makes `*value` a handle to the removed entry, to be released. Of several
/// threads that take a key, one gets the entry.
///
/// @return As hotset_remove. After a failure `*value` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_take(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    value: *mut *mut hotset_value,
) -> Status {
    ffi_guard_write(|| {
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe {
            let out = result(value, ptr::null_mut())?;
            (out, hotset_cache::get(cache)?, bytes(key, key_len)?)
        };
        let removed = cache.engine().remove(key);
        out.set(removed.ok_or(hotset_status::HOTSET_NOT_FOUND)?.into_handle());
        Ok(())
    })
}
