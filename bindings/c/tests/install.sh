#!/usr/bin/env bash
# The installed library as a C developer uses it: through pkg-config, shared and static, through
# CMake, out of the source tree, and uninstalled.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
tests=$root/bindings/c/tests
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

. "$tests/tree.sh"

warnings=(-O2 -Wall -Wextra -Wpedantic -Werror)
install() { PREFIX=$1 LIBDIR=${LIBDIR:-} DESTDIR=$2 "$root/bindings/c/install/install.sh" "$3" >/dev/null; }
unset LIBDIR

# Staged under DESTDIR, as packagers do it: nothing may name the stage, and nothing may remain.
install /usr "$work/stage" install
[ -z "$(grep -rl "$work" "$work/stage" --include '*.pc' --include '*.cmake')" ] || fail "an installed file names DESTDIR"
[ -f "$work/stage/usr/lib/pkgconfig/hotset.pc" ] || fail "DESTDIR was not heeded"
[ "$(readlink "$work/stage/usr/lib/libhotset.so")" = "libhotset.so.$version" ] || fail "libhotset.so"
[ "$(readlink "$work/stage/usr/lib/libhotset.so.$abi")" = "libhotset.so.$version" ] || fail "the link of the SONAME"
mkdir -p "$work/stage/usr/lib/pkgconfig" && touch "$work/stage/usr/lib/pkgconfig/other.pc"
install /usr "$work/stage" uninstall
[ "$(find "$work/stage" ! -type d)" = "$work/stage/usr/lib/pkgconfig/other.pc" ] || fail "uninstall left: $(find "$work/stage")"
[ -d "$work/stage/usr/include" ] && [ ! -e "$work/stage/usr/share/cmake/hotset" ] || fail "uninstall took others' directories"
ok "staged install and uninstall, others' files and directories untouched"
(umask 077 && install /usr "$work/private" install)
unreadable=$(find "$work/private" -mindepth 1 ! -type l ! -perm -o+r)
[ -z "$unreadable" ] || fail "not for everybody: $unreadable"
ok "readable for everybody whatever the umask"
! install relative "" install 2>/dev/null || fail "a relative PREFIX was taken"
for libdir in /elsewhere ../lib lib//arch ./lib 'lib"' 'lib#' 'lib$HOME'; do
    ! LIBDIR=$libdir install /usr "$work/refused" install 2>"$work/log" || fail "LIBDIR=$libdir was taken"
    [ "$(wc -l <"$work/log")" = 1 ] && [ ! -e "$work/refused" ] || fail "LIBDIR=$libdir: $(cat "$work/log")"
done
ok "a relative PREFIX is refused, and a LIBDIR outside of PREFIX or with characters that hotset.pc cannot carry"

# As Debian has it, and in directories with spaces, and with what sed and the shell treat specially.
odd="$work/a prefix & more"
triplet=$(cc -print-multiarch 2>/dev/null || true)
triplet=${triplet:-$(cc -dumpmachine)}
for libdir in "lib/$triplet" "$odd/lib/$triplet"; do
    LIBDIR=$libdir install "$odd" "" install
    [ -f "$odd/lib/$triplet/pkgconfig/hotset.pc" ] && [ ! -e "$odd/lib/libhotset.so" ] || fail "LIBDIR=$libdir was not heeded"
done
for libdir in "lib/$triplet" lib64 "more libs"; do
    install "$odd" "" uninstall
    LIBDIR=$libdir install "$odd" "" install
    case $libdir in
    lib/*) options=(-DCMAKE_LIBRARY_ARCHITECTURE=$triplet) ;;
    lib64) options=() ;;
    *) options=(-DCMAKE_LIBRARY_ARCHITECTURE=$triplet "-Dhotset_LIBDIR=$libdir") ;;
    esac
    case $libdir in
    lib/*) use_tree "$work/odd programs" "$odd" "$libdir" "${options[@]}" ;;
    *)
        cmake -S "$work/odd programs" -B "$work/odd programs/$libdir" -DCMAKE_PREFIX_PATH="$odd" "${options[@]}" >"$work/log" 2>&1 &&
            cmake --build "$work/odd programs/$libdir" --target hello-hotset >>"$work/log" 2>&1 || { cat "$work/log"; fail "CMake with LIBDIR=$libdir"; }
        ldd "$work/odd programs/$libdir/hello-hotset" | grep -F "=> $odd/$libdir/" >/dev/null || fail "CMake's program uses another library"
        ;;
    esac
    LIBDIR=$libdir install "$odd" "" uninstall
    [ -z "$(find "$odd" ! -type d)" ] || fail "uninstall left: $(find "$odd" ! -type d)"
done
LIBDIR=elsewhere install "$odd" "" install
! cmake -S "$work/odd programs" -B "$work/odd programs/none" -DCMAKE_PREFIX_PATH="$odd" >"$work/log" 2>&1 || fail "CMake found a library elsewhere"
tr '\n' ' ' <"$work/log" | tr -s ' ' | grep 'set hotset_LIBDIR to its directory' >/dev/null || fail "CMake does not name hotset_LIBDIR: $(cat "$work/log")"
rm -rf "$odd"
ok "LIBDIR, multiarch, lib64 and another, with spaces: pkg-config and CMake, C and C++; uninstall leaves no file"
RELOCATABLE=1 install /usr/local "$work/moved" install
mv "$work/moved/usr/local" "$work/anywhere"
[ "$(PKG_CONFIG_LIBDIR=$work/anywhere/lib/pkgconfig pkg-config --variable=prefix hotset | xargs realpath)" = "$(realpath "$work/anywhere")" ] || fail "hotset.pc has another prefix than its own"
use_tree "$work/relocated" "$work/anywhere" lib
ok "a relocatable tree works where it was moved to"

install "$work/hotset" "" install
export PKG_CONFIG_PATH=$work/hotset/lib/pkgconfig LD_LIBRARY_PATH=$work/hotset/lib
[ "$(pkg-config --modversion hotset)" = "$version" ] || fail "hotset.pc has another version than Cargo.toml"
ok "hotset.pc is of version $version"

# The C quickstart of the README, as it is printed there.
sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '/^```$/q' | sed '/^```/d' >"$work/quickstart.c"
[ -s "$work/quickstart.c" ] || fail "README.md has no C quickstart"

declare -A sources=([quickstart]=$work/quickstart.c [hello]=$root/examples/c/hello.c [tour]=$root/examples/c/tour.c
    [proxy]=$root/examples/c/proxy.c)
for name in quickstart hello tour proxy; do
    extra=()
    [ $name != proxy ] || extra=(-lpthread -lm)
    # shellcheck disable=SC2046 # flags are words
    cc -std=c11 "${warnings[@]}" "${sources[$name]}" -o "$work/$name" $(pkg-config --cflags --libs hotset) "${extra[@]}"
    ldd "$work/$name" | grep "$work/hotset/lib/libhotset.so.0" >/dev/null || fail "$name does not use the shared library"
    # shellcheck disable=SC2046
    cc -std=c11 "${warnings[@]}" -static "${sources[$name]}" -o "$work/$name-static" \
        $(pkg-config --static --cflags --libs hotset) "${extra[@]}" 2>"$work/warnings" || { cat "$work/warnings"; fail "$name-static"; }
    ! readelf -d "$work/$name-static" | grep NEEDED >/dev/null || fail "$name-static needs a shared library"
done
ok "quickstart, hello, tour and proxy build through pkg-config, shared and static"
for name in quickstart hello tour; do
    said=$("$work/$name")
    [ -n "$said" ] && [ "$said" = "$(env -u LD_LIBRARY_PATH "$work/$name-static")" ] || fail "$name said: $said"
done
ok "quickstart, hello and tour run, shared and static"
"$work/proxy" --demo >"$work/demo"
env -u LD_LIBRARY_PATH "$work/proxy-static" --demo >"$work/demo"
grep -q 'stampede .* backend calls 50$' "$work/demo" || fail "the demo said: $(cat "$work/demo")"
ok "the proxy's demo runs, shared and static; each cold key was loaded once"
python3 "$tests/proxy.py" "$work/proxy" || fail "the proxy's protocol"
ok "the proxy answers right and wrong input"

# shellcheck disable=SC2046
c++ -std=c++17 "${warnings[@]}" "$tests/wrapper.cpp" -o "$work/wrapper" $(pkg-config --cflags --libs hotset) -lpthread
"$work/wrapper" >/dev/null || fail "the C++ wrapper"
ok "hotset.hpp is clean in C++17, and its tests pass"

compile() { c++ -std=c++17 "${warnings[@]}" -c "$@" -o "$work/object.o" -I"$work/hotset/include"; }
compile "$tests/dangling.cpp" || fail "a view of a value that is kept"
for n in 1 2 3; do
    ! compile -DDANGLES=$n "$tests/dangling.cpp" 2>"$work/log" || fail "a view of a temporary compiles: DANGLES=$n"
    grep -q 'deleted' "$work/log" || { cat "$work/log" >&2; fail "DANGLES=$n fails for another reason"; }
done
ok "a view of a temporary value does not compile"

! readelf -SW "$work/hotset/lib/libhotset.so" | grep -q '\.debug_' || fail "the installed libhotset.so has debug information"
! readelf -SW "$work/hotset/lib/libhotset.a" | grep -q '\.debug_' || fail "the installed libhotset.a has debug information"
symbols() { awk '$5 != "LOCAL" && $7 != "UND" && $8 ~ /./ && $1 ~ /^[0-9]+:$/ { print $8 }' | sort; }
readelf -W --dyn-syms "$work/hotset/lib/libhotset.so" | symbols >"$work/exported"
readelf -Ws "$work/hotset/lib/libhotset.a" | symbols | diff "$work/exported" - >&2 ||
    fail "the symbols of the static library (>) are not those of the shared one (<)"
ok "the installed libraries have the header's symbols only, and no debug information"

# Two plugins with the static library inside: each exports its own symbol and no other, and neither
# uses the other's.
static=$(pkg-config --static --libs hotset | sed 's/-lhotset\b/-l:libhotset.a/')
for compiler in cc clang; do
    command -v $compiler >/dev/null || { echo "skipped: plugins by $compiler (not installed)"; continue; }
    for name in first second; do
        # shellcheck disable=SC2046,SC2086
        $compiler -std=gnu11 "${warnings[@]}" -fPIC -shared "$tests/plugin.c" -DPLUGIN=$name -o "$work/$name.so" \
            $(pkg-config --cflags hotset) $static
        exported=$(readelf -W --dyn-syms "$work/$name.so" | symbols)
        [ "$exported" = $name ] || fail "a plugin built by $compiler exports $(wc -l <<<"$exported") symbols, not its own: $exported"
        ! readelf -d "$work/$name.so" | grep 'NEEDED.*hotset' >/dev/null || fail "the plugin needs libhotset.so"
    done
    $compiler -std=gnu11 "${warnings[@]}" "$tests/plugin.c" -o "$work/plugins" -ldl
    env -u LD_LIBRARY_PATH "$work/plugins" "$work/first.so" first "$work/second.so" second || fail "the plugins by $compiler"
    ok "two plugins by $compiler with the static library inside export their own symbol, and run, also after a fork"
done

use_tree "$work/programs" "$work/hotset" lib
# Found through a link, as /lib is one to /usr/lib.
mkdir "$work/linked" && ln -s "$work/hotset/share" "$work/linked/share"
cmake -S "$work/programs" -B "$work/programs/linked" -DCMAKE_PREFIX_PATH="$work/linked" >"$work/log" 2>&1 &&
    cmake --build "$work/programs/linked" >>"$work/log" 2>&1 || { cat "$work/log"; fail "CMake through a link"; }
ok "CMake: hotset::hotset and hotset::static"

# From the source tree, by the lines of the page: FetchContent, whose download is replaced by this
# tree, and whose build by the one that is there; and ExternalProject, which installs.
page() { # NAME
    sed -n "/^<!-- $1 -->\$/,/^\`\`\`\$/p" "$root/docs/how-to/install-c.md" | sed -n '/^```cmake$/,/^```$/p' | sed '/^```/d'
}
built=${CARGO_TARGET_DIR:-$root/target}
mkdir "$work/fetch"
page fetchcontent >"$work/fetch/CMakeLists.txt"
cp "$root/examples/c/hello.c" "$work/fetch/prog.c"
cmake -S "$work/fetch" -B "$work/fetch/build" -DFETCHCONTENT_SOURCE_DIR_HOTSET="$root" -DHOTSET_TARGET_DIR="$built" >"$work/log" 2>&1 &&
    cmake --build "$work/fetch/build" >>"$work/log" 2>&1 || { cat "$work/log"; fail "FetchContent"; }
env -u LD_LIBRARY_PATH "$work/fetch/build/prog" >/dev/null || fail "FetchContent's program"
env -u LD_LIBRARY_PATH ldd "$work/fetch/build/prog" | grep -F "libhotset.so.$abi => $built/release/" >/dev/null || fail "FetchContent's program uses another library"
ok "FetchContent, from the lines of the page"

install "$work/hotset" "" uninstall
[ -z "$(find "$work/hotset" ! -type d)" ] || fail "uninstall left: $(find "$work/hotset" ! -type d)"
ok "uninstall leaves no file"
echo "$passed passed, 0 failed"
