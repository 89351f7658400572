//! The table's protocol under loom: calls of a few threads on one or two buckets, in every order
//! that the bound allows.
//!
//! Entries outlive each model, so reclamation is not part of it (`epoch` has models of its own).
//! Keys are in cells of loom, which fail the model if an entry is read without being ordered after
//! its writing. At the end of every execution, the entries that were inserted and not removed are
//! in the map, each key is in it once, and no slot or tag is lost.
//!
//! ARCHITECTURE.md lists the parts of the protocol that were removed by hand to show that the
//! models fail.

use super::*;
use crate::prim::sync::{AtomicU8 as LoomU8, fence};
use crate::reclaim::pin;
use loom::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// A key is its hash. These keys differ in parts of it: home bucket (of two), fingerprint, tag, or
/// in bits that the map ignores.
type Key = u64;
const A: Key = 0x0100_0001_0000_0101;
const SAME_HASH: Key = A | 1 << 24;
const SAME_TAG: Key = A + 0x200;
const B: Key = 0x0200_0002_0000_0202;
const HIGH_HOME: Key = 0x8000_0003_0000_0303;
/// Returns keys that only occupy slots.
const fn filler(n: u64) -> Key {
    0x0300_0004_0000_0404 + (n << 32) + (n << 8)
}

#[repr(C)]
struct Entry {
    header: Header,
    key: UnsafeCell<Key>,
    inserted: Count,
    removed: Count,
}

struct Case {
    map: Map,
    entries: Mutex<Vec<Box<Entry>>>,
    new: Count,
    replaced: Count,
    killed: Count,
    flag: LoomU8,
}

// SAFETY: `key` is written before the entry is shared; that this is so is among what loom checks.
unsafe impl Sync for Case {}
// SAFETY: as above.
unsafe impl Send for Case {}

impl Case {
    fn make(&self, key: Key) -> NonNull<Header> {
        let header = Header::new(key, 0, false);
        let entry = Box::new(Entry {
            header,
            key: UnsafeCell::new(0),
            inserted: Count::new(0),
            removed: Count::new(0),
        });
        // By this thread, so that readers must be ordered after it.
        // SAFETY: not shared yet.
        entry.key.with_mut(|at| unsafe { *at = key });
        let pointer = NonNull::from(&*entry).cast();
        self.entries.lock().unwrap().push(entry);
        pointer
    }

    fn entry(&self, header: NonNull<Header>) -> &Entry {
        // SAFETY: all were made by `make`, and outlive the threads.
        unsafe { header.cast::<Entry>().as_ref() }
    }

    fn is(&self, header: NonNull<Header>, key: Key) -> bool {
        // SAFETY: no thread writes a shared entry.
        self.entry(header).key.with(|at| unsafe { *at }) == key
    }

    fn count_removed(&self, header: NonNull<Header>) {
        assert_eq!(
            self.entry(header).removed.fetch_add(1, SeqCst),
            0,
            "an entry is removed once"
        );
    }

    fn insert_as(&self, key: Key, mode: Mode, invalidated: Option<impl FnMut() -> bool>) -> Inserted {
        let entry = self.make(key);
        let done = self
            .map
            .insert(key, entry, |other| self.is(other, key), mode, invalidated, &pin());
        match done {
            Inserted::New => self.new.fetch_add(1, SeqCst),
            Inserted::Replaced(old) => {
                self.count_removed(old);
                self.replaced.fetch_add(1, SeqCst)
            }
            Inserted::Killed => return self.count_killed(),
            Inserted::Present(_) | Inserted::Full => return done,
        };
        self.entry(entry).inserted.fetch_add(1, SeqCst);
        done
    }

    fn count_killed(&self) -> Inserted {
        self.killed.fetch_add(1, SeqCst);
        Inserted::Killed
    }

    fn insert(&self, key: Key) -> Inserted {
        self.insert_as(key, Mode::Upsert, UNCONDITIONAL)
    }

    /// Inserts as a load does. An invalidation sets `flag`.
    fn load(&self, key: Key) -> Inserted {
        let invalidated = || {
            fence(Ordering::SeqCst);
            self.flag.load(Ordering::Relaxed) == 1
        };
        self.insert_as(key, Mode::IfAbsent, Some(invalidated))
    }

    fn remove(&self, key: Key) -> bool {
        self.remove_as(key, false)
    }

    fn remove_as(&self, key: Key, kill: bool) -> bool {
        let old = self
            .map
            .remove(key, |other| self.is(other, key), |_| true, kill, &pin());
        if let Some(old) = old {
            self.count_removed(old);
        }
        old.is_some()
    }

    /// Removes as `Cache::remove` does.
    fn invalidate(&self, key: Key) -> bool {
        self.flag.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.remove_as(key, true)
    }

    fn get(&self, key: Key) -> Option<NonNull<Header>> {
        let found = self.map.get(key, |other| self.is(other, key), &pin());
        if let Some(found) = found {
            assert_eq!(self.entry(found).header.hash(), (key >> 32) as u32);
        }
        found
    }

    fn fill(&self, count: u64) {
        (0..count).for_each(|n| assert_eq!(self.insert(filler(n)), Inserted::New));
    }

    /// Leaves the first slot and `free - 1` others free, and then inserts `last` into the first.
    fn fill_but(&self, free: u64, last: Key) {
        self.fill(SLOTS as u64 + 1 - free);
        assert!(self.remove(filler(0)));
        assert_eq!(self.insert(last), Inserted::New);
    }

    /// Moves all home buckets to a table of two buckets, as the holder of the maintenance lock
    /// does.
    fn grow(&self) {
        self.resize(2);
    }

    /// Moves all home buckets to a table of `buckets`.
    fn resize(&self, buckets: usize) {
        self.map.prepare(buckets, &pin());
        self.map
            .install(self.map.take_prepared(&pin()).unwrap().unwrap(), &pin());
        let mut cursor = 0;
        let mut old = None;
        while old.is_none() {
            old = self
                .map
                .resize_step(&mut cursor, 1, |_| panic!("there is room"), &pin());
        }
        // Not freed while readers run: reclamation has models of its own.
        OLD.with(|tables| tables.borrow_mut().extend(old));
    }

    /// Checks that the map and the counters agree. No other thread runs.
    fn check(&self) {
        let entries = self.entries.lock().unwrap();
        let mut present = Vec::new();
        for entry in entries.iter() {
            let (inserted, removed) = (entry.inserted.load(SeqCst), entry.removed.load(SeqCst));
            assert!(
                removed <= inserted && inserted <= 1,
                "an entry is removed only if it was inserted: {inserted} {removed}"
            );
            // SAFETY: all threads are done.
            let key = entry.key.with(|at| unsafe { *at });
            if inserted > removed {
                assert!(!present.contains(&key), "a key is in the map once");
                assert_eq!(
                    self.get(key),
                    Some(NonNull::from(&**entry).cast()),
                    "what was inserted and not removed is there"
                );
                present.push(key);
            }
        }
        // SAFETY: as above.
        let keys = entries.iter().map(|entry| entry.key.with(|at| unsafe { *at }));
        keys.filter(|key| !present.contains(key))
            .for_each(|key| assert_eq!(self.get(key), None, "a removed key is absent"));
        let mut slots = 0;
        for bucket in self.map.table(&pin()).buckets.iter() {
            let tags = bucket.tags.load(Ordering::Relaxed);
            for (slot, at) in bucket.slots.iter().enumerate() {
                let word = at.load(Ordering::Relaxed);
                assert_eq!(tags >> (8 * slot) & 0xff != 0, word != 0, "a tag for every slot");
                if word != 0 {
                    assert_eq!(
                        word & slot::STATE,
                        slot::VISIBLE,
                        "no slot is left pending, killed or frozen"
                    );
                    slots += 1;
                }
            }
        }
        assert_eq!(slots, present.len(), "no slot is lost");
    }
}

thread_local! {
    /// Tables that were replaced. All threads of loom run on one thread of std.
    static OLD: std::cell::RefCell<Vec<OwnedTable>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Runs `before`, then all `threads` concurrently (the first on the main thread), then `after` and
/// [`Case::check`].
fn model<const N: usize>(buckets: usize, before: fn(&Case), threads: [fn(&Case); N], after: fn(&Case)) {
    loom::model(move || {
        let case = Arc::new(Case {
            map: Map::with_buckets(buckets).unwrap(),
            entries: Mutex::new(Vec::new()),
            new: Count::new(0),
            replaced: Count::new(0),
            killed: Count::new(0),
            flag: LoomU8::new(0),
        });
        before(&case);
        [&case.new, &case.replaced]
            .into_iter()
            .for_each(|count| count.store(0, SeqCst));
        let spawn = |run: fn(&Case)| {
            let case = case.clone();
            loom::thread::spawn(move || run(&case))
        };
        let others: Vec<_> = threads[1..].iter().map(|run| spawn(*run)).collect();
        threads[0](&case);
        others.into_iter().for_each(|thread| thread.join().unwrap());
        after(&case);
        case.check();
        OLD.with(|tables| tables.borrow_mut().clear());
    });
}

fn insert_a(case: &Case) {
    case.insert(A);
}

fn remove_a(case: &Case) {
    case.remove(A);
}

fn get_a(case: &Case) {
    case.get(A);
}

fn nothing(_: &Case) {}

fn one_new(case: &Case) {
    assert_eq!(case.new.load(SeqCst), 1);
}

#[test]
fn loom_map_two_inserts_of_a_key() {
    model(1, nothing, [insert_a, insert_a, get_a], |case| {
        one_new(case);
        assert_eq!(case.replaced.load(SeqCst), 1);
    });
}

#[test]
fn loom_map_insert_remove_insert() {
    model(1, nothing, [insert_a, remove_a, insert_a], nothing);
}

#[test]
fn loom_map_replace_and_remove() {
    model(1, |case| insert_a(case), [insert_a, remove_a, get_a], nothing);
}

#[test]
fn loom_map_two_removes_and_replace() {
    model(1, |case| insert_a(case), [remove_a, remove_a, insert_a], nothing);
}

#[test]
fn loom_map_replace_and_remove_exact() {
    // The replacement or the removal succeeds, or both in that order, each on its own entry.
    fn exact(case: &Case) -> NonNull<Header> {
        NonNull::from(&**case.entries.lock().unwrap().first().unwrap()).cast()
    }
    let replace = |case: &Case| {
        let new = case.make(A);
        if case.map.replace_exact(exact(case), new, &pin()) {
            case.count_removed(exact(case));
            case.entry(new).inserted.fetch_add(1, SeqCst);
        }
    };
    let remove = |case: &Case| {
        if case.map.remove_exact(exact(case), &pin()) {
            case.count_removed(exact(case));
        }
    };
    model(
        1,
        |case| insert_a(case),
        [replace, remove, insert_a],
        |case| {
            assert_eq!(case.entry(exact(case)).removed.load(SeqCst), 1);
        },
    );
}

#[test]
fn loom_map_two_keys_of_a_home_bucket() {
    // A collision of the whole hash, beside a key that is present throughout.
    let insert = |case: &Case| assert_eq!(case.insert(SAME_HASH), Inserted::New);
    let get = |case: &Case| {
        assert!(case.get(SAME_TAG).is_some());
        case.get(SAME_HASH);
    };
    model(
        1,
        |case| _ = case.insert(SAME_TAG),
        [insert_a, insert, get],
        |case| {
            assert_eq!(case.new.load(SeqCst), 2);
        },
    );
}

#[test]
fn loom_map_freed_slot_is_reused() {
    // Two free slots once B, which the control word names, has left the first.
    let remove_insert = |case: &Case| {
        assert!(case.remove(B));
        case.insert(A);
    };
    model(1, |case| case.fill_but(2, B), [remove_insert, insert_a], one_new);
}

#[test]
#[ignore = "minutes: `make loom` runs it"]
fn loom_map_freed_slot_is_reused_with_help() {
    let remove_insert = |case: &Case| {
        assert!(case.remove(B));
        case.insert(A);
    };
    let help = |case: &Case| assert!(!case.remove(SAME_TAG));
    model(1, |case| case.fill_but(2, B), [remove_insert, insert_a, help], one_new);
}

#[test]
fn loom_map_only_free_slot_is_claimed_once() {
    // B leaves the only slot that can be free; either insertion may find none.
    let remove = |case: &Case| assert!(case.remove(B));
    model(
        1,
        |case| case.fill_but(1, B),
        [remove, insert_a, insert_a],
        |case| {
            assert!(case.new.load(SeqCst) <= 1);
        },
    );
}

#[test]
fn loom_map_abandoned_claim_is_not_published() {
    // The claim is in a slot that a helper may still take for the last insertion's.
    let give_up = |case: &Case| {
        assert!(case.remove(B));
        case.insert_as(A, Mode::IfAbsent, Some(|| true));
    };
    model(
        1,
        |case| case.fill_but(2, B),
        [give_up, insert_a],
        |case| assert!(case.get(A).is_some()),
    );
}

#[test]
fn loom_map_insert_beyond_home_bucket() {
    // The home bucket is full: the key lies one bucket behind it.
    let get = |case: &Case| {
        assert!(case.get(filler(5)).is_some());
        case.get(A);
    };
    model(2, |case| case.fill(6), [insert_a, insert_a, get], one_new);
}

#[test]
fn loom_map_insert_beyond_home_bucket_and_back() {
    // A slot of the home bucket becomes free: the key is not inserted into both buckets.
    let remove_insert = |case: &Case| {
        assert!(case.remove(filler(1)));
        case.insert(A);
    };
    model(2, |case| case.fill(6), [remove_insert, insert_a], one_new);
}

#[test]
fn loom_map_kill_of_pending_load() {
    let load = |case: &Case| _ = case.load(A);
    let invalidate = |case: &Case| _ = case.invalidate(A);
    model(1, nothing, [load, invalidate], |case| assert_eq!(case.get(A), None));
}

#[test]
fn loom_map_kill_among_other_inserts() {
    let load = |case: &Case| _ = case.load(A);
    let invalidate = |case: &Case| _ = case.invalidate(A);
    let insert = |case: &Case| assert_eq!(case.insert(SAME_HASH), Inserted::New);
    model(1, nothing, [load, invalidate, insert], |case| {
        assert_eq!(case.get(A), None)
    });
}

#[test]
fn loom_map_kill_spares_plain_inserts() {
    let insert = |case: &Case| assert_ne!(case.insert(A), Inserted::Killed);
    let invalidate = |case: &Case| _ = case.invalidate(A);
    let load = |case: &Case| _ = case.load(A);
    model(1, nothing, [insert, invalidate], nothing);
    model(1, nothing, [load, invalidate, insert], nothing);
}

#[test]
fn loom_map_kill_while_growing() {
    let load = |case: &Case| _ = case.load(A);
    let grow_invalidate = |case: &Case| {
        case.grow();
        case.invalidate(A);
    };
    model(1, nothing, [grow_invalidate, load], |case| {
        assert_eq!(case.get(A), None)
    });
    let grow_load = |case: &Case| {
        case.grow();
        case.load(A);
    };
    let invalidate = |case: &Case| _ = case.invalidate(A);
    model(1, nothing, [grow_load, invalidate], |case| {
        assert_eq!(case.get(A), None)
    });
}

fn insert_two(case: &Case) {
    case.insert(A);
    case.insert(HIGH_HOME);
}

#[test]
fn loom_grow_and_get() {
    let get = |case: &Case| {
        assert!(case.get(A).is_some(), "a key that is present is found");
        assert!(case.get(HIGH_HOME).is_some(), "a key that is present is found");
    };
    model(1, insert_two, [|case| case.grow(), get, get], nothing);
}

#[test]
fn loom_grow_and_insert() {
    model(1, insert_two, [|case| case.grow(), |case| _ = case.insert(B)], |case| {
        assert!(case.get(B).is_some())
    });
}

#[test]
fn loom_grow_and_two_inserts() {
    // Not three threads: loom does not finish with two threads that wait for a third.
    let grow_insert = |case: &Case| {
        case.grow();
        case.insert(A);
    };
    model(1, nothing, [grow_insert, insert_a], one_new);
}

#[test]
fn loom_grow_and_replace() {
    let get = |case: &Case| assert!(case.get(A).is_some(), "a key that is present is found");
    model(1, insert_two, [|case| case.grow(), insert_a, get], |case| {
        assert_eq!(case.replaced.load(SeqCst), 1)
    });
}

#[test]
fn loom_grow_and_remove() {
    model(
        1,
        insert_two,
        [|case| case.grow(), |case| assert!(case.remove(A)), get_a],
        |case| assert_eq!(case.get(A), None),
    );
}

#[test]
fn loom_grow_and_remove_and_insert() {
    let remove_insert = |case: &Case| {
        case.remove(A);
        case.insert(A);
    };
    model(1, insert_two, [|case| case.grow(), remove_insert], |case| {
        assert!(case.get(A).is_some())
    });
}

#[test]
fn loom_shrink_and_get() {
    // Two home buckets become one.
    let get = |case: &Case| {
        assert!(case.get(A).is_some(), "a key that is present is found");
        assert!(case.get(HIGH_HOME).is_some(), "a key that is present is found");
    };
    model(2, insert_two, [|case| case.resize(1), get], nothing);
}

#[test]
fn loom_shrink_and_insert() {
    // Into the home bucket that moves last. Its keys will lie in the bucket of the one that moved
    // first.
    let insert = |case: &Case| _ = case.insert(HIGH_HOME);
    model(
        2,
        |case| insert_a(case),
        [|case| case.resize(1), insert],
        |case| assert!(case.get(HIGH_HOME).is_some() && case.get(A).is_some()),
    );
}

#[test]
fn loom_shrink_and_replace() {
    let get = |case: &Case| assert!(case.get(A).is_some(), "a key that is present is found");
    model(2, insert_two, [|case| case.resize(1), insert_a, get], |case| {
        assert_eq!(case.replaced.load(SeqCst), 1)
    });
}

#[test]
fn loom_shrink_and_remove() {
    let remove = |case: &Case| assert!(case.remove(HIGH_HOME));
    model(2, insert_two, [|case| case.resize(1), remove], |case| {
        assert!(case.get(HIGH_HOME).is_none() && case.get(A).is_some())
    });
}

#[test]
fn loom_shrink_beyond_home_bucket() {
    // The home bucket is full, and its seventh key lies in the other bucket. That one moves later,
    // and has the same index then.
    let remove = |case: &Case| assert!(case.remove(filler(6)));
    let insert = |case: &Case| _ = case.insert(HIGH_HOME);
    model(2, |case| case.fill(7), [|case| case.resize(2), remove, insert], nothing);
}

#[test]
fn loom_two_prepared_tables() {
    loom::model(|| {
        let map = Arc::new(Map::with_buckets(1).unwrap());
        let prepare = |map: &Map, buckets| map.prepare(buckets, &pin());
        let other = loom::thread::spawn({
            let map = map.clone();
            move || prepare(&map, 2)
        });
        let taken = map.take_prepared(&pin()).map(|table| table.unwrap().buckets());
        assert!(taken.is_none_or(|buckets| buckets == 2));
        prepare(&map, 3);
        other.join().unwrap();
        let last = map.take_prepared(&pin()).map(|table| table.unwrap().buckets());
        assert!(matches!(last, Some(2 | 3)), "one of the two is prepared: {last:?}");
        assert!(map.take_prepared(&pin()).is_none());
    });
}

#[test]
fn loom_two_discarded_tables() {
    loom::model(|| {
        let map = Arc::new(Map::with_buckets(1).unwrap());
        let table = |map: &Map, buckets| {
            map.prepare(buckets, &pin());
            map.take_prepared(&pin())
        };
        let (one, two) = (table(&map, 1).unwrap().unwrap(), table(&map, 2).unwrap().unwrap());
        let other = loom::thread::spawn({
            let map = map.clone();
            move || {
                map.discard(two);
                map.free_discarded_slice();
            }
        });
        map.discard(one);
        map.free_discarded_slice();
        other.join().unwrap();
        // Each table is freed once, or still in the list: loom fails the model if one is leaked or
        // freed twice.
        map.free_discarded_slice();
        map.free_discarded_slice();
        assert!(!map.has_discarded());
    });
}
