"""Threads that reload what is past its time to live while the old value is served (`stale_while_revalidate`)."""

import logging
import os
import threading
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any

from hotset._hotset import Memo

_log = logging.getLogger("hotset")
_Job = tuple[Context, Memo, tuple[Any, ...], dict[str, Any]]


class Refresher:
    """At most so many daemon threads, begun when there is something to do; they stay, asleep."""

    def __init__(self, threads: int = 4) -> None:
        self._most = threads
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        # Also what a forked child begins with: it has none of its parent's threads, and its jobs are the parent's.
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0

    def __call__(self, memo: Memo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Has the entry reloaded, soon, in the caller's context."""
        self._jobs.put((copy_context(), memo, args, kwargs))
        with self._lock:
            self._busy += 1
            if self._busy <= self._threads or self._threads == self._most:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="hotset-refresh", daemon=True).start()
        except RuntimeError:
            # No more threads, or the interpreter is ending: the next call tries again, and the old value is served until then.
            with self._lock:
                self._threads -= 1

    def _work(self) -> None:
        while True:
            self._run(self._jobs.get())
            with self._lock:
                self._busy -= 1

    @staticmethod
    def _run(job: _Job) -> None:
        context, memo, args, kwargs = job
        try:
            context.run(memo.refresh, args, kwargs)
        except BaseException:
            _log.warning("reloading %s failed", getattr(memo, "__qualname__", memo), exc_info=True)


refresher = Refresher()
