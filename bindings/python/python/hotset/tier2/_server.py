"""`Redis`: the second tier as users name it."""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, final

from hotset._forks import at_fork
from hotset._settings import Seconds
from hotset.tier2._client import find_library, settings_of
from hotset.tier2._errors import Unavailable
from hotset.tier2._payload import PayloadCodec
from hotset.tier2._session import Session
from hotset.tier2._topology import Options, Topology
from hotset.tier2._settings import core_settings

if TYPE_CHECKING:
    from hotset.tier2._space import Space

Event = Literal["down", "up", "bus", "no bus", "refused", "evicts leases", "inconsistent"]

_REQUIREMENTS: Final = frozenset(("bus", "lease"))


class SecondTier:
    """Servers that hold the second tier of caches: a `Redis` or a `Memcached`.

    Nothing is sent before the first use. All threads and event loops may share an object, and a
    fork may inherit it.
    """

    __slots__ = ("__weakref__", "_claims", "_lock", "_options", "_session", "defaults", "payload_settings", "prefix")

    def __init__(self, options: Options, defaults: dict[str, Any], payload_settings: dict[str, Any]) -> None:
        self.defaults: Final = defaults
        """Settings of the core that all caches on these servers share. Private to the package."""
        self.payload_settings: Final = payload_settings
        """Settings of values that all caches on these servers share. Private to the package."""
        PayloadCodec(**payload_settings)
        self.prefix: Final = options.prefix
        self._options = options
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._claims: weakref.WeakValueDictionary[str, Space] = weakref.WeakValueDictionary()
        _alive.add(self)

    @property
    def has_bus(self) -> bool:
        """Whether the server's announcements are subscribed to, where it has them."""
        return self._options.bus

    @property
    def session(self) -> Session:
        """This process's part of the second tier. Private to the package."""
        session = self._session
        if session is not None and session.pid == os.getpid() and not session.is_closed:
            return session
        with self._lock:
            session = self._session
            if session is None or session.pid != os.getpid() or session.is_closed:
                session = self._session = Session(self._options)
            return session

    def claim(self, space: "Space") -> None:
        """Reserves a name for a cache. Private to the package.

        Args:
            space: The cache.

        Raises:
            ValueError: A cache of this process has this name, whose values have another source.
        """
        with self._lock:
            other = self._claims.get(space.name)
            if other is not None and other.owner != space.owner:
                raise ValueError(f"the name {space.name!r} belongs to another function of this process: give name=, which distinguishes their keys")
            self._claims[space.name] = space

    def check(self) -> dict[str, Any]:
        """Connects to the servers, and reports what they are and can do.

        Returns:
            By address: "server", "tracking", "scripts", "fencing", "maxmemory", "maxmemory-policy"
                and "round trip, us".

        Raises:
            Unavailable: A server cannot be reached, or lacks what `require` names.
        """
        from hotset.tier2._check import check

        return check(self)

    @property
    def requirements(self) -> frozenset[str]:
        """The names in `require`."""
        return self._options.require

    def stats(self) -> dict[str, Any]:
        """Returns the state of servers, bus and journal, and the counters, of this process."""
        return self.session.stats()

    def close(self) -> None:
        """Ends the threads and closes the connections of this process.

        The next use starts them again.
        """
        session = self._session
        if session is not None and session.pid == os.getpid():
            session.stop()

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        session = self._session
        if session is not None and session.pid == os.getpid():
            session.aclose(asyncio.get_running_loop())

    def after_fork(self) -> None:
        """Drops the parent's state. Called by the package itself in a child."""
        session, self._session = self._session, None
        self._lock = threading.RLock()
        if session is not None:
            session.abandon_in_child()
            for space in session.all_spaces_of_parent():
                space.after_fork()


@final
class Redis(SecondTier):
    """A Redis or Valkey server, Sentinel's master or a cluster, as the second tier of caches.

    Nothing is sent before the first use, so a program starts while the server is down. All threads
    and event loops may share an object, and a fork may inherit it.

    Args:
        server: A URL; a client of redis-py or valkey-py, sync or asyncio, for one server, Sentinel
            or a cluster; or a function that takes the keyword arguments `socket_timeout` and
            `socket_connect_timeout`, and returns such a client. The client's address, credentials
            and TLS settings are used, but not its connections, its retries or its
            `decode_responses`.
        prefix: The first part of all keys, whose changes the server announces. Programs that share
            values have the same.
        timeout: Seconds that one request may take. There are no retries.
        connect_timeout: Seconds that connecting may take.
        bus: "auto": subscribe to the server's announcements of changes (CLIENT TRACKING), where it
            has them. None: do not; then `local_ttl` bounds the age of a value of the first tier.
        max_loads: The greatest number of concurrent loads while the server cannot be reached.
        on_down: What a read does that the first tier cannot answer while the server cannot be
            reached: "load" calls the loader, and "raise" raises `Unavailable`, which protects a
            source that cannot bear the load. A value within `stale_if_error` is returned instead.
        require: "bus" and "lease": `check` raises if the server cannot provide them.
        early_reload: Above 0, one caller may reload a value shortly before it expires, the more
            likely the longer loading takes; 1 is usual.
        lease: Seconds after which another process loads, if the one that was loading has died.
        lease_wait: Seconds after which a caller that waits for another process's load loads for
            itself, and stores the value nowhere; None for no limit.
        load_timeout: Seconds after which a load no longer makes other callers wait.
        compress_over: The size in bytes above which values are compressed (zlib).
        sign: A secret of 16 to 64 bytes that signs values; values with other signatures are misses.
        max_value: The size in bytes above which values stay in the first tier.
        verify: The share of the first tier's hits for which an entry, chosen at random, is compared
            with the server's value, such as 0.001. A thread does so, once a second at most and for
            at most 1% of its time; hits cost nothing. Entries that still differ after 3 s are
            counted as `inconsistent` in `stats()["tier2"]`.
        on_event: Called as `on_event(name, details)`, by any thread: "down" and "up" when the
            server stops and resumes answering, "bus" and "no bus", "refused" when this user may not
            run a command, "evicts leases" when the server's `maxmemory-policy` is volatile-ttl, and
            "inconsistent" (see `verify`).

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or the URL is malformed.
        ImportError: Neither redis-py nor valkey-py is installed.

    Example:
        >>> from hotset.tier2 import Redis
        >>> shop = Redis("redis://localhost:6379/0", prefix="shop")
        >>> shop
        <hotset.tier2.Redis 'shop' at localhost:6379>
    """

    __slots__ = ("_is_factory",)

    def __init__(
        self,
        server: Any,
        *,
        prefix: str,
        timeout: float = 0.1,
        connect_timeout: float = 0.1,
        bus: Literal["auto"] | None = "auto",
        max_loads: int = 64,
        require: str | Iterable[str] = (),
        early_reload: float = 0.0,
        lease: Seconds | None = None,
        lease_wait: Seconds | None = None,
        load_timeout: Seconds | None = None,
        compress_over: int | None = None,
        sign: bytes | None = None,
        max_value: int = 16 << 20,
        on_event: Callable[[str, dict[str, Any]], object] | None = None,
        on_down: Literal["load", "raise"] = "load",
        verify: float = 0.0,
    ) -> None:
        required = check_options(prefix, timeout, connect_timeout, bus, max_loads, require, on_event)
        check_more_options(on_down, verify)
        self._is_factory = callable(server) and not hasattr(server, "execute_command")
        if self._is_factory:
            find_library()
        else:
            # Raises a TypeError or ValueError if it is neither a URL nor a client.
            settings_of(server)
        defaults = core_settings(early_reload=early_reload, lease=lease, lease_wait=lease_wait, load_timeout=load_timeout)
        has_bus, raises_when_down = bus == "auto", on_down == "raise"
        options = Options(
            server, prefix, float(timeout), float(connect_timeout), has_bus, max_loads, required, on_event, raises_when_down, float(verify)
        )
        super().__init__(options, defaults, {"compress_over": compress_over, "sign": sign, "max_value": max_value})

    def __repr__(self) -> str:
        session = self._session
        topology = None if session is None else session.topology
        known = topology.known_settings if isinstance(topology, Topology) else None
        if known is None and not self._is_factory:
            known = settings_of(self._options.server)
        return f"<hotset.tier2.Redis {self.prefix!r} {'by a factory' if known is None else f'at {known.label}'}>"


def check_options(
    prefix: Any, timeout: Any, connect_timeout: Any, bus: Any, max_loads: Any, require: Any, on_event: Any
) -> frozenset[str]:
    """Validates the settings; returns the names in `require`."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    if not prefix:
        raise ValueError("prefix must not be empty: the server announces changes by prefix, and other programs may have keys there")
    for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
        if not 0 < seconds <= 60:
            raise ValueError(f"{name} must be more than 0 and at most 60 seconds, not {seconds}")
    if bus not in ("auto", None):
        raise ValueError(f"bus must be 'auto' or None, not {bus!r}")
    if isinstance(max_loads, bool) or not isinstance(max_loads, int) or max_loads < 1:
        raise ValueError(f"max_loads must be a positive integer, not {max_loads!r}")
    required: frozenset[str] = frozenset((require,) if isinstance(require, str) else require)
    if not required <= _REQUIREMENTS:
        raise ValueError(f"require may name {', '.join(sorted(_REQUIREMENTS))}, not {', '.join(sorted(required - _REQUIREMENTS))}")
    if on_event is not None and not callable(on_event):
        raise TypeError(f"on_event must be callable, not {type(on_event).__name__}")
    return required


def check_more_options(on_down: Any, verify: Any) -> None:
    """Validates the settings of outages and comparisons."""
    if on_down not in ("load", "raise"):
        raise ValueError(f"on_down must be 'load' or 'raise', not {on_down!r}")
    if isinstance(verify, bool) or not isinstance(verify, int | float):
        raise TypeError(f"verify must be a number, not {type(verify).__name__}")
    if not 0 <= verify <= 1:
        raise ValueError(f"verify must be from 0 to 1, not {verify}")


_alive: "weakref.WeakSet[SecondTier]" = weakref.WeakSet()


def _after_fork() -> None:
    for server in list(_alive):
        server.after_fork()


def _at_exit() -> None:
    for server in list(_alive):
        server.close()


at_fork(_after_fork)
atexit.register(_at_exit)

__all__ = ["Redis", "SecondTier", "Unavailable"]
