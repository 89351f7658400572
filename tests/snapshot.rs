//! Snapshots: what is restored, what is not, and what is rejected.

#![cfg(feature = "snapshot")]

use hotset::snapshot::{LoadOptions, SaveOptions, SnapshotError};
use hotset::{Cache, ManualClock, Policy};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// A directory for each test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hotset-snapshot-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("cache.hotset")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const POLICIES: [Policy; 5] = [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random];

fn of(policy: Policy, entries: usize) -> Cache<u64, String> {
    Cache::builder().max_entries(entries).policy(policy).build().unwrap()
}

fn value(key: u64) -> String {
    format!("value {key}")
}

fn filled(policy: Policy, entries: u64) -> Cache<u64, String> {
    let cache = of(policy, entries as usize);
    for key in 0..entries {
        cache.insert(key, value(key));
        if key % 3 == 0 {
            (0..key % 7).for_each(|_| _ = cache.get(&key));
        }
    }
    cache.run_pending();
    cache
}

const EAGER: bool = true;
const LAZY: bool = false;

fn loaded(dir: &Dir, policy: Policy, entries: usize, eager: bool) -> Cache<u64, String> {
    let cache = of(policy, entries);
    let options = LoadOptions::new().eager(eager);
    cache.load_with(dir.file(), &options).unwrap();
    cache
}

fn order(cache: &Cache<u64, String>) -> Vec<u64> {
    cache.reader().hottest().map(|(key, _)| *key).collect()
}

#[test]
fn snapshot_restores_every_entry() {
    let dir = Dir::new();
    for policy in POLICIES {
        for n in [0, 1, 2, 100, 3000] {
            let cache = filled(policy, n);
            let saved = cache.save(dir.file()).unwrap();
            assert_eq!(saved.entries, cache.len() as u64);
            assert_eq!(saved.bytes, fs::metadata(dir.file()).unwrap().len());
            for eager in [EAGER, LAZY] {
                let new = loaded(&dir, policy, n as usize, eager);
                assert_eq!(new.len(), if eager { cache.len() } else { 0 });
                for key in 0..n + 10 {
                    assert_eq!(new.get(&key), cache.get(&key), "{policy:?} {n} {eager} {key}");
                }
                new.run_pending();
                assert_eq!(new.len(), cache.len());
                new.validate();
            }
        }
    }
}

#[test]
fn snapshot_restores_the_eviction_order() {
    let dir = Dir::new();
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo] {
        let cache = filled(policy, 1000);
        cache.save(dir.file()).unwrap();
        let new = loaded(&dir, policy, 1000, EAGER);
        new.validate();
        assert_eq!(order(&new), order(&cache), "{policy:?}");
        // The policy's state is restored, too: saved again, the order is the same.
        new.save(dir.file()).unwrap();
        assert_eq!(order(&loaded(&dir, policy, 1000, EAGER)), order(&cache), "{policy:?}");
    }
}

#[test]
fn load_into_a_smaller_cache_keeps_the_hottest() {
    let dir = Dir::new();
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo] {
        let cache = filled(policy, 1000);
        cache.save(dir.file()).unwrap();
        let new = loaded(&dir, policy, 100, EAGER);
        new.run_pending();
        new.validate();
        let mut kept = order(&new);
        let mut hottest = order(&cache)[..100].to_vec();
        kept.sort_unstable();
        hottest.sort_unstable();
        assert_eq!(kept, hottest, "{policy:?}");
        let lazy = loaded(&dir, policy, 100, LAZY);
        (0..1000).for_each(|key| _ = lazy.get(&key));
        lazy.run_pending();
        lazy.validate();
        assert!(lazy.len() <= 100);
    }
}

#[test]
fn snapshot_restores_the_hit_ratio() {
    // Skewed uses of 10,000 keys through a cache of 500: a warm cache hits from the start.
    let mut state = 1u64;
    let mut keys = move || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        (unit * unit * unit * 10_000.0) as u64
    };
    let ratio = |cache: &Cache<u64, String>, keys: &mut dyn FnMut() -> u64| {
        let hits = (0..20_000).filter(|_| {
            let key = keys();
            let hit = cache.get(&key).is_some();
            if !hit {
                cache.insert(key, value(key));
            }
            hit
        });
        hits.count() as f64 / 20_000.0
    };
    let dir = Dir::new();
    let cache = of(Policy::WTinyLfu, 500);
    ratio(&cache, &mut keys);
    let before = ratio(&cache, &mut keys);
    cache.save(dir.file()).unwrap();
    let cold = ratio(&of(Policy::WTinyLfu, 500), &mut keys);
    for eager in [EAGER, LAZY] {
        let warm = ratio(&loaded(&dir, Policy::WTinyLfu, 500, eager), &mut keys);
        assert!(warm > before - 0.02 && warm > cold, "{before} {warm} {cold}");
    }
}

#[test]
fn snapshot_restores_weights() {
    let dir = Dir::new();
    let build = |weight| {
        Cache::<String, Vec<u8>>::builder()
            .max_weight(weight)
            .weigher(|key, value| (key.len() + value.len()) as u64)
            .build()
            .unwrap()
    };
    let cache = build(100_000);
    for n in 0..1000 {
        cache.insert(format!("key {n}"), vec![7; n % 90]);
    }
    cache.run_pending();
    cache.save(dir.file()).unwrap();
    for weight in [100_000, 10_000, 50] {
        let new = build(weight);
        new.load(dir.file()).unwrap();
        new.warm();
        new.run_pending();
        new.validate();
        assert!(new.weight() <= weight);
        assert!(new.weight() > weight - weight / 10 * 9 || cache.weight() < weight);
        if weight == 100_000 {
            assert_eq!((new.len(), new.weight()), (cache.len(), cache.weight()));
        }
    }
}

#[test]
fn snapshot_ttls_keep_counting_down() {
    let dir = Dir::new();
    let build = |clock: &ManualClock| -> Cache<u64, String> {
        Cache::builder()
            .max_entries(100)
            .time_to_live(Duration::from_secs(1000))
            .clock(clock.clone())
            .build()
            .unwrap()
    };
    let clock = ManualClock::new();
    let cache = build(&clock);
    cache.insert(1, value(1));
    cache.insert_with_ttl(2, value(2), Duration::from_secs(5000));
    cache.insert_with_ttl(3, value(3), hotset::Ttl::Never);
    cache.insert_with_ttl(4, value(4), Duration::from_secs(500));
    clock.advance(Duration::from_secs(600));
    cache.save(dir.file()).unwrap();
    for eager in [EAGER, LAZY] {
        let clock = ManualClock::new();
        let new = build(&clock);
        new.load_with(dir.file(), &LoadOptions::new().eager(eager)).unwrap();
        let left = |key| new.remaining(&key);
        let near = |left: Option<Option<Duration>>, secs: u64| {
            let left = left.unwrap().unwrap();
            assert!(
                left <= Duration::from_secs(secs) && left > Duration::from_secs(secs - 100),
                "{left:?}"
            );
        };
        near(left(1), 400);
        near(left(2), 4400);
        assert_eq!(left(3), Some(None));
        assert_eq!(left(4), None);
        clock.advance(Duration::from_secs(400));
        assert_eq!((new.get(&1), new.get(&2)), (None, Some(value(2))));
    }
}

/// Changes words of a file's header, and repairs its checksum.
fn patch(file: &mut [u8], words: &[(usize, u64)]) {
    for (word, value) in words {
        file[8 * word..8 * word + 8].copy_from_slice(&value.to_le_bytes());
    }
    let checksum = xxh3_64(&file[..120]);
    file[120..128].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn wall_clock_that_goes_back_extends_no_ttl() {
    let dir = Dir::new();
    let cache = of(Policy::WTinyLfu, 10);
    cache.insert_with_ttl(1, value(1), Duration::from_secs(100));
    cache.save(dir.file()).unwrap();
    // Saved in the far future: no time counts as elapsed, and the remaining TTLs stay as they were.
    let mut file = fs::read(dir.file()).unwrap();
    let created = u64::from_le_bytes(file[32..40].try_into().unwrap());
    patch(&mut file, &[(4, created + 50_000)]);
    fs::write(dir.file(), &file).unwrap();
    let new = of(Policy::WTinyLfu, 10);
    let told = new.load(dir.file()).unwrap();
    assert_eq!(told.age, Duration::ZERO);
    let left = new.remaining(&1).unwrap().unwrap();
    assert!(
        left <= Duration::from_secs(50) && left > Duration::from_secs(40),
        "{left:?}"
    );
}

#[test]
fn insertion_after_the_load_wins() {
    let dir = Dir::new();
    for policy in POLICIES {
        filled(policy, 100).save(dir.file()).unwrap();
        let new = loaded(&dir, policy, 1000, LAZY);
        new.insert(1, "new".into());
        new.insert_with_ttl(2, "new".into(), Duration::from_secs(100));
        assert_eq!(new.remove(&3), Some(value(3)));
        assert_eq!(new.compute(4, |old| old.map(|old| old + "!")), Some(value(4) + "!"));
        assert_eq!(new.compute(5, |old| old.and(None)), None);
        assert_eq!(new.get_or_insert_with(6, || unreachable!()), value(6));
        assert_eq!(new.remove_if(&7, |_, _| false), None);
        assert!(new.contains_key(&8));
        assert_eq!(new.remaining(&9), Some(None));
        assert_eq!(new.get_many(&[10, 11, 1000]), [Some(value(10)), Some(value(11)), None]);
        new.warm();
        assert_eq!(new.get(&1).as_deref(), Some("new"));
        assert_eq!(new.get(&2).as_deref(), Some("new"));
        assert_eq!((new.get(&3), new.get(&5)), (None, None));
        assert_eq!(new.get(&4), Some(value(4) + "!"));
        assert_eq!(new.get(&7), Some(value(7)));
        assert_eq!(new.len(), 98);
        new.run_pending();
        new.validate();
    }
}

#[test]
fn removed_entry_is_not_restored() {
    let dir = Dir::new();
    filled(Policy::WTinyLfu, 100).save(dir.file()).unwrap();
    let new = loaded(&dir, Policy::WTinyLfu, 1000, LAZY);
    assert_eq!(new.get(&1), Some(value(1)));
    new.clear();
    assert!((0..100).all(|key| new.get(&key).is_none()));
    assert_eq!(new.warm().entries, 0);
    assert!(new.is_empty());
    // A second load replaces the first.
    new.load(dir.file()).unwrap();
    new.insert(1, "mine".into());
    new.remove(&1);
    new.load(dir.file()).unwrap();
    assert_eq!(new.get(&1), Some(value(1)));
}

#[test]
fn entries_not_yet_restored_are_saved() {
    let dir = Dir::new();
    let cache = filled(Policy::WTinyLfu, 100);
    cache.save(dir.file()).unwrap();
    let new = loaded(&dir, Policy::WTinyLfu, 100, LAZY);
    new.get(&5);
    new.insert(6, "six".into());
    new.remove(&7);
    new.save(dir.file()).unwrap();
    let third = loaded(&dir, Policy::WTinyLfu, 100, EAGER);
    assert_eq!(third.len(), 99);
    assert_eq!((third.get(&6), third.get(&7)), (Some("six".into()), None));
    assert_eq!(third.get(&99), Some(value(99)));
}

#[test]
fn removal_racing_with_lookups_wins() {
    let dir = Dir::new();
    let n = 2000;
    filled(Policy::WTinyLfu, n).save(dir.file()).unwrap();
    for round in 0..20 {
        let new = loaded(&dir, Policy::WTinyLfu, 10_000, LAZY);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..n).for_each(|key| _ = new.get(&key)));
            scope.spawn(|| {
                if round % 2 == 0 {
                    new.warm();
                } else {
                    (0..n).for_each(|key| _ = new.get(&key));
                }
            });
            for key in 0..n {
                if key % 2 == 0 {
                    new.remove(&key);
                    assert_eq!(new.get(&key), None);
                } else {
                    new.insert(key, "new".into());
                    assert_eq!(new.get(&key).as_deref(), Some("new"));
                }
            }
        });
        for key in 0..n {
            let expected = (key % 2 == 1).then_some("new");
            assert_eq!(new.get(&key).as_deref(), expected);
        }
        new.run_pending();
        new.validate();
    }
}

#[test]
fn save_beside_changes_is_consistent() {
    let dir = Dir::new();
    let cache = filled(Policy::WTinyLfu, 5000);
    std::thread::scope(|scope| {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for thread in 0..2 {
            let (stop, cache) = (stop.clone(), &cache);
            scope.spawn(move || {
                let mut key = thread;
                while !stop.load(Ordering::Relaxed) {
                    key = (key * 7 + 3) % 8000;
                    cache.insert(key, value(key));
                    cache.remove(&(key / 2));
                }
            });
        }
        for _ in 0..20 {
            cache.save(dir.file()).unwrap();
            let new = loaded(&dir, Policy::WTinyLfu, 8000, EAGER);
            for (key, found) in new.iter() {
                assert_eq!(found, value(key));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> = fs::read_dir(&dir.0).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn save_reports_its_progress() {
    let dir = Dir::new();
    let cache = filled(Policy::WTinyLfu, 20_000);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let watched = seen.clone();
    let options =
        SaveOptions::new().progress(move |progress| watched.lock().unwrap().push((progress.done, progress.total)));
    cache.save_with(dir.file(), &options).unwrap();
    let seen = seen.lock().unwrap();
    let total = cache.len() as u64;
    assert!(seen.len() > 2 && seen.is_sorted());
    assert_eq!(seen.last(), Some(&(total, total)));
}

/// Loads a file that must be rejected, and returns the error; the cache stays empty and works.
fn refused(dir: &Dir, eager: bool) -> SnapshotError {
    let cache = of(Policy::WTinyLfu, 100);
    let options = LoadOptions::new().eager(eager);
    let error = cache.load_with(dir.file(), &options).unwrap_err();
    assert!(!error.to_string().is_empty());
    assert!(cache.is_empty() && cache.get(&1).is_none());
    cache.insert(1, "one".into());
    assert_eq!(cache.get(&1).as_deref(), Some("one"));
    error
}

#[test]
fn invalid_files_are_rejected() {
    let dir = Dir::new();
    assert!(matches!(
        refused(&dir, LAZY),
        SnapshotError::Io { operation: "open", .. }
    ));
    filled(Policy::WTinyLfu, 100).save(dir.file()).unwrap();
    let whole = fs::read(dir.file()).unwrap();
    let refused_bytes = |bytes: &[u8]| {
        fs::write(dir.file(), bytes).unwrap();
        refused(&dir, LAZY)
    };
    let changed = |words: &[(usize, u64)]| {
        let mut file = whole.clone();
        patch(&mut file, words);
        refused_bytes(&file)
    };
    assert!(matches!(refused_bytes(b""), SnapshotError::Truncated { found: 0, .. }));
    assert!(matches!(refused_bytes(b"hello"), SnapshotError::NotASnapshot));
    assert!(matches!(refused_bytes(&[b'x'; 5000]), SnapshotError::NotASnapshot));
    for length in [1, 8, 12, 127, 128, 129, whole.len() - 1] {
        assert!(
            matches!(refused_bytes(&whole[..length]), SnapshotError::Truncated { .. }),
            "{length}"
        );
    }
    assert!(matches!(
        refused_bytes(&[&whole[..], b"x"].concat()),
        SnapshotError::Corrupt { .. }
    ));
    let order = 0x0a0b_0c0du64 << 32;
    assert!(matches!(
        changed(&[(1, 2 | order)]),
        SnapshotError::Version { found: 2, .. }
    ));
    assert!(matches!(
        changed(&[(1, 0x0d0c_0b0a << 32 | 1 << 24)]),
        SnapshotError::Endianness
    ));
    assert!(matches!(
        changed(&[(3, 5)]),
        SnapshotError::Schema { found: 5, expected: 0 }
    ));
    // Wrong lengths.
    for word in (5..=14).filter(|word| *word != 7) {
        for lie in [1, 8, 1 << 32, u64::MAX, u64::MAX - 7] {
            let error = changed(&[(word, lie)]);
            assert!(
                matches!(error, SnapshotError::Corrupt { .. } | SnapshotError::Truncated { .. }),
                "{word} {error}"
            );
        }
    }
    // Other types of key or value.
    fs::write(dir.file(), &whole).unwrap();
    let strings: Cache<String, String> = Cache::new(10);
    assert!(matches!(
        strings.load(dir.file()),
        Err(SnapshotError::Incompatible { .. })
    ));
    let numbers: Cache<u64, u32> = Cache::new(10);
    assert!(matches!(
        numbers.load(dir.file()),
        Err(SnapshotError::Incompatible { .. })
    ));
}

#[test]
fn corrupt_records_are_misses() {
    let dir = Dir::new();
    let cache = filled(Policy::WTinyLfu, 100);
    cache.save(dir.file()).unwrap();
    let mut file = fs::read(dir.file()).unwrap();
    let at = file.windows(8).position(|bytes| bytes == b"value 42").unwrap();
    file[at] ^= 1;
    fs::write(dir.file(), &file).unwrap();
    assert!(matches!(refused(&dir, EAGER), SnapshotError::Corrupt { .. }));
    let new = loaded(&dir, Policy::WTinyLfu, 100, LAZY);
    for key in 0..100 {
        let expected = cache.get(&key).filter(|_| key != 42);
        assert_eq!(new.get(&key), expected);
    }
    let new = loaded(&dir, Policy::WTinyLfu, 100, LAZY);
    let warmed = new.warm();
    assert_eq!((warmed.entries, warmed.corrupt), (99, 1));
}

#[test]
fn schema_mismatch_is_rejected() {
    let dir = Dir::new();
    let cache = filled(Policy::WTinyLfu, 10);
    cache.save_with(dir.file(), &SaveOptions::new().schema(9)).unwrap();
    assert!(matches!(
        refused(&dir, LAZY),
        SnapshotError::Schema { found: 9, expected: 0 }
    ));
    cache.load_with(dir.file(), &LoadOptions::new().schema(9)).unwrap();
}

#[test]
fn path_that_is_no_file_is_rejected() {
    let dir = Dir::new();
    fs::create_dir(dir.file()).unwrap();
    assert!(matches!(refused(&dir, LAZY), SnapshotError::NotAFile { .. }));
    let cache = filled(Policy::WTinyLfu, 10);
    assert!(matches!(cache.save(dir.file()), Err(SnapshotError::NotAFile { .. })));
    assert!(matches!(cache.save("/"), Err(SnapshotError::NotAFile { .. })));
    assert!(matches!(
        cache.save(dir.0.join("none/x")),
        Err(SnapshotError::Io { .. })
    ));
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1, "temporaries are removed");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        fs::remove_dir(dir.file()).unwrap();
        let path = std::ffi::CString::new(dir.file().as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that ends with 0.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        assert!(matches!(refused(&dir, LAZY), SnapshotError::NotAFile { .. }));
    }
}

#[test]
fn failed_save_keeps_the_previous_file() {
    let dir = Dir::new();
    let cache = filled(Policy::WTinyLfu, 20_000);
    cache.save(dir.file()).unwrap();
    let before = fs::read(dir.file()).unwrap();
    let options = SaveOptions::new().progress(|_| panic!("given up"));
    let save = std::panic::AssertUnwindSafe(|| cache.save_with(dir.file(), &options));
    assert!(std::panic::catch_unwind(save).is_err());
    assert!(fs::read(dir.file()).unwrap() == before);
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
}

/// Runs in a process of its own, which may only write small files.
#[test]
#[cfg(unix)]
fn full_disk_keeps_the_previous_file() {
    const CHILD: &str = "HOTSET_TEST_WITH_SMALL_FILES";
    if std::env::var_os(CHILD).is_none() {
        let limited = "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact full_disk_keeps_the_previous_file";
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(limited).arg(std::env::current_exe().unwrap());
        // Through pipes: the limit holds for the parent's log, too.
        let output = shell.env(CHILD, "1").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let dir = Dir::new();
    filled(Policy::WTinyLfu, 100).save(dir.file()).unwrap();
    let before = fs::read(dir.file()).unwrap();
    let error = filled(Policy::WTinyLfu, 20_000).save(dir.file()).unwrap_err();
    assert!(matches!(error, SnapshotError::Io { operation: "write", .. }), "{error}");
    assert!(fs::read(dir.file()).unwrap() == before);
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
}
