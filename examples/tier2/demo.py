"""Shows two tiers of cache under load while Redis stops, continues, dies and returns.

Starts redis-server, the service of `service.py` under gunicorn with four workers, and nginx, all on
loopback; sends requests, updates rows, and prints the results of each phase. Draws a chart, stops
all servers, and exits with 1 if a guarantee of hotset was broken.

    make demo-tier2
"""

import argparse
import importlib.util
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from load import Load, Read, Sample, Stale
from report import Phase, Row, draw, judge_all, percentile, row
from servers import WORKERS, Servers, StartError

PRODUCTS = 2_000
LOCAL_TTL = 10.0
"""Seconds for which a worker stores a product without new confirmation: its greatest age in an
outage.
"""
MAX_LAG = 2.5
"""The greatest age of a value of the first tier while Redis can be reached, in seconds: guarantee
G5.
"""
RECOVERY_SECONDS = 60.0
"""Seconds after which workers that have not recovered from an outage fail the demo."""


def main() -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description="Runs two tiers of cache under load while Redis stops, continues, dies and returns.")
    parser.add_argument("--chart", type=Path, help="where to draw the chart (.png or .svg); no chart without it")
    parser.add_argument("--seconds", type=float, default=15, help="seconds of each phase (15)")
    parser.add_argument("--reads", type=float, default=300, help="requests per second, at most (300)")
    parser.add_argument("--updates", type=float, default=10, help="updates per second, at most (10)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the products (1)")
    options = parser.parse_args()
    if min(options.seconds, options.reads, options.updates) <= 0:
        parser.error("--seconds, --reads and --updates must be positive")
    if options.chart is not None and options.chart.suffix not in (".png", ".svg"):
        parser.error("--chart must end in .png or .svg")
    if options.chart is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--chart needs matplotlib: pip install matplotlib")
    # So that the servers are stopped however the demo ends.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _exit_on_signal)
    try:
        with tempfile.TemporaryDirectory(prefix="hotset-demo-") as folder:
            return demonstrate(Path(folder), options)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the servers are stopped", file=sys.stderr)
        return 130


def _exit_on_signal(number: int, _: Any) -> None:
    sys.exit(128 + number)


def demonstrate(folder: Path, options: argparse.Namespace) -> int:
    """Runs the phases; returns the exit status."""
    database = folder / "products.sqlite"
    make_database(database)
    servers = Servers(folder, database, LOCAL_TTL)
    load = Load(servers.port, PRODUCTS, options.reads, options.updates, options.seed)
    with servers:
        rates = f"at most {options.reads:g} reads and {options.updates:g} updates a second"
        print(f"{WORKERS} workers behind nginx on port {servers.port}; {PRODUCTS} products, {rates}")
        print(f"\n{Row.HEADER}", flush=True)
        try:
            phases = run_phases(servers, load, options.seconds)
        finally:
            load.stop()
        load.check()
        is_running = servers.redis.is_running() and servers.gunicorn.is_running()
        logs = servers.logs()
    judged = judge_all(load)
    faults = report(phases, load, judged)
    if not is_running or len({worker for sample in load.samples for worker in sample.workers}) != WORKERS:
        faults.append("a server ended unexpectedly")
    if options.chart is not None:
        options.chart.parent.mkdir(parents=True, exist_ok=True)
        draw(options.chart, phases, load, judged, LOCAL_TTL)
        print(f"\nchart: {options.chart}")
    if faults:
        print("\nBROKEN:", *faults, sep="\n  ")
        print(f"\n{logs}", file=sys.stderr)
        return 1
    return 0


def make_database(path: Path) -> None:
    """Makes the database of products."""
    with closing(sqlite3.connect(path)) as database:
        # (Readers do not wait for writers; nothing here must survive a crash of the machine.)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE product (number INTEGER PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL)")
        database.executemany("INSERT INTO product VALUES (?, ?, 1)", ((number, f"product {number}") for number in range(1, PRODUCTS + 1)))
        database.commit()


def run_phases(servers: Servers, load: Load, seconds: float) -> list[Phase]:
    """Runs all phases, and prints a row for each."""
    phases: list[Phase] = []

    def phase(name: str, is_up: bool, *, until_whole: bool = False) -> None:
        begin = time.monotonic()
        time.sleep(seconds)
        while until_whole and not any(is_whole(sample) and sample.published >= begin for sample in load.samples[-3:]):
            load.check()
            if time.monotonic() > begin + max(RECOVERY_SECONDS, seconds):
                break
            time.sleep(0.1)
        phases.append(Phase(name, begin, time.monotonic(), is_up))
        print(row(phases[-1], load.reads, judge_all(load), load.samples), flush=True)

    load.start()
    phase("warm up", True, until_whole=True)
    phase("steady", True)
    servers.redis.send(signal.SIGSTOP)
    phase("Redis stopped", False)
    servers.redis.send(signal.SIGCONT)
    phase("continued", True, until_whole=True)
    servers.redis.kill()
    phase("Redis killed", False)
    servers.redis.start()
    phase("started again", True, until_whole=True)
    return phases


def is_whole(sample: Sample) -> bool:
    """Returns whether all workers reached Redis, got its announcements, and had none to replay."""
    return sample.up == sample.armed == len(sample.workers) == WORKERS and sample.journal == 0


def report(phases: list[Phase], load: Load, judged: dict[Read, Stale]) -> list[str]:
    """Prints the totals and the guarantees; returns those that were broken."""
    faults: list[str] = []

    def promise(text: str, broken: int, detail: str) -> None:
        print(f"  {'BROKEN' if broken else 'kept':<8}{text}: {detail}")
        if broken:
            faults.append(f"{text}: {detail}")

    print()
    for at, each in enumerate(phases):
        if each.is_up and (at == 0 or not phases[at - 1].is_up):
            samples = (sample for sample in load.samples if each.begin <= sample.published and sample.at < each.end)
            whole = next((sample.at for sample in samples if is_whole(sample)), None)
            took = "never" if whole is None else f"after {whole - each.begin:.1f} s"
            promise(f"{each.name}: all workers use Redis, and hear its announcements", whole is None, took)
    failed = [read.error for read in load.reads if read.error] + [update.error for update in load.updates if update.error]
    count = len(load.reads) + len(load.updates)
    promise("every request is answered", len(failed), f"{len(failed)} of {count} failed {failed[:2] or ''}".rstrip())
    own = [stale.own_age for stale in judged.values() if stale.own_age]
    promise("a worker never returns what it has itself invalidated", len(own), f"{len(own)} reads, the oldest {max(own, default=0):.2f} s")
    bounds = Bounds(phases, load.samples)
    for name, limit in Bounds.LIMITS.items():
        ages = [(stale.age, bounds.limit(read)) for read, stale in judged.items() if bounds.kind(read) == name]
        beyond = sum(age > allowed for age, allowed in ages)
        oldest = max((age for age, _ in ages), default=0.0)
        promise(f"{name}, a read is stale by at most {limit}", beyond, f"the oldest {oldest:.2f} s")
    times = sorted(update.received - update.sent for update in load.updates if not update.error)
    if times:
        unconfirmed = sum(not update.is_confirmed for update in load.updates)
        print(f"  {len(times)} updates, {unconfirmed} of them not confirmed by Redis; p50 {percentile(times, 0.5) * 1e3:.1f} ms")
    return faults


class Bounds:
    """What hotset promises of a read's age, by what the workers knew when it was sent.

    A worker that was cut off replays its invalidations when Redis answers again. Until then,
    another worker may read from Redis what the first one has invalidated.
    """

    UP, DOWN, RECOVERING = "with Redis", "without Redis", "while workers return to Redis"
    LIMITS = {UP: f"{MAX_LAG} s", DOWN: f"{LOCAL_TTL:g} s (local_ttl)", RECOVERING: "the outage, or local_ttl"}

    def __init__(self, phases: list[Phase], samples: list[Sample]) -> None:
        self._outages = [phase for phase in phases if not phase.is_up]
        self._whole: list[tuple[float, float]] = []
        """Returns the intervals without an outage in any sample, or a loss in between."""
        self._last_sample: Sample | None = None
        for before, after in zip(samples, samples[1:], strict=False):
            if not (is_whole(before) and is_whole(after) and before.losses == after.losses):
                continue
            if self._whole and self._last_sample == before:
                self._whole[-1] = (self._whole[-1][0], after.published)
            else:
                self._whole.append((before.at, after.published))
            self._last_sample = after

    def kind(self, read: Read) -> str:
        """Returns which bound holds for a read."""
        if any(outage.begin <= read.sent < outage.end for outage in self._outages):
            return self.DOWN
        # (What workers replayed is heard by the others within the lag.)
        return self.UP if any(begin + MAX_LAG <= read.sent < end for begin, end in self._whole) else self.RECOVERING

    def limit(self, read: Read) -> float:
        """Returns how old what a read returns may be."""
        kind = self.kind(read)
        if kind == self.UP:
            return MAX_LAG
        if kind == self.DOWN:
            return LOCAL_TTL
        cut_off_since = max((end for _, end in self._whole if end <= read.sent), default=float("-inf"))
        return max(LOCAL_TTL, read.sent - cut_off_since + MAX_LAG)


if __name__ == "__main__":
    sys.exit(main())
