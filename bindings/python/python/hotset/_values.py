"""Values as adapters hold them: immutable ones as they are, all others as pickles.

A cache that hands out the object it holds lets one caller's change show up at another's. Frameworks
therefore copy values by pickling them at each `set` and each `get`. A value that cannot change
needs no copy.
"""

import pickle
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal, cast, get_args
from uuid import UUID

Copy = Literal["pickle", "none"]
"""How callers are kept apart: by pickling what is not immutable, or not at all."""

# By exact type: an instance of a subclass may have attributes of its own.
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes, date, timedelta, Decimal, UUID})


class Pickled(bytes):
    """The pickle of a value, as a cache holds it. Its type tells it from a value of type bytes."""

    __slots__ = ()


def is_immutable(value: Any) -> bool:
    """Returns whether `value` is of an immutable builtin type, or a tuple of such values."""
    kind = cast("type[object]", type(value))
    return kind in _IMMUTABLE or (kind is tuple and all(map(is_immutable, value)))


def freeze(value: Any) -> Any:
    """Returns what a cache holds for `value`: the value itself if it is immutable, or else its pickle."""
    if type(value) in _IMMUTABLE or is_immutable(value):
        return value
    return Pickled(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def thaw(stored: Any) -> Any:
    """Returns the value of what `freeze` returned: a copy, unless it is immutable."""
    return pickle.loads(stored) if type(stored) is Pickled else stored


def by_reference(value: Any) -> Any:
    """Returns `value`: what stands in for `freeze` where callers want the object itself."""
    return value


def freezer(copy: Copy) -> Callable[[Any], Any]:
    """Returns the function that turns a value into what a cache holds.

    Raises:
        ValueError: `copy` is neither "pickle" nor "none".
    """
    if copy not in get_args(Copy):
        raise ValueError(f"copy must be one of {', '.join(get_args(Copy))}, not {copy!r}")
    return freeze if copy == "pickle" else by_reference
