"""The memcached servers of a second tier: a fixed list, over which keys are hashed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

from hotset.tier2._async import AsyncNode
from hotset.tier2._client import Address
from hotset.tier2._commands import Abilities
from hotset.tier2._keys import quote_name
from hotset.tier2._memcached import MemcachedNode, MemcachedSettings
from hotset.tier2._memcached_async import MemcachedAsyncNode
from hotset.tier2._resp import ServerError

if TYPE_CHECKING:
    from hotset.tier2._topology import Options


@final
class MemcachedTopology:
    """The servers, by number. A key stays with its server while that is down. For any thread.

    Args:
        options: The settings of the second tier.
        servers: The servers.
        native: The core's part of the protocol, which hashes.
    """

    def __init__(self, options: "Options", servers: MemcachedSettings, native: Any) -> None:
        self._options: Final = options
        self._servers: Final = servers
        self.nodes: Final[list[MemcachedNode]] = [
            MemcachedNode(servers, address, options.timeout, options.connect_timeout) for address in servers.servers
        ]
        """The servers, by number."""
        self.abilities: Final[list[Abilities]] = [Abilities(()) for _ in servers.servers]
        """What each of them allows."""
        self._by_name: Final = {name: number for number, name in enumerate(servers.names)}
        # Without a Python frame of its own: each read calls it.
        self.node_of: Final[Callable[[bytes], int]] = native.node_of if servers.node_of is None else self._node_by_hasher
        """Returns the number of the server that has a key."""

    @property
    def settings(self) -> MemcachedSettings:
        """The servers."""
        return self._servers

    @property
    def known_settings(self) -> MemcachedSettings:
        """The servers."""
        return self._servers

    @property
    def numbers(self) -> range:
        """The numbers of the servers."""
        return range(len(self.nodes))

    def on_new_node(self, listener: Callable[[int], object]) -> None:
        """Has `listener` called with the number of each server.

        Args:
            listener: The function.
        """
        for number in self.numbers:
            listener(number)

    def _node_by_hasher(self, key: bytes) -> int:
        hasher = self._servers.node_of
        assert hasher is not None
        return self._by_name[str(hasher(key.decode("ascii")))]

    def discover(self) -> None:
        """Does nothing: the servers are known."""

    needs_discovery: Final = False
    discovers_fast: Final = True
    is_cluster: Final = False
    reads_many_in_one: Final = False

    def follow_topology(self) -> None:
        """Does nothing: the servers are known."""

    def moved(self, error: ServerError, asked: int) -> int:
        """Returns the same server: no key moves.

        Args:
            error: The error reply.
            asked: The number of the server that replied so.
        """
        return asked

    def slots_of_node(self, number: int) -> int | None:
        """Returns None: there are no slots.

        Args:
            number: The number of the server.
        """
        return None

    def make_async_node(self, number: int) -> AsyncNode:
        """Returns a server for the tasks of an event loop.

        Args:
            number: The number of the server.
        """
        return MemcachedAsyncNode(self._servers, self.address_of(number), self._options.timeout, self._options.connect_timeout)

    def generation_tags(self) -> list[bytes]:
        """Returns what distinguishes the keys of a cache's generations: the server's name."""
        return [b"{" + quote_name(name) + b"}" for name in self._servers.names]

    def generation_nodes(self, keys: list[bytes]) -> list[int]:
        """Returns the numbers of the servers that have a cache's generations: each has one.

        Args:
            keys: The keys of the generations.
        """
        return list(range(len(keys)))

    def locate(self, number: int) -> Address:
        """Returns the address of a server.

        Args:
            number: The number of the server.
        """
        return self.address_of(number)

    def address_of(self, number: int) -> Address:
        """Returns the address of a server.

        Args:
            number: The number of the server.
        """
        return self._servers.servers[number]
