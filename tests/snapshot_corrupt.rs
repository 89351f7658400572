//! Tens of thousands of corrupt files: no panic, no wrong value; with repaired checksums, no more
//! memory than the file's size justifies.

#![cfg(feature = "snapshot")]

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;
// Counts the live heap bytes.
#[path = "../examples/replay/heap.rs"]
mod heap;
#[path = "snapshot/mutate.rs"]
mod mutate;
#[path = "snapshot/repair.rs"]
mod repair;

use common::{Folder, Random};
use hotset::Cache;
use hotset::snapshot::LoadOptions;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// The heap is counted for the process, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

type Bytes = Cache<Vec<u8>, Vec<u8>>;
type Values = HashMap<Vec<u8>, Vec<u8>>;

fn empty() -> Bytes {
    Cache::new(200)
}

/// A snapshot's bytes, and its entries.
struct Sample {
    file: Vec<u8>,
    values: Values,
}

/// Snapshots of a few sizes. Keys repeat from one to the next, with different values.
fn samples(folder: &Folder) -> Vec<Sample> {
    let path = folder.join("sample");
    let mut samples = Vec::new();
    for (number, entries) in [0, 1, 3, 12, 40, 40].into_iter().enumerate() {
        let cache = empty();
        let mut values = Values::new();
        for n in 0..entries {
            let key = format!("key {n}").into_bytes();
            let value = vec![(number * 50 + n) as u8; n * 7 % 60];
            if n % 3 == 2 {
                cache.insert_with_ttl(key.clone(), value.clone(), Duration::from_secs(3_600));
            } else {
                cache.insert(key.clone(), value.clone());
            }
            if n % 2 == 0 {
                cache.get(&key);
            }
            values.insert(key, value);
        }
        cache.save(&path).unwrap();
        let file = fs::read(&path).unwrap();
        samples.push(Sample { file, values });
    }
    samples
}

/// Writes a new file: a file mapped by an older cache stays as it is.
fn write(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, content).unwrap();
}

/// The ways to load a file: mapped and copied, and with all entries inserted before the load
/// returns.
const WAYS: usize = 3;

fn ways() -> [LoadOptions; WAYS] {
    let options = LoadOptions::new();
    [options, options.eager(true), options.copy(true)]
}

/// Loads the file in all ways, looks up all keys and some more, and warms. `right` checks the
/// values found. Returns how often the file was loaded.
fn ask_all(path: &Path, keys: &[Vec<u8>], right: impl Fn(&[u8], &[u8]) -> bool) -> u32 {
    let mut opened = 0;
    for options in ways() {
        let cache = empty();
        match cache.load_with(path, &options) {
            Ok(_) => opened += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(cache.len(), 0, "a file that is refused leaves nothing: {error}");
            }
        }
        for key in keys {
            if let Some(value) = cache.get(key) {
                assert!(right(key, &value), "{key:?}: {value:?}");
            }
        }
        cache.warm();
        for (key, value) in cache.iter() {
            assert!(right(&key, &value), "{key:?}: {value:?}");
        }
        assert!(cache.len() <= 210);
        cache.insert(b"new".to_vec(), b"value".to_vec());
        assert_eq!(cache.get(&b"new"[..]), Some(b"value".to_vec()), "the cache works");
    }
    opened
}

fn keys() -> Vec<Vec<u8>> {
    let known = (0..44).map(|n| format!("key {n}").into_bytes());
    known.chain([b"".to_vec(), b"another".to_vec()]).collect()
}

#[test]
fn unmodified_samples_load() {
    let _alone = ALONE.lock();
    let folder = Folder::new();
    for sample in samples(&folder) {
        let path = folder.join("copy");
        write(&path, &sample.file);
        let cache = empty();
        cache.load(&path).unwrap();
        for (key, value) in &sample.values {
            assert_eq!(cache.get(key).as_ref(), Some(value));
        }
        // Recomputed checksums of a valid file equal its own.
        let mut repaired = sample.file.clone();
        repair::repair(&mut repaired);
        assert_eq!(repaired, sample.file);
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let _alone = ALONE.lock();
    let folder = Folder::new();
    let path = folder.join("corrupt");
    let (sample, keys) = (&samples(&folder)[2], keys());
    // A load checks header and index; records are checked when they are looked up, or by an eager
    // load.
    let index = sample.file.len() - 16 * sample.values.len();
    for bit in 0..sample.file.len() * 8 {
        let mut file = sample.file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        write(&path, &file);
        let opened = ask_all(&path, &keys, |key, value| {
            sample.values.get(key).is_some_and(|right| right == value)
        });
        let may_open = u32::from((128..index).contains(&(bit / 8)));
        assert!(opened <= may_open, "bit {bit}: opened {opened} times");
    }
}

#[test]
fn every_truncation_is_detected() {
    let _alone = ALONE.lock();
    let folder = Folder::new();
    let path = folder.join("corrupt");
    let (sample, keys) = (&samples(&folder)[3], keys());
    for len in 0..sample.file.len() {
        write(&path, &sample.file[..len]);
        let opened = ask_all(&path, &keys, |_, _| false);
        assert_eq!(opened, 0, "{len} of {} bytes", sample.file.len());
    }
}

#[test]
fn corruption_of_all_kinds_is_survived() {
    let _alone = ALONE.lock();
    let folder = Folder::new();
    let path = folder.join("corrupt");
    let (samples, keys) = (samples(&folder), keys());
    let mut random = Random::new(1);
    let mut opened = 0;
    for _ in 0..12_000 {
        let (sample, other) = (
            &samples[random.below(samples.len())],
            &samples[random.below(samples.len())],
        );
        let mut file = sample.file.clone();
        for _ in 0..1 + random.below(3) {
            mutate::mutate(&mut file, &other.file, &mut random);
        }
        write(&path, &file);
        opened += ask_all(&path, &keys, |key, value| {
            // Of two spliced snapshots either's value may be found, but never another key's.
            [sample, other]
                .iter()
                .any(|of| of.values.get(key).is_some_and(|right| right == value))
        });
    }
    println!("{opened} of {} opened", WAYS * 12_000);
}

#[test]
fn corruption_with_valid_checksums_is_survived() {
    let _alone = ALONE.lock();
    let folder = Folder::new();
    let path = folder.join("corrupt");
    let (samples, keys) = (samples(&folder), keys());
    let mut random = Random::new(2);
    let (mut opened, mut most) = (0, 0);
    for _ in 0..20_000 {
        let (sample, other) = (
            &samples[random.below(samples.len())],
            &samples[random.below(samples.len())],
        );
        let mut file = sample.file.clone();
        for _ in 0..1 + random.below(2) {
            mutate::mutate(&mut file, &other.file, &mut random);
        }
        repair::repair(&mut file);
        write(&path, &file);
        let before = heap::baseline();
        opened += ask_all(&path, &keys, |_, _| true);
        most = most.max(heap::peak_above(before));
        // A cache of 200 entries, the values found, and a few times the file's size.
        assert!(
            most < (256 << 10) + 16 * file.len(),
            "{most} bytes of heap for a file of {}",
            file.len()
        );
    }
    println!("{opened} of {} opened; at most {most} bytes of heap", WAYS * 20_000);
    assert!(
        opened > 4_000,
        "checksums made right let many files pass to what lies behind them: {opened}"
    );
}
