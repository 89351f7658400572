"""Loads the results of a function when it is decorated, and saves them at interpreter exit."""

import atexit
import os
import traceback
import weakref
from typing import Any

from hotset import _snapshot
from hotset._codecs import Codec, Schema
from hotset._forks import at_fork
from hotset._hotset import Memo, SnapshotError

_Stamp = tuple[int, int, int] | None
# Counters of which one changes whenever the contents of the cache change.
_COUNTERS = ("insertions", "evictions", "expirations", "rejections", "entries")


def _stamp(path: str) -> _Stamp:
    """Returns what distinguishes a file from one that replaces it; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


class AutoSnapshotter:
    """Saves and loads the results of one function; with a path, automatically.

    Args:
        memo: The function's cache, which holds this object.
        name: The qualified name of the function.
        path: The file of the automatic snapshot; None for none.
        codec: Encodes and decodes the results.
        schema: The user's schema.
    """

    def __init__(self, memo: Memo, name: str, path: str | None, codec: Codec, schema: Schema) -> None:
        # Weak: the memo holds this object.
        self._memo = weakref.ref(memo)
        self._name = name
        self._codec = codec
        self._schema = codec.number(schema, name)
        # Absolute: a later change of the working directory must not move it.
        self.path = None if path is None else os.path.abspath(path)
        self.settings = {"snapshot": self.path, "codec": codec.name, "schema": schema}
        self._saved_state: tuple[int, ...] = ()
        self._state_at_fork: tuple[int, ...] = ()
        self._saved_stamp: _Stamp = None
        # Whether the file at the path is not a snapshot of this function, and must not be replaced.
        self._is_incompatible = False

    def start(self) -> None:
        """Loads the file, and registers the function to be saved at exit.

        Raises:
            ValueError: The path belongs to another live function.
        """
        if self.path is None:
            return
        other = _auto_snapshotters.get(self.path)
        # A function that is defined again, by a reload or in a notebook, takes the path over. One
        # that was defined within another function ("<locals>" in its name) may be a different one.
        same = other is not None and other._name == self._name and "<" not in self._name
        if other is not None and other._memo() is not None and not same:
            raise ValueError(f"{self.path} is already the snapshot of {other._name}: give {self._name} a path of its own")
        _auto_snapshotters[self.path] = self
        try:
            self.load(None)
        except FileNotFoundError:
            self._record_saved()
        except (SnapshotError, OSError) as error:
            self._record_saved()
            self._is_incompatible = not (isinstance(error, SnapshotError) and error.reason not in ("not a snapshot", "not a file"))
            then = "it will not be replaced" if self._is_incompatible else "the next save replaces it"
            _snapshot.warn(f"{self._name} starts without its snapshot, and {then}: {error}")

    def stop(self) -> None:
        """Unregisters the function: it is not saved at exit."""
        if self.path is not None and _auto_snapshotters.get(self.path) is self:
            del _auto_snapshotters[self.path]

    def save(self, path: Any) -> int:
        """Saves the results to `path`, or to the function's own file.

        Args:
            path: The path; None for the function's own.

        Returns:
            The number of saved results.
        """
        target, memo = self._target(path), self._live_memo()  # which is alive until this returns
        saved = _snapshot.save(memo, target, self._codec, self._schema)
        if target == self.path:
            self._is_incompatible = False
            self._record_saved()
        return saved

    def load(self, path: Any) -> int:
        """Loads results from `path`, or from the function's own file.

        Args:
            path: The path; None for the function's own.

        Returns:
            The number of restored results.
        """
        target = self._target(path)
        loaded = _snapshot.load(self._live_memo(), target, self._codec, self._schema)
        if target == self.path:
            self._record_saved()
        return loaded

    def save_at_exit(self) -> None:
        """Saves the results if they changed since the last save or load."""
        if self._is_incompatible or self._memo() is None:
            return
        try:
            state = self._state()
            # A process that did nothing since a fork, such as the master of gunicorn, would
            # overwrite what its children have saved with the results of that time.
            if state == self._saved_state or (state == self._state_at_fork and _stamp(self.path or "") != self._saved_stamp):
                return
            self.save(None)
        except Exception as error:
            _snapshot.warn(f"the snapshot of {self._name} was not saved: {error}")

    def record_fork(self) -> None:
        """Records the state at a fork."""
        if self._memo() is not None:
            self._state_at_fork = self._state()

    def _record_saved(self) -> None:
        """Records that file and cache have the same results now."""
        self._saved_state, self._saved_stamp = self._state(), _stamp(self.path or "")

    def _state(self) -> tuple[int, ...]:
        counted = self._live_memo().stats()
        return tuple(counted[name] for name in _COUNTERS)

    def _live_memo(self) -> Memo:
        memo = self._memo()
        if memo is None:
            raise ReferenceError("the function no longer exists")
        return memo

    def _target(self, path: Any) -> str:
        if path is not None:
            return os.path.abspath(_snapshot.path_of(path))
        if self.path is None:
            raise TypeError(f"{self._name} has no snapshot of its own: give a path, or use cached(snapshot=...)")
        return self.path


# By path. Weak: a function that no longer exists is not saved.
_auto_snapshotters: weakref.WeakValueDictionary[str, AutoSnapshotter] = weakref.WeakValueDictionary()


def _save_all() -> None:
    for auto_snapshotter in list(_auto_snapshotters.values()):
        try:
            auto_snapshotter.save_at_exit()
        except Exception:
            # For example, a warning that is an error in this process. The others must still be
            # saved.
            traceback.print_exc()


def _forked() -> None:
    for auto_snapshotter in list(_auto_snapshotters.values()):
        auto_snapshotter.record_fork()


atexit.register(_save_all)
at_fork(_forked, parent=_forked)
