"""`TieredCache`: Django's BaseCache on a cache of the process in front of a shared server."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured

from hotset._advice import Advice
from hotset._hotset import MISSING, NEVER
from hotset._settings import ttl_of
from hotset.django._base import Backend, describe_alias
from hotset.django._format import Encoded
from hotset.django._settings import tiered_errors, tiered_warnings
from hotset.django._tier import tier_of
from hotset.tier2 import _changes, _reads
from hotset.tier2 import TieredCache as Engine
from hotset.tier2._server import SecondTier
from hotset.tier2._settings import lifetime

_log = logging.getLogger("hotset")


def _tags_of(tags: Iterable[str], own: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise TypeError("tags must be several strings, not one")
    return (*own, *tags) if tags else own


class TieredCache(Backend):
    """A cache backend in two tiers: entries of the process in front of Redis, Valkey or memcached.

    All processes share the server. Every method has Django's signature and semantics. A hit in the
    process needs no network; a change by one process is visible to the others as soon as the server
    has announced it (memcached announces nothing: after `local_ttl`, 5 seconds by default). In
    addition, `get_or_set` calls a callable default once over all processes; `incr`, `decr`, `add`
    and `touch` are atomic on the server; `incr` and `incr_version` keep the timeout; the methods
    for asyncio run in the event loop, without a thread; values may have tags.

    While the server cannot be reached, reads are hits in the process or misses, `get_or_set` calls
    its default, and keys that were set or removed are removed on the server when it answers again.
    `add`, `incr`, `touch` and `incr_version` raise `hotset.tier2.Unavailable`.

    Args:
        location: LOCATION: a URL; several of a cluster's nodes, or of sentinels (with OPTIONS
            sentinel), in a list; of memcached servers, "memcached://host:port,host:port".
        params: The alias's other settings. For OPTIONS see the page on Django in the documentation.

    Raises:
        ImproperlyConfigured: A setting is unknown, or has a value of the wrong type; or redis-py is
            not installed.
    """

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        options: dict[str, Any] = params.get("OPTIONS") or {}
        try:
            self._tier, self._format = tier_of(location, options)
        except (ImportError, TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"{describe_alias(location, params)}: {error}") from error
        self._own_tags: tuple[str, ...] = tuple(options.get("tags") or ())
        self._find: Callable[[str, Any], Any] = self._tier.get
        self._freeze = self._format.freeze

    @classmethod
    def setting_errors(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Returns the errors in the settings of an alias, a sentence each.

        Args:
            location: LOCATION of the alias.
            params: The other settings of the alias.
        """
        return tiered_errors(location, params)

    @classmethod
    def setting_warnings(cls, params: Mapping[str, Any]) -> list[str]:
        """Returns the settings of an alias that have no effect, a sentence each.

        Args:
            params: The other settings of the alias.
        """
        return tiered_warnings(params)

    def _ttl(self, timeout: Any) -> float | None:
        """Returns a timeout in seconds: None for no expiration, 0.0 for one that has passed."""
        timeout = self._lifetime(timeout)
        if timeout is None:
            return None
        ttl: Any = ttl_of(timeout)
        return None if ttl is NEVER else ttl

    def _value(self, stored: Any, default: Any) -> Any:
        """Returns the value of a stored form; `default` if there is none, or it cannot be decoded.
        """
        if type(stored) is not Encoded:
            return default if stored is MISSING else stored
        try:
            return self._format.thaw(stored)
        except Exception:
            # Mostly because its class does not exist in this release of the program.
            _log.warning("a cached value cannot be decoded, and counts as absent", exc_info=True)
            return default

    def advise(self) -> Advice:
        """Returns the hit ratio that the first tier would have at other sizes.

        OPTIONS must have profile or autosize. See `hotset.Cache.advise`.

        Raises:
            RuntimeError: The cache is not profiled.
        """
        return self._tier.advise()

    # --- One key.

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Returns the value for `key`, or `default` if it is absent or expired.

        Args:
            key: The key.
            default: What is returned for an absent key.
            version: The version of the key; None for that of the alias.
        """
        return self._value(self._find(self._key(key, version), MISSING), default)

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Behaves like `get`, for asyncio."""
        return self._value(await self._tier.aget(self._key(key, version), MISSING), default)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()) -> None:
        """Sets the value for `key`.

        Args:
            key: The key.
            value: The value.
            timeout: Seconds until it expires; None for no expiration, 0 or less to remove the key.
                By default that of the alias.
            version: The version of the key; None for that of the alias.
            tags: Tags of the value, for `invalidate_tag`.
        """
        made, ttl = self._key(key, version), self._ttl(timeout)
        stored = self._freeze(value)
        if ttl == 0.0:
            self._tier.delete(made)
        else:
            self._tier.set(made, stored, ttl, tags=_tags_of(tags, self._own_tags))

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()) -> None:
        """Behaves like `set`, for asyncio."""
        made, ttl = self._key(key, version), self._ttl(timeout)
        stored = self._freeze(value)
        if ttl == 0.0:
            await self._tier.adelete(made)
        else:
            await self._tier.aset(made, stored, ttl, tags=_tags_of(tags, self._own_tags))

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()) -> bool:
        """Inserts `value` if `key` is absent or expired, at most once over all processes.

        Args:
            key: The key.
            value: The value.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.
            tags: Tags of the value, for `invalidate_tag`.

        Returns:
            Whether the value was inserted.

        Raises:
            Unavailable: The server did not answer.
        """
        made, ttl = self._key(key, version), self._ttl(timeout)
        stored = self._freeze(value)
        if ttl == 0.0:
            return _changes.read_with_remaining(self._tier.space, made) is None
        return self._tier.add(made, stored, ttl, tags=_tags_of(tags, self._own_tags))

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()) -> bool:
        """Behaves like `add`, for asyncio."""
        made, ttl = self._key(key, version), self._ttl(timeout)
        stored = self._freeze(value)
        if ttl == 0.0:
            return await _changes.read_with_remaining_async(self._tier.space, made) is None
        return await self._tier.aadd(made, stored, ttl, tags=_tags_of(tags, self._own_tags))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Sets the timeout of `key`, counted from now.

        Args:
            key: The key.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.

        Returns:
            Whether the key is present.

        Raises:
            Unavailable: The server did not answer.
        """
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0.0:
            return _changes.take(self._tier.space, made)[0] is not MISSING
        return self._tier.touch(made, ttl)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Behaves like `touch`, for asyncio."""
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0.0:
            return (await _changes.take_async(self._tier.space, made))[0] is not MISSING
        return await self._tier.atouch(made, ttl)

    def delete(self, key: Any, version: Any = None) -> bool:
        """Removes `key`, in all processes.

        Args:
            key: The key.
            version: The version of the key; None for that of the alias.

        Returns:
            Whether it was present. While the server cannot be reached: False; the key is removed
                there when it answers again.
        """
        return _changes.take(self._tier.space, self._key(key, version))[0] is not MISSING

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """Behaves like `delete`, for asyncio."""
        return (await _changes.take_async(self._tier.space, self._key(key, version)))[0] is not MISSING

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Returns whether `key` is present.

        Args:
            key: The key.
            version: The version of the key; None for that of the alias.
        """
        return self._find(self._key(key, version), MISSING) is not MISSING

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """Behaves like `has_key`, for asyncio."""
        return await self._tier.aget(self._key(key, version), MISSING) is not MISSING

    def get_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()
    ) -> Any:
        """Returns the value for `key`; if it is absent, sets and returns `default`.

        A callable default is called, and its result set. Concurrent calls for the same key, in all
        processes, call one callable, and wait for it.

        Args:
            key: The key.
            default: The value, or a function that returns it.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.
            tags: Tags of the value, for `invalidate_tag`.

        Returns:
            The value.
        """
        if not callable(default):
            found = self.get(key, MISSING, version)
            if found is not MISSING:
                return found
            self.add(key, default, timeout, version, tags=tags)
            return self.get(key, default, version)
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0.0:
            found = self.get(key, MISSING, version)
            return default() if found is MISSING else found
        given = _tags_of(tags, self._own_tags)
        freeze = self._freeze
        found = self._value(self._tier.get_or_load(made, lambda _: freeze(default()), ttl, tags=given), MISSING)
        if found is MISSING:
            # There is a value that cannot be decoded: replace it.
            stored = freeze(default())
            self._tier.set(made, stored, ttl, tags=given)
            found = self._format.thaw(stored)
        return found

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()
    ) -> Any:
        """Behaves like `get_or_set`, for asyncio: a coroutine function is awaited.

        Any other callable is called in the event loop.
        """
        if not callable(default):
            found = await self.aget(key, MISSING, version)
            if found is not MISSING:
                return found
            await self.aadd(key, default, timeout, version, tags=tags)
            return await self.aget(key, default, version)
        freeze = self._freeze

        async def call() -> Any:
            value = default()
            return await value if inspect.isawaitable(value) else value

        async def load(_: str) -> Any:
            return freeze(await call())

        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl == 0.0:
            found = await self.aget(key, MISSING, version)
            return await call() if found is MISSING else found
        given = _tags_of(tags, self._own_tags)
        found = self._value(await self._tier.aget_or_load(made, load, ttl, tags=given), MISSING)
        if found is MISSING:
            stored = freeze(await call())
            await self._tier.aset(made, stored, ttl, tags=given)
            found = self._format.thaw(stored)
        return found

    # --- Numbers and versions.

    def _adding(self, delta: Any) -> Callable[[Any], Any]:
        thaw, freeze = self._format.thaw, self._freeze
        return lambda stored: freeze(thaw(stored) + delta)

    def incr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Adds `delta` to the value for `key`, atomically over all processes. The timeout stays.

        Args:
            key: The key.
            delta: The number to add.
            version: The version of the key; None for that of the alias.

        Returns:
            The sum.

        Raises:
            ValueError: The key is absent.
            Unavailable: The server did not answer: it may have counted, or not.
        """
        stored = _changes.replace(self._tier.space, self._key(key, version), self._adding(delta))
        return self._found(key, stored)

    async def aincr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Behaves like `incr`, for asyncio."""
        stored = await _changes.replace_async(self._tier.space, self._key(key, version), self._adding(delta))
        return self._found(key, stored)

    def _found(self, key: Any, stored: Any) -> Any:
        if stored is MISSING:
            raise ValueError(f"Key '{key}' not found")
        return self._format.thaw(stored)

    async def adecr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Behaves like `decr`, for asyncio."""
        return await self.aincr(key, -delta, version)

    def incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Moves the value for `key` to the version `version + delta`.

        The timeout stays; tags do not.

        Args:
            key: The key.
            delta: The number to add to the version.
            version: The version of the key; None for that of the alias.

        Returns:
            The new version.

        Raises:
            ValueError: The key is absent.
            Unavailable: The server did not answer.
        """
        if version is None:
            version = self.version
        old, new = self._key(key, version), self._key(key, version + delta)
        found = _changes.read_with_remaining(self._tier.space, old)
        if found is None:
            raise ValueError(f"Key '{key}' not found")
        if new != old:
            stored, ttl = found
            self._tier.set(new, stored, ttl, tags=self._own_tags)
            self._tier.delete(old)
        return version + delta

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Behaves like `incr_version`, for asyncio."""
        if version is None:
            version = self.version
        old, new = self._key(key, version), self._key(key, version + delta)
        found = await _changes.read_with_remaining_async(self._tier.space, old)
        if found is None:
            raise ValueError(f"Key '{key}' not found")
        if new != old:
            stored, ttl = found
            await self._tier.aset(new, stored, ttl, tags=self._own_tags)
            await self._tier.adelete(old)
        return version + delta

    async def adecr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Behaves like `decr_version`, for asyncio."""
        return await self.aincr_version(key, -delta, version)

    # --- Many keys.

    def _values(self, keys: dict[Any, str], found: Mapping[str, Any]) -> dict[Any, Any]:
        values = {key: self._value(found.get(made, MISSING), MISSING) for key, made in keys.items()}
        return {key: value for key, value in values.items() if value is not MISSING}

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Returns a dict of the keys that are present, with their values.

        One request reads all keys that the process lacks.

        Args:
            keys: The keys.
            version: The version of the key; None for that of the alias.
        """
        made = {key: self._key(key, version) for key in keys}
        return self._values(made, self._tier.get_many(made.values()))

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Behaves like `get_many`, for asyncio."""
        made = {key: self._key(key, version) for key in keys}
        return self._values(made, await self._tier.aget_many(made.values()))

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()
    ) -> list[Any]:
        """Sets the values of many keys, whose commands are sent together.

        Args:
            data: The keys with their values.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.
            tags: Tags of the value, for `invalidate_tag`.

        Returns:
            The keys that the server did not confirm.
        """
        pairs, ttl = self._pairs(data, version), self._ttl(timeout)
        if ttl == 0.0:
            self._tier.delete_many(pairs)
            return []
        failed = _reads.write_many(self._tier.space, list(pairs.items()), lifetime(ttl), _tags_of(tags, self._own_tags))
        return self._failed(data, list(pairs), failed, version)

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None, *, tags: Iterable[str] = ()
    ) -> list[Any]:
        """Behaves like `set_many`, for asyncio."""
        pairs, ttl = self._pairs(data, version), self._ttl(timeout)
        if ttl == 0.0:
            await self._tier.adelete_many(pairs)
            return []
        failed = await _reads.write_many_async(self._tier.space, list(pairs.items()), lifetime(ttl), _tags_of(tags, self._own_tags))
        return self._failed(data, list(pairs), failed, version)

    def _pairs(self, data: Mapping[Any, Any], version: Any) -> dict[str, Any]:
        return {self._key(key, version): self._freeze(value) for key, value in data.items()}

    def _failed(self, data: Mapping[Any, Any], made: list[str], failed: list[int], version: Any) -> list[Any]:
        if not failed:
            return []
        names = {made[at] for at in failed}
        return [key for key in data if self.make_key(key, version) in names]

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Removes many keys, in all processes; their commands are sent together.

        Args:
            keys: The keys.
            version: The version of the key; None for that of the alias.
        """
        self._tier.delete_many([self._key(key, version) for key in keys])

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Behaves like `delete_many`, for asyncio."""
        await self._tier.adelete_many([self._key(key, version) for key in keys])

    # --- The whole.

    def invalidate_tag(self, tag: str) -> bool:
        """Invalidates all values with this tag, in all processes.

        Args:
            tag: The tag.

        Returns:
            Whether the server confirmed it.
        """
        return self._tier.invalidate_tag(tag)

    async def ainvalidate_tag(self, tag: str) -> bool:
        """Behaves like `invalidate_tag`, for asyncio."""
        return await self._tier.ainvalidate_tag(tag)

    def clear(self) -> None:
        """Invalidates all keys, in all processes.

        They are those of all prefixes and versions, and of all aliases with this LOCATION, prefix
        and name. Nothing else on the server is touched.
        """
        self._tier.clear()

    async def aclear(self) -> None:
        """Behaves like `clear`, for asyncio."""
        await self._tier.aclear()

    async def aclose(self, **kwargs: Any) -> None:
        """Does nothing, as `close`: connections outlive requests."""

    @property
    def tier(self) -> "Engine[str, Any]":
        """The `hotset.TieredCache`, which stores values as the backend's format makes them."""
        return self._tier

    @property
    def server(self) -> SecondTier:
        """The `hotset.tier2.Redis` or `hotset.tier2.Memcached`."""
        server: SecondTier = self._tier.space.server
        return server

    def stats(self) -> dict[str, Any]:
        """Returns the counters of this process: "tier1", "tier2" and "server".

        See `hotset.TieredCache.stats`.
        """
        return self._tier.stats()

    def top_keys(self, limit: int = 10) -> list[str]:
        """Returns the hottest keys of this process, with prefix and version.

        Args:
            limit: The greatest number of keys.
        """
        return self._tier.hottest(limit)
