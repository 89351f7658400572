#!/usr/bin/env bash
# Builds the wheel for each interpreter at hand, and installs it into an environment of its own: target/python/VERSION.
# PYTHONS="3.13 /opt/python/bin/python" chooses others.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=target/python

interpreters() {
    if [ -n "${PYTHONS:-}" ]; then
        for python in $PYTHONS; do
            case $python in
            */*) echo "$python" ;;
            *) ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$python"*/bin/python 2>/dev/null || command -v "python$python" ;;
            esac
        done
    else
        ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-9]*/bin/python 2>/dev/null || command -v python3
    fi
}

for python in $(interpreters); do
    name=$("$python" -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], getattr(sys, "abiflags", "")))')
    env=$here/$name
    if ! [ -x "$env/bin/maturin" ]; then
        "$python" -m venv "$env"
        "$env/bin/python" -m pip install --quiet --disable-pip-version-check "maturin>=1.9,<2" pytest hypothesis
    fi
    wheels=$here/wheels/$name
    rm -rf "$wheels"
    # A target directory each: what is built for one interpreter is of no use to the next.
    CARGO_TARGET_DIR=$here/cargo-$name "$env/bin/maturin" build --quiet --release --manifest-path bindings/python/Cargo.toml \
        --interpreter "$env/bin/python" --out "$wheels"
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheels"/*.whl
    echo "$name: $("$env/bin/python" -c 'import hotset; print(hotset.__file__)')"
done
