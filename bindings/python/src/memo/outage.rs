//! A spell of failures, in which a function's expired results are served (`stale_if_error`): it is logged once.

use crate::gil_cell::GilCell;
use std::time::Duration;

/// A spell begins with a key whose call fails. It ends when a call for that key succeeds, or when no call has failed for `grace`, after
/// which no result that expired before is left to serve. Successes of other keys do not end it, so a key that always fails, beside others
/// that never do, is logged once.
pub(super) struct Outage {
    grace: Duration,
    /// The hash of the key that it began with, and when a call failed last.
    open: GilCell<Option<(u64, Duration)>>,
}

impl Outage {
    pub(super) fn new(grace: Option<Duration>) -> Self {
        Self {
            grace: grace.unwrap_or_default(),
            open: GilCell::new(None),
        }
    }

    /// Notes a failed call at the time `now`; returns whether a spell begins with it.
    pub(super) fn record_failure(&self, hash: u64, now: Duration) -> bool {
        let mut open = self.open.lock();
        match &mut *open {
            Some((_, last)) if now.saturating_sub(*last) <= self.grace => {
                *last = now;
                false
            }
            open => {
                *open = Some((hash, now));
                true
            }
        }
    }

    /// Notes that a call succeeded.
    pub(super) fn record_success(&self, hash: u64) {
        let mut open = self.open.lock();
        if open.is_some_and(|(first, _)| first == hash) {
            *open = None;
        }
    }
}
