//! Making room where a push or a sum fails: a full slab, weights near 2^64, a value that grew.
#![forbid(unsafe_code)]

use super::{TinyLfu, WINDOW};
use crate::policy::{Entries, Evictions, Verdict};
use crate::prim::ghost::Region;
use crate::prim::list::MAX_NOTE;

impl<H: Copy + Eq> TinyLfu<H> {
    /// Pushes a new entry, whose weight is already counted, to a queue after a push was refused.
    /// The oldest entries make room: those of probation, else of the protected queue, else of the
    /// window.
    #[cold]
    #[inline(never)]
    pub(super) fn push_refused<E: Entries<Handle = H>>(
        &mut self,
        (queue, note): (u16, u8),
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

    /// Evicts entries until adding `weight` cannot overflow. Reached only with weights near 2^64.
    #[cold]
    pub(super) fn make_room<E: Entries<Handle = H>>(&mut self, entries: &E, weight: u64, out: &mut Evictions<H>) {
        let capacity = std::mem::replace(&mut self.capacity, u64::MAX - weight);
        self.rebalance(entries, self.weighted, out);
        self.capacity = capacity;
    }

    /// Pushes an entry back to the head of queue `id`, from which it was removed because its new
    /// value is heavier. Other entries make room: an entry that was hit and fits is no candidate.
    #[cold]
    #[inline(never)]
    pub(super) fn push_grown<E>(&mut self, id: u16, entries: &E, (handle, weight): (H, u64), out: &mut Evictions<H>)
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
