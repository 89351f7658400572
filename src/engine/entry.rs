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

    /// Allocates an entry. It must be released with `free` by the same shape.
    #[inline]
    pub(super) fn make<K, V>(self, hash: u64, key: K, value: V, weight: u64) -> Handle {
        let (layout, offset) = self.layout::<K, V>();
        // SAFETY: the layout is not empty: it has a header.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        // Slot words keep 48 bits of a pointer; user space is smaller than that unless a program asks for more.
        assert!(block as u64 >> 48 == 0, "an allocation beyond 2^48");
        // SAFETY: the block has room for the entry at `offset`, aligned, and for the weight just before it.
        unsafe {
            let entry = block.add(offset).cast::<Entry<K, V>>();
            entry.write(Entry {
                header: Header::new(hash, NEW),
                key,
                value,
            });
            if self.weighted {
                entry.cast::<u64>().sub(1).write(weight);
            }
            Handle(NonNull::new_unchecked(entry.cast()))
        }
    }

    /// # Safety
    /// The entry was made by `make::<K, V>` of an equal shape, and nobody will use it again.
    pub(super) unsafe fn free<K, V>(self, handle: Handle) {
        let (layout, offset) = self.layout::<K, V>();
        let entry = handle.0.cast::<Entry<K, V>>().as_ptr();
        /// Frees the memory also if a destructor panics.
        struct Memory(*mut u8, Layout);
        impl Drop for Memory {
            fn drop(&mut self) {
                // SAFETY: the block that `make` allocated, with its layout, once.
                unsafe { dealloc(self.0, self.1) };
            }
        }
        // SAFETY: `make` put the entry `offset` bytes into its block.
        let _memory = Memory(unsafe { entry.cast::<u8>().sub(offset) }, layout);
        // SAFETY: the caller gives the entry up.
        unsafe { entry.drop_in_place() };
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
