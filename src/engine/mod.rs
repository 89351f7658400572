//! Joins map and policy: what changes in the map is recorded for the policy, what the policy gives up leaves the map.
//!
//! An entry is owned by the map while it is in it. The thread whose compare-and-swap unlinks it owns its retirement:
//! it shows the entry to the removal listener, and then records the event. Both the arrival and the retirement
//! are recorded, and may be applied in either order; who applies the second puts the entry into the limbo, which frees it
//! when no reader can see it any more.
//!
//! No user code runs here while the maintenance lock is held, and none while a slot of the map is half changed.

mod core;
mod entry;
mod expiry;
mod limbo;
#[cfg(all(test, loom))]
mod loom_tests;
mod maintenance;
mod maintenance_lock;
mod overflow;
mod sizing;
mod snapshot;
#[cfg(all(test, not(loom)))]
mod tests;
mod thread_state;

use self::core::{Core, DeferredWork, Event, Own};
use self::maintenance::Rings;
use self::thread_state::ThreadStates;
use crate::error::BuildError;
use crate::expiry::Ttl;
use crate::map::{Header, Inserted, Map, Mode, UNCONDITIONAL};
use crate::policy::{Policy, PolicyKind};
use crate::prim::panics::Panics;
use crate::prim::sync::{AtomicU8, AtomicU64, Ordering, Padded};
use crate::reclaim::{Domain, FastGuard, Guard};
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
const EVERY: u8 = u8::MAX;
/// Timers looked at in one go: a million entries that end in the same instant must not hold up anyone.
const EXPIRIES: usize = 64;

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
            timed: settings.time.is_general(),
            moving: settings.time.moves() || settings.time.refresh_after.is_some(),
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
            hit_limit: AtomicU8::new(if shape.timed { EVERY } else { core.policy.hit_limit() }),
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
    pub(crate) fn pin_fast(&self) -> Option<FastGuard> {
        self.domain.pin_fast()
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
    fn now_catching_panics(&self, panics: &mut Panics) -> u64 {
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
        if now != 0 && now >= self.time.next() {
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
                let due = self.with_core(guard, |core| core.reschedule_earlier(found));
                self.finish(due, self.pin());
            }
        }
    }

    /// Counts a hit of an entry that was found in the map, if the policy need not hear of it now. Else false.
    #[inline(always)]
    pub(crate) fn mark(&self, found: NonNull<Header>, _guard: &Guard) -> bool {
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
    pub(crate) fn hits_are_quiet(&self) -> bool {
        !self.eager_hits && !self.time.moves()
    }

    /// From now on entries may have times, so every hit has to look at the clock. Takes effect before the caller publishes
    /// its entry: who finds that has seen this.
    fn activate_time(&self) {
        self.time.activate();
        self.hit_limit.store(EVERY, Ordering::Relaxed);
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
                    core.policy.hit(&core.shelf, handle);
                }
            };
            // SAFETY: nothing was found under the guard.
            let due = unsafe { self.visit(held, &guard, Own::Spent(&guard), Rings::Soon, hit) };
            self.finish(due, guard);
        } else {
            #[cfg(all(test, not(loom)))]
            tests::MARKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // SAFETY: found under a guard.
            unsafe { handle.header() }.set_hits(1);
        }
    }

    /// A new entry, not yet in the map. It must be given to `insert`, `insert_absent` or `replace_exact`.
    #[inline]
    pub(crate) fn make(
        &self,
        hash: u64,
        contents: (K, V),
        weight: u64,
        life: Option<Deadlines>,
        guard: &Guard,
    ) -> Handle {
        let mut spare = None;
        if life.is_some() == self.shape.timed {
            // SAFETY: the part is this thread's, which is pinned.
            spare = self
                .thread_states
                .writer(guard)
                .and_then(|writer| unsafe { writer.spare() });
        } else {
            // An entry with times where others have none: from now on somebody must look.
            self.activate_time();
        }
        // SAFETY: spares are of the usual size, went through `drop_contents`, and belong to whoever takes them.
        unsafe { self.shape.make(spare, hash, contents, weight, life) }
    }

    /// Gives the entry to the map, making room if need be. If user code panics, the entry goes to the limbo.
    #[inline(always)]
    fn enter(
        &self,
        hash: u64,
        new: Handle,
        mut equal: impl FnMut(&K, &K) -> bool,
        mode: Mode,
        mut invalidated: Option<impl FnMut() -> bool>,
        guard: &Guard,
    ) -> Inserted {
        let unwinding = OnUnwind {
            engine: self,
            handle: new,
        };
        let key = &Self::view(new.0).key;
        let mut tried = None;
        loop {
            let equal = |header| equal(&Self::view(header).key, key);
            let invalidated = invalidated.as_mut();
            let done = self.map.insert(hash, new.0, equal, mode, invalidated, guard);
            if done != Inserted::Full {
                std::mem::forget(unwinding);
                return done;
            }
            self.make_room(hash, tried, guard);
            tried = Some(self.map.table_id(guard));
        }
    }

    /// Inserts or replaces. Waits only if the thread's ring is full (see `record`), or the home is being moved.
    #[inline]
    pub(crate) fn insert(&self, hash: u64, new: Handle, equal: impl FnMut(&K, &K) -> bool, guard: Guard) {
        match self.enter(hash, new, equal, Mode::Upsert, UNCONDITIONAL, &guard) {
            Inserted::New => self.record_arrival(new, guard),
            Inserted::Replaced(old) => self.replaced(new, Handle(old), guard),
            _ => unreachable!("upserts replace, room is made, and what asks nobody is not killed"),
        }
    }

    /// Inserts a key that is absent, unless `invalidated`, if any, says no at the last moment or an invalidation kills it. Returns
    /// whether it came in; else the new entry is discarded.
    pub(crate) fn insert_absent(
        &self,
        hash: u64,
        new: Handle,
        equal: impl FnMut(&K, &K) -> bool,
        invalidated: Option<impl FnMut() -> bool>,
        guard: Guard,
    ) -> bool {
        let (mut equal, mut invalidated) = (equal, invalidated);
        let mut panics = Panics::default();
        let now = self.now_catching_panics(&mut panics);
        // What it replaced, if it came in.
        let came_in = loop {
            match self.enter(hash, new, &mut equal, Mode::IfAbsent, invalidated.as_mut(), &guard) {
                Inserted::New => break Some(None),
                // What is there is over. Asked after it was found: who overtakes this insertion later changes the slot.
                Inserted::Present(old) if self.is_expired(old, now) => {
                    if invalidated.as_mut().is_some_and(|invalidated| invalidated()) {
                        break None;
                    }
                    if self.map.replace_exact(old, new.0, &guard) {
                        break Some(Some(Handle(old)));
                    }
                }
                _ => break None,
            }
        };
        drop(invalidated);
        match came_in {
            Some(None) => panics.catch(|| self.record(Event::Arrived(new), guard)),
            Some(Some(old)) => panics.catch(|| self.replaced(new, old, guard)),
            // Another thread may have looked at it, so it goes through the limbo.
            None => panics.catch(|| self.record(Event::Released(new), guard)),
        }
        panics.resume();
        came_in.is_some()
    }

    /// Inserts or replaces, unless `invalidated` says no at the last moment or an invalidation kills it: whether it came in.
    /// Else the new entry is discarded.
    pub(crate) fn insert_unless(
        &self,
        hash: u64,
        new: Handle,
        equal: impl FnMut(&K, &K) -> bool,
        invalidated: impl FnMut() -> bool,
        guard: Guard,
    ) -> bool {
        match self.enter(hash, new, equal, Mode::Upsert, Some(invalidated), &guard) {
            Inserted::New => self.record(Event::Arrived(new), guard),
            Inserted::Replaced(old) => self.replaced(new, Handle(old), guard),
            _ => {
                self.record(Event::Released(new), guard);
                return false;
            }
        }
        true
    }

    /// Puts `new` in the place of this very entry; if it is no longer in the map, gives `new` to the limbo.
    pub(crate) fn replace_exact(&self, old: Handle, new: Handle, guard: Guard) -> bool {
        if self.map.replace_exact(old.0, new.0, &guard) {
            self.replaced(new, old, guard);
            true
        } else {
            self.record(Event::Released(new), guard);
            false
        }
    }

    /// Removes this very entry; false if it is no longer in the map.
    pub(crate) fn remove_exact(&self, old: Handle, cause: Cause, guard: Guard) -> bool {
        let removed = self.map.remove_exact(old.0, &guard);
        if removed {
            self.retired(old, cause, guard);
        }
        removed
    }

    /// Removes all entries, one home after another, and returns the table's memory. O(n).
    pub(crate) fn clear(&self) {
        let mut panics = Panics::default();
        panics.catch(|| self.retain(|_| false));
        panics.catch(|| self.fit_table(true));
        panics.resume();
    }

    /// Removes the entries that `keep` says no to, one home after another. O(n).
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Entry<K, V>) -> bool) {
        self.retain_by(|handle| keep(Self::view(handle.0)));
    }

    /// The same, by handles.
    pub(crate) fn retain_by(&self, mut keep: impl FnMut(Handle) -> bool) {
        let mut panics = Panics::default();
        let mut from = 0;
        while from < 1 << 32 {
            let mut handles = Vec::new();
            let guard = self.pin();
            let see = |header| {
                if !keep(Handle(header)) {
                    handles.push(Handle(header));
                }
            };
            from = self.map.walk(from, see, &guard);
            for handle in handles {
                panics.catch(|| _ = self.remove_exact(handle, Cause::Explicit, self.pin()));
            }
        }
        panics.resume();
    }

    /// Removes the key if `accept` agrees; `taken` sees the entry before anything else does.
    pub(crate) fn remove<R>(
        &self,
        hash: u64,
        mut equal: impl FnMut(&K) -> bool,
        mut accept: impl FnMut(&Entry<K, V>) -> bool,
        kill: bool,
        taken: impl FnOnce(&Entry<K, V>) -> R,
    ) -> Option<R> {
        let now = self.now();
        let guard = self.pin();
        let old = self.map.remove(
            hash,
            |header| equal(&Self::view(header).key),
            |header| self.is_expired(header, now) || accept(Self::view(header)),
            kill,
            &guard,
        )?;
        let mut panics = Panics::default();
        let mut result = None;
        if !self.is_expired(old, now) {
            panics.catch(|| result = Some(taken(Self::view(old))));
        }
        self.retired_with(Handle(old), Cause::Explicit, guard, panics);
        self.expire_if_due(now);
        result
    }

    fn notify(&self, handle: Handle, cause: Cause, panics: &mut Panics) {
        if let Some(listener) = &self.listener {
            let entry = Self::view(handle.0);
            // The policy, which knows no time, may choose what was over and not yet taken out.
            let over = cause == Cause::Size && self.is_expired(handle.0, self.now_catching_panics(panics));
            let cause = if over { Cause::Expired } else { cause };
            panics.catch(|| listener(&entry.key, &entry.value, cause));
        }
    }

    #[inline]
    fn replaced(&self, new: Handle, old: Handle, guard: Guard) {
        let mut panics = Panics::default();
        let expired = self.is_expired(old.0, self.now_catching_panics(&mut panics));
        if self.listener.is_none() {
            self.record(Event::Replaced { new, old, expired }, guard);
            return panics.resume();
        }
        // The listener may run long: it must not hold up everybody's garbage. `old` stays until its event is recorded.
        drop(guard);
        let cause = if expired { Cause::Expired } else { Cause::Replaced };
        self.notify(old, cause, &mut panics);
        panics.catch(|| self.record(Event::Replaced { new, old, expired }, self.pin()));
        panics.resume();
    }

    fn retired(&self, old: Handle, cause: Cause, guard: Guard) {
        self.retired_with(old, cause, guard, Panics::default());
    }

    fn retired_with(&self, old: Handle, cause: Cause, guard: Guard, mut panics: Panics) {
        let expired = self.is_expired(old.0, self.now_catching_panics(&mut panics));
        drop(guard);
        self.notify(old, if expired { Cause::Expired } else { cause }, &mut panics);
        panics.catch(|| self.record(Event::Retired { old, expired }, self.pin()));
        panics.resume();
    }
}

/// Gives an entry that is in no map to the limbo if user code panics during its insertion.
struct OnUnwind<'e, K, V> {
    engine: &'e Engine<K, V>,
    handle: Handle,
}

impl<K, V> Drop for OnUnwind<'_, K, V> {
    fn drop(&mut self) {
        self.engine.record(Event::Released(self.handle), self.engine.pin());
    }
}

impl<K, V> Drop for Engine<K, V> {
    fn drop(&mut self) {
        let mut panics = Panics::default();
        let guard = self.pin();
        // No other thread can hold the lock: it is free or poisoned.
        let due = match self.work.0.lock.try_lock() {
            Some(held) => self.maintain(held, &guard, Rings::All, |_| ()),
            None => DeferredWork::nothing(),
        };
        drop(guard);
        for &(handle, cause) in &due.evicted {
            self.notify(handle, cause, &mut panics);
        }
        let mut garbage: Vec<Handle> = due.evicted.into_iter().map(|(handle, _)| handle).collect();
        // After a panic under the lock the core is not looked at any more: what it alone knows of is leaked.
        if !self.is_poisoned() {
            garbage.extend(self.work.0.core.get_mut().drain());
        }
        self.map.drain(|header| garbage.push(Handle(header)));
        let mut nonstandard = due.nonstandard;
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
        let (mut free, shape) = (due.free, self.shape);
        while let Some(former) = nonstandard.pop() {
            drop_contents(former);
            // SAFETY: as above; what is odd has times if the usual has none, and the other way round.
            unsafe { shape.release::<K, V>(former, !shape.timed) };
        }
        while let Some(former) = free.pop() {
            drop_contents(former);
            // SAFETY: as above; only what is usual is put into chains.
            unsafe { shape.release::<K, V>(former, shape.timed) };
        }
        let release_spare = |spare| {
            // SAFETY: its contents were dropped before it became a spare.
            unsafe { shape.release::<K, V>(spare, shape.timed) };
        };
        for bulk in due.bulk.into_iter().chain(self.work.0.core.get_mut().drain_bulk()) {
            let mut spares = bulk.into_spares(drop);
            while let Some(spare) = spares.pop() {
                release_spare(spare);
            }
        }
        self.thread_states.drain_spares(release_spare);
        panics.resume();
    }
}
