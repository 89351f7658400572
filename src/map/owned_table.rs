//! Tables that no map refers to: before they are installed, and after their entries have moved.
//!
//! [`OwnedTable`] owns one like a box. [`Discarded`] is a stack of those that no reader can
//! reference, which are freed in parts.

use super::table::Table;
use crate::prim::sync::{AtomicPtr, Ordering};
use std::ptr::{self, NonNull};

/// Error of an allocation: there is no memory for the table.
#[derive(Debug)]
pub(crate) struct NoMemory;

/// A table that no map refers to, owned like a box. It is dropped only once no reader can reference
/// it.
pub(crate) struct OwnedTable(pub(super) NonNull<Table>);

// SAFETY: it owns the table, which is made of atomics.
unsafe impl Send for OwnedTable {}

/// Marks a prepared table that could not be allocated, in place of its pointer.
pub(super) const NO_MEMORY: *mut Table = ptr::without_provenance_mut(1);

impl OwnedTable {
    /// Takes ownership of a table that came from [`allocate`]. Returns `None` for a null pointer
    /// and for [`NO_MEMORY`].
    pub(super) fn new(table: *mut Table) -> Option<Self> {
        NonNull::new(table)
            .filter(|table| table.as_ptr() != NO_MEMORY)
            .map(Self)
    }

    /// Gives up ownership, and returns the pointer that `allocate` made.
    pub(super) fn into_raw(self) -> *mut Table {
        let table = self.0.as_ptr();
        std::mem::forget(self);
        table
    }

    /// Returns the number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        // SAFETY: owned by this, so it is alive.
        unsafe { self.0.as_ref() }.buckets.len()
    }
}

impl Drop for OwnedTable {
    fn drop(&mut self) {
        // SAFETY: the pointer that `allocate` made, never remade from a reference, and owned by
        // this alone. The code that drops it has waited for the readers.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Allocates an empty table.
pub(super) fn allocate(buckets: usize) -> Result<*mut Table, NoMemory> {
    Ok(Box::into_raw(Box::new(Table::new(buckets).ok_or(NoMemory)?)))
}

/// Tables that no reader can reference, to be freed in parts: a stack, linked by `next`.
pub(super) struct Discarded(pub(super) AtomicPtr<Table>);

impl Discarded {
    pub(super) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(super) fn push(&self, table: OwnedTable) {
        let table = table.into_raw();
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: this call's own until the exchange below.
            unsafe { &*table }.next.store(first, Ordering::Relaxed);
            // Release pairs with the Acquire in `take`.
            match self
                .0
                .compare_exchange_weak(first, table, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Takes the whole stack, and calls `visit` for each table. So the stack has no ABA problem.
    pub(super) fn take(&self, mut visit: impl FnMut(OwnedTable)) {
        // Acquire pairs with the Release in `push`.
        let mut rest = OwnedTable::new(self.0.swap(ptr::null_mut(), Ordering::Acquire));
        while let Some(table) = rest {
            // SAFETY: owned by `table`, so it is alive.
            rest = OwnedTable::new(unsafe { table.0.as_ref() }.next.load(Ordering::Relaxed));
            visit(table);
        }
    }
}

impl Drop for Discarded {
    fn drop(&mut self) {
        self.take(drop);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // Relaxed: exclusive access.
        drop(OwnedTable::new(self.prepared.load(Ordering::Relaxed)));
    }
}
