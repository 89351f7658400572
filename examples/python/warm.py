"""A deploy that starts warm: the next process finds the results that the previous one cached.

A service starts, answers requests from a slow source, and exits; then it starts again, as by a
deploy. Then the function is changed, with another `schema`: the saved results are of no use and are
not loaded, and the service starts cold, with a warning.

    python examples/python/warm.py
"""

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time

import hotset

SNAPSHOT = os.environ.get("SNAPSHOT", "rates.snapshot")
VERSION = os.environ.get("VERSION", "1")

queries = 0


@hotset.cached(maxsize=1000, ttl=3600, snapshot=SNAPSHOT, codec="json", schema=VERSION)
async def rates(currency: str, *, day: int) -> dict[str, float]:
    """Returns the slow source's answer for a day."""
    global queries
    queries += 1
    await asyncio.sleep(0.002)
    return {other: 1 + (day * len(other) + ord(other[0]) - ord(currency[0])) % 90 / 100 for other in ("EUR", "USD", "GBP")}


async def serve(requests: int) -> None:
    chance = random.Random(7)
    begun = time.perf_counter()
    for _ in range(requests):
        # Most requests are for the last days.
        await rates(chance.choice(("CHF", "SEK", "JPY")), day=int(chance.expovariate(0.1)))
    took = time.perf_counter() - begun
    hits = rates.cache_info().hits
    print(f"    {requests} requests in {took:.2f} s: {hits / requests:4.0%} from the cache, {queries} queries")


def start(title: str, version: str, snapshot: str) -> None:
    """A process of its own, that serves and exits."""
    print(title, flush=True)
    command = [sys.executable, __file__, "serve"]
    subprocess.run(command, env=dict(os.environ, SNAPSHOT=snapshot, VERSION=version), stderr=sys.stdout, check=True)


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve(500))
        return
    with tempfile.TemporaryDirectory() as directory:
        snapshot = os.path.join(directory, "rates.snapshot")
        start("The first start:", "1", snapshot)
        print(f"    it left {os.path.getsize(snapshot):,} bytes in {os.path.basename(snapshot)}")
        start("The second start:", "1", snapshot)
        start("The function has changed:", "2", snapshot)


if __name__ == "__main__":
    main()
