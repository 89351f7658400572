//! Rules about the pages: their links lead somewhere, the tests, files and functions that they name
//! exist, they are short, and the index lists them. (Their examples are doc-tests, and tests of the
//! bindings.)

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, kinds: &[&str], into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&path, kinds, into);
            }
        } else if path
            .extension()
            .is_some_and(|kind| kinds.iter().any(|known| kind == *known))
        {
            into.push(path);
        }
    }
}

/// Returns the string in quotes that stands behind the first `before`.
fn quoted_after<'t>(text: &'t str, before: &str) -> &'t str {
    let rest = text.split_once(before).expect(before).1;
    rest.split('"').nth(1).expect(before)
}

/// Files below these directories: their names relative to the root, and texts.
fn files(dirs: &[&str], kinds: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    dirs.iter()
        .for_each(|dir| collect(&root().join(dir), kinds, &mut paths));
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
    (paths.iter().map(|path| (name(path), path)))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap_or_default()))
        .collect()
}

/// All pages: those of the root, and of `docs`.
fn pages() -> Vec<(String, String)> {
    let mut pages = files(&["docs"], &["md"]);
    assert!(pages.len() > 30);
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "CODE_OF_CONDUCT.md",
    ] {
        pages.push((name.to_owned(), fs::read_to_string(root().join(name)).unwrap()));
    }
    pages
}

/// The lines of a page outside of its code blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((number + 1, line))
    })
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_';
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

fn anchors(text: &str) -> HashSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#'))).collect()
}

/// The targets of the links in a text.
fn links(text: &str) -> Vec<&str> {
    let ends = |rest: &str| rest.find([')', ' ']).unwrap_or(rest.len());
    text.match_indices("](")
        .map(|(at, _)| &text[at + 2..])
        .map(|rest| &rest[..ends(rest)])
        .collect()
}

/// What stands in backticks in a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in pages() {
        for (number, line) in prose(&text) {
            for link in links(line).into_iter().filter(|link| !link.contains("://")) {
                let (path, heading) = link.split_once('#').unwrap_or((link, ""));
                let file = root().join(&name).parent().unwrap().join(path);
                let target = if path.is_empty() {
                    Some(text.clone())
                } else {
                    // (A picture need not be UTF-8.)
                    (fs::read(&file).ok()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                };
                if target
                    .as_ref()
                    .is_none_or(|target| !heading.is_empty() && !anchors(target).contains(heading))
                {
                    broken.push(format!("{name}:{number}: {link}"));
                }
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}

#[test]
fn pages_are_in_the_index_or_in_that_of_their_directory() {
    for (name, _) in pages()
        .iter()
        .filter(|(name, _)| name.starts_with("docs/") && name != "docs/README.md")
    {
        let index = |dir: &Path| fs::read_to_string(dir.join("README.md")).unwrap_or_default();
        let path = root().join(name);
        let dir = path.parent().unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let listed = (index(dir).contains(&format!("({file}")))
            || index(&root().join("docs")).contains(&format!("({}", name.strip_prefix("docs/").unwrap()));
        assert!(listed, "{name} is in no index");
    }
}

#[test]
fn readme_and_architecture_are_short() {
    let of = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (readme, architecture) = (of("README.md"), of("ARCHITECTURE.md"));
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(lines <= 150 && words <= 900, "README.md: {lines} lines, {words} words");
    assert!(
        architecture.lines().count() <= 250,
        "{} lines",
        architecture.lines().count()
    );
    for block in readme.split("```").skip(1).step_by(2) {
        assert!(block.lines().count() <= 13, "a quickstart has at most 12 lines");
        assert!(
            !block.lines().any(|line| line.starts_with("# ")),
            "a quickstart hides no lines"
        );
    }
    let manifest = of("Cargo.toml");
    let version = quoted_after(&manifest, "rust-version = ");
    assert!(
        readme.contains(&format!("Rust {version} and newer")),
        "the oldest Rust is {version}"
    );
}

/// `make demo` draws the picture of the README anew, of the same workloads.
#[test]
fn picture_of_the_readme_shows_the_workloads_of_the_demo() {
    let of = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (picture, workloads) = (of("docs/hit-ratio.svg"), of("examples/replay/workload.rs"));
    let kinds = workloads
        .split("const KINDS")
        .nth(1)
        .unwrap()
        .split("];\n")
        .next()
        .unwrap();
    let names: Vec<&str> = kinds
        .split("(\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names.iter().chain(&["OPT", "exact LRU", "W-TinyLFU"]) {
        assert!(picture.contains(name), "docs/hit-ratio.svg lacks {name}");
    }
}

#[test]
fn citation_has_the_version_of_the_crate() {
    let of = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let manifest = of("Cargo.toml");
    let version = quoted_after(&manifest, "\nversion = ");
    assert!(
        of("CITATION.cff").contains(&format!("\nversion: {version}\n")),
        "{version}"
    );
}

#[test]
fn make_targets_are_in_contributing() {
    let of = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (makefile, contributing) = (of("Makefile"), of("CONTRIBUTING.md"));
    let targets = makefile
        .lines()
        .filter(|line| line.contains(": ## ") || line.contains(" ## ") && !line.starts_with(['#', '\t']));
    let targets: Vec<&str> = targets.map(|line| line.split(':').next().unwrap()).collect();
    assert!(targets.len() > 40);
    for target in targets {
        assert!(
            contributing.contains(&format!("`make {target}`")),
            "{target} is not in CONTRIBUTING.md"
        );
    }
}

#[test]
fn examples_in_pages_are_tested() {
    let tested = fs::read_to_string(root().join("src/doc_tests.rs")).unwrap();
    let run_by_c = fs::read_to_string(root().join("bindings/c/tests/run.sh")).unwrap();
    for (name, text) in pages() {
        let has = |language: &str| text.lines().any(|line| line.trim() == format!("```{language}"));
        assert!(
            !has("rust") || tested.contains(&format!("\"../{name}\"")),
            "{name} is not in src/doc_tests.rs"
        );
        assert!(
            !has("c") || run_by_c.contains(&name),
            "{name} is not in bindings/c/tests/run.sh"
        );
        // bindings/python/tests/test_docs.py, tier2/test_tier2_docs.py, and
        // adapters/check_examples.py run these.
        let python = [
            "README.md",
            "docs/tutorials/",
            "docs/how-to/",
            "docs/adapters/",
            "docs/in-front-of-redis.md",
            "docs/in-front-of-memcached.md",
        ];
        assert!(
            !has("python") || python.iter().any(|tested| name.starts_with(tested)),
            "{name}: no test runs its Python"
        );
    }
}

/// A renamed test, file or function is renamed in the pages, too.
#[test]
fn names_in_pages_exist() {
    let sources = files(
        &["src", "tests", "bindings", "benches", "examples", "fuzz"],
        &["rs", "py", "c", "h", "sh", "pyi", "toml"],
    );
    // Functions, modules, and public fields.
    let mut functions: HashSet<&str> = HashSet::new();
    for (_, text) in sources
        .iter()
        .filter(|(name, _)| name.ends_with(".rs") || name.ends_with(".py"))
    {
        for (at, mark) in ["fn ", "def ", "mod ", "pub "]
            .iter()
            .flat_map(|mark| text.match_indices(*mark))
        {
            let rest = &text[at + mark.len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            functions.insert(&rest[..end]);
        }
    }
    let known = |name: &str| match name.strip_suffix("..").or(name.ends_with('_').then_some(name)) {
        Some(prefix) => functions.iter().any(|function| function.starts_with(prefix)),
        None => functions.contains(name),
    };
    let is_name = |name: &str| {
        name.chars()
            .all(|c| c.is_lowercase() || c.is_ascii_digit() || c == '_' || c == '.')
    };
    let mut missing = Vec::new();
    for (page, text) in pages() {
        let internal = page == "ARCHITECTURE.md" || page.starts_with("docs/explanation/");
        for (number, line) in prose(&text).filter(|_| internal) {
            for name in quoted(line).filter(|name| !name.contains(' ')) {
                let last = name.rsplit("::").next().unwrap();
                let found = if name.ends_with(".rs") && !name.contains('*') {
                    sources
                        .iter()
                        .any(|(file, _)| file == name || file.ends_with(&format!("/{name}")))
                } else if name.starts_with("loom_") || name.contains("::") && is_name(last) && !name.starts_with("std")
                {
                    known(last)
                } else {
                    let models = [
                        "map_",
                        "grow_",
                        "shrink_",
                        "epoch_",
                        "snapshot_",
                        "lock_",
                        "flight_",
                        "handover_",
                        "tiered_",
                    ];
                    let model = text.contains("## Models") && models.iter().any(|model| name.starts_with(model));
                    !model || !is_name(name) || name.ends_with(".py") || known(&format!("loom_{name}")) || known(name)
                };
                if !found {
                    missing.push(format!("{page}:{number}: {name}"));
                }
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}
