//! A snapshot file in memory: mapped or copied, and checked as far as opening it goes.
//!
//! - **Mapped**, the bytes are the file's own. Another program that truncates the file in place has
//!   the system kill this process at its next access (SIGBUS); one that overwrites it changes what
//!   is read, which the checksums find.
//! - **Copied**, they are this process's own, and what is correct when it is opened stays so.

use super::error::SnapshotError;
use super::format::{self, Header, Record};
use memmap2::Mmap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

enum Contents {
    Mapped(Mmap),
    Copied(Vec<u8>),
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Copied(bytes) => bytes,
        }
    }
}

/// A file whose header and index are correct.
pub(super) struct SnapshotFile {
    contents: Contents,
    header: Header,
}

impl SnapshotFile {
    /// Maps the file, and checks its header and index.
    pub(super) fn map(path: &Path, schema: u64) -> Result<Self, SnapshotError> {
        let (mut file, length) = open(path)?;
        // What is too short is not mapped: the system maps no empty files.
        let contents = if length < format::HEADER {
            Contents::Copied(read(&mut file, length).map_err(SnapshotError::io("read", path))?)
        } else {
            // SAFETY: the map is only read, and what it holds is never trusted. This library never
            // changes a file that has its final name; that others may, and what happens then, is
            // stated first in the documentation of `Cache::load`, which offers copying instead.
            Contents::Mapped(unsafe { Mmap::map(&file) }.map_err(SnapshotError::io("map", path))?)
        };
        Self::check(contents, schema)
    }

    /// Reads the file into memory, and checks its header and index. If another program changed it
    /// while it was read, the records are not those that the index names, which
    /// [`check_records`](Self::check_records) finds.
    pub(super) fn copy(path: &Path, schema: u64) -> Result<Self, SnapshotError> {
        let (mut file, length) = open(path)?;
        let bytes = read(&mut file, length).map_err(SnapshotError::io("read", path))?;
        Self::check(Contents::Copied(bytes), schema)
    }

    fn check(contents: Contents, schema: u64) -> Result<Self, SnapshotError> {
        let header = Header::decode(&contents)?;
        if header.schema != schema {
            return Err(SnapshotError::Schema {
                found: header.schema,
                expected: schema,
            });
        }
        Ok(Self { contents, header })
    }

    /// Checks that each record that the index names is whole and overlaps no other, and calls
    /// `check` with the key's hash and the record. Returns the records' offsets, in ascending
    /// order.
    pub(super) fn check_records(
        &self,
        mut check: impl FnMut(u64, &Record<'_>) -> Result<(), SnapshotError>,
    ) -> Result<Vec<u64>, SnapshotError> {
        let corrupt = |what| SnapshotError::Corrupt { what };
        let mut entries: Vec<_> = (0..self.len()).map(|at| self.entry(at)).collect();
        entries.sort_unstable_by_key(|(_, offset)| *offset);
        let mut end = 0;
        for (hash, offset) in &entries {
            if *offset < end {
                return Err(corrupt("records that overlap"));
            }
            let record = self.record(*offset).ok_or_else(|| corrupt("a record"))?;
            check(*hash, &record)?;
            end = offset + record.length;
        }
        Ok(entries.into_iter().map(|(_, offset)| offset).collect())
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn bytes(&self) -> u64 {
        self.contents.len() as u64
    }

    /// How many entries the index has.
    pub(super) fn len(&self) -> usize {
        self.header.entries as usize
    }

    /// Where in the index a hash is.
    pub(super) fn search(&self, hash: u64) -> Option<usize> {
        format::search(self.header.index(&self.contents), hash)
    }

    /// An entry of the index: hash and offset.
    pub(super) fn entry(&self, at: usize) -> (u64, u64) {
        format::entry(self.header.index(&self.contents), at).unwrap_or((0, 0))
    }

    /// The record at this offset, if it is whole.
    pub(super) fn record(&self, offset: u64) -> Option<Record<'_>> {
        self.header.record(&self.contents, offset)
    }
}

/// Opens what must be a file, without ever waiting. Returns its length, too.
fn open(path: &Path) -> Result<(File, usize), SnapshotError> {
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe without a writer would be waited for. (Miri has no such flag.)
    #[cfg(all(unix, not(miri)))]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(SnapshotError::io("open", path))?;
    let metadata = file.metadata().map_err(SnapshotError::io("look at", path))?;
    if !metadata.is_file() {
        return Err(SnapshotError::NotAFile { path: path.to_owned() });
    }
    let length = usize::try_from(metadata.len()).map_err(|_| SnapshotError::TooLarge {
        what: "a file",
        bytes: metadata.len(),
    })?;
    Ok((file, length))
}

/// Reads up to `length` bytes, for which there may be no memory.
fn read(file: &mut File, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
