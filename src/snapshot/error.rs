//! Why a snapshot was not saved, or not loaded.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a snapshot was not saved (a former file of that name is whole), or not loaded (the cache works, and holds what it held).
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The operating system refused something.
    Io {
        /// What was to be done: "open", "write", ...
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The path is that of a directory, a pipe, a device: of something that is not a file.
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file does not begin like a snapshot.
    NotASnapshot,
    /// The file is of another version of the format.
    Version {
        /// The version found.
        found: u32,
        /// The version that this library reads and writes.
        supported: u32,
    },
    /// The file was written in another order of bytes.
    Endianness,
    /// The file's schema is not the one asked for.
    Schema {
        /// The schema found.
        found: u64,
        /// The schema asked for.
        expected: u64,
    },
    /// The file is shorter than it should be.
    Truncated {
        /// Its length.
        found: u64,
        /// The length it should have at least.
        expected: u64,
    },
    /// The file is damaged, or was not made by this library.
    Corrupt {
        /// Which part of it.
        what: &'static str,
    },
    /// The keys or values found are none of this cache's types, or hash otherwise than when they were saved: the types have
    /// changed, and the schema has not.
    Incompatible {
        /// What is wrong.
        what: &'static str,
    },
    /// A key or a value is too long for the format (4 GiB), or the file for this machine.
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
                write!(f, "the snapshot is of version {found}, not {supported}")
            }
            Self::Endianness => f.write_str("the snapshot was written in another order of bytes"),
            Self::Schema { found, expected } => {
                write!(f, "the snapshot's schema is {found:#x}, not {expected:#x}")
            }
            Self::Truncated { found, expected } => {
                write!(f, "the snapshot has {found} bytes of at least {expected}")
            }
            Self::Corrupt { what } => write!(f, "the snapshot is damaged: {what}"),
            Self::Incompatible { what } => write!(f, "the snapshot does not fit the cache's types: {what}"),
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
