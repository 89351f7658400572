//! Random replacement: any entry is evicted, with equal probability. A new entry is always
//! admitted.
#![forbid(unsafe_code)]

use super::{Entries, Evictions, Policy, Verdict, weigh, xorshift};

/// Entries store their index divided by this, since a place has 23 bits. A scan of at most this
/// many handles finds the entry. Allows for 268 million entries.
const GRAIN: usize = 32;

/// The entries, in no order.
#[derive(Debug)]
pub(crate) struct Random<H> {
    capacity: u64,
    weighted: bool,
    weight: u64,
    handles: Vec<H>,
    random: u32,
    /// The most entries.
    limit: usize,
}

impl<H: Copy + Eq> Random<H> {
    pub(crate) fn new(capacity: u64, weighted: bool) -> Self {
        Self {
            capacity,
            weighted,
            weight: 0,
            handles: Vec::new(),
            random: 0x9E37_79B9,
            limit: crate::prim::list::limit() as usize * GRAIN,
        }
    }

    fn index<E: Entries<Handle = H>>(&self, entries: &E, handle: H) -> usize {
        let start = entries.place(handle) as usize * GRAIN;
        let offset = self.handles[start..]
            .iter()
            .take(GRAIN)
            .position(|&other| other == handle);
        start + offset.expect("the handle is where its place says")
    }

    fn take<E: Entries<Handle = H>>(&mut self, entries: &E, index: usize) -> H {
        let handle = self.handles.swap_remove(index);
        if let Some(&moved) = self.handles.get(index) {
            entries.set_place(moved, (index / GRAIN) as u32);
        }
        self.weight -= weigh(entries, handle, self.weighted);
        handle
    }

    /// Adds an entry. Returns false if places cannot name one more, or there is no memory.
    fn push<E: Entries<Handle = H>>(&mut self, entries: &E, handle: H, weight: u64) -> bool {
        let len = self.handles.len();
        let full = len == self.handles.capacity();
        if len >= self.limit || full && self.handles.try_reserve_exact((len / 8).max(8)).is_err() {
            return false;
        }
        self.handles.push(handle);
        self.weight += weight;
        entries.set_place(handle, (len / GRAIN) as u32);
        true
    }

    /// Evicts a random entry.
    fn evict<E: Entries<Handle = H>>(&mut self, entries: &E, out: &mut Evictions<H>) {
        let wide = u64::from(xorshift(&mut self.random)) << 32 | u64::from(xorshift(&mut self.random));
        let index = (u128::from(wide) * self.handles.len() as u128) >> 64;
        let handle = self.take(entries, index as usize);
        out.push((handle, Verdict::Evicted));
    }

    /// Evicts entries until there is room for `weight`, which is at most the capacity.
    fn make_room<E: Entries<Handle = H>>(&mut self, entries: &E, weight: u64, out: &mut Evictions<H>) {
        while self.weight > self.capacity - weight {
            self.evict(entries, out);
        }
    }
}

impl<E: Entries> Policy<E> for Random<E::Handle> {
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>) {
        let weight = weigh(entries, handle, self.weighted);
        if weight > self.capacity {
            out.push((handle, Verdict::Rejected));
            return;
        }
        self.make_room(entries, weight, out);
        if self.push(entries, handle, weight) {
            return;
        }
        if !self.handles.is_empty() {
            self.evict(entries, out);
        }
        if !self.push(entries, handle, weight) {
            out.push((handle, Verdict::Rejected));
        }
    }

    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Evictions<E::Handle>) {
        Policy::<E>::remove(self, entries, old);
        self.insert(entries, new, out);
    }

    fn remove(&mut self, entries: &E, handle: E::Handle) {
        self.take(entries, self.index(entries, handle));
    }

    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Evictions<E::Handle>) {
        self.capacity = capacity;
        self.make_room(entries, 0, out);
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn len(&self) -> usize {
        self.handles.len()
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn hit_limit(&self) -> u8 {
        0
    }

    fn hottest(&self, _: &E, visit: &mut dyn FnMut(E::Handle) -> bool) {
        // All entries are worth the same.
        self.handles.iter().rev().all(|&handle| visit(handle));
    }

    fn coldest(&mut self, _: &E) -> Option<E::Handle> {
        self.handles.first().copied()
    }

    fn validate(&self, entries: &E) {
        for (index, &handle) in self.handles.iter().enumerate() {
            assert_eq!(entries.place(handle) as usize, index / GRAIN);
        }
        assert_eq!(
            self.weight,
            self.handles
                .iter()
                .map(|&handle| weigh(entries, handle, self.weighted))
                .sum::<u64>()
        );
        assert!(self.weight <= self.capacity);
    }
}
