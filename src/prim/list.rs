//! Queues of entry handles: unrolled doubly linked lists whose chunks come from one shared slab.
//!
//! A classic intrusive list costs 16 bytes and two dependent cache misses per unlink. Here an entry
//! stores only its chunk's number (23 bits, [`Places`]), and a chunk of 256 bytes holds [`ITEMS`]
//! handles. So a full queue takes about nine bytes per entry, and pushing and popping touch one
//! chunk per [`ITEMS`] operations.
//!
//! # Memory
//!
//! Removal from the middle leaves a hole. Two neighboring chunks that together hold at most
//! [`MERGE`] handles are merged. This bounds memory at about three times the dense size under any
//! pattern of removals, and costs an amortized two moves per push (a merge frees at least ten
//! slots).
//!
//! A push is refused if it needs a chunk and the slab cannot grow: there is no memory, or the slab
//! has 2^23 - 2^13 chunks, as many as places can name ([`MAX_PLACE`]). So a slab holds at least 83
//! million handles (two neighboring chunks hold more than [`MERGE`]) and at most 234 million.
//! Popping at most [`ITEMS`] handles from a queue's tail frees a chunk.
#![forbid(unsafe_code)]

use super::prefetch::prefetch;

/// Access to the place that each entry stores: the number of its chunk.
pub(crate) trait Places {
    /// The type that identifies an entry; as cheap to copy as a pointer.
    type Handle: Copy + Eq + std::fmt::Debug;

    /// Returns the last argument of [`set_place`](Self::set_place).
    fn place(&self, handle: Self::Handle) -> u32;
    /// Stores a number with the entry: `place <= MAX_PLACE`.
    fn set_place(&self, handle: Self::Handle, place: u32);
    /// Whether entries store their offset in the chunk, too, so that a removal need not search it.
    const STORES_OFFSETS: bool = false;
    /// Returns the arguments of [`set_position`](Self::set_position): the offset, if entries store
    /// it.
    #[inline]
    fn position(&self, handle: Self::Handle) -> (u32, usize) {
        (self.place(handle), 0)
    }
    /// Stores a place, and an offset of less than [`ITEMS`] if entries store it.
    #[inline]
    fn set_position(&self, handle: Self::Handle, place: u32, offset: usize) {
        let _ = offset;
        self.set_place(handle, place);
    }
    /// Prefetches the entry.
    fn prefetch(&self, handle: Self::Handle) {
        let _ = handle;
    }
}

/// The largest place. Places have 23 bits; the 2^13 largest numbers are free for marks of the
/// users.
pub(crate) const MAX_PLACE: u32 = (1 << 23) - (1 << 13) - 1;

/// Handles per chunk: with 8-byte handles and their notes a chunk takes 256 bytes.
pub(crate) const ITEMS: usize = 28;
/// The largest note.
pub(crate) const MAX_NOTE: u8 = 15;
/// Neighboring chunks with at most this many handles together are merged.
const MERGE: u8 = 20;
/// How many handles ahead of the tail are prefetched: some evictions take as long as a miss to
/// memory.
const PREFETCH_AHEAD: usize = 8;
/// The distance from the tail of [`Chunks::peek_ahead`]: nearer than the handles being prefetched.
const PEEK_AHEAD: usize = 3;
/// Handles compared per step; a divisor of [`ITEMS`].
const GROUP: usize = 7;
/// The index of no chunk; out of range of any slab.
const NONE: u32 = u32::MAX;

/// A queue: pushed at the head, popped at the tail. Its chunks are in a [`Chunks`].
#[derive(Debug)]
pub(crate) struct Queue {
    head: u32,
    tail: u32,
    id: u16,
    weight: u64,
}

impl Queue {
    /// Returns an empty queue. `id` distinguishes the queues of one slab.
    pub(crate) fn new(id: u16) -> Self {
        Self {
            head: NONE,
            tail: NONE,
            id,
            weight: 0,
        }
    }

    /// Returns whether the queue holds no handle.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tail == NONE
    }

    /// Returns the sum of the weights that the handles were pushed with.
    #[inline]
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Returns the queue's id.
    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }
}

/// `items[lo..hi]` is the part in use, from the head's side to the tail's. Items before it are
/// empty; items after it have no meaning. Both ends of the part are handles, never holes, and a
/// linked chunk is never empty. So the tail of a queue is found without a search.
#[derive(Debug)]
struct Chunk<H> {
    items: [Option<H>; ITEMS],
    /// Four bits per item, set when it is pushed; 0 before `lo`. Without meaning for holes.
    notes: [u64; 2],
    prev: u32,
    next: u32,
    lo: u8,
    hi: u8,
    live: u8,
    queue: u16,
}

impl<H> Chunk<H> {
    /// Returns the part in use.
    #[inline]
    fn used(&self) -> &[Option<H>] {
        &self.items[usize::from(self.lo)..usize::from(self.hi)]
    }

    #[inline(always)]
    fn note(&self, item: usize) -> u8 {
        (self.notes[(item / 16) & 1] >> (item % 16 * 4)) as u8 & MAX_NOTE
    }

    /// Sets a note that is 0.
    #[inline(always)]
    fn add_note(&mut self, item: usize, note: u8) {
        self.notes[(item / 16) & 1] |= u64::from(note) << (item % 16 * 4);
    }

    /// Ends the part in use at its last handle, which lies before `end`.
    #[inline(always)]
    fn trim_rear(&mut self, mut end: usize) {
        while self.items[end - 1].is_none() {
            end -= 1;
        }
        self.hi = end as u8;
    }

    /// Begins the part in use at its first handle, which lies behind `removed`.
    #[inline(always)]
    fn trim_front(&mut self, removed: usize) {
        let mut first = removed;
        while self.items[first].is_none() {
            // The next push here adds its note to 0.
            self.notes[(first / 16) & 1] &= !(u64::from(MAX_NOTE) << (first % 16 * 4));
            first += 1;
        }
        self.lo = first as u8;
    }

    /// Prefetches all cache lines of the chunk.
    #[inline]
    fn prefetch(&self) {
        for item in self.items.iter().step_by(8) {
            prefetch(item);
        }
    }
}

/// The slab of chunks that several queues share.
#[derive(Debug)]
pub(crate) struct Chunks<H> {
    slab: Vec<Chunk<H>>,
    /// The number of handles in all queues.
    len: usize,
    /// The first free chunk, linked through `next`.
    free: u32,
    /// The most chunks.
    limit: u32,
}

/// The most chunks that places can name.
const MAX_CHUNKS: u32 = MAX_PLACE + 1;

#[cfg(test)]
thread_local! {
    /// The most chunks of the slabs that this thread creates, in tests.
    static LIMIT: std::cell::Cell<u32> = const { std::cell::Cell::new(MAX_CHUNKS) };
}

/// Calls `run`, in which new slabs have at most `chunks` chunks.
#[cfg(test)]
pub(crate) fn with_limit<T>(chunks: u32, run: impl FnOnce() -> T) -> T {
    let before = LIMIT.replace(chunks);
    let result = run();
    LIMIT.set(before);
    result
}

/// Returns the most chunks that a slab may have: as many as places can name.
pub(crate) fn limit() -> u32 {
    #[cfg(test)]
    return LIMIT.get();
    #[cfg(not(test))]
    MAX_CHUNKS
}

impl<H: Copy + Eq> Chunks<H> {
    /// Returns an empty slab; allocates nothing.
    pub(crate) fn new() -> Self {
        Self {
            slab: Vec::new(),
            len: 0,
            free: NONE,
            limit: limit(),
        }
    }

    /// Returns the id of the queue that holds an entry with this place.
    #[inline]
    pub(crate) fn queue_id(&self, place: u32) -> u16 {
        self.slab[place as usize].queue
    }

    /// Returns the number of bytes allocated.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.slab.capacity() * size_of::<Chunk<H>>()
    }

    /// Returns the number of handles in all queues.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Ensures that the next push to the queue succeeds, also if handles are removed before it.
    /// Returns false if there is no chunk for it. May allocate.
    #[inline]
    pub(crate) fn reserve(&mut self, queue: &Queue) -> bool {
        match self.slab.get(queue.head as usize) {
            Some(chunk) if chunk.lo > 0 => true,
            _ => self.has_free() || self.add_free(),
        }
    }

    /// Returns whether there is a free chunk.
    #[inline]
    pub(crate) fn has_free(&self) -> bool {
        self.free != NONE
    }

    /// Pushes a handle to the head, with a note of four bits for [`back`](Self::back). Returns
    /// false, and does nothing, if there is no chunk for it; never after [`reserve`](Self::reserve)
    /// returned true.
    #[inline]
    #[must_use = "a handle that was refused is in no queue"]
    pub(crate) fn push_front<E>(&mut self, queue: &mut Queue, entries: &E, handle: H, weight: u64, note: u8) -> bool
    where
        E: Places<Handle = H>,
    {
        let chunk = match self.slab.get_mut(queue.head as usize) {
            Some(chunk) if chunk.lo > 0 => chunk,
            _ => match self.add_head(queue) {
                Some(chunk) => chunk,
                None => return false,
            },
        };
        chunk.lo -= 1;
        chunk.live += 1;
        let at = usize::from(chunk.lo);
        chunk.add_note(at, note);
        chunk.items[at] = Some(handle);
        self.len += 1;
        queue.weight += weight;
        entries.set_position(handle, queue.head, at);
        true
    }

    /// Adds a free chunk to the slab. Returns false if there is no memory, or the limit is reached.
    #[cold]
    fn add_free(&mut self) -> bool {
        let len = self.slab.len();
        if len >= self.limit as usize {
            return false;
        }
        // Doubling would waste up to half of the memory; growing by an eighth is still amortized
        // O(1).
        if len == self.slab.capacity() && self.slab.try_reserve_exact((len / 8).max(1)).is_err() {
            return false;
        }
        self.slab.push(Chunk {
            items: [None; ITEMS],
            prev: NONE,
            next: self.free,
            notes: [0; 2],
            lo: 0,
            hi: 0,
            live: 0,
            queue: 0,
        });
        self.free = len as u32;
        true
    }

    /// Links an empty chunk before the head; `None` if there is none.
    #[cold]
    #[inline(never)]
    fn add_head(&mut self, queue: &mut Queue) -> Option<&mut Chunk<H>> {
        if !self.has_free() && !self.add_free() {
            return None;
        }
        let index = self.free;
        self.free = self.slab[index as usize].next;
        match self.slab.get_mut(queue.head as usize) {
            Some(old) => old.prev = index,
            None => queue.tail = index,
        }
        let chunk = &mut self.slab[index as usize];
        chunk.items = [None; ITEMS];
        (chunk.prev, chunk.next, chunk.notes) = (NONE, queue.head, [0; 2]);
        (chunk.lo, chunk.hi, chunk.queue) = (ITEMS as u8, ITEMS as u8, queue.id);
        queue.head = index;
        Some(chunk)
    }

    /// Returns the handle at the tail, and its note.
    #[inline]
    pub(crate) fn back(&self, queue: &Queue) -> Option<(H, u8)> {
        let chunk = self.slab.get(queue.tail as usize)?;
        let last = usize::from(chunk.hi) - 1;
        Some((chunk.items[last]?, chunk.note(last)))
    }

    /// Returns whether the handle is at the head.
    #[inline]
    pub(crate) fn is_front(&self, queue: &Queue, handle: H) -> bool {
        let front = self.slab.get(queue.head as usize);
        front.is_some_and(|chunk| chunk.items[usize::from(chunk.lo)] == Some(handle))
    }

    /// Pops the handle at the tail, which was pushed with `weight`. The queue must not be empty.
    #[inline]
    pub(crate) fn pop_back<E>(&mut self, queue: &mut Queue, entries: &E, weight: u64)
    where
        E: Places<Handle = H>,
    {
        let popped = self.pop_back_if(queue, entries, |_, _| Some(weight));
        debug_assert!(popped.is_some());
    }

    /// Pops the handle at the tail if `accept`, called with it and its note, returns the weight
    /// that it was pushed with.
    #[inline(always)]
    pub(crate) fn pop_back_if<E>(
        &mut self,
        queue: &mut Queue,
        entries: &E,
        accept: impl FnOnce(H, u8) -> Option<u64>,
    ) -> Option<(H, u64)>
    where
        E: Places<Handle = H>,
    {
        let chunk = self.slab.get_mut(queue.tail as usize)?;
        let mut last = usize::from(chunk.hi) - 1;
        let handle = chunk.items[last]?;
        let weight = accept(handle, chunk.note(last))?;
        self.len -= 1;
        queue.weight -= weight;
        chunk.live -= 1;
        if chunk.live == 0 {
            self.drop_empty_tail(queue, entries);
            return Some((handle, weight));
        }
        while chunk.items[last - 1].is_none() {
            last -= 1;
        }
        chunk.hi = last as u8;
        if let Some(&Some(ahead)) = chunk.items.get(last.wrapping_sub(PREFETCH_AHEAD)) {
            entries.prefetch(ahead);
        }
        Some((handle, weight))
    }

    /// Returns a handle that will soon be at the tail and is already prefetched, if the tail's
    /// chunk has one.
    #[inline(always)]
    pub(crate) fn peek_ahead(&self, queue: &Queue) -> Option<H> {
        let chunk = self.slab.get(queue.tail as usize)?;
        let at = usize::from(chunk.hi).checked_sub(PEEK_AHEAD)?;
        if at < usize::from(chunk.lo) {
            None
        } else {
            chunk.items[at]
        }
    }

    /// Frees the empty chunk at the tail, and prefetches what the next pops need.
    #[cold]
    #[inline(never)]
    fn drop_empty_tail<E: Places<Handle = H>>(&mut self, queue: &mut Queue, entries: &E) {
        self.unlink(queue, queue.tail);
        if let Some(chunk) = self.slab.get(queue.tail as usize) {
            let last = chunk.used().iter().rev().take(PREFETCH_AHEAD).flatten();
            last.for_each(|&handle| entries.prefetch(handle));
            if let Some(chunk) = self.slab.get(chunk.prev as usize) {
                chunk.prefetch();
            }
        }
    }

    /// Unlinks and frees a chunk.
    #[inline(never)]
    fn unlink(&mut self, queue: &mut Queue, index: u32) {
        let chunk = &mut self.slab[index as usize];
        let (prev, next) = (chunk.prev, chunk.next);
        chunk.live = 0;
        chunk.next = self.free;
        self.free = index;
        match self.slab.get_mut(prev as usize) {
            Some(chunk) => chunk.next = next,
            None => queue.head = next,
        }
        match self.slab.get_mut(next as usize) {
            Some(chunk) => chunk.prev = prev,
            None => queue.tail = prev,
        }
    }

    /// Returns the chunk of a handle, and its offset there.
    #[inline(always)]
    fn find<E: Places<Handle = H>>(&self, entries: &E, handle: H) -> (u32, usize) {
        let (index, offset) = entries.position(handle);
        let chunk = &self.slab[index as usize];
        if E::STORES_OFFSETS {
            debug_assert!(chunk.items[offset] == Some(handle));
            return (index, offset);
        }
        // Groups of a fixed size become straight-line code. An equal handle that was popped earlier
        // can only be behind it.
        let (groups, _) = chunk.items.as_chunks::<GROUP>();
        for (nth, group) in groups.iter().enumerate().skip(usize::from(chunk.lo) / GROUP) {
            if let Some(offset) = group.iter().position(|&item| item == Some(handle)) {
                return (index, nth * GROUP + offset);
            }
        }
        unreachable!("the handle is in the chunk it names");
    }

    /// Removes a handle, which was pushed with `weight`.
    #[inline]
    pub(crate) fn remove<E>(&mut self, queue: &mut Queue, entries: &E, handle: H, weight: u64)
    where
        E: Places<Handle = H>,
    {
        let (index, offset) = self.find(entries, handle);
        self.len -= 1;
        queue.weight -= weight;
        let chunk = &mut self.slab[index as usize];
        debug_assert_eq!(chunk.queue, queue.id);
        chunk.items[offset] = None;
        chunk.live -= 1;
        let live = chunk.live;
        if live == 0 {
            self.unlink(queue, index);
            return;
        }
        if offset + 1 == usize::from(chunk.hi) {
            chunk.trim_rear(offset);
        } else if offset == usize::from(chunk.lo) {
            chunk.trim_front(offset);
        }
        if live < MERGE {
            let (prev, next) = (chunk.prev, chunk.next);
            if self.fits(prev, live) {
                self.merge(queue, entries, prev, index);
            } else if self.fits(next, live) {
                self.merge(queue, entries, index, next);
            }
        }
    }

    /// Returns whether a neighboring chunk can take `live` handles.
    fn fits(&self, neighbour: u32, live: u8) -> bool {
        self.slab
            .get(neighbour as usize)
            .is_some_and(|chunk| chunk.live + live <= MERGE)
    }

    /// Merges two neighboring chunks, in order, toward the tail's side: a merged head keeps room
    /// for pushes.
    #[cold]
    fn merge<E: Places<Handle = H>>(&mut self, queue: &mut Queue, entries: &E, front: u32, rear: u32) {
        let mut items = [None; ITEMS];
        let (mut lo, mut notes) = (ITEMS, [0u64; 2]);
        for chunk in [rear, front].map(|index| &self.slab[index as usize]) {
            for offset in (usize::from(chunk.lo)..usize::from(chunk.hi)).rev() {
                if let Some(handle) = chunk.items[offset] {
                    lo -= 1;
                    items[lo] = Some(handle);
                    notes[lo / 16] |= u64::from(chunk.note(offset)) << (lo % 16 * 4);
                }
            }
        }
        // The fuller chunk stays, so that fewer places change.
        let front_stays = self.slab[front as usize].live > self.slab[rear as usize].live;
        let (stays, goes) = if front_stays { (front, rear) } else { (rear, front) };
        if E::STORES_OFFSETS {
            for (offset, &handle) in items.iter().enumerate() {
                handle
                    .into_iter()
                    .for_each(|handle| entries.set_position(handle, stays, offset));
            }
        } else {
            for &handle in self.slab[goes as usize].used().iter().flatten() {
                entries.set_place(handle, stays);
            }
        }
        self.unlink(queue, goes);
        let chunk = &mut self.slab[stays as usize];
        (chunk.items, chunk.notes) = (items, notes);
        chunk.lo = lo as u8;
        chunk.hi = ITEMS as u8;
        chunk.live = (ITEMS - lo) as u8;
    }

    /// Replaces `old` by `new`, which keeps the position and the note.
    #[inline]
    pub(crate) fn replace<E>(&mut self, queue: &mut Queue, entries: &E, old: (H, u64), new: (H, u64))
    where
        E: Places<Handle = H>,
    {
        let (index, offset) = self.find(entries, old.0);
        self.slab[index as usize].items[offset] = Some(new.0);
        queue.weight = queue.weight - old.1 + new.1;
        entries.set_position(new.0, index, offset);
    }

    /// Iterates over the handles from head to tail.
    pub(crate) fn iter(&self, queue: &Queue) -> impl Iterator<Item = H> {
        let first = self.slab.get(queue.head as usize);
        std::iter::successors(first, |chunk| self.slab.get(chunk.next as usize))
            .flat_map(|chunk| chunk.used().iter().flatten().copied())
    }

    /// Iterates over the handles from tail to head.
    pub(crate) fn iter_back(&self, queue: &Queue) -> impl Iterator<Item = H> {
        let last = self.slab.get(queue.tail as usize);
        std::iter::successors(last, |chunk| self.slab.get(chunk.prev as usize))
            .flat_map(|chunk| chunk.used().iter().rev().flatten().copied())
    }

    /// Panics if a queue or the slab is inconsistent. `queues` are all queues of this slab.
    pub(crate) fn validate<'a, E>(&self, queues: impl Iterator<Item = &'a Queue>, entries: &E, weigh: impl Fn(H) -> u64)
    where
        E: Places<Handle = H>,
    {
        let (mut chunks, mut all) = (0, 0);
        for queue in queues {
            let (mut prev, mut index, mut weight) = (NONE, queue.head, 0);
            let mut lives = Vec::new();
            while let Some(chunk) = self.slab.get(index as usize) {
                assert_eq!((chunk.prev, chunk.queue), (prev, queue.id));
                let (lo, hi) = (usize::from(chunk.lo), usize::from(chunk.hi));
                assert!(lo < hi && chunk.items[lo].is_some() && chunk.items[hi - 1].is_some());
                assert!((0..lo).all(|item| chunk.note(item) == 0));
                assert!(chunk.items[..lo].iter().all(Option::is_none));
                assert_eq!(chunk.used().iter().flatten().count(), usize::from(chunk.live));
                for &handle in chunk.used().iter().flatten() {
                    assert_eq!(entries.place(handle), index);
                    assert!(!E::STORES_OFFSETS || chunk.items[entries.position(handle).1] == Some(handle));
                    weight += weigh(handle);
                    all += 1;
                }
                lives.push(chunk.live);
                (prev, index) = (index, chunk.next);
            }
            assert_eq!((queue.tail, queue.weight), (prev, weight));
            // Only the two ends may be sparse.
            let inner = lives
                .len()
                .checked_sub(2)
                .and_then(|end| lives.get(1..=end))
                .unwrap_or(&[]);
            assert!(inner.windows(2).all(|pair| pair[0] + pair[1] > MERGE), "{lives:?}");
            chunks += lives.len();
        }
        assert_eq!(self.len, all);
        let mut free = self.free;
        while let Some(chunk) = self.slab.get(free as usize) {
            assert_eq!(chunk.live, 0);
            (free, chunks) = (chunk.next, chunks + 1);
        }
        assert_eq!(chunks, self.slab.len(), "chunks lost or linked twice");
    }
}

#[cfg(test)]
mod tests;
