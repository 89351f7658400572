"""Operations of many keys: those that need the same server share its pipeline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast, final

from hotset._hotset import MISSING
from hotset.tier2._clock import now
from hotset.tier2._commands import GET, Abilities, kind_of_failure, pack
from hotset.tier2._errors import Failed
from hotset.tier2._operations import (
    HIT,
    Background,
    Call,
    Load,
    Need,
    Outcome,
    Probe,
    Raised,
    Send,
    Steps,
    Wait,
    check_not_within,
    drive,
    send,
    send_async,
    wait,
    wait_async,
)
from hotset.tier2._payload import PayloadError
from hotset.tier2._resp import Command
from hotset.tier2._session import Session
from hotset.tier2._space import Space

BulkLoader = Callable[[list[int]], list[Any]]
"""Called with the places of the keys that it must load; returns their values, or what was `Raised`, in that order."""
AsyncBulkLoader = Callable[[list[int]], Awaitable[list[Any]]]


@final
class _Running:
    """Operations that are driven together."""

    def __init__(self, all_steps: dict[int, Steps]) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.needs: dict[int, Need] = {}
        self._steps = all_steps
        for at in all_steps:
            self._advance(at, lambda steps: next(steps))

    def _advance(self, at: int, step: Callable[[Steps], Need]) -> None:
        self.needs.pop(at, None)
        try:
            self.needs[at] = step(self._steps[at])
        except StopIteration as stop:
            self.outcomes[at] = stop.value

    def answer(self, at: int, answer: Any) -> None:
        """Answers an operation's need."""
        self._advance(at, lambda steps: steps.send(answer))

    def fail(self, places: list[int], error: BaseException) -> None:
        """Has operations learn that what they needed was interrupted; raises what they raise in the end: the same error."""
        for at in places:
            try:
                self._advance(at, lambda steps: steps.throw(error))
            except BaseException as raised:
                if raised is not error:
                    raise

    def sends(self) -> dict[int, list[int]]:
        """By server, the operations that have commands for it."""
        found: dict[int, list[int]] = {}
        for at, need in self.needs.items():
            if isinstance(need, Send):
                found.setdefault(need.number, []).append(at)
        return found

    def of(self, kind: type[Any]) -> list[int]:
        """The operations that need something of this kind."""
        return sorted(at for at, need in self.needs.items() if isinstance(need, kind))

    def number_of(self, at: int) -> int:
        """The server that an operation needs probed."""
        need = self.needs[at]
        assert isinstance(need, Probe)
        return need.number

    def probed(self, number: int) -> None:
        """Answers the operations that needed this server probed; those of other servers still need theirs."""
        for at in [at for at in self.of(Probe) if self.number_of(at) == number]:
            self.answer(at, None)

    def first_wait(self) -> tuple[int, Wait]:
        """The operation that waits the shortest."""
        waits = [(need.until, at, need) for at, need in self.needs.items() if isinstance(need, Wait)]
        _, at, need = min(waits, key=lambda each: each[:2])
        return at, need

    def together(self, places: list[int]) -> tuple[Send, list[int]]:
        """One `Send` for all of these, and how many commands each has of it (known once it is sent)."""
        counts: list[int] = []

        def build(connection: int, abilities: Abilities) -> list[Command]:
            counts.clear()
            commands: list[Command] = []
            for at in places:
                need = self.needs[at]
                assert isinstance(need, Send)
                own = need.build(connection, abilities)
                counts.append(len(own))
                commands += own
            return commands

        first = self.needs[places[0]]
        assert isinstance(first, Send)
        return Send(first.number, build), counts

    def share(self, places: list[int], counts: list[int], outcome: Any) -> None:
        """Gives each operation its part of a pipeline's outcome."""
        if isinstance(outcome, Failed):
            for at in places:
                self.answer(at, outcome)
            return
        epoch: int
        replies: list[Any]
        epoch, replies, abilities = outcome
        begin = 0
        for at, count in zip(places, counts, strict=True):
            self.answer(at, (epoch, replies[begin : begin + count], abilities))
            begin += count


def run_many(session: Session, all_steps: dict[int, Steps], loader: BulkLoader | None = None) -> dict[int, Outcome]:
    """Runs operations together in the calling thread. No operation waits while another has something to do: it may hold a lease."""
    running = _Running(all_steps)
    while running.needs:
        if sends := running.sends():
            for places in sends.values():
                need, counts = running.together(places)
                try:
                    outcome = send(session, need)
                except BaseException as error:
                    running.fail(places, error)
                    raise
                running.share(places, counts, outcome)
        elif places := running.of(Probe):
            number = running.number_of(places[0])
            session.probe(number)
            running.probed(number)
        elif places := running.of(Background):
            for at in places:
                running.answer(at, None)
        elif places := running.of(Load):
            assert loader is not None
            try:
                loaded = loader(places)
            except BaseException as error:
                loaded = [Raised(error)] * len(places)
            for at, value in zip(places, loaded, strict=True):
                running.answer(at, value)
        else:
            at, waiting = running.first_wait()
            wait(session, waiting)
            running.answer(at, None)
    return running.outcomes


async def run_many_async(session: Session, all_steps: dict[int, Steps], loader: AsyncBulkLoader | None = None) -> dict[int, Outcome]:
    """As `run_many`, for tasks; servers are asked at the same time."""
    running = _Running(all_steps)
    while running.needs:
        if sends := running.sends():
            grouped = [(places, *running.together(places)) for places in sends.values()]
            try:
                outcomes = await asyncio.gather(*(send_async(session, need) for _, need, _ in grouped))
            except BaseException as error:
                for places, _, _ in grouped:
                    running.fail(places, error)
                raise
            for (places, _, counts), outcome in zip(grouped, outcomes, strict=True):
                running.share(places, counts, outcome)
        elif places := running.of(Probe):
            number = running.number_of(places[0])
            await session.probe_async(number)
            running.probed(number)
        elif places := running.of(Background):
            for at in places:
                running.answer(at, None)
        elif places := running.of(Load):
            assert loader is not None
            try:
                loaded = await loader(places)
            except BaseException as error:
                loaded = [Raised(error)] * len(places)
            for at, value in zip(places, loaded, strict=True):
                running.answer(at, value)
        else:
            at, waiting = running.first_wait()
            await wait_async(session, waiting)
            running.answer(at, None)
    return running.outcomes


# --- Reading many keys: one MGET, then what it leaves to do.


@final
class Reading:
    """The reads of many keys, up to their first replies."""

    def __init__(self, space: Space, keys: list[Any], loads: bool, tags: tuple[bytes, ...]) -> None:
        self._space = space
        self._keys = keys
        session, namespace = space.native()
        self.session = session
        self.outcomes: dict[int, Outcome] = {}
        self._names = [space.key_of((key,), {}) for key in keys]
        if loads:
            for name, _ in self._names:
                check_not_within(name)
        node_of, read, when = session.node_of, namespace.read, now()
        self.ops: list[Any] = [read(name, node_of(name), when, loads, tags) for name, _ in self._names]
        self._replies: dict[int, bytes | None] = {}
        self._unreached: set[int] = set()

    def mget(self) -> tuple[int, bytes, list[int]] | None:
        """The server, one MGET as it is sent, and the places of the keys that it reads; None where that does not pay or is not possible."""
        if self.session.is_cluster:
            return None
        places = [at for at, op in enumerate(self.ops) if op.action == GET]
        if len(places) < 2:
            return None
        return self.ops[places[0]].node, pack([(b"MGET", *[self.ops[at].target for at in places])]), places

    def take(self, places: list[int], epoch: int, replies: Any) -> None:
        """Reports the replies of an MGET. (Of an error the operations learn when they ask again.)"""
        if not isinstance(replies, list) or len(cast("list[bytes | None]", replies)) != len(places):
            return
        when, ops, names, open_value = now(), self.ops, self._names, self._space.codec.open
        for at, reply in zip(places, cast("list[bytes | None]", replies), strict=True):
            op = ops[at]
            self._replies[at] = reply
            if op.reply(when, epoch, reply) == HIT and reply is not None:
                name, full_key = names[at]
                try:
                    value = open_value(name, full_key, op.flags, op.codec, reply[op.offset :])
                except PayloadError:
                    op.reject(when)
                else:
                    self.outcomes[at] = Outcome(value, op.keep_until, True)

    def failed(self, places: list[int], failed: Failed) -> None:
        """Reports that an MGET got no reply."""
        self._unreached.update(places)
        for at in places:
            self.ops[at].failed(now(), kind_of_failure(failed))

    def rest(self) -> dict[int, Steps]:
        """What is left to do, by place."""
        rest: dict[int, Steps] = {}
        for at, key in enumerate(self._keys):
            if at not in self.outcomes:
                call = Call(self._space, (key,), {}, self._names[at][1])
                call.data = self._replies.get(at)
                call.cannot_reach = at in self._unreached
                rest[at] = drive(self.session, call, self.ops[at])
        return rest


def read_many(reading: Reading, loader: BulkLoader | None) -> dict[int, Outcome]:
    """Reads many keys; returns the outcomes by place."""
    session = reading.session
    together = reading.mget()
    if together is not None:
        number, packed, places = together
        try:
            connection = session.take(number)
            reply = connection.exchange(packed, 1)[0]
        except Failed as failed:
            session.note_failed(number, failed)
            reading.failed(places, failed)
        else:
            session.give_back(number, connection)
            reading.take(places, connection.epoch, reply)
    return {**reading.outcomes, **run_many(session, reading.rest(), loader)}


async def read_many_async(reading: Reading, loader: AsyncBulkLoader | None) -> dict[int, Outcome]:
    """As `read_many`, for tasks."""
    session = reading.session
    together = reading.mget()
    if together is not None:
        number, packed, places = together
        try:
            connection = await session.take_async(number)
            reply = await connection.get(packed)
        except Failed as failed:
            session.note_failed(number, failed)
            reading.failed(places, failed)
        else:
            reading.take(places, connection.epoch, reply)
    return {**reading.outcomes, **await run_many_async(session, reading.rest(), loader)}


def value_of(outcome: Outcome) -> Any:
    """Returns an outcome's value, MISSING for an error."""
    return MISSING if outcome.error is not None else outcome.value
