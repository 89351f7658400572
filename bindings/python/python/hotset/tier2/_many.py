"""Operations of many keys: those for the same server share its pipeline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast, final

from hotset._hotset import MISSING
from hotset.tier2._clock import now
from hotset.tier2._commands import Abilities, kind_of_failure, pack
from hotset.tier2._errors import Failed
from hotset.tier2._needs import Background, Load, Need, Outcome, Probe, Raised, Send, Steps, Wait
from hotset.tier2._operations import Call, drive
from hotset.tier2._run import check_not_within, send, send_async, wait, wait_async
from hotset.tier2._session import Session
from hotset.tier2._space import Space

BulkLoader = Callable[[list[int]], list[Any]]
"""Called with the indices of the keys to load; returns their values, or `Raised`, in that order."""
AsyncBulkLoader = Callable[[list[int]], Awaitable[list[Any]]]


@final
class _Batch:
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
        """Throws `error` into operations whose need was interrupted; raises any other exception."""
        for at in places:
            try:
                self._advance(at, lambda steps: steps.throw(error))
            except BaseException as raised:
                if raised is not error:
                    raise

    def sends(self) -> dict[int, list[int]]:
        """Returns the operations that have commands to send, by server."""
        found: dict[int, list[int]] = {}
        for at, need in self.needs.items():
            if isinstance(need, Send):
                found.setdefault(need.number, []).append(at)
        return found

    def needing(self, kind: type[Any]) -> list[int]:
        """Returns the operations that need something of this kind."""
        return sorted(at for at, need in self.needs.items() if isinstance(need, kind))

    def number_of(self, at: int) -> int:
        """Returns the server that an operation needs to be probed."""
        need = self.needs[at]
        assert isinstance(need, Probe)
        return need.number

    def probed(self, number: int) -> None:
        """Answers the operations that needed this server to be probed."""
        for at in [at for at in self.needing(Probe) if self.number_of(at) == number]:
            self.answer(at, None)

    def first_wait(self) -> tuple[int, Wait]:
        """Returns the operation whose wait is the shortest, and its wait."""
        waits = [(need.until, at, need) for at, need in self.needs.items() if isinstance(need, Wait)]
        _, at, need = min(waits, key=lambda each: each[:2])
        return at, need

    def together(self, places: list[int]) -> tuple[Send, list[int]]:
        """Returns one `Send` for these operations, and the list of each one's number of commands.

        The list is filled when the commands are sent.
        """
        counts: list[int] = []

        def build(connection: int, abilities: Abilities) -> list[Any]:
            counts.clear()
            commands: list[Any] = []
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
        """Passes each operation its part of a pipeline's outcome."""
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
    """Runs operations together in the calling thread.

    No operation waits while another one can be advanced, which may hold a lease.

    Args:
        session: The session of this process.
        all_steps: The operations, by index.
        loader: Loads the values.

    Returns:
        The outcomes by index.
    """
    batch = _Batch(all_steps)
    while batch.needs:
        if sends := batch.sends():
            for places in sends.values():
                need, counts = batch.together(places)
                try:
                    outcome = send(session, need)
                except BaseException as error:
                    batch.fail(places, error)
                    raise
                batch.share(places, counts, outcome)
        elif places := batch.needing(Probe):
            number = batch.number_of(places[0])
            session.probe(number)
            batch.probed(number)
        elif places := batch.needing(Background):
            for at in places:
                batch.answer(at, None)
        elif places := batch.needing(Load):
            assert loader is not None
            try:
                loaded = loader(places)
            except BaseException as error:
                loaded = [Raised(error)] * len(places)
            for at, value in zip(places, loaded, strict=True):
                batch.answer(at, value)
        else:
            at, waiting = batch.first_wait()
            wait(session, waiting)
            batch.answer(at, None)
    return batch.outcomes


async def run_many_async(session: Session, all_steps: dict[int, Steps], loader: AsyncBulkLoader | None = None) -> dict[int, Outcome]:
    """Behaves like `run_many`, for asyncio; servers are queried concurrently."""
    batch = _Batch(all_steps)
    while batch.needs:
        if sends := batch.sends():
            grouped = [(places, *batch.together(places)) for places in sends.values()]
            try:
                outcomes = await asyncio.gather(*(send_async(session, need) for _, need, _ in grouped))
            except BaseException as error:
                for places, _, _ in grouped:
                    batch.fail(places, error)
                raise
            for (places, _, counts), outcome in zip(grouped, outcomes, strict=True):
                batch.share(places, counts, outcome)
        elif places := batch.needing(Probe):
            number = batch.number_of(places[0])
            await session.probe_async(number)
            batch.probed(number)
        elif places := batch.needing(Background):
            for at in places:
                batch.answer(at, None)
        elif places := batch.needing(Load):
            assert loader is not None
            try:
                loaded = await loader(places)
            except BaseException as error:
                loaded = [Raised(error)] * len(places)
            for at, value in zip(places, loaded, strict=True):
                batch.answer(at, value)
        else:
            at, waiting = batch.first_wait()
            await wait_async(session, waiting)
            batch.answer(at, None)
    return batch.outcomes


# --- Reading many keys: one MGET, then the operations that it leaves open.


@final
class Reading:
    """The reads of many keys, up to their first replies."""

    def __init__(self, space: Space, keys: list[Any], loads: bool, tags: tuple[bytes, ...]) -> None:
        self._space = space
        self._keys = keys
        session, namespace = space.native()
        self.session = session
        self.hits: list[tuple[int, Any, int]] = []
        """The index, the value, and until when the first tier may store it, of each key with a
        value.
        """
        self._absent: list[int] = []
        self._names = space.names_of(keys)
        if loads:
            for name, _ in self._names:
                check_not_within(name)
        node_of, when = session.topology.node_of, now()
        self._ops: dict[int, Any] = {}
        self._reads: Any = None
        self._replies: list[bytes | None] = []
        self._is_unreached = False
        self.number = node_of(self._names[0][0])
        if not session.topology.reads_many_in_one or len(keys) < 2:
            self._ops = {at: namespace.read(name, node_of(name), when, loads, tags) for at, (name, _) in enumerate(self._names)}
            return
        reads = namespace.read_many([name for name, _ in self._names], self.number, when, loads, tags)
        if reads.are_gets():
            self._reads = reads
        else:
            self._ops = {at: reads.take(at) for at in range(len(keys))}

    def mget(self) -> bytes | None:
        """Returns one encoded MGET of all keys; None where it is not possible or does not pay."""
        if self._reads is None:
            return None
        return pack([(b"MGET", *[name for name, _ in self._names])])

    def take(self, epoch: int, replies: Any) -> None:
        """Reports the replies of an MGET. (After an error, the operations send their own commands.)

        Args:
            epoch: The epoch of the connection.
            replies: The replies.
        """
        reads, self._reads = self._reads, None
        count = len(self._names)
        if not isinstance(replies, list) or len(cast("list[bytes | None]", replies)) != count:
            self._ops = {at: reads.take(at) for at in range(count)}
            return
        self._replies = cast("list[bytes | None]", replies)
        when, names, codec = now(), self._names, self._space.codec
        decode, number, open_value, hits = codec.decode_plain, codec.number, codec.open, self.hits
        for at, result in enumerate(reads.replies(when, epoch, replies)):
            if result is None:
                self._absent.append(at)
            elif result is False:
                self._ops[at] = reads.take(at)
            else:
                payload, flags, written_by, keep_until = result
                name, full_key = names[at]
                try:
                    if flags == 0 and written_by == number and full_key is None and decode is not None:
                        value = decode(payload)
                    else:
                        value = open_value(name, full_key, flags, written_by, payload)
                except Exception:
                    # A PayloadError, or an exception of the codec.
                    op = self._ops[at] = reads.take(at)
                    op.reject(when)
                else:
                    hits.append((at, value, keep_until))

    def failed(self, failed: Failed) -> None:
        """Reports that an MGET got no reply.

        Args:
            failed: The failure.
        """
        self._is_unreached = True
        reads, self._reads = self._reads, None
        for at in range(len(self._names)):
            op = self._ops[at] = reads.take(at)
            op.failed(now(), kind_of_failure(failed))

    def rest(self) -> dict[int, Steps]:
        """Returns the operations that are still open, by index."""
        rest: dict[int, Steps] = {}
        for at, op in self._ops.items():
            call = Call(self._space, (self._keys[at],), {}, self._names[at][1])
            call.data = self._replies[at] if self._replies else None
            call.cannot_reach = self._is_unreached
            rest[at] = drive(self.session, call, op)
        return rest

    def others(self, outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
        """Adds the outcomes of absent keys: then there is one for each key not among `hits`.

        Args:
            outcomes: The outcomes of the open operations.
        """
        for at in self._absent:
            outcomes[at] = Outcome(MISSING, 0, True)
        return outcomes


def read_many(reading: Reading, loader: BulkLoader | None) -> dict[int, Outcome]:
    """Reads many keys.

    Args:
        reading: The reads.
        loader: Loads absent values; None for none.

    Returns:
        The outcomes by index of the keys that are not among the `hits` of `reading`.
    """
    session = reading.session
    packed = reading.mget()
    if packed is not None:
        number = reading.number
        try:
            connection = session.take(number)
            reply = connection.exchange(packed, 1)[0]
        except Failed as failed:
            session.note_failed(number, failed)
            reading.failed(failed)
        else:
            session.give_back(number, connection)
            reading.take(connection.epoch, reply)
    return reading.others(run_many(session, reading.rest(), loader))


async def read_many_async(reading: Reading, loader: AsyncBulkLoader | None) -> dict[int, Outcome]:
    """Behaves like `read_many`, for asyncio."""
    session = reading.session
    packed = reading.mget()
    if packed is not None:
        number = reading.number
        try:
            connection = await session.take_async(number)
            reply = await connection.get(packed)
        except Failed as failed:
            session.note_failed(number, failed)
            reading.failed(failed)
        else:
            reading.take(connection.epoch, reply)
    return reading.others(await run_many_async(session, reading.rest(), loader))


def value_of(outcome: Outcome) -> Any:
    """Returns the value of an outcome, MISSING for an error.

    Args:
        outcome: The outcome.
    """
    return MISSING if outcome.error is not None else outcome.value
