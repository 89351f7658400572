"""Loads for asyncio: one task loads, and all others await it, in any event loop or thread.

A load runs in a task of its own. So cancelling a caller that awaits it, even the one that started
it, does not cancel the load. If the task itself is cancelled, as when its event loop ends, waiters
elsewhere begin anew; and so they do if the loop was closed before the task ended, or has stopped.
"""

import asyncio
import logging
import traceback
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from hotset._forks import at_fork
from hotset._hotset import MISSING, Flight, check_loads

_log = logging.getLogger("hotset")

_HIT, _LEAD, _WAIT, _STALE, _INTERRUPTED = range(5)

# Seconds between the checks by which a waiter in another event loop notices that the loading one
# has stopped.
_POLL_INTERVAL = 0.05

# The tasks that run the loads of a function.
Tasks = set[asyncio.Task[Any]]
# A load returns an error, or None and a value.
_Task = asyncio.Task[tuple[BaseException | None, Any]]
# The loads that tasks run, by number. They keep the tasks alive: an event loop has only weak
# references.
_loads: dict[int, tuple[_Task, Flight]] = {}
# By event loop, the numbers of the loads that no caller awaits: reloads while callers get the old
# value.
_reloads: dict[asyncio.AbstractEventLoop, set[int]] = {}
# Tasks cancelled by `close`: their waiters in the same event loop raise CancelledError.
_closed: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
# The calls of `close` in progress: the tasks that each is part of, and those that it waits for.
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
    """Returns the value that `begin` finds, or that `load` returns.

    An expired value is returned immediately if `serve_stale` is set, unless its last reload was
    cancelled; otherwise only if its reload fails. A load that is cancelled is begun anew once,
    unless `close` cancelled it.

    Args:
        begin: `Memo.begin` or `Cache.begin`, with the key bound.
        load: Called to load the value; its result is awaited.
        ttl: The time to live of the loaded value, as `ttl_of` returns it.
        serve_stale: Whether an expired value is returned while it is reloaded.
        share: Whether to wait for a load in progress, instead of loading in this task.
        tasks: The set that holds each task while it runs `load`.

    Returns:
        The value, possibly a `WithTtl`.

    Raises:
        RuntimeError: The load would wait for itself.
        asyncio.CancelledError: The load was cancelled by `close`, or twice.
        BaseException: What `load` raises.
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
            # Retried once only: the function itself may cancel its task each time.
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
    """Waits until the loads in this event loop have ended, except those the caller is part of.

    Args:
        tasks: The tasks, as `get` maintains them.
        cancel: Whether to cancel them first. Their waiters in this event loop then raise
            CancelledError; those elsewhere begin anew. Otherwise tasks that wait here for the
            caller's own are not waited for.
    """
    loop = asyncio.get_running_loop()
    outer = {_loads[number][0] for number in _outer_loads.get() if number in _loads}
    outer |= {task for task in (asyncio.current_task(),) if task is not None}
    # `tuple` copies in one step: other event loops may add tasks concurrently.
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
    """Returns the tasks whose `close` waits for one of these, directly or through others."""
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
        # It is in `tasks` already if the function calls itself.
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
        # The task may have been cancelled before its first step.
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
    # Loads that have ended are dropped, or they would accumulate.
    _outer_loads.set((*(outer for outer in _outer_loads.get() if outer in _loads), flight.id))
    # Also set here: a task that is started eagerly runs before `_start_load` has its task.
    _loads[flight.id] = task, flight
    try:
        value = await load()
        # Its waiters may have abandoned it while its event loop was stopped.
        if not flight.done():
            flight.finish(value, ttl)
        return None, value
    except Exception as error:
        # `finish` may have raised (because the weigher did, say), which has ended the load.
        if not flight.done():
            flight.fail(error)
        return error, None
    except asyncio.CancelledError as error:
        _abandon(flight)
        if task.cancelling():
            raise
        # The function raised it without being cancelled: loading again would do the same.
        return error, None
    except BaseException:
        # A GeneratorExit may arrive long after the load has ended, when its event loop is
        # destroyed.
        _abandon(flight)
        raise
    finally:
        # Break the reference cycle error -> traceback -> this frame -> task -> its result, the
        # error.
        del task


def _abandon(flight: Flight) -> None:
    if not flight.done():
        flight.abandon()


def _abandon_if_stopped(number: int, waited: bool) -> None:
    """Abandons a load that cannot complete: its event loop is closed, or does not run.

    A loop may stop briefly, between two calls of `run_until_complete`. So only a caller that has
    `waited`, or one that blocks the loop's own thread, takes a stopped loop for the end.
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
    """Abandons reloads of stopped event loops, or their old values would be returned until expiry.
    """
    running = asyncio.get_running_loop()
    for loop in list(_reloads):
        if loop is not running and not loop.is_running():
            for number in list(_reloads.get(loop, ())):
                _abandon_if_stopped(number, True)


async def _wait_until_done(flight: Flight) -> None:
    """Waits until a load that another task or a thread runs has ended."""
    if flight.id in _outer_loads.get():
        raise RuntimeError("the load of this key would wait for itself: its own loader looks up the same key")
    loop = asyncio.get_running_loop()
    completed = loop.create_future()

    def wake() -> None:
        if not completed.done():
            completed.set_result(None)

    def notify() -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:
            # The loop was closed: no task waits in it.
            pass

    flight.add_done_callback(notify)
    waited = False
    while flight.of_task:
        task, _ = _loads.get(flight.id, (None, None))
        if task is not None and task.get_loop() is loop:
            # A task of this loop: it runs as long as this one does.
            break
        _abandon_if_stopped(flight.id, waited)
        if completed.done() or (await asyncio.wait([completed], timeout=_POLL_INTERVAL))[0]:
            break
        waited = True
    await completed


def _forked() -> None:
    """Abandons all loads in a child: their tasks run in the parent."""
    loads = list(_loads.values())
    _loads.clear()
    _reloads.clear()
    for _, flight in loads:
        try:
            _abandon(flight)
        except Exception:
            # For example, a comparison of keys raises. The other loads must still be abandoned.
            traceback.print_exc()


at_fork(_forked)
