"""The stats file of this process: the figures of its named caches, for other processes to read."""

import os
import sys
import warnings
from typing import Any
from weakref import WeakValueDictionary

from hotset import _hotset

# Named caches, by their numbers in the stats file.
_published: WeakValueDictionary[int, Any] = WeakValueDictionary()


def publish(name: str, cache: Any) -> None:
    """Puts a cache into the stats file, under its name.

    Args:
        name: The name.
        cache: The cache. Of one with a second tier, the first tier is what is shown, and cleared.
    """
    cache = getattr(cache, "_local", cache)
    if not hasattr(cache, "publish"):
        return
    # A lone surrogate has no UTF-8.
    number, warning = cache.publish(name.encode(errors="replace").decode())
    _published[number] = cache
    if warning is not None:
        warnings.warn(f"HOTSET_STATS has no effect: {warning}", RuntimeWarning, stacklevel=4)


def _clear(numbers: list[int]) -> None:
    """Removes all entries of caches, for the reader of the stats file that requests it.

    Raises:
        Exception: The first exception that clearing a cache raised, after the others were cleared.
    """
    raised: Exception | None = None
    for cache in [_published.get(number) for number in numbers]:
        if cache is None:
            continue
        try:
            cache.clear_entries()
        except Exception as error:
            raised = raised or error
    if raised is not None:
        raise raised


def _program() -> str:
    """Returns the name of the program: that of its file, or of its package."""
    path = sys.argv[0] if getattr(sys, "argv", None) else ""
    directory, name = os.path.split(path)
    if name == "__main__.py":
        name = os.path.basename(directory)
    return (name if name not in ("", "-c", "-m", "-") else "python").encode(errors="replace").decode()


def enable_stats_file(directory: str | os.PathLike[str]) -> None:
    """Keeps this process's stats file in a directory, until the process exits.

    The file has the figures of the caches that have a name: `python -m hotset top` shows those of
    all processes. It is rewritten at most once a second, by the call that finds it due. Children
    of a fork have files of their own. The environment variable `HOTSET_STATS` does the same when
    the first cache gets its name.

    Args:
        directory: The directory. It must exist, and no other user may be able to replace files in
            it.

    Raises:
        OSError: The directory does not exist, or cannot be written to.
        ValueError: Other users can replace files in the directory, or this process has its stats
            file in another one.

    Example:
        >>> import hotset
        >>> hotset.enable_stats_file("/no/such/directory")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        FileNotFoundError: [Errno 2] /no/such/directory does not exist: ..; create the directory
    """
    _hotset.enable_stats_file(os.fspath(directory))


_hotset.describe_process(_program(), _clear)
