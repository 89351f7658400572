"""Reads stats files: the figures of the named caches of other processes.

`HOTSET_STATS=directory` has each process keep a file there. docs/reference/stats-file-format.md
describes the format. No byte of a file is trusted.
"""

import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_MAGIC = b"HOTSTAT\0"
_VERSION = 1
_UNKNOWN = 2**64 - 1
_HEADER = 4096
_CHECKED = 508
_SLOT_HEADER = 128
_RECORD = 2048
_MAX_RECORDS = 256
_SLOT = _SLOT_HEADER + _MAX_RECORDS * _RECORD
# version, header, slot, slot header, record, most records, kind, pid, start, created, namespace,
# descriptor, parent, uid
_header = struct.Struct("<8x8I3Q3I")
# checksum, length, sequence, time, monotonic, records, omitted, answered, answer
_slot = struct.Struct("<2I3Q2IQI")
# id, flags, length of the name
_record = struct.Struct("<QII")
# created, capacity, weight, entries, bytes, 12 counters, 8 bytes of 0, 8 figures of the second tier
_figures = struct.Struct("<5Q12Q8x8Q")
_request = struct.Struct("<QIIQ36x")
_FIGURES, _BUCKETS, _POINTS, _SAMPLES = 272, 480, 872, 1072
_MAX_BUCKETS, _MAX_POINTS, _MAX_SAMPLES = 24, 8, 60
_REQUEST = 512
_CLEAR = 1
_WEIGHTED, _NAME_CUT, _HAS_TIER2 = 1, 2, 4
_KINDS = {1: "rust", 2: "c", 3: "python"}
_ANSWERS = {0: None, 1: "done", 2: "no such cache", 3: "unknown operation", 4: "failed"}
_TIER2 = ("hits", "misses", "failures", "writes", "invalidations")
_NAME = re.compile(r"hotset-\d{1,10}-\d{1,2}\.stats", re.ASCII)
_DRAFT = re.compile(r"\.hotset-\d{1,10}-\d{1,20}\.tmp", re.ASCII)


class StatsError(Exception):
    """A stats file, or a directory of such files, cannot be read.

    Attributes:
        path: The file or directory.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path!r} {message}")
        self.path = path


class CacheStats(NamedTuple):
    """The figures of one named cache of a process. A figure that the process does not know is None.

    Attributes:
        id: The number of the cache in its process, which is never reused.
        name: Its name: any text.
        weighted: Whether capacity and weight are in the unit of a weigher, not in entries.
        created: The Unix time at which the cache got its name, in seconds.
        capacity: The capacity; None without a bound.
        weight: The weight of the entries.
        entries: The number of entries.
        bytes: The size of the entries.
        hits: Lookups that found their key.
        misses: Lookups that did not.
        stale_hits: Hits that returned a value that was due for a reload.
        waits: Calls that waited for another caller's load.
        insertions: The number of entries inserted.
        evictions: Entries that were removed to make room.
        evicted_weight: The weight of these.
        rejections: New entries that were not admitted.
        expirations: Entries that expired.
        loads: Loaders that returned a value.
        load_failures: Loaders that failed.
        load_time: The total duration of all loads, in seconds.
        tier2: The figures of the second tier by name; None if there is no second tier.
        buckets: The latencies of loads: pairs of an upper bound in seconds and the number of loads
            at most that long, but longer than the bound before.
        curve: The miss-ratio curve: capacity, hit ratio, and bytes.
        samples: The last minute or more, oldest first: seconds, and the hits and misses in them.
    """

    id: int
    name: str
    weighted: bool
    created: float
    capacity: int | None
    weight: int
    entries: int
    bytes: int | None
    hits: int
    misses: int
    stale_hits: int | None
    waits: int
    insertions: int
    evictions: int
    evicted_weight: int | None
    rejections: int
    expirations: int
    loads: int
    load_failures: int
    load_time: float
    tier2: dict[str, int] | None
    buckets: list[tuple[float, int]]
    curve: list[tuple[int, float, int | None]]
    samples: list[tuple[float, int, int]]


class ProcessStats(NamedTuple):
    """What a process has written last.

    Attributes:
        path: The file.
        kind: "rust", "c" or "python".
        pid: The number of the process.
        parent: The number of the parent that started it.
        program: The name of the program: any text.
        alive: Whether the process that wrote the file is running; None if that cannot be known.
        created: The Unix time at which the file was created, in seconds.
        sequence: The number of the update.
        time: The Unix time of the update, in seconds.
        monotonic: The time of the update by `time.monotonic()`.
        answered: The number of the last request that the process has read.
        answer: Its outcome, "done" for example; None while it is being carried out.
        omitted: The number of named caches for which the file has no room.
        caches: The caches.
    """

    path: str
    kind: str
    pid: int
    parent: int
    program: str
    alive: bool | None
    created: float
    sequence: int
    time: float
    monotonic: float
    answered: int
    answer: str | None
    omitted: int
    caches: list[CacheStats]


class _Corrupt(Exception):
    pass


class _Header(NamedTuple):
    header: int
    slot: int
    slot_header: int
    record: int
    records: int
    kind: str
    pid: int
    start: int
    created: int
    namespace: int
    descriptor: int
    parent: int
    program: str


def _parse_header(path: str, data: bytes) -> _Header:
    if data[:8] != _MAGIC:
        raise StatsError(path, "is not a stats file: choose one named hotset-<pid>-<n>.stats")
    if len(data) < _HEADER:
        raise _Corrupt
    version, header, slot, slot_header, record, records, kind, pid, start, created, namespace, descriptor, parent, _ = _header.unpack_from(data)
    if version != _VERSION:
        raise StatsError(path, f"has version {version} of the format, expected {_VERSION}: read it with the version of hotset that wrote it")
    if zlib.crc32(data[:_CHECKED]) != int.from_bytes(data[_CHECKED : _CHECKED + 4], "little"):
        raise _Corrupt
    if (
        not _HEADER <= header <= 16 * _HEADER
        or not _SLOT_HEADER <= slot_header <= 16 * _SLOT_HEADER
        or not _RECORD <= record <= 16 * _RECORD
        or records > 16 * _MAX_RECORDS
        or not slot_header + records * record <= slot <= 64 * _SLOT
        or kind not in _KINDS
    ):
        raise _Corrupt
    program = data[128:256].split(b"\0", 1)[0].decode(errors="replace")
    return _Header(header, slot, slot_header, record, records, _KINDS[kind], pid, start, created, namespace, descriptor, parent, program)


def _parse_slot(data: bytes, at: int, header: _Header) -> tuple[tuple[int, ...], list[bytes]] | None:
    data = data[at : at + header.slot]
    if len(data) < header.slot_header:
        return None
    fields = _slot.unpack_from(data)
    checksum, length, sequence, records = fields[0], fields[1], fields[2], fields[5]
    if sequence == 0 or records > header.records or length != header.slot_header + records * header.record or length > len(data):
        return None
    if zlib.crc32(data[4:length]) != checksum:
        return None
    return fields, [data[first : first + header.record] for first in range(header.slot_header, length, header.record)]


def _known(figure: int) -> int | None:
    return None if figure == _UNKNOWN else figure


def _count(data: bytes, at: int, most: int) -> int:
    count = int.from_bytes(data[at : at + 4], "little")
    if count > most:
        raise _Corrupt
    return count


def _parse_record(data: bytes) -> CacheStats:
    number, flags, length = _record.unpack_from(data)
    if length > _FIGURES - 16:
        raise _Corrupt
    created, capacity, weight, entries, size, *rest = _figures.unpack_from(data, _FIGURES)
    hits, misses, stale, waits, insertions, evictions, evicted, rejections, expirations, loads, failures, nanos, *tier2 = rest
    if _UNKNOWN in (hits, misses, waits, insertions, evictions, rejections, expirations, loads, failures, nanos):
        raise _Corrupt
    buckets = _count(data, _BUCKETS, _MAX_BUCKETS)
    bounds = struct.unpack_from(f"<{buckets}Q", data, _BUCKETS + 8)
    counts = struct.unpack_from(f"<{buckets}Q", data, _BUCKETS + 8 + 8 * _MAX_BUCKETS)
    points = [struct.unpack_from("<QdQ", data, _POINTS + 8 + 24 * point) for point in range(_count(data, _POINTS, _MAX_POINTS))]
    if not all(0 <= ratio <= 1 for _, ratio, _ in points):
        raise _Corrupt
    samples = [struct.unpack_from("<3I", data, _SAMPLES + 8 + 12 * sample) for sample in range(_count(data, _SAMPLES, _MAX_SAMPLES))]
    return CacheStats(
        id=number,
        name=data[16 : 16 + length].decode(errors="replace") + ("…" if flags & _NAME_CUT else ""),
        weighted=bool(flags & _WEIGHTED),
        created=created / 1e9,
        capacity=_known(capacity),
        weight=weight,
        entries=entries,
        bytes=_known(size),
        hits=hits,
        misses=misses,
        stale_hits=_known(stale),
        waits=waits,
        insertions=insertions,
        evictions=evictions,
        evicted_weight=_known(evicted),
        rejections=rejections,
        expirations=expirations,
        loads=loads,
        load_failures=failures,
        load_time=nanos / 1e9,
        tier2={name: figure for name, figure in zip(_TIER2, tier2) if figure != _UNKNOWN} if flags & _HAS_TIER2 else None,
        buckets=[(float("inf") if bound == _UNKNOWN else bound / 1e9, count) for bound, count in zip(bounds, counts)],
        curve=[(size, ratio, _known(used)) for size, ratio, used in points],
        samples=[(millis / 1e3, hits, misses) for millis, hits, misses in samples],
    )


def _open(path: str, flags: int) -> int:
    """Opens a file of this user, which is a regular one: neither a symbolic link nor a pipe."""
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise StatsError(path, f"cannot be opened: {error.strerror}") from error
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(file)
        if not stat.S_ISREG(found.st_mode):
            raise StatsError(path, "is not a stats file: choose one named hotset-<pid>-<n>.stats")
        raise StatsError(path, f"belongs to the user {found.st_uid}: read it as that user")
    return file


def _is_alive(header: _Header, found: os.stat_result) -> bool | None:
    """Returns whether the process that wrote a file runs; None if that cannot be known."""
    if header.namespace:
        try:
            own = os.stat("/proc/self/ns/pid").st_ino
        except OSError:
            return None
        if own != header.namespace:
            return None
    try:
        if not 0 < header.pid < 2**31:
            return False
        os.kill(header.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's: the pid was reused, or the process has changed its user
    if header.start:
        start = _start_time(header.pid)
        if start is not None and start != header.start:
            return False
    # The process may have replaced its program by `exec`: then it no longer has the file open.
    descriptors = f"/proc/{header.pid}/fd"
    try:
        os.listdir(descriptors)
    except OSError:
        return True
    try:
        opened = os.stat(f"{descriptors}/{header.descriptor}")
    except OSError:
        return False
    return (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino)


def _start_time(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, a name in parentheses, may hold anything. The start time is the
            # 22nd.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def read(path: str) -> ProcessStats:
    """Returns what a stats file holds.

    Args:
        path: The file.

    Returns:
        The figures of its last update.

    Raises:
        StatsError: The file does not exist, is another user's, is no stats file, is corrupt, or is
            of another version.
    """
    # A slot may be rewritten while it is read. The other one is whole, unless reading takes longer
    # than a second.
    for last in (False, False, True):
        file = _open(path, os.O_RDONLY)
        try:
            found = os.fstat(file)
            data = os.read(file, _HEADER)
            header = _parse_header(path, data)
            size = header.header + 2 * header.slot
            data = os.pread(file, min(size, found.st_size), 0)
            slots = [_parse_slot(data, header.header + number * header.slot, header) for number in (0, 1)]
            whole = [slot for slot in slots if slot is not None]
            if not whole:
                raise _Corrupt
            fields, records = max(whole, key=lambda slot: slot[0][2])
            _, _, sequence, unix, monotonic, _, omitted, answered, answer = fields
            return ProcessStats(
                path=path,
                kind=header.kind,
                pid=header.pid,
                parent=header.parent,
                program=header.program,
                alive=_is_alive(header, found),
                created=header.created / 1e9,
                sequence=sequence,
                time=unix / 1e9,
                monotonic=monotonic / 1e9,
                answered=answered,
                answer=_ANSWERS.get(answer, "failed"),
                omitted=omitted,
                caches=[_parse_record(record) for record in records],
            )
        except _Corrupt:
            if last:
                raise StatsError(path, "is corrupt: remove it if its process does not run") from None
        except OSError as error:
            raise StatsError(path, f"cannot be read: {error.strerror}") from error
        finally:
            os.close(file)
    raise AssertionError


def _files(directory: str) -> Iterator[tuple[str, bool]]:
    """Yields paths, and whether a file has been completed."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError as error:
        raise StatsError(directory, "does not exist: set HOTSET_STATS to the directory that the processes were started with") from error
    except OSError as error:
        raise StatsError(directory, f"cannot be listed: {error.strerror}") from error
    for name in names:
        for pattern, complete in ((_NAME, True), (_DRAFT, False)):
            if pattern.fullmatch(name):
                yield os.path.join(directory, name), complete


def scan(directory: str, clean: bool = True) -> list[ProcessStats]:
    """Returns what the stats files of a directory hold, except those of processes that have ended.

    Files of other users, and files that cannot be read, are left out.

    Args:
        directory: The directory.
        clean: Whether to remove the files of processes that have surely ended.

    Returns:
        The figures, by pid.

    Raises:
        StatsError: The directory does not exist or cannot be listed.
    """
    found: list[ProcessStats] = []
    for path, complete in _files(directory):
        if not complete:
            if clean:
                _remove_draft(path)
            continue
        try:
            process = read(path)
        except StatsError:
            continue
        if process.alive is not False:
            found.append(process)
        elif clean:
            with suppress(OSError):
                os.unlink(path)
    return sorted(found, key=lambda process: (process.pid, process.path))


def _remove_draft(path: str) -> None:
    """Removes a file that its process has not completed, a minute after it was created."""
    with suppress(OSError):
        found = os.lstat(path)
        if found.st_uid == os.geteuid() and time.time() - found.st_mtime > 60:
            os.unlink(path)


def request_clear(process: ProcessStats, cache_id: int = 0) -> int:
    """Requests that a process clears one of its caches, or all.

    The process reads the request with its next update: within a second if it uses a named cache.
    Then `answered` is the number of the request, and `answer` the outcome.

    Args:
        process: The process.
        cache_id: The `id` of the cache; 0 for all named caches of the process.

    Returns:
        The number of the request.

    Raises:
        StatsError: The file is gone, or cannot be written to.
    """
    number = int.from_bytes(os.urandom(8), "little") or 1
    request = _request.pack(number, _CLEAR, 0, cache_id)
    request += zlib.crc32(request).to_bytes(4, "little")
    file = _open(process.path, os.O_RDWR)
    try:
        header = _parse_header(process.path, os.read(file, _HEADER))
        if (header.pid, header.created / 1e9) != (process.pid, process.created):
            raise StatsError(process.path, f"is no longer that of the process {process.pid}: read it again")
        if os.pwrite(file, request, _REQUEST) != len(request):
            raise StatsError(process.path, "cannot be written to")
    except _Corrupt:
        raise StatsError(process.path, "is corrupt: remove it if its process does not run") from None
    except OSError as error:
        raise StatsError(process.path, f"cannot be written to: {error.strerror}") from error
    finally:
        os.close(file)
    return number
