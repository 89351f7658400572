"""A service in front of a Redis, Valkey or memcached: it reads a command per line, and answers it.

    python tiered.py redis://localhost:6379/0
    python tiered.py memcached://localhost:11211

Commands are such as "get tea", "set tea 3", "remove tea" and "stats". Several of them on one server
are coherent, also with `examples/tiered.rs` and `examples/c/tiered.c`.
"""

import sys

import hotset
from hotset.tier2 import Memcached, Redis


def load(key: str) -> bytes:
    """Returns the price of `key`. Stands for a database."""
    print(f"(loading {key})")
    return str(len(key)).encode()


def report(confirmed: bool) -> str:
    """Returns the outcome of a change."""
    return "done" if confirmed else "done here, and on the server once it answers"


def main() -> None:
    """Answers commands until the input ends."""
    address = sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6379/0"
    server: Redis | Memcached
    if address.startswith("memcached://"):
        server = Memcached(address.removeprefix("memcached://").split(","), prefix="demo")
    else:
        server = Redis(address, prefix="demo")
    prices: hotset.TieredCache[str, bytes] = hotset.TieredCache(server, "prices", maxsize=10_000, ttl=300, codec="bytes")
    for line in sys.stdin:
        match line.split():
            case ["get", key]:
                print(prices.get_or_load(key, load).decode())
            case ["set", key, value]:
                print(report(prices.set(key, value.encode())))
            case ["remove", key]:
                print(report(prices.delete(key)))
            case ["stats"]:
                print(prices.stats())
            case _:
                print("get KEY | set KEY VALUE | remove KEY | stats")
        sys.stdout.flush()
    server.close()


if __name__ == "__main__":
    main()
