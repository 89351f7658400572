//! Least frequently used, by exact counts up to 255. Among equals, the entry that reached its count
//! first is evicted.
//!
//! There is one queue per count. Hits are counted in the entry, and read only when the entry
//! reaches the tail of the lowest queue: then it moves to the queue of its true count. No entry's
//! count is lower than its queue's, so the first tail without new hits has the lowest count of all.
//! Each move is paid for by a hit.
//!
//! When every entry has reached 255, the counts no longer differ. Then all are set to 127, which
//! only renames queues.
#![forbid(unsafe_code)]

use super::{Entries, Evictions, Policy, Rank, Verdict, weigh};
use crate::prim::list::{Chunks, Queue};

/// The highest count.
const TOP: usize = 255;
/// The new count of all entries when all have the highest.
const AGED: usize = 127;

/// The queues by count.
#[derive(Debug)]
pub(crate) struct Lfu<H> {
    capacity: u64,
    weighted: bool,
    weight: u64,
    chunks: Chunks<H>,
    /// The queue of each count needed so far. Aging may change which queue id has which count: see
    /// `level_of`.
    levels: Vec<Queue>,
    /// The count of each queue id. Empty while it is the identity.
    level_of: Vec<u8>,
    /// A bit per level that is not empty.
    filled: [u64; 4],
}

impl<H: Copy + Eq> Lfu<H> {
    pub(crate) fn new(capacity: u64, weighted: bool) -> Self {
        Self {
            capacity,
            weighted,
            weight: 0,
            chunks: Chunks::new(),
            levels: Vec::new(),
            level_of: Vec::new(),
            filled: [0; 4],
        }
    }

    fn level(&self, place: u32) -> usize {
        let id = usize::from(self.chunks.queue_id(place));
        self.level_of.get(id).map_or(id, |level| usize::from(*level))
    }

    /// Pushes an entry to the head of a level. Returns false if there is no memory.
    fn push<E: Entries<Handle = H>>(&mut self, entries: &E, level: usize, handle: H, weight: u64) -> bool {
        if self.levels.len() <= level {
            if self.levels.try_reserve(level + 1 - self.levels.len()).is_err() {
                return false;
            }
            let more = self.levels.len()..=level;
            self.levels.extend(more.map(|id| Queue::new(id as u16)));
        }
        let pushed = self
            .chunks
            .push_front(&mut self.levels[level], entries, handle, weight, 0);
        if pushed {
            self.filled[level / 64] |= 1 << (level % 64);
            self.weight += weight;
        }
        pushed
    }

    /// Pushes an entry to the head of a level after a push was refused, in the place of the least
    /// frequently used entries.
    #[cold]
    fn push_refused<E: Entries<Handle = H>>(
        &mut self,
        entries: &E,
        (level, handle): (usize, H),
        weight: u64,
        out: &mut Evictions<H>,
    ) {
        while !self.chunks.has_free()
            && let Some(lowest) = self.lowest()
            && let Some((tail, _)) = self.chunks.back(&self.levels[lowest])
        {
            self.pop(entries, lowest, tail);
            out.push((tail, Verdict::Evicted));
        }
        if !self.push(entries, level, handle, weight) {
            out.push((handle, Verdict::Rejected));
        }
    }

    /// Pops the tail of a level, and returns its weight.
    fn pop<E: Entries<Handle = H>>(&mut self, entries: &E, level: usize, tail: H) -> u64 {
        let weight = weigh(entries, tail, self.weighted);
        self.chunks.pop_back(&mut self.levels[level], entries, weight);
        self.left(level, weight);
        weight
    }

    /// Updates the counts after an entry has left the level.
    fn left(&mut self, level: usize, weight: u64) {
        if self.levels[level].is_empty() {
            self.filled[level / 64] &= !(1 << (level % 64));
        }
        self.weight -= weight;
    }

    fn lowest(&self) -> Option<usize> {
        let word = self.filled.iter().position(|&bits| bits != 0)?;
        Some(word * 64 + self.filled[word].trailing_zeros() as usize)
    }

    /// Renames the queue of the highest count. Returns false, and does nothing, if there is no
    /// memory for the names.
    #[cold]
    fn age(&mut self) -> bool {
        self.level_of.clear();
        if self.level_of.try_reserve_exact(TOP + 1).is_err() {
            return false;
        }
        self.level_of.resize(TOP + 1, 0);
        self.levels.swap(AGED, TOP);
        for (level, queue) in self.levels.iter().enumerate() {
            self.level_of[usize::from(queue.id())] = level as u8;
        }
        self.filled = [0; 4];
        self.filled[AGED / 64] |= 1 << (AGED % 64);
        true
    }

    /// Evicts entries until there is room for `weight`, which is at most the capacity.
    fn make_room<E: Entries<Handle = H>>(&mut self, entries: &E, weight: u64, out: &mut Evictions<H>) {
        while self.weight > self.capacity - weight {
            let Some(mut level) = self.lowest() else { return };
            if level == TOP && self.age() {
                level = AGED;
            }
            let Some((tail, _)) = self.chunks.back(&self.levels[level]) else {
                return;
            };
            let own = self.pop(entries, level, tail);
            let hits = entries.hits(tail);
            if hits != 0 && level < TOP {
                entries.reset_hits(tail);
                if self.push(entries, (level + usize::from(hits)).min(TOP), tail, own) {
                    continue;
                }
            }
            out.push((tail, Verdict::Evicted));
        }
    }

    /// Removes an entry and returns its count.
    fn take<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H) -> usize {
        let weight = weigh(entries, handle, self.weighted);
        let level = self.level(entries.place(handle));
        self.chunks.remove(&mut self.levels[level], entries, handle, weight);
        self.left(level, weight);
        level + usize::from(entries.hits(handle))
    }

    fn admit<E: Entries<Handle = H>>(&mut self, entries: &E, level: usize, handle: H, out: &mut Evictions<H>) {
        let weight = weigh(entries, handle, self.weighted);
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return;
        }
        // Before the new entry is pushed: otherwise it would often be evicted first.
        self.make_room(entries, weight, out);
        let level = level.min(TOP);
        if !self.push(entries, level, handle, weight) {
            self.push_refused(entries, (level, handle), weight, out);
        }
    }
}

impl<E: Entries> Policy<E> for Lfu<E::Handle> {
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>) {
        self.admit(entries, 0, handle, out);
    }

    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Evictions<E::Handle>) {
        let count = self.take(entries, old);
        self.admit(entries, count + 1, new, out);
    }

    fn remove(&mut self, entries: &E, handle: E::Handle) {
        self.take(entries, handle);
    }

    fn rank(&mut self, entries: &E, handle: E::Handle) -> Rank {
        let count = self.level(entries.place(handle)) + usize::from(entries.hits(handle));
        Rank {
            uses: count.min(TOP) as u8,
            ..Rank::default()
        }
    }

    fn restore(&mut self, entries: &E, handle: E::Handle, rank: Rank, out: &mut Evictions<E::Handle>) {
        self.admit(entries, usize::from(rank.uses), handle, out);
    }

    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Evictions<E::Handle>) {
        self.capacity = capacity;
        self.make_room(entries, 0, out);
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn len(&self) -> usize {
        self.chunks.len()
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn hit_limit(&self) -> u8 {
        u8::MAX - 1
    }

    fn hottest(&self, entries: &E, visit: &mut dyn FnMut(E::Handle) -> bool) {
        // Entries may be at the level of an earlier count, so a stable sort orders them by their
        // true counts.
        let mut sorted: Vec<(usize, E::Handle)> = Vec::new();
        if sorted.try_reserve_exact(self.chunks.len()).is_err() {
            // Without memory to sort them: by the counts when they were last checked.
            self.levels
                .iter()
                .rev()
                .all(|queue| self.chunks.iter(queue).all(&mut *visit));
            return;
        }
        for (level, queue) in self.levels.iter().enumerate().rev() {
            let counted = |handle| ((level + usize::from(entries.hits(handle))).min(TOP), handle);
            sorted.extend(self.chunks.iter(queue).map(counted));
        }
        sorted.sort_by_key(|&(count, _)| std::cmp::Reverse(count));
        sorted.iter().all(|&(_, handle)| visit(handle));
    }

    fn coldest(&mut self, entries: &E) -> Option<E::Handle> {
        // As in `make_room`: an entry with new hits moves up.
        loop {
            let level = self.lowest()?;
            let (tail, _) = self.chunks.back(&self.levels[level])?;
            let hits = entries.hits(tail);
            if hits == 0 || level == TOP {
                return Some(tail);
            }
            let level = self.take(entries, tail);
            entries.reset_hits(tail);
            self.push(entries, level.min(TOP), tail, weigh(entries, tail, self.weighted));
        }
    }

    fn validate(&self, entries: &E) {
        self.chunks.validate(self.levels.iter(), entries, |handle| {
            weigh(entries, handle, self.weighted)
        });
        for (level, queue) in self.levels.iter().enumerate() {
            assert_eq!(queue.is_empty(), self.filled[level / 64] & (1 << (level % 64)) == 0);
            assert!(
                self.chunks
                    .iter(queue)
                    .all(|handle| self.level(entries.place(handle)) == level)
            );
        }
        assert_eq!(self.weight, self.levels.iter().map(Queue::weight).sum::<u64>());
        assert!(self.weight <= self.capacity);
    }
}
