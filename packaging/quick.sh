#!/usr/bin/env bash
# What continuous integration checks of the Python package: an sdist, a wheel that pip builds from
# it outside of this tree, its contents, metadata and use. The wheel is built without optimization;
# the size is that of the wheel that `make build-python` has built, if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(packaging/tools.sh)
packaging/sdist.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp target/packages/sdist/*.tar.gz "$folder"
tree=$PWD
python=$("$tools/python" -c 'import sys; print(sys._base_executable)')
tar xzf "$folder"/*.tar.gz -C "$folder"
# The crate and the native crate are each whole.
for manifest in "$folder"/hotset-*/Cargo.toml "$folder"/hotset-*/bindings/python/Cargo.toml; do
    cargo metadata --quiet --locked --no-deps --format-version 1 --manifest-path "$manifest" >/dev/null
done
"$python" -m venv "$folder/env"
(
    cd "$folder"
    export CARGO_TARGET_DIR=$tree/target/packages/cargo-quick CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0
    env/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir wheel ./*.tar.gz
)
"$tools/python" packaging/check_wheels.py --any-size "$folder/wheel"
built=$(ls target/python/wheels/3.*/*.whl 2>/dev/null | sort -V | tail -1 || true)
if [ -n "$built" ]; then
    "$tools/python" packaging/check_wheels.py --no-run "$built"
else
    echo "no optimized wheel is here (make build-python): sizes are not checked"
fi
