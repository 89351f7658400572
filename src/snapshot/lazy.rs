//! A snapshot whose entries have not all been asked for: they come into the cache one by one, each at most once.
//!
//! A key that was asked for, inserted, removed or computed since the snapshot was loaded is *taken*: the snapshot has nothing to say
//! of it any more. Who takes a key to bring its entry in may be overtaken by an insertion or a removal, as a load
//! may: that is marked too, and looked at when the map has a claim for the entry but has not decided yet.

use super::codec::EntryCodec;
use super::error::SnapshotError;
use super::file::SnapshotFile;
use super::format::{self, Record};
use crate::cache::Inner;
use crate::engine::{Engine, Handle};
use crate::prim::sync::{Arc, AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Mutex, Ordering, RwLock, fence};
use crate::reclaim::Guard;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::PoisonError;

/// One bit for each entry of the index.
struct Bits(Vec<AtomicU64>);

impl Bits {
    fn new(n: usize) -> Self {
        Self((0..n.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn get(&self, at: usize) -> bool {
        self.0[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 != 0
    }

    /// Sets a bit; whether it was set.
    fn set(&self, at: usize) -> bool {
        self.0[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed) >> (at % 64) & 1 != 0
    }
}

/// A moment on both clocks: milliseconds since 1970, and nanoseconds of the cache's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockPair {
    pub(super) wall: u64,
    pub(super) clock: u64,
}

impl ClockPair {
    /// This one.
    pub(super) fn now<K, V>(engine: &Engine<K, V>) -> Self {
        Self {
            wall: super::unix_millis(),
            clock: engine.time().clock.now(),
        }
    }

    /// A moment of the wall clock, on the cache's; 0 if it is not after this one.
    pub(super) fn to_clock(self, wall: u64) -> u64 {
        if wall == format::NEVER {
            return u64::MAX;
        }
        match wall.checked_sub(self.wall) {
            None | Some(0) => 0,
            // (Not the end of time, which would be no end.)
            Some(left) => self
                .clock
                .saturating_add(left.saturating_mul(1_000_000))
                .min(u64::MAX - 1),
        }
    }

    /// A moment of the cache's clock, on the wall.
    pub(super) fn to_wall(self, clock: u64) -> u64 {
        if clock == u64::MAX {
            return format::NEVER;
        }
        self.wall
            .saturating_add(clock.saturating_sub(self.clock) / 1_000_000)
            .min(format::NEVER - 1)
    }
}

/// Makes an entry of the bytes of its key and its value.
type Decode<K, V> = fn(&[u8], &[u8]) -> Option<(K, V)>;

/// A loaded snapshot.
pub(super) struct LazySnapshot<K, V> {
    file: SnapshotFile,
    claimed: Bits,
    invalidated: Bits,
    /// All of it is overtaken.
    closed: AtomicBool,
    /// How many entries are not taken, or on their way into the cache.
    left: AtomicUsize,
    /// The cache's hashes of the keys whose entries are on their way.
    restoring: Mutex<Vec<u64>>,
    now: ClockPair,
    decode: Decode<K, V>,
    equal: fn(&K, &K) -> bool,
}

impl<K, V> LazySnapshot<K, V> {
    pub(super) fn new<C: EntryCodec<K, V>>(file: SnapshotFile, now: ClockPair) -> Self
    where
        K: Eq,
    {
        let n = file.len();
        Self {
            file,
            claimed: Bits::new(n),
            invalidated: Bits::new(n),
            closed: AtomicBool::new(false),
            left: AtomicUsize::new(n),
            restoring: Mutex::new(Vec::new()),
            now,
            decode: C::decode,
            equal: K::eq,
        }
    }

    pub(super) fn file(&self) -> &SnapshotFile {
        &self.file
    }

    pub(super) fn now(&self) -> ClockPair {
        self.now
    }

    pub(super) fn is_claimed(&self, at: usize) -> bool {
        self.claimed.get(at) || self.closed.load(Ordering::Relaxed)
    }

    /// The places of what is not taken, with the offsets of their records, hottest first.
    pub(super) fn places(&self) -> Vec<(u64, usize)> {
        let free = (0..self.file.len()).filter(|at| !self.is_claimed(*at));
        let mut places: Vec<_> = free.map(|at| (self.file.entry(at).1, at)).collect();
        places.sort_unstable();
        places
    }

    /// Whether an entry that was taken has been overtaken. To be asked once the claim for it in the map is visible.
    pub(super) fn is_invalidated(&self, at: usize) -> bool {
        fence(Ordering::SeqCst); // partner: the fences in `invalidate_saved` and `close`
        self.invalidated.get(at) || self.closed.load(Ordering::Relaxed)
    }

    /// Where in the index a key is, if it is there.
    pub(super) fn search<Q: Hash + ?Sized>(&self, key: &Q) -> Option<usize> {
        self.file.search(format::key_hash(key))
    }

    /// Key and value of an entry of the index, and its record; or what is wrong with it.
    pub(super) fn decode(&self, at: usize) -> Result<(K, V, Record<'_>), SnapshotError>
    where
        K: Hash,
    {
        let foreign = |what| SnapshotError::Incompatible { what };
        let (hash, offset) = self.file.entry(at);
        let record = self.file.record(offset);
        let record = record.ok_or(SnapshotError::Corrupt { what: "a record" })?;
        let (key, value) =
            (self.decode)(record.key, record.value).ok_or_else(|| foreign("a key or a value cannot be decoded"))?;
        if format::key_hash(&key) != hash {
            return Err(foreign("a key hashes otherwise than when it was saved"));
        }
        Ok((key, value, record))
    }
}

/// An entry is on its way from the snapshot into the cache.
pub(super) struct RestoreGuard<'s, K, V> {
    slot: &'s SnapshotSlot<K, V>,
    snapshot: &'s Arc<LazySnapshot<K, V>>,
    hash: u64,
}

impl<K, V> Drop for RestoreGuard<'_, K, V> {
    fn drop(&mut self) {
        let mut restoring = self.snapshot.restoring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = restoring.iter().position(|hash| *hash == self.hash) {
            restoring.swap_remove(at);
        }
        drop(restoring);
        self.slot.finish_one(self.snapshot);
    }
}

/// No snapshot was ever loaded.
const NONE_EVER: u8 = 0;
/// There is one with entries that were not taken.
const SOME: u8 = 1;
/// There is none any more.
const DONE: u8 = 2;

/// The cache's snapshot, if there is one.
pub(crate) struct SnapshotSlot<K, V> {
    state: AtomicU8,
    snapshot: RwLock<Option<Arc<LazySnapshot<K, V>>>>,
}

impl<K, V> SnapshotSlot<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(NONE_EVER),
            snapshot: RwLock::new(None),
        }
    }

    /// Whether entries may be in a snapshot only. Acquire pairs with the Release in `set`: who sees that there are none
    /// finds in the map what came in.
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.state.load(Ordering::Acquire) == SOME
    }

    pub(super) fn get(&self) -> Option<Arc<LazySnapshot<K, V>>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts `new` in the place of the snapshot, if that is `old` where one is named.
    fn set(
        &self,
        old: Option<&Arc<LazySnapshot<K, V>>>,
        new: Option<Arc<LazySnapshot<K, V>>>,
    ) -> Option<Arc<LazySnapshot<K, V>>> {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = old
            && snapshot.as_ref().is_none_or(|snapshot| !Arc::ptr_eq(snapshot, old))
        {
            return None;
        }
        let state = match (&*snapshot, &new) {
            (None, None) => self.state.load(Ordering::Relaxed),
            (Some(_), None) => DONE,
            (_, Some(_)) => SOME,
        };
        let previous = std::mem::replace(&mut *snapshot, new);
        if let Some(previous) = &previous {
            // What is on its way from it no longer comes in: nobody could find it here to overtake it.
            previous.closed.store(true, Ordering::Relaxed);
        }
        self.state.store(state, Ordering::Release); // partner: the Acquire in `is_some`
        drop(snapshot);
        previous
    }

    /// Takes an entry, to bring it in: listed, with the cache's hash of its key, until the flight is dropped. `None` if it was
    /// taken.
    pub(super) fn claim<'s>(
        &'s self,
        snapshot: &'s Arc<LazySnapshot<K, V>>,
        at: usize,
        hash: u64,
    ) -> Option<RestoreGuard<'s, K, V>> {
        if snapshot.claimed.set(at) {
            return None;
        }
        let mut restoring = snapshot.restoring.lock().unwrap_or_else(PoisonError::into_inner);
        restoring.push(hash);
        drop(restoring);
        let slot = self;
        Some(RestoreGuard { slot, snapshot, hash })
    }

    /// The key is changed: what a snapshot says of it no longer counts. Whether an insertion from a snapshot may be pending:
    /// then it must be killed in the map, after this.
    #[inline(always)]
    pub(crate) fn invalidate<Q: Hash + ?Sized>(&self, key: &Q) -> bool {
        // (Once there was one, one of its entries may be on its way for a while.)
        self.state.load(Ordering::Acquire) != NONE_EVER && self.invalidate_saved(key)
    }

    #[cold]
    #[inline(never)]
    fn invalidate_saved<Q: Hash + ?Sized>(&self, key: &Q) -> bool {
        if let Some(snapshot) = self.get()
            && let Some(at) = snapshot.search(key)
        {
            snapshot.invalidated.set(at);
            if !snapshot.claimed.set(at) {
                self.finish_one(&snapshot);
            }
        }
        // Partner: the fence in `is_invalidated`. Either that sees the mark, or the caller, who goes on to the map, sees its
        // claim there.
        fence(Ordering::SeqCst);
        true
    }

    /// All keys are changed. `kill` gets the cache's hashes of what is on its way.
    pub(crate) fn close(&self, mut kill: impl FnMut(u64)) {
        if let Some(previous) = self.set(None, None) {
            fence(Ordering::SeqCst); // partner: as in `invalidate_saved`
            let restoring = previous
                .restoring
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            restoring.into_iter().for_each(&mut kill);
        }
    }

    /// Another snapshot takes the place of the former one, if there is one.
    pub(super) fn open(&self, snapshot: Arc<LazySnapshot<K, V>>) {
        if snapshot.file.len() == 0 {
            return self.close(|_| ());
        }
        self.set(None, Some(snapshot));
    }

    /// The snapshot is of no more use.
    pub(super) fn end(&self, snapshot: &Arc<LazySnapshot<K, V>>) {
        self.set(Some(snapshot), None);
    }

    /// An entry has been taken, and what was done with it is done. The last one ends the snapshot.
    fn finish_one(&self, snapshot: &Arc<LazySnapshot<K, V>>) {
        // AcqRel: who takes the last one away has all the others behind it, and says so with Release.
        if snapshot.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.set(Some(snapshot), None);
        }
    }
}

impl<K: Hash, V, S: BuildHasher> Inner<K, V, S> {
    /// Brings the key's entry in from the snapshot, if that has one that has not been taken. It is readable under the guard.
    #[cold]
    #[inline(never)]
    pub(crate) fn restore_on_miss<Q>(&self, hash: u64, key: &Q, guard: &Guard) -> Option<Handle>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let snapshot = self.snapshot_slot.get()?;
        let at = snapshot.search(key)?;
        if snapshot.is_claimed(at) {
            // Another thread may have brought it in since it was missed.
            return self.peek_alive(hash, key, self.engine.now(), guard);
        }
        self.restore_entry(&snapshot, at, |own| (own.borrow() == key).then_some(hash), guard)
            .or_else(|| self.peek_alive(hash, key, self.engine.now(), guard))
    }

    /// Brings in the entry at a place of the index, if `hash` says that it is the one, and what its hash is.
    pub(super) fn restore_entry(
        &self,
        snapshot: &Arc<LazySnapshot<K, V>>,
        at: usize,
        hash: impl FnOnce(&K) -> Option<u64>,
        guard: &Guard,
    ) -> Option<Handle> {
        let decoded = snapshot.decode(at).ok();
        let hash = match &decoded {
            Some((key, ..)) => hash(key)?,
            None => 0, // damaged: it is taken, so that nobody looks again
        };
        let _restoring = self.snapshot_slot.claim(snapshot, at, hash)?;
        let (key, value, record) = decoded?;
        let time = self.engine.time();
        let timed = record.times.is_some() || time.is_active();
        let now = if timed { time.clock.now() } else { 0 };
        let times = record
            .times
            .map(|(deadline, max_deadline)| (snapshot.now.to_clock(deadline), snapshot.now.to_clock(max_deadline)));
        let weight = self.weigh(&key, &value);
        let life = time.for_restore(times, (hash, (&key, &value)), now);
        if times.is_some_and(|(deadline, max_deadline)| deadline.min(max_deadline) <= now) {
            return None;
        }
        let new = self.engine.make(hash, (key, value), weight, life, guard);
        let invalidated = || snapshot.is_invalidated(at);
        let is_restored = self
            .engine
            .restore((hash, new), record.rank, snapshot.equal, invalidated, guard);
        is_restored.then_some(new)
    }
}
