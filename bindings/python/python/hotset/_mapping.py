"""`Cache`: the engine as a mapping."""

from collections.abc import Awaitable, Callable, Hashable, ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from functools import partial
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, cast, overload

from hotset import _async_loads, _hotset, _snapshot
from hotset._codecs import CodecName, Schema, Serializer, codec_of, codecs_for_load, codec_for_save
from hotset._hotset import KEEP
from hotset._registry import register
from hotset._settings import Cause, Policy, Seconds, Ttl, checked_bound, checked_settings, unwrap_ttl, ttl_of, weigher_of
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
    """The entries of a cache as of the beginning of an iteration, hottest first. They count as no hits."""

    _mapping: "Cache[K, V]"

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(self._mapping.items_hottest())

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return reversed(self._mapping.items_hottest())


class _Values(ValuesView[V]):
    """The values of a cache as of the beginning of an iteration, hottest first. They count as no hits."""

    _mapping: "Cache[Any, V]"

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.items_hottest())

    def __reversed__(self) -> Iterator[V]:
        return (value for _, value in reversed(self._mapping.items_hottest()))

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


def _is_mapping(other: object) -> bool:
    return isinstance(other, Mapping)


def settings_of(
    *,
    maxsize: Any = ...,
    policy: Any = "tinylfu",
    ttl: Any = None,
    tti: Any = None,
    jitter: Any = 0.0,
    weigher: Any = None,
    max_weight: Any = None,
    on_removal: Any = None,
    negative_ttl: Any = None,
    timer: Any = None,
) -> dict[str, Any]:
    """The settings of a cache, checked, with their defaults."""
    return checked_settings(
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


class Cache(_hotset.Cache, MutableMapping[K, V]):
    """A mapping that holds so many entries at most, and forgets them when their time is over.

    >>> import hotset
    >>> prices: hotset.Cache[str, float] = hotset.Cache(maxsize=10_000, ttl=60)
    >>> prices["tea"] = 3.2
    >>> prices["tea"], prices.get("ice")
    (3.2, None)
    >>> prices.get_or_load("rum", lambda key: len(key) * 1.5)
    4.5
    >>> sorted(prices)
    ['rum', 'tea']

    The settings are those of `hotset.cached`, but: on_removal is called with key, value and the cause: "expired", "size", "explicit" or
    "replaced". A weigher of two arguments is called with key and value. A subclass may have a `__missing__(key)`, as of dict.

    Every call may be made from any thread, each is atomic. Iteration goes through what was there when it began, hottest first. `==` compares
    with other mappings by content, as dict's does; so a cache is not hashable.

    The settings are taken by `__new__`: a subclass with an `__init__` of its own overrides that, too.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or does not go together with another one.
        MemoryError: There is no memory for a table of `maxsize` entries. (Up to 2**26 entries it is allocated when the cache is made.)
        RuntimeError: No cache can be built in this process: its allocator returns pointers with a tag in their upper 16 bits.
        OSError: The operating system refused a thread that a setting needs.
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
        )
        self = super().__new__(cls, **{**settings, "weigher": weigher_of(settings["weigher"])})
        self._settings = settings
        self._first_settings = dict(settings)
        self._name = name
        register(name, self)
        return self

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls) and cls.__new__ is cast(Any, Cache).__new__:
            raise TypeError(f"{cls.__name__} has an __init__, but no __new__: a hotset.Cache takes its settings there")

    if TYPE_CHECKING:
        # These are the native part's; here their types are told.
        def __getitem__(self, key: K, /) -> V: ...
        def __setitem__(self, key: K, value: V, /) -> None: ...
        def __delitem__(self, key: K, /) -> None: ...
        def __iter__(self) -> Iterator[K]: ...
        @overload
        def get(self, key: K, default: None = None, /) -> V | None: ...
        @overload
        def get(self, key: K, default: V | D, /) -> V | D: ...
        def get(self, key: Any, default: Any = None, /) -> Any: ...
        @overload  # type: ignore[override]  # the native default is private
        def pop(self, key: K) -> V: ...
        @overload
        def pop(self, key: K, default: V | D) -> V | D: ...
        def pop(self, key: Any, default: Any = ...) -> Any: ...
        def setdefault(self, key: K, default: V) -> V: ...  # type: ignore[override]
        def remaining(self, key: K) -> float | None: ...
        def items_hottest(self) -> list[tuple[K, V]]: ...
        @overload
        def peek(self, key: K, default: None = None) -> V | None: ...
        @overload
        def peek(self, key: K, default: V | D) -> V | D: ...
        def peek(self, key: Any, default: Any = None) -> Any: ...

    # --- One entry.

    def set(self, key: K, value: V, ttl: Ttl = ...) -> None:
        """Sets the key's value, for `ttl`.

        Args:
            key: The key.
            value: Its value.
            ttl: Seconds or a timedelta until the entry expires: 0 or less means that it has expired already. None: it never expires.
                `...`: as the cache's settings say, as c[key] = value does. KEEP: when the entry would that is replaced.

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
        """Like `set`, where the time to live must be given."""
        super().set(key, value, ttl_of(ttl))

    def add(self, key: K, value: V, ttl: Ttl = ...) -> bool:
        """Sets the key's value if the key is absent, atomically; returns whether it was. `ttl`: as for `set`."""
        return super().add(key, value, ttl_of(ttl))

    def touch(self, key: K, ttl: Ttl = ...) -> bool:
        """Gives the key's entry another time to live, from now on; returns whether the key is there. `ttl`: as for `set`.

        The value stays the same object, and on_removal is not called.
        """
        return super().touch(key, ttl_of(ttl))

    def delete(self, key: K) -> bool:
        """Removes the key; returns whether it was there. A load of it that is in progress does not enter the cache."""
        return super().delete(key)

    @overload
    def compute(self, key: K, change: Callable[[V | None], V | None], default: None = None, ttl: Ttl = KEEP) -> V | None: ...
    @overload
    def compute(self, key: K, change: Callable[[V | D], V | D], default: D, ttl: Ttl = KEEP) -> V | D: ...
    def compute(self, key: Any, change: Any, default: Any = None, ttl: Ttl = KEEP) -> Any:
        """Replaces the key's value by what `change` returns for it, atomically.

        Args:
            key: The key.
            change: Called with the value, or with `default` if the key is absent; called again if another thread was faster. If it returns
                `hotset.MISSING`, or None where that is the default, the entry is removed; anything else is stored.
            default: What stands for an absent value.
            ttl: As for `set`. An entry keeps its own, unless another is given.

        Returns:
            What is there afterwards, or `default` if nothing is.

        Example:
            >>> import hotset
            >>> hits: hotset.Cache[str, int] = hotset.Cache(100)
            >>> hits.compute("home", lambda n: n + 1, 0), hits.compute("home", lambda n: n + 1, 0)
            (1, 2)
        """
        return super().compute(key, change, default, ttl_of(ttl))

    def incr(self, key: K, delta: Any = 1, default: Any = 0, ttl: Ttl = KEEP) -> Any:
        """Adds to the key's value, atomically, and returns the sum.

        Args:
            key: The key.
            delta: What is added.
            default: What an absent key counts as; None for a KeyError instead.
            ttl: As for `set`. An entry keeps its own, so a counter of the last minute may be begun by `ttl` and counted without.

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
        """Subtracts from the key's value, atomically, and returns the difference. As `incr`."""
        return self.incr(key, -delta, default, ttl)

    @overload
    def get_with_remaining(self, key: K, default: None = None) -> tuple[V, float | None] | None: ...
    @overload
    def get_with_remaining(self, key: K, default: D) -> tuple[V, float | None] | D: ...
    def get_with_remaining(self, key: Any, default: Any = None) -> Any:
        """Returns the key's value and the seconds that are left until it expires (None: it does not), or `default`."""
        while True:
            # (Counts the lookup. Both values of the pair are of one entry, which another thread may have set in between.)
            if super().get(key, _hotset.MISSING) is _hotset.MISSING:
                return default
            found = super().peek_with_remaining(key)
            if found is not None:
                return found

    # --- Many entries.

    def set_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]], ttl: Ttl = ...) -> None:
        """Sets the values of many keys, each by itself. `ttl`: as for `set`."""
        lifetime = ttl_of(ttl)
        pairs = cast("Iterable[tuple[K, V]]", items.items() if isinstance(items, Mapping) else items)
        for key, value in pairs:
            super().set(key, value, lifetime)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Removes many keys, each by itself; returns how many of them were there."""
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
            default: What stands for the value of an absent key in the list.
            as_dict: Return a dict of the keys that are there, instead of a list in the order of `keys`.
        """
        if not as_dict:
            return super().get_many(keys, default)
        keys = list(keys)
        found = zip(keys, super().get_many(keys, _hotset.MISSING), strict=True)
        return {key: value for key, value in found if value is not _hotset.MISSING}

    def items_with_remaining(self) -> list[tuple[K, V, float | None]]:
        """Returns all entries, each as key, value and the seconds that are left until it expires (None: it does not), hottest first.

        Counts nothing as a hit.

        Example:
            >>> import hotset
            >>> c: hotset.Cache[str, int] = hotset.Cache(100)
            >>> c["a"] = 1
            >>> c.items_with_remaining()
            [('a', 1, None)]
        """
        return cast("list[tuple[K, V, float | None]]", self.entries_with_remaining(False))

    def expire(self) -> list[tuple[K, V]]:
        """Removes all entries that have expired and are still held, and returns their keys and values. Looks at all entries.

        Not needed for correctness: what has expired is not found, and later calls free it.
        """
        return self.take_expired()

    def popitem(self, last: bool = True) -> tuple[K, V]:
        """Removes an entry and returns its key and value.

        Args:
            last: The coldest, which would make room first: what an iteration comes to last, or near to that; O(1). False: the hottest; looks
                through the order.

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
        """Returns the key's value, or what loader(key) returns: one caller loads, others that request the key wait for it.

        What the loader raises, each of them raises, as a copy of its own; it is remembered for negative_ttl.

        Args:
            key: The key.
            loader: Called with the key if it is absent.
            ttl: The loaded value's; as for `set`.

        Raises:
            RuntimeError: This would wait for itself: for a load of the caller's own, or of the event loop that it blocks.
        """
        return cast(V, super().get_or_load(key, loader, ttl_of(ttl)))

    async def aget_or_load(self, key: K, loader: Callable[[K], Awaitable[V]], ttl: Ttl = ...) -> V:
        """As get_or_load, for asyncio: `await c.aget_or_load(key, loader)`, and the loader is awaited.

        It runs in a task of its own: cancelling a caller that waits does not end it. Tasks of other event loops share it, and so do threads
        that are in get_or_load.
        """
        return cast(V, unwrap_ttl(await _async_loads.get(partial(self.begin, key), partial(loader, key), ttl_of(ttl))))

    # --- The whole.

    @property
    def maxsize(self) -> int | None:
        """How many entries, or with a max_weight how much weight, may be held; None without a bound."""
        settings = self._settings
        return cast("int | None", settings["maxsize"] if settings["max_weight"] is None else settings["max_weight"])

    @property
    def currsize(self) -> int:
        """How many entries, or with a max_weight how much weight, are held."""
        return len(self) if self._settings["max_weight"] is None else self.stats().weight

    @property
    def ttl(self) -> float | None:
        """The time to live of entries without one of their own, in seconds; None for no end."""
        return cast("float | None", self._settings["ttl"])

    @property
    def timer(self) -> Callable[[], float] | None:
        """The clock that was given, or None for the system's."""
        return cast("Callable[[], float] | None", self._settings["timer"])

    @property
    def name(self) -> str | None:
        """The name in `hotset.caches()`, or None."""
        return self._name

    def copy(self) -> Self:
        """Returns another cache with the same settings (but no name), the same entries, and what is left of their times to live.

        `copy.copy(cache)` is the same. Keys and values are the same objects. A time to idle begins anew.
        """
        other = self._empty()
        for key, value, left in reversed(self.entries_with_remaining(True)):
            other.set(key, value, left)
        # What a subclass keeps beside the entries.
        if hasattr(self, "__dict__"):
            vars(other).update(vars(self))
        return other

    __copy__ = copy

    def _empty(self) -> Self:
        return cast(Self, cast(Any, Cache).__new__(type(self), **self._settings))

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
        """Returns a view of all entries, hottest first. Iterating over it counts nothing as a hit."""
        return _Items(self)

    def values(self) -> _Values[V]:
        """Returns a view of the values, hottest first. Iterating over it counts nothing as a hit."""
        return _Values(self)

    def stats(self) -> Stats:  # type: ignore[override]  # the native part's, with names
        """What was counted, and what is held."""
        return stats_of(super().stats(), self._settings)

    __hotset_stats__ = stats

    def reset_stats(self) -> None:
        """Counts hits, misses and all the rest from 0 again. (`clear` does so for hits and misses only.)"""
        super().reset_stats()

    def resize(self, maxsize: int) -> None:
        """Sets how many entries, or with a max_weight how much weight, may be held; the coldest go at once if there are too many."""
        which = "maxsize" if self._settings["max_weight"] is None else "max_weight"
        size = checked_bound(which, maxsize)
        super().resize(size)
        self._settings[which] = size

    def save(self, path: Path, *, codec: CodecName | Serializer = "values", schema: Schema = None) -> int:
        """Saves all entries to a file, for the next process to begin with; returns how many.

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

        codec: "values" (None, bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, Decimal, UUID and the classes of
        datetime, each as exactly what it was), "bytes", "json" (what JSON gives back unchanged), or an object with `dumps` and `loads`, as
        msgpack and orjson are. "pickle" writes almost anything, and *loading a pickle runs whatever its writer wanted*: only for files
        that no other user can write. Keys are always written by "values", but where the codec is "pickle". With "bytes", a cache whose keys
        are all bytes makes a file that the C library and Rust's `Cache<Vec<u8>, Vec<u8>>` can load, and theirs can be loaded; an integer
        schema is theirs, then.
        schema: a number or a string of your own, to be changed whenever what the values mean changes: only who asks for the same
        codec and schema can load the file.

        Entries come with what is left of their lives, and with what the policy knows of them. What the codec cannot write is left out, with
        a SnapshotWarning; if it can write nothing, that is a SnapshotError. What the system refuses is an OSError. The file takes the place
        of the previous one when it is complete and on the disk: a save that raises, or is interrupted before that, leaves the previous
        file as it was. Other threads, and the codec, may use the cache during the save.

        A symbolic link is followed. A new file may be read and written by its owner only; one that replaces another keeps its mode, its
        group where the process may set that, on Linux its access control list, and its owner where the process may give files away, as
        root may.
        """
        chosen, number = codec_for_save(codec_of(codec), schema, self)
        return _snapshot.save(self, path_of(path), chosen, number)

    def load(self, path: Path, *, codec: CodecName | Serializer = "values", schema: Schema = None) -> int:
        """Loads what `save` saved, hottest entries first, as far as there is room; returns how many came in. See `save`.

        What the cache holds already stays. Times to live go on by the wall clock while no process runs; what has ended does not come in.
        A file that is damaged, or of another codec or schema, or of which the codec refuses an entry, is a SnapshotError, and nothing of it
        comes in; one that is not there is a FileNotFoundError. A load is for the beginning: what is removed by others while it goes on may
        come back. The file is read into memory first, which takes memory of its size during the load: what happens to the file
        afterwards does not matter.
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
            # Its timer raises, say: a debugger is to show the cache all the same.
            entries = "?"
        named = "" if self._name is None else f"{self._name!r}, "
        times = "".join(f", {which}={self._settings[which]:g}" for which in ("ttl", "tti") if self._settings[which] is not None)
        return f"<hotset.{type(self).__name__} {named}entries={entries}, capacity={self.maxsize}{times}>"

    def __reduce_ex__(self, protocol: Any, /) -> Never:
        raise TypeError(
            "a hotset.Cache can be neither pickled nor copied deeply: it belongs to this process, with its threads and timers; "
            "take dict(cache) for its content, or cache.copy()"
        )
