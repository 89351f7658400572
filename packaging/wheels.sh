#!/usr/bin/env bash
# Builds the wheels that are published, into target/packages/wheels: for the interpreters
# PYTHONS="3.11 3.12 3.13 3.14 3.15" and TARGETS="x86_64-unknown-linux-gnu ..". None of the
# interpreters has to be here: maturin knows how each of them was built. zig links for glibc 2.17
# and musl 1.2, from any Linux. "3.14t" is the free-threaded 3.14.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONS=${PYTHONS:-3.11 3.12 3.13 3.14 3.15}
TARGETS=${TARGETS:-x86_64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-gnu aarch64-unknown-linux-musl}
out=target/packages/wheels

interpreters=()
for python in $PYTHONS; do
    case $python in
    3.1[1-9] | 3.1[4-9]t) interpreters+=("python$python") ;;
    3.13t)
        echo "no wheel for 3.13t, whose free threading CPython calls experimental: it is from 3.14t on that maturin builds them" >&2
        exit 1
        ;;
    *)
        echo "no version of CPython that wheels are built for: $python (3.11 to 3.15, 3.14t)" >&2
        exit 1
        ;;
    esac
done
tools=$(packaging/tools.sh)
export PATH=$tools:$PATH
mkdir -p "$out"
for target in $TARGETS; do
    case $target in
    *-linux-gnu) tag=manylinux_2_17 ;;
    *-linux-musl) tag=musllinux_1_2 ;;
    *)
        echo "no target that wheels are built for here: $target (x86_64- and aarch64-unknown-linux-gnu and -musl); the others are built on their own machines" >&2
        exit 1
        ;;
    esac
    # (Another compiler than rustup's has its targets from elsewhere.)
    if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$target"; then
        rustup target add "$target" || {
            echo "rustup cannot install the standard library of $target: build without it, TARGETS=.." >&2
            exit 1
        }
    fi
    # One target directory for all interpreters: only what depends on Python is compiled again.
    maturin build --quiet --release --locked --zig --target "$target" --compatibility "$tag" --manifest-path bindings/python/Cargo.toml \
        --interpreter "${interpreters[@]}" --compression-level 9 --target-dir target/packages/cargo --out "$out"
done
ls -l "$out"
