//! Writes the seeds of the fuzz targets into `corpus/`, beside the inputs that the fuzzer finds.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use hotset::Cache;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    // A fixed seed: the corpus is the same on every machine.
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0x686f_7473_6574);
    // Any bytes are calls; long sequences reach states that short ones do not.
    for target in ["cache_ops", "wheel", "sketch_ghost", "c_api", "memcached_exchanges"] {
        let calls = corpus.join(target);
        fs::create_dir_all(&calls)?;
        for len in [32, 200, 1_000, 4_000] {
            let bytes: Vec<u8> = (0..len).map(|_| random.random()).collect();
            fs::write(calls.join(format!("seed-{len}")), bytes)?;
        }
    }
    let traces = corpus.join("traces");
    fs::create_dir_all(&traces)?;
    for (format, text) in TRACES.iter().enumerate() {
        fs::write(
            traces.join(format!("seed-{format}")),
            [&[format as u8 % 6], text.as_bytes()].concat(),
        )?;
    }

    let replies = corpus.join("memcached_replies");
    fs::create_dir_all(&replies)?;
    for (number, reply) in REPLIES.iter().enumerate() {
        fs::write(replies.join(format!("seed-{number}")), reply)?;
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

/// Replies of memcached servers.
const REPLIES: [&str; 5] = [
    "VALUE k 0 5 17\r\nab\r\nc\r\nEND\r\nEND\r\n",
    "VA 2 c3 t-1\r\nxy\r\nHD c12\r\nEN\r\nNS\r\nEX\r\nNF\r\n",
    "STAT pid 7\r\nSTAT time 1005\r\nEND\r\nVERSION 1.6.18\r\n",
    "STORED\r\nNOT_STORED\r\nEXISTS\r\nNOT_FOUND\r\nDELETED\r\n12\r\n",
    "SERVER_ERROR out of memory\r\nCLIENT_ERROR unauthenticated\r\n",
];

/// A trace in each format of the target, by its number there, and variants of some.
const TRACES: [&str; 12] = [
    "\x01\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00",
    "\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00",
    "5 3 0 1\n9 1 0 2\n5 2 0 3\n",
    "1\n2\n*\n1\n",
    "key-a\nkey-b\n17\nkey-a\n",
    "timestamp,key,key_size,value_size\n0,abc,3,100\n1,\"d,e\",3,7\n",
    "",
    "\x01\x00\x00\x00\x00\x00\x00\x00\x02",
    "18446744073709551615 18446744073709551615 0 1\n",
    "-1\n99999999999999999999\n",
    "a 10\nb 20\na 10\n",
    "1,2,3\n4,5,6\n",
];
