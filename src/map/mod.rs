//! The lock-free hash table: it knows hashes, matchers and entry pointers; no weights, deadlines or
//! causes.
//!
//! [`Map`] is an open-addressing table of buckets of one cache line. A key lies in its home bucket
//! or up to 31 buckets behind it. Calls are searches ([`Map::get`] and its variants), changes
//! ([`Map::insert`], [`Map::remove`], [`Map::replace_exact`]), walks, and the steps of a resize
//! (`resize`).
//!
//! # Files
//!
//! `layout` has the bits of the words, `memory` the buckets, `table` the steps that change one
//! table, `probe` its searches, `migrate` and `resize` growth.
//!
//! # Invariants
//!
//! Numbers are those of ARCHITECTURE.md, section 4.
//! - 1: a key is visible in at most one slot. 2 and 3 ensure it: an insertion commits by a
//!   compare-and-swap of its home bucket's control word, and the last insertion is visible before
//!   the next one scans.
//! - 4: a slot is not emptied while its home bucket's control word names it, so another thread can
//!   finish an insertion.
//! - 5: an invalidation kills insertions of loads, never others.
//! - 6 and 7: until a reader sees MOVED, the old table is the truth; in a FROZEN home bucket no
//!   insertion commits, and a FROZEN slot never changes.
//!
//! # Contract
//!
//! The owner of the map (the engine) pins the calling thread around every call. It keeps every
//! entry that was given to [`Map::insert`] allocated until no guard can reference it any more
//! (`reclaim`, invariant 15).
//!
//! # Sources
//!
//! The home bucket is Lemire's multiplication (2019). The insertion started from Purcell and
//! Harris, "Non-blocking hashtables with open addressing" (2005); one compare-and-swap of the
//! control word replaces their helping by position.

mod header;
mod layout;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
mod migrate;
mod owned_table;
mod probe;
mod resize;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::prim::prefetch::prefetch;
use crate::prim::sync::{AtomicPtr, Ordering};
use crate::reclaim::Guard;
use layout::{SLOTS, control, slot, tags};
use memory::Bucket;
use owned_table::Discarded;
use std::ptr::{self, NonNull};
use table::{Step, Table, pointer};

pub(crate) use header::Header;
pub(crate) use owned_table::{NoMemory, OwnedTable};
pub(crate) use table::{Inserted, Mode, UNCONDITIONAL};

/// A concurrent hash table of entry pointers. See the [module's documentation](self).
pub(crate) struct Map {
    /// The table where searches begin. Replaced by its successor once all home buckets have moved.
    current: AtomicPtr<Table>,
    /// Tables to be freed in parts.
    discarded: Discarded,
}

/// Part of the slots that is filled when a table is sized for a number of entries.
const LOAD_FACTOR: f64 = 0.6;

impl Map {
    /// Returns a map with room for about `entries`, and always for a few more.
    pub(crate) fn for_entries(entries: usize) -> Result<Self, NoMemory> {
        Self::with_buckets(Self::buckets_for(entries))
    }

    /// Returns the number of buckets of a table for `entries`.
    pub(crate) fn buckets_for(entries: usize) -> usize {
        ((entries as f64 / (LOAD_FACTOR * SLOTS as f64)).ceil() as usize).max(2)
    }

    fn with_buckets(buckets: usize) -> Result<Self, NoMemory> {
        Ok(Self {
            current: AtomicPtr::new(owned_table::allocate(buckets)?),
            discarded: Discarded::new(),
        })
    }

    #[inline]
    fn table<'g>(&self, _guard: &'g Guard) -> &'g Table {
        // SAFETY: tables are retired through `reclaim` after `current` has moved on (Acquire pairs
        // with the Release in `resize_step`), so this one lives as long as the guard.
        unsafe { &*self.current.load(Ordering::Acquire) }
    }

    /// Returns the table that follows `table`, in which a home bucket was seen as MOVED.
    fn next<'g>(&self, table: &Table, _guard: &'g Guard) -> &'g Table {
        let next = table.next.load(Ordering::Acquire);
        assert!(!next.is_null(), "home buckets move to the next table");
        // SAFETY: as in `table`.
        unsafe { &*next }
    }

    /// [`next`](Self::next), for calls that cannot follow a resize whose mover panicked. Panics if
    /// it did.
    #[inline(never)]
    fn next_unbroken<'g>(&self, table: &Table, guard: &'g Guard) -> &'g Table {
        assert!(
            !table.is_broken(),
            "hotset: growing this cache's table panicked earlier, which is a bug: the cache can be read, but not changed"
        );
        self.next(table, guard)
    }

    /// Returns the entry with this hash that `equal` accepts. Lock-free; at most two cache misses
    /// unless its home bucket overflowed.
    #[inline]
    pub(crate) fn get(
        &self,
        hash: u64,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        guard: &Guard,
    ) -> Option<NonNull<Header>> {
        self.get_fast(hash, &mut equal, guard)
            .unwrap_or_else(|| self.get_slow(hash, equal, guard))
    }

    /// Returns the result of [`get`](Self::get) if one probe of the home bucket decides it, else
    /// `None`.
    #[inline(always)]
    pub(crate) fn get_fast(
        &self,
        hash: u64,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        guard: &Guard,
    ) -> Option<Option<NonNull<Header>>> {
        match self.probe_home(hash, guard) {
            Ok(found) => equal(found?).then_some(found),
            // No tag matched, and the tags were read first: the key is absent unless it lies behind
            // its home bucket, or that is moving.
            Err(bucket) => {
                const MORE: u64 = control::FROZEN | control::MOVED | 31 << 8;
                (bucket.control.load(Ordering::Acquire) & MORE == 0).then_some(None)
            }
        }
    }

    /// Returns an entry that very likely has this hash, if one probe of the home bucket finds one.
    /// Keys are not compared.
    #[inline(always)]
    pub(crate) fn probe_unverified(&self, hash: u64, guard: &Guard) -> Option<NonNull<Header>> {
        self.probe_home(hash, guard).ok().flatten()
    }

    /// Probes the home bucket once. Returns an entry that very likely has the hash, or `None` if
    /// the probe is inconclusive, or as an error the home bucket, which has no matching tag.
    #[inline(always)]
    fn probe_home<'g>(&self, hash: u64, guard: &'g Guard) -> Result<Option<NonNull<Header>>, &'g Bucket> {
        let table = self.table(guard);
        let home = table.home((hash >> 32) as u32);
        // SAFETY: `home` maps into the table's buckets.
        let bucket = unsafe { table.buckets.get_unchecked(home) };
        let matching = tags::matching(bucket.tags.load(Ordering::Acquire), hash);
        if matching == 0 {
            return Err(bucket);
        }
        // SAFETY: matches lie in the six lower bytes of the tags.
        let at = unsafe { bucket.slots.get_unchecked(tags::slot(matching)) };
        // A VISIBLE word is authoritative: slots are frozen before they move (invariant 6). Acquire
        // pairs with the Release that made the entry visible.
        let rest = at.load(Ordering::Acquire) ^ slot::visible(hash);
        Ok((rest & !slot::POINTER == 0).then(|| table::exact_pointer(rest)))
    }

    /// Returns the result of [`get`](Self::get) if [`get_fast`](Self::get_fast) does not decide it.
    pub(crate) fn get_slow(
        &self,
        hash: u64,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        guard: &Guard,
    ) -> Option<NonNull<Header>> {
        let mut table = self.table(guard);
        loop {
            let home = table.home((hash >> 32) as u32);
            // Invariant 6: until MOVED is seen, what this table holds at that time is the truth.
            let control_word = table.load_control(home);
            if control_word & control::MOVED != 0 {
                table = self.next(table, guard);
                continue;
            }
            return table
                .scan(home, control_word, hash, &mut equal)
                .map(|found| pointer(found.word));
        }
    }

    /// Prefetches the home bucket of a hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64, guard: &Guard) {
        let table = self.table(guard);
        prefetch(&raw const table.buckets[table.home((hash >> 32) as u32)]);
    }

    /// Finds for each hash an entry that very likely has it, and prefetches the first `size` bytes
    /// of the entry, up to 64.
    ///
    /// `found` stays `None` where there is no such entry, or finding it takes more than a probe of
    /// each bucket. Works phase by phase, so that the cache misses of all hashes overlap: home
    /// buckets; entries of candidates, or the buckets behind; entries found there.
    pub(crate) fn probe_batch(
        &self,
        hashes: &[u64],
        found: &mut [Option<NonNull<Header>>],
        size: usize,
        guard: &Guard,
    ) {
        let table = self.table(guard);
        let home = |hash: u64| table.home((hash >> 32) as u32);
        let prefetch_entry = |entry: NonNull<Header>| {
            // An entry may lie across two cache lines.
            prefetch(entry.as_ptr());
            prefetch(entry.as_ptr().wrapping_byte_add(size.min(64) - 1));
            entry
        };
        hashes.iter().for_each(|hash| self.prefetch(*hash, guard));
        for (hash, found) in hashes.iter().zip(&mut *found) {
            let home = home(*hash);
            *found = table.probe_bucket(home, 0, *hash).map(prefetch_entry);
            if found.is_none() {
                for distance in 1..=table.probe_limit(home) {
                    prefetch(&raw const table.buckets[table.bucket_at(home, distance)]);
                }
            }
        }
        for (hash, found) in hashes.iter().zip(found) {
            if found.is_none() {
                let home = home(*hash);
                *found = (1..=table.probe_limit(home))
                    .find_map(|distance| table.probe_bucket(home, distance, *hash))
                    .map(prefetch_entry);
            }
        }
    }

    /// Runs `step` in the table that holds the hash's home bucket: the current one, or the next one
    /// if it has moved.
    #[inline(always)]
    fn in_live_table<T>(&self, guard: &Guard, mut step: impl FnMut(&Table) -> Step<T>) -> T {
        let mut table = self.table(guard);
        loop {
            match step(table) {
                Step::Done(done) => return done,
                Step::Moved => table = self.next_unbroken(table, guard),
            }
        }
    }

    /// Inserts `entry`, whose hash is `hash` and whose key is the one that `equal` accepts.
    /// Lock-free, except for a home bucket that is being moved.
    ///
    /// `invalidated` is called once the claim is visible to invalidations; if it returns true the
    /// insertion is abandoned. See `Table::insert`.
    #[inline]
    pub(crate) fn insert(
        &self,
        hash: u64,
        entry: NonNull<Header>,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        mode: Mode,
        mut invalidated: Option<impl FnMut() -> bool>,
        guard: &Guard,
    ) -> Inserted {
        self.in_live_table(guard, |table| {
            table.insert(hash, entry, &mut equal, mode, &mut invalidated)
        })
    }

    /// Removes and returns the entry that `equal` accepts, or `None` if there is none or `accept`
    /// declines it.
    ///
    /// With `kill`, also kills pending insertions of loads of the key.
    #[inline]
    pub(crate) fn remove(
        &self,
        hash: u64,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        mut accept: impl FnMut(NonNull<Header>) -> bool,
        kill: bool,
        guard: &Guard,
    ) -> Option<NonNull<Header>> {
        self.in_live_table(guard, |table| table.remove(hash, &mut equal, &mut accept, kill))
    }

    /// Removes this very entry. Returns false if another thread removed or replaced it. Runs no
    /// user code.
    #[inline]
    pub(crate) fn remove_exact(&self, entry: NonNull<Header>, guard: &Guard) -> bool {
        // SAFETY: the caller keeps the entry alive (module contract).
        let hash = unsafe { entry.as_ref() }.hash();
        self.in_live_table(guard, |table| table.change_exact(hash, entry, None))
    }

    /// Replaces this very entry by `new`, which has an equal key. Returns false if it is no longer
    /// in the map. Runs no user code.
    pub(crate) fn replace_exact(&self, old: NonNull<Header>, new: NonNull<Header>, guard: &Guard) -> bool {
        // SAFETY: the caller keeps the entry alive (module contract).
        let hash = unsafe { old.as_ref() }.hash();
        self.in_live_table(guard, |table| table.change_exact(hash, old, Some(new)))
    }

    /// Returns an entry whose removal would make room for this hash, preferably one that `prefer`
    /// accepts.
    pub(crate) fn candidate(
        &self,
        hash: u64,
        prefer: impl Fn(NonNull<Header>) -> bool,
        guard: &Guard,
    ) -> Option<NonNull<Header>> {
        self.in_live_table(guard, |table| {
            // Emptied slots of a home bucket that has moved make no room: the entry is inserted
            // into the next table.
            if table.load_control(table.home((hash >> 32) as u32)) & control::MOVED != 0 {
                return Step::Moved;
            }
            Step::Done(table.candidate(hash, &prefer))
        })
    }

    /// Visits the entries with the smallest hashes at or above `from`: those of one home bucket.
    /// Returns where to continue (2^32 or more at the end).
    ///
    /// A walk from 0 visits an entry that stays in the map exactly once, whatever other threads do.
    pub(crate) fn walk(&self, from: u64, mut visit: impl FnMut(NonNull<Header>), guard: &Guard) -> u64 {
        // The smallest range of the home buckets followed: one of the next table may begin in a
        // range that has been moved, and end in one that has not.
        let mut end = u64::MAX;
        self.in_live_table(guard, |table| {
            let home = table.home(from as u32);
            end = end.min(layout::first_hash(home + 1, table.buckets.len()));
            let control_word = table.load_control(home);
            if control_word & control::MOVED != 0 {
                return Step::Moved;
            }
            table.for_each_in_home(home, control_word, |word, hash| {
                if (from..end).contains(&u64::from(hash)) {
                    visit(pointer(word));
                }
            });
            Step::Done(end)
        })
    }

    /// Returns the entry at `address` if it is in the map with this upper half of a hash, else an
    /// entry with that hash: most likely the one that replaced it. Runs no user code.
    #[cfg(any(feature = "snapshot", test))]
    pub(crate) fn find_address(&self, hash: u32, address: usize, guard: &Guard) -> Option<NonNull<Header>> {
        self.in_live_table(guard, |table| {
            let home = table.home(hash);
            let control_word = table.load_control(home);
            if control_word & control::MOVED != 0 {
                return Step::Moved;
            }
            let first = |is: &dyn Fn(NonNull<Header>, u32) -> bool| {
                let mut found = None;
                table.for_each_in_home(home, control_word, |word, hash| {
                    found = found.or(Some(pointer(word)).filter(|entry| is(*entry, hash)))
                });
                found
            };
            // The memory of an entry that left may hold another key of the same home bucket by now,
            // so the hash is compared too.
            let there = first(&|entry, of| entry.addr().get() == address && of == hash);
            Step::Done(there.or_else(|| first(&|_, of| of == hash)))
        })
    }

    /// Returns the number of buckets.
    pub(crate) fn buckets(&self, guard: &Guard) -> usize {
        self.table(guard).buckets.len()
    }

    /// Returns the number of slots.
    pub(crate) fn slots(&self, guard: &Guard) -> usize {
        self.buckets(guard) * SLOTS
    }

    /// Returns an id of the current table, unique among the tables of this map while the guard
    /// lives.
    pub(crate) fn table_id(&self, guard: &Guard) -> usize {
        ptr::from_ref(self.table(guard)).addr()
    }

    /// Returns whether `entries` exceed seven tenths of the slots, above which the table grows.
    pub(crate) fn is_crowded(&self, entries: usize, guard: &Guard) -> bool {
        entries as u64 * 10 > self.slots(guard) as u64 * 7
    }

    /// Takes all entries out of a map that no other thread can reach.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(NonNull<Header>)) {
        let mut table = self.current.load(Ordering::Relaxed);
        while !table.is_null() {
            // SAFETY: `&mut self`: no other thread uses the tables, which are freed only in `drop`.
            let at = unsafe { &*table };
            for bucket in at.buckets.iter() {
                for slot in &bucket.slots {
                    let word = slot.load(Ordering::Relaxed);
                    // FROZEN entries are in the next table: moving runs no user code, so a move is
                    // never left half done.
                    if word & slot::STATE == slot::VISIBLE {
                        take(pointer(word));
                    }
                    slot.store(0, Ordering::Relaxed);
                }
                bucket.tags.store(0, Ordering::Relaxed);
            }
            table = at.next.load(Ordering::Relaxed);
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let mut table = self.current.load(Ordering::Relaxed);
        while !table.is_null() {
            // SAFETY: `&mut self`: no other thread uses the tables; each was made from a Box and is
            // freed once.
            let owned = unsafe { Box::from_raw(table) };
            table = owned.next.load(Ordering::Relaxed);
        }
    }
}
