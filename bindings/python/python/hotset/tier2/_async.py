"""Connections for asyncio: one for each node and event loop, shared by all tasks.

Requests are written as they are issued, and replies belong to them in this order. So a task that is
cancelled leaves its reply to be read and dropped, and the connection stays good. A reply that does
not arrive in time ends the connection for all requests queued after it.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, final

from hotset.tier2._client import GREETING, GREETING_REPLIES, Address, Locate, ServerSettings, aconnect, greeting_of
from hotset.tier2._clock import now
from hotset.tier2._errors import Failed, Kind
from hotset.tier2._resp import INCOMPLETE, Parser, ProtocolError, bulk_strings

# Seconds that reading certificates may take, in addition to the network.
_CERTIFICATES: Final = 0.5

_Waiting = tuple["asyncio.Future[Any]", int, float]


class AsyncConnection(asyncio.Protocol):
    """A connection to one server, for all tasks of one event loop."""

    greeting: Any
    """What the server reported on this connection: a `Greeting`, or that of another protocol."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter, address: Address, timeout: float) -> None:
        self._loop = loop
        self._writer = writer
        transport: Any = writer.transport
        self._transport = transport
        self._address = address
        self._timeout = timeout
        self._parser: Any = self._make_parser()
        # In the order of the requests: a future, its number of replies (0: one alone), and the
        # deadline.
        self._waiting: deque[_Waiting] = deque()
        self._collected: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None
        self.epoch = 0
        """The epoch of the server when it was connected; 0: not known yet."""
        self.is_closed = False
        transport.set_protocol(self)

    @staticmethod
    def _make_parser() -> Any:
        return Parser()

    def get(self, packed: bytes) -> Awaitable[Any]:
        """Sends one command.

        Args:
            packed: The encoded commands.

        Returns:
            A future of its reply, which fails with `Failed`.
        """
        return self._send(packed, 0, self._timeout)

    def exchange(self, packed: bytes, count: int, timeout: float | None = None) -> "asyncio.Future[list[Any]]":
        """Sends commands.

        Args:
            packed: The encoded commands.
            count: The number of replies.
            timeout: Seconds; None for the timeout of the connection.

        Returns:
            A future of their replies, which fails with `Failed`.
        """
        return self._send(packed, count, self._timeout if timeout is None else timeout)

    async def greet(self) -> None:
        """Requests identity, role and time of the server.

        Raises:
            Failed: It does not answer. The connection is closed.
        """
        asked_at = now()
        try:
            replies = await self.exchange(GREETING, GREETING_REPLIES)
            self.greeting = greeting_of(replies, asked_at, now())
        except Failed as failed:
            self.close()
            raise Failed(failed.kind, str(failed), sent=False) from failed
        except BaseException:
            self.close()
            raise

    def _send(self, packed: bytes, count: int, timeout: float) -> "asyncio.Future[Any]":
        loop = self._loop
        future: asyncio.Future[Any] = loop.create_future()
        if self.is_closed:
            future.set_exception(Failed("closed", f"{self._where}: connection is closed", sent=False))
            return future
        deadline = loop.time() + timeout
        self._waiting.append((future, count, deadline))
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._check_deadline)
        self._transport.write(packed)
        return future

    def _check_deadline(self) -> None:
        """Ends the connection if the deadline of a request has passed."""
        self._timer = None
        if not self._waiting:
            return
        earliest = min(deadline for _, _, deadline in self._waiting)
        if self._loop.time() >= earliest:
            self._fail("timeout", "no whole reply in time")
        else:
            self._timer = self._loop.call_at(earliest, self._check_deadline)

    def _receive_quickly(self, data: bytes) -> bool:
        """Handles most replies: one whole bulk string for a single command, and nothing else.

        Returns whether it did.
        """
        waiting = self._waiting
        if len(waiting) == 1 and data[:1] == b"$" and not waiting[0][1] and self._parser.is_empty:
            end = data.find(b"\r\n", 1, 16)
            if end > 0 and data[1:end].isdigit() and len(data) == end + int(data[1:end]) + 4:
                future = waiting.popleft()[0]
                if not future.done():
                    future.set_result(data[end + 2 : -2])
                return True
        elif len(waiting) == 1 and not waiting[0][1] and self._parser.is_empty and (bulks := bulk_strings(data)) is not None:
            future = waiting.popleft()[0]
            if not future.done():
                future.set_result(bulks)
            return True
        return False

    def data_received(self, data: bytes) -> None:
        """Passes replies to their futures. Called by the transport."""
        waiting = self._waiting
        if self._receive_quickly(data):
            return
        parser = self._parser
        parser.feed(data)
        try:
            while waiting:
                reply = parser.next()
                if reply is INCOMPLETE:
                    return
                future, count, _ = waiting[0]
                if count:
                    self._collected.append(reply)
                    if len(self._collected) < count:
                        continue
                    reply, self._collected = self._collected, []
                waiting.popleft()
                if not future.done():
                    future.set_result(reply)
            if not parser.is_empty:
                raise ProtocolError("server sent more replies than there were commands")
        except ProtocolError as error:
            self._fail("protocol", str(error))

    def eof_received(self) -> bool:
        """Ends the connection. Called by the transport."""
        self._fail("reset", "server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the connection. Called by the transport."""
        self._fail("reset", str(exc or "connection is lost"))

    def pause_writing(self) -> None:
        """Called by the transport. (Deadlines bound the requests, so writing is not paused.)"""

    def resume_writing(self) -> None:
        """Called by the transport."""

    @property
    def _where(self) -> str:
        return f"{self._address[0]}:{self._address[1]}" if self._address[1] else self._address[0]

    def _fail(self, kind: Kind, text: str) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = list(self._waiting)
        self._waiting.clear()
        for future, _, _ in waiting:
            if not future.done():
                future.set_exception(Failed(kind, f"{self._where}: {text}", sent=True))
        self._transport.abort()

    def close(self) -> None:
        """Ends the connection; requests without a reply fail."""
        self._fail("closed", "connection is closed")

    def abandon_in_child(self) -> None:
        """Closes an inherited socket without the event loop, whose selector is also the parent's.
        """
        taken = getattr(self._transport, "_sock", None)
        if taken is not None:
            # Detached, so that no destructor later closes another file of this number.
            descriptor = taken.detach()
            if descriptor >= 0:
                os.close(descriptor)

    def close_soon(self) -> None:
        """Closes the connection by its event loop. For any thread."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.close)


class AsyncNode:
    """One server, as the tasks of an event loop use it."""

    def __init__(self, settings: Callable[[], ServerSettings] | None, address: Address, locate: Locate | None, timeout: float, connect_timeout: float) -> None:
        self._settings = settings
        self._locate = locate
        self.address: Final = address
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._connection: AsyncConnection | None = None
        self._connecting: asyncio.Task[AsyncConnection] | None = None

    @property
    def connection(self) -> AsyncConnection | None:
        """The connection, if there is one that works."""
        connection = self._connection
        return None if connection is None or connection.is_closed else connection

    async def acquire(self) -> AsyncConnection:
        """Returns the connection; if there is none, one task connects for all.

        Raises:
            Failed: The server cannot be reached.
        """
        connection = self.connection
        if connection is not None:
            return connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect_and_keep())
        # Shielded: cancelling one caller does not cancel the connection of the others.
        return await asyncio.shield(self._connecting)

    async def _connect_and_keep(self) -> AsyncConnection:
        connection = await self._connect()
        await connection.greet()
        self._connection = connection
        return connection

    async def _connect(self) -> AsyncConnection:
        """Returns a connection on which nothing was sent yet, or what logging in needs."""
        assert self._locate is not None and self._settings is not None
        loop = asyncio.get_running_loop()
        address = self.address
        if self._settings().topology != "single":
            # In a thread: it makes a blocking request on a connection of its own.
            address = await loop.run_in_executor(None, self._locate, address)
        connect_timeout = self._connect_timeout
        if self._settings().scheme == "tls":
            # The client also reads the certificates in this time.
            connect_timeout += _CERTIFICATES
        try:
            async with asyncio.timeout(connect_timeout + self._timeout):
                writer = await aconnect(self._settings(), address, self._timeout, connect_timeout)
        except TimeoutError as error:
            raise Failed("timeout", f"cannot connect to {address[0]}:{address[1]}: no answer in time", sent=False) from error
        return AsyncConnection(loop, writer, address, self._timeout)

    def retire(self) -> None:
        """Has the next request use a new connection. For any thread."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close_soon()

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_inherited: "list[AsyncNodes]" = []


async def _until_shutdown(nodes: "AsyncNodes") -> AsyncGenerator[None]:
    """Closes the connections when the event loop ends its asynchronous generators.

    asyncio.run does that before it closes the loop.
    """
    try:
        yield
    finally:
        nodes.close()


@final
class AsyncNodes:
    """The connections of an event loop to the servers."""

    def __init__(self) -> None:
        self._nodes: dict[Address, AsyncNode] = {}
        self._shutdown: AsyncGenerator[None] | None = None

    async def start(self) -> None:
        """Has the connections closed with the event loop."""
        self._shutdown = _until_shutdown(self)
        await anext(self._shutdown)

    def node(self, address: Address, make: Callable[[], AsyncNode]) -> AsyncNode:
        """Returns the server at this address.

        Args:
            address: The address.
            make: Makes it the first time.
        """
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = make()
        return node

    def abandon_in_child(self) -> None:
        """Closes what a child has inherited.

        The objects stay: if they were dropped, they would remove their sockets from the parent's
        selector.
        """
        _inherited.append(self)
        for node in list(self._nodes.values()):
            connection = node.connection
            if connection is not None:
                connection.abandon_in_child()

    def retire(self, address: Address) -> None:
        """Has the next request to this address use a new connection. For any thread.

        Args:
            address: The address.
        """
        node = self._nodes.get(address)
        if node is not None:
            node.retire()

    def close(self) -> None:
        """Closes all connections."""
        for node in self._nodes.values():
            node.close()
        self._nodes.clear()
