//! Loading a copy of the file ([`LoadOptions::copy`]): what other programs do to the file no longer
//! matters. And what happens to a file that is mapped, as the documentation of `load` says.
#![cfg(unix)]

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;

use common::{FOLDER, Folder, in_shell};
use hotset::Cache;
use hotset::snapshot::{AutoSnapshot, LoadOptions, SnapshotError, SnapshotEvent};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

const ENTRIES: u64 = 1_000;

fn value(key: u64) -> Vec<u8> {
    vec![key as u8; 100]
}

fn save(path: &Path) {
    let cache = Cache::new(10_000);
    (0..ENTRIES).for_each(|key| cache.insert(key, value(key)));
    cache.save(path).unwrap();
}

fn empty() -> Cache<u64, Vec<u8>> {
    Cache::new(10_000)
}

fn holds_all(cache: &Cache<u64, Vec<u8>>) {
    for key in 0..ENTRIES {
        assert_eq!(cache.get(&key), Some(value(key)), "key {key}");
    }
}

fn copying() -> LoadOptions {
    LoadOptions::new().copy(true)
}

/// What another program may do to a file that is in use.
const HARMS: [fn(&Path); 4] = [
    |path| File::options().write(true).open(path).unwrap().set_len(0).unwrap(),
    |path| File::options().write(true).open(path).unwrap().set_len(5_000).unwrap(),
    |path| {
        let length = fs::metadata(path).unwrap().len() as usize;
        let mut file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all(&vec![0xaa; length]).unwrap();
    },
    |path| fs::remove_file(path).unwrap(),
];

#[test]
fn copied_snapshot_outlives_changes_of_its_file() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    for harm in HARMS {
        for eager in [false, true] {
            save(&path);
            let cache = empty();
            let loaded = cache.load_with(&path, &copying().eager(eager)).unwrap();
            assert_eq!(
                (loaded.entries, cache.len() as u64),
                (ENTRIES, if eager { ENTRIES } else { 0 })
            );
            harm(&path);
            holds_all(&cache);
            assert_eq!(cache.len() as u64, ENTRIES);

            save(&path);
            let cache = empty();
            cache.load_with(&path, &copying().eager(eager)).unwrap();
            harm(&path);
            assert_eq!(cache.warm().corrupt, 0);
            holds_all(&cache);
        }
    }
}

#[test]
fn copied_snapshot_is_saved_again_after_its_file_is_truncated() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    save(&path);
    let cache = empty();
    cache.load_with(&path, &copying()).unwrap();
    HARMS[0](&path);
    assert_eq!(cache.save(&path).unwrap().entries, ENTRIES);
    let cache = empty();
    cache.load_with(&path, &copying()).unwrap();
    holds_all(&cache);
}

#[test]
fn copying_checks_every_record() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    save(&path);
    let whole = fs::read(&path).unwrap();
    // In the first, a middle and the last record: all that is before the index.
    for at in [130, whole.len() / 2, whole.len() - ENTRIES as usize * 16 - 10] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        let cache = empty();
        for eager in [false, true] {
            let loaded = cache.load_with(&path, &copying().eager(eager));
            assert!(matches!(loaded, Err(SnapshotError::Corrupt { .. })), "{at}: {loaded:?}");
        }
        assert_eq!((cache.len(), cache.warm().entries), (0, 0));
    }
    for length in [0, 10, 127, 128, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let loaded = empty().load_with(&path, &copying());
        assert!(
            matches!(loaded, Err(SnapshotError::Truncated { .. })),
            "{length}: {loaded:?}"
        );
    }
    fs::write(&path, &whole).unwrap();
    let loaded = empty().load_with(&path, &copying().schema(1));
    assert!(matches!(loaded, Err(SnapshotError::Schema { found: 0, expected: 1 })));
    let loaded = Cache::<u64, u64>::new(10).load_with(&path, &copying());
    assert!(matches!(loaded, Err(SnapshotError::Incompatible { .. })), "{loaded:?}");
}

#[test]
fn cache_that_keeps_itself_can_copy() {
    let folder = Folder::new();
    let path = folder.join("snapshot");
    save(&path);
    let (sender, seen) = std::sync::mpsc::channel();
    let keep = AutoSnapshot::new(&path, move |kept| _ = sender.send(kept))
        .load_at_build()
        .copy(true);
    let cache: Cache<u64, Vec<u8>> = Cache::builder().max_entries(10_000).snapshot(keep).build().unwrap();
    assert!(matches!(seen.recv(), Ok(SnapshotEvent::Loaded(loaded)) if loaded.entries == ENTRIES));
    HARMS[0](&path);
    holds_all(&cache);
}

#[test]
#[ignore = "is killed by the operating system"]
fn child_that_maps() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let path = Path::new(&folder).join("snapshot");
    let cache = empty();
    cache.load_with(&path, &LoadOptions::new()).unwrap();
    HARMS[0](&path);
    holds_all(&cache);
}

/// The documentation of `load` says so. (On a system without SIGBUS the child's lookups are misses,
/// or it fails otherwise.)
#[test]
#[cfg(target_os = "linux")]
fn truncating_a_mapped_file_kills_by_sigbus() {
    let folder = Folder::new();
    save(&folder.join("snapshot"));
    // A shell reports a signal as 128 and its number, which is 7.
    let script = r#"ulimit -c 0; "$0" "$@"; [ $? = 135 ]"#;
    in_shell(script, "child_that_maps", &folder);
}

#[test]
#[ignore = "runs below a limit that another test sets"]
fn child_without_memory() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let path = Path::new(&folder).join("huge");
    for options in [LoadOptions::new(), copying(), copying().eager(true)] {
        let error = empty().load_with(&path, &options).unwrap_err();
        assert!(
            matches!(&error, SnapshotError::Io { source, .. } if source.kind() == ErrorKind::OutOfMemory),
            "{error:?}"
        );
    }
}

#[test]
fn file_larger_than_memory_is_an_error() {
    let folder = Folder::new();
    // It takes no room on the disk, and the limit is of addresses.
    let huge = File::create(folder.join("huge")).unwrap();
    if usize::BITS < 64 || huge.set_len(64 << 30).is_err() {
        return println!("skipped: no such files here");
    }
    let script = r#"ulimit -v 8000000 || exit 77; exec "$0" "$@""#;
    in_shell(script, "child_without_memory", &folder);
}
