//! How an entry lies in memory: one allocation of `[weight] header key value`.
//!
//! Words that only some caches need (the weight; later a deadline) lie *before* the header, so that a cache without
//! them pays nothing and the map, which knows only headers, need not be told.

use crate::map::Header;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// The place of an entry that the policy has not heard of.
pub(super) const NEW: u32 = (1 << 24) - 1;
/// The place of an entry whose retirement came before its arrival, which will free it.
pub(super) const DEAD: u32 = (1 << 24) - 2;
/// The place of an entry that the policy gave up while somebody else unlinked it: that retirement will free it.
pub(super) const GONE: u32 = (1 << 24) - 3;

/// An entry as map and policy see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) NonNull<Header>);

// SAFETY: a handle is an address; what may be done with it is said where it is used.
unsafe impl Send for Handle {}

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
}

impl Shape {
    fn layout<K, V>(self) -> (Layout, usize) {
        let entry = Layout::new::<Entry<K, V>>();
        if !self.weighted {
            return (entry, 0);
        }
        let (layout, offset) = Layout::new::<u64>()
            .extend(entry)
            .expect("the two sizes cannot overflow");
        (layout.pad_to_align(), offset)
    }

    /// How many bytes the entries of a cache take each.
    pub(super) fn size<K, V>(self) -> usize {
        self.layout::<K, V>().0.size()
    }

    /// Makes an entry, in memory given back by `drop_contents` or new. It ends with `drop_contents` and `release`.
    ///
    /// # Safety
    /// `spare`, if any, went through `drop_contents::<K, V>` of an equal shape, and is not used elsewhere.
    #[inline]
    pub(super) unsafe fn make<K, V>(self, spare: Option<Handle>, hash: u64, key: K, value: V, weight: u64) -> Handle {
        let handle = spare.unwrap_or_else(|| self.allocate::<K, V>());
        // SAFETY: the memory has room for the entry, aligned, and for the weight just before it.
        unsafe {
            handle.0.cast::<Entry<K, V>>().write(Entry {
                header: Header::new(hash, NEW),
                key,
                value,
            });
            if self.weighted {
                handle.0.cast::<u64>().sub(1).write(weight);
            }
        }
        handle
    }

    #[cold]
    #[inline(never)]
    fn allocate<K, V>(self) -> Handle {
        let (layout, offset) = self.layout::<K, V>();
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

    /// Drops key and value. If one of their destructors panics, the other still runs.
    ///
    /// # Safety
    /// The entry was made by `make::<K, V>` of an equal shape, and nobody will look at it again.
    #[inline]
    pub(super) unsafe fn drop_contents<K, V>(self, handle: Handle) {
        // SAFETY: the caller gives the entry up.
        unsafe { handle.0.cast::<Entry<K, V>>().drop_in_place() };
    }

    /// Gives the memory back to the allocator.
    ///
    /// # Safety
    /// The entry went through `drop_contents::<K, V>` of an equal shape, and is not used elsewhere.
    pub(super) unsafe fn release<K, V>(self, handle: Handle) {
        let (layout, offset) = self.layout::<K, V>();
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
}

impl Handle {
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
