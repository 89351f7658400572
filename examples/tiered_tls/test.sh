#!/usr/bin/env bash
# Runs the example with a redis-server of its own that speaks TLS only: with its authority's
# certificate, with another's, and with the server gone. `make test-tiered-tls`.
set -euo pipefail

program=${1:?usage: test.sh PROGRAM}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

# Makes an authority, and a certificate for localhost that it signs.
certify() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=test authority" -keyout "$1.key" -out "$1.ca" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout "$1.server.key" -out "$1.csr" 2>/dev/null
    openssl x509 -req -days 2 -in "$1.csr" -CA "$1.ca" -CAkey "$1.key" -CAcreateserial -out "$1.crt" \
        -extfile <(echo "subjectAltName=DNS:localhost") 2>/dev/null
}
certify "$work/ours"
certify "$work/foreign"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --bind 127.0.0.1 --port 0 --tls-port "$port" --tls-auth-clients no --save "" --dir "$work" \
    --tls-cert-file "$work/ours.crt" --tls-key-file "$work/ours.server.key" --tls-ca-cert-file "$work/ours.ca" \
    >"$work/server.log" &
server=$!
until grep -q "Ready to accept" "$work/server.log"; do
    kill -0 "$server" || { cat "$work/server.log" >&2; exit 1; }
    sleep 0.1
done

address="rediss://localhost:$port/0"
printed=$("$program" "$address" "$work/ours.ca")
[ "$printed" = "$(printf 'loaded: hot\nin the other cache: Some("hot")\nchanged in both')" ] || { echo "printed: $printed" >&2; exit 1; }

# The program must fail with a line that states why.
fails() {
    local wanted=$1 printed
    shift
    if printed=$("$program" "$@" 2>&1); then echo "test.sh: $* should fail" >&2; exit 1; fi
    grep -q "$wanted" <<<"$printed" || { printf 'test.sh: %s: no "%s" in:\n%s\n' "$*" "$wanted" "$printed" >&2; exit 1; }
}
fails "invalid peer certificate" "$address" "$work/foreign.ca"
fails "usage" "$address"
kill "$server"
wait "$server" || true
server=
fails "refused" "$address" "$work/ours.ca"
echo "tiered_tls: passed"
