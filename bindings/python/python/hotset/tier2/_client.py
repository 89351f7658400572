"""Settings of a server, from a URL or a client of redis-py or valkey-py, and connections to it.

The client's own connection classes connect, encrypt, authenticate and select the database. Then the
socket is taken from them: this package sends and receives on it, with its own deadlines and without
retries.
"""

import binascii
import importlib
import inspect
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Literal, cast, final
from urllib.parse import urlsplit

from hotset.tier2._errors import Failed, Kind
from hotset.tier2._resp import ServerError, encode

Topology = Literal["single", "sentinel", "cluster"]
Address = tuple[str, int]
"""Host and port; a path and 0 for a unix socket; a service and 0 for what Sentinel knows."""
Locate = Callable[[Address], Address]
"""Returns the current address of a server; may query Sentinel."""

_SCHEMES: Final = ("redis://", "rediss://", "unix://", "valkey://", "valkeys://")
# The settings of a connection that name the server and the user. All others are about retries,
# decoding and protocols, which this package decides for itself.
_KEPT: Final = frozenset(
    ("db", "username", "password", "credential_provider", "client_name", "socket_keepalive", "socket_keepalive_options", "socket_type")
)
_DROPPED: Final = frozenset(
    (
        *("host", "port", "path", "retry", "retry_on_error", "retry_on_timeout", "health_check_interval", "socket_timeout"),
        *("socket_connect_timeout", "decode_responses", "encoding", "encoding_errors", "parser_class", "protocol", "legacy_responses"),
        *("lib_name", "lib_version", "driver_info", "redis_connect_func", "command_packer", "event_dispatcher", "himport_registry"),
        *("connection_pool", "response_callbacks", "read_from_replicas", "max_connections", "cache", "cache_config", "timeout"),
    )
)


@final
@dataclass(frozen=True)
class ServerSettings:
    """Where the servers are, and how connections to them are made."""

    library: ModuleType
    topology: Topology
    scheme: Literal["tcp", "tls", "unix"]
    options: dict[str, Any]
    """Keyword arguments of the library's connection classes, without the address."""
    addresses: tuple[Address, ...]
    """The server; for a cluster, the first nodes to query; for Sentinel, none."""
    sentinels: tuple["ServerSettings", ...] = ()
    service: str = ""
    connection_class: Any = None
    """A class of the user's own, for sync connections."""
    async_connection_class: Any = None
    """The same, for asyncio."""

    @property
    def label(self) -> str:
        """The address of the server, without credentials."""
        if self.topology == "sentinel":
            return f"sentinel {self.service}"
        host, port = self.addresses[0]
        return f"{host}:{port}" if port else host

    def __repr__(self) -> str:
        return f"<{self.topology} server at {self.label}>"


def find_library(name: str | None = None) -> ModuleType:
    """Returns redis-py, or valkey-py where that is named or the only one installed.

    Args:
        name: "redis" or "valkey"; None for either.

    Raises:
        ImportError: It is not installed.
    """
    for candidate in (name,) if name else ("redis", "valkey"):
        try:
            return importlib.import_module(candidate)
        except ImportError:
            continue
    raise ImportError("hotset.tier2.Redis needs redis-py or valkey-py: pip install 'hotset[redis]'")


def settings_of(server: Any) -> ServerSettings:
    """Returns the settings of a URL, or of a client of redis-py or valkey-py.

    Args:
        server: The URL or the client.

    Raises:
        TypeError: It is neither.
        ValueError: The URL is malformed.
    """
    if isinstance(server, str):
        return _settings_of_url(server)
    module = type(server).__module__.partition(".")[0]
    for base in type(server).__mro__:
        if base.__module__.partition(".")[0] in ("redis", "valkey"):
            module = base.__module__.partition(".")[0]
            break
    else:
        raise TypeError(f"server must be a URL, a client of redis-py or valkey-py, or a function that returns one, not {type(server).__name__}")
    library = find_library(module)
    pool = getattr(server, "connection_pool", None)
    if pool is not None:
        return _settings_of_pool(library, pool)
    manager = getattr(server, "nodes_manager", None)
    if manager is None:
        raise TypeError(f"server must be a client that connects to one server, Sentinel or a cluster, not {type(server).__name__}")
    kwargs = dict(getattr(server, "connection_kwargs", None) or manager.connection_kwargs)
    nodes = [*manager.startup_nodes.values(), *getattr(manager, "nodes_cache", {}).values()]
    addresses = tuple(dict.fromkeys((str(node.host), int(node.port)) for node in nodes))
    is_tls = bool(kwargs.pop("ssl", False)) or "SSL" in getattr(kwargs.get("connection_class"), "__name__", "")
    options = {name: value for name, value in kwargs.items() if name in _KEPT or name.startswith("ssl_")}
    options.pop("db", None)
    return ServerSettings(library, "cluster", "tls" if is_tls else "tcp", options, addresses)


def _settings_of_url(url: str) -> ServerSettings:
    scheme = url.partition("://")[0] + "://"
    if scheme not in _SCHEMES:
        raise ValueError(f"URL must begin with one of {', '.join(_SCHEMES)}, not {scheme if '://' in url else url!r}")
    parts = urlsplit(url)
    if scheme != "unix://" and not parts.path.removeprefix("/").isdigit() and parts.path not in ("", "/"):
        raise ValueError(f"URL names the database {parts.path[1:]!r}: it must be a number")
    if scheme == "unix://" and not parts.path:
        raise ValueError("URL names no path of a unix socket")
    library = find_library()
    if library.__name__ == "redis":
        url = url.replace("valkey", "redis", 1) if scheme.startswith("valkey") else url
    elif scheme.startswith("redis"):
        url = url.replace("redis", "valkey", 1)
    try:
        pool = library.ConnectionPool.from_url(url)
    except ValueError as error:
        raise ValueError(f"URL is malformed: {error}") from None
    except TypeError as error:
        raise ValueError(f"URL has an unknown option: {error}") from None
    settings = _settings_of_pool(library, pool)
    port = settings.addresses[0][1]
    if settings.scheme != "unix" and not 0 < port < 65536:
        raise ValueError(f"URL has the port {port}: it must be from 1 to 65535")
    return settings


def _settings_of_pool(library: ModuleType, pool: Any) -> ServerSettings:
    connection_class: Any = pool.connection_class
    kwargs = dict(pool.connection_kwargs)
    names = {base.__name__ for base in connection_class.__mro__}
    if "UnixDomainSocketConnection" in names:
        scheme: Literal["tcp", "tls", "unix"] = "unix"
    else:
        scheme = "tls" if "SSLConnection" in names else "tcp"
    kept = {name: value for name, value in kwargs.items() if name in _KEPT or name.startswith("ssl_")}
    if hasattr(pool, "sentinel_manager"):
        sentinels = tuple(settings_of(client) for client in pool.sentinel_manager.sentinels)
        return ServerSettings(library, "sentinel", scheme, kept, (), sentinels, str(pool.service_name))
    own: dict[str, Any] = {}
    if not connection_class.__module__.startswith((library.__name__ + ".", library.__name__)):
        is_async = inspect.iscoroutinefunction(connection_class.connect)
        own = {"async_connection_class" if is_async else "connection_class": connection_class}
        kept = {name: value for name, value in kwargs.items() if name not in _DROPPED and not name.startswith(("maint", "orig_", "oss_"))}
    address = (str(kwargs["path"]), 0) if scheme == "unix" else (str(kwargs.get("host", "localhost")), int(kwargs.get("port", 6379)))
    return ServerSettings(library, "single", scheme, kept, (address,), **own)


_CLASSES: Final = {"tcp": "Connection", "tls": "SSLConnection", "unix": "UnixDomainSocketConnection"}


def _connection(settings: ServerSettings, module: str, own: Any, address: Address, timeout: float, connect_timeout: float) -> Any:
    """Returns an unconnected connection object of the library."""
    connections: Any = importlib.import_module(f"{settings.library.__name__}{module}.connection")
    connection_class = own or getattr(connections, _CLASSES[settings.scheme])
    known = inspect.signature(connections.AbstractConnection.__init__).parameters
    # Without the library's name and version, whose announcement costs a round trip or two per
    # connection.
    silent: dict[str, Any] = {"driver_info": None} if "driver_info" in known else {"lib_name": None, "lib_version": None}
    where: dict[str, Any] = {"path": address[0]} if settings.scheme == "unix" else {"host": address[0], "port": address[1]}
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": connect_timeout}
    return connection_class(**settings.options, **where, **timeouts, **silent, protocol=2, health_check_interval=0)


def _failure(settings: ServerSettings, address: Address, error: BaseException) -> Failed:
    """Returns a library's exception on connecting as `Failed`."""
    where = f"{address[0]}:{address[1]}" if address[1] else address[0]
    text = str(error) or type(error).__name__
    names = {base.__name__ for base in type(error).__mro__}
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    kind: Kind = "reset"
    if "BusyLoadingError" in names:
        kind = "loading"
    elif names & {"AuthenticationError", "AuthorizationError", "NoPermissionError"}:
        kind = "auth"
    elif "InvalidResponse" in names:
        kind = "protocol"
    elif names & {"TimeoutError"} or any(isinstance(each, TimeoutError) for each in causes):
        kind = "timeout"
    elif any(isinstance(each, ConnectionRefusedError | FileNotFoundError) for each in causes) or "Connect call failed" in text:
        kind = "refused"
    elif any(isinstance(each, socket.gaierror) for each in causes):
        kind = "unresolved"
    elif "ResponseError" in names or "DataError" in names:
        kind = "auth"
    return Failed(kind, f"cannot connect to {where}: {text}", sent=False)


def connect(settings: ServerSettings, address: Address, timeout: float, connect_timeout: float) -> socket.socket:
    """Returns a connected socket on which the server takes commands.

    Args:
        settings: Where the server is, and how to connect to it.
        address: The address.
        timeout: Seconds that one request may take.
        connect_timeout: Seconds that connecting may take.

    Raises:
        Failed: The server cannot be reached, or refuses this user.
    """
    connection = _connection(settings, "", settings.connection_class, address, timeout, connect_timeout)
    try:
        connection.connect()
    except Exception as error:
        raise _failure(settings, address, error) from error
    taken = cast(socket.socket, connection._sock)
    connection._sock = None
    return taken


async def aconnect(settings: ServerSettings, address: Address, timeout: float, connect_timeout: float) -> Any:
    """Returns the stream writer of a connection of the running event loop.

    The server takes commands on it. The writer closes the connection when it is dropped.

    Args:
        settings: Where the server is, and how to connect to it.
        address: The address.
        timeout: Seconds that one request may take.
        connect_timeout: Seconds that connecting may take.

    Raises:
        Failed: The server cannot be reached, or refuses this user.
    """
    connection = _connection(settings, ".asyncio", settings.async_connection_class, address, timeout, connect_timeout)
    try:
        await connection.connect()
    except Exception as error:
        raise _failure(settings, address, error) from error
    taken = connection._writer
    connection._reader = connection._writer = None
    return taken


# --- The first request to a server.

# The last command shows whether this user may kill connections. It kills none: no server counts so
# far.
GREETING: Final = b"".join(
    (
        encode(b"CLIENT", b"ID"),
        encode(b"INFO", b"server"),
        encode(b"INFO", b"replication"),
        encode(b"TIME"),
        encode(b"CLIENT", b"KILL", b"ID", 2**53 - 1),
    )
)
GREETING_REPLIES: Final = 5


@final
@dataclass(frozen=True)
class Greeting:
    """Identity, role and time of a server, as it reported them on a connection."""

    connection_id: int | None
    """For CLIENT KILL; None if this user may not read it."""
    run_id: str
    replication_id: str
    version: tuple[int, ...]
    is_valkey: bool
    role: str
    server_ms: int
    """The server's time in milliseconds, read between the times below; 0 if this user may not read
    it.
    """
    asked_at: int
    answered_at: int
    can_kill: bool
    """Whether this user may close other connections, by CLIENT KILL."""

    @property
    def identity(self) -> bytes:
        """Identifies the data: it changes when another process serves, or a replica was promoted.
        """
        return f"{self.run_id}/{self.replication_id}".encode()


def greeting_of(replies: list[Any], asked_at: int, answered_at: int) -> Greeting:
    """Returns the greeting in the replies to GREETING.

    Args:
        replies: The replies.
        asked_at: When the request was sent.
        answered_at: When the replies arrived.

    Raises:
        Failed: The server does not serve commands yet, or not to this user.
    """
    for reply in replies:
        if isinstance(reply, ServerError):
            if reply.code == "LOADING":
                raise Failed("loading", str(reply), sent=False)
            if reply.code in ("NOAUTH", "WRONGPASS"):
                raise Failed("auth", str(reply), sent=False)
    number, server, replication, now, killed = replies
    about = {**_fields(server), **_fields(replication)}
    text = about.get("valkey_version") or about.get("redis_version", "")
    version = tuple(int(part) for part in text.split(".") if part.isdigit())
    milliseconds = 0
    if isinstance(now, list) and len(cast("list[bytes]", now)) == 2:
        seconds, microseconds = cast("list[bytes]", now)
        milliseconds = int(seconds) * 1000 + int(microseconds) // 1000
    role = about.get("role", "master")
    if role not in ("master", "primary"):
        raise Failed("refused", "server is a replica: the second tier reads and writes at the master", sent=False)
    return Greeting(
        connection_id=number if isinstance(number, int) else None,
        run_id=about.get("run_id", ""),
        replication_id=about.get("master_replid", ""),
        version=version,
        is_valkey="valkey_version" in about,
        role=role,
        server_ms=milliseconds,
        asked_at=asked_at,
        answered_at=answered_at,
        can_kill=isinstance(number, int) and isinstance(killed, int),
    )


def _fields(info: Any) -> dict[str, str]:
    if not isinstance(info, bytes):
        return {}
    pairs = (line.split(":", 1) for line in info.decode("utf-8", "replace").split("\r\n") if ":" in line)
    return {name: value for name, value in pairs}


# --- Topology.


def slots_of(reply: Any, asked: Address) -> dict[Address, list[tuple[int, int]]]:
    """Returns each master's ranges of slots from a reply to CLUSTER SLOTS.

    Args:
        reply: The reply.
        asked: The address of the server that replied.

    Raises:
        Failed: It is an error, or no such reply.
    """
    if isinstance(reply, ServerError):
        raise Failed("protocol", f"CLUSTER SLOTS: {reply}", sent=False)
    found: dict[Address, list[tuple[int, int]]] = {}
    try:
        for first, last, master, *_ in reply:
            host = master[0].decode() if master[0] else asked[0]
            found.setdefault((host or asked[0], int(master[1])), []).append((int(first), int(last)))
    except (TypeError, ValueError, IndexError, AttributeError):
        raise Failed("protocol", "CLUSTER SLOTS: unexpected reply", sent=False) from None
    return found


def slot_of(key: bytes) -> int:
    """Returns the cluster slot of a key.

    Args:
        key: The key.
    """
    opening = key.find(b"{")
    if opening >= 0:
        closing = key.find(b"}", opening + 1)
        if closing > opening + 1:
            key = key[opening + 1 : closing]
    return binascii.crc_hqx(key, 0) % 16384
