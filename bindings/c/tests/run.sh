#!/usr/bin/env bash
# The tests of the C library: `run.sh` without tools, `run.sh valgrind` under valgrind,
# `run.sh asan` with AddressSanitizer in library and tests, `run.sh tsan` with ThreadSanitizer.
# `make test-c`, `make test-c-valgrind`, `make asan-c` and `make sanitize` build the library first,
# into the directory LIB.
set -euo pipefail

mode=${1:-plain}
root=$(cd "$(dirname "$0")/../../.." && pwd)
tests=$root/bindings/c/tests
header=$root/include/hotset.h
lib=${LIB:-${CARGO_TARGET_DIR:-$root/target}/release}
[ -f "$lib/libhotset.so" ] || { echo "run.sh: no library in $lib" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

warnings=(-Wall -Wextra -Wpedantic -Werror)
soname=$(readelf -d "$lib/libhotset.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[ -n "$soname" ] || fail "the library has no SONAME"
ln -s "$lib/libhotset.so" "$work/$soname"
export LD_LIBRARY_PATH=$work

# Programs are C99, as the header is, except for one that needs atomics.
standard() { [ "$1" = tiered ] && echo gnu11 || echo gnu99; } # NAME

build() { # NAME FLAGS..
    local name=$1
    shift
    cc -g -O1 -std="$(standard "$name")" "${warnings[@]}" -I"$root/include" "$tests/$name.c" -o "$work/$name" "$@" "$work/$soname" -lpthread
}

the_header() {
    echo '#include <hotset.h>' >"$work/empty.c"
    cp "$work/empty.c" "$work/empty.cpp"
    local std
    for std in c99 c11 c17; do
        cc -std=$std "${warnings[@]}" -I"$root/include" -fsyntax-only "$work/empty.c" || fail "hotset.h in $std"
    done
    for std in c++17 c++20; do
        c++ -std=$std "${warnings[@]}" -I"$root/include" -fsyntax-only "$work/empty.cpp" || fail "hotset.h in $std"
    done
    echo "header: ok"
}

# What the library exports is what the header declares, and the tests call each of it.
the_symbols() {
    nm -D --defined-only "$lib/libhotset.so" | awk '{ print $NF }' | sort >"$work/exported"
    cc -E "$header" | grep -v -e '^ *typedef' -e '(\*' | grep -o '\bhotset_[a-z0-9_]* *(' | tr -d ' (' | sort -u >"$work/declared"
    diff "$work/declared" "$work/exported" >&2 || fail "declared (<) and exported (>) symbols differ"
    local name
    while read -r name; do
        grep -q "\b$name(" "$tests"/*.c || fail "no test calls $name"
    done <"$work/exported"
    echo "symbols: ok, $(wc -l <"$work/exported") functions"
}

# The programs of the README and of the tutorial, as they are printed there, with the static
# library.
the_quickstarts() {
    local page print
    local -a sources
    for page in README.md docs/tutorials/c-server.md docs/how-to/how-big.md docs/how-to/second-tier-c.md; do
        print="<html>"
        sources=("$work/quickstart.c")
        [ "$page" != docs/how-to/how-big.md ] || print="Make it larger: *"
        sed -n '/^```c$/,/^```$/p' "$root/$page" | sed '/^```/d' >"$work/quickstart.c"
        if [ "$page" = docs/how-to/second-tier-c.md ]; then
            # No server answers there: values are loaded nevertheless.
            sed -i 's/localhost:11211/127.0.0.1:1/' "$work/quickstart.c"
            echo 'void send_to_others(const char *name, size_t len) { (void)name, (void)len; }' >>"$work/quickstart.c"
            sources+=("$root/examples/c/tier2_memcached.c")
        fi
        cc -std=c11 "${warnings[@]}" -I"$root/include" -I"$root/examples/c" "${sources[@]}" -o "$work/quickstart" "$lib/libhotset.a" -lpthread -lm -ldl
        # shellcheck disable=SC2053 # a pattern
        [[ "$("$work/quickstart")" == $print ]] || fail "the C of $page"
    done
    echo "quickstarts: ok"
}

# Prometheus' own tool reads the metrics of hostile names, and those of the example.
the_exposition() {
    sed -n '/^```c$/,/^```$/p' "$root/docs/how-to/metrics-c.md" | sed '/^```/d' >"$work/page.c"
    cc -std=c11 "${warnings[@]}" -I"$root/include" "$work/page.c" -o "$work/page" "$work/$soname"
    [ "$("$work/page" | grep -c '^hotset_cache_entries{cache="\(pages\|users\)"} 0$')" = 2 ] || fail "the C of docs/how-to/metrics-c.md"
    cc -std=c11 "${warnings[@]}" -I"$root/include" "$root/examples/c/metrics.c" -o "$work/example" "$work/$soname"
    "$work/example" >"$work/text" || fail "examples/c/metrics.c"
    grep -q '^hotset_cache_requests_total{cache="pages",result="hit"} 6$' "$work/text" || fail "the example printed: $(cat "$work/text")"
    if command -v promtool >/dev/null; then
        promtool check metrics <"$work/text" || fail "promtool: examples/c/metrics.c"
        "$work/metrics" print | promtool check metrics || fail "promtool: hostile names"
        echo "exposition: ok"
    else
        echo "exposition: not checked, promtool is missing (Debian: prometheus)"
    fi
}

the_exchange() {
    "$work/snapshot" write "$work/by-c" || fail "snapshot write"
    HOTSET_BY_C=$work/by-c HOTSET_BY_RUST=$work/by-rust \
        "${CARGO:-cargo}" test --quiet --manifest-path "$root/Cargo.toml" -p hotset-c --test exchange -- --ignored >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; fail "Rust reads what C wrote"; }
    "$work/snapshot" read "$work/by-rust" || fail "C reads what Rust wrote"
    echo "exchange: ok"
}

# The reader that `python -m hotset top` uses reads what a C program writes.
the_stats_file() {
    mkdir -m 700 "$work/stats"
    # The program ends with its input, which is this coprocess's.
    coproc SERVER { HOTSET_STATS="$work/stats" exec "$work/stats_file" serve; }
    local server=$SERVER_PID out=${SERVER[0]} in=${SERVER[1]} line
    read -r line <&"$out"
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/bindings/python/python/hotset python3 - "$work/stats" "$server" <<'END' || fail "a reader in Python reads the stats file of C"
import sys
import _statsfile
(process,) = _statsfile.scan(sys.argv[1])
assert (process.kind, process.pid, process.alive) == ("c", int(sys.argv[2]), True), process
assert (process.program, [cache.name for cache in process.caches]) == ("stats_file", ["from C"]), process
assert process.caches[0].capacity == 100, process
END
    eval "exec $in>&-"
    wait "$server" || fail "stats_file serve"
    [ -z "$(ls -A "$work/stats")" ] || fail "the stats file is left behind"
    echo "stats file: ok"
}

case $mode in
plain)
    the_header
    the_symbols
    the_quickstarts
    for name in advice api callbacks cancel fork metrics threads memory no_memory snapshot stats_file tiered; do
        build "$name" -ldl
        "$work/$name" || fail "$name"
    done
    the_exposition
    the_exchange
    the_stats_file
    ;;
valgrind)
    # (cancel and no_memory have a malloc of their own.) A thread that has just ended may still have
    # its stack: "possibly lost".
    check=(valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite,indirect --show-leak-kinds=definite,indirect --error-exitcode=9)
    for name in advice api callbacks fork metrics threads snapshot stats_file tiered; do build "$name"; done
    "${check[@]}" "$work/tiered" alone || fail tiered
    "${check[@]}" "$work/stats_file" alone || fail stats_file
    "${check[@]}" "$work/metrics" || fail metrics
    "${check[@]}" "$work/advice" || fail advice
    "${check[@]}" "$work/api" || fail api
    "${check[@]}" "$work/callbacks" || fail callbacks
    "${check[@]}" "$work/snapshot" || fail snapshot
    "${check[@]}" "$work/fork" alone || fail fork
    "${check[@]}" --fair-sched=yes "$work/threads" 2000 || fail threads
    ;;
asan)
    # To the sanitizer, refused memory is an error of its own, unless this option allows it.
    export ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=65536
    for name in advice api callbacks fork metrics threads snapshot stats_file tiered; do build "$name" -fsanitize=address; done
    "$work/tiered" || fail tiered
    "$work/stats_file" alone || fail stats_file
    "$work/metrics" || fail metrics
    "$work/advice" || fail advice
    "$work/api" || fail api
    "$work/callbacks" || fail callbacks
    "$work/snapshot" || fail snapshot
    "$work/fork" alone || fail fork
    "$work/threads" || fail threads
    ;;
tsan)
    # The library was built with -Zsanitizer=thread, std included. The C compiler's runtime is not
    # the one that rustc's instrumentation needs, so the programs get rustc's.
    export TSAN_OPTIONS=allocator_may_return_null=1:die_after_fork=0
    runtime=$(rustc +nightly --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/lib/librustc-nightly_rt.tsan.a
    for name in api callbacks threads tiered; do
        cc -g -O1 -std="$(standard "$name")" "${warnings[@]}" -fsanitize=thread -I"$root/include" -c "$tests/$name.c" -o "$work/$name.o"
        cc "$work/$name.o" -o "$work/$name" -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive -rdynamic "$work/$soname" \
            -lpthread -ldl -lm -lrt
        "$work/$name" || fail "$name"
    done
    ;;
*) fail "usage: run.sh [valgrind|asan|tsan]" ;;
esac
