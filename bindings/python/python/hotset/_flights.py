"""Loads for asyncio: one task loads, all others await it, in whichever event loop or thread they are.

The load runs in a task of its own, so cancelling one who waits, be it the one that began, ends nobody's load. If the task itself is
cancelled, as when its event loop ends, who waits elsewhere begins anew.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from hotset._hotset import MISSING, Flight

_HIT, _LEAD, _WAIT, _STALE = range(4)

# Also what keeps the tasks alive: an event loop only knows them weakly.
_loads: dict[Flight, asyncio.Task[None]] = {}
# The loads that the running code is part of.
_within: ContextVar[tuple[asyncio.Task[None], ...]] = ContextVar("hotset_within", default=())


async def get(begin: Callable[[], tuple[Any, ...]], load: Callable[[], Awaitable[Any]], *ttl: float | None) -> Any:
    """The value that `begin` (Memo.begin or Cache.begin) finds, or that `load` brings."""
    while True:
        kind, found, *more = begin()
        if kind == _HIT:
            return found
        if kind == _STALE:
            _lead(more[0], load, ttl)
            return found
        if kind == _LEAD:
            _lead(found, load, ttl)
        elif _is_hopeless(found):
            continue
        await _landing(found)
        value = found.result()
        if value is not MISSING:
            return value


def _lead(flight: Flight, load: Callable[[], Awaitable[Any]], ttl: tuple[float | None, ...]) -> None:
    task = asyncio.get_running_loop().create_task(_run(flight, load, ttl))
    _loads[flight] = task

    def ended(_: asyncio.Task[None]) -> None:
        _loads.pop(flight, None)
        # It may have been cancelled before it ran at all; if not, the flight has landed and this does nothing.
        flight.abandon()

    task.add_done_callback(ended)


async def _run(flight: Flight, load: Callable[[], Awaitable[Any]], ttl: tuple[float | None, ...]) -> None:
    task = asyncio.current_task()
    assert task is not None
    # Here, too: a task that is started eagerly runs before its creator knows it.
    _loads[flight] = task
    _within.set((*(outer for outer in _within.get() if not outer.done()), task))
    try:
        value = await load()
    except Exception as error:
        flight.fail(error)
    except asyncio.CancelledError as error:
        if task.cancelling():
            flight.abandon()
        else:
            # The function's own doing: to begin anew would only bring the same.
            flight.fail(error)
        raise
    except BaseException:
        flight.abandon()
        raise
    else:
        flight.finish(value, *ttl)


def _is_hopeless(flight: Flight) -> bool:
    """Whether the load that is going on will never end."""
    task = _loads.get(flight)
    if task is None:
        return False
    if task in _within.get():
        raise RuntimeError("the load of this key awaits itself: its own loader asks for the same key")
    if task.get_loop().is_closed() and not flight.done():
        # That event loop was closed over it, uncancelled.
        _loads.pop(flight, None)
        flight.abandon()
        return True
    return False


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
