//! Shared by the tests of the snapshot: a folder, child processes, and random numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// A folder that is removed with its files when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("snapshot-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names of the files in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = (fs::read_dir(&self.0).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The environment variable with the child's folder.
pub(crate) const FOLDER: &str = "HOTSET_SNAPSHOT_FOLDER";

/// Runs a shell script in which `$0` and on are the ignored test `name` of this program; `None` if
/// the script exits with 77, since the machine does not allow what it is to set up.
pub(crate) fn in_shell(script: &str, name: &str, folder: &Folder) -> Option<()> {
    // Through pipes: a limit on the size of files holds for the parent's log, too.
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let status = output.status;
    if !status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
    if status.code() == Some(77) {
        println!("{name}: skipped, as the machine does not allow it");
        return None;
    }
    assert!(status.success(), "{name}: {status}");
    Some(())
}

/// Random numbers that are the same in every run.
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.random()
    }

    /// Draws a number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }
}
