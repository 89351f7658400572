"""The layout of one screen: columns, rows, and the details of one row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hotset._top import _format as fmt
from hotset._top._model import Row, Snapshot, quantile

MIN_WIDTH: Final = 40
MIN_HEIGHT: Final = 8
_MIN_NAME: Final = 12
_MAX_NAME: Final = 40


class Cell(NamedTuple):
    """Text with the name of its style.

    Attributes:
        text: Printable text.
        style: "", "title", "dim", "good", "fair", "poor", "key" or "warning".
    """

    text: str
    style: str = ""


class Line(NamedTuple):
    """One line of a screen.

    Attributes:
        cells: Its cells, one after another.
        selected: Whether it is the selected row.
    """

    cells: tuple[Cell, ...]
    selected: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: Its name, for sorting.
        title: Its heading.
        width: Its width; 0 for the flexible one.
        rank: The higher the rank, the earlier the column is left out of a narrow screen.
        text: What it shows of a row.
        order: What rows are sorted by; None sorts last.
        descending: Whether it is sorted from large to small.
    """

    key: str
    title: str
    width: int
    rank: int
    text: Callable[[Row], str]
    order: Callable[[Row], Any]
    descending: bool = True


def _rate(name: str) -> Callable[[Row], float | None]:
    return lambda row: None if row.rates is None else row.rates[name]


def _fill(row: Row) -> str:
    return fmt.UNKNOWN if row.fill is None else f"{min(row.fill, 9.99) * 100:.0f}%"


def _loads(row: Row) -> float | None:
    return None if row.rates is None else row.rates["loads"] + row.rates["load_failures"]


def _attempts(row: Row) -> int:
    return (row.totals["loads"] or 0) + (row.totals["load_failures"] or 0)


_NAME: Final[Column] = Column("name", "CACHE", 0, 0, lambda row: fmt.escaped(row.name), lambda row: row.name, descending=False)
_PROGRAM: Final[Column] = Column("program", "PROGRAM", 12, 5, lambda row: fmt.escaped(row.program), lambda row: row.program, descending=False)
_COMMON: Final[tuple[Column, ...]] = (
    Column("processes", "PROC", 4, 6, lambda row: str(len(row.members)), lambda row: len(row.members)),
    Column("hit", "HIT%", 5, 1, lambda row: fmt.percent(row.recent_ratio), lambda row: row.recent_ratio),
    Column("history", "LAST MINUTE", 20, 4, lambda row: fmt.sparkline(row.history), lambda row: row.recent_ratio),
    Column("total", "ALL%", 5, 8, lambda row: fmt.percent(row.hit_ratio), lambda row: row.hit_ratio),
    Column("ops", "OPS/s", 6, 2, lambda row: fmt.count(row.operations), lambda row: row.operations),
    Column("fill", "FILL", 4, 3, _fill, lambda row: row.fill),
    Column("entries", "ENTRY", 5, 10, lambda row: fmt.count(row.entries), lambda row: row.entries),
)
_LIVE: Final[tuple[Column, ...]] = (
    Column("evictions", "EVIC/s", 6, 7, lambda row: fmt.count(_rate("evictions")(row)), _rate("evictions")),
    Column("loads", "LOAD/s", 6, 9, lambda row: fmt.count(_loads(row)), _loads),
)
_ONCE: Final[tuple[Column, ...]] = (
    Column("evictions", "EVICT", 6, 7, lambda row: fmt.count(row.totals["evictions"]), lambda row: row.totals["evictions"]),
    Column("loads", "LOADS", 6, 9, lambda row: fmt.count(_attempts(row)), _attempts),
)
_TAIL: Final[tuple[Column, ...]] = (
    Column("load", "LOAD", 6, 11, lambda row: fmt.duration(row.mean_load), lambda row: row.mean_load),
    Column("saved", "SAVED", 6, 4, lambda row: fmt.duration(row.saved), lambda row: row.saved),
)
LIVE_COLUMNS: Final[tuple[Column, ...]] = (_NAME, _PROGRAM, *_COMMON, *_LIVE, *_TAIL)
ONCE_COLUMNS: Final[tuple[Column, ...]] = (_NAME, _PROGRAM, *_COMMON, *_ONCE, *_TAIL)
SORT_KEYS: Final = tuple(column.key for column in LIVE_COLUMNS if column.key != "history")


def is_narrow(columns: int, lines: int) -> bool:
    """Returns whether a screen is too small for the view.

    Args:
        columns: Its columns.
        lines: Its lines.
    """
    return columns < MIN_WIDTH or lines < MIN_HEIGHT


def sorted_rows(rows: Sequence[Row], key: str, reverse: bool) -> list[Row]:
    """Returns rows in the order of a column; rows without a value come last.

    Args:
        rows: The rows.
        key: One of `SORT_KEYS`.
        reverse: Whether to turn the order of the column around.
    """
    [column] = [column for column in LIVE_COLUMNS if column.key == key]
    known = [row for row in rows if column.order(row) is not None]
    unknown = [row for row in rows if column.order(row) is None]
    return sorted(known, key=column.order, reverse=column.descending != reverse) + unknown


def _chosen(columns: Sequence[Column], rows: Sequence[Row], available: int | None) -> tuple[list[Column], int]:
    """Returns the columns that fit, and the width of the column of names."""
    chosen = [column for column in columns if column is not _PROGRAM or len({row.program for row in rows}) > 1]
    longest = max((fmt.width(fmt.escaped(row.name)) for row in rows), default=0)
    if available is None:
        return chosen, max(longest, len(_NAME.title))
    name = min(max(longest, _MIN_NAME), _MAX_NAME)
    while (left := available - sum(column.width + 1 for column in chosen if column.width)) < min(name, 24):
        droppable = [column for column in chosen if column.rank]
        if not droppable or left >= _MIN_NAME and all(column.rank <= 2 for column in droppable):
            break
        chosen.remove(max(droppable, key=lambda column: column.rank))
    return chosen, max(1, min(name, left))


def _style(column: Column, row: Row) -> str:
    value = {"hit": row.recent_ratio, "history": row.recent_ratio, "total": row.hit_ratio}.get(column.key)
    return "" if value is None else ratio_style(value)


def ratio_style(value: float) -> str:
    """Returns the style of a hit ratio.

    Args:
        value: The ratio.
    """
    return "good" if value >= 0.8 else "fair" if value >= 0.5 else "poor"


def table(
    rows: Sequence[Row],
    *,
    columns: Sequence[Column],
    available: int | None,
    sort: str = "",
    selected: Any = None,
    ascii_only: bool = False,
) -> list[Line]:
    """Returns the lines of the table: the headings, then one line for each row.

    Args:
        rows: The rows, in order.
        columns: The columns, those that do not fit included.
        available: The columns of the screen; None for any number.
        sort: The column whose heading is marked.
        selected: The key of the selected row.
        ascii_only: Whether to use ASCII characters for the history.
    """
    chosen, name_width = _chosen(columns, rows, available)
    ellipsis = "~" if ascii_only else "…"

    def laid_out(column: Column, text: str, style: str) -> Cell:
        columns_of = column.width or name_width
        right = column.key not in ("name", "program", "history")
        return Cell(fmt.padded(fmt.cut(text, columns_of, more=ellipsis), columns_of, right=right), style)

    lines = [Line(_spaced([laid_out(column, column.title, "key" if column.key == sort else "title") for column in chosen]))]
    for row in rows:
        cells = [
            laid_out(column, fmt.sparkline(row.history, ascii_only=ascii_only) if column.key == "history" else column.text(row), _style(column, row))
            for column in chosen
        ]
        lines.append(Line(_spaced(cells), row.key == selected))
    return lines


def _spaced(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    spaced: list[Cell] = []
    for cell in cells:
        spaced += [Cell(" "), cell] if spaced else [cell]
    return tuple(spaced)


def heading(snapshot: Snapshot, directory: str) -> list[Line]:
    """Returns the lines above the table.

    Args:
        snapshot: The figures.
        directory: The directory of the stats files.
    """
    processes, caches = len(snapshot.processes), len(snapshot.rows)
    hits = "" if snapshot.recent_ratio is None else f", {fmt.percent(snapshot.recent_ratio)}% hits"
    saved = "" if snapshot.saved is None else f", {fmt.duration(snapshot.saved)} saved"
    text = (
        f" {caches} {'cache' if caches == 1 else 'caches'} in {processes} {'process' if processes == 1 else 'processes'}, "
        f"{fmt.count(snapshot.operations)} lookups/s{hits}{saved}"
    )
    lines = [Line((Cell("hotset top", "title"), Cell(text), Cell(f"  {fmt.escaped(directory)}", "dim")))]
    if snapshot.omitted:
        lines.append(Line((Cell(f"{snapshot.omitted} named caches are not shown: a stats file has no room for them", "warning"),)))
    return lines


def _totals_line(label: str, figures: Sequence[tuple[str, str]]) -> Line:
    text = "  ".join(f"{name} {value}" for name, value in figures if value != fmt.UNKNOWN)
    return Line((Cell(f"{label:<10}", "title"), Cell(text)))


def details(row: Row, now: float) -> list[Line]:
    """Returns lines with all figures of one row.

    Args:
        row: The row.
        now: The time on the clock of `ProcessStats.monotonic`.
    """
    totals = {name: fmt.count(value) for name, value in row.totals.items()}
    bound = "no bound" if row.capacity is None else f"capacity {fmt.count(row.capacity)} {'of weight' if row.weighted else 'entries'}"
    weight = f", weight {fmt.count(row.weight)}" if row.weighted else ""
    memory = "" if row.bytes is None else f", {fmt.size(row.bytes)}"
    lines = [
        Line((Cell(fmt.escaped(row.name), "key"), Cell(f" in {fmt.escaped(row.program)} ({row.kind}): {fmt.count(row.entries)} entries{weight}, {bound}{memory}"))),
        _totals_line(
            "lookups",
            [("hits", totals["hits"]), ("misses", totals["misses"]), ("stale hits", totals["stale_hits"]), ("waits", totals["waits"])],
        ),
        _totals_line(
            "entries",
            [(name.replace("_", " "), totals[name]) for name in ("insertions", "evictions", "evicted_weight", "rejections", "expirations")],
        ),
        _totals_line(
            "loads",
            [
                ("successful", totals["loads"]),
                ("failed", totals["load_failures"]),
                ("mean", fmt.duration(row.mean_load)),
                ("median <=", fmt.duration(quantile(row.buckets, 0.5))),
                ("p99 <=", fmt.duration(quantile(row.buckets, 0.99))),
                ("saved", fmt.duration(row.saved)),
            ],
        ),
    ]
    if row.tier2:
        lines.append(_totals_line("tier 2", [(name, fmt.count(value)) for name, value in row.tier2.items()]))
    if row.curve:
        lines += _curve(row)
    lines.append(Line((Cell(f"{'process':<10}", "title"), Cell(f"{'PID':>7} {'HIT%':>5} {'OPS/s':>6} {'FILL':>5} {'READ':>6}", "dim"))))
    for member in row.members:
        cache = member.cache
        hits, misses = member.recent[1:]
        fill = fmt.UNKNOWN if not cache.capacity else f"{min(cache.weight / cache.capacity, 9.99) * 100:.0f}%"
        recent = fmt.percent(hits / (hits + misses) if hits + misses else None)
        age = fmt.duration(max(0.0, now - member.process.monotonic))
        unknown = "  another container: cannot tell whether it is alive" if member.process.alive is None else ""
        operations = fmt.count((hits + misses) / member.recent[0])
        lines.append(
            Line((Cell(f"{'':<10}{member.process.pid:>7} {recent:>5} {operations:>6} {fill:>5} {age:>6}"), Cell(unknown, "warning")))
        )
    return lines


def _curve(row: Row) -> list[Line]:
    of = f"per process, mean of {row.curve_members}" if row.curve_members > 1 else "per process"
    own = {member.cache.capacity for member in row.members}
    heads = [fmt.count(point.capacity) + ("*" if point.capacity in own else "") for point in row.curve]
    lines = [Line((Cell(f"{'curve':<10}", "title"), Cell("capacity "), Cell(" ".join(f"{head:>8}" for head in heads)), Cell(f"  {of}; * now", "dim")))]
    ratios = [Cell(f" {fmt.percent(point.hit_ratio):>8}", ratio_style(point.hit_ratio)) for point in row.curve]
    lines.append(Line((Cell(f"{'':<10}hit%    "), *ratios)))
    if any(point.bytes is not None for point in row.curve):
        lines.append(Line((Cell(f"{'':<10}memory  "), Cell("".join(f" {fmt.size(point.bytes):>8}" for point in row.curve)))))
    return lines
