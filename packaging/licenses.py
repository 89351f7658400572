"""Collects the licenses of others' code in the wheel and the C library: `LICENSE-THIRD-PARTY`.

    licenses.py --write: writes it anew, in the root and beside the wheel's other licenses
    licenses.py: checks that it is up to date

Those of what is used to build alone are not included, nor are versions: each wheel has a list of
components with them.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "LICENSE-THIRD-PARTY", ROOT / "bindings/python/licenses/LICENSE-THIRD-PARTY"]
# The packages that are published in compiled form: manifest, and name.
PUBLISHED = [("bindings/python/Cargo.toml", "hotset-python"), ("Cargo.toml", "hotset-c")]
TARGET = "x86_64-unknown-linux-gnu"
# Of those that a crate offers, the first.
NAMES = ["LICENSE-MIT", "LICENSE-MIT.txt", "LICENSE", "LICENSE.txt", "LICENSE.md"]


def contained(manifest: str, package: str) -> dict[str, Path]:
    """Returns the folders of the crates that are compiled into a package, by name."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    described = json.loads(subprocess.check_output([*command, "--manifest-path", ROOT / manifest]))
    packages = {each["id"]: each for each in described["packages"]}
    nodes = {each["id"]: each for each in described["resolve"]["nodes"]}
    found: dict[str, Path] = {}
    todo = [key for key, each in packages.items() if each["name"] == package]
    seen = set(todo)
    while todo:
        each = packages[key := todo.pop()]
        if any("proc-macro" in target["kind"] for target in each["targets"]):
            continue
        if each["source"] is not None:
            found[each["name"]] = Path(each["manifest_path"]).parent
        for dependency in nodes[key]["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                todo.append(dependency["pkg"])
    return found


def license_of(folder: Path) -> str:
    """Returns the text of a crate's license."""
    file = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if file is None:
        raise SystemExit(f"{folder} has no license under a known name: add that to {Path(__file__).name}")
    lines = file.read_text().replace("\r\n", "\n").strip().split("\n")
    return "\n".join(line.rstrip() for line in lines)


def text() -> str:
    """Returns the whole file: equal texts once."""
    crates: dict[str, Path] = {}
    for manifest, package in PUBLISHED:
        crates |= contained(manifest, package)
    by_text: dict[str, list[str]] = {}
    for name, folder in sorted(crates.items()):
        by_text.setdefault(license_of(folder), []).append(name)
    permission = (ROOT / "LICENSE-MIT").read_text().strip().partition("Permission is")
    std = "Copyright (c) The Rust Project Contributors\n\n" + "".join(permission[1:])
    by_text[std] = ["The Rust standard library"]
    parts = ["The wheel and the compiled C library contain code of the following projects."]
    parts += [f"{', '.join(names)}\n\n{license}" for license, names in by_text.items()]
    return f"\n\n{'-' * 80}\n\n".join(parts) + "\n"


def main() -> None:
    wanted = text()
    if sys.argv[1:] == ["--write"]:
        for file in FILES:
            file.write_text(wanted)
        return
    for file in FILES:
        if not file.is_file() or file.read_text() != wanted:
            raise SystemExit(f"{file.relative_to(ROOT)} is not up to date: run make licenses")
    print("LICENSE-THIRD-PARTY is up to date")


if __name__ == "__main__":
    main()
