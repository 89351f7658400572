//! Without the GIL: results of methods whose instances are gone are removed by sweeps.

use super::Store;
use crate::call::Call;
use hotset::raw;
use std::sync::atomic::Ordering;

/// The least number of a method's insertions between two sweeps for the results of instances that are gone.
const SWEEP_AFTER: u64 = 64;
/// In place of the number of entries that a sweep kept, while it runs.
const SWEEPING: u64 = u64::MAX;

impl Store {
    /// Counts a method's insertion and, when enough were counted, removes the entries of instances that are gone.
    ///
    /// A sweep is due after as many insertions as the last sweep kept entries, and at least [`SWEEP_AFTER`]. It visits what was
    /// kept and what was inserted, about two entries per insertion. The number of entries cannot be the measure: it grows with
    /// each insertion, so a cache without a bound would never be swept.
    pub(super) fn sweep_dead_instances(&self) {
        let since = self.since_sweep.increment(Ordering::Relaxed) + 1;
        let kept = self.kept_by_sweep.load(Ordering::Relaxed);
        if since < kept.max(SWEEP_AFTER) {
            return;
        }
        // One thread sweeps. The others count toward the next sweep, which is not due before this one ends.
        let claim = (self.kept_by_sweep).compare_exchange(kept, SWEEPING, Ordering::Relaxed, Ordering::Relaxed);
        if claim.is_err() {
            return;
        }
        self.since_sweep.set(0);
        let mut kept = 0;
        raw::retain(&self.cache, |key, _| {
            // SAFETY: the cache holds its keys.
            let is_kept = unsafe { !Call::is_dead(key.object()) };
            kept += u64::from(is_kept);
            is_kept
        });
        self.kept_by_sweep.store(kept, Ordering::Relaxed);
    }
}
