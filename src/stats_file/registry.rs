//! The named caches of this process, and the rewriting of its stats file.
//!
//! A call that claims the [pulse](crate::prim::pulse) rewrites the file, unless another thread does
//! or a name is being registered: it only tries the registry's lock. The lock is held while the
//! figures are read and written; no user code runs under it, and no handle on a cache is dropped.

use super::error::{Reason, StatsFileError};
use super::format::{
    self, BUCKETS, COUNTERS, Counter, Language, POINTS, RECORD, SAMPLES, SLOT_HEADER, SlotHeader, TIER2, UNKNOWN,
};
use super::system::{self, PerProcess};
use super::writer::{Writer, unix_nanos};
use crate::prim::panics::Panics;
use crate::prim::pulse;
use crate::stats::{LoadBuckets, Stats};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;
use std::{env, mem};

pub use super::format::Record;

/// A cache whose figures are in the stats file.
pub trait Source: Send + Sync {
    /// Writes the figures of the cache into `record`. Called with a lock held: it must neither wait
    /// nor run user code.
    fn fill(&self, record: &mut Record);

    /// Has the calls on the cache look for the pulse from now on. Called with a lock held, as
    /// [`fill`](Self::fill) is.
    fn observe(&self);

    /// Removes all entries, as the request `request` demands for the cache `id`. Called without a
    /// lock. Returns whether that was done; if not, the source calls [`answer_request`] later.
    fn clear(&self, request: u64, id: u64) -> bool;
}

impl Record {
    /// Replaces the counts of lookups: `count` gets hits and misses, and returns hits, misses and
    /// waits.
    pub fn set_lookups(&mut self, count: impl FnOnce(u64, u64) -> (u64, u64, u64)) {
        let (hits, misses) = (
            self.counters[Counter::Hits as usize],
            self.counters[Counter::Misses as usize],
        );
        let (hits, misses, waits) = count(hits, misses);
        for (counter, count) in [
            (Counter::Hits, hits),
            (Counter::Misses, misses),
            (Counter::Waits, waits),
        ] {
            self.counters[counter as usize] = count;
        }
    }

    /// Replaces the counts of loads: those that returned a value, those that failed, the total
    /// duration of both, and their number in each of the buckets of [`LoadBuckets`].
    pub fn set_loads(&mut self, loads: u64, failures: u64, time: Duration, buckets: &[u64]) {
        let bounds = LoadBuckets::BOUNDS.iter().map(|bound| bound.as_nanos() as u64);
        let buckets = buckets.iter().take(BUCKETS).zip(bounds.chain([UNKNOWN]));
        self.bucket_count = 0;
        for (number, (count, bound)) in buckets.enumerate() {
            (self.buckets.0[number], self.buckets.1[number]) = (bound, *count);
            self.bucket_count = number + 1;
        }
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(UNKNOWN - 1);
        for (counter, count) in [
            (Counter::Loads, loads),
            (Counter::LoadFailures, failures),
            (Counter::LoadNanos, nanos),
        ] {
            self.counters[counter as usize] = count;
        }
    }

    /// Sets the figures of the second tier: reads that it answered, and that it did not; writes and
    /// invalidations that it did not confirm; those that it did.
    pub fn set_tier2(&mut self, hits: u64, misses: u64, failures: u64, writes: u64, invalidations: u64) {
        let mut figures = [UNKNOWN; TIER2];
        figures[..5].copy_from_slice(&[hits, misses, failures, writes, invalidations]);
        self.tier2 = Some(figures);
    }

    /// Sets the miss-ratio curve: of each point the capacity, the hit ratio from 0 to 1, and the
    /// bytes. Points beyond the eighth are left out.
    pub fn set_curve(&mut self, points: impl IntoIterator<Item = (u64, f64, u64)>) {
        let points = points.into_iter().filter(|point| (0.0..=1.0).contains(&point.1));
        self.point_count = 0;
        for point in points.take(POINTS) {
            self.points[self.point_count] = point;
            self.point_count += 1;
        }
    }

    /// Writes what every cache knows.
    pub fn set(&mut self, stats: &Stats, weighted: bool, (entries, weight, capacity): (u64, u64, Option<u64>)) {
        self.weighted = weighted;
        self.entries = entries;
        self.weight = weight;
        self.capacity = capacity.unwrap_or(UNKNOWN);
        for (counter, count) in [
            (Counter::Hits, stats.hits),
            (Counter::Misses, stats.misses),
            (Counter::Waits, stats.waits),
            (Counter::Insertions, stats.insertions),
            (Counter::StaleHits, stats.stale_hits),
            (Counter::Evictions, stats.evictions),
            (Counter::EvictedWeight, stats.evicted_weight),
            (Counter::Rejections, stats.rejections),
            (Counter::Expirations, stats.expirations),
        ] {
            self.counters[counter as usize] = count;
        }
        self.set_loads(
            stats.loads,
            stats.load_failures,
            stats.load_time,
            stats.load_buckets.counts(),
        );
    }
}

/// The samples of a cache: a ring of the latest.
struct Samples {
    all: [format::Sample; SAMPLES],
    /// The number of samples that were ever added.
    added: usize,
    /// When the last one was added, and the counters at that time.
    last: Option<(u64, u64, u64)>,
}

impl Samples {
    fn add(&mut self, now: u64, hits: u64, misses: u64) {
        if self.last.is_some_and(|(then, ..)| now.saturating_sub(then) < SAMPLE) {
            return; // part of the next one
        }
        if let Some((then, old_hits, old_misses)) = self.last {
            // A counter that was reset counts from 0.
            let more = |new: u64, old: u64| u32::try_from(new.checked_sub(old).unwrap_or(new)).unwrap_or(u32::MAX);
            self.all[self.added % SAMPLES] = format::Sample {
                millis: u32::try_from(now.saturating_sub(then) / 1_000_000).unwrap_or(u32::MAX),
                hits: more(hits, old_hits),
                misses: more(misses, old_misses),
            };
            self.added += 1;
        }
        self.last = Some((now, hits, misses));
    }

    /// Returns the samples, oldest first.
    fn iter(&self) -> impl Iterator<Item = format::Sample> {
        let first = self.added.saturating_sub(SAMPLES);
        (first..self.added).map(|number| self.all[number % SAMPLES])
    }
}

/// A named cache.
struct Entry {
    id: u64,
    name: String,
    /// Unix time in nanoseconds.
    created: u64,
    source: Arc<dyn Source>,
    /// Whether the child of a fork uses the cache as well.
    survives_fork: bool,
    /// What the parent had counted at the fork.
    inherited: Option<Box<Record>>,
    samples: Samples,
}

impl Entry {
    fn read(&self) -> Record {
        let mut record = Record {
            id: self.id,
            created: self.created,
            ..Record::default()
        };
        self.source.fill(&mut record);
        if let Some(inherited) = &self.inherited {
            record.subtract(inherited);
        }
        record
    }
}

impl Record {
    /// Subtracts what was counted before. A counter that was reset since counts from 0.
    fn subtract(&mut self, before: &Record) {
        let less = |new: &mut u64, old: u64| {
            if *new != UNKNOWN && old != UNKNOWN {
                *new = new.checked_sub(old).unwrap_or(*new);
            }
        };
        for number in 0..COUNTERS {
            less(&mut self.counters[number], before.counters[number]);
        }
        for number in 0..self.bucket_count.min(before.bucket_count) {
            less(&mut self.buckets.1[number], before.buckets.1[number]);
        }
        if let (Some(new), Some(old)) = (&mut self.tier2, &before.tier2) {
            new.iter_mut().zip(old).for_each(|(new, old)| less(new, *old));
        }
    }
}

/// A cache to clear, and its number.
type Target = (u64, Arc<dyn Source>);

#[derive(Default)]
struct Registry {
    entries: Vec<Entry>,
    writer: Option<Writer>,
    /// The bytes of a slot. They have room for all entries, so that rewriting allocates nothing.
    slot: Vec<u8>,
    /// The last request that was answered, or is being answered, and the answer.
    answered: u64,
    answer: u32,
    has_exited: bool,
}

/// The number of caches up to which a new one is in the file immediately. More are there with the
/// next call on a named cache, so that naming many of them takes no time that grows with the square
/// of their number.
const WRITTEN_IMMEDIATELY: usize = 32;
/// The least time that a sample spans, in nanoseconds.
const SAMPLE: u64 = 500_000_000;

static REGISTRY: PerProcess<Mutex<Registry>> = PerProcess::new();
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
static LANGUAGE: AtomicU32 = AtomicU32::new(0);
static PROGRAM: OnceLock<String> = OnceLock::new();
/// What a binding wraps around every rewriting.
static GUARD: OnceLock<fn(&mut dyn FnMut())> = OnceLock::new();
/// The number of the next cache. Children of forks continue to count.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Answers to a request.
mod answer {
    pub(super) const DONE: u32 = 1;
    pub(super) const NO_SUCH_CACHE: u32 = 2;
    pub(super) const UNKNOWN_OPERATION: u32 = 3;
    pub(super) const FAILED: u32 = 4;
}

/// Returns the registry of this process. In the child of a fork that is a new one, with those of
/// the parent's caches that the child uses as well.
fn registry() -> &'static Mutex<Registry> {
    REGISTRY.get(|parent| {
        let mut new = Registry::default();
        // Held by another thread at the fork: then its contents may be in any state. With an
        // interpreter lock no other thread can have held it.
        if let Some(Ok(mut parent)) = parent.map(|parent| parent.try_lock()) {
            let (kept, left) = mem::take(&mut parent.entries)
                .into_iter()
                .partition::<Vec<_>, _>(|entry| entry.survives_fork);
            // Caches that a child must not use are neither used nor dropped.
            mem::forget(left);
            parent.writer = None; // closes the child's copy of the descriptor
            new.entries = kept;
            for entry in &mut new.entries {
                entry.inherited = None;
                entry.inherited = Some(Box::new(entry.read()));
                entry.samples.added = 0;
                entry.samples.last = None;
            }
            new.make_room();
        }
        Mutex::new(new)
    })
}

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock(registry: &Mutex<Registry>) -> Option<MutexGuard<'_, Registry>> {
    match registry.try_lock() {
        Ok(locked) => Some(locked),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A cache's place in the stats file. Dropping it takes the cache out: it waits for a thread that
/// is rewriting the file, and drops the source.
pub struct Registration(u64);

impl Registration {
    /// Returns the number of the cache, by which requests name it.
    pub fn id(&self) -> u64 {
        self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut locked = lock(registry());
        // Absent in the child of a fork, which leaves its parent's caches alone.
        let at = locked.entries.iter().position(|entry| entry.id == self.0);
        let entry = at.map(|at| locked.entries.remove(at));
        drop(locked);
        drop(entry); // may drop the cache, and so run destructors
    }
}

/// Puts a cache into the stats file, from now on or from when it is enabled. Enables it if this is
/// the first cache with a name and `HOTSET_STATS` is set; returns an error if that failed.
pub fn register(name: String, source: Arc<dyn Source>, survives_fork: bool) -> (Registration, Option<StatsFileError>) {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let entry = Entry {
        id,
        name,
        created: unix_nanos(),
        source,
        survives_fork,
        inherited: None,
        samples: Samples {
            all: [format::Sample::default(); SAMPLES],
            added: 0,
            last: None,
        },
    };
    let mut locked = lock(registry());
    locked.entries.push(entry);
    locked.make_room();
    if locked.entries.len() <= WRITTEN_IMMEDIATELY {
        locked.write();
    }
    if DIRECTORY.get().is_some() {
        pulse::start(rewrite);
        locked.entries.iter().last().inspect(|entry| entry.source.observe());
    }
    drop(locked);
    let failed = enable_from_environment().err();
    (Registration(id), failed)
}

fn enable_from_environment() -> Result<(), StatsFileError> {
    static TRIED: AtomicBool = AtomicBool::new(false);
    if TRIED.swap(true, Ordering::Relaxed) || DIRECTORY.get().is_some() {
        return Ok(());
    }
    match env::var_os("HOTSET_STATS") {
        Some(directory) if !directory.is_empty() => enable(Path::new(&directory)),
        _ => Ok(()),
    }
}

/// Enables the stats file.
pub(super) fn enable(directory: &Path) -> Result<(), StatsFileError> {
    // A later change of the working directory does not matter.
    let directory = std::path::absolute(directory).map_err(|source| StatsFileError::io(directory, source))?;
    let mut locked = lock(registry());
    let other = DIRECTORY.get();
    if let Some(other) = other
        && *other != directory
    {
        return Err(StatsFileError::new(&directory, Reason::Enabled(other.clone())));
    }
    if locked.writer.is_none() && !locked.has_exited {
        locked.writer = Some(create(&directory)?);
        if DIRECTORY.set(directory).is_ok() {
            system::at_exit(remove_at_exit);
        }
    }
    locked.write();
    pulse::start(rewrite);
    locked.entries.iter().for_each(|entry| entry.source.observe());
    Ok(())
}

fn create(directory: &Path) -> Result<Writer, StatsFileError> {
    let language = Language::of(LANGUAGE.load(Ordering::Relaxed)).unwrap_or(Language::Rust);
    let own_name = || {
        let program = env::args_os().next().map(PathBuf::from);
        let name = program.as_deref().and_then(Path::file_name);
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let program = PROGRAM.get().cloned().unwrap_or_else(own_name);
    Writer::create(directory, language, &program)
}

pub(super) fn path() -> Option<PathBuf> {
    lock(registry()).writer.as_ref().map(|writer| writer.path().to_owned())
}

impl Registry {
    /// Allocates the memory for a slot with all entries. Where it is refused, the entries for which
    /// there is no room are left out.
    fn make_room(&mut self) {
        let size = SLOT_HEADER + self.entries.len().min(format::MAX_RECORDS) * RECORD;
        _ = self.slot.try_reserve(size.saturating_sub(self.slot.len()));
    }

    /// Rewrites the file. A failure is that of one update: the next one tries again.
    fn write(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        let now = system::monotonic();
        let Some(room) = self.slot.capacity().checked_sub(SLOT_HEADER) else {
            return;
        };
        let count = self.entries.len().min(format::MAX_RECORDS).min(room / RECORD);
        self.slot.clear();
        self.slot.resize(SLOT_HEADER + count * RECORD, 0);
        let records = self.slot[SLOT_HEADER..].chunks_exact_mut(RECORD);
        for (entry, bytes) in self.entries.iter_mut().zip(records) {
            let record = entry.read();
            let counters = &record.counters;
            let (hits, misses) = (counters[Counter::Hits as usize], counters[Counter::Misses as usize]);
            entry.samples.add(now, hits, misses);
            record.encode(&entry.name, entry.samples.iter(), bytes);
        }
        let header = SlotHeader {
            sequence: 0, // the writer's
            time: unix_nanos(),
            monotonic: now,
            omitted: u32::try_from(self.entries.len() - count).unwrap_or(u32::MAX),
            answered: self.answered,
            answer: self.answer,
        };
        _ = writer.write(&mut self.slot, header);
    }

    /// Returns the number of a new request of a reader, if there is one, and the caches to clear.
    fn take_request(&mut self) -> Option<(u64, Vec<Target>)> {
        let request = self.writer.as_ref().and_then(Writer::request);
        let request = request.filter(|request| request.id != self.answered)?;
        self.answered = request.id;
        let wanted = |entry: &&Entry| request.cache == 0 || entry.id == request.cache;
        let sources: Vec<_> = self
            .entries
            .iter()
            .filter(wanted)
            .map(|entry| (entry.id, entry.source.clone()))
            .collect();
        self.answer = match request.operation {
            format::CLEAR if sources.is_empty() => answer::NO_SUCH_CACHE,
            // Until the caches are cleared.
            format::CLEAR => 0,
            _ => answer::UNKNOWN_OPERATION,
        };
        (self.answer == 0).then_some((request.id, sources))
    }
}

/// Prepares the child of a fork: the caches that survive it count from now on, and the first
/// rewriting is due.
pub fn fork_child() {
    let Some(locked) = try_lock(registry()) else { return };
    if DIRECTORY.get().is_some() {
        pulse::start(rewrite);
        locked.entries.iter().for_each(|entry| entry.source.observe());
    }
}

/// Rewrites the file, and does what a reader has requested. Waits for no lock.
pub fn rewrite() {
    match GUARD.get() {
        Some(guard) => guard(&mut rewrite_guarded),
        None => rewrite_guarded(),
    }
}

fn rewrite_guarded() {
    let Some(mut locked) = try_lock(registry()) else { return };
    if locked.has_exited {
        return;
    }
    if locked.writer.as_ref().is_none_or(|writer| !writer.is_linked()) {
        // The first time in the child of a fork, or the file was removed.
        locked.writer = DIRECTORY.get().and_then(|directory| create(directory).ok());
    }
    let request = locked.take_request();
    locked.write();
    drop(locked);
    let Some((request, sources)) = request else { return };
    let (mut done, mut panics) = (true, Panics::default());
    for (id, source) in sources {
        let mut cleared = false;
        panics.catch(|| cleared = source.clear(request, id));
        done &= cleared;
        panics.catch(|| drop(source)); // may be the last handle, and so run destructors
    }
    if panics.is_some() {
        answer_request(request, false);
    } else if done {
        answer_request(request, true);
    }
    panics.resume();
}

/// Answers a request. The answer is in the file with the next call on a named cache.
pub fn answer_request(request: u64, done: bool) {
    let mut locked = lock(registry());
    if locked.answered == request {
        locked.answer = if done { answer::DONE } else { answer::FAILED };
        drop(locked);
        pulse::start(rewrite);
    }
}

/// Sets what the file states of the process. The first call decides.
///
/// Every rewriting runs inside `guard`, which must call its argument once.
pub fn describe(language: Language, program: Option<String>, guard: Option<fn(&mut dyn FnMut())>) {
    LANGUAGE.store(language.number(), Ordering::Relaxed);
    if let Some(guard) = guard {
        _ = GUARD.set(guard);
    }
    if let Some(program) = program {
        _ = PROGRAM.set(program);
    }
}

/// Removes the file. Other threads may still run.
extern "C" fn remove_at_exit() {
    // A thread that is rewriting the file needs microseconds, unless it was suspended, or has ended
    // in the middle. Then the file stays, and a reader removes it.
    for _ in 0..1000 {
        if let Some(mut locked) = try_lock(registry()) {
            locked.has_exited = true;
            if let Some(writer) = locked.writer.take() {
                writer.remove();
            }
            return;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}
