"""Checks the crate as it is published: what it carries, its size and metadata, and its quickstart.

A program that depends on the unpacked `.crate` runs the Rust quickstart of the README. Needs cargo
and python3 only.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Where the user's program is compiled.
TARGET = ROOT / "target/packages/crate"
REPOSITORY = "https://github.com/hotset/hotset"
# What the crate carries, and nothing else: the library with its unit tests, and the pages whose
# examples are its doc-tests.
CARRIED = (
    r"Cargo\.(lock|toml|toml\.orig)|\.cargo_vcs_info\.json",
    r"(README|CHANGELOG)\.md|LICENSE-(APACHE|MIT)",
    r"src/([a-z0-9_]+/)*[a-z0-9_]+\.rs",
    r"docs/how-to/[a-z-]+\.md|docs/tutorials/rust-service\.md",
)
MOST_BYTES = 600_000
FIELDS = {
    "repository": REPOSITORY,
    "homepage": REPOSITORY,
    "documentation": "https://docs.rs/hotset",
    "license": "MIT OR Apache-2.0",
    "readme": "README.md",
}


def cargo(*arguments: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([os.environ.get("CARGO", "cargo"), *arguments], cwd=cwd, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"cargo {' '.join(map(str, arguments))} fails, see above")
    return done.stdout


def check(ok: object, what: str) -> None:
    if not ok:
        sys.exit(f"the crate: {what}")


def package(folder: Path) -> Path:
    """Unpacks the crate below `folder`. Returns where it is."""
    # As it would be published, from files that need not be committed.
    cargo("package", "--quiet", "--no-verify", "--allow-dirty", "--locked", "--package", "hotset", "--target-dir", folder)
    [crate] = (folder / "package").glob("*.crate")
    size = crate.stat().st_size
    check(size < MOST_BYTES, f"{size:,} bytes, of {MOST_BYTES:,} at most")
    with tarfile.open(crate) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    stray = [name for name in names if not re.fullmatch("|".join(CARRIED), name)]
    check(not stray, f"carries {stray}: Cargo.toml's `include` and CARRIED differ")
    # Each file that the sources include.
    unpacked = folder / crate.stem
    for source in unpacked.glob("src/**/*.rs"):
        for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            check((source.parent / included).is_file(), f"{source.relative_to(unpacked)} includes {included}, which it lacks")
    print(f"{crate.name}: {len(names)} files, {size:,} bytes")
    return unpacked


def check_metadata(unpacked: Path) -> str:
    """Checks the metadata. Returns the version."""
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--no-deps", "--manifest-path", unpacked / "Cargo.toml"))
    [found] = metadata["packages"]
    for field, value in FIELDS.items():
        check(found[field] == value, f"{field} is {found[field]!r}, not {value!r}")
    check(found["metadata"]["docs"]["rs"] == {"all-features": True, "rustdoc-args": ["--cfg", "docsrs"]}, "metadata of docs.rs")
    check(len(found["keywords"]) == 5 and found["categories"] and found["rust_version"], "keywords, categories, rust-version")
    check({kind for target in found["targets"] for kind in target["kind"]} == {"lib"}, f"targets {found['targets']}")
    return found["version"]


def run_quickstart(unpacked: Path, version: str) -> None:
    """Builds and runs the README's program in a crate that depends on `unpacked`."""
    readme = (unpacked / "README.md").read_text()
    [program] = [text for text in re.findall(r"```rust\n(.*?)```", readme, re.DOTALL) if "fn main()" in text]
    user = unpacked.parent / "user"
    (user / "src").mkdir(parents=True)
    manifest = f"""[package]
name = "user"
version = "0.0.0"
edition = "2021"

[dependencies]
hotset = {{ path = {json.dumps(str(unpacked))}, version = "{version}" }}

[workspace]
"""
    (user / "Cargo.toml").write_text(manifest)
    (user / "src/main.rs").write_text(program)
    # The versions that this tree is tested with.
    shutil.copy(ROOT / "Cargo.lock", user)
    printed = cargo("run", "--quiet", "--manifest-path", user / "Cargo.toml", "--target-dir", TARGET)
    check("Stats" in printed, f"the quickstart printed {printed!r}")
    print("a program that depends on it runs the README's quickstart")


# Outside of the tree, whose workspace it would be taken for a part of.
with tempfile.TemporaryDirectory(prefix="hotset-crate-") as folder:
    unpacked = package(Path(folder))
    run_quickstart(unpacked, check_metadata(unpacked))
