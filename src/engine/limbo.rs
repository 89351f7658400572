//! The limbo list: entries that were unlinked, until no reader can reference them.
//!
//! # Generations
//!
//! One queue, in the order of unlinking, of three parts:
//! - *open*: unlinked since the last seal;
//! - *waiting*: sealed together, and perhaps referenced by a reader that was pinned at that time;
//! - *safe*: no reader can reference them.
//!
//! An entry passes from one part to the next when the parts' lengths change. Nothing is written to
//! entries, nor read from them: between two visits their cache lines may have moved to another
//! processor. With the queue linked through their headers, four writing threads took 1.3 times as
//! long.
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
use std::collections::VecDeque;

/// The most entries unlinked since the last visit that a visit frees, unless it has applied more
/// events.
const MAX_FRESH: usize = 512;
/// The most entries beyond those that a visit frees, if readers had delayed some.
const MAX_BACKLOG: usize = 64;
/// Where freeing runs no destructor, memory is freed as fast as new entries reuse it, unless more
/// entries than this wait.
const MAX_WAITING: usize = 256;
/// The capacity of a queue whose memory is kept, however little of it is used: 8 KiB.
const KEPT: usize = 1024;
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

/// See the [module's documentation](self).
pub(super) struct Limbo {
    /// The safe entries, the waiting ones, and the open ones.
    entries: VecDeque<Handle>,
    safe: usize,
    waiting: usize,
    /// The seal of the waiting entries, if there are any.
    seal: Option<Seal>,
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
            entries: VecDeque::new(),
            safe: 0,
            waiting: 0,
            seal: None,
            fresh: 0,
            applied: 0,
            credit: 0,
        }
    }

    /// Adds an entry that was unlinked for good, and that the policy does not hold.
    #[inline]
    pub(super) fn push(&mut self, entry: Handle) {
        self.entries.push_back(entry);
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Returns the number of open entries.
    #[inline]
    fn open(&self) -> usize {
        self.entries.len() - self.safe - self.waiting
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
        if self.entries.len() == self.safe {
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
            self.safe += std::mem::take(&mut self.waiting);
        }
        let open = self.open();
        if open > 0 {
            let seal = match own {
                // SAFETY: the caller's promise; `passed` follows.
                Some(own) => unsafe { domain.seal_renewing(own) },
                None => domain.seal(),
            };
            if self.passed(domain, &seal) {
                self.safe += open;
            } else {
                (self.waiting, self.seal) = (open, Some(seal));
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
            Portion::All => return self.safe,
            Portion::Fresh => 0,
            Portion::Bounded if drops || self.safe > MAX_WAITING => MAX_BACKLOG,
            Portion::Bounded => fresh / 32 + 1,
        };
        self.safe.min(fresh + more)
    }

    /// Returns whether no entry waits to be freed.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes out an entry that can be freed.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Handle> {
        self.safe = self.safe.checked_sub(1)?;
        self.entries.pop_front()
    }

    /// Returns most of the queue's memory if hardly any of it is used. O(1) per entry taken out.
    #[inline]
    pub(super) fn shrink(&mut self) {
        let capacity = self.entries.capacity();
        if capacity > KEPT && self.entries.len() < capacity / 8 {
            // Not `shrink_to`, which ends the program if there is no memory to shrink into.
            let mut smaller = VecDeque::new();
            if smaller.try_reserve_exact(capacity / 4).is_ok() {
                smaller.append(&mut self.entries);
                self.entries = smaller;
            }
        }
    }

    /// Makes all entries open, so that a guard which is held now protects all of them. O(1).
    pub(super) fn reopen(&mut self) {
        (self.safe, self.waiting, self.seal) = (0, 0, None);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Handle> {
        self.entries.iter().copied()
    }

    /// Takes out all entries, for a cache that no thread can reach any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Handle> {
        self.reopen();
        std::mem::take(&mut self.entries).into_iter()
    }
}

fn saturate(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::map::Header;
    use std::ptr::NonNull;

    /// Returns a handle that is never dereferenced.
    fn handle(n: usize) -> Handle {
        Handle(NonNull::without_provenance(
            std::num::NonZeroUsize::new(n * align_of::<Header>()).expect("n > 0"),
        ))
    }

    /// Collects, and takes out what can be freed.
    fn collect(limbo: &mut Limbo, domain: &Domain) -> Vec<usize> {
        // SAFETY: no guard is passed.
        unsafe { limbo.collect(domain, None, true) };
        let freed = std::iter::from_fn(|| limbo.pop());
        freed.map(|entry| entry.0.addr().get() / align_of::<Header>()).collect()
    }

    #[cfg_attr(feature = "crossbeam", ignore = "crossbeam decides when entries are freed")]
    #[test]
    fn reader_delays_what_was_unlinked_before_it_unpins() {
        let (domain, mut limbo) = (Domain::new(), Limbo::new());
        limbo.push(handle(1));
        assert_eq!(collect(&mut limbo, &domain), [1], "no reader is pinned");
        let guard = domain.pin();
        limbo.push(handle(2));
        limbo.push(handle(3));
        assert!(collect(&mut limbo, &domain).is_empty());
        limbo.push(handle(4));
        assert!(collect(&mut limbo, &domain).is_empty());
        assert_eq!(limbo.iter().count(), 3);
        drop(guard);
        assert_eq!(collect(&mut limbo, &domain), [2, 3, 4]);
        assert!(limbo.is_empty());
    }

    #[cfg_attr(feature = "crossbeam", ignore = "crossbeam decides when entries are freed")]
    #[test]
    fn reopened_entries_are_protected_again() {
        let (domain, mut limbo) = (Domain::new(), Limbo::new());
        limbo.push(handle(1));
        // SAFETY: no guard is passed.
        unsafe { limbo.collect(&domain, None, true) };
        let guard = domain.pin();
        limbo.reopen();
        assert!(collect(&mut limbo, &domain).is_empty(), "it was safe before");
        drop(guard);
        assert_eq!(collect(&mut limbo, &domain), [1]);
    }

    #[cfg_attr(feature = "crossbeam", ignore = "crossbeam decides when entries are freed")]
    #[test]
    fn memory_of_much_garbage_is_returned() {
        let (domain, mut limbo) = (Domain::new(), Limbo::new());
        const MANY: usize = 100_000;
        (1..=MANY).for_each(|n| limbo.push(handle(n)));
        // SAFETY: no guard is passed.
        unsafe { limbo.collect(&domain, None, true) };
        for n in 1..=MANY - 10 {
            assert_eq!(limbo.pop(), Some(handle(n)));
            limbo.shrink();
        }
        assert!(limbo.entries.capacity() <= 2 * KEPT, "{}", limbo.entries.capacity());
        let left: Vec<_> = limbo.iter().collect();
        assert_eq!(left, (MANY - 9..=MANY).map(handle).collect::<Vec<_>>());
    }
}
