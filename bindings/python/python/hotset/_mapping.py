"""`Cache`: the engine as a mapping."""

from collections.abc import Awaitable, Callable, Hashable, ItemsView, Iterable, Iterator, MutableMapping, ValuesView
from functools import partial
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar, cast, overload

from hotset import _flights, _hotset, _snapshot
from hotset._codecs import CodecName, Schema, Serializer, codec_of
from hotset._registry import register
from hotset._settings import Cause, Policy, Seconds, bound, checked, seconds
from hotset._snapshot import Path, path_of
from hotset._stats import Stats, stats_of

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class _Items(ItemsView[K, V]):
    """As the mapping's items, but hottest first, without counting as hits, and without an entry vanishing on the way."""

    _mapping: "Cache[K, V]"

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(self._mapping.items_hottest())


class _Values(ValuesView[V]):
    """Likewise."""

    _mapping: "Cache[Any, V]"

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.items_hottest())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


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

    The settings are those of `hotset.cached`, but: weigher(key, value) says what an entry weighs; on_removal is called with key, value
    and the cause: "expired", "size", "explicit" or "replaced".

    Every call may be made from any thread, each is atomic. Iteration goes through what was there when it began, hottest first. `==` compares
    with other mappings by content, as dict's does; so a cache is not hashable.

    The settings are taken by `__new__`: a subclass with an `__init__` of its own overrides that, too.
    """

    __slots__ = ("_name", "_settings")

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
        weigher: Callable[[K, V], int] | None = None,
        max_weight: int | None = None,
        on_removal: Callable[[K, V, Cause], object] | None = None,
        negative_ttl: Seconds | None = None,
        timer: Callable[[], float] | None = None,
        name: str | None = None,
    ) -> Self:
        settings = checked(
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
        self = super().__new__(cls, **settings)
        self._settings = settings
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
        def pop(self, key: K, /) -> V: ...
        @overload
        def pop(self, key: K, default: V | D, /) -> V | D: ...
        def pop(self, key: Any, default: Any = ..., /) -> Any: ...
        @overload
        def get_many(self, keys: Iterable[K], default: None = None, /) -> list[V | None]: ...
        @overload
        def get_many(self, keys: Iterable[K], default: V | D, /) -> list[V | D]: ...
        def get_many(self, keys: Any, default: Any = None, /) -> Any: ...
        def setdefault(self, key: K, default: V, /) -> V: ...  # type: ignore[override]
        def remaining(self, key: K, /) -> float | None: ...
        def items_hottest(self) -> list[tuple[K, V]]: ...
        @overload
        def compute(self, key: K, change: Callable[[V | None], V | None], default: None = None, /) -> V | None: ...
        @overload
        def compute(self, key: K, change: Callable[[V | D], V | D], default: D, /) -> V | D: ...
        def compute(self, key: Any, change: Any, default: Any = None, /) -> Any: ...

    def set_with_ttl(self, key: K, value: V, ttl: Seconds | None, /) -> None:
        """Like c[key] = value, with a time to live of its own; None: without an end."""
        super().set_with_ttl(key, value, seconds("ttl", ttl))

    def get_or_load(self, key: K, loader: Callable[[K], V], ttl: Seconds | None = None, /) -> V:
        """The value, or what loader(key) returns: one caller loads, others that ask for the key meanwhile wait for it.

        What the loader raises, all of them get; it is remembered for negative_ttl. `ttl`, if given, is this value's.
        """
        return cast(V, super().get_or_load(key, loader, seconds("ttl", ttl)))

    async def aget_or_load(
        self, key: K, loader: Callable[[K], Awaitable[V]], ttl: Seconds | None = None, /
    ) -> V:
        """As get_or_load, for asyncio: `await c.aget_or_load(key, loader)`, and the loader is awaited.

        It runs in a task of its own: cancelling one who waits harms nobody. Tasks of other event loops share it, and so do threads that
        are in get_or_load.
        """
        return cast(V, await _flights.get(partial(self.begin, key), partial(loader, key), seconds("ttl", ttl)))

    def popitem(self) -> tuple[K, V]:
        """Removes the coldest entry and returns it; KeyError if there is none. Looks through the whole order."""
        for key, _ in reversed(self.items_hottest()):
            value = self.pop(key, _hotset.MISSING)
            if value is not _hotset.MISSING:
                return key, value
        raise KeyError("popitem(): the cache is empty")

    def items(self) -> ItemsView[K, V]:
        """All entries, hottest first. Going through them counts nothing as a hit."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """The values, hottest first."""
        return _Values(self)

    def stats(self) -> Stats:  # type: ignore[override]  # the native part's, with names
        """What was counted, and what is held."""
        return stats_of(super().stats(), self._settings)

    __hotset_stats__ = stats

    def resize(self, maxsize: int, /) -> None:
        """Sets how many entries, or with a max_weight how much weight, may be held; the coldest go at once if there are too many."""
        which = "maxsize" if self._settings["max_weight"] is None else "max_weight"
        size = bound(which, maxsize)
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
        that nobody else can write. Keys are always written by "values", but where the codec is "pickle".
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
        chosen = codec_of(codec)
        return _snapshot.save(self, path_of(path), chosen, chosen.number(schema))

    def load(self, path: Path, *, codec: CodecName | Serializer = "values", schema: Schema = None) -> int:
        """Loads what `save` saved, hottest entries first, as far as there is room; returns how many came in. See `save`.

        What the cache holds already stays. Times to live go on by the wall clock while no process runs; what has ended does not come in.
        A file that is damaged, or of another codec or schema, or of which the codec refuses an entry, is a SnapshotError, and nothing of it
        comes in; one that is not there is a FileNotFoundError. A load is for the beginning: what is removed by others while it goes on may
        come back. The file is read into memory first, which takes memory of its size during the load: what happens to the file
        afterwards does not matter.
        """
        chosen = codec_of(codec)
        return _snapshot.load(self, path_of(path), chosen, chosen.number(schema))

    def __repr__(self) -> str:
        stats = self.stats()
        named = "" if self._name is None else f"{self._name!r}, "
        return f"<hotset.{type(self).__name__} {named}entries={stats.entries}, capacity={stats.capacity}>"

    def __reduce_ex__(self, protocol: Any, /) -> Never:
        raise TypeError(
            "a hotset.Cache can be neither pickled nor copied: it belongs to this process, with its threads and timers; "
            "take dict(cache) for its content"
        )
