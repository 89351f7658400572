//! Trust in entries of a first tier, whose values may have changed in the second tier.

use hotset::raw;
use hotset::tier2::Trust;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The second tier's clock minus the caches' own, in nanoseconds.
///
/// Only the former advances while the machine is suspended, so the difference then grows. A thread
/// of the second tier measures it at least every second.
static TIER2_CLOCK_LEAD: AtomicU64 = AtomicU64::new(0);

/// Measures the difference of the clocks, at `now` of the second tier's.
pub(crate) fn sync_clock(now: u64) {
    // A reading of the caches' clock is up to a millisecond late, here and in a hit: trust may end
    // that much early or late.
    TIER2_CLOCK_LEAD.store(now.saturating_sub(raw::clock_nanos()), Ordering::Relaxed);
}

/// The trust of a cache that is a first tier.
#[derive(Default)]
pub(super) struct TrustCell(AtomicPtr<Trust>);

impl TrustCell {
    /// Replaces the trust.
    ///
    /// The previous one is never freed, since another thread may be reading it. There is one per
    /// process in a line of forks.
    pub(super) fn set(&self, trust: Option<Arc<Trust>>) {
        let new = trust.map_or(ptr::null_mut(), |trust| Arc::into_raw(trust).cast_mut());
        // Release pairs with the Acquire in `get`, which then sees what the pointer leads to.
        self.0.store(new, Ordering::Release);
    }

    #[inline(always)]
    fn get(&self) -> Option<&Trust> {
        // Acquire pairs with the Release in `set`.
        // SAFETY: null, or made by `Arc::into_raw` of a reference that is never released.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Returns whether entries may be served at `now` of the caches' own clock, which is 0 in a
    /// cache without expiration.
    #[inline(always)]
    #[cfg(not(Py_GIL_DISABLED))]
    pub(super) fn allows_hits_at(&self, now: u64) -> bool {
        self.get()
            .is_none_or(|trust| now.saturating_add(TIER2_CLOCK_LEAD.load(Ordering::Relaxed)) <= trust.hits_until())
    }

    /// Returns whether entries may be served now.
    #[inline]
    pub(super) fn allows_hits(&self) -> bool {
        self.get().is_none_or(|trust| now() <= trust.hits_until())
    }

    /// Returns whether a caller may wait for another caller's load now.
    #[inline]
    pub(super) fn allows_joins(&self) -> bool {
        self.get().is_none_or(|trust| now() <= trust.joins_until())
    }
}

fn now() -> u64 {
    raw::clock_nanos().saturating_add(TIER2_CLOCK_LEAD.load(Ordering::Relaxed))
}
