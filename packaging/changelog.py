#!/usr/bin/env python3
"""Reads and dates CHANGELOG.md.

`changelog.py unreleased` prints what stands under Unreleased, and fails if that has no line.
`changelog.py date X.Y.Z YYYY-MM-DD` makes it the section of that version, and begins a new one.
`changelog.py notes X.Y.Z` prints the section of a version.
"""

import re
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "CHANGELOG.md"
HEADING = "## [Unreleased]\n"


def section(text, start):
    """Returns what follows a heading, up to the next one of its level."""
    rest = text[start:]
    end = re.search(r"^## ", rest, re.MULTILINE)
    return (rest[: end.start()] if end else rest).strip()


def unreleased(text):
    at = text.find(HEADING)
    if at < 0:
        sys.exit("CHANGELOG.md has no section Unreleased")
    found = section(text, at + len(HEADING))
    if not re.search(r"^- \S", found, re.MULTILINE):
        sys.exit("CHANGELOG.md has no line under Unreleased: there is nothing to release")
    return found


def main(arguments):
    text = FILE.read_text(encoding="utf-8")
    match arguments:
        case ["unreleased"]:
            print(unreleased(text))
        case ["date", version, day]:
            unreleased(text)
            if f"## [{version}]" in text:
                sys.exit(f"CHANGELOG.md already has a section {version}")
            FILE.write_text(text.replace(HEADING, f"{HEADING}\n## [{version}] - {day}\n", 1), encoding="utf-8")
        case ["notes", version]:
            found = re.search(rf"^## \[{re.escape(version)}\].*\n", text, re.MULTILINE)
            if not found:
                sys.exit(f"CHANGELOG.md has no section {version}")
            print(section(text, found.end()))
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
