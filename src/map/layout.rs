//! The bit layouts of the map's words: slots, tags and control words.
#![forbid(unsafe_code)]

/// Slots in a bucket of 64 bytes.
pub(crate) const SLOTS: usize = 6;
/// A key may lie up to this many buckets behind its home.
pub(crate) const MAX_DISTANCE: usize = 31;

/// A slot word: `fingerprint 11 | distance 5 | entry pointer 45 | state 3`; 0 when empty.
pub(crate) mod slot {
    /// Present: readers may return it.
    pub(crate) const VISIBLE: u64 = 1;
    /// Claimed by an insertion that has not taken effect.
    pub(crate) const PENDING: u64 = 2;
    /// A pending insertion that an invalidation killed; its owner clears it.
    pub(crate) const KILLED: u64 = 3;
    /// Present, but about to move (or moved) to the next table.
    pub(crate) const FROZEN: u64 = 4;
    /// As PENDING, by a load: an invalidation may kill it.
    pub(crate) const LOADING: u64 = 6;
    /// The state's bits.
    pub(crate) const STATE: u64 = 7;
    /// The label and the distance.
    pub(crate) const HIGH: u64 = 0xffff << 48;

    /// The pointer's bits.
    pub(crate) const POINTER: u64 = !(HIGH | STATE);

    /// The label and distance under which a key with this hash is stored `distance` buckets behind its home.
    #[inline]
    pub(crate) fn high(hash: u64, distance: usize) -> u64 {
        ((hash >> 8) & 0x7ff) << 53 | (distance as u64) << 48
    }

    /// The part of the hash that the label is.
    #[inline]
    pub(crate) fn fingerprint(word: u64) -> u64 {
        (word >> 53) << 8
    }

    /// The word, but for the pointer, of a visible key with this hash in its home.
    #[inline]
    pub(crate) fn visible(hash: u64) -> u64 {
        high(hash, 0) | VISIBLE
    }

    /// The distance from the entry's home bucket to the slot's.
    #[inline]
    pub(crate) fn distance(word: u64) -> usize {
        (word >> 48 & 31) as usize
    }

    /// Whether an insertion has claimed the slot and may yet take effect.
    #[inline]
    pub(crate) fn is_pending(word: u64) -> bool {
        word & 3 == PENDING // or LOADING
    }

    /// The word once the entry that it holds is visible.
    #[inline]
    pub(crate) fn shown(word: u64) -> u64 {
        word & !STATE | VISIBLE
    }

    /// Whether [`is_present`] holds and the entry lies `distance` buckets behind its home.
    #[inline]
    pub(crate) fn is_present_at(word: u64, distance: usize) -> bool {
        let rest = word & (31 << 48 | STATE) ^ (distance as u64) << 48;
        (rest == VISIBLE) | (rest == FROZEN)
    }

    /// Whether the entry is in the map as far as this table is concerned.
    #[inline]
    pub(crate) fn is_present(word: u64) -> bool {
        matches!(word & STATE, VISIBLE | FROZEN)
    }
}

/// The tags word: a byte per slot, 0 if the slot is free. It is the allocation map of the slots and lets a reader
/// match all of them at once.
pub(crate) mod tags {
    const LOW: u64 = 0x0000_0101_0101_0101;
    const TOP: u64 = 0x0000_8080_8080_8080;

    /// What the tag is made of: the part of the hash that matters least for the home.
    #[inline]
    fn bits(hash: u64) -> u64 {
        hash >> 32 & 0x7f
    }

    /// A key's tag; never 0. Complemented, which makes [`matching`] shorter.
    #[inline]
    pub(crate) fn of(hash: u64) -> u64 {
        bits(hash) ^ 0xff
    }

    /// The top bit of each byte that is the tag of this hash; above the lowest of them, perhaps of others.
    #[inline]
    pub(crate) fn matching(tags: u64, hash: u64) -> u64 {
        // A tag and its hash make 0xff; a free slot and a hash, less than 0x80.
        let joined = tags ^ bits(hash).wrapping_mul(LOW);
        // Such bytes overflow; the next ones may suffer from the carry.
        joined & !joined.wrapping_add(LOW) & TOP
    }

    /// A slot that is free, if any.
    #[inline]
    pub(crate) fn free(tags: u64) -> Option<usize> {
        let free = !tags & TOP; // every tag has its top bit set
        (free != 0).then(|| slot(free))
    }

    /// The slot of the lowest bit of a match.
    #[inline]
    pub(crate) fn slot(matching: u64) -> usize {
        (matching.trailing_zeros() / 8) as usize
    }
}

/// A home bucket's control word: `version 48 | 0 | MOVED | FROZEN | probe_limit 5 | last insertion's distance 5, slot + 1 3`;
/// 0 at first.
///
/// Every insertion of a key that was absent goes through one compare-and-swap of its home's control word, which is what
/// makes keys unique: it fails if another key with this home came in since the bucket was scanned. A version cannot come
/// round during one operation: 2^48 insertions happen while its thread is pinned, so none of them would be freed.
pub(crate) mod control {
    /// The slot's bits, which are 0 when the last insertion is known to be visible.
    pub(crate) const LAST: u64 = 7;
    /// No key with this home may come, go or change in this table any more: it is being moved.
    pub(crate) const FROZEN: u64 = 1 << 13;
    /// All keys with this home are in the next table.
    pub(crate) const MOVED: u64 = 1 << 14;
    const VERSION: u64 = 1 << 16;

    /// Where the last insertion was put: `(distance, slot)`.
    #[inline]
    pub(crate) fn last(word: u64) -> Option<(usize, usize)> {
        let slot = (word & LAST).checked_sub(1)?;
        Some(((word >> 3 & 31) as usize, slot as usize))
    }

    /// Where the last insertion was put, if the word names one; else some valid place.
    #[inline]
    pub(crate) fn place_of_last(word: u64) -> (usize, usize) {
        ((word >> 3 & 31) as usize, (word & LAST).saturating_sub(1) as usize)
    }

    /// Whether the word names the last insertion, and it was put at `distance` and `slot`.
    #[inline]
    pub(crate) fn is_last(word: u64, distance: usize, slot: usize) -> bool {
        word & 0xff == (distance as u64) << 3 | (slot as u64 + 1)
    }

    /// No key with this home lies further than this behind it.
    #[inline]
    pub(crate) fn probe_limit(word: u64) -> usize {
        (word >> 8 & 31) as usize
    }

    /// True for one version in eight.
    #[inline]
    pub(crate) fn is_eighth(word: u64) -> bool {
        word & (7 * VERSION) == 0
    }

    /// The word after an insertion at `(distance, slot)`.
    #[inline]
    pub(crate) fn inserted(word: u64, distance: usize, slot: usize, probe_limit: usize) -> u64 {
        (word & !(VERSION - 1)).wrapping_add(VERSION)
            | (probe_limit as u64) << 8
            | (distance as u64) << 3
            | (slot as u64 + 1)
    }
}

/// The home bucket, of `buckets`, for the upper half of a hash (Lemire, "Fast random integer generation in an interval",
/// 2019). Monotone in the hash, so a home's keys are a range of hashes, in any table.
#[inline]
pub(crate) fn home(hash: u32, buckets: usize) -> usize {
    ((hash as u64 * buckets as u64) >> 32) as usize
}

/// The first hash whose home is not before `home`: the inverse of [`home`]. 2^32 or more past the last.
pub(crate) fn first_hash(home: usize, buckets: usize) -> u64 {
    (((home as u128) << 32).div_ceil(buckets as u128)) as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[cfg_attr(miri, ignore = "too long for an interpreter")]
    #[test]
    fn matching_finds_the_equal_tags() {
        for a in 0..=255u64 {
            for b in 0x80..=255u64 {
                let word = a << 8 | 0x91 << 24 | b << 40;
                let (a, b) = (if a < 0x80 { 0 } else { a }, b);
                let word = word & !0xff00 | a << 8;
                for tag in [a | 0x80, b, 0x91, 0x80] {
                    let equal = [0, a, 0, 0x91, 0, b].into_iter().enumerate();
                    let want = equal.fold(0, |want, (i, byte)| want | u64::from(byte == tag) << (8 * i + 7));
                    let found = tags::matching(word, (tag ^ 0xff) << 32);
                    assert_eq!(tags::of((tag ^ 0xff) << 32), tag);
                    assert_eq!(found & want, want);
                    assert_eq!(found.trailing_zeros(), want.trailing_zeros(), "the lowest is certain");
                }
            }
        }
        assert_eq!(tags::free(0x0000_8080_8080_8080), None);
        assert_eq!(tags::free(0x0000_8080_0080_8080), Some(3));
    }

    #[test]
    fn homes_are_ranges_of_hashes() {
        for buckets in [1, 2, 3, 26, 1000, 12345] {
            for home in 0..buckets {
                let first = first_hash(home, buckets);
                assert_eq!(super::home(first as u32, buckets), home);
                if home > 0 {
                    assert_eq!(super::home(first as u32 - 1, buckets), home - 1);
                }
            }
            assert!(first_hash(buckets, buckets) >= 1 << 32);
        }
    }
}
