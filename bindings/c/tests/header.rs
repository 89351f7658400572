//! `include/hotset.h` is what cbindgen makes of the sources. `make header-c` writes it anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The modules that the header shows, from the types up the ladder.
const SOURCES: [&str; 11] = [
    "types", "border", "basic", "read", "write", "change", "reply", "walk", "whole", "snapshot", "text",
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
    format!("{}\n", header.trim())
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
