#!/usr/bin/env bash
# Builds what a release consists of into DIST (target/dist), from the tree as it is:
# ARTIFACTS="source crate sdist wheels c deb sbom" chooses.
#
# source  the tree that git has, as hotset-X.Y.Z.tar.gz
# crate   the crate, as crates.io takes it
# sdist, wheels  the Python package, by `make sdist` and `make wheels`
# c       the C library with headers, pkg-config and CMake files, which may be unpacked anywhere
# deb     the Debian packages
# sbom    bills of materials (CycloneDX) of the crate and of the C library; a wheel has its own
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
ARTIFACTS=${ARTIFACTS-source crate sdist wheels c deb sbom}
mkdir -p "${DIST:-target/dist}"
dist=$(cd "${DIST:-target/dist}" && pwd)
version=$(packaging/version.py get)
target=${CARGO_TARGET_DIR:-target}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
fail() { echo "artifacts: $*" >&2; exit 1; }

# An archive with the same bytes whenever it is made: sorted, of no user, of the commit's time.
archive() { # NAME FOLDER
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$2" -c "$1" | gzip -9n >"$dist/$1.tar.gz"
}

for artifact in $ARTIFACTS; do
    case $artifact in
    source)
        git archive --format=tar --prefix="hotset-$version/" HEAD | gzip -9n >"$dist/hotset-$version-source.tar.gz"
        ;;
    crate)
        cargo package --quiet --locked --package hotset --no-verify
        cp "$target/package/hotset-$version.crate" "$dist/"
        ;;
    sdist)
        rm -rf target/packages/sdist
        make --no-print-directory sdist
        cp target/packages/sdist/*.tar.gz "$dist/"
        ;;
    wheels)
        rm -rf target/packages/wheels
        make --no-print-directory wheels
        make --no-print-directory check-wheels
        cp target/packages/wheels/*.whl "$dist/"
        ;;
    c)
        make --no-print-directory build-c
        work=$(mktemp -d)
        name=hotset-c-$version-$(uname -m)-$(uname -s | tr '[:upper:]' '[:lower:]')
        RELOCATABLE=1 PREFIX=/$name LIBDIR=lib DESTDIR=$work bindings/c/install/install.sh install >/dev/null
        cp LICENSE-MIT LICENSE-APACHE LICENSE-THIRD-PARTY CHANGELOG.md docs/how-to/install-c.md "$work/$name/"
        archive "$name" "$work"
        rm -rf "$work"
        ;;
    deb)
        make --no-print-directory build-c
        OUT=$dist bindings/c/deb/build.sh >/dev/null
        ;;
    sbom)
        command -v cargo-cyclonedx >/dev/null || fail "cargo-cyclonedx is missing: make tools-sbom"
        for manifest in Cargo.toml bindings/c/Cargo.toml; do
            # It writes a file beside each manifest of the workspace.
            cargo cyclonedx --quiet --manifest-path "$manifest" --format json --spec-version 1.5 --no-build-deps --override-filename hotset-sbom
            folder=$(dirname "$manifest")
            name=hotset
            [ "$folder" = . ] || name=hotset-c
            mv "$folder/hotset-sbom.json" "$dist/$name-$version.cdx.json"
            git clean -fdq -- ':(glob)**/hotset-sbom.json'
        done
        ;;
    *) fail "no such artifact: $artifact (source, crate, sdist, wheels, c, deb, sbom)" ;;
    esac
    echo "artifacts: $artifact"
done
