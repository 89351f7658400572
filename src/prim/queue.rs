//! A bounded queue of pairs of words: many producers, one consumer at a time.
//!
//! Dmitry Vyukov's bounded MPMC queue, cut down to one consumer (the holder of the maintenance lock). The payload is
//! two plain words, so the whole queue is safe code. Neither side ever waits: a push that finds no room says so, and
//! a pop that meets a slot whose producer has not finished treats the queue as empty; that producer comes back for it.
#![forbid(unsafe_code)]

use super::sync::{AtomicU64, AtomicUsize, Ordering};

struct Slot {
    /// `position` when free for that position, `position + 1` once its pair is written.
    turn: AtomicUsize,
    first: AtomicU64,
    second: AtomicU64,
}

/// See the [module's documentation](self).
pub(crate) struct PairQueue {
    slots: Box<[Slot]>,
    tail: AtomicUsize,
    /// Written by the consumer only.
    head: AtomicUsize,
}

impl PairQueue {
    /// A queue for `capacity` pairs, rounded up to a power of two. 24 bytes per pair.
    pub(crate) fn new(capacity: usize) -> Self {
        let slots = (0..capacity.next_power_of_two().max(2))
            .map(|turn| Slot {
                turn: AtomicUsize::new(turn),
                first: AtomicU64::new(0),
                second: AtomicU64::new(0),
            })
            .collect();
        Self {
            slots,
            tail: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
        }
    }

    fn slot(&self, position: usize) -> &Slot {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// Appends a pair; false if there is no room. Lock-free.
    pub(crate) fn push(&self, first: u64, second: u64) -> bool {
        let mut position = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(position);
            // Acquire pairs with the Release in `pop`: the consumer has read the slot before it is written again.
            let turn = slot.turn.load(Ordering::Acquire);
            match turn.wrapping_sub(position) as isize {
                0 => match self.tail.compare_exchange_weak(
                    position,
                    position.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        slot.first.store(first, Ordering::Relaxed);
                        slot.second.store(second, Ordering::Relaxed);
                        // Release pairs with the Acquire in `pop`: the pair, and all before it, is seen with the turn.
                        slot.turn.store(position.wrapping_add(1), Ordering::Release);
                        return true;
                    }
                    Err(now) => position = now,
                },
                behind if behind < 0 => return false,
                _ => position = self.tail.load(Ordering::Relaxed),
            }
        }
    }

    /// Takes the oldest pair; `None` if there is none, or its producer has not finished yet. For one consumer at a time.
    pub(crate) fn pop(&self) -> Option<(u64, u64)> {
        let position = self.head.load(Ordering::Relaxed);
        let slot = self.slot(position);
        if slot.turn.load(Ordering::Acquire) != position.wrapping_add(1) {
            return None;
        }
        let pair = (slot.first.load(Ordering::Relaxed), slot.second.load(Ordering::Relaxed));
        slot.turn
            .store(position.wrapping_add(self.slots.len()), Ordering::Release);
        self.head.store(position.wrapping_add(1), Ordering::Relaxed);
        Some(pair)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_says_when_full() {
        let queue = PairQueue::new(3);
        for round in 0..10u64 {
            for i in 0..4 {
                assert!(queue.push(round * 4 + i, i));
            }
            assert!(!queue.push(99, 99));
            for i in 0..4 {
                assert_eq!(queue.pop(), Some((round * 4 + i, i)));
            }
            assert_eq!(queue.pop(), None);
        }
    }
}
