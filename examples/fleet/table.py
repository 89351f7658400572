"""What the demo prints and draws: a row per phase and fleet, and one chart of all fleets."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FLEETS = {
    "hotset": ("hotset in front of Redis", "#2f6f9f"),
    "redis": ("Redis only", "#c0392b"),
    "functools": ("functools only", "#e8a33d"),
    "none": ("no cache", "#888888"),
}


@dataclass(frozen=True)
class Row:
    """The figures of one phase of one fleet.

    Ratios are None without lookups; latencies are in milliseconds, ages in seconds.

    Attributes:
        stale, checked: Reads of the checker that were stale, of all of its reads.
        oldest: The greatest age of these.
        errors: Requests that failed, of wrk and the checker.
    """

    phase: str
    seconds: float
    rate: float
    p50: float
    p99: float
    queries: int
    tier1: float | None
    tier2: float | None
    stale: int
    checked: int
    oldest: float
    errors: int

    HEADER = (
        f"{'phase':<17}{'seconds':>8}{'requests/s':>12}{'p50':>9}{'p99':>10}{'queries':>9}{'tier 1':>8}{'tier 2':>8}"
        f"{'stale reads':>15}{'oldest':>10}{'errors':>8}"
    )

    def __str__(self) -> str:
        return (
            f"{self.phase:<17}{self.seconds:>8.1f}{self.rate:>12,.0f}{self.p50:>6.1f} ms{self.p99:>7.0f} ms{self.queries:>9,}"
            f"{_percent(self.tier1):>8}{_percent(self.tier2):>8}{f'{self.stale} of {self.checked:,}':>15}{self.oldest:>8.2f} s{self.errors:>8}"
        )


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def draw(path: Path, rows: dict[str, list[Row]], promised: float) -> None:
    """Draws all phases of all fleets.

    Args:
        promised: How old a read of the first fleet may be while Redis can be reached, in seconds.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fleet", "font.size": 10})
    phases = [row.phase for row in max(rows.values(), key=len)]
    figure, axes = pyplot.subplots(4, 1, sharex=True, figsize=(11, 11.5))
    width = 0.8 / len(rows)
    for number, (fleet, own) in enumerate(rows.items()):
        label, color = FLEETS[fleet]
        places = [phases.index(row.phase) + (number - (len(rows) - 1) / 2) * width for row in own]
        figures: Iterable[list[float]] = (
            [row.rate for row in own],
            [row.p99 for row in own],
            [row.queries / row.seconds for row in own],
            [row.oldest for row in own],
        )
        for axis, values in zip(axes, figures, strict=True):
            axis.bar(places, values, width * 0.92, color=color, label=label)
    titles = ("requests per second", "p99 of latency, ms", "queries of the source per second", "oldest stale read, s (dashed: hotset's promise while Redis answers)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, loc="left", fontsize=11)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[2].set_yscale("symlog", linthresh=10)
    axes[3].set_yscale("symlog", linthresh=0.1)
    axes[3].axhline(promised, color="#2f6f9f", linestyle="--", linewidth=1)
    for axis in axes[1:]:
        axis.yaxis.set_major_formatter("{x:g}")
    axes[0].legend(ncols=len(rows), loc="lower right", bbox_to_anchor=(1, 1.0), frameon=False)
    axes[-1].set_xticks(range(len(phases)), [phase.replace(" ", "\n", 1) for phase in phases])
    axes[-1].set_xlim(-0.5, len(phases) - 0.5)
    figure.align_ylabels(axes)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
