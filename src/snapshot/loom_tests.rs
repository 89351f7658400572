//! How entries come in from a snapshot, under loom: their bits, the list of those on their way, and what ends the snapshot. Real
//! files, whose entries go into a word per key in the map's place, which is claimed, killed and shown as a slot of that is.

use super::file::SnapshotFile;
use super::lazy::{ClockPair, LazySnapshot, SnapshotSlot};
use super::{PerTypeCodec, SaveOptions};
use crate::Cache;
use crate::prim::sync::{Arc, AtomicU8, Ordering};
use loom::thread;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

/// The keys in the file, which stand for their hashes, too.
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
        // (Loom's atomics live in models only.)
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
    /// How often each key was taken to bring it in.
    taken: [Count; 2],
}

impl Case {
    fn word(&self, key: u64) -> u8 {
        self.map[key as usize].load(Ordering::Relaxed)
    }

    /// As `Inner::restore_entry`.
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
        self.taken[key as usize].fetch_add(1, SeqCst);
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

    /// As `Cache::remove`: kills what is on its way, if the map shows any.
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

    /// As `Cache::insert`.
    fn insert(&self, key: u64) {
        self.snapshot_slot.invalidate(&key);
        self.map[key as usize].swap(INSERTED, Ordering::AcqRel);
    }

    /// As `Cache::clear`.
    fn clear(&self) {
        self.snapshot_slot.close(|key| self.remove_from_map(key));
        let visible = KEYS.into_iter().filter(|key| self.word(*key) == VISIBLE);
        visible.for_each(|key| self.remove_from_map(key));
    }
}

/// Opens the file, runs all `threads` at once, and then `after`.
fn model<const N: usize>(name: &str, threads: [fn(&Case); N], after: fn(&Case)) {
    let file = File::new(name);
    loom::model(move || {
        let case = std::sync::Arc::new(Case {
            snapshot_slot: SnapshotSlot::new(),
            map: [AtomicU8::new(ABSENT), AtomicU8::new(ABSENT)],
            taken: [Count::new(0), Count::new(0)],
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
            "what is used up has ended"
        );
        let taken = case.taken.each_ref().map(|taken| taken.load(SeqCst));
        assert!(
            taken.iter().all(|taken| *taken <= 1),
            "an entry is taken once: {taken:?}"
        );
        assert!(KEYS.iter().all(|key| case.word(*key) != LOADING));
    });
}

fn first(case: &Case) {
    case.restore_entry(0);
}

#[test]
fn loom_snapshot_two_take_an_entry() {
    model("two", [first, first], |case| {
        assert!(case.snapshot_slot.is_some(), "the other entry is left");
        assert_eq!([case.word(0), case.word(1)], [VISIBLE, ABSENT]);
    });
}

#[test]
fn loom_snapshot_the_last_entry_ends_it() {
    // Who sees that there is no snapshot finds in the map what came in.
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
fn loom_snapshot_removed_on_the_way() {
    model("removed", [|case| case.remove(0), first], |case| {
        first(case);
        assert_eq!(case.word(0), ABSENT);
    });
}

#[test]
fn loom_snapshot_inserted_on_the_way() {
    model("inserted", [|case| case.insert(0), first, first], |case| {
        first(case);
        assert_eq!(case.word(0), INSERTED);
    });
}

#[test]
fn loom_snapshot_the_last_two_are_removed_and_taken() {
    let remove = |case: &Case| case.remove(1);
    model("both", [remove, first], |case| {
        assert!(!case.snapshot_slot.is_some());
        assert_eq!([case.word(0), case.word(1)], [VISIBLE, ABSENT]);
    });
}

#[test]
fn loom_snapshot_cleared_on_the_way() {
    model("cleared", [Case::clear, first], |case| {
        KEYS.iter().for_each(|key| case.restore_entry(*key));
        assert_eq!([case.word(0), case.word(1)], [ABSENT; 2]);
    });
}
