"""The decorator `cached`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Hashable
from functools import cached_property, partial, partialmethod
from types import EllipsisType
from typing import TYPE_CHECKING, Any, cast, overload

from hotset._codecs import CodecName, Schema, Serializer, checked_schema, codec_of
from hotset._mapping import Cache
from hotset._memo import is_async, memoized, refuse_generators
from hotset._methods import CachedClassMethod, place_of
from hotset._cached_over import cached_over
from hotset._settings import Cause, Policy, Seconds, checked_settings, memo_settings
from hotset._snapshot import Path, path_of
from hotset._types import AsyncCached, Cached, Decorator, P, R, SharedDecorator, TieredDecorator
from hotset._types import CachedClassMethod as TypedClassMethod

if TYPE_CHECKING:
    from hotset.tier2 import Redis


@overload
def cached(function: property, /) -> property: ...
@overload
def cached(function: staticmethod[P, R], /) -> staticmethod[P, R]: ...  # type: ignore[overload-overlap]  # the first that fits
@overload
def cached(function: classmethod[Any, P, R], /) -> TypedClassMethod[P, R]: ...
@overload
def cached(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCached[P, R]: ...
@overload
def cached(function: Callable[P, R], /) -> Cached[P, R]: ...
@overload
def cached(
    *,
    tier2: Redis,
    local_ttl: Seconds | None = None,
    maxsize: int | EllipsisType | None = ...,
    policy: Policy = "tinylfu",
    ttl: Seconds | None = None,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    weigher: Callable[[Any], int] | None = None,
    max_weight: int | None = None,
    on_removal: Callable[[tuple[Any, ...], dict[str, Any], Any, Cause], object] | None = None,
    stale_while_revalidate: Seconds | None = None,
    stale_if_error: Seconds | None = None,
    method: bool | None = None,
    name: str | None = None,
    codec: CodecName | Serializer = "values",
    schema: Schema = None,
) -> TieredDecorator: ...
@overload
def cached(
    *,
    maxsize: int | EllipsisType | None = ...,
    policy: Policy = "tinylfu",
    ttl: Seconds | None = None,
    tti: Seconds | None = None,
    jitter: float = 0.0,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    weigher: Callable[[Any], int] | None = None,
    max_weight: int | None = None,
    on_removal: Callable[[tuple[Any, ...], dict[str, Any], Any, Cause], object] | None = None,
    single_flight: bool = True,
    negative_ttl: Seconds | None = None,
    stale_while_revalidate: Seconds | None = None,
    stale_if_error: Seconds | None = None,
    timer: Callable[[], float] | None = None,
    method: bool | None = None,
    name: str | None = None,
    cache: None = None,
    snapshot: Path | None = None,
    codec: CodecName | Serializer = "values",
    schema: Schema = None,
    tier2: None = None,
) -> Decorator: ...
@overload
def cached(
    *, cache: Cache[Any, Any], key: Callable[..., Hashable] | None = None, typed: bool = False, method: bool | None = None
) -> SharedDecorator: ...
def cached(
    function: Any = None,
    /,
    *,
    maxsize: int | EllipsisType | None = ...,
    policy: Policy = "tinylfu",
    ttl: Seconds | None = None,
    tti: Seconds | None = None,
    jitter: float = 0.0,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    weigher: Callable[[Any], int] | None = None,
    max_weight: int | None = None,
    on_removal: Callable[[tuple[Any, ...], dict[str, Any], Any, Cause], object] | None = None,
    single_flight: bool = True,
    negative_ttl: Seconds | None = None,
    stale_while_revalidate: Seconds | None = None,
    stale_if_error: Seconds | None = None,
    timer: Callable[[], float] | None = None,
    method: bool | None = None,
    name: str | None = None,
    cache: Cache[Any, Any] | None = None,
    snapshot: Path | None = None,
    codec: CodecName | Serializer = "values",
    schema: Schema = None,
    tier2: Redis | None = None,
    local_ttl: Seconds | None = None,
) -> Any:
    """Keeps the results of a function, an `async def`, a method, a class method, a static method or a property.

    >>> import hotset
    >>> @hotset.cached(maxsize=1000, ttl=60)
    ... def price(item: str) -> int:
    ...     print("asked for", item)
    ...     return len(item)
    >>> price("tea"), price("tea")
    asked for tea
    (3, 3)
    >>> price.cache_invalidate("tea")
    True
    >>> price.cache_info()[:4]  # hits, misses, maxsize, currsize
    (1, 1, 1000, 0)

    maxsize: how many results at most; 1,024 unless said otherwise, None for no bound.
    policy: which results stay: "tinylfu" (those that are used often, and lately), "lru", "lfu", "fifo" or "random".
    ttl, tti: how long a result is good, after the call and after its last use; seconds or a timedelta.
    jitter: up to this part of its ttl a result ends earlier, at random, so that what was loaded together does not end together.
    key: called with the arguments; what it returns stands for them. typed: 3 and 3.0 are different arguments.
    weigher, max_weight: weigher(result) says what a result weighs, max_weight how much may be held, instead of maxsize.
    on_removal: called with args, kwargs, result and the cause: "expired", "size", "explicit" or "replaced".
    single_flight: one caller calls the function, others with the same arguments wait for its result.
    negative_ttl: Seconds for which an exception is remembered and raised again, as a copy each time.
    stale_while_revalidate: Seconds after its ttl for which a result is still returned, while it is loaded anew: by a thread
    (`hotset.set_reload_threads`), or a task.
    stale_if_error: Seconds after its ttl for which a result is still returned if the function raises. The logger "hotset" is warned once per
    spell of failures: when a call fails, and again only after a call with the same arguments has succeeded, or no call has failed for
    `stale_if_error` seconds.
    timer: called instead of the system's monotonic clock, for tests: `timer=lambda: time.time()` follows freezegun and time-machine.
    name: lists the cache in `hotset.caches()`.
    tier2: A `hotset.tier2.Redis`: results are shared with other processes, which see what this one invalidates. See below.
    maxsize, policy, weigher, max_weight and on_removal concern the results in this process, then; tti, jitter, negative_ttl, timer and
    single_flight=False are not possible.
    local_ttl: With tier2, the seconds that a result stays in this process without new confirmation.
    cache: a `hotset.Cache` in which the results are kept, beside those of other functions; its settings are the cache's.
    snapshot: a file in which results outlive the process; codec, schema: how they are written. See below.

    A method's results are kept per instance, by identity, without keeping the instance alive, and go when it goes. With a `key`, they are kept
    per instance and key. A method is what is defined in the body of a class: a plain function by any name of its first parameter, an
    `async def`, or one within another decorator, if that is named self or cls. `method=True` says so of others (a function that is put into a
    class later), `method=False` makes the instance an argument as any other, which is how instances share results: a Django model, new in every
    request, with `method=False, key=lambda self: self.pk`. Without a `maxsize` of its own a method's cache has room for 1,024 results of
    each instance, on average; with one, that bounds all instances together. Instances without weak references (of NamedTuple, IntEnum, frozen
    dataclasses with slots) are told apart by type and equality. Results that lead to objects of classes are held by an attribute
    `__hotset_results__` of the instance, so that cycles through them are collected.

    On a free-threaded interpreter, later insertions remove the results of instances that are gone:
    every 64 insertions, or every `n` if the last removal left `n` results and that is more. Cycles
    through results are not collected there, and the 1,024 results without a `maxsize` are those of
    all instances together.

    >>> class Shop:
    ...     @hotset.cached
    ...     def total(self, month: int) -> int:
    ...         return month * 100
    >>> shop = Shop()
    >>> shop.total(3), shop.total(3)
    (300, 300)
    >>> shop.total.cache_invalidate(3)  # or Shop.total.cache_invalidate(shop, 3)
    True

    `f(1)` and `f(x=1)` are two calls for the cache, as with functools. `cache_invalidate` and `cache_contains` find the results of both.
    A function may return `hotset.WithTtl(result, seconds)` for a result with a time to live of its own.

    An `async def` is loaded by a task of its own: cancelling a caller that awaits it does not cancel the load. Tasks of other event loops, in
    other threads, share it; when its event loop is closed or stops they begin anew.

    With a `snapshot`, results are loaded from that file when the function is decorated, and saved to it when the interpreter exits, if any
    came or went. `f.cache_save()` saves at any time: what a process does not survive (a signal that it does not handle, `os._exit`) saves
    nothing. Times to live go on by the wall clock while no process runs. Remembered exceptions are not saved; methods have no snapshot.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "prices.snapshot")
    >>> @hotset.cached(ttl=3600, snapshot=path)
    ... def price(item: str) -> dict[str, float]:
    ...     return {"EUR": len(item) * 1.5}
    >>> price("tea")
    {'EUR': 4.5}
    >>> price.cache_save()
    1

    codec: "values" (None, bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, Decimal, UUID and the classes of
    datetime, each as exactly what it was), "bytes", "json" (what JSON gives back unchanged), or an object with `dumps` and `loads`, as
    msgpack and orjson are. "pickle" writes almost anything, and *loading a pickle runs whatever its writer wanted*: only for files that
    no other user can write. Arguments are always written by "values", but where the codec is "pickle"; a `key` can make simple ones of others.
    schema: a number or string to be changed whenever the function, or what its results mean, changes: a file with another one, of another
    codec or another function is not loaded.

    With `tier2`, a result that this process lacks is read from the server, and calculated by one caller of all processes if that lacks it, too.
    `cache_invalidate`, `cache_set`, `cache_expire` and `cache_clear` concern both tiers and all processes, and return whether the server confirmed it;
    `cache_ainvalidate`, `cache_aset`, `cache_aexpire` and `cache_aclear` are for asyncio. Arguments must be simple values, or a `key` makes such
    of them; a method needs a `key`. `codec` and `schema` say how results are written there. `name` is the cache's name on the server: without one it is
    the function's qualified name.

    A file that cannot be loaded is told by a `hotset.SnapshotWarning`, and the function begins without. A damaged or outdated snapshot is
    replaced by the next save; a file that is no snapshot is not, but by an explicit `cache_save()`. Processes that share a file, as
    gunicorn's workers do, each save what they have: the last one wins. One that did nothing since a fork leaves the file to the
    others. A symbolic link is followed, and an existing file's permissions are kept: see `hotset.Cache.save`.

    Raises:
        TypeError, ValueError, MemoryError, RuntimeError, OSError: As `hotset.Cache`, when the function is decorated.
    """
    if tier2 is None and local_ttl is not None:
        raise TypeError("local_ttl bounds how long results stay in front of a second tier: give tier2=, too")
    given = {name: value for name, value in locals().items() if name not in ("function", "cache", "key", "typed", "method")}
    if cache is not None:
        for setting, value in given.items():
            if value != _DEFAULTS[setting]:
                raise TypeError(f"{setting} is a setting of the cache, which cache={cache!r} has already")
        decorate_under = partial(cached_over, cache=cache, key=key, typed=typed, method=method)
        return partial(_decorate_over, decorate_under=decorate_under) if function is None else _decorate_over(function, decorate_under=decorate_under)
    shared = checked_settings(
        maxsize=maxsize,
        policy=policy,
        ttl=ttl,
        tti=tti,
        jitter=jitter,
        weigher=weigher,
        max_weight=max_weight,
        on_removal=on_removal,
        negative_ttl=negative_ttl,
        timer=timer,
    )
    if tier2 is not None:
        if snapshot is not None:
            raise TypeError("snapshot and tier2 exclude each other: after a restart, results are in the second tier")
        for setting, value in {"tti": tti, "jitter": jitter, "negative_ttl": negative_ttl, "timer": timer, "single_flight": single_flight}.items():
            if value != _DEFAULTS[setting]:
                raise TypeError(f"{setting} and tier2 exclude each other: all processes share a result and its lifetime")
        tiered = partial(
            _decorate_tiered,
            method=method,
            tier2=tier2,
            local_ttl=local_ttl,
            shared=shared,
            key=key,
            typed=typed,
            single_flight=single_flight,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            name=name,
            codec=codec,
            schema=schema,
        )
        return tiered if function is None else tiered(function)
    settings = memo_settings(
        shared,
        typed=typed,
        key=key,
        single_flight=single_flight,
        stale_while_revalidate=stale_while_revalidate,
        stale_if_error=stale_if_error,
    )
    snapshot_settings = {"path": None if snapshot is None else path_of(snapshot), "codec": codec_of(codec), "schema": checked_schema(schema)}
    # (Without a bound of its own, a method's cache has room for so many results of each instance.)
    per_instance = maxsize is ... and max_weight is None
    decorate = partial(_decorate, settings=settings, name=name, method=method, snapshot_settings=snapshot_settings, per_instance=per_instance)
    return decorate if function is None else decorate(function)


_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(cached).parameters.items()}


def _decorate_over(function: Any, /, *, decorate_under: Callable[..., Any]) -> Any:
    if isinstance(function, staticmethod):
        return staticmethod(decorate_under(cast(Any, function).__func__, is_async=is_async(cast(Any, function).__func__)))
    if not callable(function):
        raise TypeError(f"cached(cache=..) decorates functions, not {type(function).__name__}")
    refuse_generators(function)
    return decorate_under(function, is_async=is_async(function))


def _decorate_tiered(function: Any, /, *, method: bool | None, **settings: Any) -> Any:
    from hotset.tier2._decorator import decorate

    if isinstance(function, staticmethod):
        return staticmethod(decorate(cast(Any, function).__func__, **settings))
    if not callable(function):
        raise TypeError(f"cached(tier2=..) decorates functions, not {type(function).__name__}")
    refuse_generators(function)
    place = place_of(function, method)
    if (place.method or (place.scope is not None and method is not False)) and settings["key"] is None:
        raise TypeError("a method's results are shared by all processes with tier2: give key=, which says what stands for the instance")
    return decorate(function, **settings)


def _decorate(
    function: Any, /, *, settings: dict[str, Any], name: str | None, method: bool | None, snapshot_settings: dict[str, Any], per_instance: bool
) -> Any:
    under_cache = partial(memoized, settings=settings, name=name, snapshot_settings=snapshot_settings, per_instance=per_instance)
    match function:
        case classmethod() if snapshot_settings["path"] is not None:
            raise TypeError("a class method's results belong to classes, which a snapshot cannot keep: cache a function that it calls")
        case classmethod():
            return CachedClassMethod(under_cache(cast(Any, function).__func__, method=True))
        case staticmethod():
            return staticmethod(under_cache(function.__func__, method=False))
        case partialmethod():
            return partialmethod(under_cache(function.func, method=method is not False), *function.args, **function.keywords)
        case property():
            if function.fget is None:
                raise TypeError("this property has no getter, whose results could be kept")
            return function.getter(under_cache(function.fget, method=True))
        case cached_property():
            raise TypeError("a cached_property keeps its value already: use cached on a property, or on a method")
        case int():
            raise TypeError(f"cached({function}): name the setting, as in cached(maxsize={function})")
        case _:
            return under_cache(function, method=method)
