"""An embedded cache engine: functools.lru_cache, faster, expiring and visible, and warm after a restart.

`lru_cache` and `cache` are functools'. `cached` is the decorator with all settings, for plain functions, `async def` and methods.
`Cache` is a mapping. `caches()` lists what has a name.
"""

import os

from hotset._cached import cached
from hotset._hotset import SnapshotError, __version__, after_fork
from hotset._lru import cache, lru_cache
from hotset._mapping import Cache
from hotset._refresh import set_reload_threads
from hotset._registry import caches
from hotset._snapshot import SnapshotWarning
from hotset._stats import CacheInfo, Stats

os.register_at_fork(after_in_child=after_fork)

__all__ = [
    "Cache",
    "CacheInfo",
    "SnapshotError",
    "SnapshotWarning",
    "Stats",
    "__version__",
    "cache",
    "cached",
    "caches",
    "lru_cache",
    "set_reload_threads",
]
