#!/usr/bin/env bash
# hotset side by side with its peers: builds the benchmark crate and runs one job of it.
#   benches/compare.sh JOB [--quick] [--peers NAME,NAME]     benches/compare.sh help lists the jobs
#   FEATURES: cargo features for the build, e.g. FEATURES=crossbeam
set -euo pipefail
cd "$(dirname "$0")/compare"
cargo build --release --quiet ${FEATURES:+--features "$FEATURES"}
exec "${CARGO_TARGET_DIR:-target}/release/compare" "$@"
