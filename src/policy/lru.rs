//! Least recently used, exact: each hit moves its entry to the head.
//!
//! A driver that cannot report a hit when it happens (because it must not wait) sets the entry's
//! mark instead. A marked entry is moved to the head when it reaches the tail.
#![forbid(unsafe_code)]

use super::{Entries, Evictions, Policy, Verdict, weigh};
use crate::prim::list::{Chunks, Queue};

/// The most marked entries moved per call, which bounds the time of a call.
const STEPS: u32 = 64;

/// One queue in the order of use.
#[derive(Debug)]
pub(crate) struct Lru<H> {
    capacity: u64,
    weighted: bool,
    chunks: Chunks<H>,
    queue: Queue,
}

impl<H: Copy + Eq> Lru<H> {
    pub(crate) fn new(capacity: u64, weighted: bool) -> Self {
        Self {
            capacity,
            weighted,
            chunks: Chunks::new(),
            queue: Queue::new(0),
        }
    }

    /// Evicts entries until there is room for `weight`, which is at most the capacity.
    #[inline]
    fn make_room<E: Entries<Handle = H>>(&mut self, entries: &E, weight: u64, out: &mut Evictions<H>) {
        let mut steps = 0;
        while self.queue.weight() > self.capacity - weight {
            let Some((tail, _)) = self.chunks.back(&self.queue) else {
                return;
            };
            let own = weigh(entries, tail, self.weighted);
            self.chunks.pop_back(&mut self.queue, entries, own);
            if steps < STEPS && entries.hits(tail) != 0 {
                steps += 1;
                entries.reset_hits(tail);
                if self.chunks.push_front(&mut self.queue, entries, tail, own, 0) {
                    continue;
                }
            }
            out.push((tail, Verdict::Evicted));
        }
    }

    /// Pushes an entry to the head after a push was refused, in the place of the least recently
    /// used entries.
    #[cold]
    fn push_refused<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64, out: &mut Evictions<H>) {
        while !self.chunks.has_free()
            && let Some((tail, _)) = self.chunks.back(&self.queue)
        {
            let own = weigh(entries, tail, self.weighted);
            self.chunks.pop_back(&mut self.queue, entries, own);
            out.push((tail, Verdict::Evicted));
        }
        if !self.chunks.push_front(&mut self.queue, entries, handle, weight, 0) {
            out.push((handle, Verdict::Rejected));
        }
    }
}

impl<E: Entries> Policy<E> for Lru<E::Handle> {
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>) {
        let weight = weigh(entries, handle, self.weighted);
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return;
        }
        self.make_room(entries, weight, out);
        if !self.chunks.push_front(&mut self.queue, entries, handle, weight, 0) {
            self.push_refused(entries, handle, weight, out);
        }
    }

    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Evictions<E::Handle>) {
        Policy::<E>::remove(self, entries, old);
        self.insert(entries, new, out);
    }

    fn remove(&mut self, entries: &E, handle: E::Handle) {
        self.chunks
            .remove(&mut self.queue, entries, handle, weigh(entries, handle, self.weighted));
    }

    fn hit(&mut self, entries: &E, handle: E::Handle) {
        if entries.hits(handle) != 0 {
            entries.reset_hits(handle);
        }
        if self.chunks.is_front(&self.queue, handle) {
            return;
        }
        if !self.chunks.reserve(&self.queue) {
            // It keeps its position, and is moved when it reaches the tail.
            entries.set_hits(handle, 1);
            return;
        }
        let weight = weigh(entries, handle, self.weighted);
        self.chunks.remove(&mut self.queue, entries, handle, weight);
        let pushed = self.chunks.push_front(&mut self.queue, entries, handle, weight, 0);
        debug_assert!(pushed, "its place was reserved");
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
        self.queue.weight()
    }

    fn hit_limit(&self) -> u8 {
        1
    }

    fn eager_hits(&self) -> bool {
        true
    }

    fn hottest(&self, _: &E, visit: &mut dyn FnMut(E::Handle) -> bool) {
        self.chunks.iter(&self.queue).all(visit);
    }

    fn coldest(&mut self, _: &E) -> Option<E::Handle> {
        self.chunks.back(&self.queue).map(|(handle, _)| handle)
    }

    fn validate(&self, entries: &E) {
        self.chunks.validate([&self.queue].into_iter(), entries, |handle| {
            weigh(entries, handle, self.weighted)
        });
        assert!(self.queue.weight() <= self.capacity);
    }
}
