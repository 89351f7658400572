#!/usr/bin/env bash
# Publishes: `publish.sh crate` on crates.io, `publish.sh github` the files of DIST as GitHub's
# release of TAG. Each may be run again after a release that stopped in the middle: what is
# published stays.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(packaging/version.py get)
fail() { echo "publish: $*" >&2; exit 1; }

case ${1:-} in
crate)
    [ -n "${CARGO_REGISTRY_TOKEN:-}" ] || fail "CARGO_REGISTRY_TOKEN is not set"
    # (From elsewhere: in this tree cargo would find the tree's own crate.)
    if (cd / && cargo info --quiet --registry crates-io "hotset@$version" >/dev/null 2>&1); then
        echo "publish: hotset $version is on crates.io already"
        exit 0
    fi
    cargo publish --locked --package hotset
    ;;
github)
    [ "${TAG:-}" = "v$version" ] || fail "TAG is '${TAG:-}', but the version of the tree is $version"
    dist=${DIST:-target/dist}
    [ -f "$dist/SHA256SUMS" ] || fail "no SHA256SUMS in $dist: make checksums"
    gh release view "$TAG" >/dev/null 2>&1 || gh release create "$TAG" --verify-tag --draft --title "hotset $version" --notes-file "$dist/NOTES.md"
    mapfile -t files < <(find "$dist" -maxdepth 1 -type f ! -name NOTES.md | LC_ALL=C sort)
    gh release upload "$TAG" --clobber "${files[@]}"
    gh release edit "$TAG" --draft=false
    ;;
*) fail "usage: publish.sh crate|github" ;;
esac
