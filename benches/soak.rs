//! Mixed operations at full speed, with memory watched: `make soak MINUTES=10`.
//!
//! The threads change with every interval, and so do their operations: times to live, the hot keys,
//! the capacity, clears, loads that fail or panic, scans; caches of every policy are created and
//! dropped. Each value is counted, and the resident memory is read from the system. The program fails
//! if memory is not flat: if its maximum in the second half exceeds that of the second quarter by more
//! than a twentieth and 8 MiB; or if a value is left at the end.

use clap::Parser;
use hotset::{Cache, Policy, Ttl};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: u64 = 4;
const INTERVALS: u64 = 20;
const CAPACITY: u64 = 20_000;
/// Allowed beyond the twentieth: memory that the allocator keeps for threads.
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

fn one(cache: &Cache<u64, Value>, random: &mut Xoshiro256PlusPlus, phase: u64, fresh: &mut u64) {
    // Each phase has its own hot keys, some of which were hot in the phase before.
    let key = match random.random_range(0..10_u64) {
        0..6 => phase * 500 + random.random_range(0..1000),
        6..9 => random.random_range(0..200_000),
        _ => {
            *fresh += 1; // a scan of new keys
            1 << 40 | *fresh << 8
        }
    };
    match random.random_range(0..100_u64) {
        0..50 => drop(cache.get(&key).map(|value| value.check(key))),
        50..70 => cache.insert(key, Value::new(key)),
        70..74 => cache.insert_with_ttl(
            key,
            Value::new(key),
            Duration::from_millis(random.random_range(0..2000)),
        ),
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

fn work(caches: &[Cache<u64, Value>], phase: u64, thread: u64, done: &AtomicBool) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(phase << 8 | thread);
    let mut fresh = phase << 24 | thread << 20;
    while !done.load(Relaxed) {
        let cache = &caches[random.random_range(0..caches.len())];
        (0..1000).for_each(|_| one(cache, &mut random, phase, &mut fresh));
        OPERATIONS.fetch_add(1000, Relaxed);
        match random.random_range(0..400_u64) {
            0..4 => {
                // A short-lived cache.
                let policy = POLICIES[random.random_range(0..POLICIES.len())];
                let other = build(policy, random.random_range(0..3000), random.random());
                (0..5000).for_each(|_| one(&other, &mut random, phase, &mut fresh));
                OPERATIONS.fetch_add(5000, Relaxed);
            }
            4 => cache.set_capacity(CAPACITY / (1 + random.random_range(0..4))),
            5..8 => cache.set_capacity(CAPACITY),
            8 => cache.clear(),
            9 => cache.iter().take(1000).for_each(|(key, value)| value.check(key)),
            _ => {}
        }
    }
}

/// Returns the resident memory of the process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("soak needs Linux's /proc");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number of pages");
    pages * 4096
}

/// Runs mixed operations and watches memory.
#[derive(Parser)]
#[command(name = "soak")]
struct Args {
    /// How long to run, in minutes
    #[arg(default_value = "1", value_parser = minutes)]
    minutes: f64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn minutes(value: &str) -> Result<f64, String> {
    let minutes = value
        .parse()
        .ok()
        .filter(|minutes| (0.05..=100_000.0).contains(minutes));
    minutes.ok_or_else(|| "not a number from 0.05 to 100000".to_owned())
}

fn main() -> ExitCode {
    let minutes = Args::parse().minutes;
    let interval = Duration::from_secs_f64(minutes * 60.0 / INTERVALS as f64);
    println!("| minute | operations | per second | resident MB | values | entries |");
    println!("|---|---|---|---|---|---|");
    let caches: Vec<_> = POLICIES.iter().map(|policy| build(*policy, CAPACITY, false)).collect();
    let (begun, mut seen, mut before) = (Instant::now(), Vec::new(), 0);
    for phase in 0..INTERVALS {
        let done = AtomicBool::new(false);
        let most = thread::scope(|scope| {
            for number in 0..THREADS {
                let (caches, done) = (&caches, &done);
                scope.spawn(move || work(caches, phase, number, done));
            }
            let (end, mut most) = (Instant::now() + interval, 0);
            while Instant::now() < end {
                thread::sleep(interval / 20);
                most = most.max(resident());
            }
            done.store(true, Relaxed);
            most
        });
        let total = OPERATIONS.load(Relaxed);
        let entries: usize = caches.iter().map(|cache| cache.len()).sum();
        println!(
            "| {:.1} | {:.1} M | {:.2} M | {:.1} | {} | {entries} |",
            begun.elapsed().as_secs_f64() / 60.0,
            total as f64 / 1e6,
            (total - before) as f64 / interval.as_secs_f64() / 1e6,
            most as f64 / f64::from(1 << 20),
            LIVE.load(Relaxed),
        );
        before = total;
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
