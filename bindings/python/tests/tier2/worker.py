"""A process of the tests: executes its arguments, and prints each result as a line of JSON.

    worker.py URL herd PREFIX ROUND..      reads one cold key per round with 16 threads, when a
                                           line arrives on standard input
    worker.py URL lead KEY SECONDS         leads a load that takes SECONDS
"""

import json
import os
import sys
import threading
import time

import hotset
from hotset.tier2 import Memcached, Redis


def say(**what):
    print(json.dumps({"pid": os.getpid(), **what}), flush=True)


def herd(prices, threads, seconds):
    """On each line of standard input: 16 threads read the key that it names, at the same time."""
    loads = []

    def load(key):
        loads.append(key)
        time.sleep(seconds)
        return f"{os.getpid()}"

    say(ready=True)
    for line in sys.stdin:
        key = line.strip()
        loads.clear()
        gate = threading.Barrier(threads)
        results, errors = [], []

        def read(key=key, gate=gate, results=results, errors=errors):
            gate.wait()
            try:
                results.append(prices.get_or_load(key, load))
            except BaseException as error:
                errors.append(repr(error))

        readers = [threading.Thread(target=read) for _ in range(threads)]
        begun = time.monotonic()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        say(key=key, loads=len(loads), values=sorted(set(results)), errors=errors, count=len(results), seconds=time.monotonic() - begun)


def lead(prices, key, seconds):
    def load(key):
        say(loading=key)
        time.sleep(seconds)
        return "slow"

    say(value=prices.get_or_load(key, load))


def main():
    url, what, *rest = sys.argv[1:]
    shop = Memcached(url, prefix="shop") if url.startswith("memcached://") else Redis(url, prefix="shop")
    prices = hotset.TieredCache(shop, "prices", ttl=300)
    if what == "herd":
        herd(prices, int(rest[0]), float(rest[1]))
    elif what == "lead":
        lead(prices, rest[0], float(rest[1]))


if __name__ == "__main__":
    main()
