"""What users of the adapters write, for type checkers."""

from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any, assert_type

import hotset
import hotset.aiocache
import hotset.cachelib
import hotset.dogpile
import hotset.hishel
import hotset.langchain
import hotset.requests_cache
from hishel import AsyncBaseStorage, BaseStorage
from hotset.django import HotsetCache, TieredCache, ainvalidate_on_commit, invalidate_on_commit


def django(cache: HotsetCache) -> None:
    assert_type(cache.add("key", 1, timeout=5), bool)
    assert_type(cache.get_many(["a", "b"], version=2), dict[Any, Any])
    assert_type(cache.touch("key", timeout=None), bool)
    assert_type(cache.stats(), hotset.Stats)
    assert_type(cache.top_keys(5), list[str])
    cache.set("key", {"a": 1}, timeout=0.5)
    cache.get_or_set("key", lambda: 5, 60)


async def django_async(cache: HotsetCache) -> None:
    async def load() -> int:
        return 1

    assert_type(await cache.aadd("key", 1), bool)
    assert_type(await cache.aget_many(["a"]), dict[Any, Any])
    await cache.aget_or_set("key", load)


def django_tiered(cache: TieredCache) -> None:
    assert_type(cache.add("key", 1, timeout=5, tags=["menu"]), bool)
    assert_type(cache.delete("key", version=2), bool)
    assert_type(cache.set_many({"a": 1}, timeout=None, tags=("menu",)), list[Any])
    assert_type(cache.get_many(["a", "b"], version=2), dict[Any, Any])
    assert_type(cache.invalidate_tag("menu"), bool)
    assert_type(cache.stats(), dict[str, Any])
    assert_type(cache.top_keys(5), list[str])
    assert_type(cache.tier, "hotset.TieredCache[str, Any]")
    cache.set("key", {"a": 1}, timeout=0.5)
    cache.get_or_set("key", lambda: 5, 60)
    invalidate_on_commit(cache, "key", 7, version=2, tags=["menu"], using="other", robust=True)
    invalidate_on_commit("default", "key")


async def django_tiered_async(cache: TieredCache) -> None:
    async def load() -> int:
        return 1

    assert_type(await cache.aadd("key", 1), bool)
    assert_type(await cache.adelete("key"), bool)
    assert_type(await cache.aset_many({"a": 1}), list[Any])
    assert_type(await cache.aget_many(["a"]), dict[Any, Any])
    await cache.aget_or_set("key", load, tags=["menu"])
    await ainvalidate_on_commit(cache, "key")


def cachelib() -> None:
    cache = hotset.cachelib.HotsetCache(threshold=100, default_timeout=timedelta(seconds=5), name="pages")
    assert_type(cache.set("key", 1, timeout=5), bool)
    assert_type(cache.inc("key"), int | None)
    assert_type(cache.get_many("a", "b"), list[Any])


def hishel() -> tuple[AsyncBaseStorage, BaseStorage]:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None: ...

    storage = hotset.hishel.HotsetStorage(max_bytes=1000, default_ttl=60)
    hotset.hishel.CacheMiddleware(app, storage, rfc=False)
    return storage, hotset.hishel.SyncHotsetStorage(name="pages")


def others() -> None:
    answers = hotset.langchain.HotsetCache(max_entries=None, ttl=timedelta(hours=1))
    assert_type(answers.stats(), hotset.Stats)
    assert_type(hotset.requests_cache.HotsetCache("api", max_bytes=1000).stats(), hotset.Stats)
    assert_type(hotset.aiocache.HotsetCache(name="a").engine, hotset.Cache[str, Any])
    assert_type(hotset.dogpile.HotsetBackend({"max_entries": 5}).stats(), hotset.Stats)
