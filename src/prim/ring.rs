//! A bounded queue of pairs of words, for one producer and one consumer at a time.
//!
//! Lamport's ring ("Specifying concurrent program modules", 1983): each side writes its own index
//! and reads the other's. There is no read-modify-write, so a push costs no more than a write to
//! the thread's own memory. The payload is two plain words, so the whole ring is safe code.
#![forbid(unsafe_code)]

use super::sync::{AtomicU64, AtomicUsize, Ordering};

/// See the [module's documentation](self).
pub(crate) struct Ring {
    slots: Box<[[AtomicU64; 2]]>,
    /// Written by the producer only.
    tail: AtomicUsize,
    /// Written by the consumer only, once per batch.
    head: AtomicUsize,
}

impl Ring {
    /// Creates a ring for `capacity` pairs, rounded up to a power of two; `None` if there is no
    /// memory. 16 bytes per pair.
    pub(crate) fn try_new(capacity: usize) -> Option<Self> {
        let capacity = capacity.next_power_of_two();
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity).ok()?;
        slots.extend((0..capacity).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]));
        Some(Self {
            slots: slots.into_boxed_slice(),
            tail: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
        })
    }

    #[cfg(test)]
    pub(crate) fn new(capacity: usize) -> Self {
        Self::try_new(capacity).expect("there is memory")
    }

    #[inline]
    fn slot(&self, position: usize) -> &[AtomicU64; 2] {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// Returns the number of pairs. Exact for the producer while no consumer drains, and for the
    /// consumer while the producer does not push.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // Acquire pairs with the Release in `drain`: the consumer has read the slots before they
        // are written again.
        self.tail
            .load(Ordering::Relaxed)
            .wrapping_sub(self.head.load(Ordering::Acquire))
    }

    /// Appends a pair and returns the number of pairs, or `None` if the ring is full. For the
    /// producer.
    #[inline]
    pub(crate) fn push(&self, [first, second]: [u64; 2]) -> Option<usize> {
        let tail = self.tail.load(Ordering::Relaxed);
        let waiting = self.len();
        if waiting >= self.slots.len() {
            return None;
        }
        let slot = self.slot(tail);
        slot[0].store(first, Ordering::Relaxed);
        slot[1].store(second, Ordering::Relaxed);
        // Release pairs with the Acquire in `drain`: a consumer that sees the pair sees all that
        // its producer did before.
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some(waiting + 1)
    }

    /// Calls `see` with all pairs in the ring, and leaves them there. For the consumer.
    pub(crate) fn peek(&self, see: impl FnMut([u64; 2])) {
        let head = self.head.load(Ordering::Relaxed);
        // Acquire pairs with the Release in `push`.
        let waiting = self.tail.load(Ordering::Acquire).wrapping_sub(head);
        (0..waiting).map(|n| self.pair(head.wrapping_add(n))).for_each(see);
    }

    #[inline]
    fn pair(&self, position: usize) -> [u64; 2] {
        let slot = self.slot(position);
        [slot[0].load(Ordering::Relaxed), slot[1].load(Ordering::Relaxed)]
    }

    /// Calls `take` with all pairs in the ring, unless it is empty, and removes them. For one
    /// consumer at a time.
    #[inline]
    pub(crate) fn drain(&self, take: impl FnOnce(Batch<'_>)) {
        let head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Acquire);
        if head == tail {
            return;
        }
        let len = tail.wrapping_sub(head);
        take(Batch { ring: self, head, len });
        self.head.store(tail, Ordering::Release);
    }
}

/// Pairs of a ring, in the order in which they were appended.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'r> {
    ring: &'r Ring,
    head: usize,
    len: usize,
}

impl Iterator for Batch<'_> {
    type Item = [u64; 2];

    #[inline(always)]
    fn next(&mut self) -> Option<[u64; 2]> {
        let pair = self.peek()?;
        self.pass();
        Some(pair)
    }
}

impl Batch<'_> {
    /// Returns the next pair, which stays the next one.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Option<[u64; 2]> {
        (self.len > 0).then(|| self.ring.pair(self.head))
    }

    /// Passes over the next pair, after [`peek`](Self::peek) has returned it.
    #[inline(always)]
    pub(crate) fn pass(&mut self) {
        debug_assert!(self.len > 0);
        self.head = self.head.wrapping_add(1);
        self.len -= 1;
    }

    /// Returns the number of pairs left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ring_keeps_order() {
        let ring = Ring::new(3);
        let mut expected = 0;
        for round in 0..10u64 {
            for i in 0..4 {
                assert_eq!(ring.push([round * 4 + i, i]), Some(i as usize + 1));
            }
            assert_eq!(ring.push([0, 0]), None, "it is full");
            let mut seen = Vec::new();
            ring.peek(|[first, _]| seen.push(first));
            assert_eq!(seen, (expected..expected + 4).collect::<Vec<_>>());
            ring.drain(|batch| {
                assert_eq!(batch.len(), 4);
                for pair in batch {
                    assert_eq!(pair, [expected, expected % 4]);
                    expected += 1;
                }
            });
            assert_eq!(ring.len(), 0);
        }
        assert_eq!(expected, 40);
    }
}
