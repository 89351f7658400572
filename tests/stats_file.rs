//! The stats file of a process: written by its calls, read by others, gone when it has ended.
//!
//! A process has one stats file, so every test runs children: this program again, with one of the
//! roles below.
#![cfg(all(unix, feature = "stats-file"))]

use hotset::raw::stats_file::{Record, Source, register, rewrite};
use hotset::stats_file::{self, Answer, CacheStats, ProcessStats, read, scan};
use hotset::{Cache, ManualClock};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs, process, thread};

/// The environment variable with the role of a child.
const ROLE: &str = "HOTSET_STATS_ROLE";

/// A temporary directory of mode 0700.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("hotset-stats-{}-{number}", process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that prints a line at each step, and waits for one before the next.
struct Role {
    child: Child,
    out: BufReader<process::ChildStdout>,
}

impl Role {
    fn start(role: &str, directory: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "role", "--ignored", "--nocapture"]);
        command.env(ROLE, role).env("HOTSET_STATS", directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Waits for the next step, and returns what the child printed with it.
    fn step(&mut self) -> String {
        for line in self.out.by_ref().lines() {
            if let Some(text) = line.unwrap().strip_prefix("step ") {
                return text.to_owned();
            }
        }
        panic!("the child has ended early");
    }

    /// Has the child continue.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits until the child has exited.
    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Ends a step of a child: prints it, and waits for the test.
fn step(text: &str) {
    println!("\nstep {text}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn named(name: &str) -> Cache<u64, u64> {
    Cache::builder().max_entries(1000).name(name).build().unwrap()
}

/// Uses a cache until the file has been rewritten after this call.
fn use_until_rewritten(cache: &Cache<u64, u64>) {
    let path = stats_file::path().unwrap();
    let before = read(&path).unwrap().sequence;
    // The second update began after the first one had ended.
    while read(&path).unwrap().sequence < before + 2 {
        cache.get(&u64::MAX); // a miss
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "the part of the children; does nothing unless a test starts it"]
fn role() {
    let Ok(role) = env::var(ROLE) else { return };
    match role.as_str() {
        "users" => {
            let users = named("users");
            (0..10).for_each(|n| users.insert(n, n));
            (0..20).for_each(|n| _ = users.get(&n));
            step("used");
            use_until_rewritten(&users);
            step("rewritten");
            drop(users);
            let pages = named("pages");
            use_until_rewritten(&pages);
            step("other");
        }
        "hits" => {
            let hot = named("hot");
            hot.insert(0, 0);
            let path = stats_file::path().unwrap();
            let hits = || read(&path).unwrap().caches[0].stats.hits;
            while hits() < 100 {
                (0..100).for_each(|_| assert_eq!(hot.get(&0), Some(0)));
            }
            step("read");
        }
        "profile" => {
            let builder = Cache::<u64, u64>::builder().max_entries(500).profile();
            let looped = builder.name("looped").build().unwrap();
            (0..20_000).for_each(|n| _ = looped.get_or_insert_with(n % 800, || n));
            rewrite();
            step("looped");
        }
        "clock" => {
            let builder = Cache::<u64, u64>::builder().max_entries(10);
            let frozen = builder.clock(ManualClock::new()).name("frozen").build().unwrap();
            frozen.insert(1, 1);
            frozen.get(&1);
            use_until_rewritten(&named("other"));
            step("rewritten");
        }
        "clear" => {
            let (kept, cleared) = (named("kept"), named("cleared"));
            kept.insert(1, 1);
            cleared.insert(1, 1);
            step("filled");
            while cleared.contains_key(&1) {
                thread::sleep(Duration::from_millis(10));
            }
            assert!(kept.contains_key(&1));
            use_until_rewritten(&kept);
            step("cleared");
        }
        "threads" => {
            // All threads find the update due, again and again, while names come and go.
            let shared = named("shared");
            thread::scope(|scope| {
                for number in 0..4u64 {
                    let shared = shared.clone();
                    scope.spawn(move || {
                        for round in 0..500 {
                            shared.insert(round, number);
                            rewrite();
                            drop(named(&format!("{number} {round}")));
                        }
                    });
                }
            });
            rewrite();
            step("done");
        }
        "torn" => {
            // All figures of an update are equal, and every update has others.
            struct Equal(Arc<AtomicU64>);
            impl Source for Equal {
                fn fill(&self, record: &mut Record) {
                    let number = self.0.load(Ordering::Relaxed);
                    let mut stats = Cache::<u64, u64>::new(1).stats();
                    (stats.hits, stats.misses, stats.waits) = (number, number, number);
                    record.set(&stats, false, (number, number, Some(number)));
                }
                fn observe(&self) {}
                fn clear(&self, _: u64, _: u64) -> bool {
                    true
                }
            }
            let number = Arc::new(AtomicU64::new(0));
            let _all: Vec<_> = (0..40)
                .map(|_| register("equal".to_owned(), Arc::new(Equal(number.clone())), false))
                .collect();
            println!("\nstep begun");
            loop {
                number.fetch_add(1, Ordering::Relaxed);
                rewrite();
            }
        }
        "fork" => {
            let parents = named("parent's");
            parents.insert(1, 1);
            // SAFETY: the child runs ordinary code: this process has one more thread, the test
            // harness's, which waits; and glibc's allocator is usable after a fork.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let childs = named("child's");
                while stats_file::path().is_none() {
                    childs.get(&0);
                    thread::sleep(Duration::from_millis(1));
                }
                use_until_rewritten(&childs);
                step(&stats_file::path().unwrap().display().to_string());
                // SAFETY: without handlers of the exit, as multiprocessing ends its workers.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: its own child.
            unsafe { libc::waitpid(pid, &mut 0, 0) };
            use_until_rewritten(&parents);
            step(&stats_file::path().unwrap().display().to_string());
        }
        "exec" => {
            let _old = named("old");
            step("named");
            use std::os::unix::process::CommandExt;
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "role", "--ignored", "--nocapture"]);
            panic!("{}", command.env(ROLE, env::var("HOTSET_STATS_NEXT").unwrap()).exec());
        }
        "nothing" => step("nothing"),
        "quit" => {
            let _named = named("named");
            process::exit(0);
        }
        "enable" => {
            let cache = named("late");
            let refused = stats_file::enable("/proc/no/such").unwrap_err();
            step(&refused.to_string());
            stats_file::enable(env::var("HOTSET_STATS_LATER").unwrap()).unwrap();
            use_until_rewritten(&cache);
            step(&stats_file::enable("/").unwrap_err().to_string());
        }
        "broken" => {
            let cache = named("named");
            cache.insert(1, 1);
            assert_eq!((cache.get(&1), stats_file::path()), (Some(1), None));
            drop(named("second"));
        }
        "truncated" => {
            let cache = named("named");
            use_until_rewritten(&cache);
            let path = stats_file::path().unwrap();
            step("named");
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(0).unwrap();
            (0..2).for_each(|_| rewrite());
            fs::remove_file(&path).unwrap();
            rewrite();
            step("removed");
        }
        "limited" => {
            // Below the size of the file: SIGXFSZ would end the process.
            let limit = libc::rlimit {
                rlim_cur: 5000,
                rlim_max: 5000,
            };
            let cache = named("named");
            // SAFETY: a limit of this process.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
            (0..3).for_each(|_| rewrite());
            assert_eq!(cache.get(&1), None);
            let child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "role", "--ignored", "--nocapture"])
                .env(ROLE, "broken")
                .output()
                .unwrap();
            let stderr = String::from_utf8(child.stderr).unwrap();
            assert!(
                child.status.success() && stderr.contains("HOTSET_STATS has no effect"),
                "{stderr}"
            );
        }
        other => panic!("no role {other}"),
    }
}

fn only(directory: &Path) -> ProcessStats {
    let mut all = scan(directory).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn cache<'p>(process: &'p ProcessStats, name: &str) -> &'p CacheStats {
    process.caches.iter().find(|cache| cache.name == name).unwrap()
}

#[test]
fn file_holds_named_caches_while_they_live() {
    let folder = Folder::new();
    let mut role = Role::start("users", &folder.0);
    role.step();
    let process = only(&folder.0);
    assert_eq!((process.pid, process.is_alive), (role.child.id(), Some(true)));
    assert_eq!(
        (process.parent, process.language),
        (process::id(), stats_file::Language::Rust)
    );
    assert!(process.program.starts_with("stats_file"), "{}", process.program);
    role.go_on();
    role.step();
    let process = only(&folder.0);
    let users = cache(&process, "users");
    assert_eq!((users.stats.hits, users.capacity), (10, Some(1000)));
    assert!(users.stats.misses >= 10 && users.entries == 10 && users.stats.insertions == 10);
    assert!(!users.samples.is_empty());
    role.go_on();
    role.step();
    let names: Vec<_> = only(&folder.0).caches.into_iter().map(|cache| cache.name).collect();
    assert_eq!(names, ["pages"]);
    role.finish();
    assert_eq!(folder.files(), [""; 0], "removed at the exit");
}

/// The reader that `python -m hotset top` uses.
#[test]
fn reader_in_python_reads_what_rust_writes() {
    let folder = Folder::new();
    let mut role = Role::start("users", &folder.0);
    role.step();
    role.go_on();
    role.step();
    let script = "
import sys
import _statsfile
(process,) = _statsfile.scan(sys.argv[1])
(cache,) = process.caches
print(process.kind, process.pid, process.alive, cache.name, cache.hits, cache.capacity, len(cache.samples) > 0)
";
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("bindings/python/python/hotset");
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(&folder.0)
        .env("PYTHONPATH", reader)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    let expected = format!("rust {} True users 10 1000 True", role.child.id());
    assert_eq!(found.trim(), expected, "{}", String::from_utf8_lossy(&output.stderr));
    role.kill();
}

#[test]
fn hits_alone_rewrite_the_file() {
    let folder = Folder::new();
    let mut role = Role::start("hits", &folder.0);
    role.step();
    role.finish();
}

#[test]
fn file_holds_the_curve_of_a_profiled_cache() {
    let folder = Folder::new();
    let mut role = Role::start("profile", &folder.0);
    role.step();
    let process = only(&folder.0);
    let curve = &cache(&process, "looped").curve;
    let point = |capacity| curve.iter().find(|point| point.capacity == capacity).unwrap();
    // A loop over 800 keys: 1,000 entries hold it, 500 do not.
    assert!(point(1000).hit_ratio > 0.95, "{curve:?}");
    assert!(point(500).hit_ratio < 0.7, "{curve:?}");
    role.finish();
}

#[test]
fn cache_with_its_own_clock_is_in_the_file() {
    let folder = Folder::new();
    let mut role = Role::start("clock", &folder.0);
    role.step();
    assert_eq!(cache(&only(&folder.0), "frozen").stats.hits, 1);
    role.finish();
}

#[test]
fn request_clears_one_cache_and_is_answered() {
    let folder = Folder::new();
    let mut role = Role::start("clear", &folder.0);
    role.step();
    let process = only(&folder.0);
    let request = process.request_clear(Some(cache(&process, "cleared").id)).unwrap();
    role.go_on();
    role.step();
    assert_eq!(only(&folder.0).answered, Some((request, Answer::Done)));
    role.finish();
}

#[test]
fn concurrent_rewriting_and_naming_leaves_a_whole_file() {
    let folder = Folder::new();
    let mut role = Role::start("threads", &folder.0);
    role.step();
    let process = only(&folder.0);
    assert_eq!(process.caches.len(), 1);
    role.finish();
    assert_eq!(folder.files(), [""; 0]);
}

/// A reader beside a writer that rewrites without a pause, and is killed.
#[test]
fn killed_writer_leaves_a_whole_update() {
    let folder = Folder::new();
    let mut reads = 0;
    for round in 0..12 {
        let mut role = Role::start("torn", &folder.0);
        role.step();
        let path = folder.0.join(format!("hotset-{}-0.stats", role.child.id()));
        let mut before = 0;
        for _ in 0..(round * 37 % 200) {
            let process = read(&path).unwrap();
            check_equal(&process, &mut before);
            reads += 1;
        }
        role.kill();
        let process = read(&path).unwrap();
        check_equal(&process, &mut before);
        assert_eq!(process.is_alive, Some(false));
        assert_eq!(scan(&folder.0).unwrap().len(), 0);
        assert_eq!(folder.files(), [""; 0], "the dead process's file is removed");
    }
    assert!(reads > 500);
}

fn check_equal(process: &ProcessStats, before: &mut u64) {
    let number = process.caches.first().map_or(0, |cache| cache.stats.hits);
    for cache in &process.caches {
        let stats = &cache.stats;
        assert_eq!(
            [stats.hits, stats.misses, stats.waits, cache.weight, cache.entries],
            [number; 5]
        );
    }
    assert!(number >= *before, "an older update than before");
    *before = number;
}

#[test]
fn forked_child_writes_its_own_file() {
    let folder = Folder::new();
    let mut role = Role::start("fork", &folder.0);
    let of_child = PathBuf::from(role.step());
    let names = |path: &Path| {
        let process = read(path).unwrap();
        let names = process
            .caches
            .iter()
            .map(|cache| cache.name.clone())
            .collect::<Vec<_>>();
        (process.pid == role_pid(path), process.is_alive, names)
    };
    assert_eq!(names(&of_child), (true, Some(true), vec!["child's".to_owned()]));
    assert_ne!(role_pid(&of_child), role.child.id());
    assert_eq!(scan(&folder.0).unwrap().len(), 2);
    role.go_on();
    let of_parent = PathBuf::from(role.step());
    assert_eq!(names(&of_parent), (true, Some(true), vec!["parent's".to_owned()]));
    // The child called `_exit`.
    assert_eq!(read(&of_child).unwrap().is_alive, Some(false));
    assert_eq!(scan(&folder.0).unwrap().len(), 1);
    role.finish();
    assert_eq!(folder.files(), [""; 0]);
}

fn role_pid(path: &Path) -> u32 {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.split('-').nth(1).unwrap().parse().unwrap()
}

#[test]
fn file_of_a_replaced_program_is_dead() {
    for next in ["nothing", "users"] {
        let folder = Folder::new();
        let mut role = {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "role", "--ignored", "--nocapture"]);
            command
                .env(ROLE, "exec")
                .env("HOTSET_STATS", &folder.0)
                .env("HOTSET_STATS_NEXT", next);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            Role { child, out }
        };
        role.step();
        assert_eq!(only(&folder.0).caches[0].name, "old");
        role.go_on();
        role.step();
        if cfg!(target_os = "linux") {
            let names: Vec<_> = scan(&folder.0)
                .unwrap()
                .into_iter()
                .flat_map(|process| process.caches)
                .map(|cache| cache.name)
                .collect();
            assert_eq!(names, if next == "users" { vec!["users"] } else { vec![] });
        }
        role.kill();
    }
}

/// The same pid, another start time.
#[test]
fn file_of_a_reused_pid_is_removed() {
    let folder = Folder::new();
    let mut role = Role::start("users", &folder.0);
    role.step();
    let path = only(&folder.0).path;
    let mut bytes = fs::read(&path).unwrap();
    role.kill();
    // As if this test's process had the pid of the dead one.
    bytes[36..40].copy_from_slice(&process::id().to_le_bytes());
    repair_header(&mut bytes);
    let stale = folder.0.join(format!("hotset-{}-0.stats", process::id()));
    fs::rename(&path, &stale).unwrap();
    fs::write(&stale, &bytes).unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(read(&stale).unwrap().is_alive, Some(false));
        assert_eq!(scan(&folder.0).unwrap().len(), 0);
        assert_eq!(folder.files(), [""; 0]);
    }
}

fn repair_header(bytes: &mut [u8]) {
    let sum = crc32(&bytes[..508]);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// CRC-32 as zlib has it, bit by bit: the test knows the format from its documentation only.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

#[test]
fn exit_removes_the_file() {
    let folder = Folder::new();
    Role::start("quit", &folder.0).finish();
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn file_is_private() {
    let folder = Folder::new();
    let mut role = Role::start("users", &folder.0);
    role.step();
    let found = fs::metadata(only(&folder.0).path).unwrap();
    assert_eq!(found.mode() & 0o777, 0o600);
    role.kill();
}

#[test]
fn names_that_others_made_are_not_followed() {
    let folder = Folder::new();
    let target = folder.0.join("target");
    fs::write(&target, "keep").unwrap();
    // A link by the name of a file: neither read nor removed.
    let link = folder.0.join("hotset-1-0.stats");
    symlink(&target, &link).unwrap();
    let pipe = folder.0.join("hotset-2-0.stats");
    let status = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(status.success());
    fs::write(folder.0.join("hotset-3-0.stats"), "not a stats file").unwrap();
    assert_eq!(scan(&folder.0).unwrap().len(), 0);
    assert!(read(&link).is_err() && read(&pipe).is_err());
    assert_eq!(folder.files().len(), 4);
    assert_eq!(fs::read_to_string(&target).unwrap(), "keep");
}

#[test]
fn unusable_directory_is_an_error_that_says_what_to_do() {
    let folder = Folder::new();
    let (missing, file) = (folder.0.join("missing"), folder.0.join("file"));
    fs::write(&file, "").unwrap();
    let open = folder.0.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    for (directory, text) in [
        (&missing, "create the directory"),
        (&file, "failed to use"),
        (&open, "sticky bit"),
    ] {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "role", "--ignored", "--nocapture"])
            .env(ROLE, "broken")
            .env("HOTSET_STATS", directory)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
        let warnings = stderr.matches("HOTSET_STATS has no effect").count();
        assert_eq!(warnings, 1, "{stderr}");
    }
}

#[test]
fn enabling_later_includes_existing_caches() {
    let folder = Folder::new();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "role", "--ignored", "--nocapture"]);
    command
        .env(ROLE, "enable")
        .env("HOTSET_STATS_LATER", &folder.0)
        .env_remove("HOTSET_STATS");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut role = Role { child, out };
    assert!(role.step().contains("does not exist"));
    role.go_on();
    assert!(role.step().contains("is already in"));
    assert_eq!(only(&folder.0).caches[0].name, "late");
    role.finish();
}

#[test]
fn truncated_or_removed_file_is_written_again() {
    let folder = Folder::new();
    let mut role = Role::start("truncated", &folder.0);
    role.step();
    let before = only(&folder.0).created;
    role.go_on();
    role.step();
    let process = only(&folder.0);
    assert!(process.created > before);
    assert_eq!(process.caches[0].name, "named");
    role.finish();
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn file_size_limit_does_not_end_the_process() {
    let folder = Folder::new();
    Role::start("limited", &folder.0).finish();
}
