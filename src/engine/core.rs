//! The state that the maintenance lock protects.
//!
//! [`Core`] holds the policy, the timer wheel, the limbo, and the sizing of the table. Only the
//! holder of the maintenance lock touches it (invariant 11), so all of it is sequential code.
//!
//! No user code runs here (invariant 10). Work that needs user code (listeners, destructors) is
//! returned as [`DeferredWork`], which the thread runs after it has released the lock.

use super::deferred::{Bulk, DeferredWork};
use super::entry::{Chain, DEAD, EVICTED, GONE, Handle, NEW, NO_DEADLINE, Shape};
use super::event::Event;
use super::limbo::{Limbo, Portion};
use super::sizing::Sizing;
use super::views::{PolicyView, TimerView};
use super::writer::OldWriter;
use crate::map::{Map, OwnedTable};
#[cfg(feature = "snapshot")]
use crate::policy::Rank;
use crate::policy::{AnyPolicy, Entries, Evictions, MAX_PLACE, Places, Policy, PolicyKind, Verdict};
use crate::prim::memory::boxed;
use crate::prim::ring::Batch;
use crate::prim::wheel::Wheel;
use crate::reclaim::{Domain, Guard, Seal};
use crate::stats::Cause;

type BulkList = Vec<(Option<Seal>, Bulk)>;

/// Counters that only the core changes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) insertions: u64,
    pub(super) evictions: u64,
    /// Counted in weighted caches only.
    pub(super) evicted_weight: u64,
    pub(super) rejections: u64,
    pub(super) expirations: u64,
}

/// On cache lines of its own: threads that try the lock would otherwise take from its holder one
/// that it writes often. That took a tenth of the insertions' throughput with two and four threads.
#[repr(align(64))]
pub(super) struct Core {
    pub(super) policy: AnyPolicy<PolicyView>,
    pub(super) policy_view: PolicyView,
    /// Allocated when the first timer is set.
    wheel: Option<Box<Wheel<Handle>>>,
    /// Whether an entry with an expiration has ever been inserted.
    timed: bool,
    /// The time at which expired entries were last removed.
    pub(super) now: u64,
    limbo: Limbo,
    pub(super) sizing: Sizing,
    /// Few and large objects that readers may still see. Each gets a seal of its own at the next
    /// visit.
    bulk: Option<Box<BulkList>>,
    pub(super) counts: Counts,
    evictions: Evictions<Handle>,
    /// The number of entries in `evictions` that are already detached.
    detached: u32,
    evicted: Vec<(Handle, Cause)>,
    /// Whether the listener must see evicted entries before they are freed.
    listened: bool,
    /// Whether freeing entries runs destructors.
    drops: bool,
    /// Entries inserted since the last `unlink_evicted`.
    arrived: u32,
    /// The index of the next ring to drain, when a visit drains only some of the rings.
    pub(super) cursor_of_rings: u16,
}

/// How [`Core::take_deferred`] may use the guard of the calling thread.
#[derive(Clone, Copy)]
pub(super) enum CallerGuard<'g> {
    /// References that were obtained under the guard may still be used.
    InUse,
    /// No reference that was obtained under this guard is used any more, so it need not delay
    /// reclamation.
    Spent(&'g Guard),
}

/// The largest capacity of a list of evicted entries that is kept for reuse.
const SHOWN: usize = 64;

/// Returns an empty wheel, or `None` if there is no memory for it.
#[cold]
#[inline(never)]
fn new_wheel() -> Option<Box<Wheel<Handle>>> {
    boxed(Wheel::new())
}

impl Core {
    pub(super) fn new(
        (kind, capacity): (PolicyKind, u64),
        shape: Shape,
        listened: bool,
        drops: bool,
        slots: usize,
    ) -> Self {
        const { assert!(MAX_PLACE < EVICTED) };
        Self {
            policy: AnyPolicy::new(kind, capacity, shape.weighted),
            policy_view: PolicyView(shape),
            wheel: None,
            timed: false,
            now: 0,
            limbo: Limbo::new(),
            sizing: Sizing::new(slots),
            bulk: None,
            counts: Counts::default(),
            evictions: Evictions::new(),
            detached: 0,
            evicted: Vec::new(),
            listened,
            drops,
            arrived: 0,
            cursor_of_rings: 0,
        }
    }

    /// Takes the work to do after the unlock: reclaimable entries, as many as `portion` allows, and
    /// all other deferred work.
    ///
    /// # Safety
    ///
    /// No reference that was obtained under a guard that is [`CallerGuard::Spent`] is used any
    /// more.
    #[inline]
    pub(super) unsafe fn take_deferred(
        &mut self,
        domain: &Domain,
        own: CallerGuard<'_>,
        portion: Portion,
    ) -> DeferredWork {
        let own = match own {
            CallerGuard::InUse => None,
            CallerGuard::Spent(guard) => Some(guard),
        };
        // SAFETY: the caller's promise.
        unsafe { self.limbo.collect(domain, own, portion == Portion::All) };
        let count = self.limbo.quota(self.drops, portion);
        // A previous entry's memory is reused only for entries with the same layout.
        let (shape, mut free, mut nonstandard) = (self.policy_view.0, Chain::new(), Chain::new());
        for entry in (0..count).map_while(|_| self.limbo.pop()) {
            // SAFETY: no reader can reference an entry that the limbo gives out, and the limbo no
            // longer holds it. Its header still has the flag of its layout.
            unsafe {
                let chain = if shape.has_standard_layout(entry) {
                    &mut free
                } else {
                    &mut nonstandard
                };
                chain.push(entry);
            }
        }
        self.limbo.shrink();
        DeferredWork {
            free,
            nonstandard,
            // An empty list stays, since its memory is reused.
            evicted: match self.evicted.is_empty() {
                true => Vec::new(),
                false => std::mem::take(&mut self.evicted),
            },
            wanted: self.sizing.take_request(),
            bulk: match &self.bulk {
                None => Vec::new(),
                Some(_) => self.take_freeable_bulk(domain),
            },
        }
    }

    /// Takes the bulk objects whose readers have unpinned. They are few and large, so every visit
    /// checks all of them.
    #[cold]
    fn take_freeable_bulk(&mut self, domain: &Domain) -> Vec<Bulk> {
        let bulk = self.bulk.get_or_insert_default();
        let passed = bulk.extract_if(.., |(seal, _)| {
            domain.passed(seal.get_or_insert_with(|| domain.seal())).0
        });
        let deferred = passed.map(|(_, bulk)| bulk).collect();
        if bulk.is_empty() {
            self.bulk = None;
        }
        deferred
    }

    /// Returns whether the limbo holds entries.
    pub(super) fn has_garbage(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// Takes ownership of the writer of a thread that has ended.
    pub(super) fn take_writer(&mut self, writer: OldWriter) {
        let bulk = (None, Bulk::Writer(writer));
        self.bulk.get_or_insert_default().push(bulk);
    }

    /// Takes a table that readers may still see. It is freed once they have unpinned.
    pub(super) fn retire_table(&mut self, table: OwnedTable) {
        self.bulk.get_or_insert_default().push((None, Bulk::Table(table)));
    }

    /// Returns the entries that wait for readers to unpin, or for the listener.
    pub(super) fn unlinked(&mut self) -> impl Iterator<Item = Handle> {
        self.limbo.reopen();
        let evicted = self.evicted.iter().map(|(entry, _)| *entry);
        self.limbo.iter().chain(evicted)
    }

    /// Frees entries that the listener has seen, and keeps the memory of the list for reuse.
    pub(super) fn release(&mut self, shown: &mut Vec<(Handle, Cause)>) {
        for (handle, _) in shown.drain(..) {
            self.apply(Event::Released(handle));
        }
        if self.evicted.capacity() == 0 && shown.capacity() <= SHOWN {
            self.evicted = std::mem::take(shown);
        }
    }

    /// Takes all entries out of the limbo. For a cache that no thread can reach any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Handle> {
        self.limbo.drain()
    }

    /// Takes all [`Bulk`] objects. For a cache that no thread can reach any more.
    pub(super) fn drain_bulk(&mut self) -> impl Iterator<Item = Bulk> {
        let all = self.bulk.take().into_iter().flat_map(|all| *all);
        all.map(|(_, bulk)| bulk)
    }

    /// Applies the events of a ring. Arrivals, which nearly all events of a full cache are, are
    /// passed to the policy in one call.
    #[inline]
    pub(super) fn apply_all(&mut self, mut events: Batch<'_>) {
        self.limbo.count_applied(events.len());
        let arrived = events.filter_map(Event::arrival);
        self.policy.prefetch(arrived.map(|new| self.policy_view.hash(new)));
        loop {
            let (view, before, mut timed) = (&self.policy_view, events, false);
            let plain = std::iter::from_fn(|| {
                let new = Event::arrival(events.peek()?).filter(|new| view.place(*new) == NEW)?;
                events.pass();
                timed |= view.is_timed(new);
                Some(new)
            });
            self.policy.insert_all(view, plain, &mut self.evictions);
            let inserted = before.len() - events.len();
            self.counts.insertions += inserted as u64;
            self.arrived += inserted as u32; // at most a ring
            self.detach_evicted();
            if timed {
                let arrivals = before.take(inserted).filter_map(Event::arrival);
                arrivals.for_each(|new| self.schedule_timer(new));
            }
            let Some(other) = events.next() else { return };
            self.apply(Event::unpack(other));
        }
    }

    /// Applies one event. Entries that the policy evicts stay in the map until the next
    /// `unlink_evicted`.
    #[inline(always)]
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Arrived(new) => self.arrive(new),
            Event::Retired { old, expired } => {
                self.counts.expirations += u64::from(expired);
                self.retire(old);
            }
            Event::Replaced { new, old, expired } => {
                self.counts.expirations += u64::from(expired);
                if self.policy_view.place(old) <= MAX_PLACE && self.policy_view.place(new) == NEW {
                    self.counts.insertions += 1;
                    self.policy.replace(&self.policy_view, old, new, &mut self.evictions);
                    self.detach(old);
                    self.defer_free(old);
                    self.detach_evicted();
                    self.schedule_timer(new);
                } else {
                    self.retire(old);
                    self.arrive(new);
                }
            }
            Event::Released(entry) => self.defer_free(entry),
        }
    }

    #[inline(always)]
    fn arrive(&mut self, new: Handle) {
        self.counts.insertions += 1;
        if self.policy_view.place(new) != NEW {
            return self.arrive_unlinked(new);
        }
        self.arrived += 1;
        self.policy.insert(&self.policy_view, new, &mut self.evictions);
        self.detach_evicted();
        self.schedule_timer(new);
    }

    /// Applies the arrival of an entry that has already left the map.
    #[cold]
    #[inline(never)]
    fn arrive_unlinked(&mut self, new: Handle) {
        match self.policy_view.place(new) {
            DEAD => self.defer_free(new),
            place => {
                debug_assert_eq!(place, EVICTED, "an entry arrives once");
                self.detach(new);
                self.discard(new, Cause::Size);
            }
        }
    }

    /// Applies the arrival of an entry that is restored from a snapshot with its `rank`.
    #[cfg(feature = "snapshot")]
    pub(super) fn restore(&mut self, new: Handle, rank: Rank) {
        if self.policy_view.place(new) != NEW {
            return self.arrive(new);
        }
        self.counts.insertions += 1;
        self.arrived += 1;
        self.policy.restore(&self.policy_view, new, rank, &mut self.evictions);
        self.detach_evicted();
        self.schedule_timer(new);
    }

    #[cfg(feature = "snapshot")]
    pub(super) fn set_window(&mut self, share: u32) {
        self.policy.set_window(&self.policy_view, share, &mut self.evictions);
        self.detach_evicted();
    }

    /// Returns the policy's rank of an entry.
    #[cfg(feature = "snapshot")]
    pub(super) fn rank(&mut self, entry: Handle) -> Rank {
        if self.policy_view.place(entry) <= MAX_PLACE {
            self.policy.rank(&self.policy_view, entry)
        } else {
            Rank::default()
        }
    }

    /// Sets the timer of an inserted entry, if it has a deadline and the policy still holds it.
    #[inline(always)]
    fn schedule_timer(&mut self, new: Handle) {
        if self.policy_view.is_timed(new) {
            self.schedule_timer_slow(new);
        }
    }

    #[inline(never)]
    fn schedule_timer_slow(&mut self, new: Handle) {
        let timers = self.timer_view();
        self.timed = true;
        if let Some(timing) = timers.timing(new)
            && timing.deadline() != NO_DEADLINE
            && self.policy_view.place(new) <= MAX_PLACE
        {
            timing.set_scheduled(timing.deadline());
            if self.wheel.is_none() {
                self.wheel = new_wheel();
            }
            if let Some(wheel) = &mut self.wheel
                && wheel.schedule(&timers, new)
            {
                return;
            }
            self.evict_without_timer(new);
        }
    }

    /// Evicts an entry for whose timer there is no memory: it would outlive its deadline, forever
    /// if no lookup finds it.
    #[cold]
    fn evict_without_timer(&mut self, entry: Handle) {
        self.policy.remove(&self.policy_view, entry);
        self.evictions.push((entry, Verdict::Evicted));
        self.detach_evicted();
    }

    /// Returns the time of the next timer.
    #[inline]
    pub(super) fn next_timer(&self) -> u64 {
        self.wheel.as_ref().map_or(NO_DEADLINE, |wheel| wheel.next())
    }

    /// Removes entries that have expired at `now`, checking at most `budget` timers. Returns
    /// whether more may be due.
    pub(super) fn expire(&mut self, now: u64, budget: usize, map: &Map, guard: &Guard) -> bool {
        let timers = self.timer_view();
        self.now = now;
        let Some(wheel) = &mut self.wheel else { return false };
        let mut fired = Vec::new();
        let more = wheel.advance(&timers, now, budget, |_, handle| {
            map.prefetch(u64::from(self.policy_view.hash(handle)) << 32, guard);
            fired.push(handle);
        });
        let progress = self.expire_all(fired, now, map, guard);
        // After the clock went back, the wheel may be ahead of `now`: then there is nothing to do
        // yet.
        more && progress
    }

    /// Removes entries that have expired at `now`, but whose timers fire only at the next tick.
    /// Called after [`expire`](Self::expire).
    pub(super) fn expire_reached(&mut self, now: u64, map: &Map, guard: &Guard) {
        let timers = self.timer_view();
        if let Some(wheel) = &mut self.wheel {
            let reached = wheel.take_reached(&timers, now);
            self.expire_all(reached, now, map, guard);
        }
    }

    /// Removes the entries whose timers fired, unless a hit has moved their deadline. Returns
    /// whether an entry was removed, or `fired` was empty.
    fn expire_all(&mut self, fired: Vec<Handle>, now: u64, map: &Map, guard: &Guard) -> bool {
        let mut progress = fired.is_empty();
        for entry in fired {
            if self
                .timer_view()
                .timing(entry)
                .is_some_and(|timing| timing.deadline() > now)
            {
                self.schedule_timer(entry); // the deadline was moved, or the wheel had no memory to keep the timer
                continue;
            }
            progress = true;
            self.policy.remove(&self.policy_view, entry);
            self.detach(entry);
            if map.remove_exact(entry.0, guard) {
                self.counts.expirations += 1;
                self.discard(entry, Cause::Expired);
            }
        }
        progress
    }

    /// Sets the timer of an entry again, after its deadline was moved earlier.
    pub(super) fn reschedule_earlier(&mut self, entry: Handle) {
        let timers = self.timer_view();
        if self.policy_view.place(entry) <= MAX_PLACE {
            if let Some(wheel) = &mut self.wheel {
                wheel.cancel(&timers, entry);
            }
            self.schedule_timer(entry);
        }
    }

    #[inline]
    fn retire(&mut self, old: Handle) {
        match self.policy_view.place(old) {
            // Its arrival is not applied yet, and will free it (invariant 9).
            NEW => {
                // SAFETY: an entry is alive until both its events are applied.
                unsafe { old.header() }.set_place(DEAD);
                return;
            }
            GONE => {}
            place => {
                debug_assert!(place <= MAX_PLACE, "an entry retires once");
                self.policy.remove(&self.policy_view, old);
                self.detach(old);
            }
        }
        self.defer_free(old);
    }

    #[inline(always)]
    fn defer_free(&mut self, entry: Handle) {
        self.limbo.push(entry);
    }

    /// Marks an entry that the policy no longer holds. Its retirement may not be applied yet, and a
    /// reader that found it earlier may still record a hit.
    #[inline(always)]
    fn detach(&mut self, entry: Handle) {
        if self.timed
            && self.policy_view.is_timed(entry)
            && let Some(wheel) = &mut self.wheel
        {
            wheel.cancel(&TimerView(self.policy_view.0), entry);
        }
        // SAFETY: an entry is alive until it is put into the limbo, and then until its readers
        // unpin.
        unsafe { entry.header() }.set_place(GONE);
    }

    /// Detaches the entries that the policy has just evicted.
    #[inline]
    fn detach_evicted(&mut self) {
        while let Some(&(entry, _)) = self.evictions.get(self.detached as usize) {
            self.detach(entry);
            self.detached += 1;
        }
    }

    /// Removes the evicted entries from the map, and resizes the table if necessary.
    #[inline(always)]
    pub(super) fn unlink_evicted(&mut self, map: &Map, guard: &Guard) {
        for &(victim, _) in &self.evictions {
            map.prefetch(u64::from(self.policy_view.hash(victim)) << 32, guard);
        }
        let mut evictions = std::mem::take(&mut self.evictions);
        self.detached = 0;
        for (victim, verdict) in evictions.drain(..) {
            if !map.remove_exact(victim.0, guard) {
                continue; // another thread unlinked it, and that thread's event frees it (invariant 8)
            }
            match verdict {
                Verdict::Evicted => self.count_eviction(victim),
                Verdict::Rejected => self.counts.rejections += 1,
            }
            self.discard(victim, Cause::Size);
        }
        self.evictions = evictions; // keeps its memory
        let arrived = std::mem::take(&mut self.arrived);
        if self.sizing.needs_work(self.policy.len(), arrived) {
            self.resize_by_arrivals(arrived, map, guard);
        }
    }

    /// Returns the entries as the wheel sees them.
    #[inline(always)]
    fn timer_view(&self) -> TimerView {
        TimerView(self.policy_view.0)
    }

    /// Returns whether entries may have other weights than 1.
    #[inline(always)]
    pub(super) fn is_weighted(&self) -> bool {
        self.policy_view.0.weighted
    }

    /// Counts an eviction of an entry, which is still alive.
    #[inline(always)]
    pub(super) fn count_eviction(&mut self, victim: Handle) {
        self.counts.evictions += 1;
        if self.is_weighted() {
            let weight = self.policy_view.weight(victim);
            self.counts.evicted_weight = self.counts.evicted_weight.saturating_add(weight);
        }
    }

    #[inline]
    fn discard(&mut self, victim: Handle, cause: Cause) {
        if self.listened {
            self.evicted.push((victim, cause));
        } else {
            self.defer_free(victim);
        }
    }

    /// Evicts an entry that is no longer in the map, because its table had no room for it.
    pub(super) fn evict_unlinked(&mut self, entry: Handle) {
        self.count_eviction(entry);
        match self.policy_view.place(entry) {
            // Its arrival, which may wait for user code, frees it.
            NEW => {
                let mark = if self.listened { EVICTED } else { DEAD };
                // SAFETY: an entry is alive until both its events are applied.
                unsafe { entry.header() }.set_place(mark);
            }
            // The policy has just evicted it, and `unlink_evicted` will not find it in the map.
            GONE => self.discard(entry, Cause::Size),
            place => {
                debug_assert!(place <= MAX_PLACE, "an entry leaves the map once");
                self.policy.remove(&self.policy_view, entry);
                self.detach(entry);
                self.discard(entry, Cause::Size);
            }
        }
    }

    /// Panics if timers and entries disagree. `held` is the number of entries in the map with a
    /// timer.
    pub(super) fn validate_timers(&self, held: usize) {
        let timers = self.timer_view();
        if let Some(wheel) = &self.wheel {
            wheel.validate(&timers);
        }
        let timers = self.wheel.as_ref().map_or(0, |wheel| wheel.len());
        assert_eq!(timers, held, "no timer outlives its entry");
    }

    /// Returns whether an entry has a timer.
    pub(super) fn has_timer(&self, entry: Handle) -> bool {
        let timers = self.timer_view();
        self.policy_view.is_timed(entry)
            && self
                .wheel
                .as_ref()
                .is_some_and(|wheel| wheel.is_scheduled(&timers, entry))
    }

    pub(super) fn set_capacity(&mut self, capacity: u64, map: &Map, guard: &Guard) {
        self.policy
            .set_capacity(&self.policy_view, capacity, &mut self.evictions);
        self.detach_evicted();
        self.unlink_evicted(map, guard);
        self.set_room(map, guard);
    }
}
