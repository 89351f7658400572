//! Replays of recorded accesses: the hit ratios that the default policy must reach.
//!
//! The traces and the table of other implementations are not part of the repository; without them
//! the tests only print that. `HOTSET_ALL_TRACES=1`, or a release build, adds the long ones.
//! `HOTSET_SEEDS=6` averages over six hash seeds instead of three.

use super::testing::{Handle, Store, XorShift};
use super::{AnyPolicy, Entries, Policy, PolicyKind};
use std::io::Read;
use std::path::PathBuf;

fn shared() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"))
}

fn trace(name: &str) -> Option<Vec<u32>> {
    let file = std::fs::File::open(shared().join(format!("traces/{name}.u32.gz"))).ok()?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).ok()?;
    Some(
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&key| u32::from_le_bytes(key))
            .collect(),
    )
}

/// Mixes a key to 32 bits (the finalizer of MurmurHash3).
fn hash(key: u32, seed: u32) -> u32 {
    let mut x = key ^ 0x5bd1_e995 ^ seed.wrapping_mul(0x9E37_79B9);
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// The hit ratio in percent: each request is a get, and an insert if that misses.
fn replay(kind: PolicyKind, trace: &[u32], capacity: u64, seed: u32) -> f64 {
    let mut policy = AnyPolicy::<Store>::new(kind, capacity, false);
    let (limit, eager) = (policy.hit_limit(), policy.eager_hits());
    let mut store = Store::default();
    let keys = trace.iter().max().map_or(0, |&key| key as usize + 1);
    let (mut map, mut key_of): (Vec<Option<Handle>>, Vec<u32>) = (vec![None; keys], Vec::new());
    let (mut free, mut out, mut hits) = (Vec::new(), Vec::new(), 0u32);
    for &key in trace {
        if let Some(handle) = map[key as usize] {
            hits += 1;
            if store.hits(handle) < limit {
                store.touch(handle, limit);
            }
            if eager {
                policy.hit(&store, handle);
            }
            continue;
        }
        let handle = match free.pop() {
            Some(handle) => store.reuse(handle, hash(key, seed)),
            None => {
                key_of.push(0);
                store.add(hash(key, seed), 1)
            }
        };
        key_of[handle.get() as usize - 1] = key;
        map[key as usize] = Some(handle);
        policy.insert(&store, handle, &mut out);
        for (gone, _) in out.drain(..) {
            map[key_of[gone.get() as usize - 1] as usize] = None;
            free.push(gone);
        }
    }
    policy.validate(&store);
    100.0 * f64::from(hits) / trace.len() as f64
}

/// Each key is requested twice, the second time at most 990 insertions later: the worst case for a
/// policy that counts. The window takes nearly the whole cache.
#[test]
fn window_grows_for_a_stream_of_recent_keys() {
    let mut rng = XorShift(5);
    let stream: Vec<u32> = (1000..100_000).flat_map(|n| [n, n - 1 - rng.below(990)]).collect();
    let (ours, lru) = (
        replay(PolicyKind::WTinyLfu, &stream, 1000, 0),
        replay(PolicyKind::Lru, &stream, 1000, 0),
    );
    println!("{ours:.2}, LRU {lru:.2}");
    assert!(ours > lru + 3.0, "{ours:.2}, LRU {lru:.2}");
}

#[test]
fn hit_ratios_reach_the_table() {
    let Ok(table) = std::fs::read_to_string(shared().join("policy-tables.txt")) else {
        println!("no traces here: skipped");
        return;
    };
    let all = !cfg!(debug_assertions) || std::env::var_os("HOTSET_ALL_TRACES").is_some();
    let seeds: u32 = std::env::var("HOTSET_SEEDS").map_or(3, |seeds| seeds.parse().expect("a number of hash seeds"));
    let (mut rows, mut sum, mut worst) = (0, 0.0, 0.0f64);
    let (mut ours, mut loaded) = (0.0, (String::new(), Vec::new()));
    for line in table.lines().filter(|line| !line.starts_with(['#', '='])) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(&name), Some(Ok(capacity))) = (fields.first(), fields.get(2).map(|field| field.parse())) else {
            continue;
        };
        if !all
            && [
                "arc_p3",
                "c2k_orm_night",
                "arc_oltp",
                "lirs_2_pools",
                "addr_gcc",
                "addr_twolf",
                "corda_vaultservice",
            ]
            .contains(&name)
        {
            continue;
        }
        if loaded.0 != name {
            let Some(requests) = trace(name) else { continue };
            loaded = (name.to_owned(), requests);
        }
        let expected: f64 = fields[fields.len() - 1].parse().expect("a number in the last column");
        let ratios = (0..seeds).map(|seed| replay(PolicyKind::WTinyLfu, &loaded.1, capacity, seed));
        let ratios = ratios.collect::<Vec<_>>();
        let ratio = ratios.iter().sum::<f64>() / f64::from(seeds);
        worst = ratios.iter().fold(worst, |worst, ratio| worst.min(ratio - expected));
        println!(
            "{name:20} {capacity:7} {ratio:6.2} {expected:6.2} {:+.2}",
            ratio - expected
        );
        rows += 1;
        ours += ratio;
        sum += ratio - expected;
        assert!(
            ratio - expected >= -0.7,
            "{name} at {capacity}: {ratio:.2}, table {expected:.2}"
        );
    }
    if rows == 0 {
        println!("no traces here: skipped");
        return;
    }
    let average = sum / f64::from(rows);
    println!(
        "{rows} rows, average {:.3}, against the table {average:+.3}, worst {worst:+.2}",
        ours / f64::from(rows)
    );
    assert!(average >= -0.1);
}
