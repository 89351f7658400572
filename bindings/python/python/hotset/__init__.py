"""An embedded cache engine for functions, mappings and frameworks.

`lru_cache` and `cache` have the signatures and semantics of `functools`. `cached` is the decorator
with all settings, for plain functions, `async def` and methods. `Cache` is a mapping, and
`shared()` returns one for the whole process. `caches()` lists the caches that have a name,
`stats()` returns their statistics, and `clear_all()` empties all caches, for tests. `advise()`
finds out which functions of a program are worth caching.

Messages at run time go to the logger "hotset".

Example:
    >>> import hotset
    >>> @hotset.cached(maxsize=1000, ttl=60)
    ... def square(n: int) -> int:
    ...     return n * n
    >>> [square(3), square(3)], square.cache_info().hits
    ([9, 9], 1)
"""

from typing import TYPE_CHECKING

from hotset._advice import Advice
from hotset._cached import cached
from hotset._forks import at_fork
from hotset._hotset import KEEP, MISSING, SnapshotError, WithTtl, __version__, after_fork
from hotset._lru import cache, lru_cache
from hotset._mapping import Cache
from hotset._publish import enable_stats_file
from hotset._refresh import set_reload_threads
from hotset._registry import caches, clear_all, shared, stats
from hotset._snapshot import SnapshotWarning
from hotset._stats import CacheInfo, Stats

if TYPE_CHECKING:
    from hotset._advise.advice import advise as advise
    from hotset.tier2 import TieredCache

at_fork(after_fork)


def __getattr__(name: str) -> object:
    """Returns `TieredCache` or `advise`, importing their packages on first use."""
    if name == "advise":
        from hotset._advise.advice import advise

        return advise
    if name == "TieredCache":
        from hotset.tier2 import TieredCache

        return TieredCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "KEEP",
    "MISSING",
    "Advice",
    "Cache",
    "CacheInfo",
    "SnapshotError",
    "SnapshotWarning",
    "Stats",
    "TieredCache",
    "WithTtl",
    "__version__",
    "advise",
    "cache",
    "cached",
    "caches",
    "clear_all",
    "enable_stats_file",
    "lru_cache",
    "set_reload_threads",
    "shared",
    "stats",
]
