"""The methods of a function under `cached`, and what makes one of a function.

A plain function becomes the native Memo itself: nothing in Python lies on the way of a hit. The methods for users, which are not in a
hurry, are written here and given to its type. An `async def` becomes a coroutine function around a Memo.
"""

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper, wraps
from types import MethodType
from typing import Any

from hotset import _flights
from hotset._hotset import Memo, seal
from hotset._keep import Keeper
from hotset._refresh import reloader
from hotset._registry import register
from hotset._stats import CacheInfo, Stats, info_of, stats_of


def __hotset_stats__(self: Any) -> Stats:
    return stats_of(self.stats(), self.cache_parameters())


def cache_info(self: Any) -> CacheInfo:
    """What was counted since the last cache_clear(): functools' four fields, then more."""
    return info_of(__hotset_stats__(self), self.cache_parameters())


def cache_clear(self: Memo) -> None:
    """Forgets all results, and what was counted; of a cache under this one, too."""
    self.clear()
    if (below := _cached_below(self)) is not None:
        below.cache_clear()


def cache_invalidate(self: Memo, /, *args: Any, **kwargs: Any) -> bool:
    """Forgets the result of this call; whether there was one. A call that is going on does not enter the cache.

    What a cache under this one holds for the same call is forgotten, too.
    """
    found = self.invalidate(args, kwargs)
    if (below := _cached_below(self)) is not None:
        found |= below.cache_invalidate(*args, **kwargs)
    return found


def cache_contains(self: Memo, /, *args: Any, **kwargs: Any) -> bool:
    """Whether the result of this call is there. Counts neither as a hit nor as a miss."""
    return self.contains(args, kwargs)


def cache_set(self: Memo, value: Any, /, *args: Any, **kwargs: Any) -> None:
    """Makes this value the result of the call with these arguments."""
    self.set(args, kwargs, value)


def cache_refresh(self: Memo, /, *args: Any, **kwargs: Any) -> Any:
    """Calls the function, keeps its result, and returns it. Joins a call of it that is going on."""
    return self.refresh(args, kwargs)


def cache_save(self: Memo, path: Any = None) -> int:
    """Saves the results to this file, or to the one that `snapshot` named; returns how many. See `hotset.Cache.save`."""
    return _keeper(self).save(path)


def cache_load(self: Memo, path: Any = None) -> int:
    """Loads results from this file, or from the one that `snapshot` named; returns how many came in. See `hotset.Cache.load`."""
    return _keeper(self).load(path)


def _cached_below(memo: Any) -> Any:
    """The function, if it is itself under `cached`: what it returns is out of date when its results here are."""
    function = memo.__dict__.get("__wrapped__")
    return function if hasattr(function, "cache_invalidate") else None


def _keeper(memo: Any) -> Keeper:
    return memo.__dict__["__hotset_keeper__"]  # type: ignore[no-any-return]


def __set_name__(self: Any, owner: type, name: str) -> None:
    keeper = self.__dict__.get("__hotset_keeper__")
    if keeper is not None and keeper.path is not None:
        keeper.stop()
        raise TypeError(_NO_METHOD)
    _becomes_a_method(self, owner, name)


_NO_METHOD = "a method's results belong to its instances, which a snapshot cannot keep: cache a function that the method calls"

_SHARED = (cache_info, cache_clear, cache_invalidate, cache_contains, cache_set, cache_save, cache_load)
if "cache_info" not in vars(Memo):  # (it is there if this module is imported anew)
    _becomes_a_method = Memo.__set_name__
    for _method in (*_SHARED, cache_refresh, __hotset_stats__, __set_name__):
        setattr(Memo, _method.__name__, _method)
    seal(Memo)


def memoised(
    function: Callable[..., Any], settings: dict[str, Any], name: str | None, method: bool | None, kept: dict[str, Any]
) -> Any:
    """The function under a cache of its own."""
    if not callable(function):
        raise TypeError(f"cached decorates functions, not {type(function).__name__}")
    _refuse_generators(function)
    asynchronous = _is_async(function)
    method = _takes_self(function) if method is None else method
    if method and kept["path"] is not None:
        raise TypeError(_NO_METHOD)
    memo = Memo(
        function,
        **settings,
        refresher=None if settings["stale_while_revalidate"] is None else reloader,
        method=method,
    )
    # This takes over the function's attributes, which are another cache's if it is under one: they would hide the type's own.
    update_wrapper(memo, function)
    for own in (*_SHARED, cache_refresh, __hotset_stats__):
        memo.__dict__.pop(own.__name__, None)
    keeper = Keeper(memo, getattr(function, "__qualname__", f"<{type(function).__qualname__}>"), **kept)
    memo.cache_parameters = lambda: {**settings, "name": name, **keeper.settings}  # type: ignore[attr-defined]
    memo.__hotset_keeper__ = keeper  # type: ignore[attr-defined]
    keeper.start()
    register(name, memo)  # type: ignore[arg-type]  # it got the method above
    return _awaitable(function, memo, settings) if asynchronous else memo


def _awaitable(function: Callable[..., Any], memo: Any, settings: dict[str, Any]) -> Any:
    serve_stale = settings["stale_while_revalidate"] is not None
    share = settings["single_flight"]

    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        begin, load = partial(memo.begin, args, kwargs), partial(function, *args, **kwargs)
        return await _flights.get(begin, load, serve_stale=serve_stale, share=share)

    async def cache_refresh(*args: Any, **kwargs: Any) -> Any:
        """Calls the function, keeps its result, and returns it. Joins a call of it that is going on."""
        return await _flights.get(partial(memo.begin, args, kwargs, True), partial(function, *args, **kwargs))

    for shared in _SHARED:
        setattr(wrapper, shared.__name__, MethodType(shared, memo))
    wrapper.cache_parameters = memo.cache_parameters  # type: ignore[attr-defined]
    wrapper.cache_refresh = cache_refresh  # type: ignore[attr-defined]
    return wrapper


def _either(is_kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Of a function, or of an object's __call__."""
    return is_kind(function) or (not isinstance(function, type) and is_kind(getattr(function, "__call__", None)))


def _is_async(function: Callable[..., Any]) -> bool:
    return _either(inspect.iscoroutinefunction, function)


def _refuse_generators(function: Callable[..., Any]) -> None:
    if _either(inspect.isgeneratorfunction, function) or _either(inspect.isasyncgenfunction, function):
        raise TypeError("a generator can be gone through once only, so keeping it is of no use: cache a function that returns a list or a tuple")


def _takes_self(function: Callable[..., Any]) -> bool:
    """Whether this was written in a class's body, for instances.

    A Memo in a class's body learns that it is a method's from Python; one that is within another decorator (`property` above all)
    does not, nor does an `async def`. These are known by their place, and by their first argument's name.
    """
    scope = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not scope or scope.endswith("<locals>"):
        return False
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return next(iter(parameters), None) == "self"
