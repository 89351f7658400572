//! Rules about the workflows in `.github` and about `.ci/run`: they run targets that the Makefile
//! has, and what others wrote is pinned. (`make check-workflows` lints them.)

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The workflows: their names relative to the root, and texts.
fn workflows() -> Vec<(String, String)> {
    let mut names: Vec<String> = fs::read_dir(root().join(".github/workflows"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 3, "{names:?}");
    let named = |name: String| format!(".github/workflows/{name}");
    names
        .into_iter()
        .map(named)
        .map(|name| (name.clone(), read(&name)))
        .collect()
}

/// The targets that the Makefile has a rule for.
fn targets() -> HashSet<String> {
    let makefile = read("Makefile");
    let rules = makefile.lines().filter(|line| {
        line.starts_with(|c: char| c.is_ascii_lowercase()) && !line.contains("?=") && !line.contains(":=")
    });
    rules
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(targets, _)| targets.split_whitespace().map(str::to_owned))
        .collect()
}

/// The commands of a workflow: what stands behind `run:`, and the lines of its blocks.
fn commands(text: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((before, command)) = line.split_once("run: ") else {
            continue;
        };
        if !before.trim().trim_start_matches('-').is_empty() {
            continue;
        }
        if command.trim() == "|" {
            let depth = before.len();
            while let Some(next) = lines.next_if(|next| next.trim().is_empty() || indent(next) > depth) {
                found.push(next.trim().to_owned());
            }
        } else {
            found.push(command.trim().to_owned());
        }
    }
    found
}

/// The target of a command that calls make.
fn made(command: &str) -> Option<&str> {
    command.strip_prefix("make ")?.split_whitespace().next()
}

#[test]
fn workflows_and_ci_run_targets_that_exist() {
    let targets = targets();
    assert!(targets.contains("test") && targets.contains("help"), "{targets:?}");
    let mut missing = Vec::new();
    let mut count = 0;
    for (name, text) in workflows() {
        for command in commands(&text) {
            if let Some(target) = made(&command) {
                count += 1;
                if !targets.contains(target) {
                    missing.push(format!("{name}: make {target}"));
                }
            }
        }
    }
    for line in read(".ci/run").lines() {
        if let Some(target) = made(line.trim()).filter(|target| !targets.contains(*target)) {
            missing.push(format!(".ci/run: make {target}"));
        }
    }
    assert!(count >= 10, "{count} commands call make");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn workflow_of_changes_runs_all_of_ci() {
    let ci = commands(&read(".github/workflows/ci.yml"));
    assert!(ci.iter().any(|command| command == ".ci/run"), "{ci:?}");
}

#[test]
fn actions_are_pinned_to_one_commit_each() {
    let mut pins: HashMap<String, String> = HashMap::new();
    for (name, text) in workflows() {
        for line in text.lines() {
            let Some(action) = line.trim().trim_start_matches("- ").strip_prefix("uses: ") else {
                continue;
            };
            if let Some(path) = action.strip_prefix("./") {
                let path = path.split(" #").next().unwrap();
                assert!(root().join(path).is_file(), "{name}: {path}");
                continue;
            }
            let (action, pin) = action.split_once('@').unwrap_or_else(|| panic!("{name}: {action}"));
            let (commit, version) = pin
                .split_once(" # v")
                .unwrap_or_else(|| panic!("{name}: {action}@{pin}"));
            assert!(
                commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()) && version.contains('.'),
                "{name}: {action}@{pin}"
            );
            let kept = pins.entry(action.to_owned()).or_insert_with(|| pin.to_owned());
            assert_eq!(kept, pin, "{action} is pinned to two commits");
        }
    }
    assert!(pins.len() >= 5, "{pins:?}");
}

#[test]
fn workflows_have_no_permissions_but_those_of_a_job() {
    for (name, text) in workflows() {
        assert!(text.lines().any(|line| line == "permissions: {}"), "{name}");
    }
}
