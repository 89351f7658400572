"""Protecting a cold source: one load for each key, and at most N loads at a time of all keys.

    python examples/recipes/cold_source.py
"""

import asyncio

import hotset

running = most = calls = 0


async def source(id: int) -> str:
    """A database that has just started, and is slow."""
    global running, most, calls
    calls += 1
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.001)
    running -= 1
    return f"row {id}"


class Busy(Exception):
    """Too many loads wait already: a caller is refused immediately, and may try later."""


class Gate:
    """Lets `at_once` loads run, and `waiting` more wait; refuses others."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._semaphore = asyncio.Semaphore(at_once)
        self._places = at_once + waiting

    async def load(self, id: int) -> str:
        """Loads from the source when its turn comes."""
        if self._places == 0:
            raise Busy
        self._places -= 1
        try:
            async with self._semaphore:
                return await source(id)
        finally:
            self._places += 1


async def main() -> None:
    rows: hotset.Cache[int, str] = hotset.Cache(10_000, ttl=60)
    gate = Gate(at_once=5, waiting=100)
    # 1,000 concurrent requests of 100 rows.
    await asyncio.gather(*(rows.aget_or_load(n % 100, gate.load) for n in range(1000)))
    print(f"1,000 requests of 100 rows: {calls} loads, {most} at a time")
    assert (calls, most) == (100, 5)
    results = await asyncio.gather(*(rows.aget_or_load(n, gate.load) for n in range(1000, 2000)), return_exceptions=True)
    refused = sum(isinstance(result, Busy) for result in results)
    print(f"1,000 requests of 1,000 rows: {len(results) - refused} served, {refused} refused immediately")
    assert most == 5 and refused == 1000 - 105


if __name__ == "__main__":
    asyncio.run(main())
