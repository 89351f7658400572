//! The map by itself, on one thread: what its users cannot observe.

use super::layout::first_hash;
use super::*;
use crate::reclaim::pin;

/// A map, and entries whose upper halves of hashes are their keys.
struct Case {
    map: Map,
    /// Pointers made from boxes. The map has them too, and moving a box would invalidate them.
    entries: Vec<NonNull<Header>>,
}

impl Case {
    fn new(buckets: usize) -> Self {
        Self {
            map: Map::with_buckets(buckets).unwrap(),
            entries: Vec::new(),
        }
    }

    fn insert(&mut self, key: u32) {
        let hash = u64::from(key) << 32;
        let entry = NonNull::from(Box::leak(Box::new(Header::new(hash, 0, false))));
        self.entries.push(entry);
        let done = self
            .map
            .insert(hash, entry, is(key), Mode::IfAbsent, UNCONDITIONAL, &pin());
        assert_eq!(done, Inserted::New);
    }

    fn remove(&mut self, key: u32) {
        let hash = u64::from(key) << 32;
        assert!(self.map.remove(hash, is(key), |_| true, false, &pin()).is_some());
    }

    fn has(&self, key: u32) -> bool {
        self.map.get(u64::from(key) << 32, is(key), &pin()).is_some()
    }

    /// Installs a table of `buckets`, to which the entries move.
    fn install(&self, buckets: usize) {
        self.map.prepare(buckets, &pin());
        let table = self.map.take_prepared(&pin()).unwrap().unwrap();
        self.map.install(table, &pin());
    }

    /// Returns all keys that one walk visits, sorted.
    fn walk(&self) -> Vec<u32> {
        let (guard, mut keys, mut from) = (pin(), Vec::new(), 0);
        while from < 1 << 32 {
            // SAFETY: the entries live as long as the case.
            let visit = |entry: NonNull<Header>| keys.push(unsafe { entry.as_ref() }.hash());
            let next = self.map.walk(from, visit, &guard);
            assert!(next > from);
            from = next;
        }
        keys.sort_unstable();
        keys
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for entry in &self.entries {
            // SAFETY: made from a box in `insert`; the map, which has no readers left, does not
            // touch it any more.
            drop(unsafe { Box::from_raw(entry.as_ptr()) });
        }
    }
}

fn is(key: u32) -> impl Fn(NonNull<Header>) -> bool {
    // SAFETY: the entries live as long as the case.
    move |entry| unsafe { entry.as_ref() }.hash() == key
}

#[test]
fn walk_while_homes_move_visits_each_once() {
    let sizes = [(3, 4), (3, 5), (3, 7), (3, 11), (5, 3), (7, 3), (11, 4), (6, 3), (4, 4)];
    // In order, and with one home bucket before its turn.
    let early = [None, Some(1 << 31), Some(u32::MAX)];
    for ((before, after), early) in sizes.into_iter().flat_map(|sizes| early.map(|early| (sizes, early))) {
        // Keys at the ends of the ranges of all home buckets, of both tables: the ranges of the two
        // overlap.
        let firsts = |buckets| (1..buckets).map(move |home| first_hash(home, buckets) as u32);
        let mut keys: Vec<u32> = firsts(before)
            .chain(firsts(after))
            .flat_map(|first| [first - 1, first])
            .chain([0, u32::MAX])
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(before.min(after) * SLOTS);
        let mut case = Case::new(before);
        keys.iter().for_each(|key| case.insert(*key));
        assert_eq!(case.walk(), keys);
        let has_all = |case: &Case| keys.iter().all(|key| case.has(*key));
        case.install(after);
        let (mut cursor, mut old) = (0, None);
        if let Some(hash) = early {
            let move_early = || case.map.move_home_of(hash, |_| panic!("there is room"), &pin());
            assert!(move_early());
            assert!(!move_early(), "it has moved already");
        }
        while old.is_none() {
            assert!(
                has_all(&case) && case.walk() == keys,
                "{cursor} home buckets of {before} have moved to {after}"
            );
            old = case
                .map
                .resize_step(&mut cursor, 1, |_| panic!("there is room"), &pin());
        }
        assert_eq!(case.map.slots(&pin()), after * SLOTS);
        assert!(has_all(&case) && case.walk() == keys);
    }
}

#[test]
fn shrinking_below_the_entries_evicts_the_rest() {
    let mut case = Case::new(8);
    let keys: Vec<u32> = (0..8 * SLOTS as u32).map(|n| n << 26).collect();
    keys.iter().for_each(|key| case.insert(*key));
    case.install(2);
    let mut evicted = Vec::new();
    let old = case
        .map
        .resize_step(&mut 0, usize::MAX, |entry| evicted.push(entry), &pin());
    assert!(old.is_some());
    assert_eq!(evicted.len(), 6 * SLOTS, "each that found no room is reported");
    // SAFETY: the entries live as long as the case.
    let mut all: Vec<u32> = evicted.iter().map(|entry| unsafe { entry.as_ref() }.hash()).collect();
    all.extend(case.walk());
    all.sort_unstable();
    assert_eq!(all, keys, "and none twice, or both there and evicted");
}

/// An entry whose home bucket has moved lies in the next table: only a removal there makes room for
/// it.
#[test]
fn candidate_for_a_moved_home_is_in_the_next_table() {
    let mut case = Case::new(2);
    (0..12).for_each(|key| case.insert(key << 28));
    case.install(4);
    assert!(case.map.move_home_of(0, |_| panic!("there is room"), &pin()));
    let candidate = |prefer: fn(NonNull<Header>) -> bool| case.map.candidate(0, prefer, &pin());
    let moved = candidate(|_| true).expect("the home bucket that moved has entries");
    // SAFETY: the entries live as long as the case.
    let hash = unsafe { moved.as_ref() }.hash();
    assert!(hash < 1 << 31, "the candidate is in the next table, not in the old one");
    assert!(candidate(|_| false).is_some());
}

#[test]
fn discarded_tables_are_freed_in_parts() {
    let case = Case::new(1);
    assert!(!case.map.has_discarded());
    let most = if cfg!(miri) { 16 } else { usize::MAX };
    for buckets in [(32 << 20) / 64, 1, (9 << 20) / 64].map(|buckets| most.min(buckets)) {
        case.map.prepare(buckets, &pin());
        let table = case.map.take_prepared(&pin()).unwrap().unwrap();
        assert_eq!(table.buckets(), buckets);
        case.map.discard(table);
    }
    let mut calls = 0;
    while case.map.has_discarded() {
        case.map.free_discarded_slice();
        calls += 1;
        assert!(calls < 100);
    }
    assert!(
        calls
            >= if cfg!(all(target_os = "linux", not(miri))) {
                8
            } else {
                3
            },
        "{calls}"
    );
}

#[test]
fn probe_limit_after_removals_shrinks() {
    let mut case = Case::new(2);
    let probe_limit = |case: &Case| case.map.table(&pin()).probe_limit(0);
    (0..SLOTS as u32).for_each(|key| case.insert(key));
    assert_eq!(probe_limit(&case), 0);
    case.insert(100);
    assert_eq!(probe_limit(&case), 1, "the seventh lies behind its home");
    case.remove(0);
    let insert_and_remove = |case: &mut Case| {
        for key in 200..220 {
            case.insert(key);
            case.remove(key);
        }
    };
    insert_and_remove(&mut case);
    assert_eq!(probe_limit(&case), 1);
    assert!(case.has(100), "it is still there");
    case.remove(100);
    insert_and_remove(&mut case);
    assert_eq!(probe_limit(&case), 0, "nothing lies there any more");
    assert!((1..SLOTS as u32).all(|key| case.has(key)));
}

/// A home bucket that a panicking mover left frozen makes writers panic instead of wait forever.
#[test]
fn writer_waiting_for_a_broken_move_panics() {
    let map = Map::with_buckets(2).unwrap();
    let guard = pin();
    let table = map.table(&guard);
    let home = table.bucket(table.home(0));
    home.control.fetch_or(control::FROZEN, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let entry = Header::new(0, 0, false);
            _ = map.insert(0, NonNull::from(&entry), is(0), Mode::IfAbsent, UNCONDITIONAL, &pin());
        });
        drop(table::BreakOnPanic(table));
        assert!(writer.join().is_err());
    });
}

/// The memory of a listed entry may hold another key of the same home bucket by now. The listed key
/// is still found.
#[test]
fn find_address_of_memory_used_again_finds_the_listed_key() {
    let mut case = Case::new(3);
    case.insert(1);
    case.insert(2);
    let address_of_2 = case.entries[1].addr().get();
    assert_eq!(case.map.find_address(1, address_of_2, &pin()), Some(case.entries[0]));
    assert_eq!(case.map.find_address(2, address_of_2, &pin()), Some(case.entries[1]));
}
