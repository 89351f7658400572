//! The changes of the map that the rings carry to the policy.

use super::entry::Handle;
use crate::map::Header;

/// One change of the map, for the policy. Recorded by the thread that made the change, after it; changes of one key may
/// be applied in any order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// An entry came in, where there was none.
    Arrived(Handle),
    /// An entry was unlinked; its time was over, or not.
    Retired { old: Handle, expired: bool },
    /// `new` came in where `old` was unlinked, likewise.
    Replaced { new: Handle, old: Handle, expired: bool },
    /// An entry that the policy no longer holds, and nobody needs, can go.
    Released(Handle),
}

impl Event {
    /// As two words for a ring.
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

    /// Whether an entry leaves by it.
    #[inline]
    pub(super) fn removes_entry(self) -> bool {
        !matches!(self, Event::Arrived(_))
    }

    /// The entry that came in, if one did.
    #[inline]
    pub(super) fn inserted(self) -> Option<Handle> {
        match self {
            Event::Arrived(new) | Event::Replaced { new, .. } => Some(new),
            Event::Retired { .. } | Event::Released(_) => None,
        }
    }
}
