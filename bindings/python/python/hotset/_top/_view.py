"""The state of the live view: order, selection, freezing, and the question before clearing."""

from collections.abc import Callable
from typing import Final

from hotset._statsfile import ProcessStats
from hotset._top import _format as fmt
from hotset._top._frame import LIVE_COLUMNS, MIN_HEIGHT, MIN_WIDTH, SORT_KEYS, Cell, Line, details, heading, is_narrow, sorted_rows, table
from hotset._top._model import Row, Snapshot
from hotset._top._source import Clearing, pids_text

_HELP: Final = (
    "s, S    sort by the next, the previous column",
    "r       reverse the order",
    "f       freeze the figures, and release them (the space bar, too)",
    "up, down  select a cache (j and k, too)",
    "enter   show or hide all figures of the selected cache",
    "c       clear the selected cache, after a question",
    "?       show or hide this help",
    "q       quit",
)
_FOOTER: Final = "s sort  r reverse  f freeze  up/down select  enter details  c clear  ? help  q quit"


class View:
    """What the screen shows, and what keys change of it.

    Args:
        directory: The directory of the stats files, as it is shown.
        clear: Clears the caches of a row.
        ascii_only: Whether the terminal has ASCII characters only.
        sort: The column that rows are sorted by first, one of `SORT_KEYS`.
    """

    def __init__(self, directory: str, clear: Callable[[Row], Clearing] = Clearing, *, ascii_only: bool = False, sort: str = "ops") -> None:
        self._directory = directory
        self._clear = clear
        self._ascii_only = ascii_only
        self._snapshot: Snapshot | None = None
        self._sort = sort
        self._reverse = False
        self._frozen = False
        self._details = False
        self._help = False
        self._selected: tuple[str, str, str] | None = None
        self._question: Row | None = None
        self._clearing: Clearing | None = None
        self._message = ""
        self.is_closed = False

    def update(self, snapshot: Snapshot, processes: list[ProcessStats]) -> None:
        """Takes a new snapshot, unless the view is frozen.

        Args:
            snapshot: The figures.
            processes: What was read, for answers to requests.
        """
        if self._clearing is not None:
            self._clearing.follow(processes)
            self._message = self._clearing.outcome()
            if self._clearing.is_done:
                self._clearing = None
        if self._snapshot is None or not self._frozen:
            self._snapshot = snapshot

    def fail(self, message: str) -> None:
        """Shows an error until the next key.

        Args:
            message: The error.
        """
        self._message = message

    @property
    def rows(self) -> list[Row]:
        """The rows in their order."""
        return [] if self._snapshot is None else sorted_rows(self._snapshot.rows, self._sort, self._reverse)

    @property
    def selected(self) -> Row | None:
        """The selected row: the first one before any was selected, or if that one has gone."""
        rows = self.rows
        return next((row for row in rows if row.key == self._selected), rows[0] if rows else None)

    def press(self, key: str) -> None:
        """Does what a key stands for.

        Args:
            key: A character, or "up", "down", "left", "right", "enter", "escape".
        """
        if self._question is not None:
            # Only this one key clears: anything else is no.
            row, self._question = self._question, None
            if key in ("y", "Y"):
                self._clearing = self._clear(row)
                self._message = self._clearing.outcome()
                if not self._clearing.requests:
                    self._clearing = None
            else:
                self._message = "nothing was cleared"
            return
        if self._clearing is None:
            self._message = ""
        actions: dict[str, Callable[[], None]] = {
            "q": self._close,
            "s": lambda: self._sort_by(1),
            "right": lambda: self._sort_by(1),
            "S": lambda: self._sort_by(-1),
            "left": lambda: self._sort_by(-1),
            "r": self._turn_around,
            "f": self._freeze,
            " ": self._freeze,
            "up": lambda: self._move(-1),
            "k": lambda: self._move(-1),
            "down": lambda: self._move(1),
            "j": lambda: self._move(1),
            "enter": self._show_details,
            "?": self._show_help,
            "escape": self._back,
            "c": self._ask,
        }
        action = actions.get(key)
        if action is not None:
            action()

    def _close(self) -> None:
        self.is_closed = True

    def _sort_by(self, step: int) -> None:
        self._sort = SORT_KEYS[(SORT_KEYS.index(self._sort) + step) % len(SORT_KEYS)]

    def _turn_around(self) -> None:
        self._reverse = not self._reverse

    def _freeze(self) -> None:
        self._frozen = not self._frozen

    def _show_details(self) -> None:
        self._details = not self._details

    def _show_help(self) -> None:
        self._help = not self._help

    def _back(self) -> None:
        self._help = self._details = False

    def _move(self, step: int) -> None:
        rows, selected = self.rows, self.selected
        if selected is not None:
            place = [row.key for row in rows].index(selected.key)
            self._selected = rows[min(max(place + step, 0), len(rows) - 1)].key

    def _ask(self) -> None:
        row = self.selected
        if row is not None:
            # Later figures must not move the question to another cache.
            self._selected = row.key
            self._question = row

    def lines(self, columns: int, height: int) -> list[Line]:
        """Returns the lines of the screen, at most `height`.

        Args:
            columns: The columns of the screen.
            height: Its lines.
        """
        if is_narrow(columns, height):
            text = f"terminal too small: {columns}x{height}, needs {MIN_WIDTH}x{MIN_HEIGHT}"
            return [Line((Cell(fmt.cut(text, columns, more="")),))][:height]
        if self._snapshot is None:
            return [Line((Cell("reading"),))]
        top = heading(self._snapshot, self._directory)
        if self._frozen:
            top[0] = Line((Cell("FROZEN ", "warning"), *top[0].cells))
        bottom = self._bottom(columns)
        selected = self.selected
        middle: list[Line] = []
        if self._help:
            middle = [Line((Cell(text),)) for text in _HELP]
        elif self._details and selected is not None:
            middle = details(selected, self._snapshot.monotonic)
        space = height - len(top) - len(bottom) - 1
        # The table keeps three rows, even if the details would fill the screen.
        middle = middle[: max(0, space - 4)]
        shown = max(1, space - len(middle) - (1 if middle else 0))
        rows = self.rows
        if selected is None:
            body = [Line((Cell("no named cache yet: give it a name, `hotset.cached(name=..)` for example", "dim"),))]
        else:
            place = [row.key for row in rows].index(selected.key)
            first = min(max(0, place - shown + 1), max(0, len(rows) - shown))
            body = table(
                rows,
                columns=LIVE_COLUMNS,
                available=columns,
                sort=self._sort,
                selected=selected.key,
                ascii_only=self._ascii_only,
            )
            body = [body[0], *body[1 + first : 1 + first + shown]]
        blank = [Line(())] if middle else []
        return [*top, *body, *blank, *middle, *bottom][:height]

    def _bottom(self, columns: int) -> list[Line]:
        if self._question is not None:
            row = self._question
            reached = pids_text([member.process.pid for member in row.members])
            word = "process" if len(row.members) == 1 else "processes"
            # The key to press must stay visible whatever the name.
            ask = f" in {len(row.members)} {word} ({reached})? y/N"
            name = fmt.cut(fmt.escaped(row.name), max(8, columns - fmt.width(ask) - 6))
            return [Line((Cell(f"clear {name}"[: max(0, columns)], "warning"), Cell(ask, "warning")))] if columns >= fmt.width(ask) + 14 else [
                Line((Cell(f"clear {fmt.cut(fmt.escaped(row.name), columns - 6)}", "warning"),)),
                Line((Cell(f"in {len(row.members)} {word}? y/N", "warning"),)),
            ]
        if self._message:
            return [Line((Cell(fmt.cut(fmt.escaped(self._message), columns), "warning"),))]
        return [Line((Cell(fmt.cut(_FOOTER, columns, more=""), "dim"),))]
