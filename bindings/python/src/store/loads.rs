//! Loads that are going on, and who leads them.
//!
//! A load that nobody meets is a line in a table: it costs a look under a lock to put it there, and one to take it out. Who does
//! meet it, to wait for it, makes it a shared [`Flight`].

use super::key::{KeyQuery, MatchesKey, Search};
use crate::flight::actor::{Actor, Relation, is_finalizing};
use crate::flight::shared::{Outcome, SharedLoad, fork_count};
use crate::gil_cell::{Counter, GilCell};
use crate::objects::{Raised, Ref};
use hashbrown::HashTable;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

struct InFlight {
    hash: u64,
    key: Ref,
    id: u64,
    leader: Actor,
    /// The process that it began in.
    fork: u64,
    /// The key was changed meanwhile: what is loaded is handed out, but not kept.
    invalidated: bool,
    shared: Option<Arc<SharedLoad>>,
    begun: Instant,
}

/// Numbers all loads of the process.
static NEXT: Counter = Counter::new();

#[derive(Default)]
pub(crate) struct LoadTable {
    in_flight: GilCell<HashTable<InFlight>>,
    /// How many loads were superseded so far.
    invalidations: Counter,
    completed: Counter,
    failed: Counter,
    waits: Counter,
    /// How long all loads together took, in nanoseconds.
    time: Counter,
    /// By hash, reloads of tasks that were cancelled: the next caller awaits its own.
    cancelled_reloads: GilCell<Vec<u64>>,
}

/// The most hashes of cancelled reloads that are remembered.
const MAX_CANCELLED: usize = 256;

pub(crate) enum LoadRole {
    /// The caller leads the load, and must land it.
    Lead(LoadToken),
    /// Another is at it.
    Wait(Arc<SharedLoad>),
    /// The caller leads it already: the key was looked up from inside its own load.
    Reentrant,
    /// Another greenlet leads it, or the caller is one that must not block its thread: it loads for itself, and keeps nothing.
    Bypass,
}

/// What a caller that found nothing is to do.
pub(crate) enum LoadStart {
    /// Nothing: another one has loaded the value.
    Done(Ref),
    /// It loads, and must land that.
    Lead(LoadToken),
    /// It loads for itself, and keeps nothing.
    Bypass,
}

/// A load that the caller leads.
#[derive(Clone, Copy)]
pub(crate) struct LoadToken {
    hash: u64,
    pub(crate) id: u64,
    /// How many loads had been superseded when it began.
    invalidations: u64,
}

impl LoadToken {
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }
}

/// A load that the calling thread leads: abandoned if it is dropped before it has ended, whatever happens in between.
pub(crate) struct AbandonOnDrop<'l> {
    loads: &'l LoadTable,
    pub(crate) token: LoadToken,
}

impl<'l> AbandonOnDrop<'l> {
    pub(crate) fn new(loads: &'l LoadTable, token: LoadToken) -> Self {
        Self { loads, token }
    }

    /// Something else ends it.
    pub(crate) fn disarm(self) -> LoadToken {
        std::mem::ManuallyDrop::new(self).token
    }
}

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.loads.complete(self.token, &Outcome::Abandoned);
    }
}

impl LoadTable {
    /// How many loads have landed so far.
    #[inline(always)]
    pub(crate) fn completed(&self) -> u64 {
        self.completed.get(Ordering::Acquire)
    }

    /// Loads, failed ones of these, and waits.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |counter: &Counter| counter.get(Ordering::Relaxed);
        (read(&self.completed), read(&self.failed), read(&self.waits))
    }

    /// How long the loads that landed took, together.
    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_nanos(self.time.get(Ordering::Relaxed))
    }

    /// Finds the load of a key, or begins it. Unless the caller `joins`, another's load is invalidated instead of waited for. May run
    /// Python code, to compare.
    pub(super) fn join_or_lead<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        key: &Ref,
        task: bool,
        joins: bool,
    ) -> Result<LoadRole, Raised> {
        let me = Actor::current(task);
        loop {
            let mut table = self.in_flight.lock();
            let found = table.find_entry(KeyQuery::hash(search), |load| {
                !load.invalidated && search.matches(load.key.get())
            });
            if let Ok(mut found) = found {
                let load = found.get_mut();
                let (leader, id) = (load.leader, load.id);
                // In an interpreter that ends no other thread runs any more.
                let runs = leader.thread == me.thread || !is_finalizing();
                if load.fork == fork_count() && runs {
                    // (No lock is held any more: this calls into Python.)
                    drop(table);
                    let relation = if task { Relation::Other } else { me.relation(leader) };
                    match relation {
                        Relation::Own => return Ok(LoadRole::Reentrant),
                        Relation::Bypass => return Ok(LoadRole::Bypass),
                        Relation::Other if !joins => {
                            self.invalidate_load(KeyQuery::hash(search), id);
                            continue;
                        }
                        Relation::Other => {}
                    }
                    if let Some(shared) = self.share(KeyQuery::hash(search), id) {
                        return Ok(LoadRole::Wait(shared));
                    }
                    // It has landed in between.
                    continue;
                }
                // Its leader is in another process, or gone. (The key's reference is dropped outside of the lock.)
                let (load, _) = found.remove();
                drop(table);
                drop(load);
                continue;
            }
            if search.is_conclusive() {
                let id = NEXT.increment(Ordering::Relaxed);
                let load = InFlight {
                    hash: KeyQuery::hash(search),
                    key: key.clone(),
                    id,
                    leader: me,
                    fork: fork_count(),
                    invalidated: false,
                    shared: None,
                    begun: Instant::now(),
                };
                let (hash, invalidations) = (load.hash, self.invalidations.get(Ordering::Relaxed));
                table.insert_unique(hash, load, |load| load.hash);
                return Ok(LoadRole::Lead(LoadToken {
                    hash,
                    id,
                    invalidations,
                }));
            }
            drop(table);
            search.resolve()?;
        }
    }

    /// What this load brings is not kept, and serves no later caller.
    fn invalidate_load(&self, hash: u64, id: u64) {
        let mut table = self.in_flight.lock();
        if let Some(load) = table.find_mut(hash, |load| load.id == id) {
            load.invalidated = true;
            self.invalidations.increment(Ordering::Relaxed);
        }
    }

    /// Joins a load that is in progress.
    fn share(&self, hash: u64, id: u64) -> Option<Arc<SharedLoad>> {
        let mut table = self.in_flight.lock();
        let load = table.find_mut(hash, |load| load.id == id)?;
        self.waits.increment(Ordering::Relaxed);
        let leader = load.leader;
        Some(
            load.shared
                .get_or_insert_with(|| Arc::new(SharedLoad::new(leader, id)))
                .clone(),
        )
    }

    /// A task that reloaded this key was cancelled.
    pub(crate) fn note_cancelled_reload(&self, hash: u64) {
        let mut interrupted = self.cancelled_reloads.lock();
        if interrupted.len() >= MAX_CANCELLED {
            interrupted.remove(0);
        }
        interrupted.push(hash);
    }

    /// Whether the last reload of this key was cancelled; forgets it.
    pub(crate) fn take_cancelled_reload(&self, hash: u64) -> bool {
        let mut interrupted = self.cancelled_reloads.lock();
        let before = interrupted.len();
        interrupted.retain(|noted| *noted != hash);
        interrupted.len() < before
    }

    /// Whether a load that the caller leads may still be kept.
    pub(crate) fn is_valid(&self, token: LoadToken) -> bool {
        // (What is marked after this look is taken out again, when the load lands.)
        self.invalidations.get(Ordering::Relaxed) == token.invalidations || {
            let table = self.in_flight.lock();
            table
                .find(token.hash, |load| load.id == token.id)
                .is_some_and(|load| !load.invalidated)
        }
    }

    /// Ends a load, unless it has ended: its waiters are handed the outcome. Returns whether it may be kept.
    pub(crate) fn complete(&self, token: LoadToken, outcome: &Outcome) -> bool {
        let load = {
            let mut table = self.in_flight.lock();
            let Ok(found) = table.find_entry(token.hash, |load| load.id == token.id) else {
                return false;
            };
            found.remove().0
        };
        if let Some(shared) = &load.shared {
            Python::attach(|py| shared.complete(py, outcome));
        }
        self.time.add(load.begun.elapsed().as_nanos() as u64);
        if !matches!(outcome, Outcome::Value(_)) {
            self.failed.increment(Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `landed`: who sees the number finds in the cache what the load left there.
        self.completed.increment(Ordering::Release);
        !load.invalidated
    }

    /// The key is changed: what is being loaded for it is out of date. May run Python code.
    pub(crate) fn invalidate<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<(), Raised> {
        loop {
            {
                let mut table = self.in_flight.lock();
                if table.is_empty() {
                    return Ok(());
                }
                if let Some(load) = table.find_mut(KeyQuery::hash(search), |load| {
                    !load.invalidated && search.matches(load.key.get())
                }) {
                    load.invalidated = true;
                    self.invalidations.increment(Ordering::Relaxed);
                    return Ok(());
                }
            }
            if !search.resolve()? {
                return Ok(());
            }
        }
    }

    pub(crate) fn invalidate_all(&self) {
        let mut table = self.in_flight.lock();
        table.iter_mut().for_each(|load| load.invalidated = true);
        self.invalidations.increment(Ordering::Relaxed);
    }
}
