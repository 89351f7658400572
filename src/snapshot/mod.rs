//! Snapshots: the entries of a cache in a file, from which the next process starts warm.
//!
//! ```
//! use hotset::Cache;
//!
//! # fn main() -> Result<(), hotset::snapshot::SnapshotError> {
//! # let path = std::env::temp_dir().join(format!("hotset-doc-{}", std::process::id()));
//! let cache: Cache<String, Vec<u8>> = Cache::new(10_000);
//! cache.insert("/index".to_owned(), b"<html>".to_vec());
//! cache.save(&path)?;
//!
//! // In the next process:
//! let cache: Cache<String, Vec<u8>> = Cache::new(10_000);
//! cache.load(&path)?;
//! assert_eq!(cache.get("/index").as_deref(), Some(&b"<html>"[..]));
//! # std::fs::remove_file(&path).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # Contents
//!
//! A snapshot keeps the keys and values, their remaining TTLs, and the policy's state of each
//! entry: its queue, its place in it, and its recent uses. It also keeps the size of the policy's
//! window. It does not keep the policy's counts of absent keys: those are kept by a hash that
//! differs in every process.
//!
//! # Loading
//!
//! [`Cache::load`] maps the file and checks its header and index. An entry is restored into the
//! cache when it is first looked up. Its checksum is verified then, and a corrupt entry is a miss.
//! Until then it counts in no [`len`](Cache::len) or [`weight`](Cache::weight), and
//! [`iter`](Cache::iter) and [`Reader::hottest`](crate::Reader::hottest) do not visit it. The
//! cache's own entries, and every insertion, removal and [`clear`](Cache::clear) since the load,
//! take precedence over the snapshot. [`Cache::warm`] restores all entries that fit.
//! [`LoadOptions::eager`] checks and restores all entries during the load.
//!
//! While entries are in the snapshot only, each miss and each change of a key looks for the key
//! there, and holds a lock for a short time. Hits never do.
//!
//! **A mapped file must not be changed in place** by another program while the cache may read it:
//! see [`Cache::load`]. [`LoadOptions::copy`] reads the file into memory instead, which avoids
//! that.
//!
//! # Automatic snapshots
//!
//! With [`Builder::snapshot`](crate::Builder::snapshot) a cache loads its snapshot when it is
//! built, and saves it at an interval and when its last handle is dropped.
//!
//! # Expiration
//!
//! TTLs keep counting down while no process runs, by the wall clock. If the wall clock is behind
//! the time of the save, no time has passed.
//!
//! # Saving
//!
//! Saving replaces the file and never changes it: a process that has it mapped keeps what it
//! mapped. The new file is written beside it under a temporary name (`.hotset-` .. `.tmp`), synced,
//! and renamed. A save that fails, panics or is killed leaves the previous file as it was, and once
//! the new file is in place nothing can fail the save. What a killed process left is removed by the
//! next save to that path. Two processes may save to one path: the last complete file wins. The
//! format is described in `docs/reference/snapshot-format.md`.
//!
//! - *Symbolic links* are followed: the file that they lead to is replaced, or created, in its own
//!   directory. The link stays.
//! - *Permissions*: a new file may be read and written by its owner only. One that replaces another
//!   has its mode (without set-user-ID and set-group-ID), on Linux its access control list, its
//!   group if the process may set that, and its owner if the process may give files away, as root
//!   may. If the group or the list cannot be kept, what they allowed is not allowed either. So
//!   another user who owns the file, or put it there, may read what is saved: save to a directory
//!   that only trusted users may write to.
//! - *Not kept*: other extended attributes and security labels, access control lists of systems
//!   other than Linux, further hard links, which stay with the previous file.

mod auto;
mod codec;
mod error;
mod file;
mod format;
mod lazy;
#[cfg(all(test, loom))]
mod loom_tests;
mod options;
mod permissions;
mod replace;
mod save;
pub(crate) mod session;
mod writer;

pub use auto::{AutoSnapshot, SnapshotEvent};
#[cfg(feature = "serde")]
pub use codec::Serde;
pub use codec::{Codec, EntryCodec, decode_field, encode_field};
pub use error::SnapshotError;
pub use options::{LoadOptions, Loaded, Progress, SaveOptions, Saved, Warmed};

pub(crate) use auto::AutoSnapshotter;
pub(crate) use lazy::SnapshotSlot;

use crate::cache::Cache;
use crate::prim::sync::Arc;
use codec::PerTypeCodec;
use file::SnapshotFile;
use lazy::{ClockPair, LazySnapshot};
use std::hash::{BuildHasher, Hash};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the milliseconds since 1970.
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1))
}

impl<K: Hash + Eq + Codec, V: Codec, S: BuildHasher> Cache<K, V, S> {
    /// Saves the cache to a file, and replaces the file that is there. See
    /// [`snapshot`](crate::snapshot).
    ///
    /// Other threads may use the cache during the save; what they change may be saved or not. The
    /// file takes the place of the previous one when it is complete and on the disk; a save that
    /// fails, or is interrupted, leaves the previous file as it was. A symbolic link is followed,
    /// and an existing file's permissions are kept; a new file may be read by its owner only.
    ///
    /// O(n); needs 16 bytes per entry, and some hundred kilobytes (or the size of the largest
    /// entry).
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotAFile`] if the path, or what it leads to, is a directory, a device, a
    /// pipe or a socket; [`SnapshotError::TooLarge`] for a key or a value of 4 GiB;
    /// [`SnapshotError::Io`] for what the system refuses. An error means that the previous file is
    /// in place. That the system cannot sync the directory is no error: see [`Saved::durable`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Saved, SnapshotError> {
        self.save_with(path, &SaveOptions::new())
    }

    /// Saves the cache to a file, with options. See [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn save_with(&self, path: impl AsRef<Path>, options: &SaveOptions) -> Result<Saved, SnapshotError> {
        self.0.save::<PerTypeCodec>(path.as_ref(), options)
    }

    /// Loads a snapshot: maps the file, and inserts its entries when they are first looked up.
    ///
    /// **The file must not be changed in place while it is mapped.** If another program truncates
    /// it, the operating system kills this process with SIGBUS when it next reads the part that is
    /// gone. An I/O error of the disk or the file server does the same. If another program
    /// overwrites the file, entries whose checksums no longer match are misses, and an entry that
    /// is overwritten while it is being read may have a wrong value. Replacing the file by a
    /// rename, as [`save`](Self::save) does, or removing it, is harmless. [`LoadOptions::copy`]
    /// reads the file into memory instead, and has none of these risks.
    ///
    /// The file is mapped until all its entries have been inserted or invalidated, the cache is
    /// [cleared](Self::clear) or dropped, or [`warm`](Self::warm) returns. A snapshot that was
    /// loaded before is replaced. See [`snapshot`](crate::snapshot).
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`] if the file is absent or cannot be read, or there is no memory for it;
    /// other variants if it is corrupt or incompatible. After an error, the cache is as it was.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Loaded, SnapshotError> {
        self.load_with(path, &LoadOptions::new())
    }

    /// Loads a snapshot, with options. See [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); with [`LoadOptions::eager`] or [`LoadOptions::copy`] also for a
    /// corrupt record anywhere in the file.
    pub fn load_with(&self, path: impl AsRef<Path>, options: &LoadOptions) -> Result<Loaded, SnapshotError> {
        self.load_as::<PerTypeCodec>(path.as_ref(), options)
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Saves the cache to a file whose keys and values are encoded by `C`. See
    /// [`save`](Self::save), and [`EntryCodec`] for an example.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn save_with_codec<C: EntryCodec<K, V>>(
        &self,
        path: impl AsRef<Path>,
        options: &SaveOptions,
    ) -> Result<Saved, SnapshotError> {
        self.0.save::<C>(path.as_ref(), options)
    }

    /// Loads a snapshot whose keys and values are decoded by `C`. See [`load`](Self::load), and
    /// [`EntryCodec`] for an example.
    ///
    /// # Errors
    ///
    /// As [`load_with`](Self::load_with).
    pub fn load_with_codec<C: EntryCodec<K, V>>(
        &self,
        path: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<Loaded, SnapshotError> {
        self.load_as::<C>(path.as_ref(), options)
    }

    pub(crate) fn load_as<C: EntryCodec<K, V>>(
        &self,
        path: &Path,
        options: &LoadOptions,
    ) -> Result<Loaded, SnapshotError> {
        let file = match options.copy {
            true => SnapshotFile::copy(path, options.schema)?,
            false => SnapshotFile::map(path, options.schema)?,
        };
        let (created, window, bytes) = (file.header().created, file.header().window, file.bytes());
        let entries = file.len() as u64;
        let mut now = ClockPair::now(&self.0.engine);
        let age = Duration::from_millis(now.wall.saturating_sub(created));
        now.wall = now.wall.max(created);
        let snapshot = Arc::new(LazySnapshot::new::<C>(file, now));
        if options.eager {
            verify(&snapshot)?;
        } else {
            if options.copy {
                snapshot.file().check_records(|_, _| Ok(()))?;
            }
            // One entry, so that incompatible types are an error of the load rather than misses.
            if entries > 0 {
                snapshot.decode(0)?;
            }
        }
        self.0.engine.set_window(window);
        self.0.snapshot_slot.open(snapshot);
        if options.eager {
            self.warm();
        }
        Ok(Loaded { entries, bytes, age })
    }

    /// Restores the entries that are in a loaded snapshot only, the hottest first as far as there
    /// is room, and closes the snapshot. Other threads may use the cache during the call.
    ///
    /// # Complexity
    ///
    /// O(n) time, and 16 bytes per entry.
    pub fn warm(&self) -> Warmed {
        let mut warmed = Warmed { entries: 0, corrupt: 0 };
        let (Some(snapshot), engine) = (self.0.snapshot_slot.get(), &self.0.engine) else {
            return warmed;
        };
        let (mut places, mut room, mut end) = (snapshot.places(), engine.room(), 0);
        places.retain(|(offset, _)| {
            // Overlapping records are corrupt: their total length could exceed the file's many
            // times.
            let whole = snapshot.file().record(*offset).filter(|_| *offset >= end);
            let Some(record) = whole else {
                warmed.corrupt += 1;
                return false;
            };
            end = offset + record.length;
            let weight = if engine.is_weighted() { record.weight } else { 1 };
            let rest = room.checked_sub(weight);
            room = rest.unwrap_or(room);
            rest.is_some()
        });
        // The hottest last: the policy values later insertions more.
        for (_, at) in places.into_iter().rev() {
            let guard = self.0.engine.pin();
            let hash = |key: &K| Some(self.0.hash(key));
            warmed.entries += u64::from(self.0.restore_entry(&snapshot, at, hash, &guard).is_some());
        }
        self.0.snapshot_slot.end(&snapshot);
        warmed
    }
}

/// Checks all entries: their checksums, their types, and that they do not overlap.
fn verify<K: Hash, V>(snapshot: &LazySnapshot<K, V>) -> Result<(), SnapshotError> {
    let mut end = 0;
    for (offset, at) in snapshot.places() {
        if offset < end {
            return Err(SnapshotError::Corrupt {
                what: "records that overlap",
            });
        }
        let (_, _, record) = snapshot.decode(at)?;
        end = offset + record.length;
    }
    Ok(())
}
