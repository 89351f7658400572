#!/usr/bin/env bash
# cargo-c's tree is that of `make install`: the same files, links, headers, CMake package and
# exported functions, and a hotset.pc of the same meaning. `make test-capi` builds the library
# first. CARGO_C is the directory with cargo-cinstall, where it is not in PATH.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
PATH=${CARGO_C:+$CARGO_C:}$PATH
command -v cargo-cinstall >/dev/null || fail "cargo-c is missing: make tools-release"
. "$root/bindings/c/tests/tree.sh"

prefix="/opt/hot set"
PREFIX=$prefix LIBDIR=lib64 DESTDIR=$work/make "$root/bindings/c/install/install.sh" install >/dev/null
cd "$root"
CARGO_PROFILE_RELEASE_STRIP=debuginfo cargo cinstall --release --locked --package hotset-c \
    --prefix="$prefix" --libdir=lib64 --destdir="$work/cargo-c" >"$work/log" 2>&1 || { cat "$work/log"; fail "cargo cinstall"; }
ours=$work/make$prefix theirs=$work/cargo-c$prefix
# cargo-c installs libraries with the mode that rustc wrote them with.
diff <(list_tree "$ours" | sed -E '/libhotset/ s/ [0-9]+$//') <(list_tree "$theirs" | sed -E '/libhotset/ s/ [0-9]+$//') >&2 ||
    fail "the files of make install (<) and of cargo-c (>) differ"
diff -r "$ours/include" "$theirs/include" && diff -r "$ours/share" "$theirs/share" || fail "headers or the CMake package differ"
ok "the same files and links; the same headers and CMake package"

meaning() { # PREFIX
    local -x PKG_CONFIG_LIBDIR=$1/lib64/pkgconfig
    local variable
    for variable in prefix libdir includedir; do eval "echo $variable $(pkg-config --variable=$variable hotset)"; done
    pkg-config --modversion hotset
    sed -n 's/^\(Name\|Description\): //p' "$PKG_CONFIG_LIBDIR/hotset.pc"
}
# cargo-c does not quote: the flags are compared for a prefix without spaces, below.
diff <(meaning "$ours") <(meaning "$theirs") >&2 || fail "hotset.pc differs"
dynamic() { readelf -W --dyn-syms "$1/lib64/libhotset.so" | awk '$5 == "GLOBAL" && $7 != "UND" { print $8 }' | sort; readelf -d "$1/lib64/libhotset.so" | grep -E 'SONAME|NODELETE'; }
diff <(dynamic "$ours") <(dynamic "$theirs") >&2 || fail "exported functions, SONAME or flags differ"
ok "the same variables in hotset.pc; the same functions, SONAME and flags in libhotset.so"

CARGO_PROFILE_RELEASE_STRIP=debuginfo cargo cinstall --release --locked --package hotset-c \
    --prefix="$work/plain" --libdir=lib >"$work/log" 2>&1 || { cat "$work/log"; fail "cargo cinstall"; }
flags=$(PKG_CONFIG_LIBDIR=$work/plain/lib/pkgconfig pkg-config --cflags --libs hotset)
[ "$(xargs <<<"$flags")" = "-I$work/plain/include -L$work/plain/lib -lhotset" ] || fail "pkg-config prints: $flags"
STATIC=shared-libgcc use_tree "$work/programs" "$work/plain" lib
ok "programs use cargo-c's tree through pkg-config and CMake"
echo "$passed passed, 0 failed"
