#!/usr/bin/env bash
# Installs the wheels and the sdist of target/packages as a stranger's pip does, in fresh folders,
# on PYTHONS="3.11 3.13 3.14 3.15" (pyenv's, or Debian's newest ones in the chroot of
# `make test-python-new`): the wheel, and the sdist, which compiles. TESTS=3.13 runs there the tests
# that the sdist carries.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONS=${PYTHONS:-3.11 3.13 3.14 3.15}
TESTS=${TESTS-3.13}
# What is compiled is kept for the next interpreter.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/packages/cargo-sdist}

tried=0
for version in $PYTHONS; do
    options=--sdist
    [ "$version" != "$TESTS" ] || options="--sdist --tests"
    python=$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version"*/bin/python 2>/dev/null | tail -1 || true)
    if [ -n "$python" ]; then
        "$python" packaging/test_artifacts.py $options
    elif [ "$(id -u)" = 0 ] && [ -x "target/python-new/debian/usr/bin/python$version" ]; then
        INTERPRETERS=$version bindings/python/newest.sh "/usr/bin/python$version" packaging/test_artifacts.py $options
    else
        echo "no CPython $version is here (make test-python-new installs 3.14 and 3.15): not tried"
        continue
    fi
    tried=$((tried + 1))
done
if [ "$tried" = 0 ]; then
    echo "none of the interpreters is here: $PYTHONS" >&2
    exit 1
fi
# Each ends in one line.
"$(packaging/tools.sh)/python" packaging/test_artifacts.py --refusals
