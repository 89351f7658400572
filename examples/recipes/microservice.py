"""A client of a service that may fail: stale answers while it is down, and a circuit breaker.

    python examples/recipes/microservice.py
"""

import time
from collections.abc import Callable
from typing import TypeVar

import hotset

R = TypeVar("R")


class ServiceDown(Exception):
    """The service failed, or is not called for a while since it failed."""


class Breaker:
    """Stops calls after `failures` in a row, for `pause` seconds; then lets one call try."""

    def __init__(self, failures: int, pause: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._failures = failures
        self._pause = pause
        self._timer = timer
        self._failed = 0
        # Present while the breaker is open; the caller that finds it absent, and adds it, tries.
        self._open: hotset.Cache[str, bool] = hotset.Cache(1, ttl=pause, timer=timer)

    def call(self, function: Callable[[], R]) -> R:
        """Calls the function, or raises ServiceDown immediately."""
        if self._failed >= self._failures and not self._open.add("open", True):
            raise ServiceDown("not called: it failed before")
        try:
            result = function()
        except Exception as error:
            self._failed += 1
            if self._failed == self._failures:
                self._open["open"] = True
            raise ServiceDown("failed") from error
        self._failed = 0
        self._open.clear()
        return result


def main() -> None:
    now = [0.0]
    calls: list[int] = []
    down = False
    breaker = Breaker(failures=3, pause=10, timer=lambda: now[0])

    def ask(user: int) -> str:
        calls.append(user)
        if down:
            raise OSError("connection refused")
        return f"user {user}"

    # A failure is remembered for a second, so that one caller of a user asks, and not all.
    @hotset.cached(maxsize=10_000, ttl=60, stale_if_error=3600, negative_ttl=1, timer=lambda: now[0], name="users")
    def user(id: int) -> str:
        return breaker.call(lambda: ask(id))

    print(user(1))
    down = True
    now[0] += 61
    print(f"the service is down: {user(1)}, from before")
    for id in range(100, 200):
        try:
            user(id)
        except ServiceDown:
            pass
    print(f"100 unknown users: {len(calls) - 2} more requests to the service")
    assert len(calls) == 1 + 1 + 2
    down = False
    now[0] += 11
    print(f"it is up: {user(2)}, {user(3)}")
    assert calls[4:] == [2, 3]


if __name__ == "__main__":
    main()
