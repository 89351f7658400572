//! A process that saves is killed, hundreds of times: what lies at the path afterwards is the snapshot before, or the one
//! that was being written, whole.
#![cfg(unix)]

#[path = "snapshot/mod.rs"]
#[allow(dead_code)]
mod common;

use common::{Folder, Random};
use hotset::Cache;
use hotset::snapshot::LoadOptions;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: usize = 300;
/// Tells the child where to save.
const PATH: &str = "HOTSET_KILL_PATH";
/// Tells it which generation is the first.
const FIRST: &str = "HOTSET_KILL_FIRST";

/// How many entries a generation has: a mixture of two would be seen by their number, too.
fn entries(generation: u64) -> u64 {
    1_500 + generation % 7
}

/// Values tell their generation and key, and differ in length.
fn value(generation: u64, key: u64) -> Vec<u8> {
    let mut value = format!("{generation} {key} ").into_bytes();
    value.resize(20 + ((generation + key) % 300) as usize, b'.');
    value
}

fn empty() -> Cache<u64, Vec<u8>> {
    Cache::new(6_000)
}

fn filled(generation: u64) -> Cache<u64, Vec<u8>> {
    let cache = empty();
    for key in 0..entries(generation) {
        cache.insert(key, value(generation, key));
    }
    cache
}

/// The child: saves generation after generation, and says when it begins and when it is done.
#[test]
#[ignore = "the part of the process that is killed; does nothing unless that test starts it"]
fn the_child_saves() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    println!(); // ends the line that the test harness began
    for generation in first.. {
        let cache = filled(generation);
        println!("begin {generation}");
        cache.save(Path::new(&path)).unwrap();
        println!("saved {generation}");
    }
}

fn start(path: &Path, first: u64) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_saves", "--ignored", "--nocapture"])
        .env(PATH, path)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// What the child said last: the generation it began, and the one it finished.
#[derive(Default)]
struct Said {
    begun: Option<u64>,
    saved: Option<u64>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        // The line that the kill cut off has no end, and its number may be cut, too.
        let Some(line) = line.strip_suffix('\n') else { return };
        if let Some(generation) = line.strip_prefix("begin ") {
            self.begun = generation.parse().ok();
        } else if let Some(generation) = line.strip_prefix("saved ") {
            self.saved = generation.parse().ok();
        }
    }
}

/// The generation that lies at `path`: whole, or this panics.
fn generation_at(path: &Path, eager: bool) -> u64 {
    let cache = empty();
    let options = LoadOptions::new().eager(eager);
    cache.load_with(path, &options).unwrap();
    let first = cache.get(&0).expect("every generation has key 0");
    let generation: u64 = std::str::from_utf8(&first)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for key in 0..entries(generation) {
        assert_eq!(
            cache.get(&key),
            Some(value(generation, key)),
            "key {key} of {generation}"
        );
    }
    assert_eq!(cache.iter().count() as u64, entries(generation));
    generation
}

#[test]
fn a_kill_leaves_the_old_snapshot_or_the_new_one() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    let mut random = Random(7);
    filled(0).save(&path).unwrap();
    // How long a save usually takes here: what kills are spread over.
    let mut usual = Duration::from_micros(500);
    // The generation that is there, and the one that the next child begins with.
    let (mut there, mut first) = (0, 1);
    let (mut within, mut old, mut new, mut most_files) = (0, 0, 0, 0);
    for _ in 0..KILLS {
        let (mut child, mut out) = start(&path, first);
        let (mut said, mut line) = (Said::default(), String::new());
        // The child is let do one or two saves, and is killed in the next one, or shortly after.
        let undisturbed = random.next() % 2;
        while said.begun < Some(first + undisturbed) {
            line.clear();
            let before = Instant::now();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the child ended by itself");
            if line.starts_with("saved") {
                usual = (usual * 7 + before.elapsed()) / 8;
            }
            said.hear(&line);
        }
        std::thread::sleep(usual.mul_f64(random.below(1_000) as f64 / 900.0));
        child.kill().unwrap();
        child.wait().unwrap();
        loop {
            line.clear();
            if out.read_line(&mut line).unwrap() == 0 {
                break;
            }
            said.hear(&line);
        }
        most_files = most_files.max(folder.names().len());
        let found = generation_at(&path, false);
        assert_eq!(generation_at(&path, true), found);
        let acknowledged = said.saved.unwrap_or(there);
        let begun = said.begun.unwrap();
        assert!(
            found == acknowledged || found == begun,
            "generation {found} is there; {acknowledged} was saved last, and {begun} was begun"
        );
        if begun > acknowledged {
            within += 1;
            (old, new) = if found == begun { (old, new + 1) } else { (old + 1, new) };
        }
        (there, first) = (found, begun + 1);
    }
    filled(first).save(&path).unwrap();
    println!(
        "{KILLS} kills, {within} within a save: {old} left the old snapshot, {new} the new one; \
         at most {most_files} files, {} after another save",
        folder.names().len()
    );
    assert!(within > KILLS / 10, "only {within} kills met a save");
    assert_eq!(
        folder.names(),
        ["cache.hotset"],
        "a save clears up after those that were killed"
    );
}

/// Each clears up what killed ones left, but nothing that the other is writing.
#[test]
fn two_processes_save_to_one_path() {
    let folder = Folder::new();
    let path = folder.join("cache.hotset");
    filled(0).save(&path).unwrap();
    let mut children = [1, 1_000_000].map(|first| (first, start(&path, first)));
    let mut seen = [false; 2];
    for (first, (_, out)) in &mut children {
        let mut said = Said::default();
        while said.saved < Some(*first + 60) {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "a save failed");
            said.hear(&line);
            if line.starts_with("saved") {
                seen[usize::from(generation_at(&path, false) >= 1_000_000)] = true;
            }
        }
    }
    for (_, (child, _)) in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(seen, [true; 2], "both processes' snapshots were there");
}
