//! The loads in flight of a cache, and their leaders.
//!
//! A load that no other caller waits for is an entry in a table: it costs one access under a lock
//! to begin and one to end. The first waiter attaches a [`SharedLoad`].

use super::key::{KeyQuery, MatchesKey, Search};
use crate::flight::actor::{Actor, Relation, is_finalizing};
use crate::flight::shared::{Outcome, SharedLoad, fork_count};
use crate::gil_cell::{Counter, GilCell};
use crate::objects::{Raised, Ref};
use hashbrown::HashTable;
use hotset::raw;
use pyo3::prelude::*;
use std::array;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The number of buckets of [`LoadTable::buckets`].
pub(crate) const LOAD_BUCKETS: usize = hotset::LoadBuckets::BOUNDS.len() + 1;

struct InFlight {
    hash: u64,
    key: Ref,
    id: u64,
    leader: Actor,
    /// The number of forks when it began: in another process, the leader does not exist.
    fork: u64,
    /// Whether the key has been changed: the result is returned to callers, but not stored.
    invalidated: bool,
    shared: Option<Arc<SharedLoad>>,
    /// In ticks of `raw::ticks`.
    begun: u64,
}

/// The loads in flight. The first needs no hashing and no memory of its own: mostly it is the only
/// one.
#[derive(Default)]
struct InFlightTable {
    first: Option<InFlight>,
    others: HashTable<InFlight>,
}

impl InFlightTable {
    #[inline]
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    /// Returns the load with this hash that `matches` accepts. Calls it for no other hash.
    #[inline]
    fn find(&mut self, hash: u64, mut matches: impl FnMut(&InFlight) -> bool) -> Option<&mut InFlight> {
        let mut matches = |load: &InFlight| load.hash == hash && matches(load);
        if self.first.as_ref().is_some_and(&mut matches) {
            return self.first.as_mut();
        }
        if self.others.is_empty() {
            return None;
        }
        self.others.find_mut(hash, matches)
    }

    /// Removes the load with this hash and number.
    #[inline]
    fn remove(&mut self, hash: u64, id: u64) -> Option<InFlight> {
        if self.first.as_ref().is_some_and(|load| load.id == id) {
            return self.first.take();
        }
        let found = self.others.find_entry(hash, |load| load.id == id);
        found.ok().map(|found| found.remove().0)
    }

    /// Inserts what `make` returns, which the first load's place is made in.
    #[inline(always)]
    fn insert_with(&mut self, make: impl FnOnce() -> InFlight) {
        if self.first.is_none() {
            self.first = Some(make());
        } else {
            self.insert_other(make());
        }
    }

    #[inline(never)]
    fn insert_other(&mut self, load: InFlight) {
        self.others.insert_unique(load.hash, load, |load| load.hash);
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut InFlight> {
        self.first.iter_mut().chain(self.others.iter_mut())
    }
}

/// The next number of a load in this process.
static NEXT: Counter = Counter::new();

#[derive(Default)]
pub(crate) struct LoadTable {
    in_flight: GilCell<InFlightTable>,
    completed: Counter,
    failed: Counter,
    waits: Counter,
    /// The total duration of all loads, in nanoseconds.
    time: Counter,
    /// The number of loads by duration.
    buckets: [Counter; LOAD_BUCKETS],
    /// The hashes of keys whose reload was cancelled with its task: the next caller awaits its own
    /// reload.
    cancelled_reloads: GilCell<Vec<u64>>,
}

/// The maximum number of hashes of cancelled reloads.
const MAX_CANCELLED: usize = 256;

pub(crate) enum LoadRole {
    /// The caller leads the load, and must complete it.
    Lead(LoadId),
    /// Another caller leads it; wait.
    Wait(Arc<SharedLoad>),
    /// The caller leads it already, and looked the key up from inside its own load.
    Reentrant,
    /// The caller loads for itself and stores nothing: another greenlet leads the load, or the
    /// caller must not block its thread.
    Bypass,
}

/// What a caller must do after a miss.
pub(crate) enum LoadStart<L> {
    /// Return the value, which another caller has loaded.
    Done(Ref),
    /// Load the value, and complete the load.
    Lead(L),
    /// Load the value, and store nothing.
    Bypass,
}

/// The number of a load that the caller leads. One word: so the results of the functions between a
/// miss and the call fit into registers. What went through the stack in parts and was copied as a
/// whole waited for the stores, a dozen cycles each time.
#[derive(Clone, Copy)]
pub(crate) struct LoadId(u64);

impl LoadId {
    /// Returns the load, whose key is what the caller searched for.
    #[inline(always)]
    pub(crate) fn token<T: MatchesKey>(self, search: &Search<'_, T>) -> LoadToken {
        LoadToken {
            hash: KeyQuery::hash(search),
            id: self.0,
        }
    }
}

/// A load that the caller leads.
#[derive(Clone, Copy)]
pub(crate) struct LoadToken {
    hash: u64,
    pub(crate) id: u64,
}

impl LoadToken {
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }
}

/// Abandons a load that the calling thread leads if it is dropped before the load has ended, as by
/// an error or a panic.
pub(crate) struct AbandonOnDrop<'l> {
    loads: &'l LoadTable,
    pub(crate) token: LoadToken,
}

impl<'l> AbandonOnDrop<'l> {
    pub(crate) fn new(loads: &'l LoadTable, token: LoadToken) -> Self {
        Self { loads, token }
    }

    /// Leaves the end of the load to other code.
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
    /// Returns the number of completed loads.
    #[inline(always)]
    pub(crate) fn completed(&self) -> u64 {
        self.completed.get(Ordering::Acquire)
    }

    /// Returns the numbers of loads, of failed ones among them, and of waits.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |counter: &Counter| counter.get(Ordering::Relaxed);
        (read(&self.completed), read(&self.failed), read(&self.waits))
    }

    /// Returns the total duration of completed loads.
    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_nanos(self.time.get(Ordering::Relaxed))
    }

    /// Returns the numbers of completed loads by duration, in the buckets of `hotset::LoadBuckets`.
    pub(crate) fn buckets(&self) -> [u64; LOAD_BUCKETS] {
        array::from_fn(|n| self.buckets[n].get(Ordering::Relaxed))
    }

    /// Joins the key's load in flight, or makes the caller the leader of a new one.
    ///
    /// Unless the caller `joins`, another caller's load is invalidated rather than joined. May run
    /// Python code, to compare keys.
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
            let found = table.find(KeyQuery::hash(search), |load| {
                !load.invalidated && search.matches(load.key.get())
            });
            if let Some(load) = found {
                let (leader, id) = (load.leader, load.id);
                // While the interpreter finalizes no other thread runs, so another leader will not
                // complete.
                let runs = leader.thread == me.thread || !is_finalizing();
                if load.fork == fork_count() && runs {
                    // Without the lock: this calls into Python.
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
                    // It has completed in between, so look again.
                    continue;
                }
                // Its leader is in another process, or has ended. The reference to the key is
                // dropped without the lock.
                let load = table.remove(KeyQuery::hash(search), id);
                drop(table);
                drop(load);
                continue;
            }
            if search.is_conclusive() {
                let id = NEXT.increment(Ordering::Relaxed);
                table.insert_with(|| InFlight {
                    hash: KeyQuery::hash(search),
                    key: key.clone(),
                    id,
                    leader: me,
                    fork: fork_count(),
                    invalidated: false,
                    shared: None,
                    begun: raw::ticks(),
                });
                return Ok(LoadRole::Lead(LoadId(id)));
            }
            drop(table);
            search.resolve()?;
        }
    }

    /// Invalidates a load: its result is not stored, and serves no later caller.
    fn invalidate_load(&self, hash: u64, id: u64) {
        let mut table = self.in_flight.lock();
        if let Some(load) = table.find(hash, |load| load.id == id) {
            load.invalidated = true;
        }
    }

    /// Joins a load that is in flight; `None` if it has completed.
    fn share(&self, hash: u64, id: u64) -> Option<Arc<SharedLoad>> {
        let mut table = self.in_flight.lock();
        let load = table.find(hash, |load| load.id == id)?;
        self.waits.increment(Ordering::Relaxed);
        let leader = load.leader;
        Some(
            load.shared
                .get_or_insert_with(|| Arc::new(SharedLoad::new(leader, id)))
                .clone(),
        )
    }

    /// Notes that a task was cancelled while it reloaded a key.
    pub(crate) fn note_cancelled_reload(&self, hash: u64) {
        let mut cancelled = self.cancelled_reloads.lock();
        if cancelled.len() >= MAX_CANCELLED {
            cancelled.remove(0);
        }
        cancelled.push(hash);
    }

    /// Returns whether the key's last reload was cancelled, and forgets that.
    pub(crate) fn take_cancelled_reload(&self, hash: u64) -> bool {
        let mut cancelled = self.cancelled_reloads.lock();
        let before = cancelled.len();
        cancelled.retain(|noted| *noted != hash);
        cancelled.len() < before
    }

    /// Returns whether the result of a load that the caller leads may be stored.
    pub(crate) fn is_valid(&self, token: LoadToken) -> bool {
        // A load that is invalidated after this check is found out when it completes: then its
        // result is removed.
        let mut table = self.in_flight.lock();
        table
            .find(token.hash, |load| load.id == token.id)
            .is_some_and(|load| !load.invalidated)
    }

    /// Ends a load, unless it has ended, and hands the outcome to its waiters. Returns whether the
    /// result may stay in the cache.
    pub(crate) fn complete(&self, token: LoadToken, outcome: &Outcome) -> bool {
        // Removed before the waiters are woken: a later caller finds the value in the cache, or
        // leads a load of its own. Unlocked before that, since callbacks of waiters run Python
        // code.
        let load = {
            let mut table = self.in_flight.lock();
            let Some(load) = table.remove(token.hash, token.id) else {
                return false;
            };
            load
        };
        if let Some(shared) = &load.shared {
            Python::attach(|py| shared.complete(py, outcome));
        }
        let nanos = raw::ticks_to_nanos(raw::ticks().saturating_sub(load.begun));
        self.time.add(nanos);
        self.buckets[raw::load_bucket(nanos)].increment(Ordering::Relaxed);
        if !matches!(outcome, Outcome::Value(_)) {
            self.failed.increment(Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `completed`: a thread that sees the count finds the
        // load's result in the cache.
        self.completed.increment(Ordering::Release);
        !load.invalidated
    }

    /// Invalidates the key's load in flight, because the key is changed. May run Python code, to
    /// compare keys.
    pub(crate) fn invalidate<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<(), Raised> {
        loop {
            {
                let mut table = self.in_flight.lock();
                if table.is_empty() {
                    return Ok(());
                }
                if let Some(load) = table.find(KeyQuery::hash(search), |load| {
                    !load.invalidated && search.matches(load.key.get())
                }) {
                    load.invalidated = true;
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
    }
}
