# Sourced by the tests of installed trees: programs in C and C++ that use one, through pkg-config
# and CMake, shared and static; the library's version, and its SONAME's. `root` must be set.
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
case $version in
0.*) abi=${version%.*} ;;
*) abi=${version%%.*} ;;
esac

# use_tree WORK PREFIX LIBDIR [OPTIONS..]: the tree below PREFIX, whose library is in PREFIX/LIBDIR.
# CMake is given the options. With SYSROOT set, the tree is staged below it: PREFIX begins with it.
# With STATIC=shared-libgcc the static programs are those that still load libgcc, as with the .pc
# file of cargo-c.
use_tree() {
    local work=$1 prefix=$2 libdir=$3 name source flags
    shift 3
    mkdir -p "$work"
    local -x PKG_CONFIG_LIBDIR=$prefix/$libdir/pkgconfig PKG_CONFIG_SYSROOT_DIR=${SYSROOT:-} LD_LIBRARY_PATH=$prefix/$libdir
    # pkg-config quotes for a shell: a prefix may have spaces.
    for name in hello tour; do
        source=$root/examples/c/$name.c
        flags=$(pkg-config --cflags --libs hotset)
        eval "cc -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror \"\$source\" -o \"\$work/\$name\" $flags"
        ldd "$work/$name" | grep -F "$prefix/$libdir/libhotset.so.$abi" >/dev/null || fail "$name does not use the shared library"
        flags=$(pkg-config --static --cflags --libs hotset)
        case ${STATIC:-} in
        shared-libgcc) eval "cc -std=c11 -O2 \"\$source\" -o \"\$work/\$name-static\" ${flags//-lhotset/-l:libhotset.a}" ;;
        *) eval "cc -static -std=c11 -O2 \"\$source\" -o \"\$work/\$name-static\" $flags" 2>"$work/log" || { cat "$work/log"; fail "$name-static"; } ;;
        esac
        ! readelf -d "$work/$name-static" | grep 'NEEDED.*hotset' >/dev/null || fail "$name-static needs the shared library"
        [ -n "$("$work/$name")" ] || fail "$name printed nothing"
        [ "$("$work/$name")" = "$(env -u LD_LIBRARY_PATH "$work/$name-static")" ] || fail "$name, static"
    done
    cat >"$work/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.13)
project(uses_hotset C CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(hotset ${version%.*} REQUIRED)
find_package(Threads REQUIRED)
add_library(wrapper OBJECT $root/bindings/c/tests/wrapper.cpp)
target_link_libraries(wrapper hotset::hotset)
foreach(kind hotset static)
  add_executable(hello-\${kind} $root/examples/c/hello.c)
  target_link_libraries(hello-\${kind} hotset::\${kind})
  add_executable(wrapper-\${kind} \$<TARGET_OBJECTS:wrapper>)
  target_link_libraries(wrapper-\${kind} hotset::\${kind} Threads::Threads)
endforeach()
find_package(hotset 99.0 QUIET)
if(hotset_FOUND)
  message(FATAL_ERROR "version 99.0 was found")
endif()
CMAKE
    rm -rf "$work/build"
    cmake -S "$work" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" "$@" >"$work/log" 2>&1 &&
        cmake --build "$work/build" >>"$work/log" 2>&1 || { cat "$work/log"; fail "CMake with the tree $prefix"; }
    for name in hello-hotset wrapper-hotset; do
        "$work/build/$name" >/dev/null || fail "CMake's $name"
        ldd "$work/build/$name" | grep -F "libhotset.so.$abi => $prefix/$libdir/" >/dev/null || fail "CMake's $name uses another library"
    done
    for name in hello-static wrapper-static; do
        env -u LD_LIBRARY_PATH "$work/build/$name" >/dev/null || fail "CMake's $name"
        ! ldd "$work/build/$name" | grep hotset >/dev/null || fail "CMake's $name is not static"
    done
}

# What a tree holds, a line for each file: its path, and its mode or what it links to.
list_tree() { # PREFIX
    (cd "$1" && find . \( -type f -printf '%P %m\n' \) -o \( -type l -printf '%P -> %l\n' \) | sort)
}
