#!/usr/bin/env bash
# Instructions per operation (Ir of callgrind), exact whatever else the machine does: each job runs
# twice, and the difference of the two counts excludes start, fill and exit. Gets are counted from
# GETS to 2 * GETS. Insertions are counted in the steady state, from WARM to WARM + INSERTS: before
# that the sketch has not filled, and most candidates are rejected early.
#   benches/instructions.sh [cache ...]   default: hotset quick_cache loop
#   GETS, WARM, INSERTS                   FEATURES: features of the build, as FEATURES=crossbeam
#   ZIPF=1: also reads through a cache of 100k entries, zipf 0.99 over a million keys (2 min)
set -euo pipefail
cd "$(dirname "$0")/compare"

command -v valgrind >/dev/null || { echo "instructions.sh: valgrind is missing (make tools installs it)" >&2; exit 1; }
gets=${GETS:-1000000}
warm=${WARM:-3000000}
inserts=${INSERTS:-1000000}
caches=("$@")
[ ${#caches[@]} -gt 0 ] || caches=(hotset quick_cache loop)

cargo build --release --quiet --bin compare ${FEATURES:+--features "$FEATURES"}
program=${CARGO_TARGET_DIR:-target}/release/compare
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# instructions JOB CACHE N: of the whole run
instructions() {
    if ! valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" --peers "$2" --ops "$3" >/dev/null 2>"$log"; then
        cat "$log" >&2
        exit 1
    fi
    awk '/Collected/ { print $NF; found = 1 } END { exit !found }' "$log"
}

# per_operation JOB CACHE FROM N: of the operations FROM to FROM + N
per_operation() {
    local before after
    before=$(instructions "$1" "$2" "$3")
    after=$(instructions "$1" "$2" $(($3 + $4)))
    awk -v a="$before" -v b="$after" -v n="$4" 'BEGIN { printf "%.1f", (b - a) / n }'
}

# judge CACHE FIGURE TARGET
judge() {
    if [ "$1" != hotset ]; then echo "- | -"; return; fi
    awk -v x="$2" -v t="$3" 'BEGIN { printf "<= %d | %s\n", t, (x <= t) ? "met" : "MISSED" }'
}

echo "### instructions per operation, u64 pairs (the row \"loop\": what the measuring loop itself takes, included above)"
echo
echo "| cache | get, hit | target | | evicting insert | target | |"
echo "|---|---|---|---|---|---|---|"
for cache in "${caches[@]}"; do
    get=$(per_operation ir-get "$cache" "$gets" "$gets")
    insert=$(per_operation ir-insert "$cache" "$warm" "$inserts")
    echo "| $cache | $get | $(judge "$cache" "$get" 85) | $insert | $(judge "$cache" "$insert" 350) |"
done

[ -n "${ZIPF:-}" ] || exit 0
echo
echo "### instructions per read through a cache of 100k entries, zipf 0.99 over a million keys"
echo
echo "| cache | get_or_insert_with | get, then insert |"
echo "|---|---|---|"
for cache in "${caches[@]}"; do
    through=$(per_operation ir-read-through "$cache" "$warm" "$inserts")
    echo "| $cache | $through | $(per_operation ir-cache-aside "$cache" "$warm" "$inserts") |"
done
