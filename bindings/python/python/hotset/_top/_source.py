"""Finds processes by their stats files, and requests that they clear caches."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hotset import _statsfile
from hotset._statsfile import ProcessStats, StatsError
from hotset._top._model import Row

HOW_TO_ENABLE = (
    "start it with HOTSET_STATS={directory} in its environment, "
    "or have it call hotset.enable_stats_file (Python), hotset::stats_file::enable (Rust) or hotset_stats_file (C); "
    "only caches with a name are shown"
)


class SourceError(Exception):
    """There is nothing to show; the message describes what to do."""


class Files:
    """The processes that keep stats files in a directory.

    Args:
        directory: The directory.
        pids: The processes to show; empty for all.
    """

    def __init__(self, directory: str, pids: Iterable[int] = ()) -> None:
        self.directory = directory
        self.pids = frozenset(pids)

    def read(self) -> list[ProcessStats]:
        """Returns the figures of the processes that are running.

        Raises:
            SourceError: The directory cannot be read.
        """
        try:
            found = _statsfile.scan(self.directory)
        except StatsError as error:
            raise SourceError(str(error)) from error
        return [process for process in found if not self.pids or process.pid in self.pids]

    def missing(self, found: Sequence[ProcessStats]) -> list[str]:
        """Returns a message for each requested process that has no file.

        Args:
            found: What `read` returned.
        """
        known = {process.pid for process in found}
        return [_why_missing(pid, self.directory) for pid in sorted(self.pids - known)]


def _why_missing(pid: int, directory: str) -> str:
    if not os.path.exists(f"/proc/{pid}"):
        return f"there is no process {pid}"
    return f"process {pid} has no stats file in {directory}: {HOW_TO_ENABLE.format(directory=directory)}"


def directory_of(pids: Iterable[int]) -> str | None:
    """Returns the HOTSET_STATS that a process was started with; None if none has it.

    Args:
        pids: The processes, of which the first with a readable environment counts.
    """
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            continue
        for variable in environment:
            if variable.startswith(b"HOTSET_STATS=") and len(variable) > len(b"HOTSET_STATS="):
                return os.fsdecode(variable.partition(b"=")[2])
    return None


class Request(NamedTuple):
    """A request to one process.

    Attributes:
        path: The process's stats file.
        created: When it was created.
        pid: The process.
        number: The number of the request.
    """

    path: str
    created: float
    pid: int
    number: int


class Clearing:
    """Requests that all processes of a row clear their cache, and follows the answers.

    The requests are sent when it is created.

    Args:
        row: The caches to clear.
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        self.requests: list[Request] = []
        self.failures: list[str] = []
        for member in row.members:
            process = member.process
            try:
                number = _statsfile.request_clear(process, member.cache.id)
            except StatsError as error:
                self.failures.append(str(error))
            else:
                self.requests.append(Request(process.path, process.created, process.pid, number))
        self._answers: dict[Request, str] = {}
        self._ended: set[Request] = set()

    def follow(self, processes: Iterable[ProcessStats]) -> None:
        """Notes answers.

        Args:
            processes: What was read now.
        """
        by_file = {(process.path, process.created): process for process in processes}
        for request in self.requests:
            if request in self._answers:
                continue
            process = by_file.get((request.path, request.created))
            if process is None:
                self._ended.add(request)
            elif process.answered == request.number and process.answer is not None:
                self._answers[request] = process.answer

    @property
    def is_done(self) -> bool:
        """Whether every process has answered or ended."""
        return all(request in self._answers or request in self._ended for request in self.requests)

    @property
    def cleared(self) -> list[int]:
        """The processes that have cleared the cache."""
        return [request.pid for request in self.requests if self._answers.get(request) == "done"]

    @property
    def pending(self) -> list[int]:
        """The processes that have not answered."""
        return [request.pid for request in self.requests if request not in self._answers and request not in self._ended]

    def outcome(self) -> str:
        """Returns a sentence about the outcome up to now, names not escaped."""
        parts = [f"{self.row.name}: cleared in {len(self.cleared)} of {len(self.row.members)}"]
        if self.pending:
            parts.append(f"pending in {pids_text(self.pending)} (an idle process clears it with its next call)")
        refused = [f"{request.pid}: {answer}" for request, answer in self._answers.items() if answer != "done"]
        ended = [f"{request.pid}: has ended" for request in self._ended if request not in self._answers]
        return "; ".join([*parts, *refused, *ended, *self.failures])


def pids_text(pids: Sequence[int], most: int = 8) -> str:
    """Returns processes as a text of limited length.

    Args:
        pids: The processes.
        most: How many to name.

    Example:
        >>> pids_text([1, 2, 3], most=2)
        '1, 2 and 1 more'
    """
    named = ", ".join(map(str, pids[:most]))
    return f"{named} and {len(pids) - most} more" if len(pids) > most else named
