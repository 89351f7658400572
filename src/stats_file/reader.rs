//! Reading stats files of other processes. No byte of a file is trusted.

use super::error::{Reason, StatsFileError};
use super::format::{self, Counter, Defect, Language, Record, UNKNOWN};
use crate::stats::Stats;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a process has written into its stats file last.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessStats {
    /// The file.
    pub path: PathBuf,
    /// The language whose API the process uses.
    pub language: Language,
    /// The number of the process.
    pub pid: u32,
    /// The number of the parent that started it.
    pub parent: u32,
    /// The name of the program: any text.
    pub program: String,
    /// Whether the process that wrote the file is running; `None` if that cannot be known.
    pub is_alive: Option<bool>,
    /// When the file was created.
    pub created: SystemTime,
    /// The number of the update.
    pub sequence: u64,
    /// When the update was written.
    pub updated: SystemTime,
    /// The time of the update by the system's monotonic clock, to compute rates.
    pub monotonic: Duration,
    /// The last request that the process has read, and its outcome.
    pub answered: Option<(u64, Answer)>,
    /// The number of named caches for which the file has no room.
    pub omitted: u32,
    /// The caches.
    pub caches: Vec<CacheStats>,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The process is carrying it out.
    Pending,
    /// It was carried out.
    Done,
    /// The process has no such cache, or has none any more.
    NoSuchCache,
    /// The process does not know such requests.
    UnknownOperation,
    /// It failed.
    Failed,
}

/// The figures of one named cache of a process.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheStats {
    /// The number of the cache in its process, which is never reused.
    pub id: u64,
    /// The name: any text.
    pub name: String,
    /// Whether `name` is only the beginning of the name.
    pub is_name_cut: bool,
    /// When the cache got its name.
    pub created: SystemTime,
    /// Whether capacity and weight are in the unit of a weigher, not in entries.
    pub is_weighted: bool,
    /// The capacity; `None` without a bound.
    pub capacity: Option<u64>,
    /// The weight of the entries.
    pub weight: u64,
    /// The number of entries.
    pub entries: u64,
    /// The size of the entries in bytes, if the process knows it.
    pub bytes: Option<u64>,
    /// The counters, without the histogram, which is in `load_buckets`. Those that the process does
    /// not count are 0.
    pub stats: Stats,
    /// The latencies of loads: upper bounds, and the number of loads at most that long, but longer
    /// than the bound before.
    pub load_buckets: Vec<(Duration, u64)>,
    /// The miss-ratio curve, if the cache profiles.
    pub curve: Vec<CurvePoint>,
    /// The latest intervals between updates, oldest first.
    pub samples: Vec<Sample>,
}

/// A point of a miss-ratio curve.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CurvePoint {
    /// The capacity.
    pub capacity: u64,
    /// The hit ratio that a cache of this capacity would have, from 0 to 1.
    pub hit_ratio: f64,
    /// The bytes that such a cache would hold, if the process knows them.
    pub bytes: Option<u64>,
}

/// The hits and misses of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// The length of the interval.
    pub duration: Duration,
    /// The hits in it.
    pub hits: u32,
    /// The misses in it.
    pub misses: u32,
}

fn known(figure: u64) -> Option<u64> {
    (figure != UNKNOWN).then_some(figure)
}

fn time(unix_nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nanos)
}

impl Answer {
    fn of(number: u32) -> Self {
        match number {
            0 => Self::Pending,
            1 => Self::Done,
            2 => Self::NoSuchCache,
            3 => Self::UnknownOperation,
            _ => Self::Failed,
        }
    }
}

impl CacheStats {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (record, name, is_name_cut, samples) = format::decode_record(bytes)?;
        let Record {
            counters,
            buckets: (bounds, counts),
            ..
        } = record;
        let count = |counter: Counter| known(counters[counter as usize]);
        // What every process counts is there.
        let stats = Stats {
            hits: count(Counter::Hits)?,
            misses: count(Counter::Misses)?,
            insertions: count(Counter::Insertions)?,
            evictions: count(Counter::Evictions)?,
            expirations: count(Counter::Expirations)?,
            rejections: count(Counter::Rejections)?,
            loads: count(Counter::Loads)?,
            load_failures: count(Counter::LoadFailures)?,
            waits: count(Counter::Waits)?,
            load_time: Duration::from_nanos(count(Counter::LoadNanos)?),
            stale_hits: count(Counter::StaleHits).unwrap_or_default(),
            evicted_weight: count(Counter::EvictedWeight).unwrap_or_default(),
            ..Stats::default()
        };
        let buckets = bounds.into_iter().zip(counts).take(record.bucket_count);
        let points = record.points.into_iter().take(record.point_count);
        let samples = samples.into_iter().map(|sample| Sample {
            duration: Duration::from_millis(sample.millis.into()),
            hits: sample.hits,
            misses: sample.misses,
        });
        Some(Self {
            id: record.id,
            name,
            is_name_cut,
            created: time(record.created),
            is_weighted: record.weighted,
            capacity: known(record.capacity),
            weight: record.weight,
            entries: record.entries,
            bytes: known(record.bytes),
            stats,
            load_buckets: buckets
                .map(|(bound, count)| (known(bound).map_or(Duration::MAX, Duration::from_nanos), count))
                .collect(),
            curve: points
                .map(|(capacity, hit_ratio, bytes)| CurvePoint {
                    capacity,
                    hit_ratio,
                    bytes: known(bytes),
                })
                .collect(),
            samples: samples.collect(),
        })
    }
}

/// Reads the bytes of a stats file. Whether its process is alive is not known.
///
/// # Errors
///
/// As [`read`].
pub fn parse(path: &Path, bytes: &[u8]) -> Result<ProcessStats, StatsFileError> {
    let refused = |defect| {
        StatsFileError::new(
            path,
            match defect {
                Defect::NotAStatsFile => Reason::NotAStatsFile,
                Defect::Version(version) => Reason::Version(version),
                Defect::Corrupt => Reason::Corrupt,
            },
        )
    };
    let corrupt = || refused(Defect::Corrupt);
    let (header, layout) = format::decode_header(bytes).map_err(refused)?;
    let (slot, records) = format::newest_slot(bytes, &layout).ok_or_else(corrupt)?;
    let caches = records.into_iter().map(CacheStats::decode).collect::<Option<_>>();
    Ok(ProcessStats {
        path: path.to_owned(),
        language: header.language,
        pid: header.pid,
        parent: header.parent,
        program: header.program,
        is_alive: None,
        created: time(header.created),
        sequence: slot.sequence,
        updated: time(slot.time),
        monotonic: Duration::from_nanos(slot.monotonic),
        answered: (slot.answered != 0).then(|| (slot.answered, Answer::of(slot.answer))),
        omitted: slot.omitted,
        caches: caches.ok_or_else(corrupt)?,
    })
}

/// Returns what the stats file `path` holds.
///
/// # Errors
///
/// A [`StatsFileError`] if the file does not exist, is another user's, is no stats file, is corrupt
/// or is of another version, or if the platform has no stats files.
pub fn read(path: impl AsRef<Path>) -> Result<ProcessStats, StatsFileError> {
    system::read(path.as_ref())
}

/// Returns what the stats files in `directory` hold, ordered by pid, except those of processes that
/// have surely ended: these are removed.
///
/// Files of other users, and files that cannot be read, are left out.
///
/// # Errors
///
/// A [`StatsFileError`] if the directory does not exist or cannot be listed.
pub fn scan(directory: impl AsRef<Path>) -> Result<Vec<ProcessStats>, StatsFileError> {
    let directory = directory.as_ref();
    let failed = |source| StatsFileError::io(directory, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = directory.join(name);
        if is_draft(name) {
            system::remove_draft(&path);
        } else if is_complete(name)
            && let Ok(process) = read(&path)
        {
            if process.is_alive == Some(false) {
                _ = std::fs::remove_file(&path);
            } else {
                found.push(process);
            }
        }
    }
    found.sort_by(|one, other| (one.pid, &one.path).cmp(&(other.pid, &other.path)));
    Ok(found)
}

/// Whether a name is `prefix`, two numbers with a hyphen between them, and `suffix`.
fn has_form(name: &str, prefix: &str, suffix: &str) -> bool {
    let numbers = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
    let is_number = |text: &str| (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers
        .and_then(|numbers| numbers.split_once('-'))
        .is_some_and(|(pid, number)| is_number(pid) && is_number(number))
}

fn is_complete(name: &str) -> bool {
    has_form(name, "hotset-", ".stats")
}

fn is_draft(name: &str) -> bool {
    has_form(name, ".hotset-", ".tmp")
}

impl ProcessStats {
    /// Requests that the process clears the cache of this number, or all named caches without one.
    /// Returns the number of the request.
    ///
    /// The process reads the request with its next update: within a second if it uses a named
    /// cache. Then `answered` is that number, and the outcome.
    ///
    /// # Errors
    ///
    /// A [`StatsFileError`] if the file is gone, is another process's by now, or cannot be written
    /// to.
    pub fn request_clear(&self, cache: Option<u64>) -> Result<u64, StatsFileError> {
        system::request_clear(self, cache.unwrap_or(0))
    }
}

#[cfg(not(unix))]
mod system {
    use super::{Path, ProcessStats, Reason, StatsFileError};

    fn unsupported(path: &Path) -> StatsFileError {
        StatsFileError::new(path, Reason::Unsupported)
    }

    pub(super) fn read(path: &Path) -> Result<ProcessStats, StatsFileError> {
        Err(unsupported(path))
    }

    pub(super) fn remove_draft(_: &Path) {}

    pub(super) fn request_clear(process: &ProcessStats, _: u64) -> Result<u64, StatsFileError> {
        Err(unsupported(&process.path))
    }
}

#[cfg(unix)]
mod system {
    use super::super::format::{Header, REQUEST, Request};
    use super::super::system as os;
    use super::{Duration, Path, ProcessStats, Reason, StatsFileError, SystemTime, format, time};
    use std::fs::{self, File, Metadata};
    use std::hash::{BuildHasher, RandomState};
    use std::io::{self, ErrorKind};
    use std::os::unix::fs::{FileExt, MetadataExt};

    /// The age at which a file that its process did not complete is removed.
    const DRAFT_AGE: Duration = Duration::from_secs(60);

    /// Opens a file of this user, which is a regular one.
    fn open(path: &Path, write: bool) -> Result<(File, Metadata), StatsFileError> {
        let failed = |source| StatsFileError::io(path, source);
        let file = os::open(path, write).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(StatsFileError::new(path, Reason::NotAStatsFile));
        }
        if found.uid() != os::user() {
            return Err(StatsFileError::new(path, Reason::OtherUser(found.uid())));
        }
        Ok((file, found))
    }

    /// Reads at most `most` bytes.
    fn read_all(file: &File, most: usize) -> io::Result<Vec<u8>> {
        let size = file.metadata()?.len();
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(most).min(most)];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(failed) if failed.kind() == ErrorKind::Interrupted => {}
                Err(failed) => return Err(failed),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    pub(super) fn read(path: &Path) -> Result<ProcessStats, StatsFileError> {
        let failed = |source| StatsFileError::io(path, source);
        let (file, found) = open(path, false)?;
        // A slot may be rewritten while it is read. The other one is whole, unless reading takes
        // longer than a second.
        let mut attempts = 3;
        loop {
            attempts -= 1;
            let start = read_all(&file, format::HEADER).map_err(failed)?;
            let most = format::decode_header(&start).map_or(format::FILE, |(_, layout)| layout.file());
            let bytes = read_all(&file, most).map_err(failed)?;
            match super::parse(path, &bytes) {
                Ok(mut process) => {
                    let header = format::decode_header(&bytes).ok();
                    process.is_alive = header.and_then(|(header, _)| is_alive(&header, &found));
                    return Ok(process);
                }
                Err(refused) if attempts == 0 => return Err(refused),
                Err(_) => {}
            }
        }
    }

    /// Whether the process that wrote a file runs; `None` if that cannot be known.
    fn is_alive(header: &Header, found: &Metadata) -> Option<bool> {
        if header.namespace != 0 && header.namespace != os::namespace() {
            return None;
        }
        if !os::exists(header.pid) {
            return Some(false);
        }
        let start = os::start_time(header.pid);
        if header.start != 0 && start != 0 && start != header.start {
            return Some(false); // the pid was reused
        }
        // The process may have replaced its program by `exec`: then it no longer has the file open.
        Some(os::has_open(header.pid, header.descriptor, found).unwrap_or(true))
    }

    pub(super) fn remove_draft(path: &Path) {
        let is_old = |found: Metadata| {
            let age = found
                .modified()
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            found.uid() == os::user() && age.is_some_and(|age| age > DRAFT_AGE)
        };
        if fs::symlink_metadata(path).is_ok_and(is_old) {
            _ = fs::remove_file(path);
        }
    }

    pub(super) fn request_clear(process: &ProcessStats, cache: u64) -> Result<u64, StatsFileError> {
        let path = &process.path;
        let failed = |source| StatsFileError::io(path, source);
        let (file, _) = open(path, true)?;
        let bytes = read_all(&file, format::HEADER).map_err(failed)?;
        let same = |header: &Header| header.pid == process.pid && time(header.created) == process.created;
        if !format::decode_header(&bytes).is_ok_and(|(header, _)| same(&header)) {
            return Err(failed(ErrorKind::NotFound.into()));
        }
        // A random number, so that no other reader's request has it.
        let id = RandomState::new().hash_one(process.sequence).max(1);
        let request = Request {
            id,
            operation: format::CLEAR,
            cache,
        };
        file.write_all_at(&request.encode(), REQUEST as u64).map_err(failed)?;
        Ok(id)
    }
}
