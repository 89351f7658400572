//! Single flight: one loader per key at a time. A caller that misses a key that is being loaded
//! waits for that load.
//!
//! Main types: [`Flights`] (all loads of a cache), [`Leader`] (the caller that runs the loader),
//! [`Flight`] (a load that other callers share), [`Joined`] (the result of joining), [`ActorId`] (a
//! thread or a future that leads or waits).
//!
//! # States
//!
//! A load is an entry of a shard's table, an [`InFlight`]. It is *unshared* until another caller
//! joins or invalidates it, which makes a [`Flight`] of it (*shared*). Its leader takes it out of
//! the table once the map has decided about the entry (*left*), and gives the waiters an
//! [`Outcome`] (*completed*; *abandoned* if the loader panicked or its future was dropped). An
//! invalidation marks a shared flight as *invalidated*: its value enters no map, and serves no
//! caller that comes later.
//!
//! An unshared load costs two visits of the table. Sharing is decided under the shard's lock: once
//! the leader has taken its entry out, no caller can share it any more. If none has, there are no
//! waiters to notify.
//!
//! # Invariants
//!
//! Numbers are those of ARCHITECTURE.md, section 4.
//! - 18: at most one flight per key is open.
//! - 19: a flight leaves its shard after the map has decided about its entry, and before listeners
//!   run. So a caller that misses the flight finds the entry, and a listener may load the same key.
//! - 20: of a load and an invalidation, at least one sees the other.
//! - 21: no wake-up of a waiting thread or task is lost.
//!
//! # Why an invalidation beats a load
//!
//! Three pairs of accesses ensure invariant 20:
//! - Source: the leader opens its flight, fences, and reads the source; the caller of an
//!   invalidation changes the source, fences, and checks for flights.
//! - Claim: the leader claims a slot in the map, fences, and checks for the mark; an invalidation
//!   marks the flight, fences, and kills or removes the entry.
//! - Exit: the leader commits, then leaves the shard (Release); an invalidation that finds the
//!   shard empty (Acquire) finds the entry in the map.
//!
//! # Locks
//!
//! The table is in shards, by hash. A shard's lock is held for a few instructions, and never while
//! user code runs (invariant 10): flights are found by hash under the lock; keys are compared and
//! dropped outside it. `shared` has the flights that callers share, `deadlock` finds wait cycles,
//! `tasks` and `wakers` are for futures.
#![forbid(unsafe_code)]

mod deadlock;
#[cfg(all(test, loom))]
mod loom_tests;
mod shared;
#[cfg(feature = "async")]
mod tasks;
#[cfg(feature = "async")]
mod wakers;

use crate::prim::clock;
use crate::prim::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, fence};
use crate::stats::{LoadBuckets, Stats};
use hashbrown::HashTable;
use shared::lock;
use std::mem;
use std::sync::OnceLock;

pub(crate) use deadlock::{ActorId, Reentrant, fork_child};
pub(crate) use shared::{Flight, Outcome};

/// A load of a key, as the table holds it.
struct InFlight<K, V> {
    hash: u64,
    /// Unique among the loads of the shard.
    number: u64,
    leader: ActorId,
    sharing: Sharing<K, V>,
}

/// The key of a load, by itself or in a flight that others share.
enum Sharing<K, V> {
    /// No other caller has joined or invalidated the load.
    Unshared(K),
    /// Another caller has.
    Shared(Arc<Flight<K, V>>),
    /// Between the two, while the shard's lock is held.
    Converting,
}

/// Maximum number of shards of a cache, so that loads of different keys seldom need the same lock.
/// Small caches have fewer.
const MAX_SHARDS: u64 = 16;

/// The loads in flight of some of the keys, on cache lines of their own.
#[repr(align(64))]
struct Shard<K, V> {
    /// The size of `table`, so that invalidations need no lock while the shard has no loads.
    /// Written under the lock.
    active: AtomicUsize,
    /// Number of loads that became shared so far. Written under the lock.
    share_count: AtomicU64,
    /// Number of calls that waited for another caller's load.
    waits: AtomicU64,
    state: Mutex<ShardState<K, V>>,
}

/// The loads in flight of a shard. The first needs no hashing and no memory of its own: mostly it
/// is the only one.
struct Table<K, V> {
    first: Option<InFlight<K, V>>,
    others: HashTable<InFlight<K, V>>,
}

/// The fields under a shard's lock.
struct ShardState<K, V> {
    table: Table<K, V>,
    next_number: u64,
    /// The leader of the load that left last.
    last: ActorId,
    counts: ShardCounts,
}

/// Statistics of the loads that have ended, or of one.
#[derive(Default)]
struct Counts {
    loads: u64,
    failures: u64,
    ticks: u64,
}

/// The statistics of the loads that have left a shard.
#[derive(Default)]
struct ShardCounts {
    sum: Counts,
    buckets: LoadBuckets,
}

impl ShardCounts {
    /// Adds the counts of a load. Runs under the shard's lock, so plain additions suffice.
    #[inline]
    fn add(&mut self, one: &Counts) {
        self.sum.loads += one.loads;
        self.sum.failures += one.failures;
        self.sum.ticks += one.ticks;
        // A leader that found the value in the map has run no loader.
        if one.loads + one.failures != 0 {
            self.buckets.count(clock::to_nanos(one.ticks));
        }
    }
}

/// All loads in flight of a cache.
pub(crate) struct Flights<K, V> {
    /// Allocated for the first load; a power of two.
    shards: OnceLock<Box<[Shard<K, V>]>>,
    shard_count: usize,
}

/// The part of a caller that joined the load of a key it missed.
pub(crate) enum Joined<'f, K, V> {
    /// It leads: it loads the key.
    Lead {
        leader: Leader<'f, K, V>,
        /// Another thread may have completed a load of the key after this caller missed it. Then
        /// the caller checks the map again, or it would load what was just loaded. (False if no
        /// load has left the shard since this thread's last one: that one came before the miss.)
        recheck: bool,
    },
    /// It waits for another caller's load.
    Wait(Arc<Flight<K, V>>),
}

impl<K, V> Sharing<K, V> {
    /// Returns the flight, if the load is shared.
    fn shared(&self) -> Option<&Arc<Flight<K, V>>> {
        match self {
            Self::Shared(flight) => Some(flight),
            _ => None,
        }
    }
}

impl<K, V> InFlight<K, V> {
    /// Returns the flight, which this makes if the load is unshared, and whether it did.
    fn share(&mut self) -> (Arc<Flight<K, V>>, bool) {
        let (flight, first) = match mem::replace(&mut self.sharing, Sharing::Converting) {
            Sharing::Unshared(key) => (Arc::new(Flight::new(self.hash, key, self.leader)), true),
            Sharing::Shared(flight) => (flight, false),
            Sharing::Converting => unreachable!("the lock is held until it has moved"),
        };
        self.sharing = Sharing::Shared(flight.clone());
        (flight, first)
    }
}

impl<K, V> Table<K, V> {
    #[inline]
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    #[inline]
    fn insert(&mut self, in_flight: InFlight<K, V>) {
        if self.first.is_none() {
            self.first = Some(in_flight);
        } else {
            self.insert_other(in_flight);
        }
    }

    #[inline(never)]
    fn insert_other(&mut self, in_flight: InFlight<K, V>) {
        self.others
            .insert_unique(in_flight.hash, in_flight, |in_flight| in_flight.hash);
    }

    #[inline]
    fn remove(&mut self, hash: u64, number: u64) -> Option<InFlight<K, V>> {
        if self.first.as_ref().is_some_and(|in_flight| in_flight.number == number) {
            self.first.take()
        } else {
            self.remove_other(hash, number)
        }
    }

    #[inline(never)]
    fn remove_other(&mut self, hash: u64, number: u64) -> Option<InFlight<K, V>> {
        let found = self.others.find_entry(hash, |in_flight| in_flight.number == number);
        found.ok().map(|in_flight| in_flight.remove().0)
    }

    /// Returns the loads with this hash.
    fn with_hash(&mut self, hash: u64) -> impl Iterator<Item = &mut InFlight<K, V>> {
        let all = self.first.iter_mut().chain(self.others.iter_hash_mut(hash));
        all.filter(move |in_flight| in_flight.hash == hash)
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
            state: Mutex::new(ShardState {
                table: Table {
                    first: None,
                    others: HashTable::new(),
                },
                next_number: 0,
                last: ActorId::NONE,
                counts: ShardCounts::default(),
            }),
        }
    }

    /// Returns whether the shard has no loads.
    #[inline]
    fn is_empty(&self) -> bool {
        // Acquire pairs with the Release in `leave_table`: a thread that sees that a load has left
        // sees what it did to the map (invariant 20, exit). That a load has begun is seen through
        // the fences; a thread that acts on it takes the lock.
        self.active.load(Ordering::Acquire) == 0
    }

    /// Begins a load, which the caller leads. Takes the guard of this shard's lock.
    #[inline]
    fn begin(
        &self,
        mut state: MutexGuard<'_, ShardState<K, V>>,
        hash: u64,
        key: K,
        leader: ActorId,
    ) -> Joined<'_, K, V> {
        let number = state.next_number;
        state.next_number += 1;
        // Only a load that left after the caller missed the key can have loaded it since. This
        // thread's own last load left before that.
        let recheck = state.last != leader && state.last != ActorId::NONE;
        let sharing = Sharing::Unshared(key);
        let in_flight = InFlight {
            hash,
            number,
            leader,
            sharing,
        };
        state.table.insert(in_flight);
        // Relaxed: the fence below orders it.
        self.active
            .store(self.active.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // Under the lock: a later count means that a load of this shard became shared since, maybe
        // this one.
        let share_count = self.share_count.load(Ordering::Relaxed);
        drop(state);
        // Invariant 20, source: the load is in the table before its loader reads the source.
        // Partners: the fence before `invalidate_fenced`, and the first one in `invalidate_all`.
        fence(Ordering::SeqCst);
        let leader = Leader {
            shard: self,
            hash,
            number,
            share_count,
            counts: Counts::default(),
            begun: None,
            removed: None,
        };
        Joined::Lead { leader, recheck }
    }

    /// Shares some loads of this shard, whose lock the caller holds, and counts those that were
    /// unshared.
    fn share<'o>(&self, some: impl Iterator<Item = &'o mut InFlight<K, V>>) -> Vec<Arc<Flight<K, V>>>
    where
        K: 'o,
        V: 'o,
    {
        let mut first_shares = 0;
        let shared = some.map(|in_flight| {
            let (flight, first) = in_flight.share();
            first_shares += u64::from(first);
            flight
        });
        let shared = shared.collect();
        if first_shares > 0 {
            // The leaders compare this count, and take the lock only if it has changed.
            let before = self.share_count.load(Ordering::Relaxed);
            self.share_count.store(before + first_shares, Ordering::Relaxed);
        }
        shared
    }

    /// Shares the loads with this hash.
    #[cold]
    fn share_hash(&self, state: &mut ShardState<K, V>, hash: u64) -> Vec<Arc<Flight<K, V>>> {
        self.share(state.table.with_hash(hash))
    }
}

impl<K, V> Flights<K, V> {
    /// Returns the loads of a cache of this capacity, in its unit.
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            shards: OnceLock::new(),
            shard_count: (capacity / 64).clamp(1, MAX_SHARDS).next_power_of_two() as usize,
        }
    }

    /// Fills in the statistics of loads.
    pub(crate) fn fill_stats(&self, stats: &mut Stats) {
        let mut ticks = 0;
        for shard in self.shards.get().iter().flat_map(|shards| shards.iter()) {
            let state = lock(&shard.state);
            let counts = &state.counts;
            stats.loads += counts.sum.loads;
            stats.load_failures += counts.sum.failures;
            ticks += counts.sum.ticks;
            stats.load_buckets.add(&counts.buckets);
            stats.waits += shard.waits.load(Ordering::Relaxed);
        }
        stats.load_time = clock::duration(ticks);
    }

    /// Returns the shards, which the first call allocates.
    #[inline]
    fn shards(&self) -> &[Shard<K, V>] {
        self.shards
            .get_or_init(|| (0..self.shard_count).map(|_| Shard::new()).collect())
    }

    /// Returns the shard of a hash.
    #[inline]
    fn shard(shards: &[Shard<K, V>], hash: u64) -> &Shard<K, V> {
        // Not the highest and the lowest bits, which the shard's hash table uses.
        &shards[(hash >> 40) as usize & (shards.len() - 1)]
    }

    /// Joins the load of the key if there is one. Begins one otherwise, led by `actor`.
    #[inline]
    pub(crate) fn join(&self, hash: u64, equal: impl Fn(&K) -> bool, key: K, actor: ActorId) -> Joined<'_, K, V> {
        let shard = Self::shard(self.shards(), hash);
        let state = lock(&shard.state);
        // The fast path: no keys to compare, so the lock is taken once.
        if state.table.is_empty() {
            return shard.begin(state, hash, key, actor);
        }
        drop(state);
        Self::join_busy(shard, hash, equal, key, actor)
    }

    /// [`join`](Self::join) in a shard that has loads.
    #[inline(never)]
    fn join_busy(
        shard: &Shard<K, V>,
        hash: u64,
        equal: impl Fn(&K) -> bool,
        key: K,
        actor: ActorId,
    ) -> Joined<'_, K, V> {
        let mut compared = Vec::new();
        loop {
            let mut state = lock(&shard.state);
            let shared = shard.share_hash(&mut state, hash);
            // Loads that other callers began since the last pass may be for this key. If all were
            // compared, none is: begin one, under the same lock (invariant 18).
            if shared
                .iter()
                .all(|one| compared.iter().any(|old| Arc::ptr_eq(old, one)))
            {
                let lead = shard.begin(state, hash, key, actor);
                // Dropped here: if a key's destructor panics, the leader is dropped too.
                drop((compared, shared));
                return lead;
            }
            drop(state);
            // Outside the lock: `equal` is user code (invariant 10).
            if let Some(flight) = shared.iter().find(|flight| equal(&flight.key)) {
                shard.waits.fetch_add(1, Ordering::Relaxed);
                return Joined::Wait(flight.clone());
            }
            compared = shared;
        }
    }

    /// Marks loads of the key as invalidated. Returns whether there were any: then the caller must
    /// afterwards kill their pending insertions in the map.
    #[inline]
    pub(crate) fn invalidate(&self, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        // Partner: the fence in `Shard::begin`. The caller has changed the source of the load.
        // Either the load sees that, or it is seen here (invariant 20, source). A source behind a
        // mutex would order this by itself; one made of atomics does not.
        fence(Ordering::SeqCst);
        self.invalidate_fenced(hash, equal)
    }

    /// [`invalidate`](Self::invalidate) for a caller that has executed a SeqCst fence since the
    /// source was changed, so within the call: `pin_fenced` is one.
    #[inline]
    pub(crate) fn invalidate_fenced(&self, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        // Shards that are not allocated yet are empty, for the fences too: the thread that
        // allocates them begins a load afterwards.
        let Some(shards) = self.shards.get() else { return false };
        let shard = Self::shard(shards, hash);
        !shard.is_empty() && Self::invalidate_shared(shard, hash, equal)
    }

    /// [`invalidate_fenced`](Self::invalidate_fenced) in a shard that has loads.
    #[cold]
    fn invalidate_shared(shard: &Shard<K, V>, hash: u64, equal: impl Fn(&K) -> bool) -> bool {
        let shared = shard.share_hash(&mut lock(&shard.state), hash);
        let mut any = false;
        for flight in shared.iter().filter(|flight| equal(&flight.key)) {
            // Relaxed: the fence below orders it.
            flight.invalidated.store(true, Ordering::Relaxed);
            any = true;
        }
        // Partner: the fence in `Leader::invalidated`. Either the leader sees the share count and
        // the mark, or the caller, which continues in the map, sees the leader's claim there
        // (invariant 20, claim).
        fence(Ordering::SeqCst);
        any
    }

    /// Marks all loads as invalidated, and calls `kill` for each, with no lock held.
    pub(crate) fn invalidate_all(&self, mut kill: impl FnMut(u64, &K)) {
        // As in `invalidate`.
        fence(Ordering::SeqCst);
        let mut all = Vec::new();
        for shard in self.shards.get().iter().flat_map(|shards| shards.iter()) {
            if !shard.is_empty() {
                all.append(&mut shard.share(lock(&shard.state).table.iter_mut()));
            }
        }
        for flight in &all {
            flight.invalidated.store(true, Ordering::Relaxed);
        }
        // As in `invalidate_shared`.
        fence(Ordering::SeqCst);
        for flight in &all {
            kill(flight.hash, &flight.key);
        }
    }
}

/// The caller that runs the loader. Dropped without an outcome (the loader panicked, or its future
/// was dropped), it abandons the load.
pub(crate) struct Leader<'f, K, V> {
    shard: &'f Shard<K, V>,
    hash: u64,
    number: u64,
    /// The shard's count when this load began.
    share_count: u64,
    /// Added to the shard's when the load leaves it.
    counts: Counts,
    /// The time when the load began, if it is not a closure and has not ended.
    begun: Option<u64>,
    /// What the table held, once the load has left it.
    removed: Option<Sharing<K, V>>,
}

/// Counts and times a loader that runs, however it ends.
struct LoadTimer<'c> {
    counts: &'c mut Counts,
    begun: u64,
    ok: bool,
}

impl Drop for LoadTimer<'_> {
    #[inline]
    fn drop(&mut self) {
        self.counts.ticks = clock::now().saturating_sub(self.begun);
        self.counts.loads = u64::from(self.ok);
        self.counts.failures = u64::from(!self.ok);
    }
}

impl<'f, K, V> Leader<'f, K, V> {
    /// Starts to time a loader. It is counted when the load leaves the table: as failed, unless
    /// `ok` is set.
    #[inline]
    fn start_timer(&mut self) -> LoadTimer<'_> {
        LoadTimer {
            counts: &mut self.counts,
            begun: clock::now(),
            ok: false,
        }
    }

    /// Runs the loader, and counts and times it.
    #[inline]
    pub(crate) fn run<T, E>(&mut self, loader: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut timer = self.start_timer();
        let loaded = loader();
        timer.ok = loaded.is_ok();
        loaded
    }

    /// Starts to time a load that is not a closure. It is counted as failed unless
    /// [`end_run`](Self::end_run) follows.
    pub(crate) fn begin_run(&mut self) {
        self.begun = Some(clock::now());
        self.counts.failures = 1;
    }

    /// Stops the time of a load that is not a closure, if it has begun and not ended.
    #[inline]
    fn stop_time(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.counts.ticks = clock::now().saturating_sub(begun);
        }
    }

    /// Stops the time of a load that is not a closure, and counts it as successful.
    pub(crate) fn end_run(&mut self) {
        self.stop_time();
        self.counts.loads = 1;
        self.counts.failures = 0;
    }

    /// Returns whether an invalidation came since the load began. Must be called after the claim in
    /// the map is visible.
    #[inline]
    pub(crate) fn invalidated(&self) -> bool {
        // Invariant 20, claim. Partners: the fence in `invalidate_shared`, and the second one in
        // `invalidate_all`.
        fence(Ordering::SeqCst);
        // An invalidation shares the load before it marks it, unless another caller has shared it
        // before. So an unchanged count means no mark, without the lock. Relaxed, as is the mark:
        // see the fence.
        self.shard.share_count.load(Ordering::Relaxed) != self.share_count && self.invalidated_slow()
    }

    /// Reads the mark, under the lock.
    #[cold]
    fn invalidated_slow(&self) -> bool {
        let mut state = lock(&self.shard.state);
        let own = state
            .table
            .with_hash(self.hash)
            .find(|in_flight| in_flight.number == self.number);
        own.and_then(|own| own.sharing.shared())
            .is_some_and(|flight| flight.invalidated.load(Ordering::Relaxed))
    }

    /// Takes the load out of the table, unless that is done: no caller can share it afterwards
    /// (invariant 19). Runs no user code.
    #[inline]
    fn leave(&mut self) {
        if self.removed.is_none() {
            self.leave_table();
        }
    }

    /// [`leave`](Self::leave) for a load that is in the table.
    fn leave_table(&mut self) {
        self.stop_time();
        let mut state = lock(&self.shard.state);
        state.counts.add(&self.counts);
        if let Some(in_flight) = state.table.remove(self.hash, self.number) {
            state.last = in_flight.leader;
            self.removed = Some(in_flight.sharing);
            // Release pairs with the Acquire in `Shard::is_empty`: the map's decision comes before.
            self.shard
                .active
                .store(self.shard.active.load(Ordering::Relaxed) - 1, Ordering::Release);
        }
    }

    /// Returns a guard that takes the load out of the table when it is dropped.
    #[inline]
    pub(crate) fn leave_on_drop(&mut self) -> LeaveOnDrop<'_, 'f, K, V> {
        LeaveOnDrop(self)
    }

    /// Completes the load. `outcome` is called only if the load is shared: a caller may be waiting.
    #[inline]
    pub(crate) fn complete(&mut self, outcome: impl FnOnce() -> Outcome<V>) {
        self.leave();
        // The load has left, so the waiters are all that there will be.
        if let Some(flight) = self.removed.as_ref().and_then(Sharing::shared) {
            flight.complete(outcome());
        }
    }
}

impl<K, V> Drop for Leader<'_, K, V> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
        // After `complete`, the flight has an outcome, and keeps it.
        if let Some(flight) = self.removed.as_ref().and_then(Sharing::shared) {
            flight.complete(Outcome::Abandoned);
        }
    }
}

/// A leader whose load leaves the table when this is dropped. See [`Leader::leave_on_drop`].
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
