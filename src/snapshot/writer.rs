//! Writing a snapshot in large pieces, to a file that replaces the previous one when it is
//! complete.

use super::error::SnapshotError;
use super::format::{self, Header, IndexChecksum};
use super::replace::Replacement;
use crate::policy::Rank;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// The size in bytes above which a piece is written.
const PIECE: usize = 1 << 18;

/// Weight, deadlines (deadline and the limit of its extensions) and rank of an entry.
pub(super) type EntryMeta = (u64, Option<(u64, u64)>, Rank);

/// A snapshot file that is being written.
pub(super) struct Writer {
    replacement: Replacement,
    header: Header,
    piece: Vec<u8>,
    /// The offset of the piece in the file.
    at: u64,
}

impl Writer {
    pub(super) fn new(path: &Path, header: Header) -> Result<Self, SnapshotError> {
        Ok(Self {
            replacement: Replacement::begin(path)?,
            header,
            piece: vec![0; format::HEADER],
            at: 0,
        })
    }

    /// Returns the offset of the next record in the file.
    pub(super) fn offset(&self) -> u64 {
        self.at + self.piece.len() as u64
    }

    /// Whether the piece is large enough to be written.
    pub(super) fn is_full(&self) -> bool {
        self.piece.len() >= PIECE
    }

    /// Adds a record to the piece. `key` and `value` append their bytes.
    pub(super) fn add(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(&mut Vec<u8>),
        meta: EntryMeta,
    ) -> Result<(), SnapshotError> {
        let offset = self.offset();
        let begin = format::begin_record(&mut self.piece);
        key(&mut self.piece);
        let length = self.piece.len() - begin - format::RECORD;
        value(&mut self.piece);
        format::end_record(&mut self.piece, (begin, length), (self.header.id, offset), meta)
    }

    /// Writes the piece.
    pub(super) fn flush(&mut self) -> Result<(), SnapshotError> {
        let (file, path) = self.replacement.file();
        file.write_all(&self.piece).map_err(SnapshotError::io("write", path))?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        self.piece.shrink_to(2 * PIECE);
        Ok(())
    }

    /// Writes the index and the header, which completes the file.
    pub(super) fn complete(&mut self, index: &[[u64; 2]]) -> Result<(), SnapshotError> {
        self.flush()?;
        self.header.records = self.at - format::HEADER as u64;
        self.header.entries = index.len() as u64;
        let mut checksum = IndexChecksum::new(self.header.id);
        for part in index.chunks(PIECE / format::ENTRY) {
            format::encode_index(part, &mut self.piece);
            checksum.update(&self.piece);
            self.flush()?;
        }
        self.header.index_checksum = checksum.end();
        let (file, path) = self.replacement.file();
        let to_begin = file.seek(SeekFrom::Start(0));
        to_begin.map_err(SnapshotError::io("seek in", path))?;
        let written = file.write_all(&self.header.encode());
        written.map_err(SnapshotError::io("write", path))
    }

    /// Replaces the previous file by the complete one. Returns its length, and whether the system
    /// confirmed that its name is on the disk.
    pub(super) fn commit(self) -> Result<(u64, bool), SnapshotError> {
        Ok((self.at, self.replacement.commit()?))
    }
}
