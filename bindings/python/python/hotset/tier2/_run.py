"""Runs operations in threads and tasks: performs their needs, requests, loads and waits."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

from hotset.tier2._clock import now
from hotset.tier2._errors import Failed
from hotset.tier2._needs import Load, Outcome, Probe, Raised, Send, Steps, Wait
from hotset.tier2._session import Session

# Seconds between the attempts of a task to acquire a permit to load, which threads may release.
_PERMIT_POLL: Final = 0.005


@final
class _Loading:
    """A load that the running code is part of, until it has ended."""

    __slots__ = ("has_ended", "is_limited", "key")

    def __init__(self, key: bytes, is_limited: bool) -> None:
        self.key = key
        self.is_limited = is_limited
        self.has_ended = False


# The loads that the running code is part of. (Tasks and copies of a context may outlive them.)
_within: contextvars.ContextVar[tuple[_Loading, ...]] = contextvars.ContextVar("hotset_tier2_within", default=())


def check_not_within(key: bytes) -> None:
    """Raises a RuntimeError if the running code is part of a load of this key.

    It would wait for itself.

    Args:
        key: The key.
    """
    for each in _within.get():
        if each.key == key and not each.has_ended:
            raise RuntimeError("a cached function or loader requested the key that it was loading")


def _begin_load(need: Load) -> tuple[_Loading, bool, contextvars.Token[tuple[_Loading, ...]]]:
    """Registers a load; returns it, whether it needs a permit, and the token of the context.

    (A nested load must not wait for the permit of its own outer load.)
    """
    outer = tuple(each for each in _within.get() if not each.has_ended)
    own = _Loading(need.key, need.is_limited)
    return own, need.is_limited and not any(each.is_limited for each in outer), _within.set((*outer, own))


def send(session: Session, need: Send) -> Any:
    """Performs a `Send` for a thread.

    Args:
        session: The session of this process.
        need: What the operation needs.

    Returns:
        The answer.
    """
    try:
        connection = session.take(need.number)
    except Failed as failed:
        return failed
    abilities = session.abilities(need.number)
    try:
        commands = need.build(connection.greeting.connection_id or 0, abilities)
        replies = connection.exchange(session.pack(commands), len(commands))
    except Failed as failed:
        session.note_failed(need.number, failed)
        return failed
    except BaseException:
        connection.close()
        raise
    session.give_back(need.number, connection)
    return connection.epoch, replies, abilities


def wait(session: Session, need: Wait) -> None:
    """Performs a `Wait` for a thread.

    Args:
        session: The session of this process.
        need: What the operation needs.
    """
    changed = threading.Event()
    session.waiters.add(need.key, changed.set)
    try:
        changed.wait(max(0.0, (need.until - now()) / 1e9))
    finally:
        session.waiters.remove(need.key, changed.set)


def _load(session: Session, need: Load, loader: Callable[[], Any]) -> Any:
    own, is_limited, token = _begin_load(need)
    has_permit = False
    try:
        if is_limited:
            session.loads.acquire()
            has_permit = True
        return loader()
    except BaseException as error:
        return Raised(error)
    finally:
        own.has_ended = True
        _within.reset(token)
        if has_permit:
            session.loads.release()


def run(
    session: Session,
    steps: Steps,
    loader: Callable[[], Any] | None = None,
    background: Callable[[Session, Steps, Callable[[], Any]], bool] | None = None,
) -> Outcome:
    """Runs an operation in the calling thread.

    Args:
        session: The session of this process.
        steps: The operation.
        loader: Loads the value.
        background: Has the rest of the operation run elsewhere, while the caller gets a stale
            value; returns whether it will.

    Returns:
        The outcome.

    Raises:
        BaseException: The exception of the loader, if there is no other value to return.
    """
    answer: Any = None
    try:
        need = next(steps)
        while True:
            if isinstance(need, Send):
                try:
                    answer = send(session, need)
                except BaseException as error:
                    need = steps.throw(error)
                    continue
            elif isinstance(need, Wait):
                wait(session, need)
                answer = None
            elif isinstance(need, Load):
                assert loader is not None
                answer = _load(session, need, loader)
            elif isinstance(need, Probe):
                answer = session.probe(need.number)
            else:
                assert loader is not None
                if background is not None and background(session, steps, loader):
                    return Outcome(need.value, 0, True)
                answer = None
            need = steps.send(answer)
    except StopIteration as stop:
        return _outcome(stop.value)


def _outcome(outcome: Outcome) -> Outcome:
    """Returns an outcome, or raises its error."""
    if outcome.error is None:
        return outcome
    try:
        raise outcome.error
    finally:
        # Break the reference cycle: the traceback of the error has this frame.
        del outcome


async def send_async(session: Session, need: Send) -> Any:
    """Behaves like `send`, for asyncio."""
    try:
        connection = await session.take_async(need.number)
    except Failed as failed:
        return failed
    abilities = session.abilities(need.number)
    commands = need.build(connection.greeting.connection_id or 0, abilities)
    try:
        replies = await connection.exchange(session.pack(commands), len(commands))
    except Failed as failed:
        session.note_failed(need.number, failed)
        return failed
    return connection.epoch, replies, abilities


async def wait_async(session: Session, need: Wait) -> None:
    """Behaves like `wait`, for asyncio."""
    loop = asyncio.get_running_loop()
    changed = loop.create_future()

    def set_changed() -> None:
        if not changed.done():
            changed.set_result(None)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(set_changed)
        except RuntimeError:
            # The loop was closed.
            pass

    session.waiters.add(need.key, wake)
    try:
        await asyncio.wait([changed], timeout=max(0.0, (need.until - now()) / 1e9))
    finally:
        session.waiters.remove(need.key, wake)


async def _load_async(session: Session, need: Load, loader: Callable[[], Awaitable[Any]]) -> Any:
    own, is_limited, token = _begin_load(need)
    has_permit = False
    try:
        while is_limited and not (has_permit := session.loads.acquire(blocking=False)):
            await asyncio.sleep(_PERMIT_POLL)
        return await loader()
    except BaseException as error:
        return Raised(error)
    finally:
        own.has_ended = True
        _within.reset(token)
        if has_permit:
            session.loads.release()


async def run_async(
    session: Session,
    steps: Steps,
    loader: Callable[[], Awaitable[Any]] | None = None,
    background: Callable[[Session, Steps, Callable[[], Awaitable[Any]]], bool] | None = None,
) -> Outcome:
    """Behaves like `run`, for asyncio, in the running task."""
    answer: Any = None
    try:
        need = next(steps)
        while True:
            try:
                if isinstance(need, Send):
                    answer = await send_async(session, need)
                elif isinstance(need, Wait):
                    await wait_async(session, need)
                    answer = None
                elif isinstance(need, Load):
                    assert loader is not None
                    answer = await _load_async(session, need, loader)
                elif isinstance(need, Probe):
                    answer = await session.probe_async(need.number)
                else:
                    assert loader is not None
                    if background is not None and background(session, steps, loader):
                        return Outcome(need.value, 0, True)
                    answer = None
            except BaseException as error:
                # Mostly a cancellation: the outcome of what was sent is unknown.
                need = steps.throw(error)
                continue
            need = steps.send(answer)
    except StopIteration as stop:
        return _outcome(stop.value)
