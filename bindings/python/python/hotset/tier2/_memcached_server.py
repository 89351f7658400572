"""`Memcached`: memcached servers as a second tier, as users name them."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, final

from hotset._settings import Seconds
from hotset.tier2._memcached import memcached_settings
from hotset.tier2._server import SecondTier, check_more_options, check_options
from hotset.tier2._settings import core_settings
from hotset.tier2._topology import Options

MAX_VALUE = (1 << 20) - (2 << 10)
"""The size of the largest value by default: an item of memcached has 1 MiB, with key and frame."""


@final
class Memcached(SecondTier):
    """Memcached servers as the second tier of caches.

    Keys are spread over the servers by rendezvous hashing, as pymemcache's `HashClient` does it. A
    server that is down keeps its keys: they are loaded without the second tier until it is back,
    since another server would hold values that nothing invalidates.

    memcached announces no changes: a value that another process replaced or removed may be returned
    from the first tier for `local_ttl` (5 seconds by default). Nothing is sent before the first
    use, so a program starts while the servers are down. All threads and event loops may share an
    object, and a fork may inherit it.

    Args:
        servers: The servers, such as ["10.0.0.1:11211", "[::1]:11211", "/run/memcached.sock"]; or
            "memcached://host:port,host:port"; or a `Client`, `PooledClient` or `HashClient` of
            pymemcache. Of a client, the servers, its hashing and its TLS settings are used, but not
            its connections, its timeouts, its prefix or its serializers. All programs that share
            values name the servers alike.
        prefix: The first part of all keys. Programs that share values have the same.
        timeout: Seconds that one request may take. There are no retries.
        connect_timeout: Seconds that connecting may take.
        max_loads: The greatest number of concurrent loads while a server cannot be reached.
        on_down: What a read does that the first tier cannot answer while the key's server cannot be
            reached: "load" calls the loader, and "raise" raises `Unavailable`, which protects a
            source that cannot bear the load. A value within `stale_if_error` is returned instead.
        require: "lease": `check` raises if a server runs without CAS (`memcached -C`).
        early_reload: Above 0, one caller may reload a value shortly before it expires, the more
            likely the longer loading takes; 1 is usual.
        lease: Seconds after which another process loads, if the one that was loading has died;
            memcached expires leases up to 2 seconds later.
        lease_wait: Seconds after which a caller that waits for another process's load loads for
            itself, and stores the value nowhere; None for no limit.
        load_timeout: Seconds after which a load no longer makes other callers wait.
        compress_over: The size in bytes above which values are compressed (zlib).
        sign: A secret of 16 to 64 bytes that signs values; values with other signatures are misses.
        max_value: The size in bytes above which values stay in the first tier. Servers with another
            item size (`memcached -I`) suit another one.
        on_event: Called as `on_event(name, details)`, by any thread: "down" and "up" when a server
            stops and resumes answering, and "refused" when it refuses what the second tier needs.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or an address is malformed.

    Example:
        >>> from hotset.tier2 import Memcached
        >>> shop = Memcached(["localhost:11211"], prefix="shop")
        >>> shop
        <hotset.tier2.Memcached 'shop' at localhost:11211>
    """

    __slots__ = ("_servers",)

    def __init__(
        self,
        servers: Any,
        *,
        prefix: str,
        timeout: float = 0.1,
        connect_timeout: float = 0.1,
        max_loads: int = 64,
        require: str | Iterable[str] = (),
        early_reload: float = 0.0,
        lease: Seconds | None = None,
        lease_wait: Seconds | None = None,
        load_timeout: Seconds | None = None,
        compress_over: int | None = None,
        sign: bytes | None = None,
        max_value: int = MAX_VALUE,
        on_event: Callable[[str, dict[str, Any]], object] | None = None,
        on_down: Literal["load", "raise"] = "load",
    ) -> None:
        required = check_options(prefix, timeout, connect_timeout, None, max_loads, require, on_event)
        if "bus" in required:
            raise ValueError("require may name lease, not bus: memcached announces no changes")
        check_more_options(on_down, 0.0)
        self._servers = memcached_settings(servers)
        defaults = core_settings(early_reload=early_reload, lease=lease, lease_wait=lease_wait, load_timeout=load_timeout)
        options = Options(
            None, prefix, float(timeout), float(connect_timeout), False, max_loads, required, on_event, on_down == "raise", 0.0, self._servers
        )
        super().__init__(options, defaults, {"compress_over": compress_over, "sign": sign, "max_value": max_value})

    def __repr__(self) -> str:
        return f"<hotset.tier2.Memcached {self.prefix!r} at {', '.join(self._servers.names)}>"
