//! Rules about the source text: imports, files that may hold `unsafe`, and file sizes.

use std::fs;
use std::path::{Path, PathBuf};

/// The only files of `src/` with unsafe code. A new one needs a reason, and a reviewer. (Functions
/// that C calls are unsafe: see `bindings/c/src/ffi.rs`.)
const UNSAFE: [&str; 39] = [
    "src/engine/core.rs",
    "src/engine/entry.rs",
    "src/engine/views.rs",
    "src/engine/maintenance.rs",
    "src/engine/limbo.rs",
    "src/engine/thread_state.rs",
    "src/engine/mod.rs",
    "src/engine/loom_tests.rs",
    "src/engine/profiling.rs",
    "src/engine/overflow.rs",
    "src/engine/snapshot.rs",
    "src/engine/write.rs",
    "src/engine/writer.rs",
    "src/engine/run_deferred.rs",
    "src/engine/record.rs",
    "src/reclaim/crossbeam.rs",
    "src/reclaim/epoch.rs",
    "src/reclaim/epoch/loom_tests.rs",
    "src/map/memory.rs",
    "src/map/mod.rs",
    "src/map/loom_tests.rs",
    "src/map/migrate.rs",
    "src/map/owned_table.rs",
    "src/map/probe.rs",
    "src/reclaim/mod.rs",
    "src/reclaim/registry.rs",
    "src/map/resize.rs",
    "src/map/table.rs",
    "src/map/tests.rs",
    "src/prim/clock.rs",
    "src/prim/memory.rs",
    "src/prim/prefetch.rs",
    "src/raw.rs",
    "src/raw/tests.rs",
    "src/snapshot/file.rs",
    "src/snapshot/permissions.rs",
    "src/stats_file/system.rs",
    "src/tiered/clock.rs",
    "src/tiered/memcached/socket.rs",
];

fn collect(dir: &Path, kind: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, kind, into);
        } else if path.extension().is_some_and(|extension| extension == kind) {
            into.push(path);
        }
    }
}

/// The `.rs` files below these directories: their names, relative to the crate, and texts.
fn files(dirs: &[&str]) -> Vec<(String, String)> {
    files_of("rs", dirs)
}

/// The same for files with the extension `kind`.
fn files_of(kind: &str, dirs: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    dirs.iter().for_each(|dir| collect(&root.join(dir), kind, &mut paths));
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    paths
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).unwrap()))
        .collect()
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Where `found` is true of a line's code.
fn lines(files: &[(String, String)], found: impl Fn(&str) -> bool) -> Vec<String> {
    let mut at = Vec::new();
    for (name, text) in files {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| found(code(line))) {
            at.push(format!("{name}:{}: {}", number + 1, line.trim()));
        }
    }
    at
}

#[test]
fn policies_are_safe_and_pure() {
    let policy = files(&["src/policy"]);
    assert!(policy.len() >= 6);
    let root = &policy.iter().find(|(name, _)| name == "src/policy/mod.rs").unwrap().1;
    assert!(
        root.contains("#![forbid(unsafe_code)]"),
        "src/policy/mod.rs forbids it for all below"
    );
    let foreign = [
        "crate::map",
        "crate::engine",
        "prim::sync",
        "crate::cache",
        "crate::flight",
        "std::sync",
        "std::time",
    ];
    assert_eq!(
        lines(&policy, |line| foreign.iter().any(|path| line.contains(path))),
        [""; 0]
    );
}

#[test]
fn the_map_knows_nothing_of_its_users() {
    let map = files(&["src/map"]);
    assert!(map.len() >= 4);
    let foreign = |word: &str| ["policy", "engine", "weight", "weigher"].contains(&word.to_lowercase().as_str());
    assert_eq!(lines(&map, |line| words(line).any(foreign)), [""; 0]);
}

/// The second tier's core is a protocol: it uses nothing of the engine, and does nothing by itself.
#[test]
fn tier2_core_has_no_io_and_no_engine() {
    let core: Vec<_> = files(&["src/tier2"]);
    assert!(core.len() >= 10);
    let root = &core.iter().find(|(name, _)| name == "src/tier2/mod.rs").unwrap().1;
    assert!(
        root.contains("#![forbid(unsafe_code)]"),
        "src/tier2/mod.rs forbids it for all below"
    );
    let foreign = [
        "std::net",
        "std::thread",
        "std::time",
        "std::fs",
        "std::io",
        "crate::engine",
        "crate::map",
        "crate::policy",
        "crate::prim",
        "crate::cache",
        "crate::flight",
        "crate::tiered",
    ];
    assert_eq!(
        lines(&core, |line| foreign.iter().any(|path| line.contains(path))),
        [""; 0]
    );
}

#[test]
fn unsafe_code_is_where_it_is_expected() {
    for (name, text) in files(&["src"]) {
        if UNSAFE.contains(&name.as_str()) {
            continue;
        }
        let found = lines(&[(name, text)], |line| words(line).any(|word| word == "unsafe"));
        assert_eq!(found, [""; 0]);
    }
}

#[test]
fn unsafe_code_says_why_it_is_safe() {
    for (name, text) in files(&[
        "src",
        "tests",
        "examples",
        "bindings/c/src",
        "bindings/python/src",
        "fuzz/fuzz_targets",
    ]) {
        if name == "tests/tidy.rs" {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !["unsafe {", "unsafe impl"].iter().any(|kind| code(line).contains(kind)) {
                continue;
            }
            let above = &lines[number.saturating_sub(4)..=number];
            let said = above.iter().any(|line| line.contains("SAFETY:"));
            assert!(said, "{name}:{}: no SAFETY comment within four lines above", number + 1);
        }
    }
}

/// A Python file without the lines of its docstrings.
fn without_docstrings(text: &str) -> String {
    let mut inside = false;
    let code = text.lines().filter(|line| {
        let quotes = line.matches("\"\"\"").count();
        let of_docstring = inside || line.trim_start().starts_with("\"\"\"");
        inside ^= of_docstring && quotes == 1;
        !of_docstring
    });
    code.collect::<Vec<_>>().join("\n")
}

#[test]
fn files_are_short() {
    let dirs = [
        "src",
        "tests",
        "examples",
        "bindings",
        "benches/compare/src",
        "fuzz/fuzz_targets",
    ];
    let (rust, python) = (files(&dirs), files_of("py", &dirs));
    assert!(rust.len() > 20 && python.len() > 20);
    // In Python the documentation of users is in the same lines as the code: it does not count.
    let documented = |(name, text): (String, String)| (name, without_docstrings(&text));
    for (name, text) in rust.into_iter().chain(python.into_iter().map(documented)) {
        let lines = text.lines().count();
        assert!(lines <= 700, "{name} has {lines} lines: it does too much");
    }
}

/// Of two tests with one name Python keeps the last, without a warning.
#[test]
fn names_of_python_tests_are_unique() {
    for (name, text) in files_of("py", &["bindings", "examples"]) {
        let tests = text
            .lines()
            .filter_map(|line| line.strip_prefix("def test_")?.split('(').next());
        let mut seen = std::collections::HashSet::new();
        for test in tests {
            assert!(seen.insert(test), "{name}: test_{test} is defined twice");
        }
    }
}

/// A package cannot name license files outside of its folder, so the wheel has copies.
#[test]
fn licenses_of_the_wheel_are_those_of_the_root() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-THIRD-PARTY"] {
        let copy = root.join("bindings/python/licenses").join(name);
        assert_eq!(
            fs::read_to_string(root.join(name)).unwrap(),
            fs::read_to_string(copy).unwrap(),
            "{name}"
        );
    }
}

/// docs.rs shows at each item the feature that it needs.
#[test]
fn public_items_of_features_are_marked() {
    for (name, text) in files(&["src"]) {
        if name.starts_with("src/raw") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(feature) = line.trim().strip_prefix("#[cfg(feature = ") else {
                continue;
            };
            let attributes = lines[number + 1..]
                .iter()
                .take_while(|line| line.trim().starts_with("#["));
            let (count, marked) = attributes.fold((0, false), |(count, marked), line| {
                (
                    count + 1,
                    marked || line.contains(&format!("doc(cfg(feature = {feature}").replace(")]", "")),
                )
            });
            let item = lines.get(number + 1 + count).map_or("", |line| line.trim());
            let public = [
                "pub fn",
                "pub async",
                "pub mod",
                "pub struct",
                "pub enum",
                "pub trait",
                "pub type",
            ];
            let is_public = public.iter().any(|kind| item.starts_with(kind));
            assert!(
                marked || !is_public,
                "{name}:{}: not marked with doc(cfg(..)): {item}",
                number + 1
            );
        }
    }
}
