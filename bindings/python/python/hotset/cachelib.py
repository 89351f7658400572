"""cachelib's API on hotset, also for Flask-Caching and Flask-Session.

    CACHE_TYPE = "hotset.cachelib.HotsetCache"                  # Flask-Caching
    SESSION_TYPE = "cachelib"                                   # Flask-Session
    SESSION_CACHELIB = hotset.cachelib.HotsetCache(threshold=100_000, name="sessions")

Example:
    >>> from hotset.cachelib import HotsetCache
    >>> pages = HotsetCache(threshold=1000)
    >>> pages.set("home", {"title": "Home"}, timeout=60), pages.get("home")
    (True, {'title': 'Home'})
    >>> pages.inc("visits"), pages.inc("visits")
    (1, 2)
"""

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from cachelib.base import BaseCache
from cachelib.serializers import SimpleSerializer

from hotset._adapters import DEFAULT_MAX_ENTRIES, engine_of, native
from hotset._advice import Advice
from hotset._hotset import MISSING, NEVER
from hotset._mapping import Cache
from hotset._stats import Stats
from hotset._values import freeze, thaw

__all__ = ["HotsetCache", "ValueSerializer"]

Timeout = int | timedelta | None


class ValueSerializer(SimpleSerializer):
    """Stores immutable values as they are, and pickles all others."""

    def dumps(self, value: Any, protocol: int = 0) -> Any:
        """Returns the stored form of `value`; None, after logging it, if it cannot be pickled.

        Args:
            value: The value.
            protocol: Ignored.

        Returns:
            The stored form, or None.
        """
        try:
            return freeze(value)
        except (pickle.PickleError, AttributeError, TypeError) as error:
            # Which of these pickle raises depends on the value and on the version of Python.
            self._warn(error)
            return None

    def loads(self, bvalue: Any) -> Any:
        """Returns the value of a stored form.

        Args:
            bvalue: What `dumps` returned.

        Returns:
            The value.
        """
        return thaw(bvalue)


class _Absent(Exception):
    """The key of a number that must be changed is absent."""


class _Refused(Exception):
    """The serializer cannot encode a number."""


class HotsetCache(BaseCache):
    """A cache inside the process, with cachelib's API.

    `add`, `inc` and `dec` are atomic, and a number keeps its timeout. A full cache evicts one entry
    for each that is inserted.

    Args:
        threshold: The capacity in entries; 0 stands for the default.
        default_timeout: Seconds, or a timedelta, until an entry without a timeout of its own
            expires; 0 for no expiration.
        ignore_delete_many_errors: Has no effect: deletions do not fail.
        name: All caches of this name in the process are one, `hotset.shared("cachelib:NAME")`.
            None: this cache is on its own.
        policy: Which entries stay, as of `hotset.Cache`.
        timer: A clock, for tests: a function that returns seconds.
        profile, autosize: As of `hotset.Cache`, for `advise`. With an `autosize`, the default
            `threshold` is within its bounds.
    """

    serializer: Any = ValueSerializer()
    """Encodes values, or stores them as they are: an object with `dumps` and `loads`."""

    def __init__(
        self,
        threshold: int = DEFAULT_MAX_ENTRIES,
        default_timeout: int | timedelta = 300,
        ignore_delete_many_errors: bool = True,
        *,
        name: str | None = None,
        policy: Any = "tinylfu",
        timer: Callable[[], float] | None = None,
        profile: bool = False,
        autosize: tuple[int, int, float] | None = None,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors=ignore_delete_many_errors)
        maxsize: Any = threshold or DEFAULT_MAX_ENTRIES
        if autosize is not None and maxsize == DEFAULT_MAX_ENTRIES:
            maxsize = ...
        sizing: dict[str, Any] = {"profile": profile, "autosize": autosize}
        self._engine = engine_of("cachelib", name, maxsize=maxsize, policy=policy, timer=timer, **sizing)
        methods = native(self._engine)
        self._get = methods.get
        self._set = methods.set
        self._add = methods.add

    def _ttl(self, timeout: Timeout) -> Any:
        """Returns a timeout as the native part takes it; 0.0 for one that has passed."""
        seconds = self._normalize_timeout(timeout)
        if seconds == 0:
            return NEVER
        return float(seconds) if seconds > 0 else 0.0

    def get(self, key: str) -> Any:
        """Returns the value for `key`, or None if it is absent or expired.

        Args:
            key: The key.
        """
        stored = self._get(key, MISSING)
        return None if stored is MISSING else self.serializer.loads(stored)

    def get_many(self, *keys: str) -> list[Any]:
        """Returns the values of many keys, looked up together; None for each that is absent.

        Args:
            *keys: The keys.
        """
        loads = self.serializer.loads
        return [None if stored is MISSING else loads(stored) for stored in self._engine.get_many(keys, MISSING)]

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Sets the value for `key`.

        Args:
            key: The key.
            value: The value.
            timeout: Seconds, or a timedelta; 0 for no expiration, None for the default.

        Returns:
            Whether the serializer could encode the value.
        """
        stored = self.serializer.dumps(value)
        ttl = self._ttl(timeout)
        if stored is None and value is not None:
            # cachelib's serializers log a value that they cannot encode, and return None.
            return False
        if ttl == 0.0:
            self._engine.delete(key)
        else:
            self._set(key, stored, ttl)
        return True

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Inserts `value` if `key` is absent or expired, atomically.

        Args:
            key: The key.
            value: The value.
            timeout: As for `set`.

        Returns:
            Whether the value was inserted.
        """
        stored = self.serializer.dumps(value)
        ttl = self._ttl(timeout)
        if stored is None and value is not None:
            return False
        if ttl == 0.0:
            return key not in self._engine
        return cast(bool, self._add(key, stored, ttl))

    def delete(self, key: str) -> bool:
        """Removes `key`.

        Args:
            key: The key.

        Returns:
            Whether it was present.
        """
        return self._engine.delete(key)

    def has(self, key: str) -> bool:
        """Returns whether `key` is present.

        Args:
            key: The key.
        """
        return key in self._engine

    def advise(self) -> Advice:
        """Returns the hit ratio that the cache would have at other sizes.

        See `hotset.Cache.advise`.

        Raises:
            RuntimeError: The cache is not profiled.
        """
        return self._engine.advise()

    def clear(self) -> bool:
        """Removes all entries.

        Returns:
            True.
        """
        self._engine.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Adds `delta` to the value for `key`, atomically; an absent key counts as 0.

        Args:
            key: The key.
            delta: The number to add.

        Returns:
            The sum, or None if the serializer cannot encode it.
        """

        total = delta

        def add(stored: Any) -> Any:
            nonlocal total
            if stored is MISSING:
                raise _Absent
            total = (self.serializer.loads(stored) or 0) + delta
            changed = self.serializer.dumps(total)
            if changed is None:
                raise _Refused
            return changed

        while True:
            try:
                self._engine.compute(key, add, MISSING)
            except _Absent:
                stored = self.serializer.dumps(delta)
                if stored is None:
                    return None
                ttl = self._ttl(None)
                if ttl == 0.0 or self._add(key, stored, ttl):
                    return delta
            except _Refused:
                return None
            else:
                # If `add` was called several times, `total` is of its last call, which was stored.
                return total

    def dec(self, key: str, delta: int = 1) -> int | None:
        """Subtracts `delta` from the value for `key`, atomically; an absent key counts as 0.

        Args:
            key: The key.
            delta: The number to subtract.

        Returns:
            The difference, or None if the serializer cannot encode it.
        """
        return self.inc(key, -delta)

    @property
    def engine(self) -> Cache[str, Any]:
        """The `hotset.Cache` behind this cache. It stores what the serializer made of the values.
        """
        return self._engine

    def stats(self) -> Stats:
        """Returns the statistics of this cache."""
        return self._engine.stats()
