"""Named caches summed over the processes of a program, with rates and a history."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from hotset._statsfile import CacheStats, ProcessStats

# "Now" is the mean of the last RECENT seconds; the history covers the last HISTORY seconds.
RECENT: Final = 5.0
HISTORY: Final = 60.0
COLUMNS: Final = 20
# A process under load rewrites its figures every second. After this many seconds without that, it
# has made no calls.
_QUIET: Final = 2.5

_Key = tuple[str, str, str]
_COUNTERS: Final = (
    "hits",
    "misses",
    "stale_hits",
    "waits",
    "insertions",
    "evictions",
    "evicted_weight",
    "rejections",
    "expirations",
    "loads",
    "load_failures",
)
_RATES: Final = ("insertions", "evictions", "rejections", "expirations", "loads", "load_failures")


class Point(NamedTuple):
    """The hit ratio that a cache would have at another capacity.

    Attributes:
        capacity: The capacity.
        hit_ratio: The hit ratio, from 0 to 1.
        bytes: The memory that it would take; None if it is unknown.
    """

    capacity: int
    hit_ratio: float
    bytes: int | None


class Member(NamedTuple):
    """One process's cache in a row.

    Attributes:
        process: The process.
        cache: The cache.
        rates: Events per second by the name of their counter; None before the second reading.
        recent: Seconds, hits and misses of the last `RECENT` seconds.
    """

    process: ProcessStats
    cache: CacheStats
    rates: dict[str, float] | None
    recent: tuple[float, float, float]


class Row(NamedTuple):
    """The caches of one name in the processes of one program.

    Attributes:
        key: Program, kind and name, which identify the row.
        name: The name of the caches, as it was given.
        program: The name of the program.
        kind: "rust", "c" or "python".
        members: The processes that have such a cache.
        totals: Sums of the counters by name; None for a counter that a process does not know.
        hit_ratio: Hits divided by hits plus misses; None before the first lookup.
        recent_ratio: The same for the last `RECENT` seconds.
        operations: Lookups per second in the last `RECENT` seconds.
        history: Hit ratios of `COLUMNS` equal parts of the last `HISTORY` seconds, oldest first;
            None where there was no lookup.
        rates: Events per second by the name of their counter; None before the second reading.
        entries: Entries that are held.
        weight: Their weight.
        weighted: Whether weights and capacity come from a weigher.
        capacity: The sum of the capacities; None if one cache has no bound.
        fill: The weight divided by the capacity.
        bytes: The memory of the entries; None if a process does not know it.
        mean_load: Seconds that a load takes on average; None before the first one.
        saved: Seconds that the hits would have taken as loads: hits times `mean_load`.
        buckets: Loads by duration: the upper bound in seconds, and how many loads took at most as
            long and longer than the bound before it.
        curve: Hit ratios at other capacities of one process's cache; empty without profiling.
        curve_members: How many processes the curve is the mean of.
        tier2: Sums of the counters of the second tier; None without one.
    """

    key: _Key
    name: str
    program: str
    kind: str
    members: tuple[Member, ...]
    totals: dict[str, int | None]
    hit_ratio: float | None
    recent_ratio: float | None
    operations: float
    history: tuple[float | None, ...]
    rates: dict[str, float] | None
    entries: int
    weight: int
    weighted: bool
    capacity: int | None
    fill: float | None
    bytes: int | None
    mean_load: float | None
    saved: float | None
    buckets: tuple[tuple[float, int], ...]
    curve: tuple[Point, ...]
    curve_members: int
    tier2: dict[str, int] | None


class Snapshot(NamedTuple):
    """All rows at one time.

    Attributes:
        time: Unix time of the reading.
        monotonic: The same on the clock of `ProcessStats.monotonic`.
        processes: The processes that were read.
        rows: The rows, by program and name.
        operations: Lookups per second of all rows.
        recent_ratio: The hit ratio of all rows in the last `RECENT` seconds.
        saved: Seconds that the hits of all rows saved; None if no row knows.
        omitted: Named caches that the stats files had no room for.
    """

    time: float
    monotonic: float
    processes: tuple[ProcessStats, ...]
    rows: tuple[Row, ...]
    operations: float
    recent_ratio: float | None
    saved: float | None
    omitted: int


def ratio(hits: float, misses: float) -> float | None:
    """Returns hits divided by hits plus misses; None without any.

    Args:
        hits: Hits.
        misses: Misses.
    """
    return hits / (hits + misses) if hits + misses > 0 else None


def resample(
    samples: Sequence[tuple[float, int, int]], end: float, begin: float, until: float, parts: int
) -> list[tuple[float, float]]:
    """Returns hits and misses in equal parts of a period, from samples of any length.

    A sample that lies in several parts is divided among them by time.

    Args:
        samples: Seconds, hits and misses, oldest first.
        end: When the last sample ended.
        begin: When the period begins, on the same clock.
        until: When it ends.
        parts: The number of parts.

    Example:
        >>> resample([(2.0, 8, 0), (1.0, 1, 3)], 10.0, 8.0, 10.0, 2)
        [(4.0, 0.0), (1.0, 3.0)]
    """
    sums = [(0.0, 0.0)] * parts
    step = (until - begin) / parts
    for seconds, hits, misses in reversed(samples):
        if end <= begin:
            break
        # (Samples of no duration belong to the instant at which they end.)
        start = min(end - seconds, end)
        length = max(end - start, 1e-9)
        first = max(0, int((start - begin) / step))
        last = min(parts - 1, int((end - begin) / step))
        for part in range(first, last + 1):
            low, high = begin + part * step, begin + (part + 1) * step
            share = (min(end, high) - max(start, low)) / length if seconds > 0 else float(low < end <= high)
            if share > 0:
                before = sums[part]
                sums[part] = (before[0] + hits * share, before[1] + misses * share)
        end = start
    return sums


def _recent(process: ProcessStats, cache: CacheStats, now: float) -> tuple[float, float, float]:
    """Returns seconds, hits and misses of the last `RECENT` seconds.

    A busy process publishes once a second: its period ends at its last publication. A process that
    has not published for longer made no calls since then.
    """
    until = process.monotonic if now - process.monotonic < _QUIET else now
    # (The counters of a cache that is younger than the period cover its age.)
    covered = sum(seconds for seconds, _, _ in cache.samples) + (until - process.monotonic)
    period = max(min(RECENT, covered), 1e-3) if cache.samples else RECENT
    [(hits, misses)] = resample(cache.samples, process.monotonic, until - period, until, 1)
    return period, hits, misses


class Tracker:
    """Turns readings of processes into snapshots, and remembers counters for rates.

    Args:
        clock: The clock of `ProcessStats.monotonic`.
        wall: The clock of Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        # By path, creation and cache: when the counters were published, their values, and rates.
        self._seen: dict[tuple[Any, ...], tuple[float, CacheStats, dict[str, float] | None]] = {}

    def update(self, processes: Iterable[ProcessStats]) -> Snapshot:
        """Returns a snapshot of the processes.

        Args:
            processes: What was read now.
        """
        now = self._clock()
        processes = tuple(sorted(processes, key=lambda process: (process.pid, process.path)))
        seen: dict[tuple[Any, ...], tuple[float, CacheStats, dict[str, float] | None]] = {}
        groups: dict[_Key, list[Member]] = {}
        for process in processes:
            for cache in process.caches:
                identity = (process.path, process.created, cache.id)
                entry = self._rates(self._seen.get(identity), process.monotonic, cache, now)
                seen[identity] = entry
                member = Member(process, cache, entry[2], _recent(process, cache, now))
                groups.setdefault((process.program, process.kind, cache.name), []).append(member)
        self._seen = seen
        rows = tuple(_row(key, members, now) for key, members in sorted(groups.items()))
        hits = sum(member.recent[1] for row in rows for member in row.members)
        misses = sum(member.recent[2] for row in rows for member in row.members)
        saved = [row.saved for row in rows if row.saved is not None]
        return Snapshot(
            time=self._wall(),
            monotonic=now,
            processes=processes,
            rows=rows,
            operations=sum(row.operations for row in rows),
            recent_ratio=ratio(hits, misses),
            saved=sum(saved) if saved else None,
            omitted=sum(process.omitted for process in processes),
        )

    @staticmethod
    def _rates(
        before: tuple[float, CacheStats, dict[str, float] | None] | None, published: float, cache: CacheStats, now: float
    ) -> tuple[float, CacheStats, dict[str, float] | None]:
        if before is None:
            return published, cache, None
        since, counters, rates = before
        if published <= since:
            quiet = now - published >= _QUIET
            return since, counters, dict.fromkeys(_RATES, 0.0) if quiet else rates
        fresh: dict[str, float] = {}
        for name in _RATES:
            old, new = getattr(counters, name), getattr(cache, name)
            # A counter that is smaller than before began again at 0.
            fresh[name] = (new - old if new >= old else new) / (published - since)
        return published, cache, fresh


def _sum(values: Iterable[int | None]) -> int | None:
    """Returns the sum; None if one value is unknown."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _row(key: _Key, members: list[Member], now: float) -> Row:
    caches = [member.cache for member in members]
    totals = {name: _sum(getattr(cache, name) for cache in caches) for name in _COUNTERS}
    hits, misses = totals["hits"] or 0, totals["misses"] or 0
    attempts = (totals["loads"] or 0) + (totals["load_failures"] or 0)
    mean_load = sum(cache.load_time for cache in caches) / attempts if attempts else None
    weight = sum(cache.weight for cache in caches)
    capacity = _sum(cache.capacity for cache in caches)
    rates = [member.rates for member in members if member.rates is not None]
    parts = [(0.0, 0.0)] * COLUMNS
    for member in members:
        end = member.process.monotonic
        until = max(now, end)
        sampled = resample(member.cache.samples, end, until - HISTORY, until, COLUMNS)
        parts = [(a + c, b + d) for (a, b), (c, d) in zip(parts, sampled, strict=True)]
    curve, curve_members = _curve(caches)
    return Row(
        key=key,
        name=key[2],
        program=key[0],
        kind=key[1],
        members=tuple(members),
        totals=totals,
        hit_ratio=ratio(hits, misses),
        recent_ratio=ratio(sum(m.recent[1] for m in members), sum(m.recent[2] for m in members)),
        operations=sum((m.recent[1] + m.recent[2]) / m.recent[0] for m in members),
        history=tuple(ratio(part_hits, part_misses) for part_hits, part_misses in parts),
        rates={name: sum(rate[name] for rate in rates) for name in _RATES} if rates else None,
        entries=sum(cache.entries for cache in caches),
        weight=weight,
        weighted=any(cache.weighted for cache in caches),
        capacity=capacity,
        fill=weight / capacity if capacity else None,
        bytes=_sum(cache.bytes for cache in caches),
        mean_load=mean_load,
        saved=hits * mean_load if mean_load is not None else None,
        buckets=_buckets(caches),
        curve=curve,
        curve_members=curve_members,
        tier2=_tier2(caches),
    )


def _buckets(caches: list[CacheStats]) -> tuple[tuple[float, int], ...]:
    sums: dict[float, int] = {}
    for cache in caches:
        for upper, loads in cache.buckets:
            sums[upper] = sums.get(upper, 0) + loads
    return tuple(sorted(sums.items()))


def quantile(buckets: Sequence[tuple[float, int]], part: float) -> float | None:
    """Returns the upper bound of the bucket in which a quantile lies; None if it is unknown.

    Args:
        buckets: Upper bounds and counts, by bound.
        part: The quantile, 0.99 for example.

    Example:
        >>> quantile([(0.1, 90), (1.0, 10)], 0.5), quantile([(0.1, 90), (1.0, 10)], 0.99)
        (0.1, 1.0)
    """
    left = sum(loads for _, loads in buckets) * part
    for upper, loads in buckets:
        left -= loads
        if loads and left <= 0:
            return upper if math.isfinite(upper) else None
    return None


def _curve(caches: list[CacheStats]) -> tuple[tuple[Point, ...], int]:
    """Returns the curve of the caches: the mean by lookups if all have the same capacities.

    Otherwise it is the curve of the cache with the most lookups.
    """
    profiled: list[tuple[int, list[Point]]] = []
    for cache in caches:
        points = [Point(*point) for point in cache.curve if math.isfinite(point[1]) and 0 <= point[1] <= 1]
        if len(points) > 1:
            profiled.append((cache.hits + cache.misses, sorted(points)))
    if not profiled:
        return (), 0
    busiest = max(profiled)
    capacities = [point.capacity for point in busiest[1]]
    if any([point.capacity for point in points] != capacities for _, points in profiled):
        return tuple(busiest[1]), 1
    lookups = sum(weight for weight, _ in profiled) or 1
    mean: list[Point] = []
    for each in zip(*(points for _, points in profiled), strict=True):
        total = sum(weight * point.hit_ratio for (weight, _), point in zip(profiled, each, strict=True))
        memory = _sum(point.bytes for point in each)
        mean.append(Point(each[0].capacity, total / lookups, None if memory is None else memory // len(each)))
    return tuple(mean), len(profiled)


def _tier2(caches: list[CacheStats]) -> dict[str, int] | None:
    sums: dict[str, int] = {}
    for cache in caches:
        for name, value in (cache.tier2 or {}).items():
            sums[name] = sums.get(name, 0) + (value or 0)
    return sums or None
