//! The bytes that a cache asks of the allocator: requested sizes, exact, counted by the global allocator. A binary of its
//! own, so that the counting slows nothing else down.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use hotset_compare::peers::{Hotset, Moka, Peer, QuickCache, Schnellru, value_of};
use hotset_compare::report::{Table, Target};
use hotset_compare::workload::Rng;

static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

struct Counting;

fn count(bytes: i64) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    if bytes > 0 {
        PEAK.fetch_max(live, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> i64 {
    LIVE.load(Relaxed)
}

/// What one size of one cache takes, in bytes.
struct Taken {
    empty: i64,
    filled: i64,
    churned: i64,
    peak: i64,
    left: i64,
    len: usize,
    calls_per_insert: f64,
}

/// Fill a cache of capacity `n`, then churn it: `4 * n` steps, half of them new keys, a quarter recent keys asked for
/// again and inserted if gone, a quarter overwritten.
fn measure<P: Peer>(n: usize) -> Taken {
    let before = live();
    let cache = P::new(n);
    let empty = live() - before;
    let mut next = 0u64;
    while next < n as u64 {
        cache.insert(next, value_of(next));
        next += 1;
    }
    cache.settle();
    let filled = live() - before;
    PEAK.store(live(), Relaxed);
    let calls = CALLS.load(Relaxed);
    let mut rng = Rng::new(n as u64);
    for step in 0..4 * n {
        let recent = next - 1 - rng.below(2 * n).min(next as usize - 1) as u64;
        match step % 4 {
            0 | 2 => {
                cache.insert(next, value_of(next));
                next += 1;
            }
            1 => {
                cache.get_or_insert_with(recent, || value_of(recent));
            }
            _ => cache.insert(recent, value_of(recent)),
        }
    }
    let calls_per_insert = (CALLS.load(Relaxed) - calls) as f64 / (3 * n) as f64;
    let peak = PEAK.load(Relaxed) - before;
    cache.settle();
    let churned = live() - before;
    let len = cache.entries();
    drop(cache);
    Taken {
        empty,
        filled,
        churned,
        peak,
        left: live() - before,
        len,
        calls_per_insert,
    }
}

fn small<P: Peer>(table: &Table) {
    let ours = P::NAME == Hotset::<false>::NAME;
    // The first cache of a process may also set up what all share.
    for (label, judged) in [("first of the process", false), ("any further", true)] {
        let taken = measure::<P>(100);
        let (empty, full) = if ours && judged {
            (Target::AtMost(2048.0), Target::AtMost(16384.0))
        } else {
            (Target::None, Target::None)
        };
        table.row(&[
            P::NAME.to_string(),
            label.to_string(),
            taken.empty.to_string(),
            format!("{} {}", empty.text(), empty.verdict(taken.empty as f64)),
            taken.filled.to_string(),
            format!("{} {}", full.text(), full.verdict(taken.filled as f64)),
            taken.churned.to_string(),
            taken.len.to_string(),
            taken.left.to_string(),
        ]);
    }
}

fn large<P: Peer>(table: &Table, n: usize) {
    let taken = measure::<P>(n);
    let per = |bytes: i64| bytes as f64 / taken.len as f64;
    let target = if P::NAME == Hotset::<false>::NAME {
        Target::AtMost(64.0)
    } else {
        Target::None
    };
    table.row(&[
        P::NAME.to_string(),
        format!("{:.1}", per(taken.empty)),
        format!("{:.1}", per(taken.filled)),
        format!("**{:.1}**", per(taken.churned)),
        target.text(),
        target.verdict(per(taken.churned)).to_string(),
        format!("{:.1}", per(taken.peak)),
        format!("{:.2}", taken.calls_per_insert),
        taken.len.to_string(),
        taken.left.to_string(),
    ]);
}

type Job<'a> = &'a dyn Fn(&str, &Table);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quick = args.iter().any(|a| a == "--quick");
    let n = if quick { 100_000 } else { 1_000_000 };
    let named = args.iter().position(|a| a == "--peers").and_then(|at| args.get(at + 1));
    let mut caches = vec!["hotset"];
    caches.extend(
        named
            .map_or("quick_cache,moka", String::as_str)
            .split(',')
            .filter(|n| *n != "hotset"),
    );
    // Print once before counting: standard output has a buffer of its own.
    let heading = format!("heap bytes per entry, u64 pairs, capacity {n} (divided by the entries held after churn)");
    let jobs: [(&str, &[&str], Job); 2] = [
        (
            &heading,
            &[
                "cache",
                "empty",
                "filled",
                "after churn",
                "target",
                "",
                "peak",
                "allocations per insert",
                "entries",
                "left",
            ],
            &|name, table| match name {
                "hotset" => large::<Hotset<false>>(table, n),
                "hotset-ttl" => large::<Hotset<true>>(table, n),
                "quick_cache" => large::<QuickCache>(table, n),
                "moka" => large::<Moka>(table, n),
                "schnellru" => large::<Schnellru>(table, n),
                _ => {}
            },
        ),
        (
            "heap bytes of a cache of capacity 100, u64 pairs",
            &[
                "cache",
                "",
                "empty",
                "target",
                "full",
                "target",
                "after churn",
                "entries",
                "left",
            ],
            &|name, table| match name {
                "hotset" => small::<Hotset<false>>(table),
                "hotset-ttl" => small::<Hotset<true>>(table),
                "quick_cache" => small::<QuickCache>(table),
                "moka" => small::<Moka>(table),
                "schnellru" => small::<Schnellru>(table),
                _ => {}
            },
        ),
    ];
    // The small caches first, while the process is fresh.
    for (title, columns, job) in jobs.iter().rev() {
        let table = Table::new(title, columns);
        for name in &caches {
            job(name, &table);
        }
    }
    println!(
        "\n\"left\" is what stays allocated after the cache is dropped: state of the thread or the process, or a leak."
    );
}
