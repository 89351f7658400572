"""Settings of memcached servers, from addresses or a client of pymemcache, and connections to them.

Of a client, the servers, their hashing and its TLS settings are used. The connections are this
package's own, with its own deadlines and without retries.
"""

import re
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final, cast, final

from hotset import _hotset
from hotset.tier2._client import Address
from hotset.tier2._clock import now
from hotset.tier2._errors import Failed, Kind
from hotset.tier2._keys import LONGEST_ON_MEMCACHED, wire_key
from hotset.tier2._resp import INCOMPLETE, ProtocolError
from hotset.tier2._sync import Connection, Node

_core: Any = _hotset
_split: Any = _core.memcached_replies
_value_of: Any = _core.memcached_value
# Returns the value in the whole reply to one read, None for no item; else `INCOMPLETE`.
quick_value: Callable[[bytes], Any] = partial(_core.memcached_quick_value, INCOMPLETE)

_PORT: Final = 11211
_META: Final = (1, 6, 13)
"""The first version whose meta commands are those that are sent."""
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]/\s]+))(?::(\d{1,5}))?")
_serials: Final = count(1)


@final
@dataclass(frozen=True)
class MemcachedSettings:
    """Where the servers are, and how connections to them are made."""

    servers: tuple[Address, ...]
    tls: ssl.SSLContext | None = None
    node_of: Callable[[str], Any] | None = None
    """A hashing of the user's own: returns the name of a key's server."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the servers, as pymemcache makes them: what keys are hashed with."""
        return tuple(name_of(address) for address in self.servers)

    def __repr__(self) -> str:
        return f"<memcached at {', '.join(self.names)}>"


def name_of(address: Address) -> str:
    """Returns the name of a server: host and port, or the path of its socket.

    Args:
        address: The address.
    """
    return f"{address[0]}:{address[1]}" if address[1] else address[0]


def address_of(server: Any) -> Address:
    """Returns the address in a text such as "host:port", "[::1]:11211" or "/run/memcached.sock".

    Args:
        server: The text; or host and port in a tuple.

    Raises:
        TypeError: It is neither.
        ValueError: The text is malformed.
    """
    if isinstance(server, list | tuple):
        parts = cast("Sequence[Any]", server)
        if len(parts) == 2 and isinstance(parts[0], str) and isinstance(parts[1], int):
            return parts[0], _checked_port(parts[1], server)
    if not isinstance(server, str):
        raise TypeError(f"a server must be a str such as 'host:port', or a tuple of host and port, not {server!r}")
    text = server.removeprefix("unix:")
    if text.startswith("/"):
        return text, 0
    found = _ADDRESS.fullmatch(server)
    if found is None:
        raise ValueError(f"a server must be 'host:port', '[address]:port' or the path of a socket, not {server!r}")
    return found[1] or found[2], _checked_port(int(found[3] or _PORT), server)


def _checked_port(port: int, server: Any) -> int:
    if not 1 <= port <= 65535:
        raise ValueError(f"a port must be from 1 to 65535: {server!r}")
    return port


def memcached_settings(servers: Any) -> MemcachedSettings:
    """Returns the settings in addresses, a URL, or a client of pymemcache.

    Args:
        servers: One address or several, "memcached://host:port,host:port", or the client.

    Raises:
        TypeError: It is none of these.
        ValueError: An address is malformed, there is none, or one is there twice.
    """
    if isinstance(servers, str):
        return _checked([address_of(part) for part in servers.removeprefix("memcached://").rstrip("/").split(",")])
    if any(base.__module__.startswith("pymemcache.") for base in type(servers).__mro__):
        return _settings_of_client(servers)
    if not isinstance(servers, Iterable):
        raise TypeError(f"servers must be addresses or a client of pymemcache, not {type(servers).__name__}")
    given: list[Any] = list(servers)  # pyright: ignore[reportUnknownArgumentType]
    return _checked([address_of(server) for server in given])


def _checked(addresses: list[Address], **others: Any) -> MemcachedSettings:
    if not addresses:
        raise ValueError("servers must not be empty")
    if len(set(addresses)) != len(addresses):
        raise ValueError(f"a server is there twice: {', '.join(name_of(address) for address in addresses)}")
    return MemcachedSettings(tuple(addresses), **others)


def _settings_of_client(client: Any) -> MemcachedSettings:
    hasher = getattr(client, "hasher", None)
    if hasher is None:
        if not hasattr(client, "server"):
            raise TypeError(f"cannot read the servers of a {type(client).__name__}")
        options: dict[str, Any] = getattr(client, "client_kwargs", None) or {}
        return _checked([address_of(client.server)], tls=getattr(client, "tls_context", None) or options.get("tls_context"))
    addresses = [address_of(each.server) for each in client.clients.values()]
    # This package has the same hashing, in native code.
    is_usual = type(hasher).__module__ == "pymemcache.client.rendezvous" and hasher.seed == 0
    node_of = None if is_usual else hasher.get_node
    return _checked(addresses, tls=getattr(client, "tls_context", None), node_of=node_of)


def connect(settings: MemcachedSettings, address: Address, connect_timeout: float) -> socket.socket:
    """Returns a connected socket.

    Args:
        settings: How connections are made.
        address: The address.
        connect_timeout: Seconds that connecting may take.

    Raises:
        Failed: The server cannot be reached.
    """
    connected: socket.socket | None = None
    try:
        if address[1]:
            connected = socket.create_connection(address, connect_timeout)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connected.settimeout(connect_timeout)
            connected.connect(address[0])
        if settings.tls is not None:
            connected = settings.tls.wrap_socket(connected, server_hostname=address[0])
    except OSError as error:
        if connected is not None:
            connected.close()
        raise failure_of(address, error) from error
    return connected


def failure_of(address: Address, error: OSError) -> Failed:
    """Returns an exception on connecting as `Failed`.

    Args:
        address: The address.
        error: The exception.
    """
    kind: Kind = "reset"
    if isinstance(error, TimeoutError):
        kind = "timeout"
    elif isinstance(error, ConnectionRefusedError | FileNotFoundError):
        kind = "refused"
    elif isinstance(error, socket.gaierror):
        kind = "unresolved"
    return Failed(kind, f"cannot connect to {name_of(address)}: {error}", sent=False)


# --- The first request to a server.

GREETING: Final = b"version\r\nstats\r\n"
GREETING_REPLIES: Final = 2


@final
@dataclass(frozen=True)
class MemcachedGreeting:
    """Identity, version and time of a server, as it reported them on a connection."""

    identity: bytes
    """Identifies the process: its id and when it was started."""
    version: tuple[int, ...]
    text: str
    """The version as the server reported it."""
    server_ms: int
    """The server's time in milliseconds; it has whole seconds."""
    asked_at: int
    answered_at: int
    connection_id: int
    """The number of the connection, in the order in which this process's were opened."""
    can_kill: bool = False

    @property
    def has_meta(self) -> bool:
        """Whether the server has meta commands."""
        return self.version >= _META


def greeting_of(replies: list[bytes], asked_at: int, answered_at: int) -> MemcachedGreeting:
    """Returns the greeting in the replies to GREETING.

    Args:
        replies: The replies.
        asked_at: When the request was sent.
        answered_at: When the replies arrived.

    Raises:
        Failed: The server refuses this client, or is no memcached.
    """
    version, statistics = replies
    if version.startswith(b"CLIENT_ERROR"):
        raise Failed("auth", f"server refuses this client: {version[13:].decode('utf-8', 'replace').strip()}", sent=False)
    words = version.decode("utf-8", "replace").split()
    about = fields(statistics)
    if len(words) < 2 or not about.get("time", "").isdigit():
        raise Failed("refused", "server reports no version or no time: it is no memcached", sent=False)
    found = re.match(r"\d+(\.\d+)*", words[1])
    numbers = tuple(int(part) for part in found[0].split(".")) if found else ()
    seconds = int(about["time"])
    uptime = about.get("uptime", "")
    begun = seconds - int(uptime) if uptime.isdigit() else 0
    identity = f"{about.get('pid', '')}/{begun}".encode()
    return MemcachedGreeting(identity, numbers, words[1], seconds * 1000, asked_at, answered_at, next(_serials))


def fields(statistics: bytes) -> dict[str, str]:
    """Returns the fields of a reply to `stats`.

    Args:
        statistics: The reply.
    """
    parts = (line.split(" ", 2) for line in statistics.decode("utf-8", "replace").split("\r\n"))
    return {part[1]: part[2] for part in parts if len(part) == 3 and part[0] == "STAT"}


def memcached_get(key: bytes) -> bytes:
    """Returns an encoded read of a key. (Servers with meta commands have this one, too.)

    Args:
        key: The key.
    """
    return b"get %b\r\n" % (key if len(key) <= LONGEST_ON_MEMCACHED else wire_key(key))


# --- Connections of threads.


@final
class MemcachedParser:
    """Splits a stream of bytes into replies, each of which is bytes."""

    __slots__ = ("_at", "_rest", "_whole")

    def __init__(self) -> None:
        self._rest = b""
        self._whole: list[bytes] = []
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """Whether no part of a further reply was fed."""
        return not self._rest and self._at == len(self._whole)

    def feed(self, data: bytes) -> None:
        """Appends received bytes.

        Args:
            data: The bytes.
        """
        self._rest = self._rest + data if self._rest else data

    def next(self) -> Any:
        """Returns the next reply, or `INCOMPLETE`.

        Raises:
            ProtocolError: The bytes are not a reply; the connection is of no further use.
        """
        if self._at == len(self._whole):
            self._at = 0
            try:
                self._whole, used = _split(self._rest)
            except ValueError as error:
                raise ProtocolError(str(error)) from error
            self._rest = self._rest[used:]
            if not self._whole:
                return INCOMPLETE
        self._at += 1
        return self._whole[self._at - 1]


def value_of(reply: bytes) -> Any:
    """Returns the value in a reply to a read, None for no item; the error as an exception.

    Args:
        reply: The reply.
    """
    try:
        return _value_of(reply)
    except RuntimeError as error:
        return error


def _no_quick_reply(data: bytes) -> Any:
    return INCOMPLETE


@final
class MemcachedConnection(Connection):
    """A connection to one memcached server, for one thread at a time."""

    __slots__ = ()

    _make_parser = staticmethod(MemcachedParser)
    _quick_value = staticmethod(quick_value)
    _quick_reply = staticmethod(_no_quick_reply)
    _value_of = staticmethod(value_of)

    def _request_greeting(self, asked_at: int) -> MemcachedGreeting:
        replies = self.exchange(GREETING, GREETING_REPLIES)
        return greeting_of(replies, asked_at, now())


@final
class MemcachedNode(Node):
    """One memcached server: its idle connections. For any thread."""

    def __init__(self, settings: MemcachedSettings, address: Address, timeout: float, connect_timeout: float) -> None:
        super().__init__(None, address, None, timeout, connect_timeout)
        self._servers = settings

    def connect(self) -> Connection:
        """Returns a new connection, on which the server has reported its identity.

        Raises:
            Failed: The server cannot be reached.
        """
        connected = connect(self._servers, self.address, self._connect_timeout)
        connection = MemcachedConnection(connected, self.address, self._timeout)
        connection.greet()
        return connection
