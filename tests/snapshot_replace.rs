//! How a save replaces the file at its path: links, names, permissions, and a system that refuses
//! one of the steps.
//!
//! `fsync` and `rename` are interposed: this program's definitions take the place of the C
//! library's, and fail on demand, for the requesting test's thread only.
#![cfg(all(target_os = "linux", feature = "snapshot"))]

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;

use common::{FOLDER, Folder, in_shell};
use hotset::Cache;
use hotset::snapshot::{LoadOptions, SaveOptions, SnapshotError};
use std::cell::Cell;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What the interposed functions do, on one thread.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// `fsync` of a directory fails with this.
    sync_directory: Option<i32>,
    /// `fsync` of a file fails with this.
    sync_file: Option<i32>,
    /// `rename` fails with this without having done anything.
    rename: Option<i32>,
    /// `rename` is done, and reports this failure, as a retransmitted request to a file server may.
    renamed: Option<i32>,
}

thread_local! {
    static FAULTS: Cell<Faults> = const {
        Cell::new(Faults { sync_directory: None, sync_file: None, rename: None, renamed: None })
    };
}

fn faults() -> Faults {
    FAULTS.try_with(Cell::get).unwrap_or_default()
}

fn with_faults<R>(faults: Faults, f: impl FnOnce() -> R) -> R {
    FAULTS.set(faults);
    let result = f();
    FAULTS.set(Faults::default());
    result
}

fn fail(errno: i32) -> i32 {
    // SAFETY: the thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: i32) -> i32 {
    // SAFETY: `stat` is plain data, and `fstat` writes no more than that.
    let directory = unsafe {
        let mut about: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &mut about) == 0 && about.st_mode & libc::S_IFMT == libc::S_IFDIR
    };
    let fault = if directory {
        faults().sync_directory
    } else {
        faults().sync_file
    };
    if let Some(errno) = fault {
        return fail(errno);
    }
    // SAFETY: the system call touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_fsync, fd) as i32 }
}

/// # Safety
/// As those of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const libc::c_char, to: *const libc::c_char) -> i32 {
    let Faults { rename, renamed, .. } = faults();
    if let Some(errno) = rename {
        return fail(errno);
    }
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as i32 };
    renamed.map_or(result, fail)
}

type Bytes = Cache<Vec<u8>, Vec<u8>>;

/// A cache with the keys from 0 up to `entries`.
fn filled(entries: usize) -> Bytes {
    let cache = Bytes::new(10_000);
    for n in 0..entries {
        cache.insert(n.to_string().into_bytes(), vec![n as u8; 10]);
    }
    cache
}

/// Returns the number of entries of the file, and checks that each is intact.
fn entries(path: &Path) -> u64 {
    let loaded = Bytes::new(10_000).load_with(path, &LoadOptions::new().eager(true));
    loaded
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .entries
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn owner(path: &Path) -> (u32, u32) {
    let about: Metadata = fs::symlink_metadata(path).unwrap();
    (about.uid(), about.gid())
}

fn is_root() -> bool {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

fn errno(error: &SnapshotError) -> Option<i32> {
    match error {
        SnapshotError::Io { source, .. } => source.raw_os_error(),
        _ => None,
    }
}

// After the rename.

#[test]
fn save_whose_directory_cannot_sync_succeeds() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    for (n, error) in [
        libc::EINVAL,
        libc::EACCES,
        libc::ENOTSUP,
        libc::EIO,
        libc::EBADF,
        libc::EROFS,
    ]
    .into_iter()
    .enumerate()
    {
        let faults = Faults {
            sync_directory: Some(error),
            ..Faults::default()
        };
        let saved = with_faults(faults, || filled(n + 1).save(&path)).unwrap();
        assert_eq!((saved.entries, entries(&path)), (n as u64 + 1, n as u64 + 1));
        assert!(!saved.durable, "errno {error}");
    }
    assert!(filled(9).save(&path).unwrap().durable);
    assert_eq!(folder.names(), ["snapshot"]);
}

#[test]
fn save_whose_file_cannot_sync_keeps_the_previous() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    filled(1).save(&path).unwrap();
    let faults = Faults {
        sync_file: Some(libc::EIO),
        ..Faults::default()
    };
    let error = with_faults(faults, || filled(2).save(&path)).unwrap_err();
    assert_eq!((errno(&error), entries(&path)), (Some(libc::EIO), 1));
    assert_eq!(folder.names(), ["snapshot"]);
}

#[test]
fn save_reports_what_the_rename_did() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    filled(1).save(&path).unwrap();
    let faults = Faults {
        rename: Some(libc::EBUSY),
        ..Faults::default()
    };
    let error = with_faults(faults, || filled(2).save(&path)).unwrap_err();
    assert_eq!((errno(&error), entries(&path)), (Some(libc::EBUSY), 1));
    let faults = Faults {
        renamed: Some(libc::ENOENT),
        ..Faults::default()
    };
    assert_eq!(with_faults(faults, || filled(2).save(&path)).unwrap().entries, 2);
    assert_eq!(entries(&path), 2);
    assert_eq!(folder.names(), ["snapshot"]);
}

#[test]
fn progress_that_panics_keeps_the_previous_file() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    filled(1).save(&path).unwrap();
    let options = SaveOptions::new().progress(|progress| assert!(progress.done < progress.total));
    let saved = catch_unwind(AssertUnwindSafe(|| filled(2).save_with(&path, &options)));
    assert!(saved.is_err());
    assert_eq!(entries(&path), 1);
    assert_eq!(folder.names(), ["snapshot"]);
}

#[test]
#[ignore = "runs as a user without rights"]
fn child_in_a_directory_it_cannot_list() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let path = Path::new(&folder).join("snapshot");
    fs::read_dir(&folder).unwrap_err();
    for n in 1..4 {
        let saved = filled(n).save(&path).unwrap();
        assert_eq!(
            (saved.entries, saved.durable, entries(&path)),
            (n as u64, false, n as u64)
        );
    }
}

#[test]
fn save_into_an_unlistable_directory_succeeds() {
    let folder = Folder::new();
    let script = r#"chmod 333 "$HOTSET_SNAPSHOT_FOLDER"
        if [ "$(id -u)" != 0 ]; then exec "$0" "$@"; fi
        unshare --user true 2>/dev/null || exit 77
        exec unshare --user "$0" "$@""#;
    in_shell(script, "child_in_a_directory_it_cannot_list", &folder);
    set_mode(folder.path(), 0o700);
}

// Names.

#[test]
fn save_to_any_allowed_name_succeeds() {
    let folder = Folder::new();
    let longest = |unit: &str| unit.repeat(255 / unit.len());
    let mut names: Vec<OsString> = ["a", "é", "語", "🦀"].map(|unit| longest(unit).into()).into();
    names.push(OsString::from_vec(b"\xff\xfe not UTF-8 \x80".into()));
    names.push(OsString::from_vec(vec![0xff; 255]));
    names.push("\n".into());
    names.push(".hidden".into());
    for (n, name) in names.iter().enumerate() {
        let path = folder.path().join(name);
        for entries in [n + 1, n + 2] {
            let saved = filled(entries).save(&path);
            saved.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        }
    }
    for (n, name) in names.iter().enumerate() {
        assert_eq!(entries(&folder.path().join(name)), n as u64 + 2);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), names.len());
    let error = filled(1).save(folder.join(&"a".repeat(256))).unwrap_err();
    assert_eq!(errno(&error), Some(libc::ENAMETOOLONG));
}

#[test]
fn save_to_a_path_that_names_no_file_is_rejected() {
    let folder = Folder::new();
    fs::create_dir(folder.join("directory")).unwrap();
    filled(1).save(folder.join("file")).unwrap();
    symlink("file", folder.join("link")).unwrap();
    symlink("new/", folder.join("slash")).unwrap();
    for name in [
        "",
        ".",
        "..",
        "directory",
        "directory/",
        "directory/..",
        "directory/.",
        "new/",
        "link/",
        "file/",
        "slash",
    ] {
        let error = filled(2).save(folder.path().join(name)).unwrap_err();
        let refused = matches!(error, SnapshotError::NotAFile { .. }) || errno(&error) == Some(libc::ENOTDIR);
        assert!(refused, "{name}: {error:?}");
    }
    assert_eq!(entries(&folder.join("file")), 1);
    assert_eq!(folder.names(), ["directory", "file", "link", "slash"]);
    assert!(matches!(filled(1).save("/"), Err(SnapshotError::NotAFile { .. })));
}

/// Returns the temporary name that a save to `target` writes, observed during a save.
fn temporary(target: &Path) -> OsString {
    let (seen, sender) = {
        let (sender, seen) = std::sync::mpsc::channel();
        (seen, std::sync::Mutex::new(sender))
    };
    let folder = target.parent().unwrap().to_owned();
    let before: Vec<OsString> = names(&folder);
    let options = SaveOptions::new().progress(move |_| {
        let new = names(&folder).into_iter().find(|name| !before.contains(name));
        _ = sender.lock().unwrap().send(new);
    });
    filled(1).save_with(target, &options).unwrap();
    fs::remove_file(target).unwrap();
    seen.recv().unwrap().expect("a save in progress has a file of its own")
}

fn names(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// Returns another temporary name, as a killed process leaves it.
fn abandoned(name: &OsStr, n: u8) -> OsString {
    let mut name = name.as_bytes().to_vec();
    let last = name.len() - ".tmp".len() - 1;
    name[last] = b'0' + n;
    OsString::from_vec(name)
}

#[test]
fn temporary_files_of_killed_saves_are_removed() {
    for name in [&b"snapshot"[..], &[b'x'; 255], b"\xff\xff\xff"] {
        let folder = Folder::new();
        let target = folder.path().join(OsStr::from_bytes(name));
        let own = temporary(&target);
        assert!(
            own.len() <= 30 && own.to_str().is_some_and(|own| own.ends_with(".tmp")),
            "{own:?}"
        );
        let left: Vec<PathBuf> = (0..6).map(|n| folder.path().join(abandoned(&own, n))).collect();
        fs::write(&left[0], "half").unwrap();
        // As a save that was killed just before the rename leaves it, with a mode that denies the
        // owner writing or reading.
        fs::write(&left[1], "whole").unwrap();
        set_mode(&left[1], 0o440);
        // These are no leftovers: a file locked by a running process, a directory, a pipe, a link.
        let alive = File::create(&left[2]).unwrap();
        alive.lock().unwrap();
        fs::create_dir(&left[3]).unwrap();
        let pipe = CString::new(left[4].as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        fs::write(folder.join("other"), "").unwrap();
        symlink("other", &left[5]).unwrap();
        // Leftovers of saves to other paths are not removed.
        let of_other = temporary(&folder.join("another"));
        fs::write(folder.path().join(&of_other), "").unwrap();

        filled(2).save(&target).unwrap();
        let there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        assert_eq!(
            left.iter().map(there).collect::<Vec<_>>(),
            [false, false, true, true, true, true]
        );
        assert!(folder.path().join(&of_other).exists() && folder.join("other").exists());
        drop(alive);
        filled(2).save(&target).unwrap();
        assert!(!there(&left[2]));
    }
}

#[test]
fn concurrent_saves_to_one_path_all_succeed() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    symlink("snapshot", folder.join("link")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (path, link) = (&path, folder.join("link"));
            scope.spawn(move || {
                for n in 0..20 {
                    filled(thread + n).save(if n % 2 == 0 { path } else { &link }).unwrap();
                }
            });
        }
    });
    entries(&path);
    assert_eq!(folder.names(), ["link", "snapshot"]);
}

// Links.

#[test]
fn save_through_a_link_replaces_its_target() {
    let folder = Folder::new();
    for name in ["shared", "release", "elsewhere"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let target = folder.join("shared/snapshot");
    symlink("../shared/snapshot", folder.join("release/relative")).unwrap();
    symlink(folder.join("release/relative"), folder.join("elsewhere/chain")).unwrap();
    symlink("elsewhere", folder.join("directory")).unwrap();
    let links = ["release/relative", "elsewhere/chain", "directory/chain"];
    let inode = || fs::metadata(&target).unwrap().ino();
    // The first save finds links that lead to no file yet.
    for (n, link) in links.into_iter().cycle().take(6).enumerate() {
        let before = target.exists().then(inode);
        // (The number of a freed inode may be reused by the next file.)
        let held = File::open(&target).ok();
        filled(n + 1).save(folder.join(link)).unwrap();
        drop(held);
        assert_eq!(entries(&target), n as u64 + 1);
        assert_ne!(before, Some(inode()), "it is replaced, not changed");
        assert!(links.iter().all(|link| folder.join(link).is_symlink()));
        assert_eq!(mode(&target), 0o600);
        let files: Vec<_> = ["shared", "release", "elsewhere"]
            .map(|name| names(&folder.join(name)))
            .into();
        assert_eq!(files, [["snapshot"], ["relative"], ["chain"]]);
    }
}

#[test]
fn save_through_a_dangling_link_is_rejected() {
    let folder = Folder::new();
    fs::create_dir(folder.join("directory")).unwrap();
    for (name, to) in [
        ("a", "directory"),
        ("b", "a"),
        ("null", "/dev/null"),
        ("self", "self"),
        ("x", "y"),
        ("y", "x"),
    ] {
        symlink(to, folder.join(name)).unwrap();
    }
    symlink("nowhere/snapshot", folder.join("missing")).unwrap();
    let before = folder.names();
    for (name, expected) in [
        ("a", None),
        ("b", None),
        ("null", None),
        ("self", Some(libc::ELOOP)),
        ("x", Some(libc::ELOOP)),
        ("missing", Some(libc::ENOENT)),
    ] {
        let error = filled(1).save(folder.join(name)).unwrap_err();
        assert_eq!(errno(&error), expected, "{name}: {error:?}");
        assert!(expected.is_some() || matches!(error, SnapshotError::NotAFile { .. }));
        assert!(folder.join(name).is_symlink());
    }
    assert_eq!(folder.names(), before);
}

#[test]
fn save_through_a_link_to_no_name_is_rejected() {
    let folder = Folder::new();
    let path = folder.join("unlinked");
    let file = File::create(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let error = filled(1).save(link).unwrap_err();
    assert!(matches!(error, SnapshotError::NotAFile { .. }), "{error:?}");
    assert_eq!(folder.names(), [""; 0]);
}

// Permissions.

#[test]
fn save_keeps_the_mode_of_an_existing_file() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    symlink("snapshot", folder.join("link")).unwrap();
    filled(1).save(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    for (kept, set) in [
        (0o640, 0o640),
        (0o644, 0o644),
        (0o400, 0o400),
        (0o666, 0o666),
        (0o711, 0o6711),
        (0o600, 0o600),
    ] {
        set_mode(&path, set);
        filled(2).save(&path).unwrap();
        assert_eq!(mode(&path), kept, "{set:o}");
        filled(3).save(folder.join("link")).unwrap();
        assert_eq!(mode(&path), kept, "{set:o}, through a link");
    }
}

#[test]
fn save_as_root_keeps_the_owner() {
    if !is_root() {
        return println!("skipped: this process may not give files away");
    }
    let folder = Folder::new();
    let path = folder.join("snapshot");
    filled(1).save(&path).unwrap();
    for owned in [(65534, 65534), (1, 65534), (65534, 1), (0, 0)] {
        chown(&path, Some(owned.0), Some(owned.1)).unwrap();
        set_mode(&path, 0o640);
        filled(2).save(&path).unwrap();
        assert_eq!((owner(&path), mode(&path)), (owned, 0o640));
    }
}

#[test]
#[ignore = "runs as a user without rights"]
fn child_that_cannot_keep_the_group() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    for (name, kept) in [("group", 0o600), ("all", 0o644), ("others", 0o600)] {
        let path = Path::new(&folder).join(name);
        let group = fs::metadata(&path).unwrap().gid();
        filled(2).save(&path).unwrap();
        assert_eq!((group, owner(&path)), (1, (65534, 65534)));
        assert_eq!(mode(&path), kept, "{name}");
    }
}

/// Neither the users of the group that a new file gets, nor those that the previous group excluded,
/// gain anything.
#[test]
fn save_that_cannot_keep_the_group_denies_it() {
    if !is_root() {
        return println!("skipped: this process may not give files away");
    }
    let folder = Folder::new();
    for (name, mode) in [("group", 0o640), ("all", 0o644), ("others", 0o604)] {
        filled(1).save(folder.join(name)).unwrap();
        chown(folder.join(name), None, Some(1)).unwrap();
        set_mode(&folder.join(name), mode);
    }
    set_mode(folder.path(), 0o777);
    // As a user that is not in that group.
    let script = r#"drop="setpriv --reuid 65534 --regid 65534 --clear-groups"
        $drop test -x "$0" -a -w "$HOTSET_SNAPSHOT_FOLDER" 2>/dev/null || exit 77
        exec $drop "$0" "$@""#;
    in_shell(script, "child_that_cannot_keep_the_group", &folder);
}

const ACL: &[u8] = b"system.posix_acl_access\0";

fn acl(path: &Path) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut value = vec![0; 1024];
    // SAFETY: the strings end with a 0, and the buffer is as long as it is said to be.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            ACL.as_ptr().cast(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    Ok(value)
}

/// Lets user 1 read the file besides its owner; its group may not. In the mode, the group's bits
/// are the list's mask.
fn set_acl(path: &Path) -> io::Result<()> {
    let entries = [
        (0x01u16, 6u16, u32::MAX),
        (0x02, 4, 1),
        (0x04, 0, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the strings end with a 0, and the value is as long as it is said to be.
    match unsafe {
        libc::setxattr(
            path.as_ptr(),
            ACL.as_ptr().cast(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn save_keeps_the_access_list() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    filled(1).save(&path).unwrap();
    match set_acl(&path) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return println!("skipped: no access lists here"),
        set => set.unwrap(),
    }
    assert_eq!(mode(&path), 0o640);
    let before = acl(&path).unwrap();
    filled(2).save(&path).unwrap();
    assert_eq!((acl(&path).unwrap(), mode(&path)), (before, 0o640));
}
