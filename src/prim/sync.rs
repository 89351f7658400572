//! Atomics and locks of all concurrent code in this crate: std's, or loom's under its model
//! checker.

use std::cell::Cell;
use std::ptr;

#[cfg(loom)]
use loom::sync;
#[cfg(not(loom))]
use std::sync;

pub(crate) use sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};

#[cfg(not(loom))]
thread_local! {
    static OWN: Cell<u16> = const { Cell::new(0) };
}
#[cfg(loom)]
loom::thread_local! {
    static OWN: Cell<u16> = Cell::new(0);
}

/// Returns an even number that no other living thread has: the address of a thread-local.
#[inline]
pub(crate) fn thread_address() -> usize {
    OWN.with(|own| ptr::from_ref(own).addr())
}

/// Aligns `T` to cache lines of its own (two, because adjacent lines are fetched in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
