"""A backend of requests-cache on hotset: responses in memory, weighed by their bytes.

    session = requests_cache.CachedSession(backend=hotset.requests_cache.HotsetCache("api"))
"""

# requests-cache has types only in part.
# pyright: reportUnknownMemberType=false
from collections.abc import Iterable, Iterator
from typing import Any

from requests_cache.backends.base import BaseCache, BaseStorage
from requests_cache.serializers import pickle_serializer

from hotset._adapters import engine_of
from hotset._hotset import MISSING
from hotset._mapping import Cache
from hotset._stats import Stats

__all__ = ["HotsetCache", "HotsetStorage"]

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
# Seconds that an expired response is still stored: it may be revalidated, or served if the server
# fails.
DEFAULT_TTL_OFFSET = 3600
# The approximate overhead of an entry, in bytes.
_OVERHEAD = 200


def _weigh(key: Any, value: Any) -> int:
    """Returns the weight of an entry: its bytes, or a fixed size without a serializer."""
    return _OVERHEAD + len(key) + (len(value) if isinstance(value, str | bytes) else 10_000)


class HotsetCache(BaseCache):
    """Stores responses, and the redirects to them, in memory.

    Args:
        cache_name: All caches of this name in the process are one,
            `hotset.shared("requests-cache:NAME:responses")`.
        max_bytes: The capacity for all responses, in bytes; the coldest are evicted.
        serializer: As of requests-cache; pickle by default.
        ttl: Whether to free expired responses `ttl_offset` seconds after they have expired.
            Otherwise they stay until they are evicted.
        ttl_offset: See `ttl`.
        kwargs: The settings of other backends of requests-cache.
    """

    def __init__(
        self,
        cache_name: str = "http_cache",
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        serializer: Any = None,
        ttl: bool = True,
        ttl_offset: float = DEFAULT_TTL_OFFSET,
        **kwargs: Any,
    ) -> None:
        super().__init__(cache_name=cache_name, **kwargs)
        chosen = pickle_serializer if serializer is None else serializer
        self.responses: HotsetStorage = HotsetStorage(  # pyright: ignore[reportIncompatibleVariableOverride]
            cache_name, "responses", max_bytes=max_bytes, serializer=chosen, ttl=ttl, ttl_offset=ttl_offset, **kwargs
        )
        # The redirects are names of responses, which are short: no serializer.
        self.redirects: HotsetStorage = HotsetStorage(  # pyright: ignore[reportIncompatibleVariableOverride]
            cache_name, "redirects", max_bytes=max_bytes, serializer=None, **kwargs
        )

    def stats(self) -> Stats:
        """Returns the statistics of the responses."""
        return self.responses.stats()


class HotsetStorage(BaseStorage[str, Any]):
    """A table of a `HotsetCache`, as a mapping.

    Args:
        cache_name: All tables of this name and `table_name` in the process are one.
        table_name: The name of the table.
        max_bytes: As of `HotsetCache`.
        serializer: As of `HotsetCache`; without one, values are stored as they are.
        ttl: As of `HotsetCache`.
        ttl_offset: As of `HotsetCache`.
        kwargs: The settings of other storages of requests-cache.
    """

    def __init__(
        self,
        cache_name: str = "http_cache",
        table_name: str = "responses",
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        serializer: Any = None,
        ttl: bool = True,
        ttl_offset: float = DEFAULT_TTL_OFFSET,
        **kwargs: Any,
    ) -> None:
        super().__init__(serializer=serializer, **kwargs)
        self.ttl = ttl
        self.ttl_offset = ttl_offset
        self._engine = engine_of("requests-cache", f"{cache_name}:{table_name}", max_weight=max_bytes, weigher=_weigh)

    def __getitem__(self, key: str) -> Any:
        held = self._engine.get(key, MISSING)
        if held is MISSING:
            raise KeyError(key)
        value: Any = self.deserialize(key, held)
        if not self.serializer and getattr(value, "raw", None):
            # The stored response object itself: rewind its body, which an earlier caller has read.
            value.raw.reset()
            value.cache_key = key
        return value

    def __setitem__(self, key: str, item: Any) -> None:
        delta = getattr(item, "expires_delta", None) if self.ttl else None
        left = None if delta is None else delta + self.ttl_offset
        self._engine.set(key, self.serialize(item), left if left is not None and left > 0 else None)

    def __delitem__(self, key: str) -> None:
        del self._engine[key]

    def __contains__(self, key: object) -> bool:
        return key in self._engine

    def __iter__(self) -> Iterator[str]:
        return iter(self._engine)

    def __len__(self) -> int:
        return len(self._engine)

    def values(self) -> Any:
        """Returns the values of all keys, as of one instant."""
        return [self.deserialize(key, held) for key, held in self._engine.items_hottest()]

    def items(self) -> Any:
        """Returns all keys with their values, as of one instant."""
        return [(key, self.deserialize(key, held)) for key, held in self._engine.items_hottest()]

    def bulk_delete(self, keys: Iterable[str]) -> None:
        """Removes many keys.

        Args:
            keys: The keys.
        """
        self._engine.delete_many(keys)

    def clear(self) -> None:
        """Removes all keys."""
        self._engine.clear()

    @property
    def engine(self) -> Cache[str, Any]:
        """The `hotset.Cache` behind this table. It stores what the serializer made of the values.
        """
        return self._engine

    def stats(self) -> Stats:
        """Returns the statistics of this table."""
        return self._engine.stats()
