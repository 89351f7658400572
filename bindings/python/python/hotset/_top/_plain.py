"""Draws lines as text, with the terminal's standard attributes or without any."""

from collections.abc import Sequence
from typing import Final

from hotset._top._format import cut, padded, width
from hotset._top._frame import Cell, Line

_RESET: Final = "\x1b[0m"
_ATTRIBUTES: Final = {"title": "\x1b[1m", "key": "\x1b[1;4m", "dim": "\x1b[2m", "poor": "\x1b[1m", "warning": "\x1b[1m"}
_SELECTED: Final = "\x1b[7m"


def plain(lines: Sequence[Line]) -> list[str]:
    """Returns lines without attributes, and without blanks at their ends.

    Args:
        lines: The lines.
    """
    return ["".join(cell.text for cell in line.cells).rstrip() for line in lines]


def drawn(lines: Sequence[Line], columns: int) -> list[str]:
    """Returns lines that are at most `columns` wide, with ANSI attributes.

    Args:
        lines: The lines.
        columns: The width of the screen.
    """
    return [_drawn(line, columns) for line in lines]


def clipped(line: Line, columns: int) -> Line:
    """Returns as much of a line as fits.

    Args:
        line: The line.
        columns: The width of the screen.
    """
    cells: list[Cell] = []
    for cell in line.cells:
        text = cut(cell.text, columns)
        columns -= width(text)
        cells.append(Cell(text, cell.style))
        if text != cell.text:
            break
    return Line(tuple(cells), line.selected)


def _drawn(line: Line, columns: int) -> str:
    cells = clipped(line, columns).cells
    if line.selected:
        return f"{_SELECTED}{padded(''.join(cell.text for cell in cells), columns)}{_RESET}"
    written: list[str] = []
    for cell in cells:
        attribute = _ATTRIBUTES.get(cell.style)
        written.append(f"{attribute}{cell.text}{_RESET}" if attribute and cell.text else cell.text)
    return "".join(written)
