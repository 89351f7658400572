"""Backends of dogpile.cache on hotset: "hotset", and "hotset_pickle", which isolates callers.

    region = dogpile.cache.make_region().configure(
        "hotset", expiration_time=300, arguments={"max_entries": 10_000, "ttl": 3600}
    )

The region decides by the timestamp of a value whether it has expired; `ttl` frees it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dogpile.cache.api import NO_VALUE, CacheBackend, DefaultSerialization

from hotset._adapters import DEFAULT_MAX_ENTRIES, engine_of
from hotset._mapping import Cache
from hotset._stats import Stats

__all__ = ["HotsetBackend", "HotsetPickleBackend"]


class HotsetBackend(CacheBackend):
    """The backend "hotset": stores values as they are, in memory, with a bound.

    (The backend "dogpile.cache.memory" has none.)

    Args:
        arguments: May have max_entries (10,000; None for no bound), ttl (seconds until an entry is
            freed, more than the region's expiration_time; None: when room is needed), name (all
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
        """Returns the value for `key`, or NO_VALUE if it is absent.

        Args:
            key: The key.
        """
        return self._engine.get(key, NO_VALUE)

    def get_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        """Returns the values of many keys, NO_VALUE for each that is absent.

        Args:
            keys: The keys.
        """
        return self._engine.get_many(keys, NO_VALUE)

    def set(self, key: str, value: Any) -> None:
        """Sets the value for `key`.

        Args:
            key: The key.
            value: The value.
        """
        self._engine[key] = value

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        """Sets the values of many keys.

        Args:
            mapping: The keys with their values.
        """
        self._engine.set_many(mapping)

    def delete(self, key: str) -> None:
        """Removes `key`.

        Args:
            key: The key.
        """
        self._engine.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Removes many keys.

        Args:
            keys: The keys.
        """
        self._engine.delete_many(keys)

    @property
    def engine(self) -> Cache[str, Any]:
        """The `hotset.Cache` behind this backend."""
        return self._engine

    def stats(self) -> Stats:
        """Returns the statistics of this backend's cache."""
        return self._engine.stats()


class HotsetPickleBackend(DefaultSerialization, HotsetBackend):
    """The backend "hotset_pickle": stores pickles, so that each caller gets a value of its own."""
