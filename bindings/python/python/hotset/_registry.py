"""The caches of this process."""

import logging
import os
import warnings
from functools import partial
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import ReferenceType, WeakValueDictionary, ref

from hotset._stats import Stats

if TYPE_CHECKING:
    from hotset._mapping import Cache

_log = logging.getLogger("hotset")


class Listed(Protocol):
    """What can be listed."""

    def __hotset_stats__(self) -> Stats: ...


# (A destructor that the collector runs in the middle of this may make a cache, too.)
_lock = RLock()
_named: dict[str, ReferenceType[Any]] = {}
# All of them, by a number; with how each is cleared.
_all: WeakValueDictionary[int, Any] = WeakValueDictionary()
_numbers = count()
_shared: dict[str, Any] = {}


def _forked() -> None:
    """In a child, where the thread that held the lock may not exist."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")


def register(name: object, cache: Any) -> None:
    """Lists the cache under this name, if it is one, as long as it lives. A later one of the same name takes its place."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, not {type(name).__name__}")
    with _lock:
        _all[next(_numbers)] = cache
        if name is not None:
            _named[name] = ref(cache, partial(_forget, name))


def _forget(name: str, reference: ReferenceType[Any]) -> None:
    with _lock:
        if _named.get(name) is reference:
            del _named[name]


def caches() -> dict[str, Any]:
    """Returns the caches of this process that were given a name and are alive, by name: functions under `cached`, and `Cache`s.

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
        # (In one step: the collector may remove caches, and destructors may make some, at any time.)
        references = _named.copy()
    found = {name: reference() for name, reference in references.items()}
    return {name: cache for name, cache in found.items() if cache is not None}


def stats() -> dict[str, Stats]:
    """Returns the statistics of all caches that have a name, by name.

    A cache whose statistics raise (its timer does, say) is left out, and logged by the logger "hotset".

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
            _log.warning("no statistics of the cache %r", name, exc_info=True)
    return found


def clear_all() -> None:
    """Removes all entries of all caches of this process, and what they counted: for tests.

    Of all `Cache`s, also of shared ones, and of all functions under `cached`, `lru_cache` and `cache`. If one raises (its timer does, say),
    the others are cleared all the same, and the first exception is raised then.
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
    """Returns the process's cache of this name, and makes it if there is none: one for all modules that know its name.

    Args:
        name: Its name, also in `hotset.caches()`.
        **settings: Those of `hotset.Cache`. The first call decides; one that gives another value for a setting gets the same cache, and a
            warning.

    Example:
        >>> import hotset
        >>> hotset.shared("sessions", maxsize=1000) is hotset.shared("sessions")
        True
    """
    from hotset._mapping import Cache, settings_of

    _check_name(name)
    given = settings_of(**settings)
    with _lock:
        cache = _shared.get(name)
    if cache is None:
        made: Any = Cache(**settings, name=name)
        with _lock:
            # Another thread may have been faster.
            cache = _shared.setdefault(name, made)
        if cache is made:
            return cast("Cache[Any, Any]", made)
        register(name, cache)
    first = cache._first_settings
    other = [f"{which}={first[which]!r}" for which in settings if first[which] != given[which]]
    if other:
        warnings.warn(f"the shared cache {name!r} was made with other settings, which it keeps: {', '.join(other)}", stacklevel=2)
    return cast("Cache[Any, Any]", cache)
