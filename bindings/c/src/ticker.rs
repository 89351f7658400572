//! The thread that performs maintenance while no other thread uses the cache. The header's preamble
//! has its rules.
//!
//! It is not the engine's own ticker: this one can be refused memory, and closing a cache joins it.

use crate::blob::Engine;
use crate::memory::{self, try_box};
use crate::thread::Errno;
use crate::types::{Status, hotset_status};
use libc::c_void;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// As much as Rust's own threads have.
const STACK: usize = 2 << 20;

struct Shared {
    engine: Engine,
    interval: Duration,
    stopped: Mutex<bool>,
    stop: Condvar,
}

/// A thread that ticks, until this is dropped.
pub(crate) struct Ticker {
    thread: libc::pthread_t,
    /// A box that the thread shares until it is joined.
    shared: *mut Shared,
}

impl Ticker {
    pub(crate) fn start(engine: Engine, interval: Duration) -> Result<Self, Status> {
        let shared = Box::into_raw(try_box(Shared {
            engine,
            interval,
            stopped: Mutex::new(false),
            stop: Condvar::new(),
        })?);
        match spawn(shared) {
            Ok(thread) => Ok(Self { thread, shared }),
            Err(code) => {
                // SAFETY: there is no thread.
                drop(unsafe { Box::from_raw(shared) });
                Errno::of(code).restore();
                Err(hotset_status::HOTSET_IO.into())
            }
        }
    }
}

/// Starts the thread, or returns the system's reason not to.
fn spawn(shared: *mut Shared) -> Result<libc::pthread_t, libc::c_int> {
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // The thread inherits the mask: signals are for the program's own threads, which may have
    // blocked them to wait for them.
    let _blocked = SignalsBlocked::new();
    // SAFETY: the attributes are used between their init and destroy; `shared` lives until the
    // thread was joined.
    let failed = unsafe {
        match libc::pthread_attr_init(attributes.as_mut_ptr()) {
            0 => {
                libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
                let failed =
                    libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), main, shared.cast::<c_void>());
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
                failed
            }
            failed => failed,
        }
    };
    if failed != 0 {
        return Err(failed);
    }
    // SAFETY: written by `pthread_create`.
    let thread = unsafe { thread.assume_init() };
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: a thread that was not joined yet, and a name of fewer than 16 bytes.
    unsafe {
        libc::pthread_setname_np(thread, c"hotset-ticker".as_ptr())
    };
    Ok(thread)
}

extern "C" fn main(shared: *mut c_void) -> *mut c_void {
    // SAFETY: the box lives until this thread was joined, and both only share it.
    let shared = unsafe { &*shared.cast_const().cast::<Shared>() };
    loop {
        let stopped = shared.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = shared
            .stop
            .wait_timeout_while(stopped, shared.interval, |stopped| !*stopped);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return ptr::null_mut();
        }
        // It frees memory, so it works also where there is none.
        _ = memory::ready();
        // A panic is a defect that the panic hook has reported; the thread continues.
        _ = catch_unwind(AssertUnwindSafe(|| shared.engine.run_pending()));
    }
}

impl Drop for Ticker {
    /// Waits until the thread has ended, with all that it does for the cache.
    fn drop(&mut self) {
        // SAFETY: the box lives; it is shared with the thread.
        let shared = unsafe { &*self.shared.cast_const() };
        *shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        shared.stop.notify_all();
        // SAFETY: the thread was not joined before. Once it was, nothing else knows the box.
        unsafe {
            libc::pthread_join(self.thread, ptr::null_mut());
            drop(Box::from_raw(self.shared));
        }
    }
}

/// All signals, blocked on this thread until it is dropped.
pub(crate) struct SignalsBlocked(#[cfg(not(miri))] libc::sigset_t);

impl SignalsBlocked {
    #[cfg(not(miri))]
    pub(crate) fn new() -> Self {
        // SAFETY: both sets are this function's, and every pattern of bits is a set.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut before);
            Self(before)
        }
    }

    #[cfg(miri)]
    pub(crate) fn new() -> Self {
        Self()
    }
}

#[cfg(not(miri))]
impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set is what the thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}
