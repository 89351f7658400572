#!/usr/bin/env bash
# Runs benches/c/tiered.c, which is the first argument once it is compiled, on a redis-server of its
# own; the others are the program's. `make bench-tiered-c`.
set -euo pipefail
program=$1
shift
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
work=$(mktemp -d)
redis-server --port "$port" --bind 127.0.0.1 --save "" --dir "$work" >/dev/null &
server=$!
trap 'kill "$server"; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
until redis-cli -p "$port" ping >/dev/null 2>&1; do
    kill -0 "$server"
    sleep 0.05
done
"$program" "redis://127.0.0.1:$port/0" 127.0.0.1 "$port" "$@"
