"""Functions whose results outlive the process: loaded when they are decorated, saved when the interpreter exits."""

import atexit
import os
import traceback
import weakref
from typing import Any

from hotset import _snapshot
from hotset._codecs import Codec, Schema
from hotset._hotset import Memo, SnapshotError

_Stamp = tuple[int, int, int] | None
# Counters that stay as they are as long as the cache state what it state.
_COUNTERS = ("insertions", "evictions", "expirations", "rejections", "entries")


def _stamp(path: str) -> _Stamp:
    """What tells a file from the one that takes its place."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


class AutoSnapshotter:
    """How one function's results are saved and loaded; and, with a path, that they are."""

    def __init__(self, memo: Memo, name: str, path: str | None, codec: Codec, schema: Schema) -> None:
        # The memo state this.
        self._memo = weakref.ref(memo)
        self._name = name
        self._codec = codec
        self._schema = codec.number(schema, name)
        # Whoever changes the working directory does not mean this.
        self.path = None if path is None else os.path.abspath(path)
        self.settings = {"snapshot": self.path, "codec": codec.name, "schema": schema}
        self._saved_state: tuple[int, ...] = ()
        self._state_at_fork: tuple[int, ...] = ()
        self._saved_stamp: _Stamp = None
        # What is at the path is none of ours.
        self._is_incompatible = False

    def start(self) -> None:
        """Loads what is there, and sees to it that it will be saved."""
        if self.path is None:
            return
        other = _auto_snapshotters.get(self.path)
        # (A function of a module that is defined anew, by a reload or in a notebook, takes over. One of the same name that was made within
        # another, or has none, may be any.)
        same = other is not None and other._name == self._name and "<" not in self._name
        if other is not None and other._memo() is not None and not same:
            raise ValueError(f"{self.path} is the snapshot of a function already, {other._name}: give this one, {self._name}, its own")
        _auto_snapshotters[self.path] = self
        try:
            self.load(None)
        except FileNotFoundError:
            self._record_saved()
        except (SnapshotError, OSError) as error:
            self._record_saved()
            self._is_incompatible = not (isinstance(error, SnapshotError) and error.reason not in ("not a snapshot", "not a file"))
            then = "it will not be replaced" if self._is_incompatible else "the next save takes its place"
            _snapshot.warn(f"{self._name} begins without its snapshot, and {then}: {error}")

    def stop(self) -> None:
        """It is not to be saved after all."""
        if self.path is not None and _auto_snapshotters.get(self.path) is self:
            del _auto_snapshotters[self.path]

    def save(self, path: Any) -> int:
        target, memo = self._target(path), self._live_memo()  # which is alive until this returns
        saved = _snapshot.save(memo, target, self._codec, self._schema)
        if target == self.path:
            self._is_incompatible = False
            self._record_saved()
        return saved

    def load(self, path: Any) -> int:
        target = self._target(path)
        loaded = _snapshot.load(self._live_memo(), target, self._codec, self._schema)
        if target == self.path:
            self._record_saved()
        return loaded

    def save_at_exit(self) -> None:
        if self._is_incompatible or self._memo() is None:
            return
        try:
            state = self._state()
            # (A process that did nothing since a fork, as gunicorn's first one, would put what it knew then in the place of what others
            # have saved.)
            if state == self._saved_state or (state == self._state_at_fork and _stamp(self.path or "") != self._saved_stamp):
                return
            self.save(None)
        except Exception as error:
            _snapshot.warn(f"the snapshot of {self._name} was not saved: {error}")

    def record_fork(self) -> None:
        if self._memo() is not None:
            self._state_at_fork = self._state()

    def _record_saved(self) -> None:
        """The file and the cache are the same now."""
        self._saved_state, self._saved_stamp = self._state(), _stamp(self.path or "")

    def _state(self) -> tuple[int, ...]:
        counted = self._live_memo().stats()
        return tuple(counted[name] for name in _COUNTERS)

    def _live_memo(self) -> Memo:
        memo = self._memo()
        if memo is None:
            raise ReferenceError("the function is gone")
        return memo

    def _target(self, path: Any) -> str:
        if path is not None:
            return os.path.abspath(_snapshot.path_of(path))
        if self.path is None:
            raise TypeError(f"where? {self._name} has no snapshot of its own: give a path, or cached(snapshot=...)")
        return self.path


# By path. A function that is gone is saved no more.
_auto_snapshotters: weakref.WeakValueDictionary[str, AutoSnapshotter] = weakref.WeakValueDictionary()


def _save_all() -> None:
    for auto_snapshotter in list(_auto_snapshotters.values()):
        try:
            auto_snapshotter.save_at_exit()
        except Exception:
            # A warning that is an error, in this process. The others are to be saved all the same.
            traceback.print_exc()


def _forked() -> None:
    for auto_snapshotter in list(_auto_snapshotters.values()):
        auto_snapshotter.record_fork()


atexit.register(_save_all)
os.register_at_fork(after_in_parent=_forked, after_in_child=_forked)
