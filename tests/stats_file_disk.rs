//! The stats file where the disk is full, or the directory is another user's.
//!
//! A process has one stats file, so each test runs a child: this program again, in a namespace
//! where it cannot do everything. Skipped where the system has no such namespaces.
#![cfg(all(target_os = "linux", feature = "stats-file"))]

use hotset::Cache;
use hotset::raw::stats_file::rewrite;
use hotset::stats_file::{self, read};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

const ROLE: &str = "HOTSET_STATS_DISK";

fn named(name: &str) -> Cache<u64, u64> {
    Cache::builder().max_entries(1000).name(name).build().unwrap()
}

#[test]
#[ignore = "runs on a disk that another test makes"]
fn child_on_a_small_disk() {
    let Some(directory) = env::var_os("HOTSET_STATS").filter(|_| env::var_os(ROLE).is_some()) else {
        return;
    };
    let first = named("first");
    let path = stats_file::path().unwrap();
    let junk = PathBuf::from(directory).join("junk");
    let mut file = fs::File::create(&junk).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    // Their records need more of the disk than there is.
    let more: Vec<_> = (0..40).map(|number| named(&number.to_string())).collect();
    (0..3).for_each(|_| rewrite());
    more.iter().for_each(|cache| cache.insert(1, 1));
    assert_eq!((first.get(&1), more[39].get(&1)), (None, Some(1)));
    let before = read(&path).unwrap();
    assert!(before.caches.len() < 41, "{} caches", before.caches.len());
    assert!(before.caches.iter().any(|cache| cache.name == "first"));
    // Another process has no room for a file of its own.
    let other = again("child_without_a_file").output().unwrap();
    let stderr = String::from_utf8_lossy(&other.stderr);
    assert!(other.status.success(), "{stderr}");
    assert!(stderr.contains("HOTSET_STATS has no effect"), "{stderr}");
    drop(file);
    fs::remove_file(&junk).unwrap();
    (0..2).for_each(|_| rewrite());
    assert_eq!(read(&path).unwrap().caches.len(), 41);
}

#[test]
#[ignore = "runs where it has no file"]
fn child_without_a_file() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let cache = named("named");
    cache.insert(1, 1);
    assert_eq!((cache.get(&1), stats_file::path()), (Some(1), None));
}

/// This program again, with one of the tests above.
fn again(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(ROLE, "child");
    command
}

/// Runs a test in a shell that has prepared its directory; None if it cannot, which it reports.
fn in_shell(script: &str, test: &str) -> Option<Output> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = env::temp_dir().join(format!("hotset-disk-{}-{number}", process::id()));
    fs::create_dir(&directory).unwrap();
    let shell = format!("chmod 700 \"$HOTSET_STATS\"; {script}");
    let mut command = Command::new("sh");
    command.args(["-c", &shell]).arg(env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    let output = command
        .env(ROLE, "child")
        .env("HOTSET_STATS", &directory)
        .output()
        .unwrap();
    fs::remove_dir_all(&directory).unwrap();
    if output.status.code() == Some(77) {
        println!("skipped: the system has no such namespaces");
        return None;
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    Some(output)
}

#[test]
fn full_disk_keeps_the_update_before() {
    // A file system of 512 KiB, visible to this process only.
    let script = r#"unshare --mount --map-root-user true 2>/dev/null || exit 77
        exec unshare --mount --map-root-user sh -c '
            mount -t tmpfs -o size=512k,mode=700 tmpfs "$HOTSET_STATS" 2>/dev/null || exit 77
            exec "$0" "$@"' "$0" "$@""#;
    in_shell(script, "child_on_a_small_disk");
}

#[test]
fn directory_without_permission_warns_and_has_no_effect() {
    // Root of a namespace that maps it to no user is bound by the mode, like any user.
    let script = r#"chmod 500 "$HOTSET_STATS"
        if [ "$(id -u)" != 0 ]; then exec "$0" "$@"; fi
        unshare --user true 2>/dev/null || exit 77
        exec unshare --user "$0" "$@""#;
    if let Some(output) = in_shell(script, "child_without_a_file") {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("HOTSET_STATS has no effect"), "{stderr}");
        assert!(
            stderr.contains("choose a directory that this user can write to"),
            "{stderr}"
        );
    }
}

#[test]
fn directory_of_another_user_warns_and_has_no_effect() {
    // Only root can give a directory to another user.
    let script = r#"[ "$(id -u)" = 0 ] && chown 65534 "$HOTSET_STATS" 2>/dev/null || exit 77; exec "$0" "$@""#;
    if let Some(output) = in_shell(script, "child_without_a_file") {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("HOTSET_STATS has no effect"), "{stderr}");
        assert!(stderr.contains("other users can replace files"), "{stderr}");
    }
}
