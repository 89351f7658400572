//! A loaded snapshot, whose entries are restored into the cache when they are first looked up.
//!
//! The cache has one [`SnapshotSlot`]. It holds the [`LazySnapshot`] while that has entries that
//! were neither restored nor changed. Each entry of the file's index has two bits:
//!
//! - **claimed**: a thread restores the entry, or restored or changed it. Claiming is a `fetch_or`,
//!   so each entry is restored at most once. A lookup never restores a claimed entry.
//! - **invalidated**: the key was inserted, removed or computed since the snapshot was loaded.
//!
//! # Invariants
//!
//! 1. An entry is restored at most once, by the thread that claimed it.
//! 2. An entry that was invalidated is not in the map afterwards. The restoring thread claims a
//!    slot of the map, executes a SeqCst fence, and reads the bit before it makes the slot visible.
//!    The invalidating thread sets the bit, executes a SeqCst fence, and then looks at the map. So
//!    either the restoring thread sees the bit, or the invalidating thread sees the slot, and kills
//!    it.
//! 3. A thread that finds the slot empty finds all restored entries in the map: the slot is emptied
//!    with Release after the last entry was restored or invalidated.
//!
//! The loom models `loom_snapshot_..` check them.

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

    /// Sets a bit. Returns whether it was set before.
    fn set(&self, at: usize) -> bool {
        self.0[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed) >> (at % 64) & 1 != 0
    }
}

/// One instant on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockPair {
    /// Milliseconds since 1970.
    pub(super) wall: u64,
    /// Nanoseconds of the cache's clock.
    pub(super) clock: u64,
}

impl ClockPair {
    /// Returns the current time.
    pub(super) fn now<K, V>(engine: &Engine<K, V>) -> Self {
        Self {
            wall: super::unix_millis(),
            clock: engine.time().clock.now(),
        }
    }

    /// Converts a time of the wall clock to the cache's clock. Returns 0 if it is not after this
    /// instant.
    pub(super) fn to_clock(self, wall: u64) -> u64 {
        if wall == format::NEVER {
            return u64::MAX;
        }
        match wall.checked_sub(self.wall) {
            None | Some(0) => 0,
            // `u64::MAX` would mean that the entry never expires.
            Some(left) => self
                .clock
                .saturating_add(left.saturating_mul(1_000_000))
                .min(u64::MAX - 1),
        }
    }

    /// Converts a time of the cache's clock to the wall clock.
    pub(super) fn to_wall(self, clock: u64) -> u64 {
        if clock == u64::MAX {
            return format::NEVER;
        }
        self.wall
            .saturating_add(clock.saturating_sub(self.clock) / 1_000_000)
            .min(format::NEVER - 1)
    }
}

/// Decodes an entry from the bytes of its key and its value.
type Decode<K, V> = fn(&[u8], &[u8]) -> Option<(K, V)>;

/// A loaded snapshot and the state of its entries.
pub(super) struct LazySnapshot<K, V> {
    file: SnapshotFile,
    claimed: Bits,
    invalidated: Bits,
    /// All entries are invalidated.
    closed: AtomicBool,
    /// The number of entries that are unclaimed or being restored.
    left: AtomicUsize,
    /// The cache's hashes of the keys whose entries are being restored.
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

    /// Returns offset and index of each unclaimed entry, hottest first.
    pub(super) fn places(&self) -> Vec<(u64, usize)> {
        let free = (0..self.file.len()).filter(|at| !self.is_claimed(*at));
        let mut places: Vec<_> = free.map(|at| (self.file.entry(at).1, at)).collect();
        places.sort_unstable();
        places
    }

    /// Whether a claimed entry was invalidated. Must be called after a slot of the map was claimed
    /// for it (invariant 2).
    pub(super) fn is_invalidated(&self, at: usize) -> bool {
        fence(Ordering::SeqCst); // partner: the fences in `invalidate_saved` and `close`
        self.invalidated.get(at) || self.closed.load(Ordering::Relaxed)
    }

    /// Returns the place of a key in the index, if the index has it.
    pub(super) fn search<Q: Hash + ?Sized>(&self, key: &Q) -> Option<usize> {
        self.file.search(format::key_hash(key))
    }

    /// Decodes the entry at a place of the index. Returns its key, value and record.
    pub(super) fn decode(&self, at: usize) -> Result<(K, V, Record<'_>), SnapshotError>
    where
        K: Hash,
    {
        let incompatible = |what| SnapshotError::Incompatible { what };
        let (hash, offset) = self.file.entry(at);
        let record = self.file.record(offset);
        let record = record.ok_or(SnapshotError::Corrupt { what: "a record" })?;
        let (key, value) = (self.decode)(record.key, record.value)
            .ok_or_else(|| incompatible("a key or a value cannot be decoded"))?;
        if format::key_hash(&key) != hash {
            return Err(incompatible("a key hashes differently than when it was saved"));
        }
        Ok((key, value, record))
    }
}

/// Marks an entry as being restored, until it is dropped.
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
/// The slot holds a snapshot.
const SOME: u8 = 1;
/// The slot held a snapshot and is empty.
const DONE: u8 = 2;

/// Holds the cache's loaded snapshot, if any.
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

    /// Whether entries may be in a snapshot only. Acquire pairs with the Release in `set`: a thread
    /// that sees an empty slot finds all restored entries in the map (invariant 3).
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.state.load(Ordering::Acquire) == SOME
    }

    pub(super) fn get(&self) -> Option<Arc<LazySnapshot<K, V>>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the snapshot by `new`, if `old` is `None` or the current snapshot. Returns the
    /// previous one.
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
            // Entries being restored from it are discarded: an invalidation would no longer find it
            // here.
            previous.closed.store(true, Ordering::Relaxed);
        }
        self.state.store(state, Ordering::Release); // partner: the Acquire in `is_some`
        drop(snapshot);
        previous
    }

    /// Claims an entry, to restore it. Returns `None` if it is claimed already. The cache's hash of
    /// its key is listed until the guard is dropped, so that `close` can kill the insertion.
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

    /// Invalidates the snapshot's entry for `key`. Returns whether a thread may be inserting it:
    /// the caller must then kill that insertion in the map, after this call.
    #[inline(always)]
    pub(crate) fn invalidate<Q: Hash + ?Sized>(&self, key: &Q) -> bool {
        // An entry may still be being restored after the slot was emptied: so not `is_some`.
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
        // Partner: the fence in `is_invalidated`. Either that sees the bit, or the caller sees the
        // claimed slot when it looks at the map next (invariant 2).
        fence(Ordering::SeqCst);
        true
    }

    /// Invalidates all entries and empties the slot. Calls `kill` with the cache's hash of each key
    /// that is being restored.
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

    /// Puts a snapshot into the slot. A previous one is dropped.
    pub(super) fn open(&self, snapshot: Arc<LazySnapshot<K, V>>) {
        if snapshot.file.len() == 0 {
            return self.close(|_| ());
        }
        self.set(None, Some(snapshot));
    }

    /// Empties the slot, if it holds `snapshot`.
    pub(super) fn end(&self, snapshot: &Arc<LazySnapshot<K, V>>) {
        self.set(Some(snapshot), None);
    }

    /// Counts an entry that was restored or invalidated. The last one empties the slot.
    fn finish_one(&self, snapshot: &Arc<LazySnapshot<K, V>>) {
        // AcqRel: the thread that counts the last entry has seen the insertions of all others, and
        // publishes them with the Release in `set` (invariant 3).
        if snapshot.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.set(Some(snapshot), None);
        }
    }
}

impl<K: Hash, V, S: BuildHasher> Inner<K, V, S> {
    /// Restores the key's entry, if the snapshot has an unclaimed one. The guard keeps it readable.
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
            // Another thread may have restored it since the caller missed it.
            return self.peek_alive(hash, key, self.engine.now(), guard);
        }
        self.restore_entry(&snapshot, at, |own| (own.borrow() == key).then_some(hash), guard)
            .or_else(|| self.peek_alive(hash, key, self.engine.now(), guard))
    }

    /// Restores the entry at a place of the index, if `hash` accepts its key and returns the
    /// cache's hash of it. Returns the inserted entry.
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
            None => 0, // corrupt: claimed below, so that no thread decodes it again
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
        let deadlines = time.for_restore(times, (hash, (&key, &value)), now);
        if times.is_some_and(|(deadline, max_deadline)| deadline.min(max_deadline) <= now) {
            return None;
        }
        let new = self.engine.make(hash, (key, value), weight, deadlines, guard);
        // Asked by the map once it has a slot for the entry, before that is visible (invariant 2).
        let invalidated = || snapshot.is_invalidated(at);
        let is_restored = self
            .engine
            .restore((hash, new), record.rank, snapshot.equal, invalidated, guard);
        is_restored.then_some(new)
    }
}
