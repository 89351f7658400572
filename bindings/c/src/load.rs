//! Loads of absent keys.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::ffi::{bytes, ffi_guard, result};
use crate::memory;
use crate::reply::{Answer, hotset_loader_fn, hotset_reply};
use crate::thread::{CancelDisabled, Errno};
use crate::types::{Status, hotset_status, hotset_value};
use engine::LoadError;
use libc::c_void;
use std::ptr;

/// ----------------------------------------------------------------------------------------------
/// 5. Loading what is missing
/// ----------------------------------------------------------------------------------------------
///
/// Stores a handle to the entry of a key in `*value`, as hotset_get does. If the key is absent or
/// expired, calls `fn` to load the value, and stores it in the cache. See hotset_loader_fn.
///
/// Concurrent calls for the same key wait for that load and get its result, a failure included.
/// Calls for other keys are not blocked. A failure is not cached: the next call loads again. If the
/// key is put, removed or computed during its load, the loaded value is returned but not stored.
/// `fn` runs on the caller's thread, under no lock, at most once per call. It may run for any
/// length of time, and use the cache.
///
/// @return HOTSET_OK; HOTSET_NOT_FOUND if the loader had no value; the status that the loader
/// returned, if not HOTSET_OK; HOTSET_REENTRANT if waiting would be a deadlock; HOTSET_TOO_LARGE,
/// HOTSET_NO_MEMORY. After a failure `*value` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_or_load(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    r#fn: hotset_loader_fn,
    arg: *mut c_void,
    value: *mut *mut hotset_value,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe {
            let out = result(value, ptr::null_mut())?;
            (out, hotset_cache::get(cache)?, bytes(key, key_len)?)
        };
        let call = r#fn.ok_or(hotset_status::HOTSET_INVALID)?;
        let load = || {
            let (at, len) = (key.as_ptr().cast(), key.len());
            // SAFETY: the user's function, with the promised arguments.
            match hotset_reply::collect(cache, key, |reply| unsafe { call(arg, at, len, reply) })? {
                Answer::Set(blob, ttl) => Ok((blob, ttl)),
                Answer::Keep | Answer::Remove => Err(hotset_status::HOTSET_NOT_FOUND.into()),
            }
        };
        // A miss may wait, and must not be canceled; a hit pays nothing for that.
        let mut missed = None;
        let make_key = || {
            missed = Some((CancelDisabled::new(), Errno::now()));
            memory::ready()?;
            Blob::new(key, &[], None)
        };
        let loaded = engine::raw::try_get_or_insert(cache.engine(), key, make_key, load, Blob::clone);
        let loaded = loaded.map_err(|error| match error {
            LoadError::Failed(status) => *status,
            LoadError::Reentrant => hotset_status::HOTSET_REENTRANT.into(),
            other => unreachable!("one key was requested: {other:?}"),
        })?;
        out.set(loaded.into_handle());
        if let Some((_, errno)) = missed {
            errno.restore();
        }
        Ok(())
    })
}
