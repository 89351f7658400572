//! One loader per key at a time: who comes while a key is being loaded waits for that load.
//!
//! The table of flights is behind a mutex that is held for a few instructions and never while user code runs: flights
//! are found by hash under the lock, and their keys compared after it.

#[cfg(all(test, loom))]
mod model;

use crate::prim::sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, ThreadId, current, fence,
};
use hashbrown::HashTable;
use std::any::Any;
use std::ptr;
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How a load ended.
pub(crate) enum Outcome<V> {
    Loaded(V),
    /// The loader's error, of whatever type.
    Failed(std::sync::Arc<dyn Any + Send + Sync>),
    /// The loader panicked.
    Abandoned,
}

/// One load of one key.
pub(crate) struct Flight<K, V> {
    hash: u64,
    key: K,
    leader: ThreadId,
    /// An invalidation came after the load began: its value must not enter the cache, nor serve later callers.
    superseded: AtomicBool,
    outcome: OnceLock<Outcome<V>>,
    done: Mutex<bool>,
    landing: Landing,
    landed: Condvar,
}

/// All loads that are going on in a cache.
pub(crate) struct Flights<K, V> {
    table: Mutex<HashTable<Arc<Flight<K, V>>>>,
    /// The size of `table`, so that invalidations need no lock while nothing is being loaded.
    active: AtomicUsize,
    pub(crate) loads: AtomicU64,
    pub(crate) failures: AtomicU64,
    nanos: AtomicU64,
}

/// What a caller that missed a key is to do.
pub(crate) enum Role<'f, K, V> {
    /// Load it.
    Lead(Leader<'f, K, V>),
    /// Wait for another's load.
    Wait(Arc<Flight<K, V>>),
}

/// No user code runs under these locks, so nothing can be half changed when one is poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            table: Mutex::new(HashTable::new()),
            active: AtomicUsize::new(0),
            loads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        }
    }

    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// The flights with this hash.
    fn of_hash(&self, hash: u64) -> Vec<Arc<Flight<K, V>>> {
        // Relaxed: who misses a flight here finds it under the lock when it wants to begin its own.
        if self.active.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        lock(&self.table)
            .iter_hash(hash)
            .filter(|flight| flight.hash == hash)
            .cloned()
            .collect()
    }

    /// Joins the flight of the key, or begins one. `key` is called at most once.
    pub(crate) fn join(&self, hash: u64, equal: impl Fn(&K) -> bool, key: impl FnOnce() -> K) -> Role<'_, K, V> {
        let mut seen = self.of_hash(hash);
        if let Some(flight) = seen.iter().find(|flight| equal(&flight.key)) {
            return Role::Wait(flight.clone());
        }
        let flight = Arc::new(Flight {
            hash,
            key: key(),
            leader: current().id(),
            superseded: AtomicBool::new(false),
            outcome: OnceLock::new(),
            done: Mutex::new(false),
            landing: Landing::new(false),
            landed: Condvar::new(),
        });
        loop {
            {
                let mut table = lock(&self.table);
                let new = |one: &Arc<Flight<K, V>>| one.hash == hash && !seen.iter().any(|old| Arc::ptr_eq(old, one));
                if !table.iter_hash(hash).any(new) {
                    table.insert_unique(hash, flight.clone(), |one| one.hash);
                    self.active.fetch_add(1, Ordering::Relaxed);
                    drop(table);
                    fence(Ordering::SeqCst); // partner: the fence in `supersede`
                    return Role::Lead(Leader {
                        flights: self,
                        flight,
                        begun: Instant::now(),
                    });
                }
            }
            // Others with this hash came in since: are they for this key?
            seen = self.of_hash(hash);
            if let Some(other) = seen.iter().find(|other| equal(&other.key)) {
                return Role::Wait(other.clone());
            }
        }
    }

    /// Tells loads of the key that they have been overtaken. Returns whether there were any: then a pending insertion of
    /// theirs must be killed in the map, after this.
    #[inline]
    pub(crate) fn supersede(&self, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        // Partner: the fence in `join`. The caller has changed the load's source: either the load sees that, or it is seen
        // here. (A source behind a mutex would order this by itself; one made of atomics does not.)
        fence(Ordering::SeqCst);
        if self.active.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.supersede_slow(hash, equal)
    }

    #[cold]
    fn supersede_slow(&self, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        let mut any = false;
        for flight in self.of_hash(hash) {
            if equal(&flight.key) {
                flight.superseded.store(true, Ordering::Relaxed);
                any = true;
            }
        }
        // Partner: the fence in `Leader::superseded`. Either the leader sees the mark, or the caller, who goes on to the
        // map, sees the leader's claim there.
        fence(Ordering::SeqCst);
        any
    }

    /// Tells all loads that they have been overtaken, and calls `kill` for each, with no lock held.
    pub(crate) fn supersede_all(&self, mut kill: impl FnMut(u64, &K)) {
        let all: Vec<_> = lock(&self.table).iter().cloned().collect();
        for flight in &all {
            flight.superseded.store(true, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst); // as in `supersede_slow`
        for flight in &all {
            kill(flight.hash, &flight.key);
        }
    }
}

/// The caller that runs the loader. If it is dropped without an outcome (the loader panicked), the load is abandoned.
pub(crate) struct Leader<'f, K, V> {
    flights: &'f Flights<K, V>,
    flight: Arc<Flight<K, V>>,
    begun: Instant,
}

impl<K, V> Leader<'_, K, V> {
    /// Whether an invalidation came since the load began. To be asked after the claim in the map is visible.
    pub(crate) fn superseded(&self) -> bool {
        fence(Ordering::SeqCst); // partner: the fences in `supersede_slow` and `supersede_all`
        self.flight.superseded.load(Ordering::Relaxed)
    }

    /// Counts the end of the loader.
    pub(crate) fn loaded(&self, ok: bool) {
        let counter = if ok {
            &self.flights.loads
        } else {
            &self.flights.failures
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let nanos = self.begun.elapsed().as_nanos() as u64;
        self.flights.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Ends the flight. `outcome` is asked for only if somebody may be waiting.
    pub(crate) fn land(self, outcome: impl FnOnce() -> Outcome<V>) {
        self.leave_table();
        if Arc::strong_count(&self.flight) > 1 {
            let _ = self.flight.outcome.set(outcome());
        }
        // `drop` wakes the waiters.
    }

    fn leave_table(&self) {
        let removed = {
            let mut table = lock(&self.flights.table);
            let found = table.find_entry(self.flight.hash, |one| Arc::ptr_eq(one, &self.flight));
            found.ok().map(|entry| entry.remove().0)
        };
        if removed.is_some() {
            self.flights.active.fetch_sub(1, Ordering::Relaxed);
        }
        drop(removed); // not under the lock: it may be the last to hold the key
    }
}

impl<K, V> Drop for Leader<'_, K, V> {
    fn drop(&mut self) {
        self.leave_table();
        let _ = self.flight.outcome.set(Outcome::Abandoned);
        if Arc::strong_count(&self.flight) > 1 {
            Waiting::end(&self.flight.landing);
        }
        *lock(&self.flight.done) = true;
        self.flight.landed.notify_all();
    }
}

/// Who waits for whom, in the whole process, so that a ring of loaders is told from a slow one.
static WAITING: std::sync::Mutex<Vec<Wait>> = std::sync::Mutex::new(Vec::new());

struct Wait {
    waiter: ThreadId,
    leader: ThreadId,
    /// The address of the flight's `landing`.
    flight: usize,
}

/// Whether a flight's waiters wait no more, though they may not have woken up yet. Touched only under `WAITING`.
type Landing = std::sync::atomic::AtomicBool;

struct Waiting(ThreadId);

impl Waiting {
    /// Registers that this thread waits for `leader`; `None` if that thread, directly or not, waits for this one.
    fn begin(leader: ThreadId, landing: &Landing) -> Option<Self> {
        let me = current().id();
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if landing.load(Ordering::Relaxed) {
            return Some(Self(me));
        }
        let mut at = leader;
        loop {
            if at == me {
                return None;
            }
            match waiting.iter().find(|wait| wait.waiter == at) {
                Some(wait) => at = wait.leader,
                None => break,
            }
        }
        waiting.push(Wait {
            waiter: me,
            leader,
            flight: ptr::from_ref(landing).addr(),
        });
        Some(Self(me))
    }

    /// The flight is about to land: who waited for it waits for nobody now. Else its leader could take a waiter that has
    /// yet to wake up for one that waits for the leader's next steps.
    fn end(landing: &Landing) {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        landing.store(true, Ordering::Relaxed);
        waiting.retain(|wait| wait.flight != ptr::from_ref(landing).addr());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = waiting.iter().position(|wait| wait.waiter == self.0) {
            waiting.swap_remove(index);
        }
    }
}

impl<K, V> Flight<K, V> {
    /// Waits for the outcome. `Err` if that would never come. `Ok(None)`: the load was overtaken before this caller came;
    /// it must look again.
    pub(crate) fn wait(&self) -> Result<Option<&Outcome<V>>, Reentrant> {
        let overtaken = self.superseded.load(Ordering::Relaxed);
        let mut done = lock(&self.done);
        if !*done {
            drop(done);
            let _waiting = Waiting::begin(self.leader, &self.landing).ok_or(Reentrant)?;
            done = lock(&self.done);
            while !*done {
                done = self.landed.wait(done).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(done);
        Ok(if overtaken { None } else { self.outcome.get() })
    }
}

/// See [`LoadError::Reentrant`](crate::LoadError::Reentrant).
#[derive(Debug)]
pub(crate) struct Reentrant;
