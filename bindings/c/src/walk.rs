//! Going through all entries.

use crate::blob::Blob;
use crate::border::{Seeded, border, hotset_cache, result};
use crate::types::{Status, hotset_status, hotset_value};
use std::ptr;
use std::sync::atomic::Ordering;

/// An iteration that is going on. One thread at a time may use it.
pub struct hotset_iter {
    /// For as long as the engine: `hotset_close` refuses while there is an iterator.
    entries: engine::Iter<'static, Blob, Blob, Seeded>,
    cache: *const hotset_cache,
}

/// ---------------------------------------------------------------------------------------------------------------------
/// 6. All entries
/// ---------------------------------------------------------------------------------------------------------------------
///
/// Begins an iteration over all entries, in no useful order; it is yours until hotset_iter_close, which must come before
/// hotset_close.
///
/// An entry that is there all the time comes exactly once; one that comes or goes meanwhile may come or not. Nobody is held up,
/// nothing counts as a hit, and the cache may be changed meanwhile.
///
/// Returns HOTSET_OK; HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC, with NULL. Any thread may call it, callbacks included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_iter_open(cache: *mut hotset_cache, iter: *mut *mut hotset_iter) -> Status {
    border(|| {
        // SAFETY: the header's rules for callers.
        let (out, cache) = unsafe { (result(iter, ptr::null_mut())?, hotset_cache::get(cache)?) };
        let iter = Box::new(hotset_iter {
            entries: cache.engine().iter(),
            cache,
        });
        // Release pairs with the Acquire in `close`.
        cache.iterators.fetch_add(1, Ordering::Release);
        *out = Box::into_raw(iter);
        Ok(())
    })
}

/// The next entry, as a handle to be released. One thread at a time may use an iterator.
///
/// Returns HOTSET_OK; HOTSET_NOT_FOUND at the end, and from then on; HOTSET_INVALID, HOTSET_FORKED, HOTSET_PANIC. After all but HOTSET_OK,
/// `*value` is NULL. Callbacks may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_iter_next(iter: *mut hotset_iter, value: *mut *mut hotset_value) -> Status {
    border(|| {
        // SAFETY: the header's rules for callers; the cache is open while the iterator is.
        let (out, iter) = unsafe {
            let out = result(value, ptr::null_mut())?;
            let iter = iter.as_mut().ok_or(hotset_status::HOTSET_INVALID)?;
            hotset_cache::get(iter.cache)?;
            (out, iter)
        };
        let (_, entry) = iter.entries.next().ok_or(hotset_status::HOTSET_NOT_FOUND)?;
        *out = entry.into_handle();
        Ok(())
    })
}

/// Ends an iteration, at its end or before. Handles that it gave stay valid.
///
/// Returns HOTSET_OK, or HOTSET_INVALID for NULL; HOTSET_PANIC. Any thread may call it, callbacks included, also after a fork.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_iter_close(iter: *mut hotset_iter) -> Status {
    border(|| {
        if iter.is_null() {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers: it came from `hotset_iter_open`, and this is the last use of it.
        let hotset_iter { entries, cache } = *unsafe { Box::from_raw(iter) };
        drop(entries);
        // SAFETY: a cache is not closed while it has iterators. Release pairs with the Acquire in `close`.
        unsafe { (*cache).iterators.fetch_sub(1, Ordering::Release) };
        Ok(())
    })
}
