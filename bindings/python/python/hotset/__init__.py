"""An embedded cache engine: functools.lru_cache, faster, expiring and visible, and warm after a restart.

`lru_cache` and `cache` are functools'. `cached` is the decorator with all settings, for plain functions, `async def` and methods.
`Cache` is a mapping; `shared()` makes one for the whole process. `caches()` lists what has a name, `stats()` what was counted, `clear_all()` empties
all of them, for tests. What the package has to say while it runs is logged by the logger "hotset".
"""

import os
from typing import TYPE_CHECKING

from hotset._cached import cached
from hotset._hotset import KEEP, MISSING, SnapshotError, WithTtl, __version__, after_fork
from hotset._lru import cache, lru_cache
from hotset._mapping import Cache
from hotset._refresh import set_reload_threads
from hotset._registry import caches, clear_all, shared, stats
from hotset._snapshot import SnapshotWarning
from hotset._stats import CacheInfo, Stats

if TYPE_CHECKING:
    from hotset.tier2 import TieredCache

os.register_at_fork(after_in_child=after_fork)


def __getattr__(name: str) -> object:
    """Imports what needs the second tier's package when it is first used."""
    if name == "TieredCache":
        from hotset.tier2 import TieredCache

        return TieredCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "KEEP",
    "MISSING",
    "Cache",
    "CacheInfo",
    "SnapshotError",
    "SnapshotWarning",
    "Stats",
    "TieredCache",
    "WithTtl",
    "__version__",
    "cache",
    "cached",
    "caches",
    "clear_all",
    "lru_cache",
    "set_reload_threads",
    "shared",
    "stats",
]
