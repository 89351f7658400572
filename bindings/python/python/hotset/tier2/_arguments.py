"""Checks the arguments of calls on a `TieredCache`."""

from typing import Any, cast

from hotset.tier2._keys import quote_name
from hotset.tier2._server import SecondTier


def check_server(tier2: Any) -> None:
    """Raises a TypeError if this is no second tier."""
    if not isinstance(tier2, SecondTier):
        raise TypeError(f"tier2 must be a hotset.tier2.Redis or Memcached, not {type(tier2).__name__}")


def last_pairs(items: Any) -> list[tuple[Any, Any]]:
    """Returns the pairs of a mapping or an iterable. Of equal keys, the last value counts."""
    return list(cast("dict[object, object]", dict(items)).items())


def check_delta(delta: Any) -> None:
    """Raises a TypeError if this cannot be added to a counter."""
    if isinstance(delta, bool) or not isinstance(delta, int):
        raise TypeError(f"delta must be an int, not {type(delta).__name__}")


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Returns different tags, at most 16 of at most 255 bytes each."""
    if isinstance(tags, str):
        raise TypeError("tags must be an iterable of strings, not a str")
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
