//! Room for an entry where the ordinary way in has none: a full slab, sums near 2^64, a value that grew.
#![forbid(unsafe_code)]

use super::{TinyLfu, WINDOW};
use crate::policy::{Entries, Evictions, Verdict};
use crate::prim::ghost::Region;
use crate::prim::list::MAX_NOTE;

impl<H: Copy + Eq> TinyLfu<H> {
    /// Puts a new entry, whose weight is counted already, at the head of a queue that refused it a place there. The oldest entries
    /// make room: of probation, if it has any, else of the protected queue, else of the window.
    #[cold]
    #[inline(never)]
    pub(super) fn push_refused<E: Entries<Handle = H>>(
        &mut self,
        (queue, note): (u8, u8),
        entries: &E,
        (handle, weight): (H, u64),
        out: &mut Evictions<H>,
    ) {
        self.rivalry = 0;
        while !self.chunks.has_free() {
            let all = [&self.probation, &self.protected, &self.window];
            let Some((tail, from)) = all
                .into_iter()
                .find_map(|queue| Some((self.chunks.back(queue)?.0, queue.id())))
            else {
                break;
            };
            let own = self.weigh(entries, tail);
            let (chunks, queue) = self.queue(from);
            chunks.pop_back(queue, entries, own);
            let region = if from == WINDOW { Region::Window } else { Region::Main };
            self.record_departure(entries, tail, own, region);
            out.push((tail, Verdict::Evicted));
        }
        let (chunks, queue) = self.queue(queue);
        if !chunks.push_front(queue, entries, handle, weight, note) {
            self.total -= weight;
            out.push((handle, Verdict::Rejected));
        }
    }

    /// Evicts until adding `weight` cannot overflow. Only weights near 2^64 come here.
    #[cold]
    pub(super) fn make_room<E: Entries<Handle = H>>(&mut self, entries: &E, weight: u64, out: &mut Evictions<H>) {
        let capacity = std::mem::replace(&mut self.capacity, u64::MAX - weight);
        self.rebalance(entries, self.weighted, out);
        self.capacity = capacity;
    }

    /// Puts an entry of the queue `id`, taken out when its value was replaced by a heavier one, at that queue's head. Others make
    /// room: a hit entry that fits is no candidate.
    #[cold]
    #[inline(never)]
    pub(super) fn push_grown<E>(&mut self, id: u8, entries: &E, (handle, weight): (H, u64), out: &mut Evictions<H>)
    where
        E: Entries<Handle = H>,
    {
        let (capacity, window_max) = (self.capacity, self.window_max);
        self.capacity -= weight;
        if id == WINDOW {
            self.window_max = window_max.saturating_sub(weight);
        }
        self.rebalance(entries, self.weighted, out);
        (self.capacity, self.window_max) = (capacity, window_max);
        self.total += weight;
        entries.set_hits(handle, 1);
        let (chunks, queue) = self.queue(id);
        if !chunks.push_front(queue, entries, handle, weight, MAX_NOTE) {
            self.push_refused((id, MAX_NOTE), entries, (handle, weight), out);
        }
    }
}
