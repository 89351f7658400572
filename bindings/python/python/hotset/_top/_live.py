"""The live view on a terminal: the alternate screen, keys, signals."""

import codecs
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from hotset._top._frame import Line
from hotset._top._model import Tracker
from hotset._top._source import Files, SourceError
from hotset._top._view import View

_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[0m\x1b[?25h\x1b[?1049l"
_KEYS: Final = {"A": "up", "B": "down", "C": "right", "D": "left"}

Draw = Callable[[Sequence[Line], int], list[str]]


def keys(text: str) -> list[str]:
    """Returns the keys that a terminal sent; unknown escape sequences are none.

    Args:
        text: What was read from the terminal.

    Example:
        >>> keys("s\\x1b[A\\r"), keys("\\x1b"), keys("\\x1b[200~")
        (['s', 'up', 'enter'], ['escape'], [])
    """
    found: list[str] = []
    place = 0
    while place < len(text):
        char = text[place]
        place += 1
        if char != "\x1b":
            found.append("enter" if char in "\r\n" else char)
            continue
        if place == len(text):
            found.append("escape")
        elif text[place] in "[O":
            place += 1
            # Parameters, then the final byte.
            while place < len(text) and not "@" <= text[place] <= "~":
                place += 1
            key = _KEYS.get(text[place : place + 1])
            place += 1
            if key is not None:
                found.append(key)
        else:
            # A character with Alt.
            place += 1
    return found


class _Hangup(Exception):
    """The terminal is gone, or the program must end."""


class Screen:
    """The terminal of this process, in the alternate screen while it is entered.

    Args:
        draw: Turns lines into text of at most as many columns.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._input = sys.stdin.fileno()
        self._saved: list[object] = []
        # Decodes characters that are split over two reads, and bytes that are none.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @contextmanager
    def entered(self) -> Generator[None, None, None]:
        """Enters the alternate screen, and restores the terminal on any exit."""
        self._saved = termios.tcgetattr(self._input)
        wakeup, write_end = os.pipe()
        os.set_blocking(wakeup, False)
        os.set_blocking(write_end, False)
        self._wakeup = wakeup
        # A signal ends the wait for a key: its byte arrives in this pipe.
        previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {
            signal.SIGWINCH: _nothing,
            signal.SIGTSTP: self._suspend,
            signal.SIGTERM: _hang_up,
            signal.SIGHUP: _hang_up,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self._enter()
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous)
            os.close(wakeup)
            os.close(write_end)
            self._leave()

    def _enter(self) -> None:
        # (Keys arrive one by one and are not echoed; Ctrl-C and Ctrl-Z still send their signals.)
        tty.setcbreak(self._input)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()

    def _leave(self) -> None:
        try:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        except (OSError, termios.error):
            # The terminal has gone.
            pass

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        # (Here after SIGCONT.)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._enter()

    def show(self, view: View) -> None:
        """Draws a view.

        Args:
            view: The view.

        Raises:
            _Hangup: The terminal has gone.
        """
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
            lines = self._draw(view.lines(size.columns, size.lines), size.columns)
            # (No newline after the last line: that would scroll the screen.)
            sys.stdout.write("\x1b[H" + "\r\n".join(line + "\x1b[K" for line in lines) + "\x1b[J")
            sys.stdout.flush()
        except OSError as error:
            raise _Hangup from error

    def wait(self, seconds: float) -> list[str]:
        """Returns the keys that were pressed, after at most this long; earlier after a signal.

        Args:
            seconds: How long to wait.

        Raises:
            _Hangup: The terminal has gone.
        """
        ready, _, _ = select.select([self._input, self._wakeup], [], [], seconds)
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        if self._input not in ready:
            return []
        try:
            read = os.read(self._input, 4096)
        except OSError as error:
            raise _Hangup from error
        if not read:
            raise _Hangup
        return keys(self._decoder.decode(read))


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _hang_up(number: int, frame: FrameType | None) -> None:
    raise _Hangup


def run(source: Files, tracker: Tracker, view: View, draw: Draw, interval: float) -> int:
    """Shows the view until it is closed.

    Args:
        source: The processes.
        tracker: What has read them before.
        view: The view.
        draw: Turns lines into text.
        interval: Seconds between two readings.

    Returns:
        The exit status: 0, or 1 after the terminal has gone.
    """
    screen = Screen(draw)
    try:
        with screen.entered():
            due = time.monotonic()
            while not view.is_closed:
                if time.monotonic() >= due:
                    due = time.monotonic() + interval
                    try:
                        processes = source.read()
                    except SourceError as error:
                        view.fail(str(error))
                    else:
                        view.update(tracker.update(processes), processes)
                screen.show(view)
                for key in screen.wait(max(0.0, due - time.monotonic())):
                    view.press(key)
    except _Hangup:
        return 1
    return 0
