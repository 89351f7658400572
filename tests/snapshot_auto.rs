//! Caches that load and save their snapshot by themselves.

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;

use common::Folder;
use hotset::snapshot::{AutoSnapshot, Codec, LoadOptions, SnapshotError, SnapshotEvent};
use hotset::{BuildError, Builder, Cache};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(1);

/// A setting, and what its cache will tell. Once nothing is left of the cache and its thread, nothing more comes.
fn keep(path: &Path) -> (AutoSnapshot, Receiver<SnapshotEvent>) {
    let (tell, told) = channel();
    (AutoSnapshot::new(path, move |kept| _ = tell.send(kept)), told)
}

fn builder<K, V>() -> Builder<K, V> {
    Cache::builder().max_entries(1_000)
}

fn saved_at(path: &Path) -> Cache<u64, String> {
    let cache = Cache::new(1_000);
    cache.load_with(path, &LoadOptions::new().eager(true)).unwrap();
    cache
}

#[test]
fn from_one_life_to_the_next() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    for life in 0..3 {
        let (keep, told) = keep(&path);
        let cache = builder().snapshot(keep.load_at_build().save_on_drop()).build().unwrap();
        match told.recv().unwrap() {
            SnapshotEvent::NoFile => assert_eq!(life, 0),
            SnapshotEvent::Loaded(loaded) => assert_eq!(loaded.entries, life),
            other => panic!("{other:?}"),
        }
        for before in 0..life {
            assert_eq!(cache.get(&before), Some(before.to_string()));
        }
        let other = cache.clone();
        cache.insert(life, life.to_string());
        drop(cache);
        assert!(told.try_recv().is_err(), "there is another handle");
        drop(other);
        assert!(matches!(told.recv(), Ok(SnapshotEvent::Saved(saved)) if saved.entries == life + 1));
        assert!(told.recv().is_err());
    }
}

#[test]
fn a_damaged_or_foreign_file_is_told() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    type Is = fn(&SnapshotError) -> bool;
    let whole = {
        let cache: Cache<u64, String> = Cache::new(10);
        cache.insert(1u64, "one".to_owned());
        cache.save(&path).unwrap();
        fs::read(&path).unwrap()
    };
    let mut damaged = whole.clone();
    damaged[70] ^= 1;
    let cases: [(&[u8], u64, Is); 3] = [
        (b"", 0, |error| matches!(error, SnapshotError::Truncated { .. })),
        (&damaged, 0, |error| matches!(error, SnapshotError::Corrupt { .. })),
        (&whole, 7, |error| matches!(error, SnapshotError::Schema { .. })),
    ];
    for (file, schema, is) in cases {
        _ = fs::remove_file(&path);
        fs::write(&path, file).unwrap();
        let (keep, told) = keep(&path);
        let keep = keep.schema(schema).load_at_build().save_on_drop();
        let cache = builder().snapshot(keep).build().unwrap();
        let kept = told.recv().unwrap();
        assert!(kept.error().is_some_and(is), "{kept:?}");
        assert!(matches!(kept, SnapshotEvent::NotLoaded(_)));
        assert!(cache.is_empty());
        cache.insert(2u64, "two".to_owned());
        assert_eq!(cache.get(&2), Some("two".to_owned()), "it works");
        drop(cache);
        assert!(
            matches!(told.recv(), Ok(SnapshotEvent::Saved(_))),
            "it takes the file's place"
        );
        let cache: Cache<u64, String> = Cache::new(10);
        cache.load_with(&path, &LoadOptions::new().schema(schema)).unwrap();
        assert_eq!(cache.get(&2), Some("two".to_owned()));
    }
}

#[test]
fn what_cannot_be_saved_is_told() {
    let folder = Folder::new();
    let (keep, told) = keep(&folder.join("no folder").join("file"));
    let cache = builder()
        .snapshot(keep.save_every(SOON).save_on_drop())
        .build()
        .unwrap();
    cache.insert(1, 1);
    for _ in 0..3 {
        let kept = told.recv().unwrap();
        assert!(
            matches!(kept, SnapshotEvent::NotSaved(SnapshotError::Io { .. })),
            "{kept:?}"
        );
    }
    assert_eq!(cache.get(&1), Some(1));
    drop(cache);
    assert!(matches!(told.into_iter().last(), Some(SnapshotEvent::NotSaved(_))));
}

#[test]
fn every_so_often() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let (keep, told) = keep(&path);
    let cache = builder().snapshot(keep.save_every(SOON)).build().unwrap();
    for key in 0..5u64 {
        cache.insert(key, key.to_string());
        while !matches!(told.recv().unwrap(), SnapshotEvent::Saved(saved) if saved.entries == key + 1) {}
        assert_eq!(saved_at(&path).len() as u64, key + 1);
    }
    drop(cache);
    // The thread has ended: it was the last that could tell anything.
    told.into_iter().for_each(|kept| assert!(kept.error().is_none()));
    assert_eq!(folder.names(), ["cache.hotset"]);
}

/// A value whose first saving waits until it is let go on.
#[derive(Clone)]
struct Gate(u8);

static REACHED: OnceLock<()> = OnceLock::new();
static OPENED: OnceLock<()> = OnceLock::new();

impl Codec for Gate {
    fn encode(&self, out: &mut Vec<u8>) {
        _ = REACHED.set(());
        OPENED.wait();
        self.0.encode(out);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        u8::decode(bytes).map(Self)
    }
}

#[test]
fn dropped_while_a_save_goes_on() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let (keep, told) = keep(&path);
    let cache = builder()
        .snapshot(keep.save_every(SOON).save_on_drop())
        .build()
        .unwrap();
    cache.insert(1u64, Gate(1));
    REACHED.wait();
    // The save under way does not know of this one.
    cache.insert(2, Gate(2));
    let dropping = thread::spawn(move || drop(cache));
    assert!(told.try_recv().is_err());
    OPENED.set(()).unwrap();
    dropping.join().unwrap();
    let saved: Vec<_> = told.try_iter().collect();
    assert!(saved.len() >= 2, "the one under way, and the last one: {saved:?}");
    assert!(matches!(saved.last(), Some(SnapshotEvent::Saved(saved)) if saved.entries == 2));
    assert!(told.recv().is_err());
    let cache: Cache<u64, Gate> = Cache::new(10);
    cache.load(&path).unwrap();
    assert_eq!(cache.get(&2).map(|gate| gate.0), Some(2));
}

#[test]
fn dropped_by_a_panic() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let (keep, told) = keep(&path);
    let cache = builder()
        .snapshot(keep.save_every(SOON).save_on_drop())
        .build()
        .unwrap();
    let panic = catch_unwind(AssertUnwindSafe(move || {
        cache.insert(1u64, "one".to_owned());
        panic!("as expected");
    }));
    assert!(panic.is_err());
    assert!(matches!(told.into_iter().last(), Some(SnapshotEvent::Saved(saved)) if saved.entries == 1));
    assert_eq!(saved_at(&path).get(&1), Some("one".to_owned()));
}

#[test]
fn panics_stay_inside() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let (tell, told) = channel();
    let keep = AutoSnapshot::new(&path, move |kept| {
        tell.send(kept).unwrap();
        panic!("as expected");
    });
    let cache = builder()
        .snapshot(keep.save_every(SOON).save_on_drop())
        .build()
        .unwrap();
    cache.insert(1u64, "one".to_owned());
    // The thread survives it, and so does whoever drops the cache.
    (0..3).for_each(|_| assert!(told.recv().unwrap().error().is_none()));
    drop(cache);
    assert_eq!(saved_at(&path).len(), 1);
}

#[test]
fn an_observer_drops_the_last_handle() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let own: Arc<Mutex<Option<Cache<u64, String>>>> = Arc::default();
    let (tell, told) = channel();
    let held = own.clone();
    let keep = AutoSnapshot::new(&path, move |kept| {
        let dropped = held.lock().unwrap().take();
        drop(dropped); // saves once more, and tells that, by a call of this
        _ = tell.send(kept);
    });
    let cache = builder()
        .snapshot(keep.save_every(SOON).save_on_drop())
        .build()
        .unwrap();
    cache.insert(1u64, "one".to_owned());
    *own.lock().unwrap() = Some(cache);
    told.into_iter().for_each(|kept| assert!(kept.error().is_none()));
    assert_eq!(saved_at(&path).len(), 1);
}

#[test]
fn bad_settings() {
    let keep = || AutoSnapshot::new("unused", |_| ());
    let never = Builder::<u64, u64>::snapshot(builder(), keep().save_every(Duration::ZERO));
    assert_eq!(never.build().unwrap_err(), BuildError::ZeroDuration);
    let early = Builder::<u64, u64>::snapshot(builder(), keep());
    let hasher = std::hash::RandomState::new();
    assert_eq!(
        early.hasher(hasher).build().unwrap_err(),
        BuildError::SnapshotBeforeHasher
    );
    // No thread and no file without need.
    let cache = Builder::<u64, u64>::snapshot(builder(), keep()).build().unwrap();
    drop(cache);
    assert!(!Path::new("unused").exists());
}
