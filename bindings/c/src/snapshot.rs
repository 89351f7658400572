//! Snapshots, in the engine's format for byte keys and byte values.

use crate::blob::Blob;
use crate::border::{border, hotset_cache, result};
use crate::callback;
use crate::options::User;
use crate::types::{Status, hotset_snapshot_options, hotset_status};
use engine::raw::{self, EntryCodec};
use engine::snapshot::{LoadOptions, SaveOptions, SnapshotError};
use libc::c_char;
use std::ffi::{CStr, OsStr};
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
        Blob::new(key, value, None).ok().map(Blob::into_entry)
    }
}

/// The only size that options have had so far.
const SIZE: usize = size_of::<hotset_snapshot_options>();

impl hotset_snapshot_options {
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        schema: 0,
        eager: 0,
        reserved: 0,
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
        let options = unsafe { from.read() };
        if options.reserved != 0 {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        Ok(options)
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
        SnapshotError::Io { source, .. } => (hotset_status::HOTSET_IO, source.raw_os_error()),
        SnapshotError::NotAFile { .. } | SnapshotError::NotASnapshot => (hotset_status::HOTSET_NOT_A_SNAPSHOT, None),
        SnapshotError::Truncated { .. } | SnapshotError::Corrupt { .. } => (hotset_status::HOTSET_DAMAGED, None),
        SnapshotError::TooLarge { .. } => (hotset_status::HOTSET_TOO_LARGE, None),
        _ => (hotset_status::HOTSET_FOREIGN, None),
    };
    drop(error); // before errno is set: freeing may change it
    if let Some(errno) = errno {
        set_errno(errno);
    }
    status.into()
}

/// HOTSET_IO, with errno set to what the operating system reported.
pub(crate) fn failed_with(errno: Option<i32>) -> Status {
    if let Some(errno) = errno {
        set_errno(errno);
    }
    hotset_status::HOTSET_IO.into()
}

fn set_errno(errno: i32) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: the thread's own.
    unsafe {
        *libc::__errno_location() = errno;
    }
    #[cfg(any(target_os = "macos", target_os = "freebsd"))]
    // SAFETY: the thread's own.
    unsafe {
        *libc::__error() = errno;
    }
}

/// ---------------------------------------------------------------------------------------------------------------------
/// 8. Snapshots: a file for the next process to begin warm
/// ---------------------------------------------------------------------------------------------------------------------
///
/// Fills the options with the defaults: schema 0, lazy, nobody is told of the progress; `size` is sizeof(hotset_snapshot_options).
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
/// Others may use the cache meanwhile; what they change may be saved or not. The file gets its name when it is whole and on the
/// disk: a save that fails, or is interrupted, leaves the former file as it was. Two processes may save to one path: the last whole
/// file wins. It is the file that Rust's Cache<Vec<u8>, Vec<u8>> writes. Remaining times to live are kept, by the wall clock.
///
/// Returns HOTSET_OK; HOTSET_IO, and errno, if the operating system refused something (ENOSPC, EACCES, ENOENT ..);
/// HOTSET_NOT_A_SNAPSHOT if the path has no name of a file, or is that of a device, a pipe or a socket; HOTSET_TOO_LARGE
/// for a value of 4 GiB or more; HOTSET_INVALID, also for a cache with a destructor, whose values are objects of this process;
/// HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_save(
    cache: *mut hotset_cache,
    path: *const c_char,
    options: *const hotset_snapshot_options,
    entries: *mut u64,
) -> Status {
    border(|| {
        // SAFETY: the header's rules for callers.
        let (cache, path, options, entries) = unsafe {
            let entries = result(entries, 0)?;
            let options = hotset_snapshot_options::read(options)?;
            (plain(cache)?, self::path(path)?, options, entries)
        };
        let (id, mut to) = (cache.id, SaveOptions::new().schema(options.schema));
        if let Some(observer) = User::new(options.progress, options.progress_arg) {
            to = to.progress(move |progress| {
                let (call, arg) = observer.parts();
                // SAFETY: the user's function, with what it was promised.
                callback::within(id, || unsafe { call(arg, progress.done, progress.total) });
            });
        }
        let saved = raw::save::<Bytes, _, _, _>(cache.engine(), path, &to).map_err(status)?;
        *entries = saved.entries;
        Ok(())
    })
}

/// Loads a snapshot; NULL for the options stands for the defaults. Stores how many entries the file holds, of which not all may fit
/// into the cache, and some may have ended.
///
/// The file is mapped, and its header and index are checked: entries come in when they are asked for, each verified by its
/// checksum; one that is damaged is a miss. Until then they count in no hotset_len, and no iterator meets them. With `eager` everything
/// is checked and brought in at once. What is in the cache already, and what is put or removed later, counts more than the
/// snapshot. Nobody may truncate the file in place while it is in use, or the process that touches what is gone is killed
/// (SIGBUS); replacing it by rename, as hotset_save does, harms nobody.
///
/// If it fails, the cache is as it was. Returns HOTSET_OK; HOTSET_IO, and errno (ENOENT: there is no file); HOTSET_NOT_A_SNAPSHOT,
/// HOTSET_DAMAGED, HOTSET_FOREIGN; HOTSET_TOO_LARGE for a file that is too large for this machine; HOTSET_INVALID, also for a cache
/// with a destructor; HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_load(
    cache: *mut hotset_cache,
    path: *const c_char,
    options: *const hotset_snapshot_options,
    entries: *mut u64,
) -> Status {
    border(|| {
        // SAFETY: the header's rules for callers.
        let (cache, path, options, entries) = unsafe {
            let entries = result(entries, 0)?;
            let options = hotset_snapshot_options::read(options)?;
            (plain(cache)?, self::path(path)?, options, entries)
        };
        let how = LoadOptions::new().schema(options.schema).eager(options.eager != 0);
        let loaded = raw::load::<Bytes, _, _, _>(cache.engine(), path, &how).map_err(status)?;
        *entries = loaded.entries;
        Ok(())
    })
}

/// Brings in all that is still in a snapshot only, the hottest entries as far as there is room, and lets go of the file. Stores how
/// many came in, and how many could not, since their records are damaged. Others may use the cache meanwhile.
///
/// Returns HOTSET_OK; HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_warm(cache: *mut hotset_cache, entries: *mut u64, damaged: *mut u64) -> Status {
    border(|| {
        // SAFETY: the header's rules for callers.
        let (entries, damaged, cache) =
            unsafe { (result(entries, 0)?, result(damaged, 0)?, hotset_cache::get(cache)?) };
        let warmed = cache.engine().warm();
        (*entries, *damaged) = (warmed.entries, warmed.damaged);
        Ok(())
    })
}
