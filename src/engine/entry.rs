//! The layout of an entry: one allocation of
//! `[weight] [moving] [deadline] header key value [timer]`.
//!
//! Words that only some entries need cost nothing where they are absent: the map knows only
//! headers. The timer lies behind the value, so that what a hit reads, from the deadline to the
//! value, is more often in one cache line. A [`Shape`] lists the optional words of a cache's
//! entries; a [`Handle`] is the address of a header.

use crate::map::Header;
use crate::prim::prefetch::prefetch;
use crate::prim::sync::{AtomicU32, AtomicU64, Ordering};
use crate::prim::wheel::IDLE;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::time::Duration;

/// The place of an entry whose arrival is not applied yet.
pub(super) const NEW: u32 = (1 << 23) - 1;
/// The place of an entry that was retired before its arrival was applied. The arrival frees it.
pub(super) const DEAD: u32 = (1 << 23) - 2;
/// The place of an entry that the policy no longer holds. If another thread unlinked it, that
/// thread's retirement frees it.
pub(super) const GONE: u32 = (1 << 23) - 3;
/// The place of an entry that was evicted before its arrival was applied. The arrival passes it to
/// the listener.
pub(super) const EVICTED: u32 = (1 << 23) - 4;

/// The address of an entry, as map and policy see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) NonNull<Header>);

// SAFETY: a handle is only an address; each use of it states what keeps the entry alive.
unsafe impl Send for Handle {}

/// The deadline of an entry that never expires.
pub(crate) const NO_DEADLINE: u64 = u64::MAX;

/// The deadlines of an entry, in nanoseconds of its cache's clock; [`NO_DEADLINE`] for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(super) deadline: u64,
    /// The latest deadline that hits can extend the entry to.
    pub(super) max_deadline: u64,
    /// From this time on, a hit requests a reload.
    pub(super) refresh_at: u64,
}

/// The deadline of an entry that may expire: from this time on it is a miss. Readers move it, where
/// hits extend deadlines.
type Deadline = AtomicU64;

/// The place in the wheel of an entry that may expire. Only the holder of the maintenance lock uses
/// it.
type Timer = AtomicU32;

/// Further words, if deadlines may move or values are reloaded: 24 bytes.
struct Moving {
    max_deadline: AtomicU64,
    refresh_at: AtomicU64,
    /// The deadline that the wheel uses. Only the holder of the maintenance lock uses it.
    scheduled: AtomicU64,
}

/// The bit of a reload time that is set once the value is past its refresh age: the time is that of
/// a retry, or [`NO_DEADLINE`], the mark of a claim. Times are in nanoseconds, so the bit is free.
pub(super) const STALE: u64 = 1;

/// What a hit of a loading call finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// The value is younger than the refresh age.
    Fresh,
    /// It is older, and another caller reloads it, or the time of a retry has not come.
    Stale,
    /// It is older, and this caller has claimed the reload.
    Due,
}

/// A reference to the deadlines of an entry.
#[derive(Clone, Copy)]
pub(crate) struct ExpiryRef<'a> {
    deadline: &'a Deadline,
    moving: Option<&'a Moving>,
}

impl ExpiryRef<'_> {
    #[inline]
    pub(crate) fn deadline(self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    /// Returns the time until the deadline, or `None` if the entry never expires.
    pub(crate) fn remaining(self, now: u64) -> Option<Duration> {
        let deadline = self.deadline();
        (deadline != NO_DEADLINE).then(|| Duration::from_nanos(deadline.saturating_sub(now)))
    }

    /// Returns the time until the latest deadline that hits can extend to, or `None` if there is
    /// none.
    pub(crate) fn max_remaining(self, now: u64) -> Option<Duration> {
        let max_deadline = self.max_deadline();
        (max_deadline != NO_DEADLINE).then(|| Duration::from_nanos(max_deadline.saturating_sub(now)))
    }

    /// Moves the deadline, and returns the previous one. Only where deadlines may move.
    pub(super) fn move_deadline(self, deadline: u64) -> u64 {
        debug_assert!(self.moving.is_some());
        self.deadline.swap(deadline, Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn max_deadline(self) -> u64 {
        self.moving
            .map_or_else(|| self.deadline(), |moving| moving.max_deadline.load(Ordering::Relaxed))
    }

    /// Extends the deadline to at least `deadline`, where deadlines may move.
    pub(crate) fn extend_deadline(self, deadline: u64) {
        if let Some(moving) = self.moving {
            moving.max_deadline.fetch_max(deadline, Ordering::Relaxed);
            self.deadline.fetch_max(deadline, Ordering::Relaxed);
        }
    }

    /// Returns how a hit finds the value. Returns [`Age::Due`] to one caller, which must reload it,
    /// or set the next time with [`unclaim_reload`](Self::unclaim_reload) if the reload fails.
    #[inline]
    pub(crate) fn claim_reload(self, now: u64) -> Age {
        let Some(Moving { refresh_at, .. }) = self.moving else {
            return Age::Fresh;
        };
        let due = refresh_at.load(Ordering::Relaxed);
        if due > now {
            // Claimed, or waiting for a retry.
            return if due & STALE == 0 { Age::Fresh } else { Age::Stale };
        }
        let claimed = refresh_at.compare_exchange(due, NO_DEADLINE, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_ok() { Age::Due } else { Age::Stale }
    }

    /// Sets the time of the next reload after a claimed one failed.
    pub(crate) fn unclaim_reload(self, moment: u64) {
        if let Some(Moving { refresh_at, .. }) = self.moving {
            // Rounded down, and less than the mark of a claim.
            let retry = (moment.clamp(1, NO_DEADLINE - 1) - 1) | STALE;
            // The claimed entry may have been replaced by one that has a reload time of its own.
            let _ = refresh_at.compare_exchange(NO_DEADLINE, retry, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn scheduled(self) -> u64 {
        // Deadlines that do not move have one value.
        self.moving
            .map_or_else(|| self.deadline(), |moving| moving.scheduled.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn set_scheduled(self, deadline: u64) {
        if let Some(moving) = self.moving {
            moving.scheduled.store(deadline, Ordering::Relaxed);
        }
    }
}

/// Returns whether a slot word, which keeps 48 bits, can hold this pointer. User space is smaller
/// unless a program requests more, but some allocators tag the upper bits.
fn is_plain(block: *mut u8) -> bool {
    #[cfg(test)]
    let block = block.map_addr(|address| address | TAG.get());
    block.addr() as u64 >> 48 == 0
}

#[cfg(test)]
thread_local! {
    /// The tag of this thread's allocations, in tests.
    pub(super) static TAG: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The fields of an entry whose offsets are fixed.
#[repr(C)]
pub(crate) struct Entry<K, V> {
    header: Header,
    pub(crate) key: K,
    pub(crate) value: V,
}

/// From this offset on, a timer is rarely on the cache line of the header.
const FAR: u32 = 48;

/// The optional words that the entries of a cache have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(super) weighted: bool,
    /// All entries have deadlines. If not set, only entries with a TTL of their own do.
    pub(super) timed: bool,
    /// Deadlines may move, or values are reloaded.
    pub(super) moving: bool,
    /// Bytes from the header to the timer.
    timer_offset: u32,
}

impl Shape {
    /// Returns the shape of the entries of a cache with these types.
    pub(super) fn new<K, V>(weighted: bool, timed: bool, moving: bool) -> Self {
        let entry = Layout::new::<Entry<K, V>>();
        let (_, timer_offset) = entry
            .extend(Layout::new::<Timer>())
            .expect("an entry has less than 4 GiB");
        Self {
            weighted,
            timed,
            moving,
            timer_offset: u32::try_from(timer_offset).expect("an entry has less than 4 GiB"),
        }
    }

    fn layout<K, V>(self, timed: bool) -> (Layout, usize) {
        let none = Layout::new::<()>();
        let moving = if timed && self.moving {
            Layout::new::<Moving>()
        } else {
            none
        };
        let deadline = if timed { Layout::new::<Deadline>() } else { none };
        let timer = if timed { Layout::new::<Timer>() } else { none };
        let weight = if self.weighted { Layout::new::<u64>() } else { none };
        let extend = |one: Layout, other| one.extend(other).expect("a few small sizes cannot overflow");
        let (layout, offset) = extend(
            extend(extend(weight, moving).0, deadline).0,
            Layout::new::<Entry<K, V>>(),
        );
        let layout = extend(layout, timer).0;
        (layout.pad_to_align(), offset)
    }

    /// Returns the size of an entry with the standard layout.
    pub(super) fn size<K, V>(self) -> usize {
        self.layout::<K, V>(self.timed).0.size()
    }

    /// Creates an entry, in `recycled` memory or in new memory. Its lifetime ends with
    /// `drop_contents` and `release`.
    ///
    /// # Safety
    ///
    /// `recycled`, if any, was an entry of this shape with the standard layout
    /// ([`has_standard_layout`](Self::has_standard_layout)) and of the same types, and the new
    /// entry has that layout too. It went through `drop_contents`, and is not used elsewhere.
    #[inline]
    pub(super) unsafe fn make<K, V>(
        self,
        recycled: Option<Handle>,
        hash: u64,
        (key, value): (K, V),
        weight: u64,
        deadlines: Option<Deadlines>,
    ) -> Handle {
        debug_assert!(deadlines.is_some() || !self.timed);
        let handle = recycled.unwrap_or_else(|| self.allocate::<K, V>(deadlines.is_some()));
        // SAFETY: the memory has room for the entry, aligned, for weight and deadlines just before
        // it, and for the timer behind it.
        unsafe {
            handle.0.cast::<Entry<K, V>>().write(Entry {
                header: Header::new(hash, NEW, deadlines.is_some()),
                key,
                value,
            });
            if self.weighted {
                self.weight_of(handle, deadlines.is_some()).write(weight);
            }
            if let Some(deadlines) = deadlines {
                let deadline = Self::deadline_of(handle);
                deadline.write(AtomicU64::new(deadlines.deadline));
                self.timer_of(handle).write(AtomicU32::new(IDLE));
                if self.moving {
                    deadline.cast::<Moving>().sub(1).write(Moving {
                        max_deadline: AtomicU64::new(deadlines.max_deadline),
                        refresh_at: AtomicU64::new(deadlines.refresh_at),
                        scheduled: AtomicU64::new(NO_DEADLINE),
                    });
                }
            }
        }
        handle
    }

    #[cold]
    #[inline(never)]
    fn allocate<K, V>(self, timed: bool) -> Handle {
        let (layout, offset) = self.layout::<K, V>(timed);
        // SAFETY: the layout is not empty: it has a header.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        assert!(is_plain(block), "the allocator began to return tagged pointers");
        // SAFETY: the entry begins `offset` bytes into the block.
        Handle(unsafe { NonNull::new_unchecked(block.add(offset).cast()) })
    }

    /// Returns whether the table can hold the allocator's pointers to entries, judged by one
    /// example.
    pub(super) fn has_plain_pointers<K, V>(self) -> bool {
        let (layout, _) = self.layout::<K, V>(self.timed);
        // SAFETY: the layout is not empty: it has a header.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        let plain = is_plain(block);
        // SAFETY: allocated just now, with this layout.
        unsafe { dealloc(block, layout) };
        plain
    }

    /// Returns whether the memory of this entry can be recycled for another entry of its cache.
    ///
    /// # Safety
    ///
    /// The entry was created by `make` of an equal shape, and its header is intact.
    #[inline]
    pub(super) unsafe fn has_standard_layout(self, handle: Handle) -> bool {
        // SAFETY: the caller's promise.
        unsafe { handle.header() }.is_timed() == self.timed
    }

    /// Drops key and value. If one of their destructors panics, the other still runs.
    ///
    /// # Safety
    ///
    /// The entry was created by `make::<K, V>` of an equal shape, and is not used again.
    #[inline]
    pub(super) unsafe fn drop_contents<K, V>(self, handle: Handle) {
        // SAFETY: the caller gives the entry up.
        unsafe { handle.0.cast::<Entry<K, V>>().drop_in_place() };
    }

    /// Returns the memory to the allocator. `timed` is the header's flag.
    ///
    /// # Safety
    ///
    /// The entry went through `drop_contents::<K, V>` of an equal shape, and is not used elsewhere.
    pub(super) unsafe fn release<K, V>(self, handle: Handle, timed: bool) {
        let (layout, offset) = self.layout::<K, V>(timed);
        // SAFETY: the block that `allocate` allocated, with its layout, once.
        unsafe { dealloc(handle.0.cast::<u8>().sub(offset).as_ptr(), layout) };
    }

    /// Returns the weight of an entry; 1 in a cache that is not weighted.
    ///
    /// # Safety
    ///
    /// The entry was created by `make` of an equal shape and is alive.
    #[inline]
    pub(super) unsafe fn weight(self, handle: Handle) -> u64 {
        if self.weighted {
            // SAFETY: the caller's promise; the header's flag distinguishes entries with deadlines.
            unsafe { self.weight_of(handle, handle.header().is_timed()).read() }
        } else {
            1
        }
    }

    /// Returns where the deadline of an entry lies.
    ///
    /// # Safety
    ///
    /// The entry has deadlines.
    #[inline]
    unsafe fn deadline_of(handle: Handle) -> NonNull<Deadline> {
        // SAFETY: the deadline lies just before the header.
        unsafe { handle.0.cast::<Deadline>().sub(1) }
    }

    /// Returns where the timer of an entry lies.
    ///
    /// # Safety
    ///
    /// The entry has deadlines.
    #[inline]
    unsafe fn timer_of(self, handle: Handle) -> NonNull<Timer> {
        // SAFETY: the timer lies behind the contents.
        unsafe { handle.0.cast::<u8>().add(self.timer_offset as usize).cast() }
    }

    /// Prefetches the header of an entry, and its timer if that is on another cache line.
    #[inline(always)]
    pub(super) fn prefetch(self, handle: Handle) {
        let header = handle.0.as_ptr().cast::<u8>();
        prefetch(header);
        if self.timed && self.timer_offset >= FAR {
            prefetch(header.wrapping_add(self.timer_offset as usize));
        }
    }

    /// Returns the timer of an entry.
    ///
    /// # Safety
    ///
    /// The entry was created by `make` of an equal shape, is alive for `'a`, and has deadlines.
    #[inline(always)]
    pub(super) unsafe fn timer<'a>(self, handle: Handle) -> &'a Timer {
        // SAFETY: the caller's promise.
        unsafe {
            debug_assert!(handle.header().is_timed());
            self.timer_of(handle).as_ref()
        }
    }

    /// Returns where the weight of an entry lies. `timed` is whether it has deadlines.
    ///
    /// # Safety
    ///
    /// The shape is weighted.
    #[inline]
    unsafe fn weight_of(self, handle: Handle, timed: bool) -> NonNull<u64> {
        let between = match (timed, self.moving) {
            (false, _) => 0,
            (true, false) => size_of::<Deadline>(),
            (true, true) => size_of::<Deadline>() + size_of::<Moving>(),
        };
        // SAFETY: the weight lies before the deadlines, if there are any, which lie before the
        // header; all are multiples of eight bytes.
        unsafe { handle.0.cast::<u8>().sub(between).cast::<u64>().sub(1) }
    }

    /// Returns the entry's deadlines, if it has any.
    ///
    /// # Safety
    ///
    /// The entry was created by `make` of an equal shape and is alive for `'a`.
    #[inline]
    pub(super) unsafe fn timing<'a>(self, handle: Handle) -> Option<ExpiryRef<'a>> {
        // SAFETY: the caller's promise. The header's flag is set if there are deadlines.
        unsafe { handle.header().is_timed().then(|| self.timing_of_timed(handle)) }
    }

    /// Returns the deadlines of an entry that has them.
    ///
    /// # Safety
    ///
    /// As for [`timing`](Self::timing), and the entry has deadlines.
    #[inline(always)]
    pub(super) unsafe fn timing_of_timed<'a>(self, handle: Handle) -> ExpiryRef<'a> {
        // SAFETY: the caller's promise. The shape's flag is set if further words lie before the
        // deadlines.
        unsafe {
            debug_assert!(handle.header().is_timed());
            let deadline = Self::deadline_of(handle);
            ExpiryRef {
                deadline: deadline.as_ref(),
                moving: self.moving.then(|| deadline.cast::<Moving>().sub(1).as_ref()),
            }
        }
    }
}

impl Handle {
    /// Returns the handle of an entry that is in a map, where its address is exposed with all of
    /// its memory.
    #[inline]
    pub(super) fn of<K, V>(entry: &Entry<K, V>) -> Self {
        let header = ptr::with_exposed_provenance_mut(ptr::from_ref(entry).addr());
        Self(NonNull::new(header).expect("it was a reference"))
    }

    /// Returns the entry.
    ///
    /// # Safety
    ///
    /// The entry is alive for `'a`, and was created for these types.
    #[inline]
    pub(crate) unsafe fn entry<'a, K, V>(self) -> &'a Entry<K, V> {
        // SAFETY: the caller's promise.
        unsafe { self.0.cast().as_ref() }
    }

    /// Returns the header.
    ///
    /// # Safety
    ///
    /// The entry is alive for `'a`.
    #[inline]
    pub(crate) unsafe fn header<'a>(self) -> &'a Header {
        // SAFETY: the caller's promise.
        unsafe { self.0.as_ref() }
    }
}

/// A stack of entries that no thread uses any more, linked through their headers.
pub(crate) struct Chain {
    first: Option<Handle>,
    /// The last entry, if there is a first.
    last: Option<Handle>,
    len: usize,
}

impl Chain {
    pub(super) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry, whose header is overwritten.
    ///
    /// # Safety
    ///
    /// The memory of the entry is allocated, and not used elsewhere until the entry is popped. Its
    /// contents may be dropped or not.
    #[inline]
    pub(super) unsafe fn push(&mut self, handle: Handle) {
        // SAFETY: a header has room for a link, and is aligned for one.
        unsafe { handle.0.cast::<Option<Handle>>().write(self.first) };
        self.first = Some(handle);
        self.last = self.last.or(self.first);
        self.len += 1;
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Handle> {
        let first = self.first?;
        // SAFETY: written by `push`.
        self.first = unsafe { first.0.cast::<Option<Handle>>().read() };
        self.len -= 1;
        if self.len == 0 {
            self.last = None;
        }
        Some(first)
    }

    /// Returns the entries from the first to the last. Their headers are overwritten.
    ///
    /// # Safety
    ///
    /// An entry that the iterator has not passed is still in the chain, as it was.
    pub(super) unsafe fn iter(&self) -> impl Iterator<Item = Handle> + use<> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let entry = next?;
            // SAFETY: written by `push`, by the caller's promise.
            next = unsafe { entry.0.cast::<Option<Handle>>().read() };
            Some(entry)
        })
    }

    /// Puts all entries of `other` before those of this chain. O(1).
    #[inline]
    pub(super) fn prepend(&mut self, other: Self) {
        if let Some(last) = other.last {
            // SAFETY: as in `push`; `other` is given up.
            unsafe { last.0.cast::<Option<Handle>>().write(self.first) };
            self.first = other.first;
            self.last = self.last.or(other.last);
            self.len += other.len;
        }
    }
}
