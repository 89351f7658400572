//! Joins map and policy: what changes in the map is recorded for the policy, what the policy gives up leaves the map.
//!
//! An entry is owned by the map while it is in it. The thread whose compare-and-swap unlinks it owns its retirement:
//! it shows the entry to the removal listener, and then records the event. Both the arrival and the retirement
//! are recorded, and may be applied in either order; who applies the second puts the entry into the limbo, which frees it
//! when no reader can see it any more.
//!
//! No user code runs here while the maintenance lock is held, and none while a slot of the map is half changed.

mod core;
mod deferred;
mod entry;
mod event;
mod expiry;
mod limbo;
#[cfg(all(test, loom))]
mod loom_tests;
mod maintenance;
mod maintenance_lock;
mod overflow;
mod record;
mod run_deferred;
mod sizing;
mod snapshot;
#[cfg(all(test, not(loom)))]
mod tests;
mod thread_state;
mod views;
mod write;
mod writer;

use self::core::{CallerGuard, Core};
use self::deferred::DeferredWork;
use self::maintenance::Rings;
use self::thread_state::ThreadStates;
use crate::error::BuildError;
use crate::expiry::Ttl;
use crate::map::{Header, Map};
use crate::policy::{Policy, PolicyKind};
use crate::prim::panics::Panics;
use crate::prim::sync::{AtomicU8, AtomicU64, Ordering, Padded};
use crate::reclaim::{Brief, Domain, Guard};
use crate::stats::Cause;
use maintenance_lock::MaintenanceLock;
use std::cell::UnsafeCell;
use std::ptr::NonNull;

pub(crate) use entry::{Deadlines, Entry, ExpiryRef, Handle, Shape};
pub(crate) use expiry::ExpirySettings;
pub(crate) use snapshot::Listed;

/// Called for every entry that leaves, by the thread that unlinked it.
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, Cause) + Send + Sync>;

pub(crate) struct Settings<K, V> {
    pub(crate) policy: PolicyKind,
    /// In weight units; entries weigh 1 unless `weighted`.
    pub(crate) capacity: u64,
    pub(crate) weighted: bool,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) time: ExpirySettings<K, V>,
}

/// Beyond what any policy has an entry's hits counted to.
const COUNT_ALL_HITS: u8 = u8::MAX;
/// Timers looked at in one go: a million entries that end in the same instant must not hold up anyone.
const EXPIRE_BUDGET: usize = 64;

pub(crate) struct Engine<K, V> {
    // What lookups read comes first, and is hardly ever written.
    domain: Domain,
    map: Map,
    thread_states: ThreadStates,
    shape: Shape,
    /// Hits are noted in the entry up to this number; beyond all numbers if each has to be looked at.
    hit_limit: AtomicU8,
    /// The policy wants to hear of hits when they happen.
    eager_hits: bool,
    /// How far the policy wants hits to be counted in the entry.
    policy_hit_limit: u8,
    listener: Option<Listener<K, V>>,
    time: ExpirySettings<K, V>,
    // What the housekeeping writes, on lines of its own.
    work: Padded<Work>,
    _owns: std::marker::PhantomData<Entry<K, V>>,
}

struct Work {
    lock: MaintenanceLock,
    core: UnsafeCell<Core>,
    published: Published,
}

// SAFETY: `core` is only touched by the holder of `lock`; entries (and with them K and V) are read, shown to listeners
// and dropped by any thread.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for Engine<K, V> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, V: Send + Sync> Send for Engine<K, V> {}

/// What the holder of the lock tells everybody, as of the last housekeeping.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) len: AtomicU64,
    pub(crate) weight: AtomicU64,
    pub(crate) insertions: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) rejections: AtomicU64,
    pub(crate) expirations: AtomicU64,
}

impl<K, V> Engine<K, V> {
    pub(crate) fn new(settings: Settings<K, V>) -> Result<Self, BuildError> {
        let shape = Shape {
            weighted: settings.weighted,
            timed: settings.time.applies_to_all(),
            moving: settings.time.hits_move_deadlines() || settings.time.refresh_after.is_some(),
        };
        if !shape.has_plain_pointers::<K, V>() {
            return Err(BuildError::TaggedPointers);
        }
        if (shape.timed || shape.moving) && !settings.time.clock.is_available() {
            return Err(BuildError::NoClock);
        }
        if shape.timed {
            settings.time.activate();
        }
        let map = Map::for_entries(sizing::first_size(settings.capacity, settings.weighted))?;
        let domain = Domain::new();
        let slots = map.slots(&domain.pin());
        let listened = settings.listener.is_some();
        let drops = std::mem::needs_drop::<Entry<K, V>>();
        let core = Core::new((settings.policy, settings.capacity), shape, listened, drops, slots);
        let published = Published::default();
        Ok(Self {
            domain,
            map,
            thread_states: ThreadStates::new(settings.capacity, core.policy.eager_hits()),
            shape,
            hit_limit: AtomicU8::new(if shape.timed {
                COUNT_ALL_HITS
            } else {
                core.policy.hit_limit()
            }),
            eager_hits: core.policy.eager_hits(),
            policy_hit_limit: core.policy.hit_limit(),
            listener: settings.listener,
            time: settings.time,
            work: Padded(Work {
                lock: MaintenanceLock::new(),
                core: UnsafeCell::new(core),
                published,
            }),
            _owns: std::marker::PhantomData,
        })
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Pins the calling thread: what it finds in the map is not freed while the guard lives.
    #[inline(always)]
    pub(crate) fn pin(&self) -> Guard {
        self.domain.pin()
    }

    /// [`pin`](Self::pin) for a call that ends before its thread does, if that needs no further look.
    #[inline(always)]
    pub(crate) fn pin_briefly(&self) -> Option<Brief> {
        self.domain.pin_briefly()
    }

    /// [`pin`](Self::pin), with a SeqCst fence.
    #[inline(always)]
    pub(crate) fn pin_fenced(&self) -> Guard {
        self.domain.pin_fenced()
    }

    /// What each thread has of its own.
    #[inline]
    pub(crate) fn thread_states(&self) -> &ThreadStates {
        &self.thread_states
    }

    /// What a cache's settings say of time.
    #[inline(always)]
    pub(crate) fn time(&self) -> &ExpirySettings<K, V> {
        &self.time
    }

    /// The present, if any entry may have times; else 0, when nothing is over yet.
    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        if self.time.is_active() {
            self.time.clock.now()
        } else {
            0
        }
    }

    /// [`now`](Self::now), for a call that must go on to its end even if the user's clock panics.
    #[inline]
    pub(super) fn now_catching_panics(&self, panics: &mut Panics) -> u64 {
        let mut now = 0;
        if self.time.is_active() {
            panics.catch(|| now = self.time.clock.now());
        }
        now
    }

    /// The present, if an entry with this time to live needs to know; else 0.
    #[inline]
    pub(crate) fn now_for(&self, ttl: Ttl) -> u64 {
        if ttl == Ttl::Default {
            self.now()
        } else {
            self.time.clock.now()
        }
    }

    /// [`now`](Self::now), for calls that are not pinned: what is over by then is taken out, if nobody else is at it.
    #[inline]
    pub(crate) fn now_and_expire(&self) -> u64 {
        let now = self.now();
        self.expire_if_due(now);
        now
    }

    /// Takes out entries whose time is over, if there may be any and nobody else is at it. For callers that are not pinned.
    #[inline(always)]
    pub(crate) fn expire_if_due(&self, now: u64) {
        if now != 0 && now >= self.time.next_deadline() {
            self.expire(now);
        }
    }

    /// The times of an entry that was found in the map.
    #[inline]
    pub(crate) fn timing<'g>(&self, found: Handle, _guard: &'g Guard) -> Option<ExpiryRef<'g>> {
        // SAFETY: found under the guard, so alive while it lives.
        unsafe { self.shape.timing(found) }
    }

    /// Whether an entry that was found is due for a reload, which the caller then has to see to.
    #[inline]
    pub(crate) fn claim_reload(&self, found: &Entry<K, V>, now: u64, guard: &Guard) -> bool {
        now != 0
            && self.time.refresh_after.is_some()
            && self
                .timing(Handle::of(found), guard)
                .is_some_and(|timing| timing.claim_reload(now))
    }

    /// Whether an entry's time was over at `now`; the caller keeps the entry alive.
    #[inline(always)]
    pub(crate) fn is_expired(&self, found: NonNull<Header>, now: u64) -> bool {
        // SAFETY: the caller is pinned since it found the entry, or owns its retirement.
        now != 0 && unsafe { self.shape.timing(Handle(found)) }.is_some_and(|timing| timing.deadline() <= now)
    }

    /// Lets a hit move the entry's deadline. Runs user code.
    #[inline]
    pub(crate) fn update_deadline(&self, found: Handle, now: u64, guard: &Guard) {
        if let Some(timing) = self.timing(found, guard) {
            let entry = Self::view(found.0);
            if self.time.hit(timing, &entry.key, &entry.value, now) {
                // Sooner than the wheel knows, which may not even have a timer for it: it must be told.
                let deferred = self.with_core(guard, |core| core.reschedule_earlier(found));
                self.run_deferred(deferred, self.pin());
            }
        }
    }

    /// Counts a hit of an entry that was found in the map, if the policy need not hear of it now. Else false.
    #[inline(always)]
    pub(crate) fn try_mark_hit(&self, found: NonNull<Header>, _guard: &Guard) -> bool {
        // SAFETY: found under the guard, so alive while it lives.
        let header = unsafe { Handle(found).header() };
        let hits = header.hits();
        if hits < self.hit_limit.load(Ordering::Relaxed) {
            if self.eager_hits || self.time.is_active() {
                return false;
            }
            header.set_hits(hits.saturating_add(1));
        }
        true
    }

    /// Tells the policy of a hit, now if it wants that.
    #[inline(always)]
    pub(crate) fn hit(&self, found: NonNull<Header>, _guard: &Guard) {
        if self.eager_hits {
            return self.hit_eagerly(Handle(found));
        }
        // SAFETY: found under the guard, so alive while it lives.
        let header = unsafe { Handle(found).header() };
        let hits = header.hits();
        if hits < self.policy_hit_limit {
            header.set_hits(hits + 1);
        }
    }

    /// Whether a hit is nothing but writing it down, also in a cache with times.
    #[inline(always)]
    pub(crate) fn hits_only_mark(&self) -> bool {
        !self.eager_hits && !self.time.hits_move_deadlines()
    }

    /// From now on entries may have times, so every hit has to look at the clock. Takes effect before the caller publishes
    /// its entry: who finds that has seen this.
    pub(super) fn activate_time(&self) {
        self.time.activate();
        self.hit_limit.store(COUNT_ALL_HITS, Ordering::Relaxed);
    }

    /// The entry behind a header found in the map, for as long as the guard under which it was found.
    #[inline]
    pub(crate) fn view<'g>(header: NonNull<Header>) -> &'g Entry<K, V> {
        // SAFETY: all entries of this map were made for K and V; callers hold a guard.
        unsafe { Handle(header).entry() }
    }

    /// Tells the policy of a hit now if that needs no waiting; else marks the entry, which gives it a second chance.
    fn hit_eagerly(&self, handle: Handle) {
        if let Some(held) = self.work.0.lock.try_lock() {
            // A guard of its own: what the caller found stays protected by the caller's.
            let guard = self.pin();
            let hit = |core: &mut Core| {
                // SAFETY: found under a guard.
                if unsafe { handle.header() }.place() <= crate::policy::MAX_PLACE {
                    core.policy.hit(&core.policy_view, handle);
                }
            };
            // SAFETY: nothing was found under the guard.
            let deferred =
                unsafe { self.maintain_with_guard(held, &guard, CallerGuard::Spent(&guard), Rings::Subset, hit) };
            self.run_deferred(deferred, guard);
        } else {
            #[cfg(all(test, not(loom)))]
            tests::MARKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // SAFETY: found under a guard.
            unsafe { handle.header() }.set_hits(1);
        }
    }
}

impl<K, V> Drop for Engine<K, V> {
    fn drop(&mut self) {
        let mut panics = Panics::default();
        let guard = self.pin();
        // No other thread can hold the lock: it is free or poisoned.
        let deferred = match self.work.0.lock.try_lock() {
            Some(held) => self.maintain(held, &guard, Rings::All, |_| ()),
            None => DeferredWork::nothing(),
        };
        drop(guard);
        for &(handle, cause) in &deferred.evicted {
            self.notify(handle, cause, &mut panics);
        }
        let mut garbage: Vec<Handle> = deferred.evicted.into_iter().map(|(handle, _)| handle).collect();
        // After a panic under the lock the core is not looked at any more: what it alone knows of is leaked.
        if !self.is_poisoned() {
            garbage.extend(self.work.0.core.get_mut().drain());
        }
        self.map.drain(|header| garbage.push(Handle(header)));
        let mut nonstandard = deferred.nonstandard;
        let mut drop_contents = |handle| {
            // SAFETY: `&mut self`: no other thread can reach it, and each is in one place only.
            panics.catch(|| unsafe { self.shape.drop_contents::<K, V>(handle) });
        };
        for handle in garbage {
            // SAFETY: alive until its contents are dropped below; the header lasts until its memory is released.
            let timed = unsafe { handle.header() }.is_timed();
            drop_contents(handle);
            // SAFETY: its contents were just dropped.
            unsafe { self.shape.release::<K, V>(handle, timed) };
        }
        let (mut free, shape) = (deferred.free, self.shape);
        while let Some(previous) = nonstandard.pop() {
            drop_contents(previous);
            // SAFETY: as above; what is odd has times if the usual has none, and the other way round.
            unsafe { shape.release::<K, V>(previous, !shape.timed) };
        }
        while let Some(previous) = free.pop() {
            drop_contents(previous);
            // SAFETY: as above; only what is usual is put into chains.
            unsafe { shape.release::<K, V>(previous, shape.timed) };
        }
        let release_recycled = |recycled| {
            // SAFETY: its contents were dropped before it became a spare.
            unsafe { shape.release::<K, V>(recycled, shape.timed) };
        };
        for bulk in deferred.bulk.into_iter().chain(self.work.0.core.get_mut().drain_bulk()) {
            let mut recycled = bulk.into_recycled(drop);
            while let Some(recycled) = recycled.pop() {
                release_recycled(recycled);
            }
        }
        self.thread_states.drain_recycled(release_recycled);
        panics.resume();
    }
}
