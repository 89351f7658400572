"""The advice of a profiled cache: how large it should be."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Point(NamedTuple):
    """The estimated hit ratio of a cache at one size.

    Attributes:
        factor: The size as a multiple of the capacity.
        capacity: The capacity in entries, or in weight with a `max_weight`.
        hit_ratio: The share of lookups that would be hits, from 0 to 1. At factor 1 it is the
            measured one.
        bytes: The memory of the entries and the table, without keys and values; the capacity itself
            with a `max_weight`.
    """

    factor: float
    capacity: int
    hit_ratio: float
    bytes: int


class Advice(NamedTuple):
    """The result of `Cache.advise()`. `str()` of it is a sentence for a person.

    Attributes:
        capacity: The capacity of the cache.
        hit_ratio: The measured hit ratio of `lookups`.
        lookups: The number of lookups since profiling began, or since the simulations were filled
            after a change of the capacity. With `autosize`, those before each decision count half.
        sample: The share of the keys that is simulated at the cache's own size, from 0 to 1.
        points: The estimates, from a quarter of the capacity to eight times of it, ascending.
        unbounded: The hit ratio of a cache without a bound; None if it is not known, and in a cache
            whose entries expire.
        enough: The capacity that gives 95% of the hits of a cache without a bound; None if no size
            in `points` does.
        tenth_more: The hit ratio that a tenth more capacity adds.
        optimum: The hit ratio that the best possible policy would have at this capacity; None with
            a `weigher`, or where entries expire.
        over_lru: The hit ratio that the policy adds to that of LRU; None if it is LRU.
        doubt: The reason for which the other fields cannot be trusted; None if there is none.
        text: The sentence.
    """

    capacity: int
    hit_ratio: float
    lookups: int
    sample: float
    points: tuple[Point, ...]
    unbounded: float | None
    enough: int | None
    tenth_more: float
    optimum: float | None
    over_lru: float | None
    doubt: str | None
    text: str

    def __str__(self) -> str:
        return self.text


def advice_of(native: Mapping[str, Any]) -> Advice:
    """Returns the advice from the fields of the native part.

    Args:
        native: The fields by name.

    Returns:
        The advice.
    """
    fields: dict[str, Any] = dict(native)
    fields["points"] = tuple(Point(*point) for point in native["points"])
    return Advice(**fields)
