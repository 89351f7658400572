"""The caches behind `TieredCache`: one for each LOCATION and OPTIONS.

Django creates any number of backends for these.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, cast

from django.conf import settings
from django.utils.crypto import salted_hmac
from django.utils.module_loading import import_string

from hotset._codecs import codec_of
from hotset._values import freezer
from hotset.django._format import Format
from hotset.django._settings import MEMCACHED, REDIS_OPTIONS, SERVER_OPTIONS, is_memcached, locations_of, maxsize_of
from hotset.tier2 import Memcached, Redis, TieredCache
from hotset.tier2._client import ServerSettings, find_library, settings_of
from hotset.tier2._server import SecondTier

DEFAULT_PREFIX: Final = "django"
DEFAULT_NAME: Final = "cache"
# Options that are passed to `Redis` or `Memcached` unchanged.
_PASSED: Final = SERVER_OPTIONS - {"client", "on_event", "prefix", "sentinel", "sign"}
_PASSED_TO_MEMCACHED: Final = _PASSED - REDIS_OPTIONS


class Tier(NamedTuple):
    """The cache and the format that backends of the same settings share."""

    engine: "TieredCache[str, Any]"
    format: Format


_servers: dict[Any, SecondTier] = {}
_tiers: dict[Any, Tier] = {}


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(each) for each in cast("list[Any]", value))
    if isinstance(value, dict):
        return tuple(sorted((str(name), _hashable(each)) for name, each in cast("dict[object, object]", value).items()))
    return value


def tier_of(location: Any, options: Mapping[str, Any]) -> Tier:
    """Returns the cache that backends of these settings share, created by the first call.

    Args:
        location: LOCATION of the alias.
        options: OPTIONS of the alias.

    Raises:
        ImportError: Neither redis-py nor valkey-py is installed, or a dotted path leads to nothing.
        TypeError: A setting is of a wrong type.
        ValueError: A setting has a wrong value.
    """
    urls = locations_of(location) or ()
    sign = _signing_key(options)
    # Tags belong to a backend.
    own = {name: _hashable(value) for name, value in options.items() if name not in ("tags", "CULL_FREQUENCY", "sign")}
    chosen = urls, sign, frozenset(own.items())
    tier = _tiers.get(chosen)
    if tier is None:
        tier = _tiers.setdefault(chosen, _make_tier(_server(urls, sign, options, own), sign, options))
    return tier


def _server(urls: tuple[str, ...], sign: bytes | None, options: Mapping[str, Any], own: Mapping[str, Any]) -> SecondTier:
    chosen = urls, sign, frozenset((name, value) for name, value in own.items() if name in SERVER_OPTIONS)
    server = _servers.get(chosen)
    if server is None:
        on_memcached = is_memcached(urls)
        passed: dict[str, Any] = {name: options[name] for name in options if name in (_PASSED_TO_MEMCACHED if on_memcached else _PASSED)}
        passed |= {"prefix": options.get("prefix", DEFAULT_PREFIX), "sign": sign, "on_event": _imported(options.get("on_event"))}
        made = Memcached(_addresses(urls), **passed) if on_memcached else Redis(_client(urls, options), **passed)
        server = _servers.setdefault(chosen, made)
    return server


def _make_tier(server: SecondTier, sign: bytes | None, options: Mapping[str, Any]) -> Tier:
    given = _imported(options.get("codec", "pickle"), dotted_only=True)
    codec = codec_of(given)
    if codec.name == "pickle" and sign is None:
        raise ValueError(
            "codec 'pickle' needs sign: a pickle runs code of its writer's choice, so one from a shared server is loaded only if a key "
            "proves that your own program wrote it"
        )
    copy = options.get("copy", "pickle")
    # Raises a ValueError if `copy` is unknown.
    freezer(copy)
    form = Format(codec, copy)
    engine: TieredCache[str, Any] = TieredCache(
        server,
        options.get("name", DEFAULT_NAME),
        maxsize=maxsize_of(options),
        local_ttl=options.get("local_ttl"),
        policy=options.get("policy", "tinylfu"),
        codec=form,
        profile=options.get("profile", False),
        autosize=options.get("autosize"),
        schema=_schema(options.get("schema"), sign),
    )
    return Tier(engine, form)


def _imported(given: Any, *, dotted_only: bool = False) -> Any:
    """Returns the object at a dotted path; anything else unchanged.

    Args:
        given: A dotted path, or anything else.
        dotted_only: Whether a text without a dot is not a path.
    """
    if not isinstance(given, str) or (dotted_only and "." not in given):
        return given
    return import_string(given)


# --- The signature, and the schema that depends on it.


def _signing_key(options: Mapping[str, Any]) -> bytes | None:
    """Returns the key that signs values: derived from `sign`, or from SECRET_KEY."""
    sign = options.get("sign", ...)
    if sign is None:
        return None
    if sign is ...:
        # Raises ImproperlyConfigured if it is empty.
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
    """Returns the schema of the keys' names, which depends on the signing key.

    So programs that sign with different keys have different keys in the cache, instead of
    discarding each other's values.
    """
    if given is not None and (isinstance(given, bool) or not isinstance(given, int | str)):
        raise TypeError(f"schema must be an int, a str or None, not {type(given).__name__}")
    return f"{given!r} {'' if sign is None else _derive_key(sign, 'schema').hex()[:16]}"


# --- The server.


def _addresses(urls: tuple[str, ...]) -> list[str]:
    """Returns the addresses of memcached servers, of which a URL may have several."""
    return [address.strip() for url in urls for address in url.removeprefix(MEMCACHED).rstrip("/").split(",")]


def _client(urls: tuple[str, ...], options: Mapping[str, Any]) -> Any:
    """Returns what `Redis` takes for the servers: a URL, an unconnected client, or a factory."""
    if "client" in options:
        return _imported(options["client"])
    if len(urls) == 1 and "sentinel" not in options:
        return urls[0]
    found = [settings_of(url) for url in urls]
    if any(each.scheme != found[0].scheme or each.scheme == "unix" for each in found):
        raise ValueError("LOCATION names several servers: all by redis://, or all by rediss://")
    return _sentinel(found, options["sentinel"]) if "sentinel" in options else _cluster(found)


def _sentinel(found: list[ServerSettings], service: str) -> Any:
    """Returns a client of the master that these sentinels know.

    The user, password and database of the URLs are the master's.
    """
    library: Any = importlib.import_module(f"{find_library().__name__}.sentinel")
    is_tls = found[0].scheme == "tls"
    sentinels: Any = library.Sentinel(
        [each.addresses[0] for each in found], sentinel_kwargs={"ssl": True} if is_tls else {}, **found[0].options, **({"ssl": True} if is_tls else {})
    )
    return sentinels.master_for(service)


def _cluster(found: list[ServerSettings]) -> Callable[..., Any]:
    """Returns a function that creates a client of the cluster with these nodes."""

    def connect(**timeouts: float) -> Any:
        library: Any = importlib.import_module(f"{find_library().__name__}.cluster")
        nodes = [library.ClusterNode(*address) for each in found for address in each.addresses]
        kept = {name: value for name, value in found[0].options.items() if name != "db"}
        return library.RedisCluster(startup_nodes=nodes, ssl=found[0].scheme == "tls", **kept, **timeouts)

    return connect
