//! How a change of the map becomes an event, and when its thread applies the rings.
//!
//! A thread records its events in its own ring. With a full batch it tries the maintenance lock;
//! with a full ring it waits for the lock, so the number of unapplied events is bounded (invariant
//! 13).

use super::Engine;
use super::core::CallerGuard;
use super::entry::{Entry, Handle};
use super::event::Event;
use super::maintenance::Rings;
use super::maintenance_lock::{PATIENCE, Waited};
use super::writer::Writer;
use crate::prim::sync::Ordering;
use crate::reclaim::Guard;

/// With this number of unapplied departures that run destructors, a thread tries the lock: the
/// entries may be large.
const DEPARTURES: u64 = 4;
impl<K, V> Engine<K, V> {
    /// Records `event` in this thread's ring. With a full batch, applies all rings unless another
    /// thread holds the lock. With a full ring, or too much unapplied weight, waits as long as the
    /// lock holder makes progress. So memory is bounded, and no event is lost.
    #[inline(never)]
    pub(super) fn record(&self, event: Event, guard: Guard) {
        if self.profiler.is_some() {
            self.sample_event(event, &guard);
        }
        self.record_sampled(event, guard);
        self.approach_goal();
    }

    /// Same as [`record`](Self::record), for an event that the profile knows.
    #[inline(always)]
    fn record_sampled(&self, event: Event, guard: Guard) {
        let Some(writer) = self.thread_states.writer(&guard) else {
            return self.record_without_room(event, || false, guard);
        };
        let drain_limits = &self.thread_states.drain_limits;
        let Some(waiting) = writer.ring.push(event.pack()) else {
            let room = || writer.ring.len() < self.thread_states.drain_limits.max_events.load(Ordering::Relaxed);
            return self.record_without_room(event, room, guard);
        };
        self.note_deadline(event);
        let heavy = self.shape.weighted
            && event.inserted().is_some_and(|new| {
                // SAFETY: an entry is alive until its event is applied, and then while the guard is
                // held.
                let weight = unsafe { self.shape.weight(new) };
                writer.add_weight(weight, waiting) > drain_limits.max_weight.load(Ordering::Relaxed)
            });
        let many_left = std::mem::needs_drop::<Entry<K, V>>()
            && event.removes_entry()
            && writer.add_departure(waiting) >= DEPARTURES;
        if waiting >= drain_limits.batch.load(Ordering::Relaxed) || heavy || many_left {
            self.apply_or_wait(writer, heavy, guard);
        }
    }

    /// Same as [`record`](Self::record) for an arrival, inlined for unweighted entries that are not
    /// sampled.
    #[inline(always)]
    pub(super) fn record_arrival(&self, hash: u64, new: Handle, guard: Guard) {
        let examined = self.examines_arrivals && (self.shape.weighted || self.samples(hash));
        match self.thread_states.near_writer(&guard) {
            Some(writer) if !examined => match writer.ring.push(Event::Arrived(new).pack()) {
                Some(waiting) => {
                    self.note_deadline_of(new);
                    if waiting >= self.thread_states.drain_limits.batch.load(Ordering::Relaxed) {
                        self.apply_or_wait(writer, false, guard);
                    }
                }
                None => self.record(Event::Arrived(new), guard),
            },
            _ => self.record(Event::Arrived(new), guard),
        }
    }

    #[inline(never)]
    fn apply_or_wait(&self, writer: &Writer, heavy: bool, guard: Guard) {
        match self.work.0.lock.try_lock() {
            Some(held) => {
                // SAFETY: the guard was given up, and with it all references that were obtained
                // under it.
                let deferred = unsafe {
                    self.maintain_with_guard(held, &guard, CallerGuard::Spent(&guard), Rings::Subset, |_| ())
                };
                self.run_deferred(deferred, guard);
            }
            None => self.wait_for_room(writer, heavy, guard),
        }
    }

    /// Returns once this thread's ring has room for the next event. If it has none, waits until the
    /// lock holder or this thread has applied the ring, unless the lock holder makes no progress.
    ///
    /// The thread stays pinned while it waits, because its ring belongs to the index of its guard.
    /// This delays reclamation no longer than the lock holders do, which are pinned too.
    #[inline(never)]
    fn wait_for_room(&self, writer: &Writer, heavy: bool, guard: Guard) {
        let has_room = || {
            let most = if heavy {
                1
            } else {
                self.thread_states.drain_limits.max_events.load(Ordering::Relaxed)
            };
            writer.ring.len() < most
        };
        if has_room() {
            return;
        }
        match self.work.0.lock.lock_unless(Some(PATIENCE), has_room) {
            Ok(Waited::Held(held)) => {
                // SAFETY: the guard was given up, and with it all references that were obtained
                // under it.
                let deferred = unsafe {
                    self.maintain_with_guard(held, &guard, CallerGuard::Spent(&guard), Rings::Subset, |_| ())
                };
                self.run_deferred(deferred, guard);
            }
            Ok(Waited::Done | Waited::NoProgress) => {}
            Err(poisoned) => poisoned.panic(),
        }
    }

    /// Records an event without a ring: the ring is full, or the thread has none. Applies the event
    /// under the lock. If the lock holder makes no progress, pushes it to the overflow, which every
    /// lock holder drains. The ring is not used until `room` returns true.
    #[cold]
    #[inline(never)]
    fn record_without_room(&self, event: Event, room: impl FnMut() -> bool, guard: Guard) {
        match self.work.0.lock.lock_unless(Some(PATIENCE), room) {
            Ok(Waited::Held(held)) => {
                let deferred = self.maintain(held, &guard, Rings::All, &mut |core| core.apply(event));
                self.run_deferred(deferred, guard);
            }
            Ok(Waited::Done) => self.record_sampled(event, guard),
            Ok(Waited::NoProgress) if self.thread_states.overflow.push(event.pack()) => self.note_deadline(event),
            Ok(Waited::NoProgress) => {
                let deferred = self.with_core(&guard, |core| core.apply(event));
                self.run_deferred(deferred, guard);
            }
            Err(poisoned) => poisoned.panic(),
        }
    }

    /// Has the next call after the deadline of the entry that an event inserts remove expired
    /// entries.
    #[inline]
    fn note_deadline(&self, event: Event) {
        if let Some(new) = event.inserted() {
            self.note_deadline_of(new);
        }
    }

    /// Has the next call after the deadline of a recorded entry remove expired entries.
    #[inline(always)]
    fn note_deadline_of(&self, new: Handle) {
        if !self.time.is_active() {
            return;
        }
        // SAFETY: an entry is alive until its event is applied, and then while the caller is
        // pinned.
        if let Some(timing) = unsafe { self.shape.timing(new) } {
            self.time.note_deadline(timing.deadline());
        }
    }
}
