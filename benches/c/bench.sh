#!/usr/bin/env bash
# hotset from C beside an LRU behind a mutex, memcached and Rust: `bench.sh [ROUNDS]`.
# `make bench-c` builds the library first. memcached and uthash are Debian's (`make tools-c`);
# memcached listens on loopback alone and ends with the benchmark.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
built=${CARGO_TARGET_DIR:-$root/target}/release
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

[ -f /usr/include/uthash.h ] && command -v memcached >/dev/null || { echo "bench.sh: run make tools-c first" >&2; exit 1; }
cargo build --release --manifest-path "$here/rust/Cargo.toml" --target-dir "$root/target/bench-c"
# The library as programs use it: shared, its calls through the linker's table.
cc -std=gnu11 -O2 -Wall -Wextra -Werror -I"$root/include" "$here/reads.c" -o "$work/reads" \
    "$root/target/bench-c/release/librust_get.a" -L"$built" -lhotset -Wl,-rpath,"$built" -lpthread -lm -ldl
cc -std=gnu11 -O2 -Wall -Wextra -Werror -I"$root/include" "$here/writes.c" -o "$work/writes" \
    -L"$built" -lhotset -Wl,-rpath,"$built" -lpthread
mkdir -p "$work/lib"
soname=$(readelf -d "$built/libhotset.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
ln -s "$built/libhotset.so" "$work/lib/$soname"

port=$((20000 + RANDOM % 20000))
user=()
[ "$(id -u)" != 0 ] || user=(-u nobody)
memcached -l 127.0.0.1 -p "$port" -U 0 -t 4 -m 256 "${user[@]}" &
server=$!
until (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null; do
    kill -0 "$server" || { echo "bench.sh: memcached did not start" >&2; exit 1; }
    sleep 0.1
done
LD_LIBRARY_PATH=$work/lib "$work/writes" "${1:-21}"
LD_LIBRARY_PATH=$work/lib "$work/reads" "$port" "${1:-21}"
