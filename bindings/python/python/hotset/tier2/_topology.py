"""The servers of a second tier as one process knows them: addresses, slots, discovery."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final, cast, final

from hotset.tier2._async import AsyncNode
from hotset.tier2._client import Address, ServerSettings, connect, settings_of, slot_of, slots_of
from hotset.tier2._clock import now
from hotset.tier2._commands import Abilities
from hotset.tier2._errors import Failed
from hotset.tier2._memcached import MemcachedSettings
from hotset.tier2._resp import ServerError, encode
from hotset.tier2._sync import Connection, Node

SLOTS: Final = 16384
"""The number of slots of a cluster."""
# Ranges of a cluster's slots, each with a generation of its own.
_GROUPS: Final = 16
_DISCOVERY_INTERVAL: Final = 1_000_000_000
_UNRESOLVED: Final[Address] = ("?", 0)
"""Stands for a server whose address is not known yet."""


@final
class Options:
    """The settings of a second tier, validated."""

    __slots__ = ("bus", "connect_timeout", "max_loads", "memcached", "on_event", "prefix", "raises_when_down", "require", "server", "timeout", "verify")

    def __init__(
        self,
        server: Any,
        prefix: str,
        timeout: float,
        connect_timeout: float,
        bus: bool,
        max_loads: int,
        require: frozenset[str],
        on_event: Callable[[str, dict[str, Any]], object] | None,
        raises_when_down: bool,
        verify: float,
        memcached: MemcachedSettings | None = None,
    ) -> None:
        self.server = server
        self.prefix = prefix
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.bus = bus
        self.max_loads = max_loads
        self.require = require
        self.on_event = on_event
        self.raises_when_down = raises_when_down
        self.verify = verify
        self.memcached = memcached
        """The servers, if they are memcached."""


@final
class Topology:
    """The servers of a second tier, by number. For any thread.

    Args:
        options: The settings of the second tier.
        core: The core of this process's session.
        is_down: Returns whether the server of a number was reported as down.
        on_failure: Called with the reason why no server could be found.
    """

    def __init__(self, options: Options, core: Any, is_down: Callable[[int], bool], on_failure: Callable[[Failed], object]) -> None:
        self._options: Final = options
        self._core: Final = core
        self._is_down: Final = is_down
        self._on_failure: Final = on_failure
        self._lock = threading.RLock()
        self._settings: ServerSettings | None = None
        self._numbers: dict[Address, int] = {}
        self.nodes: Final[list[Node]] = []
        """The servers, by number."""
        self.abilities: Final[list[Abilities]] = []
        """What each of them allows."""
        # A cluster's masters, by slot; None until it was asked.
        self._slots: list[int] | None = None
        self._next_discovery = 0
        self._following = threading.Lock()
        self._node_listeners: list[Callable[[int], object]] = []
        self._announced: set[int] = set()

    @property
    def settings(self) -> ServerSettings:
        """The server's settings. Calls the user's factory the first time.

        Raises:
            Failed: The factory raises.
        """
        settings = self._settings
        if settings is None:
            server = self._options.server
            if callable(server) and not isinstance(server, type) and not hasattr(server, "execute_command"):
                timeouts = {"socket_timeout": self._options.timeout, "socket_connect_timeout": self._options.connect_timeout}
                try:
                    server = server(**timeouts)
                except Exception as error:
                    raise Failed("refused", f"the client's factory raised: {error}", sent=False) from error
            settings = self._settings = settings_of(server)
        return settings

    @property
    def known_settings(self) -> ServerSettings | None:
        """The server's settings; None before they were first needed."""
        return self._settings

    def get_settings(self) -> ServerSettings:
        """Returns `settings`, as a function for `Node`."""
        return self.settings

    @property
    def numbers(self) -> range:
        """The numbers of the servers that are known."""
        return range(len(self.nodes))

    def on_new_node(self, listener: Callable[[int], object]) -> None:
        """Has `listener` called with the number of each server, known ones first.

        Args:
            listener: The function.
        """
        with self._lock:
            self._node_listeners.append(listener)
            known = sorted(self._announced)
        for number in known:
            listener(number)

    def number_of(self, address: Address) -> int:
        """Returns the number of the server at this address, a new one if it is not known.

        Args:
            address: The address.
        """
        number, is_new = self._add(address)
        if is_new:
            self._announce(number)
        return number

    def _add(self, address: Address) -> tuple[int, bool]:
        """Returns the number of the server at this address, and whether it is new.

        A new one must be announced, once its slots are known.
        """
        number = self._numbers.get(address)
        if number is not None:
            return number, False
        with self._lock:
            number = self._numbers.get(address)
            if number is not None:
                return number, False
            number = len(self.nodes)
            self.nodes.append(Node(self.get_settings, address, self.locate_now, self._options.timeout, self._options.connect_timeout))
            self.abilities.append(Abilities(()))
            self._numbers[address] = number
            return number, True

    def _announce(self, number: int) -> None:
        with self._lock:
            self._announced.add(number)
            listeners = list(self._node_listeners)
        for listener in listeners:
            listener(number)

    def locate(self, number: int) -> Address:
        """Returns the current address of a server.

        Args:
            number: The number of the server.

        Raises:
            Failed: No sentinel reports it.
        """
        return self.locate_now(self.nodes[number].address)

    def node_of(self, key: bytes) -> int:
        """Returns the number of the server that has a key.

        Args:
            key: The key.
        """
        if self._slots is None and self.needs_discovery:
            self.discover()
        slots = self._slots
        return 0 if slots is None else slots[slot_of(key)]

    def discover(self) -> None:
        """Finds out which servers there are.

        If none answers, the known ones stay; if none is known, one that does not answer stands for
        them.
        """
        self._next_discovery = now() + _DISCOVERY_INTERVAL
        try:
            settings = self.settings
            if settings.topology == "cluster":
                self._discover_cluster(settings)
            elif settings.topology == "single":
                self.number_of(settings.addresses[0])
            else:
                self.number_of((settings.service, 0))
        except Failed as failed:
            self._on_failure(failed)
            if not self.nodes:
                self.number_of(_UNRESOLVED)

    @property
    def needs_discovery(self) -> bool:
        """Whether `discover` must run, which may be slow."""
        if not self.nodes:
            return True
        settings = self._settings
        return self._slots is None and settings is not None and settings.topology == "cluster" and now() >= self._next_discovery

    @property
    def discovers_fast(self) -> bool:
        """Whether `discover` queries no server and no factory."""
        server = self._options.server
        return isinstance(server, str) or (self._settings is not None and self._settings.topology != "cluster")

    def locate_now(self, address: Address) -> Address:
        """Returns the current address of a server: a master of Sentinel may have moved.

        Args:
            address: The address by which the server is known.

        Raises:
            Failed: No sentinel reports it.
        """
        settings = self.settings
        if settings.topology == "sentinel":
            return self._ask_sentinels(settings)
        return settings.addresses[0] if address == _UNRESOLVED else address

    def _ask_sentinels(self, settings: ServerSettings) -> Address:
        failed = Failed("unresolved", f"no sentinel knows the master {settings.service!r}", sent=False)
        for sentinel in settings.sentinels:
            address = sentinel.addresses[0]
            try:
                reply = self._ask_once(sentinel, address, encode(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", settings.service.encode()))
            except Failed as error:
                failed = error
                continue
            if isinstance(reply, list):
                host, port = cast("list[bytes]", reply)
                return host.decode(), int(port)
        raise failed

    def _ask_once(self, settings: ServerSettings, address: Address, packed: bytes) -> Any:
        """Sends a request on a connection of its own."""
        connected = connect(settings, address, self._options.timeout, self._options.connect_timeout)
        connection = Connection(connected, address, self._options.timeout)
        try:
            return connection.exchange(packed, 1)[0]
        finally:
            connection.close()

    def _discover_cluster(self, settings: ServerSettings) -> None:
        failed = Failed("unresolved", "no node of the cluster is known", sent=False)
        known = [node.address for number, node in enumerate(self.nodes) if not self._is_down(number)]
        for address in dict.fromkeys([*known, *settings.addresses]):
            try:
                ranges = slots_of(self._ask_once(settings, address, encode(b"CLUSTER", b"SLOTS")), address)
            except Failed as error:
                failed = error
                continue
            if not ranges:
                continue
            slots = [0] * SLOTS if self._slots is None else list(self._slots)
            new: list[int] = []
            for master, parts in ranges.items():
                number, is_new = self._add(master)
                if is_new:
                    new.append(number)
                    if self._slots is not None:
                        self._core.joined(number, now())
                for first, last in parts:
                    slots[first : last + 1] = [number] * (last + 1 - first)
            self._slots = slots
            for number in new:
                self._announce(number)
            serving = {self._numbers[master] for master in ranges}
            for number in self.numbers:
                self._core.set_serving(number, number in serving, now())
            return
        raise failed

    def follow_topology(self) -> None:
        """Compares a cluster's slots with the known ones, at most once a second.

        Called by the threads.
        """
        if self._slots is None or now() < self._next_discovery or not self._following.acquire(blocking=False):
            return
        try:
            self.discover()
        finally:
            self._following.release()

    def moved(self, error: ServerError, asked: int) -> int:
        """Records an error MOVED or ASK.

        Args:
            error: The error reply.
            asked: The number of the server that replied so.

        Returns:
            The number of the server that it names.
        """
        code, slot, where = (str(error).split(" ") + ["", ""])[:3]
        host, _, port = where.rpartition(":")
        if not port.isdigit():
            return asked
        number, is_new = self._add((host or self.nodes[asked].address[0], int(port)))
        if is_new:
            self._core.joined(number, now())
        if code == "MOVED" and slot.isdigit() and self._slots is not None:
            self._slots[int(slot) % SLOTS] = number
            self._core.set_serving(number, True, now())
        if is_new:
            self._announce(number)
        return number

    def slots_of_node(self, number: int) -> int | None:
        """Returns a slot that the server has; None without a cluster, or if it has none.

        Args:
            number: The number of the server.
        """
        slots = self._slots
        if slots is None:
            return None
        try:
            return slots.index(number)
        except ValueError:
            return None

    @property
    def is_cluster(self) -> bool:
        """Whether the servers are those of a cluster."""
        return self._slots is not None

    def make_async_node(self, number: int) -> AsyncNode:
        """Returns a server for the tasks of an event loop.

        Args:
            number: The number of the server.
        """
        options = self._options
        return AsyncNode(self.get_settings, self.address_of(number), self.locate_now, options.timeout, options.connect_timeout)

    @property
    def reads_many_in_one(self) -> bool:
        """Whether one command may read many keys."""
        return not self.is_cluster

    def generation_tags(self) -> list[bytes]:
        """Returns what distinguishes the keys of a cache's generations: one per range of slots."""
        return [tag_of(slot) for slot in range(0, SLOTS, SLOTS // _GROUPS)] if self.is_cluster else [b""]

    def generation_nodes(self, keys: list[bytes]) -> list[int]:
        """Returns the numbers of the servers that have a cache's generations.

        Args:
            keys: The keys of the generations.
        """
        return [self.node_of(key) for key in keys]

    def address_of(self, number: int) -> Address:
        """Returns the address of a server.

        Args:
            number: The number of the server.
        """
        return self.nodes[number].address


def tag_of(slot: int) -> bytes:
    """Returns a part in braces by which a key belongs to this slot.

    Args:
        slot: The slot.
    """
    return _tags()[slot]


@cache
def _tags() -> dict[int, bytes]:
    tags: dict[int, bytes] = {}
    number = 0
    while len(tags) < SLOTS:
        text = b"%x" % number
        tags.setdefault(slot_of(text), b"{" + text + b"}")
        number += 1
    return tags
