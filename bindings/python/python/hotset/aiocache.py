"""A backend of aiocache on hotset.

    cache = hotset.aiocache.HotsetCache(namespace="main", ttl=60, max_entries=10_000)
    aiocache.caches.set_config({"default": {"cache": "hotset.aiocache.HotsetCache"}})
"""

# aiocache has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
from collections.abc import Iterable, Sequence
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from hotset._adapters import DEFAULT_MAX_ENTRIES, engine_of, native
from hotset._hotset import KEEP, MISSING
from hotset._mapping import Cache
from hotset._settings import ttl_of
from hotset._stats import Stats

__all__ = ["HotsetCache"]


class _Different(Exception):
    """The stored value is not the expected one."""


def _lifetime(ttl: Any) -> Any:
    """Returns aiocache's ttl as the native part takes it: 0 and None stand for no expiration."""
    return ttl_of(ttl or None)


class HotsetCache(BaseCache):
    """Stores values in memory, with a bound and atomic operations.

    It replaces SimpleMemoryCache, and has no timer for each key.

    Args:
        serializer: As of aiocache. By default values are stored as they are, so that callers share
            them.
        max_entries: The capacity in entries; None for no bound.
        name: All caches of this name in the process are one, `hotset.shared("aiocache:NAME")`.
            None: this cache is on its own.
        policy: Which entries stay, as of `hotset.Cache`.
        kwargs: The settings of aiocache's caches: plugins, namespace, key_builder, timeout, ttl.
    """

    NAME = "hotset"

    def __init__(
        self,
        serializer: Any = None,
        *,
        max_entries: int | None = DEFAULT_MAX_ENTRIES,
        name: str | None = None,
        policy: Any = "tinylfu",
        **kwargs: Any,
    ) -> None:
        super().__init__(serializer=serializer or NullSerializer(), **kwargs)
        self._engine = engine_of("aiocache", name, maxsize=max_entries, policy=policy)
        self._native = native(self._engine)

    @classmethod
    def parse_uri_path(cls, path: str) -> dict[str, Any]:
        """Returns the settings in the path of a URI: a name.

        Args:
            path: The path.
        """
        name = path.strip("/")
        return {"name": name} if name else {}

    async def _get(self, key: str, encoding: Any = "utf-8", _conn: Any = None) -> Any:
        return self._native.get(key)

    async def _gets(self, key: str, encoding: Any = "utf-8", _conn: Any = None) -> Any:
        return self._native.get(key)

    async def _multi_get(self, keys: Sequence[str], encoding: Any = "utf-8", _conn: Any = None) -> list[Any]:
        return self._engine.get_many(keys)

    async def _set(self, key: str, value: Any, ttl: Any = None, _cas_token: Any = None, _conn: Any = None) -> Any:
        lifetime = _lifetime(ttl)
        if _cas_token is None:
            self._native.set(key, value, lifetime)
            return True

        def swap(held: Any) -> Any:
            if (None if held is MISSING else held) != _cas_token:
                raise _Different
            return value

        try:
            self._native.compute(key, swap, MISSING, lifetime)
        except _Different:
            return 0
        return True

    async def _multi_set(self, pairs: Iterable[tuple[str, Any]], ttl: Any = None, _conn: Any = None) -> bool:
        self._engine.set_many(pairs, ttl=ttl or None)
        return True

    async def _add(self, key: str, value: Any, ttl: Any = None, _conn: Any = None) -> bool:
        if not self._native.add(key, value, _lifetime(ttl)):
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        return True

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return key in self._engine

    async def _increment(self, key: str, delta: int, _conn: Any = None) -> int:
        def add(held: Any) -> int:
            if held is MISSING:
                return delta
            try:
                return int(held) + delta
            except ValueError:
                raise TypeError("Value is not an integer") from None

        total: int = self._native.compute(key, add, MISSING, KEEP)
        return total

    async def _expire(self, key: str, ttl: Any, _conn: Any = None) -> bool:
        return bool(self._native.touch(key, _lifetime(ttl)))

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return int(self._engine.delete(key))

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        if namespace:
            self._engine.delete_many([key for key in self._engine if key.startswith(namespace)])
        else:
            self._engine.clear()
        return True

    async def _raw(self, command: str, *args: Any, encoding: Any = "utf-8", _conn: Any = None, **kwargs: Any) -> Any:
        return getattr(self._engine, command)(*args, **kwargs)

    async def _redlock_release(self, key: str, value: Any) -> int:
        def release(held: Any) -> Any:
            if held is MISSING or held != value:
                raise _Different
            return MISSING

        try:
            self._native.compute(key, release, MISSING, KEEP)
        except _Different:
            return 0
        return 1

    @property
    def engine(self) -> Cache[str, Any]:
        """The `hotset.Cache` behind this cache. (Its statistics are `engine.stats()`.)"""
        return self._engine

    def stats(self) -> Stats:
        """Returns the statistics of this cache."""
        return self._engine.stats()
