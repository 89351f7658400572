//! Ghosts: which keys left recently, and from which region, in two bytes per entry of the cache.
//!
//! Ghost lists are ARC's idea (Megiddo and Modha, FAST 2003). An ordered list of keys costs far
//! more than the age of a departure needs. So this is a four-way associative table of fingerprints
//! with coarse times.
#![forbid(unsafe_code)]

use super::memory::zeroed;
use super::prefetch::prefetch;
use std::hint::select_unpredictable as select;

/// The part of the cache that an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    /// The admission window.
    Window = 0,
    /// The main part: the entry had been admitted.
    Main = 1,
}

/// The current time of each region in ticks, by `Region as usize`.
pub(crate) type Now = [u32; 2];

/// Ticks wrap at 15 bits, so differences are taken modulo this.
const TICKS: u32 = 0x7fff;
/// The bit of a slot that stores the region.
const MAIN: u32 = 0x8000;

/// The table. A bucket's slots are ordered from newest to oldest. A slot has 16 bits of fingerprint
/// (never 0), 1 of region, 15 of time. [`Ghost::new`] allocates nothing.
#[derive(Debug)]
pub(crate) struct Ghost {
    buckets: Vec<[u32; 4]>,
}

#[inline]
fn fingerprint(hash: u32) -> u32 {
    // The high bits choose the bucket.
    (hash & 0xffff).max(1)
}

/// Returns the bucket with `slot` first, and without its empty or oldest slot by each region's own
/// clock. Branch-free, since the position of the oldest slot is unpredictable.
#[inline(always)]
fn with_first(slot: u32, [a, b, c, d]: [u32; 4], now: Now) -> [u32; 4] {
    let clock = |slot: u32| select(slot & MAIN == 0, now[0], now[1]);
    let age = |slot: u32| clock(slot).wrapping_sub(slot) & TICKS;
    let foreign = |slot: u32| (slot ^ d) & MAIN != 0;
    // The last slot of each region is its oldest. So the choice is between the last slot and the
    // last one of the other region.
    let (at_c, at_b) = (foreign(c), foreign(b));
    let other = select(at_c, c, select(at_b, b, a));
    let goes = (d != 0) & foreign(other) & (age(other) > age(d));
    let (before_b, before_c) = (goes & !at_c & !at_b, goes & !at_c);
    [slot, select(before_b, b, a), select(before_c, c, b), select(goes, d, c)]
}

/// Removes a fingerprint from its bucket. Out of line: in a busy cache most inserted keys have no
/// ghost.
#[inline(never)]
fn take_from(bucket: &mut [u32; 4], print: u32, now: Now) -> Option<(Region, u32)> {
    let index = bucket.iter().position(|slot| slot >> 16 == print)?;
    let found = bucket[index];
    // Empty slots are the last.
    bucket.copy_within(index + 1.., index);
    bucket[3] = 0;
    let region = if found & MAIN == 0 {
        Region::Window
    } else {
        Region::Main
    };
    Some((region, now[region as usize].wrapping_sub(found) & TICKS))
}

impl Ghost {
    /// Returns a table without slots, which remembers nothing.
    pub(crate) fn new() -> Self {
        Self { buckets: Vec::new() }
    }

    /// Empties the table, and resizes it for a cache of `entries`. Returns false if there is no
    /// memory; then the size stays.
    pub(crate) fn reset(&mut self, entries: u64) -> bool {
        match zeroed((entries / 2).max(192).div_ceil(4) as usize) {
            Some(buckets) => self.buckets = buckets,
            None => {
                self.buckets.fill([0; 4]);
                return false;
            }
        }
        true
    }

    /// Returns the number of bytes allocated.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        16 * self.buckets.capacity()
    }

    #[inline]
    fn bucket(&mut self, hash: u32) -> Option<&mut [u32; 4]> {
        let index = (u64::from(hash) * self.buckets.len() as u64) >> 32;
        self.buckets.get_mut(index as usize)
    }

    /// Remembers that a key leaves now, in an empty slot, or in place of the oldest by its region's
    /// clock.
    #[inline]
    pub(crate) fn put(&mut self, hash: u32, region: Region, now: Now) {
        let Some(bucket) = self.bucket(hash) else { return };
        let slot = fingerprint(hash) << 16 | (region as u32) << 15 | now[region as usize] & TICKS;
        *bucket = with_first(slot, *bucket, now);
    }

    /// Removes a key. Returns the region that it left, and how many ticks ago.
    #[inline]
    pub(crate) fn take(&mut self, hash: u32, now: Now) -> Option<(Region, u32)> {
        let print = fingerprint(hash);
        let bucket = self.bucket(hash)?;
        if bucket.iter().all(|slot| slot >> 16 != print) {
            return None;
        }
        take_from(bucket, print, now)
    }

    /// Prefetches the bucket of a key.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        let index = (u64::from(hash) * self.buckets.len() as u64) >> 32;
        prefetch(self.buckets.as_ptr().wrapping_add(index as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prim::memory::refusal::with_most;

    #[test]
    fn ghost_remembers_and_forgets() {
        let mut ghost = Ghost::new();
        ghost.put(9, Region::Main, [0, 0]);
        assert_eq!(ghost.take(9, [0, 0]), None);
        assert!(ghost.reset(100));
        assert_eq!(ghost.bytes(), 768);
        ghost.put(0x8000_0000, Region::Main, [5, 32_760]);
        assert_eq!(
            ghost.take(0x8000_0001, [9, 32_770]),
            Some((Region::Main, 10)),
            "prints 0 and 1 are one"
        );
        assert_eq!(ghost.take(0x8000_0000, [9, 32_770]), None);
        ghost.put(7, Region::Window, [5, 1]);
        assert_eq!(ghost.take(8, [5, 1]), None);
        assert_eq!(ghost.take(7, [7, 1]), Some((Region::Window, 2)));
        ghost.put(7, Region::Window, [5, 1]);
        assert!(!with_most(1 << 20, || ghost.reset(1 << 20)));
        assert_eq!((ghost.bytes(), ghost.take(7, [7, 1])), (768, None));
        assert!(ghost.reset(1 << 20));
        assert_eq!(ghost.bytes(), 2 << 20);
        assert_eq!(ghost.take(7, [7, 1]), None);
    }

    #[test]
    fn ghost_oldest_by_its_region_is_dropped() {
        let mut ghost = Ghost::new();
        assert!(ghost.reset(0));
        for (print, region, now) in [
            (1, Region::Window, [10, 90]),
            (2, Region::Main, [10, 90]), // age 20 in the end: the oldest
            (3, Region::Window, [11, 91]),
            (4, Region::Main, [12, 101]),
            (5, Region::Window, [12, 110]),
        ] {
            ghost.put(print, region, now);
        }
        let now = [12, 110];
        assert_eq!(ghost.take(2, now), None);
        assert_eq!(ghost.take(1, now), Some((Region::Window, 2)));
        assert_eq!(ghost.take(3, now), Some((Region::Window, 1)));
        assert_eq!(ghost.take(4, now), Some((Region::Main, 9)));
        assert_eq!(ghost.take(4, now), None);
        assert_eq!(ghost.take(5, now), Some((Region::Window, 0)));
    }
}
