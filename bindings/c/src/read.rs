//! Other ways to read.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::ffi::{bytes, ffi_guard, result};
use crate::ttl::HOTSET_TTL_NONE;
use crate::types::{Status, hotset_bytes, hotset_slice, hotset_status, hotset_value};
use libc::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::slice;

/// Reads a handle that stays the caller's.
///
/// # Safety
/// The handle is NULL or valid.
unsafe fn borrowed<R>(value: *const hotset_value, read: impl FnOnce(&Blob) -> R) -> Result<R, Status> {
    // SAFETY: the caller's promise; the reference is not released.
    let blob = unsafe { Blob::from_handle(value.cast_mut()) }.map(ManuallyDrop::new);
    Ok(read(&*blob.ok_or(hotset_status::HOTSET_INVALID)?))
}

/// Stores the address and the length of a handle's key or value.
///
/// # Safety
/// The handle is NULL or valid; so are the other two.
pub(crate) unsafe fn part(
    value: *const hotset_value,
    data: *mut *const c_void,
    len: *mut usize,
    which: fn(&Blob) -> &[u8],
) -> Result<(), Status> {
    // SAFETY: the caller's promise.
    let (data, len) = unsafe { (result(data, ptr::null()), result(len, 0)) };
    let (data, len) = (data?, len?);
    // SAFETY: the caller's promise.
    let (at, size) = unsafe { borrowed(value, |blob| (which(blob).as_ptr().cast(), which(blob).len())) }?;
    data.set(at);
    len.set(size);
    Ok(())
}

/// ----------------------------------------------------------------------------------------------
/// 2. Other ways to read
/// ----------------------------------------------------------------------------------------------
///
/// Stores a value's bytes, and the handle to release, in `*value`: hotset_get and hotset_value_data
/// in one call. The fastest way to read.
///
/// @return As hotset_get. After a failure all fields are 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_bytes(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    value: *mut hotset_bytes,
) -> Status {
    ffi_guard(|| {
        let nothing = hotset_bytes {
            data: ptr::null(),
            len: 0,
            handle: ptr::null_mut(),
        };
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe { (result(value, nothing)?, hotset_cache::get(cache)?, bytes(key, key_len)?) };
        let found = cache.engine().get_with(key, Blob::clone);
        let found = found.ok_or(hotset_status::HOTSET_NOT_FOUND)?;
        out.set(hotset_bytes {
            data: found.value().as_ptr().cast(),
            len: found.value().len(),
            handle: found.into_handle(),
        });
        Ok(())
    })
}

/// Copies a value into `buffer`, so there is no handle to release. For small values.
///
/// @param buffer May be NULL if `capacity` is 0.
/// @param len Becomes the value's length, also if the buffer is too small.
/// @return HOTSET_OK; HOTSET_BUFFER_TOO_SMALL, with nothing copied; HOTSET_NOT_FOUND. After other
/// failures `*len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_copy(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    buffer: *mut c_void,
    capacity: usize,
    len: *mut usize,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe {
            let out = result(len, 0)?;
            if buffer.is_null() && capacity != 0 || capacity > isize::MAX as usize {
                return Err(hotset_status::HOTSET_INVALID.into());
            }
            (out, hotset_cache::get(cache)?, bytes(key, key_len)?)
        };
        let fits = cache.engine().get_with(key, move |blob| {
            let value = blob.value();
            out.set(value.len());
            let fits = value.len() <= capacity;
            if fits && !value.is_empty() {
                // SAFETY: the caller's buffer has `capacity` bytes, and is not part of the cache's
                // memory.
                unsafe { ptr::copy_nonoverlapping(value.as_ptr(), buffer.cast(), value.len()) };
            }
            fits
        });
        match fits {
            Some(true) => Ok(()),
            Some(false) => Err(hotset_status::HOTSET_BUFFER_TOO_SMALL.into()),
            None => Err(hotset_status::HOTSET_NOT_FOUND.into()),
        }
    })
}

/// Looks up `n` keys. `values[i]` becomes a handle to the entry of `keys[i]`, to be released, or
/// NULL if it is absent or expired. Faster than n calls of hotset_get where the cache is larger
/// than the processor's: the memory accesses overlap.
///
/// @param found Becomes the number of handles. May be NULL.
/// @return HOTSET_OK, however many keys were found. After a failure there are no handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_many(
    cache: *mut hotset_cache,
    keys: *const hotset_slice,
    n: usize,
    values: *mut *mut hotset_value,
    found: *mut usize,
) -> Status {
    ffi_guard(|| {
        let mut ignored = 0;
        let found = if found.is_null() { &raw mut ignored } else { found };
        // SAFETY: the header's rules for callers.
        let found = unsafe { result(found, 0) }?;
        if n > isize::MAX as usize / size_of::<hotset_slice>() {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        if n == 0 {
            // SAFETY: the header's rules for callers.
            return unsafe { hotset_cache::get(cache) }.map(|_| ());
        }
        if values.is_null() {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers.
        unsafe { ptr::write_bytes(values, 0, n) };
        if keys.is_null() {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers.
        let (keys, cache) = unsafe { (slice::from_raw_parts(keys, n), hotset_cache::get(cache)?) };
        // SAFETY: the header's rules for callers; all are checked before the first handle is made.
        let key = |slice: &hotset_slice| unsafe { bytes(slice.data, slice.len) };
        keys.iter().try_for_each(|slice| key(slice).map(|_| ()))?;
        let keys = keys.iter().map(|slice| key(slice).unwrap_or_default());
        let (mut next, mut count) = (values, 0);
        engine::raw::get_each(cache.engine(), keys, |blob: Option<&Blob>| {
            count += usize::from(blob.is_some());
            // SAFETY: it is called once for each of the n keys, in their order.
            unsafe {
                next.write(blob.map_or(ptr::null_mut(), |blob| blob.clone().into_handle()));
                next = next.add(1);
            }
        });
        found.set(count);
        Ok(())
    })
}

/// Checks whether a key is in the cache. Counts neither as a hit nor as a miss, and does not
/// influence eviction.
///
/// @return HOTSET_OK if it is; HOTSET_NOT_FOUND if it is absent or expired.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_contains(cache: *mut hotset_cache, key: *const c_void, key_len: usize) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (cache, key) = unsafe { (hotset_cache::get(cache)?, bytes(key, key_len)?) };
        let found = cache.engine().contains_key(key);
        found.then_some(()).ok_or(hotset_status::HOTSET_NOT_FOUND.into())
    })
}

/// Stores the milliseconds until the entry of a key expires if it is not used again, rounded up;
/// HOTSET_TTL_NONE if it never expires.
///
/// @return HOTSET_OK; HOTSET_NOT_FOUND if the key is absent or expired. After a failure `*ms` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_remaining(
    cache: *mut hotset_cache,
    key: *const c_void,
    key_len: usize,
    ms: *mut u64,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (out, cache, key) = unsafe { (result(ms, 0)?, hotset_cache::get(cache)?, bytes(key, key_len)?) };
        let left = cache.engine().remaining(key).ok_or(hotset_status::HOTSET_NOT_FOUND)?;
        out.set(left.map_or(HOTSET_TTL_NONE, |left| {
            u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(HOTSET_TTL_NONE)
        }));
        Ok(())
    })
}

/// Stores the address and the length of a handle's key, as hotset_value_data does for the value.
/// The bytes are not aligned.
///
/// May also be called after hotset_close and after a fork.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_value_key(
    value: *const hotset_value,
    data: *mut *const c_void,
    len: *mut usize,
) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard(|| unsafe { part(value, data, len, Blob::key) })
}

/// Stores the version of a handle's entry, for hotset_cas: a number that no other entry of this
/// process has. Versions have no order.
///
/// May also be called after hotset_close and after a fork.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_value_version(value: *const hotset_value, version: *mut u64) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        unsafe { result(version, 0)?.set(borrowed(value, Blob::version)?) };
        Ok(())
    })
}

/// Makes one more handle of a handle. It is the same pointer, and must be released once more.
///
/// May also be called after hotset_close and after a fork.
///
/// @return HOTSET_OK; HOTSET_INVALID; HOTSET_OVERFLOW for more than 2^31 handles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_retain(value: *mut hotset_value) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let share = unsafe { borrowed(value, Blob::share) }?;
        share.ok_or(hotset_status::HOTSET_OVERFLOW)?.into_handle();
        Ok(())
    })
}
