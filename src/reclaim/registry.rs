//! Indices of living threads: small numbers, each with an item of its own.
//!
//! A [`Registry`] is a list of chunks, each twice as large as the one before. A bit states whether
//! an index is in use, and a counter per chunk whether any is. [`claim`](Registry::claim) takes
//! about the lowest free index. [`visit_used`](Registry::visit_used) skips chunks without a living
//! thread, and visits the used items of the others. So both cost what the living threads cost (and
//! a bit for each free index of a chunk in use), however many threads ended before.
//!
//! # Invariants
//! - An index has one owner (invariant 17 of ARCHITECTURE.md): the thread that set its bit, until
//!   that thread clears it.
//! - A chunk's counter is never less than the number of its bits that are set. It is raised before
//!   a bit is set, and lowered after the bit is cleared. So a chunk whose counter is 0 may be
//!   skipped.

use crate::prim::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::ptr;

/// Number of items of the first chunk.
const FIRST: usize = if cfg!(loom) { 1 } else { 16 };
/// Maximum number of chunks: room for 2^28 threads.
const CHUNKS: usize = if cfg!(loom) { 2 } else { 24 };
/// Bits of a word of a chunk.
const WORD: usize = u64::BITS as usize;

/// Indices of living threads, each with an item. See the [module's documentation](self).
pub(crate) struct Registry<T> {
    chunks: [AtomicPtr<Chunk<T>>; CHUNKS],
}

/// Consecutive indices and their items. Never freed before the registry.
struct Chunk<T> {
    /// At least the number of bits that are set in `used`.
    count: AtomicUsize,
    /// A bit per item: a thread owns its index.
    used: Box<[AtomicU64]>,
    items: Box<[T]>,
}

impl<T: Default> Registry<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            chunks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// Claims a free index, about the lowest. O(threads / 64). Panics after 2^28 threads at a time.
    pub(crate) fn claim(&self) -> (usize, &T) {
        for (level, at) in self.chunks.iter().enumerate() {
            let chunk = Self::get_or_allocate(at, FIRST << level);
            if let Some(offset) = chunk.claim() {
                return (first(level) + offset, &chunk.items[offset]);
            }
        }
        panic!("too many threads");
    }

    /// Claims this index. Returns false if it is in use or was never claimed.
    pub(crate) fn claim_exactly(&self, index: usize) -> bool {
        self.find(index)
            .is_some_and(|(chunk, offset)| chunk.claim_exactly(offset))
    }

    /// Releases an index. Only its owner may call this.
    pub(crate) fn release(&self, index: usize) {
        if let Some((chunk, offset)) = self.find(index) {
            // Release pairs with the Acquire in `Chunk::set` and in `visit_used`: the owner is done
            // with the item.
            chunk.used[offset / WORD].fetch_and(!(1 << (offset % WORD)), Ordering::Release);
            // After the bit, so that the counter is never too small. Release: as above, for a
            // thread that skips the chunk.
            chunk.count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Returns whether a thread has this index.
    #[inline]
    pub(crate) fn is_used(&self, index: usize) -> bool {
        self.find(index).is_some_and(|(chunk, offset)| {
            chunk.used[offset / WORD].load(Ordering::Relaxed) >> (offset % WORD) & 1 != 0
        })
    }

    /// Visits the items of living threads until `visit` returns false.
    ///
    /// A thread that registers concurrently may be missed, unless its SeqCst fence after the
    /// registration comes before the caller's.
    #[cfg_attr(all(feature = "crossbeam", not(loom)), allow(dead_code))]
    #[inline]
    pub(crate) fn visit_used(&self, mut visit: impl FnMut(&T) -> bool) {
        for at in &self.chunks {
            // Chunks are allocated in order.
            let Some(chunk) = load_chunk(at) else { return };
            // Acquire pairs with the Release in `release`: what the threads counted here did before
            // they ended is ordered before this.
            if chunk.count.load(Ordering::Acquire) == 0 {
                continue;
            }
            for (used, items) in chunk.used.iter().zip(chunk.items.chunks(WORD)) {
                // Acquire: as above.
                let mut bits = used.load(Ordering::Acquire);
                while bits != 0 {
                    if !visit(&items[bits.trailing_zeros() as usize]) {
                        return;
                    }
                    bits &= bits - 1;
                }
            }
        }
    }

    /// Releases all indices except those whose items `is_own`. Calls `reset` for the items
    /// released. The calling thread is the only one.
    #[cfg_attr(feature = "crossbeam", allow(dead_code))]
    #[cfg(not(loom))]
    pub(crate) fn release_others(&self, is_own: impl Fn(&T) -> bool, reset: impl Fn(&T)) {
        for chunk in self.chunks.iter().filter_map(load_chunk) {
            let mut count = 0;
            for (used, items) in chunk.used.iter().zip(chunk.items.chunks(WORD)) {
                let mut own = used.load(Ordering::Relaxed);
                for (bit, item) in items.iter().enumerate() {
                    if own >> bit & 1 != 0 && !is_own(item) {
                        reset(item);
                        own &= !(1 << bit);
                    }
                }
                // Relaxed: no other thread exists.
                used.store(own, Ordering::Relaxed);
                count += own.count_ones() as usize;
            }
            chunk.count.store(count, Ordering::Relaxed);
        }
    }

    /// Returns the chunk of an index, and the offset in it, or `None` if that chunk was never
    /// allocated.
    fn find(&self, index: usize) -> Option<(&Chunk<T>, usize)> {
        let level = (index / FIRST + 1).ilog2() as usize;
        Some((load_chunk(self.chunks.get(level)?)?, index - first(level)))
    }

    /// Returns the chunk at `at`, which it allocates with `len` items if there is none.
    fn get_or_allocate(at: &AtomicPtr<Chunk<T>>, len: usize) -> &Chunk<T> {
        if let Some(chunk) = load_chunk(at) {
            return chunk;
        }
        let new = Box::into_raw(Box::new(Chunk {
            count: AtomicUsize::new(0),
            used: (0..len.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect(),
            items: (0..len).map(|_| T::default()).collect(),
        }));
        // AcqRel, Acquire: the chunk that the pointer leads to is seen (see `load_chunk`). Of two
        // threads, one installs its chunk.
        match at.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: set now, and freed only with the registry.
            Ok(_) => unsafe { &*new },
            Err(other) => {
                // SAFETY: `new` was not shared; `other` is as above.
                unsafe {
                    drop(Box::from_raw(new));
                    &*other
                }
            }
        }
    }
}

/// Returns the first index of the chunk at `level`.
fn first(level: usize) -> usize {
    FIRST * ((1 << level) - 1)
}

/// Returns the chunk at `at`, if it was allocated.
#[inline]
fn load_chunk<T>(at: &AtomicPtr<Chunk<T>>) -> Option<&Chunk<T>> {
    // SAFETY: set only in `get_or_allocate`, and freed only with the registry. Acquire pairs with
    // the Release there.
    unsafe { at.load(Ordering::Acquire).as_ref() }
}

impl<T> Chunk<T> {
    /// Claims a free offset, about the lowest, or returns `None` if the chunk is full.
    fn claim(&self) -> Option<usize> {
        // The counter may be too large for an instant. Then the next chunk is used, though a bit is
        // free here.
        if self.count.load(Ordering::Relaxed) >= self.items.len() {
            return None;
        }
        // Before the bit is set: the counter is never too small. Relaxed: the fence of the owner's
        // announcement orders it (see `visit_used`).
        self.count.fetch_add(1, Ordering::Relaxed);
        for (n, used) in self.used.iter().enumerate() {
            loop {
                let bit = used.load(Ordering::Relaxed).trailing_ones() as usize;
                let offset = n * WORD + bit;
                if bit == WORD || offset >= self.items.len() {
                    break;
                }
                // Another thread may have set the bit since it was read: then read the word again.
                if self.set(offset) {
                    return Some(offset);
                }
            }
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Claims this offset. Returns false if it is in use.
    fn claim_exactly(&self, offset: usize) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        let claimed = self.set(offset);
        if !claimed {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        claimed
    }

    /// Sets a bit. Returns false if it was set.
    fn set(&self, offset: usize) -> bool {
        let bit = 1 << (offset % WORD);
        // Acquire pairs with the Release in `release`: the previous owner is done with the item. A
        // read-modify-write: one thread becomes the owner (invariant 17).
        self.used[offset / WORD].fetch_or(bit, Ordering::Acquire) & bit == 0
    }
}

impl<T> Drop for Registry<T> {
    fn drop(&mut self) {
        for at in &mut self.chunks {
            let chunk = at.load(Ordering::Relaxed);
            if !chunk.is_null() {
                // SAFETY: set once, made from a Box in `get_or_allocate`; `&mut self`: it is not
                // used any more.
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn used(registry: &Registry<AtomicUsize>) -> usize {
        let mut visited = 0;
        registry.visit_used(|_| {
            visited += 1;
            true
        });
        visited
    }

    #[cfg_attr(miri, ignore = "too long for an interpreter")]
    #[test]
    fn indices_are_dense_and_reused_lowest_first() {
        let registry = Registry::<AtomicUsize>::new();
        for index in 0..5000 {
            let (claimed, item) = registry.claim();
            assert_eq!(claimed, index);
            item.store(index, Ordering::Relaxed);
        }
        assert_eq!(used(&registry), 5000);
        let mut seen = Vec::new();
        registry.visit_used(|item| {
            seen.push(item.load(Ordering::Relaxed));
            seen.len() < 4000
        });
        assert_eq!(seen, (0..4000).collect::<Vec<_>>());
        for index in (0..5000).filter(|index| index % 1000 != 7) {
            registry.release(index);
        }
        assert_eq!(used(&registry), 5);
        assert!(registry.is_used(7) && !registry.is_used(8) && !registry.is_used(usize::MAX));
        assert!(!registry.claim_exactly(1007) && registry.claim_exactly(8) && !registry.claim_exactly(8));
        assert!(!registry.claim_exactly(9000), "it was never claimed");
        registry.release(8);
        assert_eq!((registry.claim().0, registry.claim().0), (0, 1));
        assert_eq!(used(&registry), 7);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::thread;
    use std::sync::Arc;

    /// An item that only the owner of its index touches.
    #[derive(Default)]
    struct Own(UnsafeCell<u32>);

    // SAFETY: that only the owner touches it is what loom checks.
    unsafe impl Sync for Own {}
    // SAFETY: as above.
    unsafe impl Send for Own {}

    fn touch(item: &Own) {
        // SAFETY: checked by loom.
        item.0.with_mut(|at| unsafe { *at += 1 });
    }

    #[test]
    fn loom_registry_index_has_one_owner() {
        loom::model(|| {
            let registry = Arc::new(Registry::<Own>::new());
            let threads = [0; 2].map(|_| {
                let registry = registry.clone();
                thread::spawn(move || {
                    let (index, item) = registry.claim();
                    touch(item);
                    registry.release(index);
                })
            });
            // As a sweep does: no thread has an index that is claimed here.
            if registry.claim_exactly(0) {
                touch(&registry.find(0).unwrap().0.items[0]);
                registry.release(0);
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            registry.visit_used(|_| panic!("all were given back"));
        });
    }
}
