//! Snapshots, in the engine's format for byte keys and byte values.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::callback::UserCallback;
use crate::ffi::{ffi_guard, ffi_guard_slow, result};
use crate::thread::{Errno, cancellation_point};
use crate::types::{Status, hotset_snapshot_options, hotset_status};
use crate::{callback, memory};
use engine::raw::{self, EntryCodec};
use engine::snapshot::{LoadOptions, SaveOptions, SnapshotError};
use libc::c_char;
use std::cell::Cell;
use std::ffi::{CStr, OsStr};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Codec of entries: an entry is one blob, in the file as in memory.
struct Bytes;

impl EntryCodec<Blob, Blob> for Bytes {
    fn encode_key(key: &Blob, out: &mut Vec<u8>) {
        out.extend_from_slice(key.key());
    }
    fn encode_value(value: &Blob, out: &mut Vec<u8>) {
        out.extend_from_slice(value.value());
    }
    fn decode(key: &[u8], value: &[u8]) -> Option<(Blob, Blob)> {
        let blob = Blob::new(key, value, None);
        blob.map_err(|_| NO_MEMORY_FOR_ENTRY.set(true))
            .ok()
            .map(Blob::into_entry)
    }
}

thread_local! {
    /// Whether memory for an entry was refused. The engine cannot distinguish that from an entry of
    /// another type.
    static NO_MEMORY_FOR_ENTRY: Cell<bool> = const { Cell::new(false) };
}

/// The only size of these options in all versions so far.
const SIZE: usize = size_of::<hotset_snapshot_options>();

impl hotset_snapshot_options {
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        schema: 0,
        eager: 0,
        copy: 0,
        progress: None,
        progress_arg: ptr::null_mut(),
    };

    /// # Safety
    /// `from` is NULL, or points to as many bytes as its field `size` states.
    unsafe fn read(from: *const Self) -> Result<Self, Status> {
        if from.is_null() {
            return Ok(Self::DEFAULT);
        }
        // SAFETY: the caller's promise; `size` is the first field.
        if unsafe { from.cast::<usize>().read() } != SIZE {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the caller's promise. Every bit pattern is valid in every field.
        Ok(unsafe { from.read() })
    }
}

/// Converts a path of C.
///
/// # Safety
/// `path` is NULL, or ends with a 0 and is valid for `'a`.
unsafe fn path<'a>(path: *const c_char) -> Result<&'a Path, Status> {
    if path.is_null() {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// The cache, if its values are mere bytes: values with a destructor are objects of this process.
///
/// # Safety
/// As [`hotset_cache::get`].
unsafe fn plain<'a>(cache: *const hotset_cache) -> Result<&'a hotset_cache, Status> {
    // SAFETY: the caller's promise.
    let cache = unsafe { hotset_cache::get(cache) }?;
    match cache.destructor {
        None => Ok(cache),
        Some(_) => Err(hotset_status::HOTSET_INVALID.into()),
    }
}

fn status(error: SnapshotError) -> Status {
    let (status, errno) = match &error {
        SnapshotError::Io { source, .. } if source.kind() == ErrorKind::OutOfMemory => {
            (hotset_status::HOTSET_NO_MEMORY, None)
        }
        SnapshotError::Io { source, .. } => (hotset_status::HOTSET_IO, source.raw_os_error()),
        SnapshotError::NotAFile { .. } | SnapshotError::NotASnapshot => (hotset_status::HOTSET_NOT_A_SNAPSHOT, None),
        SnapshotError::Truncated { .. } | SnapshotError::Corrupt { .. } => (hotset_status::HOTSET_CORRUPT, None),
        SnapshotError::TooLarge { .. } => (hotset_status::HOTSET_TOO_LARGE, None),
        SnapshotError::Incompatible { .. } if NO_MEMORY_FOR_ENTRY.get() => (hotset_status::HOTSET_NO_MEMORY, None),
        _ => (hotset_status::HOTSET_INCOMPATIBLE, None),
    };
    drop(error); // before errno is set: freeing may change it
    if let Some(errno) = errno {
        Errno::of(errno).restore();
    }
    status.into()
}

/// ----------------------------------------------------------------------------------------------
/// 8. Snapshots: a file for the next process to begin warm
/// ----------------------------------------------------------------------------------------------
///
/// Writes the default options to `options`: schema 0, a mapped file, entries that are restored when
/// they are first looked up, no progress function.
///
/// @param size sizeof(hotset_snapshot_options).
/// @return HOTSET_OK; HOTSET_INVALID for NULL, or for a size that no version of the options has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_snapshot_options_init(options: *mut hotset_snapshot_options, size: usize) -> Status {
    ffi_guard(|| {
        if options.is_null() || size != SIZE {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers.
        unsafe { options.write(hotset_snapshot_options::DEFAULT) };
        Ok(())
    })
}

/// Saves the cache to a file, and replaces the file that is there.
///
/// Other threads may use the cache during the save; what they change may be saved or not. The file
/// replaces the previous one when it is complete and on the disk. A save that fails, or is
/// interrupted, leaves the previous file as it was, and any status but HOTSET_OK means that it is
/// in place. Two processes may save to one path: the last complete file wins. The file is the one
/// that Rust's Cache<Vec<u8>, Vec<u8>> writes. Remaining TTLs are kept, by the wall clock.
///
/// A symbolic link is followed: the file that it leads to is replaced, or created. A new file may
/// be read and written by its owner only. One that replaces another keeps its mode, on Linux its
/// access control list, its group where the process may set that, and its owner where it may give
/// files away (as root may). Where the directory cannot be synced, the save succeeds all the same;
/// if the system crashes then, the previous file may be there afterwards.
///
/// @param path Any bytes but 0: it need not be UTF-8.
/// @param options NULL for the defaults.
/// @param entries Becomes the number of entries in the file.
/// @return HOTSET_OK; HOTSET_IO, with errno (ENOSPC, EACCES, ENOENT ..); HOTSET_NOT_A_SNAPSHOT if
/// the path names no file, or is that of a directory, a device, a pipe or a socket;
/// HOTSET_TOO_LARGE for a value of 4 GiB or more; HOTSET_NO_MEMORY; HOTSET_INVALID, also for a
/// cache with a destructor, whose values are objects of this process.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn hotset_save(
    cache: *mut hotset_cache,
    path: *const c_char,
    options: *const hotset_snapshot_options,
    entries: *mut u64,
) -> Status {
    cancellation_point();
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (cache, path, options, entries) = unsafe {
            let entries = result(entries, 0)?;
            let options = hotset_snapshot_options::read(options)?;
            (plain(cache)?, self::path(path)?, options, entries)
        };
        memory::ready()?;
        let (id, mut to) = (cache.id, SaveOptions::new().schema(options.schema));
        if let Some(observer) = UserCallback::new(options.progress, options.progress_arg) {
            to = to.progress(move |progress| {
                let (call, arg) = observer.parts();
                // SAFETY: the user's function, with the promised arguments.
                callback::notify(id, || unsafe { call(arg, progress.done, progress.total) });
            });
        }
        let saved = raw::save::<Bytes, _, _, _>(cache.engine(), path, &to).map_err(status)?;
        entries.set(saved.entries);
        Ok(())
    })
}

/// Loads a snapshot.
///
/// By default the file is mapped, and must not be changed in place while it is. If another program
/// truncates it, the operating system kills this process (SIGBUS) when it next reads the missing
/// part. If another program overwrites it, entries are missed, and an entry that is overwritten
/// while it is read may have a wrong value. Replacing the file by a rename, as hotset_save does, or
/// removing it, is harmless. The file is mapped until all its entries have been restored or
/// removed, the cache is cleared or closed, or hotset_warm has returned. With `copy`, the file is
/// read into memory instead, and later changes of the file do not matter.
///
/// Header and index are checked before the call returns, with `copy` or `eager` the whole file.
/// Entries are restored when they are first looked up, each verified by its checksum; a corrupt one
/// is a miss. Until then hotset_len does not count them, and no iterator visits them. With `eager`
/// all are restored before the call returns. What is in the cache already, and what is put or
/// removed later, takes precedence over the snapshot.
///
/// @param options NULL for the defaults.
/// @param entries Becomes the number of entries in the file, of which not all may have room in the
/// cache, and some may have expired.
/// @return HOTSET_OK; HOTSET_IO, with errno (ENOENT: there is no file); HOTSET_NOT_A_SNAPSHOT,
/// HOTSET_CORRUPT, HOTSET_INCOMPATIBLE; HOTSET_TOO_LARGE for a file that is too large for this
/// machine; HOTSET_NO_MEMORY if there are no memory or addresses for the file; HOTSET_INVALID, also
/// for a cache with a destructor. After a failure the cache is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn hotset_load(
    cache: *mut hotset_cache,
    path: *const c_char,
    options: *const hotset_snapshot_options,
    entries: *mut u64,
) -> Status {
    cancellation_point();
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (cache, path, options, entries) = unsafe {
            let entries = result(entries, 0)?;
            let options = hotset_snapshot_options::read(options)?;
            (plain(cache)?, self::path(path)?, options, entries)
        };
        memory::ready()?;
        NO_MEMORY_FOR_ENTRY.set(false);
        let how = LoadOptions::new().schema(options.schema);
        let how = how.eager(options.eager != 0).copy(options.copy != 0);
        let loaded = raw::load::<Bytes, _, _, _>(cache.engine(), path, &how).map_err(status)?;
        entries.set(loaded.entries);
        Ok(())
    })
}

/// Restores all entries that are still in a snapshot only, the hottest ones as far as there is
/// room, and releases the file. Other threads may use the cache concurrently.
///
/// @param entries Becomes the number of restored entries.
/// @param corrupt Becomes the number of entries whose records are corrupt.
/// @return HOTSET_OK; HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn hotset_warm(cache: *mut hotset_cache, entries: *mut u64, corrupt: *mut u64) -> Status {
    cancellation_point();
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (entries, corrupt, cache) =
            unsafe { (result(entries, 0)?, result(corrupt, 0)?, hotset_cache::get(cache)?) };
        memory::ready()?;
        let warmed = cache.engine().warm();
        entries.set(warmed.entries);
        corrupt.set(warmed.corrupt);
        Ok(())
    })
}
