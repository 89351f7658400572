"""A cache on memcached for the tests of the Rust crate: one command per line, one line of answer.

    memcached_peer.py CODEC ADDRESS,ADDRESS
"""

import sys

import hotset
from hotset.tier2 import Memcached


def main():
    codec, addresses = sys.argv[1:]
    server = Memcached(addresses.split(","), prefix="shop")
    cache = hotset.TieredCache(server, "prices", maxsize=1000, ttl=600, local_ttl=0.001, codec=codec)
    encode, decode = (str.encode, bytes.decode) if codec == "bytes" else (str, str)
    for line in sys.stdin:
        match line.split():
            case ["get", key]:
                value = cache.get(key)
                answer = None if value is None else decode(value)
            case ["set", key, value]:
                answer = cache.set(key, encode(value))
            case ["load", key, value]:
                answer = decode(cache.get_or_load(key, lambda _, value=value: encode(value)))
            case ["remove", key]:
                answer = cache.delete(key)
            case ["clear"]:
                answer = cache.clear()
            case _:
                raise ValueError(line)
        print(answer, flush=True)
    server.close()


if __name__ == "__main__":
    main()
