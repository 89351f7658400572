//! The errors of stats files.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// The error of enabling the stats file, or of reading one.
#[derive(Debug)]
pub struct StatsFileError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
pub(super) enum Reason {
    Io(io::Error),
    /// Other users may replace files in the directory.
    UnsafeDirectory,
    Enabled(PathBuf),
    #[cfg(not(unix))]
    Unsupported,
    NotAStatsFile,
    OtherUser(u32),
    Version(u32),
    Corrupt,
}

impl StatsFileError {
    pub(super) fn new(path: &Path, reason: Reason) -> Self {
        Self {
            path: path.to_owned(),
            reason,
        }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::new(path, Reason::Io(source))
    }

    #[cfg(unix)]
    pub(super) fn unsafe_directory(path: &Path) -> Self {
        Self::new(path, Reason::UnsafeDirectory)
    }

    /// Returns the directory, or the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the operating system's error, if there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.reason {
            Reason::Io(source) => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for StatsFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            Reason::Io(source) if source.kind() == io::ErrorKind::NotFound => {
                write!(
                    f,
                    "{path} does not exist: {source}; create the directory with mode 0700"
                )
            }
            Reason::Io(source) => write!(
                f,
                "failed to use {path}: {source}; choose a directory that this user can write to"
            ),
            Reason::UnsafeDirectory => write!(
                f,
                "{path} is a directory in which other users can replace files: choose one of mode 0700, or one with the sticky bit"
            ),
            Reason::Enabled(other) => write!(
                f,
                "the stats file is already in {}: a process has one directory, not {path} as well",
                other.display()
            ),
            #[cfg(not(unix))]
            Reason::Unsupported => write!(f, "stats files need a Unix system: {path} is not used"),
            Reason::NotAStatsFile => write!(
                f,
                "{path} is not a stats file: choose a file named hotset-<pid>-<n>.stats"
            ),
            Reason::OtherUser(uid) => write!(f, "{path} belongs to the user {uid}: read it as that user"),
            Reason::Version(version) => write!(
                f,
                "{path} has version {version} of the format, expected 1: read it with the version of hotset that wrote it"
            ),
            Reason::Corrupt => write!(f, "{path} is corrupt: remove it if its process does not run"),
        }
    }
}

impl Error for StatsFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.io_error().map(|source| source as _)
    }
}
