"""Validates the settings of a hotset backend in CACHES."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from hotset._adapters import DEFAULT_MAX_ENTRIES
from hotset._settings import Policy, settings_of
from hotset._values import Copy

# BaseCache's own settings of an alias, and those it still takes from the time before OPTIONS.
PARAMS = frozenset({"KEY_FUNCTION", "KEY_PREFIX", "OPTIONS", "TIMEOUT", "VERSION", "cull_frequency", "max_entries", "timeout"})
OPTIONS = frozenset({"CULL_FREQUENCY", "MAX_ENTRIES", "autosize", "copy", "jitter", "policy", "profile"})
# The options of TieredCache: those of the connection, which aliases of one LOCATION and prefix
# share, and those of each cache.
SERVER_OPTIONS = frozenset(
    {"bus", "client", "compress_over", "connect_timeout", "early_reload", "lease", "lease_wait", "load_timeout", "max_loads", "max_value"}
    | {"on_down", "on_event", "prefix", "sentinel", "sign", "timeout", "verify"}
)
# Those of them that memcached servers do not have.
REDIS_OPTIONS = frozenset({"bus", "client", "sentinel", "verify"})
MEMCACHED = "memcached://"
TIERED_OPTIONS = SERVER_OPTIONS | {"CULL_FREQUENCY", "MAX_ENTRIES", "autosize", "codec", "copy", "local_ttl", "name", "policy", "profile"} | {"schema", "tags"}


def _integer(value: Any) -> bool:
    """Returns whether `value` is an integer, or the text of one (from the environment)."""
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


def maxsize_of(options: Mapping[str, Any], default: Any = DEFAULT_MAX_ENTRIES) -> Any:
    """Returns the capacity in OPTIONS as `hotset.Cache` takes it.

    Args:
        options: OPTIONS of the alias, of which MAX_ENTRIES is an integer or None.
        default: The capacity without MAX_ENTRIES, unless `autosize` chooses it.
    """
    if "MAX_ENTRIES" not in options and options.get("autosize") is not None:
        return ...
    entries = options.get("MAX_ENTRIES", default)
    return None if entries is None else int(entries)


def _option_errors(options: Mapping[str, Any], known: frozenset[str] = OPTIONS) -> list[str]:
    found: list[str] = []
    unknown = {str(name) for name in options} - known
    if unknown:
        found.append(f"unknown OPTIONS: {_listed(unknown)}; known are {_listed(known)}")
    entries = options.get("MAX_ENTRIES", DEFAULT_MAX_ENTRIES)
    if entries is not None and not (_integer(entries) and int(entries) >= 0):
        found.append(f"OPTIONS MAX_ENTRIES must be an integer of at least 0, or None for no bound, not {entries!r}")
    for name, kind in (("copy", Copy), ("policy", Policy)):
        if name in options and options[name] not in get_args(kind):
            found.append(f"OPTIONS {name} must be one of {', '.join(get_args(kind))}, not {options[name]!r}")
    if not found:
        try:
            settings_of(maxsize=maxsize_of(options), profile=options.get("profile", False), autosize=options.get("autosize"))
        except (TypeError, ValueError) as error:
            found.append(f"OPTIONS {error}")
    jitter = options.get("jitter", 0.0)
    if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter < 1:
        found.append(f"OPTIONS jitter must be a number from 0 to less than 1, not {jitter!r}")
    return found


def errors(location: Any, params: Mapping[str, Any]) -> list[str]:
    """Returns the errors in the settings of an alias of HotsetCache, a sentence each.

    Args:
        location: LOCATION of the alias.
        params: The other settings of the alias.
    """
    found: list[str] = []
    if not isinstance(location, str):
        found.append(f"LOCATION must be a string, the name of a cache inside the process, not {location!r}")
    elif "://" in location:
        found.append(f"LOCATION is the name of a cache inside the process, which {location!r} is not: no server is used")
    return found + _shared_errors(params, OPTIONS)


def _shared_errors(params: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    """Returns the errors in the settings that all backends have."""
    found: list[str] = []
    timeout = params.get("timeout", params.get("TIMEOUT", 300))
    if not _seconds(timeout):
        found.append(f"TIMEOUT must be a number of seconds, or None for no expiration, not {timeout!r}")
    options = cast(Any, params.get("OPTIONS"))
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        return [*found, f"OPTIONS must be a dict, not {options!r}"]
    return found + _option_errors(cast("Mapping[str, Any]", options), known)


def locations_of(location: Any) -> tuple[str, ...] | None:
    """Returns the URLs in a LOCATION of TieredCache; None if it is neither a string nor strings.

    Args:
        location: LOCATION of the alias.
    """
    given: Any = re.split(r"[;,]\s*(?=\w+://)", location) if isinstance(location, str) else location
    if not isinstance(given, list | tuple):
        return None
    urls = cast("Sequence[object]", given)
    if not all(isinstance(url, str) for url in urls):
        return None
    return tuple(url for url in cast("Sequence[str]", urls) if url)


def is_memcached(urls: Sequence[str]) -> bool:
    """Returns whether these URLs name memcached servers.

    Args:
        urls: The URLs of a LOCATION.
    """
    return any(url.startswith(MEMCACHED) for url in urls)


def tiered_errors(location: Any, params: Mapping[str, Any]) -> list[str]:
    """Returns the errors in the settings of an alias of TieredCache, a sentence each.

    Only those that show without a server.

    Args:
        location: LOCATION of the alias.
        params: The other settings of the alias.
    """
    found = _shared_errors(params, TIERED_OPTIONS)
    options = cast(Any, params.get("OPTIONS") or {})
    if not isinstance(options, Mapping):
        options = {}
    given = cast("Mapping[str, Any]", options)
    urls = locations_of(location)
    if urls is None:
        found.insert(0, f"LOCATION must be a URL, or a list of them, not {location!r}")
    elif not urls and "client" not in given:
        found.insert(0, "LOCATION must be the URL of a Redis or Valkey server, as redis://localhost:6379/0, or of memcached://")
    elif urls and "client" in given:
        found.append("OPTIONS client connects to the server: give no LOCATION")
    if "sentinel" in given and not (isinstance(given["sentinel"], str) and given["sentinel"]):
        found.append(f"OPTIONS sentinel must be the name of a service, not {given['sentinel']!r}")
    elif "sentinel" in given and "client" in given:
        found.append("OPTIONS has both client and sentinel: give one of them")
    if urls and is_memcached(urls):
        unsupported = REDIS_OPTIONS & {str(name) for name in given}
        if unsupported:
            found.append(f"OPTIONS {_listed(unsupported)}: only with Redis or Valkey, not with {MEMCACHED}")
        if not all(url.startswith(MEMCACHED) for url in urls):
            found.append(f"LOCATION names several servers: all by {MEMCACHED}, or none")
    tags: Any = given.get("tags", ())
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in cast("Sequence[object]", tags)):
        found.append(f"OPTIONS tags must be a list of strings, not {tags!r}")
    return found


def tiered_warnings(params: Mapping[str, Any]) -> list[str]:
    """Returns the settings of an alias of TieredCache that have no effect, a sentence each.

    Args:
        params: The other settings of the alias.
    """
    return warnings(params)


def warnings(params: Mapping[str, Any]) -> list[str]:
    """Returns the settings of an alias that have no effect, a sentence each.

    Args:
        params: The other settings of the alias.
    """
    found: list[str] = []
    unknown = {str(name) for name in params} - PARAMS
    if unknown:
        found.append(f"unknown settings, which have no effect: {_listed(unknown)}")
    options: Mapping[str, Any] = params.get("OPTIONS") or {}
    if "CULL_FREQUENCY" in options:
        found.append("OPTIONS CULL_FREQUENCY has no effect: a full cache evicts one entry for each that is inserted")
    return found
