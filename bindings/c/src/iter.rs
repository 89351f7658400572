//! Iteration over all entries.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::ffi::{ffi_guard_write, result};
use crate::memory::{self, try_box};
use crate::types::{Status, hotset_status, hotset_value};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Iteration in progress. One thread at a time may use it.
pub struct hotset_iter {
    /// Valid as long as the engine: `hotset_close` refuses while there is an iterator. The call
    /// that set `busy` uses it.
    entries: UnsafeCell<engine::Iter<'static, Blob, Blob, engine::DefaultHasher>>,
    cache: *const hotset_cache,
    /// A step performs maintenance, too, so it may call back; and a callback may use the iterator.
    busy: AtomicBool,
}

/// Reserves an iterator for one call.
struct IterLock<'i>(&'i hotset_iter);

impl<'i> IterLock<'i> {
    fn new(iter: &'i hotset_iter) -> Result<Self, Status> {
        // Acquire pairs with the Release in `drop` of the previous lock, on any thread.
        if iter.busy.swap(true, Ordering::Acquire) {
            return Err(hotset_status::HOTSET_REENTRANT.into());
        }
        Ok(Self(iter))
    }
}

impl Drop for IterLock<'_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `new` of the next lock.
        self.0.busy.store(false, Ordering::Release);
    }
}

/// ----------------------------------------------------------------------------------------------
/// 6. All entries
/// ----------------------------------------------------------------------------------------------
///
/// Begins an iteration over all entries, in no useful order. Close it with hotset_iter_close before
/// the cache is closed.
///
/// An entry that is present during the whole iteration is visited exactly once; one that is
/// inserted or removed during it may be visited or not. The iteration blocks no other call, counts
/// no hits, and the cache may be changed during it.
///
/// @return HOTSET_OK; HOTSET_NO_MEMORY. After a failure `*iter` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_iter_open(cache: *mut hotset_cache, iter: *mut *mut hotset_iter) -> Status {
    ffi_guard_write(|| {
        // SAFETY: the header's rules for callers.
        let (out, cache) = unsafe { (result(iter, ptr::null_mut())?, hotset_cache::get(cache)?) };
        memory::ready()?;
        let iter = try_box(hotset_iter {
            entries: UnsafeCell::new(cache.engine().iter()),
            cache,
            busy: AtomicBool::new(false),
        })?;
        // Release pairs with the Acquire in `close`.
        cache.iterators.fetch_add(1, Ordering::Release);
        out.set(Box::into_raw(iter));
        Ok(())
    })
}

/// Stores a handle to the next entry in `*value`, to be released. One thread at a time may use an
/// iterator.
///
/// @return HOTSET_OK; HOTSET_NOT_FOUND at the end, and from then on; HOTSET_REENTRANT in a callback
/// of a step of this iterator; HOTSET_NO_MEMORY, after which it may be called again;
/// HOTSET_FORKED. After a failure `*value` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_iter_next(iter: *mut hotset_iter, value: *mut *mut hotset_value) -> Status {
    ffi_guard_write(|| {
        // SAFETY: the header's rules for callers; the cache is open while the iterator is.
        let (out, iter) = unsafe {
            let out = result(value, ptr::null_mut())?;
            let iter = iter.as_ref().ok_or(hotset_status::HOTSET_INVALID)?;
            hotset_cache::get(iter.cache)?;
            (out, iter)
        };
        let lock = IterLock::new(iter)?;
        memory::ready()?;
        // SAFETY: this call has the lock, so no other call uses it.
        let next = unsafe { &mut *lock.0.entries.get() }.next();
        let (_, entry) = next.ok_or(hotset_status::HOTSET_NOT_FOUND)?;
        out.set(entry.into_handle());
        Ok(())
    })
}

/// Ends an iteration, at its end or before. Handles that it returned stay valid. May also be called
/// after a fork.
///
/// @return HOTSET_OK; HOTSET_INVALID for NULL; HOTSET_REENTRANT in a callback of a step of this
/// iterator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_iter_close(iter: *mut hotset_iter) -> Status {
    ffi_guard_write(|| {
        // SAFETY: the header's rules for callers.
        let open = unsafe { iter.as_ref() }.ok_or(hotset_status::HOTSET_INVALID)?;
        let cache = open.cache;
        // It stays locked: dropping its entries may call back, too, and its memory is freed after
        // them.
        std::mem::forget(IterLock::new(open)?);
        // SAFETY: it came from `hotset_iter_open`, no other call uses it, and this is its last use.
        drop(unsafe { Box::from_raw(iter) });
        // SAFETY: a cache is not closed while it has iterators. Release pairs with the Acquire in
        // `close`.
        unsafe { (*cache).iterators.fetch_sub(1, Ordering::Release) };
        Ok(())
    })
}
