//! How a change of the map becomes an event in a ring, and when its thread applies the rings.

use super::Engine;
use super::core::CallerGuard;
use super::entry::{Entry, Handle};
use super::event::Event;
use super::maintenance::Rings;
use super::maintenance_lock::{PATIENCE, Waited};
use super::writer::Writer;
use crate::prim::sync::Ordering;
use crate::reclaim::Guard;

/// A thread whose changes let so many entries go that run destructors tries to have them applied: what left may be large.
const DEPARTURES: u64 = 4;
impl<K, V> Engine<K, V> {
    /// Leaves the event in this thread's ring. If there are enough of them there, has all that wait applied, unless another
    /// thread is at it. If the ring is full, or too much weight has come in, waits for that, as long as the lock holder makes
    /// progress: memory is bounded, and events are never lost.
    #[inline(never)]
    pub(super) fn record(&self, event: Event, guard: Guard) {
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
                // SAFETY: an entry is alive until its event is applied, and then while the guard is held.
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

    /// [`record`](Self::record) of an arrival, inlined for unweighted entries without expiration.
    #[inline(always)]
    pub(super) fn record_arrival(&self, new: Handle, guard: Guard) {
        let plain = !self.shape.weighted && !self.time.is_active();
        match self.thread_states.near_writer(&guard) {
            Some(writer) if plain => match writer.ring.push(Event::Arrived(new).pack()) {
                Some(waiting) if waiting < self.thread_states.drain_limits.batch.load(Ordering::Relaxed) => {}
                Some(_) => self.apply_or_wait(writer, false, guard),
                None => self.record(Event::Arrived(new), guard),
            },
            _ => self.record(Event::Arrived(new), guard),
        }
    }

    #[inline(never)]
    fn apply_or_wait(&self, writer: &Writer, heavy: bool, guard: Guard) {
        match self.work.0.lock.try_lock() {
            Some(held) => {
                // SAFETY: the guard was given up, and with it what was found under it.
                let deferred = unsafe {
                    self.maintain_with_guard(held, &guard, CallerGuard::Spent(&guard), Rings::Subset, |_| ())
                };
                self.run_deferred(deferred, guard);
            }
            None => self.wait_for_room(writer, heavy, guard),
        }
    }

    /// Returns when this thread's ring has room for the next event, or immediately if it has. If it has none, waits until the
    /// lock holder has applied what is in the ring, or this thread has; but not for a lock holder that makes no progress.
    ///
    /// The thread stays pinned while it waits, which keeps its ring: the guard of a thread in its last destructors is what the
    /// ring belongs to. It holds up what this cache frees, but not for longer than the lock holders do, which are pinned too.
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
                // SAFETY: the guard was given up, and with it what was found under it.
                let deferred = unsafe {
                    self.maintain_with_guard(held, &guard, CallerGuard::Spent(&guard), Rings::Subset, |_| ())
                };
                self.run_deferred(deferred, guard);
            }
            Ok(Waited::Done | Waited::NoProgress) => {}
            Err(poisoned) => poisoned.panic(),
        }
    }

    /// Records an event for which this thread's ring has no room, or of a thread that has no ring: applies it, or leaves it
    /// where every lock holder looks if the present one makes no progress. Until `room` returns true, the ring is not used.
    #[cold]
    #[inline(never)]
    fn record_without_room(&self, event: Event, room: impl FnMut() -> bool, guard: Guard) {
        match self.work.0.lock.lock_unless(Some(PATIENCE), room) {
            Ok(Waited::Held(held)) => {
                let deferred = self.maintain(held, &guard, Rings::All, |core| core.apply(event));
                self.run_deferred(deferred, guard);
            }
            Ok(Waited::Done) => self.record(event, guard),
            Ok(Waited::NoProgress) if self.thread_states.overflow.push(event.pack()) => self.note_deadline(event),
            Ok(Waited::NoProgress) => {
                let deferred = self.with_core(&guard, |core| core.apply(event));
                self.run_deferred(deferred, guard);
            }
            Err(poisoned) => poisoned.panic(),
        }
    }

    /// Has the next call after the deadline of an entry that was just recorded look for expired entries.
    #[inline(always)]
    fn note_deadline(&self, event: Event) {
        if self.time.is_active() {
            // SAFETY: an entry is alive until its event is applied, and then while the caller is pinned.
            let timing = event.inserted().and_then(|new| unsafe { self.shape.timing(new) });
            timing
                .into_iter()
                .for_each(|timing| self.time.note_deadline(timing.deadline()));
        }
    }
}
