"""Callers that wait for a key to change."""

import threading
from collections.abc import Callable
from typing import final

Wake = Callable[[], object]


@final
class Waiters:
    """By key, the callbacks of callers that wait for another process's load. For any thread."""

    def __init__(self) -> None:
        # Reentrant: a signal handler, or a destructor, may use a cache while the lock is held.
        self._lock = threading.RLock()
        self._by_key: dict[bytes, set[Wake]] = {}

    @property
    def are_any(self) -> bool:
        """Whether a caller waits."""
        return bool(self._by_key)

    def add(self, key: bytes, wake: Wake) -> None:
        """Has `wake` called whenever the key changes, until it is removed.

        Args:
            key: The key.
            wake: The function, called without the lock.
        """
        with self._lock:
            self._by_key.setdefault(key, set()).add(wake)

    def remove(self, key: bytes, wake: Wake) -> None:
        """Undoes `add`.

        Args:
            key: The key.
            wake: The function.
        """
        with self._lock:
            found = self._by_key.get(key)
            if found is not None:
                found.discard(wake)
                if not found:
                    del self._by_key[key]

    def wake(self, key: bytes) -> None:
        """Wakes the callers that wait for the key.

        Args:
            key: The key.
        """
        if not self._by_key:
            return
        with self._lock:
            found = list(self._by_key.get(key, ()))
        for wake in found:
            wake()

    def wake_all(self) -> None:
        """Wakes all callers."""
        with self._lock:
            found = [wake for each in self._by_key.values() for wake in each]
        for wake in found:
            wake()
