"""Saving a cache to a file, and loading it: the codec's part. The native part hands out entries, and takes them back as bytes."""

import inspect
import os
import reprlib
import stat
import warnings
from typing import Any, Protocol

from hotset._codecs import PICKLE, Codec
from hotset._hotset import LoadSession, SaveSession, SnapshotError

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class SnapshotWarning(UserWarning):
    """Something about a snapshot that is to be known, though the program goes on."""


_PACKAGE = os.path.dirname(__file__)


def warn(text: str) -> None:
    """Warns of something, in the name of whoever called the package."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SnapshotWarning, stacklevel=level)


class SnapshotSource(Protocol):
    """A native cache."""

    def saving(self, path: str, schema: int, /) -> SaveSession: ...
    def loading(self, path: str, schema: int, /) -> LoadSession: ...


def codec_error(text: str) -> SnapshotError:
    """What the codec says no to."""
    error = SnapshotError(text)
    error.reason = "codec"
    return error


def path_of(path: Any) -> str:
    """A path that a user gave."""
    try:
        decoded = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"a snapshot's path must be a str, bytes or an os.PathLike, not {type(path).__name__}") from None
    if "\0" in decoded:
        raise ValueError("a snapshot's path must not have a null byte")
    return decoded


def save(cache: SnapshotSource, path: str, codec: Codec, schema: int) -> int:
    """Saves what the codec can write, and returns how many entries that are. See `Cache.save`."""
    written = left_out = 0
    first: tuple[str, Exception] | None = None
    saving = cache.saving(path, schema)
    try:
        while batch := saving.batch():
            for at, (key, value) in enumerate(batch):
                try:
                    key_data, value_data = codec.dumps_key(key), codec.dumps(value)
                except MemoryError:
                    raise
                except Exception as error:
                    left_out += 1
                    first = first or (reprlib.repr(key), error)
                else:
                    saving.add(at, key_data, value_data)
                    written += 1
        if first is not None and not written:
            raise codec_error(f"{path}: not saved, since the codec can write none of {left_out} entries; {_describe(*first)}") from first[1]
        if first is not None:
            # Before the file is replaced: where warnings are errors, this one abandons the save.
            warn(f"{path}: {left_out} of {written + left_out} entries were left out; {_describe(*first)}")
        return saving.finish()
    finally:
        saving.abandon()


def _describe(key: str, error: Exception) -> str:
    return f"the first: {key}: {type(error).__name__}: {error}"


def load(cache: SnapshotSource, path: str, codec: Codec, schema: int) -> int:
    """Loads all of a file or nothing, and returns how many entries came in. See `Cache.load`."""
    try:
        loading = cache.loading(path, schema)
    except SnapshotError as error:
        if error.reason == "schema":
            error.args = (f"{path}: the snapshot was saved by another codec than {codec.name!r}, with another schema, or by another function",)
        raise
    if codec is PICKLE:
        _warn_of_writers(path)
    for key, value in loading:
        try:
            loading.keep(codec.loads_key(key), codec.loads(value))
        except MemoryError:
            raise
        except Exception as error:
            raise codec_error(f"{path}: not loaded, since an entry cannot be made again: {type(error).__name__}: {error}") from error
    return loading.finish()


def _warn_of_writers(path: str) -> None:
    """A pickle does what it says when it is loaded: whoever may write the file may have this process do anything."""
    if not hasattr(os, "geteuid"):
        return
    found = os.stat(path)
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        warn(f"{path}: other users may write this pickle, and so have this process run what they like")
