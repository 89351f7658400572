#!/usr/bin/env bash
# Runs the demo of the second tier with the newest wheel that build.sh made, in an environment of
# its own below target/demo-tier2, with the chart beside it. Arguments are the demo's:
# `demo.sh --seconds 5`.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/target/demo-tier2

version=$(ls target/python/wheels | sort -V | tail -1)
python=$here/$version/bin/python
[ -x "$python" ] || "target/python/$version/bin/python" -m venv "$here/$version"
pip() {
    "$python" -m pip --quiet --disable-pip-version-check "$@"
}
pip install --requirement examples/tier2/requirements.txt
pip install --no-deps --force-reinstall target/python/wheels/"$version"/*.whl
# (This shell must not be in between when Ctrl-C arrives.)
exec env PYTHONDONTWRITEBYTECODE=1 "$python" examples/tier2/demo.py --chart "$here/chart.png" "$@"
