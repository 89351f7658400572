#!/usr/bin/env bash
# Runs the tests of metrics, with prometheus and promtool of Debian, on the newest interpreter that
# build.sh made, in an environment of its own: target/metrics. Needs the network once.
#
#   run.sh [ARGUMENTS OF PYTEST..]
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../../.."
here=$PWD/bindings/python/metrics
kept=$PWD/target/metrics
mkdir -p "$kept"
export PYTHONDONTWRITEBYTECODE=1
version=$(ls target/python/wheels | grep -v t | sort -V | tail -1)
python=$kept/env/bin/python

[ -x "$python" ] || "target/python/$version/bin/python" -m venv "$kept/env"
wanted=$version$(cat "$here/constraints.txt")
if [ "$(cat "$kept/wanted" 2>/dev/null)" != "$wanted" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check -c "$here/constraints.txt" prometheus_client opentelemetry-sdk \
        opentelemetry-exporter-otlp-proto-http gunicorn uvicorn Django django-stubs redis pytest mypy "pyright[nodejs]"
    echo "$wanted" >"$kept/wanted"
fi
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "target/python/wheels/$version"/*.whl
cd "$here/tests"
"$python" -m pytest -q --tb=short -p no:cacheprovider "$@"
