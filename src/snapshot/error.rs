//! Errors of saving and loading a snapshot.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The error of a failed save or load.
///
/// After a failed save, the previous file of that name is unchanged. After a failed load, the
/// cache works and holds what it held before.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The operating system refused an operation on a file.
    Io {
        /// The operation: "open", "write", ..
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path leads to a directory, a pipe, a device or a socket.
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file does not begin with the magic bytes of a snapshot.
    NotASnapshot,
    /// The file has another version of the format.
    Version {
        /// The version found.
        found: u32,
        /// The version that this library reads and writes.
        supported: u32,
    },
    /// The file was written in the other byte order.
    Endianness,
    /// The file's schema is not the requested one.
    Schema {
        /// The schema found.
        found: u64,
        /// The requested schema.
        expected: u64,
    },
    /// The file is shorter than its header states.
    Truncated {
        /// Its length in bytes.
        found: u64,
        /// The least length it must have, in bytes.
        expected: u64,
    },
    /// A checksum or a length in the file is wrong.
    Corrupt {
        /// The part of the file that is corrupt.
        what: &'static str,
    },
    /// The file's keys or values do not decode to this cache's types, or a key hashes differently
    /// than when it was saved: the types changed, and the schema did not.
    Incompatible {
        /// The part that does not match.
        what: &'static str,
    },
    /// A key or a value has 4 GiB or more, or the file exceeds the address space.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length in bytes.
        bytes: u64,
    },
}

impl SnapshotError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                operation,
                path,
                source,
            } => write!(f, "cannot {operation} {}: {source}", path.display()),
            Self::NotAFile { path } => write!(f, "{} is not a file", path.display()),
            Self::NotASnapshot => f.write_str("the file is not a snapshot"),
            Self::Version { found, supported } => {
                write!(f, "snapshot has format version {found}, this library reads {supported}")
            }
            Self::Endianness => f.write_str("snapshot was written in the other byte order"),
            Self::Schema { found, expected } => {
                write!(f, "snapshot has schema {found:#x}, expected {expected:#x}")
            }
            Self::Truncated { found, expected } => {
                write!(f, "snapshot is truncated: {found} bytes, expected at least {expected}")
            }
            Self::Corrupt { what } => write!(f, "snapshot is corrupt: {what}"),
            Self::Incompatible { what } => write!(f, "snapshot is incompatible with the cache's types: {what}"),
            Self::TooLarge { what, bytes } => write!(f, "{what} of {bytes} bytes is too large for a snapshot"),
        }
    }
}

impl Error for SnapshotError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
