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
# Counters that stay as they are as long as the cache holds what it holds.
_COUNTERS = ("insertions", "evictions", "expirations", "rejections", "entries")


def _stamp(path: str) -> _Stamp:
    """What tells a file from the one that takes its place."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


class Keeper:
    """How one function's results are saved and loaded; and, with a path, that they are."""

    def __init__(self, memo: Memo, name: str, path: str | None, codec: Codec, schema: Schema) -> None:
        # The memo holds this.
        self._memo = weakref.ref(memo)
        self._name = name
        self._codec = codec
        self._schema = codec.number(schema, name)
        # Whoever changes the working directory does not mean this.
        self.path = None if path is None else os.path.abspath(path)
        self.settings = {"snapshot": self.path, "codec": codec.name, "schema": schema}
        self._held: tuple[int, ...] = ()
        self._at_fork: tuple[int, ...] = ()
        self._seen: _Stamp = None
        # What is at the path is none of ours.
        self._foreign = False

    def start(self) -> None:
        """Loads what is there, and sees to it that it will be saved."""
        if self.path is None:
            return
        other = _keepers.get(self.path)
        # (A function of a module that is defined anew, by a reload or in a notebook, takes over. One of the same name that was made within
        # another, or has none, may be any.)
        same = other is not None and other._name == self._name and "<" not in self._name
        if other is not None and other._memo() is not None and not same:
            raise ValueError(f"{self.path} is the snapshot of a function already, {other._name}: give this one, {self._name}, its own")
        _keepers[self.path] = self
        try:
            self.load(None)
        except FileNotFoundError:
            self._note()
        except (SnapshotError, OSError) as error:
            self._note()
            self._foreign = not (isinstance(error, SnapshotError) and error.reason not in ("not a snapshot", "not a file"))
            then = "it will not be replaced" if self._foreign else "the next save takes its place"
            _snapshot.warn(f"{self._name} begins without its snapshot, and {then}: {error}")

    def stop(self) -> None:
        """It is not to be saved after all."""
        if self.path is not None and _keepers.get(self.path) is self:
            del _keepers[self.path]

    def save(self, path: Any) -> int:
        target, memo = self._target(path), self._alive()  # which is alive until this returns
        saved = _snapshot.save(memo, target, self._codec, self._schema)
        if target == self.path:
            self._foreign = False
            self._note()
        return saved

    def load(self, path: Any) -> int:
        target = self._target(path)
        loaded = _snapshot.load(self._alive(), target, self._codec, self._schema)
        if target == self.path:
            self._note()
        return loaded

    def save_at_exit(self) -> None:
        if self._foreign or self._memo() is None:
            return
        try:
            holds = self._holds()
            # (A process that did nothing since a fork, as gunicorn's first one, would put what it knew then in the place of what others
            # have saved.)
            if holds == self._held or (holds == self._at_fork and _stamp(self.path or "") != self._seen):
                return
            self.save(None)
        except Exception as error:
            _snapshot.warn(f"the snapshot of {self._name} was not saved: {error}")

    def forked(self) -> None:
        if self._memo() is not None:
            self._at_fork = self._holds()

    def _note(self) -> None:
        """The file and the cache are the same now."""
        self._held, self._seen = self._holds(), _stamp(self.path or "")

    def _holds(self) -> tuple[int, ...]:
        counted = self._alive().stats()
        return tuple(counted[name] for name in _COUNTERS)

    def _alive(self) -> Memo:
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
_keepers: weakref.WeakValueDictionary[str, Keeper] = weakref.WeakValueDictionary()


def _save_all() -> None:
    for keeper in list(_keepers.values()):
        try:
            keeper.save_at_exit()
        except Exception:
            # A warning that is an error, in this process. The others are to be saved all the same.
            traceback.print_exc()


def _forked() -> None:
    for keeper in list(_keepers.values()):
        keeper.forked()


atexit.register(_save_all)
os.register_at_fork(after_in_parent=_forked, after_in_child=_forked)
