//! The stats file: names of caches, and the directory.

use crate::cache::hotset_cache;
use crate::ffi::ffi_guard_slow;
use crate::memory;
use crate::thread::{CancelDisabled, Errno};
use crate::types::{Status, hotset_status};
use engine::raw::stats_file as raw;
use engine::stats_file::{self, Language, StatsFileError};
use libc::c_char;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Runs a rewriting of the file, which any call on a named cache may be the one to do: like every
/// other part of such a call, it cannot be canceled, and leaves errno unchanged.
fn rewriting(rewrite: &mut dyn FnMut()) {
    let _disabled = CancelDisabled::new();
    let errno = Errno::now();
    rewrite();
    errno.restore();
}

fn describe() {
    raw::describe(Language::C, None, Some(rewriting));
}

/// The status of a failure, with its errno.
fn failed(error: &StatsFileError) -> Status {
    match error.io_error() {
        Some(source) => {
            Errno::of(source.raw_os_error().unwrap_or(libc::EIO)).restore();
            hotset_status::HOTSET_IO.into()
        }
        None => hotset_status::HOTSET_INVALID.into(),
    }
}

/// Gives a cache a name, under which the process's stats file has its statistics: see
/// hotset_stats_file. Another call replaces the name; NULL removes it.
///
/// The name is UTF-8; the file holds its first 256 bytes. Several caches may have one name. If the
/// environment variable HOTSET_STATS is set when the first cache of the process gets a name, the
/// stats file is in that directory; if it cannot be created there, one warning is written to
/// stderr.
///
/// Another process of the same user may request that the cache is cleared, which happens in a call
/// on any named cache. So on_removal and the destructor of a named cache must close no named cache.
///
/// @return HOTSET_OK; HOTSET_INVALID if the name is not UTF-8; HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_set_name(cache: *mut hotset_cache, name: *const c_char) -> Status {
    ffi_guard_slow(|| {
        memory::ready()?;
        // SAFETY: the header's rules for callers.
        let cache = unsafe { hotset_cache::get(cache) }?;
        if name.is_null() {
            drop(cache.replace_name(None));
            return Ok(());
        }
        // SAFETY: the header's rules for callers: not NULL, so a string.
        let name = unsafe { CStr::from_ptr(name) }.to_str();
        let name = name.map_err(|_| Status::from(hotset_status::HOTSET_INVALID))?;
        describe();
        let (registration, warning) = raw::register_cache(cache.engine(), name.to_owned());
        if let Some(warning) = warning {
            eprintln!("hotset: HOTSET_STATS has no effect: {warning}");
        }
        drop(cache.replace_name(Some(registration)));
        Ok(())
    })
}

/// Keeps the process's stats file in `directory`, until the process exits: a small file of mode
/// 0600 with the statistics of all named caches, which `python -m hotset top` shows.
///
/// The file is rewritten at most once a second, by the call that finds it due: any call on a named
/// cache. The directory must exist, and no other user may be able to replace files in it (mode
/// 0700, or the sticky bit). The child of a fork has a file of its own. A second call with the same
/// directory does nothing. See docs/how-to/stats-file.md.
///
/// @return HOTSET_OK; HOTSET_IO if the directory does not exist or cannot be written to, with the
/// reason in errno; HOTSET_INVALID if other users can replace files in the directory, or if the
/// file is in another directory; HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_stats_file(directory: *const c_char) -> Status {
    ffi_guard_slow(|| {
        memory::ready()?;
        if directory.is_null() {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the header's rules for callers: not NULL, so a string.
        let directory = unsafe { CStr::from_ptr(directory) }.to_bytes();
        describe();
        stats_file::enable(Path::new(OsStr::from_bytes(directory))).map_err(|error| failed(&error))
    })
}
