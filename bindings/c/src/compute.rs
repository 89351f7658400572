//! Atomic changes.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::change::{change, store_if};
use crate::ffi::{bytes, ffi_guard_slow, ffi_guard_write, result};
use crate::memory;
use crate::reply::{Answer, hotset_compute_fn, hotset_reply};
use crate::ttl::ttl;
use crate::types::{Status, hotset_slice, hotset_status, hotset_value};
use engine::Ttl;
use libc::c_void;
use std::ptr;

/// ----------------------------------------------------------------------------------------------
/// 4. Atomic changes
/// ----------------------------------------------------------------------------------------------
///
/// Replaces the entry of a key if its version is still `version`, which was read with
/// hotset_value_version.
///
/// @param ttl_ms As for hotset_put_ttl.
/// @return HOTSET_OK; HOTSET_CONFLICT if the entry is another; HOTSET_NOT_FOUND if the key is
/// absent or expired; HOTSET_TOO_LARGE, HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cas(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    version: u64,
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
        store_if(cache, key, value, ttl(ttl_ms), |current| match current {
            None => Err(hotset_status::HOTSET_NOT_FOUND.into()),
            Some(current) if current.version() != version => Err(hotset_status::HOTSET_CONFLICT.into()),
            Some(_) => Ok(()),
        })
    })
}

/// Adds `delta` to a counter: a value of 8 bytes, a signed little-endian number. An absent counter
/// begins at 0 and expires after `ttl_ms`; a present one keeps its deadline. The destructor is not
/// called for the values that it makes.
///
/// @param ttl_ms As for hotset_put_ttl, for a counter that was absent.
/// @param sum Becomes the new number. May be NULL.
/// @return HOTSET_OK; HOTSET_NOT_A_NUMBER if the value is not 8 bytes long; HOTSET_OVERFLOW if the
/// sum exceeds 64 bits; HOTSET_TOO_LARGE, HOTSET_NO_MEMORY. After a failure nothing has changed,
/// and `*sum` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_add(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    delta: i64,
    ttl_ms: u64,
    sum: *mut i64,
) -> Status {
    ffi_guard_write(|| {
        let mut ignored = 0;
        let sum = if sum.is_null() { &raw mut ignored } else { sum };
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe { (result(sum, 0)?, hotset_cache::get(cache)?, bytes(key, key_len)?) };
        let mut sum = 0;
        change(cache, key, |current| {
            let (before, ttl) = match current {
                None => (0, ttl(ttl_ms)),
                Some(blob) => {
                    let number = blob
                        .value()
                        .try_into()
                        .map_err(|_| hotset_status::HOTSET_NOT_A_NUMBER)?;
                    (i64::from_le_bytes(number), Ttl::Keep)
                }
            };
            memory::ready()?;
            sum = before.checked_add(delta).ok_or(hotset_status::HOTSET_OVERFLOW)?;
            Ok(Answer::Set(Blob::new(key, &sum.to_le_bytes(), None)?, ttl))
        })?;
        out.set(sum);
        Ok(())
    })
}

/// Replaces the entry of a key by what `fn` replies, atomically. See hotset_compute_fn.
///
/// `fn` runs under no lock, and runs again if another thread changed the key in between. So it
/// should be short and have no other effect. While it runs, the cache frees no memory. It may use
/// the cache, but must not change this key.
///
/// @param value Becomes a handle to the resulting entry, to be released, or NULL if there is none.
/// May be NULL.
/// @return HOTSET_OK; the status that `fn` returned, if not HOTSET_OK, and then nothing has
/// changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_compute(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    r#fn: hotset_compute_fn,
    arg: *mut c_void,
    value: *mut *mut hotset_value,
) -> Status {
    ffi_guard_slow(|| {
        let mut ignored = ptr::null_mut();
        let wanted = !value.is_null();
        let value = if wanted { value } else { &raw mut ignored };
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe {
            let out = result(value, ptr::null_mut())?;
            (out, hotset_cache::get(cache)?, bytes(key, key_len)?)
        };
        let call = r#fn.ok_or(hotset_status::HOTSET_INVALID)?;
        let mut after = None;
        change(cache, key, |current| {
            after = None;
            let slice = current.map(|blob| hotset_slice {
                data: blob.value().as_ptr().cast(),
                len: blob.value().len(),
            });
            let slice = slice.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: the user's function, with the promised arguments.
            let answer = hotset_reply::collect(cache, key, |reply| unsafe { call(arg, slice, reply) })?;
            if wanted {
                after = match &answer {
                    Answer::Keep => current.cloned(),
                    Answer::Remove => None,
                    Answer::Set(blob, _) => Some(blob.clone()),
                };
            }
            Ok(answer)
        })?;
        out.set(after.map_or(ptr::null_mut(), Blob::into_handle));
        Ok(())
    })
}
