#!/usr/bin/env bash
# Checks by the compiler that the wheel's crate builds for another target, `check_wheel_target.sh
# x86_64-pc-windows-msvc`, with the newest and the oldest Python. No interpreter of that platform is
# needed: what PyO3 would ask it is in a file.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/check
for minor in 11 15; do
    case $1 in
    *windows*) name=python3$minor ;;
    *) name=python3.$minor ;;
    esac
    config=$PWD/target/check/pyo3-$1-3.$minor.txt
    printf '%s\n' implementation=CPython "version=3.$minor" shared=true abi3=false "lib_name=$name" pointer_width=64 build_flags= \
        suppress_build_script_link_lines=true >"$config"
    CC=true AR=true PYO3_CONFIG_FILE=$config CARGO_TARGET_DIR=target/check cargo check --quiet --locked \
        --manifest-path bindings/python/Cargo.toml --target "$1"
    echo "checked: the wheel for $1, CPython 3.$minor"
done
