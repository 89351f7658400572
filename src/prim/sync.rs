//! The atomics of everything concurrent in this crate: std's, or loom's when its model checker runs.

#[cfg(loom)]
use loom::{sync, thread};
#[cfg(not(loom))]
use std::{sync, thread};

pub(crate) use sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use sync::{Arc, Condvar, Mutex, MutexGuard};
pub(crate) use thread::{ThreadId, current};

/// Waits a little for another thread's short, bounded step; the longer the more `tries` there were.
pub(crate) fn relax(tries: &mut u32) {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    if *tries < 6 {
        for _ in 0..1 << *tries {
            std::hint::spin_loop();
        }
    } else {
        std::thread::yield_now();
    }
    *tries += 1;
}

/// Keeps `T` on cache lines of its own (two, because adjacent lines are fetched in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
