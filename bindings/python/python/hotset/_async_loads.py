"""Loads for asyncio: one task loads, all others await it, in whichever event loop or thread they are.

The load runs in a task of its own, so cancelling a caller that awaits it, be it the one that began it, cancels no load. If the task
itself is cancelled, as when its event loop ends, waiters elsewhere begin anew; and so they do if the loop was closed over it, or has
stopped.
"""

import asyncio
import logging
import os
import traceback
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from hotset._hotset import MISSING, Flight, check_loads

_log = logging.getLogger("hotset")

_HIT, _LEAD, _WAIT, _STALE, _INTERRUPTED = range(5)

# Seconds after which a waiter of another event loop looks whether the one that loads still runs.
_POLL_INTERVAL = 0.05

# The tasks that run a function's loads.
Tasks = set[asyncio.Task[Any]]
# A load brings an error, or None and a value.
_Task = asyncio.Task[tuple[BaseException | None, Any]]
# By number, the loads that are run by tasks. Also what keeps the tasks alive: an event loop only knows them weakly.
_loads: dict[int, tuple[_Task, Flight]] = {}
# By event loop, the numbers of those that reload a value which callers are served: no caller awaits them.
_reloads: dict[asyncio.AbstractEventLoop, set[int]] = {}
# Cancelled by `close`: their waiters in the same event loop raise CancelledError.
_closed: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
# The calls of `close` that wait: the tasks that each is part of, and those that it waits for.
_closings: list[tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]] = []
# The numbers of the loads that the running code is part of.
_outer_loads: ContextVar[tuple[int, ...]] = ContextVar("hotset_outer_loads", default=())


async def get(
    begin: Callable[[], tuple[Any, ...]],
    load: Callable[[], Awaitable[Any]],
    ttl: float | None = None,
    *,
    serve_stale: bool = False,
    share: bool = True,
    tasks: Tasks | None = None,
) -> Any:
    """The value that `begin` (Memo.begin or Cache.begin) finds, or that `load` brings.

    An expired one is the answer immediately if stale values are served, unless its last reload was cancelled; or else if it cannot be
    loaded anew. Unless loads are shared, the one that is in progress is not waited for. A load that is cancelled is begun anew once,
    unless `close` cancelled it. While a task runs `load`, it is in `tasks`.
    """
    if _reloads and serve_stale:
        _abandon_stopped()
    cancelled = False
    while True:
        kind, found, *more = begin()
        if kind == _HIT:
            return found
        if kind == _WAIT and not share:
            return await _run_aside(load, tasks)
        if kind == _WAIT:
            awaited, _ = _loads.get(found.id, (None, None))
            await _wait_until_done(found)
            value = found.result()
            if value is not MISSING:
                return value
            if awaited is not None and _is_closed(awaited):
                raise asyncio.CancelledError
            continue
        background = kind == _STALE and serve_stale
        flight: Flight = found if kind == _LEAD else more[0]
        task = _start_load(flight, load, ttl, background, tasks)
        if background:
            return found
        await asyncio.wait([task])
        if task.cancelled():
            # By the function itself, maybe: then it would be called without end.
            if cancelled or _is_closed(task):
                raise asyncio.CancelledError
            cancelled = True
            continue
        error, value = task.result()
        if error is None:
            return value
        if kind != _LEAD and isinstance(error, Exception):
            try:
                flight.log_stale(error)
                return found
            finally:
                # (As in `_run`.)
                del error, task
        try:
            raise error
        finally:
            # (As in `_run`.)
            del error, task


def _log_failure(task: _Task) -> None:
    if not task.cancelled() and task.exception() is None and task.result()[0] is not None:
        _log.warning("reloading an expired value failed", exc_info=task.result()[0])


async def close(tasks: Tasks, *, cancel: bool) -> None:
    """Waits until the tasks of this event loop that run loads have ended, except those that the caller is part of.

    Args:
        tasks: The tasks, as `get` keeps them.
        cancel: Cancel them first. Their waiters in this event loop raise CancelledError; those elsewhere begin anew. Otherwise tasks that
            wait here for the caller's are not waited for.
    """
    loop = asyncio.get_running_loop()
    outer = {_loads[number][0] for number in _outer_loads.get() if number in _loads}
    outer |= {task for task in (asyncio.current_task(),) if task is not None}
    # (Other event loops may add theirs: `tuple` copies in one step.)
    open_tasks = [task for task in tuple(tasks) if task.get_loop() is loop and not task.done() and task not in outer]
    if cancel:
        for task in open_tasks:
            _closed.add(task)
            task.cancel()
    else:
        waiting = _waiting_for(outer)
        open_tasks = [task for task in open_tasks if task not in waiting]
    if open_tasks:
        closing = outer, set(open_tasks)
        _closings.append(closing)
        try:
            await asyncio.wait(open_tasks)
        finally:
            _closings.remove(closing)


def _waiting_for(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Returns the tasks whose `close` waits for one of these, also over others."""
    found: set[asyncio.Task[Any]] = set()
    while new := {task for outer, awaited in _closings if awaited & (tasks | found) for task in outer} - found:
        found |= new
    return found


def _is_closed(task: asyncio.Task[Any]) -> bool:
    return task in _closed and task.get_loop() is asyncio.get_running_loop()


async def _run_aside(load: Callable[[], Awaitable[Any]], tasks: Tasks | None) -> Any:
    """Runs a load that is not shared, in the caller's own task."""
    task = asyncio.current_task()
    if tasks is None or task is None or task in tasks:
        # (In `tasks` already: the function calls itself.)
        return await load()
    tasks.add(task)
    try:
        return await load()
    finally:
        tasks.discard(task)
        # (As in `_run`.)
        del task


def _start_load(flight: Flight, load: Callable[[], Awaitable[Any]], ttl: float | None, background: bool, tasks: Tasks | None) -> _Task:
    loop = asyncio.get_running_loop()
    task = loop.create_task(_run(flight, load, ttl))

    def on_done(_: object) -> None:
        if tasks is not None:
            tasks.discard(task)
        _drop_load(flight.id, loop)
        # (It may have been cancelled before it ran at all.)
        _abandon(flight)

    _loads[flight.id] = task, flight
    if background:
        _reloads.setdefault(loop, set()).add(flight.id)
    if tasks is not None:
        tasks.add(task)
    task.add_done_callback(on_done)
    if background:
        task.add_done_callback(_log_failure)
    return task


def _drop_load(number: int, loop: asyncio.AbstractEventLoop) -> None:
    _loads.pop(number, None)
    numbers = _reloads.get(loop)
    if numbers is not None:
        numbers.discard(number)
        if not numbers:
            _reloads.pop(loop, None)


async def _run(flight: Flight, load: Callable[[], Awaitable[Any]], ttl: float | None) -> tuple[BaseException | None, Any]:
    task = asyncio.current_task()
    assert task is not None
    # Those that have ended are no longer of interest, and would add up.
    _outer_loads.set((*(outer for outer in _outer_loads.get() if outer in _loads), flight.id))
    # Here, too: a task that is started eagerly runs before its creator knows it.
    _loads[flight.id] = task, flight
    try:
        value = await load()
        # (Its waiters may have abandoned it while its event loop had stopped.)
        if not flight.done():
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
        # (A GeneratorExit may come long after the load has ended, with the event loop that was to continue it.)
        _abandon(flight)
        raise
    finally:
        # Or else an error would hold itself: by its traceback, which has this frame, and by the task's result.
        del task


def _abandon(flight: Flight) -> None:
    if not flight.done():
        flight.abandon()


def _abandon_if_stopped(number: int, waited: bool) -> None:
    """Abandons a load that will never end: its event loop was closed over it, uncancelled, or does not run.

    A loop may stop for an instant, between two calls of `run_until_complete`: so only a caller that has waited takes that for its end,
    or one that blocks the loop's own thread.
    """
    task, flight = _loads.get(number, (None, None))
    if task is None or flight is None or flight.done():
        return
    loop = task.get_loop()
    if loop.is_closed() or (waited and not loop.is_running()):
        _drop_load(number, loop)
        _abandon(flight)


check_loads(_abandon_if_stopped)


def _abandon_stopped() -> None:
    """Abandons reloads whose event loops do not run any more: the values that they were to replace would be served until they expire."""
    running = asyncio.get_running_loop()
    for loop in list(_reloads):
        if loop is not running and not loop.is_running():
            for number in list(_reloads.get(loop, ())):
                _abandon_if_stopped(number, True)


async def _wait_until_done(flight: Flight) -> None:
    """Waits until a load has ended that another task, or a thread, leads."""
    if flight.id in _outer_loads.get():
        raise RuntimeError("the load of this key awaits itself: its own loader looks up the same key")
    loop = asyncio.get_running_loop()
    completed = loop.create_future()

    def wake() -> None:
        if not completed.done():
            completed.set_result(None)

    def notify() -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:
            # The loop was closed: no task waits there any more.
            pass

    flight.add_done_callback(notify)
    waited = False
    while flight.of_task:
        task, _ = _loads.get(flight.id, (None, None))
        if task is not None and task.get_loop() is loop:
            # It runs as long as this one.
            break
        _abandon_if_stopped(flight.id, waited)
        if completed.done() or (await asyncio.wait([completed], timeout=_POLL_INTERVAL))[0]:
            break
        waited = True
    await completed


def _forked() -> None:
    """In a child, whose parent runs the tasks that it knows."""
    loads = list(_loads.values())
    _loads.clear()
    _reloads.clear()
    for _, flight in loads:
        try:
            _abandon(flight)
        except Exception:
            # A comparison of keys, say. The others are to be abandoned all the same.
            traceback.print_exc()


os.register_at_fork(after_in_child=_forked)
