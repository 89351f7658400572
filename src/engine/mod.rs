//! The engine: joins the map and the policy.
//!
//! # Ownership of entries
//!
//! The map owns an entry while it is in it. The thread whose compare-and-swap unlinks the entry
//! owns its retirement: it calls the removal listener with the entry, then records the event
//! (invariant 8). Arrival and retirement are both recorded, and may be applied in either order.
//! Whichever event is applied second puts the entry into the limbo, which frees it once no pinned
//! reader can reference it (invariant 9).
//!
//! # User code
//!
//! No user code runs while the maintenance lock is held (invariant 10), nor while a slot of the map
//! is half changed.
//!
//! # Files
//!
//! [`mod@write`] changes the map, [`record`] brings the change to the policy, [`maintenance`]
//! applies it under the [`maintenance_lock`], and [`run_deferred`] runs what must wait for the
//! unlock.

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
mod profiling;
mod record;
mod run_deferred;
mod sizing;
#[cfg(feature = "snapshot")]
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
use crate::clock::COARSE_LAG;
use crate::error::BuildError;
use crate::expiry::Ttl;
use crate::map::{Header, Map};
use crate::policy::{Policy, PolicyKind};
use crate::prim::panics::Panics;
use crate::prim::sync::{AtomicU8, AtomicU64, Ordering, Padded};
use crate::profile::Autosize;
use crate::reclaim::{Domain, FastGuard, Guard};
use crate::stats::Cause;
use maintenance_lock::MaintenanceLock;
use std::cell::UnsafeCell;
use std::ptr::NonNull;

use entry::Age;
pub(crate) use entry::{Deadlines, Entry, ExpiryRef, Handle, Shape};
pub(crate) use expiry::ExpirySettings;
pub(crate) use profiling::Profiler;
#[cfg(feature = "snapshot")]
pub(crate) use snapshot::Listed;

/// Called with every entry that leaves the cache, by the thread that unlinked it.
pub(crate) type Listener<K, V> = Box<dyn Fn(&K, &V, Cause) + Send + Sync>;

/// Returns the address of the memory that dropping a value reads first.
pub(crate) type Pointee<V> = fn(&V) -> *const ();

pub(crate) struct Settings<K, V> {
    pub(crate) policy: PolicyKind,
    /// In weight units; every entry weighs 1 unless `weighted`.
    pub(crate) capacity: u64,
    pub(crate) weighted: bool,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) pointee: Option<Pointee<V>>,
    pub(crate) time: ExpirySettings<K, V>,
    pub(crate) profile: bool,
    pub(crate) autosize: Option<Autosize>,
}

/// A hit limit above that of any policy, so that every hit is examined.
const COUNT_ALL_HITS: u8 = u8::MAX;
/// The most timers that one visit handles. Without it, a million entries with one deadline would
/// delay other threads.
const EXPIRE_BUDGET: usize = 64;

pub(crate) struct Engine<K, V> {
    // Fields that lookups read come first, and are hardly ever written.
    domain: Domain,
    map: Map,
    thread_states: ThreadStates,
    shape: Shape,
    /// Hits are counted in the entry up to this number. [`COUNT_ALL_HITS`] if every hit must be
    /// examined.
    hit_limit: AtomicU8,
    /// Whether the policy must be called for every hit.
    eager_hits: bool,
    /// Whether hits below the hit limit need more than a mark: those of an eager policy, and in a
    /// profiled cache.
    examines_hits: bool,
    /// Whether arrivals need more than an event: in a weighted or a profiled cache.
    examines_arrivals: bool,
    /// The policy's own hit limit.
    policy_hit_limit: u8,
    listener: Option<Listener<K, V>>,
    pointee: Option<Pointee<V>>,
    time: ExpirySettings<K, V>,
    /// The weight of the evicted entries as of the last maintenance, which writes it in weighted
    /// caches only. Not in [`Published`]: it would fill another pair of cache lines.
    evicted_weight: AtomicU64,
    profiler: Option<Box<Profiler>>,
    // Fields that maintenance writes are on cache lines of their own.
    work: Padded<Work>,
    _owns: std::marker::PhantomData<Entry<K, V>>,
}

struct Work {
    lock: MaintenanceLock,
    core: UnsafeCell<Core>,
    published: Published,
}

// SAFETY: only the holder of `lock` touches `core`. Any thread reads entries (and with them K and
// V), passes them to listeners, and drops them.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for Engine<K, V> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, V: Send + Sync> Send for Engine<K, V> {}

/// What the lock holder publishes for all threads, as of the last maintenance.
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
    pub(crate) fn new(mut settings: Settings<K, V>) -> Result<Self, BuildError> {
        let shape = Shape::new::<K, V>(
            settings.weighted,
            settings.time.applies_to_all(),
            settings.time.hits_move_deadlines() || settings.time.refresh_after.is_some(),
        );
        if !shape.has_plain_pointers::<K, V>() {
            return Err(BuildError::TaggedPointers);
        }
        if (shape.timed || shape.moving) && !settings.time.clock.is_available() {
            return Err(BuildError::NoClock);
        }
        settings.time.prepare();
        let map = Map::for_entries(sizing::first_size(settings.capacity, settings.weighted))?;
        let domain = Domain::new();
        let slots = map.slots(&domain.pin());
        let listened = settings.listener.is_some();
        let drops = std::mem::needs_drop::<Entry<K, V>>();
        let core = Core::new((settings.policy, settings.capacity), shape, listened, drops, slots);
        let published = Published::default();
        let profiler = settings.profile.then(|| {
            let idle = settings.time.time_to_idle;
            Box::new(Profiler::new(
                settings.policy,
                settings.capacity,
                settings.weighted,
                idle,
                settings.autosize,
            ))
        });
        let profiled = profiler.is_some();
        Ok(Self {
            domain,
            map,
            thread_states: ThreadStates::new(settings.capacity, core.policy.eager_hits()),
            shape,
            hit_limit: AtomicU8::new(if shape.timed {
                COUNT_ALL_HITS
            } else {
                // In a profiled cache, only entries that are not sampled reach the limit.
                core.policy.hit_limit() + u8::from(profiled)
            }),
            eager_hits: core.policy.eager_hits(),
            examines_hits: core.policy.eager_hits() || profiled,
            examines_arrivals: settings.weighted || profiled,
            policy_hit_limit: core.policy.hit_limit(),
            listener: settings.listener,
            pointee: settings.pointee,
            time: settings.time,
            evicted_weight: AtomicU64::new(0),
            profiler,
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

    /// Pins the calling thread: entries that it finds in the map are not freed while the guard
    /// lives.
    #[inline(always)]
    pub(crate) fn pin(&self) -> Guard {
        self.domain.pin()
    }

    /// Returns a cheaper [`pin`](Self::pin) for a call that ends before its thread does; `None` if
    /// there is none.
    #[inline(always)]
    pub(crate) fn pin_fast(&self) -> Option<FastGuard> {
        self.domain.pin_fast()
    }

    /// Same as [`pin`](Self::pin), with a SeqCst fence.
    #[inline(always)]
    pub(crate) fn pin_fenced(&self) -> Guard {
        self.domain.pin_fenced()
    }

    /// Returns the per-thread states.
    #[inline]
    pub(crate) fn thread_states(&self) -> &ThreadStates {
        &self.thread_states
    }

    /// Returns the expiration settings.
    #[inline(always)]
    pub(crate) fn time(&self) -> &ExpirySettings<K, V> {
        &self.time
    }

    /// Returns the current time if any entry may have a deadline, else 0, at which no entry has
    /// expired.
    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        if self.time.is_active() {
            self.time.clock.now()
        } else {
            0
        }
    }

    /// Returns a time that is not later than [`now`](Self::now), and less than
    /// [`COARSE_LAG`](crate::clock::COARSE_LAG) earlier. `None` if no entry has a deadline, or no
    /// such time is cheaper.
    #[inline(always)]
    pub(crate) fn coarse_now(&self) -> Option<u64> {
        self.time.is_active().then(|| self.time.clock.coarse_now()).flatten()
    }

    /// Same as [`now`](Self::now), for a call that must complete even if the user's clock panics.
    #[inline]
    pub(super) fn now_catching_panics(&self, panics: &mut Panics) -> u64 {
        let mut now = 0;
        if self.time.is_active() {
            panics.catch(|| now = self.time.clock.now());
        }
        now
    }

    /// Returns the current time if an entry with this `ttl` needs it, else 0. For a long TTL it is
    /// up to [`COARSE_LAG`](crate::clock::COARSE_LAG) early.
    #[inline]
    pub(crate) fn now_for(&self, ttl: Ttl) -> u64 {
        if ttl == Ttl::Default && !self.time.is_active() {
            return 0;
        }
        let coarse = if self.time.is_long(ttl) {
            self.time.clock.coarse_now()
        } else {
            None
        };
        coarse.unwrap_or_else(|| self.time.clock.now())
    }

    /// Same as [`now`](Self::now), and removes expired entries if maintenance is free. For callers
    /// that are not pinned.
    #[inline]
    pub(crate) fn now_and_expire(&self) -> u64 {
        let now = self.now();
        self.expire_if_due(now);
        now
    }

    /// Removes expired entries if a deadline has passed and maintenance is free. For callers that
    /// are not pinned.
    #[inline(always)]
    pub(crate) fn expire_if_due(&self, now: u64) {
        if now != 0 && now >= self.time.next_deadline() {
            self.expire(now);
        }
    }

    /// Returns the deadlines of an entry that was found in the map.
    #[inline]
    pub(crate) fn timing<'g>(&self, found: Handle, _guard: &'g Guard) -> Option<ExpiryRef<'g>> {
        // SAFETY: found under the guard, so alive while it lives.
        unsafe { self.shape.timing(found) }
    }

    /// Returns whether `found`, which is a hit, is due for a reload. After `true`, the caller must
    /// reload it. Counts a hit on a value past its refresh age.
    #[inline]
    pub(crate) fn claim_reload(&self, found: &Entry<K, V>, now: u64, guard: &Guard) -> bool {
        if now == 0 || self.time.refresh_after.is_none() {
            return false;
        }
        let Some(timing) = self.timing(Handle::of(found), guard) else {
            return false;
        };
        let age = timing.claim_reload(now);
        if age != Age::Fresh {
            self.thread_states.count_stale(guard);
        }
        age == Age::Due
    }

    /// Returns the weight of all evicted entries, as of `published`.
    pub(crate) fn evicted_weight(&self, published: &Published) -> u64 {
        match self.shape.weighted {
            true => self.evicted_weight.load(Ordering::Relaxed),
            // Each entry weighs 1, so it is not counted a second time.
            false => published.evictions.load(Ordering::Relaxed),
        }
    }

    /// Returns whether an entry has expired at `now`. The caller keeps the entry alive.
    #[inline(always)]
    pub(crate) fn is_expired(&self, found: NonNull<Header>, now: u64) -> bool {
        // SAFETY: the caller has been pinned since it found the entry, or owns its retirement.
        now != 0 && unsafe { self.shape.timing(Handle(found)) }.is_some_and(|timing| timing.deadline() <= now)
    }

    /// Moves the deadline of an entry after a hit. Runs user code.
    #[inline]
    pub(crate) fn update_deadline(&self, found: Handle, now: u64, guard: &Guard) {
        if let Some(timing) = self.timing(found, guard) {
            let entry = Self::view(found.0);
            if self.time.hit(timing, &entry.key, &entry.value, now) {
                // The wheel has a later deadline, or no timer at all, so the timer is set again.
                let deferred = self.with_core(guard, |core| core.reschedule_earlier(found));
                self.run_deferred(deferred, self.pin());
            }
        }
    }

    /// Counts a hit of an entry that was found in the map. Returns false if the hit needs
    /// [`hit`](Self::hit) or the clock.
    #[inline(always)]
    pub(crate) fn try_mark_hit(&self, found: NonNull<Header>, _guard: &Guard) -> bool {
        // SAFETY: found under the guard, so alive while it lives.
        let header = unsafe { Handle(found).header() };
        let hits = header.hits();
        if hits < self.hit_limit.load(Ordering::Relaxed) {
            if self.examines_hits {
                return self.is_profiled() && self.try_mark_unsampled(header);
            }
            if self.time.is_active() {
                return false;
            }
            header.set_hits(hits.saturating_add(1));
        }
        true
    }

    /// Counts a hit of an entry that was found in the map, in a cache whose entries may expire.
    /// Returns false if the hit needs more than that: the entry has expired, or may soon, hits move
    /// deadlines or are examined, or maintenance is due.
    ///
    /// Out of line, so that it costs lookups in other caches no registers.
    #[inline(never)]
    pub(crate) fn try_hit_alive(&self, found: NonNull<Header>, _guard: &Guard) -> bool {
        if self.examines_hits || self.time.hits_move_deadlines() || !self.time.is_active() {
            return false;
        }
        let (earliest, latest) = match self.time.clock.coarse_now() {
            Some(earliest) => (earliest, earliest + COARSE_LAG),
            None => {
                let now = self.time.clock.now();
                (now, now)
            }
        };
        if earliest >= self.time.next_deadline() || self.is_expired(found, latest) {
            return false;
        }
        // SAFETY: found under the guard, so alive while it lives.
        let header = unsafe { Handle(found).header() };
        let hits = header.hits();
        if hits < self.policy_hit_limit {
            header.set_hits(hits + 1);
        }
        true
    }

    /// Records a hit for the policy, immediately if the policy is eager.
    #[inline(always)]
    pub(crate) fn hit(&self, found: NonNull<Header>, guard: &Guard) {
        if self.examines_hits {
            return self.hit_examined(found, guard);
        }
        // SAFETY: found under the guard, so alive while it lives.
        let header = unsafe { Handle(found).header() };
        let hits = header.hits();
        if hits < self.policy_hit_limit {
            header.set_hits(hits + 1);
        }
    }

    /// Returns whether a hit only counts, also in a cache with an expiration.
    #[inline(always)]
    pub(crate) fn hits_only_mark(&self) -> bool {
        !self.eager_hits && !self.time.hits_move_deadlines()
    }

    /// Has every hit read the clock from now on, since entries may have deadlines. Takes effect
    /// before the caller publishes its entry, so a thread that finds the entry sees it.
    pub(super) fn activate_time(&self) {
        self.time.activate();
        self.hit_limit.store(COUNT_ALL_HITS, Ordering::Relaxed);
    }

    /// Returns the entry of a header that was found in the map. It is valid as long as the guard
    /// under which it was found.
    #[inline]
    pub(crate) fn view<'g>(header: NonNull<Header>) -> &'g Entry<K, V> {
        // SAFETY: all entries of this map were made for K and V; callers hold a guard.
        unsafe { Handle(header).entry() }
    }

    /// Applies a hit to the policy if the lock is free. Otherwise marks the entry, which gives it a
    /// second chance.
    fn hit_eagerly(&self, handle: Handle) {
        if let Some(held) = self.work.0.lock.try_lock() {
            // A guard of its own: the caller's guard keeps protecting what the caller found.
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
            Some(held) => self.maintain(held, &guard, Rings::All, &mut |_| ()),
            None => DeferredWork::nothing(),
        };
        drop(guard);
        for &(handle, cause) in &deferred.evicted {
            self.notify(handle, cause, &mut panics);
        }
        let mut garbage: Vec<Handle> = deferred.evicted.into_iter().map(|(handle, _)| handle).collect();
        // A panic under the lock may leave the core half changed, so entries that only the core
        // knows are leaked.
        if !self.is_poisoned() {
            garbage.extend(self.work.0.core.get_mut().drain());
        }
        self.map.drain(|header| garbage.push(Handle(header)));
        let mut nonstandard = deferred.nonstandard;
        let mut drop_contents = |handle| {
            // SAFETY: `&mut self`: no other thread can reach it, and each entry is in one place
            // only.
            panics.catch(|| unsafe { self.shape.drop_contents::<K, V>(handle) });
        };
        for handle in garbage {
            // SAFETY: alive until its contents are dropped below; the header lasts until its memory
            // is released.
            let timed = unsafe { handle.header() }.is_timed();
            drop_contents(handle);
            // SAFETY: its contents were just dropped.
            unsafe { self.shape.release::<K, V>(handle, timed) };
        }
        let (mut free, shape) = (deferred.free, self.shape);
        while let Some(previous) = nonstandard.pop() {
            drop_contents(previous);
            // SAFETY: as above; the nonstandard layout has deadlines if the standard one has none,
            // and vice versa.
            unsafe { shape.release::<K, V>(previous, !shape.timed) };
        }
        while let Some(previous) = free.pop() {
            drop_contents(previous);
            // SAFETY: as above; `free` holds only entries of the standard layout.
            unsafe { shape.release::<K, V>(previous, shape.timed) };
        }
        let release_recycled = |recycled| {
            // SAFETY: its contents were dropped before it was recycled.
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
