#!/usr/bin/env python3
"""Prints a Debian changelog with one entry: `changelog.py CHANGELOG.md VERSION MAINTAINER SECONDS`.

The entry names the changelog of the project, whose lines are for all three languages.
"""

import re
import sys
from datetime import datetime, timezone
from email.utils import format_datetime


def main():
    path, version, maintainer, seconds = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        found = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", file.read(), re.MULTILINE)
    when = datetime.fromtimestamp(int(seconds), timezone.utc)
    if found:
        when = datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc)
    print(f"hotset ({version}) unstable; urgency=medium\n")
    print(f"  * Version {version}. Its changes are listed in")
    print(f"    https://github.com/hotset/hotset/blob/v{version}/CHANGELOG.md\n")
    print(f" -- {maintainer}  {format_datetime(when)}")


main()
