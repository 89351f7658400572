#!/usr/bin/env bash
# Builds CPython 3.11 for musl, in target/packages/musl, and prints its path: to try a musllinux
# wheel on a Debian machine. The source is Debian's, the compiler musl-gcc (musl-tools). It has no
# zlib, and so no pip: check_wheels.py unpacks the wheel for it.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD/target/packages/musl
python=$here/cpython/bin/python3.11
if [ ! -x "$python" ]; then
    command -v musl-gcc >/dev/null || {
        echo "there is no musl-gcc (Debian: musl-tools)" >&2
        exit 1
    }
    . bindings/python/debian.sh
    url=$(debian_archive)
    rm -rf "$here"
    mkdir -p "$here"/{lists/partial,cache/archives/partial,source}
    : >"$here/status"
    # musl-gcc prints the triplet of glibc, which configure refuses.
    printf '#!/bin/sh\n[ "$1" != --print-multiarch ] || exit 0\nexec musl-gcc "$@"\n' >"$here/cc"
    chmod +x "$here/cc"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $url bookworm main" >"$here/sources.list"
    cat >"$here/apt.conf" <<-END
	#clear APT::Update::Post-Invoke;
	#clear APT::Update::Post-Invoke-Success;
	#clear DPkg::Post-Invoke;
	Dir::Etc::SourceList "$here/sources.list";
	Dir::Etc::SourceParts "-";
	Dir::State "$here";
	Dir::State::Lists "$here/lists";
	Dir::State::Status "$here/status";
	Dir::Cache "$here/cache";
	APT::Sandbox::User "$(id -un)";
	END
    # (In a chain: errexit is off to the left of `||`.)
    (
        apt-get -c "$here/apt.conf" update -q &&
            cd "$here/source" &&
            apt-get -c "$here/apt.conf" source -q --download-only python3.11 &&
            tar -xf python3.11_*.orig.tar.* --strip-components 1 &&
            CC="$here/cc" CFLAGS=-O1 ./configure --quiet --prefix "$here/cpython" --disable-test-modules --without-ensurepip --without-readline &&
            make --quiet -j"${JOBS:-2}" &&
            make --quiet altinstall
    ) >"$here.log" 2>&1 || {
        tail -40 "$here.log" >&2
        exit 1
    }
    rm -rf "$here"/{lists,cache,source,status,sources.list,apt.conf}
fi
echo "$python"
