//! The work that a maintenance visit leaves for after the unlock.
//!
//! [`DeferredWork`] holds everything that may run user code or takes long: listeners, destructors,
//! and the freeing of large memory.

use super::entry::{Chain, Handle};
use super::writer::OldWriter;
use crate::map::OwnedTable;
use crate::stats::Cause;

/// Work for after the unlock. It may run user code.
#[must_use]
pub(super) struct DeferredWork {
    /// Evicted and expired entries that the removal listener must see before they are freed.
    pub(super) evicted: Vec<(Handle, Cause)>,
    /// Entries that no reader can reference, with the nonstandard layout.
    pub(super) nonstandard: Chain,
    /// Entries that no reader can reference, with the standard layout.
    pub(super) free: Chain,
    /// The number of buckets of a table to allocate; 0 for none.
    pub(super) wanted: usize,
    pub(super) bulk: Vec<Bulk>,
}

/// Large objects that no thread can reference. They are freed outside the lock.
pub(super) enum Bulk {
    Table(OwnedTable),
    /// The writer of a thread that has ended.
    Writer(OldWriter),
}

impl Bulk {
    /// Frees the object and returns the recycled entries that it held. `free_table` frees a table.
    pub(super) fn into_recycled(self, free_table: impl FnOnce(OwnedTable)) -> Chain {
        match self {
            Self::Table(table) => {
                free_table(table);
                Chain::new()
            }
            Self::Writer(mut writer) => writer.take_recycled(),
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

    /// Returns whether there is a table to allocate, or something large to free.
    pub(super) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty() || self.wanted != 0
    }
}
