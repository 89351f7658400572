//! The work that a maintenance visit leaves for after the lock is released.

use super::entry::{Chain, Handle};
use super::writer::OldWriter;
use crate::map::OldTable;
use crate::stats::Cause;

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
    Table(OldTable),
    /// Of a thread that has ended.
    Writer(OldWriter),
}

impl Bulk {
    /// Frees it; the memory of previous entries that was kept there is the caller's. `free_table` frees a table.
    pub(super) fn into_recycled(self, free_table: impl FnOnce(OldTable)) -> Chain {
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

    /// Whether there is a table to allocate, or something large to free.
    pub(super) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty() || self.wanted != 0
    }
}
