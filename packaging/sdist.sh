#!/usr/bin/env bash
# Builds the source distribution, into target/packages/sdist, by the package's own build backend.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(packaging/tools.sh)
out=$PWD/target/packages/sdist
rm -rf "$out"
mkdir -p "$out"
cd bindings/python
PATH=$tools:$PATH PYTHONPATH=backend PYTHONDONTWRITEBYTECODE=1 "$tools/python" -c '
import sys
import hotset_backend
hotset_backend.build_sdist(sys.argv[1])' "$out"
ls -l "$out"
