#!/usr/bin/env bash
# Checks of the crate that need tools of their own: `deny` (licenses, sources and versions of what
# it depends on), `semver` (its API beside that of BASELINE, a tag or commit), `minimal` (it
# compiles with the oldest versions that its manifest admits).
set -euo pipefail
cd "$(dirname "$0")/.."

need() {
    command -v "$1" >/dev/null || {
        echo "there is no $1: make tools-release" >&2
        exit 1
    }
}

# Arguments: MANIFEST
deny() {
    cargo deny --config deny.toml --manifest-path "$1" --locked --all-features check --hide-inclusion-graph "${checks[@]}"
}

case ${1:-} in
deny)
    need cargo-deny
    checks=(bans licenses sources)
    # The list of known faults is a repository on GitHub, which not every machine reaches.
    if [ -n "${ADVISORIES:-}" ]; then
        checks+=(advisories)
    else
        echo "advisories are not checked: ADVISORIES=1 fetches their list from GitHub"
    fi
    deny Cargo.toml
    deny bindings/python/Cargo.toml
    ;;
semver)
    need cargo-semver-checks
    baseline=${BASELINE:-$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)}
    if [ -z "$baseline" ]; then
        echo "nothing was released yet, there is no tag v*: BASELINE=commit names what to compare with"
        exit 0
    fi
    if ! git rev-parse --quiet --verify "$baseline^{commit}" >/dev/null; then
        echo "no such revision: $baseline" >&2
        exit 1
    fi
    echo "beside $baseline"
    CARGO_TARGET_DIR=target/semver cargo semver-checks --package hotset --baseline-rev "$baseline" --all-features
    ;;
minimal)
    # In a copy, whose lock file is written anew.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    cargo package --quiet --no-verify --allow-dirty --locked --package hotset --target-dir "$copy"
    tar xzf "$copy"/package/hotset-*.crate -C "$copy"
    cd "$copy"/hotset-*/
    cargo +nightly update --quiet -Z direct-minimal-versions
    CARGO_TARGET_DIR=$OLDPWD/target/minimal cargo check --locked --all-features
    CARGO_TARGET_DIR=$OLDPWD/target/minimal cargo check --locked --no-default-features
    echo "it compiles with the oldest versions that Cargo.toml admits"
    ;;
*)
    echo "usage: $0 deny | semver | minimal" >&2
    exit 2
    ;;
esac
