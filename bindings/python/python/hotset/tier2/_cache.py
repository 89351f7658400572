"""`TieredCache`: a cache of this process in front of a second tier that it shares with others."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import partial
from types import EllipsisType
from typing import Any, Final, Generic, TypeVar, cast, overload

from hotset import _async_loads
from hotset._codecs import CodecName, Schema, Serializer
from hotset._hotset import MISSING, WithTtl
from hotset._mapping import Cache
from hotset._settings import Policy, Seconds, unwrap_ttl
from hotset.tier2 import _many, _reads
from hotset.tier2._clock import now
from hotset.tier2._errors import Unavailable
from hotset.tier2._keys import quote_name
from hotset.tier2._operations import Call, Outcome, Steps, drive, run, run_async
from hotset.tier2._payload import NotEncodable, PayloadCodec
from hotset.tier2._resp import ServerError
from hotset.tier2._server import Redis
from hotset.tier2._settings import lifetime, space_settings
from hotset.tier2._space import Space

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_HIT, _LEAD, _WAIT = range(3)


class _Absent:
    """Stands in the first tier for a key of which the source has no value."""

    def __repr__(self) -> str:
        return "<absent>"


_ABSENT: Final = _Absent()


class MappingTier:
    """A `hotset.Cache` as the first tier."""

    def __init__(self, cache: Cache[Any, Any]) -> None:
        self._cache = cache

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(args) == 1:
            self._cache.delete(args[0])

    def mark(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            self._cache.delete(args[0])
            kind, found = self._cache.begin(args[0])[:2]
            if kind == _LEAD:
                return found

    def clear(self) -> None:
        self._cache.clear_entries()

    def supersede_loads(self) -> None:
        self._cache.supersede_loads()

    def set_trust(self, core: Any) -> None:
        self._cache.set_trust(core)

    def hits(self) -> int:
        return self._cache.stats().hits

    def entries(self) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
        return [((key,), {}, value) for key, value in self._cache.items_hottest() if value is not _ABSENT]

    def peek(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._cache.peek(args[0], MISSING)


def _to_local(outcome: Outcome) -> Any:
    """As `_reads.keep`, with what stands for absence."""
    if outcome.value is MISSING:
        outcome.value = _ABSENT
    return _reads.keep(outcome)


class TieredCache(Generic[K, V]):
    """A cache in two tiers: entries of this process in front of a server that all processes share.

    A hit in the first tier needs no network. A miss costs one round trip; a value that is in neither tier is loaded once over all processes.
    What one process sets or deletes, the others see as soon as the server has announced it (see the page "In front of Redis").

    Args:
        tier2: A `hotset.tier2.Redis`.
        name: What tells this cache's keys from those of others. Caches of the same name, codec and schema share their values.
        maxsize: How many entries the first tier holds at most; None for no bound.
        ttl: Seconds or a timedelta that a value lives, in both tiers; None for no end.
        local_ttl: Seconds that a value stays in the first tier without new confirmation: how old a value may be that is served while the server cannot be reached. 60 by
            default, and 5 while the server announces no changes.
        policy: Which entries of the first tier stay: see `hotset.cached`.
        stale_while_revalidate: Seconds after its ttl for which a value is still returned, while one caller of all processes loads it anew.
        stale_if_error: Seconds after its ttl for which a value is still returned if the loader raises.
        codec: How values are written: "values", "bytes", "json", or an object with `dumps` and `loads`; "pickle" only where the `Redis` has a `sign`.
        schema: A number or string to be changed whenever what the values mean changes: old and new programs do not read each other's.

    Example:
        >>> import hotset
        >>> from hotset.tier2 import Redis
        >>> shop = Redis("redis://localhost:6379/0", prefix="shop")
        >>> prices: hotset.TieredCache[str, float] = hotset.TieredCache(shop, "prices", ttl=300)
        >>> prices
        <hotset.TieredCache 'prices' on <hotset.tier2.Redis 'shop' at localhost:6379>>
    """

    def __init__(
        self,
        tier2: Redis,
        name: str,
        *,
        maxsize: int | EllipsisType | None = ...,
        ttl: Seconds | None = None,
        local_ttl: Seconds | None = None,
        policy: Policy = "tinylfu",
        stale_while_revalidate: Seconds | None = None,
        stale_if_error: Seconds | None = None,
        codec: CodecName | Serializer = "values",
        schema: Schema = None,
    ) -> None:
        _check_server(tier2)
        settings = space_settings(
            defaults=tier2.defaults,
            has_bus=tier2.has_bus,
            ttl=ttl,
            local_ttl=local_ttl,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
        )
        payloads = PayloadCodec(codec, schema=schema, **tier2.payload_settings)
        local: Cache[Any, Any] = Cache(maxsize, policy=policy, ttl=settings.local_ttl / 1e9)
        self._local = local
        self._space = Space(tier2, name, payloads, settings, MappingTier(local))
        self._find = local.get

    def __repr__(self) -> str:
        return f"<hotset.TieredCache {self._space.name!r} on {self._space.server!r}>"

    @property
    def space(self) -> Space:
        """The cache's side of the second tier. Private to the package."""
        return self._space

    # --- One key.

    @overload
    def get(self, key: K, default: None = None) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """Returns the key's value from the first tier that has it, or `default`."""
        value = self._find(key, MISSING)
        if value is MISSING:
            value = self._get(key)
        return default if value is _ABSENT else value

    def _get(self, key: K) -> Any:
        kind, found, *_ = self._local.begin(key)
        if kind == _HIT:
            return found
        if kind != _LEAD:
            # (It is being loaded; what is there now needs no loader.)
            return _or_absent(_reads.read(self._space, (key,), {}, None).value)
        try:
            outcome = _reads.read(self._space, (key,), {}, None)
            return _complete_load(found, outcome)
        finally:
            if not found.done():
                found.abandon()

    @overload
    async def aget(self, key: K, default: None = None) -> V | None: ...
    @overload
    async def aget(self, key: K, default: D) -> V | D: ...
    async def aget(self, key: K, default: Any = None) -> Any:
        """Behaves like `get`, for asyncio."""
        value = self._find(key, MISSING)
        if value is MISSING:
            value = await self._aget(key)
        return default if value is _ABSENT else value

    async def _aget(self, key: K) -> Any:
        kind, found, *_ = self._local.begin(key)
        if kind == _HIT:
            return found
        if kind != _LEAD:
            return _or_absent((await _reads.read_async(self._space, (key,), {}, None)).value)
        try:
            outcome = await _reads.read_async(self._space, (key,), {}, None)
            return _complete_load(found, outcome)
        finally:
            if not found.done():
                found.abandon()

    def get_or_load(
        self, key: K, loader: Callable[[K], V], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = (), default: Any = None
    ) -> V:
        """Returns the key's value; loads it if it is in neither tier.

        One caller of all processes calls the loader; the others wait for its value.

        Args:
            key: The key.
            loader: Called with the key. May return `hotset.WithTtl(value, seconds)`, or `hotset.MISSING` for "there is none".
            ttl: Seconds that the loaded value lives; `...` for the cache's own ttl, None for no end.
            tags: What the value belongs to, for `invalidate_tag`.
            default: Returned if the loader says that there is no value.
        """
        value = self._find(key, MISSING)
        if value is MISSING:
            given, load = _tags(tags), _with_ttl(partial(loader, key), ttl)
            value = self._local.get_or_load(key, lambda _: _to_local(_reads.read(self._space, (key,), {}, load, given)))
        return cast(V, default if value is _ABSENT else value)

    async def aget_or_load(
        self,
        key: K,
        loader: Callable[[K], Awaitable[V]],
        ttl: Seconds | EllipsisType | None = ...,
        *,
        tags: Iterable[str] = (),
        default: Any = None,
    ) -> V:
        """Behaves like `get_or_load`, for asyncio: the loader is awaited, in a task of its own."""
        value = self._find(key, MISSING)
        if value is MISSING:
            given, load = _tags(tags), _with_ttl_async(partial(loader, key), ttl)

            async def through() -> Any:
                return _to_local(await _reads.read_async(self._space, (key,), {}, load, given))

            value = unwrap_ttl(await _async_loads.get(partial(self._local.begin, key), through))
        return cast(V, default if value is _ABSENT else value)

    def set(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Sets the key's value in both tiers; returns whether the server confirmed it.

        If it did not, the key is invalidated as soon as the server answers again, and is not read from there before.
        """
        return _reads.write(self._space, (key,), {}, value, lifetime(ttl), _tags(tags))

    async def aset(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Behaves like `set`, for asyncio."""
        return await _reads.write_async(self._space, (key,), {}, value, lifetime(ttl), _tags(tags))

    def delete(self, key: K, *, strict: bool = False) -> bool:
        """Removes the key from both tiers and, by the server's announcement, from all other processes; returns whether the server confirmed it.

        If it did not, that is repeated as soon as it answers again; this process does not read the key from there before.

        Args:
            key: The key.
            strict: Raise `hotset.tier2.Unavailable` if the server did not confirm it.
        """
        return confirmed(_reads.remove(self._space, (key,), {}), strict)

    async def adelete(self, key: K, *, strict: bool = False) -> bool:
        """Behaves like `delete`, for asyncio."""
        return confirmed(await _reads.remove_async(self._space, (key,), {}), strict)

    def expire(self, key: K, *, strict: bool = False) -> bool:
        """Ends the key's lifetime: with `stale_while_revalidate`, its value is served while one caller loads it anew; otherwise as `delete`."""
        return confirmed(_reads.expire(self._space, (key,), {}), strict)

    async def aexpire(self, key: K, *, strict: bool = False) -> bool:
        """Behaves like `expire`, for asyncio."""
        return confirmed(await _reads.expire_async(self._space, (key,), {}), strict)

    def touch(self, key: K, ttl: Seconds | EllipsisType | None = ...) -> bool:
        """Gives the key's value another lifetime from now on; returns whether it is there.

        Raises:
            Unavailable: The server did not say.
        """
        return _answered(_reads.operate(self._space, (key,), {}, self._touch(ttl)))

    async def atouch(self, key: K, ttl: Seconds | EllipsisType | None = ...) -> bool:
        """Behaves like `touch`, for asyncio."""
        return _answered(await _reads.operate_async(self._space, (key,), {}, self._touch(ttl)))

    @staticmethod
    def _touch(ttl: Any) -> _reads.Begin:
        given = lifetime(ttl)

        def touch(namespace: Any, key: bytes, number: int) -> Any:
            return namespace.touch(key, number, now(), given)

        return touch

    def add(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Sets the key's value if it has none, over all processes at most once; returns whether it did.

        Raises:
            Unavailable: The server did not say.
        """
        addition = _Addition(self._space, value, ttl)
        addition.record_outcome(_reads.read(self._space, (key,), {}, addition.load, _tags(tags)))
        return addition.is_added

    async def aadd(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Behaves like `add`, for asyncio."""
        addition = _Addition(self._space, value, ttl)
        addition.record_outcome(await _reads.read_async(self._space, (key,), {}, addition.load_async, _tags(tags)))
        return addition.is_added

    def incr(self, key: K, delta: int = 1, ttl: Seconds | None = None) -> int:
        """Adds to the key's counter on the server, atomically; returns the sum.

        Counters are apart from values: `get` does not see them. They are never kept in the first tier.

        Args:
            key: The counter's key.
            delta: What is added.
            ttl: Seconds that a counter lives which this call begins; None for no end.

        Raises:
            Unavailable: The server did not say: it may have counted, or not.
        """
        steps = self._counting(key, delta, ttl)
        return _sum(run(self._space.native()[0], steps))

    async def aincr(self, key: K, delta: int = 1, ttl: Seconds | None = None) -> int:
        """Behaves like `incr`, for asyncio."""
        steps = self._counting(key, delta, ttl)
        return _sum(await run_async(self._space.native()[0], steps))

    def _counting(self, key: K, delta: int, ttl: Seconds | None) -> Steps:
        _check_delta(delta)
        session, namespace = self._space.native()
        name = self._space.counter_of((key,), {})
        number = session.node_of(name)
        call = Call(self._space, (key,), {}, None)
        milliseconds = 0 if ttl is None else max(1, lifetime(ttl) // 1_000_000)
        call.direct = _reads.count_commands(name, delta, milliseconds)
        return drive(session, call, namespace.direct(name, number, now()))

    # --- Many keys.

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Returns the values of those of the keys that have one; asks the server for all that the first tier lacks, together."""
        wanted = list(dict.fromkeys(keys))
        found = self._found_here(wanted)
        rest = [key for key in wanted if key not in found]
        if rest:
            marks = self._marks(rest)
            try:
                reading = _many.Reading(self._space, rest, False, ())
                _complete_loads(found, rest, marks, reading.hits, _many.read_many(reading, None))
            finally:
                _abandon(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not _ABSENT}

    async def aget_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Behaves like `get_many`, for asyncio."""
        wanted = list(dict.fromkeys(keys))
        found = self._found_here(wanted)
        rest = [key for key in wanted if key not in found]
        if rest:
            marks = self._marks(rest)
            try:
                reading = _many.Reading(self._space, rest, False, ())
                _complete_loads(found, rest, marks, reading.hits, await _many.read_many_async(reading, None))
            finally:
                _abandon(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not _ABSENT}

    def _found_here(self, keys: list[K]) -> dict[K, Any]:
        values: list[Any] = self._local.get_many(keys, MISSING)
        return {key: value for key, value in zip(keys, values, strict=True) if value is not MISSING}

    def _marks(self, keys: list[K]) -> dict[K, Any]:
        """Loads in flight of the first tier, led by this caller, of those keys that no other caller is loading."""
        marks: dict[K, Any] = {}
        for key in keys:
            kind, flight, *_ = self._local.begin(key)
            if kind == _LEAD:
                marks[key] = flight
        return marks

    def get_or_load_many(
        self, keys: Iterable[K], loader: Callable[[list[K]], Mapping[K, V]], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()
    ) -> dict[K, V]:
        """Returns the values of the keys; loads those that are in neither tier.

        Args:
            keys: The keys.
            loader: Called with the keys that no other process is loading, in one or more lists; returns their values. A key that it leaves out has
                none.
            ttl: As for `get_or_load`.
            tags: As for `get_or_load`.
        """
        wanted = list(dict.fromkeys(keys))
        found = self._found_here(wanted)
        rest = [key for key in wanted if key not in found]
        if rest:
            given = _tags(tags)
            marks = self._marks(rest)

            def load(places: list[int]) -> list[Any]:
                return _loaded_many([rest[at] for at in places], loader([rest[at] for at in places]), ttl)

            try:
                reading = _many.Reading(self._space, rest, True, _reads.tag_names(given))
                _complete_loads(found, rest, marks, reading.hits, _many.read_many(reading, load))
            finally:
                _abandon(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not _ABSENT}

    async def aget_or_load_many(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Awaitable[Mapping[K, V]]],
        ttl: Seconds | EllipsisType | None = ...,
        *,
        tags: Iterable[str] = (),
    ) -> dict[K, V]:
        """Behaves like `get_or_load_many`, for asyncio."""
        wanted = list(dict.fromkeys(keys))
        found = self._found_here(wanted)
        rest = [key for key in wanted if key not in found]
        if rest:
            given = _tags(tags)
            marks = self._marks(rest)

            async def load(places: list[int]) -> list[Any]:
                return _loaded_many([rest[at] for at in places], await loader([rest[at] for at in places]), ttl)

            try:
                reading = _many.Reading(self._space, rest, True, _reads.tag_names(given))
                _complete_loads(found, rest, marks, reading.hits, await _many.read_many_async(reading, load))
            finally:
                _abandon(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not _ABSENT}

    def set_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Sets the values of many keys, whose commands are sent together; returns whether the server confirmed all."""
        return not _reads.write_many(self._space, _pairs(items), lifetime(ttl), _tags(tags))

    async def aset_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()
    ) -> bool:
        """Behaves like `set_many`, for asyncio."""
        return not await _reads.write_many_async(self._space, _pairs(items), lifetime(ttl), _tags(tags))

    def delete_many(self, keys: Iterable[K], *, strict: bool = False) -> bool:
        """Removes many keys, as `delete` does; their commands are sent together. Returns whether the server confirmed all."""
        session, all_steps = self._removals(keys)
        outcomes = _many.run_many(session, all_steps)
        return confirmed(self._removed(outcomes), strict)

    async def adelete_many(self, keys: Iterable[K], *, strict: bool = False) -> bool:
        """Behaves like `delete_many`, for asyncio."""
        session, all_steps = self._removals(keys)
        outcomes = await _many.run_many_async(session, all_steps)
        return confirmed(self._removed(outcomes), strict)

    def _removals(self, keys: Iterable[K]) -> tuple[Any, dict[int, Steps]]:
        session, namespace = self._space.native()
        all_steps: dict[int, Steps] = {}
        for at, key in enumerate(dict.fromkeys(keys)):
            name, full_key = self._space.key_of((key,), {})
            op = namespace.remove(name, session.node_of(name), now())
            all_steps[at] = drive(session, Call(self._space, (key,), {}, full_key), op)
        return session, all_steps

    def _removed(self, outcomes: dict[int, Outcome]) -> bool:
        are_confirmed = all([outcome.is_confirmed for outcome in outcomes.values()])
        session = self._space.native()[0]
        if not are_confirmed:
            for number in session.numbers:
                session.wake_bus(number)
        session.waiters.wake_all()
        return are_confirmed

    # --- The whole.

    def clear(self, *, strict: bool = False) -> bool:
        """Invalidates all keys of this cache, in all processes; returns whether the server confirmed it."""
        return confirmed(_reads.bump(self._space, None), strict)

    async def aclear(self, *, strict: bool = False) -> bool:
        """Behaves like `clear`, for asyncio."""
        return confirmed(await _reads.bump_async(self._space, None), strict)

    def invalidate_tag(self, tag: str, *, strict: bool = False) -> bool:
        """Invalidates all keys whose values were set or loaded with this tag, in all processes; returns whether the server confirmed it."""
        return confirmed(_reads.bump(self._space, _tags((tag,))[0]), strict)

    async def ainvalidate_tag(self, tag: str, *, strict: bool = False) -> bool:
        """Behaves like `invalidate_tag`, for asyncio."""
        return confirmed(await _reads.bump_async(self._space, _tags((tag,))[0]), strict)

    def stats(self) -> dict[str, Any]:
        """Returns what was counted of this cache in this process: "tier1", "tier2", and "server" (see `Redis.stats`)."""
        return self._space.stats(self._local.stats()._asdict())

    def hottest(self, limit: int = 10) -> list[K]:
        """Returns the hottest keys of this process's first tier, at most `limit`."""
        entries: list[tuple[K, Any]] = self._local.items_hottest()
        return [key for key, _ in entries[:limit]]

    async def astats(self) -> dict[str, Any]:
        """As `stats`; waits for nothing."""
        return self.stats()


def _check_server(tier2: Any) -> None:
    if not isinstance(tier2, Redis):
        raise TypeError(f"tier2 must be a hotset.tier2.Redis, not {type(tier2).__name__}")


def _or_absent(value: Any) -> Any:
    return _ABSENT if value is MISSING else value


def _complete_load(flight: Any, outcome: Outcome) -> Any:
    """Has what was read enter the first tier; returns it. Nothing found is not kept, unless the source has said that there is none."""
    value = _or_absent(outcome.value)
    rest = outcome.keep_until - now() if outcome.keep_until else 0
    if rest > 0:
        flight.finish(value, rest / 1e9)
    return value


def _complete_loads(
    found: dict[Any, Any], keys: list[Any], marks: dict[Any, Any], hits: list[tuple[int, Any, int]], outcomes: dict[int, Outcome]
) -> None:
    when = now()
    for at, value, keep_until in hits:
        key = keys[at]
        found[key] = value
        if keep_until > when and key in marks:
            marks[key].finish(value, (keep_until - when) / 1e9)
    error: BaseException | None = None
    for at, outcome in outcomes.items():
        key = keys[at]
        if outcome.error is not None:
            error = error or outcome.error
            continue
        found[key] = _or_absent(outcome.value)
        if key in marks:
            _complete_load(marks[key], outcome)
    if error is not None:
        try:
            raise error
        finally:
            del error


def _abandon(marks: dict[Any, Any]) -> None:
    for flight in marks.values():
        if not flight.done():
            flight.abandon()


def _loaded_many(keys: list[Any], loaded: Mapping[Any, Any], ttl: Any) -> list[Any]:
    values = [loaded.get(key, MISSING) for key in keys]
    if ttl is ...:
        return values
    return [value if type(value) is WithTtl or value is MISSING else WithTtl(value, ttl) for value in values]


def _pairs(items: Any) -> list[tuple[Any, Any]]:
    # (Of keys that are equal, the last value counts.)
    return list(cast("dict[object, object]", dict(items)).items())


def _check_delta(delta: Any) -> None:
    if isinstance(delta, bool) or not isinstance(delta, int):
        raise TypeError(f"delta must be an int, not {type(delta).__name__}")


def _tags(tags: Any) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise TypeError("tags must be several strings, not one")
    given: tuple[Any, ...] = tuple(dict.fromkeys(tags))
    if not given:
        return given
    for tag in given:
        if not isinstance(tag, str):
            raise TypeError(f"a tag must be a str, not {type(tag).__name__}")
        if len(quote_name(tag)) > 255:
            raise ValueError(f"a tag may have at most 255 bytes: {tag[:40]!r}..")
    if len(given) > 16:
        raise ValueError(f"a value may have at most 16 tags, not {len(given)}")
    return given


def _with_ttl(load: Callable[[], Any], ttl: Any) -> Callable[[], Any]:
    if ttl is ...:
        return load

    def wrapped() -> Any:
        value = load()
        return value if type(value) is WithTtl or value is MISSING else WithTtl(value, ttl)

    return wrapped


def _with_ttl_async(load: Callable[[], Awaitable[Any]], ttl: Any) -> Callable[[], Awaitable[Any]]:
    async def wrapped() -> Any:
        value = await load()
        return value if ttl is ... or type(value) is WithTtl or value is MISSING else WithTtl(value, ttl)

    return wrapped


def confirmed(is_confirmed: bool, strict: bool) -> bool:
    """Returns whether an invalidation was confirmed; raises `Unavailable` if it was not and must be."""
    if strict and not is_confirmed:
        raise Unavailable("the second tier did not confirm the invalidation; it is repeated when it answers")
    return is_confirmed


def _answered(outcome: Outcome) -> bool:
    if not outcome.is_answered:
        raise Unavailable("the second tier did not answer")
    return outcome.is_confirmed


def _sum(outcome: Outcome) -> int:
    reply = outcome.value
    if isinstance(reply, ServerError):
        raise Unavailable(f"the second tier did not count: {reply}")
    if not outcome.is_answered or not isinstance(reply, int):
        raise Unavailable("the second tier did not answer: it may have counted, or not")
    return reply


class _Addition:
    """A value that enters if there is none."""

    def __init__(self, space: Space, value: Any, ttl: Any) -> None:
        # (What cannot be encoded cannot be added: it would stay in this process.)
        try:
            space.codec.encode(value)
        except NotEncodable as error:
            raise ValueError(str(error)) from error
        self._value = value if ttl is ... else WithTtl(value, ttl)
        self._is_mine = False
        self.is_added = False

    def load(self) -> Any:
        self._is_mine = True
        return self._value

    async def load_async(self) -> Any:
        return self.load()

    def record_outcome(self, outcome: Outcome) -> None:
        if self._is_mine and not outcome.is_filled:
            raise Unavailable("the second tier did not say whether the value was added")
        self.is_added = self._is_mine


__all__ = ["TieredCache"]
