//! A cache behind a pointer from C: opened once, refused after a close or a fork.

use crate::blob::{Blob, Destructor, Engine};
use crate::closed::Closed;
use crate::ffi::caught;
use crate::fork::generation;
use crate::ticker::Ticker;
use crate::types::{Status, hotset_status};
use crate::{callback, memory};
use engine::raw::stats_file::Registration;
use std::cell::UnsafeCell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Cache, created by hotset_open. Any number of threads may use it concurrently.
pub struct hotset_cache {
    /// The generation of the process that opened it; [`CLOSED`] after the close.
    live: AtomicU32,
    /// How many iterators are open.
    pub(crate) iterators: AtomicUsize,
    /// Cells: `close` empties both while a callback on the ticker's thread may have a reference to
    /// the whole, to be refused.
    engine: UnsafeCell<Option<Engine>>,
    ticker: UnsafeCell<Option<Ticker>>,
    /// Its place in the stats file, which holds a reference to the engine's cache.
    name: Mutex<Option<Registration>>,
    pub(crate) destructor: Option<Destructor>,
    /// Unique in the process.
    pub(crate) id: u64,
}

// SAFETY: the engine may be shared, and only `close` uses the ticker and changes the cells, once;
// the header states that any thread calls the destructor with its argument.
unsafe impl Sync for hotset_cache {}

const CLOSED: u32 = 0;

static CLOSED_CACHES: Closed<hotset_cache> = Closed::new();

impl hotset_cache {
    pub(crate) fn new(engine: Engine, ticker: Option<Ticker>, destructor: Option<Destructor>, id: u64) -> Self {
        Self {
            live: AtomicU32::new(generation()),
            iterators: AtomicUsize::new(0),
            engine: UnsafeCell::new(Some(engine)),
            ticker: UnsafeCell::new(ticker),
            name: Mutex::new(None),
            destructor,
            id,
        }
    }

    /// Replaces the place in the stats file, and returns the previous one.
    pub(crate) fn replace_name(&self, name: Option<Registration>) -> Option<Registration> {
        mem::replace(&mut *self.name.lock().unwrap_or_else(PoisonError::into_inner), name)
    }

    /// The cache behind a pointer from C, if it is open.
    ///
    /// # Safety
    /// The pointer came from `hotset_open`, and its memory was not freed (see [`Closed`]);
    /// no other thread closes it during the call.
    #[inline(always)]
    pub(crate) unsafe fn get<'a>(cache: *const Self) -> Result<&'a Self, Status> {
        // SAFETY: the caller's promise.
        let cache = unsafe { cache.as_ref() }.ok_or(hotset_status::HOTSET_INVALID)?;
        // Relaxed: a fork, or a close, that is ordered before this call is seen; a concurrent close
        // is the caller's mistake.
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
        // SAFETY: only `close` changes it, and no call that it does not refuse is in progress then.
        unsafe { (*self.engine.get()).as_ref() }.expect("it is open")
    }

    /// Makes an entry. With a destructor, its value still belongs to the caller.
    #[inline]
    pub(crate) fn blob(&self, key: &[u8], value: &[u8]) -> Result<Blob, Status> {
        memory::ready()?;
        Blob::new(key, value, self.destructor)
    }

    /// Closes the cache: joins the ticker, and frees the entries.
    ///
    /// # Safety
    /// As for [`get`](Self::get), and no other call on the cache is in progress.
    pub(crate) unsafe fn close(cache: *mut Self) -> Result<(), Status> {
        // SAFETY: the caller's promise.
        let open = unsafe { Self::get(cache) }?;
        if callback::is_within(open.id) {
            return Err(hotset_status::HOTSET_REENTRANT.into());
        }
        // Acquire pairs with the Release in `hotset_iter_open` and `hotset_iter_close`: an iterator
        // that was closed on another thread no longer uses the engine.
        if open.iterators.load(Ordering::Acquire) != 0 {
            return Err(hotset_status::HOTSET_BUSY.into());
        }
        let live = open.live.load(Ordering::Relaxed);
        // Of several calls that close it, the one whose exchange succeeds does. Relaxed: no other
        // call is in progress, by the promise above.
        if open
            .live
            .compare_exchange(live, CLOSED, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            return Err(hotset_status::HOTSET_CLOSED.into());
        }
        // SAFETY: no other call uses them, and none passes the exchange.
        let (engine, ticker) = unsafe { (open.engine.get().replace(None), open.ticker.get().replace(None)) };
        let name = open.replace_name(None);
        // The ticker and the name first, so that this thread drops the engine, and with it every
        // entry.
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            drop(ticker);
            drop(name);
            drop(engine);
        }));
        // SAFETY: `hotset_open` leaked it, and it is closed.
        unsafe { CLOSED_CACHES.keep(cache) };
        dropped.map_err(|panic| caught(panic).into())
    }
}
