//! Maintenance: applies recorded events to the policy, and unlinks what the policy evicts.
//!
//! The thread that finds maintenance due performs it, unless another thread holds the maintenance
//! lock. Listeners and destructors run after the unlock (see
//! [`run_deferred`](super::run_deferred)).

use super::core::{CallerGuard, Core};
use super::deferred::DeferredWork;
use super::entry::{DEAD, EVICTED, ExpiryRef, Handle, NO_DEADLINE};
use super::event::Event;
use super::limbo::Portion;
use super::maintenance_lock::Held;
use super::run_deferred::running;
use super::writer::Writer;
use super::{EXPIRE_BUDGET, Engine, Published};
use crate::policy::Policy;
use crate::prim::panics::Panics;
#[cfg(all(feature = "stats-file", unix))]
use crate::prim::pulse;
use crate::prim::sync::Ordering;
use crate::reclaim::Guard;
use crate::stats::Cause;

/// The rings that a visit drains.
#[derive(Clone, Copy)]
pub(super) enum Rings {
    All,
    /// The caller's, those of the first threads, and some of the others.
    Subset,
}

/// In a cache with an expiration, garbage that readers hold back is checked again by the first call
/// after this time, in nanoseconds.
const RETRY: u64 = 1 << 20;

impl<K, V> Engine<K, V> {
    /// Applies the events in the rings, calls `work`, and releases the lock. With `Rings::Subset`,
    /// some rings may be left for the next visit. A panic in `work` or in the policy poisons the
    /// lock.
    ///
    /// One copy for all of its callers, which are rare: it is long.
    #[inline(never)]
    pub(super) fn maintain(
        &self,
        held: Held<'_>,
        guard: &Guard,
        rings: Rings,
        work: &mut dyn FnMut(&mut Core),
    ) -> DeferredWork {
        // SAFETY: references obtained under the guard stay protected.
        unsafe { self.maintain_with_guard(held, guard, CallerGuard::InUse, rings, work) }
    }

    /// Same as [`maintain`](Self::maintain), but with [`CallerGuard::Spent`] the guard no longer
    /// protects what was found under it.
    ///
    /// # Safety
    ///
    /// As for [`Core::take_deferred`].
    #[inline(always)]
    pub(super) unsafe fn maintain_with_guard(
        &self,
        held: Held<'_>,
        guard: &Guard,
        own: CallerGuard<'_>,
        rings: Rings,
        work: impl FnOnce(&mut Core),
    ) -> DeferredWork {
        let deferred = {
            // SAFETY: the lock is held, and this reference ends before the unlock.
            let core = unsafe { &mut *self.work.0.core.get() };
            let timed = self.time.is_active();
            match rings {
                Rings::All => {
                    if timed {
                        self.time.reset_next_deadline();
                    }
                    self.thread_states.for_each_writer(|writer| Self::drain(core, writer));
                }
                Rings::Subset => {
                    let mut cursor = core.cursor_of_rings as usize;
                    self.thread_states
                        .for_some_writers(guard, &mut cursor, |writer, index| {
                            Self::drain(core, writer);
                            if index != guard.thread_index() {
                                self.sweep(core, index);
                            }
                        });
                    core.cursor_of_rings = cursor as u16; // less than `THREADS`
                }
            }
            if !self.thread_states.overflow.is_empty() {
                self.thread_states.overflow.take(|pair| core.apply(Event::unpack(pair)));
            }
            work(core);
            core.unlink_evicted(&self.map, guard);
            if timed {
                self.time.note_deadline(core.next_timer());
            }
            self.publish(core);
            let deferred = if self.has_user_code() && running::is(self) {
                DeferredWork::nothing()
            } else {
                // SAFETY: the caller's promise.
                unsafe { core.take_deferred(&self.domain, own, Portion::Bounded) }
            };
            if timed && core.has_garbage() {
                self.time.note_deadline(core.now.saturating_add(RETRY));
            }
            deferred
        };
        held.unlock();
        deferred
    }

    #[inline(always)]
    fn drain(core: &mut Core, writer: &Writer) {
        writer.ring.drain(|batch| core.apply_all(batch));
    }

    /// Takes the writer of another thread, if that thread has ended. The lock is held.
    #[cold]
    #[inline(never)]
    fn sweep(&self, core: &mut Core, index: usize) {
        if let Some(swept) = self.thread_states.sweep(index, |writer| Self::drain(core, writer)) {
            core.take_writer(swept);
        }
    }

    #[inline]
    fn publish(&self, core: &Core) {
        self.work
            .0
            .published
            .len
            .store(core.policy.len() as u64, Ordering::Relaxed);
        self.work
            .0
            .published
            .weight
            .store(core.policy.weight(), Ordering::Relaxed);
        self.work
            .0
            .published
            .insertions
            .store(core.counts.insertions, Ordering::Relaxed);
        self.work
            .0
            .published
            .evictions
            .store(core.counts.evictions, Ordering::Relaxed);
        if self.shape.weighted {
            self.evicted_weight.store(core.counts.evicted_weight, Ordering::Relaxed);
        }
        self.work
            .0
            .published
            .rejections
            .store(core.counts.rejections, Ordering::Relaxed);
        self.work
            .0
            .published
            .expirations
            .store(core.counts.expirations, Ordering::Relaxed);
    }

    /// Waits for the lock and calls `work` under it. The caller is pinned, and delays reclamation
    /// no longer than the lock holder, which is pinned too.
    ///
    /// # Panics
    ///
    /// If an earlier lock holder panicked. If this thread is already unwinding, it does nothing
    /// instead.
    pub(super) fn with_core(&self, guard: &Guard, work: impl FnOnce(&mut Core)) -> DeferredWork {
        match self.work.0.lock.lock() {
            Ok(held) => {
                let mut work = Some(work);
                let mut once = |core: &mut Core| work.take().into_iter().for_each(|work| work(core));
                self.maintain(held, guard, Rings::All, &mut once)
            }
            Err(poisoned) => {
                poisoned.panic();
                DeferredWork::nothing()
            }
        }
    }

    /// Returns whether a panic has poisoned the maintenance lock.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.work.0.lock.is_poisoned()
    }

    /// Makes a free slot for `hash`: moves its home bucket to a larger table, or else evicts an
    /// entry near it. Does not move all home buckets of a large table.
    ///
    /// Reached by chance in a table of millions of buckets, in a table far above its load, or with
    /// a hash function that maps many keys to one bucket.
    #[cold]
    pub(super) fn make_room(&self, hash: u64, tried: Option<usize>, guard: &Guard) {
        // The full table may have been replaced since. `tried` is the table that was full at the
        // last attempt.
        if self.grow(hash) || tried != Some(self.map.table_id(guard)) {
            return;
        }
        // SAFETY: candidates are in the map, and the guard is held.
        let was_not_hit = |header| unsafe { Handle(header).header() }.hits() == 0;
        if let Some(victim) = self.map.candidate(hash, was_not_hit, guard)
            && self.map.remove_exact(victim, guard)
        {
            let mut panics = Panics::default();
            self.notify(Handle(victim), Cause::Size, &mut panics);
            let deferred = self.with_core(guard, |core| {
                core.count_eviction(Handle(victim));
                core.apply(Event::Retired {
                    old: Handle(victim),
                    expired: false,
                });
            });
            panics.catch(|| self.run_deferred(deferred, self.pin()));
            panics.resume();
        }
    }

    /// Performs all pending maintenance. Afterwards the weight is within the capacity, and entries
    /// that no reader holds are freed.
    pub(crate) fn run_pending(&self) {
        let mut panics = Panics::default();
        let guard = self.pin();
        let deferred = self.with_core(&guard, |_| {});
        panics.catch(|| self.run_deferred(deferred, guard));
        loop {
            let (now, guard) = (self.now(), self.pin());
            let mut more = false;
            let deferred = self.with_core(&guard, |core| {
                more = now != 0 && core.expire(now, EXPIRE_BUDGET, &self.map, &guard);
                if now != 0 && !more {
                    core.expire_reached(now, &self.map, &guard);
                }
            });
            panics.catch(|| self.run_deferred(deferred, guard));
            if !more {
                break;
            }
        }
        // Two generations of the limbo may wait, and the second is sealed only when the first has
        // been passed.
        for _ in 0..2 {
            let guard = self.pin();
            let mut all = None;
            let deferred = self.with_core(&guard, |core| {
                // SAFETY: no reference was obtained under the guard.
                all = Some(unsafe { core.take_deferred(&self.domain, CallerGuard::Spent(&guard), Portion::All) });
            });
            panics.catch(|| self.run_deferred(deferred, self.pin()));
            if let Some(all) = all {
                panics.catch(|| self.run_deferred(all, guard));
            }
        }
        panics.catch(|| self.free_tables());
        #[cfg(all(feature = "stats-file", unix))]
        if self.time.claims_pulse(|| self.now()) {
            panics.catch(pulse::run);
        }
        panics.resume();
    }

    /// Has the calls on this cache rewrite the process's stats file when it is due. They read the
    /// clock from now on.
    #[cfg(all(feature = "stats-file", unix))]
    pub(crate) fn observe_pulse(&self) {
        if self.time.observe_pulse() {
            self.activate_time();
        }
    }

    /// Returns the counters of the last maintenance. Performs none.
    #[cfg(all(feature = "stats-file", unix))]
    pub(crate) fn last_published(&self) -> &Published {
        &self.work.0.published
    }

    /// Returns the entries that are unlinked and not yet freed. They live as long as the guard.
    ///
    /// Complete, each entry once, if no other thread uses the cache. Empty if another thread holds
    /// the maintenance lock.
    pub(crate) fn unlinked(&self, _guard: &Guard) -> Vec<Handle> {
        let mut all = Vec::new();
        let Some(held) = self.work.0.lock.try_lock() else {
            return all;
        };
        // SAFETY: the lock is held, and this reference ends before the unlock.
        let core = unsafe { &mut *self.work.0.core.get() };
        all.extend(core.unlinked());
        // SAFETY: an entry is alive until its events are applied, which needs the lock.
        let is_dead = |entry: Handle| [DEAD, EVICTED].contains(&unsafe { entry.header() }.place());
        let mut see = |pair| match Event::unpack(pair) {
            Event::Arrived(new) => all.extend(is_dead(new).then_some(new)),
            Event::Replaced { new, old, .. } => all.extend(is_dead(new).then_some(new).into_iter().chain([old])),
            Event::Retired { old, .. } | Event::Released(old) => all.push(old),
        };
        self.thread_states.for_each_writer(|writer| writer.ring.peek(&mut see));
        self.thread_states.overflow.peek(see);
        held.unlock();
        all
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        let guard = self.pin();
        let deferred = self.with_core(&guard, |core| {
            self.drop_goal();
            self.thread_states.set_capacity(capacity);
            core.set_capacity(capacity, &self.map, &guard);
        });
        let mut panics = Panics::default();
        panics.catch(|| self.run_deferred(deferred, guard));
        panics.catch(|| self.fit_table(false));
        self.resize_profile();
        panics.resume();
    }

    /// Returns the entries from the most to the least valuable, as of now. They live as long as the
    /// guard.
    pub(crate) fn hottest(&self, guard: &Guard) -> Vec<Handle> {
        let mut handles = Vec::new();
        let deferred = self.with_core(guard, |core| {
            handles.reserve_exact(core.policy.len());
            core.policy.hottest(&core.policy_view, &mut |handle| {
                handles.push(handle);
                true
            });
        });
        self.run_deferred(deferred, self.pin());
        handles
    }

    /// Returns the entry that would be evicted first, as of now. It lives as long as the guard.
    pub(crate) fn coldest(&self, guard: &Guard) -> Option<Handle> {
        let mut coldest = None;
        let deferred = self.with_core(guard, |core| coldest = core.policy.coldest(&core.policy_view));
        self.run_deferred(deferred, self.pin());
        coldest
    }

    /// Panics if an invariant is broken. The caller ensures that no other thread uses the cache.
    pub(crate) fn validate(&self) {
        let guard = self.pin();
        let mut panics = Panics::default();
        let deferred = self.with_core(&guard, |core| {
            // The events just applied may have evicted entries that are still in the map.
            core.unlink_evicted(&self.map, &guard);
            // Caught, so that the lock is not poisoned: a failed test drops its cache.
            panics.catch(|| self.check(core, &guard));
        });
        self.run_deferred(deferred, guard);
        panics.resume();
    }

    fn check(&self, core: &Core, guard: &Guard) {
        core.policy.validate(&core.policy_view);
        let mut from = 0;
        let (mut count, mut weight, mut timer_view) = (0, 0u64, 0);
        while from < 1 << 32 {
            from = self.map.walk(
                from,
                |header| {
                    // SAFETY: in the map, and the guard is held.
                    let (place, w) = unsafe { (Handle(header).header().place(), self.shape.weight(Handle(header))) };
                    assert!(
                        place <= crate::policy::MAX_PLACE,
                        "what is in the map is in the policy: {place:x}"
                    );
                    count += 1;
                    weight = weight.saturating_add(w);
                    let ends = self
                        .timing(Handle(header), guard)
                        .map_or(NO_DEADLINE, ExpiryRef::deadline);
                    let has_timer = core.has_timer(Handle(header));
                    assert!(has_timer || ends == NO_DEADLINE, "what has a deadline has a timer");
                    timer_view += usize::from(has_timer);
                },
                guard,
            );
        }
        core.validate_timers(timer_view);
        assert_eq!(core.policy.len(), count, "what is in the policy is in the map");
        assert_eq!(core.policy.weight(), weight, "the weight is that of the entries");
        assert!(core.policy.weight() <= core.policy.capacity(), "the bound holds");
    }

    #[cold]
    #[inline(never)]
    pub(super) fn expire(&self, now: u64) {
        #[cfg(all(feature = "stats-file", unix))]
        let claimed = self.time.claims_pulse(|| now);
        let guard = self.pin();
        if let Some(held) = self.work.0.lock.try_lock() {
            let expire = |core: &mut Core| _ = core.expire(now, EXPIRE_BUDGET, &self.map, &guard);
            // SAFETY: references obtained under the guard are not used after the expired entries
            // were unlinked.
            let deferred =
                unsafe { self.maintain_with_guard(held, &guard, CallerGuard::Spent(&guard), Rings::All, expire) };
            self.run_deferred(deferred, guard);
        } else {
            drop(guard);
        }
        // Last: nothing is locked or pinned any more.
        #[cfg(all(feature = "stats-file", unix))]
        if claimed {
            pulse::run();
        }
    }

    /// Returns the counters of the last maintenance, which is performed now if it is due and the
    /// lock is free.
    pub(crate) fn published(&self) -> &Published {
        self.now_and_expire();
        let (mut waiting, guard) = (!self.thread_states.overflow.is_empty(), self.pin());
        self.thread_states
            .for_each_writer(|writer| waiting |= writer.ring.len() != 0);
        if waiting && let Some(held) = self.work.0.lock.try_lock() {
            // SAFETY: references to rings that were obtained under the guard are not used any more.
            let deferred =
                unsafe { self.maintain_with_guard(held, &guard, CallerGuard::Spent(&guard), Rings::All, |_| ()) };
            self.run_deferred(deferred, guard);
        }
        &self.work.0.published
    }
}
