#!/usr/bin/env bash
# Writes SHA256SUMS of what is in DIST (target/dist), after it has copied the files of FROM there,
# where that is given; and NOTES.md, the changelog's section of this version.
set -euo pipefail
cd "$(dirname "$0")/.."
dist=${DIST:-target/dist}
[ -z "${FROM:-}" ] || cp "$FROM"/* "$dist/"
notes=$(packaging/changelog.py notes "$(packaging/version.py get)")
printf '%s\n' "$notes" >"$dist/NOTES.md"
cd "$dist"
rm -f SHA256SUMS
mapfile -t files < <(find . -maxdepth 1 -type f ! -name SHA256SUMS ! -name NOTES.md -printf '%P\n' | LC_ALL=C sort)
[ "${#files[@]}" -gt 0 ] || { echo "checksums: no file in $dist" >&2; exit 1; }
sha256sum -- "${files[@]}" >SHA256SUMS
sha256sum --quiet --check SHA256SUMS
echo "checksums: ${#files[@]} files in $dist/SHA256SUMS"
