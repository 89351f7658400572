//! First in, first out. Hits do not matter, and a replaced entry keeps its position.
#![forbid(unsafe_code)]

use super::{Entries, Evictions, Policy, Verdict, weigh};
use crate::prim::list::{Chunks, Queue};

/// One queue in the order of insertion.
#[derive(Debug)]
pub(crate) struct Fifo<H> {
    capacity: u64,
    weighted: bool,
    chunks: Chunks<H>,
    queue: Queue,
}

impl<H: Copy + Eq> Fifo<H> {
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
        while self.queue.weight() > self.capacity - weight && self.evict(entries, out) {}
    }

    /// Evicts the tail. Returns false if there is none.
    #[inline]
    fn evict<E: Entries<Handle = H>>(&mut self, entries: &E, out: &mut Evictions<H>) -> bool {
        let Some((tail, _)) = self.chunks.back(&self.queue) else {
            return false;
        };
        self.chunks
            .pop_back(&mut self.queue, entries, weigh(entries, tail, self.weighted));
        out.push((tail, Verdict::Evicted));
        true
    }

    /// Evicts entries other than `kept`, whose weight is at most the capacity, until the rest fits.
    fn make_room_beside<E: Entries<Handle = H>>(&mut self, entries: &E, kept: H, out: &mut Evictions<H>) {
        while self.queue.weight() > self.capacity {
            // At most the second one: only `kept` is skipped.
            let Some(oldest) = self.chunks.iter_back(&self.queue).find(|&handle| handle != kept) else {
                return;
            };
            let weight = weigh(entries, oldest, self.weighted);
            self.chunks.remove(&mut self.queue, entries, oldest, weight);
            out.push((oldest, Verdict::Evicted));
        }
    }

    /// Pushes an entry to the head after a push was refused, in the place of evicted entries.
    #[cold]
    fn push_refused<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64, out: &mut Evictions<H>) {
        while !self.chunks.has_free() && self.evict(entries, out) {}
        if !self.chunks.push_front(&mut self.queue, entries, handle, weight, 0) {
            out.push((handle, Verdict::Rejected));
        }
    }
}

impl<E: Entries> Policy<E> for Fifo<E::Handle> {
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
        let (before, weight) = (weigh(entries, old, self.weighted), weigh(entries, new, self.weighted));
        if weight <= self.capacity && (self.queue.weight() - before).checked_add(weight).is_some() {
            self.chunks
                .replace(&mut self.queue, entries, (old, before), (new, weight));
            self.make_room_beside(entries, new, out);
        } else {
            // Too heavy, or the sum would overflow: the entry loses its position.
            self.chunks.remove(&mut self.queue, entries, old, before);
            self.insert(entries, new, out);
        }
    }

    fn remove(&mut self, entries: &E, handle: E::Handle) {
        self.chunks
            .remove(&mut self.queue, entries, handle, weigh(entries, handle, self.weighted));
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
        0
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
