"""Connections for threads: one request at a time on each, and a stack of idle ones per node."""

import _socket
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from hotset.tier2._client import GREETING, GREETING_REPLIES, Address, Locate, ServerSettings, connect, greeting_of
from hotset.tier2._clock import now
from hotset.tier2._errors import Failed
from hotset.tier2._resp import INCOMPLETE, Parser, ProtocolError, bulk_strings, quick_reply

_CHUNK: Final = 1 << 16
# Seconds after which an idle connection is checked before use: the server may have closed it.
_FRESH: Final = 1.0
# The greatest number of idle connections of a node.
_IDLE: Final = 64


def _timeval(seconds: float) -> bytes:
    microseconds = max(1, int(seconds * 1e6))
    return struct.pack("@ll", microseconds // 1_000_000, microseconds % 1_000_000)


def _quick_value(data: bytes) -> Any:
    """Returns the value of one whole bulk string, and nothing else; else `INCOMPLETE`."""
    if data[:1] == b"$":
        end = data.find(b"\r\n", 1, 16)
        if end > 0:
            length = int(data[1:end])
            if length >= 0:
                if len(data) == end + length + 4:
                    return data[end + 2 : -2]
            elif len(data) == end + 2:
                return None
    return INCOMPLETE


def _quick_reply(data: bytes) -> Any:
    """Returns the reply in these bytes if it is whole and simple; else `INCOMPLETE`."""
    if (quick := quick_reply(data)) is not INCOMPLETE:
        return quick
    if len(data) < _CHUNK and (bulks := bulk_strings(data)) is not None:
        return bulks
    return INCOMPLETE


def _identity(reply: Any) -> Any:
    return reply


class Connection:
    """A connection to one server, for one thread at a time.

    Any exception between the first byte sent and the last byte received closes it: the rest of the
    reply would be taken for that of the next request.
    """

    __slots__ = ("_by_option", "_parser", "_socket", "_timeout", "address", "epoch", "greeting", "is_closed", "used_at")

    greeting: Any
    """What the server reported on this connection: a `Greeting`, or that of another protocol."""

    # What differs between protocols: the parser, the fast paths of `get` and `exchange`, and the
    # value in a reply to a read.
    _make_parser: Callable[[], Any] = staticmethod(Parser)
    _quick_value: Callable[[bytes], Any] = staticmethod(_quick_value)
    _quick_reply: Callable[[bytes], Any] = staticmethod(_quick_reply)
    _value_of: Callable[[Any], Any] = staticmethod(_identity)

    def __init__(self, connected: socket.socket, address: Address, timeout: float) -> None:
        self._socket = connected
        self._parser = self._make_parser()
        self._timeout = timeout
        self.address = address
        self.epoch = 0
        """The epoch of the server when it was connected; 0: not known yet."""
        self.is_closed = False
        self.used_at = monotonic()
        # With Python's own timeout, a poll precedes each call; the kernel's is free. (Sockets of
        # gevent and of TLS have only Python's.)
        self._by_option = type(connected) is socket.socket and _socket.socket in socket.socket.__mro__
        if self._by_option:
            connected.setblocking(True)
            self._set_timeout(timeout)

    def fileno(self) -> int:
        """Returns the file descriptor, for `poll`."""
        return self._socket.fileno()

    def _set_timeout(self, seconds: float) -> None:
        value = _timeval(seconds)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def get(self, packed: bytes) -> Any:
        """Returns the reply to one command.

        The fast path of `exchange` for replies that arrive in one piece.

        Args:
            packed: The encoded commands.

        Raises:
            Failed: There was no whole reply within the timeout. The connection is closed.
        """
        if not self._by_option:
            return self._value_of(self.exchange(packed, 1)[0])
        connected = self._socket
        try:
            if connected.send(packed) == len(packed):
                data = connected.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("server closed the connection")
                value = self._quick_value(data)
                if value is not INCOMPLETE:
                    return value
                return self._value_of(self._read(data, 1, monotonic() + self._timeout)[0])
        except BaseException as error:
            failed = self._broken(error, sent=True)
            if failed is None:
                raise
            raise failed from error
        # If the socket's buffer takes less than a GET, the server does not read.
        self.close()
        raise Failed("timeout", f"{self._where}: no whole command sent in time", sent=True)

    def exchange(self, packed: bytes, count: int, timeout: float | None = None) -> list[Any]:
        """Sends commands and returns their `count` replies.

        Args:
            packed: The encoded commands.
            count: The number of replies.
            timeout: Seconds; None for the timeout of the connection.

        Raises:
            Failed: There was no whole reply within the timeout. The connection is closed.
        """
        deadline = monotonic() + (self._timeout if timeout is None else timeout)
        sent = False
        # The socket's own timeout is right for the first call in each direction.
        is_limited = timeout is not None or not self._by_option
        try:
            if is_limited:
                self._limit(deadline)
            number = self._socket.send(packed)
            sent = True
            if number < len(packed):
                rest = memoryview(packed)[number:]
                is_limited = True
                while rest:
                    self._limit(deadline)
                    rest = rest[self._socket.send(rest) :]
            if is_limited:
                self._limit(deadline)
            data = self._socket.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("server closed the connection")
            if count == 1 and (quick := self._quick_reply(data)) is not INCOMPLETE:
                replies = [quick]
            else:
                replies = self._read(data, count, deadline)
            if is_limited and self._by_option:
                self._set_timeout(self._timeout)
            return replies
        except BaseException as error:
            failed = self._broken(error, sent=sent)
            if failed is None:
                raise
            raise failed from error

    def greet(self) -> None:
        """Requests identity, version and time of the server.

        Raises:
            Failed: It does not answer. The connection is closed.
        """
        asked_at = now()
        try:
            self.greeting = self._request_greeting(asked_at)
        except Failed as failed:
            self.close()
            raise Failed(failed.kind, str(failed), sent=False) from failed
        except BaseException:
            self.close()
            raise

    def _request_greeting(self, asked_at: int) -> Any:
        replies = self.exchange(GREETING, GREETING_REPLIES)
        return greeting_of(replies, asked_at, now())

    def _limit(self, deadline: float) -> None:
        rest = deadline - monotonic()
        if rest <= 0:
            raise TimeoutError("no whole reply in time")
        if self._by_option:
            self._set_timeout(rest)
        else:
            self._socket.settimeout(rest)

    def _read(self, data: bytes, count: int, deadline: float) -> list[Any]:
        parser = self._parser
        replies: list[Any] = []
        is_limited = False
        while True:
            parser.feed(data)
            while len(replies) < count:
                reply = parser.next()
                if reply is INCOMPLETE:
                    break
                replies.append(reply)
            if len(replies) == count:
                if not parser.is_empty:
                    raise ProtocolError("server sent more replies than there were commands")
                if is_limited and self._by_option:
                    self._set_timeout(self._timeout)
                return replies
            self._limit(deadline)
            is_limited = True
            data = self._socket.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("server closed the connection")

    def _broken(self, error: BaseException, *, sent: bool) -> Failed | None:
        """Closes the connection; returns the failure, None if the connection did not cause it."""
        self.close()
        if isinstance(error, BlockingIOError | TimeoutError):
            return Failed("timeout", f"{self._where}: no whole reply in time", sent=sent)
        if isinstance(error, OSError):
            return Failed("reset", f"{self._where}: {error}", sent=sent)
        if isinstance(error, ProtocolError | ValueError):
            return Failed("protocol", f"{self._where}: {error}", sent=sent)
        return None

    @property
    def _where(self) -> str:
        return f"{self.address[0]}:{self.address[1]}" if self.address[1] else self.address[0]

    def is_usable(self) -> bool:
        """Returns whether the connection is open and nothing has arrived since the last reply."""
        if self.is_closed:
            return False
        if monotonic() - self.used_at < _FRESH:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Closes the connection."""
        if not self.is_closed:
            self.is_closed = True
            self._socket.close()


class Node:
    """One server: its idle connections. For any thread."""

    def __init__(self, settings: Callable[[], ServerSettings] | None, address: Address, locate: Locate | None, timeout: float, connect_timeout: float) -> None:
        self._settings = settings
        self._locate = locate
        self.address: Final = address
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._idle: deque[Connection] = deque()

    def acquire(self) -> Connection:
        """Returns a connection that the caller releases or closes.

        Raises:
            Failed: The server cannot be reached.
        """
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self.connect()
            # (The first half is the second one's fast path, without a call.)
            if (not connection.is_closed and monotonic() - connection.used_at < _FRESH) or connection.is_usable():
                return connection
            connection.close()

    def connect(self) -> Connection:
        """Returns a new connection, on which the server has reported its identity.

        Raises:
            Failed: The server cannot be reached.
        """
        assert self._locate is not None and self._settings is not None
        address = self._locate(self.address)
        connected = connect(self._settings(), address, self._timeout, self._connect_timeout)
        connection = Connection(connected, address, self._timeout)
        connection.greet()
        return connection

    def release(self, connection: Connection) -> None:
        """Takes back a connection whose last reply was whole.

        Args:
            connection: The connection.
        """
        if connection.is_closed:
            return
        if len(self._idle) >= _IDLE:
            connection.close()
            return
        connection.used_at = monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        """Closes the idle connections."""
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return
