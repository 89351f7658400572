//! The writer of a thread: its ring of events, and the recycled memory of entries that it freed.
//!
//! See [`thread_state`](super::thread_state) for its lifetime.

use super::entry::{Chain, Handle};
use crate::prim::ring::Ring;
use crate::prim::sync::{AtomicU64, Ordering};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

/// The most recycled entries that a thread keeps, in entries and in bytes.
const RECYCLED: usize = 64;
const RECYCLED_BYTES: usize = 16 << 10;

/// What a thread needs to change the cache. See [`thread_state`](super::thread_state).
#[repr(align(128))]
pub(crate) struct Writer {
    pub(crate) ring: Ring,
    /// The weight of entries inserted since the ring was last empty.
    unapplied_weight: AtomicU64,
    /// The number of entries unlinked since the ring was last empty.
    unapplied_departures: AtomicU64,
    recycled: UnsafeCell<Chain>,
}

// SAFETY: `recycled` is only touched by the one thread with this index (by the contracts of
// `pop_recycled` and `recycle`), by the thread that claimed the index of an ended one, or by the
// owner of the whole cache.
unsafe impl Sync for Writer {}
// SAFETY: as above; the memory of entries belongs to no thread.
unsafe impl Send for Writer {}

/// A [`Writer`] that was taken out of its thread's state, owned like a box. No thread can see it
/// any more when it is dropped.
///
/// It is not a `Box` before that: readers of the rings may still hold references, and creating or
/// moving a box is a conflicting access under both borrow models.
pub(crate) struct OldWriter(pub(super) NonNull<Writer>);

// SAFETY: it owns the writer, which may be sent.
unsafe impl Send for OldWriter {}

impl OldWriter {
    /// Takes the recycled memory. No other thread can see the writer any more.
    pub(super) fn take_recycled(&mut self) -> Chain {
        // SAFETY: owned by `self` alone, and no other thread sees it, as the caller ensures.
        let writer = unsafe { self.0.as_mut() };
        std::mem::replace(writer.recycled.get_mut(), Chain::new())
    }
}

impl Drop for OldWriter {
    fn drop(&mut self) {
        // SAFETY: the pointer that `get_or_make` stored, owned by `self` alone. The code that drops
        // it has waited for the readers.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Writer {
    pub(super) fn new(ring_capacity: usize) -> Option<Self> {
        Some(Self {
            ring: Ring::try_new(ring_capacity)?,
            unapplied_weight: AtomicU64::new(0),
            unapplied_departures: AtomicU64::new(0),
            recycled: UnsafeCell::new(Chain::new()),
        })
    }

    /// Adds to the unapplied weight and returns the sum, which restarts if the ring was empty.
    /// `waiting` is the ring's length, the new event included.
    #[inline]
    pub(super) fn add_weight(&self, weight: u64, waiting: usize) -> u64 {
        Self::add(&self.unapplied_weight, weight, waiting)
    }

    /// Counts an unlinked entry, and returns the number since the ring was last empty.
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

    /// Returns the memory of a previous entry.
    ///
    /// # Safety
    ///
    /// The caller is the thread with this index, and pinned.
    #[inline]
    pub(super) unsafe fn pop_recycled(&self) -> Option<Handle> {
        // SAFETY: only this thread touches it, and this reference ends here.
        unsafe { &mut *self.recycled.get() }.pop()
    }

    /// Keeps the memory of `previous` entries of `size` bytes each. Returns those beyond the limit.
    ///
    /// # Safety
    ///
    /// As for [`pop_recycled`](Self::pop_recycled); and the entries went through `drop_contents`
    /// and are not used elsewhere.
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
