#!/usr/bin/env bash
# Runs demo.py (`demo.sh programs` or `demo.sh service`) with the newest wheel of build.sh, in an
# environment of its own below target/demo-advise, with its figures and pictures beside it.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/target/demo-advise

version=$(ls target/python/wheels | sort -V | tail -1)
python=$here/$version/bin/python
[ -x "$python" ] || "target/python/$version/bin/python" -m venv "$here/$version"
pip() {
    "$python" -m pip --quiet --disable-pip-version-check "$@"
}
pip install --requirement examples/advise/requirements.txt
pip install --no-deps --force-reinstall target/python/wheels/"$version"/*.whl
exec env PYTHONDONTWRITEBYTECODE=1 "$python" examples/advise/demo.py "$1" "$here"
