"""`TieredCache`: a cache of this process in front of a second tier that all processes share."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import partial
from types import EllipsisType
from typing import Any, Generic, TypeVar, cast, overload

from hotset import _async_loads
from hotset._advice import Advice
from hotset._codecs import CodecName, Schema, Serializer
from hotset._hotset import MISSING
from hotset._mapping import Cache
from hotset._registry import list_named
from hotset._settings import Policy, Seconds, unwrap_ttl
from hotset._stats import Stats
from hotset.tier2 import _many, _reads
from hotset.tier2._arguments import check_delta, check_server, checked_tags, last_pairs
from hotset.tier2._cache_loads import (
    ABSENT,
    Addition,
    HIT,
    LEAD,
    MappingTier,
    abandon_all,
    complete_load,
    complete_loads,
    loaded_many,
    or_absent,
    to_local,
    with_ttl,
    with_ttl_async,
)
from hotset.tier2._clock import now
from hotset.tier2._needs import Outcome, Steps
from hotset.tier2._operations import Call, drive
from hotset.tier2._outcomes import answered, confirmed, counted
from hotset.tier2._payload import PayloadCodec
from hotset.tier2._run import run, run_async
from hotset.tier2._server import SecondTier
from hotset.tier2._settings import lifetime, space_settings
from hotset.tier2._space import Space

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class TieredCache(Generic[K, V]):
    """A cache in two tiers: entries of this process in front of a server that all processes share.

    A hit in the first tier needs no network. A miss costs one round trip. A value that is in
    neither tier is loaded once over all processes. A change by one process is visible to the others
    as soon as the server has announced it (see the page "In front of Redis").

    Every method may be called from any thread; those that begin with "a" are for asyncio. Keys must
    be simple values.

    Args:
        tier2: A `hotset.tier2.Redis` or `hotset.tier2.Memcached`.
        name: Distinguishes this cache's keys from those of others. Caches of the same name, codec
            and schema share their values.
        maxsize: The capacity of the first tier in entries, 1,024 by default; None for no bound.
        ttl: Seconds or a timedelta until a value expires, in both tiers; None for no expiration.
        local_ttl: Seconds for which a value stays in the first tier without new confirmation: the
            greatest age of a value that is returned while the server cannot be reached. 60 by
            default, and 5 while the server announces no changes.
        policy: Which entries of the first tier stay: see `hotset.cached`.
        stale_while_revalidate: Seconds after its ttl for which a value is still returned, while one
            caller of all processes reloads it.
        stale_if_error: Seconds after its ttl for which a value is still returned if the loader
            raises.
        codec: How values are encoded: "values", "bytes", "json", or an object with `dumps` and
            `loads`; "pickle" only where the `Redis` has a `sign`.
        schema: A number or string that must be changed whenever the meaning of the values changes:
            old and new programs do not read each other's.
        profile: Whether the first tier simulates itself at other sizes, for `advise()`.
        autosize: (low, high, target): the first tier profiles itself, and sets its capacity within
            these bounds. See `hotset.Cache`.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or the name belongs to other values.

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
        tier2: SecondTier,
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
        profile: bool = False,
        autosize: tuple[int, int, float] | None = None,
    ) -> None:
        check_server(tier2)
        settings = space_settings(
            defaults=tier2.defaults,
            has_bus=tier2.has_bus,
            ttl=ttl,
            local_ttl=local_ttl,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
        )
        payloads = PayloadCodec(codec, schema=schema, **tier2.payload_settings)
        local: Cache[Any, Any] = Cache(
            maxsize, policy=policy, ttl=settings.local_ttl / 1e9, profile=profile, autosize=autosize
        )
        self._local = local
        self._space = Space(tier2, name, payloads, settings, MappingTier(local))
        self._find = local.get
        list_named(name, self)

    def __repr__(self) -> str:
        return f"<hotset.TieredCache {self._space.name!r} on {self._space.server!r}>"

    @property
    def space(self) -> Space:
        """The cache's part of the second tier. Private to the package."""
        return self._space

    # --- One key.

    @overload
    def get(self, key: K, default: None = None) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """Returns the value for `key` from the first tier that has it, or `default`.

        Args:
            key: The key.
            default: What is returned for an absent key.

        Returns:
            The value, or `default`.
        """
        value = self._find(key, MISSING)
        if value is MISSING:
            self._local.count_repeat()
            value = self._get(key)
        return default if value is ABSENT else value

    def _get(self, key: K) -> Any:
        kind, found, *_ = self._local.begin(key)
        if kind == HIT:
            return found
        if kind != LEAD:
            # Another caller loads it: read what the second tier has now, without a loader.
            return or_absent(_reads.read(self._space, (key,), {}, None).value)
        try:
            outcome = _reads.read(self._space, (key,), {}, None)
            return complete_load(found, outcome)
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
            self._local.count_repeat()
            value = await self._aget(key)
        return default if value is ABSENT else value

    async def _aget(self, key: K) -> Any:
        kind, found, *_ = self._local.begin(key)
        if kind == HIT:
            return found
        if kind != LEAD:
            return or_absent((await _reads.read_async(self._space, (key,), {}, None)).value)
        try:
            outcome = await _reads.read_async(self._space, (key,), {}, None)
            return complete_load(found, outcome)
        finally:
            if not found.done():
                found.abandon()

    def get_or_load(
        self, key: K, loader: Callable[[K], V], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = (), default: Any = None
    ) -> V:
        """Returns the value for `key`, calling `loader(key)` if it is in neither tier.

        One caller of all processes calls the loader; the others wait for its value.

        Args:
            key: The key.
            loader: Called with the key. May return `hotset.WithTtl(value, seconds)`, or
                `hotset.MISSING` for "there is none".
            ttl: Seconds until the loaded value expires; `...` for the ttl of the cache, None for no
                expiration.
            tags: Tags of the value, for `invalidate_tag`.
            default: What is returned if the loader reports that there is no value.

        Returns:
            The value, or `default`.

        Raises:
            RuntimeError: The loader requests its own key.
            Unavailable: The server cannot be reached, and the `Redis` has `on_down="raise"`.
        """
        value = self._find(key, MISSING)
        if value is MISSING:
            self._local.count_repeat()
            given, load = checked_tags(tags), with_ttl(partial(loader, key), ttl)
            value = self._local.get_or_load(key, lambda _: to_local(_reads.read(self._space, (key,), {}, load, given)))
        return cast(V, default if value is ABSENT else value)

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
            self._local.count_repeat()
            given, load = checked_tags(tags), with_ttl_async(partial(loader, key), ttl)

            async def through() -> Any:
                return to_local(await _reads.read_async(self._space, (key,), {}, load, given))

            value = unwrap_ttl(await _async_loads.get(partial(self._local.begin, key), through))
        return cast(V, default if value is ABSENT else value)

    def set(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Sets the value for `key` in both tiers.

        Args:
            key: The key.
            value: The value.
            ttl: Seconds until it expires; `...` for the ttl of the cache, None for no expiration.
            tags: Tags of the value, for `invalidate_tag`.

        Returns:
            Whether the server confirmed it. Otherwise the key is invalidated as soon as the server
            answers again, and is not read from there before.
        """
        return _reads.write(self._space, (key,), {}, value, lifetime(ttl), checked_tags(tags))

    async def aset(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Behaves like `set`, for asyncio."""
        return await _reads.write_async(self._space, (key,), {}, value, lifetime(ttl), checked_tags(tags))

    def delete(self, key: K, *, strict: bool = False) -> bool:
        """Removes `key` from both tiers, in all processes.

        Args:
            key: The key.
            strict: Whether to raise `hotset.tier2.Unavailable` if the server did not confirm it.

        Returns:
            Whether the server confirmed it. Otherwise the removal is repeated as soon as the server
            answers again; this process does not read the key from there before.

        Raises:
            Unavailable: The server did not confirm it, and `strict` is set.
        """
        return confirmed(_reads.remove(self._space, (key,), {}), strict)

    async def adelete(self, key: K, *, strict: bool = False) -> bool:
        """Behaves like `delete`, for asyncio."""
        return confirmed(await _reads.remove_async(self._space, (key,), {}), strict)

    def expire(self, key: K, *, strict: bool = False) -> bool:
        """Expires the value for `key`, in all processes.

        With `stale_while_revalidate`, it is still returned while one caller reloads it; otherwise
        it is removed, as by `delete`.

        Args:
            key: The key.
            strict: Whether to raise `hotset.tier2.Unavailable` if the server did not confirm it.

        Returns:
            Whether the server confirmed it.

        Raises:
            Unavailable: The server did not confirm it, and `strict` is set.
        """
        return confirmed(_reads.expire(self._space, (key,), {}), strict)

    async def aexpire(self, key: K, *, strict: bool = False) -> bool:
        """Behaves like `expire`, for asyncio."""
        return confirmed(await _reads.expire_async(self._space, (key,), {}), strict)

    def touch(self, key: K, ttl: Seconds | EllipsisType | None = ...) -> bool:
        """Sets the ttl of the value for `key`, counted from now.

        Args:
            key: The key.
            ttl: As for `set`.

        Returns:
            Whether the key is present.

        Raises:
            Unavailable: The server did not answer.
        """
        return answered(_reads.operate(self._space, (key,), {}, self._touch(ttl)))

    async def atouch(self, key: K, ttl: Seconds | EllipsisType | None = ...) -> bool:
        """Behaves like `touch`, for asyncio."""
        return answered(await _reads.operate_async(self._space, (key,), {}, self._touch(ttl)))

    @staticmethod
    def _touch(ttl: Any) -> _reads.Begin:
        given = lifetime(ttl)

        def touch(namespace: Any, key: bytes, number: int) -> Any:
            return namespace.touch(key, number, now(), given)

        return touch

    def add(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Inserts `value` if `key` is absent, at most once over all processes.

        Args:
            key: The key.
            value: The value.
            ttl: As for `set`.
            tags: Tags of the value, for `invalidate_tag`.

        Returns:
            Whether the value was inserted.

        Raises:
            Unavailable: The server did not answer.
            ValueError: The value cannot be encoded.
        """
        addition = Addition(self._space, value, ttl)
        addition.record_outcome(_reads.read(self._space, (key,), {}, addition.load, checked_tags(tags)))
        return addition.is_added

    async def aadd(self, key: K, value: V, ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Behaves like `add`, for asyncio."""
        addition = Addition(self._space, value, ttl)
        addition.record_outcome(await _reads.read_async(self._space, (key,), {}, addition.load_async, checked_tags(tags)))
        return addition.is_added

    def incr(self, key: K, delta: int = 1, ttl: Seconds | None = None) -> int:
        """Adds `delta` to a counter on the server, atomically.

        Counters are separate from values: `get` does not find them. They are never stored in the
        first tier.

        Args:
            key: The key of the counter.
            delta: The number to add.
            ttl: Seconds until a counter that this call creates expires; None for no expiration.

        Returns:
            The sum.

        Raises:
            Unavailable: The server did not answer: it may have counted, or not.
        """
        steps = self._counting(key, delta, ttl)
        return counted(run(self._space.native()[0], steps))

    async def aincr(self, key: K, delta: int = 1, ttl: Seconds | None = None) -> int:
        """Behaves like `incr`, for asyncio."""
        steps = self._counting(key, delta, ttl)
        return counted(await run_async(self._space.native()[0], steps))

    def _counting(self, key: K, delta: int, ttl: Seconds | None) -> Steps:
        check_delta(delta)
        session, namespace = self._space.native()
        name = self._space.counter_of((key,), {})
        number = session.topology.node_of(name)
        call = Call(self._space, (key,), {}, None)
        milliseconds = 0 if ttl is None else max(1, lifetime(ttl) // 1_000_000)
        call.direct = _reads.count_commands(session, name, delta, milliseconds)
        return drive(session, call, namespace.direct(name, number, now()))

    # --- Many keys.

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Returns a dict of the keys that are present, with their values.

        One request reads all keys that the first tier lacks.

        Args:
            keys: The keys.
        """
        wanted = list(dict.fromkeys(keys))
        found = self._found_here(wanted)
        rest = [key for key in wanted if key not in found]
        if rest:
            marks = self._marks(rest)
            try:
                reading = _many.Reading(self._space, rest, False, ())
                complete_loads(found, rest, marks, reading.hits, _many.read_many(reading, None))
            finally:
                abandon_all(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not ABSENT}

    async def aget_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Behaves like `get_many`, for asyncio."""
        wanted = list(dict.fromkeys(keys))
        found = self._found_here(wanted)
        rest = [key for key in wanted if key not in found]
        if rest:
            marks = self._marks(rest)
            try:
                reading = _many.Reading(self._space, rest, False, ())
                complete_loads(found, rest, marks, reading.hits, await _many.read_many_async(reading, None))
            finally:
                abandon_all(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not ABSENT}

    def _found_here(self, keys: list[K]) -> dict[K, Any]:
        values: list[Any] = self._local.get_many(keys, MISSING)
        return {key: value for key, value in zip(keys, values, strict=True) if value is not MISSING}

    def _marks(self, keys: list[K]) -> dict[K, Any]:
        """Begins loads of the first tier for those keys that no other caller is loading."""
        marks: dict[K, Any] = {}
        for key in keys:
            kind, flight, *_ = self._local.begin(key)
            if kind == LEAD:
                marks[key] = flight
        return marks

    def get_or_load_many(
        self, keys: Iterable[K], loader: Callable[[list[K]], Mapping[K, V]], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()
    ) -> dict[K, V]:
        """Returns the values of the keys, loading those that are in neither tier.

        Args:
            keys: The keys.
            loader: Called with the keys that no other process is loading, in one or more lists;
                returns their values. A key that it omits has no value.
            ttl: As for `get_or_load`.
            tags: As for `get_or_load`.

        Returns:
            A dict of the keys that have a value.
        """
        wanted = list(dict.fromkeys(keys))
        found = self._found_here(wanted)
        rest = [key for key in wanted if key not in found]
        if rest:
            given = checked_tags(tags)
            marks = self._marks(rest)

            def load(places: list[int]) -> list[Any]:
                return loaded_many([rest[at] for at in places], loader([rest[at] for at in places]), ttl)

            try:
                reading = _many.Reading(self._space, rest, True, _reads.tag_names(given))
                complete_loads(found, rest, marks, reading.hits, _many.read_many(reading, load))
            finally:
                abandon_all(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not ABSENT}

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
            given = checked_tags(tags)
            marks = self._marks(rest)

            async def load(places: list[int]) -> list[Any]:
                return loaded_many([rest[at] for at in places], await loader([rest[at] for at in places]), ttl)

            try:
                reading = _many.Reading(self._space, rest, True, _reads.tag_names(given))
                complete_loads(found, rest, marks, reading.hits, await _many.read_many_async(reading, load))
            finally:
                abandon_all(marks)
        return {key: found[key] for key in wanted if key in found and found[key] is not ABSENT}

    def set_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()) -> bool:
        """Sets the values of many keys, whose commands are sent together.

        Args:
            items: A mapping, or pairs of key and value.
            ttl: As for `set`.
            tags: As for `set`.

        Returns:
            Whether the server confirmed all of them.
        """
        return not _reads.write_many(self._space, last_pairs(items), lifetime(ttl), checked_tags(tags))

    async def aset_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Seconds | EllipsisType | None = ..., *, tags: Iterable[str] = ()
    ) -> bool:
        """Behaves like `set_many`, for asyncio."""
        return not await _reads.write_many_async(self._space, last_pairs(items), lifetime(ttl), checked_tags(tags))

    def delete_many(self, keys: Iterable[K], *, strict: bool = False) -> bool:
        """Removes many keys, as `delete` does; their commands are sent together.

        Args:
            keys: The keys.
            strict: Whether to raise `hotset.tier2.Unavailable` if the server did not confirm it.

        Returns:
            Whether the server confirmed all of them.

        Raises:
            Unavailable: The server did not confirm all of them, and `strict` is set.
        """
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
            op = namespace.remove(name, session.topology.node_of(name), now())
            all_steps[at] = drive(session, Call(self._space, (key,), {}, full_key), op)
        return session, all_steps

    def _removed(self, outcomes: dict[int, Outcome]) -> bool:
        are_confirmed = all([outcome.is_confirmed for outcome in outcomes.values()])
        session = self._space.native()[0]
        if not are_confirmed:
            for number in session.topology.numbers:
                session.wake_bus(number)
        session.waiters.wake_all()
        return are_confirmed

    # --- The whole.

    def clear(self, *, strict: bool = False) -> bool:
        """Invalidates all keys of this cache, in all processes.

        Args:
            strict: Whether to raise `hotset.tier2.Unavailable` if the server did not confirm it.

        Returns:
            Whether the server confirmed it.

        Raises:
            Unavailable: The server did not confirm it, and `strict` is set.
        """
        return confirmed(_reads.bump(self._space, None), strict)

    async def aclear(self, *, strict: bool = False) -> bool:
        """Behaves like `clear`, for asyncio."""
        return confirmed(await _reads.bump_async(self._space, None), strict)

    def invalidate_tag(self, tag: str, *, strict: bool = False) -> bool:
        """Invalidates all keys whose values have this tag, in all processes.

        Args:
            tag: The tag.
            strict: Whether to raise `hotset.tier2.Unavailable` if the server did not confirm it.

        Returns:
            Whether the server confirmed it.

        Raises:
            Unavailable: The server did not confirm it, and `strict` is set.
        """
        return confirmed(_reads.bump(self._space, checked_tags((tag,))[0]), strict)

    async def ainvalidate_tag(self, tag: str, *, strict: bool = False) -> bool:
        """Behaves like `invalidate_tag`, for asyncio."""
        return confirmed(await _reads.bump_async(self._space, checked_tags((tag,))[0]), strict)

    def advise(self) -> Advice:
        """Returns the hit ratio that the first tier would have at other sizes.

        Returns:
            The advice. `str(advice)` is a sentence for a person. See `hotset.Cache.advise`.

        Raises:
            RuntimeError: The cache is not profiled.
        """
        return self._local.advise()

    def stats(self) -> dict[str, Any]:
        """Returns the counters of this cache in this process: "tier1", "tier2" and "server".

        See `Redis.stats` for the last one.
        """
        return self._space.stats(self._local.stats()._asdict())

    def __hotset_stats__(self) -> Stats:
        return self._local.stats()

    def __hotset_totals__(self) -> Stats:
        return self._local.__hotset_totals__()

    def __hotset_tier2__(self) -> dict[str, int]:
        return self._space.counters()

    def hottest(self, limit: int = 10) -> list[K]:
        """Returns the hottest keys of this process's first tier.

        Args:
            limit: The greatest number of keys.
        """
        entries: list[tuple[K, Any]] = self._local.items_hottest()
        return [key for key, _ in entries[:limit]]

    async def astats(self) -> dict[str, Any]:
        """Behaves like `stats`, for asyncio; waits for nothing."""
        return self.stats()


__all__ = ["TieredCache"]
