"""Validates the settings of caches, for the decorator and the mapping."""

import inspect
import math
from collections.abc import Mapping
from datetime import timedelta
from types import EllipsisType
from typing import Any, Literal, get_args

from hotset._hotset import KEEP, NEVER, Lifetime, WithTtl

Policy = Literal["tinylfu", "lru", "lfu", "fifo", "random"]
Cause = Literal["expired", "size", "explicit", "replaced"]
Seconds = float | timedelta
"""A duration: seconds, or a timedelta."""
Ttl = float | timedelta | Lifetime | EllipsisType | None
"""The time to live of one value: seconds or a timedelta, None for no expiration, `...` for the ttl
of the cache, or KEEP for the deadline of the entry that is replaced."""

DEFAULT_MAXSIZE = 1024


def checked_seconds(name: str, value: Any) -> float | None:
    """Returns a duration as seconds.

    Args:
        name: The name of the setting, for messages.
        value: What the user passed.

    Returns:
        Seconds, or None for None.

    Raises:
        TypeError: `value` is neither a number, a timedelta nor None.
        ValueError: `value` is not more than 0, or not finite.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, a timedelta or None, not {type(value).__name__}")
    try:
        time = float(value)
    except OverflowError:
        time = math.inf
    if not 0 < time < math.inf:
        raise ValueError(f"{name} must be more than 0 seconds and finite (None for no limit), not {time}")
    return time


def ttl_of(value: Any) -> Any:
    """Returns the time to live of one value, as the native part takes it.

    Args:
        value: Seconds or a timedelta, where 0 or less has expired already; None for no expiration;
            `...` for the ttl of the cache; KEEP for the deadline of the entry that is replaced.

    Returns:
        Seconds (float), NEVER, KEEP, or None for the ttl of the cache.

    Raises:
        TypeError: `value` is none of these.
        ValueError: `value` is not a number.
    """
    if value is ...:
        return None
    if value is None:
        return NEVER
    if value is KEEP:
        return KEEP
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"ttl must be a number of seconds, a timedelta, None, KEEP or ..., not {type(value).__name__}")
    if math.isnan(value):
        raise ValueError("ttl must be a number of seconds, not nan")
    if value <= 0:
        return 0.0
    try:
        time = float(value)
    except OverflowError:
        return NEVER
    return NEVER if time == math.inf else time


def unwrap_ttl(result: Any) -> Any:
    """Returns a result without its time to live, if it is a `WithTtl`.

    Args:
        result: What a function or a loader returned.
    """
    return result.value if type(result) is WithTtl else result


def weigher_of(weigher: Any) -> Any:
    """Returns a mapping's weigher as the native part calls it: with key and value.

    A weigher that takes a single argument is called with the value.

    Args:
        weigher: What the user passed; None for none.

    Returns:
        A function of two arguments, or what is not callable, unchanged.
    """
    if weigher is None or not callable(weigher):
        return weigher
    try:
        inspect.signature(weigher).bind(None, None)
    except (TypeError, ValueError):
        # A builtin function without a signature (sys.getsizeof above all) takes a value.
        pass
    else:
        return weigher

    def by_value(_: object, value: object) -> Any:
        return weigher(value)

    return by_value


def checked_bound(name: str, value: Any) -> int:
    """Returns a capacity in entries or weight.

    Args:
        name: The name of the setting, for messages.
        value: What the user passed.

    Returns:
        The capacity, at most 2**62.

    Raises:
        TypeError: `value` is not an int.
        ValueError: `value` is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer or None, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, not {value}")
    # No memory holds 2**62 entries, so larger capacities are equivalent.
    return min(value, 2**62)


def _check_callable(name: str, value: Any) -> None:
    """Raises a TypeError if `value` is neither None nor callable."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}")


def checked_settings(
    *,
    maxsize: Any,
    policy: Any,
    ttl: Any,
    tti: Any,
    jitter: Any,
    weigher: Any,
    max_weight: Any,
    on_removal: Any,
    negative_ttl: Any,
    timer: Any,
    profile: Any,
    autosize: Any,
) -> dict[str, Any]:
    """Returns the settings that the decorator and the mapping share, as the native part takes them.

    Args:
        maxsize, policy, ttl, tti, jitter: As of `hotset.Cache`.
        weigher, max_weight, on_removal, negative_ttl, timer: As of `hotset.Cache`.
        profile, autosize: As of `hotset.Cache`.

    Returns:
        The settings by name.

    Raises:
        TypeError: A setting is of the wrong type, or settings conflict.
        ValueError: A setting is out of its range.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}, not {policy!r}")
    if isinstance(jitter, bool) or not isinstance(jitter, int | float):
        raise TypeError(f"jitter must be a number, not {type(jitter).__name__}")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter must be a fraction of the ttl, from 0 to less than 1, not {jitter}")
    for name, value in (("weigher", weigher), ("on_removal", on_removal), ("timer", timer)):
        _check_callable(name, value)
    if (weigher is None) != (max_weight is None):
        raise TypeError("weigher and max_weight must be given together: the weight of an entry, and the capacity in weight")
    if max_weight is not None and maxsize not in (..., None):
        raise TypeError("maxsize and max_weight exclude each other: give the capacity in entries or in weight")
    if not isinstance(profile, bool):
        raise TypeError(f"profile must be a bool, not {type(profile).__name__}")
    bounds = None if autosize is None else _checked_autosize(autosize)
    if maxsize is ...:
        maxsize = DEFAULT_MAXSIZE if max_weight is None else None
        if maxsize is not None and bounds is not None:
            maxsize = min(max(maxsize, bounds[0]), bounds[1])
    maxsize = None if maxsize is None else checked_bound("maxsize", maxsize)
    max_weight = None if max_weight is None else checked_bound("max_weight", max_weight)
    capacity = maxsize if max_weight is None else max_weight
    if profile and not capacity:
        raise ValueError("profile needs a bound: set a capacity of at least 1 and at most 2^28 entries")
    if bounds is not None:
        if capacity is None or not bounds[0] <= capacity <= bounds[1]:
            raise ValueError(f"autosize starts with a capacity within its bounds, {bounds[0]} and {bounds[1]}, not {capacity}")
    return {
        "maxsize": maxsize,
        "policy": policy,
        "ttl": checked_seconds("ttl", ttl),
        "tti": checked_seconds("tti", tti),
        "jitter": float(jitter),
        "weigher": weigher,
        "max_weight": max_weight,
        "on_removal": on_removal,
        "negative_ttl": checked_seconds("negative_ttl", negative_ttl),
        "timer": timer,
        "profile": profile,
        "autosize": bounds,
    }


def _checked_autosize(value: Any) -> tuple[int, int, float]:
    """Returns the bounds of the capacity, and the share of the possible hits.

    Raises:
        TypeError: `value` is no triple of two ints and a number.
        ValueError: The bounds are empty, or the target is out of its range.
    """
    try:
        low, high, target = value
    except (TypeError, ValueError):
        raise TypeError("autosize must be (low, high, target): the bounds of the capacity, and the share of the possible hits") from None
    low, high = checked_bound("the lower bound of autosize", low), checked_bound("the upper bound of autosize", high)
    if isinstance(target, bool) or not isinstance(target, int | float):
        raise TypeError(f"the target of autosize must be a number, not {type(target).__name__}")
    if not 1 <= low <= high:
        raise ValueError(f"the bounds of autosize must be at least 1, the lower one first, not {low} and {high}")
    if not 0 < target <= 1:
        raise ValueError(f"the target of autosize is a share of the possible hits, above 0 and at most 1, not {target}")
    return low, high, float(target)


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
    profile: Any = False,
    autosize: Any = None,
) -> dict[str, Any]:
    """Returns the settings of a `Cache`, validated, with their defaults.

    Args:
        maxsize, policy, ttl, tti, jitter: As of `Cache`.
        weigher, max_weight, on_removal, negative_ttl, timer: As of `Cache`.
        profile, autosize: As of `Cache`.

    Returns:
        The settings by name.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or conflicts with another one.
    """
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
        profile=profile,
        autosize=autosize,
    )


def memo_settings(
    shared: Mapping[str, Any],
    *,
    typed: Any,
    key: Any,
    single_flight: Any,
    stale_while_revalidate: Any,
    stale_if_error: Any,
) -> dict[str, Any]:
    """Returns all settings of the decorator: the shared ones, and its own.

    Args:
        shared: What `checked_settings` returned.
        typed, key, single_flight: As of `hotset.cached`.
        stale_while_revalidate, stale_if_error: As of `hotset.cached`.

    Returns:
        The settings by name.

    Raises:
        TypeError: A setting is of the wrong type, or needs a ttl.
        ValueError: A setting is out of its range.
    """
    _check_callable("key", key)
    own = {
        "stale_while_revalidate": checked_seconds("stale_while_revalidate", stale_while_revalidate),
        "stale_if_error": checked_seconds("stale_if_error", stale_if_error),
    }
    for name, value in own.items():
        if value is not None and shared["ttl"] is None:
            raise TypeError(f"{name} needs a ttl: it counts from the end of the ttl")
    return {**shared, "typed": bool(typed), "key": key, "single_flight": bool(single_flight), **own}
