#!/usr/bin/env bash
# Checks that every Cargo.lock is that of its manifests: cargo would change nothing in it.
set -euo pipefail
cd "$(dirname "$0")/.."
stale=0
while read -r lock; do
    cargo update --quiet --workspace --locked --manifest-path "${lock%.lock}.toml" 2>/dev/null || {
        echo "$lock is not up to date: cargo update --workspace --manifest-path ${lock%.lock}.toml" >&2
        stale=1
    }
done < <(git ls-files '*Cargo.lock')
[ "$stale" = 0 ] && echo "every Cargo.lock is up to date"
