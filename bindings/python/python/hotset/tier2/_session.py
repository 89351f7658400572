"""One process's part of a second tier: the core's state, connections and threads.

A `Session` belongs to a process: a child creates its own, and only closes the one that it
inherited.
"""

import asyncio
import logging
import os
import secrets
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, final

from hotset import _hotset
from hotset.tier2._async import AsyncConnection, AsyncNode, AsyncNodes
from hotset.tier2._clock import now
from hotset.tier2._commands import Abilities, get_command, kind_of_failure, pack
from hotset.tier2._errors import Failed
from hotset.tier2._keys import quote_name
from hotset.tier2._memcached import memcached_get
from hotset.tier2._memcached_topology import MemcachedTopology
from hotset.tier2._sync import Connection
from hotset.tier2._topology import Options, Topology, tag_of
from hotset.tier2._waiters import Waiters

if TYPE_CHECKING:
    from hotset.tier2._bus import BusThread
    from hotset.tier2._space import Space
    from hotset.tier2._verify import Verifier

_log = logging.getLogger("hotset")

_Tier2: Any = getattr(_hotset, "Tier2", None)


@final
class Session:
    """One process's part of a second tier. For any thread."""

    def __init__(self, options: Options) -> None:
        self.options: Final = options
        self.pid: Final = os.getpid()
        servers = options.memcached
        own: dict[str, Any] = {} if servers is None else {"generation_per_node": True, "clock_resolution": 1000}
        self.core: Final = _Tier2(secrets.randbits(64), bus=options.bus, **own)
        self.memcached: Any = None if servers is None else _hotset.Memcached([name.encode() for name in servers.names])
        """The core's part of memcached's protocol; None for Redis."""
        self.get_command: Final = get_command if servers is None else memcached_get
        """Returns the encoded command that reads a key."""
        self.pack: Final = pack if servers is None else b"".join
        """Returns the encoded commands, to be sent together."""
        self.prefix: Final = quote_name(options.prefix)
        self.waiters: Final = Waiters()
        # By the first part of their keys.
        self._spaces: dict[bytes, tuple[weakref.ref[Space], ...]] = {}
        self.loads: Final = threading.BoundedSemaphore(options.max_loads)
        self._id = secrets.token_hex(6).encode()
        self._lock = threading.RLock()
        self._loops: dict[asyncio.AbstractEventLoop, AsyncNodes] = {}
        self._reported: dict[int, bool] = {}
        self._bus: dict[int, BusThread] = {}
        self._verifier: Verifier | None = None
        self._has_started = False
        self._without_bus: set[int] = set()
        self._refusing: set[int] = set()
        self._evicting: set[int] = set()
        self.is_closed = False
        self.failure: Failed | None = None
        """The last reason why the server could not be reached."""
        self.topology: Final[Topology | MemcachedTopology] = (
            Topology(options, self.core, self._is_down, self._set_failure)
            if servers is None
            else MemcachedTopology(options, servers, self.memcached)
        )
        """The servers."""

    def _is_down(self, number: int) -> bool:
        return self._reported.get(number) is False

    def _set_failure(self, failed: Failed) -> None:
        self.failure = failed

    # --- Connections.

    def canary_prefix(self, number: int) -> bytes:
        """Returns the first part of the names of this process's canaries on a server.

        Args:
            number: The number of the server.
        """
        tag = b""
        if self.topology.is_cluster:
            tag = tag_of(self.topology.slots_of_node(number) or 0)
        return b"!hotset:" + tag + self.prefix + b":" + self._id + b":"

    def _register_connection(self, number: int, connection: Connection | AsyncConnection) -> int:
        """Reports a new connection to the core; returns its epoch."""
        greeting = connection.greeting
        abilities = self.topology.abilities[number]
        abilities.note(greeting)
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
            node = self.topology.nodes[number]
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
        self.topology.nodes[number].release(connection)

    def abilities(self, number: int) -> Abilities:
        """Returns what the server allows.

        Args:
            number: The number of the server.
        """
        return self.topology.abilities[number]

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
        topology = self.topology
        return nodes.node(topology.address_of(number), lambda: topology.make_async_node(number))

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
        if self.memcached is not None and self.core.is_up(number):
            return self._read_clock(number)
        node = self.topology.nodes[number]
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

    def _read_clock(self, number: int) -> bool:
        """Reads the clock of a server that answers: where it has whole seconds, several times."""
        try:
            connection = self.take(number)
            connection.greet()
        except Failed as failed:
            self._probe_failed(number, failed)
            return False
        self._register_connection(number, connection)
        self.give_back(number, connection)
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
        self.topology.nodes[number].close()
        for nodes in list(self._loops.values()):
            nodes.retire(self.topology.nodes[number].address)

    def note_failed(self, number: int, failed: Failed) -> None:
        """Records a request without a whole reply, and closes idle connections of that server.

        They may be dead, too.

        Args:
            number: The number of the server.
            failed: The failure.
        """
        self.failure = failed
        if failed.kind != "timeout":
            self.topology.nodes[number].close()

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
        self.topology.on_new_node(self._start_bus)

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
            _log.warning("second tier can be reached again: %s:%s", *self.topology.nodes[number].address)
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

    def note_refused(self, number: int, error: Exception) -> None:
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
        counted["servers"] = [f"{host}:{port}" if port else host for host, port in (node.address for node in self.topology.nodes)]
        if self.memcached is not None:
            counted["commands"] = ["meta" if abilities.meta else "classic" for abilities in self.topology.abilities]
        counted["last_failure"] = None if self.failure is None else f"{self.failure.kind}: {self.failure}"
        return counted

    # --- Shutdown.

    def abandon_in_child(self) -> None:
        """Closes what a child has inherited, so that a connection ends when its parent closes it.

        Sends nothing.
        """
        for node in list(self.topology.nodes):
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
        for node in list(self.topology.nodes):
            node.close()

    def aclose(self, loop: "asyncio.AbstractEventLoop") -> None:
        """Closes the event loop's connections.

        Args:
            loop: The event loop.
        """
        nodes = self._loops.pop(loop, None)
        if nodes is not None:
            nodes.close()
