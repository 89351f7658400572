//! Encodes and decodes the bytes of a snapshot file, as `docs/reference/snapshot-format.md`
//! describes them.
//!
//! The bytes may be hostile: every length is checked before it is used, and decoding allocates
//! nothing.

use super::error::SnapshotError;
use crate::policy::Rank;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

pub(super) const HEADER: usize = 128;
pub(super) const RECORD: usize = 48;
/// The size of an entry of the index.
pub(super) const ENTRY: usize = 16;
const MAGIC: [u8; 8] = *b"\x89HOTSET\n";
const VERSION: u32 = 1;
const ORDER: u32 = 0x0a0b_0c0d;
/// The deadline of an entry that never expires.
pub(super) const NEVER: u64 = u64::MAX;

const TIMED: u8 = 1;
const MARKED: u8 = 2;

/// Returns the hash of a key in the index. It is the same in every process, and for every borrowed
/// form of the key.
pub(super) fn key_hash<Q: Hash + ?Sized>(key: &Q) -> u64 {
    let mut hasher = KeyHasher {
        start: [0; SHORT],
        filled: 0,
        long: None,
    };
    key.hash(&mut hasher);
    hasher.finish()
}

/// Keys of at most this many bytes are hashed in one step. For longer ones XXH3 needs a state of
/// half a kilobyte.
const SHORT: usize = 64;

/// A hasher that feeds XXH3 the same bytes on every machine.
struct KeyHasher {
    start: [u8; SHORT],
    filled: usize,
    /// Holds all bytes, once they exceed `start`.
    long: Option<Box<Xxh3>>,
}

impl KeyHasher {
    #[inline]
    fn feed(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        match (&mut self.long, self.start.get_mut(self.filled..end)) {
            (None, Some(room)) => {
                room.copy_from_slice(bytes);
                self.filled = end;
            }
            _ => self.feed_long(bytes),
        }
    }

    #[cold]
    fn feed_long(&mut self, bytes: &[u8]) {
        let Self { start, filled, long } = self;
        let long = long.get_or_insert_with(|| {
            let mut long = Box::new(Xxh3::new());
            long.update(&start[..*filled]);
            long
        });
        long.update(bytes);
    }
}

macro_rules! little_endian {
    ($($write:ident: $type:ty as $wide:ty;)*) => {$(
        #[inline]
        fn $write(&mut self, n: $type) {
            self.feed(&(n as $wide).to_le_bytes());
        }
    )*};
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        match &self.long {
            None => xxh3_64_with_seed(&self.start[..self.filled], 0),
            Some(long) => long.digest(),
        }
    }
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }
    little_endian! {
        write_u8: u8 as u8;
        write_u16: u16 as u16;
        write_u32: u32 as u32;
        write_u64: u64 as u64;
        write_u128: u128 as u128;
        write_usize: usize as u64;
        write_i8: i8 as i8;
        write_i16: i16 as i16;
        write_i32: i32 as i32;
        write_i64: i64 as i64;
        write_i128: i128 as i128;
        write_isize: isize as i64;
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    number(bytes, at).map(u64::from_le_bytes)
}

/// The header of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) schema: u64,
    /// In milliseconds since 1970.
    pub(super) created: u64,
    pub(super) entries: u64,
    pub(super) window: u32,
    /// The size of all records in bytes.
    pub(super) records: u64,
    pub(super) index_checksum: u64,
}

impl Header {
    pub(super) fn length(&self) -> u64 {
        (HEADER + ENTRY * self.entries as usize) as u64 + self.records
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let index = HEADER as u64 + self.records;
        let head = u64::from(VERSION) | u64::from(ORDER) << 32;
        let words = [
            u64::from_le_bytes(MAGIC),
            head,
            self.id,
            self.schema,
            self.created,
            self.length(),
            self.entries,
            u64::from(self.window),
            HEADER as u64,
            self.records,
            index,
            self.length() - index,
            self.index_checksum,
            0,
            0,
        ];
        let mut bytes = [0; HEADER];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let checksum = xxh3_64_with_seed(&bytes[..HEADER - 8], 0);
        bytes[HEADER - 8..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Decodes the header of a whole file, and checks it and the index.
    ///
    /// # Errors
    /// The variants of [`SnapshotError`] that concern a file's contents.
    pub(super) fn decode(file: &[u8]) -> Result<Self, SnapshotError> {
        let found = file.len() as u64;
        let truncated = |expected| SnapshotError::Truncated { found, expected };
        let corrupt = |what| SnapshotError::Corrupt { what };
        let begins = MAGIC.len().min(file.len());
        if file[..begins] != MAGIC[..begins] {
            return Err(SnapshotError::NotASnapshot);
        }
        let word = |at| u64_at(file, 8 * at).ok_or_else(|| truncated(HEADER as u64));
        let (version, order) = (word(1)? as u32, (word(1)? >> 32) as u32);
        if order == ORDER.swap_bytes() {
            return Err(SnapshotError::Endianness);
        }
        if order != ORDER {
            return Err(corrupt("the byte order mark"));
        }
        if version != VERSION {
            let supported = VERSION;
            return Err(SnapshotError::Version {
                found: version,
                supported,
            });
        }
        let checksum = word(HEADER / 8 - 1)?;
        if xxh3_64_with_seed(&file[..HEADER - 8], 0) != checksum {
            return Err(corrupt("the header's checksum"));
        }
        let header = Self {
            id: word(2)?,
            schema: word(3)?,
            created: word(4)?,
            entries: word(6)?,
            window: u32::try_from(word(7)?).map_err(|_| corrupt("the window size"))?,
            records: word(9)?,
            index_checksum: word(12)?,
        };
        let length = word(5)?;
        if length > found {
            return Err(truncated(length));
        }
        let index = (HEADER as u64).checked_add(header.records);
        let index_length = header.entries.checked_mul(ENTRY as u64);
        let end = index.zip(index_length).and_then(|(at, length)| at.checked_add(length));
        if end != Some(length) || length != found {
            return Err(corrupt("the length"));
        }
        let fits = word(8)? == HEADER as u64 && Some(word(10)?) == index && Some(word(11)?) == index_length;
        if !fits || !header.records.is_multiple_of(8) || word(13)? | word(14)? != 0 {
            return Err(corrupt("the table of sections"));
        }
        // A record takes at least `RECORD` bytes, so the records bound the number of entries.
        if header.entries > header.records / RECORD as u64 {
            return Err(corrupt("the number of entries"));
        }
        if xxh3_64_with_seed(header.index(file), header.id) != header.index_checksum {
            return Err(corrupt("the index's checksum"));
        }
        Ok(header)
    }

    /// Returns the index of the file that this header was decoded from.
    pub(super) fn index<'f>(&self, file: &'f [u8]) -> &'f [u8] {
        &file[HEADER + self.records as usize..]
    }

    /// Returns the range of the records in the file.
    fn records(&self) -> Range<u64> {
        HEADER as u64..HEADER as u64 + self.records
    }

    /// Returns the record at this offset, if its checksum and lengths are correct.
    pub(super) fn record<'f>(&self, file: &'f [u8], offset: u64) -> Option<Record<'f>> {
        if !self.records().contains(&offset) || !offset.is_multiple_of(8) {
            return None;
        }
        let bytes = file.get(offset as usize..self.records().end as usize)?;
        let (key, value) = (u32_at(bytes, 8)? as usize, u32_at(bytes, 12)? as usize);
        let end = RECORD.checked_add(key)?.checked_add(value)?;
        let whole = bytes.get(..end.checked_next_multiple_of(8)?)?;
        if xxh3_64_with_seed(&whole[8..], self.id.wrapping_add(offset)) != u64_at(whole, 0)? {
            return None;
        }
        let flags = whole[42];
        Some(Record {
            weight: u64_at(whole, 16)?,
            times: (flags & TIMED != 0).then_some((u64_at(whole, 24)?, u64_at(whole, 32)?)),
            rank: Rank {
                uses: whole[40],
                queue: whole[41],
                marked: flags & MARKED != 0,
            },
            key: &whole[RECORD..RECORD + key],
            value: &whole[RECORD + key..end],
            length: whole.len() as u64,
        })
    }
}

/// Returns hash and offset of an entry of the index.
pub(super) fn entry(index: &[u8], at: usize) -> Option<(u64, u64)> {
    let begin = at.checked_mul(ENTRY)?;
    Some((u64_at(index, begin)?, u64_at(index, begin.checked_add(8)?)?))
}

/// Returns the place of a hash in a sorted index, by interpolation search. Hashes are evenly
/// spread, so the first guess is close. Steps that double then bound the interval, and a binary
/// search ends it: O(log n) in the worst case. In an unsorted index some hashes are not found.
pub(super) fn search(index: &[u8], hash: u64) -> Option<usize> {
    let n = index.len() / ENTRY;
    let at = |place: usize| entry(index, place).map_or(NEVER, |(hash, _)| hash);
    let guess = ((u128::from(hash) * n as u128) >> 64) as usize;
    let (mut low, mut high, mut step) = (guess, guess, 8);
    while low > 0 && at(low) >= hash {
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 8;
    while high < n && at(high) < hash {
        high = high.saturating_add(step).min(n);
        step *= 2;
    }
    // Invariant: the first place from `low` on whose hash is not below `hash` is at most `high`.
    while low < high {
        let middle = low + (high - low) / 2;
        if at(middle) < hash {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    (low < n && at(low) == hash).then_some(low)
}

/// One entry of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'f> {
    pub(super) weight: u64,
    /// Deadline, and the limit of its extensions, in milliseconds since 1970.
    pub(super) times: Option<(u64, u64)>,
    pub(super) rank: Rank,
    pub(super) key: &'f [u8],
    pub(super) value: &'f [u8],
    /// The length in bytes, with the padding.
    pub(super) length: u64,
}

/// Appends a record's fixed part to `out`. The caller must append key and value next. Returns where
/// the record begins.
pub(super) fn begin_record(out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    out.resize(begin + RECORD, 0);
    begin
}

/// Completes the record that begins at `begin`, with a key of `key` bytes, at `offset` in the file.
pub(super) fn end_record(
    out: &mut Vec<u8>,
    (begin, key): (usize, usize),
    (id, offset): (u64, u64),
    (weight, times, rank): (u64, Option<(u64, u64)>, Rank),
) -> Result<(), SnapshotError> {
    let length = |what, bytes: usize| {
        let too_large = |_| SnapshotError::TooLarge {
            what,
            bytes: bytes as u64,
        };
        u32::try_from(bytes).map_err(too_large)
    };
    let key_length = length("a key", key)?;
    let value_length = length("a value", out.len() - begin - RECORD - key)?;
    out.resize(begin + (out.len() - begin).next_multiple_of(8), 0);
    let record = &mut out[begin..];
    let (deadline, max_deadline) = times.unwrap_or((NEVER, NEVER));
    record[8..12].copy_from_slice(&key_length.to_le_bytes());
    record[12..16].copy_from_slice(&value_length.to_le_bytes());
    record[16..24].copy_from_slice(&weight.to_le_bytes());
    record[24..32].copy_from_slice(&deadline.to_le_bytes());
    record[32..40].copy_from_slice(&max_deadline.to_le_bytes());
    record[40] = rank.uses;
    record[41] = rank.queue;
    record[42] = if times.is_some() { TIMED } else { 0 } | if rank.marked { MARKED } else { 0 };
    let checksum = xxh3_64_with_seed(&record[8..], id.wrapping_add(offset));
    record[..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// Appends sorted index entries as bytes.
pub(super) fn encode_index(entries: &[[u64; 2]], out: &mut Vec<u8>) {
    for word in entries.as_flattened() {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// The checksum of an index that is written in pieces.
pub(super) struct IndexChecksum(Xxh3);

impl IndexChecksum {
    pub(super) fn new(id: u64) -> Self {
        Self(Xxh3::with_seed(id))
    }
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    pub(super) fn end(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> (Vec<u8>, Header) {
        let (mut out, id) = (vec![0; HEADER], 77);
        let begin = begin_record(&mut out);
        out.extend_from_slice(b"keyvalue");
        let rank = Rank {
            uses: 9,
            queue: 2,
            marked: true,
        };
        end_record(&mut out, (begin, 3), (id, HEADER as u64), (5, Some((1, 2)), rank)).unwrap();
        let records = (out.len() - HEADER) as u64;
        let at = out.len();
        encode_index(&[[4, HEADER as u64]], &mut out);
        let mut checksum = IndexChecksum::new(id);
        checksum.update(&out[at..]);
        let header = Header {
            id,
            schema: 3,
            created: 1,
            entries: 1,
            window: 6,
            records,
            index_checksum: checksum.end(),
        };
        out[..HEADER].copy_from_slice(&header.encode());
        (out, header)
    }

    #[test]
    fn round_trip() {
        let (file, header) = one();
        assert_eq!(Header::decode(&file).unwrap(), header);
        let record = header.record(&file, HEADER as u64).unwrap();
        assert_eq!(
            (record.key, record.value, record.weight),
            (&b"key"[..], &b"value"[..], 5)
        );
        assert_eq!(record.times, Some((1, 2)));
        assert_eq!((record.rank.uses, record.rank.queue, record.rank.marked), (9, 2, true));
        assert_eq!(search(header.index(&file), 4), Some(0));
        assert_eq!(search(header.index(&file), 5), None);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let (file, _) = one();
        for bit in 0..8 * file.len() {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let whole = Header::decode(&file).ok();
            assert!(whole.and_then(|header| header.record(&file, HEADER as u64)).is_none());
        }
        for length in 0..file.len() {
            assert!(Header::decode(&file[..length]).is_err());
        }
    }

    #[test]
    fn an_index_is_searched() {
        for n in [0u64, 1, 2, 3, 100, 5000] {
            // Evenly spread, and all at one end.
            for step in [u64::MAX / (n + 1), 3] {
                let entries: Vec<_> = (0..n).map(|i| [1 + i * step, i]).collect();
                let mut index = vec![];
                encode_index(&entries, &mut index);
                for i in 0..n {
                    assert_eq!(search(&index, 1 + i * step), Some(i as usize));
                    assert_eq!(search(&index, 2 + i * step), None);
                }
                assert_eq!(search(&index, 0), None);
                assert_eq!(search(&index, NEVER), None);
            }
        }
    }

    #[test]
    fn hashes_are_those_of_the_document() {
        use xxhash_rust::xxh3::xxh3_64;
        let bytes: Vec<u8> = vec![1, 2];
        assert_eq!(key_hash(&bytes), xxh3_64(&[2, 0, 0, 0, 0, 0, 0, 0, 1, 2]));
        assert_eq!(key_hash(&bytes[..]), key_hash(&bytes));
        assert_eq!(key_hash("ab"), xxh3_64(b"ab\xff"));
        assert_eq!(key_hash(&7usize), xxh3_64(&[7, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(key_hash(&7u16), xxh3_64(&[7, 0]));
        // Of all lengths, and in parts.
        let text = "x".repeat(3 * SHORT);
        for length in 0..text.len() {
            let both = [&text.as_bytes()[..length], b"\xff"].concat();
            assert_eq!(key_hash(&text[..length]), xxh3_64(&both));
            assert_eq!(key_hash(&(&text[..length], &text[..9])), {
                xxh3_64(&[&both[..], &text.as_bytes()[..9], b"\xff"].concat())
            });
        }
    }
}
