//! Until when tier 1 may be believed: two instants that every hit compares with the clock.

use super::Settings;
use std::sync::atomic::{AtomicU64, Ordering};

/// Until when tier 1 may be believed. Compared by every hit; changed by the bus.
#[derive(Debug)]
pub struct Trust {
    hits: AtomicU64,
    joins: AtomicU64,
}

impl Trust {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            hits: AtomicU64::new(Self::at_first(settings)),
            joins: AtomicU64::new(u64::MAX),
        }
    }

    /// Until when hits are served before a node is known: with a bus, what a fork inherited may be
    /// old.
    pub(super) fn at_first(settings: &Settings) -> u64 {
        if settings.bus { 0 } else { u64::MAX }
    }

    /// Returns until when tier 1 may serve hits.
    #[inline]
    pub fn hits_until(&self) -> u64 {
        // Acquire, with the Release in `set`: a reader that sees the time of an armed bus sees tier
        // 1 as it was cleared before.
        self.hits.load(Ordering::Acquire)
    }

    /// Returns until when a caller may join another's load.
    #[inline]
    pub fn joins_until(&self) -> u64 {
        // Acquire, with the Release in `set`: loads that were dropped before are seen to be
        // dropped.
        self.joins.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, hits: u64, joins: u64) {
        // Release, with the Acquire in `hits_until` and `joins_until`.
        self.hits.store(hits, Ordering::Release);
        self.joins.store(joins, Ordering::Release);
    }
}
