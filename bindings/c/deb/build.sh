#!/usr/bin/env bash
# Builds Debian packages of the C library into OUT (target/deb): libhotset0.MINOR, named after the
# SONAME, and libhotset-dev. Needs dpkg-dev. `make deb` builds the library first. The files' times
# are those of SOURCE_DATE_EPOCH, or else of the last commit, so that a build can be repeated.
set -euo pipefail
umask 022
root=$(cd "$(dirname "$0")/../../.." && pwd)
here=$root/bindings/c/deb
mkdir -p "${OUT:-$root/target/deb}"
out=$(cd "${OUT:-$root/target/deb}" && pwd)
fail() { echo "deb: $*" >&2; exit 1; }
for tool in dpkg-deb dpkg-shlibdeps dpkg-gensymbols dpkg-architecture; do
    command -v $tool >/dev/null || fail "$tool is missing: install dpkg-dev"
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
case $version in
*-*) fail "a pre-release has no Debian package: $version" ;;
0.*) abi=${version%.*} ;;
*) abi=${version%%.*} ;;
esac
lib=libhotset$abi
arch=$(dpkg-architecture -qDEB_HOST_ARCH)
triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
maintainer="The hotset developers <hotset@users.noreply.github.com>"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PREFIX=/usr LIBDIR=lib/$triplet DESTDIR=$work/stage "$root/bindings/c/install/install.sh" install >/dev/null
mkdir -p "$work/debian" "$work/$lib/DEBIAN" "$work/libhotset-dev/DEBIAN" "$work/$lib/usr/lib/$triplet"
mv "$work/stage/usr/lib/$triplet/libhotset.so."* "$work/$lib/usr/lib/$triplet/"
chmod 644 "$work/$lib/usr/lib/$triplet/libhotset.so.$version"
cp -a "$work/stage/usr" "$work/libhotset-dev/"

# A source package's control file, which the tools read; those of the packages are made from it.
cat >"$work/debian/control" <<CONTROL
Source: hotset
Section: libs
Priority: optional
Maintainer: $maintainer
Homepage: https://github.com/hotset/hotset
Standards-Version: 4.6.2

Package: $lib
Architecture: any
Multi-Arch: same
Depends: \${shlibs:Depends}, \${misc:Depends}
Description: embedded cache engine (shared library)
 A cache in the program's own memory: a concurrent map with W-TinyLFU
 admission, expiration, loads that run once per key, and snapshots for warm
 restarts.
 .
 This package contains the shared library.

Package: libhotset-dev
Section: libdevel
Architecture: any
Multi-Arch: same
Depends: $lib (= \${binary:Version}), \${misc:Depends}
Description: embedded cache engine (development files)
 A cache in the program's own memory: a concurrent map with W-TinyLFU
 admission, expiration, loads that run once per key, and snapshots for warm
 restarts.
 .
 This package contains the headers for C and C++, the static library, and the
 files for pkg-config and CMake.
CONTROL

# The date and the lines of this version in CHANGELOG.md; of Unreleased where it has none.
"$here/changelog.py" "$root/CHANGELOG.md" "$version" "$maintainer" "$SOURCE_DATE_EPOCH" >"$work/debian/changelog"
"$here/copyright.sh" >"$work/debian/copyright"
for package in "$lib" libhotset-dev; do
    doc=$work/$package/usr/share/doc/$package
    mkdir -p "$doc"
    cp "$work/debian/copyright" "$doc/copyright"
    gzip -9nc "$work/debian/changelog" >"$doc/changelog.gz"
done

# Which packages the library needs, and which one programs that use it need.
cd "$work"
dpkg-gensymbols -q -P"$lib" -p"$lib" -v"$version" -O"$lib/DEBIAN/symbols" -e"$lib/usr/lib/$triplet/libhotset.so.$version"
sed -i '1a * Build-Depends-Package: libhotset-dev' "$lib/DEBIAN/symbols"
printf 'libhotset %s %s (>= %s)\n' "$abi" "$lib" "$version" >"$lib/DEBIAN/shlibs"
printf 'activate-noawait ldconfig\n' >"$lib/DEBIAN/triggers"
dpkg-shlibdeps -Tdebian/substvars "$lib/usr/lib/$triplet/libhotset.so.$version"

rm -f "$out"/libhotset*.deb
for package in "$lib" libhotset-dev; do
    (cd "$package" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-gencontrol -Tdebian/substvars -p"$package" -P"$package" -n"${package}_${version}_$arch.deb" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "dpkg-gencontrol"; }
    chmod 644 "$package"/DEBIAN/*
    find "$package" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$package" "$out/${package}_${version}_$arch.deb" >/dev/null
    echo "built $out/${package}_${version}_$arch.deb"
done
