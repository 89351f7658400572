//! Snapshots, in the engine's format for byte keys and byte values.

use crate::blob::Blob;
use crate::border::{border, border_slow, hotset_cache, result};
use crate::options::User;
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

/// An entry is one blob, in the file as in memory.
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
        blob.map_err(|_| REFUSED.set(true)).ok().map(Blob::into_entry)
    }
}

thread_local! {
    /// Whether there was no memory for an entry, which to the engine looks like one of another kind.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// The only size that options have had so far.
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
    /// `from` is NULL, or points to as many bytes as its field `size` says.
    unsafe fn read(from: *const Self) -> Result<Self, Status> {
        if from.is_null() {
            return Ok(Self::DEFAULT);
        }
        // SAFETY: the caller's promise; `size` is the first field.
        if unsafe { from.cast::<usize>().read() } != SIZE {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the caller's promise. Every pattern of bits is valid in every field.
        Ok(unsafe { from.read() })
    }
}

/// A path as C writes it.
///
/// # Safety
/// `path` is NULL, or ends with a 0 and stays for `'a`.
unsafe fn path<'a>(path: *const c_char) -> Result<&'a Path, Status> {
    if path.is_null() {
        return Err(hotset_status::HOTSET_INVALID.into());
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// The cache, if its values are bytes and no more: those that have a destructor are objects of this process.
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
        SnapshotError::Truncated { .. } | SnapshotError::Corrupt { .. } => (hotset_status::HOTSET_DAMAGED, None),
        SnapshotError::TooLarge { .. } => (hotset_status::HOTSET_TOO_LARGE, None),
        SnapshotError::Incompatible { .. } if REFUSED.get() => (hotset_status::HOTSET_NO_MEMORY, None),
        _ => (hotset_status::HOTSET_FOREIGN, None),
    };
    drop(error); // before errno is set: freeing may change it
    if let Some(errno) = errno {
        Errno::of(errno).restore();
    }
    status.into()
}

/// ---------------------------------------------------------------------------------------------------------------------
/// 8. Snapshots: a file for the next process to begin warm
/// ---------------------------------------------------------------------------------------------------------------------
///
/// Fills the options with the defaults: schema 0, a mapped file, entries that are inserted when they
/// are first looked up, no progress function; `size` is sizeof(hotset_snapshot_options).
///
/// Returns HOTSET_OK, or HOTSET_INVALID for NULL or a size that no version of the options has. Any thread may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_snapshot_options_init(options: *mut hotset_snapshot_options, size: usize) -> Status {
    border(|| {
        if options.is_null() || size != SIZE {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers.
        unsafe { options.write(hotset_snapshot_options::DEFAULT) };
        Ok(())
    })
}

/// Saves the cache to a file, in the place of what is there; NULL for the options stands for the defaults. Stores how many entries
/// it holds.
///
/// Other threads may use the cache during the save; what they change may be saved or not. The file
/// takes the place of the previous one when it is complete and on the disk: a save that fails, or
/// is interrupted, leaves the previous file as it was, and any status but HOTSET_OK means that it
/// is in place. Two processes may save to one path: the last complete file wins. It is the file
/// that Rust's Cache<Vec<u8>, Vec<u8>> writes. Remaining times to live are kept, by the wall clock.
///
/// A symbolic link is followed: the file that it leads to is replaced, or created. A new file may
/// be read and written by its owner only; one that replaces another keeps its mode, on Linux its
/// access control list, its group where the process may set that, and its owner where it may give
/// files away (as root may). Where the directory cannot be synced, the save succeeds all the same;
/// if the system crashes then, the previous file may be there afterwards. The path is any bytes but
/// 0: it need not be UTF-8.
///
/// Returns HOTSET_OK; HOTSET_IO, and errno, if the operating system refused something (ENOSPC,
/// EACCES, ENOENT ..); HOTSET_NOT_A_SNAPSHOT if the path names no file, or is that of a directory,
/// a device, a pipe or a socket; HOTSET_TOO_LARGE for a value of 4 GiB or more; HOTSET_NO_MEMORY;
/// HOTSET_INVALID, also for a cache with a destructor, whose values are objects of this process;
/// HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn hotset_save(
    cache: *mut hotset_cache,
    path: *const c_char,
    options: *const hotset_snapshot_options,
    entries: *mut u64,
) -> Status {
    cancellation_point();
    border_slow(|| {
        // SAFETY: the header's rules for callers.
        let (cache, path, options, entries) = unsafe {
            let entries = result(entries, 0)?;
            let options = hotset_snapshot_options::read(options)?;
            (plain(cache)?, self::path(path)?, options, entries)
        };
        memory::ready()?;
        let (id, mut to) = (cache.id, SaveOptions::new().schema(options.schema));
        if let Some(observer) = User::new(options.progress, options.progress_arg) {
            to = to.progress(move |progress| {
                let (call, arg) = observer.parts();
                // SAFETY: the user's function, with what it was promised.
                callback::notify(id, || unsafe { call(arg, progress.done, progress.total) });
            });
        }
        let saved = raw::save::<Bytes, _, _, _>(cache.engine(), path, &to).map_err(status)?;
        entries.set(saved.entries);
        Ok(())
    })
}

/// Loads a snapshot; NULL for the options stands for the defaults. Stores how many entries the file holds, of which not all may fit
/// into the cache, and some may have ended.
///
/// By default the file is mapped, and must not be changed in place while it is. If another program
/// truncates it, the operating system kills this process (SIGBUS) when it next reads the part that
/// is gone. If another program overwrites it, entries are missed, and an entry that is overwritten
/// while it is being read may have a wrong value. Replacing the file by a rename, as hotset_save
/// does, or removing it, is harmless. The file is mapped until all its entries have been inserted or
/// removed, the cache is cleared or closed, or hotset_warm has returned. With `copy`, the file is
/// read into memory instead, and what happens to it afterwards does not matter.
///
/// Header and index are checked before the call returns, with `copy` or `eager` the whole file.
/// Entries are inserted when they are first looked up, each verified by its checksum; a corrupt one
/// is a miss. Until then they count in no hotset_len, and no iterator visits them. With `eager` all
/// are inserted before the call returns. What is in the cache already, and what is put or removed
/// later, counts more than the snapshot.
///
/// If it fails, the cache is as it was. Returns HOTSET_OK; HOTSET_IO, and errno (ENOENT: there is
/// no file); HOTSET_NOT_A_SNAPSHOT, HOTSET_DAMAGED, HOTSET_FOREIGN; HOTSET_TOO_LARGE for a file
/// that is too large for this machine; HOTSET_NO_MEMORY if there are no memory or addresses for the
/// file; HOTSET_INVALID, also for a cache with a destructor; HOTSET_CLOSED, HOTSET_FORKED,
/// HOTSET_PANIC. Any thread may call it, callbacks included.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn hotset_load(
    cache: *mut hotset_cache,
    path: *const c_char,
    options: *const hotset_snapshot_options,
    entries: *mut u64,
) -> Status {
    cancellation_point();
    border_slow(|| {
        // SAFETY: the header's rules for callers.
        let (cache, path, options, entries) = unsafe {
            let entries = result(entries, 0)?;
            let options = hotset_snapshot_options::read(options)?;
            (plain(cache)?, self::path(path)?, options, entries)
        };
        memory::ready()?;
        REFUSED.set(false);
        let how = LoadOptions::new().schema(options.schema);
        let how = how.eager(options.eager != 0).copy(options.copy != 0);
        let loaded = raw::load::<Bytes, _, _, _>(cache.engine(), path, &how).map_err(status)?;
        entries.set(loaded.entries);
        Ok(())
    })
}

/// Brings in all that is still in a snapshot only, the hottest entries as far as there is room, and lets go of the file. Stores how
/// many came in, and how many could not, since their records are damaged. Others may use the cache meanwhile.
///
/// Returns HOTSET_OK; HOTSET_INVALID, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks
/// included.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn hotset_warm(cache: *mut hotset_cache, entries: *mut u64, damaged: *mut u64) -> Status {
    cancellation_point();
    border_slow(|| {
        // SAFETY: the header's rules for callers.
        let (entries, damaged, cache) =
            unsafe { (result(entries, 0)?, result(damaged, 0)?, hotset_cache::get(cache)?) };
        memory::ready()?;
        let warmed = cache.engine().warm();
        entries.set(warmed.entries);
        damaged.set(warmed.corrupt);
        Ok(())
    })
}
