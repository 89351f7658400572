#!/usr/bin/env bash
# Runs the tests of the Python wheel in each environment that build.sh made (in ENVIRONMENTS, if it is set).
set -euo pipefail
cd "$(dirname "$0")"
shopt -s nullglob
environments=(../../"${ENVIRONMENTS:-target/python}"/3.*/bin/python)
if [ ${#environments[@]} = 0 ]; then
    echo "no environment: make build-python" >&2
    exit 1
fi
for python in "${environments[@]}"; do
    echo "== $("$python" --version)"
    if ! "$python" -c 'import test.test_functools' 2>/dev/null; then
        echo "skipped: this interpreter came without its test package, from which CPython's own tests are taken"
    else
        "$python" tests/cpython.py
    fi
    "$python" -m pytest -q -p no:cacheprovider tests
done
