#!/usr/bin/env bash
# Runs the tests of cachetools and async-lru, as they are in their source distributions, on hotset:
# through the adapters in this folder, on the newest interpreter that build.sh made an environment
# for. What may fail, and why, is in cachetools.toml and async_lru.toml; any other failure fails
# here. Needs the network once; the suites are kept in target/peers.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=$PWD/bindings/python/peers
kept=$PWD/target/peers

version=$(ls target/python/wheels | sort -V | tail -1)
wheel=$(ls "$PWD/target/python/wheels/$version"/*.whl)
python=$kept/$version/bin/python
[ -x "$python" ] || "target/python/$version/bin/python" -m venv "$kept/$version"
pip() {
    "$python" -m pip --quiet --disable-pip-version-check "$@"
}
pip install pytest==9.2.0 pytest-asyncio==1.5.0
pip install --no-deps --force-reinstall "$wheel"

# NAME VERSION: prints the folder of the unpacked source distribution, which is fetched if it is
# missing.
suite() {
    local folder=$kept/${1/-/_}-$2
    if [ ! -d "$folder" ]; then
        pip download --no-deps --no-binary "$1" --dest "$kept" "$1==$2" >&2
        tar -xzf "$folder.tar.gz" -C "$kept"
    fi
    echo "$folder"
}

# FOLDER OF THE SUITE, OF ITS SOURCES, NAME OF THE ADAPTER, OPTIONS OF PYTEST..: without the suite's
# own settings, which are for coverage.
run() {
    (
        cd "$1"
        echo "== ${1##*/} on hotset, $("$python" --version)"
        PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$2:$here "$python" -m pytest -q --tb=short -p no:cacheprovider -p expectations \
            -p "$3_on_hotset" --expectations "$here/$3.toml" -c /dev/null --rootdir . "${@:4}" tests
    )
}

cachetools=$(suite cachetools 8.0.2)
async_lru=$(suite async-lru 2.4.0)
failed=0
run "$cachetools" "$cachetools/src" cachetools -p no:asyncio || failed=1
run "$async_lru" "$async_lru" async_lru -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function || failed=1
exit "$failed"
