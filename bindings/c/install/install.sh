#!/usr/bin/env bash
# Installs the C library, or uninstalls it:
# `PREFIX=/usr/local LIBDIR=lib DESTDIR= install.sh install|uninstall`. LIBDIR is relative to
# PREFIX, or an absolute path below it. RELOCATABLE=1 writes a hotset.pc that finds its prefix from
# its own place. Needs binutils. Debug information stays in the build directory, and is not
# installed. `make install` builds the library first.
set -euo pipefail
umask 022 # installed files are readable by all users

root=$(cd "$(dirname "$0")/../../.." && pwd)
here=$root/bindings/c/install
prefix=${PREFIX:-/usr/local}
libdir=${LIBDIR:-lib}
built=${CARGO_TARGET_DIR:-$root/target}/release

fail() { echo "install.sh: $*" >&2; exit 1; }
case $prefix in
/*) ;;
*) fail "PREFIX must be an absolute path: $prefix" ;;
esac
[ "$prefix" = / ] || prefix=${prefix%/}
case $libdir in
"${prefix%/}"/*) libdir=${libdir#"${prefix%/}"/} ;;
/*) fail "LIBDIR must be below PREFIX, which is $prefix: $libdir" ;;
esac
libdir=${libdir%/}
case /$libdir/ in
*/../* | */./* | *//*) fail "LIBDIR must have no . or .. and no empty part: $libdir" ;;
esac
# What a .pc file cannot carry. A space it can, quoted.
case $prefix$libdir in
*[\"\\\$\#\`]* | *$'\n'* | *$'\t'*)
    fail 'PREFIX and LIBDIR must have no tab, newline, double quote, backtick, $, # or \:' "$prefix $libdir"
    ;;
esac
into=${DESTDIR:-}${prefix%/}

version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
[ -n "$version" ] || fail "no version in Cargo.toml"
real_name=libhotset.so.$version
# The SONAME's version: before 1.0 each minor version breaks the last one, from 1.0 on each major
# version does.
case $version in
0.*) soname=libhotset.so.$(cut -d. -f1,2 <<<"$version") ;;
*) soname=libhotset.so.${version%%.*} ;;
esac

files=(
    "$libdir/$real_name" "$libdir/$soname" "$libdir/libhotset.so" "$libdir/libhotset.a"
    include/hotset.h include/hotset.hpp
    "$libdir/pkgconfig/hotset.pc"
    share/cmake/hotset/hotsetConfig.cmake share/cmake/hotset/hotsetConfigVersion.cmake
)

# The libraries that a static library of Rust needs. rustc names the shared libgcc, which a binary
# without shared libraries cannot have: its unwinder is in libgcc_eh too.
static_libs() {
    local libs probe
    probe=$(mktemp -d)
    libs=$(echo | rustc --crate-type staticlib --crate-name probe --print native-static-libs --out-dir "$probe" - 2>&1 |
        sed -n 's/^note: native-static-libs: //p')
    rm -rf "$probe"
    [ -n "$libs" ] || fail "rustc does not tell which libraries a static library needs"
    echo "${libs/-lgcc_s/-lgcc_eh}"
}

# The static library of rustc is all of Rust's standard library, with symbols that every program
# which links it would export. The installed library is one object: what the header's functions
# need, with all other symbols local. Sections stay separate, so that --gc-sections still works.
archive() { # TO
    local work
    work=$(mktemp -d)
    readelf -W --dyn-syms "$built/libhotset.so" | awk '$5 == "GLOBAL" && $7 != "UND" { print $8 }' >"$work/exported"
    grep -q '^hotset_open$' "$work/exported" || fail "$built/libhotset.so exports no hotset_open"
    # shellcheck disable=SC2046 # symbols are words
    ld -r --gc-sections --force-group-allocation $(sed 's/^/-u /' "$work/exported") -o "$work/all.o" "$built/libhotset.a"
    objcopy --strip-debug --strip-unneeded --remove-section=.llvmbc --remove-section=.llvmcmd --remove-section=.comment \
        --keep-global-symbols="$work/exported" "$work/all.o" "$work/hotset.o"
    (cd "$work" && ar rcD libhotset.a hotset.o)
    install -m 644 "$work/libhotset.a" "$1"
    rm -rf "$work"
}

# Writes hotset.pc. Its flags are quoted, since PREFIX may have spaces.
pkg_config() { # LIBS TO
    local text up
    text=$(<"$here/hotset.pc.in")
    if [ -n "${RELOCATABLE:-}" ]; then
        up=$(sed 's|[^/][^/]*|..|g' <<<"$libdir/pkgconfig")
        text=${text//@PREFIX@/"\${pcfiledir}/$up"}
    fi
    text=${text//@PREFIX@/"$prefix"}
    text=${text//@LIBDIR@/"$libdir"}
    text=${text//@VERSION@/"$version"}
    text=${text//@STATIC_LIBS@/"$1"}
    printf '%s\n' "$text" >"$2"
    chmod 644 "$2"
}

case ${1:-} in
install)
    for tool in readelf strip ld objcopy ar; do
        command -v $tool >/dev/null || fail "$tool is missing: install binutils"
    done
    [ -f "$built/libhotset.so" ] && [ -f "$built/libhotset.a" ] || fail "no library in $built: run make build-c"
    found=$(readelf -d "$built/libhotset.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
    [ "$found" = "$soname" ] || fail "the library's SONAME is '$found', not '$soname'"
    libs=$(static_libs)
    mkdir -p "$into/$libdir/pkgconfig" "$into/share/cmake/hotset" "$into/include"
    install -m 755 "$built/libhotset.so" "$into/$libdir/$real_name"
    strip --strip-unneeded --remove-section=.comment "$into/$libdir/$real_name"
    [ "$real_name" = "$soname" ] || ln -sf "$real_name" "$into/$libdir/$soname"
    ln -sf "$real_name" "$into/$libdir/libhotset.so"
    archive "$into/$libdir/libhotset.a"
    install -m 644 "$root/include/hotset.h" "$root/include/hotset.hpp" "$into/include/"
    pkg_config "$libs" "$into/$libdir/pkgconfig/hotset.pc"
    install -m 644 "$here/hotsetConfig.cmake" "$here/hotsetConfigVersion.cmake" "$into/share/cmake/hotset/"
    echo "installed hotset $version into $into"
    [ -n "${DESTDIR:-}" ] || echo "if programs do not find it, run ldconfig"
    ;;
uninstall)
    for file in "${files[@]}"; do rm -f "$into/$file"; done
    # The other directories are shared with other packages, and may have existed before, empty.
    rmdir "$into/share/cmake/hotset" 2>/dev/null || true
    echo "uninstalled hotset $version from $into"
    ;;
*) fail "usage: install.sh install|uninstall" ;;
esac
