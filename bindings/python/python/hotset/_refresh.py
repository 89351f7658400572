"""Threads that reload expired results while callers are served the old ones (`stale_while_revalidate`)."""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from contextvars import Context, copy_context
from typing import cast

from hotset._hotset import Reload

_log = logging.getLogger("hotset")


def log_stale(function: object, error: BaseException) -> None:
    """Logs that a function's expired result is served because the function raised. Called once in a spell of failures."""
    name = getattr(function, "__qualname__", repr(function))
    _log.warning("%s failed: its expired result is returned", name, exc_info=error)


class Reloader:
    """A pool of daemon threads: `size` of them, started when there is something to do; they stay, asleep.

    Reloads that hang do not stop the others. While all threads are busy, one more waits for `patience` seconds and then works too, if
    there is still a reload that none has taken; so there are up to `most * size` threads. When all of these are busy as well, the caller
    that finds a result expired reloads it itself.
    """

    def __init__(self, size: int = 4, patience: float = 1.0, most: int = 8) -> None:
        self.size = size
        self._patience = patience
        self._most = most
        self._begin()
        os.register_at_fork(after_in_child=self._forked)
        # Not earlier: threads that are no daemons run until then, and count on reloads.
        atexit.register(self.stop)

    def _begin(self) -> None:
        # (A signal's handler, or a destructor, may call a cached function in the middle of this.)
        lock = threading.RLock()
        self._queued = threading.Condition(lock)
        self._relief = threading.Condition(lock)
        self._stopped = False
        self._queue: deque[tuple[Context, Reload]] = deque()
        self._running: set[Reload] = set()
        self._threads: set[threading.Thread] = set()
        self._idle: set[threading.Thread] = set()
        # Whether one waits until the others have been busy for long.
        self._relieving = False

    def __call__(self, reload: Reload) -> bool:
        """Has the result reloaded, soon, in the caller's context. False if the caller must do that itself."""
        with self._queued:
            if self._stopped:
                # The interpreter exits: the old result will do.
                return True
            if len(self._idle) <= len(self._queue) and not self._add_thread():
                return False
            self._queue.append((copy_context(), reload))
            self._queued.notify()
        return True

    def resize(self, size: int) -> None:
        """Sets the number of threads. Those that are too many end when they have nothing to do."""
        with self._queued:
            self.size = size
            for _ in range(min(len(self._queue), size - len(self._threads))):
                self._add_thread()
            self._queued.notify_all()
            self._relief.notify_all()

    def stop(self) -> None:
        """Ends the threads that have nothing to do; those that are at a reload end with the interpreter, in the middle of it."""
        with self._queued:
            self._stopped = True
            self._queue.clear()
            idle = list(self._idle)
            self._queued.notify_all()
            self._relief.notify_all()
        for thread in idle:
            thread.join()

    def _add_thread(self) -> bool:
        """Under the lock. Whether a thread will take what is queued now."""
        if len(self._threads) < self.size:
            return self._start(self._work)
        if self._relieving:
            return True
        if len(self._threads) >= self._most * self.size:
            return False
        self._relieving = True
        if not self._start(self._relieve):
            self._relieving = False
            return False
        return True

    def _start(self, target: object) -> bool:
        thread = threading.Thread(target=target, name="hotset-refresh", daemon=True)  # type: ignore[arg-type]
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # No more threads are to be had.
            self._threads.discard(thread)
            return False
        return True

    def _relieve(self) -> None:
        deadline = time.monotonic() + self._patience
        with self._queued:
            # (The number of threads may be set to more in between.)
            while self._queue and not self._stopped and len(self._threads) > self.size and (left := deadline - time.monotonic()) > 0:
                self._relief.wait(min(left, threading.TIMEOUT_MAX))
            self._relieving = False
            if not self._queue:
                self._threads.discard(threading.current_thread())
                return
        self._work()

    def _work(self) -> None:
        this = threading.current_thread()
        while True:
            with self._queued:
                self._idle.add(this)
                while not self._queue and not self._stopped and len(self._threads) <= self.size:
                    self._queued.wait()
                self._idle.discard(this)
                if not self._queue:
                    self._threads.discard(this)
                    return
                context, reload = self._queue.popleft()
                self._running.add(reload)
                if not self._queue:
                    self._relief.notify_all()
                elif len(self._idle) < len(self._queue):
                    # The rest may wait for long.
                    self._add_thread()
            try:
                self._run(context, reload)
            finally:
                with self._queued:
                    self._running.discard(reload)
                del context, reload

    @staticmethod
    def _run(context: Context, reload: Reload) -> None:
        try:
            context.run(reload.run)
        except BaseException:
            try:
                _log.warning("reloading %s failed", reload.name, exc_info=True)
            except BaseException:
                # A filter of the user's, say. (Handlers report what they raise themselves.)
                with contextlib.suppress(BaseException):
                    threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))

    def _forked(self) -> None:
        # A child has none of its parent's threads: what they were to reload is due again.
        reloads = [*(reload for _, reload in self._queue), *self._running]
        self._begin()
        for reload in reloads:
            try:
                reload.forked()
            except Exception:
                # A comparison of keys, say. The others are to be reloaded all the same.
                traceback.print_exc()


reloader = Reloader()


def set_reload_threads(count: int, /) -> None:
    """Sets how many threads of this process reload results for `stale_while_revalidate`, of all functions together; 4 unless set.

    While all of them are busy for more than a second, more are started, up to eight times as many; beyond that the caller that
    finds a result expired reloads it itself. Reloads of an `async def` are tasks, and need no threads.

    Args:
        count: The number of threads, at least 1.

    Raises:
        TypeError: If `count` is not an int.
        ValueError: If `count` is less than 1.

    Example:
        >>> import hotset
        >>> hotset.set_reload_threads(16)
    """
    if isinstance(count, bool) or not isinstance(cast(object, count), int):
        raise TypeError(f"count must be an int, not {type(count).__name__}")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    reloader.resize(count)
