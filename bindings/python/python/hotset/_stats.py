"""What a cache tells of itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class CacheInfo(NamedTuple):
    """What `cache_info()` of a function under `cached` returns: the four fields of functools, then more."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int
    insertions: int
    evictions: int
    """Entries that had to go for others."""
    expirations: int
    """Entries whose time was over."""
    rejections: int
    """New entries that were not worth an older one's place."""
    loads: int
    """Calls of the function."""
    load_failures: int
    """Those of them that raised."""
    waits: int
    """Callers that waited for another's call instead of making one."""
    weight: int
    max_weight: int | None


class Stats(NamedTuple):
    """What `Cache.stats()` returns, and `hotset.caches()` for each cache."""

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

    @property
    def hit_ratio(self) -> float:
        """Hits among all lookups, from 0 to 1; 0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


def stats_of(native: Mapping[str, int], settings: Mapping[str, Any]) -> Stats:
    """From what the native part counted."""
    counted: dict[str, int | None] = {name: native[name] for name in Stats._fields}
    if settings["maxsize"] is None and settings["max_weight"] is None:
        counted["capacity"] = None
    return Stats(**counted)  # type: ignore[arg-type]


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
        weight=stats.weight,
        max_weight=stats.capacity if weighs else None,
    )
