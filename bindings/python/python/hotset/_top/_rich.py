"""Draws lines in color with rich, if it is installed (`pip install "hotset[top]"`)."""

import io
import os
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from hotset._top._frame import Line
from hotset._top._plain import clipped

_STYLES: Final = {
    "": "",
    "title": "bold",
    "key": "bold cyan",
    "dim": "dim",
    "good": "green",
    "fair": "yellow",
    "poor": "bold red",
    "warning": "bold yellow",
}
_SELECTED: Final = "reverse"


def _text(line: Line) -> Text:
    """Returns a line of rich: names are text there, never markup."""
    text = Text(no_wrap=True, overflow="crop", end="")
    for cell in line.cells:
        # (Colors in reverse would be colored blocks.)
        text.append(cell.text, _SELECTED if line.selected else _STYLES[cell.style])
    return text


class Painter:
    """Draws lines in the colors that the terminal has.

    Args:
        color_system: As rich's `Console` has it; None detects it from TERM, COLORTERM and NO_COLOR.
    """

    def __init__(self, color_system: str | None = None) -> None:
        detected = Console(force_terminal=True, file=io.StringIO(), legacy_windows=False)
        self._color_system = color_system or detected.color_system
        self._no_color = bool(os.environ.get("NO_COLOR"))

    def __call__(self, lines: Sequence[Line], columns: int) -> list[str]:
        """Returns lines that are at most `columns` wide, with their styles as escapes.

        Args:
            lines: The lines.
            columns: The width of the screen.
        """
        file = io.StringIO()
        console = self._console(file, columns)
        for line in lines:
            # (Rich would wrap what is too long.)
            text = _text(clipped(line, columns))
            if line.selected:
                text.append(" " * max(0, columns - text.cell_len), _SELECTED)
            console.print(text, no_wrap=True, overflow="crop", crop=True, end="\n")
        return file.getvalue().split("\n")[: len(lines)]

    def _console(self, file: io.StringIO, columns: int) -> Console:
        system = self._color_system
        known = {"standard": "standard", "256": "256", "truecolor": "truecolor"}.get(system or "")
        return Console(
            file=file,
            force_terminal=True,
            color_system=known,  # type: ignore[arg-type]
            no_color=self._no_color,
            width=columns,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )


def picture(lines: Sequence[Line], columns: int, title: str) -> str:
    """Returns lines as an SVG.

    Args:
        lines: The lines.
        columns: The width of the screen.
        title: The title of its window.
    """
    console = Console(record=True, file=io.StringIO(), width=columns, force_terminal=True, color_system="truecolor", highlight=False, legacy_windows=False)
    for line in lines:
        console.print(_text(clipped(line, columns)), no_wrap=True, overflow="crop", crop=True, end="\n")
    return console.export_svg(title=title)
