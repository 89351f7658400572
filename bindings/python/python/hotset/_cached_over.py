"""Functions whose results are stored in a `Cache` of the user's: `cached(cache=..)`."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, cast

from hotset import _async_loads, _methods
from hotset._mapping import Cache
from hotset._memo import make_aclose
from hotset._settings import unwrap_ttl
from hotset._stats import CacheInfo, info_of


class FunctionKey:
    """The first part of a function's keys: two functions of the same name have different ones."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"


def cached_over(function: Any, *, cache: Any, key: Any, typed: bool, method: bool | None, is_async: bool) -> Any:
    """Returns `function` with its results stored in `cache`, which functions may share.

    Args:
        function: The function, or coroutine function.
        cache: Stores the results by (function, args, kwargs) or (function, key).
        key: Called with the arguments; its result is the key in their place.
        typed: Whether arguments of different types are different arguments.
        method: What the user passed: False is required for a method.
        is_async: Whether it is a coroutine function.

    Returns:
        The decorated function.

    Raises:
        TypeError: `cache` is not a `hotset.Cache`, or `function` is a method.
    """
    if not _is_cache(cache):
        raise TypeError(f"cache must be a hotset.Cache, not {type(cache).__name__}")
    if _methods.place_of(function, method).method:
        raise TypeError(
            "a method cannot be under cache=..: its keys would keep the instances alive. Pass method=False and a key that "
            "identifies the instance, or omit cache: then each instance has results of its own"
        )
    results: Cache[Any, Any] = cache
    this = FunctionKey(getattr(function, "__qualname__", repr(function)))

    def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if key is not None:
            return this, key(*args, **kwargs)
        if typed:
            return this, args, tuple(kwargs.items()), tuple(map(type, args)), tuple(map(type, kwargs.values()))
        return this, args, tuple(kwargs.items())

    wrapper = _async(function, results, key_of) if is_async else _sync(function, results, key_of)
    inner: Any = function if hasattr(function, "cache_invalidate") else None
    # `wraps` copied the attributes of a function that is itself cached: they belong to the inner
    # cache.
    attributes = cast("dict[str, Any]", vars(wrapper))
    for name in [name for name in attributes if name.startswith("cache_") and name not in ("cache_refresh", "cache_aclose")]:
        del attributes[name]

    def cache_info() -> CacheInfo:
        """Returns the counters of the cache, for all functions in it together."""
        return info_of(results.stats(), {**results._settings})  # pyright: ignore[reportPrivateUsage]

    def own() -> list[tuple[tuple[Any, ...], Any]]:
        return [(found, value) for found, value in results.items_hottest() if isinstance(found, tuple) and found and found[0] is this]

    def cache_items() -> list[tuple[_methods.Spelling, Any]]:
        """Returns the results of this function with their arguments, hottest first.

        With a `key`, its result is the only argument. Counts no hits.

        Returns:
            Pairs of (args, kwargs) and the result.
        """
        return [(((found[1],), {}) if key is not None else (found[1], dict(found[2])), value) for found, value in own()]

    def cache_keys() -> list[_methods.Spelling]:
        """Returns the arguments of the results of this function, as (args, kwargs), hottest first.
        """
        return [call for call, _ in cache_items()]

    def cache_clear() -> None:
        """Removes the results of this function, and those of an inner cached function."""
        results.delete_many([found for found, _ in own()])
        if inner is not None:
            inner.cache_clear()

    def cache_invalidate(*args: Any, **kwargs: Any) -> bool:
        """Removes the result of this call, however it is spelled.

        Also that of an inner cached function.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether there was a result.
        """
        found = any([results.delete(key_of(*call)) for call in calls(args, kwargs)])
        if inner is not None:
            found |= inner.cache_invalidate(*args, **kwargs)
        return found

    def cache_contains(*args: Any, **kwargs: Any) -> bool:
        """Returns whether there is a result of this call, however it is spelled."""
        return any(key_of(*call) in results for call in calls(args, kwargs))

    def calls(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[_methods.Spelling]:
        return [(args, kwargs)] if key is not None else _methods.spellings(function, args, kwargs, 0)

    def cache_set(value: Any, /, *args: Any, **kwargs: Any) -> None:
        """Stores `value` as the result of the call with these arguments, spelled as here."""
        results[key_of(args, kwargs)] = value

    def cache_parameters() -> dict[str, Any]:
        """Returns the settings of the cache, the cache, and the settings `key` and `typed`."""
        return {**results._settings, "cache": results, "key": key, "typed": typed}  # pyright: ignore[reportPrivateUsage]

    for given in (cache_info, cache_clear, cache_invalidate, cache_contains, cache_set, cache_keys, cache_items, cache_parameters):
        setattr(wrapper, given.__name__, given)
    wrapper.cache = results
    return wrapper


def _is_cache(given: object) -> bool:
    return isinstance(given, Cache)


def _sync(function: Callable[..., Any], results: Cache[Any, Any], key_of: Callable[..., tuple[Any, ...]]) -> Any:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return results.get_or_load(key_of(args, kwargs), lambda _: function(*args, **kwargs))

    def cache_refresh(*args: Any, **kwargs: Any) -> Any:
        """Calls the function and stores its result."""
        found = key_of(args, kwargs)
        results.delete(found)
        return results.get_or_load(found, lambda _: function(*args, **kwargs))

    found: Any = wrapper
    found.cache_refresh = cache_refresh
    return found


def _async(function: Callable[..., Any], results: Cache[Any, Any], key_of: Callable[..., tuple[Any, ...]]) -> Any:
    tasks: _async_loads.Tasks = set()

    async def load(found: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return unwrap_ttl(await _async_loads.get(partial(results.begin, found), partial(function, *args, **kwargs), tasks=tasks))

    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await load(key_of(args, kwargs), args, kwargs)

    async def cache_refresh(*args: Any, **kwargs: Any) -> Any:
        """Calls the function and stores its result."""
        found = key_of(args, kwargs)
        results.delete(found)
        return await load(found, args, kwargs)

    found: Any = wrapper
    found.cache_refresh = cache_refresh
    found.cache_aclose = make_aclose(function, tasks)
    return found
