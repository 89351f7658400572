//! A tour of the cache: lookups, bounds, expiration, loads, atomic updates and snapshots.
//!
//!     cargo run --release --example basics

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotset::{Cache, Cause, ManualClock};

/// Looks up, inserts and removes.
fn lookups() {
    let cache = Cache::new(1_000);
    cache.insert("ann", 31);
    cache.insert("bob", 27);
    assert_eq!(cache.get("ann"), Some(31));
    assert_eq!(cache.get_many(&["ann", "cid"]), [Some(31), None]);
    // Clones share one cache: give each thread its own.
    let shared = cache.clone();
    std::thread::spawn(move || shared.insert("cid", 45)).join().unwrap();
    assert!(cache.contains_key("cid"));
    cache.remove("bob");
    assert_eq!(cache.len(), 2);
}

/// Bounds a cache by weight, and observes what leaves it.
fn bounds() -> Result<(), Box<dyn Error>> {
    let evicted = Arc::new(Mutex::new(Vec::new()));
    let seen = evicted.clone();
    let cache: Cache<u64, String> = Cache::builder()
        .max_weight(100)
        .weigher(|_, value: &String| value.len() as u64)
        .on_removal(move |key, _, cause| {
            if cause == Cause::Size {
                seen.lock().unwrap().push(*key);
            }
        })
        .build()?;
    for key in 0..20 {
        cache.insert(key, "ten bytes.".to_owned());
    }
    assert!(cache.weight() <= 100);
    assert_eq!(evicted.lock().unwrap().len(), 20 - cache.len());
    Ok(())
}

/// Expires entries, under a clock that the test moves.
fn expiration() -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .max_entries(1_000)
        .time_to_live(Duration::from_secs(60))
        .clock(clock.clone()) // a program leaves it out
        .build()?;
    cache.insert("token", 1);
    cache.insert_with_ttl("short", 2, Duration::from_secs(5));
    clock.advance(Duration::from_secs(5));
    assert_eq!((cache.get("token"), cache.get("short")), (Some(1), None));
    clock.advance(Duration::from_secs(55));
    assert_eq!(cache.get("token"), None);
    Ok(())
}

/// Loads absent values: one loader runs per key, and concurrent callers share its value.
fn loads() -> Result<(), Box<dyn Error>> {
    let cache: Cache<u64, u64> = Cache::new(1_000);
    assert_eq!(cache.get_or_insert_with(7, || 49), 49);
    assert_eq!(cache.get_or_insert_with(7, || unreachable!("a hit runs no loader")), 49);
    let parsed = cache.try_get_or_insert_with(8, || "64".parse::<u64>())?;
    assert_eq!(parsed, 64);
    Ok(())
}

/// Updates atomically: no other change comes between reading and writing.
fn updates() {
    let cache: Cache<&str, u64> = Cache::new(1_000);
    for _ in 0..3 {
        cache.compute("visits", |count| Some(count.unwrap_or(0) + 1));
    }
    assert_eq!(cache.get("visits"), Some(3));
}

/// Saves a cache, and loads it as after a restart.
fn snapshots() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("hotset-basics-{}", std::process::id()));
    let cache: Cache<u64, String> = Cache::new(1_000);
    cache.insert(1, "one".to_owned());
    cache.save(&path)?;
    let restarted: Cache<u64, String> = Cache::new(1_000);
    let loaded = restarted.load(&path);
    std::fs::remove_file(&path)?;
    assert_eq!(loaded?.entries, 1);
    assert_eq!(restarted.get(&1).as_deref(), Some("one"));
    Ok(())
}

fn run() -> Result<(), Box<dyn Error>> {
    lookups();
    bounds()?;
    expiration()?;
    loads()?;
    updates();
    snapshots()
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => {
            println!("every assertion holds");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("basics: {error}");
            ExitCode::FAILURE
        }
    }
}

#[test]
fn every_family_works() {
    run().unwrap();
}
