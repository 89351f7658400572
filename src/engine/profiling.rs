//! The samples that a profiled cache takes of its own lookups and changes.
//!
//! Keys whose hash is below [`Profiler::bound`] are sampled. The [`Simulation`] is sequential, so
//! samples wait in buffers until a thread that filled one finds the simulation free. No thread
//! waits for another one: a sample that finds its buffer taken, or full while another thread
//! simulates, is dropped and counted.
//!
//! The buffers are the profile's own, since a ring carries events of entries, and a thread that
//! only reads has none.

use super::Engine;
use super::entry::{Handle, NO_DEADLINE};
use super::event::Event;
use crate::policy::PolicyKind;
use crate::prim::panics::Panics;
use crate::profile::{Advice, NEVER, Sample, Simulation, Traits, Truth, What};
use crate::reclaim::Guard;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Threads share this many buffers.
const BUFFERS: usize = 16;
/// A thread that fills a buffer with this many samples simulates them: the work of one call.
const BATCH: usize = 32;
/// The most samples that wait in a buffer.
const FULL: usize = 512;
/// The table's share of the memory of an entry.
const TABLE_BYTES: u64 = 18;

/// The buffers and the simulation of a profiled cache.
pub(crate) struct Profiler {
    /// Keys with a hash below this are sampled.
    bound: AtomicU64,
    buffers: [Mutex<Vec<Sample>>; BUFFERS],
    simulation: Mutex<Simulation>,
    /// Samples dropped since the last advice.
    lost: AtomicU64,
    /// The cache's hits and lookups when the simulation began.
    hits_before: AtomicU64,
    lookups_before: AtomicU64,
    settings: (PolicyKind, bool, u64),
}

/// Returns the bound of the sampled 64-bit hashes.
fn bound(simulation: &Simulation) -> u64 {
    u64::from(simulation.threshold()) << 32
}

/// Locks a mutex that no panic can leave in a state worse than a wrong count.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(held) => Some(held),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Profiler {
    pub(crate) fn new(kind: PolicyKind, capacity: u64, weighted: bool, idle: Option<u64>) -> Self {
        let idle = idle.unwrap_or(NEVER);
        let simulation = Simulation::new(kind, capacity, weighted, idle);
        Self {
            bound: bound(&simulation).into(),
            buffers: std::array::from_fn(|_| Mutex::new(Vec::new())),
            simulation: Mutex::new(simulation),
            lost: AtomicU64::new(0),
            hits_before: AtomicU64::new(0),
            lookups_before: AtomicU64::new(0),
            settings: (kind, weighted, idle),
        }
    }

    /// Buffers a sample. Simulates what the buffer holds if it is due and the simulation free.
    fn push(&self, thread: usize, sample: Sample) {
        let Some(mut buffer) = try_lock(&self.buffers[thread % BUFFERS]) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if buffer.len() >= FULL {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            buffer.push(sample);
        }
        if buffer.len() < BATCH {
            return;
        }
        let Some(mut simulation) = try_lock(&self.simulation) else {
            return;
        };
        // At most a batch per call, unless other threads kept the simulation busy before.
        let batch = mem::replace(&mut *buffer, Vec::with_capacity(BATCH));
        // Not held while simulating: a thread with the same buffer must not lose its samples.
        drop(buffer);
        batch.into_iter().for_each(|sample| simulation.apply(sample));
        self.bound.store(bound(&simulation), Ordering::Relaxed);
    }

    /// Simulates all that waits, and returns the simulation.
    fn flush(&self) -> MutexGuard<'_, Simulation> {
        let mut simulation = lock(&self.simulation);
        for buffer in &self.buffers {
            let batch = mem::take(&mut *lock(buffer));
            batch.into_iter().for_each(|sample| simulation.apply(sample));
        }
        simulation.lose(self.lost.swap(0, Ordering::Relaxed));
        self.bound.store(bound(&simulation), Ordering::Relaxed);
        simulation
    }
}

impl<K, V> Engine<K, V> {
    /// Returns whether the cache is profiled.
    pub(crate) fn is_profiled(&self) -> bool {
        self.profiler.is_some()
    }

    /// Returns whether keys with this hash are sampled.
    #[inline(always)]
    pub(crate) fn samples(&self, hash: u64) -> bool {
        let bound = |profiler: &Profiler| profiler.bound.load(Ordering::Relaxed);
        self.profiler.as_deref().is_some_and(|profiler| hash < bound(profiler))
    }

    /// Samples a miss.
    #[cold]
    #[inline(never)]
    pub(crate) fn sample_miss(&self, hash: u64, now: u64, guard: &Guard) {
        self.sample((hash >> 32) as u32, now, What::Miss, guard);
    }

    fn sample(&self, hash: u32, now: u64, what: What, guard: &Guard) {
        if let Some(profiler) = &self.profiler {
            profiler.push(guard.thread_index(), Sample { hash, now, what });
        }
    }

    fn traits(&self, handle: Handle, now: u64) -> Traits {
        // SAFETY: callers found the entry under their guard, or have not recorded its event yet.
        let (weight, timing) = unsafe { (self.shape.weight(handle), self.shape.timing(handle)) };
        let until = |deadline| match deadline {
            NO_DEADLINE => NEVER,
            deadline => deadline.saturating_sub(now),
        };
        Traits {
            weight,
            ttl: timing.map_or(NEVER, |timing| until(timing.deadline())),
            max_ttl: timing.map_or(NEVER, |timing| until(timing.max_deadline())),
        }
    }

    /// Samples an event that is about to be recorded: later its entry may be unlinked, and its hash
    /// be overwritten.
    #[inline(always)]
    pub(super) fn sample_event(&self, event: Event, guard: &Guard) {
        let subject = match event {
            Event::Arrived(entry)
            | Event::Replaced { new: entry, .. }
            | Event::Retired {
                old: entry,
                expired: false,
            } => entry,
            // Simulated caches have deadlines of their own.
            Event::Retired { expired: true, .. } | Event::Released(_) => return,
        };
        // SAFETY: an entry is alive until its event is applied.
        let hash = unsafe { subject.header() }.hash();
        if self.samples(u64::from(hash) << 32) {
            self.sample_change(event, hash, guard);
        }
    }

    #[cold]
    #[inline(never)]
    fn sample_change(&self, event: Event, hash: u32, guard: &Guard) {
        // The event must be recorded even if the user's clock panics.
        let now = self.now_catching_panics(&mut Panics::default());
        let what = match event.inserted() {
            Some(new) => What::Inserted(self.traits(new, now)),
            None => What::Removed,
        };
        self.sample(hash, now, what, guard);
    }

    /// Marks a hit in a profiled cache, or one of an eager policy. A sampled entry never reaches
    /// the cache's hit limit, so each of its hits comes here.
    #[cold]
    #[inline(never)]
    pub(super) fn hit_examined(&self, found: NonNull<super::Header>, guard: &Guard) {
        let handle = Handle(found);
        // SAFETY: found under the guard, so alive while it lives.
        let header = unsafe { handle.header() };
        let hash = header.hash();
        let sampled = self.samples(u64::from(hash) << 32);
        if sampled {
            let now = self.now();
            self.sample(hash, now, What::Hit(self.traits(handle, now)), guard);
        }
        if self.eager_hits {
            return self.hit_eagerly(handle);
        }
        if !sampled && !self.time.is_active() {
            self.mark_unsampled(header);
        } else if header.hits() < self.policy_hit_limit {
            header.set_hits(header.hits() + 1);
        }
    }

    /// Marks a hit in a profiled cache, if that only takes a mark: the entry is not sampled, the
    /// policy is not eager, and no entry has a deadline. Returns whether it did.
    #[inline(never)]
    pub(super) fn try_mark_unsampled(&self, header: &super::Header) -> bool {
        let marks = !self.eager_hits && !self.time.is_active() && !self.samples(u64::from(header.hash()) << 32);
        if marks {
            self.mark_unsampled(header);
        }
        marks
    }

    /// Counts a hit of an entry that is not sampled, up to one more than the policy's limit: the
    /// next hit takes the fast path.
    #[inline(always)]
    fn mark_unsampled(&self, header: &super::Header) {
        let (hits, most) = (header.hits(), self.policy_hit_limit + 1);
        if hits < most {
            let next = if self.policy_hit_limit <= 1 { most } else { hits + 1 };
            header.set_hits(next);
        }
    }

    /// Returns the advice, or `None` if the cache is not profiled.
    pub(crate) fn advise(&self) -> Option<Advice> {
        let profiler = self.profiler.as_ref()?;
        let figures = profiler.flush().figures();
        Some(figures.advice(self.truth(profiler)))
    }

    /// Returns the advice without the optimum, and without the samples that are buffered, if there
    /// is no doubt about it. Waits for no thread: while one simulates, there is none.
    #[cfg(all(feature = "stats-file", unix))]
    pub(crate) fn curve(&self) -> Option<Advice> {
        let profiler = self.profiler.as_ref()?;
        let figures = try_lock(&profiler.simulation)?.counters();
        let advice = figures.advice(self.truth(profiler));
        advice.doubt.is_none().then_some(advice)
    }

    fn truth(&self, profiler: &Profiler) -> Truth {
        let (hits, misses, _) = self.thread_states.lookups();
        let since = |count: u64, before: &AtomicU64| count.saturating_sub(before.load(Ordering::Relaxed));
        Truth {
            hits: since(hits, &profiler.hits_before),
            lookups: since(hits + misses, &profiler.lookups_before),
            entry_bytes: self.shape.size::<K, V>() as u64 + TABLE_BYTES,
        }
    }

    /// Removes all keys from the simulation.
    pub(super) fn clear_profile(&self) {
        if let Some(profiler) = &self.profiler {
            profiler.flush().clear();
        }
    }

    /// Begins a new simulation, for a new capacity.
    pub(super) fn restart_profile(&self, capacity: u64) {
        if let Some(profiler) = &self.profiler {
            let (kind, weighted, idle) = profiler.settings;
            let mut simulation = profiler.flush();
            *simulation = Simulation::new(kind, capacity, weighted, idle);
            profiler.bound.store(bound(&simulation), Ordering::Relaxed);
            let (hits, misses, _) = self.thread_states.lookups();
            profiler.hits_before.store(hits, Ordering::Relaxed);
            profiler.lookups_before.store(hits + misses, Ordering::Relaxed);
        }
    }
}
