"""`hotset.cached(.., tier2=)`: the results of a function, in two tiers."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from types import MethodType
from typing import Any, final

from hotset import _methods
from hotset._codecs import codec_of
from hotset._hotset import MISSING, Memo, WithTtl
from hotset._memo import is_async, memoized
from hotset._settings import memo_settings, unwrap_ttl
from hotset.tier2 import _reads
from hotset.tier2._operations import with_ttl_lifetime
from hotset.tier2._outcomes import confirmed
from hotset.tier2._payload import PayloadCodec
from hotset.tier2._server import SecondTier
from hotset.tier2._settings import space_settings
from hotset.tier2._space import Space

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@final
class _Resolved:
    """Stands for arguments whose key is known."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key


@final
class _Naming:
    """Derives the name of a call from its arguments.

    The name has all arguments by position, with their defaults; or it is what the user's `key`
    returns.
    """

    def __init__(self, function: Callable[..., Any], key: Callable[..., Any] | None) -> None:
        self._function = function
        self._key = key
        try:
            signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):
            signature = None
        parameters = list(signature.parameters.values()) if signature is not None else []
        kinds = {parameter.kind for parameter in parameters}
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            signature = None
        self._signature = signature
        by_position = kinds <= {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        # A call with this number of arguments by position is complete; -1: none is.
        self._complete = len(parameters) if signature is not None and by_position else -1
        is_plain = kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD} and all(
            parameter.default is inspect.Parameter.empty for parameter in parameters
        )
        self._names = [parameter.name for parameter in parameters] if is_plain else None

    def name(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Returns the arguments that name a call on the second tier."""
        if self._key is not None:
            return (self._key(*args, **kwargs),), {}
        if self._signature is None or (not kwargs and len(args) == self._complete):
            return args, kwargs
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def of_entry(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Returns the arguments that name an entry of the first tier on the second one.

        With a `key`, the entry is listed by them.
        """
        return (args, kwargs) if self._key is not None else self.name(args, kwargs)

    def spellings(self, args: Args, kwargs: Kwargs) -> list[tuple[Args, Kwargs]]:
        """Returns the calls of the first tier that have this name."""
        if self._key is not None:
            return [((_Resolved(args[0]),), {})]
        names = self._names
        if names is not None and len(args) == len(names):
            return [(args[:count], dict(zip(names[count:], args[count:], strict=True))) for count in range(len(names), -1, -1)]
        return _methods.spellings(self._function, args, kwargs, 0)

    def key_function(self) -> Callable[..., Any] | None:
        """Returns the first tier's function of keys; None without a `key`."""
        key = self._key
        if key is None:
            return None

        def keyed(*args: Any, **kwargs: Any) -> Any:
            return args[0].key if args and type(args[0]) is _Resolved else key(*args, **kwargs)

        return keyed


@final
class MemoTier:
    """The results of a function in this process, as the first tier. See `FirstTier`."""

    def __init__(self, memo: Memo, naming: _Naming) -> None:
        self._memo = memo
        self._naming = naming

    def invalidate(self, args: Args, kwargs: Kwargs) -> None:
        """Removes the result of these arguments, in all spellings, and invalidates its load."""
        for spelled in self._naming.spellings(args, kwargs):
            self._memo.invalidate(*spelled)

    def mark(self, args: Args, kwargs: Kwargs) -> Any:
        """Begins a load of these arguments, in place of any in flight."""
        first = self._naming.spellings(args, kwargs)[0]
        while True:
            self.invalidate(args, kwargs)
            kind, found, *_ = self._memo.begin(*first, True)
            if kind == 1:
                return found

    def clear(self) -> None:
        """Removes all results."""
        self._memo.clear_entries()

    def invalidate_loads(self) -> None:
        """Invalidates all loads in flight."""
        self._memo.invalidate_loads()

    def set_trust(self, core: Any) -> None:
        """Restricts hits to the time while the core is trusted."""
        self._memo.set_trust(core)

    def show_tier2(self, namespace: Any) -> None:
        """Has the process's stats file show the counters of the second tier as well."""
        self._memo.show_tier2(namespace)

    def hits(self) -> int:
        """Returns the number of hits."""
        hits: int = self._memo.stats()["hits"]
        return hits

    def entries(self) -> list[tuple[Args, Kwargs, Any]]:
        """Returns the results with the arguments that name them."""
        return [(*self._naming.of_entry(*call), value) for call, value in self._memo.entries()]

    def peek(self, args: Args, kwargs: Kwargs) -> Any:
        """Returns the result of these arguments, or MISSING; counts nothing."""
        spelled = [call for call in self._naming.spellings(args, kwargs) if self._memo.contains(*call)]
        if not spelled:
            return MISSING
        return next((value for *call, value in self.entries() if (*call,) == (args, kwargs)), MISSING)


def _name_of(function: Callable[..., Any]) -> str:
    """Returns the name of a function's results on the server.

    Raises:
        ValueError: Other functions may have the same.
    """
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '<?>')}"
    if "<" in name:
        raise ValueError(f"{name} may stand for several functions: give name=, which identifies the results in all processes")
    return name


def _owner_of(function: Callable[..., Any]) -> object:
    """Returns what distinguishes functions whose results must not be shared."""
    code = getattr(function, "__code__", None)
    return id(function) if code is None else (code.co_filename, code.co_firstlineno, code.co_name)


def decorate(
    function: Callable[..., Any],
    *,
    tier2: Any,
    local_ttl: Any,
    shared: dict[str, Any],
    key: Any,
    typed: Any,
    single_flight: Any,
    stale_while_revalidate: Any,
    stale_if_error: Any,
    name: str | None,
    codec: Any,
    schema: Any,
) -> Any:
    """Returns `function` under a cache in two tiers.

    Args:
        function: The function, or coroutine function.
        tier2: The second tier.
        local_ttl: As of `hotset.cached`.
        shared: What `checked_settings` returned.
        key, typed, single_flight, name: As of `hotset.cached`.
        stale_while_revalidate, stale_if_error: As of `hotset.cached`.
        codec, schema: As of `hotset.cached`.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or the name belongs to another function.
    """
    if not isinstance(tier2, SecondTier):
        raise TypeError(f"tier2 must be a hotset.tier2.Redis or Memcached, not {type(tier2).__name__}")
    settings = space_settings(
        defaults=tier2.defaults,
        has_bus=tier2.has_bus,
        ttl=shared["ttl"],
        local_ttl=local_ttl,
        stale_while_revalidate=stale_while_revalidate,
        stale_if_error=stale_if_error,
    )
    naming = _Naming(function, key)
    first = {**shared, "ttl": settings.local_ttl / 1e9}
    memo_options = memo_settings(
        first, typed=typed, key=naming.key_function(), single_flight=single_flight, stale_while_revalidate=None, stale_if_error=None
    )
    payloads = PayloadCodec(codec, schema=schema, **tier2.payload_settings)
    place = name or _name_of(function)
    space: Space

    through: Callable[..., Any]
    if is_async(function):

        @wraps(function)
        async def through_async(*args: Any, **kwargs: Any) -> Any:
            return _reads.keep(await _reads.read_async(space, *naming.name(args, kwargs), partial(function, *args, **kwargs)))
        through = through_async
    else:

        @wraps(function)
        def through_sync(*args: Any, **kwargs: Any) -> Any:
            return _reads.keep(_reads.read(space, *naming.name(args, kwargs), partial(function, *args, **kwargs)))

        through = through_sync
    snapshot_settings = {"path": None, "codec": codec_of(codec), "schema": schema}
    made = memoized(through, memo_options, name, False, snapshot_settings, False)
    memo: Memo = made if isinstance(made, Memo) else made.cache_info.__self__
    space = Space(tier2, place, payloads, settings, MemoTier(memo, naming), typed=bool(typed), owner=_owner_of(function))
    memo.__hotset_tier2__ = space.counters  # type: ignore[attr-defined]
    parameters: dict[str, Any] = {**memo.cache_parameters(), "ttl": shared["ttl"], "local_ttl": settings.local_ttl / 1e9, "tier2": tier2}  # type: ignore[attr-defined]
    own: dict[str, Any] = {
        "__wrapped__": function,
        "cache_parameters": lambda: dict(parameters),
        "cache_space": space,
        **_methods_of(function, made, space, naming),
    }
    for attribute, value in own.items():
        setattr(made, attribute, value)
    return made


def _methods_of(function: Callable[..., Any], made: Any, space: Space, naming: _Naming) -> dict[str, Any]:
    """Returns the methods for users, by name."""

    def cache_invalidate(self: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Removes the result of this call from both tiers, in all processes.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether the server confirmed it.
        """
        return _reads.remove(space, *naming.name(args, kwargs))

    async def cache_ainvalidate(self: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Behaves like `cache_invalidate`, for asyncio."""
        return await _reads.remove_async(space, *naming.name(args, kwargs))

    def cache_expire(self: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Expires the result of this call in all processes.

        With `stale_while_revalidate`, it is still returned while one caller reloads it.

        Args:
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether the server confirmed it.
        """
        return _reads.expire(space, *naming.name(args, kwargs))

    async def cache_aexpire(self: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Behaves like `cache_expire`, for asyncio."""
        return await _reads.expire_async(space, *naming.name(args, kwargs))

    def cache_set(self: Any, value: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Stores `value` as the result of this call in both tiers.

        Args:
            value: The result.
            *args: The positional arguments of the call.
            **kwargs: The keyword arguments of the call.

        Returns:
            Whether the server confirmed it.
        """
        return _reads.write(space, *naming.name(args, kwargs), value, 0)

    async def cache_aset(self: Any, value: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Behaves like `cache_set`, for asyncio."""
        return await _reads.write_async(space, *naming.name(args, kwargs), value, 0)

    def cache_clear(self: Any) -> bool:
        """Removes all results from both tiers, in all processes.

        Returns:
            Whether the server confirmed it.
        """
        return confirmed(_reads.bump(space, None), False)

    async def cache_aclear(self: Any) -> bool:
        """Behaves like `cache_clear`, for asyncio."""
        return confirmed(await _reads.bump_async(space, None), False)

    def cache_tier2_stats(self: Any) -> dict[str, Any]:
        """Returns the counters of this cache in this process: "tier1", "tier2" and "server"."""
        info = made.cache_info()
        return space.stats({name: getattr(info, name) for name in info._fields})

    async def refresh_async(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls the function and stores its result in both tiers."""
        result = await function(*args, **kwargs)
        await _reads.write_async(space, *naming.name(args, kwargs), unwrap_ttl(result), _ttl(result))
        return unwrap_ttl(result)

    def refresh(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls the function and stores its result in both tiers."""
        result = function(*args, **kwargs)
        _reads.write(space, *naming.name(args, kwargs), unwrap_ttl(result), _ttl(result))
        return unwrap_ttl(result)

    all_methods = (
        *(cache_invalidate, cache_ainvalidate, cache_expire, cache_aexpire, cache_set, cache_aset),
        *(cache_clear, cache_aclear, cache_tier2_stats),
    )
    own: dict[str, Any] = {method.__name__: MethodType(method, made) for method in all_methods}
    own["cache_refresh"] = MethodType(refresh_async if is_async(function) else refresh, made)
    return own


def _ttl(result: Any) -> int:
    return with_ttl_lifetime(result.ttl) if type(result) is WithTtl else 0
