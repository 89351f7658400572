//! How a map changes to a table of another size: the steps under the maintenance lock, and those
//! outside it.
//!
//! 1. [`Map::prepare`] allocates the next table, outside the lock.
//! 2. [`Map::install`] makes it the successor of the current one, under the lock.
//! 3. [`Map::resize_step`] moves a few home buckets to it, under the lock, until all have moved.
//!    [`Map::move_home_of`] moves one before its turn: the order is arbitrary.
//! 4. [`Map::discard`] takes the old table, and [`Map::free_discarded_slice`] frees it in parts,
//!    outside the lock.
//!
//! The next table may be larger, smaller or of the same size: an insertion into it is one like any
//! other, and reports where there is no room. `migrate` has the protocol by which one home bucket
//! moves.

use super::Map;
use super::header::Header;
use super::layout::control;
use super::owned_table::{NO_MEMORY, NoMemory, OwnedTable, allocate};
use crate::prim::sync::Ordering;
use crate::reclaim::Guard;
use std::ptr::{self, NonNull};

/// Bytes of a discarded table that one call frees: 0.1 to 0.3 ms for pages of 4 KiB.
const SLICE: usize = 4 << 20;

impl Map {
    /// Allocates a table to follow the current one, for the next
    /// [`take_prepared`](Self::take_prepared). Called outside the maintenance lock.
    ///
    /// If there is no memory for the table, `take_prepared` reports that.
    pub(crate) fn prepare(&self, buckets: usize, guard: &Guard) {
        let table = allocate(buckets).unwrap_or(NO_MEMORY);
        // AcqRel: the table's contents are seen by the thread that takes it, here or in
        // `take_prepared`.
        drop(OwnedTable::new(
            self.table(guard).prepared.swap(table, Ordering::AcqRel),
        ));
    }

    /// Returns the prepared table, or [`NoMemory`] if its allocation failed, or `None` if no table
    /// was prepared.
    pub(crate) fn take_prepared(&self, guard: &Guard) -> Option<Result<OwnedTable, NoMemory>> {
        // Acquire pairs with the swap in `prepare`: the table's contents are seen.
        let prepared = self.table(guard).prepared.swap(ptr::null_mut(), Ordering::Acquire);
        let failed = prepared == NO_MEMORY;
        OwnedTable::new(prepared).map(Ok).or(failed.then_some(Err(NoMemory)))
    }

    /// Returns whether [`take_prepared`](Self::take_prepared) returns something.
    pub(crate) fn has_prepared(&self, guard: &Guard) -> bool {
        !self.table(guard).prepared.load(Ordering::Relaxed).is_null()
    }

    /// Makes `table` the successor of the current table, to which
    /// [`resize_step`](Self::resize_step) moves the entries.
    ///
    /// One thread at a time (the holder of the maintenance lock), and not while a resize is in
    /// progress.
    pub(crate) fn install(&self, table: OwnedTable, guard: &Guard) {
        let current = self.table(guard);
        debug_assert!(current.next.load(Ordering::Relaxed).is_null(), "one after another");
        // Release pairs with the Acquire in `next`: readers that see a home bucket as MOVED see the
        // whole new table.
        current.next.store(table.into_raw(), Ordering::Release);
    }

    /// Moves up to `budget` home buckets, starting at `cursor`, to the installed table. One thread
    /// at a time.
    ///
    /// When all home buckets have moved, makes the installed table the current one, and returns the
    /// old table, which the caller retires. Entries for which there is no room are handed to
    /// `evicted`, unlinked.
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
            // `move_home_of` may have moved it before its turn.
            if table.load_control(home) & control::MOVED == 0 {
                table.move_home(home, next, &mut evicted);
            }
        }
        *cursor = end;
        if end < table.buckets.len() {
            return None;
        }
        *cursor = 0;
        // These are the pointers that `allocate` made, not ones to the references above: a table is
        // freed by its own pointer.
        let (old, next) = (self.current.load(Ordering::Relaxed), table.next.load(Ordering::Relaxed));
        // Release pairs with the Acquire in `table`: the new table's contents are seen by readers
        // that start there.
        self.current.store(next, Ordering::Release);
        OwnedTable::new(old)
    }

    /// Moves the home bucket of this hash to the installed table before its turn, as
    /// [`resize_step`](Self::resize_step) does. Returns false if it has moved already.
    pub(crate) fn move_home_of(&self, hash: u32, mut evicted: impl FnMut(NonNull<Header>), guard: &Guard) -> bool {
        let table = self.table(guard);
        let home = table.home(hash);
        let moves = table.load_control(home) & control::MOVED == 0;
        if moves {
            table.move_home(home, self.next(table, guard), &mut evicted);
        }
        moves
    }

    /// Takes a table that no reader can reference, to be freed by
    /// [`free_discarded_slice`](Self::free_discarded_slice).
    pub(crate) fn discard(&self, table: OwnedTable) {
        self.discarded.push(table);
    }

    /// Returns whether [`free_discarded_slice`](Self::free_discarded_slice) has something to free.
    #[inline(always)]
    pub(crate) fn has_discarded(&self) -> bool {
        !self.discarded.0.load(Ordering::Relaxed).is_null()
    }

    /// Frees a few megabytes of the discarded tables. Any thread may call this, outside the
    /// maintenance lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_discarded_slice(&self) {
        let mut is_first = true;
        // The whole stack is taken, so this thread owns each table until it is pushed back.
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
