//! Paths of all kinds, and a full disk: each yields a specific error, and a cache that works.
#![cfg(all(unix, feature = "snapshot"))]

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;

use common::{FOLDER, Folder, in_shell};
use hotset::Cache;
use hotset::snapshot::{LoadOptions, SnapshotError};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

type Bytes = Cache<Vec<u8>, Vec<u8>>;

fn filled(entries: usize) -> Bytes {
    let cache = Cache::new(100_000);
    for n in 0..entries {
        cache.insert(format!("key {n}").into_bytes(), vec![n as u8; 100]);
    }
    cache
}

fn eager() -> LoadOptions {
    LoadOptions::new().eager(true)
}

/// Loads a path that must fail, in both ways; the cache is empty and works.
fn refused(path: &Path, is: impl Fn(&SnapshotError) -> bool) {
    for options in [LoadOptions::new(), eager()] {
        let cache = Bytes::new(1_000);
        let error = cache.load_with(path, &options).unwrap_err();
        assert!(is(&error), "{}: {error:?}", path.display());
        assert!(!error.to_string().is_empty());
        assert_eq!(cache.len(), 0);
        cache.insert(b"k".to_vec(), b"v".to_vec());
        assert_eq!(cache.get(&b"k"[..]), Some(b"v".to_vec()));
        cache.validate();
    }
}

fn io(error: &SnapshotError, kind: ErrorKind) -> bool {
    matches!(error, SnapshotError::Io { source, .. } if source.kind() == kind)
}

#[test]
fn load_of_a_missing_file_is_an_error() {
    let folder = Folder::new();
    refused(&folder.join("none"), |error| io(error, ErrorKind::NotFound));
    refused(Path::new(""), |error| matches!(error, SnapshotError::Io { .. }));
    let error = filled(3).save(folder.join("no folder").join("file")).unwrap_err();
    assert!(io(&error, ErrorKind::NotFound), "{error:?}");
}

#[test]
fn load_of_no_regular_file_is_an_error() {
    let folder = Folder::new();
    let directory = folder.join("directory");
    fs::create_dir(&directory).unwrap();
    refused(&directory, |error| matches!(error, SnapshotError::NotAFile { .. }));
    filled(3).save(&directory).unwrap_err();
    assert!(directory.is_dir());

    // Opening a FIFO without a writer would block forever.
    let fifo = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    refused(&fifo, |error| matches!(error, SnapshotError::NotAFile { .. }));
    // Nor is it replaced, as a rename would, nor is a link to something that is no file.
    let link = folder.join("link");
    std::os::unix::fs::symlink(&directory, &link).unwrap();
    for path in [&fifo, &link] {
        let saved = filled(1).save(path);
        assert!(matches!(saved, Err(SnapshotError::NotAFile { .. })));
    }
    assert!(link.is_symlink());
    fs::remove_file(&link).unwrap();

    refused(Path::new("/dev/null"), |error| {
        matches!(error, SnapshotError::NotAFile { .. })
    });
    refused(Path::new("/dev/zero"), |error| {
        matches!(error, SnapshotError::NotAFile { .. })
    });
    assert_eq!(folder.names(), ["directory", "fifo"]);
}

#[test]
fn load_of_an_incompatible_file_is_an_error() {
    let folder = Folder::new();
    let path = folder.join("file");
    for content in [
        &b""[..],
        b"x",
        &[0; 4096],
        b"SQLite format 3\0 and so on, and so on, and so on ......................",
    ] {
        fs::write(&path, content).unwrap();
        refused(&path, |error| !matches!(error, SnapshotError::Io { .. }));
        // A save may replace it.
        filled(3).save(&path).unwrap();
        let cache = Bytes::new(100);
        cache.load(&path).unwrap();
        assert_eq!(cache.get(&b"key 2"[..]), Some(vec![2; 100]));
    }
}

/// The old file fits on the disk; the new one is ten times too large, so the old one remains,
/// alone.
fn save_too_much(full: impl Fn(&SnapshotError) -> bool) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let path = Path::new(&folder).join("cache.hotset");
    let small = filled(100);
    small.save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let large = filled(20_000);
    for _ in 0..10 {
        let error = large.save(&path).unwrap_err();
        assert!(full(&error), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "what could not be finished is removed"
        );
    }
    assert_eq!(
        large.get(&b"key 19999"[..]),
        Some(vec![31; 100]),
        "the cache still works"
    );
    let cache = Bytes::new(1_000);
    cache.load(&path).unwrap();
    assert_eq!(cache.get(&b"key 99"[..]), Some(vec![99; 100]));
    small.save(&path).unwrap();
}

#[test]
#[ignore = "runs below a limit that another test sets"]
fn child_limited() {
    save_too_much(|error| io(error, ErrorKind::FileTooLarge));
}

#[test]
fn save_beyond_the_file_size_limit_fails() {
    let folder = Folder::new();
    let script = r#"trap "" XFSZ; ulimit -f 400 || exit 77; exec "$0" "$@""#;
    in_shell(script, "child_limited", &folder);
}

#[test]
#[ignore = "runs on a disk that another test makes"]
fn child_on_a_small_disk() {
    save_too_much(|error| io(error, ErrorKind::StorageFull));
}

#[test]
fn save_to_a_full_disk_fails() {
    let folder = Folder::new();
    // A file system of 256 KiB, visible to this process only.
    let script = r#"unshare --mount --map-root-user true 2>/dev/null || exit 77
        exec unshare --mount --map-root-user sh -c '
            mount -t tmpfs -o size=256k tmpfs "$HOTSET_SNAPSHOT_FOLDER" 2>/dev/null || exit 77
            exec "$0" "$@"' "$0" "$@""#;
    in_shell(script, "child_on_a_small_disk", &folder);
}

#[test]
#[ignore = "runs as a user without rights"]
fn child_without_rights() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    refused(&folder.join("secret"), |error| io(error, ErrorKind::PermissionDenied));
    let error = filled(3).save(folder.join("new")).unwrap_err();
    assert!(io(&error, ErrorKind::PermissionDenied), "{error:?}");
}

#[test]
fn save_without_permission_fails() {
    let folder = Folder::new();
    let secret = folder.join("secret");
    filled(3).save(&secret).unwrap();
    // Root of a namespace that maps it to no user is bound by the mode, like any user.
    let script = r#"chmod 000 "$HOTSET_SNAPSHOT_FOLDER/secret"; chmod 500 "$HOTSET_SNAPSHOT_FOLDER"
        if [ "$(id -u)" != 0 ]; then exec "$0" "$@"; fi
        unshare --user true 2>/dev/null || exit 77
        exec unshare --user "$0" "$@""#;
    in_shell(script, "child_without_rights", &folder);
    assert!(
        Command::new("chmod")
            .arg("700")
            .arg(folder.path())
            .status()
            .unwrap()
            .success()
    );
}
