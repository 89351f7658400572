"""`lru_cache` and `cache` with the signatures and semantics of functools, on the native part."""

from collections.abc import Callable, Hashable
from functools import update_wrapper
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, TYPE_CHECKING, cast, overload

from hotset._hotset import LruFunction
from hotset._registry import register

_R = TypeVar("_R")
_P = ParamSpec("_P")


class CacheInfo(NamedTuple):
    """The result of `cache_info()` of a function under `lru_cache`, as of functools.

    Attributes:
        hits: Calls that found a result.
        misses: Calls that called the function.
        maxsize: The capacity in results; None without a bound.
        currsize: The number of results that are held.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


if TYPE_CHECKING:

    class LruCached(Generic[_R]):
        """A function under `lru_cache`, typed as that of functools is."""

        __wrapped__: Callable[..., _R]

        def __call__(self, *args: Hashable, **kwargs: Hashable) -> _R: ...
        def cache_info(self) -> CacheInfo:
            """Returns hits, misses, capacity and size."""
            ...

        def cache_clear(self) -> None:
            """Removes all results, and resets hits and misses to 0."""
            ...

        def cache_parameters(self) -> dict[str, Any]:
            """Returns `maxsize` and `typed`."""
            ...


def _decorated(function: Callable[..., _R], maxsize: int | None, typed: bool) -> "LruCached[_R]":
    wrapper = cast(Any, LruFunction(function, maxsize, typed, CacheInfo))
    wrapper.cache_parameters = lambda: {"maxsize": maxsize, "typed": typed}
    update_wrapper(wrapper, function)
    register(None, wrapper)
    return cast("LruCached[_R]", wrapper)


@overload
def lru_cache(
    maxsize: int | None = 128, typed: bool = False
) -> "Callable[[Callable[..., _R]], LruCached[_R]]": ...
@overload
def lru_cache(maxsize: Callable[..., _R], typed: bool = False) -> "LruCached[_R]": ...
def lru_cache(maxsize: Any = 128, typed: Any = False) -> Any:
    """Caches the results of the `maxsize` most recent calls, as functools.lru_cache does.

    Signature, semantics, order of eviction and error texts are those of functools: swap the import.

    Args:
        maxsize: The capacity in results; None for no bound. Or the function to decorate.
        typed: Whether 3 and 3.0 are different arguments.

    Returns:
        A decorator, or the decorated function.

    Raises:
        TypeError: `maxsize` is neither an integer, a callable nor None.

    Example:
        >>> from hotset import lru_cache
        >>> @lru_cache(maxsize=32)
        ... def fib(n: int) -> int:
        ...     return n if n < 2 else fib(n - 1) + fib(n - 2)
        >>> fib(30)
        832040
        >>> fib.cache_info()
        CacheInfo(hits=28, misses=31, maxsize=32, currsize=31)
    """
    if isinstance(maxsize, int):
        maxsize = max(maxsize, 0)
    elif callable(maxsize) and isinstance(typed, bool):
        return _decorated(maxsize, 128, typed)
    elif maxsize is not None:
        raise TypeError("Expected first argument to be an integer, a callable, or None")
    size: int | None = maxsize

    def decorating_function(function: Callable[..., Any]) -> "LruCached[Any]":
        return _decorated(function, size, typed)

    return decorating_function


def cache(user_function: Callable[..., _R], /) -> "LruCached[_R]":
    """Caches the results of all calls without a bound, as functools.cache does.

    Args:
        user_function: The function to decorate.

    Returns:
        The decorated function.

    Example:
        >>> from hotset import cache
        >>> @cache
        ... def square(n: int) -> int:
        ...     return n * n
        >>> [square(3), square(3)]
        [9, 9]
        >>> square.cache_info()
        CacheInfo(hits=1, misses=1, maxsize=None, currsize=1)
    """
    return lru_cache(maxsize=None)(user_function)
