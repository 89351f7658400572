//! What can go wrong, for the caller to see.

use crate::map::NoMemory;
use std::error::Error;
use std::sync::Arc;
use std::{fmt, io, mem};

/// A setting with which no cache can be built.
///
/// Two errors are equal if they are of one kind; of [`ThreadSpawn`](Self::ThreadSpawn), if their sources are, too.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BuildError {
    /// Neither `max_entries` nor `max_weight` was set.
    MissingCapacity,
    /// Both `max_entries` and `max_weight` were set.
    ConflictingCapacities,
    /// `max_weight` was set without a `weigher`.
    MissingWeigher,
    /// A `weigher` was set without `max_weight`.
    MissingMaxWeight,
    /// A time to live, a time to idle, a time to refresh, a ticker's or a snapshot's interval of zero.
    ZeroDuration,
    /// A jitter that is not from 0 to below 1.
    Jitter,
    /// `ticker` was set before `hasher`, which makes another builder: set it after.
    TickerBeforeHasher,
    /// `snapshot` was set before `hasher`, which makes another builder: set it after.
    SnapshotBeforeHasher,
    /// The operating system refused the thread of the [`ticker`](crate::Builder::ticker), or of the
    /// [`snapshot`](crate::Builder::snapshot).
    ThreadSpawn {
        /// What it reported.
        source: Arc<io::Error>,
    },
    /// There is no memory for a table of so many entries. (A cache of 1,024 to 2^26 entries is built with a table for all of
    /// them, some 18 bytes each; any other begins small.)
    NoMemory,
    /// The allocator returns pointers with a tag in their upper 16 bits, which the table has no room for: under MTE, HWASan or LAM,
    /// and on Android 11 or newer unless the application turns tagging off.
    TaggedPointers,
    /// An expiration setting, on a platform without a clock (`wasm32-unknown-unknown`), and no [`clock`](crate::Builder::clock).
    NoClock,
}

impl From<NoMemory> for BuildError {
    fn from(NoMemory: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThreadSpawn { source } => return write!(f, "failed to start the maintenance thread: {source}"),
            Self::MissingCapacity => "a cache needs a bound: set max_entries, or max_weight and a weigher",
            Self::ConflictingCapacities => "max_entries and max_weight exclude each other: set one of them",
            Self::MissingWeigher => "max_weight needs a weigher, which says what an entry weighs",
            Self::MissingMaxWeight => "a weigher needs max_weight, the bound on the sum of the weights",
            Self::ZeroDuration => {
                "a time to live, to idle or to refresh, a ticker's and a snapshot's interval must be longer than zero"
            }
            Self::Jitter => "a jitter is a fraction, from 0 to below 1",
            Self::TickerBeforeHasher => "set the ticker after the hasher",
            Self::SnapshotBeforeHasher => "set the snapshot after the hasher",
            Self::NoMemory => "there is no memory for a table of so many entries",
            Self::TaggedPointers => {
                "the allocator returns pointers with a tag in their upper 16 bits: turn off pointer tagging, or use another allocator"
            }
            Self::NoClock => "expiration settings need a clock, which this platform has not: set one by Builder::clock",
        })
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::ThreadSpawn { source } => Some(&**source),
            _ => None,
        }
    }
}

impl PartialEq for BuildError {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ThreadSpawn { source: one }, Self::ThreadSpawn { source: other }) => {
                (one.kind(), one.raw_os_error()) == (other.kind(), other.raw_os_error())
            }
            _ => mem::discriminant(self) == mem::discriminant(other),
        }
    }
}

impl Eq for BuildError {}

/// Why a load brought no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader returned this error. All callers that waited for the same load share it.
    Failed(Arc<E>),
    /// The key was asked for from inside its own loader, directly or through loaders of other threads that wait for each
    /// other: waiting would never end.
    Reentrant,
    /// A loader of many keys returned another number of values than it was asked for. None of them was used.
    WrongLength {
        /// The number of keys.
        asked: usize,
        /// The number of values.
        returned: usize,
    },
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(error.clone()),
            Self::Reentrant => Self::Reentrant,
            Self::WrongLength { asked, returned } => Self::WrongLength {
                asked: *asked,
                returned: *returned,
            },
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "the loader failed: {error}"),
            Self::Reentrant => f.write_str("the key was asked for from inside its own loader"),
            Self::WrongLength { asked, returned } => {
                write!(f, "a loader was asked for {asked} values and returned {returned}")
            }
        }
    }
}

impl<E: Error + 'static> Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(&**error),
            Self::Reentrant | Self::WrongLength { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_thread_keeps_the_source() {
        let refused = |kind| BuildError::ThreadSpawn {
            source: Arc::new(io::Error::new(kind, "no more threads")),
        };
        let error = refused(io::ErrorKind::WouldBlock);
        assert_eq!(
            error.to_string(),
            "failed to start the maintenance thread: no more threads"
        );
        assert_eq!(error.source().unwrap().to_string(), "no more threads");
        assert_eq!(error, error.clone());
        assert_ne!(error, refused(io::ErrorKind::OutOfMemory));
        assert_ne!(error, BuildError::NoMemory);
    }
}
