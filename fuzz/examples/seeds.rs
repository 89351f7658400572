//! Writes the seeds of the fuzz targets into `corpus/`, where what the fuzzer finds lies beside them.

use std::fs;
use std::path::Path;

/// Xorshift: the seeds are the same everywhere.
fn random(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u8
}

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    // Any bytes are calls; many of them reach what a few do not.
    let calls = corpus.join("cache_ops");
    fs::create_dir_all(&calls)?;
    let mut state = 0x686f_7473_6574;
    for len in [32, 200, 1_000, 4_000] {
        let bytes: Vec<u8> = (0..len).map(|_| random(&mut state)).collect();
        fs::write(calls.join(format!("seed-{len}")), bytes)?;
    }
    Ok(())
}
