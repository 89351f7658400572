"""Changes of a value that depend on the current one, on the server, whatever the first tier stores.

They replace a value by a function of it, remove and return it, or read it with its remaining TTL.
"""

import os
from collections.abc import Callable, Generator
from typing import Any, Final, final

from hotset._hotset import MISSING
from hotset.tier2 import _many
from hotset.tier2._clock import now
from hotset.tier2._commands import Script
from hotset.tier2._errors import Unavailable
from hotset.tier2._memcached_commands import Replace
from hotset.tier2._needs import Need, Outcome, Steps
from hotset.tier2._operations import NO_END, Call, drive
from hotset.tier2._payload import NotEncodable
from hotset.tier2._reads import node_of_async
from hotset.tier2._resp import Command
from hotset.tier2._run import run, run_async
from hotset.tier2._session import Session
from hotset.tier2._space import Space

Function = Callable[[Any], Any]

# No two frames have the same head: an unchanged head means an unchanged value.
_REPLACE: Final = Script(
    "if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[1] then return 0 end redis.call('SET',KEYS[1],ARGV[2],'KEEPTTL') return 1"
)
_HEAD: Final = 24
# Offsets in a frame's head: see the layout in the core's documentation.
_STAMP: Final = 4
_FLAGS: Final = 20
_SOFT_END: Final = 24
_CODEC: Final = 36


@final
class _Target:
    """One key, as the operations below need it."""

    def __init__(self, space: Space, key: Any) -> None:
        self.space: Final = space
        self.session: Session
        self.session, self._namespace = space.native()
        self._args = (key,)
        self.name: bytes
        self.name, self._full_key = space.key_of(self._args, {})
        self._epoch = 0

    def _call(self) -> Call:
        return Call(self.space, self._args, {}, self._full_key)

    @property
    def number(self) -> int:
        """The number of the server that has the key, as far as is known."""
        return self.session.topology.node_of(self.name)

    def read(self) -> tuple[Call, Any, Steps]:
        """Returns a read: the call, the core's operation, and the steps that drive it."""
        call = self._call()
        self._epoch = self.session.core.epoch(self.number)
        op = self._namespace.read(self.name, self.number, now(), False)
        return call, op, drive(self.session, call, op)

    def remove(self) -> Steps:
        """Returns a removal."""
        return drive(self.session, self._call(), self._namespace.remove(self.name, self.number, now()))

    def direct(self, command: "Command | Replace") -> Steps:
        """Returns a command of the caller's own."""
        call = self._call()
        direct: list[Any] = [command]
        call.direct = direct
        return drive(self.session, call, self._namespace.direct(self.name, self.number, now()))

    def invalidate(self) -> None:
        """Removes the key from the first tiers, and invalidates its loads in flight."""
        self._call().invalidate()
        self.session.waiters.wake(self.name)

    def is_absent(self, call: Call) -> bool:
        """Returns whether the server has confirmed a read that found nothing; False: repeat it.

        Args:
            call: The read.

        Raises:
            Unavailable: The server did not answer.
        """
        if call.has_failed or not self.session.core.is_up(self.number):
            raise Unavailable("the second tier did not answer")
        # In another epoch, another server answers: the reply of the previous one was not used.
        return bool(self.session.core.epoch(self.number) == self._epoch)

    @property
    def grace(self) -> int:
        """For how many nanoseconds the server has a value after its ttl."""
        return max(self.space.settings.stale_while_revalidate, self.space.settings.stale_if_error)

    def milliseconds_left(self, call: Call) -> int:
        """Returns the remaining TTL of the value that was read, by its frame and the server's time.

        (Of memcached's items, old servers do not report it.)

        Args:
            call: The read.
        """
        soft_end = int.from_bytes((call.data or b"")[_SOFT_END : _SOFT_END + 8], "little")
        return max(1, soft_end - int(self.session.core.server_ms(self.number, now())))

    def replacement(self, call: Call, frame: bytes) -> "Command | Replace":
        """Returns the command that replaces what was read, if it has not changed since.

        Args:
            call: The read.
            frame: The new frame.
        """
        expected = (call.data or b"")[:_HEAD]
        if self.session.memcached is None:
            return _REPLACE.command(self.name, expected, frame, whole=True)
        milliseconds = self.milliseconds_left(call) + self.grace // 1_000_000
        return Replace(self.session, self.name, expected, frame, milliseconds, self.session.core.server_ms(self.number, now()))

    def frame(self, call: Call, op: Any, value: Any) -> bytes:
        """Returns the frame that was read, with another value.

        It has the same lifetime, generations and tags.

        Args:
            call: The read.
            op: The core's operation of the read.
            value: The new value.

        Raises:
            ValueError: The value cannot be encoded.
        """
        old = call.data or b""
        codec = self.space.codec
        try:
            encoded = codec.encode(value)
        except NotEncodable as error:
            raise ValueError(str(error)) from error
        flags, payload = codec.seal(self.name, self._full_key, *encoded)
        # A random stamp, which no other frame has.
        head = old[:_STAMP] + os.urandom(16) + flags.to_bytes(2, "little") + old[_FLAGS + 2 : _CODEC] + bytes((codec.number,))
        return head + old[_CODEC + 1 : op.offset] + payload


# --- Replacing a value by a function of it.


def _replacing(target: _Target, function: Function) -> Generator[Need, Any, Outcome]:
    """Returns the steps of `replace`. A round fails only if another caller's change succeeded."""
    while True:
        call, op, steps = target.read()
        outcome = yield from steps
        if outcome.value is MISSING:
            if target.is_absent(call):
                return outcome
            continue
        value = function(outcome.value)
        command = target.replacement(call, target.frame(call, op, value))
        try:
            outcome = yield from target.direct(command)
        finally:
            # Also after a command without an answer, which may have been executed.
            target.invalidate()
        if not outcome.is_answered:
            raise Unavailable("the second tier did not answer: the value may have been changed, or not")
        if outcome.value == 1:
            return Outcome(value, 0, True)


def replace(space: Space, key: Any, function: Function) -> Any:
    """Replaces the value for a key by `function(value)`, atomically over all processes.

    The lifetime of the value stays.

    Args:
        space: The cache.
        key: The key.
        function: Called with the value, possibly several times; returns the new one.

    Returns:
        The new value; MISSING if there is none.

    Raises:
        Unavailable: The server did not answer: the value may have been changed, or not.
        ValueError: The new value cannot be encoded.
    """
    target = _Target(space, key)
    return run(target.session, _replacing(target, function)).value


async def replace_async(space: Space, key: Any, function: Function) -> Any:
    """Behaves like `replace`, for asyncio."""
    target = _Target(space, key)
    await node_of_async(target.session, target.name)
    return (await run_async(target.session, _replacing(target, function))).value


# --- Removing and returning a value.


def _finish_take(target: _Target, outcomes: dict[int, Outcome]) -> tuple[Any, bool]:
    is_confirmed = outcomes[1].is_confirmed
    target.session.wake_bus_if_unconfirmed(target.number, is_confirmed)
    target.session.waiters.wake(target.name)
    return outcomes[0].value, is_confirmed


def take(space: Space, key: Any) -> tuple[Any, bool]:
    """Removes a key from both tiers, in all processes, by one request, and returns its value.

    Args:
        space: The cache.
        key: The key.

    Returns:
        The value (MISSING if there was none, or the server did not answer), and whether the removal
        is confirmed.
    """
    target = _Target(space, key)
    return _finish_take(target, _many.run_many(target.session, {0: target.read()[2], 1: target.remove()}))


async def take_async(space: Space, key: Any) -> tuple[Any, bool]:
    """Behaves like `take`, for asyncio."""
    target = _Target(space, key)
    await node_of_async(target.session, target.name)
    return _finish_take(target, await _many.run_many_async(target.session, {0: target.read()[2], 1: target.remove()}))


# --- Reading a value with its remaining TTL.

ValueAndRest = tuple[Any, float | None]
"""A value and its remaining TTL in seconds, None for no expiration."""


def _remaining(value: Any, milliseconds: Any, grace: int) -> ValueAndRest | None:
    """Returns the value and its remaining TTL from the reply to PTTL; None if it has expired since.
    """
    if not isinstance(milliseconds, int) or milliseconds == -2:
        return None
    rest = milliseconds * 1_000_000 - grace
    # A value without expiration is written with a distant deadline.
    is_endless = milliseconds < 0 or rest > NO_END // 2
    return value, None if is_endless else max(rest, 1_000_000) / 1e9


@final
class _Reading:
    """A read of a value and its remaining TTL, until the server has confirmed it."""

    def __init__(self, target: _Target) -> None:
        self._target = target
        self.result: ValueAndRest | None = None

    def begin(self) -> dict[int, Steps]:
        """Returns the steps to be driven together."""
        self._call, _, steps = self._target.read()
        if self._target.session.memcached is not None:
            return {0: steps}
        return {0: steps, 1: self._target.direct((b"PTTL", self._target.name))}

    def is_done(self, outcomes: dict[int, Outcome]) -> bool:
        """Records the outcomes; returns whether there is a result."""
        value = outcomes[0].value
        if value is MISSING:
            return self._target.is_absent(self._call)
        if self._target.session.memcached is not None:
            self.result = _remaining(value, self._target.milliseconds_left(self._call), 0)
            return True
        if not outcomes[1].is_answered:
            raise Unavailable("the second tier did not answer")
        self.result = _remaining(value, outcomes[1].value, self._target.grace)
        return True


def read_with_remaining(space: Space, key: Any) -> ValueAndRest | None:
    """Returns the value for a key and its remaining TTL; None if there is no value.

    Args:
        space: The cache.
        key: The key.

    Raises:
        Unavailable: The server did not answer.
    """
    target = _Target(space, key)
    reading = _Reading(target)
    while not reading.is_done(_many.run_many(target.session, reading.begin())):
        pass
    return reading.result


async def read_with_remaining_async(space: Space, key: Any) -> ValueAndRest | None:
    """Behaves like `read_with_remaining`, for asyncio."""
    target = _Target(space, key)
    await node_of_async(target.session, target.name)
    reading = _Reading(target)
    while not reading.is_done(await _many.run_many_async(target.session, reading.begin())):
        pass
    return reading.result
