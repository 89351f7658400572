"""Creates the cache of a function under `cached`, and its methods for users.

A plain function becomes the native `Memo` itself, so that no Python code runs on a hit. The methods
for users are written here in Python, and set as attributes of its type. An `async def` becomes a
coroutine function around a `Memo`.
"""

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper, wraps
from types import MethodType
from typing import Any

from hotset import _async_loads, _methods
from hotset._hotset import AsyncMethod, Memo, seal
from hotset._advice import Advice, advice_of
from hotset._auto_snapshot import AutoSnapshotter
from hotset._refresh import reloader
from hotset._registry import register
from hotset._settings import checked_bound, unwrap_ttl
from hotset._stats import CacheInfo, Stats, info_of, stats_of


def __hotset_stats__(self: Any) -> Stats:
    return stats_of(self.stats(), self.cache_parameters())


def __hotset_totals__(self: Any) -> Stats:
    return stats_of(self.totals(), self.cache_parameters())


def cache_info(self: Any) -> CacheInfo:
    """Returns hits, misses, maxsize and currsize, as functools does, and further counters."""
    return info_of(__hotset_stats__(self), self.cache_parameters())


def cache_clear(self: Memo) -> None:
    """Removes all results, and resets hits and misses; also those of an inner cached function."""
    self.clear()
    if (inner := _inner_cached(self)) is not None:
        inner.cache_clear()


def cache_invalidate(self: Memo, /, *args: Any, **kwargs: Any) -> bool:
    """Removes the result of this call, however it is spelled.

    `f(1)` and `f(x=1)` are two keys with a result each: both results are removed. A call in
    progress is invalidated: its result is not stored. An inner cached function is invalidated, too.

    Args:
        *args: The positional arguments of the call.
        **kwargs: The keyword arguments of the call.

    Returns:
        Whether there was a result.
    """
    # A list, so that `any` does not stop at the first: each spelling may have a result of its own.
    found = any([self.invalidate(*call) for call in _calls(self, args, kwargs, "cache_invalidate")])
    if (inner := _inner_cached(self)) is not None:
        found |= inner.cache_invalidate(*args, **kwargs)
    return found


def cache_contains(self: Memo, /, *args: Any, **kwargs: Any) -> bool:
    """Returns whether there is a result of this call, however it is spelled.

    Counts neither as a hit nor as a miss.

    Args:
        *args: The positional arguments of the call.
        **kwargs: The keyword arguments of the call.
    """
    return any(self.contains(*call) for call in _calls(self, args, kwargs, "cache_contains"))


def cache_set(self: Memo, value: Any, /, *args: Any, **kwargs: Any) -> None:
    """Stores `value` as the result of the call with these arguments, spelled as here.

    Args:
        value: The result.
        *args: The positional arguments of the call.
        **kwargs: The keyword arguments of the call.
    """
    _check(self, args, "cache_set")
    self.set(args, kwargs, value)


def cache_refresh(self: Memo, /, *args: Any, **kwargs: Any) -> Any:
    """Calls the function and stores its result, joining a call in progress.

    Args:
        *args: The positional arguments of the call.
        **kwargs: The keyword arguments of the call.

    Returns:
        The result.
    """
    _check(self, args, "cache_refresh")
    return self.refresh(args, kwargs)


def _check(memo: Any, args: tuple[Any, ...], verb: str) -> None:
    if memo.is_method():
        _methods.check_instance(memo, memo.__dict__["__hotset_place__"], args, verb)


def _calls(memo: Any, args: tuple[Any, ...], kwargs: dict[str, Any], verb: str) -> list[_methods.Spelling]:
    """Returns all spellings of this call; with a `key`, only this one, since it decides alone."""
    _check(memo, args, verb)
    if memo.cache_parameters()["key"] is not None:
        return [(args, kwargs)]
    return _methods.spellings(memo.__wrapped__, args, kwargs, int(memo.is_method()))


def cache_keys(self: Memo) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Returns the arguments of all cached results, as (args, kwargs), hottest first.

    With a `key`, its result is the only argument (except for a method's instance).
    """
    return [key for key, _ in self.entries()]


def cache_items(self: Memo) -> list[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
    """Returns all cached results with their arguments, hottest first, counting no hits.

    Returns:
        Pairs of (args, kwargs) and the result.
    """
    return self.entries()


def cache_resize(self: Any, maxsize: int) -> None:
    """Sets the capacity, evicting the coldest results immediately if there are too many.

    It then bounds the results of a method for all instances together.

    Args:
        maxsize: The capacity in results, or in weight with a `max_weight`.

    Raises:
        TypeError: `maxsize` is not an int.
        ValueError: `maxsize` is negative.
    """
    settings = self.__dict__["__hotset_settings__"]
    which = "maxsize" if settings["max_weight"] is None else "max_weight"
    size = checked_bound(which, maxsize)
    self.resize(size)
    settings[which] = size


def cache_reset_stats(self: Memo) -> None:
    """Resets all counters to 0. (`cache_clear` resets only hits and misses.)"""
    self.reset_stats()


def __repr__(self: Any) -> str:
    name = getattr(self, "__qualname__", "?")
    return f"<{'method' if self.is_method() else 'function'} {getattr(self, '__module__', '?')}.{name} under hotset.cached, at {id(self):#x}>"


def cache_advise(self: Memo) -> Advice:
    """Returns the hit ratio that the cache would have at other sizes. See `hotset.Cache.advise`.

    The function must be under `cached(profile=True)`, or have an `autosize`.

    Raises:
        RuntimeError: The cache is not profiled, or was resized to 0.
    """
    return advice_of(self.advise())


def cache_save(self: Memo, path: Any = None) -> int:
    """Saves the results to a file. See `hotset.Cache.save`.

    Args:
        path: The path of the file; None for the one that `snapshot` named.

    Returns:
        The number of saved results.

    Raises:
        TypeError: There is neither a `path` nor a `snapshot`.
        SnapshotError: The codec can encode none of the results.
        OSError: The operating system refused to write the file.
    """
    return _auto_snapshotter(self).save(path)


def cache_load(self: Memo, path: Any = None) -> int:
    """Loads results from a file. See `hotset.Cache.load`.

    Args:
        path: The path of the file; None for the one that `snapshot` named.

    Returns:
        The number of restored results.

    Raises:
        TypeError: There is neither a `path` nor a `snapshot`.
        SnapshotError: The file is corrupt or incompatible.
        OSError: The operating system refused to read the file.
    """
    return _auto_snapshotter(self).load(path)


def _inner_cached(memo: Any) -> Any:
    """Returns the decorated function if it is itself under `cached`, else None.

    Its results are out of date whenever those here are.
    """
    function = memo.__dict__.get("__wrapped__")
    return function if hasattr(function, "cache_invalidate") else None


def _auto_snapshotter(memo: Any) -> AutoSnapshotter:
    return memo.__dict__["__hotset_auto_snapshot__"]  # type: ignore[no-any-return]


def __set_name__(self: Any, owner: type, name: str) -> None:
    """Called by the interpreter when the class is finished: decides whether this is a method."""
    place = self.__dict__.get("__hotset_place__")
    if place is None:
        return
    if not place.is_explicit and place.scope == owner.__qualname__:
        auto_snapshotter = _auto_snapshotter(self)
        if auto_snapshotter.path is not None:
            auto_snapshotter.stop()
            raise TypeError(_NO_METHOD)
        self.set_method()
    if self.is_method() and not _methods.is_mixin(owner):
        self.check_instances(owner)


_NO_METHOD = "snapshot is not possible for a method, whose results belong to its instances: cache a function that it calls"

_SHARED = (
    cache_info,
    cache_clear,
    cache_invalidate,
    cache_contains,
    cache_set,
    cache_keys,
    cache_items,
    cache_resize,
    cache_reset_stats,
    cache_advise,
    cache_save,
    cache_load,
)
if "cache_info" not in vars(Memo):  # (It is set already if this module is imported again.)
    for _method in (*_SHARED, cache_refresh, __hotset_stats__, __hotset_totals__, __repr__, __set_name__):
        setattr(Memo, _method.__name__, _method)
    seal(Memo)


def memoized(
    function: Callable[..., Any],
    settings: dict[str, Any],
    name: str | None,
    method: bool | None,
    snapshot_settings: dict[str, Any],
    per_instance: bool,
) -> Any:
    """Returns `function` under a cache of its own.

    Args:
        function: What is decorated.
        settings: The keyword arguments of `Memo`, validated.
        name: The name of the cache in `hotset.caches()`; None for no name.
        method: Whether the function is a method; None to detect it.
        snapshot_settings: The keyword arguments path, codec and schema of `AutoSnapshotter`.
        per_instance: Whether the capacity of a method's cache counts for each instance.

    Returns:
        A `Memo`, or for a coroutine function a coroutine function around one.

    Raises:
        TypeError: `function` cannot be cached, or not with these settings.
    """
    if not callable(function):
        raise TypeError(f"cached decorates functions, not {type(function).__name__}")
    refuse_generators(function)
    asynchronous = is_async(function)
    place = _methods.place_of(function, method)
    if place.method and snapshot_settings["path"] is not None:
        raise TypeError(_NO_METHOD)
    settings = dict(settings)
    memo = Memo(
        function,
        **settings,
        refresher=None if settings["stale_while_revalidate"] is None else reloader,
        method=place.method,
        per_instance=per_instance,
    )
    # This copies the function's attributes. Those of an inner cache would hide the type's own.
    update_wrapper(memo, function)
    for own in (*_SHARED, cache_refresh, __hotset_stats__, __hotset_totals__):
        memo.__dict__.pop(own.__name__, None)
    memo.__dict__.pop("__hotset_tier2__", None)
    memo.__hotset_settings__ = settings  # type: ignore[attr-defined]
    memo.__hotset_place__ = place  # type: ignore[attr-defined]
    auto_snapshotter = AutoSnapshotter(memo, getattr(function, "__qualname__", f"<{type(function).__qualname__}>"), **snapshot_settings)
    memo.cache_parameters = lambda: {**settings, "name": name, **auto_snapshotter.settings}  # type: ignore[attr-defined]
    memo.__hotset_auto_snapshot__ = auto_snapshotter  # type: ignore[attr-defined]
    auto_snapshotter.start()
    register(name, memo)
    if not asynchronous:
        return memo
    wrapper = _make_coroutine_function(function, memo, settings)
    return AsyncMethod(wrapper) if place.method else wrapper


def _make_coroutine_function(function: Callable[..., Any], memo: Any, settings: dict[str, Any]) -> Any:
    serve_stale = settings["stale_while_revalidate"] is not None
    share = settings["single_flight"]
    tasks: _async_loads.Tasks = set()

    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        begin, load = partial(memo.begin, args, kwargs), partial(function, *args, **kwargs)
        return unwrap_ttl(await _async_loads.get(begin, load, serve_stale=serve_stale, share=share, tasks=tasks))

    async def cache_refresh(*args: Any, **kwargs: Any) -> Any:
        """Calls the function and stores its result, joining a call in progress."""
        return unwrap_ttl(await _async_loads.get(partial(memo.begin, args, kwargs, True), partial(function, *args, **kwargs), tasks=tasks))

    for shared in _SHARED:
        setattr(wrapper, shared.__name__, MethodType(shared, memo))
    wrapper.cache_parameters = memo.cache_parameters  # type: ignore[attr-defined]
    wrapper.cache_refresh = cache_refresh  # type: ignore[attr-defined]
    wrapper.cache_aclose = make_aclose(function, tasks)  # type: ignore[attr-defined]
    return wrapper


def make_aclose(function: Callable[..., Any], tasks: _async_loads.Tasks) -> Callable[..., Any]:
    """Returns the `cache_aclose` of a coroutine function whose loads run in `tasks`.

    Args:
        function: The coroutine function.
        tasks: Its loads in progress, as `_async_loads.get` maintains them.

    Returns:
        The coroutine function `cache_aclose`.
    """
    inner: Callable[..., Any] | None = getattr(function, "cache_aclose", None)

    async def cache_aclose(*, cancel: bool = True) -> None:
        """Ends the calls in progress in this event loop, reloads included, and waits for them.

        Callers that await a cancelled call in this event loop get a CancelledError; those in other
        loops and threads begin anew. The call that `cache_aclose` is itself called from continues.
        The cache keeps its results, and can be used again.

        Args:
            cancel: Whether to cancel the calls. Otherwise they run to their end; those that wait
                here for the caller's own call are not waited for.
        """
        await _async_loads.close(tasks, cancel=cancel)
        if inner is not None:
            await inner(cancel=cancel)

    return cache_aclose


def _either(is_kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Returns whether `is_kind` holds for a function, or for the `__call__` of an object."""
    return is_kind(function) or (not isinstance(function, type) and is_kind(getattr(function, "__call__", None)))


def is_async(function: Callable[..., Any]) -> bool:
    """Returns whether calling `function` returns a coroutine.

    Args:
        function: A function, or an object with a `__call__`.
    """
    return _either(inspect.iscoroutinefunction, function)


def refuse_generators(function: Callable[..., Any]) -> None:
    """Raises a TypeError if `function` is a generator function.

    Args:
        function: What is decorated.

    Raises:
        TypeError: It is a generator function, or an asynchronous one.
    """
    if _either(inspect.isgeneratorfunction, function) or _either(inspect.isasyncgenfunction, function):
        raise TypeError("a generator can be iterated only once, so it cannot be cached: cache a function that returns a list or a tuple")
