//! One loader per key at a time: who comes while a key is being loaded waits for that load.
//!
//! A flight that nobody meets is only an entry in a table, for which its leader visits the table twice. Who meets it, to wait
//! for it or to overtake it, first makes a shared [`Flight`] of the entry. All that is decided under the table's lock: once
//! the leader has taken its entry out, nobody can meet it any more, and if nobody has, there is nothing to tell anyone.
//!
//! The table is in lanes, by hash. A lane's lock is held for a few instructions and never while user code runs: flights are
//! found by hash under the lock, and keys are compared and dropped outside it.
#![forbid(unsafe_code)]

mod deadlock;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(feature = "async")]
mod wakers;

use crate::prim::clock;
use crate::prim::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, fence};
use crate::stats::Stats;
use deadlock::{WaitState, Waiting};
use hashbrown::HashTable;
use std::any::Any;
use std::mem;
use std::sync::{OnceLock, PoisonError};

pub(crate) use deadlock::{ActorId, fork_child};

/// How a load ended.
pub(crate) enum Outcome<V> {
    Loaded(V),
    /// The loader's error, of whatever type.
    Failed(std::sync::Arc<dyn Any + Send + Sync>),
    /// The loader panicked, or its future was dropped before it was done.
    Abandoned,
}

/// One load of one key, as the table holds it.
struct InFlight<K, V> {
    hash: u64,
    /// No two flights of a lane have the same.
    number: u64,
    leader: ActorId,
    key: Key<K, V>,
}

enum Key<K, V> {
    /// Nobody has met the flight.
    Alone(K),
    Met(Arc<Flight<K, V>>),
    /// On its way from the one to the other.
    Moving,
}

/// One load of one key, as those see it who meet it.
pub(crate) struct Flight<K, V> {
    hash: u64,
    key: K,
    leader: ActorId,
    /// An invalidation came after the load began: its value must not enter the cache, nor serve later callers.
    invalidated: AtomicBool,
    outcome: OnceLock<Outcome<V>>,
    done: Mutex<Done>,
    wait_state: WaitState,
    landed: Condvar,
}

/// Whether a flight has landed, and the tasks to be woken when it does.
#[derive(Default)]
struct Done {
    landed: bool,
    #[cfg(feature = "async")]
    wakers: wakers::Wakers,
}

/// The most lanes of a cache, so that loads of different keys seldom need the same lock. Small caches have fewer.
const LANES: u64 = 16;

/// The loads that are going on of some of the keys, on cache lines of their own.
#[repr(align(64))]
struct Shard<K, V> {
    /// The size of `table`, so that invalidations need no lock while nothing is being loaded. Written under the lock.
    active: AtomicUsize,
    /// How many flights were met so far. Written under the lock.
    share_count: AtomicU64,
    /// How many callers were to wait for another's load.
    waits: AtomicU64,
    state: Mutex<State<K, V>>,
}

/// The open flights of a lane. The first needs no hashing, and no memory of its own: mostly there is no other.
struct Table<K, V> {
    first: Option<InFlight<K, V>>,
    others: HashTable<InFlight<K, V>>,
}

struct State<K, V> {
    table: Table<K, V>,
    next_number: u64,
    /// The leader of the flight that left last.
    last: ActorId,
    counts: Counts,
}

/// What the loads that have ended came to.
#[derive(Default)]
struct Counts {
    loads: u64,
    failures: u64,
    ticks: u64,
}

impl Counts {
    #[inline]
    fn add(&mut self, other: &Self) {
        self.loads += other.loads;
        self.failures += other.failures;
        self.ticks += other.ticks;
    }
}

/// All loads that are going on in a cache.
pub(crate) struct Flights<K, V> {
    /// Made for the first load; a power of two.
    shards: OnceLock<Box<[Shard<K, V>]>>,
    lane_count: usize,
}

/// What a caller that missed a key is to do.
pub(crate) enum Role<'f, K, V> {
    /// Load it.
    Lead {
        leader: Leader<'f, K, V>,
        /// Another thread's load of the key may have landed since this one missed it: look again, or it would load what was
        /// just loaded. (If no flight has left the lane since this thread's last one, which it led before, none has.)
        recheck: bool,
    },
    /// Wait for another's load.
    Wait(Arc<Flight<K, V>>),
}

/// No user code runs under these locks, so nothing can be half changed when one is poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> Key<K, V> {
    fn shared(&self) -> Option<&Arc<Flight<K, V>>> {
        match self {
            Self::Met(flight) => Some(flight),
            _ => None,
        }
    }
}

impl<K, V> InFlight<K, V> {
    /// The flight as others see it, and whether this call is the first to ask for it.
    fn share(&mut self) -> (Arc<Flight<K, V>>, bool) {
        let (flight, first) = match mem::replace(&mut self.key, Key::Moving) {
            Key::Alone(key) => (Arc::new(Flight::new(self.hash, key, self.leader)), true),
            Key::Met(flight) => (flight, false),
            Key::Moving => unreachable!("the lock is held until it has moved"),
        };
        self.key = Key::Met(flight.clone());
        (flight, first)
    }
}

impl<K, V> Table<K, V> {
    #[inline]
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    #[inline]
    fn insert(&mut self, open: InFlight<K, V>) {
        if self.first.is_none() {
            self.first = Some(open);
        } else {
            self.insert_other(open);
        }
    }

    #[inline(never)]
    fn insert_other(&mut self, open: InFlight<K, V>) {
        self.others.insert_unique(open.hash, open, |open| open.hash);
    }

    #[inline]
    fn remove(&mut self, hash: u64, number: u64) -> Option<InFlight<K, V>> {
        if self.first.as_ref().is_some_and(|open| open.number == number) {
            self.first.take()
        } else {
            self.remove_other(hash, number)
        }
    }

    #[inline(never)]
    fn remove_other(&mut self, hash: u64, number: u64) -> Option<InFlight<K, V>> {
        let found = self.others.find_entry(hash, |open| open.number == number);
        found.ok().map(|open| open.remove().0)
    }

    fn with_hash(&mut self, hash: u64) -> impl Iterator<Item = &mut InFlight<K, V>> {
        let all = self.first.iter_mut().chain(self.others.iter_hash_mut(hash));
        all.filter(move |open| open.hash == hash)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut InFlight<K, V>> {
        self.first.iter_mut().chain(self.others.iter_mut())
    }
}

impl<K, V> Shard<K, V> {
    fn new() -> Self {
        Self {
            active: AtomicUsize::new(0),
            share_count: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            state: Mutex::new(State {
                table: Table {
                    first: None,
                    others: HashTable::new(),
                },
                next_number: 0,
                last: ActorId::NONE,
                counts: Counts::default(),
            }),
        }
    }

    /// Whether no flight is open.
    #[inline]
    fn is_empty(&self) -> bool {
        // Acquire pairs with the Release in `leave`: who sees that a load is over sees what it did to the map. That one has
        // begun is seen through the fences; who acts on it takes the lock.
        self.active.load(Ordering::Acquire) == 0
    }

    /// Begins a flight.
    #[inline]
    fn begin(&self, mut state: MutexGuard<'_, State<K, V>>, hash: u64, key: K, leader: ActorId) -> Role<'_, K, V> {
        let number = state.next_number;
        state.next_number += 1;
        let recheck = state.last != leader && state.last != ActorId::NONE;
        let key = Key::Alone(key);
        let open = InFlight {
            hash,
            number,
            leader,
            key,
        };
        state.table.insert(open);
        // Relaxed: see the fence.
        self.active
            .store(self.active.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let share_count = self.share_count.load(Ordering::Relaxed);
        drop(state);
        fence(Ordering::SeqCst); // partner: the fence before `invalidate_fenced`, and that in `invalidate_all`
        let leader = Leader {
            shard: self,
            hash,
            number,
            share_count,
            counts: Counts::default(),
            begun: 0,
            gone: None,
        };
        Role::Lead { leader, recheck }
    }

    /// Meets some flights of this lane, whose lock the caller holds.
    fn share<'o>(&self, some: impl Iterator<Item = &'o mut InFlight<K, V>>) -> Vec<Arc<Flight<K, V>>>
    where
        K: 'o,
        V: 'o,
    {
        let mut first_shares = 0;
        let shared = some.map(|open| {
            let (flight, first) = open.share();
            first_shares += u64::from(first);
            flight
        });
        let shared = shared.collect();
        if first_shares > 0 {
            let before = self.share_count.load(Ordering::Relaxed);
            self.share_count.store(before + first_shares, Ordering::Relaxed);
        }
        shared
    }

    /// Meets the flights with this hash.
    #[cold]
    fn share_hash(&self, state: &mut State<K, V>, hash: u64) -> Vec<Arc<Flight<K, V>>> {
        self.share(state.table.with_hash(hash))
    }
}

impl<K, V> Flights<K, V> {
    /// For a cache of this capacity, in whatever unit.
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            shards: OnceLock::new(),
            lane_count: (capacity / 64).clamp(1, LANES).next_power_of_two() as usize,
        }
    }

    /// Completes the statistics with what the loads came to.
    pub(crate) fn count(&self, stats: &mut Stats) {
        let mut sum = Counts::default();
        for shard in self.shards.get().iter().flat_map(|shards| shards.iter()) {
            sum.add(&lock(&shard.state).counts);
            stats.waits += shard.waits.load(Ordering::Relaxed);
        }
        (stats.loads, stats.load_failures) = (sum.loads, sum.failures);
        stats.load_time = clock::duration(sum.ticks);
    }

    #[inline]
    fn shards(&self) -> &[Shard<K, V>] {
        self.shards
            .get_or_init(|| (0..self.lane_count).map(|_| Shard::new()).collect())
    }

    #[inline]
    fn shard(shards: &[Shard<K, V>], hash: u64) -> &Shard<K, V> {
        // A lane's table goes by the highest and the lowest bits.
        &shards[(hash >> 40) as usize & (shards.len() - 1)]
    }

    /// Joins the flight of the key, or begins one, led by `actor`.
    #[inline]
    pub(crate) fn join(&self, hash: u64, equal: impl Fn(&K) -> bool, key: K, actor: ActorId) -> Role<'_, K, V> {
        let shard = Self::shard(self.shards(), hash);
        let state = lock(&shard.state);
        if state.table.is_empty() {
            return shard.begin(state, hash, key, actor);
        }
        drop(state);
        Self::join_busy(shard, hash, equal, key, actor)
    }

    #[inline(never)]
    fn join_busy(shard: &Shard<K, V>, hash: u64, equal: impl Fn(&K) -> bool, key: K, actor: ActorId) -> Role<'_, K, V> {
        let mut seen = Vec::new();
        loop {
            let mut state = lock(&shard.state);
            let shared = shard.share_hash(&mut state, hash);
            // Those that others began since the last look may be for this key.
            if shared.iter().all(|one| seen.iter().any(|old| Arc::ptr_eq(old, one))) {
                let lead = shard.begin(state, hash, key, actor);
                drop((seen, shared)); // now: if a key's destructor panics, the leader is dropped too
                return lead;
            }
            drop(state);
            if let Some(flight) = shared.iter().find(|flight| equal(&flight.key)) {
                shard.waits.fetch_add(1, Ordering::Relaxed);
                return Role::Wait(flight.clone());
            }
            seen = shared;
        }
    }

    /// Tells loads of the key that they have been overtaken. Returns whether there were any: then a pending insertion of
    /// theirs must be killed in the map, after this.
    #[inline]
    pub(crate) fn invalidate(&self, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        // Partner: the fence in `join`. The caller has changed the load's source: either the load sees that, or it is seen
        // here. (A source behind a mutex would order this by itself; one made of atomics does not.)
        fence(Ordering::SeqCst);
        self.invalidate_fenced(hash, equal)
    }

    /// [`invalidate`](Self::invalidate) for a caller that has executed a SeqCst fence since the load's source was changed, so
    /// since it was called: `pin_fenced` is one.
    #[inline]
    pub(crate) fn invalidate_fenced(&self, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        // Lanes that are not there yet are empty, to the fences too: whoever makes them begins a flight after it.
        let Some(shards) = self.shards.get() else { return false };
        let shard = Self::shard(shards, hash);
        !shard.is_empty() && Self::invalidate_shared(shard, hash, equal)
    }

    #[cold]
    fn invalidate_shared(shard: &Shard<K, V>, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        let shared = shard.share_hash(&mut lock(&shard.state), hash);
        let mut any = false;
        for flight in shared.iter().filter(|flight| equal(&flight.key)) {
            flight.invalidated.store(true, Ordering::Relaxed);
            any = true;
        }
        // Partner: the fence in `Leader::invalidated`. Either the leader sees the meeting and the mark, or the caller, who
        // goes on to the map, sees the leader's claim there.
        fence(Ordering::SeqCst);
        any
    }

    /// Tells all loads that they have been overtaken, and calls `kill` for each, with no lock held.
    pub(crate) fn invalidate_all(&self, mut kill: impl FnMut(u64, &K)) {
        fence(Ordering::SeqCst); // as in `invalidate`
        let mut all = Vec::new();
        for shard in self.shards.get().iter().flat_map(|shards| shards.iter()) {
            if !shard.is_empty() {
                all.append(&mut shard.share(lock(&shard.state).table.iter_mut()));
            }
        }
        for flight in &all {
            flight.invalidated.store(true, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst); // as in `invalidate_shared`
        for flight in &all {
            kill(flight.hash, &flight.key);
        }
    }
}

/// The caller that runs the loader. If it is dropped without an outcome (the loader panicked, or its future was dropped),
/// the load is abandoned.
pub(crate) struct Leader<'f, K, V> {
    shard: &'f Shard<K, V>,
    hash: u64,
    number: u64,
    /// The lane's, when this flight was begun.
    share_count: u64,
    counts: Counts,
    /// The time when the load began, if it is not a closure.
    begun: u64,
    /// What the table held, once the flight has left it.
    gone: Option<Key<K, V>>,
}

/// A loader that runs; counted when it ends, however it does.
struct Running<'c> {
    counts: &'c mut Counts,
    begun: u64,
    ok: bool,
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        self.counts.ticks = clock::now().saturating_sub(self.begun);
        self.counts.loads = u64::from(self.ok);
        self.counts.failures = u64::from(!self.ok);
    }
}

impl<'f, K, V> Leader<'f, K, V> {
    /// A loader begins to run. It is counted when the flight leaves the table; as failed unless it says otherwise.
    #[inline]
    fn running(&mut self) -> Running<'_> {
        Running {
            counts: &mut self.counts,
            begun: clock::now(),
            ok: false,
        }
    }

    /// Runs the loader.
    #[inline]
    pub(crate) fn run<T, E>(&mut self, loader: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut running = self.running();
        let loaded = loader();
        running.ok = loaded.is_ok();
        loaded
    }

    /// Begins the measured time of a load that is not a closure. It is counted as failed unless [`end_run`](Self::end_run)
    /// follows.
    pub(crate) fn begin_run(&mut self) {
        self.begun = clock::now();
        self.counts.failures = 1;
    }

    /// Ends the measured time of a load that is not a closure, with a value.
    pub(crate) fn end_run(&mut self) {
        self.counts.ticks = clock::now().saturating_sub(self.begun);
        self.counts.loads = 1;
        self.counts.failures = 0;
    }

    /// Whether an invalidation came since the load began. To be asked after the claim in the map is visible.
    #[inline]
    pub(crate) fn invalidated(&self) -> bool {
        fence(Ordering::SeqCst); // partner: the fences in `invalidate_shared` and `invalidate_all`
        // Who overtakes a flight has met it, or somebody else had before. Relaxed, as is the mark: see the fence.
        self.shard.share_count.load(Ordering::Relaxed) != self.share_count && self.marked()
    }

    #[cold]
    fn marked(&self) -> bool {
        let mut state = lock(&self.shard.state);
        let own = state.table.with_hash(self.hash).find(|open| open.number == self.number);
        own.and_then(|own| own.key.shared())
            .is_some_and(|flight| flight.invalidated.load(Ordering::Relaxed))
    }

    /// Takes the flight out of the table, unless that is done: nobody can meet it any more. Runs no user code.
    #[inline]
    fn leave(&mut self) {
        if self.gone.is_none() {
            self.leave_table();
        }
    }

    fn leave_table(&mut self) {
        let mut state = lock(&self.shard.state);
        state.counts.add(&self.counts);
        if let Some(open) = state.table.remove(self.hash, self.number) {
            state.last = open.leader;
            self.gone = Some(open.key);
            // Release: see `Shard::is_empty`.
            self.shard
                .active
                .store(self.shard.active.load(Ordering::Relaxed) - 1, Ordering::Release);
        }
    }

    /// Makes the flight leave the table when this is dropped.
    #[inline]
    pub(crate) fn leave_on_drop(&mut self) -> LeaveOnDrop<'_, 'f, K, V> {
        LeaveOnDrop(self)
    }

    /// Ends the flight. `outcome` is asked for only if somebody has met it, and maybe waits.
    #[inline]
    pub(crate) fn complete(&mut self, outcome: impl FnOnce() -> Outcome<V>) {
        self.leave();
        if let Some(flight) = self.gone.as_ref().and_then(Key::shared) {
            flight.complete(outcome());
        }
    }
}

impl<K, V> Drop for Leader<'_, K, V> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
        if let Some(flight) = self.gone.as_ref().and_then(Key::shared) {
            flight.complete(Outcome::Abandoned);
        }
    }
}

/// A leader that is about to leave. See [`Leader::leaving`].
pub(crate) struct LeaveOnDrop<'l, 'f, K, V>(&'l mut Leader<'f, K, V>);

impl<K, V> LeaveOnDrop<'_, '_, K, V> {
    /// See [`Leader::invalidated`].
    #[inline]
    pub(crate) fn invalidated(&self) -> bool {
        self.0.invalidated()
    }
}

impl<K, V> Drop for LeaveOnDrop<'_, '_, K, V> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl<K, V> Flight<K, V> {
    fn new(hash: u64, key: K, leader: ActorId) -> Self {
        Self {
            hash,
            key,
            leader,
            invalidated: AtomicBool::new(false),
            outcome: OnceLock::new(),
            done: Mutex::new(Done::default()),
            wait_state: WaitState::new(),
            landed: Condvar::new(),
        }
    }

    /// Gives those who wait the outcome, unless they have one.
    #[cold]
    fn complete(&self, outcome: Outcome<V>) {
        if self.outcome.set(outcome).is_ok() {
            self.wait_state.end();
            let mut done = lock(&self.done);
            done.landed = true;
            #[cfg(feature = "async")]
            let wakers = mem::take(&mut done.wakers);
            drop(done);
            self.landed.notify_all();
            // Last, and under no lock: this is user code.
            #[cfg(feature = "async")]
            wakers.wake();
        }
    }

    /// Waits for the outcome. `Err` if that would never come. `Ok(None)`: the load was overtaken before this caller came;
    /// it must look again.
    pub(crate) fn wait(&self) -> Result<Option<&Outcome<V>>, Reentrant> {
        let invalidated = self.invalidated.load(Ordering::Relaxed);
        let mut done = lock(&self.done);
        if !done.landed {
            drop(done);
            let _waiting = Waiting::begin(self.leader, &self.wait_state)?;
            done = lock(&self.done);
            while !done.landed {
                done = self.landed.wait(done).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(done);
        Ok(if invalidated { None } else { self.outcome.get() })
    }
}

/// See [`LoadError::Reentrant`](crate::LoadError::Reentrant).
#[derive(Debug)]
pub(crate) struct Reentrant;
