//! Changes that depend on what is there, and loads.

use crate::blob::Blob;
use crate::ffi::{bytes, ffi_guard, ffi_guard_slow, ffi_guard_write, hotset_cache, result};
use crate::memory;
use crate::reply::{Answer, hotset_reply};
use crate::thread::{CancelDisabled, Errno};
use crate::types::{Status, hotset_compute_fn, hotset_loader_fn, hotset_slice, hotset_status, hotset_value};
use crate::write::ttl;
use engine::{Change, LoadError, Ttl};
use libc::c_void;
use std::ptr;

/// Does with an entry what `decide` answers in the end; if that is a status, nothing is changed.
fn change(
    cache: &hotset_cache,
    key: &[u8],
    mut decide: impl FnMut(Option<&Blob>) -> Result<Answer, Status>,
) -> Result<(), Status> {
    let mut outcome = Ok(());
    cache.engine().change(key, |current| {
        let answer = decide(current);
        outcome = answer.as_ref().map(|_| ()).map_err(|status| *status);
        match answer {
            Err(_) | Ok(Answer::Keep) => Change::Keep,
            Ok(Answer::Remove) => Change::Remove,
            Ok(Answer::Set(blob, ttl)) => {
                let (key, value) = blob.into_entry();
                Change::Set(key, value, ttl)
            }
        }
    });
    outcome
}

/// Sets the value if `allowed` does not object to what is there. The value stays the caller's if it is not set.
pub(crate) fn store_if(
    cache: &hotset_cache,
    key: &[u8],
    value: &[u8],
    ttl: Ttl,
    mut allowed: impl FnMut(Option<&Blob>) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut made: Option<Blob> = None;
    let done = change(cache, key, |current| {
        allowed(current)?;
        let blob = match &made {
            Some(made) => made,
            None => made.insert(cache.blob(key, value)?),
        };
        blob.arm(true);
        Ok(Answer::Set(blob.clone(), ttl))
    });
    if let (Err(_), Some(made)) = (done, &made) {
        made.arm(false);
    }
    done
}

/// ---------------------------------------------------------------------------------------------------------------------
/// 4. Atomic changes
/// ---------------------------------------------------------------------------------------------------------------------
///
/// Replaces the entry of a key if it still is the one whose version you read with hotset_value_version.
///
/// Returns HOTSET_OK; HOTSET_CONFLICT if it is another, HOTSET_NOT_FOUND if there is none; HOTSET_INVALID, HOTSET_TOO_LARGE,
/// HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included. With a destructor in the
/// options: the value belongs to the library if it returns HOTSET_OK, and to the caller otherwise.
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

/// Adds to a counter: a value of 8 bytes, a signed little-endian number. An absent one begins at 0, and lives for ttl_ms; one that
/// is there keeps its end. `*sum` becomes what is there afterwards; `sum` may be NULL.
///
/// Returns HOTSET_OK; HOTSET_NOT_A_NUMBER if the value is not 8 bytes long, HOTSET_OVERFLOW if the sum does not fit; HOTSET_INVALID,
/// HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. After a failure nothing has changed, and `*sum` is 0.
/// Any thread may call it, callbacks included. The destructor is not called for the values that it makes.
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

/// Replaces the entry of a key by what `fn` answers, atomically: see hotset_compute_fn. `*value` becomes a handle to what is there
/// afterwards, to be released, or NULL if nothing is; `value` may be NULL.
///
/// `fn` runs under no lock, and runs again if another thread changed the key meanwhile: so it should be short and have no other
/// effect. (While it runs, the cache frees no memory.) It may use the cache, but must not change this key.
///
/// Returns HOTSET_OK; the status that `fn` returned, if not HOTSET_OK, and then nothing has changed; HOTSET_INVALID, HOTSET_CLOSED,
/// HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
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
            // SAFETY: the user's function, with what it was promised.
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

/// ---------------------------------------------------------------------------------------------------------------------
/// 5. Loading what is missing
/// ---------------------------------------------------------------------------------------------------------------------
///
/// Gets the entry of a key as hotset_get does; if it is missing, has `fn` load it, and puts what that answers: see hotset_loader_fn.
///
/// While one caller loads, others that ask for the same key wait for it and get what it got, a failure included; calls for
/// other keys go on. A failure is not kept: the next caller loads again. If the key is put, removed or computed while it is
/// being loaded, the loaded value is returned but does not come into the cache. `fn` runs on the caller's thread, under no lock,
/// at most once in a call; it may take its time, and use the cache.
///
/// Returns HOTSET_OK; HOTSET_NOT_FOUND if the loader had no value; the status that the loader returned, if not HOTSET_OK;
/// HOTSET_REENTRANT if waiting would never end; HOTSET_INVALID, HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED,
/// HOTSET_PANIC. After all but HOTSET_OK, `*value` is NULL. Any thread may call it, callbacks included.
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
            // SAFETY: the user's function, with what it was promised.
            match hotset_reply::collect(cache, key, |reply| unsafe { call(arg, at, len, reply) })? {
                Answer::Set(blob, ttl) => Ok((blob, ttl)),
                Answer::Keep | Answer::Remove => Err(hotset_status::HOTSET_NOT_FOUND.into()),
            }
        };
        // What begins with a miss may wait, and must not be canceled; a hit pays for nothing of it.
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
