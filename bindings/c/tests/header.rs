//! `include/hotset.h` is what cbindgen makes of the sources. `make header-c` writes it anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The modules that the header shows, from the types up the ladder.
const SOURCES: [&str; 12] = [
    "types", "cache", "basic", "read", "write", "compute", "load", "reply", "iter", "admin", "snapshot", "strings",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn macros() -> String {
    let (major, minor, patch) = (
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    );
    let text = env!("CARGO_PKG_VERSION");
    format!(
        "
/* The version of this header: compare with hotset_version(), which is the library's. */
#define HOTSET_VERSION_MAJOR {major}
#define HOTSET_VERSION_MINOR {minor}
#define HOTSET_VERSION_PATCH {patch}
#define HOTSET_VERSION (HOTSET_VERSION_MAJOR * 1000000 + HOTSET_VERSION_MINOR * 1000 + HOTSET_VERSION_PATCH)
#define HOTSET_VERSION_STRING \"{text}\"

/* Times to live are in milliseconds. These are not times: */
/* as the options of the cache say; */
#define HOTSET_TTL_DEFAULT ((uint64_t)0)
/* without end; */
#define HOTSET_TTL_NONE (UINT64_MAX - 1)
/* as long as the entry that is replaced; HOTSET_TTL_DEFAULT if there is none. */
#define HOTSET_TTL_KEEP UINT64_MAX"
    )
}

fn generated() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    config.after_includes = Some(macros());
    let builder = SOURCES
        .iter()
        .fold(cbindgen::Builder::new().with_config(config), |builder, name| {
            builder.with_src(root().join(format!("src/{name}.rs")))
        });
    let mut header = Vec::new();
    builder
        .generate()
        .expect("the sources are what cbindgen understands")
        .write(&mut header);
    let header = String::from_utf8(header).expect("cbindgen writes UTF-8");
    format!("{}\n", banners_apart(header.trim()))
}

/// Makes the banner of a section, which cbindgen knows only as the beginning of a function's comment, a comment of its own.
fn banners_apart(header: &str) -> String {
    let mut parts = header.split("/**\n * ---");
    let mut apart = parts.next().expect("split gives at least one part").to_owned();
    for part in parts {
        let (banner, comment) = part
            .split_once("---\n *\n")
            .expect("a banner ends with a line, and a blank one");
        apart.push_str(&format!("/* ---{banner}--- */\n\n/**\n{comment}"));
    }
    apart
}

#[test]
fn the_header_is_what_the_sources_say() {
    let at = root().join("../../include/hotset.h");
    let header = generated();
    if env::var_os("HOTSET_WRITE_HEADER").is_some() {
        return fs::write(at, header).expect("include/hotset.h can be written");
    }
    let kept = fs::read_to_string(at).unwrap_or_default();
    assert!(
        kept == header,
        "include/hotset.h is not up to date: run `make header-c`"
    );
}

#[test]
fn banners_are_comments_of_their_own() {
    let header = generated();
    assert_eq!(header.matches("/* ----").count(), 9, "the rungs of the ladder");
    let comments: Vec<&str> = header.split("/**").skip(1).collect();
    for comment in comments {
        let comment = comment.split("*/").next().unwrap_or_default();
        assert!(!comment.contains("-----"), "a banner is part of{comment}");
    }
}
