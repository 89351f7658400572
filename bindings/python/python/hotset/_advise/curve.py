"""Replays the arguments of a function through caches of several sizes.

The caches are hotset's own, so the policy is the one that a decorated function gets. Within a
recursive function a hit saves the calls that the hit makes unnecessary, too: these are not
replayed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import hotset
from hotset._advise.record import Function

_SIZES = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144)
# Longer streams are replayed up to here: the later calls change the ratio little.
_MAX_REPLAYED = 100_000


class Size(NamedTuple):
    """What a cache of one size would have done.

    Attributes:
        maxsize: The capacity in results.
        hits: Calls that would have found their result.
        lookups: Calls that would have been made.
        saved: Nanoseconds that the hits would have saved, the cost of a hit not deducted.
    """

    maxsize: int
    hits: int
    lookups: int
    saved: int

    @property
    def hit_ratio(self) -> float:
        """Hits divided by lookups; 0 without lookups."""
        return self.hits / self.lookups if self.lookups else 0.0


def _in_order(function: Function) -> Iterator[tuple[int, int, int, int]]:
    """Yields the observed calls in the order in which they began: thread, key, time, depth."""
    streams = list(function.streams.values())
    if len(streams) == 1:
        [stream] = streams
        for key, time, depth in zip(stream.keys, stream.times, stream.depths, strict=False):
            yield 0, key, time, depth
        return
    starts = sorted((start, number, position) for number, stream in enumerate(streams) for position, start in enumerate(stream.starts))
    for _, number, position in starts:
        stream = streams[number]
        if position < min(len(stream.times), len(stream.depths)):
            yield number, stream.keys[position], stream.times[position], stream.depths[position]


class _Thread:
    """The calls in progress on one thread of a replay."""

    def __init__(self) -> None:
        # The depth below which calls are not made, since a hit replaced them.
        self.hidden_below: int | None = None
        self.open: list[tuple[int, int]] = []


def _replay(calls: list[tuple[int, int, int, int]], maxsize: int) -> Size:
    cache: hotset.Cache[int, bool] = hotset.Cache(maxsize)
    threads: dict[int, _Thread] = {}
    hits = lookups = saved = 0
    for number, key, time, depth in calls:
        thread = threads.get(number)
        if thread is None:
            thread = threads[number] = _Thread()
        if thread.hidden_below is not None:
            if depth > thread.hidden_below:
                continue
            thread.hidden_below = None
        # Calls that are not deeper have returned by now.
        while thread.open and thread.open[-1][0] >= depth:
            cache[thread.open.pop()[1]] = True
        lookups += 1
        if key in cache and cache.get(key):
            hits += 1
            saved += max(time, 0)
            thread.hidden_below = depth
        else:
            thread.open.append((depth, key))
    return Size(maxsize, hits, lookups, saved)


def curve_of(function: Function) -> list[Size]:
    """Returns what caches of several sizes would have done, smallest first.

    Args:
        function: A function that was recorded.

    Returns:
        The sizes, up to the first one that holds all distinct arguments.
    """
    calls: list[tuple[int, int, int, int]] = []
    distinct: set[int] = set()
    for call in _in_order(function):
        calls.append(call)
        distinct.add(call[1])
        if len(calls) >= _MAX_REPLAYED:
            break
    curve: list[Size] = []
    for maxsize in _SIZES:
        curve.append(_replay(calls, maxsize))
        if maxsize >= len(distinct):
            break
    return curve


def distinct_of(function: Function) -> int:
    """Returns the number of distinct arguments among the observed calls.

    Args:
        function: A function that was recorded.
    """
    keys: set[int] = set()
    for stream in function.streams.values():
        keys.update(stream.keys)
    return len(keys)
