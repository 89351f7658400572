#!/usr/bin/env bash
# Runs the tests of the Python wheel in each environment that build.sh made (in ENVIRONMENTS, if it
# is set), and those that do not depend on the interpreter on the newest: concurrently, since most
# of them use one processor and wait often; the output of each is printed when it has ended. The
# tests of the second tier that have one steady server run afterwards, on the newest interpreter;
# `make test-tier2` runs all of them.
set -euo pipefail
cd "$(dirname "$0")"
shopt -s nullglob
# Without `..`, which Python 3.15 warns of in the path of an environment.
here=$(realpath -m "../../${ENVIRONMENTS:-target/python}")
environments=("$here"/3.*/bin/python)
if [ ${#environments[@]} = 0 ]; then
    echo "no environment: make build-python" >&2
    exit 1
fi

newest=$(printf '%s\n' "${environments[@]}" | sort -V | tail -1)
# Type checkers, programs of the documentation, and pure Python that reads what another process
# wrote.
alike=(tests/test_{dashboard,docs,pytest_plugin,recipes,snapshot_interchange,statsfile,top,typing}.py)

tests_alike() {
    echo "== independent of the interpreter, on $("$newest" --version)"
    "$newest" -m pytest -q -p no:cacheprovider "${alike[@]}"
}

tests() {
    echo "== $("$1" --version)"
    if ! "$1" -c 'import test.test_functools' 2>/dev/null; then
        echo "skipped: this interpreter came without its test package, from which CPython's own tests are taken"
    else
        "$1" tests/cpython.py
    fi
    "$1" -m pytest -q -p no:cacheprovider --ignore tests/tier2 "${alike[@]/#/--ignore=}" tests
}

running=() logs=()
# LOG COMMAND..
begin() {
    logs+=("$1")
    (
        set -e
        "${@:2}"
    ) >"$1" 2>&1 &
    running+=("$!")
}
begin "${newest%/bin/python}/alike.log" tests_alike
for python in "${environments[@]}"; do
    begin "${python%/bin/python}/tests.log" tests "$python"
done
failed=0
for n in "${!running[@]}"; do
    wait "${running[n]}" || failed=1
    cat "${logs[n]}"
done
if ! command -v redis-server >/dev/null; then
    echo "there is no redis-server, which the second tier's tests need: make tools-redis" >&2
    exit 1
fi
"$newest" -m pytest -q -p no:cacheprovider tests/tier2/test_tier2_{cache,cached,docs,input,memcached,units,rate_limiter}.py || failed=1
exit "$failed"
