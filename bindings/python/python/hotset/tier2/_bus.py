"""The thread that keeps one server's part of the first tiers up to date.

It performs the actions of the core: it receives invalidations, proves by canaries that they arrive,
renews leases, replays the journal, and probes a server that could not be reached.
"""

import logging
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final, cast, final

from hotset import _hotset
from hotset._hotset import sync_clock
from hotset.tier2._client import ServerSettings, connect
from hotset.tier2._clock import now
from hotset.tier2._commands import kind_of_error, kind_of_failure
from hotset.tier2._errors import Failed
from hotset.tier2._operations import maintain
from hotset.tier2._resp import INCOMPLETE, Parser, ProtocolError, Push, ServerError, encode
from hotset.tier2._run import run

if TYPE_CHECKING:
    from hotset.tier2._session import Session

_log = logging.getLogger("hotset")

_core: Any = _hotset
_Tier2: Any = _core.Tier2
_SLEEP: Final[int] = _Tier2.SLEEP
_PROBE: Final[int] = _Tier2.PROBE
_CONNECT: Final[int] = _Tier2.CONNECT
_CLOSE: Final[int] = _Tier2.CLOSE
_CANARY: Final[int] = _Tier2.CANARY
_PING: Final[int] = _Tier2.PING
_CLEAR: Final[int] = _Tier2.CLEAR
_DROP_LOADS: Final[int] = _Tier2.DROP_LOADS
_OPERATE: Final[int] = _Tier2.OPERATE

_CHANNEL: Final = b"__redis__:invalidate"
_CHUNK: Final = 1 << 18
_CANARY_LIFE: Final = 30_000
# Seconds between an exception in the thread and its next attempt.
_AFTER_FAILURE: Final = 0.5
# The longest sleep of the thread, in milliseconds.
_LONGEST_SLEEP: Final = 1000


class ChangedKeys(list[bytes]):
    """Keys that have changed, in the order of their messages."""


@final
class Tracking:
    """A connection on which the server announces changes."""

    def __init__(self, session: "Session", number: int) -> None:
        options = session.options
        located, settings = session.topology.locate(number), session.topology.settings
        assert isinstance(settings, ServerSettings)
        self._socket = connect(settings, located, options.timeout, options.connect_timeout)
        self._parser = Parser()
        self._socket.settimeout(options.timeout)
        try:
            self.eviction: Final = self._eviction()
            """The server's `maxmemory-policy`, if it has a `maxmemory` and reports it; else ""."""
            self._subscribe(session, number)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Returns the file descriptor, for `poll`."""
        return self._socket.fileno()

    def _subscribe(self, session: "Session", number: int) -> None:
        prefixes: list[bytes] = []
        for prefix in (session.prefix + b":", session.canary_prefix(number)):
            prefixes += [b"PREFIX", prefix]
        hello = self._ask(encode(b"HELLO", b"3"))
        if not isinstance(hello, ServerError):
            self._check(self._ask(encode(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *prefixes)))
            return
        number_of_this = self._ask(encode(b"CLIENT", b"ID"))
        self._check(number_of_this)
        self._check(self._ask(encode(b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", number_of_this, b"BCAST", *prefixes)))
        self._check(self._ask(encode(b"SUBSCRIBE", _CHANNEL)))

    def _eviction(self) -> str:
        """Returns the eviction policy; empty if unknown, or if the server's memory is unlimited."""
        reply = self._ask(encode(b"INFO", b"memory"))
        if not isinstance(reply, bytes):
            return ""
        about = dict(line.split(":", 1) for line in reply.decode("utf-8", "replace").splitlines() if ":" in line)
        return about.get("maxmemory_policy", "") if about.get("maxmemory", "0") != "0" else ""

    @staticmethod
    def _check(reply: Any) -> None:
        if isinstance(reply, ServerError):
            raise Failed("protocol", f"server announces no changes: {reply}", sent=True)

    def _ask(self, packed: bytes) -> Any:
        try:
            self._socket.sendall(packed)
            while (reply := self._parser.next()) is INCOMPLETE:
                self._feed()
        except (OSError, ProtocolError) as error:
            raise Failed("reset", f"tracking connection: {error}", sent=True) from error
        return reply

    def _feed(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("server closed the connection")
        self._parser.feed(data)

    def ping(self) -> None:
        """Sends a PING, whose answer arrives among the messages.

        Raises:
            OSError: The connection is broken.
        """
        packed = encode(b"PING")
        if self._socket.send(packed) != len(packed):
            raise BrokenPipeError("send buffer is full")

    def read(self) -> list[Any]:
        """Returns the replies and messages that have arrived, without waiting.

        Most invalidations are `ChangedKeys` already.

        Raises:
            OSError, ProtocolError: The connection is broken.
        """
        try:
            self._feed()
        except BlockingIOError:
            return []
        except OSError as error:
            # TLS has received too little to decrypt any of it.
            if type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError"):
                return []
            raise
        messages: list[Any] = []
        while True:
            keys = self._parser.invalidations()
            if keys:
                messages.append(ChangedKeys(keys))
            message = self._parser.next()
            if message is INCOMPLETE:
                return messages
            messages.append(message)

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


@final
class BusThread:
    """The thread of one server."""

    def __init__(self, session: "Session", number: int) -> None:
        self._session = session
        self._core = session.core
        self._number = number
        self._tracking: Tracking | None = None
        self._ping: int | None = None
        self._is_stopped = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"hotset-tier2-{number}", daemon=True)
        self._pid = os.getpid()

    def start(self) -> None:
        """Starts the thread. Without one, changes become visible by their time limits alone."""
        try:
            self._thread.start()
        except RuntimeError:
            _log.warning("second tier: failed to start its thread", exc_info=True)

    def wake(self) -> None:
        """Ends the thread's sleep."""
        try:
            self._writer.send(b"\0")
        except OSError:
            # It is notified already (the socket's buffer is full), or has ended.
            pass

    def stop(self) -> None:
        """Has the thread end soon."""
        self._is_stopped = True
        self.wake()

    def join(self, seconds: float) -> None:
        """Waits until the thread has ended, unless it is the calling one.

        Args:
            seconds: The longest time to wait.
        """
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def abandon_in_child(self) -> None:
        """Closes what a child has inherited of its parent's thread."""
        tracking = self._tracking
        if tracking is not None:
            tracking.close()
        self._reader.close()
        self._writer.close()

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                try:
                    self._session.topology.follow_topology()
                    self._perform(self._core.background(self._number, now()))
                except Exception:
                    # For example, a listener of the first tier raises. An action may be undone:
                    # disconnecting ends all trust until the bus is set up again.
                    _log.exception("second tier: the thread that keeps it up to date failed, and starts again")
                    self._disconnect()
                    time.sleep(_AFTER_FAILURE)
            self._flush()
        finally:
            self._close()
            self._reader.close()
            self._writer.close()

    def _flush(self) -> None:
        """Replays the journal while the process exits, for as long as one operation may take."""
        core, number = self._core, self._number
        end = now() + int(self._session.options.timeout * 1e9)
        while (left := end - now()) > 0 and core.stats(now())["journal"]:
            action = core.background(number, now())
            if action == _SLEEP:
                time.sleep(max(0.0, min(left, core.background_until(number) - now())) / 1e9)
            elif action in (_PROBE, _OPERATE, _CLEAR, _DROP_LOADS):
                self._perform(action)
            else:
                # An action of the bus, which is no longer needed.
                self._disconnect()

    def _perform(self, action: int) -> None:
        """Performs one action of the core."""
        core, number = self._core, self._number
        sync_clock(now())
        if action == _SLEEP:
            self._sleep(core.background_until(number))
        elif action == _OPERATE:
            op = core.background_operation(number, now())
            if op is not None:
                run(self._session, maintain(self._session, op))
        elif action == _CANARY:
            self._send_canary(core.background_number(number))
        elif action == _PING:
            self._send_ping(core.background_number(number))
        elif action == _PROBE:
            self._session.probe(number)
        elif action == _CONNECT:
            self._connect()
        elif action == _CLOSE:
            self._close()
            core.disconnected(number, now())
        elif action == _CLEAR:
            self._session.clear()
            core.cleared(number, now())
        elif action == _DROP_LOADS:
            self._session.invalidate_loads()
            core.loads_dropped(number, now())
        else:
            raise AssertionError(f"unknown action {action}")

    def _connect(self) -> None:
        self._close()
        try:
            self._tracking = Tracking(self._session, self._number)
        except Failed as failed:
            _log.debug("second tier: %s", failed)
            if failed.kind == "protocol":
                self._session.note_no_bus(self._number, failed)
            self._core.disconnected(self._number, now())
            return
        self._session.note_bus(self._number)
        if self._tracking.eviction == "volatile-ttl":
            self._session.note_eviction(self._number, self._tracking.eviction)
        self._core.connected(self._number, now())

    def _close(self) -> None:
        tracking, self._tracking = self._tracking, None
        self._ping = None
        if tracking is not None:
            tracking.close()

    def _send_canary(self, number: int) -> None:
        session, node = self._session, self._number
        try:
            connection = session.take(node)
            # The key that the core made for this number.
            key = self._core.canary_key(node)
            reply = connection.exchange(encode(b"SET", key, b"", b"PX", _CANARY_LIFE), 1)[0]
        except Failed as failed:
            session.note_failed(node, failed)
            self._core.canary_failed(node, number, kind_of_failure(failed), now())
            return
        session.give_back(node, connection)
        if isinstance(reply, ServerError):
            if reply.code == "MOVED":
                session.topology.moved(reply, node)
            self._core.canary_failed(node, number, kind_of_error(reply), now())
        else:
            self._core.canary_written(node, number, connection.epoch, now())

    def _send_ping(self, number: int) -> None:
        if self._tracking is None:
            self._core.disconnected(self._number, now())
            return
        try:
            self._tracking.ping()
        except OSError:
            self._disconnect()
        else:
            self._ping = number

    def _disconnect(self) -> None:
        self._close()
        self._core.disconnected(self._number, now())

    def _sleep(self, until: int) -> None:
        """Waits for a message, for `wake`, or until then; handles the messages."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        tracking = self._tracking
        if tracking is not None:
            poll.register(tracking, select.POLLIN)
        milliseconds = min(_LONGEST_SLEEP, max(0, -((now() - until) // 1_000_000)))
        ready = poll.poll(milliseconds)
        for descriptor, _ in ready:
            if descriptor == self._reader.fileno():
                try:
                    while self._reader.recv(4096):
                        pass
                except BlockingIOError:
                    pass
            elif tracking is not None:
                self._receive(tracking)

    def _receive(self, tracking: Tracking) -> None:
        try:
            messages = tracking.read()
        except (OSError, ProtocolError) as error:
            _log.debug("second tier: the tracking connection broke: %s", error)
            self._disconnect()
            return
        keys: list[bytes] = []
        changed: list[bytes] | None
        for message in messages:
            if isinstance(message, ChangedKeys):
                keys += message
                continue
            parts = cast("list[object]", message) if isinstance(message, list) else []
            if isinstance(message, Push) and parts[0] == b"invalidate":
                changed = cast("list[bytes] | None", parts[1])
            elif len(parts) == 3 and parts[0] == b"message":
                changed = cast("list[bytes] | None", parts[2])
            elif message == "PONG" or parts[:1] == [b"pong"]:
                self._apply(keys)
                keys = []
                ping, self._ping = self._ping, None
                if ping is not None:
                    self._core.pong(self._number, ping, now())
                continue
            else:
                if isinstance(message, ServerError):
                    self._disconnect()
                    return
                continue
            if changed is None:
                self._apply(keys)
                keys = []
                self._core.flushed(self._number, now())
                self._drain_clears()
            else:
                keys += changed
        self._apply(keys)

    def _apply(self, keys: list[bytes]) -> None:
        if keys:
            for key in self._core.messages(self._number, keys, now()):
                self._session.apply(key)

    def _drain_clears(self) -> None:
        """Performs the actions of a flush before later messages are handled."""
        while (action := self._core.background(self._number, now())) in (_CLEAR, _DROP_LOADS):
            self._perform(action)
