//! Expiration: the deadlines of a new entry, and what a hit does to them.
//!
//! [`ExpirySettings`] holds a cache's settings, its clock, and the time at which maintenance is due
//! next. Per-entry deadlines are in [`Deadlines`] and [`ExpiryRef`].

use super::entry::{Deadlines, ExpiryRef, NO_DEADLINE, STALE};
use crate::clock::{TimeSource, nanos};
use crate::expiry::{Expiry, Ttl};
#[cfg(all(feature = "stats-file", unix))]
use crate::prim::pulse;
use crate::prim::sync::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A hit moves a deadline only if it changes by at least this many nanoseconds (about a
/// millisecond, the wheel's tick). So hits write to an entry's cache line at most once in that
/// time.
const GRAIN: u64 = 1 << 20;

/// TTLs from this one on (17 seconds, in nanoseconds) are counted from the coarse clock, which is
/// early by a timer interrupt of the kernel: 10 milliseconds at most.
const LONG: u64 = 1 << 34;

/// The expiration settings of a cache, its clock, and the next deadline.
pub(crate) struct ExpirySettings<K, V> {
    pub(crate) clock: TimeSource,
    /// In nanoseconds, as all durations here.
    pub(crate) time_to_live: Option<u64>,
    pub(crate) time_to_idle: Option<u64>,
    pub(crate) expiry: Option<Box<dyn Expiry<K, V>>>,
    /// The age from which a loading call reloads the value.
    pub(crate) refresh_after: Option<u64>,
    /// After a failed reload, the deadline is at least this far ahead.
    pub(crate) grace: u64,
    /// The part of a TTL that jitter may subtract, in 2^-32.
    pub(crate) jitter: u32,
    /// The TTL if deadlines follow from it alone, and are computed in one step; else 0.
    only_ttl: u64,
    /// Whether any entry may have a deadline.
    active: AtomicBool,
    /// The time at which maintenance is due next.
    next_deadline: AtomicU64,
    /// Whether the next deadline is at most that of the process's pulse.
    #[cfg(all(feature = "stats-file", unix))]
    observes_pulse: AtomicBool,
}

impl<K, V> ExpirySettings<K, V> {
    pub(crate) fn new(clock: TimeSource) -> Self {
        Self {
            clock,
            time_to_live: None,
            time_to_idle: None,
            expiry: None,
            refresh_after: None,
            grace: 0,
            jitter: 0,
            only_ttl: 0,
            active: AtomicBool::new(false),
            next_deadline: AtomicU64::new(NO_DEADLINE),
            #[cfg(all(feature = "stats-file", unix))]
            observes_pulse: AtomicBool::new(false),
        }
    }

    /// Returns whether all entries have deadlines.
    pub(super) fn applies_to_all(&self) -> bool {
        self.time_to_live.is_some()
            || self.time_to_idle.is_some()
            || self.expiry.is_some()
            || self.refresh_after.is_some()
    }

    /// Returns whether hits may move deadlines.
    #[inline(always)]
    pub(crate) fn hits_move_deadlines(&self) -> bool {
        self.time_to_idle.is_some() || self.expiry.is_some()
    }

    /// Returns the smallest change of a deadline that is written.
    #[inline]
    fn grain(&self) -> u64 {
        self.time_to_idle.map_or(GRAIN, |idle| GRAIN.min(idle / 8))
    }

    /// Returns whether deadlines follow from `ttl` alone, and are so far ahead that the lag of the
    /// coarse clock does not matter.
    #[inline]
    pub(super) fn is_long(&self, ttl: Ttl) -> bool {
        if ttl == Ttl::Default && self.only_ttl != 0 {
            return self.only_ttl >= LONG;
        }
        let ttl = match ttl {
            Ttl::After(ttl) => Some(nanos(ttl)),
            Ttl::Default => self.time_to_live,
            Ttl::Never | Ttl::Keep => None,
        };
        ttl.is_some_and(|ttl| ttl >= LONG) && !self.hits_move_deadlines() && self.refresh_after.is_none()
    }

    /// Prepares for the insertions, once all settings are set.
    pub(super) fn prepare(&mut self) {
        let is_only = !self.hits_move_deadlines() && self.refresh_after.is_none() && self.jitter == 0;
        self.only_ttl = self.time_to_live.filter(|_| is_only).unwrap_or(0);
        if self.applies_to_all() {
            self.activate();
        }
    }

    /// Records that entries may have deadlines from now on.
    pub(super) fn activate(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// Returns whether any entry may have a deadline. If not, no thread reads the clock.
    ///
    /// A thread that found or created an entry with a deadline sees `true`, because the flag is set
    /// before the entry is published.
    #[inline(always)]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Returns the time at which maintenance is due next.
    #[inline(always)]
    pub(crate) fn next_deadline(&self) -> u64 {
        self.next_deadline.load(Ordering::Relaxed)
    }

    /// Forgets the next deadline. Called by the lock holder before it applies all events; it notes
    /// the new one before the unlock.
    pub(super) fn reset_next_deadline(&self) {
        #[cfg(all(feature = "stats-file", unix))]
        if self.observes_pulse.load(Ordering::Relaxed) {
            return self.next_deadline.store(pulse::next(), Ordering::Relaxed);
        }
        self.next_deadline.store(NO_DEADLINE, Ordering::Relaxed);
    }

    /// Has the calls on this cache claim the process's pulse when it is due. Returns false for a
    /// cache with a clock of its own, whose time is not the pulse's.
    #[cfg(all(feature = "stats-file", unix))]
    pub(super) fn observe_pulse(&self) -> bool {
        let is_system = matches!(self.clock, TimeSource::System);
        if is_system {
            self.observes_pulse.store(true, Ordering::Relaxed);
            self.note_deadline(pulse::next());
        }
        is_system
    }

    /// Returns whether the pulse is due, and the caller must run it.
    #[cfg(all(feature = "stats-file", unix))]
    pub(super) fn claims_pulse(&self, now: impl FnOnce() -> u64) -> bool {
        self.observes_pulse.load(Ordering::Relaxed) && pulse::claim(now())
    }

    /// Notes the deadline of an inserted entry. In a race with `reset_next_deadline` the deadline
    /// may be lost: then the entry, which is a miss once it has expired, stays until the next
    /// maintenance.
    #[inline]
    pub(super) fn note_deadline(&self, deadline: u64) {
        if deadline < self.next_deadline() {
            self.next_deadline.fetch_min(deadline, Ordering::Relaxed);
        }
    }

    /// Returns the deadlines of a new entry, if it needs any. `old` are the deadlines of the entry
    /// that it seems to replace. Runs user code.
    #[inline(always)]
    pub(crate) fn for_insert(
        &self,
        hash: u64,
        contents: (&K, &V),
        ttl: Ttl,
        old: Option<Option<ExpiryRef<'_>>>,
        now: u64,
    ) -> Option<Deadlines> {
        if ttl == Ttl::Default && self.only_ttl != 0 {
            let deadline = now.saturating_add(self.only_ttl);
            return Some(Deadlines {
                deadline,
                max_deadline: deadline,
                refresh_at: NO_DEADLINE,
            });
        }
        // Field by field, so that all of them stay in registers: a copy of the whole waits for the
        // stores of its parts.
        let Deadlines {
            deadline,
            max_deadline,
            refresh_at,
        } = self.for_insert_by_settings(hash, contents, ttl, old, now)?;
        Some(Deadlines {
            deadline,
            max_deadline,
            refresh_at,
        })
    }

    /// [`for_insert`](Self::for_insert) where deadlines follow from several settings, or the
    /// entry's own TTL.
    #[inline(never)]
    fn for_insert_by_settings(
        &self,
        hash: u64,
        (key, value): (&K, &V),
        ttl: Ttl,
        old: Option<Option<ExpiryRef<'_>>>,
        now: u64,
    ) -> Option<Deadlines> {
        let kept = match (ttl, old) {
            (Ttl::Keep, Some(old)) => Some(old.map_or(NO_DEADLINE, ExpiryRef::max_deadline)),
            _ => None,
        };
        let max_deadline = kept.unwrap_or_else(|| {
            let ttl = match ttl {
                Ttl::After(ttl) => Some(nanos(ttl)),
                Ttl::Never => None,
                Ttl::Default | Ttl::Keep => self.time_to_live,
            };
            ttl.map_or(NO_DEADLINE, |ttl| now.saturating_add(self.jittered(ttl, hash ^ now)))
        });
        let mut deadline = max_deadline;
        if let Some(idle) = self.time_to_idle {
            deadline = deadline.min(now.saturating_add(idle));
        }
        if let Some(expiry) = &self.expiry {
            let ttl = match old {
                None => expiry.after_create(key, value),
                Some(old) => expiry.after_update(key, value, old.and_then(|old| old.remaining(now))),
            };
            deadline = deadline.min(deadline_after(ttl, now));
        }
        let refresh_at = match self.refresh_after {
            Some(age) => refresh_time(now, self.jittered(age, hash ^ now)),
            None => NO_DEADLINE,
        };
        (deadline != NO_DEADLINE || self.applies_to_all()).then_some(Deadlines {
            deadline,
            max_deadline,
            refresh_at,
        })
    }

    /// Returns the deadlines of an entry that is restored from a snapshot; `times` are its deadline
    /// and its latest deadline, if it had any.
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
        let idle = self.time_to_idle.map_or(NO_DEADLINE, |idle| now.saturating_add(idle));
        let deadline = deadline.min(max_deadline).min(idle);
        // The entry keeps its age: the TTL less what remains until its latest deadline.
        let refresh = |age: u64| match self.time_to_live {
            Some(ttl) if max_deadline != NO_DEADLINE => max_deadline.saturating_sub(ttl.saturating_sub(age)),
            _ => NO_DEADLINE,
        };
        let soon = |age| refresh_time(now, self.jittered(age, hash ^ now)).min(refresh(age) & !STALE);
        let refresh_at = self.refresh_after.map_or(NO_DEADLINE, soon);
        (deadline != NO_DEADLINE || self.applies_to_all()).then_some(Deadlines {
            deadline,
            max_deadline,
            refresh_at,
        })
    }

    /// Returns the time from a failed reload to the next attempt.
    pub(crate) fn retry_delay(&self) -> u64 {
        (self.refresh_after.unwrap_or(0) / 4).max(1)
    }

    /// Returns `ttl` less a random part, uniform in the jitter, which differs by key and time.
    fn jittered(&self, ttl: u64, seed: u64) -> u64 {
        if self.jitter == 0 {
            return ttl;
        }
        // The finalizer of MurmurHash3; its upper half is a fraction.
        let mixed = (seed ^ seed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 32;
        let off = (u128::from(ttl) * u128::from(self.jitter) * u128::from(mixed)) >> 64;
        ttl - off as u64
    }

    /// Moves the deadline of an entry after a hit. Returns whether it is earlier now. Runs user
    /// code.
    #[inline]
    pub(super) fn hit(&self, timing: ExpiryRef<'_>, key: &K, value: &V, now: u64) -> bool {
        if !self.hits_move_deadlines() {
            return false;
        }
        let mut deadline = timing.max_deadline();
        if let Some(idle) = self.time_to_idle {
            deadline = deadline.min(now.saturating_add(idle));
        }
        if let Some(expiry) = &self.expiry {
            let ttl = expiry.after_read(key, value, timing.remaining(now));
            deadline = deadline.min(deadline_after(ttl, now));
        }
        // Concurrent hits have nearly the same `now`, so any of their deadlines is right. But
        // exactly one of them sees each change.
        deadline.abs_diff(timing.deadline()) >= self.grain() && deadline < timing.move_deadline(deadline)
    }
}

/// Returns the time of the first reload of a value that becomes due after `age`.
fn refresh_time(now: u64, age: u64) -> u64 {
    now.saturating_add(age) & !STALE
}

/// Returns the deadline of a TTL that starts now.
fn deadline_after(ttl: Option<Duration>, now: u64) -> u64 {
    ttl.map_or(NO_DEADLINE, |ttl| now.saturating_add(nanos(ttl)))
}
