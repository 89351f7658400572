//! An entry's memory: one reference-counted allocation of `head [owned] key padding value`. The
//! cache has two references, as the entry's key and as its value; every handle of C is one more.
//! The key comes first: a lookup that compares it then has the count in the same cache line.

use crate::callback;
use crate::memory::try_alloc;
use crate::types::{Status, hotset_destructor_fn, hotset_status, hotset_value};
use libc::c_void;
use std::alloc::{Layout, dealloc};
use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[repr(C)]
struct Head {
    count: AtomicU32,
    key_len: u32,
    /// The value's length, and [`OWNED`].
    value_len: u64,
    version: u64,
}

/// The bit of `value_len` that is set if `Owned` follows the head.
const OWNED: u64 = 1 << 63;

/// The additional head of a value with a destructor.
#[repr(C)]
struct Owned {
    destructor: Destructor,
    /// Whether the value belongs to the library. Until then, the caller must free what it points
    /// to.
    armed: AtomicBool,
}

/// The destructor of a cache's values.
#[derive(Clone, Copy)]
pub(crate) struct Destructor {
    pub(crate) call: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
    pub(crate) arg: *mut c_void,
    /// The cache, for [`callback`].
    pub(crate) cache: u64,
}

impl Destructor {
    pub(crate) fn new(call: hotset_destructor_fn, arg: *mut c_void, cache: u64) -> Option<Self> {
        call.map(|call| Self { call, arg, cache })
    }
}

// The bytes begin at a multiple of 8, as `hotset_bytes` promises.
const _: () = assert!(size_of::<Head>().is_multiple_of(8) && size_of::<Owned>().is_multiple_of(8));

/// The engine: a blob is both key and value of its entry.
pub(crate) type Engine = engine::Cache<Blob, Blob>;

/// A counted reference to an entry's memory.
pub(crate) struct Blob(NonNull<Head>);

// SAFETY: only the counts, which are atomic, change while it is shared; the last reference, on any
// thread, frees it. The header states that any thread calls the destructor with its argument.
unsafe impl Send for Blob {}
// SAFETY: as above.
unsafe impl Sync for Blob {}

/// The limit of handles: far below an overflow of the count, so that threads that pass it
/// concurrently do no harm.
const MOST: u32 = 1 << 31;

impl Blob {
    /// Copies key and value into new memory; with room for a destructor, which is armed by
    /// [`arm`](Self::arm).
    #[inline]
    pub(crate) fn new(key: &[u8], value: &[u8], destructor: Option<Destructor>) -> Result<Self, Status> {
        let key_len = u32::try_from(key.len()).map_err(|_| hotset_status::HOTSET_TOO_LARGE)?;
        let layout = layout(key.len(), value.len(), destructor.is_some()).ok_or(hotset_status::HOTSET_TOO_LARGE)?;
        let head = Head {
            count: AtomicU32::new(1),
            key_len,
            value_len: value.len() as u64 | if destructor.is_some() { OWNED } else { 0 },
            version: next_version(),
        };
        let at = try_alloc(layout)?.cast::<Head>();
        // SAFETY: the memory is new, has `layout`'s size, and is laid out as the head states.
        unsafe {
            at.write(head);
            let blob = Self(at);
            if let Some(destructor) = destructor {
                at.add(1).cast::<Owned>().write(Owned {
                    destructor,
                    armed: AtomicBool::new(false),
                });
            }
            ptr::copy_nonoverlapping(key.as_ptr(), blob.key_at(), key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), blob.value_at(), value.len());
            Ok(blob)
        }
    }

    /// Returns where the count is.
    pub(crate) fn head_address(&self) -> *const () {
        self.0.as_ptr().cast_const().cast()
    }

    #[inline(always)]
    fn head(&self) -> &Head {
        // SAFETY: a blob is a counted reference, so the memory is valid; only the atomics of a head
        // change.
        unsafe { self.0.as_ref() }
    }

    fn owned(&self) -> Option<&Owned> {
        // SAFETY: the flag states that there is one behind the head.
        (self.head().value_len & OWNED != 0).then(|| unsafe { self.0.add(1).cast::<Owned>().as_ref() })
    }

    #[inline(always)]
    fn key_at(&self) -> *mut u8 {
        let owned = (self.head().value_len & OWNED != 0) as usize * size_of::<Owned>();
        // SAFETY: within the allocation, or at its end if key and value are empty.
        unsafe { self.0.as_ptr().add(1).cast::<u8>().add(owned) }
    }

    #[inline(always)]
    fn value_at(&self) -> *mut u8 {
        // SAFETY: the value lies behind the key, at a multiple of 8 like the key; `layout` has
        // counted what is between.
        unsafe { self.key_at().add((self.head().key_len as usize).next_multiple_of(8)) }
    }

    #[inline(always)]
    pub(crate) fn value(&self) -> &[u8] {
        // SAFETY: `new` initialized that number of bytes there.
        unsafe { slice::from_raw_parts(self.value_at(), (self.head().value_len & !OWNED) as usize) }
    }

    #[inline(always)]
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: `new` initialized that number of bytes there.
        unsafe { slice::from_raw_parts(self.key_at(), self.head().key_len as usize) }
    }

    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.head().version
    }

    /// The bytes that it takes from malloc, rounded as glibc does.
    pub(crate) fn weight(&self) -> u64 {
        let size = self.layout().size() as u64;
        (size + 8).next_multiple_of(16).max(32)
    }

    fn layout(&self) -> Layout {
        let made = layout(self.key().len(), self.value().len(), self.owned().is_some());
        made.expect("it was allocated with this layout")
    }

    /// Sets whether the destructor, if there is one, runs when the memory is freed.
    #[inline]
    pub(crate) fn arm(&self, armed: bool) {
        if let Some(owned) = self.owned() {
            // Relaxed: the thread that runs the destructor is ordered after this by the count.
            owned.armed.store(armed, Ordering::Relaxed);
        }
    }

    /// The entry's key and value.
    #[inline]
    pub(crate) fn into_entry(self) -> (Self, Self) {
        if self.head().count.load(Ordering::Relaxed) == 1 {
            // This is the only reference, so no other thread can change the count.
            self.head().count.store(2, Ordering::Relaxed);
            let key = Self(self.0);
            return (key, self);
        }
        (self.clone(), self)
    }

    /// Returns one more reference, unless there are too many.
    #[inline(always)]
    pub(crate) fn share(&self) -> Option<Self> {
        // Relaxed: the caller's reference keeps the memory.
        if self.head().count.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.head().count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(self.0))
    }

    /// Converts the reference into a handle, which C owns.
    #[inline(always)]
    pub(crate) fn into_handle(self) -> *mut hotset_value {
        let at = self.0.as_ptr().cast();
        std::mem::forget(self);
        at
    }

    /// Converts a handle of [`into_handle`](Self::into_handle) back into a reference.
    ///
    /// # Safety
    /// `handle` came from there, and was not converted back since.
    #[inline(always)]
    pub(crate) unsafe fn from_handle(handle: *mut hotset_value) -> Option<Self> {
        NonNull::new(handle.cast()).map(Self)
    }

    #[cold]
    #[inline(never)]
    fn free(&mut self) {
        // Acquire pairs with the Release in `drop` of all other references: their reads of the
        // bytes come before the free. (A load, not a fence, which ThreadSanitizer does not
        // understand.)
        self.head().count.load(Ordering::Acquire);
        if let Some(owned) = self.owned()
            && owned.armed.load(Ordering::Relaxed)
        {
            let Destructor { call, arg, cache } = owned.destructor;
            let (value, len) = (self.value_at().cast(), self.value().len());
            // SAFETY: the user's function, with the promised arguments: a value without other
            // references.
            callback::notify(cache, || unsafe { call(arg, value, len) });
        }
        let layout = self.layout();
        // SAFETY: `new` allocated it with this layout; this was the last reference.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }
}

impl Drop for Blob {
    #[inline(always)]
    fn drop(&mut self) {
        // Release pairs with the Acquire in `free`.
        if self.head().count.fetch_sub(1, Ordering::Release) == 1 {
            self.free();
        }
    }
}

impl Clone for Blob {
    #[inline(always)]
    fn clone(&self) -> Self {
        self.share().expect("more than 2^31 handles to one entry")
    }
}

impl Borrow<[u8]> for Blob {
    #[inline(always)]
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for Blob {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Blob {}

fn layout(key_len: usize, value_len: usize, owned: bool) -> Option<Layout> {
    let fixed = size_of::<Head>() + if owned { size_of::<Owned>() } else { 0 };
    let size = fixed
        .checked_add(key_len.checked_next_multiple_of(8)?)?
        .checked_add(value_len)?;
    Layout::from_size_align(size, align_of::<Head>()).ok()
}

/// How many versions a thread takes at a time, so that threads that put do not contend for one
/// counter.
const BLOCK: u64 = 1 << 12;

/// A number that no other entry of the process has; never 0.
#[inline]
fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(BLOCK);
    thread_local!(static MINE: Cell<u64> = const { Cell::new(0) });
    MINE.with(|mine| {
        let mut version = mine.get();
        if version.is_multiple_of(BLOCK) {
            version = NEXT.fetch_add(BLOCK, Ordering::Relaxed);
        }
        mine.set(version + 1);
        version
    })
}
