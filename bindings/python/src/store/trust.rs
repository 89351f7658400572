//! Whether entries may be believed that another store, a second tier, may have changed.

use hotset::raw;
use hotset::tier2::Trust;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// By how much the second tier's clock is ahead of the caches' own, in nanoseconds. The former continues while the machine is
/// suspended, so this grows then; a thread of the second tier measures it anew at least every second.
static TIER2_CLOCK_LEAD: AtomicU64 = AtomicU64::new(0);

/// Measures by how much the second tier's clock is ahead, at `now` of that clock.
pub(crate) fn sync_clock(now: u64) {
    // (A reading of the caches' clock is late by up to a millisecond, here and in a hit: trust may end by that much early or late.)
    TIER2_CLOCK_LEAD.store(now.saturating_sub(raw::clock_nanos()), Ordering::Relaxed);
}

/// The trust that a cache watches, if it is a first tier.
#[derive(Default)]
pub(super) struct TrustCell(AtomicPtr<Trust>);

impl TrustCell {
    /// Replaces the trust that is watched. The previous one is never freed: another thread may be reading it. There is one for each
    /// process of a line of forks.
    pub(super) fn set(&self, trust: Option<Arc<Trust>>) {
        let new = trust.map_or(ptr::null_mut(), |trust| Arc::into_raw(trust).cast_mut());
        // Release pairs with the Acquire in `get`: what the pointer leads to is seen.
        self.0.store(new, Ordering::Release);
    }

    #[inline(always)]
    fn get(&self) -> Option<&Trust> {
        // Acquire pairs with the Release in `set`.
        // SAFETY: null, or made by `Arc::into_raw` of a count that is never given back.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Whether entries may be served at a time of the caches' own clock (0: in a cache without times).
    #[inline(always)]
    #[cfg(not(Py_GIL_DISABLED))]
    pub(super) fn allows_hits_at(&self, now: u64) -> bool {
        self.get()
            .is_none_or(|trust| now.saturating_add(TIER2_CLOCK_LEAD.load(Ordering::Relaxed)) <= trust.hits_until())
    }

    /// Whether entries may be served now.
    #[inline]
    pub(super) fn allows_hits(&self) -> bool {
        self.get().is_none_or(|trust| now() <= trust.hits_until())
    }

    /// Whether a caller may wait for another's load now.
    #[inline]
    pub(super) fn allows_joins(&self) -> bool {
        self.get().is_none_or(|trust| now() <= trust.joins_until())
    }
}

fn now() -> u64 {
    raw::clock_nanos().saturating_add(TIER2_CLOCK_LEAD.load(Ordering::Relaxed))
}
