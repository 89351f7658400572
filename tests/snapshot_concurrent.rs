//! Snapshots while the cache is used, and what they keep of the policy's knowledge.

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;

use common::{Folder, Random};
use hotset::Cache;
use hotset::snapshot::LoadOptions;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

fn eager() -> LoadOptions {
    LoadOptions::new().eager(true)
}

#[test]
fn a_file_replaced_while_it_is_used_stays_readable() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let filled = |mark: u8| {
        let cache: Cache<u64, Vec<u8>> = Cache::new(10_000);
        (0..5_000).for_each(|key| cache.insert(key, vec![mark; 50]));
        cache
    };
    filled(1).save(&path).unwrap();
    let cache: Cache<u64, Vec<u8>> = Cache::new(10_000);
    cache.load(&path).unwrap();
    assert_eq!(cache.get(&0), Some(vec![1; 50]));
    filled(2).save(&path).unwrap();
    for key in 0..5_000 {
        assert_eq!(cache.get(&key), Some(vec![1; 50]), "key {key}");
    }
    // A cache that was opened from a path can be saved to it, with what it was never asked for.
    let cache: Cache<u64, Vec<u8>> = Cache::new(10_000);
    cache.load(&path).unwrap();
    cache.insert(5_000, vec![3; 50]);
    cache.save(&path).unwrap();
    let again: Cache<u64, Vec<u8>> = Cache::new(10_000);
    again.load_with(&path, &eager()).unwrap();
    assert_eq!(again.get(&5_000), Some(vec![3; 50]));
    for key in 0..5_000 {
        assert_eq!(again.get(&key), Some(vec![2; 50]), "key {key}");
    }
}

/// Ends what other threads do, also when the test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A value that is replaced has one all the time, and so has the file.
#[test]
fn what_is_overwritten_is_saved() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let cache: Cache<u64, u64> = Cache::new(5_000);
    (0..500).for_each(|key| cache.insert(key, key));
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stopped);
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0.. {
                    if stopped.load(Relaxed) {
                        break;
                    }
                    cache.insert(n % 500, n);
                }
            });
        }
        for _ in 0..50 {
            assert_eq!(cache.save(&path).unwrap().entries, 500);
        }
    });
}

#[test]
fn saving_does_not_stop_the_world() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let cache: Cache<u64, Vec<u8>> = Cache::new(5_000);
    let value = |key: u64, version: u64| format!("{key} {version} {}", "x".repeat(key as usize % 90)).into_bytes();
    let of = |key: u64, bytes: &[u8]| bytes.starts_with(format!("{key} ").as_bytes());
    (0..5_000).for_each(|key| cache.insert(key, value(key, 0)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopped = Stop(&stop);
        let workers: Vec<_> = (1..4)
            .map(|seed| {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let (mut random, mut calls) = (Random(seed), 0u64);
                    while !stop.load(Relaxed) {
                        let key = random.next() % 8_000;
                        match random.next() % 8 {
                            0 => drop(cache.remove(&key)),
                            1..4 => cache.insert(key, value(key, calls)),
                            _ => assert!(cache.get(&key).is_none_or(|found| of(key, &found))),
                        }
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for _ in 0..20 {
            cache.save(&path).unwrap();
            let copy: Cache<u64, Vec<u8>> = Cache::new(10_000);
            copy.load_with(&path, &eager()).unwrap();
            assert!(copy.len() > 1_000);
            assert!(copy.iter().all(|(key, found)| of(key, &found)));
            copy.validate();
        }
        drop(stopped);
        for worker in workers {
            assert!(worker.join().unwrap() > 0);
        }
    });
    cache.validate();
    assert_eq!(folder.names(), ["cache.hotset"]);
}

/// Keys of which low ones are likelier, and now and then a scan of keys that do not come again.
fn requests(random: &mut Random, count: u64) -> Vec<u64> {
    let skewed = |random: &mut Random| {
        let unit = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        (20_000f64.powf(unit) - 1.0) as u64
    };
    (0..count)
        .map(|n| {
            if n % 5_000 < 1_500 {
                1 << 32 | random.next() >> 32
            } else {
                skewed(random)
            }
        })
        .collect()
}

fn hit_ratio(cache: &Cache<u64, u64>, keys: &[u64]) -> f64 {
    let mut hits = 0;
    for key in keys {
        match cache.get(key) {
            Some(value) => {
                assert_eq!(value, *key);
                hits += 1;
            }
            None => cache.insert(*key, *key),
        }
    }
    f64::from(hits) / keys.len() as f64
}

#[test]
fn the_hit_ratio_goes_on_where_it_was() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let mut random = Random(3);
    let (before, after) = (requests(&mut random, 150_000), requests(&mut random, 30_000));
    let stayed: Cache<u64, u64> = Cache::new(1_000);
    hit_ratio(&stayed, &before);
    stayed.save(&path).unwrap();
    let restarted = |options: &LoadOptions, capacity| {
        let cache: Cache<u64, u64> = Cache::new(capacity);
        cache.load_with(&path, options).unwrap();
        let ratio = hit_ratio(&cache, &after);
        cache.run_pending();
        assert!(cache.len() <= capacity);
        cache.validate();
        ratio
    };
    let (lazy, full, smaller) = (
        restarted(&LoadOptions::new(), 1_000),
        restarted(&eager(), 1_000),
        restarted(&eager(), 300),
    );
    let cold = hit_ratio(&Cache::new(1_000), &after);
    let stayed = hit_ratio(&stayed, &after);
    println!("stayed {stayed:.4}, lazy {lazy:.4}, eager {full:.4}, cold {cold:.4}; 300 entries {smaller:.4}");
    for warm in [lazy, full] {
        assert!((warm - stayed).abs() < 0.01, "{warm} after a restart, {stayed} without");
    }
}
