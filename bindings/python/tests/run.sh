#!/usr/bin/env bash
# On every interpreter for which bindings/python/build.sh has made an environment: CPython's own tests of lru_cache, and pytest.
set -euo pipefail
cd "$(dirname "$0")/../../.."

for python in target/python/3.*/bin/python; do
    echo "== $("$python" -VV | head -1)"
    "$python" -B bindings/python/tests/cpython.py
    "$python" -B -m pytest -q -p no:cacheprovider bindings/python/tests "$@"
done
