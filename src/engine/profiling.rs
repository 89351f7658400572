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
use crate::profile::{Advice, Autosize, NEVER, Sample, Simulation, Traits, Truth, What, is_bound};
use crate::reclaim::Guard;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

/// Threads share this many buffers.
const BUFFERS: usize = 16;
/// A thread that fills a buffer with this many samples simulates them: the work of one call.
const BATCH: usize = 32;
/// The most samples that wait in a buffer.
const FULL: usize = 512;
/// A step towards a smaller capacity is this part of the current one.
const STEPS: u64 = 256;
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
    autosize: Option<Autosize>,
    /// The capacity that the cache approaches; 0 if it has the right one.
    goal: AtomicU64,
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
    pub(crate) fn new(
        kind: PolicyKind,
        capacity: u64,
        weighted: bool,
        idle: Option<u64>,
        autosize: Option<Autosize>,
    ) -> Self {
        let idle = idle.unwrap_or(NEVER);
        let mut simulation = Simulation::new(kind, capacity, weighted, idle);
        if autosize.is_some() {
            // A cache that is being filled must not shrink for want of hits.
            simulation.require_warm_up();
        }
        Self {
            bound: bound(&simulation).into(),
            buffers: std::array::from_fn(|_| Mutex::new(Vec::new())),
            simulation: Mutex::new(simulation),
            lost: AtomicU64::new(0),
            hits_before: AtomicU64::new(0),
            lookups_before: AtomicU64::new(0),
            settings: (kind, weighted, idle),
            autosize,
            goal: AtomicU64::new(0),
        }
    }

    /// Buffers a sample. Simulates what the buffer holds if it is due and the simulation free.
    /// Returns whether a period ends: of the warm-up, or before a decision about the capacity.
    fn push(&self, thread: usize, sample: Sample) -> bool {
        let Some(mut buffer) = try_lock(&self.buffers[thread % BUFFERS]) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        if buffer.len() >= FULL {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            buffer.push(sample);
        }
        if buffer.len() < BATCH {
            return false;
        }
        let Some(mut simulation) = try_lock(&self.simulation) else {
            return false;
        };
        // At most a batch per call, unless other threads kept the simulation busy before.
        let batch = mem::replace(&mut *buffer, Vec::with_capacity(BATCH));
        // Not held while simulating: a thread with the same buffer must not lose its samples.
        drop(buffer);
        batch.into_iter().for_each(|sample| simulation.apply(sample));
        self.bound.store(bound(&simulation), Ordering::Relaxed);
        (self.autosize.is_some() || !simulation.is_warm()) && simulation.is_due()
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

    /// Samples the removal of a key that the cache does not have. Larger caches might.
    #[cold]
    #[inline(never)]
    pub(super) fn sample_removal(&self, hash: u64, guard: &Guard) {
        self.sample((hash >> 32) as u32, 0, What::Removed, guard);
    }

    fn sample(&self, hash: u32, now: u64, what: What, guard: &Guard) {
        if let Some(profiler) = &self.profiler {
            let is_due = profiler.push(guard.thread_index(), Sample { hash, now, what });
            if is_due {
                self.end_period(profiler);
            }
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

    /// Samples an event that is about to be recorded: later its entry may be
    /// freed.
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

    /// Simulates multiples of the current capacity from now on.
    pub(super) fn resize_profile(&self) {
        if let Some(profiler) = &self.profiler {
            let mut simulation = profiler.flush();
            self.resize_simulation(profiler, &mut simulation, self.thread_states.capacity());
        }
    }

    fn resize_simulation(&self, profiler: &Profiler, simulation: &mut Simulation, capacity: u64) {
        let (kind, weighted, idle) = profiler.settings;
        if is_bound(capacity, weighted) && is_bound(simulation.capacity(), weighted) {
            simulation.resize(capacity);
        } else {
            *simulation = Simulation::new(kind, capacity, weighted, idle);
            simulation.require_warm_up();
        }
        profiler.bound.store(bound(simulation), Ordering::Relaxed);
        self.forget_truth(profiler, 1);
    }

    /// Forgets all lookups so far, or half of them.
    fn forget_truth(&self, profiler: &Profiler, divisor: u64) {
        let (hits, misses, _) = self.thread_states.lookups();
        for (count, before) in [(hits, &profiler.hits_before), (hits + misses, &profiler.lookups_before)] {
            let since = count.saturating_sub(before.load(Ordering::Relaxed));
            before.store(count - since + since / divisor, Ordering::Relaxed);
        }
    }

    /// Ends the warm-up, or decides which capacity the cache gets.
    #[cold]
    #[inline(never)]
    fn end_period(&self, profiler: &Profiler) {
        let Some(mut simulation) = try_lock(&profiler.simulation) else {
            return;
        };
        if !simulation.is_due() {
            return; // another thread was faster
        }
        let capacity = self.thread_states.capacity();
        if simulation.capacity() != capacity {
            return self.resize_simulation(profiler, &mut simulation, capacity);
        }
        if !simulation.is_warm() {
            simulation.end_warm_up();
            return self.forget_truth(profiler, 1);
        }
        let (_, weighted, _) = profiler.settings;
        let Some(autosize) = profiler.autosize.as_ref().filter(|_| is_bound(capacity, weighted)) else {
            return;
        };
        let advice = simulation.counters().advice(self.truth(profiler));
        // A goal that was not approached for want of insertions may be replaced, or dropped.
        profiler
            .goal
            .store(autosize.goal(&advice).unwrap_or(0), Ordering::Relaxed);
        simulation.halve_counts();
        self.forget_truth(profiler, 2);
    }

    /// Drops the last decision about the capacity, if it is not carried out yet.
    pub(super) fn drop_goal(&self) {
        if let Some(profiler) = &self.profiler {
            profiler.goal.store(0, Ordering::Relaxed);
        }
    }

    /// Carries out a step of the last decision about the capacity, if there is one. A cache grows
    /// in one step. It shrinks in many, so that no call evicts more than a small part of it.
    #[inline(always)]
    pub(super) fn approach_goal(&self) {
        if let Some(profiler) = &self.profiler
            && profiler.goal.load(Ordering::Relaxed) != 0
        {
            self.step_to_goal(profiler);
        }
    }

    #[cold]
    #[inline(never)]
    fn step_to_goal(&self, profiler: &Profiler) {
        // The listener might panic once more. Another change takes the step.
        if thread::panicking() {
            return;
        }
        let (mut has_arrived, guard) = (false, self.pin());
        let deferred = self.with_core(&guard, |core| {
            let (goal, now) = (profiler.goal.load(Ordering::Relaxed), self.thread_states.capacity());
            if goal == 0 {
                return; // another thread was faster
            }
            let next = goal.max(now - (now / STEPS).max(1).min(now));
            if next == goal {
                profiler.goal.store(0, Ordering::Relaxed);
                has_arrived = true;
            }
            self.thread_states.set_capacity(next);
            core.set_capacity(next, &self.map, &guard);
        });
        let mut panics = Panics::default();
        panics.catch(|| self.run_deferred(deferred, guard));
        if has_arrived {
            panics.catch(|| self.fit_table(false));
            self.resize_profile();
        }
        panics.resume();
    }
}
