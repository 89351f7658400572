"""Reads, writes and invalidations through the second tier, for threads and for tasks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, final

from hotset._hotset import WithTtl
from hotset._refresh import reloader
from hotset.tier2._clock import now
from hotset.tier2._commands import GET, Script, kind_of_failure
from hotset.tier2._errors import Failed
from hotset.tier2._keys import quote_name
from hotset.tier2._memcached_commands import Count
from hotset.tier2._many import run_many, run_many_async
from hotset.tier2._needs import Outcome, Steps
from hotset.tier2._operations import HIT, Call, drive, open_payload
from hotset.tier2._payload import NotEncodable, PayloadError
from hotset.tier2._run import check_not_within, run, run_async
from hotset.tier2._session import Session
from hotset.tier2._space import Space

_log = logging.getLogger("hotset")

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Tags = tuple[str, ...]


def keep(outcome: Outcome) -> Any:
    """Returns the value of an outcome, with the time for which the first tier may store it.

    Args:
        outcome: The outcome.

    Returns:
        A `WithTtl`.
    """
    rest = outcome.keep_until - now() if outcome.keep_until else 0
    return WithTtl(outcome.value, max(0, rest) / 1e9)


def tag_names(tags: Tags) -> tuple[bytes, ...]:
    """Returns tags as the core takes them.

    Args:
        tags: The tags.
    """
    return tuple(quote_name(tag) for tag in tags)


# --- Reads.


def read(space: Space, args: Args, kwargs: Kwargs, loader: Callable[[], Any] | None, tags: Tags = ()) -> Outcome:
    """Reads the value for a key from the second tier.

    If it is absent, `loader` is called under a lease.

    Args:
        space: The cache.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
        loader: Loads the value; None to load none.
        tags: Tags of a loaded value.

    Returns:
        The outcome.
    """
    session, namespace = space.native()
    key, full_key = space.key_of(args, kwargs)
    if loader is not None:
        check_not_within(key)
    number = session.topology.node_of(key)
    op = namespace.read(key, number, now(), loader is not None, tag_names(tags) if tags else ())
    call = Call(space, args, kwargs, full_key)
    if op.action == GET:
        try:
            connection = session.take(number)
            reply = connection.get(session.get_command(key))
        except Failed as failed:
            session.note_failed(number, failed)
            call.cannot_reach = True
            op.failed(now(), kind_of_failure(failed))
        else:
            session.give_back(number, connection)
            # After an error reply, the operation sends the command again by itself.
            if reply is None or type(reply) is bytes:
                call.data = reply
                if op.reply(now(), connection.epoch, reply) == HIT:
                    try:
                        return Outcome(open_payload(call, op), op.keep_until, True)
                    except PayloadError:
                        op.reject(now())
    return run(session, drive(session, call, op), loader, _reload_in_background)


async def read_async(space: Space, args: Args, kwargs: Kwargs, loader: Callable[[], Awaitable[Any]] | None, tags: Tags = ()) -> Outcome:
    """Behaves like `read`, for asyncio."""
    session, namespace = space.native()
    key, full_key = space.key_of(args, kwargs)
    if loader is not None:
        check_not_within(key)
    number = await node_of_async(session, key)
    op = namespace.read(key, number, now(), loader is not None, tag_names(tags) if tags else ())
    call = Call(space, args, kwargs, full_key)
    if op.action == GET:
        try:
            connection = await session.take_async(number)
            reply = await connection.get(session.get_command(key))
        except Failed as failed:
            session.note_failed(number, failed)
            call.cannot_reach = True
            op.failed(now(), kind_of_failure(failed))
        else:
            if reply is None or type(reply) is bytes:
                call.data = reply
                if op.reply(now(), connection.epoch, reply) == HIT:
                    try:
                        return Outcome(open_payload(call, op), op.keep_until, True)
                    except PayloadError:
                        op.reject(now())
    return await run_async(session, drive(session, call, op), loader, _reload_in_task)


async def node_of_async(session: Session, key: bytes) -> int:
    """Returns the number of the server that has a key; slow discovery runs in a thread.

    Args:
        session: The session of this process.
        key: The key.
    """
    if session.topology.needs_discovery and not session.topology.discovers_fast:
        await asyncio.get_running_loop().run_in_executor(None, session.topology.discover)
    return session.topology.node_of(key)


# --- Writes.


def _write_call(space: Space, args: Args, kwargs: Kwargs, value: Any) -> tuple[bytes, Call, bool]:
    """Returns the key and the call of a write, and whether the value can be encoded."""
    key, full_key = space.key_of(args, kwargs)
    call = Call(space, args, kwargs, full_key)
    call.loaded = value
    try:
        call.value = space.codec.encode(value)
    except NotEncodable as refused:
        space.note_not_encodable(refused)
        return key, call, False
    return key, call, True


def _end_write(call: Call, outcome: Outcome) -> bool:
    """Stores the written value in the first tier, unless the key was invalidated since it was sent.
    """
    mark, call.mark = call.mark, None
    for other in call.space.siblings():
        if other is not call.space:
            other.first.invalidate(call.args, call.kwargs)
    if mark is not None:
        if not mark.is_valid():
            # Something invalidated all loads while the request was on its way (without
            # announcements that is done periodically). Another caller may have read, and stored,
            # the previous value since then.
            call.invalidate()
        # Callers that joined it must not get an unconfirmed value.
        if outcome.is_confirmed and outcome.keep_until > now():
            mark.finish(call.loaded, (outcome.keep_until - now()) / 1e9)
        else:
            mark.abandon()
    return outcome.is_confirmed


def _keep_here(space: Space, call: Call, ttl: int) -> None:
    """Stores a value that the second tier does not take in the first tier."""
    limit = min(ttl or space.settings.ttl, space.settings.unsynced_ttl)
    space.first.mark(call.args, call.kwargs).finish(call.loaded, limit / 1e9)


def write(space: Space, args: Args, kwargs: Kwargs, value: Any, ttl: int, tags: Tags = ()) -> bool:
    """Sets the value for a key in both tiers.

    Args:
        space: The cache.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
        value: The value.
        ttl: Nanoseconds; 0 for the ttl of the cache.
        tags: The tags of the value.

    Returns:
        Whether the second tier confirmed it.
    """
    session, namespace = space.native()
    key, call, is_encoded = _write_call(space, args, kwargs, value)
    number = session.topology.node_of(key)
    if not is_encoded:
        remove(space, args, kwargs)
        _keep_here(space, call, ttl)
        return False
    op = namespace.write(key, number, now(), ttl, tag_names(tags))
    try:
        outcome = run(session, drive(session, call, op))
    except BaseException:
        call.abandon()
        raise
    session.wake_bus_if_unconfirmed(number, outcome.is_confirmed)
    return _end_write(call, outcome)


async def write_async(space: Space, args: Args, kwargs: Kwargs, value: Any, ttl: int, tags: Tags = ()) -> bool:
    """Behaves like `write`, for asyncio."""
    session, namespace = space.native()
    key, call, is_encoded = _write_call(space, args, kwargs, value)
    number = await node_of_async(session, key)
    if not is_encoded:
        await remove_async(space, args, kwargs)
        _keep_here(space, call, ttl)
        return False
    op = namespace.write(key, number, now(), ttl, tag_names(tags))
    try:
        outcome = await run_async(session, drive(session, call, op))
    except BaseException:
        call.abandon()
        raise
    session.wake_bus_if_unconfirmed(number, outcome.is_confirmed)
    return _end_write(call, outcome)


# The bounds of one pipeline, which has one timeout.
_MOST_WRITES: Final = 256
_MOST_BYTES: Final = 1 << 20


@final
class Writing:
    """Writes of many keys, in pipelines of a bounded size."""

    def __init__(self, space: Space, pairs: list[tuple[Any, Any]], ttl: int, tags: Tags) -> None:
        self._space = space
        self._pairs = pairs
        self._ttl = ttl
        self._tags = tag_names(tags)
        self.session, self._namespace = space.native()
        self._calls: dict[int, tuple[bytes, Call]] = {}
        self.refused: list[int] = []
        """Indices of the values that the codec refuses, or that are too large: after `pipelines`.
        """
        self.unconfirmed: list[int] = []
        """Indices of those that the server did not confirm: after `end`."""

    def pipelines(self) -> Iterator[dict[int, Steps]]:
        """Yields the steps to be driven together, by index, one pipeline after the other."""
        steps: dict[int, Steps] = {}
        size = 0
        for at, (key, value) in enumerate(self._pairs):
            name, call, is_encoded = _write_call(self._space, (key,), {}, value)
            if not is_encoded:
                self.refused.append(at)
                continue
            size += len(call.value[1])
            if steps and (len(steps) == _MOST_WRITES or size > _MOST_BYTES):
                yield steps
                steps, size = {}, len(call.value[1])
            self._calls[at] = name, call
            op = self._namespace.write(name, self.session.topology.node_of(name), now(), self._ttl, self._tags)
            steps[at] = drive(self.session, call, op)
        if steps:
            yield steps

    def end(self, outcomes: dict[int, Outcome]) -> None:
        """Stores the values of a pipeline in the first tier.

        Args:
            outcomes: The outcomes by index.
        """
        for at, outcome in outcomes.items():
            name, call = self._calls.pop(at)
            self.session.wake_bus_if_unconfirmed(self.session.topology.node_of(name), outcome.is_confirmed)
            if not _end_write(call, outcome):
                self.unconfirmed.append(at)

    def abandon(self) -> None:
        """Ends the loads in flight of writes that were not answered."""
        for _, call in self._calls.values():
            call.abandon()

    def refused_call(self, at: int) -> tuple[Args, Call]:
        """Returns the arguments and the call of a value that stays in this process.

        Args:
            at: The index of the value.
        """
        key, value = self._pairs[at]
        call = Call(self._space, (key,), {}, None)
        call.loaded = value
        return (key,), call

    def keep_here(self, call: Call) -> None:
        """Stores a refused value in the first tier.

        Args:
            call: The call.
        """
        _keep_here(self._space, call, self._ttl)

    def failed(self) -> list[int]:
        """Returns the indices of the values that the second tier does not have."""
        return sorted(self.refused + self.unconfirmed)


def write_many(space: Space, pairs: list[tuple[Any, Any]], ttl: int, tags: Tags = ()) -> list[int]:
    """Sets the values of distinct keys in both tiers, by one request per pipeline.

    Args:
        space: The cache.
        pairs: The keys and their values.
        ttl: Nanoseconds; 0 for the ttl of the cache.
        tags: The tags of the values.

    Returns:
        The indices of the values that the second tier did not confirm.
    """
    writing = Writing(space, pairs, ttl, tags)
    try:
        for steps in writing.pipelines():
            writing.end(run_many(writing.session, steps))
    finally:
        writing.abandon()
    for at in writing.refused:
        args, call = writing.refused_call(at)
        remove(space, args, {})
        writing.keep_here(call)
    return writing.failed()


async def write_many_async(space: Space, pairs: list[tuple[Any, Any]], ttl: int, tags: Tags = ()) -> list[int]:
    """Behaves like `write_many`, for asyncio."""
    if pairs:
        await node_of_async(space.native()[0], space.key_of((pairs[0][0],), {})[0])
    writing = Writing(space, pairs, ttl, tags)
    try:
        for steps in writing.pipelines():
            writing.end(await run_many_async(writing.session, steps))
    finally:
        writing.abandon()
    for at in writing.refused:
        args, call = writing.refused_call(at)
        await remove_async(space, args, {})
        writing.keep_here(call)
    return writing.failed()


# --- Operations of one key without a value: remove, expire, touch.

Begin = Callable[[Any, bytes, int], Any]


def _remove(namespace: Any, key: bytes, number: int) -> Any:
    return namespace.remove(key, number, now())


def _expire(namespace: Any, key: bytes, number: int) -> Any:
    return namespace.expire(key, number, now())


def operate(space: Space, args: Args, kwargs: Kwargs, begin: Begin) -> Outcome:
    """Performs an operation of one key.

    Args:
        space: The cache.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
        begin: Starts the operation.

    Returns:
        The outcome.
    """
    session, namespace = space.native()
    key, full_key = space.key_of(args, kwargs)
    number = session.topology.node_of(key)
    outcome = run(session, drive(session, Call(space, args, kwargs, full_key), begin(namespace, key, number)))
    session.wake_bus_if_unconfirmed(number, outcome.is_confirmed)
    session.waiters.wake(key)
    return outcome


async def operate_async(space: Space, args: Args, kwargs: Kwargs, begin: Begin) -> Outcome:
    """Behaves like `operate`, for asyncio."""
    session, namespace = space.native()
    key, full_key = space.key_of(args, kwargs)
    number = await node_of_async(session, key)
    outcome = await run_async(session, drive(session, Call(space, args, kwargs, full_key), begin(namespace, key, number)))
    session.wake_bus_if_unconfirmed(number, outcome.is_confirmed)
    session.waiters.wake(key)
    return outcome


def remove(space: Space, args: Args, kwargs: Kwargs) -> bool:
    """Removes a key from both tiers, in all processes.

    Args:
        space: The cache.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.

    Returns:
        Whether the second tier confirmed it.
    """
    return operate(space, args, kwargs, _remove).is_confirmed


async def remove_async(space: Space, args: Args, kwargs: Kwargs) -> bool:
    """Behaves like `remove`, for asyncio."""
    return (await operate_async(space, args, kwargs, _remove)).is_confirmed


def expire(space: Space, args: Args, kwargs: Kwargs) -> bool:
    """Expires the value for a key, which may be returned stale while it is reloaded.

    Args:
        space: The cache.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.

    Returns:
        Whether the second tier confirmed it.
    """
    return operate(space, args, kwargs, _expire).is_confirmed


async def expire_async(space: Space, args: Args, kwargs: Kwargs) -> bool:
    """Behaves like `expire`, for asyncio."""
    return (await operate_async(space, args, kwargs, _expire)).is_confirmed


# --- Counters.

_COUNT: Final = Script(
    "local n=redis.call('INCRBY',KEYS[1],ARGV[1]) if n==tonumber(ARGV[1]) and ARGV[2]~='0' then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return n"
)


def count_commands(session: Session, key: bytes, delta: int, milliseconds: int) -> list[Any]:
    """Returns the command that adds to a counter.

    Args:
        session: The session of this process.
        key: The key.
        delta: The number to add.
        milliseconds: When a new counter expires; 0: never.
    """
    if session.memcached is not None:
        return [Count(key, delta, milliseconds)]
    if not milliseconds:
        return [(b"INCRBY", key, delta)]
    # Whole: a counter's command is not repeated, so it must not fail with NOSCRIPT.
    return [_COUNT.command(key, delta, milliseconds, whole=True)]


# --- Generations.


def _bumps(space: Space, tag: str | None) -> tuple[Session, dict[int, Steps], list[int]]:
    """Returns the operations that bump all generations of a cache, or of a tag, and their servers.
    """
    session, namespace = space.native()
    session.topology.node_of(b"")
    name = None if tag is None else quote_name(tag)
    keys = space.generation_keys(session)
    namespace.set_generations(keys)
    numbers = session.topology.generation_nodes(keys)
    steps = {
        group: drive(session, Call(space, (), {}, None, is_whole=True), namespace.bump(name, group, number, now()))
        for group, number in enumerate(numbers)
    }
    return session, steps, numbers


def _bumped(session: Session, numbers: list[int], outcomes: dict[int, Outcome]) -> bool:
    for group, number in enumerate(numbers):
        session.wake_bus_if_unconfirmed(number, outcomes[group].is_confirmed)
    return all([outcome.is_confirmed for outcome in outcomes.values()])


def bump(space: Space, tag: str | None) -> bool:
    """Invalidates all keys of a cache, or those with a tag.

    Args:
        space: The cache.
        tag: The tag; None for all keys.

    Returns:
        Whether all servers confirmed it.
    """
    session, steps, numbers = _bumps(space, tag)
    return _bumped(session, numbers, run_many(session, steps))


async def bump_async(space: Space, tag: str | None) -> bool:
    """Behaves like `bump`, for asyncio."""
    await node_of_async(space.native()[0], b"")
    session, steps, numbers = _bumps(space, tag)
    return _bumped(session, numbers, await run_many_async(session, steps))


# --- The rest of an operation whose caller gets a stale value.


@final
class Continuation:
    """The rest of an operation, for a thread that reloads (see `hotset.set_reload_threads`)."""

    def __init__(self, session: Session, steps: Steps, loader: Callable[[], Any]) -> None:
        self._session = session
        self._steps = steps
        self._loader = loader
        self._is_done = False
        self.name: Final = getattr(loader, "__qualname__", "the loader")

    def run(self) -> None:
        """Loads the value, and stores it in the second tier."""
        try:
            run(self._session, self._steps, self._loader)
        finally:
            self._is_done = True

    def abandon(self) -> None:
        """Gives the operation up: its lease expires."""
        self._is_done = True
        self._steps.close()

    def forked(self) -> None:
        """Gives the operation up in a child."""
        self._is_done = True

    def done(self) -> bool:
        """Returns whether it has run, or was abandoned."""
        return self._is_done


def _reload_in_background(session: Session, steps: Steps, loader: Callable[[], Any]) -> bool:
    continuation: Any = Continuation(session, steps, loader)
    return reloader(continuation)


_tasks: set["asyncio.Task[Any]"] = set()


def _reload_in_task(session: Session, steps: Steps, loader: Callable[[], Awaitable[Any]]) -> bool:
    async def rest() -> None:
        try:
            await run_async(session, steps, loader)
        except Exception:
            _log.warning("reloading an expired value failed", exc_info=True)

    task = asyncio.get_running_loop().create_task(rest())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return True

