//! The header of an entry: all that the map and the policy know of it.
#![forbid(unsafe_code)]

use crate::prim::sync::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::ptr;

/// What map and policy keep in each entry: 8 bytes at its start.
#[repr(C, align(8))]
pub(crate) struct Header {
    /// The upper half of the key's hash.
    hash: AtomicU32,
    place_low: AtomicU16,
    place_high: AtomicU8,
    /// Written by readers: a byte of its own.
    hits: AtomicU8,
}

/// In `place_high`: the entry has times.
const TIMED: u8 = 1 << 7;
/// How many bits of a link are in the place: addresses have 48 bits, and entries are aligned to 8 bytes.
const LINK_BITS: u32 = 13;
/// The places from here on are those of linked entries, and of entries of which the policy does not know.
pub(crate) const LINKED: u32 = (1 << 23) - (1 << LINK_BITS);

impl Header {
    pub(crate) fn new(hash: u64, place: u32, timed: bool) -> Self {
        Self {
            hash: AtomicU32::new((hash >> 32) as u32),
            place_low: AtomicU16::new(place as u16),
            place_high: AtomicU8::new((place >> 16) as u8 | if timed { TIMED } else { 0 }),
            hits: AtomicU8::new(0),
        }
    }

    /// The upper half of the key's hash; any number once a link was set.
    #[inline]
    pub(crate) fn hash(&self) -> u32 {
        self.hash.load(Ordering::Relaxed)
    }

    /// Keeps the address of another entry in place of hash and place, which from then on is one of [`LINKED`] and above. For the
    /// holder of the maintenance lock, once the entry is in no map; readers may still look at it.
    ///
    /// A search for the entry itself, by a thread that found it earlier, may then begin at a wrong home, and rightly finds nothing.
    #[inline]
    pub(crate) fn set_link(&self, other: *mut Header) {
        let link = other.expose_provenance() as u64 / align_of::<Header>() as u64;
        debug_assert!(link >> (32 + LINK_BITS) == 0);
        // Release pairs with the fence in `Table::for_each_in_home`: a thread that reads the link sees the unlinking.
        self.hash.store(link as u32, Ordering::Release);
        self.set_place(LINKED | (link >> 32) as u32);
    }

    /// What [`set_link`](Self::set_link) kept.
    #[inline]
    pub(crate) fn link(&self) -> *mut Header {
        debug_assert!(self.place() >= LINKED);
        let link = u64::from(self.place() & !LINKED) << 32 | u64::from(self.hash());
        ptr::with_exposed_provenance_mut((link as usize) * align_of::<Header>())
    }

    /// Whether the entry has times. The same for its whole life.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.place_high.load(Ordering::Relaxed) & TIMED != 0
    }

    /// 23 bits that belong to the holder of the maintenance lock.
    #[inline]
    pub(crate) fn place(&self) -> u32 {
        ((self.place_high.load(Ordering::Relaxed) & !TIMED) as u32) << 16
            | self.place_low.load(Ordering::Relaxed) as u32
    }

    #[inline]
    pub(crate) fn set_place(&self, place: u32) {
        let timed = self.place_high.load(Ordering::Relaxed) & TIMED;
        self.place_high.store((place >> 16) as u8 | timed, Ordering::Relaxed);
        self.place_low.store(place as u16, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn hits(&self) -> u8 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Racing hits may be counted as one.
    #[inline]
    pub(crate) fn set_hits(&self, hits: u8) {
        self.hits.store(hits, Ordering::Relaxed);
    }
}
