"""`Cache`: the engine as a mapping."""

from collections.abc import Awaitable, Callable, Hashable, ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from functools import partial
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, cast, overload

from hotset import _async_loads, _hotset, _snapshot
from hotset._advice import Advice, advice_of
from hotset._codecs import CodecName, Schema, Serializer, codec_of, codecs_for_load, codec_for_save
from hotset._hotset import KEEP
from hotset._registry import register
from hotset._settings import Cause, Policy, Seconds, Ttl, checked_bound, settings_of, unwrap_ttl, ttl_of, weigher_of
from hotset._snapshot import Path, path_of
from hotset._stats import Stats, stats_of

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")
_ABSENT = object()


class _Keys(KeysView[K]):
    """The keys of a cache, hottest first."""

    _mapping: "Cache[K, Any]"

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._mapping)


class _Items(ItemsView[K, V]):
    """The entries of a cache as of the start of an iteration, hottest first, counting no hits."""

    _mapping: "Cache[K, V]"

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(self._mapping.items_hottest())

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return reversed(self._mapping.items_hottest())


class _Values(ValuesView[V]):
    """The values of a cache as of the start of an iteration, hottest first, counting no hits."""

    _mapping: "Cache[Any, V]"

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.items_hottest())

    def __reversed__(self) -> Iterator[V]:
        return (value for _, value in reversed(self._mapping.items_hottest()))

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


def _is_mapping(other: object) -> bool:
    return isinstance(other, Mapping)


class Cache(_hotset.Cache, MutableMapping[K, V]):
    """A mapping with a bounded number of entries, which expire.

    Every method may be called from any thread, and is atomic unless stated otherwise. A lookup, an
    insertion and a removal are O(1). Iteration yields the entries as of its start, hottest first.
    `==` compares with other mappings by content, as that of dict does; so a cache is not hashable.

    The settings are taken by `__new__`: a subclass with an `__init__` of its own must override
    that, too. A subclass may have a `__missing__(key)`, as of dict.

    Args:
        maxsize: The capacity in entries, 1,024 by default; None for no bound.
        policy: Which entries stay: "tinylfu", "lru", "lfu", "fifo" or "random".
        ttl: Seconds (or a timedelta) until an entry expires, counted from its insertion or from the
            last replacement of its value.
        tti: Seconds (or a timedelta) until an entry expires, counted from its last use.
        jitter: The fraction of its ttl, from 0 to less than 1, by which an entry may expire
            earlier, at random.
        weigher: Returns the weight of an entry: called with the value, or with key and value if it
            takes two arguments. Requires `max_weight`.
        max_weight: The capacity in weight, instead of `maxsize`.
        on_removal: Called as `on_removal(key, value, cause)` after an entry was removed; the cause
            is "expired", "size", "explicit" or "replaced".
        negative_ttl: Seconds for which an exception of a loader is cached and raised again, as a
            copy each time.
        timer: Called in place of the system's monotonic clock, for tests; returns seconds.
        profile: Whether the cache simulates itself at other sizes, for `advise()`. Needs a bound of
            at least 1.
        autosize: (low, high, target): the cache profiles itself, and sets its capacity within these
            bounds, to the smallest one that gives the share `target` of the hits of a cache without
            a bound.
        name: The name of the cache in `hotset.caches()`.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or conflicts with another one.
        MemoryError: There is no memory for a table of `maxsize` entries. (Up to 2**26 entries it is
            allocated when the cache is created.)
        RuntimeError: No cache can be created in this process: its allocator returns pointers with a
            tag in their upper 16 bits.
        OSError: The operating system refused a thread that a setting needs.

    Example:
        >>> import hotset
        >>> prices: hotset.Cache[str, float] = hotset.Cache(maxsize=10_000, ttl=60)
        >>> prices["tea"] = 3.2
        >>> prices["tea"], prices.get("ice")
        (3.2, None)
        >>> prices.get_or_load("rum", lambda key: len(key) * 1.5)
        4.5
        >>> sorted(prices)
        ['rum', 'tea']
    """

    __slots__ = ("_first_settings", "_name", "_settings")

    _first_settings: dict[str, Any]
    _settings: dict[str, Any]
    _name: str | None

    def __new__(
        cls,
        maxsize: int | EllipsisType | None = ...,
        *,
        policy: Policy = "tinylfu",
        ttl: Seconds | None = None,
        tti: Seconds | None = None,
        jitter: float = 0.0,
        weigher: Callable[[V], int] | Callable[[K, V], int] | None = None,
        max_weight: int | None = None,
        on_removal: Callable[[K, V, Cause], object] | None = None,
        negative_ttl: Seconds | None = None,
        timer: Callable[[], float] | None = None,
        profile: bool = False,
        autosize: tuple[int, int, float] | None = None,
        name: str | None = None,
    ) -> Self:
        settings = settings_of(
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
        self = super().__new__(cls, **{**settings, "weigher": weigher_of(settings["weigher"])})
        self._settings = settings
        self._first_settings = dict(settings)
        self._name = name
        register(name, self)
        return self

    def __init_subclass__(cls) -> None:
        """Raises a TypeError for a subclass whose `__init__` would take settings that `__new__`
        refuses.
        """
        super().__init_subclass__()
        if "__init__" in vars(cls) and cls.__new__ is cast(Any, Cache).__new__:
            raise TypeError(f"{cls.__name__} has an __init__, but no __new__: a hotset.Cache takes its settings in __new__")

    if TYPE_CHECKING:
        # The native part implements these; here are their types.
        def __getitem__(self, key: K, /) -> V: ...
        def __setitem__(self, key: K, value: V, /) -> None: ...
        def __delitem__(self, key: K, /) -> None: ...
        def __iter__(self) -> Iterator[K]: ...
        @overload
        def get(self, key: K, default: None = None, /) -> V | None: ...
        @overload
        def get(self, key: K, default: V | D, /) -> V | D: ...
        def get(self, key: Any, default: Any = None, /) -> Any:
            """Returns the value for `key`, or `default` if the key is absent or expired.

            Args:
                key: The key.
                default: What is returned for an absent key.

            Returns:
                The value, or `default`. Counts as a hit or a miss.
            """
            ...

        @overload  # type: ignore[override]  # the native default is private
        def pop(self, key: K) -> V: ...
        @overload
        def pop(self, key: K, default: V | D) -> V | D: ...
        def pop(self, key: Any, default: Any = ...) -> Any:
            """Removes `key` and returns its value, or `default` if the key is absent.

            Args:
                key: The key.
                default: What is returned for an absent key.

            Returns:
                The value, or `default`.

            Raises:
                KeyError: The key is absent, and there is no `default`.
            """
            ...

        def setdefault(self, key: K, default: V) -> V:  # type: ignore[override]
            """Returns the value for `key`, after inserting `default` if the key is absent.

            Args:
                key: The key.
                default: The value for an absent key.

            Returns:
                The value that the cache then holds.
            """
            ...

        def remaining(self, key: K) -> float | None:
            """Returns the seconds until the entry of `key` expires, or None if it never does.

            Args:
                key: The key.

            Returns:
                Seconds, or None. Counts neither as a hit nor as a miss.

            Raises:
                KeyError: The key is absent or expired.
            """
            ...

        def items_hottest(self) -> list[tuple[K, V]]:
            """Returns all entries as (key, value), hottest first, counting no hits. O(n)."""
            ...

        @overload
        def peek(self, key: K, default: None = None) -> V | None: ...
        @overload
        def peek(self, key: K, default: V | D) -> V | D: ...
        def peek(self, key: Any, default: Any = None) -> Any:
            """Returns the value for `key`, or `default`, without counting or affecting eviction.

            Args:
                key: The key.
                default: What is returned for an absent key.

            Returns:
                The value, or `default`.
            """
            ...

    # --- One entry.

    def set(self, key: K, value: V, ttl: Ttl = ...) -> None:
        """Sets the value for `key`, with a time to live of its own.

        Args:
            key: The key.
            value: The value.
            ttl: Seconds or a timedelta until the entry expires: 0 or less for an entry that has
                expired already, None for one that never expires, `...` for the ttl of the cache, as
                with c[key] = value, and KEEP for the deadline of the entry that is replaced.

        Raises:
            TypeError: `ttl` is of the wrong type.
            ValueError: `ttl` is not a number.

        Example:
            >>> import hotset
            >>> c: hotset.Cache[str, int] = hotset.Cache(100, ttl=60)
            >>> c.set("a", 1, ttl=5)
            >>> c.set("b", 2, ttl=None)
            >>> c.remaining("a") <= 5, c.remaining("b")
            (True, None)
        """
        super().set(key, value, ttl_of(ttl))

    def set_with_ttl(self, key: K, value: V, ttl: Ttl) -> None:
        """Sets the value for `key`, where the time to live must be given.

        Args:
            key: The key.
            value: The value.
            ttl: As for `set`.
        """
        super().set(key, value, ttl_of(ttl))

    def add(self, key: K, value: V, ttl: Ttl = ...) -> bool:
        """Inserts `value` if `key` is absent or expired, atomically.

        Args:
            key: The key.
            value: The value.
            ttl: As for `set`.

        Returns:
            Whether the value was inserted.

        Example:
            >>> import hotset
            >>> locks: hotset.Cache[str, int] = hotset.Cache(100)
            >>> locks.add("job", 1), locks.add("job", 2)
            (True, False)
        """
        return super().add(key, value, ttl_of(ttl))

    def touch(self, key: K, ttl: Ttl = ...) -> bool:
        """Sets the time to live of the entry of `key`, counted from now.

        The value stays the same object, and `on_removal` is not called.

        Args:
            key: The key.
            ttl: As for `set`.

        Returns:
            Whether the key is present.
        """
        return super().touch(key, ttl_of(ttl))

    def delete(self, key: K) -> bool:
        """Removes `key`, and invalidates a load of it in progress.

        Args:
            key: The key.

        Returns:
            Whether the key was present.
        """
        return super().delete(key)

    @overload
    def compute(self, key: K, change: Callable[[V | None], V | None], default: None = None, ttl: Ttl = KEEP) -> V | None: ...
    @overload
    def compute(self, key: K, change: Callable[[V | D], V | D], default: D, ttl: Ttl = KEEP) -> V | D: ...
    def compute(self, key: Any, change: Any, default: Any = None, ttl: Ttl = KEEP) -> Any:
        """Replaces the value for `key` by `change(value)`, atomically.

        Args:
            key: The key.
            change: Called with the value, or with `default` if the key is absent; called again if
                another thread changed the value first. If it returns `hotset.MISSING`, or None
                where that is the default, the entry is removed; any other result is stored.
            default: What `change` is called with if the key is absent.
            ttl: As for `set`. By default an entry keeps its deadline.

        Returns:
            The value that the cache then holds, or `default` if it holds none.

        Example:
            >>> import hotset
            >>> hits: hotset.Cache[str, int] = hotset.Cache(100)
            >>> hits.compute("home", lambda n: n + 1, 0), hits.compute("home", lambda n: n + 1, 0)
            (1, 2)
        """
        return super().compute(key, change, default, ttl_of(ttl))

    def incr(self, key: K, delta: Any = 1, default: Any = 0, ttl: Ttl = KEEP) -> Any:
        """Adds `delta` to the value for `key`, atomically.

        Args:
            key: The key.
            delta: The number to add.
            default: The value that an absent key counts as; None for a KeyError instead.
            ttl: As for `set`. By default an entry keeps its deadline: a counter per minute is
                started with `ttl`, and incremented without.

        Returns:
            The sum.

        Raises:
            KeyError: The key is absent, and `default` is None.
        """

        def add(value: Any) -> Any:
            if value is _hotset.MISSING:
                if default is None:
                    raise KeyError(key)
                value = default
            return value + delta

        return self.compute(key, add, _hotset.MISSING, ttl)

    def decr(self, key: K, delta: Any = 1, default: Any = 0, ttl: Ttl = KEEP) -> Any:
        """Subtracts `delta` from the value for `key`, atomically.

        Args:
            key: The key.
            delta: The number to subtract.
            default: The value that an absent key counts as; None for a KeyError instead.
            ttl: As for `incr`.

        Returns:
            The difference.

        Raises:
            KeyError: The key is absent, and `default` is None.
        """
        return self.incr(key, -delta, default, ttl)

    @overload
    def get_with_remaining(self, key: K, default: None = None) -> tuple[V, float | None] | None: ...
    @overload
    def get_with_remaining(self, key: K, default: D) -> tuple[V, float | None] | D: ...
    def get_with_remaining(self, key: Any, default: Any = None) -> Any:
        """Returns the value for `key` and the seconds until it expires, or `default`.

        Args:
            key: The key.
            default: What is returned for an absent key.

        Returns:
            A pair of value and seconds (None: it never expires), or `default`.
        """
        while True:
            # This lookup is counted. Both parts of the pair below are of one entry, possibly a
            # newer one.
            if super().get(key, _hotset.MISSING) is _hotset.MISSING:
                return default
            found = super().peek_with_remaining(key)
            if found is not None:
                return found

    # --- Many entries.

    def set_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Ttl = ...) -> None:
        """Sets the values of many keys, one after the other.

        Args:
            items: A mapping, or pairs of key and value.
            ttl: As for `set`.
        """
        lifetime = ttl_of(ttl)
        pairs = cast("Iterable[tuple[K, V]]", items.items() if isinstance(items, Mapping) else items)
        for key, value in pairs:
            super().set(key, value, lifetime)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Removes many keys, one after the other.

        Args:
            keys: The keys.

        Returns:
            The number of keys that were present.
        """
        return sum([self.delete(key) for key in keys])

    @overload
    def get_many(self, keys: Iterable[K], default: None = None, *, as_dict: Literal[False] = False) -> list[V | None]: ...
    @overload
    def get_many(self, keys: Iterable[K], default: V | D, *, as_dict: Literal[False] = False) -> list[V | D]: ...
    @overload
    def get_many(self, keys: Iterable[K], *, as_dict: Literal[True]) -> dict[K, V]: ...
    def get_many(self, keys: Any, default: Any = None, *, as_dict: bool = False) -> Any:
        """Returns the values of many keys, looked up together.

        Args:
            keys: The keys.
            default: The value in the list for an absent key.
            as_dict: Whether to return a dict instead of a list.

        Returns:
            The values in the order of `keys`, or a dict of the keys that are present.
        """
        if not as_dict:
            return super().get_many(keys, default)
        keys = list(keys)
        found = zip(keys, super().get_many(keys, _hotset.MISSING), strict=True)
        return {key: value for key, value in found if value is not _hotset.MISSING}

    def items_with_remaining(self) -> list[tuple[K, V, float | None]]:
        """Returns all entries with the seconds until they expire, hottest first. O(n).

        Returns:
            Tuples of key, value and seconds (None: it never expires). Counts no hits.

        Example:
            >>> import hotset
            >>> c: hotset.Cache[str, int] = hotset.Cache(100)
            >>> c["a"] = 1
            >>> c.items_with_remaining()
            [('a', 1, None)]
        """
        return cast("list[tuple[K, V, float | None]]", self.entries_with_remaining(False))

    def expire(self) -> list[tuple[K, V]]:
        """Removes all expired entries that are still held. O(n).

        Not needed for correctness: lookups do not find expired entries, and later calls free them.

        Returns:
            The removed entries as pairs of key and value.
        """
        return self.take_expired()

    def popitem(self, last: bool = True) -> tuple[K, V]:
        """Removes an entry and returns its key and value.

        Args:
            last: True for the coldest entry, the next that would be evicted; O(1). It is the last
                of an iteration, or close to it. False for the hottest entry; O(n).

        Returns:
            The key and the value.

        Raises:
            KeyError: The cache is empty.
        """
        if last:
            coldest = self.pop_coldest()
            if coldest is not None:
                return coldest
        else:
            for key, _ in self.items_hottest():
                value: Any = self.pop(key, cast(Any, _ABSENT))
                if value is not _ABSENT:
                    return key, value
        raise KeyError("popitem(): the cache is empty")

    # --- Loads.

    def get_or_load(self, key: K, loader: Callable[[K], V], ttl: Ttl = ...) -> V:
        """Returns the value for `key`, calling `loader(key)` to compute and insert it if absent.

        Concurrent calls for the same key wait for that one load; calls for other keys are not
        blocked. An exception of the loader is raised in each of these calls, as a copy of its own,
        and is cached for `negative_ttl`. The loader runs without a lock.

        Args:
            key: The key.
            loader: Called with the key.
            ttl: The time to live of the loaded value, as for `set`.

        Returns:
            The value.

        Raises:
            RuntimeError: The call would wait for itself: for a load of the calling thread, or of
                the event loop that it blocks.

        Example:
            >>> import hotset
            >>> users: hotset.Cache[int, str] = hotset.Cache(1000)
            >>> users.get_or_load(7, lambda key: f"user {key}")
            'user 7'
        """
        return cast(V, super().get_or_load(key, loader, ttl_of(ttl)))

    async def aget_or_load(self, key: K, loader: Callable[[K], Awaitable[V]], ttl: Ttl = ...) -> V:
        """Returns the value for `key`, awaiting `loader(key)` to compute and insert it if absent.

        The loader runs in a task of its own: cancelling a waiting caller does not end it. Tasks of
        other event loops share the load, as do threads in `get_or_load`.

        Args:
            key: The key.
            loader: Called with the key; its result is awaited.
            ttl: The time to live of the loaded value, as for `set`.

        Returns:
            The value.

        Raises:
            RuntimeError: The call would wait for itself.

        Example:
            >>> import asyncio, hotset
            >>> async def load(key: str) -> int:
            ...     return len(key)
            >>> c: hotset.Cache[str, int] = hotset.Cache(100)
            >>> asyncio.run(c.aget_or_load("tea", load))
            3
        """
        return cast(V, unwrap_ttl(await _async_loads.get(partial(self.begin, key), partial(loader, key), ttl_of(ttl))))

    # --- The whole.

    @property
    def maxsize(self) -> int | None:
        """The capacity in entries, or in weight with a `max_weight`; None without a bound."""
        settings = self._settings
        if settings["autosize"] is not None:
            return self.capacity_now()
        return cast("int | None", settings["maxsize"] if settings["max_weight"] is None else settings["max_weight"])

    @property
    def currsize(self) -> int:
        """The number of entries, or their weight with a `max_weight`."""
        return len(self) if self._settings["max_weight"] is None else self.stats().weight

    @property
    def ttl(self) -> float | None:
        """The ttl of entries without one of their own, in seconds; None: they never expire."""
        return cast("float | None", self._settings["ttl"])

    @property
    def timer(self) -> Callable[[], float] | None:
        """The clock that the cache was created with, or None for the system's."""
        return cast("Callable[[], float] | None", self._settings["timer"])

    @property
    def name(self) -> str | None:
        """The name in `hotset.caches()`, or None."""
        return self._name

    def copy(self) -> Self:
        """Returns a cache with the same settings, entries and remaining times to live. O(n).

        The copy has no name. `copy.copy(cache)` does the same. Keys and values are the same
        objects. Times to idle start anew.

        Returns:
            The copy.
        """
        other = self._empty()
        for key, value, left in reversed(self.entries_with_remaining(True)):
            other.set(key, value, left)
        # Attributes that a subclass has beside the entries.
        if hasattr(self, "__dict__"):
            vars(other).update(vars(self))
        return other

    __copy__ = copy

    def _empty(self) -> Self:
        create = partial(cast(Any, Cache).__new__, type(self))
        if self._settings["autosize"] is None:
            return cast(Self, create(**self._settings))
        other: Self = create(**self._first_settings)
        other.resize(self.capacity_now())
        return other

    def __or__(self, other: Mapping[K, V]) -> Self:
        if not _is_mapping(other):
            return NotImplemented
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Mapping[K, V]) -> Self:
        if not _is_mapping(other):
            return NotImplemented
        merged = self._empty()
        merged.update(other)
        merged.update(self)
        return merged

    def __ior__(self, other: Mapping[K, V] | Iterable[tuple[K, V]]) -> Self:
        self.update(other)
        return self

    def __reversed__(self) -> Iterator[K]:
        """Iterates over the keys, coldest first."""
        return (key for key, _ in reversed(self.items_hottest()))

    def keys(self) -> _Keys[K]:
        """Returns a view of the keys, hottest first."""
        return _Keys(self)

    def items(self) -> _Items[K, V]:
        """Returns a view of all entries, hottest first, whose iteration counts no hits."""
        return _Items(self)

    def values(self) -> _Values[V]:
        """Returns a view of the values, hottest first, whose iteration counts no hits."""
        return _Values(self)

    def stats(self) -> Stats:  # type: ignore[override]  # the native part's, with names
        """Returns the statistics of the cache: its counters, and what it holds.

        Example:
            >>> import hotset
            >>> c: hotset.Cache[str, int] = hotset.Cache(100)
            >>> c.get("a"), c.stats().misses
            (None, 1)
        """
        return stats_of(super().stats(), self._settings)

    __hotset_stats__ = stats

    def __hotset_totals__(self) -> Stats:
        return stats_of(super().totals(), self._settings)

    def advise(self) -> Advice:  # type: ignore[override]  # the native part's, with names
        """Returns the hit ratio that this cache would have at other sizes, and what to do about it.

        The cache must have been created with `profile=True`. It simulates itself at a quarter,
        half, 1, 2, 4 and 8 times its capacity, with its own policy, over a sample of its keys.
        After a `resize`, there is no advice until the simulations have been filled.

        Returns:
            The advice. `str(advice)` is a sentence for a person.

        Raises:
            RuntimeError: The cache is not profiled, or was resized to 0.

        Example:
            >>> import hotset
            >>> squares: hotset.Cache[int, int] = hotset.Cache(500, profile=True)
            >>> for n in range(20_000):  # a loop over more keys than fit
            ...     _ = squares.get_or_load(n % 800, lambda n: n * n)
            >>> advice = squares.advise()
            >>> print(str(advice)[:22])
            Make it larger: the hi
            >>> [point.capacity for point in advice.points]
            [125, 250, 500, 1000, 2000, 4000]
        """
        return advice_of(super().advise())

    def reset_stats(self) -> None:
        """Resets all counters to 0. (`clear` resets only hits and misses.)"""
        super().reset_stats()

    def resize(self, maxsize: int) -> None:
        """Sets the capacity, evicting the coldest entries immediately if there are too many.

        Args:
            maxsize: The capacity in entries, or in weight with a `max_weight`.

        Raises:
            TypeError: `maxsize` is not an int.
            ValueError: `maxsize` is negative.
        """
        which = "maxsize" if self._settings["max_weight"] is None else "max_weight"
        size = checked_bound(which, maxsize)
        super().resize(size)
        self._settings[which] = size

    def save(self, path: Path, *, codec: CodecName | Serializer = "values", schema: Schema = None) -> int:
        """Saves all entries to a file that the next process can load.

        Entries are saved with their remaining times to live, and with what the policy has recorded
        of them. Entries that the codec cannot encode are left out, with a SnapshotWarning. The file
        replaces the previous one once it is complete and on the disk: a save that raises, or is
        interrupted before that, leaves the previous file unchanged. Other threads, and the codec,
        may use the cache during the save.

        A symbolic link is followed. A new file can be read and written by its owner only; one that
        replaces another keeps its mode, its group where the process may set that, on Linux its
        access control list, and its owner where the process may give files away, as root may.

        Args:
            path: The path of the file.
            codec: "values" (None, bool, int, float, complex, str, bytes, tuple, list, dict, set,
                frozenset, Decimal, UUID and the classes of datetime, each restored exactly),
                "bytes", "json" (what JSON restores unchanged), or an object with `dumps` and
                `loads`, such as msgpack and orjson. "pickle" encodes almost any object, and
                *loading a pickle runs code of its writer's choice*: use it only for files that no
                other user can write. Keys are always encoded by "values", except where the codec is
                "pickle". With "bytes", a cache whose keys are all bytes makes a file that the C
                library and Rust's `Cache<Vec<u8>, Vec<u8>>` can load, and theirs can be loaded; an
                integer schema is then theirs.
            schema: A number or string that must be changed whenever the meaning of the values
                changes: a file can be loaded only with the codec and schema that it was saved with.

        Returns:
            The number of saved entries.

        Raises:
            SnapshotError: The codec can encode none of the entries.
            OSError: The operating system refused to write the file.
            TypeError, ValueError: An argument is none of the above.

        Example:
            >>> import hotset, os, tempfile
            >>> path = os.path.join(tempfile.mkdtemp(), "prices.snapshot")
            >>> prices: hotset.Cache[str, float] = hotset.Cache(10_000, ttl=60)
            >>> prices["tea"] = 3.2
            >>> prices.save(path)
            1
            >>> warm: hotset.Cache[str, float] = hotset.Cache(10_000, ttl=60)
            >>> warm.load(path)
            1
            >>> warm["tea"]
            3.2
        """
        chosen, number = codec_for_save(codec_of(codec), schema, self)
        return _snapshot.save(self, path_of(path), chosen, number)

    def load(self, path: Path, *, codec: CodecName | Serializer = "values", schema: Schema = None) -> int:
        """Loads the entries that `save` saved, hottest first, as long as there is room.

        Entries that the cache already holds stay. Times to live keep counting down by the wall
        clock while no process runs; expired entries are not restored. A file is restored whole or
        not at all. Load at the start: entries that other threads remove during the load may be
        restored. The file is read into memory first, which takes memory of its size during the
        load; what happens to the file afterwards does not matter.

        Args:
            path: The path of the file.
            codec: The codec that the file was saved with.
            schema: The schema that the file was saved with.

        Returns:
            The number of restored entries.

        Raises:
            SnapshotError: The file is corrupt, or was saved with another codec or schema, or the
                codec cannot decode an entry.
            FileNotFoundError: There is no such file.
            OSError: The operating system refused to read the file.
        """
        first, *others = codecs_for_load(codec_of(codec), schema)
        try:
            return _snapshot.load(self, path_of(path), *first)
        except _hotset.SnapshotError as error:
            if error.reason != "schema" or not others:
                raise
        return _snapshot.load(self, path_of(path), *others[0])

    def __repr__(self) -> str:
        try:
            entries: object = self.stats().entries
        except Exception:
            # For example, the timer raises; a debugger must be able to show the cache nevertheless.
            entries = "?"
        named = "" if self._name is None else f"{self._name!r}, "
        times = "".join(f", {which}={self._settings[which]:g}" for which in ("ttl", "tti") if self._settings[which] is not None)
        return f"<hotset.{type(self).__name__} {named}entries={entries}, capacity={self.maxsize}{times}>"

    def __reduce_ex__(self, protocol: Any, /) -> Never:
        raise TypeError(
            "a hotset.Cache can be neither pickled nor copied deeply: it belongs to this process, with its threads and timers; "
            "take dict(cache) for its content, or cache.copy()"
        )
