//! The lock-free table: it knows hashes, matchers and entry pointers; nothing of weights, time or causes.
//!
//! The owner of the map (the engine) must pin the calling thread around every call, and must keep every entry that was
//! given to [`Map::insert`] allocated until all guards that could see it have ended (that is what `reclaim` is for).

mod layout;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
mod migrate;
mod resize;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::prim::prefetch::prefetch;
use crate::prim::sync::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, Ordering};
use crate::reclaim::Guard;
use layout::{SLOTS, control, slot, tags};
use resize::Discarded;
use std::ptr::{self, NonNull};
use table::{Bucket, Step, Table, pointer};

pub(crate) use resize::OldTable;
pub(crate) use table::{Inserted, Mode, UNCONDITIONAL};

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
        // Release pairs with the fence in `Table::for_each_of`: a thread that reads the link sees the unlinking.
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

/// There is no memory for a table.
#[derive(Debug)]
pub(crate) struct NoMemory;

pub(crate) struct Map {
    current: AtomicPtr<Table>,
    discarded: Discarded,
}

/// The part of the map's size that is filled when a table is sized for a number of entries.
const LOAD: f64 = 0.6;

impl Map {
    /// A map with room for about `entries`, and always for a few more.
    pub(crate) fn for_entries(entries: usize) -> Result<Self, NoMemory> {
        Self::with_buckets(Self::buckets_for(entries))
    }

    /// The number of buckets of a table for `entries`.
    pub(crate) fn buckets_for(entries: usize) -> usize {
        ((entries as f64 / (LOAD * SLOTS as f64)).ceil() as usize).max(2)
    }

    fn with_buckets(buckets: usize) -> Result<Self, NoMemory> {
        Ok(Self {
            current: AtomicPtr::new(resize::allocate(buckets)?),
            discarded: Discarded::new(),
        })
    }

    #[inline]
    fn table<'g>(&self, _guard: &'g Guard) -> &'g Table {
        // SAFETY: tables are retired through `reclaim` after `current` has moved on (Acquire pairs with the Release in
        // `resize_step`), so this one lives as long as the guard.
        unsafe { &*self.current.load(Ordering::Acquire) }
    }

    /// The table that follows one in which a home was seen as moved.
    fn next<'g>(&self, table: &Table, _guard: &'g Guard) -> &'g Table {
        let next = table.next.load(Ordering::Acquire);
        assert!(!next.is_null(), "homes move to the next table");
        // SAFETY: as in `table`.
        unsafe { &*next }
    }

    /// [`next`](Self::next), for calls that cannot follow a growth that failed half-way.
    #[inline(never)]
    fn next_unbroken<'g>(&self, table: &Table, guard: &'g Guard) -> &'g Table {
        assert!(
            !table.is_broken(),
            "hotset: growing this cache's table panicked earlier, which is a bug: the cache can be read, but not changed"
        );
        self.next(table, guard)
    }

    /// The entry with this hash that `equal` accepts. Lock-free; at most two cache misses unless its home overflowed.
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

    /// What [`get`](Self::get) returns, if the first look at the home tells.
    #[inline(always)]
    pub(crate) fn get_fast(
        &self,
        hash: u64,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        guard: &Guard,
    ) -> Option<Option<NonNull<Header>>> {
        match self.probe_home(hash, guard) {
            Ok(found) => equal(found?).then_some(found),
            Err(bucket) => {
                const MORE: u64 = control::FROZEN | control::MOVED | 31 << 8;
                (bucket.control.load(Ordering::Acquire) & MORE == 0).then_some(None)
            }
        }
    }

    /// An entry that is very likely the one with the hash, if the first look at the home finds one.
    #[inline(always)]
    pub(crate) fn probe_unverified(&self, hash: u64, guard: &Guard) -> Option<NonNull<Header>> {
        self.probe_home(hash, guard).ok().flatten()
    }

    /// What the first look at the home finds: an entry that is very likely the one with the hash, or `None`, which says nothing;
    /// or the home, where nothing is like it.
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
        // A visible word is authoritative: homes are frozen before they move.
        let rest = at.load(Ordering::Acquire) ^ slot::visible(hash);
        Ok((rest & !slot::POINTER == 0).then(|| table::exact_pointer(rest)))
    }

    /// [`get`](Self::get) if [`get_fast`](Self::get_at_once) does not tell.
    pub(crate) fn get_slow(
        &self,
        hash: u64,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        guard: &Guard,
    ) -> Option<NonNull<Header>> {
        let mut table = self.table(guard);
        loop {
            let home = table.home((hash >> 32) as u32);
            // Until MOVED is seen, what this table holds at that moment is the truth.
            let seen = table.load_control(home);
            if seen & control::MOVED != 0 {
                table = self.next(table, guard);
                continue;
            }
            return table
                .scan(home, seen, hash, &mut equal)
                .map(|found| pointer(found.word));
        }
    }

    /// Asks the processor for the home bucket of a hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64, guard: &Guard) {
        let table = self.table(guard);
        prefetch(&raw const table.buckets[table.home((hash >> 32) as u32)]);
    }

    /// Finds for each hash an entry that is very likely the one with it, unless there is none or it is hard to find, and
    /// asks the processor for the entry's beginning. Phase by phase, so that the cache misses of all overlap.
    pub(crate) fn probe_batch(
        &self,
        hashes: &[u64],
        found: &mut [Option<NonNull<Header>>],
        size: usize,
        guard: &Guard,
    ) {
        let table = self.table(guard);
        let home = |hash: u64| table.home((hash >> 32) as u32);
        let seen = |entry: NonNull<Header>| {
            // An entry may lie across two lines.
            prefetch(entry.as_ptr());
            prefetch(entry.as_ptr().wrapping_byte_add(size.min(64) - 1));
            entry
        };
        hashes.iter().for_each(|hash| self.prefetch(*hash, guard));
        for (hash, found) in hashes.iter().zip(&mut *found) {
            let home = home(*hash);
            *found = table.probe_bucket(home, 0, *hash).map(seen);
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
                    .map(seen);
            }
        }
    }

    /// Runs `step` in the table that holds the hash's home.
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

    /// Inserts the entry, whose hash is `hash` and whose key is what `equal` accepts. Lock-free (see `Table::insert`).
    #[inline]
    pub(crate) fn insert(
        &self,
        hash: u64,
        entry: NonNull<Header>,
        mut equal: impl FnMut(NonNull<Header>) -> bool,
        mode: Mode,
        mut killed: Option<impl FnMut() -> bool>,
        guard: &Guard,
    ) -> Inserted {
        self.in_live_table(guard, |table| table.insert(hash, entry, &mut equal, mode, &mut killed))
    }

    /// Removes and returns the entry that `equal` accepts, unless `accept` declines.
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

    /// Removes this very entry; false if somebody else did. Runs no user code.
    #[inline]
    pub(crate) fn remove_exact(&self, entry: NonNull<Header>, guard: &Guard) -> bool {
        // SAFETY: the caller keeps the entry alive (module contract).
        let hash = unsafe { entry.as_ref() }.hash();
        self.in_live_table(guard, |table| table.change_exact(hash, entry, None))
    }

    /// Puts `new`, of an equal key, in the place of this very entry; false if it is no longer in the map. No user code.
    pub(crate) fn replace_exact(&self, old: NonNull<Header>, new: NonNull<Header>, guard: &Guard) -> bool {
        // SAFETY: the caller keeps the entry alive (module contract).
        let hash = unsafe { old.as_ref() }.hash();
        self.in_live_table(guard, |table| table.change_exact(hash, old, Some(new)))
    }

    /// An entry whose removal would make room for this hash.
    pub(crate) fn candidate(
        &self,
        hash: u64,
        spare: impl Fn(NonNull<Header>) -> bool,
        guard: &Guard,
    ) -> Option<NonNull<Header>> {
        self.in_live_table(guard, |table| {
            // What leaves the slots of a home that has moved makes no room: it is inserted into the next table.
            if table.load_control(table.home((hash >> 32) as u32)) & control::MOVED != 0 {
                return Step::Moved;
            }
            Step::Done(table.candidate(hash, &spare))
        })
    }

    /// Visits the entries with the smallest hashes at or above `from`: one home's worth. Returns where to go on (2^32 or
    /// more at the end). An entry that stays in the map is visited exactly once by a walk from 0, whatever else goes on.
    pub(crate) fn walk(&self, from: u64, mut visit: impl FnMut(NonNull<Header>), guard: &Guard) -> u64 {
        // Of the homes followed, the smallest range: a home of the next table may begin in one that has been moved and
        // end in one that has not.
        let mut end = u64::MAX;
        self.in_live_table(guard, |table| {
            let home = table.home(from as u32);
            end = end.min(layout::first_hash(home + 1, table.buckets.len()));
            let seen = table.load_control(home);
            if seen & control::MOVED != 0 {
                return Step::Moved;
            }
            table.for_each_of(home, seen, |word, hash| {
                if (from..end).contains(&u64::from(hash)) {
                    visit(pointer(word));
                }
            });
            Step::Done(end)
        })
    }

    /// The entry at this address, if one with this upper half of a hash is in the map there; else one that has that hash: what
    /// took the place of the entry that was there, most likely. No user code.
    #[cfg(any(feature = "snapshot", test))]
    pub(crate) fn find_address(&self, hash: u32, address: usize, guard: &Guard) -> Option<NonNull<Header>> {
        self.in_live_table(guard, |table| {
            let home = table.home(hash);
            let seen = table.load_control(home);
            if seen & control::MOVED != 0 {
                return Step::Moved;
            }
            let first = |is: &dyn Fn(NonNull<Header>, u32) -> bool| {
                let mut found = None;
                table.for_each_of(home, seen, |word, hash| {
                    found = found.or(Some(pointer(word)).filter(|entry| is(*entry, hash)))
                });
                found
            };
            // The memory of what has left may be another key's by now, with the same home.
            let there = first(&|entry, of| entry.addr().get() == address && of == hash);
            Step::Done(there.or_else(|| first(&|_, of| of == hash)))
        })
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self, guard: &Guard) -> usize {
        self.table(guard).buckets.len()
    }

    /// The number of slots.
    pub(crate) fn slots(&self, guard: &Guard) -> usize {
        self.buckets(guard) * SLOTS
    }

    /// Identifies the current table among all that this map has while the guard lives.
    pub(crate) fn table_id(&self, guard: &Guard) -> usize {
        ptr::from_ref(self.table(guard)).addr()
    }

    /// Whether `entries` is more than the table can hold well.
    pub(crate) fn is_crowded(&self, entries: usize, guard: &Guard) -> bool {
        entries as u64 * 10 > self.slots(guard) as u64 * 7
    }

    /// Takes all entries out of a map that nobody else can reach.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(NonNull<Header>)) {
        let mut table = self.current.load(Ordering::Relaxed);
        while !table.is_null() {
            // SAFETY: `&mut self`: no other thread uses the tables, which are freed only in `drop`.
            let at = unsafe { &*table };
            for bucket in at.buckets.iter() {
                for slot in &bucket.slots {
                    let word = slot.load(Ordering::Relaxed);
                    // What is frozen has been moved: moving runs no user code, so it is never left half done.
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
            // SAFETY: `&mut self`: nobody uses the tables any more; each was made from a Box and is freed once.
            let owned = unsafe { Box::from_raw(table) };
            table = owned.next.load(Ordering::Relaxed);
        }
    }
}
