#!/usr/bin/env bash
# examples/c/tier2_memcached.c with real servers: as it is, and with AddressSanitizer and
# UndefinedBehaviorSanitizer. `make test-tiered-c-memcached` builds the library first, into LIB.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
lib=${LIB:-${CARGO_TARGET_DIR:-$root/target}/release}
lib=$(cd "$lib" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
soname=$(readelf -d "$lib/libhotset.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
ln -s "$lib/libhotset.so" "$work/$soname"
export LD_LIBRARY_PATH=$work

for flags in -O2 "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all"; do
    # shellcheck disable=SC2086 # several flags
    cc -g -std=gnu99 $flags -Wall -Wextra -Wpedantic -Werror -I"$root/include" "$root/bindings/c/tests/tiered_memcached.c" \
        "$root/examples/c/tier2_memcached.c" -o "$work/test" "$work/$soname" -lpthread
    "$work/test"
done
