//! What every call begins and ends with: arguments are checked, and a panic becomes a status.

use crate::blob::{Blob, Destructor};
use crate::types::{Status, hotset_status};
use engine::{Cache, DefaultHasher};
use libc::c_void;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once, PoisonError};

pub(crate) type Engine = Cache<Blob, Blob, Seeded>;

/// A cache, made by hotset_open. Any number of threads may use it at once.
pub struct hotset_cache {
    /// The [`generation`] of the process that opened it; [`CLOSED`] later.
    live: AtomicU32,
    /// How many iterators are open.
    pub(crate) iterators: AtomicUsize,
    engine: Option<Engine>,
    pub(crate) destructor: Option<Destructor>,
    /// No two caches have the same.
    pub(crate) id: u64,
    /// Where there is a ticker, which may be the one who drops the engine in the end.
    gone: Option<Arc<Gone>>,
}

// SAFETY: the engine may be shared; the destructor's argument is the user's, who was told that any thread calls it.
unsafe impl Sync for hotset_cache {}

const CLOSED: u32 = 0;

/// Changes in every child of a fork.
static GENERATION: AtomicU32 = AtomicU32::new(1);

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Forks are noticed from the first call on: before, there is nothing that a child could have inherited.
pub(crate) fn watch_forks() -> Result<(), Status> {
    static WATCH: Once = Once::new();
    static FAILED: AtomicU32 = AtomicU32::new(0);
    WATCH.call_once(|| {
        // SAFETY: the handler does nothing but count, and the library is never unloaded (build.rs).
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        FAILED.store(failed as u32, Ordering::Relaxed);
    });
    if FAILED.load(Ordering::Relaxed) != 0 {
        return Err(hotset_status::HOTSET_NO_MEMORY.into());
    }
    // The engine has memory that all caches of a process share, and a fork may have caught other threads at work there.
    if GENERATION.load(Ordering::Relaxed) != 1 {
        return Err(hotset_status::HOTSET_FORKED.into());
    }
    Ok(())
}

impl hotset_cache {
    pub(crate) fn new(engine: Engine, destructor: Option<Destructor>, id: u64, gone: Option<Arc<Gone>>) -> Self {
        Self {
            live: AtomicU32::new(GENERATION.load(Ordering::Relaxed)),
            iterators: AtomicUsize::new(0),
            engine: Some(engine),
            destructor,
            id,
            gone,
        }
    }

    /// The cache behind a pointer from C, if it is open.
    ///
    /// # Safety
    /// The pointer came from `hotset_open`, and is not among those that `hotset_close` has forgotten; nobody closes it
    /// during the call.
    #[inline(always)]
    pub(crate) unsafe fn get<'a>(cache: *const Self) -> Result<&'a Self, Status> {
        // SAFETY: the caller's promise.
        let cache = unsafe { cache.as_ref() }.ok_or(hotset_status::HOTSET_INVALID)?;
        // Relaxed: a fork, or a close, that is ordered before this call is seen; others are the caller's mistake.
        if cache.live.load(Ordering::Relaxed) != GENERATION.load(Ordering::Relaxed) {
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
        Blob::new(key, value, self.destructor)
    }

    /// Closes the cache, and waits until the ticker is out of it.
    ///
    /// # Safety
    /// As for [`get`](Self::get), and no other call on the cache is going on.
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
        // SAFETY: nobody else uses it, and nobody else comes past the exchange.
        let (engine, gone) = unsafe { ((*cache).engine.take(), (*cache).gone.take()) };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(engine)));
        if let Some(gone) = gone {
            gone.wait();
        }
        // SAFETY: it was leaked by `hotset_open`, and is not written to any more.
        bury(unsafe { &*cache });
        dropped.map_err(|panic| caught(panic).into())
    }
}

/// How many closed caches are remembered, so that a call on one of them is refused instead of reading freed memory.
const REMEMBERED: usize = 1024;

fn bury(closed: &'static hotset_cache) {
    static GRAVES: Mutex<VecDeque<&'static hotset_cache>> = Mutex::new(VecDeque::new());
    let mut graves = GRAVES.lock().unwrap_or_else(PoisonError::into_inner);
    graves.push_back(closed);
    if graves.len() > REMEMBERED
        && let Some(oldest) = graves.pop_front()
    {
        // SAFETY: it was leaked by `hotset_open`, and its callers were told that it is not told from freed memory any more.
        drop(unsafe { Box::from_raw(ptr::from_ref(oldest).cast_mut()) });
    }
}

/// Tells when an engine is no more.
#[derive(Default)]
pub(crate) struct Gone {
    gone: Mutex<bool>,
    told: Condvar,
}

impl Gone {
    fn wait(&self) {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.told.wait_while(gone, |gone| !*gone));
    }
}

/// Dropped with the engine, after its entries.
pub(crate) struct Farewell(pub(crate) Arc<Gone>);

impl Drop for Farewell {
    fn drop(&mut self) {
        *self.0.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.told.notify_all();
    }
}

/// The default hasher; in the engine, its place is behind the entries.
pub(crate) struct Seeded {
    pub(crate) hasher: DefaultHasher,
    pub(crate) _farewell: Option<Farewell>,
}

impl BuildHasher for Seeded {
    type Hasher = <DefaultHasher as BuildHasher>::Hasher;

    #[inline(always)]
    fn build_hasher(&self) -> Self::Hasher {
        self.hasher.build_hasher()
    }
}

/// Runs what a call does, and turns how it ended into a status.
#[inline(always)]
pub(crate) fn border(call: impl FnOnce() -> Result<(), Status>) -> Status {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => hotset_status::HOTSET_OK.into(),
        Ok(Err(status)) => status,
        Err(panic) => caught(panic).into(),
    }
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

/// Where a result goes: set to `nothing` until there is one.
///
/// # Safety
/// If `out` is not NULL, it can be written for `'a`.
#[inline(always)]
pub(crate) unsafe fn result<'a, T>(out: *mut T, nothing: T) -> Result<&'a mut T, Status> {
    if out.is_null() {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    // SAFETY: the caller's promise. Written before there is a reference: what was there may be no `T`.
    unsafe {
        out.write(nothing);
        Ok(&mut *out)
    }
}
