//! hotset side by side with other caches. Every job measures its caches in turn, round by round
//! (A, B, B, A, ..), in one process, and reports medians: on a shared machine only such ratios mean
//! something. See `compare help`.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};
use hotset_compare::measure::{hits, inserts, interleave, ns_per_op, throughput};
use hotset_compare::peers::{self, Subject};
use hotset_compare::report::{Latencies, Ratio, Table, Target, Watch, disturbance, median, waited};
use hotset_compare::time::time;
use hotset_compare::workload::{Zipf, full, picks};

/// Measures hotset side by side with other caches.
#[derive(Parser)]
#[command(name = "compare")]
struct Args {
    #[command(subcommand)]
    job: Job,
    /// Runs fewer and shorter rounds: to see that it works, not to judge by
    #[arg(long, global = true)]
    quick: bool,
    /// The caches beside hotset: quick_cache, moka, schnellru, hotset-ttl (with a time to live), or
    /// none; for the ir jobs also loop
    #[arg(long, global = true, value_name = "NAME,NAME", value_delimiter = ',', default_value = RIVAL,
          value_parser = PossibleValuesParser::new(peers::NAMES.into_iter().chain(["none"])),
          hide_possible_values = true)]
    peers: Vec<String>,
    /// The operations of the ir jobs
    #[arg(long, global = true, value_name = "N", default_value_t = 1_000_000)]
    ops: u64,
}

#[derive(Clone, Copy, PartialEq, Subcommand)]
enum Job {
    /// One thread, uniform random hits: 1k, 100k, 4M entries
    Get,
    /// Two threads, uniform random hits: 1k, 100k entries
    Threads,
    /// One hot key: two threads against one
    Hot,
    /// New keys into a full cache of 100k entries: 1, 2, 4 threads
    Insert,
    /// Read-through, 1M keys, zipf 0.99, capacity 100k: 1, 2, 4 threads
    Zipf,
    /// Read-through, zipf 0.99 and 0.7, capacities 1k, 20k, 100k, 1M, a tenth of the keys: 1, 2, 4
    /// threads
    ZipfAll,
    /// One row of these
    #[command(hide = true)]
    ZipfRow(ZipfRow),
    /// get_many of 64 keys against 64 gets, 4M entries
    Many,
    /// A get beside a thread that overwrites at full speed
    Latency,
    /// hotset with a time to live against hotset without; hits through loading calls, and a herd
    Time,
    /// Heap bytes (the binary `heap`, beside this one)
    Heap,
    /// All of these, each in a process of its own
    All,
    /// N gets of one cache, for an instruction counter: see benches/instructions.sh
    IrGet,
    /// N evicting inserts of one cache, for an instruction counter
    IrInsert,
    /// N operations by get_or_insert_with, zipf 0.99, for an instruction counter
    IrReadThrough,
    /// N operations by get, then insert after a miss, zipf 0.99, for an instruction counter
    IrCacheAside,
}

/// The jobs of `all`.
const JOBS: [&str; 9] = [
    "get", "threads", "hot", "insert", "zipf", "many", "latency", "time", "heap",
];
/// The peer that the targets speak of.
const RIVAL: &str = "quick_cache";

struct Options {
    quick: bool,
    ops: u64,
    /// hotset first.
    caches: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut named: Vec<String> = args.peers.iter().filter(|name| *name != "none").cloned().collect();
    // The ir jobs measure the named caches only.
    if !matches!(
        args.job,
        Job::IrGet | Job::IrInsert | Job::IrReadThrough | Job::IrCacheAside
    ) {
        named.retain(|name| name != "hotset" && name != "loop");
        named.insert(0, "hotset".to_owned());
    }
    let options = Options {
        quick: args.quick,
        ops: args.ops,
        caches: named,
    };
    match args.job {
        Job::Get => get(&options),
        Job::Threads => threads(&options),
        Job::Hot => hot(&options),
        Job::Insert => insert(&options),
        Job::Zipf => {
            let target = |call, _| if call == Through::ReadThrough { 1.5 } else { 0.0 };
            return zipf(&options, &[0.99], &[100_000], target);
        }
        Job::ZipfAll => {
            let target = |_, threads| if threads == 1 { 0.9 } else { 1.5 };
            return zipf(&options, &[0.99, 0.7], &[1_000, 20_000, 100_000, 1_000_000], target);
        }
        Job::ZipfRow(row) => {
            zipf_row(&options, row);
            return ExitCode::SUCCESS;
        }
        Job::Many => many(&options),
        Job::Latency => latency(&options),
        Job::Time => time(options.quick),
        Job::Heap => return heap(),
        Job::All => return all(),
        Job::IrGet => ir_get(&options),
        Job::IrInsert => ir_insert(&options),
        Job::IrReadThrough => ir_zipf(&options, |cache, ids| cache.read_through(ids)),
        Job::IrCacheAside => ir_zipf(&options, |cache, ids| cache.cache_aside(ids)),
    }
    disturbance();
    ExitCode::SUCCESS
}

fn run(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(e) => {
            eprintln!("compare: {command:?}: {e}");
            false
        }
    }
}

/// Returns the arguments of this process without the job `name`.
fn arguments_without(name: &str) -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1).filter(move |argument| *argument != *name)
}

fn all() -> ExitCode {
    let me = std::env::current_exe().expect("the path of this program");
    let mut ok = true;
    for job in JOBS {
        ok &= run(Command::new(&me).arg(job).args(arguments_without("all")));
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn heap() -> ExitCode {
    let me = std::env::current_exe().expect("the path of this program");
    let ok = run(Command::new(me.with_file_name("heap")).args(arguments_without("heap")));
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the columns of a comparison of every cache with hotset.
fn columns<'a>(first: &'a str, options: &'a Options, rival: &'a str) -> Vec<&'a str> {
    let mut columns = vec![first];
    columns.extend(options.caches.iter().map(String::as_str));
    columns.extend([rival, "target", ""]);
    columns
}

fn compare_row(table: &Table, label: String, options: &Options, results: &[Vec<f64>], digits: usize, target: Target) {
    let mut cells = vec![label];
    cells.extend(results.iter().map(|r| format!("{:.digits$}", median(r))));
    match options.caches.iter().position(|n| n == RIVAL) {
        Some(at) => {
            let ratio = Ratio::of(&results[0], &results[at]);
            cells.extend([ratio.to_string(), target.text(), target.verdict(ratio.median).into()]);
        }
        None => cells.extend(["-".into(), target.text(), "-".into()]),
    }
    table.row(&cells);
}

/// Builds every cache, full and churned, with the ids of its keys.
fn full_caches(options: &Options, n: usize) -> Vec<(Box<dyn Subject>, Vec<u32>)> {
    let churn = if options.quick { 1 } else { 4 };
    options.caches.iter().map(|name| full(name, n, churn)).collect()
}

fn get(options: &Options) {
    let table = Table::new(
        "get, hit, one thread, uniform random keys, full cache after churn: ns",
        &columns("entries", options, "hotset / quick_cache"),
    );
    for (label, n, ops, rounds, target) in [
        ("1k", 1_000, 1 << 20, 41, 0.85),
        ("100k", 100_000, 1 << 20, 31, 1.0),
        ("4M", 4_000_000, 1 << 21, 21, 0.8),
    ] {
        let (rounds, ops) = if options.quick { (5, ops / 4) } else { (rounds, ops) };
        let caches = full_caches(options, n);
        let results = hits(&caches, n, ops, rounds);
        compare_row(&table, label.into(), options, &results, 1, Target::AtMost(target));
    }
}

const CHUNK: usize = 1024;

fn piece<T>(sequence: &[T], number: usize) -> &[T] {
    let at = number % (sequence.len() / CHUNK) * CHUNK;
    &sequence[at..at + CHUNK]
}

fn threads(options: &Options) {
    let table = Table::new(
        "get, hit, two threads, uniform random keys: million per second, both threads",
        &columns("entries", options, "hotset / quick_cache"),
    );
    let (rounds, time) = if options.quick { (5, 30) } else { (31, 100) };
    for (label, n, length) in [("1k", 1_000, 1 << 16), ("100k", 100_000, 1 << 20)] {
        let caches = full_caches(options, n);
        let sequences: Vec<Vec<Vec<u32>>> = caches
            .iter()
            .map(|(_, held)| (0..2).map(|thread| picks(held, length, 11 + thread)).collect())
            .collect();
        let results = interleave(rounds, caches.len(), |i, round| {
            let (cache, sequences) = (&caches[i].0, &sequences[i]);
            let (speed, missed) = throughput(2, Duration::from_millis(time), 64, CHUNK, |thread, number| {
                cache.get32(piece(&sequences[thread], number + round * 31))
            });
            assert_eq!(missed, 0.0, "{}: gets of resident keys missed", cache.name());
            speed / 1e6
        });
        compare_row(&table, label.into(), options, &results, 1, Target::AtLeast(1.3));
    }
}

fn hot(options: &Options) {
    let table = Table::new(
        "one hot key in a cache of 1k entries: million gets per second",
        &["cache", "1 thread", "2 threads", "2 threads / 1 thread", "target", ""],
    );
    let (rounds, time) = if options.quick { (5, 30) } else { (31, 100) };
    let caches = full_caches(options, 1_000);
    let count = caches.len();
    // Things 0..count are the caches on one thread, the others the same on two.
    let results = interleave(rounds, 2 * count, |i, _| {
        let (cache, held) = &caches[i % count];
        let key = u64::from(held[held.len() / 2]);
        let threads = 1 + i / count;
        let (speed, missed) = throughput(threads, Duration::from_millis(time), 64, CHUNK, |_, _| {
            cache.get_one(key, CHUNK as u64)
        });
        assert_eq!(missed, 0.0, "{}: gets of a resident key missed", cache.name());
        speed / 1e6
    });
    for (i, (cache, _)) in caches.iter().enumerate() {
        let ratio = Ratio::of(&results[count + i], &results[i]);
        let target = if i == 0 { Target::AtLeast(1.8) } else { Target::None };
        table.row(&[
            cache.name().to_string(),
            format!("{:.1}", median(&results[i])),
            format!("{:.1}", median(&results[count + i])),
            ratio.to_string(),
            target.text(),
            target.verdict(ratio.median).into(),
        ]);
    }
}

fn insert(options: &Options) {
    let table = Table::new(
        "insert of a new key into a full cache: ns",
        &columns("capacity", options, "hotset / quick_cache"),
    );
    let (n, rounds, ops) = if options.quick {
        (100_000, 5, 50_000)
    } else {
        (100_000, 41, 300_000)
    };
    let caches: Vec<Box<dyn Subject>> = options.caches.iter().map(|name| peers::build(name, n)).collect();
    let results = inserts(&caches, n, ops, rounds);
    compare_row(&table, "100k".into(), options, &results, 1, Target::AtMost(1.0));
    insert_concurrently(options, &caches);
    for cache in &caches {
        cache.settle();
        let len = cache.entries();
        assert!(
            len >= n / 2 && len <= n + n / 8 + 64,
            "{}: {len} entries at a capacity of {n}",
            cache.name()
        );
    }
}

/// Has several threads insert new keys into the full caches.
fn insert_concurrently(options: &Options, caches: &[Box<dyn Subject>]) {
    let table = Table::new(
        "the same, several threads: million per second, all threads",
        &columns("threads", options, "hotset / quick_cache"),
    );
    let (rounds, time) = if options.quick { (5, 30) } else { (31, 100) };
    // Far from the keys that are there.
    let next: Vec<AtomicUsize> = caches.iter().map(|_| AtomicUsize::new(1 << 40)).collect();
    for threads in [1, 2, 4] {
        let results = interleave(rounds, caches.len(), |i, _| {
            let (speed, _) = throughput(threads, Duration::from_millis(time), 64, CHUNK, |_, _| {
                let first = next[i].fetch_add(CHUNK, Ordering::Relaxed);
                caches[i].insert_new(first as u64, CHUNK as u64);
                0
            });
            speed / 1e6
        });
        compare_row(&table, threads.to_string(), options, &results, 1, Target::AtLeast(1.0));
    }
}

/// What `zipf` and `zipf-all` measure in one process, as a row of the table.
#[derive(clap::Args, Clone, Copy, PartialEq)]
struct ZipfRow {
    #[arg(value_enum)]
    call: Through,
    exponent: f64,
    capacity: usize,
    threads: usize,
    target: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Through {
    ReadThrough,
    CacheAside,
}

impl Through {
    fn call(self) -> Call {
        match self {
            Through::ReadThrough => |cache, ids| cache.read_through(ids),
            Through::CacheAside => |cache, ids| cache.cache_aside(ids),
        }
    }
    fn title(self) -> &'static str {
        match self {
            Through::ReadThrough => "get_or_insert_with",
            Through::CacheAside => "get, then insert",
        }
    }
}

/// Measures reads through a cache, for each exponent and capacity by both calls on 1, 2 and 4
/// threads.
///
/// Each row is measured in a process of its own. In one process the caches of a later row allocate
/// from what those of the earlier rows left in malloc's free lists, and the same code then differs
/// by a third from process to process.
fn zipf(options: &Options, exponents: &[f64], capacities: &[usize], target: fn(Through, usize) -> f64) -> ExitCode {
    let me = std::env::current_exe().expect("the path of this program");
    let mut ok = true;
    for exponent in exponents {
        for call in [Through::ReadThrough, Through::CacheAside] {
            let mut header = columns("capacity, threads", options, "hotset / quick_cache");
            header.extend(["hit ratios, %", "difference", "target", "", "waited"]);
            let title = format!(
                "read-through by {}, zipf {exponent}, ten times as many keys as capacity: million operations per second",
                call.title()
            );
            Table::new(&title, &header);
            for capacity in capacities {
                for threads in [1, 2, 4] {
                    let mut command = Command::new(&me);
                    command
                        .arg("zipf-row")
                        .arg(call.to_possible_value().expect("no variant is skipped").get_name());
                    command.args([exponent.to_string(), capacity.to_string(), threads.to_string()]);
                    command.arg(target(call, threads).to_string());
                    command.args(["--peers", &options.caches.join(",")]);
                    if options.quick {
                        command.arg("--quick");
                    }
                    ok &= run(&mut command);
                }
            }
        }
    }
    println!(
        "\n\"waited\": the share of the measured time for which the threads waited for a processor, where there are \
         no more threads than processors; above 2% run it again on a quieter machine before believing it."
    );
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn zipf_row(options: &Options, row: ZipfRow) {
    let ZipfRow {
        call,
        exponent,
        capacity,
        threads,
        target,
    } = row;
    let call = call.call();
    let (rounds, time, length) = if options.quick {
        (3, 60, 1 << 20)
    } else {
        (15, 250, 1 << 24)
    };
    let zipf = Zipf::new(10 * capacity, exponent);
    // Long, because a repeated sequence favors caches more than the distribution: its rare keys
    // return.
    let ids = zipf.sequence(length, 17);
    // For the hit ratios of new caches: a sequence per thread to warm up, and one to count.
    let share = (length / 16).max(1 << 19).max(4 * capacity);
    let part = |seed: u64| {
        (0..4)
            .map(|thread| zipf.sequence(share, seed + thread))
            .collect::<Vec<_>>()
    };
    let (warm, counted) = (part(101), part(201));
    let build = || {
        options
            .caches
            .iter()
            .map(|name| peers::build(name, capacity))
            .collect::<Vec<_>>()
    };
    let caches = build();
    for cache in &caches {
        warm.iter().for_each(|ids| {
            call(&**cache, ids);
        });
    }
    // Each thread starts in its own part, and continues in the next round where it stopped.
    let at: Vec<Vec<AtomicUsize>> = caches
        .iter()
        .map(|_| {
            (0..threads)
                .map(|thread| AtomicUsize::new(length / CHUNK * thread / threads))
                .collect()
        })
        .collect();
    let results = interleave(rounds, caches.len(), |i, _| {
        let cache = &*caches[i];
        let (speed, _) = throughput(threads, Duration::from_millis(time), 64, CHUNK, |thread, _| {
            call(cache, piece(&ids, at[i][thread].fetch_add(1, Ordering::Relaxed)))
        });
        speed / 1e6
    });
    drop(caches);
    let hits: Vec<f64> = build()
        .iter()
        .map(|cache| 100.0 * hit_ratio(&**cache, call, &warm, &counted, threads))
        .collect();
    let mut cells = vec![format!("{capacity}, {threads}")];
    cells.extend(results.iter().map(|r| format!("{:.2}", median(r))));
    let (mut speed, mut kept) = (vec![String::from("-"); 3], vec![String::from("-"); 3]);
    if let Some(at) = options.caches.iter().position(|n| n == RIVAL) {
        // 0 stands for no target.
        let target = if target > 0.0 {
            Target::AtLeast(target)
        } else {
            Target::None
        };
        let ratio = Ratio::of(&results[0], &results[at]);
        speed = vec![ratio.to_string(), target.text(), target.verdict(ratio.median).into()];
        let target = Target::AtLeast(0.0);
        let more = hits[0] - hits[at];
        kept = vec![format!("**{more:+.2}**"), target.text(), target.verdict(more).into()];
    }
    cells.extend(speed);
    cells.push(hits.iter().map(|h| format!("{h:.2}")).collect::<Vec<_>>().join(" / "));
    cells.extend(kept);
    cells.push(waited().map_or("-".into(), |share| format!("{:.1}%", 100.0 * share)));
    Table.row(&cells);
}

type Call = fn(&dyn Subject, &[u32]) -> u64;

/// Returns the hit ratio of a new cache when every thread has run its sequence of `warm` and then
/// its sequence of `counted`: the same requests for every cache, none repeated.
fn hit_ratio(cache: &dyn Subject, call: Call, warm: &[Vec<u32>], counted: &[Vec<u32>], threads: usize) -> f64 {
    let pass = |sequences: &[Vec<u32>]| -> u64 {
        std::thread::scope(|scope| {
            let running: Vec<_> = sequences
                .iter()
                .map(|ids| scope.spawn(move || call(cache, ids)))
                .collect();
            running
                .into_iter()
                .map(|t| t.join().expect("a measuring thread panicked"))
                .sum()
        })
    };
    pass(&warm[..threads]);
    let misses = pass(&counted[..threads]);
    let requests: usize = counted[..threads].iter().map(Vec::len).sum();
    1.0 - misses as f64 / requests as f64
}

fn many(options: &Options) {
    const BATCH: usize = 64;
    let (n, rounds, ops) = if options.quick {
        (4_000_000, 5, 1 << 18)
    } else {
        (4_000_000, 21, 1 << 20)
    };
    let table = Table::new(
        "64 random keys of 4M entries, all present: ns per key",
        &["cache", "get in a loop", "get_many", "get / get_many", "target", ""],
    );
    let (cache, held) = full("hotset", n, if options.quick { 0 } else { 2 });
    // Every round has keys of its own, the same for both.
    let keys: Vec<u64> = picks(&held, 4 * ops, 23).into_iter().map(u64::from).collect();
    let results = interleave(rounds, 2, |i, round| {
        let at = round % 4 * ops;
        let keys = &keys[at..at + ops];
        // Both start equally warm: with keys of the previous round.
        cache.get64(&held.iter().take(ops / 8).map(|id| u64::from(*id)).collect::<Vec<_>>());
        let mut missing = 0;
        let time = ns_per_op(ops, || {
            missing = if i == 0 {
                keys.chunks_exact(BATCH).map(|some| cache.get64(some)).sum()
            } else {
                cache.get_many(keys, BATCH)
            }
        });
        assert_eq!(missing, 0, "gets of resident keys missed");
        time
    });
    let (ratio, target) = (Ratio::of(&results[0], &results[1]), Target::AtLeast(2.5));
    table.row(&[
        "hotset".to_string(),
        format!("{:.1}", median(&results[0])),
        format!("{:.1}", median(&results[1])),
        ratio.to_string(),
        target.text(),
        target.verdict(ratio.median).into(),
    ]);
}

fn latency(options: &Options) {
    let (n, rounds, samples) = if options.quick {
        (100_000, 5, 200_000)
    } else {
        (100_000, 21, 1_000_000)
    };
    let caches = full_caches(options, n);
    let reads: Vec<Vec<u32>> = caches.iter().map(|(_, held)| picks(held, samples, 29)).collect();
    let writes: Vec<Vec<u32>> = caches.iter().map(|(_, held)| picks(held, 1 << 18, 31)).collect();
    const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
    // seen[quantile][cache][round]; the last two are the mean and the writer's speed.
    let mut seen = vec![vec![vec![0.0; rounds]; caches.len()]; QUANTILES.len() + 2];
    let mut times = Latencies::default();
    interleave(rounds, caches.len(), |i, round| {
        let cache = &*caches[i].0;
        times.clear();
        let (barrier, stop) = (Barrier::new(2), AtomicBool::new(false));
        let writer_speed = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                cache.insert_ids(&writes[i][..CHUNK * 8]);
                barrier.wait();
                let (start, mut number) = (Instant::now(), 0);
                while !stop.load(Ordering::Relaxed) {
                    cache.insert_ids(piece(&writes[i], number));
                    number += 1;
                }
                (number * CHUNK) as f64 / start.elapsed().as_secs_f64() / 1e6
            });
            cache.get32(&reads[i][..samples / 8]);
            barrier.wait();
            let watch = Watch::start();
            cache.timed_gets(&reads[i], &mut times);
            watch.stop();
            stop.store(true, Ordering::Relaxed);
            writer.join().expect("the writer panicked")
        });
        for (at, (_, q)) in QUANTILES.iter().enumerate() {
            seen[at][i][round] = times.quantile(*q);
        }
        seen[QUANTILES.len()][i][round] = times.mean();
        seen[QUANTILES.len() + 1][i][round] = writer_speed;
        0.0
    });
    let table = Table::new(
        "a get beside one thread that overwrites at full speed, 100k entries: ns, the clock's own cost included",
        &columns("", options, "hotset / quick_cache"),
    );
    for (at, (label, _)) in QUANTILES.iter().enumerate() {
        let target = if *label == "p99.9" {
            Target::AtMost(1.5)
        } else {
            Target::None
        };
        compare_row(&table, label.to_string(), options, &seen[at], 0, target);
    }
    compare_row(&table, "mean".into(), options, &seen[QUANTILES.len()], 0, Target::None);
    compare_row(
        &table,
        "overwrites, M/s".into(),
        options,
        &seen[QUANTILES.len() + 1],
        1,
        Target::None,
    );
}

/// Gets keys of a cache of 1k entries. Run with N and with 2N operations, the difference is N gets.
fn ir_get(options: &Options) {
    for name in &options.caches {
        let (cache, ids) = if name == "loop" {
            (peers::build(name, 1_000), (0..1_000).collect())
        } else {
            // Room for all keys, so that every run looks up the same thousand.
            let cache = peers::build(name, 2_000);
            let ids: Vec<u32> = (0..1_000).collect();
            cache.insert_ids(&ids);
            (cache, ids)
        };
        let sequence: Vec<u16> = picks(&ids, 1 << 14, 3).into_iter().map(|id| id as u16).collect();
        let mut left = options.ops as usize;
        while left > 0 {
            let part = left.min(sequence.len());
            assert_eq!(cache.get16(&sequence[..part]), 0, "gets of resident keys missed");
            left -= part;
        }
    }
}

/// Inserts new keys into a full cache of 100k entries. For an instruction count it runs with N and
/// with 2N operations.
fn ir_insert(options: &Options) {
    let n = 100_000;
    for name in &options.caches {
        let cache = peers::build(name, n);
        cache.insert_new(1, 3 * n as u64);
        cache.insert_new(3 * n as u64 + 1, options.ops);
    }
}

/// Reads through a cache of 100k entries, zipf 0.99 over a million keys, by `call`. For an
/// instruction count it runs with N and with 2N operations.
fn ir_zipf(options: &Options, call: Call) {
    // As many ids whatever N is, so that the difference of two runs has no drawing in it.
    let ids = Zipf::new(1_000_000, 0.99).sequence(1 << 22, 17);
    for name in &options.caches {
        let cache = peers::build(name, 100_000);
        let mut left = options.ops as usize;
        while left > 0 {
            let part = left.min(ids.len());
            call(&*cache, &ids[..part]);
            left -= part;
        }
    }
}
