"""A plugin for pytest that puts hotset in the place of aiocache's SimpleMemoryCache."""

import aiocache
import aiocache.backends.memory
import aiocache.factory

from hotset.aiocache import HotsetCache


class SimpleMemoryCache(HotsetCache):
    NAME = "memory"


aiocache.SimpleMemoryCache = aiocache.backends.memory.SimpleMemoryCache = aiocache.Cache.MEMORY = SimpleMemoryCache
aiocache.AIOCACHE_CACHES[SimpleMemoryCache.NAME] = SimpleMemoryCache
aiocache.Cache.__new__.__defaults__ = (SimpleMemoryCache,)
