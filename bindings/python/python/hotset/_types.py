"""How a type checker sees what `cached` returns. At run time these are the native Memo and plain coroutine functions."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from hotset._mapping import Cache
from hotset._snapshot import Path
from hotset._stats import CacheInfo

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class _Common(Protocol):
    __name__: str
    __qualname__: str

    def cache_info(self) -> CacheInfo:
        """What was counted since the last cache_clear(): functools' four fields, then more."""
        ...

    def cache_clear(self) -> None:
        """Forgets all results, and what was counted."""
        ...

    def cache_parameters(self) -> dict[str, Any]:
        """The settings the cache was made with."""
        ...

    def cache_keys(self) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Returns the arguments of all results that are kept, (args, kwargs) of each, hottest first."""
        ...

    def cache_items(self) -> list[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
        """Returns all results that are kept with their arguments, ((args, kwargs), result) of each, hottest first."""
        ...


class _Own(_Common, Protocol):
    """What a function has whose results are in a cache of its own."""

    def cache_resize(self, maxsize: int) -> None:
        """Sets how many results, or with a max_weight how much weight, may be kept."""
        ...

    def cache_reset_stats(self) -> None:
        """Counts hits, misses and all the rest from 0 again."""
        ...

    def cache_save(self, path: Path | None = None) -> int:
        """Saves the results to this file, or to the one that `snapshot` named; returns how many."""
        ...

    def cache_load(self, path: Path | None = None) -> int:
        """Loads results from this file, or from the one that `snapshot` named; returns how many came in."""
        ...


class Cached(_Own, Protocol[P, R]):
    """A function under `cached`.

    On a method, the calls below take the instance first, as in `Class.method.cache_invalidate(instance, argument)`; those of
    `instance.method` do not.
    """

    @property
    def __wrapped__(self) -> Callable[P, R]: ...
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> ClassCached[R]: ...
    @overload
    def __get__(
        self: Cached[Concatenate[Any, Q], R], instance: object, owner: type[Any] | None = None, /
    ) -> BoundCached[Q, R]: ...

    def cache_invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forgets the result of this call, however it is spelled; returns whether there was one.

        A call that is in progress does not enter the cache.
        """
        ...

    def cache_contains(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Returns whether the result of this call is there, however it was spelled. Counts neither as a hit nor as a miss."""
        ...

    def cache_set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Makes `value` the result of the call with these arguments, spelled as here (by position or by keyword)."""
        ...

    def cache_refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function, keeps its result, and returns it. Joins a call of it that is in progress."""
        ...


class AsyncCached(_Own, Protocol[P, R]):
    """A coroutine function under `cached`; as `Cached`, but for `cache_refresh`, which is awaited."""

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> ClassCached[Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(
        self: AsyncCached[Concatenate[Any, Q], R], instance: object, owner: type[Any] | None = None, /
    ) -> BoundCached[Q, Coroutine[Any, Any, R]]: ...

    def cache_invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def cache_contains(self, /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def cache_set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    def cache_refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def cache_aclose(self, *, cancel: bool = True) -> Coroutine[Any, Any, None]:
        """Ends the calls that are in progress in this event loop, reloads included, and waits for them.

        Callers that await a cancelled call in this event loop get a CancelledError; those in other loops and threads begin anew.
        """
        ...


class BoundCached(_Own, Protocol[Q, R_co]):
    """A method under `cached`, of an instance; or a class method, of a class. The calls below are about its results only."""

    def __call__(self, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...

    def cache_invalidate(self, /, *args: Q.args, **kwargs: Q.kwargs) -> bool:
        """Forgets the result of this call, however it is spelled; returns whether there was one."""
        ...

    def cache_contains(self, /, *args: Q.args, **kwargs: Q.kwargs) -> bool:
        """Returns whether the result of this call is there, however it was spelled."""
        ...

    def cache_set(self, value: Any, /, *args: Q.args, **kwargs: Q.kwargs) -> None:
        """Makes `value` the result of this call."""
        ...

    def cache_refresh(self, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Calls the method, keeps its result, and returns it. Joins a call of it that is in progress."""
        ...


class TieredCached(Cached[P, R], Protocol[P, R]):
    """A function under `cached(tier2=..)`."""

    async def cache_ainvalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As `cache_invalidate`, for asyncio."""
        ...

    def cache_expire(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Ends the lifetime of this call's result: with `stale_while_revalidate`, it is served while one caller loads it anew."""
        ...

    async def cache_aexpire(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As `cache_expire`, for asyncio."""
        ...

    def cache_set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:  # type: ignore[override]  # pyright: ignore
        """Makes `value` the result of this call in both tiers; returns whether the server confirmed it."""
        ...

    async def cache_aset(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As `cache_set`, for asyncio."""
        ...

    def cache_clear(self) -> bool:  # type: ignore[override]  # pyright: ignore
        """Forgets all results in both tiers, in all processes; returns whether the server confirmed it."""
        ...

    async def cache_aclear(self) -> bool:
        """As `cache_clear`, for asyncio."""
        ...

    def cache_tier2_stats(self) -> dict[str, Any]:
        """Returns what was counted of this cache in this process: "tier1", "tier2" and "server"."""
        ...


class TieredAsyncCached(AsyncCached[P, R], Protocol[P, R]):
    """A coroutine function under `cached(tier2=..)`."""

    async def cache_ainvalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As `cache_invalidate`, for asyncio."""
        ...

    def cache_expire(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Ends the lifetime of this call's result: with `stale_while_revalidate`, it is served while one caller loads it anew."""
        ...

    async def cache_aexpire(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As `cache_expire`, for asyncio."""
        ...

    def cache_set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:  # type: ignore[override]  # pyright: ignore
        """Makes `value` the result of this call in both tiers; returns whether the server confirmed it."""
        ...

    async def cache_aset(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As `cache_set`, for asyncio."""
        ...

    def cache_clear(self) -> bool:  # type: ignore[override]  # pyright: ignore
        """Forgets all results in both tiers, in all processes; returns whether the server confirmed it."""
        ...

    async def cache_aclear(self) -> bool:
        """As `cache_clear`, for asyncio."""
        ...

    def cache_tier2_stats(self) -> dict[str, Any]:
        """Returns what was counted of this cache in this process: "tier1", "tier2" and "server"."""
        ...


class TieredDecorator(Protocol):
    """`cached(tier2=..)` with its settings, waiting for a function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, R], /
    ) -> staticmethod[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> TieredAsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TieredCached[P, R]: ...


class ClassCached(_Own, Protocol[R_co]):
    """What a class's attribute is that is under `cached`.

    It may be a method, which takes the instance first, or one under `classmethod`, which does not: checkers are not told which, so
    they do not check the arguments.
    """

    @property
    def __wrapped__(self) -> Callable[..., R_co]: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> R_co: ...
    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Forgets the result of this call, however it is spelled; returns whether there was one."""
        ...

    def cache_contains(self, /, *args: Any, **kwargs: Any) -> bool:
        """Returns whether the result of this call is there, however it was spelled."""
        ...

    def cache_set(self, value: Any, /, *args: Any, **kwargs: Any) -> None:
        """Makes `value` the result of this call."""
        ...

    def cache_refresh(self, /, *args: Any, **kwargs: Any) -> R_co:
        """Calls the function, keeps its result, and returns it. Joins a call of it that is in progress."""
        ...


class SharedCached(_Common, Protocol[P, R_co]):
    """A function under `cached(cache=..)`. The size, the snapshots and the statistics are the cache's: `f.cache`."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...
    @property
    def cache(self) -> Cache[Any, Any]:
        """The cache that was given."""
        ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    def cache_invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forgets the result of this call, however it is spelled; returns whether there was one."""
        ...

    def cache_contains(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Returns whether the result of this call is there, however it was spelled."""
        ...

    def cache_set(self, value: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Makes `value` the result of the call with these arguments, spelled as here (by position or by keyword)."""
        ...

    def cache_refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Calls the function, keeps its result, and returns it."""
        ...


class SharedAsyncCached(SharedCached[P, Coroutine[Any, Any, R_co]], Protocol[P, R_co]):
    """A coroutine function under `cached(cache=..)`."""

    def cache_aclose(self, *, cancel: bool = True) -> Coroutine[Any, Any, None]:
        """Ends the calls that are in progress in this event loop, and waits for them."""
        ...


class SharedDecorator(Protocol):
    """`cached(cache=..)`, waiting for a function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, R], /
    ) -> staticmethod[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> SharedAsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SharedCached[P, R]: ...


class CachedClassMethod(Protocol[Q, R_co]):
    """A class method under `cached`."""

    def __get__(self, instance: object, owner: type[Any] | None = None, /) -> BoundCached[Q, R_co]: ...


class Decorator(Protocol):
    """`cached(...)` with its settings, waiting for a function."""

    @overload
    def __call__(self, function: property, /) -> property: ...
    # The first that fits is meant: these are callable, too, and a Coroutine is a result.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, R], /
    ) -> staticmethod[P, R]: ...
    @overload
    def __call__(self, function: classmethod[Any, P, R], /) -> CachedClassMethod[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...
