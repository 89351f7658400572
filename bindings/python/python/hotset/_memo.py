"""The methods of a function under `cached`, and what makes one of a function.

A plain function becomes the native Memo itself: nothing in Python lies on the way of a hit. The methods for users, which are not in a
hurry, are written here and given to its type. An `async def` becomes a coroutine function around a Memo.
"""

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper, wraps
from types import MethodType
from typing import Any

from hotset import _async_loads, _methods
from hotset._hotset import AsyncMethod, Memo, seal
from hotset._auto_snapshot import AutoSnapshotter
from hotset._refresh import reloader
from hotset._registry import register
from hotset._settings import checked_bound, unwrap_ttl
from hotset._stats import CacheInfo, Stats, info_of, stats_of


def __hotset_stats__(self: Any) -> Stats:
    return stats_of(self.stats(), self.cache_parameters())


def cache_info(self: Any) -> CacheInfo:
    """What was counted since the last cache_clear(): functools' four fields, then more."""
    return info_of(__hotset_stats__(self), self.cache_parameters())


def cache_clear(self: Memo) -> None:
    """Forgets all results, and what was counted; of a cache under this one, too."""
    self.clear()
    if (inner := _inner_cached(self)) is not None:
        inner.cache_clear()


def cache_invalidate(self: Memo, /, *args: Any, **kwargs: Any) -> bool:
    """Forgets the result of this call, however it is spelled; returns whether there was one.

    `f(1)` and `f(x=1)` are two calls for the cache, and each has a result of its own: this forgets both. A call that is in progress
    does not enter the cache. What a cache under this one holds for the same call is forgotten, too.
    """
    # (All of them: each may have a result of its own.)
    found = any([self.invalidate(*call) for call in _calls(self, args, kwargs, "cache_invalidate")])
    if (inner := _inner_cached(self)) is not None:
        found |= inner.cache_invalidate(*args, **kwargs)
    return found


def cache_contains(self: Memo, /, *args: Any, **kwargs: Any) -> bool:
    """Returns whether the result of this call is there, however it was spelled. Counts neither as a hit nor as a miss."""
    return any(self.contains(*call) for call in _calls(self, args, kwargs, "cache_contains"))


def cache_set(self: Memo, value: Any, /, *args: Any, **kwargs: Any) -> None:
    """Makes `value` the result of the call with these arguments, spelled as here (by position or by keyword)."""
    _check(self, args, "cache_set")
    self.set(args, kwargs, value)


def cache_refresh(self: Memo, /, *args: Any, **kwargs: Any) -> Any:
    """Calls the function, keeps its result, and returns it. Joins a call of it that is in progress."""
    _check(self, args, "cache_refresh")
    return self.refresh(args, kwargs)


def _check(memo: Any, args: tuple[Any, ...], verb: str) -> None:
    if memo.is_method():
        _methods.check_instance(memo, memo.__dict__["__hotset_place__"], args, verb)


def _calls(memo: Any, args: tuple[Any, ...], kwargs: dict[str, Any], verb: str) -> list[_methods.Spelling]:
    """The calls that mean the same; with a `key`, this one says it all."""
    _check(memo, args, verb)
    if memo.cache_parameters()["key"] is not None:
        return [(args, kwargs)]
    return _methods.spellings(memo.__wrapped__, args, kwargs, int(memo.is_method()))


def cache_keys(self: Memo) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Returns the arguments of all results that are kept, (args, kwargs) of each, hottest first.

    With a `key`, what that made of them is the only argument (but for a method's instance).
    """
    return [key for key, _ in self.entries()]


def cache_items(self: Memo) -> list[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
    """Returns all results that are kept with their arguments, ((args, kwargs), result) of each, hottest first. Counts no hits."""
    return self.entries()


def cache_resize(self: Any, maxsize: int) -> None:
    """Sets how many results, or with a max_weight how much weight, may be kept; the coldest go at once if there are too many.

    A method's results are bounded so for all instances together, then.
    """
    settings = self.__dict__["__hotset_settings__"]
    which = "maxsize" if settings["max_weight"] is None else "max_weight"
    size = checked_bound(which, maxsize)
    self.resize(size)
    settings[which] = size


def cache_reset_stats(self: Memo) -> None:
    """Counts hits, misses and all the rest from 0 again. (`cache_clear` does so for hits and misses only.)"""
    self.reset_stats()


def __repr__(self: Any) -> str:
    name = getattr(self, "__qualname__", "?")
    return f"<{'method' if self.is_method() else 'function'} {getattr(self, '__module__', '?')}.{name} under hotset.cached, at {id(self):#x}>"


def cache_save(self: Memo, path: Any = None) -> int:
    """Saves the results to this file, or to the one that `snapshot` named; returns how many. See `hotset.Cache.save`."""
    return _auto_snapshotter(self).save(path)


def cache_load(self: Memo, path: Any = None) -> int:
    """Loads results from this file, or from the one that `snapshot` named; returns how many came in. See `hotset.Cache.load`."""
    return _auto_snapshotter(self).load(path)


def _inner_cached(memo: Any) -> Any:
    """The function, if it is itself under `cached`: what it returns is out of date when its results here are."""
    function = memo.__dict__.get("__wrapped__")
    return function if hasattr(function, "cache_invalidate") else None


def _auto_snapshotter(memo: Any) -> AutoSnapshotter:
    return memo.__dict__["__hotset_auto_snapshot__"]  # type: ignore[no-any-return]


def __set_name__(self: Any, owner: type, name: str) -> None:
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


_NO_METHOD = "a method's results belong to its instances, which a snapshot cannot keep: cache a function that the method calls"

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
    cache_save,
    cache_load,
)
if "cache_info" not in vars(Memo):  # (it is there if this module is imported anew)
    for _method in (*_SHARED, cache_refresh, __hotset_stats__, __repr__, __set_name__):
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
    """The function under a cache of its own."""
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
    # This takes over the function's attributes, which are another cache's if it is under one: they would hide the type's own.
    update_wrapper(memo, function)
    for own in (*_SHARED, cache_refresh, __hotset_stats__):
        memo.__dict__.pop(own.__name__, None)
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
        """Calls the function, keeps its result, and returns it. Joins a call of it that is in progress."""
        return unwrap_ttl(await _async_loads.get(partial(memo.begin, args, kwargs, True), partial(function, *args, **kwargs), tasks=tasks))

    for shared in _SHARED:
        setattr(wrapper, shared.__name__, MethodType(shared, memo))
    wrapper.cache_parameters = memo.cache_parameters  # type: ignore[attr-defined]
    wrapper.cache_refresh = cache_refresh  # type: ignore[attr-defined]
    wrapper.cache_aclose = make_aclose(function, tasks)  # type: ignore[attr-defined]
    return wrapper


def make_aclose(function: Callable[..., Any], tasks: _async_loads.Tasks) -> Callable[..., Any]:
    """Returns the `cache_aclose` of a coroutine function whose loads are run by `tasks`."""
    inner: Callable[..., Any] | None = getattr(function, "cache_aclose", None)

    async def cache_aclose(*, cancel: bool = True) -> None:
        """Ends the calls of the function that are in progress in this event loop, reloads included, and waits for them.

        Callers that await a cancelled call in this event loop get a CancelledError; those in other loops and threads begin anew.
        A call that `cache_aclose` is itself called from continues. The cache keeps its results, and can be used again.

        Args:
            cancel: Cancel the calls. False: wait until they have ended by themselves, except those that wait here for the caller's own.
        """
        await _async_loads.close(tasks, cancel=cancel)
        if inner is not None:
            await inner(cancel=cancel)

    return cache_aclose


def _either(is_kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Of a function, or of an object's __call__."""
    return is_kind(function) or (not isinstance(function, type) and is_kind(getattr(function, "__call__", None)))


def is_async(function: Callable[..., Any]) -> bool:
    return _either(inspect.iscoroutinefunction, function)


def refuse_generators(function: Callable[..., Any]) -> None:
    if _either(inspect.isgeneratorfunction, function) or _either(inspect.isasyncgenfunction, function):
        raise TypeError("a generator can be gone through once only, so keeping it is of no use: cache a function that returns a list or a tuple")
