//! Entries that were unlinked, until no reader can see them any more.
//!
//! Three generations, each a queue linked through the entries' own headers, so that retiring an entry needs no memory: `open`
//! (unlinked since the last seal), `waiting` (sealed together, may still be seen by a reader that was pinned then), `safe`. Every
//! visit of the lock holder that finds garbage seals it and looks at the readers ([`Limbo::collect`]), and takes a bounded number of
//! entries out to be freed ([`Limbo::quota`]). So an entry is freed by the visit that unlinked it where no reader is pinned, and else by
//! the next visit after the readers that were pinned then have ended.
//!
//! Sequential: it belongs to the holder of the maintenance lock. It frees nothing by itself.

use super::entry::Handle;
use crate::reclaim::{Domain, Guard, Seal};
use std::ptr::NonNull;

/// A visit frees what it unlinked itself, up to this number of entries,
const MAX_FRESH: usize = 512;
/// and of those that readers held up, this number more.
const MAX_BACKLOG: usize = 64;
/// Where freeing runs no destructor, memory is rather freed as fast as new entries need it, unless this much waits.
const MAX_WAITING: usize = 256;
/// Looking at this number of readers is worth an entry that may be freed.
const READERS_PER_ENTRY: usize = 8;

/// How much of what can be freed is to be freed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Portion {
    All,
    /// As much as was unlinked since the last time, and some more.
    Bounded,
    /// As much as was unlinked since the last time.
    Fresh,
}

/// Entries in the order they were unlinked, linked through their headers, whose other fields readers may still use.
struct Queue {
    first: Option<Handle>,
    /// The end, if there is a first.
    last: Option<Handle>,
    len: usize,
}

impl Queue {
    const fn new() -> Self {
        Self {
            first: None,
            last: None,
            len: 0,
        }
    }

    #[inline]
    fn push(&mut self, entry: Handle) {
        match self.last.replace(entry) {
            // SAFETY: what is in a queue is not freed before it is taken out.
            Some(last) => unsafe { last.header() }.set_link(entry.0.as_ptr()),
            None => self.first = Some(entry),
        }
        self.len += 1;
    }

    /// Puts another queue behind this one.
    #[inline]
    fn append(&mut self, other: Self) {
        let Some(first) = other.first else { return };
        match self.last {
            // SAFETY: as in `push`.
            Some(last) => unsafe { last.header() }.set_link(first.0.as_ptr()),
            None => self.first = other.first,
        }
        self.last = other.last;
        self.len += other.len;
    }

    #[inline]
    fn pop(&mut self) -> Option<Handle> {
        let first = self.first?;
        self.len -= 1;
        self.first = (self.len > 0).then(|| Self::next(first));
        if self.len == 0 {
            self.last = None;
        }
        Some(first)
    }

    /// What follows an entry that is not the last.
    #[inline]
    fn next(entry: Handle) -> Handle {
        // SAFETY: as in `push`; the link was set there or in `append`, and not to null.
        unsafe { Handle(NonNull::new_unchecked(entry.header().link())) }
    }

    fn iter(&self) -> impl Iterator<Item = Handle> {
        let mut next = self.first;
        (1..=self.len).rev().map_while(move |left| {
            let entry = next?;
            next = (left > 1).then(|| Self::next(entry));
            Some(entry)
        })
    }
}

/// See the [module's documentation](self).
pub(super) struct Limbo {
    open: Queue,
    waiting: Queue,
    /// Of `waiting`, if that holds anything.
    seal: Option<Seal>,
    safe: Queue,
    /// Entries that came since `deferred` was last called.
    fresh: u32,
    /// Entries that are to come before the readers are looked at again: so many readers are only looked at for as much garbage.
    credit: u32,
}

impl Limbo {
    pub(super) fn new() -> Self {
        Self {
            open: Queue::new(),
            waiting: Queue::new(),
            seal: None,
            safe: Queue::new(),
            fresh: 0,
            credit: 0,
        }
    }

    /// Takes an entry that was unlinked, is never reachable again, and of which the policy does not know.
    #[inline]
    pub(super) fn push(&mut self, entry: Handle) {
        self.open.push(entry);
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Finds out what no reader can see any more; with `all`, however many readers are to be looked at. `own` is a guard of the
    /// calling thread's that is not to hold anything up.
    ///
    /// # Safety
    /// What was found under `own` before is not used any more.
    #[inline]
    pub(super) unsafe fn collect(&mut self, domain: &Domain, own: Option<&Guard>, all: bool) {
        if self.open.len == 0 && self.waiting.len == 0 {
            return;
        }
        self.credit = self.credit.saturating_sub(self.fresh.saturating_add(1));
        if self.credit > 0 && !all {
            return;
        }
        if let Some(seal) = self.seal.take() {
            if !self.passed(domain, &seal) {
                self.seal = Some(seal);
                return;
            }
            self.safe.append(std::mem::replace(&mut self.waiting, Queue::new()));
        }
        if self.open.len > 0 {
            let seal = match own {
                // SAFETY: the caller's promise; `passed` follows.
                Some(own) => unsafe { domain.seal_renewing(own) },
                None => domain.seal(),
            };
            let sealed = std::mem::replace(&mut self.open, Queue::new());
            if self.passed(domain, &seal) {
                self.safe.append(sealed);
            } else {
                (self.waiting, self.seal) = (sealed, Some(seal));
            }
        }
    }

    fn passed(&mut self, domain: &Domain, seal: &Seal) -> bool {
        let (passed, readers) = domain.passed(seal);
        self.credit = u32::try_from(readers / READERS_PER_ENTRY).unwrap_or(u32::MAX);
        passed
    }

    /// How many entries a visit should free now. `drops`: freeing runs destructors.
    #[inline]
    pub(super) fn quota(&mut self, drops: bool, portion: Portion) -> usize {
        let fresh = (std::mem::take(&mut self.fresh) as usize).min(MAX_FRESH);
        let more = match portion {
            Portion::All => return self.safe.len,
            Portion::Fresh => 0,
            Portion::Bounded if drops || self.safe.len > MAX_WAITING => MAX_BACKLOG,
            Portion::Bounded => fresh / 32 + 1,
        };
        self.safe.len.min(fresh + more)
    }

    /// Whether there are entries that are still to be freed.
    pub(super) fn is_empty(&self) -> bool {
        self.open.len + self.waiting.len + self.safe.len == 0
    }

    /// Takes out an entry that can be freed.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Handle> {
        self.safe.pop()
    }

    /// Has everything wait anew, so that a guard which is held now protects all of it. O(1).
    pub(super) fn reopen(&mut self) {
        let mut all = std::mem::replace(&mut self.safe, Queue::new());
        all.append(std::mem::replace(&mut self.waiting, Queue::new()));
        all.append(std::mem::replace(&mut self.open, Queue::new()));
        (self.open, self.seal) = (all, None);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Handle> {
        self.safe.iter().chain(self.waiting.iter()).chain(self.open.iter())
    }

    /// Everything, for a cache that no thread can reach any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Handle> {
        let mut all = std::mem::replace(&mut self.safe, Queue::new());
        all.append(std::mem::replace(&mut self.waiting, Queue::new()));
        all.append(std::mem::replace(&mut self.open, Queue::new()));
        std::iter::from_fn(move || all.pop())
    }
}
