"""The command line of `python -m hotset top`."""

import argparse
import json
import os
import sys
import time
from typing import Final

from hotset._statsfile import ProcessStats
from hotset._top import _format as fmt
from hotset._top._frame import ONCE_COLUMNS, SORT_KEYS, heading, sorted_rows, table
from hotset._top._json import as_json
from hotset._top._model import Snapshot, Tracker
from hotset._top._plain import drawn, plain
from hotset._top._source import HOW_TO_ENABLE, Files, SourceError, directory_of
from hotset._top._view import View

_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141
_EPILOG: Final = """\
Processes take part if they were started with HOTSET_STATS=DIRECTORY, or enabled their stats file.
Exit status: 0; 1 if there is nothing to show; 2 for wrong usage; 130 after Ctrl-C; 141 if the
reader of a pipe has ended.
"""


def _pid(text: str) -> int:
    pid = int(text)
    if not 0 < pid < 2**31:
        raise ValueError
    return pid


_pid.__name__ = "pid"


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 3600 seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hotset top",
        description="Shows the named caches of running processes, summed over the processes of a program.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pids", nargs="*", type=_pid, metavar="PID", help="the processes to show (all that keep a stats file)")
    parser.add_argument("--directory", help="the directory of the stats files ($HOTSET_STATS, or that of the first PID)")
    parser.add_argument("--once", action="store_true", help="print the figures once, and exit")
    parser.add_argument("--json", action="store_true", help="print JSON: one document with --once, else one per line and interval")
    parser.add_argument("--interval", type=_interval, default=1.0, help="seconds between two readings (%(default)s)")
    parser.add_argument("--sort", choices=SORT_KEYS, default="ops", help="the column to sort by (%(default)s)")
    parser.add_argument("--plain", action="store_true", help="draw without rich, even if it is installed")
    return parser


def _fail(message: str, status: int) -> int:
    print(f"hotset top: {fmt.escaped(message)}", file=sys.stderr)
    return status


def main(arguments: list[str]) -> int:
    """Runs `python -m hotset top`.

    Args:
        arguments: The arguments of the command line.

    Returns:
        The exit status.
    """
    given = _parser().parse_args(arguments)
    try:
        return _run(given)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _run(given: argparse.Namespace) -> int:
    directory: str | None = given.directory or os.environ.get("HOTSET_STATS") or directory_of(given.pids)
    if directory is None:
        absent = [pid for pid in given.pids if not os.path.exists(f"/proc/{pid}")]
        if absent:
            return _fail(f"there is no process {absent[0]}", 1)
        return _fail(
            "which directory holds the stats files? Set HOTSET_STATS, or pass --directory; for a process to keep a file, "
            + HOW_TO_ENABLE.format(directory="DIRECTORY"),
            2,
        )
    source = Files(directory, given.pids)
    try:
        processes = source.read()
    except SourceError as error:
        return _fail(str(error), 2)
    missing = source.missing(processes)
    if missing:
        return _fail("; ".join(missing), 1)
    if not given.pids and not processes and (given.once or given.json):
        return _fail(f"no running process keeps a stats file in {directory}: {HOW_TO_ENABLE.format(directory=directory)}", 1)
    tracker = Tracker()
    if given.json:
        return _print_json(source, tracker, processes, given.once, given.interval)
    snapshot = tracker.update(processes)
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    if given.once:
        _print_table(snapshot, directory, given.sort, ascii_only)
        return 0
    return _run_live(source, tracker, snapshot, processes, given, ascii_only)


def _print_json(source: Files, tracker: Tracker, processes: list[ProcessStats], once: bool, interval: float) -> int:
    while True:
        print(json.dumps(as_json(tracker.update(processes)), allow_nan=False, indent=2 if once else None), flush=True)
        if once:
            return 0
        time.sleep(interval)
        try:
            processes = source.read()
        except SourceError as error:
            return _fail(str(error), 1)


def _print_table(snapshot: Snapshot, directory: str, sort: str, ascii_only: bool) -> None:
    rows = sorted_rows(snapshot.rows, sort, False)
    lines = [*heading(snapshot, directory), *table(rows, columns=ONCE_COLUMNS, available=None, ascii_only=ascii_only)]
    encoding = sys.stdout.encoding or "ascii"
    for line in plain(lines):
        # What the encoding lacks is written as an escape.
        print(line.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _run_live(
    source: Files,
    tracker: Tracker,
    snapshot: Snapshot,
    processes: list[ProcessStats],
    given: argparse.Namespace,
    ascii_only: bool,
) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _fail("this is no terminal: use --once or --json", 2)
    if os.environ.get("TERM", "dumb") == "dumb":
        return _fail("this terminal cannot move its cursor (TERM is not set, or dumb): use --once or --json", 2)
    from hotset._top._live import run

    draw = drawn
    if not given.plain and not ascii_only:
        try:
            from hotset._top._rich import Painter
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "rich":
                raise
        else:
            draw = Painter()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    view = View(source.directory, ascii_only=ascii_only, sort=given.sort)
    view.update(snapshot, processes)
    return run(source, tracker, view, draw, given.interval)
