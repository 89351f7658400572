//! The cache without a bound is a linearizable map: histories of real threads are recorded, and checked key by key.
//!
//! What is not exactly a map's behaviour, and why, is said in `linearizability/model.rs`. `HOTSET_STRESS=20` runs 20 times as many rounds.

#[path = "linearizability/checker.rs"]
mod checker;
#[path = "linearizability/model.rs"]
mod model;
#[path = "linearizability/record.rs"]
mod record;

use hotset::{Builder, Cache, ManualClock, Policy, Ttl};
use model::State;
use record::{Plan, Subject, run};
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const POLICIES: [Policy; 5] = [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random];

fn rounds(base: u64) -> u64 {
    base * std::env::var("HOTSET_STRESS").map_or(1, |factor| factor.parse().expect("a number"))
}

/// The cache, and how many filler keys each thread inserts beside every operation, so that the table grows meanwhile.
struct Real<S> {
    cache: Cache<u64, u64, S>,
    fillers: u64,
}

impl<S: BuildHasher + Sync + Send> Subject for Real<S> {
    fn get(&self, key: u64, way: u64) -> State {
        match way {
            0 => self.cache.get(&key),
            1 => self.cache.get_with(&key, |value| *value),
            2 => self.cache.get_many([&key]).remove(0),
            _ => self.cache.reader().get(&key).copied(),
        }
    }
    fn contains(&self, key: u64) -> bool {
        self.cache.contains_key(&key)
    }
    fn insert(&self, key: u64, value: u64) {
        if value.is_multiple_of(3) {
            self.cache.insert_with_ttl(key, value, Ttl::Default);
        } else {
            self.cache.insert(key, value);
        }
    }
    fn remove(&self, key: u64) -> State {
        self.cache.remove(&key)
    }
    fn remove_even(&self, key: u64) -> State {
        self.cache.remove_if(&key, |_, value| value % 2 == 0)
    }
    fn compute(&self, key: u64, change: &mut dyn FnMut(State) -> State) -> State {
        self.cache.compute(key, change)
    }
    fn load(&self, key: u64, load: &mut dyn FnMut() -> u64) -> u64 {
        self.cache.get_or_insert_with(key, load)
    }
    fn load_many(&self, keys: &[u64], load: &mut dyn FnMut(&[u64]) -> Vec<u64>) -> Vec<u64> {
        self.cache.get_many_or_insert_with(keys.iter().copied(), load)
    }
    fn clear(&self) {
        self.cache.clear();
    }
    fn beside(&self, thread: u64, step: u64) {
        for i in 0..self.fillers {
            let key = 1000 + (step * self.fillers + i) * 8 + thread;
            self.cache.insert(key, key);
        }
    }
}

fn unbounded(policy: Policy) -> Builder<u64, u64> {
    Cache::builder().max_entries(usize::MAX).policy(policy)
}

/// Runs two to four threads on one to three keys; each time with a cache of its own.
fn check<S: BuildHasher + Sync + Send>(seed: u64, rounds: u64, fillers: u64, cache: impl Fn() -> Cache<u64, u64, S>) {
    let mut overlaps = 0;
    for threads in 2..=4 {
        for keys in 1..=3 {
            let cache = cache();
            let plan = Plan {
                threads,
                keys,
                rounds,
                seed: seed * 100 + threads * 10 + keys,
            };
            let subject = Real { cache, fillers };
            let run = run(&subject, &plan, true);
            overlaps += run.expect("the history above has no order that explains it");
            subject.cache.run_pending();
            subject.cache.validate();
        }
    }
    assert!(overlaps > 0, "no two operations met");
    println!("{overlaps} pairs of operations overlapped");
}

#[test]
fn stress_linear_under_every_policy() {
    for (seed, policy) in POLICIES.into_iter().enumerate() {
        check(1 + seed as u64, rounds(400), 0, || unbounded(policy).build().unwrap());
    }
}

#[test]
fn stress_linear_with_times() {
    for (seed, policy) in POLICIES.into_iter().enumerate() {
        check(11 + seed as u64, rounds(200), 0, || {
            let builder = unbounded(policy).clock(ManualClock::new());
            let hour = Duration::from_secs(3600);
            builder.time_to_live(hour).time_to_idle(hour).build().unwrap()
        });
    }
}

/// Each time from an empty table, so that most rounds see it grow.
#[test]
fn stress_linear_while_the_table_grows() {
    for seed in 0..rounds(12) {
        check(21 + seed, 30, 6, || unbounded(Policy::WTinyLfu).build().unwrap());
    }
}

/// Sends all keys to one place.
#[derive(Clone)]
struct Same;

impl BuildHasher for Same {
    type Hasher = Same;
    fn build_hasher(&self) -> Same {
        Same
    }
}

impl Hasher for Same {
    fn finish(&self) -> u64 {
        7
    }
    fn write(&mut self, _: &[u8]) {}
}

#[test]
fn stress_linear_in_one_bucket() {
    for (seed, policy) in POLICIES.into_iter().enumerate() {
        check(41 + seed as u64, rounds(200), 0, || {
            unbounded(policy).hasher(Same).build().unwrap()
        });
    }
}

/// A cache with a bug, to see that it is found.
struct Broken {
    cache: Cache<u64, u64>,
    bug: Bug,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// One get in 64 returns what this thread found the time before.
    Stale,
    /// One get in 64 misses.
    Blind,
    /// `compute` is a get, then an insert or remove.
    Torn,
    /// An insertion takes effect with the thread's next one.
    Late,
    /// A load is a get, then an insert: it beats whatever changed the key meanwhile.
    Blunt,
    /// `remove` leaves the entry, one time in 16.
    Idle,
}

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static FOUND: Cell<State> = const { Cell::new(None) };
    static LATE: RefCell<Option<(u64, u64)>> = const { RefCell::new(None) };
}

impl Broken {
    fn strikes(&self, bug: Bug, one_in: u64) -> bool {
        CALLS.set(CALLS.get() + 1);
        self.bug == bug && CALLS.get().is_multiple_of(one_in)
    }
}

impl Subject for Broken {
    fn get(&self, key: u64, _: u64) -> State {
        let found = self.cache.get(&key);
        if self.strikes(Bug::Blind, 64) {
            return None;
        }
        let last = FOUND.replace(found);
        if self.strikes(Bug::Stale, 64) { last } else { found }
    }
    fn contains(&self, key: u64) -> bool {
        self.cache.contains_key(&key)
    }
    fn insert(&self, key: u64, value: u64) {
        if self.bug == Bug::Late {
            if let Some((key, value)) = LATE.replace(Some((key, value))) {
                self.cache.insert(key, value);
            }
        } else {
            self.cache.insert(key, value);
        }
    }
    fn remove(&self, key: u64) -> State {
        if self.strikes(Bug::Idle, 16) {
            return self.cache.get(&key);
        }
        self.cache.remove(&key)
    }
    fn remove_even(&self, key: u64) -> State {
        self.cache.remove_if(&key, |_, value| value % 2 == 0)
    }
    fn compute(&self, key: u64, change: &mut dyn FnMut(State) -> State) -> State {
        if self.bug != Bug::Torn {
            return self.cache.compute(key, change);
        }
        let new = change(self.cache.get(&key));
        match new {
            Some(value) => self.cache.insert(key, value),
            None => _ = self.cache.remove(&key),
        }
        new
    }
    fn load(&self, key: u64, load: &mut dyn FnMut() -> u64) -> u64 {
        if self.bug != Bug::Blunt {
            return self.cache.get_or_insert_with(key, load);
        }
        self.cache.get(&key).unwrap_or_else(|| {
            let value = load();
            self.cache.insert(key, value);
            value
        })
    }
    fn load_many(&self, keys: &[u64], load: &mut dyn FnMut(&[u64]) -> Vec<u64>) -> Vec<u64> {
        self.cache.get_many_or_insert_with(keys.iter().copied(), load)
    }
    fn clear(&self) {
        self.cache.clear();
    }
}

#[test]
fn bugs_are_found() {
    let found = |bug| {
        (0..20).any(|seed| {
            let cache = unbounded(Policy::WTinyLfu).build().unwrap();
            let plan = Plan {
                threads: 2 + seed % 3,
                keys: 1 + seed % 2,
                rounds: 400,
                seed: 900 + seed,
            };
            run(&Broken { cache, bug }, &plan, false).is_none()
        })
    };
    assert!(!found(Bug::None), "the wrapper itself has none");
    for bug in [Bug::Stale, Bug::Blind, Bug::Torn, Bug::Late, Bug::Blunt, Bug::Idle] {
        assert!(found(bug), "{bug:?} was not found");
    }
}
