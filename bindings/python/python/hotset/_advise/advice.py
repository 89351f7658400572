"""`hotset.advise()`: records the calls within a `with` statement."""

from types import TracebackType
from typing import Any

from hotset._advise.judge import Finding, judge
from hotset._advise.record import Recorder
from hotset._advise.report import Report, as_json, as_text, notes_of


class Advice:
    """A recording of calls, and what to cache according to it. Created by `hotset.advise`.

    `print(advice)` prints the table and the reasons, after the `with` statement has ended.
    """

    def __init__(self, include: tuple[str, ...]) -> None:
        self._recorder = Recorder(include)
        self._report: Report | None = None

    def __enter__(self) -> "Advice":
        self._recorder.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        self._recorder.stop()

    @property
    def report(self) -> Report:
        """The report, made when it is first read.

        Raises:
            RuntimeError: The recording has not ended.
        """
        if self._report is None:
            if not self._recorder.elapsed:
                raise RuntimeError("the recording has not ended: read the advice after the with statement")
            recorder = self._recorder
            findings = judge(recorder)
            self._report = Report(recorder.elapsed / 1e9, recorder.overhead / 1e9, recorder.hit_cost, findings, notes_of(recorder))
        return self._report

    @property
    def findings(self) -> list[Finding]:
        """What was found out about each function, the most worthwhile first."""
        return self.report.findings

    def to_json(self, **more: Any) -> str:
        """Returns the findings as JSON.

        Args:
            **more: Further members of the outermost object.
        """
        return as_json(self.report, more)

    def to_svg(self) -> str:
        """Returns the findings as a picture: a self-contained SVG."""
        from hotset._advise.svg import as_svg

        return as_svg(self.report)

    def __str__(self) -> str:
        return as_text(self.report)


def advise(*, include: tuple[str, ...] | list[str] | str = ()) -> Advice:
    """Records the calls of a program's own functions, to find out which are worth caching.

    Used as a context manager. Calls of all threads are recorded, except, on Python 3.11, of threads
    that run already. Functions of the standard library and of installed packages are not recorded.

    Args:
        include: Names of installed packages, or folders, whose functions are recorded, too.

    Returns:
        An `Advice`, to be printed after the `with` statement.

    Raises:
        RuntimeError: Another recording is active in this process.

    Example:
        >>> import hotset
        >>> with hotset.advise() as advice:
        ...     pass  # the work
        >>> len(advice.findings)
        0
    """
    return Advice((include,) if isinstance(include, str) else tuple(include))
