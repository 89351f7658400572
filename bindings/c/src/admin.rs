//! Calls on the cache as a whole: statistics, capacity, clear.

use crate::cache::hotset_cache;
use crate::ffi::{ffi_guard, ffi_guard_slow, result};
use crate::memory;
use crate::types::{HOTSET_LOAD_BUCKETS, Status, hotset_load_bucket, hotset_stats_data, hotset_status};
use engine::LoadBuckets;
use std::ptr;

/// ----------------------------------------------------------------------------------------------
/// 7. The cache as a whole
/// ----------------------------------------------------------------------------------------------
///
/// Writes the statistics of a cache to `stats`.
///
/// @param size sizeof(hotset_stats_data). Fields that this version does not know become 0.
/// @return HOTSET_OK; HOTSET_INVALID, also for a size that is no multiple of 8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_stats(cache: *mut hotset_cache, stats: *mut hotset_stats_data, size: usize) -> Status {
    ffi_guard(|| {
        if stats.is_null() || size == 0 || !size.is_multiple_of(8) || size > 1 << 16 {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers: `size` bytes can be written.
        unsafe { ptr::write_bytes(stats.cast::<u8>(), 0, size) };
        // SAFETY: the header's rules for callers.
        let cache = unsafe { hotset_cache::get(cache) }?;
        let (engine, counts) = (cache.engine(), cache.engine().stats());
        let now = hotset_stats_data {
            hits: counts.hits,
            misses: counts.misses,
            insertions: counts.insertions,
            evictions: counts.evictions,
            expirations: counts.expirations,
            rejections: counts.rejections,
            loads: counts.loads,
            load_failures: counts.load_failures,
            waits: counts.waits,
            load_time_ns: u64::try_from(counts.load_time.as_nanos()).unwrap_or(u64::MAX),
            entries: engine.len() as u64,
            weight: engine.weight(),
            capacity: engine.capacity(),
            evicted_weight: counts.evicted_weight,
            load_buckets: load_buckets(&counts.load_buckets),
        };
        // SAFETY: the header's rules for callers: `size` bytes can be written.
        unsafe {
            let known = size.min(size_of::<hotset_stats_data>());
            ptr::copy_nonoverlapping(ptr::from_ref(&now).cast::<u8>(), stats.cast(), known);
        }
        Ok(())
    })
}

/// Returns the histogram as C has it.
fn load_buckets(loads: &LoadBuckets) -> [hotset_load_bucket; HOTSET_LOAD_BUCKETS] {
    let mut buckets = [hotset_load_bucket::default(); HOTSET_LOAD_BUCKETS];
    for (bucket, (bound, count)) in buckets.iter_mut().zip(loads.iter()) {
        let upper_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        *bucket = hotset_load_bucket { upper_ns, count };
    }
    buckets
}

/// Stores a number that `read` gets from the cache.
///
/// # Safety
/// As [`hotset_cache::get`]; `out` is NULL or can be written.
unsafe fn number(cache: *const hotset_cache, out: *mut u64, read: impl FnOnce(&hotset_cache) -> u64) -> Status {
    ffi_guard(|| {
        // SAFETY: the caller's promise.
        unsafe { result(out, 0)?.set(read(hotset_cache::get(cache)?)) };
        Ok(())
    })
}

/// Stores the number of entries, expired ones that have not been freed yet included. Exact while no
/// other call is in progress.
///
/// @return HOTSET_OK. After a failure `*entries` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_len(cache: *mut hotset_cache, entries: *mut u64) -> Status {
    // SAFETY: the header's rules for callers.
    unsafe { number(cache, entries, |cache| cache.engine().len() as u64) }
}

/// Stores the weight of all entries, in the unit of the capacity: bytes of real memory, or entries.
/// As of the last maintenance.
///
/// @return As hotset_len.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_weight(cache: *mut hotset_cache, weight: *mut u64) -> Status {
    // SAFETY: the header's rules for callers.
    unsafe { number(cache, weight, |cache| cache.engine().weight()) }
}

/// Stores the capacity: the bound on hotset_weight.
///
/// @return As hotset_len.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_capacity(cache: *mut hotset_cache, capacity: *mut u64) -> Status {
    // SAFETY: the header's rules for callers.
    unsafe { number(cache, capacity, |cache| cache.engine().capacity()) }
}

/// Runs a call on a cache that has no result.
///
/// # Safety
/// As [`hotset_cache::get`].
unsafe fn with_cache(cache: *const hotset_cache, call: impl FnOnce(&hotset_cache)) -> Status {
    ffi_guard_slow(|| {
        // These calls free memory, so they run also if the reserve cannot be refilled.
        _ = memory::ready();
        // SAFETY: the caller's promise.
        call(unsafe { hotset_cache::get(cache) }?);
        Ok(())
    })
}

/// Changes the capacity, in the unit with which the cache was opened. A smaller one evicts before
/// the call returns; 0 keeps nothing.
///
/// @return HOTSET_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_set_capacity(cache: *mut hotset_cache, capacity: u64) -> Status {
    // SAFETY: the header's rules for callers.
    unsafe { with_cache(cache, |cache| cache.engine().set_capacity(capacity)) }
}

/// Removes all entries, and invalidates loads in progress. Entries that other threads put
/// concurrently may stay.
///
/// @return HOTSET_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_clear(cache: *mut hotset_cache) -> Status {
    // SAFETY: the header's rules for callers.
    unsafe { with_cache(cache, |cache| cache.engine().clear()) }
}

/// Performs all maintenance that is due: afterwards the weight is within the capacity, and memory
/// that no handle holds has been freed. Never needed; useful in tests and while the program is
/// idle.
///
/// @return HOTSET_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_run_pending(cache: *mut hotset_cache) -> Status {
    // SAFETY: the header's rules for callers.
    unsafe { with_cache(cache, |cache| cache.engine().run_pending()) }
}
