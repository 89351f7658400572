//! What a new file keeps of the permissions of the one that it replaces: the mode, group and access
//! control list, and the owner where the process may give files away (as root may).
//!
//! Nothing here fails a save. Where something cannot be kept, the new file is open to fewer users,
//! and to none that could not read the previous one. Set-user-ID and set-group-ID bits are dropped,
//! as they are when a file is written to. Extended attributes other than the access control list
//! are not kept.

use std::fs::{File, Metadata};
use std::path::Path;

#[cfg(not(unix))]
pub(super) fn keep(_: &Path, _: &Metadata, _: &File) {}

/// Gives `new`, which only its owner may read so far, the permissions of `previous`, which is the
/// file at `path`.
#[cfg(unix)]
pub(super) fn keep(path: &Path, previous: &Metadata, new: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Ok(own) = new.metadata() else { return };
    let (uid, gid) = (previous.uid(), previous.gid());
    let same_group = own.gid() == gid || fchown(new, None, Some(gid)).is_ok();
    match acl::of(path) {
        Ok(Some(list)) if same_group && acl::set(new, &list).is_ok() => {}
        // Its directory may have given the new file a list.
        Ok(None) if acl::remove(new).is_ok() => set_mode(new, &own, mode(previous.mode(), same_group)),
        // With a list, the mode's bits for the group are those that any user or group in the list
        // may have at most.
        _ => set_mode(new, &own, previous.mode() & 0o700),
    }
    // The last step: afterwards the process may have no right to take the others.
    if own.uid() != uid {
        _ = fchown(new, Some(uid), None);
    }
}

/// The mode with which only users who could read the previous file can read the new one.
#[cfg(unix)]
fn mode(previous: u32, same_group: bool) -> u32 {
    let (group, others) = (previous >> 3 & 0o7, previous & 0o7);
    let (group, others) = match same_group {
        true => (group, others),
        // Users of either group may now be in the other class.
        false => (group & others, group & others),
    };
    previous & 0o700 | group << 3 | others
}

#[cfg(unix)]
fn set_mode(file: &File, own: &Metadata, mode: u32) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if own.mode() & 0o777 != mode {
        _ = file.set_permissions(std::fs::Permissions::from_mode(mode));
    }
}

/// POSIX access control lists, as the system stores them.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod acl {
    use std::ffi::{CStr, CString};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::ptr;

    const NAME: &CStr = c"system.posix_acl_access";

    /// The list of the file at `path`, unless its permissions are its mode alone.
    pub(super) fn of(path: &Path) -> io::Result<Option<Vec<u8>>> {
        if cfg!(miri) {
            return Ok(None); // Miri has no such call
        }
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: both strings end with a 0, and no more than 0 bytes are written.
        let length = unsafe { libc::lgetxattr(path.as_ptr(), NAME.as_ptr(), ptr::null_mut(), 0) };
        if length <= 0 {
            return if length == 0 { Ok(None) } else { absent().map(|()| None) };
        }
        let mut list = vec![0; length as usize];
        // SAFETY: both strings end with a 0, and `list` has room for as many bytes.
        let length = unsafe { libc::lgetxattr(path.as_ptr(), NAME.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
        if length < 0 {
            return Err(io::Error::last_os_error());
        }
        list.truncate(length as usize);
        Ok(Some(list))
    }

    /// Sets the file's list, and with it its mode.
    pub(super) fn set(file: &File, list: &[u8]) -> io::Result<()> {
        // SAFETY: the name ends with a 0, and `list` has as many bytes as it is said to have.
        match unsafe { libc::fsetxattr(file.as_raw_fd(), NAME.as_ptr(), list.as_ptr().cast(), list.len(), 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Leaves the file without a list.
    pub(super) fn remove(file: &File) -> io::Result<()> {
        if cfg!(miri) {
            return Ok(());
        }
        // SAFETY: the name ends with a 0.
        match unsafe { libc::fremovexattr(file.as_raw_fd(), NAME.as_ptr()) } {
            0 => Ok(()),
            _ => absent(),
        }
    }

    /// Whether the last call failed only because there is no list.
    fn absent() -> io::Result<()> {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODATA | libc::ENOTSUP | libc::ENOSYS) => Ok(()),
            _ => Err(error),
        }
    }
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
mod acl {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) fn of(_: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    pub(super) fn set(_: &File, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn remove(_: &File) -> io::Result<()> {
        Ok(())
    }
}
