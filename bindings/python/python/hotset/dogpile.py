"""Backends of dogpile.cache on hotset: `hotset`, and `hotset_pickle`, which keeps callers apart by pickling.

    region = dogpile.cache.make_region().configure("hotset", expiration_time=300, arguments={"max_entries": 10_000, "ttl": 3600})

The region decides by the time of its values whether they are too old; `ttl` frees them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dogpile.cache.api import NO_VALUE, CacheBackend, DefaultSerialization

from hotset._adapters import DEFAULT_MAX_ENTRIES, engine_of
from hotset._mapping import Cache
from hotset._stats import Stats

__all__ = ["HotsetBackend", "HotsetPickleBackend"]


class HotsetBackend(CacheBackend):
    """The backend "hotset": holds values as they are, in memory, as "dogpile.cache.memory" does, but bounded.

    Args:
        arguments: May have max_entries (10,000; None for no bound), ttl (seconds until an entry is
            freed, None: when room is needed; more than the region's expiration_time), name (all
            backends of this name in the process are one cache, `hotset.shared("dogpile:NAME")`) and
            policy (as of `hotset.Cache`). Others are ignored.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._engine = engine_of(
            "dogpile",
            arguments.get("name"),
            maxsize=arguments.get("max_entries", DEFAULT_MAX_ENTRIES),
            ttl=arguments.get("ttl"),
            policy=arguments.get("policy", "tinylfu"),
        )

    def get(self, key: str) -> Any:
        """Returns the key's value, or NO_VALUE."""
        return self._engine.get(key, NO_VALUE)

    def get_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        """Returns the values of many keys, NO_VALUE for each that is absent."""
        return self._engine.get_many(keys, NO_VALUE)

    def set(self, key: str, value: Any) -> None:
        """Sets the key's value."""
        self._engine[key] = value

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        """Sets the values of many keys."""
        self._engine.set_many(mapping)

    def delete(self, key: str) -> None:
        """Removes the key."""
        self._engine.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Removes many keys."""
        self._engine.delete_many(keys)

    @property
    def engine(self) -> Cache[str, Any]:
        """The `hotset.Cache` behind this one."""
        return self._engine

    def stats(self) -> Stats:
        """Returns what was counted, and what is held."""
        return self._engine.stats()


class HotsetPickleBackend(DefaultSerialization, HotsetBackend):
    """The backend "hotset_pickle": holds pickles, so that each caller gets a value of its own."""
