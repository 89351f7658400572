//! The events that record changes of the map for the policy.
//!
//! An [`Event`] is packed into two words for the rings. Arrival and retirement of an entry may be
//! applied in either order (invariant 9).

use super::entry::Handle;
use crate::map::Header;

/// One change of the map, recorded for the policy by the thread that made the change. Events of one
/// key may be applied in any order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// An entry was inserted for an absent key.
    Arrived(Handle),
    /// An entry was unlinked; `expired` if it had expired.
    Retired { old: Handle, expired: bool },
    /// `new` was inserted in place of `old`; `expired` if `old` had expired.
    Replaced { new: Handle, old: Handle, expired: bool },
    /// An entry that neither the map nor the policy holds can be freed.
    Released(Handle),
}

impl Event {
    /// Returns the event as two words for a ring. Entries are aligned, so the low bits carry the
    /// flags.
    #[inline]
    pub(super) fn pack(self) -> [u64; 2] {
        let word = |handle: Handle| handle.0.as_ptr().expose_provenance() as u64;
        match self {
            Event::Arrived(new) => [word(new), 0],
            Event::Retired { old, expired } => [0, word(old) | u64::from(expired) << 1],
            Event::Replaced { new, old, expired } => [word(new), word(old) | u64::from(expired) << 1],
            Event::Released(old) => [0, word(old) | 1],
        }
    }

    #[inline]
    pub(super) fn unpack([new, old]: [u64; 2]) -> Self {
        let handle = |word: u64| {
            let pointer = std::ptr::with_exposed_provenance_mut::<Header>((word & !3) as usize);
            std::ptr::NonNull::new(pointer).map(Handle)
        };
        let expired = old & 2 != 0;
        match (handle(new), handle(old)) {
            (Some(new), None) => Event::Arrived(new),
            (Some(new), Some(old)) => Event::Replaced { new, old, expired },
            (None, Some(released)) if old & 1 == 1 => Event::Released(released),
            (None, Some(old)) => Event::Retired { old, expired },
            (None, None) => unreachable!("an event names an entry"),
        }
    }

    /// Returns the entry of a packed event that is an arrival, and no replacement.
    #[inline(always)]
    pub(super) fn arrival([new, old]: [u64; 2]) -> Option<Handle> {
        let pointer = std::ptr::with_exposed_provenance_mut::<Header>(new as usize);
        std::ptr::NonNull::new(pointer).filter(|_| old == 0).map(Handle)
    }

    /// Returns whether the event retires or frees an entry.
    #[inline]
    pub(super) fn removes_entry(self) -> bool {
        !matches!(self, Event::Arrived(_))
    }

    /// Returns the inserted entry, if there is one.
    #[inline]
    pub(super) fn inserted(self) -> Option<Handle> {
        match self {
            Event::Arrived(new) | Event::Replaced { new, .. } => Some(new),
            Event::Retired { .. } | Event::Released(_) => None,
        }
    }
}
