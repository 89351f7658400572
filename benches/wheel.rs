//! What a timer costs: `cargo bench --bench wheel`, or with a number of timers and of hours:
//! `cargo bench --bench wheel -- 1000000 1`.
//!
//! Ten million timers are scheduled for random instants of the next ten hours; then five hours pass.
//! An entry is a cache line of its own, in random order, so every access to one that is not in the
//! processor's caches is a miss to memory: the first rows show the cost of that on this machine, by
//! the same access pattern without a wheel.

use std::cell::Cell;
use std::hint::black_box;
use std::num::NonZeroU64;
use std::time::Instant;

use clap::Parser;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

// The building blocks depend on nothing else, so they need not be public. As cargo compiles benches
// like tests, their tests are compiled too, and the modules that those need.
#[allow(unused, unreachable_pub)]
#[path = "../src/policy/mod.rs"]
mod policy;
#[allow(unused, unreachable_pub)]
#[path = "../src/prim/mod.rs"]
mod prim;

use prim::list::Places;
use prim::wheel::{IDLE, Timers, Wheel};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;

type Handle = NonZeroU64;

#[repr(align(64))]
struct Entry {
    deadline: Cell<u64>,
    place: Cell<u32>,
}

/// Entries named by their index plus 1.
struct Store(Vec<Entry>);

impl Store {
    fn at(&self, handle: Handle) -> &Entry {
        &self.0[handle.get() as usize - 1]
    }
}

impl Places for Store {
    type Handle = Handle;

    fn place(&self, handle: Handle) -> u32 {
        self.at(handle).place.get()
    }
    fn set_place(&self, handle: Handle, place: u32) {
        self.at(handle).place.set(place);
    }
    fn prefetch(&self, handle: Handle) {
        prim::prefetch::prefetch(self.at(handle));
    }
}

impl Timers for Store {
    fn deadline(&self, handle: Handle) -> u64 {
        self.at(handle).deadline.get()
    }
}

/// Runs `run`, which returns its number of operations, and prints the time of each.
fn measure(what: &str, run: impl FnOnce() -> u64) {
    let start = Instant::now();
    let n = run();
    let ns = start.elapsed().as_nanos() as f64;
    println!("| {what} | {n} | {:.1} |", ns / n.max(1) as f64);
}

/// Expires what is due. A function of its own, so that a profiler shows it.
#[inline(never)]
fn expire(wheel: &mut Wheel<Handle>, store: &Store, now: u64, fired: &mut Vec<Handle>) {
    while wheel.advance(store, now, 1000, |_, handle| fired.push(handle)) {}
}

/// Measures what timers cost.
#[derive(Parser)]
#[command(name = "wheel")]
struct Args {
    /// The number of timers
    #[arg(default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    timers: u64,
    /// The hours within which they expire
    #[arg(default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    hours: u64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let Args {
        timers: count, hours, ..
    } = Args::parse();
    let random = &mut Xoshiro256PlusPlus::seed_from_u64(42);
    let entry = |_| Entry {
        deadline: Cell::new(0),
        place: Cell::new(IDLE),
    };
    let store = &Store((0..count).map(entry).collect());
    let created: Vec<Handle> = (1..=count).filter_map(Handle::new).collect();
    let mut shuffled = created.clone();
    shuffled.shuffle(random);
    println!("{count} timers\n\n| what | times | ns each |\n|---|---:|---:|");

    measure("a cold entry: read and written, prefetched 4 ahead", || {
        for (at, &handle) in shuffled.iter().enumerate() {
            store.prefetch(shuffled[(at + 4).min(shuffled.len() - 1)]);
            store.at(handle).deadline.set(store.deadline(handle) + 1);
        }
        count
    });
    measure("the same, each after the one before", || {
        let mut sum = 0;
        for at in 0..shuffled.len() / 4 {
            let handle = shuffled[at + (sum & 1)];
            sum = store.place(handle) as usize ^ IDLE as usize;
            store.at(handle).deadline.set(0);
        }
        black_box(sum);
        count / 4
    });

    let mut wheel = Wheel::new();
    let mut now = SECOND;
    let set = |handle: Handle, now: u64, random: &mut Xoshiro256PlusPlus| {
        let delay = random.random_range(0..hours * HOUR);
        store.at(handle).deadline.set(now + delay);
    };
    measure("schedule, entries in order", || {
        for &handle in &created {
            set(handle, now, random);
            _ = wheel.schedule(store, handle);
        }
        count
    });
    measure("cancel, entries in order", || {
        created.iter().for_each(|&handle| wheel.cancel(store, handle));
        count
    });
    for &handle in &created {
        set(handle, now, random);
    }
    measure("schedule, cold entries", || {
        shuffled.iter().for_each(|&handle| _ = wheel.schedule(store, handle));
        count
    });
    measure("cancel, cold entries (a tenth of them)", || {
        shuffled[..shuffled.len() / 10]
            .iter()
            .for_each(|&handle| wheel.cancel(store, handle));
        count / 10
    });
    for &handle in &shuffled[..shuffled.len() / 10] {
        set(handle, now, random);
        _ = wheel.schedule(store, handle);
    }

    let mut fired = Vec::new();
    for hour in 1..=hours / 2 {
        let end = now + HOUR;
        measure(&format!("expire, hour {hour}, second by second"), || {
            while now < end {
                now += SECOND;
                expire(&mut wheel, store, now, &mut fired);
            }
            fired.len() as u64
        });
        // The number of scheduled timers stays the same.
        measure("schedule the expired ones again", || {
            for &handle in &fired {
                set(handle, now, random);
                _ = wheel.schedule(store, handle);
            }
            fired.drain(..).len() as u64
        });
    }
    measure("expire the rest in one jump", || {
        now += 2 * hours * HOUR;
        expire(&mut wheel, store, now, &mut fired);
        fired.len() as u64
    });
    assert_eq!((fired.len() as u64, wheel.len()), (count, 0));
}
