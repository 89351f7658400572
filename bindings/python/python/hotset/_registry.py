"""The registry of the caches of this process."""

import logging
import warnings
from functools import partial
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import ReferenceType, WeakValueDictionary, ref

from hotset._forks import at_fork
from hotset._publish import publish
from hotset._stats import Stats

if TYPE_CHECKING:
    from hotset._mapping import Cache

_log = logging.getLogger("hotset")


class Listed(Protocol):
    """A cache that can be listed by name."""

    def __hotset_stats__(self) -> Stats: ...


# Reentrant: a destructor that the garbage collector runs while the lock is held may create a cache.
_lock = RLock()
_named: dict[str, ReferenceType[Any]] = {}
# All caches, by a number.
_all: WeakValueDictionary[int, Any] = WeakValueDictionary()
_numbers = count()
_shared: dict[str, Any] = {}


def _forked() -> None:
    """Replaces the lock in a child: the thread that held it may not exist there."""
    global _lock
    _lock = RLock()


at_fork(_forked)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")


def register(name: object, cache: Any) -> None:
    """Lists a cache by name as long as it is alive, in place of an older one of that name.

    Args:
        name: The name; None for no name.
        cache: The cache, which `clear_all` clears with or without a name.

    Raises:
        TypeError: `name` is neither a str nor None.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, not {type(name).__name__}")
    with _lock:
        _all[next(_numbers)] = cache
        if name is not None:
            _named[name] = ref(cache, partial(_forget, name))
    if name is not None:
        publish(name, cache)


def list_named(name: str, cache: Any) -> None:
    """Lists a cache by name as long as it is alive, in place of an older one of that name.

    Args:
        name: The name.
        cache: The cache, which `clear_all` does not clear.
    """
    with _lock:
        _named[name] = ref(cache, partial(_forget, name))
    publish(name, cache)


def _forget(name: str, reference: ReferenceType[Any]) -> None:
    with _lock:
        if _named.get(name) is reference:
            del _named[name]


def caches() -> dict[str, Any]:
    """Returns the live caches of this process that have a name.

    These are cached functions, `Cache`s and `TieredCache`s. If two have the same name, the one that
    was created last is listed.

    Returns:
        A dict of the caches by name.

    Example:
        >>> import hotset
        >>> @hotset.cached(maxsize=100, name="squares")
        ... def square(n: int) -> int:
        ...     return n * n
        >>> [square(3), square(3)]
        [9, 9]
        >>> hotset.caches()["squares"].cache_info().hits
        1
    """
    with _lock:
        # Copied in one step: the collector may remove caches, and destructors may create some, at
        # any time.
        references = _named.copy()
    found = {name: reference() for name, reference in references.items()}
    return {name: cache for name, cache in found.items() if cache is not None}


def stats() -> dict[str, Stats]:
    """Returns the statistics of all caches that have a name.

    A cache whose statistics raise (because its timer does, say) is omitted, and logged by the
    logger "hotset".

    Returns:
        A dict of `Stats` by name.

    Example:
        >>> import hotset
        >>> users: hotset.Cache[int, str] = hotset.Cache(100, name="users")
        >>> users.get(1), hotset.stats()["users"].misses
        (None, 1)
    """
    found: dict[str, Stats] = {}
    for name, cache in caches().items():
        try:
            found[name] = cache.__hotset_stats__()
        except Exception:
            _log.warning("failed to read the statistics of the cache %r", name, exc_info=True)
    return found


def clear_all() -> None:
    """Removes all entries and resets all counters of all caches of this process, for tests.

    These are all `Cache`s, shared ones included, and all functions under `cached`, `lru_cache` and
    `cache`.

    Raises:
        Exception: The first exception that clearing a cache raised (because its timer did, say),
            after the other caches were cleared.

    Example:
        >>> import hotset
        >>> c: hotset.Cache[str, int] = hotset.Cache(100)
        >>> c["a"] = 1
        >>> hotset.clear_all()
        >>> len(c)
        0
    """
    with _lock:
        references = _all.valuerefs()
    raised: Exception | None = None
    for cache in [cache for reference in references if (cache := reference()) is not None]:
        try:
            (cache.cache_clear if hasattr(cache, "cache_clear") else cache.clear)()
            if hasattr(cache, "reset_stats"):
                cache.reset_stats()
        except Exception as error:
            raised = raised or error
    if raised is not None:
        raise raised


def shared(name: str, /, **settings: Any) -> "Cache[Any, Any]":
    """Returns the process-wide cache of this name, creating it on the first call.

    Args:
        name: Its name, also in `hotset.caches()`.
        **settings: The settings of `hotset.Cache`. The first call decides; a later call that passes
            another value for a setting gets the same cache, and a warning.

    Returns:
        The cache.

    Raises:
        TypeError: `name` is not a str, or a setting is of the wrong type.
        ValueError: A setting is out of its range.

    Example:
        >>> import hotset
        >>> hotset.shared("sessions", maxsize=1000) is hotset.shared("sessions")
        True
    """
    from hotset._mapping import Cache
    from hotset._settings import settings_of

    _check_name(name)
    given = settings_of(**settings)
    with _lock:
        cache = _shared.get(name)
    if cache is None:
        made: Any = Cache(**settings, name=name)
        with _lock:
            # Another thread may have created it in between.
            cache = _shared.setdefault(name, made)
        if cache is made:
            return cast("Cache[Any, Any]", made)
        register(name, cache)
    first = cache._first_settings
    other = [f"{which}={first[which]!r}" for which in settings if first[which] != given[which]]
    if other:
        warnings.warn(f"the shared cache {name!r} has other settings, which it keeps: {', '.join(other)}", stacklevel=2)
    return cast("Cache[Any, Any]", cache)
