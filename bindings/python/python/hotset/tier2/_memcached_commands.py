"""The core's actions on memcached: the core writes the commands, and parses the replies.

Some actions take two requests: a read of the item with its CAS number, and a change under that
number. A request that comes late finds another number, so none has to be fenced.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from hotset import _hotset
from hotset.tier2._clock import now
from hotset.tier2._commands import ACQUIRE, CLAIM, DIRECT, FENCE, FILL, GET, Abilities, Operation, kind_of_failure
from hotset.tier2._errors import Failed
from hotset.tier2._keys import wire_key
from hotset.tier2._needs import Need, Send

if TYPE_CHECKING:
    from hotset.tier2._session import Session

_core: Any = _hotset
_Exchange: Any = _core.MemcachedExchange
_VALUE: Final[int] = _Exchange.VALUE
_CLAIM: Final[int] = _Exchange.CLAIM
_FAILED: Final[int] = _Exchange.FAILED
_TIMEOUT: Final[int] = _core.Tier2.TIMEOUT
_NOPERM: Final[int] = _core.Tier2.NOPERM
_OTHER: Final[int] = _core.Tier2.OTHER

_ROUNDS: Final = 32


class Direct(Protocol):
    """An action of the caller's own: requests until there is a result."""

    def requests(self, session: "Session", number: int, serial: int, abilities: Abilities) -> list[bytes]:
        """Returns the next commands, each of which has one reply.

        Args:
            session: The session of this process.
            number: The number of the server.
            serial: The number of the connection.
            abilities: What the server allows.
        """
        ...

    def replies(self, replies: list[bytes]) -> Any:
        """Takes the replies; returns the result, `AGAIN`, or an `Exception` for an error reply.

        Args:
            replies: The replies.
        """
        ...


@final
class _Again:
    def __repr__(self) -> str:
        return "AGAIN"


AGAIN: Final = _Again()
"""The result of `Direct.replies` while `Direct.requests` must be sent again."""


def perform(session: "Session", call: Any, op: Operation, action: int, value: bytes | None) -> Generator[Need, Any, int]:
    """Performs a network action; returns the next action.

    Args:
        session: The session of this process.
        call: The call; None if the core began the operation itself.
        op: The operation of the core.
        action: The action.
        value: The whole new frame of FILL and PUT.
    """
    if action == DIRECT:
        return (yield from _perform_direct(session, call, op))
    if action == FENCE:
        raise AssertionError("no request to memcached is harmful when it is late")
    native = session.memcached
    exchange = _Exchange(op, wire_key(op.target), wire_key(op.key), value)

    def build(serial: int, abilities: Abilities) -> list[bytes]:
        commands: list[bytes] = exchange.requests(native, serial, abilities.meta)
        return commands

    number: int = op.node
    while True:
        try:
            outcome = yield Send(number, build)
        except BaseException:
            # Interrupted between the first byte sent and the whole reply: the outcome is unknown.
            op.failed(now(), _TIMEOUT)
            raise
        if isinstance(outcome, Failed):
            if call is not None:
                call.has_failed = call.cannot_reach = True
            return int(op.failed(now(), kind_of_failure(outcome)))
        epoch: int
        replies: list[bytes]
        epoch, replies, _ = outcome
        result = exchange.replies(native, replies)
        if result is not None:
            break
    kind = result[0]
    if kind == _FAILED:
        if call is not None:
            call.has_failed = True
        if result[1] == _NOPERM:
            session.note_refused(number, RuntimeError("memcached runs without CAS (-C), or requires authentication"))
        return int(op.failed(now(), result[1]))
    if call is not None:
        if action in (GET, ACQUIRE, CLAIM) and result[-1] is not None:
            call.data = result[-1]
        if action == FILL:
            call.is_filled = result[1]
    if kind == _CLAIM:
        return int(op.reply_claim(now(), epoch, result[1], result[2]))
    return int(op.reply(now(), epoch, result[1]))


def _perform_direct(session: "Session", call: Any, op: Operation) -> Generator[Need, Any, int]:
    direct: Direct = call.direct[0]
    number: int = op.node

    def build(serial: int, abilities: Abilities) -> list[bytes]:
        return direct.requests(session, number, serial, abilities)

    for _ in range(_ROUNDS):
        try:
            outcome = yield Send(number, build)
        except BaseException:
            op.failed(now(), _TIMEOUT)
            raise
        if isinstance(outcome, Failed):
            call.has_failed = call.cannot_reach = True
            return int(op.failed(now(), kind_of_failure(outcome)))
        result = direct.replies(outcome[1])
        if result is AGAIN:
            continue
        if isinstance(result, Exception):
            break
        call.loaded = result
        return int(op.reply(now(), outcome[0], True))
    call.has_failed = True
    return int(op.failed(now(), _OTHER))


@final
class Replace:
    """Replaces a frame by another one with the same lifetime, if it has not changed since.

    The result is 1 or 0.

    Args:
        session: The session of this process.
        key: The key.
        expected: The head of the frame.
        frame: The whole new frame.
        milliseconds: For how long the item must stay.
        server_ms: The server's time.
    """

    def __init__(self, session: "Session", key: bytes, expected: bytes, frame: bytes, milliseconds: int, server_ms: int) -> None:
        self._native = session.memcached
        self._exchange = _Exchange.replace(wire_key(key), expected, frame, _core.memcached_expiration(milliseconds, server_ms))

    def requests(self, session: "Session", number: int, serial: int, abilities: Abilities) -> list[bytes]:
        """Returns the next commands. See `Direct`."""
        commands: list[bytes] = self._exchange.requests(self._native, serial, abilities.meta)
        return commands

    def replies(self, replies: list[bytes]) -> Any:
        """Takes the replies. See `Direct`."""
        result = self._exchange.replies(self._native, replies)
        if result is None:
            return AGAIN
        return ValueError("the server refused the value") if result[0] == _FAILED else int(result[1])


@final
class Count:
    """Adds to a counter, a decimal number that is at least 0.

    Args:
        key: The key.
        delta: The number to add; a sum below 0 is 0.
        milliseconds: When a counter that this creates expires; 0: never.
    """

    def __init__(self, key: bytes, delta: int, milliseconds: int) -> None:
        self._key = wire_key(key)
        self._delta = delta
        self._milliseconds = milliseconds
        self._creates = False

    def requests(self, session: "Session", number: int, serial: int, abilities: Abilities) -> list[bytes]:
        """Returns the next commands. See `Direct`."""
        expires = _core.memcached_expiration(self._milliseconds, session.core.server_ms(number, now())) if self._milliseconds else 0
        initial = max(0, self._delta)
        if abilities.meta:
            mode = b"MI" if self._delta >= 0 else b"MD"
            return [b"ma %b N%d J%d D%d %b v\r\n" % (self._key, expires, initial, abs(self._delta), mode)]
        if self._creates:
            text = b"%d" % initial
            return [b"add %b 0 %d %d\r\n%b\r\n" % (self._key, expires, len(text), text)]
        return [b"%b %b %d\r\n" % (b"incr" if self._delta >= 0 else b"decr", self._key, abs(self._delta))]

    def replies(self, replies: list[bytes]) -> Any:
        """Takes the replies. See `Direct`."""
        reply = replies[0]
        if reply.startswith(b"VA "):
            return int(reply.split(b"\r\n")[1])
        if reply[:1].isdigit():
            return int(reply)
        if reply.startswith(b"NOT_FOUND"):
            self._creates = True
            return AGAIN
        if reply.startswith(b"STORED"):
            return max(0, self._delta)
        if reply.startswith((b"NOT_STORED", b"NS", b"EX", b"NF")):
            # Created or removed in between.
            self._creates = False
            return AGAIN
        return ValueError(reply.decode("utf-8", "replace"))
