//! What every call begins and ends with: arguments are checked, and a panic becomes a status.

use crate::blob::{Blob, Destructor};
use crate::fork::generation;
use crate::memory;
use crate::thread::{CancelDisabled, Errno};
use crate::ticker::Ticker;
use crate::types::{Status, hotset_status};
use engine::Cache;
use libc::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

pub(crate) type Engine = Cache<Blob, Blob>;

/// A cache, made by hotset_open. Any number of threads may use it at once.
pub struct hotset_cache {
    /// The generation of the process that opened it; [`CLOSED`] later.
    live: AtomicU32,
    /// How many iterators are open.
    pub(crate) iterators: AtomicUsize,
    engine: Option<Engine>,
    ticker: Option<Ticker>,
    pub(crate) destructor: Option<Destructor>,
    /// No two caches have the same.
    pub(crate) id: u64,
}

// SAFETY: the engine may be shared, and nothing but `close` uses the ticker; the destructor's argument is the user's, whom the
// header tells that any thread calls it.
unsafe impl Sync for hotset_cache {}

const CLOSED: u32 = 0;

impl hotset_cache {
    pub(crate) fn new(engine: Engine, ticker: Option<Ticker>, destructor: Option<Destructor>, id: u64) -> Self {
        Self {
            live: AtomicU32::new(generation()),
            iterators: AtomicUsize::new(0),
            engine: Some(engine),
            ticker,
            destructor,
            id,
        }
    }

    /// The cache behind a pointer from C, if it is open.
    ///
    /// # Safety
    /// The pointer came from `hotset_open`, and is not among those that `hotset_close` has forgotten; no other thread closes it
    /// during the call.
    #[inline(always)]
    pub(crate) unsafe fn get<'a>(cache: *const Self) -> Result<&'a Self, Status> {
        // SAFETY: the caller's promise.
        let cache = unsafe { cache.as_ref() }.ok_or(hotset_status::HOTSET_INVALID)?;
        // Relaxed: a fork, or a close, that is ordered before this call is seen; others are the caller's mistake.
        if cache.live.load(Ordering::Relaxed) != generation() {
            return Err(cache.refusal());
        }
        Ok(cache)
    }

    #[cold]
    fn refusal(&self) -> Status {
        match self.live.load(Ordering::Relaxed) {
            CLOSED => hotset_status::HOTSET_CLOSED.into(),
            _ => hotset_status::HOTSET_FORKED.into(),
        }
    }

    #[inline(always)]
    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it is open")
    }

    /// An entry that is still the caller's, should it have a destructor.
    #[inline]
    pub(crate) fn blob(&self, key: &[u8], value: &[u8]) -> Result<Blob, Status> {
        memory::ready()?;
        Blob::new(key, value, self.destructor)
    }

    /// Closes the cache: the ticker has ended, and the entries are freed, when it returns.
    ///
    /// # Safety
    /// As for [`get`](Self::get), and no other call on the cache is in progress.
    pub(crate) unsafe fn close(cache: *mut Self) -> Result<(), Status> {
        // SAFETY: the caller's promise.
        let open = unsafe { Self::get(cache) }?;
        if crate::callback::is_within(open.id) {
            return Err(hotset_status::HOTSET_REENTRANT.into());
        }
        if open.iterators.load(Ordering::Acquire) != 0 {
            return Err(hotset_status::HOTSET_BUSY.into());
        }
        let live = open.live.load(Ordering::Relaxed);
        if open
            .live
            .compare_exchange(live, CLOSED, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            return Err(hotset_status::HOTSET_CLOSED.into());
        }
        // SAFETY: no other call uses them, and none comes past the exchange. The fields alone: a call that a callback makes on
        // the ticker's thread may be looking at the rest, to be refused.
        let (engine, ticker) = unsafe {
            let (engine, ticker) = (&raw mut (*cache).engine, &raw mut (*cache).ticker);
            (ptr::replace(engine, None), ptr::replace(ticker, None))
        };
        // The ticker first: so the engine, and with it every entry, is dropped by this thread.
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            drop(ticker);
            drop(engine);
        }));
        // SAFETY: it was leaked by `hotset_open`, and is closed.
        unsafe { remember_closed(cache) };
        dropped.map_err(|panic| caught(panic).into())
    }
}

/// How many closed caches are remembered, so that a call on one of them is refused instead of reading freed memory.
const REMEMBERED: usize = if cfg!(miri) { 4 } else { 1024 };

/// Keeps a closed cache allocated until so many others were closed after it. Takes no lock, which a fork could leave locked, and
/// no memory.
///
/// # Safety
/// The cache was leaked by `hotset_open`, is closed, and is not remembered yet.
unsafe fn remember_closed(cache: *mut hotset_cache) {
    static CLOSED_CACHES: [AtomicPtr<hotset_cache>; REMEMBERED] =
        [const { AtomicPtr::new(ptr::null_mut()) }; REMEMBERED];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let place = NEXT.fetch_add(1, Ordering::Relaxed) % REMEMBERED;
    // Release and Acquire pair with each other: who frees a cache comes after who closed it.
    let oldest = CLOSED_CACHES[place].swap(cache, Ordering::AcqRel);
    if !oldest.is_null() {
        // SAFETY: it was leaked by `hotset_open`; the header tells callers that such a cache is forgotten.
        drop(unsafe { Box::from_raw(oldest) });
    }
}

/// Runs a read and turns how it ended into a status. A read reaches no cancellation point but in callbacks, and no system call
/// that sets `errno`, so this costs it nothing.
#[inline(always)]
pub(crate) fn ffi_guard(call: impl FnOnce() -> Result<(), Status>) -> Status {
    // The result becomes a status inside, which keeps the compiler from carrying both out.
    let status = catch_unwind(AssertUnwindSafe(|| match call() {
        Ok(()) => hotset_status::HOTSET_OK.into(),
        Err(status) => status,
    }));
    status.unwrap_or_else(|panic| caught(panic).into())
}

/// [`ffi_guard`] for a write, which may wait for another thread: it keeps `errno` if it succeeds.
#[inline(always)]
pub(crate) fn ffi_guard_write(call: impl FnOnce() -> Result<(), Status>) -> Status {
    // std waits by futex here, which is no cancellation point.
    if cfg!(any(target_os = "linux", target_os = "android")) {
        keep_errno(|| ffi_guard(call))
    } else {
        ffi_guard_slow(call)
    }
}

/// [`ffi_guard`] for a call that may reach cancellation points: it cannot be canceled, and keeps `errno` if it succeeds.
#[inline]
pub(crate) fn ffi_guard_slow(call: impl FnOnce() -> Result<(), Status>) -> Status {
    let _disabled = CancelDisabled::new();
    keep_errno(|| ffi_guard(call))
}

#[inline(always)]
fn keep_errno(call: impl FnOnce() -> Status) -> Status {
    let errno = Errno::now();
    let status = call();
    if status == hotset_status::HOTSET_OK.into() {
        errno.restore();
    }
    status
}

#[cold]
fn caught(panic: Box<dyn std::any::Any + Send>) -> hotset_status {
    // Not dropped: that might panic too.
    std::mem::forget(panic);
    hotset_status::HOTSET_PANIC
}

/// Bytes from C.
///
/// # Safety
/// If `data` is not NULL, so many bytes can be read there for `'a`.
#[inline(always)]
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8], Status> {
    if data.is_null() {
        return if len == 0 {
            Ok(&[])
        } else {
            Err(hotset_status::HOTSET_INVALID.into())
        };
    }
    if len > isize::MAX as usize {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    // SAFETY: the caller's promise, and no object is longer than that.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// Where a result goes. A pointer and no reference: the caller's memory may be read by its callbacks while the call runs.
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    #[inline(always)]
    pub(crate) fn set(&self, value: T) {
        // SAFETY: `result` was promised that it can be written as long as the call runs.
        unsafe { self.0.write(value) }
    }
}

/// Where a result goes: set to `nothing` until there is one.
///
/// # Safety
/// If `out` is not NULL, it can be written as long as the call runs.
#[inline(always)]
pub(crate) unsafe fn result<T: Copy>(out: *mut T, nothing: T) -> Result<Out<T>, Status> {
    if out.is_null() {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    let out = Out(out);
    out.set(nothing);
    Ok(out)
}
