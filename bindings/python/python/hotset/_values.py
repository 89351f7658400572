"""Values as adapters store them: immutable ones as they are, all others as pickles.

A cache that returns the object it stores lets a change by one caller show up at another. Frameworks
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
"""How callers are isolated from each other: by pickling what is not immutable, or not at all."""

# By exact type: an instance of a subclass may have attributes of its own.
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes, date, timedelta, Decimal, UUID})


class Pickled(bytes):
    """The pickle of a value, as a cache stores it. Its type distinguishes it from a bytes value."""

    __slots__ = ()


def is_immutable(value: Any) -> bool:
    """Returns whether `value` is of an immutable builtin type, or a tuple of such values.

    Args:
        value: Any object.
    """
    kind = cast("type[object]", type(value))
    return kind in _IMMUTABLE or (kind is tuple and all(map(is_immutable, value)))


def freeze(value: Any) -> Any:
    """Returns the stored form of `value`: the value itself if it is immutable, else its pickle.

    Args:
        value: Any object that can be pickled.
    """
    if type(value) in _IMMUTABLE or is_immutable(value):
        return value
    return Pickled(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def thaw(stored: Any) -> Any:
    """Returns the value of a stored form: a copy, unless it is immutable.

    Args:
        stored: What `freeze` returned.
    """
    return pickle.loads(stored) if type(stored) is Pickled else stored


def by_reference(value: Any) -> Any:
    """Returns `value`: the replacement of `freeze` where callers want the object itself.

    Args:
        value: Any object.
    """
    return value


def freezer(copy: Copy) -> Callable[[Any], Any]:
    """Returns the function that turns a value into its stored form.

    Args:
        copy: "pickle" or "none".

    Returns:
        `freeze` or `by_reference`.

    Raises:
        ValueError: `copy` is neither "pickle" nor "none".
    """
    if copy not in get_args(Copy):
        raise ValueError(f"copy must be one of {', '.join(get_args(Copy))}, not {copy!r}")
    return freeze if copy == "pickle" else by_reference
