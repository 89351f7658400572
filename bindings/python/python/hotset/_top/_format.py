"""Numbers, durations and names as text of a terminal."""

import unicodedata
from collections.abc import Sequence

UNKNOWN = "-"
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.:-=+*#"
# Combining marks on one character: more than a script needs would draw over other lines.
_MAX_MARKS = 3


def escaped(text: str) -> str:
    """Returns `text` with everything that is not printable as an escape, such as `\\x1b`.

    Control characters, terminal escapes, marks of text direction, line separators and surrogates
    never reach a terminal as they are.

    Args:
        text: Any text, a name from a file of another process for example.

    Example:
        >>> escaped("tea\\x1b[2J\\u202e")
        'tea\\\\x1b[2J\\\\u202e'
    """
    written: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        # (A mark that follows nothing would be drawn over what is left of the text.)
        if char.isprintable() and marks <= _MAX_MARKS and (written or not marks):
            written.append(char)
        else:
            code = ord(char)
            written.append(f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(written)


def width(text: str) -> int:
    """Returns the number of columns that `text` takes on a terminal.

    Args:
        text: Printable text.

    Example:
        >>> width("tea"), width("茶")
        (3, 2)
    """
    if text.isascii():
        return len(text)
    columns = 0
    for char in text:
        if unicodedata.category(char) not in ("Mn", "Me"):
            columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return columns


def cut(text: str, columns: int, *, more: str = "…") -> str:
    """Returns `text`, or as much of it as fits into `columns` columns with `more` after it.

    Args:
        text: Printable text.
        columns: The available columns.
        more: The mark of a cut.

    Example:
        >>> cut("products", 5)
        'prod…'
    """
    if width(text) <= columns:
        return text
    if columns < width(more):
        return ""
    left = columns - width(more)
    kept: list[str] = []
    for char in text:
        left -= width(char)
        if left < 0:
            break
        kept.append(char)
    return "".join(kept) + more


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """Returns `text` with blanks on its right, or on its left, up to `columns` columns.

    Args:
        text: Printable text.
        columns: The columns to fill.
        right: Whether to align `text` on the right.
    """
    blanks = " " * max(0, columns - width(text))
    return blanks + text if right else text + blanks


def count(number: float | None) -> str:
    """Returns a number in at most five characters.

    Args:
        number: A number that is not negative; None if it is unknown.

    Example:
        >>> [count(n) for n in (0, 7, 999, 12_345, 1.25e9, 0.25, None)]
        ['0', '7', '999', '12.3k', '1.25G', '0.2', '-']
    """
    if number is None:
        return UNKNOWN
    if number < 9.95 and number != int(number):
        return f"{number:.1f}" if number >= 0.05 else "<0.1"
    if number < 999.5:
        return f"{number:.0f}"
    unit = ""
    for unit in "kMGTPE":
        number /= 1000
        if number < 999.5 or unit == "E":
            break
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}{unit}"


def size(number: int | None) -> str:
    """Returns a number of bytes in at most seven characters.

    Args:
        number: Bytes; None if they are unknown.

    Example:
        >>> [size(n) for n in (100, 2048, 5 << 20, None)]
        ['100 B', '2.0 KiB', '5.0 MiB', '-']
    """
    if number is None:
        return UNKNOWN
    if number < 1000:
        return f"{number} B"
    scaled = float(number)
    unit = ""
    for unit in "KMGTPE":
        scaled /= 1024
        if scaled < 999.5:
            break
    return f"{scaled:.{1 if scaled < 9.95 else 0}f} {unit}iB"


def percent(ratio: float | None) -> str:
    """Returns a ratio as a percentage in at most five characters.

    Args:
        ratio: A ratio from 0 to 1; None if it is unknown. What is not quite 1 is never written as
            100, and what is not quite 0 never as 0.

    Example:
        >>> [percent(r) for r in (0.9312, 1, 0.99999, 0.00001, 0, None)]
        ['93.1', '100', '>99.9', '<0.1', '0', '-']
    """
    if ratio is None:
        return UNKNOWN
    if ratio in (0, 1):
        return "100" if ratio else "0"
    return "<0.1" if ratio < 0.001 else ">99.9" if ratio > 0.999 else f"{ratio * 100:.1f}"


def duration(seconds: float | None) -> str:
    """Returns a duration in at most six characters.

    Args:
        seconds: A duration that is not negative; None if it is unknown.

    Example:
        >>> [duration(s) for s in (0, 2.5e-6, 0.0123, 4.2, 75, 4000, 200_000, None)]
        ['0s', '2.5us', '12ms', '4.2s', '1m15s', '1h06m', '2d07h', '-']
    """
    if seconds is None:
        return UNKNOWN
    if seconds <= 0:
        return "0s"
    for unit, scale in (("ns", 1e9), ("us", 1e6), ("ms", 1e3), ("s", 1)):
        scaled = seconds * scale
        if scaled < (59.5 if unit == "s" else 999.5):
            return f"{scaled:.{1 if scaled < 9.95 and unit != 'ns' else 0}f}{unit}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days < 1000 else f"{count(days / 365)}y"


def sparkline(ratios: Sequence[float | None], *, ascii_only: bool = False) -> str:
    """Returns ratios from 0 to 1 as a line of blocks; a blank where there is none.

    Args:
        ratios: The ratios, oldest first.
        ascii_only: Whether to use ASCII characters in place of blocks.

    Example:
        >>> sparkline([0, 0.5, None, 1])
        '▁▅ █'
    """
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    return "".join(" " if ratio is None else blocks[min(len(blocks) - 1, int(ratio * len(blocks)))] for ratio in ratios)
