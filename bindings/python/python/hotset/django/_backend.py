"""`HotsetCache`: Django's BaseCache on a shared `hotset.Cache`."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

from django.core.cache.backends.base import DEFAULT_TIMEOUT, MEMCACHE_MAX_KEY_LENGTH

from hotset._adapters import DEFAULT_MAX_ENTRIES, native
from hotset._advice import Advice
from hotset._hotset import MISSING, NEVER
from hotset._mapping import Cache
from hotset._registry import shared
from hotset._settings import ttl_of
from hotset._stats import Stats
from hotset._values import Pickled, freezer, thaw
from hotset.django._base import Backend
from hotset.django._settings import errors, maxsize_of, warnings

# The engine of each LOCATION: Django creates a backend for each thread and each asyncio task that
# uses an alias.
_engines: dict[tuple[Any, ...], Cache[str, Any]] = {}


def _engine(location: str, options: Mapping[str, Any], default: Any) -> Cache[str, Any]:
    others = {which: options[which] for which in ("policy", "jitter", "profile") if which in options}
    if options.get("autosize") is not None:
        others["autosize"] = tuple(options["autosize"])
    maxsize = maxsize_of(options, default)
    chosen = (location, maxsize, tuple(others.items()))
    engine = _engines.get(chosen)
    if engine is None:
        engine = shared(f"django:{location}" if location else "django", maxsize=maxsize, **others)
        _engines[chosen] = engine
    return engine


class HotsetCache(Backend):
    """A cache backend inside the process. All aliases of one LOCATION are one cache.

    Every method has Django's signature and semantics. In addition, `get_or_set` calls a callable
    default once, however many threads or tasks request the key; `incr` and `decr` are atomic and
    keep the timeout; `incr_version` keeps the timeout; the methods for asyncio run in the event
    loop, without a thread.

    Args:
        location: LOCATION: any name; the empty one is a name, too.
        params: The alias's other settings. OPTIONS may have MAX_ENTRIES (10,000; None for no
            bound), CULL_FREQUENCY (which is ignored), copy ("pickle": callers get copies of all
            values that are not immutable; "none": they get the object that was set), policy,
            jitter, profile and autosize (as of `hotset.Cache`).

    Raises:
        ImproperlyConfigured: A setting is unknown, or has a value of the wrong type.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        options: dict[str, Any] = params.get("OPTIONS") or {}
        self._engine = _engine(location, options, params.get("max_entries", DEFAULT_MAX_ENTRIES))
        methods = native(self._engine)
        self._get = methods.get
        self._set = methods.set
        self._add = methods.add
        self._touch = methods.touch
        self._freeze = freezer(options.get("copy", "pickle"))

    @classmethod
    def setting_errors(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Returns the errors in the settings of an alias, a sentence each.

        Args:
            location: LOCATION of the alias.
            params: The other settings of the alias.
        """
        return errors(location, params)

    @classmethod
    def setting_warnings(cls, params: Mapping[str, Any]) -> list[str]:
        """Returns the settings of an alias that have no effect, a sentence each.

        Args:
            params: The other settings of the alias.
        """
        return warnings(params)

    def _ttl(self, timeout: Any) -> Any:
        """Returns a timeout as the native part takes it: 0.0 for one that has passed."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return NEVER if timeout is None else ttl_of(timeout)

    def advise(self) -> Advice:
        """Returns the hit ratio that the cache would have at other sizes.

        OPTIONS must have profile or autosize. See `hotset.Cache.advise`.

        Raises:
            RuntimeError: The cache is not profiled.
        """
        return self._engine.advise()

    # --- One key.

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Returns the value for `key`, or `default` if it is absent or expired.

        Args:
            key: The key.
            default: What is returned for an absent key.
            version: The version of the key; None for that of the alias.
        """
        head = self._head
        if version is None and head is not None:
            # `_key`, inlined for speed.
            made = f"{head}{key!s}"
            if len(made) > MEMCACHE_MAX_KEY_LENGTH or " " in made or not made.isprintable():
                self.validate_key(made)
        else:
            made = self._key(key, version)
        stored = self._get(made, default)
        return thaw(stored) if type(stored) is Pickled else stored

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Behaves like `get`, for asyncio."""
        return self.get(key, default, version)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """Sets the value for `key`.

        Args:
            key: The key.
            value: The value.
            timeout: Seconds until it expires; None for no expiration, 0 or less to remove the key.
                By default that of the alias.
            version: The version of the key; None for that of the alias.
        """
        self._store(self._key(key, version), self._freeze(value), self._ttl(timeout))

    def _store(self, made: str, stored: Any, ttl: Any) -> None:
        if ttl == 0.0:
            # An entry that has expired already would occupy room until it is freed.
            self._engine.delete(made)
        else:
            self._set(made, stored, ttl)

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """Behaves like `set`, for asyncio."""
        self.set(key, value, timeout, version)

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Inserts `value` if `key` is absent or expired, atomically.

        Args:
            key: The key.
            value: The value.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.

        Returns:
            Whether the value was inserted.
        """
        made = self._key(key, version)
        stored = self._freeze(value)
        ttl = self._ttl(timeout)
        if ttl == 0.0:
            return made not in self._engine
        return cast(bool, self._add(made, stored, ttl))

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Behaves like `add`, for asyncio."""
        return self.add(key, value, timeout, version)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Sets the timeout of `key`, counted from now.

        Args:
            key: The key.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.

        Returns:
            Whether the key is present.
        """
        made = self._key(key, version)
        ttl = self._ttl(timeout)
        if ttl == 0.0:
            return self._engine.delete(made)
        return cast(bool, self._touch(made, ttl))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Behaves like `touch`, for asyncio."""
        return self.touch(key, timeout, version)

    def delete(self, key: Any, version: Any = None) -> bool:
        """Removes `key`.

        Args:
            key: The key.
            version: The version of the key; None for that of the alias.

        Returns:
            Whether it was present.
        """
        return self._engine.delete(self._key(key, version))

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """Behaves like `delete`, for asyncio."""
        return self.delete(key, version)

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Returns whether `key` is present.

        Args:
            key: The key.
            version: The version of the key; None for that of the alias.
        """
        return self._key(key, version) in self._engine

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """Behaves like `has_key`, for asyncio."""
        return self.has_key(key, version)

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """Returns the value for `key`; if it is absent, sets and returns `default`.

        A callable default is called, and its result set. Concurrent calls for the same key call one
        callable, and wait for it; all of them raise its exception.

        Args:
            key: The key.
            default: The value, or a function that returns it.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.

        Returns:
            The value.
        """
        if not callable(default):
            found = self.get(key, MISSING, version)
            if found is not MISSING:
                return found
            self.add(key, default, timeout, version)
            return self.get(key, default, version)
        freeze = self._freeze
        return thaw(self._engine.get_or_load(self._key(key, version), lambda _: freeze(default()), self._lifetime(timeout)))

    async def aget_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """Behaves like `get_or_set`, for asyncio: a coroutine function is awaited.

        Any other callable is called in the event loop.
        """
        if not callable(default):
            return self.get_or_set(key, default, timeout, version)
        freeze = self._freeze

        async def load(_: str) -> Any:
            value = default()
            return freeze(await value if inspect.isawaitable(value) else value)

        return thaw(await self._engine.aget_or_load(self._key(key, version), load, self._lifetime(timeout)))

    # --- Numbers and versions.

    def incr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Adds `delta` to the value for `key`, atomically. The timeout stays.

        Args:
            key: The key.
            delta: The number to add.
            version: The version of the key; None for that of the alias.

        Returns:
            The sum.

        Raises:
            ValueError: The key is absent.
        """
        freeze = self._freeze

        def add(stored: Any) -> Any:
            if stored is MISSING:
                raise ValueError(f"Key '{key}' not found")
            return freeze(thaw(stored) + delta)

        return thaw(self._engine.compute(self._key(key, version), add, MISSING))

    async def aincr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Behaves like `incr`, for asyncio."""
        return self.incr(key, delta, version)

    async def adecr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Behaves like `decr`, for asyncio."""
        return self.decr(key, delta, version)

    def incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Moves the value for `key` to the version `version + delta`. The timeout stays.

        Args:
            key: The key.
            delta: The number to add to the version.
            version: The version of the key; None for that of the alias.

        Returns:
            The new version.

        Raises:
            ValueError: The key is absent.
        """
        if version is None:
            version = self.version
        old = self._key(key, version)
        found = self._engine.get_with_remaining(old)
        if found is None:
            raise ValueError(f"Key '{key}' not found")
        new = self._key(key, version + delta)
        if new != old:
            self._engine.set(new, *found)
            self._engine.delete(old)
        return version + delta

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Behaves like `incr_version`, for asyncio."""
        return self.incr_version(key, delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Behaves like `decr_version`, for asyncio."""
        return self.decr_version(key, delta, version)

    # --- Many keys.

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Returns a dict of the keys that are present, with their values.

        Args:
            keys: The keys.
            version: The version of the key; None for that of the alias.
        """
        keys = list(keys)
        found = self._engine.get_many([self._key(key, version) for key in keys], MISSING)
        return {key: thaw(stored) for key, stored in zip(keys, found, strict=True) if stored is not MISSING}

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Behaves like `get_many`, for asyncio."""
        return self.get_many(keys, version)

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        """Sets the values of many keys.

        Args:
            data: The keys with their values.
            timeout: Seconds until it expires; None for no expiration. By default that of the alias.
            version: The version of the key; None for that of the alias.

        Returns:
            The keys that could not be set: none.
        """
        ttl = self._ttl(timeout)
        for made, stored in [(self._key(key, version), self._freeze(value)) for key, value in data.items()]:
            self._store(made, stored, ttl)
        return []

    async def aset_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        """Behaves like `set_many`, for asyncio."""
        return self.set_many(data, timeout, version)

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Removes many keys.

        Args:
            keys: The keys.
            version: The version of the key; None for that of the alias.
        """
        self._engine.delete_many([self._key(key, version) for key in keys])

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Behaves like `delete_many`, for asyncio."""
        self.delete_many(keys, version)

    # --- The whole.

    def clear(self) -> None:
        """Removes all keys of the LOCATION.

        Also those of its other aliases, prefixes and versions.
        """
        self._engine.clear()

    async def aclear(self) -> None:
        """Behaves like `clear`, for asyncio."""
        self.clear()

    async def aclose(self, **kwargs: Any) -> None:
        """Does nothing, as `close`."""

    @property
    def engine(self) -> Cache[str, Any]:
        """The `hotset.Cache` of the LOCATION.

        It stores values as `hotset._values.freeze` returns them.
        """
        return self._engine

    def stats(self) -> Stats:
        """Returns the statistics of the LOCATION's cache."""
        return self._engine.stats()

    def top_keys(self, limit: int = 10) -> list[str]:
        """Returns the hottest keys, as stored: with prefix and version.

        Args:
            limit: The greatest number of keys.
        """
        return [key for key, _ in self._engine.items_hottest()[:limit]]
