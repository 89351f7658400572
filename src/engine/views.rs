//! The entries as the policy and the timer wheel see them.
//!
//! [`PolicyView`] and [`TimerView`] are the only code through which policy and wheel reach entries.
//! Both keep their positions ("places") inside the entries.

use super::entry::{ExpiryRef, Handle, Shape};
use crate::policy::{Entries, MAX_PLACE, Places};
use crate::prim::sync::{AtomicU32, Ordering};
use crate::prim::wheel::Timers;

/// The entries as the policy sees them.
///
/// Its safe methods dereference handles. The core gives the policy only live entries. Before it
/// frees an entry, it removes it from the policy or finds it among the evictions.
pub(super) struct PolicyView(pub(super) Shape);

impl PolicyView {
    /// Returns whether an entry has a deadline, or may get one.
    #[inline(always)]
    pub(super) fn is_timed(&self, handle: Handle) -> bool {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.is_timed()
    }
}

impl Places for PolicyView {
    type Handle = Handle;

    #[inline]
    fn place(&self, handle: Handle) -> u32 {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.place()
    }
    #[inline]
    fn set_place(&self, handle: Handle, place: u32) {
        debug_assert!(place <= MAX_PLACE);
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.set_place(place);
    }
    #[inline]
    fn prefetch(&self, handle: Handle) {
        self.0.prefetch(handle);
    }
}

impl Entries for PolicyView {
    #[inline]
    fn hash(&self, handle: Handle) -> u32 {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.hash()
    }
    #[inline]
    fn weight(&self, handle: Handle) -> u64 {
        // SAFETY: see `PolicyView`; all entries of a cache have its shape.
        unsafe { self.0.weight(handle) }
    }
    #[inline]
    fn hits(&self, handle: Handle) -> u8 {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.hits()
    }
    #[inline]
    fn set_hits(&self, handle: Handle, hits: u8) {
        // SAFETY: see `PolicyView`.
        unsafe { handle.header() }.set_hits(hits);
    }
}

/// Mask of the place in a timer's position: `offset 9 | place 23`.
const PLACE: u32 = (1 << 23) - 1;

/// The entries as the wheel sees them: only entries with a deadline. Safe for the same reason as
/// [`PolicyView`].
pub(super) struct TimerView(pub(super) Shape);

impl TimerView {
    #[inline]
    pub(super) fn timing(&self, handle: Handle) -> Option<ExpiryRef<'_>> {
        // SAFETY: see `PolicyView`: the core has only live entries, and this reference is
        // short-lived.
        unsafe { self.0.timing(handle) }
    }

    /// Returns the timer of an entry that has deadlines.
    #[inline(always)]
    fn timer(&self, handle: Handle) -> &AtomicU32 {
        // SAFETY: as in `timing`. The core gives the wheel only entries with deadlines.
        unsafe { self.0.timer(handle) }
    }
}

impl Places for TimerView {
    type Handle = Handle;

    #[inline]
    fn place(&self, handle: Handle) -> u32 {
        self.timer(handle).load(Ordering::Relaxed) & PLACE
    }
    #[inline]
    fn set_place(&self, handle: Handle, place: u32) {
        self.set_position(handle, place, 0);
    }
    const STORES_OFFSETS: bool = true;
    #[inline(always)]
    fn position(&self, handle: Handle) -> (u32, usize) {
        let position = self.timer(handle).load(Ordering::Relaxed);
        (position & PLACE, (position >> PLACE.count_ones()) as usize)
    }
    #[inline]
    fn set_position(&self, handle: Handle, place: u32, offset: usize) {
        let position = (offset as u32) << PLACE.count_ones() | place; // less than 2^5, 2^23
        self.timer(handle).store(position, Ordering::Relaxed);
    }
    #[inline]
    fn prefetch(&self, handle: Handle) {
        self.0.prefetch(handle);
    }
}

impl Timers for TimerView {
    #[inline]
    fn deadline(&self, handle: Handle) -> u64 {
        // SAFETY: as in `timer`.
        unsafe { self.0.timing_of_timed(handle) }.scheduled()
    }
}
