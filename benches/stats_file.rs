//! What a name and a stats file cost: instructions per hit and per insertion that evicts, exact, by
//! callgrind. Without arguments the program runs itself under it, with twice the operations each
//! time: the difference excludes start and fill.

use hotset::{Cache, stats_file};
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::process::Command;
use std::{env, fs, process};

const CAPACITY: u64 = 1000;
const OPERATIONS: u64 = 500_000;
/// How a cache is kept, as the table has it.
const MODES: [(&str, &str); 3] = [
    ("plain", "without a name"),
    ("named", "with a name, without a stats file"),
    ("file", "with a stats file"),
];

/// A hasher without a seed.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        let product = u128::from(key ^ 0x9E37_79B9_7F4A_7C15) * 0xA076_1D64_78BD_642F;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

type Mixing = BuildHasherDefault<Mix>;

fn work(mode: &str, job: &str, operations: u64) {
    // Hashed equally in every run: where the keys lie decides what finding them costs.
    let mut builder = Cache::<u64, u64, Mixing>::builder_with_hasher(Mixing::default()).max_entries(CAPACITY as usize);
    if mode != "plain" {
        builder = builder.name("measured");
    }
    let cache = builder.build().expect("settings that go together");
    let directory = env::temp_dir().join(format!("hotset-bench-{}", process::id()));
    if mode == "file" {
        fs::create_dir(&directory).expect("a new directory");
        #[cfg(unix)]
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode");
        stats_file::enable(&directory).expect("a directory of mode 0700");
    }
    match job {
        "hit" => {
            (0..CAPACITY / 2).for_each(|key| cache.insert(key, key));
            for number in 0..operations {
                black_box(cache.get(&(number % (CAPACITY / 2)))).expect("it fits");
            }
        }
        _ => {
            // In the steady state: the policy's sketch has been filled.
            (0..200 * CAPACITY).for_each(|key| cache.insert(key, key));
            (0..operations).for_each(|number| cache.insert(1_000_000 + number, number));
        }
    }
    drop(cache);
    _ = fs::remove_dir_all(directory);
}

/// Returns the instructions of a run.
fn instructions(mode: &str, job: &str, operations: u64) -> u64 {
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([mode, job, &operations.to_string()])
        .env_remove("HOTSET_STATS")
        .output()
        .expect("valgrind (`make tools` installs it)");
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected :"));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("callgrind counted nothing:\n{text}"))
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [mode, job, operations] = &arguments[..] {
        return work(mode, job, operations.parse().expect("a number of operations"));
    }
    println!("| cache | instructions per hit | per insertion that evicts |\n|---|---|---|");
    for (mode, name) in MODES {
        let per_operation = |job| {
            let (once, twice) = (
                instructions(mode, job, OPERATIONS),
                instructions(mode, job, 2 * OPERATIONS),
            );
            (twice as f64 - once as f64) / OPERATIONS as f64
        };
        println!(
            "| {name} | {:.1} | {:.1} |",
            per_operation("hit"),
            per_operation("insert")
        );
    }
}
