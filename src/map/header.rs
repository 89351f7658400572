//! The header of an entry: all that the map and the policy know of it.
//!
//! [`Header`] has 8 bytes: the upper half of the hash, a place and a hit counter. The place belongs
//! to the holder of the maintenance lock (invariant 11); readers write the hit counter only.
#![forbid(unsafe_code)]

use crate::prim::sync::{AtomicU8, AtomicU16, Ordering};

/// What the map and the policy keep in each entry: 8 bytes at its start.
#[repr(C, align(8))]
pub(crate) struct Header {
    /// The upper half of the key's hash.
    hash: u32,
    /// The lower 16 and the upper 7 bits of the place. The highest bit is `TIMED`.
    place_low: AtomicU16,
    place_high: AtomicU8,
    /// The hit counter. Readers write it, so it is a byte of its own.
    hits: AtomicU8,
}

/// The bit of `place_high` that marks an entry with an expiration.
const TIMED: u8 = 1 << 7;

impl Header {
    /// Returns the header of an entry with this key hash and place, without hits.
    pub(crate) fn new(hash: u64, place: u32, timed: bool) -> Self {
        Self {
            hash: (hash >> 32) as u32,
            place_low: AtomicU16::new(place as u16),
            place_high: AtomicU8::new((place >> 16) as u8 | if timed { TIMED } else { 0 }),
            hits: AtomicU8::new(0),
        }
    }

    /// Returns the upper half of the key's hash.
    #[inline]
    pub(crate) fn hash(&self) -> u32 {
        self.hash
    }

    /// Returns whether the entry has an expiration. Never changes during the lifetime of the entry.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.place_high.load(Ordering::Relaxed) & TIMED != 0
    }

    /// Returns the place: 23 bits that belong to the holder of the maintenance lock.
    #[inline]
    pub(crate) fn place(&self) -> u32 {
        ((self.place_high.load(Ordering::Relaxed) & !TIMED) as u32) << 16
            | self.place_low.load(Ordering::Relaxed) as u32
    }

    /// Stores the place, and keeps the mark of an entry with an expiration.
    #[inline]
    pub(crate) fn set_place(&self, place: u32) {
        let timed = self.place_high.load(Ordering::Relaxed) & TIMED;
        self.place_high.store((place >> 16) as u8 | timed, Ordering::Relaxed);
        self.place_low.store(place as u16, Ordering::Relaxed);
    }

    /// Returns the hit counter.
    #[inline]
    pub(crate) fn hits(&self) -> u8 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Stores the hit counter. Concurrent hits may be counted as one.
    #[inline]
    pub(crate) fn set_hits(&self, hits: u8) {
        self.hits.store(hits, Ordering::Relaxed);
    }
}
