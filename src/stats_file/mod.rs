//! The stats file: the figures of this process's named caches, for other processes to read.
//!
//! A cache has a name ([`Builder::name`](crate::Builder::name)). Once [`enable`] was called, or if
//! the environment variable `HOTSET_STATS` names a directory when the first cache gets its name,
//! the process keeps the file `hotset-<pid>-<n>.stats` there. `python -m hotset top` shows the
//! files of all processes, [`scan`] reads them.
//!
//! # Examples
//!
//! ```
//! use hotset::{Cache, stats_file};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("hotset-doc-{}", std::process::id()));
//! # std::fs::create_dir(&directory)?;
//! # #[cfg(unix)]
//! # std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
//! # if cfg!(unix) {
//! let users: Cache<u64, String> = Cache::builder().max_entries(1000).name("users").build()?;
//! stats_file::enable(&directory)?;
//! users.insert(1, "Ada".to_owned());
//!
//! let processes = stats_file::scan(&directory)?;
//! assert_eq!(processes[0].caches[0].name, "users");
//! # }
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Updates
//!
//! The file is rewritten at most once a second, by the call that finds it due: any call on a named
//! cache. No thread is started. While the file is enabled, calls on named caches read the clock, as
//! they do in a cache whose entries expire. Calls on a cache with a [clock](crate::Builder::clock)
//! of its own do not rewrite the file; its figures are in it all the same.
//!
//! # Safety for the process
//!
//! - The file is written with `pwrite`, not through a mapping: a full disk, or a file that is
//!   truncated, cannot raise SIGBUS. A write that fails leaves the previous figures.
//! - Two slots are written in turn, each with a checksum. A reader takes the newest whole one, so
//!   that it never sees half an update, also if the process is killed in the middle of a write.
//! - The file has mode 0600. It is created under a name that does not exist, through no symbolic
//!   link, in a directory in which no other user can replace files.
//! - The child of a fork makes a file of its own, for the caches that it names itself.
//! - The file is removed at the process's normal exit. [`scan`] removes those of processes that
//!   have surely ended.
//!
//! # Platforms
//!
//! Stats files need a Unix system; elsewhere [`enable`] fails, and names have no effect. Outside of
//! Linux a reader takes any process of the same number for the one that wrote the file.

#[cfg_attr(not(unix), allow(dead_code))]
mod error;
#[cfg_attr(not(unix), allow(dead_code, unreachable_pub))]
mod format;
mod reader;
#[cfg(unix)]
pub(crate) mod registry;
#[cfg(not(unix))]
#[path = "registry_off.rs"]
mod registry;
#[cfg(unix)]
mod system;
#[cfg(all(test, unix, not(loom)))]
mod tests;
#[cfg(unix)]
mod writer;

pub use error::StatsFileError;
pub use format::Language;
#[doc(hidden)]
pub use reader::parse;
pub use reader::{Answer, CacheStats, CurvePoint, ProcessStats, Sample, read, scan};
#[cfg(unix)]
pub(crate) use registry::{Record, Registration, Source, register};

use std::path::{Path, PathBuf};

/// Keeps the stats file of this process in `directory`, from now until the process exits.
///
/// The figures of the caches that have a name are in the file when the call returns. A second call
/// with the same directory does nothing.
///
/// # Errors
///
/// A [`StatsFileError`] if the directory does not exist or is not writable, if other users can
/// replace files in it, if the process has a stats file in another directory, or if the platform
/// has no stats files.
pub fn enable(directory: impl AsRef<Path>) -> Result<(), StatsFileError> {
    registry::enable(directory.as_ref())
}

/// Returns the path of this process's stats file, if it has one.
pub fn path() -> Option<PathBuf> {
    registry::path()
}
