//! Loom models of restoring entries from a snapshot: the bits of the entries, the list of those
//! being restored, and the emptying of the slot. The files are real. One word per key stands for
//! its slot of the map, and is claimed, killed and made visible as that is.

use super::file::SnapshotFile;
use super::lazy::{ClockPair, LazySnapshot, SnapshotSlot};
use super::{PerTypeCodec, SaveOptions};
use crate::Cache;
use crate::prim::sync::{Arc, AtomicU8, Ordering};
use loom::thread;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

/// The keys in the file. Each is its own hash.
const KEYS: [u64; 2] = [0, 1];

/// The states of a word.
const ABSENT: u8 = 0;
const LOADING: u8 = 1;
const VISIBLE: u8 = 2;
const INSERTED: u8 = 3;

struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hotset-model-{}-{name}", std::process::id()));
        let saved = path.clone();
        // Loom's atomics exist inside a model only.
        loom::model(move || {
            let cache: Cache<u64, u64> = Cache::new(4);
            KEYS.iter().for_each(|key| cache.insert(*key, *key));
            cache.save_with(&saved, &SaveOptions::new()).unwrap();
        });
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

struct Case {
    snapshot_slot: SnapshotSlot<u64, u64>,
    map: [AtomicU8; 2],
    /// How often each key was claimed.
    claimed: [Count; 2],
}

impl Case {
    fn word(&self, key: u64) -> u8 {
        self.map[key as usize].load(Ordering::Relaxed)
    }

    /// Does what `Inner::restore_entry` does.
    fn restore_entry(&self, key: u64) {
        let Some(snapshot) = self.snapshot_slot.get() else {
            return;
        };
        let at = snapshot.search(&key).expect("it is in the file");
        if snapshot.is_claimed(at) {
            return;
        }
        let Some(_restoring) = self.snapshot_slot.claim(&snapshot, at, key) else {
            return;
        };
        self.claimed[key as usize].fetch_add(1, SeqCst);
        let word = &self.map[key as usize];
        let change = |from, to| {
            word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        if change(ABSENT, LOADING) {
            let state = if snapshot.is_invalidated(at) { ABSENT } else { VISIBLE };
            change(LOADING, state); // unless it was killed
        }
    }

    /// Does what `Cache::remove` does: kills the insertion of the key, if the map shows one.
    fn remove(&self, key: u64) {
        if self.snapshot_slot.invalidate(&key) {
            self.remove_from_map(key);
        }
    }

    fn remove_from_map(&self, key: u64) {
        let word = &self.map[key as usize];
        if word.load(Ordering::Acquire) != ABSENT {
            word.swap(ABSENT, Ordering::AcqRel);
        }
    }

    /// Does what `Cache::insert` does.
    fn insert(&self, key: u64) {
        self.snapshot_slot.invalidate(&key);
        self.map[key as usize].swap(INSERTED, Ordering::AcqRel);
    }

    /// Does what `Cache::clear` does.
    fn clear(&self) {
        self.snapshot_slot.close(|key| self.remove_from_map(key));
        let visible = KEYS.into_iter().filter(|key| self.word(*key) == VISIBLE);
        visible.for_each(|key| self.remove_from_map(key));
    }
}

/// Opens the file, runs all `threads` concurrently, and then `after`.
fn model<const N: usize>(name: &str, threads: [fn(&Case); N], after: fn(&Case)) {
    let file = File::new(name);
    loom::model(move || {
        let case = std::sync::Arc::new(Case {
            snapshot_slot: SnapshotSlot::new(),
            map: [AtomicU8::new(ABSENT), AtomicU8::new(ABSENT)],
            claimed: [Count::new(0), Count::new(0)],
        });
        let now = ClockPair { wall: 0, clock: 0 };
        let mapped = SnapshotFile::map(&file.0, 0).unwrap();
        case.snapshot_slot
            .open(Arc::new(LazySnapshot::new::<PerTypeCodec>(mapped, now)));
        let spawn = |run: fn(&Case)| {
            let case = case.clone();
            thread::spawn(move || run(&case))
        };
        let others: Vec<_> = threads[1..].iter().map(|run| spawn(*run)).collect();
        threads[0](&case);
        others.into_iter().for_each(|other| other.join().unwrap());
        after(&case);
        KEYS.iter().for_each(|key| case.restore_entry(*key));
        assert!(
            !case.snapshot_slot.is_some() && case.snapshot_slot.get().is_none(),
            "a used up snapshot is closed"
        );
        let claimed = case.claimed.each_ref().map(|claimed| claimed.load(SeqCst));
        assert!(
            claimed.iter().all(|claimed| *claimed <= 1),
            "an entry is claimed once: {claimed:?}"
        );
        assert!(KEYS.iter().all(|key| case.word(*key) != LOADING));
    });
}

fn first(case: &Case) {
    case.restore_entry(0);
}

#[test]
fn loom_snapshot_concurrent_restores_insert_once() {
    model("two", [first, first], |case| {
        assert!(case.snapshot_slot.is_some(), "the other entry is left");
        assert_eq!([case.word(0), case.word(1)], [VISIBLE, ABSENT]);
    });
}

#[test]
fn loom_snapshot_last_entry_empties_slot() {
    // A thread that sees an empty slot finds the restored entries in the map.
    let look = |case: &Case| {
        if !case.snapshot_slot.is_some() {
            assert_eq!([case.word(0), case.word(1)], [VISIBLE; 2]);
        }
    };
    model("last", [look, first, |case| case.restore_entry(1)], |case| {
        assert!(!case.snapshot_slot.is_some());
        assert_eq!([case.word(0), case.word(1)], [VISIBLE; 2]);
    });
}

#[test]
fn loom_snapshot_removal_beats_restore() {
    model("removed", [|case| case.remove(0), first], |case| {
        first(case);
        assert_eq!(case.word(0), ABSENT);
    });
}

#[test]
fn loom_snapshot_insertion_beats_restore() {
    model("inserted", [|case| case.insert(0), first, first], |case| {
        first(case);
        assert_eq!(case.word(0), INSERTED);
    });
}

#[test]
fn loom_snapshot_removal_and_restore_empty_slot() {
    let remove = |case: &Case| case.remove(1);
    model("both", [remove, first], |case| {
        assert!(!case.snapshot_slot.is_some());
        assert_eq!([case.word(0), case.word(1)], [VISIBLE, ABSENT]);
    });
}

#[test]
fn loom_snapshot_clear_beats_restore() {
    model("cleared", [Case::clear, first], |case| {
        KEYS.iter().for_each(|key| case.restore_entry(*key));
        assert_eq!([case.word(0), case.word(1)], [ABSENT; 2]);
    });
}
