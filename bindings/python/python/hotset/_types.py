"""The types of what `cached` returns, for type checkers.

At run time these are the native `Memo` and plain coroutine functions.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from hotset._advice import Advice
from hotset._mapping import Cache
from hotset._snapshot import Path
from hotset._stats import CacheInfo

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
R_contra = TypeVar("R_contra", contravariant=True)


class _Common(Protocol):
    """What every cached function has."""

    __name__: str
    __qualname__: str

    def cache_info(self) -> CacheInfo:
        """Returns hits, misses, maxsize and currsize, as functools does, and further counters."""
        ...

    def cache_clear(self) -> None:
        """Removes all results, and resets hits and misses."""
        ...

    def cache_parameters(self) -> dict[str, Any]:
        """Returns the settings of the cache."""
        ...

    def cache_keys(self) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Returns the arguments of all cached results, as (args, kwargs), hottest first."""
        ...

    def cache_items(self) -> list[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
        """Returns all cached results with their arguments, hottest first, counting no hits.

        Returns:
            Pairs of (args, kwargs) and the result.
        """
        ...


class _Keyed(Protocol[P]):
    """What finds the result of one call, by its arguments."""

    def cache_invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Removes the result of this call, however it is spelled.

        A call in progress is invalidated: its result is not stored.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether there was a result; with `tier2`, whether the server confirmed the removal.
        """
        ...

    def cache_contains(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Returns whether there is a result of this call, however it is spelled.

        Counts neither as a hit nor as a miss.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.
        """
        ...


class _Own(_Common, Protocol):
    """What a function has whose results are in a cache of its own."""

    def cache_resize(self, maxsize: int) -> None:
        """Sets the capacity, evicting the coldest results immediately if there are too many.

        Args:
            maxsize: The capacity in results, or in weight with a `max_weight`.
        """
        ...

    def cache_reset_stats(self) -> None:
        """Resets all counters to 0."""
        ...

    def cache_advise(self) -> Advice:
        """Returns the hit ratio that the cache would have at other sizes.

        The function must be under `cached(profile=True)`, or have an `autosize`. See
        `hotset.Cache.advise`.
        """
        ...

    def cache_save(self, path: Path | None = None) -> int:
        """Saves the results to a file. See `hotset.Cache.save`.

        Args:
            path: The path of the file; None for the one that `snapshot` named.

        Returns:
            The number of saved results.
        """
        ...

    def cache_load(self, path: Path | None = None) -> int:
        """Loads results from a file. See `hotset.Cache.load`.

        Args:
            path: The path of the file; None for the one that `snapshot` named.

        Returns:
            The number of restored results.
        """
        ...


class _Settable(_Keyed[P], Protocol[P, R_contra]):
    """What stores a result, and calls the function to replace one."""

    def cache_set(self, value: R_contra, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Stores `value` as the result of the call with these arguments, spelled as here.

        Args:
            value: The result.
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.
        """
        ...


class Cached(_Own, _Settable[P, R], Protocol[P, R]):
    """A function under `cached`.

    On a method, the calls below take the instance first, as in
    `Class.method.cache_invalidate(instance, argument)`; those of `instance.method` do not.
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

    def cache_refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function and stores its result, joining a call in progress.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            The result.
        """
        ...


class AsyncCached(_Own, _Settable[P, R], Protocol[P, R]):
    """A coroutine function under `cached`."""

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> ClassCached[Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(
        self: AsyncCached[Concatenate[Any, Q], R], instance: object, owner: type[Any] | None = None, /
    ) -> BoundCached[Q, Coroutine[Any, Any, R]]: ...

    def cache_refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Calls the function and stores its result, joining a call in progress.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            A coroutine of the result.
        """
        ...

    def cache_aclose(self, *, cancel: bool = True) -> Coroutine[Any, Any, None]:
        """Ends the calls in progress in this event loop, reloads included, and waits for them.

        Callers that await a cancelled call in this event loop get a CancelledError; those in other
        loops and threads begin anew.

        Args:
            cancel: Whether to cancel the calls. Otherwise they run to their end.

        Returns:
            A coroutine.
        """
        ...


class BoundCached(_Own, _Settable[Q, Any], Protocol[Q, R_co]):
    """A method under `cached`, bound to an instance; or a class method, bound to a class.

    The calls below concern the results of that instance or class.
    """

    def __call__(self, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...

    def cache_refresh(self, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Calls the method and stores its result, joining a call in progress.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            The result.
        """
        ...


class _Tiered(Protocol[P, R_contra]):
    """What a function under `cached(tier2=..)` has beside its methods without a second tier."""

    async def cache_ainvalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Behaves like `cache_invalidate`, for asyncio."""
        ...

    def cache_expire(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Expires the result of this call in all processes.

        With `stale_while_revalidate`, it is still returned while one caller reloads it.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether the server confirmed it.
        """
        ...

    async def cache_aexpire(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Behaves like `cache_expire`, for asyncio."""
        ...

    async def cache_aset(self, value: R_contra, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Behaves like `cache_set`, for asyncio."""
        ...

    async def cache_aclear(self) -> bool:
        """Behaves like `cache_clear`, for asyncio."""
        ...

    def cache_tier2_stats(self) -> dict[str, Any]:
        """Returns the counters of this cache in this process: "tier1", "tier2" and "server"."""
        ...


class TieredCached(_Tiered[P, R], Cached[P, R], Protocol[P, R]):
    """A function under `cached(tier2=..)`."""

    def cache_set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:  # type: ignore[override]  # pyright: ignore
        """Stores `value` as the result of this call in both tiers.

        Args:
            value: The result.
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether the server confirmed it.
        """
        ...

    def cache_clear(self) -> bool:  # type: ignore[override]  # pyright: ignore
        """Removes all results from both tiers, in all processes.

        Returns:
            Whether the server confirmed it.
        """
        ...


class TieredAsyncCached(_Tiered[P, R], AsyncCached[P, R], Protocol[P, R]):
    """A coroutine function under `cached(tier2=..)`."""

    def cache_set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:  # type: ignore[override]  # pyright: ignore
        """Stores `value` as the result of this call in both tiers.

        Args:
            value: The result.
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether the server confirmed it.
        """
        ...

    def cache_clear(self) -> bool:  # type: ignore[override]  # pyright: ignore
        """Removes all results from both tiers, in all processes.

        Returns:
            Whether the server confirmed it.
        """
        ...


class TieredDecorator(Protocol):
    """`cached(tier2=..)` with its settings, before it is applied to a function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, R], /
    ) -> staticmethod[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> TieredAsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TieredCached[P, R]: ...


class ClassCached(_Own, _Settable[..., Any], Protocol[R_co]):
    """An attribute under `cached`, looked up on its class.

    It may be a method, which takes the instance first, or one under `classmethod`, which does not.
    Type checkers cannot distinguish the two, so they do not check the arguments.
    """

    @property
    def __wrapped__(self) -> Callable[..., R_co]: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> R_co: ...
    def cache_refresh(self, /, *args: Any, **kwargs: Any) -> R_co:
        """Calls the function and stores its result, joining a call in progress.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            The result.
        """
        ...


class SharedCached(_Common, _Settable[P, Any], Protocol[P, R_co]):
    """A function under `cached(cache=..)`.

    Size, snapshots and statistics are those of the cache: `f.cache`.
    """

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...
    @property
    def cache(self) -> Cache[Any, Any]:
        """The cache that stores the results."""
        ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    def cache_refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Calls the function and stores its result.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            The result.
        """
        ...


class SharedAsyncCached(SharedCached[P, Coroutine[Any, Any, R_co]], Protocol[P, R_co]):
    """A coroutine function under `cached(cache=..)`."""

    def cache_aclose(self, *, cancel: bool = True) -> Coroutine[Any, Any, None]:
        """Ends the calls in progress in this event loop, and waits for them.

        Args:
            cancel: Whether to cancel the calls. Otherwise they run to their end.

        Returns:
            A coroutine.
        """
        ...


class SharedDecorator(Protocol):
    """`cached(cache=..)`, before it is applied to a function."""

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
    """`cached(...)` with its settings, before it is applied to a function."""

    @overload
    def __call__(self, function: property, /) -> property: ...
    # The first overload that fits is meant: a staticmethod is also callable, and a Coroutine a
    # result.
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
