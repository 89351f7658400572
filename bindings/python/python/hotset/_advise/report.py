"""Prints findings as a table, and as JSON."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

import hotset
from hotset._advise.judge import Finding, format_time
from hotset._advise.record import Recorder

_LISTED = 15
_EXPLAINED, _REJECTED = 8, 5


@dataclass
class Report:
    """The findings of one recording.

    Attributes:
        elapsed: The seconds for which calls were recorded.
        overhead: The seconds of these that the recorder itself took.
        findings: What was found out about each function, the most worthwhile first.
        notes: What was not recorded, and why.
    """

    elapsed: float
    overhead: float
    hit_cost: float
    findings: list[Finding] = field(default_factory=list[Finding])
    notes: list[str] = field(default_factory=list[str])

    @property
    def candidates(self) -> list[Finding]:
        """The functions that have a line to write."""
        return [finding for finding in self.findings if finding.decorator]


def notes_of(recorder: Recorder) -> list[str]:
    """Returns what was not recorded.

    Args:
        recorder: A recorder that was stopped.
    """
    notes: list[str] = []
    if recorder.errors:
        notes.append(f"{recorder.errors} calls could not be described, at last because of {recorder.last_error}")
    return notes


def as_json(report: Report, more: dict[str, Any] | None = None) -> str:
    """Returns the report as JSON.

    Args:
        report: The report.
        more: Further members of the outermost object.
    """
    data = {"format": 1, "hotset": hotset.__version__, **asdict(report), **(more or {})}
    return json.dumps(data, indent=1)


def as_text(report: Report) -> str:
    """Returns the report as a table, and the reasons below it.

    Args:
        report: The report.
    """
    candidates = report.candidates
    lines = [_head(report, candidates), ""]
    listed = report.findings[:_LISTED]
    if listed:
        lines += _table(listed)
        hidden = len(report.findings) - len(listed)
        if hidden:
            lines.append(f"and {hidden} other functions")
        lines.append("")
    rejected = [finding for finding in listed if finding.verdict == "no" and (finding.saved >= 0.01 * report.elapsed or not candidates)]
    for finding in [*candidates[:_EXPLAINED], *rejected[:_REJECTED]]:
        lines.append(f"{finding.function} ({_path(finding.file)}:{finding.line}): {_VERDICTS[finding.verdict]}")
        if finding.decorator:
            lines.append(f"    {finding.decorator}")
        lines += [f"    - {reason}" for reason in finding.reasons]
        if finding.decorator and len(finding.curve) > 1:
            lines.append(f"    - hit ratio by maxsize: {_curve(finding)}")
        lines.append("")
    if candidates and len(candidates) > 1:
        lines.append("Savings overlap where one of these functions calls another. `--verify` measures them.")
    elif not candidates:
        lines.append(_why_none(report))
    lines += [f"Note: {note}." for note in report.notes]
    return "\n".join(lines).rstrip() + "\n"


_VERDICTS = {"cache": "cache it", "maybe": "cache it if the following holds", "no": "do not cache it"}


def _head(report: Report, candidates: list[Finding]) -> str:
    functions = len(report.findings)
    noun = "function" if functions == 1 else "functions"
    of = f"{functions} {noun} in {report.elapsed:.2f} s"
    return f"hotset advise: {len(candidates)} of {of} worth caching"


def _why_none(report: Report) -> str:
    if not report.findings:
        return (
            "No function of the program's own was called. Installed packages and the standard library are not recorded: "
            "name a package with --include."
        )
    return "No function is worth caching: each one has a reason above."


def _path(file: str) -> str:
    """Returns a path that is short: relative to the directory, or to the installed packages."""
    for folder in ("site-packages", "dist-packages"):
        _, found, rest = file.rpartition(f"{os.sep}{folder}{os.sep}")
        if found:
            return rest
    relative = os.path.relpath(file) if os.path.isabs(file) else file
    return file if relative.startswith("..") else relative


def _number(number: int) -> str:
    return f"{number:,}"


def _table(findings: list[Finding]) -> list[str]:
    head = ["function", "calls", "distinct", "time", "own", "saved", "at", "same results", "verdict"]
    rows = [head]
    for finding in findings:
        sampled = finding.observed < finding.calls and finding.kind != "generator"
        compared = finding.same + finding.different
        generator = finding.kind == "generator"
        rows.append(
            [
                finding.name,
                _number(finding.calls),
                "-" if generator else ("≥" if sampled else "") + _number(finding.distinct),
                "-" if generator else format_time(finding.time),
                "-" if finding.own is None or generator else format_time(finding.own),
                format_time(finding.saved) if finding.saved else "-",
                _number(finding.maxsize) if finding.saved else "-",
                f"{finding.same / compared:.0%}" if compared else "-",
                finding.verdict,
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines: list[str] = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]))
    return lines


def _curve(finding: Finding) -> str:
    return ", ".join(f"{int(entry['maxsize']):,}: {entry['hit_ratio']:.0%}" for entry in finding.curve)
