//! The bit layouts of the words of a bucket: slot words, the tags word and the control word.
//!
//! Pure functions of words; the protocol that changes them is in `table`. Also the home bucket of a
//! hash ([`home`]).
#![forbid(unsafe_code)]

/// Number of slots in a bucket of 64 bytes.
pub(crate) const SLOTS: usize = 6;
/// Largest distance of a key behind its home bucket, in buckets.
pub(crate) const MAX_DISTANCE: usize = 31;

/// Slot words: `fingerprint 11 | distance 5 | entry pointer 45 | state 3`; 0 when empty.
///
/// An insertion takes a slot from empty over `PENDING` or `LOADING` to `VISIBLE`. A removal takes
/// it from `VISIBLE` to empty, a move from `VISIBLE` to `FROZEN`. An invalidation takes it from
/// `LOADING` to `KILLED`, never from `PENDING` (invariant 5).
pub(crate) mod slot {
    /// Present: readers may return the entry.
    pub(crate) const VISIBLE: u64 = 1;
    /// Claimed by an insertion that is not visible yet.
    pub(crate) const PENDING: u64 = 2;
    /// Claimed by an insertion that an invalidation killed; its owner empties the slot.
    pub(crate) const KILLED: u64 = 3;
    /// Present, in a home bucket that is being moved to the next table, or has been moved.
    pub(crate) const FROZEN: u64 = 4;
    /// Claimed by the insertion of a load: `PENDING`, except that an invalidation may kill it.
    pub(crate) const LOADING: u64 = 6;
    /// Mask of the state.
    pub(crate) const STATE: u64 = 7;
    /// Mask of the fingerprint and the distance.
    pub(crate) const HIGH: u64 = 0xffff << 48;

    /// Mask of the entry pointer.
    pub(crate) const POINTER: u64 = !(HIGH | STATE);

    /// Returns the fingerprint and the distance of a key with this hash, stored `distance` buckets
    /// behind its home bucket.
    #[inline]
    pub(crate) fn high(hash: u64, distance: usize) -> u64 {
        ((hash >> 8) & 0x7ff) << 53 | (distance as u64) << 48
    }

    /// Returns the bits of the hash that are the fingerprint of `word`.
    #[inline]
    pub(crate) fn fingerprint(word: u64) -> u64 {
        (word >> 53) << 8
    }

    /// Returns the word, except for the pointer, of a visible key with this hash in its home
    /// bucket.
    #[inline]
    pub(crate) fn visible(hash: u64) -> u64 {
        high(hash, 0) | VISIBLE
    }

    /// Returns the distance from the entry's home bucket to the slot's bucket.
    #[inline]
    pub(crate) fn distance(word: u64) -> usize {
        (word >> 48 & 31) as usize
    }

    /// Returns whether an insertion has claimed the slot and may still become visible.
    #[inline]
    pub(crate) fn is_pending(word: u64) -> bool {
        word & 3 == PENDING // or LOADING
    }

    /// Returns `word` with the state `VISIBLE`.
    #[inline]
    pub(crate) fn published(word: u64) -> u64 {
        word & !STATE | VISIBLE
    }

    /// Returns whether [`is_present`] holds and the entry lies `distance` buckets behind its home
    /// bucket.
    #[inline]
    pub(crate) fn is_present_at(word: u64, distance: usize) -> bool {
        let rest = word & (31 << 48 | STATE) ^ (distance as u64) << 48;
        (rest == VISIBLE) | (rest == FROZEN)
    }

    /// Returns whether the entry is in the map, as far as this table is concerned.
    #[inline]
    pub(crate) fn is_present(word: u64) -> bool {
        matches!(word & STATE, VISIBLE | FROZEN)
    }
}

/// The tags word: a byte per slot, 0 if the slot is free.
///
/// It is the allocation map of the slots, and a reader compares all of them in one step.
pub(crate) mod tags {
    const LOW: u64 = 0x0000_0101_0101_0101;
    const TOP: u64 = 0x0000_8080_8080_8080;

    /// Returns the 7 bits of the hash that a tag is made of: the bits that matter least for the
    /// home bucket.
    #[inline]
    fn bits(hash: u64) -> u64 {
        hash >> 32 & 0x7f
    }

    /// Returns a key's tag, which is never 0. It is complemented, which makes [`matching`] shorter.
    #[inline]
    pub(crate) fn of(hash: u64) -> u64 {
        bits(hash) ^ 0xff
    }

    /// Returns the top bit of each byte that is the tag of this hash. The lowest bit returned is
    /// certain; bits above it may be false.
    #[inline]
    pub(crate) fn matching(tags: u64, hash: u64) -> u64 {
        // A tag and its own hash make 0xff; a free slot and a hash make less than 0x80.
        let joined = tags ^ bits(hash).wrapping_mul(LOW);
        // A byte of 0xff overflows. Its carry may falsify the bytes above, never the one itself.
        joined & !joined.wrapping_add(LOW) & TOP
    }

    /// Returns a free slot, if any.
    #[inline]
    pub(crate) fn free(tags: u64) -> Option<usize> {
        let free = !tags & TOP; // every tag has its top bit set
        (free != 0).then(|| slot(free))
    }

    /// Returns the slot of the lowest bit of a match.
    #[inline]
    pub(crate) fn slot(matching: u64) -> usize {
        (matching.trailing_zeros() / 8) as usize
    }
}

/// Control words of home buckets: `version 48 | 0 | MOVED | FROZEN | probe limit 5 | last insertion
/// 8`; 0 at first.
///
/// The last insertion is `distance 5 | slot + 1 3`. Every insertion of an absent key commits by one
/// compare-and-swap of its home bucket's control word, which makes keys unique. It fails if another
/// insertion of that home bucket committed since the scan (invariant 2). A version cannot repeat
/// during one operation: the thread is pinned, so none of the 2^48 entries in between would be
/// freed.
pub(crate) mod control {
    /// Mask of the last insertion's slot. 0 if the last insertion is known to be visible.
    pub(crate) const LAST: u64 = 7;
    /// The home bucket is being moved: no key of it may be inserted, replaced or removed in this
    /// table (invariant 7).
    pub(crate) const FROZEN: u64 = 1 << 13;
    /// All keys of the home bucket are in the next table (invariant 6).
    pub(crate) const MOVED: u64 = 1 << 14;
    const VERSION: u64 = 1 << 16;

    /// Returns the `(distance, slot)` of the last insertion, if the word names one.
    #[inline]
    pub(crate) fn last(word: u64) -> Option<(usize, usize)> {
        let slot = (word & LAST).checked_sub(1)?;
        Some(((word >> 3 & 31) as usize, slot as usize))
    }

    /// Returns the `(distance, slot)` of the last insertion if the word names one, else some valid
    /// place.
    #[inline]
    pub(crate) fn place_of_last(word: u64) -> (usize, usize) {
        ((word >> 3 & 31) as usize, (word & LAST).saturating_sub(1) as usize)
    }

    /// Returns whether the word names the last insertion, and names it at `distance` and `slot`.
    #[inline]
    pub(crate) fn is_last(word: u64, distance: usize, slot: usize) -> bool {
        word & 0xff == (distance as u64) << 3 | (slot as u64 + 1)
    }

    /// Returns the probe limit: no key of this home bucket lies further behind it.
    #[inline]
    pub(crate) fn probe_limit(word: u64) -> usize {
        (word >> 8 & 31) as usize
    }

    /// Returns true for one version in eight.
    #[inline]
    pub(crate) fn is_eighth(word: u64) -> bool {
        word & (7 * VERSION) == 0
    }

    /// Returns the word after an insertion at `(distance, slot)`: the next version, with this probe
    /// limit.
    #[inline]
    pub(crate) fn inserted(word: u64, distance: usize, slot: usize, probe_limit: usize) -> u64 {
        (word & !(VERSION - 1)).wrapping_add(VERSION)
            | (probe_limit as u64) << 8
            | (distance as u64) << 3
            | (slot as u64 + 1)
    }
}

/// Returns the home bucket, of `buckets`, for the upper half of a hash.
///
/// The multiplication of Lemire, "Fast random integer generation in an interval" (2019). It is
/// monotone in the hash, so the keys of a home bucket are a range of hashes in any table.
#[inline]
pub(crate) fn home(hash: u32, buckets: usize) -> usize {
    ((hash as u64 * buckets as u64) >> 32) as usize
}

/// Returns the first hash whose home bucket is not before `home`: the inverse of [`home`]. It is
/// 2^32 or more past the last home bucket.
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
