//! Strings: the texts of the statuses, and the version.

use crate::types::Status;
use libc::c_char;
use std::ffi::CStr;

/// ----------------------------------------------------------------------------------------------
/// 10. Texts and versions
/// ----------------------------------------------------------------------------------------------
///
/// Returns the meaning of a status in English: never NULL, for any number, and valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_strerror(status: Status) -> *const c_char {
    text(status.0).as_ptr()
}

fn text(status: i32) -> &'static CStr {
    match status {
        0 => c"success",
        1 => c"the key is absent or expired",
        2 => c"the key is present",
        3 => c"the entry has another version",
        4 => c"an argument is invalid: NULL, or a wrong size or value",
        5 => c"the key or the value is too large",
        6 => c"memory was refused",
        7 => c"the loader failed",
        8 => c"a callback used what its own call is using: the key to load, the cache to close, the iterator",
        9 => c"the cache was closed",
        10 => c"the cache was opened before a fork; the child can only open caches of its own",
        11 => c"the entry is not a counter of 8 bytes",
        12 => c"the sum, or the number of handles, is too large",
        13 => c"a defect in hotset: it panicked (see stderr)",
        14 => c"the buffer is too small",
        15 => c"the operating system refused a thread or a file operation (see errno)",
        16 => c"iterators of the cache are still open",
        17 => c"not a snapshot",
        18 => c"the snapshot is corrupt or incomplete",
        19 => c"the snapshot is incompatible: of another version, schema or kind",
        20 => c"the server has not confirmed the change; it will be repeated",
        1000.. => c"a status of the program's own",
        _ => c"not a status of hotset",
    }
}

const fn number(digits: &str) -> u32 {
    let (mut number, mut at) = (0, 0);
    while at < digits.len() {
        number = number * 10 + (digits.as_bytes()[at] - b'0') as u32;
        at += 1;
    }
    number
}

const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
    + number(env!("CARGO_PKG_VERSION_MINOR")) * 1_000
    + number(env!("CARGO_PKG_VERSION_PATCH"));

/// Returns the version of the linked library, as HOTSET_VERSION is that of the header: major *
/// 1000000 + minor * 1000 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_version() -> u32 {
    VERSION
}

/// Returns the version of the linked library, as HOTSET_VERSION_STRING is that of the header. Valid
/// forever.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
