"""The statistics of caches."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class _Functools(NamedTuple):
    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CacheInfo(_Functools):
    """The result of `cache_info()` of a function under `cached`.

    As a tuple it has the four fields of functools, so that it is unpacked and compared as that is;
    the other fields are attributes.

    Attributes:
        hits: Calls that found a result.
        misses: Calls that found none, and called the function.
        maxsize: The current bound on `currsize`; None without one.
        currsize: The number of results that are held.
        insertions: The number of results that were stored.
        evictions: Results that were removed to make room for others.
        expirations: Results that expired.
        rejections: New results that the policy did not admit in place of an older one.
        loads: Calls of the function.
        load_failures: Calls of the function that raised.
        waits: Calls that waited for another caller's call of the function. They are neither hits
            nor misses.
        load_time: The total duration of all calls of the function, in seconds.
        load_buckets: The durations of these calls, as of `Stats`.
        stale_hits: Hits on results past their `ttl`, which `stale_while_revalidate` or
            `stale_if_error` serves.
        evicted_weight: The weight of the results that `evictions` counts; their number without a
            weigher.
        weight: The weight of the results that are held; their number without a weigher.
        max_weight: The capacity in weight; None without one.

    Example:
        >>> import hotset
        >>> @hotset.cached
        ... def square(n: int) -> int:
        ...     return n * n
        >>> _ = square(3), square(3)
        >>> square.cache_info().hit_ratio
        0.5
    """

    insertions: int
    evictions: int
    expirations: int
    rejections: int
    loads: int
    load_failures: int
    waits: int
    load_time: float
    load_buckets: tuple[tuple[float, int], ...]
    stale_hits: int
    evicted_weight: int
    weight: int
    max_weight: int | None

    # The names of all fields, of which the tuple has the first four.
    _fields = (  # type: ignore[assignment]
        *_Functools._fields,
        "insertions",
        "evictions",
        "expirations",
        "rejections",
        "loads",
        "load_failures",
        "waits",
        "load_time",
        "load_buckets",
        "stale_hits",
        "evicted_weight",
        "weight",
        "max_weight",
    )

    def __new__(cls, hits: int, misses: int, maxsize: int | None, currsize: int, **more: Any) -> "CacheInfo":
        self = super().__new__(cls, hits, misses, maxsize, currsize)
        self.__dict__.update(more)
        return self

    def __repr__(self) -> str:
        return f"CacheInfo({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    @property
    def hit_ratio(self) -> float:
        """Hits divided by hits plus misses, from 0 to 1; 0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class Stats(NamedTuple):
    """The statistics of one cache: the result of `Cache.stats()`, and of `hotset.stats()` by name.

    Attributes:
        hits: Lookups that found a value.
        misses: Lookups that found none.
        insertions: The number of values that were stored.
        evictions: Entries that were removed to make room for others.
        expirations: Entries that expired.
        rejections: New entries that the policy did not admit in place of an older one.
        loads: Calls of a loader.
        load_failures: Calls of a loader that raised.
        waits: Calls that waited for another caller's load. They are neither hits nor misses.
        entries: The number of entries that are held.
        weight: Their weight; their number without a weigher.
        capacity: The capacity in entries, or in weight with a `max_weight`; None without a bound.
        load_time: The total duration of all loads, in seconds.
        stale_hits: Hits on values past their `ttl`, which `stale_while_revalidate` or
            `stale_if_error` serves.
        evicted_weight: The weight of the entries that `evictions` counts; their number without a
            weigher.
        load_buckets: The durations of all loads, as pairs of an upper bound in seconds and the
            number of loads that were not longer than it, but longer than the bound before. The
            bounds are 1, 2.5 and 5 in each power of ten from 10 microseconds to 100 seconds, then
            `math.inf`.

    Example:
        >>> import hotset
        >>> c: hotset.Cache[str, int] = hotset.Cache(100)
        >>> c["a"] = 1
        >>> _ = c.get("a"), c.get("b")
        >>> c.stats().hit_ratio, c.stats().entries
        (0.5, 1)
    """

    hits: int
    misses: int
    insertions: int
    evictions: int
    expirations: int
    rejections: int
    loads: int
    load_failures: int
    waits: int
    entries: int
    weight: int
    capacity: int | None
    load_time: float
    stale_hits: int
    evicted_weight: int
    load_buckets: tuple[tuple[float, int], ...]

    @property
    def hit_ratio(self) -> float:
        """Hits divided by hits plus misses, from 0 to 1; 0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


def stats_of(native: Mapping[str, Any], settings: Mapping[str, Any]) -> Stats:
    """Returns statistics from the counters of the native part.

    Args:
        native: The native counters.
        settings: The settings of the cache.

    Returns:
        The statistics.
    """
    counted: dict[str, Any] = {name: native[name] for name in Stats._fields}
    if settings["maxsize"] is None and settings["max_weight"] is None:
        counted["capacity"] = None
    return Stats(**counted)


def info_of(stats: Stats, settings: Mapping[str, Any]) -> CacheInfo:
    """Returns statistics in the order of functools.

    Args:
        stats: The statistics.
        settings: The settings of the cache.

    Returns:
        The `CacheInfo`.
    """
    weighs = settings["max_weight"] is not None
    return CacheInfo(
        hits=stats.hits,
        misses=stats.misses,
        maxsize=None if weighs else stats.capacity,
        currsize=stats.entries,
        insertions=stats.insertions,
        evictions=stats.evictions,
        expirations=stats.expirations,
        rejections=stats.rejections,
        loads=stats.loads,
        load_failures=stats.load_failures,
        waits=stats.waits,
        load_time=stats.load_time,
        load_buckets=stats.load_buckets,
        stale_hits=stats.stale_hits,
        evicted_weight=stats.evicted_weight,
        weight=stats.weight,
        max_weight=stats.capacity if weighs else None,
    )
