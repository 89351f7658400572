#!/usr/bin/env bash
# Runs the tests of the second tier with older clients of Redis, and with valkey-py, each in an
# environment of its own that extends the newest one of build.sh. CLIENTS="redis==5.0.0" chooses
# others.
set -euo pipefail
cd "$(dirname "$0")"
base=$(ls -d ../../target/python/3.*/bin/python | sort -V | tail -1)
clients=${CLIENTS:-redis==5.0.0 redis==6.4.0 redis==7.4.1 valkey==6.1.1}
for client in $clients; do
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$base" -m pip install --quiet --disable-pip-version-check --target "$folder" "$client"
    echo "== $client"
    PYTHONPATH=$folder "$base" -m pytest -q -p no:cacheprovider tests/tier2 -k "not race and not processes"
    rm -rf "$folder"
done
