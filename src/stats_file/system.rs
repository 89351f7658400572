//! What the operating system is asked: the process, its limits, its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::{fs, process, ptr};

/// A value of which each process has its own: the child of a fork gets a new one, whatever the
/// threads of its parent were doing with theirs.
pub(super) struct PerProcess<T>(AtomicPtr<Owned<T>>);

struct Owned<T> {
    pid: u32,
    value: T,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Returns the value of this process. The first call in a process makes it, from the value of
    /// its parent if there is one. Waits for no lock.
    pub(super) fn get(&self, make: impl FnOnce(Option<&'static T>) -> T) -> &'static T {
        let pid = process::id();
        // Acquire pairs with the Release below: the value is seen.
        let current = self.0.load(Ordering::Acquire);
        // SAFETY: what was stored there was leaked, and is never changed or freed.
        let owned = unsafe { current.as_ref() };
        if let Some(owned) = owned
            && owned.pid == pid
        {
            return &owned.value;
        }
        let value = make(owned.map(|owned| &owned.value));
        let new = Box::into_raw(Box::new(Owned { pid, value }));
        // Release publishes the value. Acquire pairs with the Release of a faster thread.
        match self
            .0
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: it is leaked from here on.
            Ok(_) => unsafe { &(*new).value },
            Err(first) => {
                // SAFETY: no other thread knows `new`; `first` was leaked by a faster thread.
                unsafe {
                    drop(Box::from_raw(new));
                    &(*first).value
                }
            }
        }
    }
}

/// Returns the effective user.
pub(super) fn user() -> u32 {
    // SAFETY: it has no conditions, and always succeeds.
    unsafe { libc::geteuid() }
}

/// Returns the time of the system's monotonic clock, which is the same for all processes, in
/// nanoseconds.
pub(super) fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` can be written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    #[allow(clippy::unnecessary_cast)] // narrower on 32-bit systems
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}

/// Returns whether the process may write the bytes of a file up to `end`. A write beyond its limit
/// would raise SIGXFSZ.
pub(super) fn may_write_to(end: u64) -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` can be written.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // narrower on 32-bit systems
    {
        !known || limit.rlim_cur == libc::RLIM_INFINITY || end <= u64::from(limit.rlim_cur)
    }
}

/// Calls `end` when the process exits normally.
pub(super) fn at_exit(end: extern "C" fn()) {
    // SAFETY: the function is in this library, which a process does not unload before its exit, or
    // which runs it when it is unloaded.
    _ = unsafe { libc::atexit(end) };
}

/// Whether a process exists, as far as this process can see.
pub(super) fn exists(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return false;
    };
    // SAFETY: signal 0 is not sent. Groups of processes, which are not positive, are excluded.
    let sent = pid > 0 && unsafe { libc::kill(pid, 0) } == 0;
    sent || pid > 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Returns the start time of a process as `/proc` has it; 0 if it is unknown.
pub(super) fn start_time(pid: u32) -> u64 {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
        return 0;
    };
    // The second field, a name in parentheses, may hold spaces and parentheses.
    let Some(name_end) = stat.iter().rposition(|byte| *byte == b')') else {
        return 0;
    };
    let rest = String::from_utf8_lossy(&stat[name_end + 1..]).into_owned();
    // What follows begins with the third field; the start time is the 22nd.
    rest.split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

/// Returns the inode of this process's pid namespace; 0 if it is unknown.
pub(super) fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// Whether a process has a file open by a descriptor: `None` if this process cannot see that.
pub(super) fn has_open(pid: u32, descriptor: u32, file: &fs::Metadata) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let descriptors = PathBuf::from(format!("/proc/{pid}/fd"));
    // Not all processes of a user can be looked into; then nothing is known.
    fs::read_dir(&descriptors).ok()?;
    let open = fs::metadata(descriptors.join(descriptor.to_string()));
    Some(open.is_ok_and(|open| open.dev() == file.dev() && open.ino() == file.ino()))
}

/// Opens a file for reading, and for writing too if `write` is set, unless the name is a symbolic
/// link. Does not wait for the other end of a pipe.
pub(super) fn open(path: &Path, write: bool) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    fs::OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags)
        .open(path)
}
