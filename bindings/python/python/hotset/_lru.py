"""lru_cache and cache, with functools' signatures and semantics."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NamedTuple

from hotset._hotset import LruFunction


class CacheInfo(NamedTuple):
    hits: int
    misses: int
    maxsize: int | None
    currsize: int


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """As functools.lru_cache: exact LRU order, the same arguments, attributes and results; faster.

    >>> @lru_cache(maxsize=32)
    ... def square(x):
    ...     return x * x
    >>> square(3), square(3)
    (9, 9)
    >>> square.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=32, currsize=1)
    """
    if isinstance(maxsize, int):
        maxsize = max(maxsize, 0)
    elif callable(maxsize) and isinstance(typed, bool):
        return _wrap(maxsize, 128, typed)
    elif maxsize is not None:
        raise TypeError("Expected first argument to be an integer, a callable, or None")
    return lambda function: _wrap(function, maxsize, typed)


def cache(user_function: Callable[..., Any], /) -> Any:
    """As functools.cache: an unbounded cache, lru_cache(maxsize=None)."""
    return _wrap(user_function, None, False)


def _wrap(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    wrapper: Any = LruFunction(function, maxsize, typed, CacheInfo)
    wrapper.cache_parameters = lambda: {"maxsize": maxsize, "typed": typed}
    return update_wrapper(wrapper, function)
