//! How a map changes to a table of another size: the steps that the maintenance lock protects, and those outside it.
//!
//! A table is allocated ([`Map::prepare`]) and freed ([`Map::discard`], [`Map::free_discarded_slice`]) outside the lock. Under the
//! lock it is installed as the successor of the current one ([`Map::install`]), and homes move to it a few at a time, in
//! any order ([`Map::resize_step`], [`Map::move_home_of`], [`Table::move_home`]). The next table may be larger, smaller or of the same size: an insertion
//! into it is one like any other, and reports where there is no room. See ARCHITECTURE.md for what other threads may do
//! while homes move.

use super::Map;
use super::header::Header;
use super::layout::control;
use super::owned_table::{NO_MEMORY, NoMemory, OwnedTable, allocate};
use crate::prim::sync::Ordering;
use crate::reclaim::Guard;
use std::ptr::{self, NonNull};

/// How much of a discarded table one call frees: 0.1 to 0.3 ms for pages of 4 KiB.
const SLICE: usize = 4 << 20;

impl Map {
    /// Allocates a table to follow the current one, outside the maintenance lock, for the next
    /// [`take_prepared`](Self::take_prepared). If there is no memory for it, that is told there.
    pub(crate) fn prepare(&self, buckets: usize, guard: &Guard) {
        let table = allocate(buckets).unwrap_or(NO_MEMORY);
        // AcqRel: the table's contents are seen by the thread that takes it, here or in `take_prepared`.
        drop(OwnedTable::new(
            self.table(guard).prepared.swap(table, Ordering::AcqRel),
        ));
    }

    /// Returns the table that was prepared, if any, or that there is no memory for it.
    pub(crate) fn take_prepared(&self, guard: &Guard) -> Option<Result<OwnedTable, NoMemory>> {
        // Acquire pairs with the swap in `prepare`.
        let prepared = self.table(guard).prepared.swap(ptr::null_mut(), Ordering::Acquire);
        let failed = prepared == NO_MEMORY;
        OwnedTable::new(prepared).map(Ok).or(failed.then_some(Err(NoMemory)))
    }

    /// Whether [`take_prepared`](Self::take_prepared) returns something.
    pub(crate) fn has_prepared(&self, guard: &Guard) -> bool {
        !self.table(guard).prepared.load(Ordering::Relaxed).is_null()
    }

    /// Has the entries move to this table, by [`resize_step`](Self::resize_step). One thread at a time (the holder of the
    /// maintenance lock), and not while entries move already.
    pub(crate) fn install(&self, table: OwnedTable, guard: &Guard) {
        let current = self.table(guard);
        debug_assert!(current.next.load(Ordering::Relaxed).is_null(), "one after another");
        // Release pairs with the Acquire in `next`: readers that see a home as moved see the whole new table.
        current.next.store(table.into_raw(), Ordering::Release);
    }

    /// Moves the homes from `cursor` on, up to `budget` of them, to the table that was installed. One thread at a time. When
    /// all are moved, returns the old table, for retirement. Entries for which there is no room are handed to `evicted`,
    /// unlinked.
    pub(crate) fn resize_step(
        &self,
        cursor: &mut usize,
        budget: usize,
        mut evicted: impl FnMut(NonNull<Header>),
        guard: &Guard,
    ) -> Option<OwnedTable> {
        let table = self.table(guard);
        let next = self.next(table, guard);
        let end = table.buckets.len().min(cursor.saturating_add(budget));
        for home in *cursor..end {
            // It may have moved by `move_home_of`.
            if table.load_control(home) & control::MOVED == 0 {
                table.move_home(home, next, &mut evicted);
            }
        }
        *cursor = end;
        if end < table.buckets.len() {
            return None;
        }
        *cursor = 0;
        // The pointers that `allocate` made, not ones to the references above: the old table is freed by its own.
        let (old, next) = (self.current.load(Ordering::Relaxed), table.next.load(Ordering::Relaxed));
        // Release pairs with the Acquire in `table`: the new table's contents are seen by readers that start there.
        self.current.store(next, Ordering::Release);
        OwnedTable::new(old)
    }

    /// Moves the home of this hash to the table that was installed, before its turn. Otherwise as
    /// [`resize_step`](Self::resize_step). Returns false if it has moved already.
    pub(crate) fn move_home_of(&self, hash: u32, mut evicted: impl FnMut(NonNull<Header>), guard: &Guard) -> bool {
        let table = self.table(guard);
        let home = table.home(hash);
        let moves = table.load_control(home) & control::MOVED == 0;
        if moves {
            table.move_home(home, self.next(table, guard), &mut evicted);
        }
        moves
    }

    /// Takes a table that no reader can see any more, to be freed by [`free_discarded_slice`](Self::free_discarded_slice).
    pub(crate) fn discard(&self, table: OwnedTable) {
        self.discarded.push(table);
    }

    /// Whether [`free_discarded_slice`](Self::free_discarded_slice) has something to free.
    #[inline(always)]
    pub(crate) fn has_discarded(&self) -> bool {
        !self.discarded.0.load(Ordering::Relaxed).is_null()
    }

    /// Frees a few megabytes of what was discarded. Any thread, outside the maintenance lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_discarded_slice(&self) {
        let mut is_first = true;
        self.discarded.take(|mut table| {
            if std::mem::take(&mut is_first) {
                // SAFETY: owned by `table`: taken from the stack by this thread alone.
                let at = unsafe { table.0.as_mut() };
                match at.buckets.release(at.released, SLICE) {
                    Some(released) => at.released = released,
                    None => return, // dropped, and so freed as a whole
                }
            }
            self.discarded.push(table);
        });
    }
}
