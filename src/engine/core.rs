//! What the holder of the maintenance lock works on: the policy, the garbage, the growing table.
//!
//! No user code runs here. What needs some (listeners, destructors) is left as [`DeferredWork`].

use super::entry::{Chain, DEAD, EVICTED, ExpiryRef, GONE, Handle, NEVER, NEW, Shape};
use super::limbo::{Limbo, Portion};
use super::sizing::Sizing;
use super::thread_state::OldWriter;
use crate::map::{Header, LINKED, Map, OwnedTable};
use crate::policy::{AnyPolicy, Entries, Evictions, MAX_PLACE, Places, Policy, PolicyKind, Rank, Verdict};
use crate::prim::memory::boxed;
use crate::prim::prefetch::prefetch;
use crate::prim::wheel::{IDLE, Timers, Wheel};
use crate::reclaim::{Domain, Guard, Seal};
use crate::stats::Cause;

/// The entries as the policy sees them.
///
/// Its safe methods dereference handles: the core hands the policy only live entries, and takes each back (by removing
/// it from the policy, or by finding it in `out`) before it is freed.
pub(super) struct PolicyView(Shape);

impl Places for PolicyView {
    type Handle = Handle;

    #[inline]
    fn place(&self, handle: Handle) -> u32 {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.place()
    }
    #[inline]
    fn set_place(&self, handle: Handle, place: u32) {
        debug_assert!(place <= MAX_PLACE);
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.set_place(place);
    }
    #[inline]
    fn prefetch(&self, handle: Handle) {
        prefetch::<Header>(handle.0.as_ptr());
    }
}

impl Entries for PolicyView {
    #[inline]
    fn hash(&self, handle: Handle) -> u32 {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.hash()
    }
    #[inline]
    fn weight(&self, handle: Handle) -> u64 {
        // SAFETY: see `PolicyView`; all entries of a cache have its shape.
        unsafe { self.0.weight(handle) }
    }
    #[inline]
    fn hits(&self, handle: Handle) -> u8 {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.hits()
    }
    #[inline]
    fn set_hits(&self, handle: Handle, hits: u8) {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.set_hits(hits);
    }
}

/// The entries as the wheel sees them: only those with times are ever given to it. As safe as [`PolicyView`].
pub(super) struct TimerView(Shape);

impl TimerView {
    #[inline]
    fn timing(&self, handle: Handle) -> Option<ExpiryRef<'_>> {
        // SAFETY: see `PolicyView`: the core has only live entries, and this reference is short.
        unsafe { self.0.timing(handle) }
    }
}

impl Places for TimerView {
    type Handle = Handle;

    #[inline]
    fn place(&self, handle: Handle) -> u32 {
        self.timing(handle).map_or(IDLE, ExpiryRef::timer)
    }
    #[inline]
    fn set_place(&self, handle: Handle, place: u32) {
        if let Some(timing) = self.timing(handle) {
            timing.set_timer(place);
        }
    }
    #[inline]
    fn prefetch(&self, handle: Handle) {
        prefetch::<Header>(handle.0.as_ptr());
    }
}

impl Timers for TimerView {
    #[inline]
    fn deadline(&self, handle: Handle) -> u64 {
        self.timing(handle).map_or(NEVER, ExpiryRef::scheduled)
    }
}

/// One change of the map, for the policy. Recorded by the thread that made the change, after it; changes of one key may
/// be applied in any order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// An entry came in, where there was none.
    Arrived(Handle),
    /// An entry was unlinked; its time was over, or not.
    Retired { old: Handle, expired: bool },
    /// `new` came in where `old` was unlinked, likewise.
    Replaced { new: Handle, old: Handle, expired: bool },
    /// An entry that the policy no longer holds, and nobody needs, can go.
    Released(Handle),
}

impl Event {
    /// As two words for a ring.
    #[inline]
    pub(super) fn pack(self) -> [u64; 2] {
        let word = |handle: Handle| handle.0.as_ptr().expose_provenance() as u64;
        match self {
            Event::Arrived(new) => [word(new), 0],
            Event::Retired { old, expired } => [0, word(old) | u64::from(expired) << 1],
            Event::Replaced { new, old, expired } => [word(new), word(old) | u64::from(expired) << 1],
            Event::Released(old) => [0, word(old) | 1],
        }
    }

    #[inline]
    pub(super) fn unpack([new, old]: [u64; 2]) -> Self {
        let handle = |word: u64| {
            let pointer = std::ptr::with_exposed_provenance_mut::<Header>((word & !3) as usize);
            std::ptr::NonNull::new(pointer).map(Handle)
        };
        let expired = old & 2 != 0;
        match (handle(new), handle(old)) {
            (Some(new), None) => Event::Arrived(new),
            (Some(new), Some(old)) => Event::Replaced { new, old, expired },
            (None, Some(released)) if old & 1 == 1 => Event::Released(released),
            (None, Some(old)) => Event::Retired { old, expired },
            (None, None) => unreachable!("an event names an entry"),
        }
    }

    /// Whether an entry leaves by it.
    #[inline]
    pub(super) fn lets_go(self) -> bool {
        !matches!(self, Event::Arrived(_))
    }

    /// The entry that came in, if one did.
    #[inline]
    pub(super) fn entry(self) -> Option<Handle> {
        match self {
            Event::Arrived(new) | Event::Replaced { new, .. } => Some(new),
            Event::Retired { .. } | Event::Released(_) => None,
        }
    }
}

/// What is left to do when the lock has been given up: it may run user code.
#[must_use]
pub(super) struct DeferredWork {
    /// Evicted and expired entries that the removal listener must see before they are released.
    pub(super) evicted: Vec<(Handle, Cause)>,
    /// Entries that no reader can see any more, of an unusual size.
    pub(super) nonstandard: Chain,
    /// The others that no reader can see any more.
    pub(super) free: Chain,
    /// A table of as many buckets is needed, if not 0.
    pub(super) wanted: usize,
    pub(super) bulk: Vec<Bulk>,
}

/// Large things that no thread can see any more: they are freed outside the lock.
pub(super) enum Bulk {
    Table(OwnedTable),
    /// Of a thread that has ended.
    Writer(OldWriter),
}

type BulkList = Vec<(Option<Seal>, Bulk)>;

impl Bulk {
    /// Frees it; the memory of previous entries that was kept there is the caller's. `free_table` frees a table.
    pub(super) fn into_spares(self, free_table: impl FnOnce(OwnedTable)) -> Chain {
        match self {
            Self::Table(table) => {
                free_table(table);
                Chain::new()
            }
            Self::Writer(mut writer) => writer.take_spares(),
        }
    }
}

impl DeferredWork {
    pub(super) fn nothing() -> Self {
        Self {
            evicted: Vec::new(),
            nonstandard: Chain::new(),
            free: Chain::new(),
            wanted: 0,
            bulk: Vec::new(),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.evicted.is_empty() && self.nonstandard.len() + self.free.len() == 0 && !self.has_bulk()
    }

    /// Whether there is a table to allocate, or something large to free.
    pub(super) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty() || self.wanted != 0
    }
}

/// Counts that only the core changes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) insertions: u64,
    pub(super) evictions: u64,
    pub(super) rejections: u64,
    pub(super) expirations: u64,
}

pub(super) struct Core {
    pub(super) policy: AnyPolicy<PolicyView>,
    pub(super) shelf: PolicyView,
    /// Made when first needed.
    wheel: Option<Box<Wheel<Handle>>>,
    alarms: TimerView,
    /// Entries with times have come in.
    timed: bool,
    /// When expired entries were last taken out.
    pub(super) now: u64,
    limbo: Limbo,
    pub(super) sizing: Sizing,
    /// Few and large things that wait for their readers, each with a seal of its own from the next `due` on.
    bulk: Option<Box<BulkList>>,
    pub(super) counts: Counts,
    out: Evictions<Handle>,
    /// Of `out`, so many are marked as gone.
    forgotten: u32,
    evicted: Vec<(Handle, Cause)>,
    pub(super) weighted: bool,
    /// Evicted entries are shown to a listener before they are released.
    listened: bool,
    /// Freeing entries runs destructors.
    drops: bool,
    /// Entries that came in since the last `unlink_evicted`.
    arrived: u32,
    /// Whose rings come next, where not all are looked at.
    pub(super) cursor_of_rings: u32,
}

/// What [`Core::due`] may do with the guard of the calling thread.
#[derive(Clone, Copy)]
pub(super) enum Own<'g> {
    /// What was found under it may still be used.
    SnapshotEvent,
    /// Nothing that was found under this guard is used any more: it is not to hold anything up.
    Spent(&'g Guard),
}

/// How long a list for what the listener is to see may be, to be kept for the next ones.
const SHOWN: usize = 64;

impl Core {
    pub(super) fn new(
        (kind, capacity): (PolicyKind, u64),
        shape: Shape,
        listened: bool,
        drops: bool,
        slots: usize,
    ) -> Self {
        const { assert!(MAX_PLACE < LINKED && LINKED <= EVICTED) };
        Self {
            policy: AnyPolicy::new(kind, capacity, shape.weighted),
            shelf: PolicyView(shape),
            wheel: None,
            alarms: TimerView(shape),
            timed: false,
            now: 0,
            limbo: Limbo::new(),
            sizing: Sizing::new(slots),
            bulk: None,
            counts: Counts::default(),
            out: Evictions::new(),
            forgotten: 0,
            evicted: Vec::new(),
            weighted: shape.weighted,
            listened,
            drops,
            arrived: 0,
            cursor_of_rings: 0,
        }
    }

    /// What became due: of the entries that no reader can see, as many as `portion` says, and everything else.
    ///
    /// # Safety
    /// What was found before under a guard that is [`Own::Spent`] is not used any more.
    #[inline]
    pub(super) unsafe fn due(&mut self, domain: &Domain, own: Own<'_>, portion: Portion) -> DeferredWork {
        let own = match own {
            Own::SnapshotEvent => None,
            Own::Spent(guard) => Some(guard),
        };
        // SAFETY: the caller's promise.
        unsafe { self.limbo.collect(domain, own, portion == Portion::All) };
        let count = self.limbo.due(self.drops, portion);
        let (shape, mut free, mut nonstandard) = (self.shelf.0, Chain::new(), Chain::new());
        for entry in (0..count).map_while(|_| self.limbo.pop()) {
            // SAFETY: no reader sees what is safe, and the limbo does not hold it any more; its header still says its size.
            unsafe {
                let chain = if shape.has_standard_layout(entry) {
                    &mut free
                } else {
                    &mut nonstandard
                };
                chain.push(entry);
            }
        }
        DeferredWork {
            free,
            nonstandard,
            evicted: std::mem::take(&mut self.evicted),
            wanted: self.sizing.take_due(),
            bulk: match &self.bulk {
                None => Vec::new(),
                Some(_) => self.due_bulk(domain),
            },
        }
    }

    /// Few and large, so looked after at every visit until they are gone.
    #[cold]
    fn due_bulk(&mut self, domain: &Domain) -> Vec<Bulk> {
        let bulk = self.bulk.get_or_insert_default();
        let passed = bulk.extract_if(.., |(seal, _)| {
            domain.passed(seal.get_or_insert_with(|| domain.seal())).0
        });
        let due = passed.map(|(_, bulk)| bulk).collect();
        if bulk.is_empty() {
            self.bulk = None;
        }
        due
    }

    /// Whether entries wait to be freed.
    pub(super) fn has_garbage(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// Takes over what a thread that has ended changed the cache with.
    pub(super) fn take_writer(&mut self, writer: OldWriter) {
        let bulk = (None, Bulk::Writer(writer));
        self.bulk.get_or_insert_default().push(bulk);
    }

    /// Takes a table that readers may still see, to be freed when they are gone.
    pub(super) fn retire_table(&mut self, table: OwnedTable) {
        self.bulk.get_or_insert_default().push((None, Bulk::Table(table)));
    }

    /// What waits for its readers, or for its listener.
    pub(super) fn unlinked(&mut self) -> impl Iterator<Item = Handle> {
        self.limbo.reopen();
        let evicted = self.evicted.iter().map(|(entry, _)| *entry);
        self.limbo.iter().chain(evicted)
    }

    /// The listener has seen these: takes them, and the list's memory for the next ones.
    pub(super) fn release(&mut self, shown: &mut Vec<(Handle, Cause)>) {
        for (handle, _) in shown.drain(..) {
            self.apply(Event::Released(handle));
        }
        if self.evicted.capacity() == 0 && shown.capacity() <= SHOWN {
            self.evicted = std::mem::take(shown);
        }
    }

    /// All garbage, for a cache that no thread can reach any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Handle> {
        self.limbo.drain()
    }

    /// All that is [`Bulk`], likewise.
    pub(super) fn drain_bulk(&mut self) -> impl Iterator<Item = Bulk> {
        let all = self.bulk.take().into_iter().flat_map(|all| *all);
        all.map(|(_, bulk)| bulk)
    }

    /// An event that will soon be applied: has the memory that this will need fetched.
    #[inline(always)]
    pub(super) fn prefetch_event(&self, event: Event) {
        if let Event::Arrived(new) = event {
            self.policy.prefetch(self.shelf.hash(new));
        }
    }

    /// Applies one event. The map hears of what the policy gives up at the next `unlink_evicted`.
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
                if self.shelf.place(old) <= MAX_PLACE && self.shelf.place(new) == NEW {
                    self.counts.insertions += 1;
                    self.policy.replace(&self.shelf, old, new, &mut self.out);
                    self.detach(old);
                    self.defer_free(old);
                    self.forget_out();
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
        if self.shelf.place(new) != NEW {
            return self.arrive_unlinked(new);
        }
        self.arrived += 1;
        self.policy.insert(&self.shelf, new, &mut self.out);
        self.forget_out();
        self.schedule_timer(new);
    }

    /// An entry has arrived that is in the map no more.
    #[cold]
    #[inline(never)]
    fn arrive_unlinked(&mut self, new: Handle) {
        match self.shelf.place(new) {
            DEAD => self.defer_free(new),
            place => {
                debug_assert_eq!(place, EVICTED, "an entry arrives once");
                self.detach(new);
                self.discard(new, Cause::Size);
            }
        }
    }

    /// An entry has come in that was in a snapshot, with what the policy thought of it.
    pub(super) fn restore(&mut self, new: Handle, rank: Rank) {
        if self.shelf.place(new) != NEW {
            return self.arrive(new);
        }
        self.counts.insertions += 1;
        self.arrived += 1;
        self.policy.restore(&self.shelf, new, rank, &mut self.out);
        self.forget_out();
        self.schedule_timer(new);
    }

    pub(super) fn set_window(&mut self, share: u32) {
        self.policy.set_window(&self.shelf, share, &mut self.out);
        self.forget_out();
    }

    /// What the policy thinks of an entry.
    pub(super) fn rank(&mut self, entry: Handle) -> Rank {
        if self.shelf.place(entry) <= MAX_PLACE {
            self.policy.rank(&self.shelf, entry)
        } else {
            Rank::default()
        }
    }

    /// Sets the timer of an entry that has come in, if it needs one and is still there.
    #[inline(always)]
    fn schedule_timer(&mut self, new: Handle) {
        // SAFETY: an entry is alive until it is put into the limbo, and then until its readers are gone.
        if unsafe { new.header() }.is_timed() {
            self.set_alarm_of_timed(new);
        }
    }

    #[inline(never)]
    fn set_alarm_of_timed(&mut self, new: Handle) {
        self.timed = true;
        if let Some(timing) = self.alarms.timing(new)
            && timing.deadline() != NEVER
            && self.shelf.place(new) <= MAX_PLACE
        {
            timing.set_scheduled(timing.deadline());
            if self.wheel.is_none() {
                self.wheel = boxed(Wheel::new());
            }
            let scheduled = self.wheel.as_mut().map(|wheel| wheel.schedule(&self.alarms, new));
            if scheduled != Some(true) {
                // Without a timer it would stay beyond its deadline, for ever if it is not looked up.
                self.policy.remove(&self.shelf, new);
                self.out.push((new, Verdict::Evicted));
                self.forget_out();
            }
        }
    }

    /// The moment of the next timer.
    #[inline]
    pub(super) fn next_alarm(&self) -> u64 {
        self.wheel.as_ref().map_or(NEVER, |wheel| wheel.next())
    }

    /// Takes out entries whose time is over at `now`, but looks at no more than `budget`; whether there are more.
    pub(super) fn expire(&mut self, now: u64, budget: usize, map: &Map, guard: &Guard) -> bool {
        self.now = now;
        let Some(wheel) = &mut self.wheel else { return false };
        let mut fired = Vec::new();
        let more = wheel.advance(&self.alarms, now, budget, |_, handle| {
            map.prefetch(u64::from(self.shelf.hash(handle)) << 32, guard);
            fired.push(handle);
        });
        let progress = self.expire_all(fired, now, map, guard);
        // (The wheel may know of a later moment than `now`, if the clock went back: then there is no more to be had now.)
        more && progress
    }

    /// Takes out entries that have expired at `now`, but whose timers fire only when the next tick begins; after [`expire`](Self::expire).
    pub(super) fn expire_reached(&mut self, now: u64, map: &Map, guard: &Guard) {
        if let Some(wheel) = &mut self.wheel {
            let reached = wheel.take_reached(&self.alarms, now);
            self.expire_all(reached, now, map, guard);
        }
    }

    /// Takes out the entries whose timers fired, unless they were hit since. Whether there was one to be taken out, or none at all.
    fn expire_all(&mut self, fired: Vec<Handle>, now: u64, map: &Map, guard: &Guard) -> bool {
        let mut progress = fired.is_empty();
        for entry in fired {
            if self.alarms.timing(entry).is_some_and(|timing| timing.deadline() > now) {
                self.schedule_timer(entry); // it was hit since, or the wheel had no memory to keep it
                continue;
            }
            progress = true;
            self.policy.remove(&self.shelf, entry);
            self.detach(entry);
            if map.remove_exact(entry.0, guard) {
                self.counts.expirations += 1;
                self.discard(entry, Cause::Expired);
            }
        }
        progress
    }

    /// Sets the timer of an entry anew whose deadline has come nearer.
    pub(super) fn reschedule_earlier(&mut self, entry: Handle) {
        if self.shelf.place(entry) <= MAX_PLACE {
            if let Some(wheel) = &mut self.wheel {
                wheel.cancel(&self.alarms, entry);
            }
            self.schedule_timer(entry);
        }
    }

    #[inline]
    fn retire(&mut self, old: Handle) {
        match self.shelf.place(old) {
            // Its arrival is still to come, and will free it.
            NEW => {
                // SAFETY: an entry is alive until both its events were applied.
                unsafe { old.header() }.set_place(DEAD);
                return;
            }
            GONE => {}
            place => {
                debug_assert!(place <= MAX_PLACE, "an entry retires once");
                self.policy.remove(&self.shelf, old);
                self.detach(old);
            }
        }
        self.defer_free(old);
    }

    #[inline(always)]
    fn defer_free(&mut self, entry: Handle) {
        self.limbo.push(entry);
    }

    /// Marks an entry that the policy no longer holds: a reader that found it earlier may still report a hit of it, and its
    /// retirement may still be on its way.
    #[inline(always)]
    fn detach(&mut self, entry: Handle) {
        if self.timed
            && self.alarms.timing(entry).is_some()
            && let Some(wheel) = &mut self.wheel
        {
            wheel.cancel(&self.alarms, entry);
        }
        // SAFETY: an entry is alive until it is put into the limbo, and then until its readers are gone.
        unsafe { entry.header() }.set_place(GONE);
    }

    /// Marks what the policy has just given up.
    #[inline]
    fn forget_out(&mut self) {
        while let Some(&(entry, _)) = self.out.get(self.forgotten as usize) {
            self.detach(entry);
            self.forgotten += 1;
        }
    }

    /// Unlinks what the policy gave up since the last time, and resizes the table if need be.
    #[inline(always)]
    pub(super) fn unlink_evicted(&mut self, map: &Map, guard: &Guard) {
        for &(victim, _) in &self.out {
            map.prefetch(u64::from(self.shelf.hash(victim)) << 32, guard);
        }
        let mut out = std::mem::take(&mut self.out);
        self.forgotten = 0;
        for (victim, verdict) in out.drain(..) {
            if !map.remove_exact(victim.0, guard) {
                continue; // somebody else unlinked it: that event will free it
            }
            match verdict {
                Verdict::Evicted => self.counts.evictions += 1,
                Verdict::Rejected => self.counts.rejections += 1,
            }
            self.discard(victim, Cause::Size);
        }
        self.out = out; // with its memory
        let arrived = std::mem::take(&mut self.arrived);
        if self.sizing.is_due(self.policy.len(), arrived) {
            self.resize_by_arrivals(arrived, map, guard);
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

    /// Evicts an entry that is no longer in the map, for which its table had no room.
    pub(super) fn evict_unlinked(&mut self, entry: Handle) {
        self.counts.evictions += 1;
        match self.shelf.place(entry) {
            // Its arrival, which may wait for user code, frees it.
            NEW => {
                let mark = if self.listened { EVICTED } else { DEAD };
                // SAFETY: an entry is alive until both its events were applied.
                unsafe { entry.header() }.set_place(mark);
            }
            // The policy has just given it up: `unlink_evicted` will not find it in the map.
            GONE => self.discard(entry, Cause::Size),
            place => {
                debug_assert!(place <= MAX_PLACE, "an entry leaves the map once");
                self.policy.remove(&self.shelf, entry);
                self.detach(entry);
                self.discard(entry, Cause::Size);
            }
        }
    }

    /// Panics if timers and entries disagree; `held` of the entries in the map have timers.
    pub(super) fn validate_alarms(&self, held: usize) {
        if let Some(wheel) = &self.wheel {
            wheel.validate(&self.alarms);
        }
        let timers = self.wheel.as_ref().map_or(0, |wheel| wheel.len());
        assert_eq!(timers, held, "no timer outlives its entry");
    }

    /// Whether an entry has a timer.
    pub(super) fn has_alarm(&self, entry: Handle) -> bool {
        self.wheel
            .as_ref()
            .is_some_and(|wheel| wheel.is_scheduled(&self.alarms, entry))
    }

    pub(super) fn set_capacity(&mut self, capacity: u64, map: &Map, guard: &Guard) {
        self.policy.set_capacity(&self.shelf, capacity, &mut self.out);
        self.forget_out();
        self.unlink_evicted(map, guard);
        self.set_room(map, guard);
    }
}
