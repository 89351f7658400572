"""What a cache tells of itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class _Functools(NamedTuple):
    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CacheInfo(_Functools):
    """What `cache_info()` of a function under `cached` returns.

    As a tuple it has the four fields of functools, so it is unpacked and compared as that is; the rest are attributes.

    Attributes:
        hits: Calls that found a result.
        misses: Calls that found none, and called the function.
        maxsize: The bound on `currsize` as it is now; None without one.
        currsize: How many results are held.
        insertions: How many results were kept.
        evictions: Results that had to go for others.
        expirations: Results that expired.
        rejections: New results that were not worth an older one's place.
        loads: Calls of the function.
        load_failures: Those of them that raised.
        waits: Calls that waited for another's call of the function instead of making one. They are neither hits nor misses.
        load_time: How many seconds all calls of the function took, together.
        weight, max_weight: What the results weigh, and may weigh; None without a `max_weight`.
    """

    insertions: int
    evictions: int
    expirations: int
    rejections: int
    loads: int
    load_failures: int
    waits: int
    load_time: float
    weight: int
    max_weight: int | None

    # All names; the tuple has the first four.
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
        """Hits among hits and misses, from 0 to 1; 0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class Stats(NamedTuple):
    """What `Cache.stats()` returns, and `hotset.stats()` for each cache with a name."""

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
    """In entries, or in weight with a `max_weight`; None without a bound."""
    load_time: float
    """How many seconds all loads took, together."""

    @property
    def hit_ratio(self) -> float:
        """Hits among all lookups, from 0 to 1; 0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


def stats_of(native: Mapping[str, Any], settings: Mapping[str, Any]) -> Stats:
    """From what the native part counted."""
    counted: dict[str, Any] = {name: native[name] for name in Stats._fields}
    if settings["maxsize"] is None and settings["max_weight"] is None:
        counted["capacity"] = None
    return Stats(**counted)


def info_of(stats: Stats, settings: Mapping[str, Any]) -> CacheInfo:
    """The same, in the order of functools."""
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
        weight=stats.weight,
        max_weight=stats.capacity if weighs else None,
    )
