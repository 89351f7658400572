//! The layout of a stats file: what is at which offset, and how it is read from bytes that nothing
//! is known of.
//!
//! All numbers are little-endian. `docs/reference/stats-file-format.md` describes the layout.

use std::mem;

/// The first bytes of a stats file.
pub(super) const MAGIC: [u8; 8] = *b"HOTSTAT\0";
pub(super) const VERSION: u32 = 1;
/// The size of the header, and the offset of the first slot.
pub(super) const HEADER: usize = 4096;
/// The size of the part of the header that its checksum covers.
const CHECKED: usize = 508;
/// The offset of the request.
pub(super) const REQUEST: usize = 512;
pub(super) const REQUEST_SIZE: usize = 64;
pub(super) const SLOT_HEADER: usize = 128;
pub(super) const RECORD: usize = 2048;
/// The most records of a slot.
pub(super) const MAX_RECORDS: usize = 256;
pub(super) const SLOT: usize = SLOT_HEADER + MAX_RECORDS * RECORD;
/// The size of a file with two full slots.
pub(super) const FILE: usize = HEADER + 2 * SLOT;
/// A figure that the process does not know.
pub(super) const UNKNOWN: u64 = u64::MAX;

pub(super) const NAME: usize = 256;
const PROGRAM: usize = 128;
/// The number of counters of a record, in the order of [`Counter`].
pub(super) const COUNTERS: usize = 12;
pub(super) const TIER2: usize = 8;
pub(super) const BUCKETS: usize = 24;
pub(super) const POINTS: usize = 8;
pub(super) const SAMPLES: usize = 60;

/// Offsets in the header.
mod header {
    pub(super) const VERSION: usize = 8;
    pub(super) const KIND: usize = 32;
    pub(super) const PID: usize = 36;
    pub(super) const START: usize = 40;
    pub(super) const CREATED: usize = 48;
    pub(super) const NAMESPACE: usize = 56;
    pub(super) const DESCRIPTOR: usize = 64;
    pub(super) const PARENT: usize = 68;
    pub(super) const UID: usize = 72;
    pub(super) const PROGRAM: usize = 128;
}

/// Offsets in a slot.
mod slot {
    pub(super) const LENGTH: usize = 4;
    pub(super) const SEQUENCE: usize = 8;
    pub(super) const TIME: usize = 16;
    pub(super) const MONOTONIC: usize = 24;
    pub(super) const RECORDS: usize = 32;
    pub(super) const OMITTED: usize = 36;
    pub(super) const ANSWERED: usize = 40;
    pub(super) const ANSWER: usize = 48;
}

/// Offsets in a record.
mod record {
    pub(super) const ID: usize = 0;
    pub(super) const FLAGS: usize = 8;
    pub(super) const NAME_LENGTH: usize = 12;
    pub(super) const NAME: usize = 16;
    pub(super) const CREATED: usize = 272;
    pub(super) const CAPACITY: usize = 280;
    pub(super) const WEIGHT: usize = 288;
    pub(super) const ENTRIES: usize = 296;
    pub(super) const BYTES: usize = 304;
    pub(super) const COUNTERS: usize = 312;
    pub(super) const TIER2: usize = 416;
    pub(super) const BUCKETS: usize = 480;
    pub(super) const POINTS: usize = 872;
    pub(super) const SAMPLES: usize = 1072;
}

/// Flags of a record.
mod flag {
    pub(super) const WEIGHTED: u32 = 1;
    pub(super) const NAME_CUT: u32 = 2;
    pub(super) const TIER2: u32 = 4;
}

/// The language whose API a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Language {
    /// The Rust crate.
    Rust,
    /// The C library.
    C,
    /// The Python package.
    Python,
}

impl Language {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Rust => 1,
            Self::C => 2,
            Self::Python => 3,
        }
    }

    pub(super) fn of(number: u32) -> Option<Self> {
        [Self::Rust, Self::C, Self::Python]
            .into_iter()
            .find(|language| language.number() == number)
    }
}

/// The header of a file: what does not change while its process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) language: Language,
    pub(super) pid: u32,
    /// The start time of the process, as the system counts it; 0 if it is unknown.
    pub(super) start: u64,
    /// Unix time in nanoseconds.
    pub(super) created: u64,
    /// The inode of the process's pid namespace; 0 if it is unknown.
    pub(super) namespace: u64,
    pub(super) descriptor: u32,
    pub(super) parent: u32,
    pub(super) uid: u32,
    pub(super) program: String,
}

/// The counters of a record, by index.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counter {
    Hits,
    Misses,
    StaleHits,
    Waits,
    Insertions,
    Evictions,
    EvictedWeight,
    Rejections,
    Expirations,
    Loads,
    LoadFailures,
    LoadNanos,
}

/// The hits and misses of an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) millis: u32,
    pub(super) hits: u32,
    pub(super) misses: u32,
}

/// The figures of one cache. A figure that is `u64::MAX` is not known.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub(super) id: u64,
    /// Unix time in nanoseconds.
    pub(super) created: u64,
    pub(super) weighted: bool,
    /// [`UNKNOWN`] without a bound.
    pub(super) capacity: u64,
    pub(super) weight: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) counters: [u64; COUNTERS],
    pub(super) tier2: Option<[u64; TIER2]>,
    /// The upper bounds of the buckets of load latencies, in nanoseconds, and the loads in each.
    pub(super) buckets: ([u64; BUCKETS], [u64; BUCKETS]),
    pub(super) bucket_count: usize,
    pub(super) points: [(u64, f64, u64); POINTS],
    pub(super) point_count: usize,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            id: 0,
            created: 0,
            weighted: false,
            capacity: UNKNOWN,
            weight: 0,
            entries: 0,
            bytes: UNKNOWN,
            counters: [UNKNOWN; COUNTERS],
            tier2: None,
            buckets: ([0; BUCKETS], [0; BUCKETS]),
            bucket_count: 0,
            points: [(0, 0.0, UNKNOWN); POINTS],
            point_count: 0,
        }
    }
}

/// The rest of what is in a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SlotHeader {
    pub(super) sequence: u64,
    /// Unix time in nanoseconds.
    pub(super) time: u64,
    /// Nanoseconds of the system's monotonic clock.
    pub(super) monotonic: u64,
    pub(super) omitted: u32,
    pub(super) answered: u64,
    pub(super) answer: u32,
}

/// A request of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Not 0.
    pub(super) id: u64,
    pub(super) operation: u32,
    /// The cache; 0 for all.
    pub(super) cache: u64,
}

/// The operation of a request that clears caches.
pub(super) const CLEAR: u32 = 1;

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, value.to_le_bytes());
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    get(bytes, at).map(u32::from_le_bytes)
}

fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    get(bytes, at).map(u64::from_le_bytes)
}

/// Returns the longest beginning of `text` that has at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Header {
    /// Returns the bytes of the header, with an empty request.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        put(&mut bytes, 0, MAGIC);
        let sizes = [
            VERSION,
            HEADER as u32,
            SLOT as u32,
            SLOT_HEADER as u32,
            RECORD as u32,
            MAX_RECORDS as u32,
        ];
        for (number, size) in sizes.into_iter().enumerate() {
            put_u32(&mut bytes, header::VERSION + 4 * number, size);
        }
        put_u32(&mut bytes, header::KIND, self.language.number());
        put_u32(&mut bytes, header::PID, self.pid);
        put_u64(&mut bytes, header::START, self.start);
        put_u64(&mut bytes, header::CREATED, self.created);
        put_u64(&mut bytes, header::NAMESPACE, self.namespace);
        put_u32(&mut bytes, header::DESCRIPTOR, self.descriptor);
        put_u32(&mut bytes, header::PARENT, self.parent);
        put_u32(&mut bytes, header::UID, self.uid);
        let program = cut(&self.program, PROGRAM).as_bytes();
        bytes[header::PROGRAM..][..program.len()].copy_from_slice(program);
        let sum = crc32fast::hash(&bytes[..CHECKED]);
        put_u32(&mut bytes, CHECKED, sum);
        bytes
    }
}

/// Where the parts of a file lie, as its header has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    first_slot: usize,
    slot: usize,
    slot_header: usize,
    record: usize,
    max_records: usize,
}

/// The reason why bytes are not those of a stats file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    NotAStatsFile,
    /// Of another version.
    Version(u32),
    Corrupt,
}

/// Reads the header.
pub(super) fn decode_header(bytes: &[u8]) -> Result<(Header, Layout), Defect> {
    if get(bytes, 0) != Some(MAGIC) {
        return Err(Defect::NotAStatsFile);
    }
    let word = |at| get_u32(bytes, at).ok_or(Defect::Corrupt);
    let long = |at| get_u64(bytes, at).ok_or(Defect::Corrupt);
    let version = word(header::VERSION)?;
    if version != VERSION {
        return Err(Defect::Version(version));
    }
    let checked = bytes.get(..CHECKED).ok_or(Defect::Corrupt)?;
    if crc32fast::hash(checked) != word(CHECKED)? {
        return Err(Defect::Corrupt);
    }
    let size = |number: usize| word(header::VERSION + 4 * number).map(|size| size as usize);
    let layout = Layout {
        first_slot: size(1)?,
        slot: size(2)?,
        slot_header: size(3)?,
        record: size(4)?,
        max_records: size(5)?,
    };
    // The parts of version 1 may grow, and the file may be larger: but not without a bound.
    let grown = |size, least: usize| size >= least && size <= 16 * least;
    if !grown(layout.first_slot, HEADER)
        || !grown(layout.slot_header, SLOT_HEADER)
        || !grown(layout.record, RECORD)
        || layout.max_records > 16 * MAX_RECORDS
        || layout.slot_header + layout.max_records * layout.record > layout.slot
        || layout.slot > 64 * SLOT
    {
        return Err(Defect::Corrupt);
    }
    let program = &bytes[header::PROGRAM..header::PROGRAM + PROGRAM];
    let program = program.split(|byte| *byte == 0).next().unwrap_or_default();
    let header = Header {
        language: Language::of(word(header::KIND)?).ok_or(Defect::Corrupt)?,
        pid: word(header::PID)?,
        start: long(header::START)?,
        created: long(header::CREATED)?,
        namespace: long(header::NAMESPACE)?,
        descriptor: word(header::DESCRIPTOR)?,
        parent: word(header::PARENT)?,
        uid: word(header::UID)?,
        program: String::from_utf8_lossy(program).into_owned(),
    };
    Ok((header, layout))
}

impl Layout {
    /// Returns the size of a file of this layout.
    pub(super) fn file(&self) -> usize {
        self.first_slot + 2 * self.slot
    }
}

/// Returns the valid slot of the higher sequence.
pub(super) fn newest_slot<'b>(bytes: &'b [u8], layout: &Layout) -> Option<(SlotHeader, Vec<&'b [u8]>)> {
    let slots = [0, 1].map(|slot| decode_slot(bytes, layout, layout.first_slot + slot * layout.slot));
    slots.into_iter().flatten().max_by_key(|(header, _)| header.sequence)
}

/// Reads one slot; returns `None` if it is not whole.
fn decode_slot<'b>(bytes: &'b [u8], layout: &Layout, at: usize) -> Option<(SlotHeader, Vec<&'b [u8]>)> {
    let bytes = bytes.get(at..)?;
    let length = get_u32(bytes, slot::LENGTH)? as usize;
    let records = get_u32(bytes, slot::RECORDS)? as usize;
    if records > layout.max_records || length != layout.slot_header + records * layout.record {
        return None;
    }
    let bytes = bytes.get(..length)?;
    if crc32fast::hash(&bytes[slot::LENGTH..]) != get_u32(bytes, 0)? {
        return None;
    }
    let header = SlotHeader {
        sequence: get_u64(bytes, slot::SEQUENCE)?,
        time: get_u64(bytes, slot::TIME)?,
        monotonic: get_u64(bytes, slot::MONOTONIC)?,
        omitted: get_u32(bytes, slot::OMITTED)?,
        answered: get_u64(bytes, slot::ANSWERED)?,
        answer: get_u32(bytes, slot::ANSWER)?,
    };
    if header.sequence == 0 {
        return None; // zeros are no slot, whatever their checksum is
    }
    let records = bytes[layout.slot_header..].chunks_exact(layout.record).collect();
    Some((header, records))
}

/// Completes a slot whose records are in place behind its header.
pub(super) fn seal_slot(bytes: &mut [u8], header: &SlotHeader) {
    let records = (bytes.len() - SLOT_HEADER) / RECORD;
    bytes[..SLOT_HEADER].fill(0);
    put_u32(bytes, slot::LENGTH, bytes.len() as u32);
    put_u64(bytes, slot::SEQUENCE, header.sequence);
    put_u64(bytes, slot::TIME, header.time);
    put_u64(bytes, slot::MONOTONIC, header.monotonic);
    put_u32(bytes, slot::RECORDS, records as u32);
    put_u32(bytes, slot::OMITTED, header.omitted);
    put_u64(bytes, slot::ANSWERED, header.answered);
    put_u32(bytes, slot::ANSWER, header.answer);
    let sum = crc32fast::hash(&bytes[slot::LENGTH..]);
    put_u32(bytes, 0, sum);
}

/// Returns the offset of the slot for `sequence`.
pub(super) fn slot_offset(sequence: u64) -> u64 {
    (HEADER + (sequence % 2) as usize * SLOT) as u64
}

impl Record {
    /// Writes the record, its cache's name and its samples, oldest first, into `bytes`, which are
    /// [`RECORD`] many. Allocates nothing.
    pub(super) fn encode(&self, name: &str, samples: impl Iterator<Item = Sample>, bytes: &mut [u8]) {
        bytes.fill(0);
        let cut_name = cut(name, NAME);
        let mut flags = 0;
        for (is_set, flag) in [
            (self.weighted, flag::WEIGHTED),
            (cut_name.len() < name.len(), flag::NAME_CUT),
            (self.tier2.is_some(), flag::TIER2),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        put_u64(bytes, record::ID, self.id);
        put_u32(bytes, record::FLAGS, flags);
        put_u32(bytes, record::NAME_LENGTH, cut_name.len() as u32);
        bytes[record::NAME..][..cut_name.len()].copy_from_slice(cut_name.as_bytes());
        put_u64(bytes, record::CREATED, self.created);
        put_u64(bytes, record::CAPACITY, self.capacity);
        put_u64(bytes, record::WEIGHT, self.weight);
        put_u64(bytes, record::ENTRIES, self.entries);
        put_u64(bytes, record::BYTES, self.bytes);
        for (number, counter) in self.counters.into_iter().enumerate() {
            put_u64(bytes, record::COUNTERS + 8 * number, counter);
        }
        for (number, figure) in self.tier2.unwrap_or([UNKNOWN; TIER2]).into_iter().enumerate() {
            put_u64(bytes, record::TIER2 + 8 * number, figure);
        }
        put_u32(bytes, record::BUCKETS, self.bucket_count.min(BUCKETS) as u32);
        let (bounds, counts) = (record::BUCKETS + 8, record::BUCKETS + 8 + 8 * BUCKETS);
        for number in 0..BUCKETS {
            put_u64(bytes, bounds + 8 * number, self.buckets.0[number]);
            put_u64(bytes, counts + 8 * number, self.buckets.1[number]);
        }
        put_u32(bytes, record::POINTS, self.point_count.min(POINTS) as u32);
        for (number, (capacity, ratio, size)) in self.points.into_iter().enumerate() {
            let at = record::POINTS + 8 + 24 * number;
            put_u64(bytes, at, capacity);
            put_u64(bytes, at + 8, ratio.to_bits());
            put_u64(bytes, at + 16, size);
        }
        let mut count = 0;
        for (number, sample) in samples.take(SAMPLES).enumerate() {
            let at = record::SAMPLES + 8 + 12 * number;
            put_u32(bytes, at, sample.millis);
            put_u32(bytes, at + 4, sample.hits);
            put_u32(bytes, at + 8, sample.misses);
            count += 1;
        }
        put_u32(bytes, record::SAMPLES, count);
    }
}

/// A record that was read: the figures, the name, whether the name was cut, and the samples.
pub(super) type Decoded = (Record, String, bool, Vec<Sample>);

/// Reads a record. Counts beyond what a record has room for make it corrupt.
pub(super) fn decode_record(bytes: &[u8]) -> Option<Decoded> {
    let count = |at, most| {
        let count = get_u32(bytes, at)? as usize;
        (count <= most).then_some(count)
    };
    let longs = |at: usize, number: usize| get_u64(bytes, at + 8 * number);
    let flags = get_u32(bytes, record::FLAGS)?;
    let length = count(record::NAME_LENGTH, NAME)?;
    let name = String::from_utf8_lossy(&bytes[record::NAME..][..length]).into_owned();
    let mut decoded = Record {
        id: get_u64(bytes, record::ID)?,
        created: get_u64(bytes, record::CREATED)?,
        weighted: flags & flag::WEIGHTED != 0,
        capacity: get_u64(bytes, record::CAPACITY)?,
        weight: get_u64(bytes, record::WEIGHT)?,
        entries: get_u64(bytes, record::ENTRIES)?,
        bytes: get_u64(bytes, record::BYTES)?,
        bucket_count: count(record::BUCKETS, BUCKETS)?,
        point_count: count(record::POINTS, POINTS)?,
        ..Record::default()
    };
    for (number, counter) in decoded.counters.iter_mut().enumerate() {
        *counter = longs(record::COUNTERS, number)?;
    }
    if flags & flag::TIER2 != 0 {
        let mut figures = [UNKNOWN; TIER2];
        for (number, figure) in figures.iter_mut().enumerate() {
            *figure = longs(record::TIER2, number)?;
        }
        decoded.tier2 = Some(figures);
    }
    for number in 0..BUCKETS {
        decoded.buckets.0[number] = longs(record::BUCKETS + 8, number)?;
        decoded.buckets.1[number] = longs(record::BUCKETS + 8 + 8 * BUCKETS, number)?;
    }
    for number in 0..POINTS {
        let at = record::POINTS + 8 + 24 * number;
        let ratio = f64::from_bits(longs(at, 1)?);
        if number < decoded.point_count && !(0.0..=1.0).contains(&ratio) {
            return None;
        }
        decoded.points[number] = (longs(at, 0)?, ratio, longs(at, 2)?);
    }
    let samples = (0..count(record::SAMPLES, SAMPLES)?).map(|number| {
        let at = record::SAMPLES + 8 + 12 * number;
        Some(Sample {
            millis: get_u32(bytes, at)?,
            hits: get_u32(bytes, at + 4)?,
            misses: get_u32(bytes, at + 8)?,
        })
    });
    let samples = samples.collect::<Option<Vec<Sample>>>()?;
    Some((decoded, name, flags & flag::NAME_CUT != 0, samples))
}

impl Request {
    pub(super) fn encode(&self) -> [u8; REQUEST_SIZE] {
        let mut bytes = [0; REQUEST_SIZE];
        put_u64(&mut bytes, 0, self.id);
        put_u32(&mut bytes, 8, self.operation);
        put_u64(&mut bytes, 16, self.cache);
        let sum = crc32fast::hash(&bytes[..REQUEST_SIZE - 4]);
        put_u32(&mut bytes, REQUEST_SIZE - 4, sum);
        bytes
    }

    /// Returns the request, if there is one and it is whole.
    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        let request = Self {
            id: get_u64(bytes, 0)?,
            operation: get_u32(bytes, 8)?,
            cache: get_u64(bytes, 16)?,
        };
        let sum = get_u32(bytes, REQUEST_SIZE - 4)?;
        (request.id != 0 && crc32fast::hash(&bytes[..REQUEST_SIZE - 4]) == sum).then_some(request)
    }
}

const _: () = {
    assert!(record::COUNTERS + 8 * COUNTERS + 8 == record::TIER2);
    assert!(record::TIER2 + 8 * TIER2 == record::BUCKETS);
    assert!(record::BUCKETS + 8 + 16 * BUCKETS == record::POINTS);
    assert!(record::POINTS + 8 + 24 * POINTS == record::SAMPLES);
    assert!(record::SAMPLES + 8 + 12 * SAMPLES <= RECORD);
    assert!(Counter::LoadNanos as usize + 1 == COUNTERS);
    assert!(mem::size_of::<f64>() == 8);
};
