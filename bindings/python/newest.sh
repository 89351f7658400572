#!/usr/bin/env bash
# Builds the Python wheel for Debian's newest interpreters, and runs its tests there: CPython's own,
# and pytest; or runs the command in its arguments there instead. The interpreters are those of
# Debian's suite $SUITE, installed by debootstrap, once, into target/python-new/debian; remove that
# folder to get newer ones. The wheel is built and tested in a chroot of that folder, which sees
# this tree, this machine's Rust toolchain and nothing else of its files. Needs root, a Debian
# machine and the network. INTERPRETERS="3.15" chooses.
set -euo pipefail
cd "$(dirname "$0")/../.."
SUITE=forky
INTERPRETERS=${INTERPRETERS:-3.14 3.15}
root=$PWD/target/python-new/debian

# The mounts are in a namespace of this script's own: they are removed with it, however it ends.
if [ -z "${HOTSET_MOUNTS:-}" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "debootstrap and mount need root: run this as root" >&2
        exit 1
    fi
    HOTSET_MOUNTS=private exec unshare --mount --propagation private "$PWD/bindings/python/newest.sh" "$@"
fi

install_debian() {
    local packages=ca-certificates,gcc,libc6-dev version url
    for version in $INTERPRETERS; do
        packages+=,python$version,python$version-venv,libpython$version-testsuite
    done
    . bindings/python/debian.sh
    url=$(debian_archive)
    rm -rf --one-file-system "$root.part"
    mkdir -p "$root.part"
    # An older debootstrap has no script by the name of a newer suite, which would be a link to that
    # of sid.
    debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg --force-check-gpg --include="$packages" \
        "$SUITE" "$root.part" "$url" /usr/share/debootstrap/scripts/sid >"$root.log" || {
        tail -20 "$root.log" >&2
        exit 1
    }
    mv "$root.part" "$root"
}

[ -d "$root" ] || install_debian

toolchain=$(rustc --print sysroot)
if [ ! -x "$toolchain/bin/cargo" ] || [ "$toolchain" = /usr ]; then
    echo "no toolchain in a folder of its own, as rustup makes one: $toolchain" >&2
    exit 1
fi
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$root"/opt/{hotset,rust,cargo} "$cargo_home"
mount --bind "$PWD" "$root/opt/hotset"
mount --bind -o ro "$toolchain" "$root/opt/rust"
mount --bind "$cargo_home" "$root/opt/cargo"
mount --rbind /dev "$root/dev"
mount --bind /proc "$root/proc"
# The names and certificates of this machine.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
mount --bind -o ro /etc/ssl/certs "$root/etc/ssl/certs"

pythons=
for version in $INTERPRETERS; do
    pythons+=" /usr/bin/python$version"
done
inside() {
    chroot "$root" /usr/bin/env -C /opt/hotset PATH=/opt/rust/bin:/usr/sbin:/usr/bin CARGO_HOME=/opt/cargo LC_ALL=C.UTF-8 \
        CARGO_TARGET_DIR=/opt/hotset/target/python-new/cargo ENVIRONMENTS=target/python-new PYTHONS="${pythons# }" "$@"
}
if [ $# -gt 0 ]; then
    inside "$@"
    exit
fi
# The servers of the second tier's tests, which start their own: nothing is started by the
# installation.
if [ ! -x "$root/usr/bin/redis-server" ] || [ ! -x "$root/usr/bin/valkey-server" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    inside sh -c 'apt-get -qq -o Acquire::Check-Valid-Until=false update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y redis-server valkey-server' >"$root.log" 2>&1 || {
        tail -20 "$root.log" >&2
        exit 1
    }
fi
inside bindings/python/build.sh
inside bindings/python/test.sh
for version in $INTERPRETERS; do
    inside "target/python-new/$version/bin/python" -m pytest -q -p no:cacheprovider bindings/python/tests/tier2/test_tier2_topologies.py -k valkey
done
