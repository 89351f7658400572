"""A hit in the second tier on memcached, beside pymemcache's `get` and `json.loads`: in turns.

    bench_memcached.py [--rounds 400] [--keys 40]

Prints the best and the median time of a call over the rounds, and their ratio. Rounds are short,
and every other one begins with pymemcache: each side has the same share of what else the machine
does.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

sys.path.insert(0, str(Path(__file__).parent / "tests" / "tier2"))

from servers import MemcachedServer  # noqa: E402

import hotset  # noqa: E402
from hotset.tier2 import Memcached  # noqa: E402

VALUE = "x" * 100


def timed(get, keys):
    begun = time.perf_counter()
    for key in keys:
        get(key)
    return (time.perf_counter() - begun) / len(keys) * 1e6


def compare(nodes, rounds, keys):
    addresses = [node.address for node in nodes]
    shop = Memcached(addresses, prefix="bench")
    hotset.TieredCache(shop, "hits", ttl=3600).set_many(dict.fromkeys(keys, VALUE))
    where = [("127.0.0.1", node.port) for node in nodes]
    client = Client(where[0]) if len(nodes) == 1 else HashClient(where)
    for key in keys:
        client.set(key, json.dumps(VALUE))
    ours, theirs = [], []
    for number in range(rounds):
        # An empty first tier, so that each read is a hit of the second one.
        cache = hotset.TieredCache(shop, "hits", ttl=3600)
        cache.get(keys[0])
        sides = [(ours, cache.get), (theirs, lambda key: json.loads(client.get(key)))]
        for times, get in sides if number % 2 else reversed(sides):
            times.append(timed(get, keys[1:]))
    name = f"{len(nodes)} server{'s' if len(nodes) > 1 else ''}"
    print(f"{name:10} hit in tier 2: best {min(ours):6.1f} us, median {statistics.median(ours):6.1f} us")
    print(f"{'':10} get and loads: best {min(theirs):6.1f} us, median {statistics.median(theirs):6.1f} us")
    print(f"{'':10} ratio {min(ours) / min(theirs):.2f}, of the medians {statistics.median(ours) / statistics.median(theirs):.2f}")
    shop.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--keys", type=int, default=40)
    given = parser.parse_args()
    keys = [f"k{n}" for n in range(given.keys)]
    with MemcachedServer() as one, MemcachedServer() as two, MemcachedServer() as three:
        compare([one], given.rounds, keys)
        compare([one, two, three], given.rounds, keys)


if __name__ == "__main__":
    main()
