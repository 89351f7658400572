//! The advice of a profiled cache: how large it should be.

use crate::cache::hotset_cache;
use crate::ffi::ffi_guard_slow;
use crate::memory;
use crate::types::{
    HOTSET_ADVICE_POINTS, HOTSET_ADVICE_TEXT, Status, hotset_advice, hotset_advice_point, hotset_doubt, hotset_status,
};
use engine::{Advice, Doubt};
use libc::c_char;
use std::ptr;

/// Writes the hit ratio that a profiled cache would have at other sizes to `advice`, and what to do
/// about it.
///
/// The cache must have been opened with the option `profile`. It simulates itself at a quarter,
/// half, 1, 2, 4 and 8 times its capacity, with its own policy, over a sample of its keys.
/// hotset_set_capacity begins a new simulation. Takes some milliseconds.
///
/// @param size sizeof(hotset_advice). Fields that this version does not know become 0.
/// @return HOTSET_OK; HOTSET_INVALID if the cache is not profiled, if its capacity is 0 or above
/// 2^28 entries, and for a size that is no multiple of 8; HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_advise(cache: *mut hotset_cache, advice: *mut hotset_advice, size: usize) -> Status {
    ffi_guard_slow(|| {
        memory::ready()?;
        if advice.is_null() || size == 0 || !size.is_multiple_of(8) || size > 1 << 16 {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers: `size` bytes can be written.
        unsafe { ptr::write_bytes(advice.cast::<u8>(), 0, size) };
        // SAFETY: the header's rules for callers.
        let cache = unsafe { hotset_cache::get(cache) }?;
        let found = cache.engine().advise().map_err(|_| hotset_status::HOTSET_INVALID)?;
        let known = size.min(size_of::<hotset_advice>());
        // SAFETY: the header's rules for callers: `size` bytes can be written.
        unsafe { ptr::copy_nonoverlapping(ptr::from_ref(&of(&found)).cast::<u8>(), advice.cast(), known) };
        Ok(())
    })
}

/// Returns the advice as C has it.
fn of(advice: &Advice) -> hotset_advice {
    let mut points = [hotset_advice_point::default(); HOTSET_ADVICE_POINTS];
    for (point, from) in points.iter_mut().zip(&advice.points) {
        *point = hotset_advice_point {
            factor: from.factor,
            capacity: from.capacity,
            hit_ratio: from.hit_ratio,
            bytes: from.bytes,
        };
    }
    let mut text = [0; HOTSET_ADVICE_TEXT];
    // The last byte stays 0. The sentence is ASCII, so it can be cut anywhere.
    for (to, byte) in text[..HOTSET_ADVICE_TEXT - 1]
        .iter_mut()
        .zip(advice.to_string().bytes())
    {
        *to = byte as c_char;
    }
    let doubt = match advice.doubt {
        None => hotset_doubt::HOTSET_DOUBT_NONE,
        Some(Doubt::FewLookups) => hotset_doubt::HOTSET_DOUBT_FEW_LOOKUPS,
        Some(Doubt::FewEntries) => hotset_doubt::HOTSET_DOUBT_FEW_ENTRIES,
        Some(_) => hotset_doubt::HOTSET_DOUBT_LOST_SAMPLES,
    };
    hotset_advice {
        capacity: advice.capacity,
        lookups: advice.lookups,
        hit_ratio: advice.hit_ratio,
        sample: advice.sample,
        unbounded: advice.unbounded.unwrap_or(f64::NAN),
        optimum: advice.optimum.unwrap_or(f64::NAN),
        over_lru: advice.over_lru.unwrap_or(f64::NAN),
        tenth_more: advice.tenth_more,
        enough: advice.enough.unwrap_or(0),
        doubt: doubt as u32,
        point_count: advice.points.len().min(HOTSET_ADVICE_POINTS) as u32,
        points,
        text,
    }
}
