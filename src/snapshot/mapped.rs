//! A snapshot file in memory: opened without ever waiting, mapped, and checked as far as opening goes.

use super::error::SnapshotError;
use super::format::{self, Header, Record};
use memmap2::Mmap;
use std::fs::OpenOptions;
use std::path::Path;

/// A mapped file whose header and index are in order.
pub(super) struct Mapped {
    map: Mmap,
    header: Header,
}

impl Mapped {
    pub(super) fn open(path: &Path, schema: u64) -> Result<Self, SnapshotError> {
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        {
            // A pipe without a writer would be waited for.
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
        }
        let file = options.open(path).map_err(SnapshotError::io("open", path))?;
        let metadata = file.metadata().map_err(SnapshotError::io("look at", path))?;
        if !metadata.is_file() {
            return Err(SnapshotError::NotAFile { path: path.to_owned() });
        }
        let found = metadata.len();
        if found < format::HEADER as u64 {
            // What is too short is not mapped: the system maps no empty files.
            let bytes = std::fs::read(path).map_err(SnapshotError::io("read", path))?;
            let expected = format::HEADER as u64;
            return Err(Header::decode(&bytes)
                .err()
                .unwrap_or(SnapshotError::Truncated { found, expected }));
        }
        if usize::try_from(found).is_err() {
            return Err(SnapshotError::TooLarge {
                what: "a file",
                bytes: found,
            });
        }
        // SAFETY: the map is only read, and what it holds is never trusted. Nothing of this library changes a file that
        // has its final name; that others do not truncate it meanwhile is asked of them in the documentation of `load`.
        let map = unsafe { Mmap::map(&file) }.map_err(SnapshotError::io("map", path))?;
        let header = Header::decode(&map)?;
        if header.schema != schema {
            return Err(SnapshotError::Schema {
                found: header.schema,
                expected: schema,
            });
        }
        Ok(Self { map, header })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// How many entries the index has.
    pub(super) fn len(&self) -> usize {
        self.header.entries as usize
    }

    /// Where in the index a hash is.
    pub(super) fn search(&self, hash: u64) -> Option<usize> {
        format::search(self.header.index(&self.map), hash)
    }

    /// An entry of the index: hash and offset.
    pub(super) fn entry(&self, at: usize) -> (u64, u64) {
        format::entry(self.header.index(&self.map), at).unwrap_or((0, 0))
    }

    /// The record at this offset, if it is whole.
    pub(super) fn record(&self, offset: u64) -> Option<Record<'_>> {
        self.header.record(&self.map, offset)
    }
}
