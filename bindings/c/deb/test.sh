#!/usr/bin/env bash
# Checks the Debian packages that build.sh left in OUT: lintian finds no error and no warning, dpkg
# installs and removes them in a root of its own, and programs use what it installed.
# `make test-deb` builds the packages, and installs lintian.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
out=${OUT:-$root/target/deb}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
. "$root/bindings/c/tests/tree.sh"

lib=("$out/libhotset${abi}_${version}"_*.deb)
dev=("$out/libhotset-dev_${version}"_*.deb)
[ -f "${lib[0]}" ] && [ -f "${dev[0]}" ] || fail "no packages of version $version in $out"
lintian --allow-root --fail-on error,warning "${lib[@]}" "${dev[@]}" || fail "lintian"
ok "lintian finds no error and no warning"

depends=$(dpkg-deb -f "${lib[0]}" Depends)
[[ $depends == *libc6* && $depends != *hotset* ]] || fail "libhotset$abi depends on: $depends"
[ "$(dpkg-deb -f "${dev[0]}" Depends)" = "libhotset$abi (= $version)" ] || fail "libhotset-dev depends on: $(dpkg-deb -f "${dev[0]}" Depends)"
dpkg-deb --ctrl-tarfile "${lib[0]}" | tar -xO ./symbols | sed -n 's/^ \(hotset_[a-z_]*\)@.*/\1/p' | sort >"$work/symbols"
grep -o '\bhotset_[a-z_]* *(' <(cc -E "$root/include/hotset.h" | grep -v '^ *typedef') | tr -d ' (' | sort -u | diff - "$work/symbols" >&2 ||
    fail "functions of hotset.h (<) and of the symbols file (>) differ"
ok "the dependencies, and the symbols of hotset.h"

# A root with nothing in it: libc6 is not there, either.
stage=$work/root
mkdir -p "$stage/var/lib/dpkg/updates" "$stage/var/lib/dpkg/info"
touch "$stage/var/lib/dpkg/status"
in_root() { dpkg --root="$stage" --log="$work/dpkg.log" --force-depends --force-not-root "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "dpkg $*"; }; }
in_root -i "${lib[0]}" "${dev[0]}"
for package in libhotset"$abi" libhotset-dev; do
    [ "$(dpkg-query --admindir="$stage/var/lib/dpkg" -W -f '${Status}' "$package")" = "install ok installed" ] || fail "dpkg did not install $package"
done
dpkg --root="$stage" --verify || fail "a file differs from its checksum"
SYSROOT=$stage use_tree "$work/programs" "$stage/usr" "lib/$triplet" -DCMAKE_LIBRARY_ARCHITECTURE="$triplet"
ok "dpkg installs them; pkg-config and CMake, C and C++, shared and static"
in_root -P libhotset-dev libhotset"$abi"
[ -z "$(find "$stage" -name '*hotset*')" ] || fail "dpkg left: $(find "$stage" -name '*hotset*')"
ok "dpkg removes them"

# Built twice, they are the same bytes.
OUT=$work/again "$root/bindings/c/deb/build.sh" >/dev/null
for package in "${lib[0]}" "${dev[0]}"; do
    cmp "$package" "$work/again/$(basename "$package")" || fail "another build has other bytes"
done
ok "another build has the same bytes"
echo "$passed passed, 0 failed"
