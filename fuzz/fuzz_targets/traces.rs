//! The replay example's readers of traces, on any bytes in any format: the result is a trace or a
//! printable message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;

#[allow(unused, unreachable_pub)]
#[path = "../../examples/replay/csv.rs"]
mod csv;
#[allow(unused, unreachable_pub)]
#[path = "../../examples/replay/formats.rs"]
mod formats;
#[allow(unused, unreachable_pub)]
#[path = "../../examples/replay/progress.rs"]
mod progress;
#[allow(unused, unreachable_pub)]
#[path = "../../examples/replay/trace.rs"]
mod trace;

use formats::Format;

const FORMATS: [Format; 6] = [
    Format::U32,
    Format::U64,
    Format::Arc,
    Format::Lirs,
    Format::Text,
    Format::Csv,
];
const NAMES: [&str; 3] = ["trace.txt", "trace.gz", "trace.zst"];
/// Compressed bytes may unpack to very many.
const LIMIT: usize = 100_000;

fuzz_target!(|data: &[u8]| {
    let [choice, bytes @ ..] = data else { return };
    let (format, name) = (FORMATS[*choice as usize % 6], NAMES[*choice as usize / 6 % 3]);
    let folder: PathBuf = std::env::temp_dir().join(format!("hotset-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file");
    let columns = csv::Columns::default();
    match formats::read(&path, format, &columns, Some(LIMIT)) {
        Ok(trace) => {
            assert!(!trace.keys.is_empty() && trace.keys.len() <= LIMIT && trace.unique <= trace.keys.len());
            assert!(trace.keys.iter().all(|key| (*key as usize) < trace.unique));
            assert!(trace.sizes.as_ref().is_none_or(|sizes| sizes.len() == trace.keys.len()));
            assert!(
                trace
                    .sizes
                    .iter()
                    .flatten()
                    .all(|size| *size > 0 && *size <= trace::MAX_SIZE)
            );
        }
        Err(message) => {
            assert!(message.starts_with(&path.display().to_string()), "{message}");
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
    std::fs::remove_dir_all(&folder).expect("the folder goes");
});
