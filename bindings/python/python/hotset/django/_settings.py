"""What may be said of a hotset backend in CACHES."""

import math
from collections.abc import Mapping
from typing import Any, cast, get_args

from hotset._adapters import DEFAULT_MAX_ENTRIES
from hotset._settings import Policy
from hotset._values import Copy

# BaseCache's own settings of an alias, and those it still takes from before OPTIONS.
PARAMS = frozenset({"KEY_FUNCTION", "KEY_PREFIX", "OPTIONS", "TIMEOUT", "VERSION", "cull_frequency", "max_entries", "timeout"})
OPTIONS = frozenset({"CULL_FREQUENCY", "MAX_ENTRIES", "copy", "jitter", "policy"})


def _integer(value: Any) -> bool:
    """Returns whether this is an integer, or the text of one, as a setting from the environment is."""
    try:
        return not isinstance(value, bool) and int(value) == float(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _seconds(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or _integer(value)


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))


def _option_errors(options: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    unknown = {str(name) for name in options} - OPTIONS
    if unknown:
        found.append(f"unknown OPTIONS: {_listed(unknown)}; known are {_listed(OPTIONS)}")
    entries = options.get("MAX_ENTRIES", DEFAULT_MAX_ENTRIES)
    if entries is not None and not (_integer(entries) and int(entries) >= 0):
        found.append(f"OPTIONS MAX_ENTRIES must be an integer of at least 0, or None for no bound, not {entries!r}")
    for name, kind in (("copy", Copy), ("policy", Policy)):
        if name in options and options[name] not in get_args(kind):
            found.append(f"OPTIONS {name} must be one of {', '.join(get_args(kind))}, not {options[name]!r}")
    jitter = options.get("jitter", 0.0)
    if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter < 1:
        found.append(f"OPTIONS jitter must be a number from 0 to less than 1, not {jitter!r}")
    return found


def errors(location: Any, params: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with an alias's settings, a sentence each."""
    found: list[str] = []
    if not isinstance(location, str):
        found.append(f"LOCATION must be a string, the name of a cache inside the process, not {location!r}")
    elif "://" in location:
        found.append(f"LOCATION is the name of a cache inside the process, which {location!r} is not: no server is used")
    timeout = params.get("timeout", params.get("TIMEOUT", 300))
    if not _seconds(timeout):
        found.append(f"TIMEOUT must be a number of seconds, or None for no end, not {timeout!r}")
    options = cast(Any, params.get("OPTIONS"))
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        return [*found, f"OPTIONS must be a dict, not {options!r}"]
    return found + _option_errors(cast("Mapping[str, Any]", options))


def warnings(params: Mapping[str, Any]) -> list[str]:
    """Returns what of an alias's settings has no effect, a sentence each."""
    found: list[str] = []
    unknown = {str(name) for name in params} - PARAMS
    if unknown:
        found.append(f"unknown settings, which have no effect: {_listed(unknown)}")
    options: Mapping[str, Any] = params.get("OPTIONS") or {}
    if "CULL_FREQUENCY" in options:
        found.append("OPTIONS CULL_FREQUENCY has no effect: a full cache evicts one entry for each that is inserted")
    return found
