//! When entries end: what a cache's settings make of a new entry and of a hit.

use super::entry::{Deadlines, ExpiryRef, NEVER};
use crate::clock::{Source, nanos};
use crate::expiry::{Expiry, Ttl};
use crate::prim::sync::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Deadlines that hits prolong are moved when that makes a difference of so many nanoseconds (about a millisecond, the
/// wheel's tick): so an entry's line is written at most once in that time, however often it is hit.
const GRAIN: u64 = 1 << 20;

/// A cache's settings of time.
pub(crate) struct ExpirySettings<K, V> {
    pub(crate) clock: Source,
    /// In nanoseconds.
    pub(crate) time_to_live: Option<u64>,
    pub(crate) time_to_idle: Option<u64>,
    pub(crate) expiry: Option<Box<dyn Expiry<K, V>>>,
    /// From this age on a loader is asked for a new value.
    pub(crate) refresh_after: Option<u64>,
    /// After a failed reload an entry lives at least so long.
    pub(crate) grace: u64,
    /// The part of a time to live that chance may take off, in 2^-32.
    pub(crate) jitter: u32,
    /// Some entry may have times.
    active: AtomicBool,
    /// At this moment the housekeeping has something to do.
    next: AtomicU64,
}

impl<K, V> ExpirySettings<K, V> {
    pub(crate) fn new(clock: Source) -> Self {
        Self {
            clock,
            time_to_live: None,
            time_to_idle: None,
            expiry: None,
            refresh_after: None,
            grace: 0,
            jitter: 0,
            active: AtomicBool::new(false),
            next: AtomicU64::new(NEVER),
        }
    }

    /// Whether all entries have times.
    pub(super) fn is_general(&self) -> bool {
        self.time_to_live.is_some()
            || self.time_to_idle.is_some()
            || self.expiry.is_some()
            || self.refresh_after.is_some()
    }

    /// Whether hits may move deadlines.
    #[inline(always)]
    pub(crate) fn moves(&self) -> bool {
        self.time_to_idle.is_some() || self.expiry.is_some()
    }

    /// How much a deadline has to move to be written.
    #[inline]
    fn grain(&self) -> u64 {
        self.time_to_idle.map_or(GRAIN, |idle| GRAIN.min(idle / 8))
    }

    /// Some entry will have times from now on.
    pub(super) fn activate(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// Whether any entry may have times; if not, nobody reads the clock. A thread that has found an entry with times, or has
    /// made one, sees that it is so: the flag was set before the entry was published.
    #[inline(always)]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// The holder of the maintenance lock is about to hear of all changes. Before it leaves, it says what to expect.
    pub(super) fn begin(&self) {
        self.next.store(NEVER, Ordering::Relaxed);
    }

    /// An entry with this deadline came in. (Racing with `begin`, this may be lost: then the entry, already a miss, stays
    /// until the next housekeeping.)
    #[inline]
    pub(super) fn note_deadline(&self, deadline: u64) {
        if deadline < self.next() {
            self.next.fetch_min(deadline, Ordering::Relaxed);
        }
    }

    /// The times of a new entry; `old` are those of the entry that it seems to replace. Runs user code.
    pub(crate) fn for_insert(
        &self,
        hash: u64,
        (key, value): (&K, &V),
        ttl: Ttl,
        old: Option<Option<ExpiryRef<'_>>>,
        now: u64,
    ) -> Option<Deadlines> {
        let kept = match (ttl, old) {
            (Ttl::Keep, Some(old)) => Some(old.map_or(NEVER, ExpiryRef::max_deadline)),
            _ => None,
        };
        let max_deadline = kept.unwrap_or_else(|| {
            let ttl = match ttl {
                Ttl::After(ttl) => Some(nanos(ttl)),
                Ttl::Never => None,
                Ttl::Default | Ttl::Keep => self.time_to_live,
            };
            ttl.map_or(NEVER, |ttl| now.saturating_add(self.jittered(ttl, hash ^ now)))
        });
        let mut deadline = max_deadline;
        if let Some(idle) = self.time_to_idle {
            deadline = deadline.min(now.saturating_add(idle));
        }
        if let Some(expiry) = &self.expiry {
            let lives = match old {
                None => expiry.after_create(key, value),
                Some(old) => expiry.after_update(key, value, old.and_then(|old| old.left(now))),
            };
            deadline = deadline.min(moment(lives, now));
        }
        let refresh_at = match self.refresh_after {
            Some(age) => now.saturating_add(self.jittered(age, hash ^ now)),
            None => NEVER,
        };
        (deadline != NEVER || self.is_general()).then_some(Deadlines {
            deadline,
            max_deadline,
            refresh_at,
        })
    }

    /// The times of an entry that comes back from a snapshot with this deadline and limit, if it had times.
    #[cfg(feature = "snapshot")]
    pub(crate) fn for_restore(
        &self,
        times: Option<(u64, u64)>,
        context: (u64, (&K, &V)),
        now: u64,
    ) -> Option<Deadlines> {
        let (hash, contents) = context;
        let Some((deadline, max_deadline)) = times else {
            return self.for_insert(hash, contents, Ttl::Default, None, now);
        };
        let idle = self.time_to_idle.map_or(NEVER, |idle| now.saturating_add(idle));
        let deadline = deadline.min(max_deadline).min(idle);
        // It is as old as it was: of the cache's time to live it has had all but what is left until its limit.
        let refresh = |age: u64| match self.time_to_live {
            Some(ttl) if max_deadline != NEVER => max_deadline.saturating_sub(ttl.saturating_sub(age)),
            _ => NEVER,
        };
        let soon = |age| now.saturating_add(self.jittered(age, hash ^ now)).min(refresh(age));
        let refresh_at = self.refresh_after.map_or(NEVER, soon);
        (deadline != NEVER || self.is_general()).then_some(Deadlines {
            deadline,
            max_deadline,
            refresh_at,
        })
    }

    /// After a failed reload, so long until the next.
    pub(crate) fn retry(&self) -> u64 {
        (self.refresh_after.unwrap_or(0) / 4).max(1)
    }

    /// A time to live, less what chance takes off: uniform, and different for each key and moment.
    fn jittered(&self, ttl: u64, seed: u64) -> u64 {
        if self.jitter == 0 {
            return ttl;
        }
        // The finalizer of MurmurHash3, of which the upper half is a fraction.
        let mixed = (seed ^ seed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 32;
        let off = (u128::from(ttl) * u128::from(self.jitter) * u128::from(mixed)) >> 64;
        ttl - off as u64
    }

    /// Moves the deadline of an entry that was hit now; whether it has come nearer. Runs user code.
    #[inline]
    pub(super) fn hit(&self, timing: ExpiryRef<'_>, key: &K, value: &V, now: u64) -> bool {
        if !self.moves() {
            return false;
        }
        let mut deadline = timing.max_deadline();
        if let Some(idle) = self.time_to_idle {
            deadline = deadline.min(now.saturating_add(idle));
        }
        if let Some(expiry) = &self.expiry {
            let lives = expiry.after_read(key, value, timing.left(now));
            deadline = deadline.min(moment(lives, now));
        }
        // Racing hits were at about the same moment: any of their deadlines will do. But one of them sees each step.
        deadline.abs_diff(timing.deadline()) >= self.grain() && deadline < timing.move_deadline(deadline)
    }
}

/// The end of a life that begins now.
fn moment(lives: Option<Duration>, now: u64) -> u64 {
    lives.map_or(NEVER, |lives| now.saturating_add(nanos(lives)))
}
