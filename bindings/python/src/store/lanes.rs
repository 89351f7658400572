//! Loads that are going on, and who leads them.
//!
//! A load that nobody meets is a line in a table: it costs a look under a lock to put it there, and one to take it out. Who does
//! meet it, to wait for it, makes it a shared [`Flight`].

use super::key::{Look, Search, Sought};
use crate::flight::shared::{Outcome, Shared, fork, thread};
use crate::locked::{Counter, Locked};
use crate::objects::{Raised, Ref};
use hashbrown::HashTable;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

struct Lane {
    hash: u64,
    key: Ref,
    id: u64,
    /// The thread that leads it; 0 for a task, which is none.
    thread: u64,
    /// The process that it began in.
    fork: u64,
    /// The key was changed meanwhile: what is loaded is handed out, but not kept.
    superseded: bool,
    shared: Option<Arc<Shared>>,
    begun: Instant,
}

/// Numbers all loads of the process.
static NEXT: Counter = Counter::new();

#[derive(Default)]
pub(crate) struct Lanes {
    open: Locked<HashTable<Lane>>,
    /// How many loads were superseded so far.
    marks: Counter,
    landed: Counter,
    failed: Counter,
    waits: Counter,
    /// How long all loads together took, in nanoseconds.
    time: Counter,
}

pub(crate) enum Opened {
    /// The caller leads the load, and must land it.
    Lead(Led),
    /// Another is at it.
    Wait(Arc<Shared>),
    /// This thread is at it: the key was asked for from inside its own load.
    Own,
}

/// A load that the caller leads.
#[derive(Clone, Copy)]
pub(crate) struct Led {
    hash: u64,
    pub(crate) id: u64,
    /// How many loads had been superseded when it began.
    marks: u64,
}

impl Lanes {
    /// How many loads have landed so far.
    #[inline(always)]
    pub(crate) fn landed(&self) -> u64 {
        self.landed.get(Ordering::Acquire)
    }

    /// Loads, failed ones of these, and waits.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |counter: &Counter| counter.get(Ordering::Relaxed);
        (read(&self.landed), read(&self.failed), read(&self.waits))
    }

    /// How long the loads that landed took, together.
    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_nanos(self.time.get(Ordering::Relaxed))
    }

    /// Finds the load of a key, or begins it. May run Python code, to compare.
    pub(crate) fn open<T: Sought>(&self, search: &Search<'_, T>, key: &Ref, task: bool) -> Result<Opened, Raised> {
        let me = if task { 0 } else { thread() };
        loop {
            let mut lanes = self.open.lock();
            let found = lanes.find_entry(Look::hash(search), |lane| !lane.superseded && search.is(lane.key.get()));
            if let Ok(mut found) = found {
                let lane = found.get_mut();
                if lane.fork == fork() {
                    if lane.thread == me && me != 0 {
                        return Ok(Opened::Own);
                    }
                    let (leader, id) = (lane.thread, lane.id);
                    let shared = lane.shared.get_or_insert_with(|| Arc::new(Shared::new(leader, id)));
                    let shared = shared.clone();
                    self.waits.count(Ordering::Relaxed);
                    return Ok(Opened::Wait(shared));
                }
                // Whoever was at it is in another process. (The key's reference is let go of outside of the lock.)
                let (lane, _) = found.remove();
                drop(lanes);
                drop(lane);
                continue;
            }
            if search.is_settled() {
                let id = NEXT.count(Ordering::Relaxed);
                let lane = Lane {
                    hash: Look::hash(search),
                    key: key.clone(),
                    id,
                    thread: me,
                    fork: fork(),
                    superseded: false,
                    shared: None,
                    begun: Instant::now(),
                };
                let (hash, marks) = (lane.hash, self.marks.get(Ordering::Relaxed));
                lanes.insert_unique(hash, lane, |lane| lane.hash);
                return Ok(Opened::Lead(Led { hash, id, marks }));
            }
            drop(lanes);
            search.settle()?;
        }
    }

    /// Whether a load that the caller leads may still be kept.
    pub(crate) fn is_valid(&self, led: Led) -> bool {
        // (What is marked after this look is taken out again, when the load lands.)
        self.marks.get(Ordering::Relaxed) == led.marks || {
            let lanes = self.open.lock();
            lanes
                .find(led.hash, |lane| lane.id == led.id)
                .is_some_and(|lane| !lane.superseded)
        }
    }

    /// Ends a load: who waits is handed what came of it. Returns whether it was still valid.
    pub(crate) fn land(&self, led: Led, outcome: &Outcome) -> bool {
        let lane = {
            let mut lanes = self.open.lock();
            let Ok(found) = lanes.find_entry(led.hash, |lane| lane.id == led.id) else {
                return false;
            };
            found.remove().0
        };
        if let Some(shared) = &lane.shared {
            Python::attach(|py| shared.land(py, outcome.clone()));
        }
        self.time.add(lane.begun.elapsed().as_nanos() as u64);
        if !matches!(outcome, Outcome::Value(_)) {
            self.failed.count(Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `landed`: who sees the number finds in the cache what the load left there.
        self.landed.count(Ordering::Release);
        !lane.superseded
    }

    /// The key is changed: what is being loaded for it is out of date. May run Python code.
    pub(crate) fn supersede<T: Sought>(&self, search: &Search<'_, T>) -> Result<(), Raised> {
        loop {
            {
                let mut lanes = self.open.lock();
                if lanes.is_empty() {
                    return Ok(());
                }
                if let Some(lane) =
                    lanes.find_mut(Look::hash(search), |lane| !lane.superseded && search.is(lane.key.get()))
                {
                    lane.superseded = true;
                    self.marks.count(Ordering::Relaxed);
                    return Ok(());
                }
            }
            if !search.settle()? {
                return Ok(());
            }
        }
    }

    pub(crate) fn supersede_all(&self) {
        let mut lanes = self.open.lock();
        lanes.iter_mut().for_each(|lane| lane.superseded = true);
        self.marks.count(Ordering::Relaxed);
    }
}
