"""A rate limiter in the process: a token bucket per client, changed atomically.

A bucket expires when it is full again.

    python examples/recipes/rate_limiter.py
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import hotset


class Bucket(NamedTuple):
    """Tokens at a time."""

    tokens: float
    at: float


class RateLimiter:
    """Allows each client `burst` calls together, and `rate` a second on average.

    Args:
        rate: Tokens a second that a bucket gains.
        burst: Tokens that a bucket holds.
        clients: How many clients are known at a time: an attacker with many addresses fills the
            cache, not the memory. A client that is evicted begins with a full bucket.
        timer: A clock.
    """

    def __init__(self, rate: float, burst: int, clients: int = 100_000, timer: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._timer = timer
        # A bucket that is not used is full after `burst / rate` seconds, which is what an absent
        # one is.
        self._buckets: hotset.Cache[str, Bucket] = hotset.Cache(clients, tti=burst / rate, timer=timer, name="buckets")

    def allow(self, client: str) -> bool:
        """Takes a token of the client's bucket; returns whether there was one."""
        now = self._timer()
        allowed = False

        def take(bucket: Bucket) -> Bucket:
            nonlocal allowed
            tokens = min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._rate)
            allowed = tokens >= 1
            return Bucket(tokens - allowed, now)

        self._buckets.compute(client, take, Bucket(self._burst, now))
        return allowed


def main() -> None:
    now = [0.0]
    limiter = RateLimiter(rate=10, burst=5, timer=lambda: now[0])
    allowed: list[bool] = []
    threads = [threading.Thread(target=lambda: allowed.append(limiter.allow("a"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"20 calls in a burst: {sum(allowed)} allowed")
    assert sum(allowed) == 5
    now[0] += 0.35
    later = [limiter.allow("a") for _ in range(10)]
    print(f"10 calls 0.35 s later: {sum(later)} allowed; another client: {limiter.allow('b')}")
    assert sum(later) == 3


if __name__ == "__main__":
    main()
