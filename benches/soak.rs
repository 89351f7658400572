//! Mixed operations at full speed for as long as asked, with memory watched: `make soak MINUTES=10`.
//!
//! The threads change with every interval, and so does what they do: times to live, the hot keys, the capacity, clears, loads that
//! fail or panic, scans; caches of every policy come and go. Each value is counted, and what the process has in memory is read
//! from the system. It fails if memory is not flat: if it ever exceeds, in the second half, what it was in the second quarter by more
//! than a twentieth and some megabytes; or if in the end a value is left.

use hotset::{Cache, Policy, Ttl};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: u64 = 4;
const INTERVALS: u64 = 20;
const CAPACITY: u64 = 20_000;
/// Beyond the twentieth: what allocators of the threads keep.
const SLACK: u64 = 8 << 20;
const POLICIES: [Policy; 5] = [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random];

static LIVE: AtomicI64 = AtomicI64::new(0);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

struct Value(Box<[u64]>);

impl Value {
    fn new(key: u64) -> Self {
        LIVE.fetch_add(1, Relaxed);
        Self(vec![key; 1 + key as usize % 32].into())
    }
    fn check(&self, key: u64) {
        assert!(self.0.iter().all(|word| *word == key), "another key's value");
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        Self::new(self.0[0])
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fill(u64::MAX);
        LIVE.fetch_sub(1, Relaxed);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

fn build(policy: Policy, capacity: u64, short: bool) -> Cache<u64, Value> {
    let builder = Cache::builder()
        .max_weight(capacity)
        .weigher(|_, value: &Value| 1 + value.0.len() as u64 / 16)
        .policy(policy)
        .on_removal(|key, value, _| value.check(*key));
    let builder = if short {
        builder.time_to_live(Duration::from_millis(50))
    } else {
        builder
            .time_to_idle(Duration::from_secs(3))
            .refresh_after(Duration::from_secs(1))
    };
    builder.build().expect("settings that go together")
}

struct Intended;

fn one(cache: &Cache<u64, Value>, random: &mut Random, phase: u64, fresh: &mut u64) {
    // Each phase has hot keys of its own, of which some were hot before.
    let key = match random.below(10) {
        0..6 => phase * 500 + random.below(1000),
        6..9 => random.below(200_000),
        _ => {
            *fresh += 1; // a scan, of keys never seen again
            1 << 40 | *fresh << 8
        }
    };
    match random.below(100) {
        0..50 => drop(cache.get(&key).map(|value| value.check(key))),
        50..70 => cache.insert(key, Value::new(key)),
        70..74 => cache.insert_with_ttl(key, Value::new(key), Duration::from_millis(random.below(2000))),
        74 => cache.insert_with_ttl(key, Value::new(key), Ttl::Never),
        75..80 => drop(cache.remove(&key)),
        80..90 => cache.get_or_insert_with(key, || Value::new(key)).check(key),
        90 => drop(cache.try_get_or_insert_with(key, || Err::<Value, u64>(key))),
        91 => {
            let load = || -> Value { resume_unwind(Box::new(Intended)) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| cache.get_or_insert_with(key, load)))
                && !panic.is::<Intended>()
            {
                resume_unwind(panic);
            }
        }
        92..95 => drop(cache.compute(key, |old| old.or_else(|| Some(Value::new(key))))),
        95 => drop(cache.compute(key, |_| None)),
        96 => {
            drop(cache.get_many_or_insert_with(key..key + 8, |keys| keys.iter().map(|key| Value::new(*key)).collect()))
        }
        97 => {
            let reader = cache.reader();
            (key..key + 20).for_each(|key| reader.get(&key).into_iter().for_each(|value| value.check(key)));
        }
        98 => drop(cache.get_many(&[key, key + 1, key + 2])),
        _ => drop(cache.remaining(&key)),
    }
}

fn work(caches: &[Cache<u64, Value>], phase: u64, thread: u64, over: &AtomicBool) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (phase << 8 | thread));
    let mut fresh = phase << 24 | thread << 20;
    while !over.load(Relaxed) {
        let cache = &caches[random.below(caches.len() as u64) as usize];
        (0..1000).for_each(|_| one(cache, &mut random, phase, &mut fresh));
        OPERATIONS.fetch_add(1000, Relaxed);
        match random.below(400) {
            0..4 => {
                // One that comes and goes.
                let policy = POLICIES[random.below(5) as usize];
                let other = build(policy, random.below(3000), random.below(2) == 0);
                (0..5000).for_each(|_| one(&other, &mut random, phase, &mut fresh));
                OPERATIONS.fetch_add(5000, Relaxed);
            }
            4 => cache.set_capacity(CAPACITY / (1 + random.below(4))),
            5..8 => cache.set_capacity(CAPACITY),
            8 => cache.clear(),
            9 => cache.iter().take(1000).for_each(|(key, value)| value.check(key)),
            _ => {}
        }
    }
}

/// What the process has in memory, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number of pages");
    pages * 4096
}

fn main() -> ExitCode {
    let minutes = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse::<f64>().ok());
    let minutes = minutes.unwrap_or(1.0).clamp(0.05, 100_000.0);
    let interval = Duration::from_secs_f64(minutes * 60.0 / INTERVALS as f64);
    println!("| minute | operations | per second | resident MB | values | entries |");
    println!("|---|---|---|---|---|---|");
    let caches: Vec<_> = POLICIES.iter().map(|policy| build(*policy, CAPACITY, false)).collect();
    let (begun, mut seen, mut before) = (Instant::now(), Vec::new(), 0);
    for phase in 0..INTERVALS {
        let over = AtomicBool::new(false);
        let most = thread::scope(|scope| {
            for number in 0..THREADS {
                let (caches, over) = (&caches, &over);
                scope.spawn(move || work(caches, phase, number, over));
            }
            let (end, mut most) = (Instant::now() + interval, 0);
            while Instant::now() < end {
                thread::sleep(interval / 20);
                most = most.max(resident());
            }
            over.store(true, Relaxed);
            most
        });
        let done = OPERATIONS.load(Relaxed);
        let entries: usize = caches.iter().map(|cache| cache.len()).sum();
        println!(
            "| {:.1} | {:.1} M | {:.2} M | {:.1} | {} | {entries} |",
            begun.elapsed().as_secs_f64() / 60.0,
            done as f64 / 1e6,
            (done - before) as f64 / interval.as_secs_f64() / 1e6,
            most as f64 / f64::from(1 << 20),
            LIVE.load(Relaxed),
        );
        before = done;
        seen.push(most);
    }
    caches.iter().for_each(|cache| {
        cache.run_pending();
        cache.validate();
    });
    drop(caches);
    let (quarter, half) = (seen.len() / 4, seen.len() / 2);
    let early = *seen[quarter..half].iter().max().expect("there are intervals");
    let late = *seen[half..].iter().max().expect("there are intervals");
    let (flat, left) = (late <= early + early / 20 + SLACK, LIVE.load(Relaxed));
    println!("\nresident: {early} bytes in the second quarter, {late} in the second half; values left: {left}");
    if flat && left == 0 {
        ExitCode::SUCCESS
    } else {
        eprintln!("soak: memory is not flat, or values are left");
        ExitCode::FAILURE
    }
}
