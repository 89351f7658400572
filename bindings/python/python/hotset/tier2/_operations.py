"""Drives the core's operations: performs each action, reports its outcome, and performs the next.

An operation is a generator of its needs: requests to servers, loads, waits. Threads and tasks run
the same generators, by `run` and `run_async` of `_run`, so both follow the same protocol.
"""

from collections.abc import Generator
from functools import partial
from typing import Any, Final, final

from hotset import _hotset
from hotset._hotset import MISSING, NEVER, WithTtl
from hotset.tier2._clock import now
from hotset.tier2._commands import (
    ACQUIRE,
    CLAIM,
    DIRECT,
    FILL,
    GET,
    NETWORK,
    PUT,
    UNCONDITIONAL,
    Abilities,
    commands_of,
    first_error,
    kind_of_error,
    kind_of_failure,
    note_refusal,
    report,
)
from hotset.tier2._errors import Failed, Unavailable
from hotset.tier2._memcached_commands import perform
from hotset.tier2._needs import Background, Load, Need, Outcome, Probe, Raised, Send, Steps, Wait
from hotset.tier2._payload import NotEncodable, PayloadError
from hotset.tier2._resp import Command
from hotset.tier2._session import Session
from hotset.tier2._space import Mark, Space

_core: Any = _hotset
_Operation: Any = _core.Operation
_TIMEOUT: Final[int] = _core.Tier2.TIMEOUT
_MOVED: Final[int] = _core.Tier2.MOVED
_NOPERM: Final[int] = _core.Tier2.NOPERM

LOAD: Final[int] = _Operation.LOAD
WAIT: Final[int] = _Operation.WAIT
DROP_LOCAL: Final[int] = _Operation.DROP_LOCAL
PROBE: Final[int] = _Operation.PROBE
HIT: Final[int] = _Operation.HIT
NEGATIVE_HIT: Final[int] = _Operation.NEGATIVE_HIT
STALE: Final[int] = _Operation.STALE
MISS: Final[int] = _Operation.MISS
DELIVER: Final[int] = _Operation.DELIVER
FAILED: Final[int] = _Operation.FAILED
DONE: Final[int] = _Operation.DONE
UNCONFIRMED: Final[int] = _Operation.UNCONFIRMED
VALUE: Final[int] = _Operation.VALUE
NEGATIVE: Final[int] = _Operation.NEGATIVE
LOCAL: Final[int] = _Operation.LOCAL

_READS: Final = frozenset((GET, ACQUIRE, CLAIM))
_NEW_FRAMES: Final = frozenset((FILL, PUT))


# --- Operations.


@final
class Call:
    """The arguments and the state of an operation, beside those of the core."""

    __slots__ = ("args", "cannot_reach", "data", "direct", "full_key", "has_failed", "is_filled", "is_whole", "kwargs", "loaded", "mark", "space", "value")

    def __init__(
        self, space: Space, args: tuple[Any, ...], kwargs: dict[str, Any], full_key: bytes | None, *, is_whole: bool = False
    ) -> None:
        # Whether it concerns all keys.
        self.is_whole = is_whole
        self.is_filled = False
        # Whether a command got no whole reply, or an error.
        self.has_failed = False
        self.cannot_reach = False
        """Whether one of its requests got no answer."""
        self.space = space
        self.args = args
        self.kwargs = kwargs
        self.full_key = full_key
        # The last reply to a read.
        self.data: bytes | None = None
        # The loaded value, and its encoded form.
        self.loaded: Any = MISSING
        self.value: tuple[int, bytes] = (0, b"")
        self.mark: Mark | None = None
        self.direct: list[Command] = []

    def invalidate(self) -> None:
        """Removes the entries that the operation concerns from the first tier."""
        for space in self.space.siblings():
            if self.is_whole:
                space.first.clear()
            else:
                space.first.invalidate(self.args, self.kwargs)

    def abandon(self) -> None:
        """Ends the load in flight that the operation leads."""
        mark, self.mark = self.mark, None
        if mark is not None:
            mark.abandon()


def open_payload(call: Call, op: Any) -> Any:
    """Returns the decoded payload of the last reply.

    Args:
        call: The call.
        op: The operation of the core.

    Raises:
        PayloadError: It cannot be used.
    """
    data = call.data or b""
    return call.space.codec.open(op.key, call.full_key, op.flags, op.codec, data[op.offset :])


def _frame(call: Call, op: Any) -> bytes:
    """Returns the whole new frame of FILL and PUT."""
    codec = call.space.codec
    flags, data = codec.seal(op.key, call.full_key, *call.value, negative=call.loaded is MISSING)
    head: bytes = op.head(flags, codec.number)
    return head + data


def _build(
    call: Call | None, op: Any, action: int, value: bytes | None, whole: bool, asking: bool, connection: int, abilities: Abilities
) -> list[Command]:
    """Returns the commands of a network action, right before they are sent."""
    if action in UNCONDITIONAL:
        op.sending(connection)
    if action == DIRECT:
        assert call is not None
        commands = call.direct
    else:
        commands = commands_of(action, op, value, abilities, whole=whole)
    return _behind_asking(commands) if asking else commands


def _behind_asking(commands: list[Command]) -> list[Command]:
    """Returns commands for a server that is importing the slot, each after an ASKING.

    (ASKING holds for one command, or for a whole transaction.)
    """
    if commands[0] == (b"MULTI",):
        return [(b"ASKING",), *commands]
    return [part for command in commands for part in ((b"ASKING",), command)]


def _without_asking(replies: list[Any]) -> list[Any]:
    """Returns the replies without those to ASKING. (A transaction of four has one more.)"""
    return replies[1:] if len(replies) % 2 else replies[1::2]


def _perform(session: Session, call: Call | None, op: Any, action: int) -> Generator[Need, Any, int]:
    """Performs a network action; returns the next action.

    `call` is None for an operation that the core began itself.
    """
    if session.memcached is not None:
        value = _frame(call, op) if action in _NEW_FRAMES and call is not None else None
        return (yield from perform(session, call, op, action, value))
    whole = False
    asking = False
    while True:
        number: int = op.node
        # Made again for another server, whose clock is different.
        value = _frame(call, op) if action in _NEW_FRAMES and call is not None else None
        try:
            outcome = yield Send(number, partial(_build, call, op, action, value, whole, asking))
        except BaseException:
            # Interrupted between the first byte sent and the whole reply: the outcome is unknown.
            op.failed(now(), _TIMEOUT)
            raise
        if isinstance(outcome, Failed):
            if call is not None:
                call.has_failed = call.cannot_reach = True
            return int(op.failed(now(), kind_of_failure(outcome)))
        epoch: int
        replies: list[Any]
        abilities: Abilities
        epoch, replies, abilities = outcome
        if asking:
            replies = _without_asking(replies)
        error = first_error(replies)
        if error is not None:
            if error.code == "NOSCRIPT" and not whole:
                whole = True
                continue
            if error.code in ("MOVED", "ASK"):
                op.node = session.topology.moved(error, number)
                following = int(op.failed(now(), _MOVED))
                if following != action:
                    return following
                asking = error.code == "ASK"
                continue
            if error.code == "READONLY":
                session.note_readonly(number)
            if kind_of_error(error) == _NOPERM:
                session.note_refused(number, error)
            if note_refusal(action, error, abilities):
                continue
            if call is not None:
                call.has_failed = True
        if action in _READS and call is not None and isinstance(replies[-1], bytes):
            call.data = replies[-1]
        if action == DIRECT and call is not None:
            call.loaded = replies[-1]
        if action == FILL and call is not None:
            call.is_filled = replies[0] == 1
        return report(action, op, now(), epoch, replies, abilities)


def drive(session: Session, call: Call, op: Any) -> Steps:
    """Drives an operation to its end.

    Args:
        session: The session of this process.
        call: The call.
        op: The operation of the core.

    Returns:
        A generator of its needs, whose result is the outcome.
    """
    space = call.space
    action: int = op.action
    has_written = False
    error: BaseException | None = None
    try:
        while True:
            if action in NETWORK:
                if action == PUT:
                    call.abandon()
                    call.mark = space.first.mark(call.args, call.kwargs)
                has_written |= action in _NEW_FRAMES
                action = yield from _perform(session, call, op, action)
            elif action == WAIT:
                yield Wait(op.key, op.until)
                action = op.step(now())
            elif action == LOAD:
                if op.stale and space.settings.stale_while_revalidate:
                    try:
                        stale = open_payload(call, op)
                    except PayloadError:
                        pass
                    else:
                        yield Background(stale)
                must_raise = op.limited and _must_raise(session, call, op)
                loaded = Raised(_unavailable()) if must_raise else (yield Load(op.key, op.limited))
                if isinstance(loaded, Raised):
                    error = loaded.error
                    has_written = True
                    action = op.load_failed(now())
                else:
                    action = _loaded(call, op, loaded)
            elif action == DROP_LOCAL:
                call.invalidate()
                action = op.step(now())
            elif action == PROBE:
                yield Probe(op.node)
                action = op.step(now())
            elif action in (HIT, STALE):
                try:
                    value = open_payload(call, op)
                except PayloadError:
                    action = op.reject(now())
                    continue
                return Outcome(value, op.keep_until if action == HIT else 0, True)
            elif action == NEGATIVE_HIT:
                try:
                    space.codec.check_negative(op.key, call.full_key, op.flags, (call.data or b"")[op.offset :])
                except PayloadError:
                    action = op.reject(now())
                    continue
                return Outcome(MISSING, op.keep_until, True)
            elif action == MISS:
                if _must_raise(session, call, op):
                    return Outcome(MISSING, 0, False, _unavailable())
                return Outcome(MISSING, 0, True)
            elif action == FAILED:
                return Outcome(MISSING, 0, False, error)
            else:
                # DELIVER, DONE, UNCONFIRMED.
                is_answered = action != UNCONFIRMED
                outcome = Outcome(call.loaded, op.keep_until if is_answered else 0, is_answered and op.stored, is_answered=is_answered)
                outcome.is_filled = call.is_filled
                return outcome
    finally:
        if has_written:
            session.waiters.wake(op.key)
        # Break the reference cycle: the traceback of the error has this frame.
        del error


def _must_raise(session: Session, call: Call, op: Any) -> bool:
    """Returns whether a read without a value must raise, because the server cannot be reached."""
    return session.options.raises_when_down and (call.cannot_reach or not session.core.is_up(op.node))


def _unavailable() -> Unavailable:
    return Unavailable("the second tier cannot be reached, and on_down='raise' forbids answers without it")


def _loaded(call: Call, op: Any, result: Any) -> int:
    """Reports a loaded value to the core; returns the next action."""
    ttl = 0
    if type(result) is WithTtl:
        ttl = with_ttl_lifetime(result.ttl)
        result = result.value
    call.loaded = result
    if result is MISSING:
        return int(op.loaded(now(), ttl, NEGATIVE))
    try:
        call.value = call.space.codec.encode(result)
    except NotEncodable as refused:
        call.space.note_not_encodable(refused)
        return int(op.loaded(now(), ttl, LOCAL))
    return int(op.loaded(now(), ttl, VALUE))


def with_ttl_lifetime(ttl: Any) -> int:
    """Returns the ttl of a `WithTtl` in nanoseconds; 0 for the ttl of the cache.

    Args:
        ttl: The ttl as of `WithTtl.ttl`.
    """
    if ttl is NEVER:
        return NO_END
    return max(1, min(NO_END, int(ttl * 1e9))) if isinstance(ttl, float) else 0


NO_END: Final = 10 * 365 * 24 * 3600 * 10**9
"""Nanoseconds that stand for "never": ten years."""


def maintain(session: Session, op: Any) -> Steps:
    """Drives an operation that the core began itself: a renewal, or a replay of the journal.

    Args:
        session: The session of this process.
        op: The operation of the core.

    Returns:
        A generator of its needs, whose result is the outcome.
    """
    action: int = op.action
    while True:
        if action in NETWORK:
            action = yield from _perform(session, None, op, action)
        elif action == PROBE:
            yield Probe(op.node)
            action = op.step(now())
        elif action == WAIT:
            yield Wait(op.key, op.until)
            action = op.step(now())
        elif action == DROP_LOCAL:
            session.apply(op.key)
            action = op.step(now())
        else:
            return Outcome(MISSING, 0, action == DONE)
