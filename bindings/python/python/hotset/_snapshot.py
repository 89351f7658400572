"""Saves a cache to a file and loads it.

The native part iterates over the entries and writes the file; the codec encodes and decodes them
here, since it may be Python code.
"""

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
    """A problem with a snapshot after which the program can continue.

    Example:
        >>> import hotset, tempfile, warnings
        >>> cache: hotset.Cache[str, object] = hotset.Cache(100)
        >>> cache.set_many({"a": 1, "b": object()})
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         cache.save(f"{folder}/file")  # without "b", which the codec cannot encode
        1
        >>> caught[0].category is hotset.SnapshotWarning
        True
    """


_PACKAGE = os.path.dirname(__file__)


def warn(text: str) -> None:
    """Issues a SnapshotWarning that points at the caller of the package.

    Args:
        text: The message.
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SnapshotWarning, stacklevel=level)


class SnapshotSource(Protocol):
    """A native cache, as saving and loading use it."""

    def save_session(self, path: str, schema: int, /) -> SaveSession:
        """Begins a save to `path`."""
        ...

    def load_session(self, path: str, schema: int, /) -> LoadSession:
        """Begins a load from `path`."""
        ...


def codec_error(text: str) -> SnapshotError:
    """Returns a SnapshotError for entries that the codec cannot encode or decode.

    Args:
        text: The message.

    Returns:
        The error, with the reason "codec".
    """
    error = SnapshotError(text)
    error.reason = "codec"
    return error


def path_of(path: Any) -> str:
    """Returns a path that a user passed as a str.

    Args:
        path: The path.

    Returns:
        The decoded path.

    Raises:
        TypeError: `path` is not a path.
        ValueError: `path` contains a null byte.
    """
    try:
        decoded = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"a snapshot's path must be a str, bytes or an os.PathLike, not {type(path).__name__}") from None
    if "\0" in decoded:
        raise ValueError("a snapshot's path must not contain a null byte")
    return decoded


def save(cache: SnapshotSource, path: str, codec: Codec, schema: int) -> int:
    """Saves the entries that the codec can encode. See `Cache.save`.

    Args:
        cache: The native cache.
        path: The path of the file.
        codec: Encodes keys and values.
        schema: The schema number of the file.

    Returns:
        The number of saved entries.

    Raises:
        SnapshotError: The codec can encode none of the entries.
        OSError: The operating system refused to write the file.
    """
    written = left_out = 0
    first: tuple[str, Exception] | None = None
    save_session = cache.save_session(path, schema)
    try:
        while batch := save_session.batch():
            for at, (key, value) in enumerate(batch):
                try:
                    key_data, value_data = codec.dumps_key(key), codec.dumps(value)
                except MemoryError:
                    raise
                except Exception as error:
                    left_out += 1
                    first = first or (reprlib.repr(key), error)
                else:
                    save_session.add(at, key_data, value_data)
                    written += 1
        if first is not None and not written:
            raise codec_error(f"{path}: not saved: the codec can encode none of {left_out} entries; {_describe(*first)}") from first[1]
        if first is not None:
            # Warn before the file is replaced: where warnings are errors, this one abandons the
            # save.
            warn(f"{path}: {left_out} of {written + left_out} entries were left out; {_describe(*first)}")
        return save_session.finish()
    finally:
        save_session.abandon()


def _describe(key: str, error: Exception) -> str:
    return f"the first: {key}: {type(error).__name__}: {error}"


def load(cache: SnapshotSource, path: str, codec: Codec, schema: int) -> int:
    """Loads all entries of a file, or none. See `Cache.load`.

    Args:
        cache: The native cache.
        path: The path of the file.
        codec: Decodes keys and values.
        schema: The schema number that the file must have.

    Returns:
        The number of restored entries.

    Raises:
        SnapshotError: The file is corrupt or incompatible, or the codec cannot decode an entry.
        OSError: The operating system refused to read the file.
    """
    try:
        load_session = cache.load_session(path, schema)
    except SnapshotError as error:
        if error.reason == "schema":
            error.args = (f"{path}: snapshot was saved with another codec than {codec.name!r}, another schema, or by another function",)
        raise
    if codec is PICKLE:
        _warn_of_writers(path)
    for key, value in load_session:
        try:
            load_session.stage(codec.loads_key(key), codec.loads(value))
        except MemoryError:
            raise
        except Exception as error:
            raise codec_error(f"{path}: not loaded: the codec cannot decode an entry: {type(error).__name__}: {error}") from error
    return load_session.finish()


def _warn_of_writers(path: str) -> None:
    """Warns if other users may write the file, since loading a pickle runs code of its writer."""
    if not hasattr(os, "geteuid"):
        return
    found = os.stat(path)
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        warn(f"{path}: other users may write this pickle, and so run code in this process: restrict its permissions")
