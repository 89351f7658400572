//! Rules about the wording of comments, docstrings and Markdown: the terms of the field instead of
//! home-made ones, American spelling, and lines of at most 100 columns.
//! `WORDS=src/map cargo test --test words` checks the files below one path only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Phrases and what to write instead. In a phrase, `a|b` is one word or another, and `a*` a word
/// that begins with `a`. Case, and line breaks between the words, do not matter. Names in backticks
/// are not checked.
const PHRASES: &[(&str, &str)] = &[
    ("time|times is|are|was|were over", "expired"),
    ("what|that|which is|are|was|were over", "expired, expired entries"),
    ("is|are|was|were|be over", "expired; completed"),
    ("no end", "never expires; no deadline"),
    ("never ends|end", "never expires"),
    ("ends|end so", "expires after `ttl`; the name of the parameter"),
    ("end nearer", "moves the deadline earlier"),
    ("has|have|had|with|without times", "with an expiration"),
    ("setting|settings of time", "expiration settings"),
    ("a|the time of its|their own", "an expiration of its own"),
    ("life", "lifetime, remaining TTL"),
    ("lives go on", "TTLs keep counting down"),
    ("remaining|left of lives", "remaining TTL"),
    ("of a|its|their lives", "remaining TTL"),
    ("prolong*", "extends the deadline"),
    (
        "so long|many|much|often|few",
        "the name of the parameter: after `ttl`, at most `n`, every `interval`; as long as",
    ),
    ("who", "the caller, the thread, waiters, readers, the lock holder"),
    ("whoever|whosever|whomever", "the caller, the thread that"),
    ("those who", "waiters, readers, callers"),
    (
        "nobody|somebody|everybody|anybody|everyone|someone|anyone",
        "no thread, another caller, all waiters",
    ),
    ("what came|comes|becomes|became of", "the outcome, the result"),
    ("come|comes|came to nothing", "fails, is abandoned"),
    ("nothing comes|came of", "fails, is abandoned"),
    (
        "told|tells",
        "is notified, is called with, returns, reports; distinguishes",
    ),
    ("says", "returns, reports, states, describes"),
    ("ask|asks|asked|asking for", "requests, looks up"),
    ("overtak*|overtook", "invalidates"),
    ("supersed*", "invalidates"),
    ("come|comes|came|coming in", "is inserted, is admitted, is restored"),
    ("bring|brings|brought|bringing in", "inserts, admits, restores"),
    ("the bin", "limbo list"),
    ("housekeeping", "maintenance"),
    ("thread's|threads' part|parts", "per-thread state"),
    ("ring|rings of loads|loaders", "wait cycle, deadlock"),
    ("lane|lanes", "shard (engine); in-flight load"),
    ("lands|landed", "completes, completed"),
    ("meets|meeting|meetings", "joins, shares; finds; join count"),
    ("met", "joined, shared; found"),
    ("glance|glances", "probe"),
    ("a|first|second|another|other|late look", "probe, fast path; check"),
    ("at once", "immediately; in one step; concurrently"),
    ("the border|borders", "the FFI boundary"),
    (
        "c|rust|python|each|every face",
        "the Rust API, the C API, the Python API",
    ),
    ("faces", "the Rust API, the C API, the Python API"),
    ("go|goes|going|went|gone on", "continues; in progress, concurrent"),
    ("let|lets|letting go of", "releases, drops"),
    ("let|lets go", "releases, drops"),
    ("see|sees to it", "ensures"),
    ("see|sees to that", "ensures"),
    ("meanwhile", "while `f` runs, concurrently, in between"),
    (
        "is|are|was|were to be|wait|have|go|begin|come|run|see|know",
        "must, should; waited",
    ),
    ("its|their kin", "and its variants"),
    ("likewise", "the same; repeat the noun"),
    ("the present", "now, the current time"),
    ("moment|moments", "an instant, a timestamp; briefly"),
    ("apart", "out of line; except; distinguishes"),
    ("former", "previous"),
    ("damaged", "corrupt"),
    ("foreign file|files|snapshot|snapshots", "incompatible"),
    ("licence*", "license"),
    ("memois*", "memoize"),
    ("optimis*", "optimize"),
    ("behaviour*", "behavior"),
    ("serialis*", "serialize"),
    ("initialis*", "initialize"),
    ("synchronis*", "synchronize"),
    ("recognis*", "recognize"),
    ("normalis*", "normalize"),
    ("tokenis*", "tokenize"),
    ("randomis*", "randomize"),
    ("colour*", "color"),
    ("favour*", "favor"),
    ("neighbour*", "neighbor"),
    ("analyse*", "analyze"),
];

/// Phrases that mean something else in other directories: only files below the path are checked.
const LOCAL_PHRASES: &[(&str, &str, &str)] = &[
    ("src/map", "label|labels", "fingerprint"),
    ("src/map", "the reach", "probe limit"),
    ("src/map", "homes", "home buckets"),
    ("src/engine", "homes", "home buckets"),
    ("src/engine", "spare", "recycled"),
];

/// Words after which a phrase means something else: "users who", "is met" (a condition).
const INNOCENT_AFTER: &[(&str, &str)] = &[
    ("user", "who"),
    ("users", "who"),
    ("people", "who"),
    ("engineer", "who"),
    ("engineers", "who"),
    ("anyone", "who"),
    ("is", "met"),
    ("are", "met"),
    ("not", "met"),
    ("half", "life"),
    ("the", "former"), // "the former .. the latter"
];

/// Where a phrase is right: a quotation, or a name of another project. A path, and the phrase as it
/// is found.
const ALLOWED: &[(&str, &str)] = &[];

/// Files whose text is not ours, or made by a program from text that is checked.
const GENERATED: &[&str] = &["include/hotset.h", "tests/words.rs"];

const DIRECTORIES: &[&str] = &[
    "src",
    "tests",
    "packaging",
    "examples",
    "benches",
    "bindings",
    "docs",
    "fuzz",
    "include",
];
const SKIPPED: &[&str] = &["target", "corpus", "artifacts", "coverage", "dist", "build"];
const COLUMNS: usize = 100;

fn is_checked(path: &Path) -> bool {
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or("");
    ["rs", "py", "pyi", "c", "h", "hpp", "cpp", "sh", "toml", "md"].contains(&kind)
        || path.file_name().is_some_and(|name| name == "Makefile")
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !name.starts_with(['.', '_']) && !SKIPPED.contains(&name.as_str()) {
                collect(&path, into);
            }
        } else if is_checked(&path) {
            into.push(path);
        }
    }
}

/// The files to check, relative to the crate's root: their names and texts.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    DIRECTORIES.iter().for_each(|dir| collect(&root.join(dir), &mut paths));
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && is_checked(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    let below = std::env::var("WORDS").unwrap_or_default();
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    (paths.iter().map(|path| (name(path), path)))
        .filter(|(name, _)| !GENERATED.contains(&name.as_str()) && name.starts_with(&below))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap_or_default()))
        .collect()
}

/// What a file has of prose, line by line: an empty string where a line has no comment, a blank
/// where the comment is empty.
fn prose(name: &str, text: &str) -> Vec<String> {
    match name.rsplit('.').next().unwrap() {
        "md" => text.lines().map(|line| without_links(line) + " ").collect(),
        "rs" => c_comments(text, true),
        "c" | "h" | "hpp" | "cpp" => c_comments(text, false),
        "py" | "pyi" => python_comments(text),
        _ => text.lines().map(hash_comment).collect(),
    }
}

/// The line without the targets of its links.
fn without_links(line: &str) -> String {
    let mut rest = line;
    let mut kept = String::new();
    while let Some(at) = rest.find("](") {
        kept.push_str(&rest[..=at]);
        rest = rest[at..].find(')').map_or("", |end| &rest[at + end + 1..]);
    }
    kept + rest
}

fn hash_comment(line: &str) -> String {
    let starts = line.match_indices('#').find(|(at, _)| {
        let before = &line[..*at];
        let closed = |quote: char| before.matches(quote).count().is_multiple_of(2);
        (before.is_empty() || before.ends_with([' ', '\t'])) && closed('"') && closed('\'')
    });
    starts.map_or(String::new(), |(at, _)| {
        format!(" {}", line[at..].trim_start_matches('#'))
    })
}

/// Comments of C and Rust (`rust`: block comments nest, and there are raw strings and lifetimes).
fn c_comments(text: &str, rust: bool) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    let mut rest = text;
    let mut depth = 0;
    let skip_string = |rest: &mut &str, lines: &mut Vec<String>, line: &mut String, end: &str, escapes: bool| {
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            if rest[at..].starts_with(end) {
                *rest = &rest[at + end.len()..];
                return;
            } else if escapes && c == '\\' {
                if let Some((_, '\n')) = chars.next() {
                    lines.push(std::mem::take(line));
                }
            } else if c == '\n' {
                lines.push(std::mem::take(line));
            }
        }
        *rest = "";
    };
    while let Some(c) = rest.chars().next() {
        if c == '\n' {
            lines.push(std::mem::take(&mut line));
            line.extend((depth > 0).then_some(' '));
        } else if depth > 0 {
            if rest.starts_with("*/") {
                depth -= 1;
                rest = &rest[2..];
                continue;
            }
            if rust && rest.starts_with("/*") {
                depth += 1;
            }
            line.push(c);
        } else if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            line.push(' ');
            line.push_str(rest[..end].trim_start_matches(['/', '!']));
            rest = &rest[end..];
            continue;
        } else if rest.starts_with("/*") {
            depth = 1;
            rest = &rest[2..];
            continue;
        } else if c == '"' {
            rest = &rest[1..];
            skip_string(&mut rest, &mut lines, &mut line, "\"", true);
            continue;
        } else if rust && (rest.starts_with("r\"") || rest.starts_with("r#")) {
            let hashes = rest[1..].chars().take_while(|&c| c == '#').count();
            if rest[1 + hashes..].starts_with('"') {
                rest = &rest[2 + hashes..];
                skip_string(
                    &mut rest,
                    &mut lines,
                    &mut line,
                    &format!("\"{}", "#".repeat(hashes)),
                    false,
                );
                continue;
            }
        } else if c == '\'' {
            let mut next = rest.chars().skip(1);
            match (next.next(), next.next()) {
                (Some('\\'), Some(escaped)) => {
                    let after = 2 + escaped.len_utf8();
                    rest = rest[after..].find('\'').map_or("", |end| &rest[after + end + 1..]);
                    continue;
                }
                (Some(inner), Some('\'')) => {
                    rest = &rest[2 + inner.len_utf8()..];
                    continue;
                }
                _ => {}
            }
        }
        rest = &rest[c.len_utf8()..];
    }
    lines.push(line);
    lines
}

/// Comments and docstrings (all strings in triple quotes) of Python.
fn python_comments(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<&str> = None;
    for line in text.lines() {
        let mut found = if open.is_some() { " ".to_owned() } else { String::new() };
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            if let Some(quote) = open {
                match rest.find(quote) {
                    Some(end) => {
                        found.push_str(&rest[..end]);
                        rest = &rest[end + 3..];
                        open = None;
                    }
                    None => {
                        found.push_str(rest);
                        rest = "";
                    }
                }
            } else if let Some(quote) = ["\"\"\"", "'''"].into_iter().find(|quote| rest.starts_with(quote)) {
                open = Some(quote);
                rest = &rest[3..];
            } else if c == '#' {
                found.push(' ');
                found.push_str(rest.trim_start_matches(['#', ':']));
                rest = "";
            } else if c == '"' || c == '\'' {
                let mut chars = rest.char_indices().skip(1);
                let mut end = rest.len();
                while let Some((at, inner)) = chars.next() {
                    if inner == '\\' {
                        chars.next();
                    } else if inner == c {
                        end = at + 1;
                        break;
                    }
                }
                rest = &rest[end..];
            } else {
                rest = &rest[c.len_utf8()..];
            }
        }
        lines.push(found);
    }
    lines
}

/// The words of prose in lower case, with the numbers of their lines; "." stands for any
/// punctuation between words.
fn words(prose: &[String]) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    let (mut code, mut fenced) = (false, false);
    for (number, line) in prose.iter().enumerate() {
        if line.trim().is_empty() {
            (code, words) = (false, with_break(words, number));
            fenced &= !line.is_empty();
            continue;
        }
        if line.trim_start().starts_with("```") {
            (fenced, code) = (!fenced, false);
            words = with_break(words, number);
            continue;
        }
        let mut word = String::new();
        for c in line.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '_' || c == '\'' && !word.is_empty() {
                word.extend(c.to_lowercase());
                continue;
            }
            if !word.is_empty() && !code {
                words.push((number, word.trim_end_matches('\'').to_owned()));
            }
            word.clear();
            if c == '`' && !fenced {
                code = !code;
            }
            if !c.is_whitespace() && !"-*>#/".contains(c) {
                words = with_break(words, number);
            }
        }
    }
    words
}

fn with_break(mut words: Vec<(usize, String)>, number: usize) -> Vec<(usize, String)> {
    words.push((number, ".".to_owned()));
    words
}

fn matches(pattern: &str, word: &str) -> bool {
    pattern.split('|').any(|pattern| match pattern.strip_suffix('*') {
        Some(begin) => word.starts_with(begin),
        None => word == pattern || word.strip_suffix("'s") == Some(pattern),
    })
}

/// Returns where words match `pattern`, in order. `places` has the positions of each word.
fn matching(places: &BTreeMap<&str, Vec<usize>>, pattern: &str) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    for pattern in pattern.split('|') {
        // What matches begins with it, and sorts right after it.
        let begin = pattern.trim_end_matches('*');
        let range = places.range(begin..).take_while(|(word, _)| word.starts_with(begin));
        for (_, at) in range.filter(|(word, _)| matches(pattern, word)) {
            found.extend(at);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// What is wrong with a file: line numbers (from 1), and what to do.
fn faults(name: &str, text: &str) -> Vec<(usize, String)> {
    let prose = prose(name, text);
    let words = words(&prose);
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (_, word)) in words.iter().enumerate() {
        places.entry(word).or_default().push(at);
    }
    let mut faults: Vec<(usize, String)> = Vec::new();
    let local = LOCAL_PHRASES.iter().filter(|(path, ..)| name.starts_with(path));
    let phrases = (PHRASES.iter().copied()).chain(local.map(|&(_, phrase, instead)| (phrase, instead)));
    for (phrase, instead) in phrases {
        let patterns: Vec<&str> = phrase.split(' ').collect();
        for at in matching(&places, patterns[0]) {
            let Some(found) = words.get(at..at + patterns.len()) else {
                continue;
            };
            if !patterns[1..]
                .iter()
                .zip(&found[1..])
                .all(|(pattern, (_, word))| matches(pattern, word))
            {
                continue;
            }
            let spelled = found
                .iter()
                .map(|(_, word)| word.as_str())
                .collect::<Vec<_>>()
                .join(" ");
            let previous = at.checked_sub(1).map_or(".", |at| words[at].1.as_str());
            let next = words.get(at + found.len()).map_or(".", |(_, word)| word.as_str());
            let innocent = INNOCENT_AFTER.contains(&(previous, spelled.as_str()))
                || spelled.ends_with(" over") && next.starts_with(|c: char| c.is_ascii_digit())
                || ALLOWED.contains(&(name, spelled.as_str()));
            let number = found[0].0 + 1;
            let known = |&(line, ref fault): &(usize, String)| line == number && fault.contains(&spelled);
            if !innocent && !faults.iter().any(known) {
                faults.push((number, format!("\"{spelled}\": write {instead}")));
            }
        }
    }
    let markdown = name.ends_with(".md");
    let mut fenced = false;
    for (number, (line, prose)) in text.lines().zip(&prose).enumerate() {
        let bare = prose.trim_start();
        if bare.starts_with("```") {
            fenced = !fenced;
        }
        let begins = line.trim_start();
        let comment = markdown
            || !bare.is_empty()
                && (["//", "/*", "*", "#", "\"\"\""]
                    .iter()
                    .any(|mark| begins.starts_with(mark))
                    || begins == bare);
        let width = if markdown { prose.trim_end() } else { line }.chars().count();
        let breakable = bare.split_whitespace().all(|word| word.chars().count() <= COLUMNS / 2);
        if comment && !fenced && width > COLUMNS && !bare.starts_with('|') && breakable {
            faults.push((number + 1, format!("{width} columns: at most {COLUMNS}")));
        }
        fenced &= !prose.is_empty();
    }
    faults.sort();
    faults
}

#[test]
fn prose_uses_the_terms_of_the_field() {
    let files = files();
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut total = 0;
    for (name, text) in &files {
        let faults = faults(name, text);
        let mut parts: Vec<&str> = name.split('/').collect();
        parts.pop();
        let count = counts.entry(parts[..parts.len().min(3)].join("/")).or_default();
        for (line, fault) in faults {
            println!("{name}:{line}: {fault}");
            total += 1;
            *(if fault.ends_with("100") {
                &mut count.1
            } else {
                &mut count.0
            }) += 1;
        }
    }
    counts.retain(|_, count| *count != (0, 0));
    if total > 0 {
        println!("| directory | phrases | long lines |\n|---|---|---|");
        counts
            .iter()
            .for_each(|(dir, (phrases, long))| println!("| {dir}/ | {phrases} | {long} |"));
    }
    assert_eq!(total, 0, "see above");
}

#[test]
fn phrases_are_found_in_comments_only() {
    let found = |name: &str, text: &str| faults(name, text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
    assert_eq!(
        found("a.rs", "let a = \"nobody\"; // what is\n// over, 'a' nobody\n"),
        [1, 2]
    );
    assert_eq!(
        found(
            "a.rs",
            "let nobody = r#\"// nobody\"#; let b = '\"'; // `nobody`, users who\n"
        ),
        [0; 0]
    );
    assert_eq!(found("a.c", "/* fine\n * nobody */ int nobody; // Whoever\n"), [2, 2]);
    assert_eq!(found("a.py", "a = 'nobody'  # nobody\n\"\"\"Whoever's\"\"\"\n"), [1, 2]);
    assert_eq!(found("Makefile", "nobody: a ## nobody\n"), [1]);
    assert_eq!(
        found("a.md", "[link](nobody.md) so\nlong, is over 3\n\n`so` long\n"),
        [1]
    );
    let long = "word ".repeat(25);
    assert_eq!(found("a.md", &format!("{}\n", "word ".repeat(20).trim_end())), [0; 0]);
    assert_eq!(found("a.md", &format!("{long}\n| {long}\n```\n{long}\n```\n")), [1]);
    assert_eq!(found("a.rs", &format!("/// {long}\n    a({long});\n")), [1]);
}
