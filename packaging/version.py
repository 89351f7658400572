#!/usr/bin/env python3
"""Keeps the version in step wherever the tree has it: `version.py get|check|set X.Y.Z`.

`check` exits with 1 where a place has another version than the workspace's Cargo.toml, and prints
each; `check --tag vX.Y.Z` also compares a tag. `set` writes the version into every place.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


def forms(version):
    """Returns what of a version stands in files: whole, its numbers, and the ABI's part."""
    major, minor, patch = version.split(".")
    abi = f"0.{minor}" if major == "0" else major
    return {"version": version, "major": major, "minor": minor, "patch": patch, "abi": abi, "series": f"{major}.{minor}"}


# Of each place: the file, an expression with the three groups before, what, after; which form of
# the version it is; and at least how many there are.
PLACES = [
    ("Cargo.toml", r'(\[workspace\.package\]\nversion = ")([^"]*)(")', "version", 1),
    ("bindings/python/Cargo.toml", r'(\[package\]\n(?:[^\[]*\n)?version = ")([^"]*)(")', "version", 1),
    ("bindings/python/pyproject.toml", r'(\[project\]\n(?:[^\[]*\n)?version = ")([^"]*)(")', "version", 1),
    ("include/hotset.h", r"(#define HOTSET_VERSION_MAJOR )(\d+)(\n)", "major", 1),
    ("include/hotset.h", r"(#define HOTSET_VERSION_MINOR )(\d+)(\n)", "minor", 1),
    ("include/hotset.h", r"(#define HOTSET_VERSION_PATCH )(\d+)(\n)", "patch", 1),
    ("include/hotset.h", r'(#define HOTSET_VERSION_STRING ")([^"]*)(")', "version", 1),
    ("CITATION.cff", r"(^version: )(\S+)(\n)", "version", 0),
    ("docs/how-to/install-c.md", r"(GIT_TAG v)([\d.]+)(\n)", "version", 1),
    ("docs/how-to/install-c.md", r"(find_package\(hotset )([\d.]+)( )", "series", 1),
    ("docs/how-to/install-c.md", r"(libhotset\.so\.)([\d.]*\d)(`)", "abi", 1),
    ("docs/how-to/install-c.md", r"(\blibhotset)(\d[\d.]*)([`_])", "abi", 1),
]
# Every lock file has the crates of this tree, but for those that are never published (0.0.0).
LOCKS = r'(name = "hotset(?:-c|-python)?"\nversion = ")([^"]*)(")'
# A dependency on the crate, as the pages show it.
DEPENDENCY = r'(^hotset = (?:\{ *version = )?")(\d[\d.]*)(")'


def skipped(path):
    return any(part in ("target", ".git") for part in path.relative_to(ROOT).parts)


def places():
    yield from PLACES
    locks = [path for path in sorted(ROOT.rglob("Cargo.lock")) if not skipped(path)]
    if len(locks) < 5:
        sys.exit(f"version: {len(locks)} lock files were found, at least 5 expected")
    for path in locks:
        yield str(path.relative_to(ROOT)), LOCKS, "version", 1
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bindings").rglob("*.md")]
    for path in sorted(pages):
        if not skipped(path) and path.name != "CHANGELOG.md":
            yield str(path.relative_to(ROOT)), DEPENDENCY, "series", 0


def read(name):
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.exists() else None


def current():
    found = re.search(PLACES[0][1], read("Cargo.toml"))
    if not found or not VERSION.fullmatch(found[2]):
        sys.exit("version: Cargo.toml has no [workspace.package] with a version X.Y.Z")
    return found[2]


def check(tag):
    version = current()
    wanted = forms(version)
    wrong = []
    for name, pattern, form, least in places():
        text = read(name)
        if text is None and least == 0:
            continue
        found = [match for match in re.finditer(pattern, text or "", re.MULTILINE)]
        if len(found) < least:
            wrong.append(f"{name}: no version where {pattern} expects one")
        for match in found:
            if match[2] != wanted[form]:
                line = text.count("\n", 0, match.start(2)) + 1
                wrong.append(f"{name}:{line}: {match[2]}, expected {wanted[form]}")
    if tag and tag != f"v{version}":
        wrong.append(f"the tag is {tag}, expected v{version}")
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        sys.exit(1)
    print(f"version {version} in all places")


def write(version):
    wanted = forms(version)
    for name, pattern, form, _ in places():
        text = read(name)
        if text is None:
            continue
        changed = re.sub(pattern, lambda match: f"{match[1]}{wanted[form]}{match[3]}", text, flags=re.MULTILINE)
        if changed != text:
            (ROOT / name).write_text(changed, encoding="utf-8")


def main(arguments):
    match arguments:
        case ["get"]:
            print(current())
        case ["check"]:
            check(None)
        case ["check", "--tag", tag]:
            check(tag)
        case ["set", version] if VERSION.fullmatch(version):
            write(version)
            check(None)
        case ["set", version]:
            sys.exit(f"version: not of the form X.Y.Z: {version}")
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
