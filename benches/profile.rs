//! What a profile costs: throughput of a cache of 100,000 entries with and without one, and memory.
//!
//! Rounds of both alternate, in several pairs of caches, so that noise of the machine and the
//! placement in memory hit both.

use hotset::Cache;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Counts the bytes that are allocated.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CAPACITY: usize = 100_000;
const LOOKUPS: u32 = 400_000;
const ROUNDS: usize = 7;
/// Pairs of caches, half of which build the profiled one first.
const PAIRS: usize = 6;

/// A skewed stream: the least of three numbers. Most lookups hit.
struct Stream(u64);

impl Stream {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * n) >> 32
    }

    fn next(&mut self) -> u64 {
        let keys = 4 * CAPACITY as u64;
        self.below(keys).min(self.below(keys)).min(self.below(keys))
    }
}

/// Returns the nanoseconds per lookup of one round.
fn round(cache: &Cache<u64, u64>, stream: &mut Stream) -> f64 {
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        let key = stream.next();
        if cache.get(&key).is_none() {
            cache.insert(key, key);
        }
    }
    start.elapsed().as_nanos() as f64 / f64::from(LOOKUPS)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let build = |profile: bool| -> (Cache<u64, u64>, Stream, usize) {
        let before = HELD.load(Ordering::Relaxed);
        let builder = Cache::builder().max_entries(CAPACITY);
        let builder = if profile { builder.profile() } else { builder };
        let (cache, mut stream) = (builder.build().expect("a capacity"), Stream(7));
        (0..10).for_each(|_| _ = round(&cache, &mut stream));
        (cache, stream, HELD.load(Ordering::Relaxed) - before)
    };
    let (mut off, mut on, mut ratios, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), (0, 0));
    let mut advice = None;
    for pair in 0..PAIRS {
        // The second of two caches has other pages of memory, which may be worth 20%.
        let (mut plain, mut profiled);
        if pair % 2 == 0 {
            (plain, profiled) = (build(false), build(true));
        } else {
            profiled = build(true);
            plain = build(false);
        }
        let (mut off_here, mut on_here) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            off_here.push(round(&plain.0, &mut plain.1));
            on_here.push(round(&profiled.0, &mut profiled.1));
        }
        ratios.push(median(on_here.clone()) / median(off_here.clone()));
        off.extend(off_here);
        on.extend(on_here);
        bytes = (plain.2, profiled.2);
        advice = Some(profiled.0.advise().expect("it is profiled"));
    }
    // The geometric mean over both orders.
    let difference = (ratios.iter().map(|ratio: &f64| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    println!("| 100,000 entries | without | with a profile | difference |\n|---|---|---|---|");
    println!(
        "| ns per lookup, median | {:.1} | {:.1} | {:+.1}% |",
        median(off),
        median(on),
        100.0 * (difference - 1.0)
    );
    println!(
        "| MB allocated | {:.2} | {:.2} | {:+.2} |",
        bytes.0 as f64 / 1e6,
        bytes.1 as f64 / 1e6,
        (bytes.1 as f64 - bytes.0 as f64) / 1e6
    );
    println!("\n{}", advice.expect("there was a pair"));
}
