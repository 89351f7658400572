"""The caches behind `TieredCache`: one for each LOCATION and OPTIONS, whatever number of backends Django makes."""

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, cast

from django.conf import settings
from django.utils.crypto import salted_hmac
from django.utils.module_loading import import_string

from hotset._adapters import DEFAULT_MAX_ENTRIES
from hotset._codecs import codec_of
from hotset._values import freezer
from hotset.django._format import Format
from hotset.django._settings import SERVER_OPTIONS, locations_of
from hotset.tier2 import Redis, TieredCache
from hotset.tier2._client import ServerSettings, find_library, settings_of

DEFAULT_PREFIX: Final = "django"
DEFAULT_NAME: Final = "cache"
# Options that `Redis` takes as they are.
_PASSED: Final = SERVER_OPTIONS - {"client", "on_event", "prefix", "sentinel", "sign"}


class Tier(NamedTuple):
    """What backends of the same settings share."""

    engine: "TieredCache[str, Any]"
    format: Format


_servers: dict[Any, Redis] = {}
_tiers: dict[Any, Tier] = {}


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(each) for each in cast("list[Any]", value))
    if isinstance(value, dict):
        return tuple(sorted((str(name), _hashable(each)) for name, each in cast("dict[object, object]", value).items()))
    return value


def tier_of(location: Any, options: Mapping[str, Any]) -> Tier:
    """Returns what backends of these settings share, made at the first call.

    Raises:
        ImportError: Neither redis-py nor valkey-py is installed, or a dotted path leads to nothing.
        TypeError: A setting is of a wrong type.
        ValueError: A setting has a wrong value.
    """
    urls = locations_of(location) or ()
    sign = _signing_key(options)
    # (Tags belong to a backend.)
    own = {name: _hashable(value) for name, value in options.items() if name not in ("tags", "CULL_FREQUENCY", "sign")}
    chosen = urls, sign, frozenset(own.items())
    tier = _tiers.get(chosen)
    if tier is None:
        tier = _tiers.setdefault(chosen, _make_tier(_server(urls, sign, options, own), sign, options))
    return tier


def _server(urls: tuple[str, ...], sign: bytes | None, options: Mapping[str, Any], own: Mapping[str, Any]) -> Redis:
    chosen = urls, sign, frozenset((name, value) for name, value in own.items() if name in SERVER_OPTIONS)
    server = _servers.get(chosen)
    if server is None:
        passed = {name: options[name] for name in options if name in _PASSED}
        on_event = _imported(options.get("on_event"))
        made = Redis(_client(urls, options), prefix=options.get("prefix", DEFAULT_PREFIX), sign=sign, on_event=on_event, **passed)
        server = _servers.setdefault(chosen, made)
    return server


def _make_tier(server: Redis, sign: bytes | None, options: Mapping[str, Any]) -> Tier:
    given = _imported(options.get("codec", "pickle"), dotted_only=True)
    codec = codec_of(given)
    if codec.name == "pickle" and sign is None:
        raise ValueError(
            "codec 'pickle' needs sign: a pickle runs what its writer wants, so one from a shared server is loaded only if a key proves that "
            "your own program wrote it"
        )
    copy = options.get("copy", "pickle")
    # (Raises if it is none of those that there are.)
    freezer(copy)
    form = Format(codec, copy)
    entries = options.get("MAX_ENTRIES", DEFAULT_MAX_ENTRIES)
    engine: TieredCache[str, Any] = TieredCache(
        server,
        options.get("name", DEFAULT_NAME),
        maxsize=None if entries is None else int(entries),
        local_ttl=options.get("local_ttl"),
        policy=options.get("policy", "tinylfu"),
        codec=form,
        schema=_schema(options.get("schema"), sign),
    )
    return Tier(engine, form)


def _imported(given: Any, *, dotted_only: bool = False) -> Any:
    """Returns what a dotted path names; anything else as it is. `dotted_only`: a text without a dot is no path."""
    if not isinstance(given, str) or (dotted_only and "." not in given):
        return given
    return import_string(given)


# --- The signature, and what is told apart by it.


def _signing_key(options: Mapping[str, Any]) -> bytes | None:
    """The key that values are signed with: derived from what the setting says, or from SECRET_KEY."""
    sign = options.get("sign", ...)
    if sign is None:
        return None
    if sign is ...:
        # (Raises ImproperlyConfigured if it is empty.)
        sign = settings.SECRET_KEY
    elif not isinstance(sign, str | bytes):
        raise TypeError(f"sign must be a str, bytes, or None for no signatures, not {type(sign).__name__}")
    if len(sign) < 16 and "sign" in options:
        raise ValueError(f"sign must have at least 16 characters, not {len(sign)}")
    return _derive_key(sign, "sign")


@cache
def _derive_key(secret: str | bytes, purpose: str) -> bytes:
    return salted_hmac("hotset.django.TieredCache", purpose, secret=secret, algorithm="sha256").digest()


def _schema(given: Any, sign: bytes | None) -> Any:
    """The schema of the keys' names: programs that sign with another key have keys of their own, instead of discarding each other's values."""
    if given is not None and (isinstance(given, bool) or not isinstance(given, int | str)):
        raise TypeError(f"schema must be an int, a str or None, not {type(given).__name__}")
    return f"{given!r} {'' if sign is None else _derive_key(sign, 'schema').hex()[:16]}"


# --- The server.


def _client(urls: tuple[str, ...], options: Mapping[str, Any]) -> Any:
    """Returns what `Redis` takes for the servers: a URL, a client that has not connected, or a function that makes one."""
    if "client" in options:
        return _imported(options["client"])
    if len(urls) == 1 and "sentinel" not in options:
        return urls[0]
    found = [settings_of(url) for url in urls]
    if any(each.scheme != found[0].scheme or each.scheme == "unix" for each in found):
        raise ValueError("LOCATION names several servers: all by redis://, or all by rediss://")
    return _sentinel(found, options["sentinel"]) if "sentinel" in options else _cluster(found)


def _sentinel(found: list[ServerSettings], service: str) -> Any:
    """A client of the master that these sentinels know. The URLs' user, password and database are the master's."""
    library: Any = importlib.import_module(f"{find_library().__name__}.sentinel")
    is_tls = found[0].scheme == "tls"
    sentinels: Any = library.Sentinel(
        [each.addresses[0] for each in found], sentinel_kwargs={"ssl": True} if is_tls else {}, **found[0].options, **({"ssl": True} if is_tls else {})
    )
    return sentinels.master_for(service)


def _cluster(found: list[ServerSettings]) -> Callable[..., Any]:
    """Makes a client of the cluster that has these nodes."""

    def connect(**timeouts: float) -> Any:
        library: Any = importlib.import_module(f"{find_library().__name__}.cluster")
        nodes = [library.ClusterNode(*address) for each in found for address in each.addresses]
        kept = {name: value for name, value in found[0].options.items() if name != "db"}
        return library.RedisCluster(startup_nodes=nodes, ssl=found[0].scheme == "tls", **kept, **timeouts)

    return connect
