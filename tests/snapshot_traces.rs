//! The hit ratio after a restart beside that of a cache that was not restarted, on access traces
//! (`.u32.gz`: keys of 4 bytes, little-endian).

#![cfg(feature = "snapshot")]

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;

use common::Folder;
use hotset::Cache;
use hotset::snapshot::LoadOptions;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

fn read(path: &Path) -> Vec<u32> {
    let (file, mut bytes) = (File::open(path).unwrap(), Vec::new());
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|key| u32::from_le_bytes(*key)).collect()
}

/// In percent.
fn hit_ratio(cache: &Cache<u32, u32>, keys: &[u32]) -> f64 {
    let hit = |key: &&u32| cache.get(*key).is_some() || (cache.insert(**key, **key), false).1;
    100.0 * keys.iter().filter(hit).count() as f64 / keys.len() as f64
}

/// Restarts after 30, 45, 60 and 75% of the trace. Returns the hit ratio of the cache that was not
/// restarted, over the following quarter of the trace, and the differences in points of a lazy
/// load, an eager load and a cold start.
fn compare(path: &Path, keys: &[u32], capacity: usize) -> [f64; 4] {
    let new = || Cache::<u32, u32>::new(capacity);
    let mut sum = [0.0; 4];
    for percent in [30, 45, 60, 75] {
        let (before, after) = keys.split_at(keys.len() * percent / 100);
        let after = &after[..keys.len() / 4];
        let [stayed, lazy, eager, cold] = [new(), new(), new(), new()];
        hit_ratio(&stayed, before);
        stayed.save(path).unwrap();
        lazy.load(path).unwrap();
        eager.load_with(path, &LoadOptions::new().eager(true)).unwrap();
        let stayed = hit_ratio(&stayed, after);
        sum[0] += stayed / 4.0;
        for (at, cache) in [lazy, eager, cold].iter().enumerate() {
            sum[at + 1] += (hit_ratio(cache, after) - stayed) / 4.0;
        }
    }
    sum
}

#[test]
#[ignore = "a measurement: HOTSET_TRACES names traces, with colons between"]
fn restart_restores_hit_ratios_of_traces() {
    let traces = std::env::var_os("HOTSET_TRACES").expect("HOTSET_TRACES is set");
    let folder = Folder::new();
    println!("| trace | capacity | went on | lazy load | eager load | cold start |\n|---|---:|---:|---:|---:|---:|");
    for trace in std::env::split_paths(&traces) {
        let keys = read(&trace);
        let distinct = keys.iter().collect::<HashSet<_>>().len();
        for capacity in [distinct / 100, distinct / 10] {
            let [stayed, lazy, eager, cold] = compare(&folder.join("cache.hotset"), &keys, capacity);
            let name = trace.file_name().unwrap_or_default().display();
            println!("| {name} | {capacity} | {stayed:.2}% | {lazy:+.2} | {eager:+.2} | {cold:+.2} |");
            assert!(lazy > -1.0, "a restart costs no more than noise");
        }
    }
}
