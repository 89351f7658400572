"""One process's part of a second tier: the core's state, topology, connections and threads.

A `Session` belongs to a process: a child creates its own, and only closes the one that it
inherited.
"""

import asyncio
import logging
import os
import secrets
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast, final

from hotset import _hotset
from hotset.tier2._async import AsyncConnection, AsyncNode, AsyncNodes
from hotset.tier2._client import Address, ServerSettings, connect, settings_of, slot_of, slots_of
from hotset.tier2._clock import now
from hotset.tier2._commands import Abilities, kind_of_failure
from hotset.tier2._errors import Failed
from hotset.tier2._keys import quote_name
from hotset.tier2._resp import ServerError, encode
from hotset.tier2._sync import Connection, Node
from hotset.tier2._waiters import Waiters

if TYPE_CHECKING:
    from hotset.tier2._bus import BusThread
    from hotset.tier2._space import Space
    from hotset.tier2._verify import Verifier

_log = logging.getLogger("hotset")

_Tier2: Any = getattr(_hotset, "Tier2", None)
SLOTS: Final = 16384
"""The number of slots of a cluster."""
_DISCOVERY_INTERVAL: Final = 1_000_000_000
_UNRESOLVED: Final[Address] = ("?", 0)
"""Stands for a server whose address is not known yet."""


@final
class Options:
    """The settings of a second tier, validated."""

    __slots__ = ("bus", "connect_timeout", "max_loads", "on_event", "prefix", "raises_when_down", "require", "server", "timeout", "verify")

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


@final
class Session:
    """One process's part of a second tier. For any thread."""

    def __init__(self, options: Options) -> None:
        self.options: Final = options
        self.pid: Final = os.getpid()
        self.core: Final = _Tier2(secrets.randbits(64), bus=options.bus)
        self.prefix: Final = quote_name(options.prefix)
        self.waiters: Final = Waiters()
        # By the first part of their keys.
        self._spaces: dict[bytes, tuple[weakref.ref[Space], ...]] = {}
        self.loads: Final = threading.BoundedSemaphore(options.max_loads)
        self._id = secrets.token_hex(6).encode()
        self._lock = threading.RLock()
        self._settings: ServerSettings | None = None
        self._numbers: dict[Address, int] = {}
        self._nodes: list[Node] = []
        self._abilities: list[Abilities] = []
        # A cluster's masters, by slot; None until it was asked.
        self._slots: list[int] | None = None
        self._next_discovery = 0
        self._following = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, AsyncNodes] = {}
        self._reported: dict[int, bool] = {}
        self._node_listeners: list[Callable[[int], object]] = []
        self._announced: set[int] = set()
        self._bus: dict[int, BusThread] = {}
        self._verifier: Verifier | None = None
        self._has_started = False
        self._without_bus: set[int] = set()
        self._refusing: set[int] = set()
        self._evicting: set[int] = set()
        self.is_closed = False
        self.failure: Failed | None = None
        """The last reason why the server could not be reached."""

    # --- Topology.

    @property
    def settings(self) -> ServerSettings:
        """The server's settings. Calls the user's factory the first time.

        Raises:
            Failed: The factory raises.
        """
        settings = self._settings
        if settings is None:
            server = self.options.server
            if callable(server) and not isinstance(server, type) and not hasattr(server, "execute_command"):
                timeouts = {"socket_timeout": self.options.timeout, "socket_connect_timeout": self.options.connect_timeout}
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

    def _get_settings(self) -> ServerSettings:
        return self.settings

    @property
    def numbers(self) -> range:
        """The numbers of the servers that are known."""
        return range(len(self._nodes))

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
            number = len(self._nodes)
            self._nodes.append(Node(self._get_settings, address, self._locate, self.options.timeout, self.options.connect_timeout))
            self._abilities.append(Abilities(()))
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
        return self._locate(self._nodes[number].address)

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
            self.failure = failed
            if not self._nodes:
                self.number_of(_UNRESOLVED)

    @property
    def needs_discovery(self) -> bool:
        """Whether `discover` must run, which may be slow."""
        if not self._nodes:
            return True
        settings = self._settings
        return self._slots is None and settings is not None and settings.topology == "cluster" and now() >= self._next_discovery

    @property
    def discovers_fast(self) -> bool:
        """Whether `discover` queries no server and no factory."""
        server = self.options.server
        return isinstance(server, str) or (self._settings is not None and self._settings.topology != "cluster")

    def _locate(self, address: Address) -> Address:
        """Returns the current address of a server: a master of Sentinel may have moved."""
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
        connected = connect(settings, address, self.options.timeout, self.options.connect_timeout)
        connection = Connection(connected, address, self.options.timeout)
        try:
            return connection.exchange(packed, 1)[0]
        finally:
            connection.close()

    def _discover_cluster(self, settings: ServerSettings) -> None:
        failed = Failed("unresolved", "no node of the cluster is known", sent=False)
        known = [node.address for number, node in enumerate(self._nodes) if self._reported.get(number) is not False]
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
                        self.core.joined(number, now())
                for first, last in parts:
                    slots[first : last + 1] = [number] * (last + 1 - first)
            self._slots = slots
            for number in new:
                self._announce(number)
            serving = {self._numbers[master] for master in ranges}
            for number in self.numbers:
                self.core.set_serving(number, number in serving, now())
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
        number, is_new = self._add((host or self._nodes[asked].address[0], int(port)))
        if is_new:
            self.core.joined(number, now())
        if code == "MOVED" and slot.isdigit() and self._slots is not None:
            self._slots[int(slot) % SLOTS] = number
            self.core.set_serving(number, True, now())
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

    def address_of(self, number: int) -> Address:
        """Returns the address of a server.

        Args:
            number: The number of the server.
        """
        return self._nodes[number].address

    # --- Connections.

    def canary_prefix(self, number: int) -> bytes:
        """Returns the first part of the names of this process's canaries on a server.

        Args:
            number: The number of the server.
        """
        tag = b""
        if self._slots is not None:
            tag = tag_of(self.slots_of_node(number) or 0)
        return b"!hotset:" + tag + self.prefix + b":" + self._id + b":"

    def _register_connection(self, number: int, connection: Connection | AsyncConnection) -> int:
        """Reports a new connection to the core; returns its epoch."""
        greeting = connection.greeting
        abilities = self._abilities[number]
        if greeting.version and greeting.version < (7,):
            abilities.acquires_in_one = False
        epoch: int = self.core.probed(
            number,
            greeting.identity,
            greeting.server_ms,
            greeting.asked_at,
            greeting.answered_at,
            greeting.can_kill,
            self.canary_prefix(number),
        )
        connection.epoch = epoch
        self.note_up(number)
        return epoch

    def take(self, number: int) -> Connection:
        """Returns a connection of the server's current epoch.

        The caller gives it back or closes it.

        Args:
            number: The number of the server.

        Raises:
            Failed: The server cannot be reached.
        """
        while True:
            node = self._nodes[number]
            try:
                connection = node.acquire()
            except Failed as failed:
                self._note_unreachable(number, failed)
                raise
            if connection.epoch == 0:
                self._register_connection(number, connection)
            if connection.epoch == self.core.epoch(number):
                return connection
            connection.close()

    def give_back(self, number: int, connection: Connection) -> None:
        """Takes back a connection whose last reply was whole.

        Args:
            number: The number of the server.
            connection: The connection.
        """
        self._nodes[number].release(connection)

    def abilities(self, number: int) -> Abilities:
        """Returns what the server allows.

        Args:
            number: The number of the server.
        """
        return self._abilities[number]

    async def _async_node(self, number: int) -> AsyncNode:
        """Returns a server as the tasks of the running event loop use it."""
        loop = asyncio.get_running_loop()
        nodes = self._loops.get(loop)
        if nodes is None:
            nodes = AsyncNodes()
            with self._lock:
                for other in [other for other in self._loops if other.is_closed()]:
                    del self._loops[other]
                self._loops[loop] = nodes
            await nodes.start()
        return nodes.node(self._get_settings, self._nodes[number].address, self._locate, self.options.timeout, self.options.connect_timeout)

    async def take_async(self, number: int) -> AsyncConnection:
        """Behaves like `take`, for the running event loop; the connection is shared."""
        while True:
            node = await self._async_node(number)
            connection = node.connection
            if connection is None:
                try:
                    connection = await node.acquire()
                except Failed as failed:
                    self._note_unreachable(number, failed)
                    raise
            if connection.epoch == 0:
                self._register_connection(number, connection)
            if connection.epoch == self.core.epoch(number):
                return connection
            connection.close()

    def _note_unreachable(self, number: int, failed: Failed) -> None:
        self.failure = failed
        self.note_down(number, failed)

    def probe(self, number: int) -> bool:
        """Connects to a server to learn its identity, and reports the outcome to the core.

        Args:
            number: The number of the server.

        Returns:
            Whether it answered.
        """
        node = self._nodes[number]
        # Idle connections may be of an older epoch, and a server may allow only a few connections.
        node.close()
        try:
            connection = node.connect()
        except Failed as failed:
            self._probe_failed(number, failed)
            return False
        self._register_connection(number, connection)
        node.release(connection)
        return True

    async def probe_async(self, number: int) -> bool:
        """Behaves like `probe`, for the running event loop, on its connection."""
        try:
            connection = await (await self._async_node(number)).acquire()
            # Repeated on an old connection, too: its server may have changed.
            await connection.greet()
        except Failed as failed:
            self._probe_failed(number, failed)
            return False
        self._register_connection(number, connection)
        return True

    def _probe_failed(self, number: int, failed: Failed) -> None:
        self._note_unreachable(number, failed)
        self.core.probe_failed(number, kind_of_failure(failed), now())

    def note_readonly(self, number: int) -> None:
        """Drops the idle connections to a server that refuses writes: it may be a replica now.

        Args:
            number: The number of the server.
        """
        self._nodes[number].close()
        for nodes in list(self._loops.values()):
            nodes.retire(self._nodes[number].address)

    def note_failed(self, number: int, failed: Failed) -> None:
        """Records a request without a whole reply, and closes idle connections of that server.

        They may be dead, too.

        Args:
            number: The number of the server.
            failed: The failure.
        """
        self.failure = failed
        if failed.kind != "timeout":
            self._nodes[number].close()

    # --- Threads, and the changes that they receive.

    def start(self) -> None:
        """Starts a thread for each server, unless they run."""
        if self._has_started or self.is_closed:
            return
        with self._lock:
            if self._has_started:
                return
            self._has_started = True
            if self.options.verify:
                from hotset.tier2._verify import Verifier

                self._verifier = Verifier(self, self.options.verify)
                self._verifier.start()
        self.on_new_node(self._start_bus)

    def _start_bus(self, number: int) -> None:
        from hotset.tier2._bus import BusThread

        with self._lock:
            if self.is_closed or number in self._bus:
                return
            bus = self._bus[number] = BusThread(self, number)
        bus.start()

    def wake_bus(self, number: int) -> None:
        """Has a server's thread check for actions.

        Args:
            number: The number of the server.
        """
        bus = self._bus.get(number)
        if bus is not None:
            bus.wake()

    def wake_bus_if_unconfirmed(self, number: int, is_confirmed: bool) -> None:
        """Has a server's thread check for actions after an operation that was not confirmed.

        Args:
            number: The number of the server.
            is_confirmed: Whether it was confirmed.
        """
        if not is_confirmed:
            self.wake_bus(number)

    def apply(self, key: bytes) -> None:
        """Applies the invalidation of a key to the first tiers, and wakes its waiters.

        Args:
            key: The key.
        """
        # Prefix, kind and name have no colons. `find` is cheaper than `split`, by four objects.
        end = key.find(b":", key.find(b":", key.find(b":") + 1) + 1) + 1
        references = self._spaces.get(key[:end])
        if references is not None:
            text = key[end:]
            for reference in references:
                space = reference()
                if space is not None:
                    space.changed(text)
        else:
            self._apply_generation(key)
        if self.waiters.are_any:
            self.waiters.wake(key)

    def _apply_generation(self, key: bytes) -> None:
        parts = key.split(b":", 3)
        if len(parts) >= 3 and parts[0] == self.prefix and parts[1][:1] == b"g":
            for each in self.all_spaces():
                if each.quoted_name == parts[2]:
                    each.first.clear()

    def add_space(self, stem: bytes, space: "Space") -> None:
        """Has a cache notified of changes of its keys.

        Args:
            stem: The first part of its keys.
            space: The cache.
        """
        with self._lock:
            # Replaced as a whole: it is read without the lock.
            known = [reference for reference in self._spaces.get(stem, ()) if reference() is not None]
            self._spaces[stem] = (*known, weakref.ref(space))

    def spaces_of(self, stem: bytes) -> "list[Space]":
        """Returns the caches of this process whose keys begin with `stem`.

        Args:
            stem: The first part of the keys.
        """
        return [space for reference in self._spaces.get(stem, ()) if (space := reference()) is not None]

    def all_spaces(self) -> "list[Space]":
        """Returns the caches of this process on this second tier."""
        return [space for stem in list(self._spaces) for space in self.spaces_of(stem)]

    def all_spaces_of_parent(self) -> "list[Space]":
        """Returns, in a child, the caches that it inherited."""
        return self.all_spaces()

    def clear(self) -> None:
        """Clears all first tiers."""
        for space in self.all_spaces():
            space.first.clear()
        self.waiters.wake_all()

    def invalidate_loads(self) -> None:
        """Invalidates all loads in flight of all first tiers."""
        for space in self.all_spaces():
            space.first.invalidate_loads()

    # --- Events and statistics.

    def event(self, name: str, **details: Any) -> None:
        """Calls the user's `on_event`.

        Args:
            name: The name of the event.
            **details: Its details.
        """
        if self.options.on_event is not None:
            try:
                self.options.on_event(name, details)
            except Exception:
                _log.warning("on_event raised", exc_info=True)

    def note_down(self, number: int, reason: Failed) -> None:
        """Notifies the user, once, that a server cannot be reached.

        Args:
            number: The number of the server.
            reason: The failure.
        """
        if self._reported.get(number) is not False:
            self._reported[number] = False
            _log.warning("second tier cannot be reached, values are loaded without it: %s", reason)
            self.event("down", node=number, reason=reason.kind, text=str(reason))

    def note_up(self, number: int) -> None:
        """Notifies the user that a server can be reached again.

        Args:
            number: The number of the server.
        """
        if self._reported.get(number) is False:
            _log.warning("second tier can be reached again: %s:%s", *self._nodes[number].address)
            self.event("up", node=number)
        self._reported[number] = True

    def note_no_bus(self, number: int, reason: Failed) -> None:
        """Notifies the user, once, that a server announces no changes.

        Args:
            number: The number of the server.
            reason: The failure.
        """
        if number not in self._without_bus:
            self._without_bus.add(number)
            _log.warning("second tier: local_ttl bounds how old values of this process may be: %s", reason)
            self.event("no bus", node=number, text=str(reason))

    def note_refused(self, number: int, error: ServerError) -> None:
        """Notifies the user, once, that a server refuses a command that the second tier needs.

        Args:
            number: The number of the server.
            error: The error reply.
        """
        if number not in self._refusing:
            self._refusing.add(number)
            _log.warning("second tier: the server refuses a command, `python -m hotset tier2 URL` reports the consequences: %s", error)
            self.event("refused", node=number, text=str(error))

    def note_eviction(self, number: int, policy: str) -> None:
        """Notifies the user, once, that a full server evicts leases before all else.

        Args:
            number: The number of the server.
            policy: The eviction policy of the server.
        """
        if number not in self._evicting:
            self._evicting.add(number)
            _log.warning(
                "second tier: the server's maxmemory-policy, %s, evicts leases first, so that several processes may load one key: "
                "allkeys-lru or allkeys-lfu suit a cache",
                policy,
            )
            self.event("evicts leases", node=number, text=policy)

    def note_bus(self, number: int) -> None:
        """Notifies the user that a server announces changes.

        Args:
            number: The number of the server.
        """
        self._without_bus.discard(number)
        self.event("bus", node=number)

    def stats(self) -> dict[str, Any]:
        """Returns the core's counters, and the state of the connections."""
        counted: dict[str, Any] = dict(self.core.stats(now()))
        counted["servers"] = [f"{host}:{port}" if port else host for host, port in (node.address for node in self._nodes)]
        counted["last_failure"] = None if self.failure is None else f"{self.failure.kind}: {self.failure}"
        return counted

    # --- Shutdown.

    def abandon_in_child(self) -> None:
        """Closes what a child has inherited, so that a connection ends when its parent closes it.

        Sends nothing.
        """
        for node in list(self._nodes):
            node.close()
        for nodes in list(self._loops.values()):
            nodes.abandon_in_child()
        for bus in list(self._bus.values()):
            bus.abandon_in_child()

    def stop(self) -> None:
        """Ends the threads once they have replayed the journal, and closes idle connections."""
        with self._lock:
            self.is_closed = True
            buses = list(self._bus.values())
        if self._verifier is not None:
            self._verifier.stop()
        for bus in buses:
            bus.stop()
        for bus in buses:
            bus.join(3 * self.options.timeout + self.options.connect_timeout)
        for node in list(self._nodes):
            node.close()

    def aclose(self, loop: "asyncio.AbstractEventLoop") -> None:
        """Closes the event loop's connections.

        Args:
            loop: The event loop.
        """
        nodes = self._loops.pop(loop, None)
        if nodes is not None:
            nodes.close()


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
