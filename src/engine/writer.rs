//! What a thread changes the cache with: its ring, and the memory of entries that it freed.

use super::entry::{Chain, Handle};
use crate::prim::ring::Ring;
use crate::prim::sync::{AtomicU64, Ordering};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

/// Former entries that are kept for new ones: so many, or of so many bytes.
const RECYCLED: usize = 64;
const RECYCLED_BYTES: usize = 16 << 10;

/// What a thread that changes the cache has besides. See [`thread_state`](super::thread_state).
#[repr(align(128))]
pub(crate) struct Writer {
    pub(crate) ring: Ring,
    /// The weight that came in since the ring was last empty.
    unapplied_weight: AtomicU64,
    /// The entries that left since the ring was last empty.
    unapplied_departures: AtomicU64,
    recycled: UnsafeCell<Chain>,
}

// SAFETY: `recycled` is only touched by the one thread whose index this is (by contract of `pop_recycled` and `recycle`), by the thread that
// claimed the index of one that ended, or by the owner of the whole cache.
unsafe impl Sync for Writer {}
// SAFETY: as above; the entries' memory belongs to no thread.
unsafe impl Send for Writer {}

/// A thread's [`Writer`] that is out of its part, owned like a box. Before it is dropped, no thread can see it any more.
///
/// It is not a box before that: readers of the rings may still hold references, to which making or moving a box is a conflicting
/// access under both borrow models.
pub(crate) struct OldWriter(pub(super) NonNull<Writer>);

// SAFETY: it owns the writer, which may be sent.
unsafe impl Send for OldWriter {}

impl OldWriter {
    /// Takes the memory that the thread kept. No thread can see the writer any more.
    pub(super) fn take_recycled(&mut self) -> Chain {
        // SAFETY: owned by this alone, and not seen by others, as the caller ensures.
        let writer = unsafe { self.0.as_mut() };
        std::mem::replace(writer.recycled.get_mut(), Chain::new())
    }
}

impl Drop for OldWriter {
    fn drop(&mut self) {
        // SAFETY: the pointer that `get_or_make` stored, and owned by this alone. The code that drops it has waited for the readers.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Writer {
    pub(super) fn new(room: usize) -> Option<Self> {
        Some(Self {
            ring: Ring::try_new(room)?,
            unapplied_weight: AtomicU64::new(0),
            unapplied_departures: AtomicU64::new(0),
            recycled: UnsafeCell::new(Chain::new()),
        })
    }

    /// Adds to the weight that came in since the ring was last empty, of which `waiting` says how full it is now.
    #[inline]
    pub(super) fn add_weight(&self, weight: u64, waiting: usize) -> u64 {
        Self::add(&self.unapplied_weight, weight, waiting)
    }

    /// Counts an entry that left, the same way.
    #[inline]
    pub(super) fn add_departure(&self, waiting: usize) -> u64 {
        Self::add(&self.unapplied_departures, 1, waiting)
    }

    #[inline]
    fn add(sum: &AtomicU64, more: u64, waiting: usize) -> u64 {
        let before = if waiting > 1 { sum.load(Ordering::Relaxed) } else { 0 };
        let now = before.saturating_add(more);
        sum.store(now, Ordering::Relaxed);
        now
    }

    /// Memory of a former entry.
    ///
    /// # Safety
    /// The caller is the thread whose part this is, and pinned.
    #[inline]
    pub(super) unsafe fn pop_recycled(&self) -> Option<Handle> {
        // SAFETY: only this thread touches it, and this reference ends here.
        unsafe { &mut *self.recycled.get() }.pop()
    }

    /// Keeps the memory of former entries, of `size` bytes each, and returns what is more than enough.
    ///
    /// # Safety
    /// As for [`pop_recycled`](Self::spare); and the entries went through `drop_contents`, and are not used elsewhere.
    #[inline]
    pub(super) unsafe fn recycle(&self, mut previous: Chain, size: usize) -> Chain {
        // SAFETY: as in `pop_recycled`.
        let recycled = unsafe { &mut *self.recycled.get() };
        let most = RECYCLED.min(RECYCLED_BYTES / size);
        if recycled.len() + previous.len() <= most {
            recycled.prepend(previous);
            return Chain::new();
        }
        while recycled.len() < most
            && let Some(one) = previous.pop()
        {
            // SAFETY: the caller gives the memory up.
            unsafe { recycled.push(one) };
        }
        previous
    }
}
