//! C and Rust read each other's snapshots. `tests/run.sh` has a C program write the one and read
//! the other.

use engine::Cache;
use engine::snapshot::LoadOptions;
use std::env;

const COUNT: u32 = 1_000;

fn key(n: u32) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

/// As `value_of` in `snapshot.c`.
fn value(n: u32) -> Vec<u8> {
    (0..n % 50).map(|at| (n * 31 + at * 7) as u8).collect()
}

#[test]
#[ignore = "run.sh brings the file of a C program"]
fn each_reads_what_the_other_wrote() {
    let path = |name| env::var_os(name).unwrap_or_else(|| panic!("run.sh sets {name}"));
    let cache: Cache<Vec<u8>, Vec<u8>> = Cache::new(2 * COUNT as usize);
    let loaded = cache.load_with(path("HOTSET_BY_C"), &LoadOptions::new().eager(true));
    assert_eq!(loaded.unwrap().entries, u64::from(COUNT) + 1);
    for n in 0..COUNT {
        assert_eq!(cache.get(&key(n)), Some(value(n)));
        let ends = cache.remaining(&key(n)).unwrap();
        assert_eq!(ends.is_some(), n % 3 == 0, "{ends:?}");
    }
    assert_eq!(cache.get(&b""[..]), Some(b"of the empty key".to_vec()));

    let cache: Cache<Vec<u8>, Vec<u8>> = Cache::new(2 * COUNT as usize);
    (0..COUNT).for_each(|n| cache.insert(key(n), value(n)));
    cache.insert(vec![], b"of the empty key".to_vec());
    cache.save(path("HOTSET_BY_RUST")).unwrap();
}
