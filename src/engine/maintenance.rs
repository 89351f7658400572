//! The housekeeping: how changes come to the policy, and what follows from it.
//!
//! Whoever finds it due does it, if nobody else is at it. User code that it makes necessary (listeners, destructors) runs when
//! the lock has been given up.

use super::core::{Core, DeferredWork, Event, Own};
use super::entry::{Chain, DEAD, EVICTED, Entry, ExpiryRef, Handle, NEVER};
use super::limbo::Portion;
use super::maintenance_lock::{Held, PATIENCE, Waited};
use super::thread_state::Writer;
use super::{EXPIRIES, Engine, Published};
use crate::policy::Policy;
use crate::prim::panics::Panics;
use crate::prim::sync::Ordering;
use crate::reclaim::Guard;
use crate::stats::Cause;

/// Of which threads the changes are applied.
#[derive(Clone, Copy)]
pub(super) enum Rings {
    All,
    /// The caller's, and some of the others'.
    Soon,
}

/// A thread whose changes let so many entries go that run destructors tries to have them applied: what left may be large.
const LEFT: u64 = 4;
/// In a cache with times the next call looks again for what readers held up, if the last one looked so many nanoseconds ago.
const RETRY: u64 = 1 << 20;

impl<K, V> Engine<K, V> {
    /// Leaves the event in this thread's ring. If there are enough of them there, has all that wait applied, unless another
    /// thread is at it. If the ring is full, or too much weight has come in, waits for that, as long as the lock holder makes
    /// progress: memory is bounded, and events are never lost.
    #[inline(never)]
    pub(super) fn record(&self, event: Event, guard: Guard) {
        let Some(writer) = self.thread_states.writer(&guard) else {
            return self.record_without_room(event, || false, guard);
        };
        let pace = &self.thread_states.pace;
        let Some(waiting) = writer.ring.push(event.pack()) else {
            let room = || writer.ring.len() < self.thread_states.pace.most.load(Ordering::Relaxed);
            return self.record_without_room(event, room, guard);
        };
        self.note_deadline(event);
        let heavy = self.shape.weighted
            && event.entry().is_some_and(|new| {
                // SAFETY: an entry is alive until its event is applied, and then while the guard is held.
                let weight = unsafe { self.shape.weight(new) };
                writer.add_weight(weight, waiting) > pace.weight.load(Ordering::Relaxed)
            });
        let left = std::mem::needs_drop::<Entry<K, V>>() && event.lets_go() && writer.add_left(waiting) >= LEFT;
        if waiting >= pace.batch.load(Ordering::Relaxed) || heavy || left {
            self.catch_up(writer, heavy, guard);
        }
    }

    /// [`record`](Self::record) of an arrival, inlined for unweighted entries without expiration.
    #[inline(always)]
    pub(super) fn record_arrival(&self, new: Handle, guard: Guard) {
        let plain = !self.shape.weighted && !self.time.is_active();
        match self.thread_states.near_writer(&guard) {
            Some(writer) if plain => match writer.ring.push(Event::Arrived(new).pack()) {
                Some(waiting) if waiting < self.thread_states.pace.batch.load(Ordering::Relaxed) => {}
                Some(_) => self.catch_up(writer, false, guard),
                None => self.record(Event::Arrived(new), guard),
            },
            _ => self.record(Event::Arrived(new), guard),
        }
    }

    #[inline(never)]
    fn catch_up(&self, writer: &Writer, heavy: bool, guard: Guard) {
        match self.work.0.lock.try_lock() {
            Some(held) => {
                // SAFETY: the guard was given up, and with it what was found under it.
                let due = unsafe { self.visit(held, &guard, Own::Spent(&guard), Rings::Soon, |_| ()) };
                self.finish(due, guard);
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
                self.thread_states.pace.most.load(Ordering::Relaxed)
            };
            writer.ring.len() < most
        };
        if has_room() {
            return;
        }
        match self.work.0.lock.lock_unless(Some(PATIENCE), has_room) {
            Ok(Waited::Held(held)) => {
                // SAFETY: the guard was given up, and with it what was found under it.
                let due = unsafe { self.visit(held, &guard, Own::Spent(&guard), Rings::Soon, |_| ()) };
                self.finish(due, guard);
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
                let due = self.maintain(held, &guard, Rings::All, |core| core.apply(event));
                self.finish(due, guard);
            }
            Ok(Waited::Done) => self.record(event, guard),
            Ok(Waited::NoProgress) if self.thread_states.overflow.push(event.pack()) => self.note_deadline(event),
            Ok(Waited::NoProgress) => {
                let due = self.with_core(&guard, |core| core.apply(event));
                self.finish(due, guard);
            }
            Err(poisoned) => poisoned.panic(),
        }
    }

    /// Has the next call after the deadline of an entry that was just recorded look for expired entries.
    #[inline(always)]
    fn note_deadline(&self, event: Event) {
        if self.time.is_active() {
            // SAFETY: an entry is alive until its event is applied, and then while the caller is pinned.
            let timing = event.entry().and_then(|new| unsafe { self.shape.timing(new) });
            timing
                .into_iter()
                .for_each(|timing| self.time.note_deadline(timing.deadline()));
        }
    }

    /// Applies what waits in the rings, does `work`, and releases the lock. With `Rings::Soon` the rings of some threads may be
    /// left for the next time. If `work` or the policy panics, the lock is poisoned.
    #[inline(always)]
    pub(super) fn maintain(
        &self,
        held: Held<'_>,
        guard: &Guard,
        rings: Rings,
        work: impl FnOnce(&mut Core),
    ) -> DeferredWork {
        // SAFETY: the guard keeps what it protects.
        unsafe { self.visit(held, guard, Own::SnapshotEvent, rings, work) }
    }

    /// [`maintain`](Self::maintain), which may have the guard protect nothing any more that was found under it before.
    ///
    /// # Safety
    /// As for [`Core::due`].
    #[inline(always)]
    pub(super) unsafe fn visit(
        &self,
        held: Held<'_>,
        guard: &Guard,
        own: Own<'_>,
        rings: Rings,
        work: impl FnOnce(&mut Core),
    ) -> DeferredWork {
        let due = {
            // SAFETY: the lock is held, and this reference ends before it is given up.
            let core = unsafe { &mut *self.work.0.core.get() };
            let timed = self.time.is_active();
            match rings {
                Rings::All => {
                    if timed {
                        self.time.begin();
                    }
                    self.thread_states.each(|writer| Self::drain(core, writer));
                }
                Rings::Soon => {
                    let mut cursor = core.cursor_of_rings as usize;
                    self.thread_states.each_soon(guard, &mut cursor, |writer, index| {
                        Self::drain(core, writer);
                        if index != guard.thread_index() {
                            self.sweep(core, index);
                        }
                    });
                    core.cursor_of_rings = cursor as u32;
                }
            }
            if !self.thread_states.overflow.is_empty() {
                self.thread_states.overflow.take(|pair| core.apply(Event::unpack(pair)));
            }
            work(core);
            core.unlink_evicted(&self.map, guard);
            if timed {
                self.time.note_deadline(core.next_alarm());
            }
            self.publish(core);
            let due = if self.has_user_code() && finishing::is(self) {
                DeferredWork::nothing()
            } else {
                // SAFETY: the caller's promise.
                unsafe { core.due(&self.domain, own, Portion::Bounded) }
            };
            if timed && core.has_garbage() {
                self.time.note_deadline(core.now.saturating_add(RETRY));
            }
            due
        };
        held.unlock();
        due
    }

    #[inline(always)]
    fn drain(core: &mut Core, writer: &Writer) {
        let prefetch = |core: &Core, pair| core.prefetch_event(Event::unpack(pair));
        writer
            .ring
            .drain(core, prefetch, |core, pair| core.apply(Event::unpack(pair)));
    }

    /// Takes over what another thread changed the cache with, if that thread has ended. The lock is held.
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

    /// Waits for the lock and does `work` under it. The caller is pinned: while it waits it holds up reclamation no longer than
    /// the lock holder, which is pinned too.
    ///
    /// # Panics
    /// If an earlier lock holder panicked, unless this thread is unwinding: then it does nothing.
    pub(super) fn with_core(&self, guard: &Guard, work: impl FnOnce(&mut Core)) -> DeferredWork {
        match self.work.0.lock.lock() {
            Ok(held) => self.maintain(held, guard, Rings::All, work),
            Err(poisoned) => {
                poisoned.panic();
                DeferredWork::nothing()
            }
        }
    }

    /// Whether a panic has ended this cache's maintenance.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.work.0.lock.is_poisoned()
    }

    /// Makes a free slot for the hash: has its home move to a larger table, else evicts an entry near its home. Does not move all
    /// homes of a large table. Chance in a table of millions of buckets, a table far beyond its usual load, or a hash
    /// function that sends many keys to one bucket gets here.
    #[cold]
    pub(super) fn make_room(&self, hash: u64, tried: Option<usize>, guard: &Guard) {
        // The table that was full may have been replaced by another one since: `tried` is the one that was full before.
        if self.grow(hash) || tried != Some(self.map.table_id(guard)) {
            return;
        }
        // SAFETY: candidates are in the map, and the guard is held.
        let spare = |header| unsafe { Handle(header).header() }.hits() == 0;
        if let Some(victim) = self.map.candidate(hash, spare, guard)
            && self.map.remove_exact(victim, guard)
        {
            let mut panics = Panics::default();
            self.notify(Handle(victim), Cause::Size, &mut panics);
            let due = self.with_core(guard, |core| {
                core.counts.evictions += 1;
                core.apply(Event::Retired {
                    old: Handle(victim),
                    expired: false,
                });
            });
            panics.catch(|| self.finish(due, self.pin()));
            panics.resume();
        }
    }

    /// Does all housekeeping that is due: afterwards the weight is within the capacity, and what no reader holds is freed.
    pub(crate) fn run_pending(&self) {
        let mut panics = Panics::default();
        let guard = self.pin();
        let due = self.with_core(&guard, |_| {});
        panics.catch(|| self.finish(due, guard));
        loop {
            let (now, guard) = (self.now(), self.pin());
            let mut more = false;
            let due = self.with_core(&guard, |core| {
                more = now != 0 && core.expire(now, EXPIRIES, &self.map, &guard);
                if now != 0 && !more {
                    core.expire_reached(now, &self.map, &guard);
                }
            });
            panics.catch(|| self.finish(due, guard));
            if !more {
                break;
            }
        }
        // Two generations may wait, of which the second is sealed when the first has been passed.
        for _ in 0..2 {
            let guard = self.pin();
            let mut all = None;
            let due = self.with_core(&guard, |core| {
                // SAFETY: nothing was found under the guard.
                all = Some(unsafe { core.due(&self.domain, Own::Spent(&guard), Portion::All) });
            });
            panics.catch(|| self.finish(due, self.pin()));
            if let Some(all) = all {
                panics.catch(|| self.finish(all, guard));
            }
        }
        panics.catch(|| self.free_tables());
        panics.resume();
    }

    /// The entries that were unlinked and are not freed yet: all of them, each once, if nobody uses the cache meanwhile. (None if
    /// somebody is at the housekeeping, then.) They live as long as the guard.
    pub(crate) fn unlinked(&self, _guard: &Guard) -> Vec<Handle> {
        let mut all = Vec::new();
        let Some(held) = self.work.0.lock.try_lock() else {
            return all;
        };
        // SAFETY: the lock is held, and this reference ends before it is given up.
        let core = unsafe { &mut *self.work.0.core.get() };
        all.extend(core.unlinked());
        // SAFETY: an entry is alive until its events are applied, which needs the lock.
        let is_dead = |entry: Handle| [DEAD, EVICTED].contains(&unsafe { entry.header() }.place());
        let mut see = |pair| match Event::unpack(pair) {
            Event::Arrived(new) => all.extend(is_dead(new).then_some(new)),
            Event::Replaced { new, old, .. } => all.extend(is_dead(new).then_some(new).into_iter().chain([old])),
            Event::Retired { old, .. } | Event::Released(old) => all.push(old),
        };
        self.thread_states.each(|writer| writer.ring.peek(&mut see));
        self.thread_states.overflow.peek(see);
        held.unlock();
        all
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        let guard = self.pin();
        let due = self.with_core(&guard, |core| {
            self.thread_states.set_capacity(capacity);
            core.set_capacity(capacity, &self.map, &guard);
        });
        let mut panics = Panics::default();
        panics.catch(|| self.finish(due, guard));
        panics.catch(|| self.fit_table(false));
        panics.resume();
    }

    /// The entries from the one worth most to the one that would go first, as of now. They live as long as the guard.
    pub(crate) fn hottest(&self, guard: &Guard) -> Vec<Handle> {
        let mut handles = Vec::new();
        let due = self.with_core(guard, |core| {
            handles.reserve_exact(core.policy.len());
            core.policy.hottest(&core.shelf, &mut |handle| {
                handles.push(handle);
                true
            });
        });
        self.finish(due, self.pin());
        handles
    }

    /// The entry that would go first, as of now. It lives as long as the guard.
    pub(crate) fn coldest(&self, guard: &Guard) -> Option<Handle> {
        let mut coldest = None;
        let due = self.with_core(guard, |core| coldest = core.policy.coldest(&core.shelf));
        self.finish(due, self.pin());
        coldest
    }

    /// Panics if an invariant is broken. The caller ensures that no other thread uses the cache.
    pub(crate) fn validate(&self) {
        let guard = self.pin();
        let mut panics = Panics::default();
        let due = self.with_core(&guard, |core| {
            // What the rings brought may have made the policy give entries up, which are in the map until this.
            core.unlink_evicted(&self.map, &guard);
            // Caught, so that the lock is not poisoned: a failed test drops its cache.
            panics.catch(|| self.check(core, &guard));
        });
        self.finish(due, guard);
        panics.resume();
    }

    fn check(&self, core: &Core, guard: &Guard) {
        core.policy.validate(&core.shelf);
        let mut from = 0;
        let (mut count, mut weight, mut alarms) = (0, 0u64, 0);
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
                    let ends = self.timing(Handle(header), guard).map_or(NEVER, ExpiryRef::deadline);
                    let alarm = core.has_alarm(Handle(header));
                    assert!(alarm || ends == NEVER, "what has a deadline has a timer");
                    alarms += usize::from(alarm);
                },
                guard,
            );
        }
        core.validate_alarms(alarms);
        assert_eq!(core.policy.len(), count, "what is in the policy is in the map");
        assert_eq!(core.policy.weight(), weight, "the weight is that of the entries");
        assert!(core.policy.weight() <= core.policy.capacity(), "the bound holds");
    }

    /// Frees what became due, and runs the user code that this needs, unpinned.
    #[inline]
    pub(super) fn finish(&self, due: DeferredWork, guard: Guard) {
        let quiet =
            due.evicted.is_empty() && due.nonstandard.len() == 0 && !due.has_bulk() && !self.map.has_discarded();
        if quiet && !std::mem::needs_drop::<Entry<K, V>>() {
            self.keep(due.free, &guard);
        } else {
            drop(guard);
            self.finish_with_user_code(due);
        }
    }

    /// Whether freeing entries runs user code.
    fn has_user_code(&self) -> bool {
        self.listener.is_some() || std::mem::needs_drop::<Entry<K, V>>()
    }

    /// User code that runs here may use the cache, and so come here again. What becomes due then is left to the outermost
    /// call, which looks again, a few times: so the stack does not grow, however much ends at once.
    #[inline(never)]
    fn finish_with_user_code(&self, due: DeferredWork) {
        let mut panics = Panics::default();
        let outermost = finishing::Mark::new(self);
        let mut shown = self.run_user_code(due, &mut panics);
        for _ in 0..ROUNDS {
            if outermost.is_none() && shown.is_empty() {
                break;
            }
            let guard = self.pin();
            let Some(held) = self.work.0.lock.try_lock() else {
                break;
            };
            // SAFETY: the lock is held, and this reference ends before it is given up.
            let core = unsafe { &mut *self.work.0.core.get() };
            core.release(&mut shown);
            let due = if outermost.is_some() {
                // SAFETY: nothing was found under the guard.
                unsafe { core.due(&self.domain, Own::Spent(&guard), Portion::Fresh) }
            } else {
                DeferredWork::nothing()
            };
            held.unlock();
            drop(guard);
            if due.is_nothing() {
                break;
            }
            shown = self.run_user_code(due, &mut panics);
        }
        for (handle, _) in shown {
            panics.catch(|| self.record(Event::Released(handle), self.pin()));
        }
        drop(outermost);
        panics.resume();
    }

    /// Returns what the listener was shown, which is still to be released.
    fn run_user_code(&self, due: DeferredWork, panics: &mut Panics) -> Vec<(Handle, Cause)> {
        if due.wanted != 0 {
            self.map.prepare(due.wanted, &self.pin());
        }
        let mut empty = Chain::new();
        for bulk in due.bulk {
            empty.prepend(bulk.into_spares(|table| self.map.discard(table)));
        }
        if self.map.has_discarded() {
            self.map.free_discarded_slice();
        }
        for &(handle, cause) in &due.evicted {
            self.notify(handle, cause, panics);
        }
        let (mut free, mut nonstandard) = (due.free, due.nonstandard);
        while let Some(former) = free.pop() {
            // SAFETY: nobody can reach what is due to be freed; the header, which was overwritten, has no destructor. Popped
            // from one chain, it goes to another.
            unsafe {
                panics.catch(|| self.shape.drop_contents::<K, V>(former));
                empty.push(former);
            }
        }
        while let Some(former) = nonstandard.pop() {
            // SAFETY: as above; what is odd has times if the usual has none, and the other way round.
            unsafe {
                panics.catch(|| self.shape.drop_contents::<K, V>(former));
                self.shape.release::<K, V>(former, !self.shape.timed);
            }
        }
        if empty.len() > 0 {
            self.keep(empty, &self.pin());
        }
        due.evicted
    }

    /// Keeps the memory of former entries for this thread's next ones, or gives it back.
    #[inline]
    fn keep(&self, mut empty: Chain, guard: &Guard) {
        if let Some(writer) = self.thread_states.writer_if_any(guard) {
            // SAFETY: the part is this thread's, which is pinned; the memory was given up by its former owner.
            empty = unsafe { writer.keep(empty, self.shape.size::<K, V>()) };
        }
        while let Some(former) = empty.pop() {
            // SAFETY: as above; only what is usual is put into chains.
            unsafe { self.shape.release::<K, V>(former, self.shape.timed) };
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn expire(&self, now: u64) {
        let guard = self.pin();
        if let Some(held) = self.work.0.lock.try_lock() {
            let expire = |core: &mut Core| _ = core.expire(now, EXPIRIES, &self.map, &guard);
            // SAFETY: nothing that was found under the guard is used any more once the expired entries were unlinked.
            let due = unsafe { self.visit(held, &guard, Own::Spent(&guard), Rings::All, expire) };
            self.finish(due, guard);
        }
    }

    /// The figures of the last housekeeping, which is done now if it is due and nobody else is at it.
    pub(crate) fn published(&self) -> &Published {
        self.now_and_expire();
        let (mut waiting, guard) = (!self.thread_states.overflow.is_empty(), self.pin());
        self.thread_states.each(|writer| waiting |= writer.ring.len() != 0);
        if waiting && let Some(held) = self.work.0.lock.try_lock() {
            // SAFETY: the rings that were looked at under the guard are not used any more.
            let due = unsafe { self.visit(held, &guard, Own::Spent(&guard), Rings::All, |_| ()) };
            self.finish(due, guard);
        }
        &self.work.0.published
    }
}

/// How often the outermost call looks again for what its own user code made due.
const ROUNDS: usize = 8;

/// In which caches this thread is running user code that became due.
#[cfg(not(loom))]
mod finishing {
    use std::cell::RefCell;
    use std::ptr;

    thread_local! {
        static MARKED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    /// A thread in its last destructors has no marks: there, user code may nest.
    pub(super) fn is<T>(cache: &T) -> bool {
        let marked = MARKED.try_with(|marked| marked.borrow().contains(&ptr::from_ref(cache).addr()));
        marked.unwrap_or(false)
    }

    pub(super) struct Mark(usize);

    impl Mark {
        /// `None` if the thread is at it already.
        pub(super) fn new<T>(cache: &T) -> Option<Self> {
            let address = ptr::from_ref(cache).addr();
            let new = !is(cache) && MARKED.try_with(|marked| marked.borrow_mut().push(address)).is_ok();
            new.then_some(Self(address))
        }
    }

    impl Drop for Mark {
        fn drop(&mut self) {
            _ = MARKED.try_with(|marked| marked.borrow_mut().retain(|address| *address != self.0));
        }
    }
}

/// Loom's threads share one of the system's; its models have no user code that comes back.
#[cfg(loom)]
mod finishing {
    pub(super) fn is<T>(_: &T) -> bool {
        false
    }

    pub(super) struct Mark;

    impl Mark {
        pub(super) fn new<T>(_: &T) -> Option<Self> {
            None
        }
    }
}
