"""What type checkers must see: checked by mypy and pyright in strict mode, and run as it stands."""

import asyncio
import pickle
from collections.abc import Coroutine, MutableMapping
from copy import copy
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, assert_type

import hotset
from hotset.tier2 import Redis


class Hexadecimal:
    def dumps(self, value: int) -> bytes:
        return b"%x" % value

    def loads(self, data: bytes) -> int:
        return int(data, 16)


@hotset.lru_cache(maxsize=10)
def lru(x: int) -> str:
    return str(x)


@hotset.cache
def unbounded(x: int) -> str:
    return str(x)


@hotset.cached
def bare(x: int, *, y: str = "") -> str:
    return str(x)


@hotset.cached(maxsize=10, ttl=timedelta(minutes=1), policy="lru")
def rich(x: int, *, y: str = "") -> str:
    return str(x)


@hotset.cached(ttl=60, codec="json", schema=1)
async def asynchronous(x: int) -> str:
    return str(x)


class Shop:
    @hotset.cached
    def method(self, x: int) -> str:
        return str(x)

    @hotset.cached(ttl=60)
    async def coroutine(self, x: int) -> str:
        return str(x)

    @hotset.cached
    @staticmethod
    def static(x: int) -> str:
        return str(x)

    @property
    @hotset.cached
    def below(self) -> str:
        return "x"

    @hotset.cached
    @classmethod
    def above_class(cls, x: int) -> str:
        return str(x)

    @classmethod
    @hotset.cached
    def below_class(cls, x: int) -> str:
        return str(x)

    @classmethod
    @hotset.cached(ttl=60)
    async def below_async(cls, x: int) -> str:
        return str(x)


assert_type(lru(1), str)
assert_type(unbounded(1), str)
assert_type(lru.cache_info().hits, int)
assert_type(bare(1, y="a"), str)
assert_type(rich(1, y="a"), str)
assert_type(bare.cache_info(), hotset.CacheInfo)
assert_type(rich.cache_info().maxsize, int | None)
assert_type(rich.cache_invalidate(1, y="a"), bool)
assert_type(rich.cache_refresh(1), str)
rich.cache_set("x", 1, y="a")
# Modules and objects may be codecs.
hotset.cached(codec=pickle)
hotset.cached(codec=Hexadecimal(), schema="2")
assert_type(rich.__wrapped__(1), str)

shop = Shop()
assert_type(shop.method(1), str)
assert_type(shop.method.cache_info(), hotset.CacheInfo)
assert_type(Shop.method.cache_invalidate(shop, 1), bool)
assert_type(Shop.static(1), str)
assert_type(Shop.above_class(1), str)
assert_type(Shop.below_class(1), str)
assert_type(shop.above_class(1), str)
assert_type(Shop.above_class.cache_invalidate(1), bool)
assert_type(shop.method.cache_invalidate(1), bool)
assert_type(shop.method.cache_refresh(1), str)
assert_type(bare.cache_keys(), list[tuple[tuple[Any, ...], dict[str, Any]]])
hits, misses, maxsize, currsize = bare.cache_info()
assert_type(maxsize, int | None)
assert_type(bare.cache_info().load_time, float)
assert_type(shop.below, str)


def mapping() -> None:
    cache: hotset.Cache[str, int] = hotset.Cache(maxsize=10, ttl=60, name="typed")
    as_mapping: MutableMapping[str, int] = cache
    as_mapping["a"] = 1
    assert_type(cache["a"], int)
    assert_type(cache.get("a"), int | None)
    assert_type(cache.get("a", 1.5), int | float)
    assert_type(cache.pop("a"), int)
    assert_type(cache.get_or_load("a", len), int)
    assert_type(cache.get_many(["a"]), list[int | None])
    assert_type(cache.items_hottest(), list[tuple[str, int]])
    assert_type(cache.remaining("a"), float | None)
    assert_type(cache.stats(), hotset.Stats)
    assert_type(cache.popitem(), tuple[str, int])
    assert_type(cache.setdefault("n", 1), int)
    assert_type(cache.add("b", 1, ttl=5), bool)
    cache.set("b", 2, ttl=None)
    cache.set("b", 2, ttl=hotset.KEEP)
    cache.set("b", 2, ttl=...)
    assert_type(cache.touch("b", timedelta(minutes=1)), bool)
    assert_type(cache.peek("b"), int | None)
    assert_type(cache.get_many(["b"], as_dict=True), dict[str, int])
    assert_type(cache.get_with_remaining("b"), tuple[int, float | None] | None)
    assert_type(cache.items_with_remaining(), list[tuple[str, int, float | None]])
    assert_type(cache.expire(), list[tuple[str, int]])
    assert_type(list(reversed(cache)), list[str])
    assert_type(list(reversed(cache.items())), list[tuple[str, int]])
    assert_type(copy(cache), hotset.Cache[str, int])
    cache.resize(maxsize=20)
    assert_type(cache.copy(), hotset.Cache[str, int])
    assert_type(cache | {"c": 3}, hotset.Cache[str, int])
    assert_type(cache.maxsize, int | None)
    cache.set_many({"d": 4}, ttl=60)
    cache.compute("n", lambda old: (old or 0) + 1, ttl=60)
    cache.compute("n", lambda old: 1 if old is None else old + 1)
    assert_type(hotset.stats(), dict[str, hotset.Stats])
    with TemporaryDirectory() as directory:
        path = Path(directory) / "snapshot"
        assert_type(cache.save(path, codec=Hexadecimal()), int)
        assert_type(cache.load(str(path), codec=Hexadecimal()), int)
        assert_type(cache.load(bytes(path), codec=Hexadecimal()), int)
        try:
            cache.load(path, codec="bytes")
        except hotset.SnapshotError as error:
            assert_type(error.reason, str)
        assert_type(rich.cache_save(path), int)
        assert_type(rich.cache_load(path), int)
        assert_type(asynchronous.cache_save(path), int)
    assert issubclass(hotset.SnapshotWarning, Warning)


# Nothing is sent before the first use, so no server is needed here.
server = Redis("redis://localhost", prefix="usage")


@hotset.cached(ttl=300, tier2=server, local_ttl=30)
def tiered(a: int) -> str:
    return str(a)


@hotset.cached(ttl=300, tier2=server)
async def tiered_async(a: int) -> str:
    return str(a)


def tiers() -> None:
    prices: hotset.TieredCache[str, float] = hotset.TieredCache(server, "prices", ttl=300)
    if TYPE_CHECKING:
        assert_type(tiered(1), str)
        assert_type(tiered.cache_invalidate(1), bool)
        assert_type(tiered.cache_set("x", 1), bool)
        assert_type(tiered.cache_expire(1), bool)
        assert_type(prices.get("tea"), float | None)
        assert_type(prices.get("tea", "none"), float | str)
        assert_type(prices.get_or_load("tea", len), float)
        assert_type(prices.get_many(["tea"]), dict[str, float])
        assert_type(prices.incr("n"), int)
        assert_type(prices.stats(), dict[str, Any])


async def tiers_async() -> None:
    assert_type(await tiered_async(1), str)
    assert_type(await tiered_async.cache_ainvalidate(1), bool)
    assert_type(await tiered.cache_ainvalidate(1), bool)


async def main() -> None:
    assert_type(await asynchronous(1), str)
    assert_type(await asynchronous.cache_refresh(1), str)
    assert_type(await shop.coroutine(1), str)
    assert_type(await Shop.below_async(1), str)
    assert_type(shop.coroutine.cache_invalidate(1), bool)
    pending: Coroutine[Any, Any, str] = asynchronous(1)
    await pending
    cache = hotset.Cache[str, int](10)

    async def load(key: str) -> int:
        return len(key)

    assert_type(await cache.aget_or_load("abc", load, 5), int)


shared_cache = hotset.Cache[Any, Any](10)


@hotset.cached(cache=shared_cache)
def sharing(number: int) -> str:
    return str(number)


@hotset.cached(cache=shared_cache, key=str)
async def sharing_async(number: int) -> str:
    return str(number)


async def sharing_one() -> None:
    assert_type(sharing(1), str)
    assert_type(sharing.cache, hotset.Cache[Any, Any])
    assert_type(sharing.cache_invalidate(1), bool)
    assert_type(await sharing_async(1), str)
    assert_type(await sharing_async.cache_refresh(1), str)
    await sharing_async.cache_aclose()


mapping()
tiers()
asyncio.run(sharing_one())
asyncio.run(main())
