"""The decorator `cached`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from functools import cached_property, partial
from types import EllipsisType
from typing import Any, overload

from hotset._codecs import CodecName, Schema, Serializer, checked_schema, codec_of
from hotset._memo import memoised
from hotset._settings import Cause, Policy, Seconds, checked, memo_settings
from hotset._snapshot import Path, path_of
from hotset._types import AsyncCached, Cached, Decorator, P, R


@overload
def cached(function: property, /) -> property: ...
@overload
def cached(function: staticmethod[P, R], /) -> staticmethod[P, R]: ...  # type: ignore[overload-overlap]  # the first that fits
@overload
def cached(function: classmethod[Any, P, R], /) -> classmethod[Any, P, R]: ...
@overload
def cached(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCached[P, R]: ...
@overload
def cached(function: Callable[P, R], /) -> Cached[P, R]: ...
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
    snapshot: Path | None = None,
    codec: CodecName | Serializer = "values",
    schema: Schema = None,
) -> Decorator: ...
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
    snapshot: Path | None = None,
    codec: CodecName | Serializer = "values",
    schema: Schema = None,
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
    negative_ttl: for so long an exception is remembered, and raised again.
    stale_while_revalidate: for so long after its ttl a result is still returned, while it is loaded anew (by a thread, or a task).
    stale_if_error: for so long after its ttl a result is still returned if the function raises.
    timer: called instead of the system's monotonic clock, for tests. name: lists the cache in `hotset.caches()`.
    snapshot: a file in which results outlive the process; codec, schema: how they are written. See below.

    A method's results are kept per instance, by identity, without keeping the instance alive. What is a method shows from its place in
    a class's body; `method=True` says so where it does not (a function that is put into a class later, within another decorator).

    >>> class Shop:
    ...     @hotset.cached
    ...     def total(self, month: int) -> int:
    ...         return month * 100
    >>> shop = Shop()
    >>> shop.total(3), shop.total(3)
    (300, 300)
    >>> Shop.total.cache_invalidate(shop, 3)  # the instance comes first
    True

    An `async def` is loaded by a task of its own: cancelling one who awaits it harms nobody, and the load goes on. Tasks of other event
    loops, in other threads, share it.

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
    nobody else can write. Arguments are always written by "values", but where the codec is "pickle"; a `key` can make simple ones of others.
    schema: a number or string to be changed whenever the function, or what its results mean, changes: a file with another one, of another
    codec or another function is not loaded.

    A file that cannot be loaded is told by a `hotset.SnapshotWarning`, and the function begins without. A damaged or outdated snapshot is
    replaced by the next save; a file that is no snapshot is not, but by an explicit `cache_save()`. Processes that share a file, as
    gunicorn's workers do, each save what they have: the last one wins. One that did nothing since a fork leaves the file to the
    others. A symbolic link is followed, and an existing file's permissions are kept: see `hotset.Cache.save`.
    """
    shared = checked(
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
    settings = memo_settings(
        shared,
        typed=typed,
        key=key,
        single_flight=single_flight,
        stale_while_revalidate=stale_while_revalidate,
        stale_if_error=stale_if_error,
    )
    kept = {"path": None if snapshot is None else path_of(snapshot), "codec": codec_of(codec), "schema": checked_schema(schema)}
    decorate = partial(_decorate, settings=settings, name=name, method=method, kept=kept)
    return decorate if function is None else decorate(function)


def _decorate(
    function: Any, /, *, settings: dict[str, Any], name: str | None, method: bool | None, kept: dict[str, Any]
) -> Any:
    under_cache = partial(memoised, settings=settings, name=name, kept=kept)
    match function:
        case classmethod() if kept["path"] is not None:
            raise TypeError("a class method's results belong to classes, which a snapshot cannot keep: cache a function that it calls")
        case classmethod() | staticmethod():
            return _rewrapped(function, partial(under_cache, method=False))
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


def _rewrapped(function: Any, under_cache: Callable[[Any], Any]) -> Any:
    """The class or static method of what is under a cache now."""
    return type(function)(under_cache(function.__func__))
