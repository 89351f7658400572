"""Connections to memcached servers for asyncio: one for each server and event loop."""

import asyncio
from collections.abc import Awaitable
from typing import Any, final

from hotset.tier2._async import AsyncConnection, AsyncNode
from hotset.tier2._client import Address
from hotset.tier2._clock import now
from hotset.tier2._errors import Failed
from hotset.tier2._memcached import (
    GREETING,
    GREETING_REPLIES,
    MemcachedParser,
    MemcachedSettings,
    failure_of,
    greeting_of,
    name_of,
    value_of,
)


@final
class MemcachedAsyncConnection(AsyncConnection):
    """A connection to one memcached server, for all tasks of one event loop."""

    @staticmethod
    def _make_parser() -> Any:
        return MemcachedParser()

    def get(self, packed: bytes) -> Awaitable[Any]:
        """Reads one key.

        Args:
            packed: The encoded command.

        Returns:
            An awaitable of its value, None for no item.
        """
        return self._get(packed)

    async def _get(self, packed: bytes) -> Any:
        return value_of(await self._send(packed, 0, self._timeout))

    def _receive_quickly(self, data: bytes) -> bool:
        return False

    async def greet(self) -> None:
        """Requests identity, version and time of the server.

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


@final
class MemcachedAsyncNode(AsyncNode):
    """One memcached server, as the tasks of an event loop use it."""

    def __init__(self, settings: MemcachedSettings, address: Address, timeout: float, connect_timeout: float) -> None:
        super().__init__(None, address, None, timeout, connect_timeout)
        self._servers = settings

    async def _connect(self) -> AsyncConnection:
        address, tls = self.address, self._servers.tls
        try:
            async with asyncio.timeout(self._connect_timeout):
                if address[1]:
                    _, writer = await asyncio.open_connection(address[0], address[1], ssl=tls)
                else:
                    name = "" if tls is not None else None
                    _, writer = await asyncio.open_unix_connection(address[0], ssl=tls, server_hostname=name)
        except TimeoutError as error:
            raise Failed("timeout", f"cannot connect to {name_of(address)}: no answer in time", sent=False) from error
        except OSError as error:
            raise failure_of(address, error) from error
        return MemcachedAsyncConnection(asyncio.get_running_loop(), writer, address, self._timeout)
