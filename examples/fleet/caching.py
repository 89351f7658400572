"""A worker's cache of the source, in four kinds: hotset, Redis, functools, or none.

FLEET_CACHE chooses "hotset", "redis", "functools" or "none". All programs of the fleet import this
module, so that they share the products on the server, and get notified of each other's updates.
"""

import asyncio
import json
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import redis
import redis.asyncio

import hotset
import source
from hotset.tier2 import Redis
from source import Product, Row

MAXSIZE = 500
TTL = 60
LOCAL_TTL = float(os.environ["FLEET_LOCAL_TTL"])
BESTSELLERS = range(1, 201)
"""What a worker with two tiers reads before it takes requests."""
TIMEOUT = 0.1
"""Seconds to wait for Redis, where it is used without hotset; hotset's own default is the same."""


class Tiers(Protocol):
    """How a worker reads products, and invalidates a changed one. Prefix `a`: for asyncio."""

    def product(self, number: int) -> Row | None: ...

    async def aproduct(self, number: int) -> Row | None: ...

    def invalidate(self, number: int) -> bool:
        """Called when the source has changed; returns whether the other workers know."""
        ...

    async def ainvalidate(self, number: int) -> bool: ...

    def counters(self) -> dict[str, Any]:
        """Returns lookups and hits of each tier."""
        ...


async def _load_in_thread(number: int) -> Row | None:
    # (A query would stop the event loop.)
    return await asyncio.to_thread(source.load, number)


class Hotset:
    """Two tiers: each worker's memory in front of Redis."""

    def __init__(self) -> None:
        self._redis = Redis(os.environ["FLEET_REDIS"], prefix="fleet")
        settings: dict[str, Any] = {"name": "product", "maxsize": MAXSIZE, "ttl": TTL, "local_ttl": LOCAL_TTL, "tier2": self._redis}
        load: Any = _load_in_thread if os.environ["FLEET_PROGRAM"] == "fastapi" else source.load
        self._product: Any = hotset.cached(**settings)(load)

    def product(self, number: int) -> Row | None:
        found: Row | None = self._product(number)
        return found

    async def aproduct(self, number: int) -> Row | None:
        found: Row | None = await self._product(number)
        return found

    def invalidate(self, number: int) -> bool:
        confirmed: bool = self._product.cache_invalidate(number)
        return confirmed

    async def ainvalidate(self, number: int) -> bool:
        confirmed: bool = await self._product.cache_ainvalidate(number)
        return confirmed

    def counters(self) -> dict[str, Any]:
        counted = self._product.cache_tier2_stats()
        tier1, tier2, server = counted["tier1"], counted["tier2"], counted["server"]
        node = server["nodes"].get(0, {"link": "unknown", "bus": "unknown"})
        return {
            "tier1_hits": tier1["hits"],
            "tier1_lookups": tier1["hits"] + tier1["misses"],
            "tier2_hits": tier2["hits"],
            "tier2_lookups": tier2["hits"] + tier2["misses"],
            "is_whole": node["link"] == "up" and node["bus"] == "armed" and server["journal"] == 0,
        }


class RedisOnly:
    """Cache-aside on Redis by redis-py: GET, and SET after a miss; an update deletes."""

    def __init__(self) -> None:
        url = os.environ["FLEET_REDIS"]
        # (One try each: redis-py would repeat with pauses of up to a second while Redis is down.)
        self._client = redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None)
        self._aclient = redis.asyncio.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None)
        self._lock = threading.Lock()
        self._lookups = self._hits = 0

    def product(self, number: int) -> Row | None:
        try:
            found = self._client.get(f"product:{number}")
        except redis.RedisError:
            found = None
        self._count(found is not None)
        if found is not None:
            return _row(found)
        row = source.load(number)
        try:
            self._client.set(f"product:{number}", json.dumps(row), ex=TTL)
        except redis.RedisError:
            pass
        return row

    async def aproduct(self, number: int) -> Row | None:
        try:
            found = await self._aclient.get(f"product:{number}")
        except redis.RedisError:
            found = None
        self._count(found is not None)
        if found is not None:
            return _row(found)
        row = await _load_in_thread(number)
        try:
            await self._aclient.set(f"product:{number}", json.dumps(row), ex=TTL)
        except redis.RedisError:
            pass
        return row

    def invalidate(self, number: int) -> bool:
        try:
            self._client.delete(f"product:{number}")
        except redis.RedisError:
            return False
        return True

    async def ainvalidate(self, number: int) -> bool:
        try:
            await self._aclient.delete(f"product:{number}")
        except redis.RedisError:
            return False
        return True

    def counters(self) -> dict[str, Any]:
        return {"tier1_hits": 0, "tier1_lookups": 0, "tier2_hits": self._hits, "tier2_lookups": self._lookups, "is_whole": True}

    def _count(self, is_hit: bool) -> None:
        with self._lock:
            self._lookups += 1
            self._hits += is_hit


def _row(found: Any) -> Row | None:
    row = json.loads(found)
    return None if row is None else (row[0], row[1], row[2], tuple(row[3]))


class Functools:
    """`functools.lru_cache`, which cannot remove one key: an update clears the worker's whole
    cache.
    """

    def __init__(self) -> None:
        self._product = lru_cache(MAXSIZE)(source.load)
        self._lock = threading.Lock()
        self._before = (0, 0)

    def product(self, number: int) -> Row | None:
        return self._product(number)

    async def aproduct(self, number: int) -> Row | None:
        # (A miss would stop the event loop.)
        return await asyncio.to_thread(self._product, number)

    def invalidate(self, number: int) -> bool:
        with self._lock:
            # (`cache_clear` restarts the counters.)
            self._before = self._counted()
            self._product.cache_clear()
        return False

    async def ainvalidate(self, number: int) -> bool:
        return self.invalidate(number)

    def counters(self) -> dict[str, Any]:
        with self._lock:
            hits, lookups = self._counted()
        return {"tier1_hits": hits, "tier1_lookups": lookups, "tier2_hits": 0, "tier2_lookups": 0, "is_whole": True}

    def _counted(self) -> tuple[int, int]:
        info = self._product.cache_info()
        return self._before[0] + info.hits, self._before[1] + info.hits + info.misses


class Uncached:
    """Nothing is kept."""

    def product(self, number: int) -> Row | None:
        return source.load(number)

    async def aproduct(self, number: int) -> Row | None:
        return await _load_in_thread(number)

    def invalidate(self, number: int) -> bool:
        return True

    async def ainvalidate(self, number: int) -> bool:
        return True

    def counters(self) -> dict[str, Any]:
        return {"tier1_hits": 0, "tier1_lookups": 0, "tier2_hits": 0, "tier2_lookups": 0, "is_whole": True}


MODE = os.environ["FLEET_CACHE"]
_TIERS: dict[str, Callable[[], Tiers]] = {"hotset": Hotset, "redis": RedisOnly, "functools": Functools, "none": Uncached}
tiers: Tiers = _TIERS[MODE]()

Render = Callable[[int, int, str, tuple[str, ...]], str]


def pages(render: Render) -> Any:
    """Returns `render` with a cache of this process, which the mode chooses.

    The key is the product's number and version: a result is never out of date, so it may outlive
    the process in a snapshot.
    """
    if MODE == "hotset":
        path = os.path.join(os.environ["FLEET_SNAPSHOTS"], f"{os.environ['FLEET_WORKER']}.snapshot")
        return hotset.cached(maxsize=MAXSIZE, key=lambda number, version, *_: (number, version), snapshot=path, name="pages")(render)
    return lru_cache(MAXSIZE)(render) if MODE == "functools" else render


def restored(render: Any) -> int:
    """Returns how many pages came from the snapshot: called before the first request."""
    return int(render.cache_info().currsize) if MODE == "hotset" else 0


def save(render: Any) -> None:
    """Saves what `pages` keeps, when a worker ends."""
    if MODE == "hotset":
        render.cache_save()


def prewarm(show: Callable[[Product], object]) -> None:
    """Reads what is wanted most, before the worker takes requests."""
    if MODE == "hotset":
        for number in BESTSELLERS:
            found = tiers.product(number)
            if found is not None:
                show(Product._make(found))


async def aprewarm(show: Callable[[Product], object]) -> None:
    """The same for asyncio."""
    if MODE == "hotset":
        for number in BESTSELLERS:
            found = await tiers.aproduct(number)
            if found is not None:
                show(Product._make(found))
