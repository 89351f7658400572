"""The caches of this process that have a name."""

from threading import Lock
from typing import Protocol
from weakref import WeakValueDictionary

from hotset._stats import Stats


class Counted(Protocol):
    """What can be listed."""

    def __hotset_stats__(self) -> Stats: ...


_lock = Lock()
_named: WeakValueDictionary[str, Counted] = WeakValueDictionary()


def register(name: object, cache: Counted) -> None:
    """Lists the cache under this name, if it is one, as long as it lives. A later one of the same name takes its place."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"name must be a string or None, not {type(name).__name__}")
    with _lock:
        _named[name] = cache


def caches() -> dict[str, Stats]:
    """The statistics of all caches in this process that were given a name and are alive, by name.

    >>> import hotset
    >>> @hotset.cached(maxsize=100, name="squares")
    ... def square(n: int) -> int:
    ...     return n * n
    >>> [square(3), square(3)]
    [9, 9]
    >>> hotset.caches()["squares"].hit_ratio
    0.5
    """
    with _lock:
        alive = list(_named.items())
    return {name: cache.__hotset_stats__() for name, cache in alive}
