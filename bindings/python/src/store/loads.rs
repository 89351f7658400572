//! Loads that are going on, and who leads them.
//!
//! A load that nobody meets is a line in a table: it costs a look under a lock to put it there, and one to take it out. Who does
//! meet it, to wait for it, makes it a shared [`Flight`].

use super::key::{KeyQuery, MatchesKey, Search};
use crate::flight::actor::{Actor, Relation, is_finalizing};
use crate::flight::shared::{Outcome, Shared, fork};
use crate::gil_cell::{Counter, Locked};
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
    leader: Actor,
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
    /// By hash, reloads of tasks that were cancelled: the next caller awaits its own.
    interrupted: Locked<Vec<u64>>,
}

/// The most hashes of cancelled reloads that are remembered.
const MOST_INTERRUPTED: usize = 256;

pub(crate) enum Opened {
    /// The caller leads the load, and must land it.
    Lead(Led),
    /// Another is at it.
    Wait(Arc<Shared>),
    /// The caller leads it already: the key was looked up from inside its own load.
    Own,
    /// Another greenlet leads it, or the caller is one that must not block its thread: it loads for itself, and keeps nothing.
    Aside,
}

/// What a caller that found nothing is to do.
pub(crate) enum Begun {
    /// Nothing: another one has loaded the value.
    Done(Ref),
    /// It loads, and must land that.
    Lead(Led),
    /// It loads for itself, and keeps nothing.
    Aside,
}

/// A load that the caller leads.
#[derive(Clone, Copy)]
pub(crate) struct Led {
    hash: u64,
    pub(crate) id: u64,
    /// How many loads had been superseded when it began.
    marks: u64,
}

impl Led {
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }
}

/// A load that the calling thread leads: abandoned if it is dropped before it has ended, whatever happens in between.
pub(crate) struct Leading<'l> {
    lanes: &'l Lanes,
    pub(crate) led: Led,
}

impl<'l> Leading<'l> {
    pub(crate) fn new(lanes: &'l Lanes, led: Led) -> Self {
        Self { lanes, led }
    }

    /// Something else ends it.
    pub(crate) fn hand_over(self) -> Led {
        std::mem::ManuallyDrop::new(self).led
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.lanes.land(self.led, &Outcome::Abandoned);
    }
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

    /// Finds the load of a key, or begins it. Unless the caller `joins`, another's load is invalidated instead of waited for. May run
    /// Python code, to compare.
    pub(super) fn open<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        task: bool,
        joins: bool,
    ) -> Result<Opened, Raised> {
        let me = Actor::current(task);
        loop {
            let mut lanes = self.open.lock();
            let found = lanes.find_entry(KeyQuery::hash(search), |lane| {
                !lane.superseded && search.matches(lane.key.get())
            });
            if let Ok(mut found) = found {
                let lane = found.get_mut();
                let (leader, id) = (lane.leader, lane.id);
                // In an interpreter that ends no other thread runs any more.
                let runs = leader.thread == me.thread || !is_finalizing();
                if lane.fork == fork() && runs {
                    // (No lock is held any more: this calls into Python.)
                    drop(lanes);
                    let relation = if task { Relation::Other } else { me.relation(leader) };
                    match relation {
                        Relation::Own => return Ok(Opened::Own),
                        Relation::Aside => return Ok(Opened::Aside),
                        Relation::Other if !joins => {
                            self.mark(KeyQuery::hash(search), id);
                            continue;
                        }
                        Relation::Other => {}
                    }
                    if let Some(shared) = self.share(KeyQuery::hash(search), id) {
                        return Ok(Opened::Wait(shared));
                    }
                    // It has landed in between.
                    continue;
                }
                // Its leader is in another process, or gone. (The key's reference is dropped outside of the lock.)
                let (lane, _) = found.remove();
                drop(lanes);
                drop(lane);
                continue;
            }
            if search.is_conclusive() {
                let id = NEXT.count(Ordering::Relaxed);
                let lane = Lane {
                    hash: KeyQuery::hash(search),
                    key: key.clone(),
                    id,
                    leader: me,
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
            search.resolve()?;
        }
    }

    /// What this load brings is not kept, and serves no later caller.
    fn mark(&self, hash: u64, id: u64) {
        let mut lanes = self.open.lock();
        if let Some(lane) = lanes.find_mut(hash, |lane| lane.id == id) {
            lane.superseded = true;
            self.marks.count(Ordering::Relaxed);
        }
    }

    /// Joins a load that is in progress.
    fn share(&self, hash: u64, id: u64) -> Option<Arc<Shared>> {
        let mut lanes = self.open.lock();
        let lane = lanes.find_mut(hash, |lane| lane.id == id)?;
        self.waits.count(Ordering::Relaxed);
        let leader = lane.leader;
        Some(
            lane.shared
                .get_or_insert_with(|| Arc::new(Shared::new(leader, id)))
                .clone(),
        )
    }

    /// A task that reloaded this key was cancelled.
    pub(crate) fn note_interrupted(&self, hash: u64) {
        let mut interrupted = self.interrupted.lock();
        if interrupted.len() >= MOST_INTERRUPTED {
            interrupted.remove(0);
        }
        interrupted.push(hash);
    }

    /// Whether the last reload of this key was cancelled; forgets it.
    pub(crate) fn take_interrupted(&self, hash: u64) -> bool {
        let mut interrupted = self.interrupted.lock();
        let before = interrupted.len();
        interrupted.retain(|noted| *noted != hash);
        interrupted.len() < before
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

    /// Ends a load, unless it has ended: its waiters are handed the outcome. Returns whether it may be kept.
    pub(crate) fn land(&self, led: Led, outcome: &Outcome) -> bool {
        let lane = {
            let mut lanes = self.open.lock();
            let Ok(found) = lanes.find_entry(led.hash, |lane| lane.id == led.id) else {
                return false;
            };
            found.remove().0
        };
        if let Some(shared) = &lane.shared {
            Python::attach(|py| shared.land(py, outcome));
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
    pub(crate) fn supersede<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<(), Raised> {
        loop {
            {
                let mut lanes = self.open.lock();
                if lanes.is_empty() {
                    return Ok(());
                }
                if let Some(lane) = lanes.find_mut(KeyQuery::hash(search), |lane| {
                    !lane.superseded && search.matches(lane.key.get())
                }) {
                    lane.superseded = true;
                    self.marks.count(Ordering::Relaxed);
                    return Ok(());
                }
            }
            if !search.resolve()? {
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
