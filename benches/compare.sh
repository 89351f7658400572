#!/usr/bin/env bash
# hotset side by side with its peers: builds the benchmark crate and runs one job of it.
#   benches/compare.sh JOB [--quick] [--peers NAME,NAME]     benches/compare.sh help lists the jobs
#   JOB zipf-all: reads through caches of 1k to 1M entries, zipf 0.99 and 0.7, on 1, 2 and 4 threads
#   FEATURES: cargo features for the build, e.g. FEATURES=crossbeam
set -euo pipefail
cd "$(dirname "$0")/compare"
cargo build --release --quiet ${FEATURES:+--features "$FEATURES"}
exec "${CARGO_TARGET_DIR:-target}/release/compare" "$@"
