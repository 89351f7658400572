"""Threads that reload expired results while callers get the old ones (`stale_while_revalidate`)."""

import atexit
import contextlib
import logging
import sys
import threading
import time
import traceback
from collections import deque
from contextvars import Context, copy_context
from typing import cast

from hotset._forks import at_fork
from hotset._hotset import Reload

_log = logging.getLogger("hotset")


def log_stale(function: object, error: BaseException) -> None:
    """Logs that a function's expired result is returned because the function raised.

    Called once per series of failures.

    Args:
        function: The function.
        error: What it raised.
    """
    name = getattr(function, "__qualname__", repr(function))
    _log.warning("%s failed: its expired result is returned", name, exc_info=error)


class Reloader:
    """A pool of `size` daemon threads that reload results.

    A thread is started when there is work that no idle thread takes, and then stays, asleep while
    idle. A reload that hangs does not stop the others: while all threads are busy, one extra thread
    waits for `patience` seconds, and then works too if a reload is still queued. So there are up to
    `most * size` threads. When all of these are busy, the caller that finds a result expired
    reloads it itself.

    Args:
        size: The number of threads.
        patience: Seconds.
        most: The greatest number of threads, as a multiple of `size`.
    """

    def __init__(self, size: int = 4, patience: float = 1.0, most: int = 8) -> None:
        self.size = size
        self._patience = patience
        self._most = most
        self._begin()
        at_fork(self._forked)
        # Not earlier: non-daemon threads run until then, and depend on reloads.
        atexit.register(self.stop)

    def _begin(self) -> None:
        # Reentrant: a signal handler, or a destructor, may call a cached function while the lock is
        # held.
        lock = threading.RLock()
        self._queued = threading.Condition(lock)
        self._relief = threading.Condition(lock)
        self._stopped = False
        self._queue: deque[tuple[Context, Reload]] = deque()
        self._running: set[Reload] = set()
        self._threads: set[threading.Thread] = set()
        self._idle: set[threading.Thread] = set()
        # Whether an extra thread waits for the others to stay busy.
        self._relieving = False

    def __call__(self, reload: Reload) -> bool:
        """Queues a reload, to be run by a thread in the caller's context.

        Args:
            reload: The reload.

        Returns:
            False if the caller must reload the result itself.
        """
        with self._queued:
            if self._stopped:
                # The interpreter exits: the old result suffices.
                return True
            if len(self._idle) <= len(self._queue) and not self._add_thread():
                return False
            self._queue.append((copy_context(), reload))
            self._queued.notify()
        return True

    def resize(self, size: int) -> None:
        """Sets the number of threads; surplus ones end when they are idle.

        Args:
            size: The number of threads.
        """
        with self._queued:
            self.size = size
            for _ in range(min(len(self._queue), size - len(self._threads))):
                self._add_thread()
            self._queued.notify_all()
            self._relief.notify_all()

    def stop(self) -> None:
        """Ends the idle threads; busy ones end with the interpreter, in the middle of a reload."""
        with self._queued:
            self._stopped = True
            self._queue.clear()
            idle = list(self._idle)
            self._queued.notify_all()
            self._relief.notify_all()
        for thread in idle:
            thread.join()

    def _add_thread(self) -> bool:
        """Returns whether a thread will take what is queued now, after starting one if needed.

        The caller holds the lock.
        """
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
            # The operating system refuses more threads.
            self._threads.discard(thread)
            return False
        return True

    def _relieve(self) -> None:
        deadline = time.monotonic() + self._patience
        with self._queued:
            # `size` may be increased in between.
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
                    # The reload that this thread runs now may take long: start a thread for the
                    # rest.
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
                # For example, a logging filter raises. (Handlers report their own exceptions.)
                with contextlib.suppress(BaseException):
                    threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))

    def _forked(self) -> None:
        # A child has none of its parent's threads: their reloads are due again.
        reloads = [*(reload for _, reload in self._queue), *self._running]
        self._begin()
        for reload in reloads:
            try:
                reload.forked()
            except Exception:
                # For example, a comparison of keys raises. The other reloads must still be
                # released.
                traceback.print_exc()


reloader = Reloader()


def set_reload_threads(count: int, /) -> None:
    """Sets the number of threads that reload results for `stale_while_revalidate`; 4 by default.

    They serve all functions of this process. While all of them are busy for more than a second,
    more are started, up to eight times as many; beyond that, the caller that finds a result expired
    reloads it itself. Reloads of an `async def` are tasks, and need no threads.

    Args:
        count: The number of threads, at least 1.

    Raises:
        TypeError: `count` is not an int.
        ValueError: `count` is less than 1.

    Example:
        >>> import hotset
        >>> hotset.set_reload_threads(16)
    """
    if isinstance(count, bool) or not isinstance(cast(object, count), int):
        raise TypeError(f"count must be an int, not {type(count).__name__}")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    reloader.resize(count)
