#!/usr/bin/env bash
# Whether promtool parses the texts of the recipes: `check.sh TARGET-DIRECTORY`, after a build.
set -euo pipefail
cd "$(dirname "$0")"
target=$(realpath "../../$1")
command -v promtool >/dev/null || { echo "check.sh: promtool is missing (Debian: prometheus)" >&2; exit 1; }
for name in facade prometheus_client; do
    # A text that cannot be parsed is 1. 3 is advice on names and types: the facade has no histogram
    # of totals, and promtool does not know that of OpenMetrics.
    status=0
    advice=$(CARGO_TARGET_DIR=$target "${CARGO:-cargo}" run --quiet --locked --bin "$name" | promtool check metrics 2>&1) || status=$?
    [ "$status" = 0 ] || [ "$status" = 3 ] || { echo "$name: $advice" >&2; exit 1; }
    echo "$name: promtool reads it"
done
