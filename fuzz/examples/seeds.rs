//! Writes the seeds of the fuzz targets into `corpus/`, where what the fuzzer finds lies beside them.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use hotset::Cache;

/// Xorshift: the seeds are the same everywhere.
fn random(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u8
}

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    // Any bytes are calls; many of them reach what a few do not.
    let calls = corpus.join("cache_ops");
    fs::create_dir_all(&calls)?;
    let mut state = 0x686f_7473_6574;
    for len in [32, 200, 1_000, 4_000] {
        let bytes: Vec<u8> = (0..len).map(|_| random(&mut state)).collect();
        fs::write(calls.join(format!("seed-{len}")), bytes)?;
    }

    let snapshots = corpus.join("snapshot");
    fs::create_dir_all(&snapshots)?;
    for entries in [0, 1, 3, 12, 40] {
        let cache: Cache<Vec<u8>, Vec<u8>> = Cache::new(200);
        for n in 0..entries {
            let (key, value) = (format!("key {n}").into_bytes(), vec![n as u8; n * 7 % 60]);
            if n % 3 == 2 {
                cache.insert_with_ttl(key, value, Duration::from_secs(3_600));
            } else {
                cache.insert(key, value);
            }
        }
        cache
            .save(snapshots.join(format!("seed-{entries}")))
            .map_err(io::Error::other)?;
    }
    Ok(())
}
