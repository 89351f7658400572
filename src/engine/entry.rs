//! How an entry lies in memory: one allocation of `[timing] [weight] header key value`.
//!
//! Words that only some entries need (their times, their weight) lie *before* the header, so that a cache without
//! them pays nothing and the map, which knows only headers, need not be told.

use crate::map::Header;
use crate::prim::sync::{AtomicU32, AtomicU64, Ordering};
use crate::prim::wheel::IDLE;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::time::Duration;

/// The place of an entry that the policy has not heard of.
pub(super) const NEW: u32 = (1 << 23) - 1;
/// The place of an entry whose retirement came before its arrival, which will free it.
pub(super) const DEAD: u32 = (1 << 23) - 2;
/// The place of an entry that the policy gave up while somebody else unlinked it: that retirement will free it.
pub(super) const GONE: u32 = (1 << 23) - 3;

/// An entry as map and policy see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) NonNull<Header>);

// SAFETY: a handle is an address; what may be done with it is said where it is used.
unsafe impl Send for Handle {}

/// A moment that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// The times of an entry, in nanoseconds of its cache's clock; [`NEVER`] where there is none. 40 bytes, of which those that a
/// lookup needs come last: next to the header.
#[repr(C)]
pub(crate) struct Timing {
    /// The deadline that the wheel knows of. This and the next belong to the holder of the maintenance lock.
    scheduled: AtomicU64,
    /// Where the entry is in the wheel.
    timer: AtomicU32,
    /// However often the entry is hit, its deadline is not later than this.
    limit: AtomicU64,
    /// From this moment on a hit asks for a reload.
    stale: AtomicU64,
    /// From this moment on the entry is a miss. Moved by readers, where hits prolong a life.
    deadline: AtomicU64,
}

impl Timing {
    pub(crate) fn new(deadline: u64, limit: u64, stale: u64) -> Self {
        Self {
            deadline: AtomicU64::new(deadline),
            limit: AtomicU64::new(limit),
            stale: AtomicU64::new(stale),
            scheduled: AtomicU64::new(NEVER),
            timer: AtomicU32::new(IDLE),
        }
    }

    #[inline]
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    /// What is left until the deadline, if there is one.
    pub(crate) fn left(&self, now: u64) -> Option<Duration> {
        let deadline = self.deadline();
        (deadline != NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(now)))
    }

    /// Moves the deadline, and returns where it was.
    pub(crate) fn move_deadline(&self, deadline: u64) -> u64 {
        self.deadline.swap(deadline, Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Lets the entry live at least until then.
    pub(crate) fn extend(&self, deadline: u64) {
        self.limit.fetch_max(deadline, Ordering::Relaxed);
        self.deadline.fetch_max(deadline, Ordering::Relaxed);
    }

    /// Whether the entry is due for a reload; true for one caller, who must see to it, and say when the next is due
    /// ([`set_stale`](Self::set_stale)) if it comes to nothing.
    #[inline]
    pub(crate) fn claim_reload(&self, now: u64) -> bool {
        let stale = self.stale.load(Ordering::Relaxed);
        stale <= now
            && self
                .stale
                .compare_exchange(stale, NEVER, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// At this moment the entry is due for a reload.
    pub(crate) fn set_stale(&self, moment: u64) {
        self.stale.store(moment, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn scheduled(&self) -> u64 {
        self.scheduled.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_scheduled(&self, deadline: u64) {
        self.scheduled.store(deadline, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn timer(&self) -> u32 {
        self.timer.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_timer(&self, timer: u32) {
        self.timer.store(timer, Ordering::Relaxed);
    }
}

/// The part of an entry whose offsets are fixed.
#[repr(C)]
pub(crate) struct Entry<K, V> {
    header: Header,
    pub(crate) key: K,
    pub(crate) value: V,
}

/// Which optional words the entries of a cache have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(super) weighted: bool,
    /// All have times; else only those that were given some.
    pub(super) timed: bool,
}

impl Shape {
    fn layout<K, V>(self, timed: bool) -> (Layout, usize) {
        let none = Layout::new::<()>();
        let timing = if timed { Layout::new::<Timing>() } else { none };
        let weight = if self.weighted { Layout::new::<u64>() } else { none };
        let extend = |one: Layout, other| one.extend(other).expect("a few small sizes cannot overflow");
        let (layout, offset) = extend(extend(timing, weight).0, Layout::new::<Entry<K, V>>());
        (layout.pad_to_align(), offset)
    }

    /// How many bytes the entries of a cache take each, but for those with times in a cache where others have none.
    pub(super) fn size<K, V>(self) -> usize {
        self.layout::<K, V>(self.timed).0.size()
    }

    /// Makes an entry, in memory given back by `drop_contents` or new. It ends with `drop_contents` and `release`.
    ///
    /// # Safety
    /// `spare`, if any, was an entry of this shape's size ([`is_usual`](Self::is_usual)) and of these types, as the new one
    /// will be; it went through `drop_contents`, and is not used elsewhere.
    #[inline]
    pub(super) unsafe fn make<K, V>(
        self,
        spare: Option<Handle>,
        hash: u64,
        (key, value): (K, V),
        weight: u64,
        timing: Option<Timing>,
    ) -> Handle {
        debug_assert!(timing.is_some() || !self.timed);
        let handle = spare.unwrap_or_else(|| self.allocate::<K, V>(timing.is_some()));
        // SAFETY: the memory has room for the entry, aligned, and for weight and times just before it.
        unsafe {
            handle.0.cast::<Entry<K, V>>().write(Entry {
                header: Header::new(hash, NEW, timing.is_some()),
                key,
                value,
            });
            if self.weighted {
                handle.0.cast::<u64>().sub(1).write(weight);
            }
            if let Some(timing) = timing {
                self.timing_of(handle).write(timing);
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
        // Slot words keep 48 bits of a pointer; user space is smaller than that unless a program asks for more.
        assert!(block as u64 >> 48 == 0, "an allocation beyond 2^48");
        // SAFETY: the entry begins `offset` bytes into the block.
        Handle(unsafe { NonNull::new_unchecked(block.add(offset).cast()) })
    }

    /// Whether the memory of this entry can serve for another of its cache.
    ///
    /// # Safety
    /// The entry was made by `make` of an equal shape, and its header is intact.
    #[inline]
    pub(super) unsafe fn is_usual(self, handle: Handle) -> bool {
        // SAFETY: the caller's promise.
        unsafe { handle.header() }.is_timed() == self.timed
    }

    /// Drops key and value. If one of their destructors panics, the other still runs.
    ///
    /// # Safety
    /// The entry was made by `make::<K, V>` of an equal shape, and nobody will look at it again.
    #[inline]
    pub(super) unsafe fn drop_contents<K, V>(self, handle: Handle) {
        // SAFETY: the caller gives the entry up.
        unsafe { handle.0.cast::<Entry<K, V>>().drop_in_place() };
    }

    /// Gives the memory back to the allocator; `timed` is what the header said.
    ///
    /// # Safety
    /// The entry went through `drop_contents::<K, V>` of an equal shape, and is not used elsewhere.
    pub(super) unsafe fn release<K, V>(self, handle: Handle, timed: bool) {
        let (layout, offset) = self.layout::<K, V>(timed);
        // SAFETY: the block that `allocate` allocated, with its layout, once.
        unsafe { dealloc(handle.0.cast::<u8>().sub(offset).as_ptr(), layout) };
    }

    /// # Safety
    /// The entry was made by `make` of an equal shape and is alive.
    #[inline]
    pub(super) unsafe fn weight(self, handle: Handle) -> u64 {
        if self.weighted {
            // SAFETY: weighted entries have their weight just before the header.
            unsafe { handle.0.cast::<u64>().sub(1).read() }
        } else {
            1
        }
    }

    /// # Safety
    /// The memory is that of an entry with times.
    #[inline]
    unsafe fn timing_of(self, handle: Handle) -> NonNull<Timing> {
        // SAFETY: the times lie before the weight, which lies before the header; all are multiples of eight bytes.
        unsafe {
            handle
                .0
                .cast::<u64>()
                .sub(usize::from(self.weighted))
                .cast::<Timing>()
                .sub(1)
        }
    }

    /// The entry's times, if it has any.
    ///
    /// # Safety
    /// The entry was made by `make` of an equal shape and is alive for `'a`.
    #[inline]
    pub(super) unsafe fn timing<'a>(self, handle: Handle) -> Option<&'a Timing> {
        // SAFETY: the caller's promise; the header tells whether there are any.
        unsafe { handle.header().is_timed().then(|| self.timing_of(handle).as_ref()) }
    }
}

impl Handle {
    /// The handle of an entry that is in a map: there its address is exposed, with all of its memory.
    #[inline]
    pub(super) fn of<K, V>(entry: &Entry<K, V>) -> Self {
        let header = ptr::with_exposed_provenance_mut(ptr::from_ref(entry).addr());
        Self(NonNull::new(header).expect("it was a reference"))
    }

    /// # Safety
    /// The entry is alive, and was made for these types, for `'a`.
    #[inline]
    pub(crate) unsafe fn entry<'a, K, V>(self) -> &'a Entry<K, V> {
        // SAFETY: the caller's promise.
        unsafe { self.0.cast().as_ref() }
    }

    /// # Safety
    /// The entry is alive for `'a`.
    #[inline]
    pub(crate) unsafe fn header<'a>(self) -> &'a Header {
        // SAFETY: the caller's promise.
        unsafe { self.0.as_ref() }
    }
}

/// Entries that nobody looks at any more, linked through their headers, which nobody reads either.
pub(crate) struct Chain {
    first: Option<Handle>,
    /// The end, if there is a first.
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

    /// # Safety
    /// The memory of the entry is allocated, and used by nobody else until it is popped; its contents may be dropped
    /// or not, its header is overwritten.
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

    /// Puts all of another chain before this one. O(1).
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
