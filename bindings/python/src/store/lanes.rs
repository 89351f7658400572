//! Loads that are going on, and who leads them.
//!
//! A load that nobody meets is a line in a table: it costs a look under a lock to put it there, and one to take it out. Who does
//! meet it, to wait for it, makes it a shared [`Flight`].

use super::key::{Look, Search, Sought};
use crate::flight::shared::{Outcome, Shared, fork, thread};
use crate::objects::{Object, Raised};
use hashbrown::HashTable;
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Lane {
    hash: u64,
    /// A reference.
    key: Object,
    id: u64,
    /// The thread that leads it; 0 for a task, which is none.
    thread: u64,
    /// The process that it began in.
    fork: u64,
    /// The key was changed meanwhile: what is loaded is handed out, but not kept.
    superseded: bool,
    shared: Option<Arc<Shared>>,
}

// SAFETY: pointers to Python objects, which any attached thread may use.
unsafe impl Send for Lane {}

#[derive(Default)]
pub(crate) struct Lanes {
    open: Mutex<HashTable<Lane>>,
    next: AtomicU64,
    landed: AtomicU64,
    failed: AtomicU64,
    waits: AtomicU64,
}

pub(crate) enum Opened {
    /// The caller leads the load of this number, and must land it.
    Lead(u64),
    /// Another is at it.
    Wait(Arc<Shared>),
    /// This thread is at it: the key was asked for from inside its own load.
    Own,
}

impl Lanes {
    /// No Python code runs under this lock.
    fn lock(&self) -> MutexGuard<'_, HashTable<Lane>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many loads have landed so far.
    #[inline(always)]
    pub(crate) fn landed(&self) -> u64 {
        self.landed.load(Ordering::Acquire)
    }

    /// Loads, failed ones of these, and waits.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.landed), read(&self.failed), read(&self.waits))
    }

    /// Finds the load of a key, or begins it; `key` is borrowed. May run Python code, to compare.
    pub(crate) fn open<T: Sought>(&self, search: &Search<'_, T>, key: Object, task: bool) -> Result<Opened, Raised> {
        let me = if task { 0 } else { thread() };
        loop {
            let mut lanes = self.lock();
            let found = lanes.find_entry(Look::hash(search), |lane| !lane.superseded && search.is(lane.key));
            if let Ok(mut found) = found {
                let lane = found.get_mut();
                if lane.fork == fork() {
                    if lane.thread == me && me != 0 {
                        return Ok(Opened::Own);
                    }
                    let leader = lane.thread;
                    let shared = lane.shared.get_or_insert_with(|| Arc::new(Shared::new(leader)));
                    let shared = shared.clone();
                    self.waits.fetch_add(1, Ordering::Relaxed);
                    return Ok(Opened::Wait(shared));
                }
                // Whoever was at it is in another process. (The key's reference is let go of outside of the lock.)
                let (lane, _) = found.remove();
                drop(lanes);
                // SAFETY: the lane's reference.
                unsafe { ffi::Py_DECREF(lane.key) };
                continue;
            }
            if search.is_settled() {
                let id = self.next.fetch_add(1, Ordering::Relaxed);
                // SAFETY: the caller's object is alive.
                unsafe { ffi::Py_INCREF(key) };
                let lane = Lane {
                    hash: Look::hash(search),
                    key,
                    id,
                    thread: me,
                    fork: fork(),
                    superseded: false,
                    shared: None,
                };
                lanes.insert_unique(lane.hash, lane, |lane| lane.hash);
                return Ok(Opened::Lead(id));
            }
            drop(lanes);
            search.settle()?;
        }
    }

    /// Whether a load that the caller leads may still be kept.
    pub(crate) fn is_valid(&self, hash: u64, id: u64) -> bool {
        self.lock().find(hash, |lane| lane.id == id).is_some_and(|lane| !lane.superseded)
    }

    /// Ends a load: who waits is handed what came of it. Returns whether it was still valid.
    pub(crate) fn land(&self, py: Python<'_>, hash: u64, id: u64, outcome: &Outcome) -> bool {
        let lane = {
            let mut lanes = self.lock();
            let Ok(found) = lanes.find_entry(hash, |lane| lane.id == id) else {
                return false;
            };
            found.remove().0
        };
        if let Some(shared) = &lane.shared {
            shared.land(py, outcome.clone(py));
        }
        if !matches!(outcome, Outcome::Value(_)) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `landed`: who sees the number finds in the cache what the load left there.
        self.landed.fetch_add(1, Ordering::Release);
        // SAFETY: the lane's reference.
        unsafe { ffi::Py_DECREF(lane.key) };
        !lane.superseded
    }

    /// The key is changed: what is being loaded for it is out of date. May run Python code.
    pub(crate) fn supersede<T: Sought>(&self, search: &Search<'_, T>) -> Result<(), Raised> {
        loop {
            {
                let mut lanes = self.lock();
                if lanes.is_empty() {
                    return Ok(());
                }
                if let Some(lane) = lanes.find_mut(Look::hash(search), |lane| search.is(lane.key)) {
                    lane.superseded = true;
                    return Ok(());
                }
            }
            if !search.settle()? {
                return Ok(());
            }
        }
    }

    pub(crate) fn supersede_all(&self) {
        self.lock().iter_mut().for_each(|lane| lane.superseded = true);
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for lane in self.open.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            // SAFETY: the lane's reference.
            unsafe { ffi::Py_DECREF(lane.key) };
        }
    }
}
