"""Loads for asyncio: one task loads, all others await it, in whichever event loop or thread they are.

The load runs in a task of its own, so cancelling one who waits, be it the one that began, ends nobody's load. If the task itself is
cancelled, as when its event loop ends, who waits elsewhere begins anew.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from hotset._hotset import MISSING, Flight

_log = logging.getLogger("hotset")

_HIT, _LEAD, _WAIT, _STALE = range(4)

# A load brings an error, or None and a value.
_Task = asyncio.Task[tuple[BaseException | None, Any]]
# By number, the loads that are run by tasks. Also what keeps the tasks alive: an event loop only knows them weakly.
_loads: dict[int, tuple[_Task, Flight]] = {}
# The numbers of the loads that the running code is part of.
_within: ContextVar[tuple[int, ...]] = ContextVar("hotset_within", default=())


async def get(
    begin: Callable[[], tuple[Any, ...]],
    load: Callable[[], Awaitable[Any]],
    ttl: float | None = None,
    *,
    serve_stale: bool = False,
    share: bool = True,
) -> Any:
    """The value that `begin` (Memo.begin or Cache.begin) finds, or that `load` brings.

    One whose time is over is the answer at once if stale values are served, or else if it cannot be loaded anew. Unless loads are
    shared, the one that is going on is not waited for.
    """
    while True:
        kind, found, *more = begin()
        if kind == _HIT:
            return found
        if kind == _WAIT and not share:
            return await load()
        if kind == _WAIT:
            if _is_hopeless(found):
                continue
            await _landing(found)
            value = found.result()
            if value is not MISSING:
                return value
            continue
        task = _lead(found if kind == _LEAD else more[0], load, ttl)
        if kind == _STALE and serve_stale:
            task.add_done_callback(_log_failure)
            return found
        await asyncio.wait([task])
        if task.cancelled():
            continue
        error, value = task.result()
        if error is None:
            return value
        if kind == _STALE and isinstance(error, Exception):
            return found
        try:
            raise error
        finally:
            # Or else the error, with its traceback, would hold itself.
            del error


def _log_failure(task: _Task) -> None:
    if not task.cancelled() and task.exception() is None and task.result()[0] is not None:
        _log.warning("reloading a value whose time is over failed", exc_info=task.result()[0])


def _lead(flight: Flight, load: Callable[[], Awaitable[Any]], ttl: float | None) -> _Task:
    task = asyncio.get_running_loop().create_task(_run(flight, load, ttl))

    def ended(_: object) -> None:
        _loads.pop(flight.id, None)
        # (It may have been cancelled before it ran at all.)
        _abandon(flight)

    _loads[flight.id] = task, flight
    task.add_done_callback(ended)
    return task


async def _run(flight: Flight, load: Callable[[], Awaitable[Any]], ttl: float | None) -> tuple[BaseException | None, Any]:
    task = asyncio.current_task()
    assert task is not None
    # Those that have ended are no longer of interest, and would add up.
    _within.set((*(outer for outer in _within.get() if outer in _loads), flight.id))
    # Here, too: a task that is started eagerly runs before its creator knows it.
    _loads[flight.id] = task, flight
    try:
        value = await load()
        flight.finish(value, ttl)
        return None, value
    except Exception as error:
        # What was loaded may be refused (its weigher raises, say): that has ended the load, then.
        if not flight.done():
            flight.fail(error)
        return error, None
    except asyncio.CancelledError as error:
        _abandon(flight)
        if task.cancelling():
            raise
        # The function's own doing: to begin anew would only bring the same.
        return error, None
    except BaseException:
        # (A GeneratorExit may come long after the load has ended, with the event loop that was to go on with it.)
        _abandon(flight)
        raise


def _abandon(flight: Flight) -> None:
    if not flight.done():
        flight.abandon()


def _is_hopeless(flight: Flight) -> bool:
    """Whether the load that is going on will never end."""
    task, leaders = _loads.get(flight.id, (None, None))
    if task is None or leaders is None:
        return False
    if flight.id in _within.get():
        raise RuntimeError("the load of this key awaits itself: its own loader asks for the same key")
    if not task.get_loop().is_closed() or leaders.done():
        return False
    # That event loop was closed over it, uncancelled.
    _loads.pop(flight.id, None)
    leaders.abandon()
    return True


async def _landing(flight: Flight) -> None:
    loop = asyncio.get_running_loop()
    landed = loop.create_future()

    def wake() -> None:
        if not landed.done():
            landed.set_result(None)

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:
            # The loop was closed: nobody waits there any more.
            pass

    flight.add_done_callback(tell)
    await landed
