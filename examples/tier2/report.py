"""What the demo prints and draws: a row per phase, the guarantees, one chart over time."""

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from load import History, Load, Read, Sample, Stale, Traffic


class Phase(NamedTuple):
    """A part of the run.

    Attributes:
        name: What is printed.
        begin, end: Times of the monotonic clock.
        is_up: Whether Redis was running.
    """

    name: str
    begin: float
    end: float
    is_up: bool


@dataclass(frozen=True)
class Row:
    """The figures of one phase. Ratios are None where nothing was looked up."""

    name: str
    seconds: float
    requests: int
    errors: int
    tier1: float | None
    tier2: float | None
    loads: int
    stale: int
    oldest: float
    p50: float
    p99: float

    HEADER = "phase          " + "".join(
        f"{name:>{width}}"
        for name, width in zip(
            ("seconds", "requests", "errors", "tier 1", "tier 2", "loads", "stale", "oldest", "p50", "p99"),
            (8, 9, 7, 8, 8, 7, 7, 9, 9, 9),
            strict=True,
        )
    )

    def __str__(self) -> str:
        return (
            f"{self.name:<15}{self.seconds:>8.1f}{self.requests:>9}{self.errors:>7}{_percent(self.tier1):>8}{_percent(self.tier2):>8}"
            f"{self.loads:>7}{self.stale:>7}{self.oldest:>7.2f} s{self.p50 * 1e3:>6.1f} ms{self.p99 * 1e3:>6.0f} ms"
        )


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def percentile(ordered: list[float], share: float) -> float:
    """Returns the value below which this share of the ordered values is; 0 if there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def ratio(hits: int, misses: int) -> float | None:
    """Returns the share of hits; None without lookups."""
    return hits / (hits + misses) if hits + misses else None


def between(samples: list[Sample], begin: float, end: float) -> tuple[Sample, Sample] | None:
    """Returns the samples nearest to these times; None if there is but one."""
    if not samples:
        return None
    times = [sample.at for sample in samples]
    first, last = samples[min(bisect_left(times, begin), len(samples) - 1)], samples[min(bisect_left(times, end), len(samples) - 1)]
    return (first, last) if last.at > first.at else None


def row(phase: Phase, reads: list[Read], judged: dict[Read, Stale], samples: list[Sample]) -> Row:
    """Returns the figures of a phase, of the reads that were sent in it."""
    own = [read for read in reads if phase.begin <= read.sent < phase.end]
    latencies = sorted(read.received - read.sent for read in own if not read.error)
    ages = [judged[read].age for read in own if read in judged]
    tier1 = tier2 = None
    loads = 0
    pair = between(samples, phase.begin, phase.end)
    if pair is not None:
        first, last = pair
        tier1 = ratio(last.tier1_hits - first.tier1_hits, last.tier1_misses - first.tier1_misses)
        tier2 = ratio(last.tier2_hits - first.tier2_hits, last.tier2_misses - first.tier2_misses)
        loads = last.loads - first.loads
    return Row(
        phase.name,
        phase.end - phase.begin,
        len(own),
        sum(bool(read.error) for read in own),
        tier1,
        tier2,
        loads,
        len(ages),
        max(ages, default=0.0),
        percentile(latencies, 0.5),
        percentile(latencies, 0.99),
    )


def judge_all(load: Traffic) -> dict[Read, Stale]:
    """Returns the reads that were stale."""
    history = History(load.updates)
    judged = ((read, history.judge(read)) for read in load.reads if not read.error)
    return {read: stale for read, stale in judged if stale is not None}


def draw(path: Path, phases: list[Phase], load: Load, judged: dict[Read, Stale], local_ttl: float) -> None:
    """Draws the run over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    begin, end = phases[0].begin, phases[-1].end
    width = 1.0
    bins = range(max(1, int((end - begin) / width)))
    centers = [(number + 0.5) * width for number in bins]
    latencies: list[list[float]] = [[] for _ in bins]
    for read in load.reads:
        place = int((read.sent - begin) / width)
        if not read.error and 0 <= place < len(latencies):
            latencies[place].append((read.received - read.sent) * 1e3)
    ordered = [sorted(each) for each in latencies]
    pairs = [between(load.samples, begin + number * width, begin + (number + 1) * width) for number in bins]
    shares: list[tuple[float, float, float]] = []
    loads: list[float] = []
    for pair in pairs:
        if pair is None:
            shares.append(shares[-1] if shares else (0, 0, 0))
            loads.append(loads[-1] if loads else 0)
            continue
        first, last = pair
        hits, misses = last.tier1_hits - first.tier1_hits, last.tier1_misses - first.tier1_misses
        second = min(last.tier2_hits - first.tier2_hits, misses)
        lookups = max(1, hits + misses)
        shares.append((100 * hits / lookups, 100 * second / lookups, 100 * (misses - second) / lookups))
        loads.append((last.loads - first.loads) / (last.at - first.at))

    figure, axes = pyplot.subplots(4, 1, sharex=True, figsize=(12, 11), height_ratios=(3, 2, 3, 3))
    answers, counts, delays, ages = axes
    answers.stackplot(
        centers,
        *zip(*shares, strict=True),
        labels=("tier 1: the worker's memory", "tier 2: Redis", "neither: loaded, or waited for a load"),
        colors=("#2f6f9f", "#8fbcd4", "#e8a33d"),
    )
    answers.set_ylabel("lookups answered by, %")
    answers.set_ylim(0, 100)
    answers.legend(loc="lower left", framealpha=0.95)

    counts.plot(centers, loads, color="#b5651d", drawstyle="steps-mid")
    counts.set_ylabel("loads per second")
    counts.set_ylim(bottom=0)

    delays.plot(centers, [percentile(each, 0.5) for each in ordered], color="#2f6f9f", label="p50")
    delays.plot(centers, [percentile(each, 0.99) for each in ordered], color="#c0392b", label="p99")
    delays.set_yscale("log")
    delays.yaxis.set_major_formatter("{x:g}")
    delays.set_ylabel("latency of requests, ms")
    delays.legend(loc="upper left", framealpha=0.95)

    bound = f"bound in an outage: local_ttl, {local_ttl:g} s"
    ages.axhline(local_ttl, color="#c0392b", linestyle="--", linewidth=1, label=bound)
    times = [read.sent - begin for read in judged]
    ages.scatter(times, [stale.age for stale in judged.values()], s=7, color="#7d3c98", label="a stale read", zorder=3)
    ages.set_ylabel("age of stale reads, s")
    ages.set_ylim(0, max([local_ttl, *(stale.age for stale in judged.values())]) * 1.4)
    ages.legend(loc="upper left", framealpha=0.95)
    ages.set_xlabel("seconds")

    for axis in axes:
        axis.set_xlim(0, end - begin)
        axis.grid(axis="y", alpha=0.3)
        for phase in phases:
            if not phase.is_up:
                axis.axvspan(phase.begin - begin, phase.end - begin, color="#c0392b", alpha=0.10, linewidth=0)
            if phase.begin > begin:
                axis.axvline(phase.begin - begin, color="#555555", linewidth=0.8, linestyle=":")
    for phase in phases:
        middle = (phase.begin + phase.end) / 2 - begin
        answers.text(middle, 103, phase.name, ha="center", va="bottom", fontsize=10, color="#c0392b" if not phase.is_up else "#222222")
    figure.suptitle("hotset in front of Redis: four gunicorn workers behind nginx", y=0.985)
    figure.align_ylabels(axes)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
