"""How loads of a `TieredCache` end: what the first tier stores, and what the caller gets."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from hotset._hotset import MISSING, WithTtl
from hotset._mapping import Cache
from hotset.tier2 import _reads
from hotset.tier2._clock import now
from hotset.tier2._errors import Unavailable
from hotset.tier2._needs import Outcome
from hotset.tier2._payload import NotEncodable
from hotset.tier2._space import Space

HIT, LEAD = range(2)
"""What `Cache.begin` reports: a value, or a load that the caller leads. Any other: it waits."""


class _Absent:
    """Stands in the first tier for a key that is absent from the source."""

    def __repr__(self) -> str:
        return "<absent>"


ABSENT: Final = _Absent()


class MappingTier:
    """A `hotset.Cache` as the first tier. See `FirstTier` for its methods."""

    def __init__(self, cache: Cache[Any, Any]) -> None:
        self._cache = cache

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Removes the entry of these arguments, and invalidates its load."""
        if len(args) == 1:
            self._cache.delete(args[0])

    def mark(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Begins a load of these arguments, in place of any in flight."""
        while True:
            self._cache.delete(args[0])
            kind, found = self._cache.begin(args[0])[:2]
            if kind == LEAD:
                return found

    def clear(self) -> None:
        """Removes all entries."""
        self._cache.clear_entries()

    def invalidate_loads(self) -> None:
        """Invalidates all loads in flight."""
        self._cache.invalidate_loads()

    def set_trust(self, core: Any) -> None:
        """Restricts hits to the time while the core is trusted."""
        self._cache.set_trust(core)

    def show_tier2(self, namespace: Any) -> None:
        """Has the process's stats file show the counters of the second tier as well."""
        self._cache.show_tier2(namespace)

    def hits(self) -> int:
        """Returns the number of hits."""
        return self._cache.stats().hits

    def entries(self) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
        """Returns the entries."""
        return [((key,), {}, value) for key, value in self._cache.items_hottest() if value is not ABSENT]

    def peek(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns the value of these arguments, or MISSING; counts nothing."""
        return self._cache.peek(args[0], MISSING)


def to_local(outcome: Outcome) -> Any:
    """Behaves like `_reads.keep`, with `ABSENT` for an absent value.

    Args:
        outcome: The outcome.
    """
    if outcome.value is MISSING:
        outcome.value = ABSENT
    return _reads.keep(outcome)


def or_absent(value: Any) -> Any:
    """Returns the value as the first tier has it: `ABSENT` for MISSING.

    Args:
        value: The value.
    """
    return ABSENT if value is MISSING else value


def complete_load(flight: Any, outcome: Outcome) -> Any:
    """Stores the outcome of a read in the first tier, and returns its value.

    An absent value is stored only if the source has reported that there is none.

    Args:
        flight: The load of the first tier.
        outcome: The outcome of the read.
    """
    value = or_absent(outcome.value)
    rest = outcome.keep_until - now() if outcome.keep_until else 0
    if rest > 0:
        flight.finish(value, rest / 1e9)
    return value


def complete_loads(
    found: dict[Any, Any], keys: list[Any], marks: dict[Any, Any], hits: list[tuple[int, Any, int]], outcomes: dict[int, Outcome]
) -> None:
    """Stores the outcomes of a read of many keys in the first tier, and adds the values to `found`.

    Args:
        found: The values by key.
        keys: The keys that were read.
        marks: The loads of the first tier, by key.
        hits: The indices of the keys that were hits, their values, and until when these are kept.
        outcomes: The outcomes of the other keys, by index.

    Raises:
        BaseException: The first exception of a loader.
    """
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
        found[key] = or_absent(outcome.value)
        if key in marks:
            complete_load(marks[key], outcome)
    if error is not None:
        try:
            raise error
        finally:
            del error


def abandon_all(marks: dict[Any, Any]) -> None:
    """Ends the loads that are still in flight.

    Args:
        marks: The loads of the first tier, by key.
    """
    for flight in marks.values():
        if not flight.done():
            flight.abandon()


def loaded_many(keys: list[Any], loaded: Mapping[Any, Any], ttl: Any) -> list[Any]:
    """Returns the loaded values of these keys in their order, MISSING for a key without one.

    Args:
        keys: The keys.
        loaded: What the loader has returned.
        ttl: The ttl of values that are no `WithTtl`; `...` for that of the cache.
    """
    values = [loaded.get(key, MISSING) for key in keys]
    if ttl is ...:
        return values
    return [value if type(value) is WithTtl or value is MISSING else WithTtl(value, ttl) for value in values]


def with_ttl(load: Callable[[], Any], ttl: Any) -> Callable[[], Any]:
    """Returns a loader whose values have this ttl, unless they have their own.

    Args:
        load: The loader.
        ttl: The ttl; `...` for that of the cache.
    """
    if ttl is ...:
        return load

    def wrapped() -> Any:
        value = load()
        return value if type(value) is WithTtl or value is MISSING else WithTtl(value, ttl)

    return wrapped


def with_ttl_async(load: Callable[[], Awaitable[Any]], ttl: Any) -> Callable[[], Awaitable[Any]]:
    """Behaves like `with_ttl`, for asyncio."""

    async def wrapped() -> Any:
        value = await load()
        return value if ttl is ... or type(value) is WithTtl or value is MISSING else WithTtl(value, ttl)

    return wrapped


class Addition:
    """A value that is inserted if the key has none."""

    def __init__(self, space: Space, value: Any, ttl: Any) -> None:
        # A value that cannot be encoded would stay in this process: it cannot be added.
        try:
            space.codec.encode(value)
        except NotEncodable as error:
            raise ValueError(str(error)) from error
        self._value = value if ttl is ... else WithTtl(value, ttl)
        self._is_mine = False
        self.is_added = False
        """Whether the value was added."""

    def load(self) -> Any:
        """Returns the value: the loader of the read that adds it."""
        self._is_mine = True
        return self._value

    async def load_async(self) -> Any:
        """Behaves like `load`, for asyncio."""
        return self.load()

    def record_outcome(self, outcome: Outcome) -> None:
        """Records whether the value was added.

        Args:
            outcome: The outcome of the read.

        Raises:
            Unavailable: The server did not confirm it.
        """
        if self._is_mine and not outcome.is_filled:
            raise Unavailable("the second tier did not confirm whether the value was added")
        self.is_added = self._is_mine
