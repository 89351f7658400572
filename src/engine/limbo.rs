//! The limbo list: entries that were unlinked, until no reader can reference them.
//!
//! # Generations
//!
//! Three queues, linked through the entries' own headers, so that retiring an entry allocates
//! nothing:
//! - `open`: unlinked since the last seal;
//! - `waiting`: sealed together, and perhaps referenced by a reader that was pinned at that time;
//! - `safe`: no reader can reference them.
//!
//! Each visit of the lock holder that finds garbage seals it and checks the readers
//! ([`Limbo::collect`]), and takes a bounded number of entries out to be freed ([`Limbo::quota`]).
//! An entry is freed by the visit that unlinked it if no reader is pinned. Otherwise the first
//! visit after those readers have unpinned frees it (invariant 15).
//!
//! # Concurrency
//!
//! Sequential: only the holder of the maintenance lock uses it. It runs no destructor.

use super::entry::Handle;
use crate::reclaim::{Domain, Guard, Seal};
use std::ptr::NonNull;

/// The most entries unlinked since the last visit that a visit frees, unless it has applied more
/// events.
const MAX_FRESH: usize = 512;
/// The most entries beyond those that a visit frees, if readers had delayed some.
const MAX_BACKLOG: usize = 64;
/// Where freeing runs no destructor, memory is freed as fast as new entries reuse it, unless more
/// entries than this wait.
const MAX_WAITING: usize = 256;
/// The number of readers whose check is worth one entry that may be freed.
const READERS_PER_ENTRY: usize = 8;

/// How many of the reclaimable entries a visit takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Portion {
    All,
    /// As many as were unlinked since the last visit, and some more.
    Bounded,
    /// As many as were unlinked since the last visit.
    Fresh,
}

/// Entries in the order they were unlinked, linked through their headers. Readers may still use the
/// other fields of the headers.
struct Queue {
    first: Option<Handle>,
    /// The last entry, if there is a first.
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
            // SAFETY: an entry in a queue is not freed before it is taken out.
            Some(last) => unsafe { last.header() }.set_link(entry.0.as_ptr()),
            None => self.first = Some(entry),
        }
        self.len += 1;
    }

    /// Appends another queue.
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

    /// Returns the entry after `entry`, which is not the last.
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
    /// The seal of `waiting`, if that is not empty.
    seal: Option<Seal>,
    safe: Queue,
    /// Entries retired since `quota` was last called.
    fresh: u32,
    /// Events applied since `quota` was last called, or `u16::MAX` if there were more.
    applied: u16,
    /// Entries to retire before the readers are checked again: checking many readers must be worth
    /// it.
    credit: u16,
}

impl Limbo {
    pub(super) fn new() -> Self {
        Self {
            open: Queue::new(),
            waiting: Queue::new(),
            seal: None,
            safe: Queue::new(),
            fresh: 0,
            applied: 0,
            credit: 0,
        }
    }

    /// Adds an entry that was unlinked for good, and that the policy does not hold.
    #[inline]
    pub(super) fn push(&mut self, entry: Handle) {
        self.open.push(entry);
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Counts events that are applied, most of which unlink an entry.
    #[inline]
    pub(super) fn count_applied(&mut self, events: usize) {
        self.applied = self.applied.saturating_add(saturate(events));
    }

    /// Finds the entries that no reader can reference any more. With `all`, checks the readers
    /// however many there are. `own` is a guard of the calling thread that must not delay
    /// reclamation.
    ///
    /// # Safety
    ///
    /// References obtained under `own` are not used any more.
    #[inline]
    pub(super) unsafe fn collect(&mut self, domain: &Domain, own: Option<&Guard>, all: bool) {
        if self.open.len == 0 && self.waiting.len == 0 {
            return;
        }
        // A check costs time per reader, so it is skipped until enough entries are retired.
        let retired = saturate(self.fresh as usize).saturating_add(1);
        self.credit = self.credit.saturating_sub(retired);
        if self.credit > 0 && !all {
            return;
        }
        // There is one seal, so the waiting generation must pass before the open one is sealed.
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
        self.credit = saturate(readers / READERS_PER_ENTRY);
        passed
    }

    /// Returns how many entries a visit should free. With `drops`, freeing runs destructors.
    ///
    /// At least as many as the applied events unlinked: otherwise garbage would grow without a
    /// bound while many threads fill their rings between visits.
    #[inline]
    pub(super) fn quota(&mut self, drops: bool, portion: Portion) -> usize {
        let most = MAX_FRESH.max(std::mem::take(&mut self.applied).into());
        let fresh = (std::mem::take(&mut self.fresh) as usize).min(most);
        let more = match portion {
            Portion::All => return self.safe.len,
            Portion::Fresh => 0,
            Portion::Bounded if drops || self.safe.len > MAX_WAITING => MAX_BACKLOG,
            Portion::Bounded => fresh / 32 + 1,
        };
        self.safe.len.min(fresh + more)
    }

    /// Returns whether no entry waits to be freed.
    pub(super) fn is_empty(&self) -> bool {
        self.open.len + self.waiting.len + self.safe.len == 0
    }

    /// Takes out an entry that can be freed.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Handle> {
        self.safe.pop()
    }

    /// Moves all entries to `open`, so that a guard which is held now protects all of them. O(1).
    pub(super) fn reopen(&mut self) {
        let mut all = std::mem::replace(&mut self.safe, Queue::new());
        all.append(std::mem::replace(&mut self.waiting, Queue::new()));
        all.append(std::mem::replace(&mut self.open, Queue::new()));
        (self.open, self.seal) = (all, None);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Handle> {
        self.safe.iter().chain(self.waiting.iter()).chain(self.open.iter())
    }

    /// Takes out all entries, for a cache that no thread can reach any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Handle> {
        let mut all = std::mem::replace(&mut self.safe, Queue::new());
        all.append(std::mem::replace(&mut self.waiting, Queue::new()));
        all.append(std::mem::replace(&mut self.open, Queue::new()));
        std::iter::from_fn(move || all.pop())
    }
}

fn saturate(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
