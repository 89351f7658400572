#!/usr/bin/env bash
# Prints the copyright file of the Debian packages, with the crates that are compiled into the
# library.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
holder=$(sed -n 's/^Copyright (c) //p' "$root/LICENSE-MIT")
[ -n "$holder" ] || { echo "copyright: LICENSE-MIT names no holder" >&2; exit 1; }

cat <<HEAD
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: hotset
Source: https://github.com/hotset/hotset
Comment:
 The library contains Rust's standard library (MIT or Apache-2.0) and these
 crates, each under the license that it declares:
HEAD
cd "$root"
cargo tree --locked --offline -p hotset-c --edges normal --prefix none --format '{p}|{l}' |
    sed -e 's/ (\*)$//' -e 's/ (.*)|/|/' | grep -v '^hotset' | sort -u |
    while IFS='|' read -r crate license; do printf ' %s: %s\n' "${crate/ v/ }" "$license"; done
cat <<FILES

Files: *
Copyright: $holder
License: Apache-2.0 or MIT

License: Apache-2.0
 On Debian systems, the text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.

License: MIT
FILES
sed -n '/^Permission/,$p' "$root/LICENSE-MIT" | sed -e 's/^$/./' -e 's/^/ /'
