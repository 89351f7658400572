//! The size of the table: when it changes, and in which steps.
//!
//! # Steps
//!
//! The holder of the maintenance lock finds that the table should have another size
//! ([`Core::resize`]), and records a request. The thread that takes the request allocates the next
//! table after the unlock; writers continue with the current table. A later lock holder installs
//! it. Arrivals then move a few home buckets each. Old tables are also freed outside the lock.
//!
//! # Reasons
//!
//! - **Growth**: above 7/10 of the slots, to a size for twice the entries.
//! - **Shrinking**, only if the table is not sized by the capacity: below a sixteenth of the slots,
//!   to a size for twice the entries. So between two changes the number of insertions and removals
//!   is proportional to the size of the table.
//! - **An insertion finds no free slot** near its home bucket, which in a table of millions of
//!   buckets happens before the table is full: to the next larger size. The home bucket of that
//!   insertion moves immediately.
//! - **The capacity was lowered**, or the cache was cleared: to the size for the capacity, or to a
//!   fresh table of the same size. The caller moves the home buckets.
//!
//! # Bound
//!
//! `HOMES_PER_ARRIVAL` home buckets move per arrival, so at most one entry arrives per
//! `HOMES_PER_ARRIVAL` buckets of the old table. A smaller table has at least a `MAX_SHRINK`th of
//! the buckets, so these arrivals fill at most a sixth of its slots.

use super::Engine;
use super::core::Core;
use crate::map::{Map, NoMemory};
use crate::policy::Policy;
use crate::prim::panics::Panics;
use crate::reclaim::Guard;

/// The most entries that an empty table is sized for.
const MAX_PRESIZED: u64 = 1 << 26;
/// A cache with a smaller capacity starts with a small table, which grows as it fills.
const MIN_PRESIZED: u64 = 1024;
/// The number of entries that such a table, or one without a capacity in entries, is first sized
/// for: two buckets, since many caches hold a few entries.
const FIRST_TABLE: u64 = 7;
/// The least number of entries that the next table is sized for.
const SECOND_TABLE: usize = 28;
/// Home buckets moved per arrival: about 64 entries.
const HOMES_PER_ARRIVAL: usize = 16;
/// The most home buckets moved per visit: some milliseconds if their pages are touched for the
/// first time.
pub(super) const MAX_HOMES_PER_STEP: usize = 2048;
/// A table shrinks to at least this fraction of its size in one change.
const MAX_SHRINK: usize = 16;
/// A table of this many buckets (64 KiB) does not shrink.
const MIN_BUCKETS: usize = 1024;

/// Insertions that write to a negligible number of pages: at most 4 MB.
const FEW_PAGES: usize = 1024;

/// The size of the table, and its pending change.
pub(super) struct Sizing {
    /// The table grows when the policy holds more entries than this.
    room: usize,
    /// Arrivals until a failed allocation is tried again; 0 if none failed.
    refused: u32,
    /// The number of insertions when the current table was installed, in units of [`FEW_PAGES`],
    /// modulo 2^16.
    installed: u16,
    /// Whether the table shrinks when the policy holds few entries.
    shrinks: bool,
    /// Whether home buckets are being moved to another table.
    resizing: bool,
    /// The pending change, if there is one.
    change: Option<Box<Change>>,
}

/// A change of the table, from the request until the old table is retired.
#[derive(Default)]
struct Change {
    /// The number of buckets of a table to allocate after the unlock; 0 for none.
    wanted: usize,
    /// The number of entries when a thread took the request.
    requested: Option<usize>,
    /// The next home bucket to move.
    cursor: usize,
    /// Home buckets that should already have moved.
    debt: usize,
    /// The number of entries at the last check.
    len: usize,
}

/// The result of one step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resize {
    /// Nothing is left to do: the table has the right size, or there is no memory for another.
    Done,
    /// A table was requested. The caller allocates it after the unlock.
    Requested,
    /// Home buckets were moved.
    Moved,
}

/// Returns the number of entries that a new cache's table is sized for.
pub(super) fn first_size(capacity: u64, weighted: bool) -> usize {
    let first = if is_presized(capacity, weighted) {
        capacity
    } else {
        capacity.min(FIRST_TABLE)
    };
    first as usize // at most MAX_PRESIZED
}

/// Returns whether the table is sized by the capacity instead of the number of entries.
fn is_presized(capacity: u64, weighted: bool) -> bool {
    !weighted && (MIN_PRESIZED..=MAX_PRESIZED).contains(&capacity)
}

/// Returns how many entries a table with this many slots holds before it grows.
fn room(slots: usize) -> usize {
    slots / 10 * 7
}

impl Sizing {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            room: room(slots),
            refused: 0,
            installed: 0,
            shrinks: false,
            resizing: false,
            change: None,
        }
    }

    /// Returns whether the table needs a change or a step of one. `arrived` is the number of
    /// entries since the last call.
    #[inline(always)]
    pub(super) fn needs_work(&mut self, len: usize, arrived: u32) -> bool {
        self.refused = self.refused.saturating_sub(arrived);
        self.resizing || len > self.room && self.refused == 0 || self.is_low(len)
    }

    /// Returns whether the table should shrink: fewer entries than about a sixteenth of the slots.
    #[inline(always)]
    fn is_low(&self, len: usize) -> bool {
        self.shrinks && len < self.room / 11
    }

    fn change(&mut self) -> &mut Change {
        self.change.get_or_insert_default()
    }

    /// Takes the request for a table. Returns its number of buckets, or 0.
    #[inline]
    pub(super) fn take_request(&mut self) -> usize {
        if self.change.is_some() {
            self.take_request_slow()
        } else {
            0
        }
    }

    #[cold]
    #[inline(never)]
    fn take_request_slow(&mut self) -> usize {
        let Some(change) = &mut self.change else { return 0 };
        let wanted = std::mem::take(&mut change.wanted);
        if wanted != 0 {
            change.requested = Some(change.len);
        }
        if !self.resizing && change.requested.is_none() {
            self.change = None;
        }
        wanted
    }
}

impl Core {
    fn is_presized(&self) -> bool {
        is_presized(self.policy.capacity(), self.is_weighted())
    }

    fn insertions_in_pages(&self) -> u16 {
        (self.counts.insertions / FEW_PAGES as u64) as u16
    }

    /// Updates the limits after a table was installed or the capacity changed.
    pub(super) fn set_room(&mut self, map: &Map, guard: &Guard) {
        self.sizing.room = room(map.slots(guard));
        self.sizing.shrinks = map.buckets(guard) >= 2 * MIN_BUCKETS && !self.is_presized();
    }

    /// Returns the number of buckets that the table should have, if it should change. With `fresh`,
    /// that may be its current size.
    fn wanted(&mut self, fresh: bool, map: &Map, guard: &Guard) -> Option<usize> {
        let (now, len) = (map.buckets(guard), self.policy.len());
        let capacity = usize::try_from(self.policy.capacity()).unwrap_or(usize::MAX);
        if len > self.sizing.room {
            let mut entries = len.saturating_mul(2).max(SECOND_TABLE);
            if !self.is_weighted() && entries >= capacity / 2 {
                // Not larger than the capacity needs, and without a last step that is too small to
                // be worth it.
                entries = capacity.max(len);
            }
            let buckets = Map::buckets_for(entries);
            if buckets <= now {
                self.sizing.room = usize::MAX; // the largest possible table
            }
            return (buckets > now).then_some(buckets);
        }
        let entries = if self.is_presized() {
            capacity.max(len)
        } else {
            len.saturating_mul(2)
        };
        let buckets = Map::buckets_for(entries).max(now / MAX_SHRINK).max(MIN_BUCKETS);
        // An insertion writes to at most one page. If few pages were written, a fresh table is not
        // worth it.
        let written = self.insertions_in_pages().wrapping_sub(self.sizing.installed);
        let worth = fresh && usize::from(written) * FEW_PAGES > now / 512;
        (buckets <= now / 2 || worth && buckets <= now && now > MIN_BUCKETS).then_some(buckets)
    }

    /// Performs one step towards the right size: moves up to `budget` home buckets, installs a
    /// prepared table, or records a request.
    fn resize(&mut self, fresh: bool, budget: usize, map: &Map, guard: &Guard) -> Resize {
        if self.sizing.resizing {
            self.move_homes(budget, map, guard);
            return Resize::Moved;
        }
        let wanted = self.wanted(fresh, map, guard);
        match map.take_prepared(guard) {
            Some(Ok(table)) => {
                self.sizing.change().requested = None;
                let (has, now) = (table.buckets(), map.buckets(guard));
                // The right size may have changed since the request.
                if wanted.is_some_and(|wanted| {
                    if wanted > now {
                        has > now
                    } else {
                        (wanted..=now).contains(&has)
                    }
                }) {
                    map.install(table, guard);
                    self.sizing.resizing = true;
                    return Resize::Moved;
                }
                self.retire_table(table);
            }
            Some(Err(NoMemory)) => {
                // There is no memory: keep the current table.
                self.sizing.change().requested = None;
                self.sizing.shrinks = false;
                self.sizing.refused = u32::try_from(self.policy.len() / 8 + 1).unwrap_or(u32::MAX);
                return Resize::Done;
            }
            None => {}
        }
        let Some(wanted) = wanted else {
            return Resize::Done;
        };
        self.sizing.change().wanted = wanted;
        Resize::Requested
    }

    /// Performs the step that is due after `arrived` entries.
    #[cold]
    #[inline(never)]
    pub(super) fn resize_by_arrivals(&mut self, arrived: u32, map: &Map, guard: &Guard) {
        let (len, room, resizing) = (self.policy.len(), self.sizing.room, self.sizing.resizing);
        let change = self.sizing.change();
        let changed = (arrived as usize).max(change.len.saturating_sub(len));
        change.len = len;
        let mut budget = 0;
        if resizing {
            let debt = change.debt.saturating_add(changed.saturating_mul(HOMES_PER_ARRIVAL));
            budget = debt.min(MAX_HOMES_PER_STEP);
            change.debt = debt - budget;
        } else if let Some(at) = change.requested
            && !map.has_prepared(guard)
            && len.abs_diff(at) < room / 16
        {
            return; // a thread is about to allocate the table, unless it is suspended for long
        }
        self.resize(false, budget, map, guard);
    }

    fn move_homes(&mut self, budget: usize, map: &Map, guard: &Guard) {
        let mut unlinked = Vec::new();
        let evicted = |entry| unlinked.push(super::Handle(entry));
        let change = self.sizing.change();
        if let Some(old) = map.resize_step(&mut change.cursor, budget, evicted, guard) {
            change.debt = 0;
            self.sizing.resizing = false;
            self.retire_table(old);
            self.sizing.installed = self.insertions_in_pages();
            self.set_room(map, guard);
        }
        self.evict_all(unlinked);
    }

    /// Evicts entries for which the next table had no room. Reached only with a hash function that
    /// maps many keys to one bucket, or a much smaller table.
    fn evict_all(&mut self, unlinked: Vec<super::Handle>) {
        for entry in unlinked {
            self.evict_unlinked(entry);
        }
    }

    /// Performs one step of [`Engine::grow`].
    fn grow(&mut self, hash: u32, map: &Map, guard: &Guard) -> Resize {
        let crowded = map.is_crowded(self.policy.len() * 2, guard);
        if !self.sizing.resizing && (!crowded || self.sizing.refused > 0) {
            return Resize::Done;
        }
        self.sizing.room = self.sizing.room.min(self.policy.len().saturating_sub(1));
        if !self.sizing.resizing {
            let step = self.resize(false, 0, map, guard);
            if step != Resize::Moved {
                return step;
            }
        }
        if map.buckets(guard) - self.sizing.change().cursor <= MAX_HOMES_PER_STEP {
            self.move_homes(MAX_HOMES_PER_STEP, map, guard);
            return Resize::Moved;
        }
        let mut unlinked = Vec::new();
        let moved = map.move_home_of(hash, |entry| unlinked.push(super::Handle(entry)), guard);
        self.evict_all(unlinked);
        if moved { Resize::Moved } else { Resize::Done }
    }

    /// Performs one step of [`Engine::fit_table`].
    fn fit(&mut self, fresh: bool, map: &Map, guard: &Guard) -> Resize {
        self.resize(fresh, MAX_HOMES_PER_STEP, map, guard)
    }
}

impl<K, V> Engine<K, V> {
    /// Moves the home bucket of `hash` to a larger table, if the table is crowded, or to the next
    /// table, if one is installed. Moves all home buckets if few are left. Returns whether it moved
    /// any; then an insertion of `hash` may find a free slot.
    pub(super) fn grow(&self, hash: u64) -> bool {
        self.resize_until(
            |step| step == Resize::Moved,
            |core, guard| core.grow((hash >> 32) as u32, &self.map, guard),
        )
    }

    /// Resizes the table to fit the capacity, moving all home buckets, and frees the old table
    /// unless a reader sees it. With `fresh`, also replaces a table of the right size.
    pub(super) fn fit_table(&self, mut fresh: bool) {
        self.resize_until(
            |_| false,
            |core, guard| {
                let step = core.fit(fresh, &self.map, guard);
                fresh &= step != Resize::Moved;
                step
            },
        );
        self.free_tables();
    }

    /// Repeats `step`, each time under the lock, until nothing is left to do or `enough` returns
    /// true. Returns whether home buckets moved.
    fn resize_until(&self, enough: impl Fn(Resize) -> bool, mut step: impl FnMut(&mut Core, &Guard) -> Resize) -> bool {
        let (mut panics, mut moved, mut last) = (Panics::default(), false, Resize::Moved);
        loop {
            let mut now = Resize::Done;
            let guard = self.pin();
            let deferred = self.with_core(&guard, |core| now = step(core, &guard));
            // Allocates a requested table.
            panics.catch(|| self.run_deferred(deferred, guard));
            moved |= now == Resize::Moved;
            // The request was not taken: this call comes from user code within `run_deferred`,
            // which allocates the table later.
            if now == Resize::Done || now == Resize::Requested && last == now || enough(now) {
                break;
            }
            last = now;
        }
        panics.resume();
        moved
    }

    /// Frees all old tables that no reader can see.
    pub(super) fn free_tables(&self) {
        let guard = self.pin();
        let deferred = self.with_core(&guard, |_| ());
        self.run_deferred(deferred, guard);
        while self.map.has_discarded() {
            self.map.free_discarded_slice();
        }
    }
}
