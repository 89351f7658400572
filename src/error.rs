//! The errors of building a cache and of loading a value.

use crate::map::NoMemory;
use std::error::Error;
use std::sync::Arc;
use std::{fmt, io, mem};

/// The error of [`Builder::build`](crate::Builder::build): the settings from which no cache can be
/// built, or the resource that the system refuses.
///
/// Two errors are equal if they are of the same variant. Errors of
/// [`ThreadSpawn`](Self::ThreadSpawn) are equal if their sources also have the same kind and code.
///
/// # Examples
///
/// ```
/// use hotset::{BuildError, Cache};
///
/// let error = Cache::<u64, u64>::builder().build().unwrap_err();
/// assert_eq!(error, BuildError::MissingCapacity);
/// ```
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
    /// A time to live, a time to idle, a refresh age, a negative TTL, or the interval of a ticker
    /// or a snapshot is zero.
    ZeroDuration,
    /// The jitter is not at least 0 and less than 1.
    Jitter,
    /// The operating system refused the thread of the [`ticker`](crate::Builder::ticker) or of the
    /// [`snapshot`](crate::Builder::snapshot).
    ThreadSpawn {
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// There is no memory for the table. A cache of 1,024 to 2^26 entries is built with a table for
    /// all of them, about 18 bytes per entry; any other starts small.
    NoMemory,
    /// The allocator returns pointers with a tag in their upper 16 bits, which the table has no
    /// room for. So do allocators under MTE, HWASan or LAM, and on Android 11 or newer unless the
    /// application turns tagging off.
    TaggedPointers,
    /// [`profile`](crate::Builder::profile) for a cache that holds nothing, or has no bound: such a
    /// cache has no size to compare others with.
    ProfileWithoutBound,
    /// The bounds of [`autosize`](crate::Builder::autosize) are empty, begin at 0, end above 2^28
    /// entries, or do not contain the first capacity; or its target is not above 0 and at most 1.
    Autosize,
    /// An expiration setting without a [`clock`](crate::Builder::clock), on a platform that has
    /// none (`wasm32-unknown-unknown`).
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
            Self::MissingCapacity => "no capacity: set max_entries, or max_weight and a weigher",
            Self::ConflictingCapacities => "both max_entries and max_weight are set: set one of them",
            Self::MissingWeigher => {
                "max_weight without a weigher: set the function that returns the weight of an entry"
            }
            Self::MissingMaxWeight => "weigher without max_weight: set the bound on the sum of the weights",
            Self::ZeroDuration => "a duration is zero: TTLs, refresh ages and intervals must be longer than zero",
            Self::Jitter => "jitter is out of range: it must be at least 0 and less than 1",
            Self::NoMemory => "no memory for the table: set a smaller capacity",
            Self::TaggedPointers => {
                "the allocator returns tagged pointers: turn off pointer tagging, or use another allocator"
            }
            Self::ProfileWithoutBound => "profile needs a bound: set a capacity of at least 1 and at most 2^28 entries",
            Self::Autosize => {
                "autosize needs 1 <= low <= capacity <= high <= 2^28 entries, and a target above 0 and at most 1"
            }
            Self::NoClock => "no clock on this platform for expiration settings: set one with Builder::clock",
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

/// The error of [`Cache::advise`](crate::Cache::advise).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdviseError {
    /// The cache was built without [`profile`](crate::Builder::profile).
    NotProfiled,
    /// [`set_capacity`](crate::Cache::set_capacity) has set a capacity of 0, or no bound.
    NoBound,
}

impl fmt::Display for AdviseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotProfiled => "the cache is not profiled: build it with Builder::profile",
            Self::NoBound => "the cache has no bound, or holds nothing: set a capacity of at least 1 entry",
        })
    }
}

impl Error for AdviseError {}

/// The error of a load that returned no value.
///
/// # Examples
///
/// ```
/// use hotset::{Cache, LoadError};
///
/// let cache: Cache<&str, u32> = Cache::new(100);
/// let port = cache.try_get_or_insert_with("port", || "80a".parse::<u32>());
/// let Err(LoadError::Failed(error)) = port else { panic!("a letter is not a digit") };
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader returned this error. All callers that waited for the same load share it.
    Failed(Arc<E>),
    /// The key was requested from inside its own loader, directly or through loaders of other
    /// threads that wait for each other. Waiting would be a deadlock.
    Reentrant,
    /// A loader of many keys returned a different number of values than it was called with keys.
    /// None of the values is used.
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
            Self::Reentrant => f.write_str("the key was requested from inside its own loader"),
            Self::WrongLength { asked, returned } => {
                write!(f, "the loader returned {returned} values, expected {asked}")
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
