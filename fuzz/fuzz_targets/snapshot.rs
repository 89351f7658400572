//! A snapshot of any bytes with repaired checksums: loaded lazily and eagerly, looked up, warmed,
//! saved again.
#![no_main]

#[path = "../../tests/snapshot/repair.rs"]
mod repair;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use hotset::Cache;
use hotset::snapshot::LoadOptions;
use libfuzzer_sys::fuzz_target;

/// In memory where there is such a place: a run is short, and a disk is slow.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("hotset-fuzz-{}", std::process::id()))
});

fuzz_target!(|input: &[u8]| {
    let mut file = input.to_vec();
    repair::repair(&mut file);
    let lazy = LoadOptions::new();
    for options in [lazy, lazy.eager(true), lazy.copy(true)] {
        // A new file each time: what an older cache has mapped stays as it is.
        let _ = fs::remove_file(&*FILE);
        fs::write(&*FILE, &file).expect("a place for the file");
        let cache: Cache<Vec<u8>, Vec<u8>> = Cache::new(200);
        if let Err(error) = cache.load_with(&*FILE, &options) {
            assert!(cache.is_empty(), "a file that is refused leaves nothing: {error}");
        }
        let _ = fs::remove_file(&*FILE);
        // The keys of the seeds.
        for n in 0..44 {
            cache.get(format!("key {n}").as_bytes());
        }
        cache.warm();
        for (key, value) in cache.iter() {
            assert_eq!(cache.get(&key), Some(value), "what is there can be found");
        }
        cache.validate();
    }
});
