//! Runs threads against a map, and writes down what each call did, and when.

use crate::checker::Timed;
use crate::model::{Op, State, possible};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;

/// A map, or one with a bug.
pub(crate) trait Subject: Sync {
    fn get(&self, key: u64, way: u64) -> State;
    fn contains(&self, key: u64) -> bool;
    fn insert(&self, key: u64, value: u64);
    fn remove(&self, key: u64) -> State;
    fn remove_even(&self, key: u64) -> State;
    fn compute(&self, key: u64, change: &mut dyn FnMut(State) -> State) -> State;
    fn load(&self, key: u64, load: &mut dyn FnMut() -> u64) -> u64;
    fn load_many(&self, keys: &[u64], load: &mut dyn FnMut(&[u64]) -> Vec<u64>) -> Vec<u64>;
    fn clear(&self);
    /// Something else that goes on beside; the keys from 1,000 on are free for it.
    fn beside(&self, _thread: u64, _step: u64) {}
}

pub(crate) struct Plan {
    pub(crate) threads: u64,
    pub(crate) keys: u64,
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
}

/// Operations of a thread in a round: so that with four threads, and a read at the end, a key has at most 64.
const STEPS: u64 = 12;

/// What all threads share.
struct Course<'s> {
    subject: &'s dyn Subject,
    plan: &'s Plan,
    /// Counted on at every call and return: SeqCst, so that what returned before another's call has the smaller number.
    now: AtomicU64,
    value: AtomicU64,
    /// How many threads have come to the next line, of which there are two per round.
    line: AtomicUsize,
    history: Mutex<Vec<(u64, Timed<Op>)>>,
    failed: AtomicBool,
    overlaps: AtomicU64,
}

/// A line is waited for by spinning, so that all go on at the same moment; now and then the processor is given up, as there may be
/// fewer than threads.
fn wait(course: &Course, lines: usize) {
    let all = lines * course.plan.threads as usize;
    course.line.fetch_add(1, SeqCst);
    for spin in 1u64.. {
        if course.line.load(SeqCst) >= all {
            return;
        }
        if spin % 256 == 0 {
            thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

struct Random(u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// Gives others time to come between.
    pub(crate) fn dawdle(&mut self) {
        match self.below(8) {
            0 => thread::yield_now(),
            1..4 => (0..self.below(300)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

/// How many pairs of operations on the same key overlapped; or nothing, if a round was impossible, which is printed if `loud`.
pub(crate) fn run(subject: &dyn Subject, plan: &Plan, loud: bool) -> Option<u64> {
    let course = Course {
        subject,
        plan,
        now: AtomicU64::new(1),
        value: AtomicU64::new(1),
        line: AtomicUsize::new(0),
        history: Mutex::default(),
        failed: AtomicBool::new(false),
        overlaps: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for thread in 0..plan.threads {
            let course = &course;
            scope.spawn(move || work(course, thread, loud));
        }
    });
    (!course.failed.load(SeqCst)).then(|| course.overlaps.load(SeqCst))
}

fn work(course: &Course, thread: u64, loud: bool) {
    let mut random = Random(course.plan.seed << 32 | (thread + 1) << 16 | 1);
    let mut mine = Vec::new();
    let mut states = HashMap::new();
    for round in 0..course.plan.rounds as usize {
        wait(course, 2 * round + 1);
        if course.failed.load(SeqCst) {
            return;
        }
        for step in 0..STEPS {
            act(course, &mut random, &mut mine);
            course.subject.beside(thread, round as u64 * STEPS + step);
        }
        course.history.lock().unwrap().append(&mut mine);
        wait(course, 2 * round + 2);
        if thread == 0 && !check(course, &mut states, loud) {
            course.failed.store(true, SeqCst);
        }
    }
}

/// Does something, and writes it down.
fn act(course: &Course, random: &mut Random, mine: &mut Vec<(u64, Timed<Op>)>) {
    let (subject, key) = (course.subject, random.below(course.plan.keys));
    let mut fresh = || course.value.fetch_add(1, Relaxed);
    let what = random.below(40);
    let call = course.now.fetch_add(1, SeqCst);
    let mut done = |ops: &mut dyn Iterator<Item = (u64, Op)>| {
        let ret = course.now.fetch_add(1, SeqCst);
        mine.extend(ops.map(|(key, op)| (key, Timed { call, ret, op })));
    };
    let mut one = |op| done(&mut [(key, op)].into_iter());
    match what {
        0..10 => {
            let way = random.below(4);
            one(Op::Get(subject.get(key, way)));
        }
        10..12 => one(Op::Contains(subject.contains(key))),
        12..18 => {
            let value = fresh();
            subject.insert(key, value);
            one(Op::Insert(value));
        }
        18..23 => one(Op::Remove(subject.remove(key))),
        23 => one(Op::RemoveEven(subject.remove_even(key))),
        24..30 => {
            let (keep, mut seen) = (random.below(4) > 0, None);
            let after = subject.compute(key, &mut |current| {
                seen = current;
                random.dawdle();
                keep.then(&mut fresh)
            });
            one(Op::Compute(seen, after));
        }
        30..37 => {
            let mut loaded = None;
            let value = subject.load(key, &mut || {
                random.dawdle();
                *loaded.insert(fresh())
            });
            one(Op::Load(value, loaded == Some(value)));
        }
        37 | 38 => {
            let keys: Vec<u64> = (0..course.plan.keys).collect();
            let mut loaded = Vec::new();
            let values = subject.load_many(&keys, &mut |missing| {
                random.dawdle();
                let values: Vec<u64> = missing.iter().map(|_| fresh()).collect();
                loaded.extend(&values);
                values
            });
            let load = |(key, value)| (key, Op::Load(value, loaded.contains(&value)));
            done(&mut keys.into_iter().zip(values).map(load));
        }
        _ => {
            subject.clear();
            done(&mut (0..course.plan.keys).flat_map(|key| [(key, Op::Clear), (key, Op::ClearAgain)]));
        }
    }
}

/// Judges each key's history by itself, while all threads stand still.
fn check(course: &Course, states: &mut HashMap<u64, State>, loud: bool) -> bool {
    let mut histories: HashMap<u64, Vec<Timed<Op>>> = HashMap::new();
    for (key, one) in course.history.lock().unwrap().drain(..) {
        histories.entry(key).or_default().push(one);
    }
    for (key, mut history) in histories {
        for (at, one) in history.iter().enumerate() {
            let beside = history[at + 1..].iter().filter(|other| one.overlaps(other)).count();
            course.overlaps.fetch_add(beside as u64, Relaxed);
        }
        // What is there at the end is part of this history, and where the next one starts.
        let call = course.now.fetch_add(1, SeqCst);
        let found = course.subject.get(key, 0);
        let ret = course.now.fetch_add(1, SeqCst);
        history.push(Timed {
            call,
            ret,
            op: Op::Get(found),
        });
        let start = states.insert(key, found).flatten();
        if !possible(&history, start) {
            if loud {
                history.sort_by_key(|one| one.call);
                eprintln!("key {key}, which was {start:?}:");
                history.iter().for_each(|one| eprintln!("  {one:?}"));
            }
            return false;
        }
    }
    true
}
