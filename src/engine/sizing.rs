//! How large the table should be, and how it gets there.
//!
//! The holder of the maintenance lock finds out that the table should have another size ([`Core::resize`]), and leaves a
//! request for it. The thread that takes the request allocates a table after it has given up the lock; writers continue
//! with the current one. A later holder of the lock installs it and moves a few homes per arrival; old tables are freed
//! outside the lock, too.
//!
//! - **Growth**: above 7/10 of the slots, to a size for twice the entries.
//! - **Shrinking**, only where the table is not sized by the capacity: below a sixteenth of them, to the same size. So
//!   between two changes at least a number of entries proportional to the table's size came or went.
//! - **An insertion finds no free slot** near its home, which in a table of millions of buckets happens before it is full: to
//!   the next larger size, and the home of that insertion moves immediately.
//! - **The capacity was lowered**, or the cache was cleared: to what suits the capacity, or to a fresh table if it is the
//!   same size. The caller moves the homes.
//!
//! While homes move, `MOVES` of them move per arrival, so at most one entry per `MOVES` buckets of the old table arrives. A
//! smaller table has at least a `MOST`th of the buckets, so these arrivals fill at most a sixth of its slots.

use super::Engine;
use super::core::Core;
use crate::map::{Map, NoMemory};
use crate::policy::Policy;
use crate::prim::panics::Panics;
use crate::reclaim::Guard;

/// The most entries that a table is sized for before it holds any.
const PRESIZE: u64 = 1 << 26;
/// Up to this number of entries a cache costs little until it holds some: its table grows as it fills.
const MODEST: u64 = 1024;
/// The table's first size then, and when the number of entries is not bounded.
const SMALL: u64 = 28;
/// Homes moved per arrival: about 64 entries.
const MOVES: usize = 16;
/// The most homes moved while the lock is held once: some milliseconds if their pages are touched for the first time.
pub(super) const STEP: usize = 2048;
/// A table shrinks to no less than this part of its size at a time.
const MOST: usize = 16;
/// A table of as many buckets (64 KiB) is not worth shrinking.
const LEAST: usize = 1024;

/// Insertions that write to a negligible number of pages: 4 MB of them at most.
const PAGES: usize = 1024;

/// The size of the table, and what there is to do about it.
pub(super) struct Sizing {
    /// The table grows when the policy holds more entries than this.
    room: usize,
    /// There was no memory to grow: as many entries have to arrive before it is tried again.
    refused: u32,
    /// Insertions when the current table was installed, in units of [`PAGES`], modulo 2^16.
    installed: u16,
    /// The table shrinks when the policy holds a few entries only.
    shrinks: bool,
    /// Homes move to another table.
    resizing: bool,
    /// While the table changes.
    change: Option<Box<Change>>,
}

/// A change of the table, from the request for another one until the old one is freed.
#[derive(Default)]
struct Change {
    /// The number of buckets of a table that a thread should allocate after it has given up the lock; 0 for none.
    wanted: usize,
    /// That number was taken by a thread when the policy held as many entries.
    requested: Option<usize>,
    /// The next home to move.
    cursor: usize,
    /// Homes that should have moved, and have not yet.
    debt: usize,
    /// The policy's number of entries when it was last looked at.
    len: usize,
}

/// What a caller that resizes by itself does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resize {
    /// Nothing: the table has the size that it should have, or there is no memory for another.
    Done,
    /// A table has been requested, which the caller allocates when it has given up the lock.
    Requested,
    /// Some homes have moved, or all.
    Moved,
}

/// The number of entries for which a table is made at first.
pub(super) fn first_size(capacity: u64, weighted: bool) -> usize {
    let first = if is_presized(capacity, weighted) {
        capacity
    } else {
        capacity.min(SMALL)
    };
    first as usize // at most PRESIZE
}

/// Whether the table is sized by the capacity, and not by the entries.
fn is_presized(capacity: u64, weighted: bool) -> bool {
    !weighted && (MODEST..=PRESIZE).contains(&capacity)
}

/// How many entries a table with so many slots holds before it grows.
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

    /// Whether there is something to do with as many entries, of which `arrived` came since this was last called.
    #[inline(always)]
    pub(super) fn is_due(&mut self, len: usize, arrived: u32) -> bool {
        self.refused = self.refused.saturating_sub(arrived);
        self.resizing || len > self.room && self.refused == 0 || self.is_low(len)
    }

    /// Whether these are so few entries that a smaller table should follow: about a sixteenth of the slots.
    #[inline(always)]
    fn is_low(&self, len: usize) -> bool {
        self.shrinks && len < self.room / 11
    }

    fn change(&mut self) -> &mut Change {
        self.change.get_or_insert_default()
    }

    /// Takes the request for a table, if there is one, as its number of buckets, else 0.
    #[inline]
    pub(super) fn take_due(&mut self) -> usize {
        if self.change.is_some() {
            self.take_due_of_change()
        } else {
            0
        }
    }

    #[cold]
    #[inline(never)]
    fn take_due_of_change(&mut self) -> usize {
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
        is_presized(self.policy.capacity(), self.weighted)
    }

    fn insertions_in_pages(&self) -> u16 {
        (self.counts.insertions / PAGES as u64) as u16
    }

    /// Notes the size of a table that was just installed, or a new capacity.
    pub(super) fn set_room(&mut self, map: &Map, guard: &Guard) {
        self.sizing.room = room(map.slots(guard));
        self.sizing.shrinks = map.buckets(guard) >= 2 * LEAST && !self.is_presized();
    }

    /// The number of buckets that the table should have, if that differs from what it has. With `fresh`, it may be the same.
    fn wanted(&mut self, fresh: bool, map: &Map, guard: &Guard) -> Option<usize> {
        let (now, len) = (map.buckets(guard), self.policy.len());
        let capacity = usize::try_from(self.policy.capacity()).unwrap_or(usize::MAX);
        if len > self.sizing.room {
            let mut entries = len.saturating_mul(2);
            if !self.weighted && entries >= capacity / 2 {
                // Not more than will ever be needed, and the last step not so short that it would not be worth its while.
                entries = capacity.max(len);
            }
            let buckets = Map::buckets_for(entries);
            if buckets <= now {
                self.sizing.room = usize::MAX; // as large as it gets
            }
            return (buckets > now).then_some(buckets);
        }
        let entries = if self.is_presized() {
            capacity.max(len)
        } else {
            len.saturating_mul(2)
        };
        let buckets = Map::buckets_for(entries).max(now / MOST).max(LEAST);
        // An insertion writes to one page, in truth or at most: if those are few, a fresh table is not worth its while.
        let written = self.insertions_in_pages().wrapping_sub(self.sizing.installed);
        let worth = fresh && usize::from(written) * PAGES > now / 512;
        (buckets <= now / 2 || worth && buckets <= now && now > LEAST).then_some(buckets)
    }

    /// Brings the table towards the size that it should have: has homes move, `budget` of them, or installs a table that was
    /// prepared, or leaves a request for one.
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
                // What is wanted may have changed since it was requested.
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
                // The table continues as it is.
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

    /// What `unlink_evicted` does about the table, when it is due.
    #[cold]
    #[inline(never)]
    pub(super) fn resize_by_arrivals(&mut self, arrived: u32, map: &Map, guard: &Guard) {
        let (len, room, resizing) = (self.policy.len(), self.sizing.room, self.sizing.resizing);
        let change = self.sizing.change();
        let changed = (arrived as usize).max(change.len.saturating_sub(len));
        change.len = len;
        let mut budget = 0;
        if resizing {
            let debt = change.debt.saturating_add(changed.saturating_mul(MOVES));
            budget = debt.min(STEP);
            change.debt = debt - budget;
        } else if let Some(at) = change.requested
            && !map.has_prepared(guard)
            && len.abs_diff(at) < room / 16
        {
            return; // a thread is about to allocate it, unless it has been suspended for long
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

    /// Takes out entries for which their next table had no room. Only a hash function that sends many keys to one bucket, or
    /// a much smaller table, gets here.
    fn evict_all(&mut self, unlinked: Vec<super::Handle>) {
        for entry in unlinked {
            self.evict_unlinked(entry);
        }
    }

    /// Makes room in a table that has no free slot for this hash: see [`Engine::grow`].
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
        if map.buckets(guard) - self.sizing.change().cursor <= STEP {
            self.move_homes(STEP, map, guard);
            return Resize::Moved;
        }
        let mut unlinked = Vec::new();
        let moved = map.move_home_of(hash, |entry| unlinked.push(super::Handle(entry)), guard);
        self.evict_all(unlinked);
        if moved { Resize::Moved } else { Resize::Done }
    }

    /// See [`Engine::fit_table`].
    fn fit(&mut self, fresh: bool, map: &Map, guard: &Guard) -> Resize {
        self.resize(fresh, STEP, map, guard)
    }
}

impl<K, V> Engine<K, V> {
    /// Has the home of a hash move to a larger table, if the table is crowded, or to the next one if homes move already; where
    /// few homes are left to move, all of them. Returns whether it did: then an insertion of that hash may find a free slot.
    pub(super) fn grow(&self, hash: u64) -> bool {
        self.resize_until(
            |step| step == Resize::Moved,
            |core, guard| core.grow((hash >> 32) as u32, &self.map, guard),
        )
    }

    /// Brings the table to the size that suits what the cache may hold, with its homes moved by the caller, and frees the old
    /// one, unless a reader sees it. With `fresh`, the memory of a table of the same size is returned, too.
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

    /// Repeats a step, each under the lock, until there is nothing left to do or it is `enough`. Returns whether homes moved.
    fn resize_until(&self, enough: impl Fn(Resize) -> bool, mut step: impl FnMut(&mut Core, &Guard) -> Resize) -> bool {
        let (mut panics, mut moved, mut last) = (Panics::default(), false, Resize::Moved);
        loop {
            let mut now = Resize::Done;
            let guard = self.pin();
            let due = self.with_core(&guard, |core| now = step(core, &guard));
            // Allocates what was requested.
            panics.catch(|| self.finish(due, guard));
            moved |= now == Resize::Moved;
            // A request that was not taken: this call comes from user code within `finish`, which allocates it later.
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
        let due = self.with_core(&guard, |_| ());
        self.finish(due, guard);
        while self.map.has_discarded() {
            self.map.free_discarded_slice();
        }
    }
}
