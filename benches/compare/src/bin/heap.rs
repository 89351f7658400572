//! The heap bytes that a cache requests: exact, counted by the global allocator. A binary of its
//! own, so that counting does not slow the other measurements.

use clap::Parser;
use hotset_compare::peers::{Hotset, Moka, Peer, QuickCache, Schnellru, value_of};
use hotset_compare::report::{Table, Target};
use hotset_compare::workload::rng;
use rand::RngExt;

#[allow(unreachable_pub)]
#[path = "../../../../examples/replay/heap.rs"]
mod heap;

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

/// Returns the bytes allocated now; signed, since a difference may be negative.
fn live() -> i64 {
    heap::live() as i64
}

/// The memory of one cache of one size, in bytes.
struct Taken {
    empty: i64,
    filled: i64,
    churned: i64,
    peak: i64,
    left: i64,
    len: usize,
    calls_per_insert: f64,
}

/// Fills a cache of capacity `n`, then churns it by `4 * n` steps: half of them insert new keys, a
/// quarter load recent keys, a quarter overwrite recent keys.
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
    let base = heap::baseline();
    let calls = heap::calls();
    let mut rng = rng(n as u64);
    for step in 0..4 * n {
        let recent = next - 1 - rng.random_range(0..2 * n as u64).min(next - 1);
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
    let calls_per_insert = (heap::calls() - calls) as f64 / (3 * n) as f64;
    let peak = (base + heap::peak_above(base)) as i64 - before;
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
            (Target::AtMost(1536.0), Target::AtMost(12288.0))
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

/// Measures the heap bytes of hotset and its peers.
#[derive(Parser)]
struct Args {
    /// Measures smaller caches
    #[arg(long)]
    quick: bool,
    /// The caches beside hotset: quick_cache, moka, schnellru, hotset-ttl, or none
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_value = "quick_cache,moka",
          value_parser = ["quick_cache", "moka", "schnellru", "hotset", "hotset-ttl", "none"],
          hide_possible_values = true)]
    peers: Vec<String>,
}

fn main() {
    let args = Args::parse();
    let n = if args.quick { 100_000 } else { 1_000_000 };
    let mut caches = vec!["hotset"];
    caches.extend(args.peers.iter().map(String::as_str).filter(|name| *name != "hotset"));
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
