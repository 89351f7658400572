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
    from hotset.tier2 import Memcached, Redis


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
    tier2: Redis | Memcached,
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
    profile: bool = False,
    autosize: tuple[int, int, float] | None = None,
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
    profile: bool = False,
    autosize: tuple[int, int, float] | None = None,
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
    profile: bool = False,
    autosize: tuple[int, int, float] | None = None,
    method: bool | None = None,
    name: str | None = None,
    cache: Cache[Any, Any] | None = None,
    snapshot: Path | None = None,
    codec: CodecName | Serializer = "values",
    schema: Schema = None,
    tier2: Redis | Memcached | None = None,
    local_ttl: Seconds | None = None,
) -> Any:
    """Caches the results of a function, an `async def`, a method or a property.

    Also of a class method and a static method. Without settings it is used bare, as
    `@hotset.cached`.

    Args:
        function: What is decorated, if `cached` is used without settings.
        maxsize: The capacity in results, 1,024 by default; None for no bound.
        policy: Which results stay: "tinylfu" (those used often and recently), "lru", "lfu", "fifo"
            or "random".
        ttl: Seconds (or a timedelta) until a result expires, counted from the call.
        tti: Seconds (or a timedelta) until a result expires, counted from its last use.
        jitter: The fraction of its ttl, from 0 to less than 1, by which a result may expire
            earlier, at random: results that were loaded together do not expire together.
        key: Called with the arguments of a call; its result is the key in their place.
        typed: Whether 3 and 3.0 are different arguments.
        weigher: Called with a result; returns its weight. Requires `max_weight`.
        max_weight: The capacity in weight, instead of `maxsize`.
        on_removal: Called as `on_removal(args, kwargs, result, cause)` after a result was removed;
            the cause is "expired", "size", "explicit" or "replaced".
        single_flight: Whether one caller calls the function while others with the same arguments
            wait for its result.
        negative_ttl: Seconds for which an exception is cached and raised again, as a copy each
            time.
        stale_while_revalidate: Seconds after its ttl for which a result is still returned while it
            is reloaded: by a thread (`hotset.set_reload_threads`), or for an `async def` by a task.
        stale_if_error: Seconds after its ttl for which a result is still returned if the function
            raises. The logger "hotset" warns once per series of failures: at the first one, and
            again only after a call with the same arguments has succeeded, or no call has failed for
            `stale_if_error` seconds.
        timer: Called in place of the system's monotonic clock, for tests: `timer=lambda:
            time.time()` follows freezegun and time-machine.
        profile: Whether the cache simulates itself at other sizes, for `cache_advise()`.
        autosize: (low, high, target): the cache profiles itself, and sets its capacity within these
            bounds, to the smallest one that gives the share `target` of the hits of a cache without
            a bound.
        method: Whether the function is a method, where that cannot be detected. See "Methods".
        name: The name of the cache in `hotset.caches()`; with `tier2`, its name on the server,
            which is the function's qualified name by default.
        cache: A `hotset.Cache` that stores the results beside those of other functions, with that
            cache's settings. Only `key`, `typed` and `method` go with it.
        snapshot: The path of a file to which results are saved, so that they outlive the process.
            See "Snapshots".
        codec: How results are encoded, in a snapshot or on a server. See "Snapshots".
        schema: A number or string that must be changed whenever the function, or the meaning of its
            results, changes: a file with another schema, of another codec or of another function is
            not loaded.
        tier2: A `hotset.tier2.Redis` or `Memcached`: results are shared with other processes. See
            "Second tier".
        local_ttl: With `tier2`, the seconds for which a result stays in this process without new
            confirmation.

    Returns:
        The decorated function, or a decorator if only settings are given. Beside calls it has
        `cache_info`, `cache_clear`, `cache_parameters`, `cache_invalidate`, `cache_contains`,
        `cache_set`, `cache_refresh`, `cache_keys`, `cache_items`, `cache_resize`,
        `cache_reset_stats`, `cache_advise`, `cache_save` and `cache_load`; an `async def` also has
        `cache_aclose`.

    Raises:
        TypeError: A setting is of the wrong type, or settings exclude each other.
        ValueError: A setting is out of its range.
        MemoryError, RuntimeError, OSError: As `hotset.Cache` raises them, when the function is
            decorated.

    Example:
        >>> import hotset
        >>> @hotset.cached(maxsize=1000, ttl=60)
        ... def price(item: str) -> int:
        ...     print("loading", item)
        ...     return len(item)
        >>> price("tea"), price("tea")
        loading tea
        (3, 3)
        >>> price.cache_invalidate("tea")
        True
        >>> price.cache_info()[:4]  # hits, misses, maxsize, currsize
        (1, 1, 1000, 0)

    **Arguments.** `f(1)` and `f(x=1)` are two keys, as with functools. `cache_invalidate` and
    `cache_contains` find the results of both. A function may return `hotset.WithTtl(result,
    seconds)` for a result with a time to live of its own.

    **Methods.** Results of a method are cached per instance, by identity, without keeping the
    instance alive, and are removed with it. With a `key`, they are cached per instance and key. A
    function is a method if it is defined in the body of a class: a plain function by any name of
    its first parameter; an `async def`, or one within another decorator, if that name is self or
    cls. `method=True` makes others methods (a function that is put into a class later).
    `method=False` makes the instance an ordinary argument, so that instances share results: a
    Django model, new in every request, with `method=False, key=lambda self: self.pk`.

    Without a `maxsize` of its own, a method's cache has room for 1,024 results of each instance, on
    average; a given `maxsize` bounds all instances together. So does the default one with `profile`
    or `autosize`. Instances that cannot be weakly referenced (of NamedTuple, IntEnum, frozen
    dataclasses with slots) are distinguished by type and equality. Results that refer to objects of
    classes are held by an attribute `__hotset_results__` of the instance, so that cycles through
    them are collected.

    On a free-threaded interpreter, later insertions remove the results of dead instances: every 64
    insertions, or every `n` if the last removal left `n` results and that is more. Cycles through
    results are not collected there, and the 1,024 results without a `maxsize` are those of all
    instances together.

    >>> class Shop:
    ...     @hotset.cached
    ...     def total(self, month: int) -> int:
    ...         return month * 100
    >>> shop = Shop()
    >>> shop.total(3), shop.total(3)
    (300, 300)
    >>> shop.total.cache_invalidate(3)  # or Shop.total.cache_invalidate(shop, 3)
    True

    **Coroutine functions.** An `async def` runs in a task of its own: cancelling a caller that
    awaits it does not cancel the load. Tasks of other event loops, in other threads, share the
    load; they begin anew if its event loop is closed or stops.

    **Snapshots.** With a `snapshot`, results are loaded from that file when the function is
    decorated, and saved to it when the interpreter exits, if any was added or removed.
    `f.cache_save()` saves at any time: a process that ends without cleanup (by a signal that it
    does not handle, or by `os._exit`) saves nothing. Times to live keep counting down by the wall
    clock while no process runs. Cached exceptions are not saved; methods have no snapshot.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "prices.snapshot")
    >>> @hotset.cached(ttl=3600, snapshot=path)
    ... def price(item: str) -> dict[str, float]:
    ...     return {"EUR": len(item) * 1.5}
    >>> price("tea")
    {'EUR': 4.5}
    >>> price.cache_save()
    1

    The `codec` is "values" (None, bool, int, float, complex, str, bytes, tuple, list, dict, set,
    frozenset, Decimal, UUID and the classes of datetime, each restored exactly), "bytes", "json"
    (what JSON restores unchanged), or an object with `dumps` and `loads`, such as msgpack and
    orjson. "pickle" encodes almost any object, and *loading a pickle runs code of its writer's
    choice*: use it only for files that no other user can write. Arguments are always encoded by
    "values", except where the codec is "pickle"; a `key` can make simple ones of others.

    If the file cannot be loaded, a `hotset.SnapshotWarning` is issued, and the function starts
    without results. The next save replaces a corrupt or outdated snapshot; a file that is no
    snapshot is replaced only by an explicit `cache_save()`. Processes that share a file, such as
    the workers of gunicorn, each save what they hold, and the last one wins. A process that did
    nothing since a fork does not overwrite what others have saved. A symbolic link is followed, and
    the permissions of an existing file are kept: see `hotset.Cache.save`.

    **Second tier.** With `tier2`, a result that this process lacks is read from the server; if the
    server lacks it, too, one caller of all processes calls the function. `cache_invalidate`,
    `cache_set`, `cache_expire` and `cache_clear` act on both tiers and all processes, and return
    whether the server confirmed it; `cache_ainvalidate`, `cache_aset`, `cache_aexpire` and
    `cache_aclear` are for asyncio. Arguments must be simple values, or a `key` must make such of
    them; a method needs a `key`. `codec` and `schema` define how results are encoded there.
    `maxsize`, `policy`, `weigher`, `max_weight`, `on_removal`, `profile` and `autosize` then apply
    to the results in this process; `tti`, `jitter`, `negative_ttl`, `timer` and
    `single_flight=False` are not possible.
    """
    if tier2 is None and local_ttl is not None:
        raise TypeError("local_ttl needs tier2: it bounds how long results stay in this process in front of a server")
    given = {name: value for name, value in locals().items() if name not in ("function", "cache", "key", "typed", "method")}
    if cache is not None:
        for setting, value in given.items():
            if value != _DEFAULTS[setting]:
                raise TypeError(f"{setting} and cache exclude each other: it is a setting of {cache!r}")
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
        profile=profile,
        autosize=autosize,
    )
    if tier2 is not None:
        if snapshot is not None:
            raise TypeError("snapshot and tier2 exclude each other: the second tier has the results after a restart")
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
    # Without a bound of its own, a method's cache has room for DEFAULT_MAXSIZE results per
    # instance. A profile needs a capacity that does not change with each instance.
    per_instance = maxsize is ... and max_weight is None and not profile and autosize is None
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
        raise TypeError("a method under tier2 needs key: all processes share its results, so a key must identify the instance")
    return decorate(function, **settings)


def _decorate(
    function: Any, /, *, settings: dict[str, Any], name: str | None, method: bool | None, snapshot_settings: dict[str, Any], per_instance: bool
) -> Any:
    under_cache = partial(memoized, settings=settings, name=name, snapshot_settings=snapshot_settings, per_instance=per_instance)
    match function:
        case classmethod() if snapshot_settings["path"] is not None:
            raise TypeError("snapshot is not possible for a class method, whose results belong to classes: cache a function that it calls")
        case classmethod():
            return CachedClassMethod(under_cache(cast(Any, function).__func__, method=True))
        case staticmethod():
            return staticmethod(under_cache(function.__func__, method=False))
        case partialmethod():
            return partialmethod(under_cache(function.func, method=method is not False), *function.args, **function.keywords)
        case property():
            if function.fget is None:
                raise TypeError("a property without a getter cannot be cached")
            return function.getter(under_cache(function.fget, method=True))
        case cached_property():
            raise TypeError("a cached_property stores its value already: use cached on a property or a method")
        case int():
            raise TypeError(f"cached({function}): name the setting, as in cached(maxsize={function})")
        case _:
            return under_cache(function, method=method)
