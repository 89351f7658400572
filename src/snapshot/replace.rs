//! Replacing a file atomically: the new one is written under a temporary name, and takes the place
//! of the previous one when it is complete and on the disk.
//!
//! - **Links** are followed, and the file that they lead to is replaced, in its own directory.
//! - **A temporary file** is named `.hotset-TTTTTTTTRRRRRRRR.tmp`: a hash of the target's name and
//!   a random number, both of 8 hexadecimal digits. So its length does not depend on the target's.
//!   It is locked (`flock`) while it is written, which distinguishes it from one whose process was
//!   killed; the next save to the same target removes those.
//! - **The rename is the last step that can fail.** The directory is opened before it, and synced
//!   after it: whether that succeeded is returned, and is no error.

use super::error::SnapshotError;
use super::permissions;
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// Links that are followed to one file; Linux follows as many.
const MAX_LINKS: usize = 40;

/// A file that is being written in order to replace another. If it is dropped before
/// [`commit`](Self::commit), it is removed.
pub(super) struct Replacement {
    file: File,
    /// Where it is until it is committed.
    temporary: PathBuf,
    /// Where it is from then on. Not a link.
    target: PathBuf,
    /// The directory of both, where it may be read.
    #[cfg(unix)]
    directory: Option<File>,
    committed: bool,
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.committed {
            _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Replacement {
    /// Creates the temporary file for the file at `path`, which need not exist. Until it is
    /// committed, only its owner may read it.
    pub(super) fn begin(path: &Path) -> Result<Self, SnapshotError> {
        let target = resolve(path)?;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let prefix = temporary_prefix(&target);
        remove_orphans(directory, &prefix);
        #[cfg(unix)]
        let opened_directory = File::open(directory).ok();
        loop {
            let temporary = directory.join(format!("{prefix}{:08x}.tmp", random()));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = match options.open(&temporary) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(SnapshotError::io("create", &temporary))?,
            };
            // On a file system without locks it stays unlocked, and no other save removes it.
            let locked = !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
            // Another save may have locked it first, as an orphan, and removes it before it unlocks
            // it.
            if locked && !is_absent(&temporary) {
                return Ok(Self {
                    file,
                    temporary,
                    target,
                    #[cfg(unix)]
                    directory: opened_directory,
                    committed: false,
                });
            }
        }
    }

    /// The file, and the path to name in errors.
    pub(super) fn file(&mut self) -> (&mut File, &Path) {
        (&mut self.file, &self.temporary)
    }

    /// Replaces the target. Returns whether the system confirmed that the new name is on the disk,
    /// too.
    pub(super) fn commit(mut self) -> Result<bool, SnapshotError> {
        match fs::symlink_metadata(&self.target) {
            Ok(previous) if previous.is_file() => permissions::keep(&self.target, &previous, &self.file),
            Ok(_) => {
                return Err(SnapshotError::NotAFile {
                    path: self.target.clone(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SnapshotError::io("look at", &self.target)(error)),
        }
        let synced = self.file.sync_all();
        synced.map_err(SnapshotError::io("sync", &self.temporary))?;
        if let Err(error) = fs::rename(&self.temporary, &self.target)
            && !self.is_in_place()
        {
            return Err(SnapshotError::io("replace", &self.target)(error));
        }
        self.committed = true;
        Ok(self.sync_directory())
    }

    /// Whether the target is this file. A rename on a file server can be done although it reports a
    /// failure: the reply to the first request was lost, and the repeated request finds nothing to
    /// rename.
    #[cfg(unix)]
    fn is_in_place(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(&self.target).map(identity).ok();
        there.is_some() && there == self.file.metadata().map(identity).ok()
    }

    #[cfg(not(unix))]
    fn is_in_place(&self) -> bool {
        false
    }

    #[cfg(unix)]
    fn sync_directory(&self) -> bool {
        self.directory
            .as_ref()
            .is_some_and(|directory| directory.sync_all().is_ok())
    }

    #[cfg(not(unix))]
    fn sync_directory(&self) -> bool {
        false
    }
}

/// Follows the links at `path`. Returns the path to replace, which is a file or does
/// not exist.
fn resolve(path: &Path) -> Result<PathBuf, SnapshotError> {
    let not_a_file = || SnapshotError::NotAFile { path: path.to_owned() };
    let mut at = path.to_owned();
    let mut nameless = false;
    for _ in 0..=MAX_LINKS {
        if !ends_with_a_name(&at) {
            return Err(not_a_file());
        }
        let found = match fs::symlink_metadata(&at) {
            // The system shows a path for an open file that was removed; saving there would create
            // another file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && nameless => return Err(not_a_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(at),
            found => found.map_err(SnapshotError::io("look at", &at))?,
        };
        if found.is_file() {
            return Ok(at);
        }
        if !found.is_symlink() {
            return Err(not_a_file());
        }
        // The system follows the link first: it refuses those that other users left in a directory
        // that all may write to.
        match fs::metadata(&at) {
            Ok(file) if !file.is_file() => return Err(not_a_file()),
            Ok(file) => nameless = is_removed(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SnapshotError::io("follow", &at)(error)),
        }
        let to = fs::read_link(&at).map_err(SnapshotError::io("follow", &at))?;
        at.pop();
        at.push(to);
    }
    Err(SnapshotError::io("follow", path)(too_many_links()))
}

#[cfg(unix)]
fn ends_with_a_name(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    // (`Path::file_name` ignores a slash or a dot at the end, with which the path is that of a
    // directory.)
    let mut names = path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/');
    !matches!(names.next(), None | Some(b"" | b"." | b".."))
}

#[cfg(not(unix))]
fn ends_with_a_name(path: &Path) -> bool {
    path.file_name().is_some()
}

#[cfg(unix)]
fn is_removed(file: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(file) == 0
}

#[cfg(not(unix))]
fn is_removed(_: &fs::Metadata) -> bool {
    false
}

#[cfg(unix)]
fn too_many_links() -> io::Error {
    io::Error::from_raw_os_error(libc::ELOOP)
}

#[cfg(not(unix))]
fn too_many_links() -> io::Error {
    io::Error::other("too many levels of symbolic links")
}

fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A number that another save is unlikely to draw, in this process or another.
fn random() -> u32 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // (A child of fork has the keys of its parent, but another process id.)
    let number = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    std::hash::RandomState::new().hash_one(number) as u32
}

/// What the names of all temporary files for this target begin with.
fn temporary_prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default();
    format!(".hotset-{:08x}", xxh3_64(name.as_encoded_bytes()) as u32)
}

/// Removes the temporary files of saves to this target whose processes were killed. A failure to do
/// so fails no save.
fn remove_orphans(directory: &Path, prefix: &str) {
    let is_temporary = |name: &str| {
        let random = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(".tmp"));
        random.is_some_and(|random| random.len() == 8 && random.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_temporary)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = open_orphan(&entry.path())
            && file.try_lock().is_ok()
        {
            _ = fs::remove_file(entry.path());
        }
    }
}

fn open_orphan(path: &Path) -> io::Result<File> {
    let open = |write: bool| {
        let mut options = OpenOptions::new();
        options.read(!write).write(write);
        // Something else may have taken its place since it was listed.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
        options.open(path)
    };
    // Some file systems lock only what may be written, and a file that was about to be committed
    // may be read-only.
    open(true).or_else(|_| open(false))
}
