"""Shows a load-balanced fleet with four kinds of cache, under load and failures.

They are hotset in front of Redis, Redis only, functools only, and none. For each, starts Redis, and
nginx before four workers of Django, four of Flask and four of FastAPI; loads them with wrk; takes a
worker out, kills one, restarts all, kills Redis and starts it again; prints the figures of each
phase, draws one chart of the four, and exits with 1 if hotset broke a promise. Everything runs on
free ports of loopback, and is stopped at the end.

    make demo-fleet
"""

import argparse
import importlib.util
import json
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# What starts servers, reads and judges is the smaller demo's.
sys.path.append(str(Path(__file__).parents[1] / "tier2"))

from drive import CONNECTIONS, Answered, Checker, Wrk  # noqa: E402
from fleet import LOCAL_TTL, MODES, PLACES, THREADS, Fleet, Worker  # noqa: E402
from load import READERS, Read  # noqa: E402
from report import judge_all, ratio  # noqa: E402
from servers import StartError  # noqa: E402
from source import make_database  # noqa: E402
from table import FLEETS, Row, draw  # noqa: E402

MAX_LAG = 2.5
"""The greatest age of a value of the first tier while Redis can be reached, in seconds: guarantee
G5.
"""
PUBLISHED_SECONDS = 0.5
"""Seconds after which all workers have published what they counted."""
RECOVERY_SECONDS = 60.0
"""Seconds after which workers that do not use Redis fail the demo."""


def main() -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description="Runs a load-balanced fleet with four kinds of cache.")
    parser.add_argument("--chart", type=Path, help="where to draw the chart (.png or .svg); no chart without it")
    parser.add_argument("--seconds", type=float, default=5, help="seconds of each phase, at least 1 (5)")
    parser.add_argument("--fleets", nargs="+", choices=MODES, default=MODES, metavar="FLEET", help=f"which to run ({' '.join(MODES)})")
    parser.add_argument("--reads", type=float, default=150, help="checked reads per second, at most (150)")
    parser.add_argument("--updates", type=float, default=5, help="updates per second, at most (5)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the products (1)")
    parser.add_argument("--figures", type=Path, help="where to write all figures as JSON")
    options = parser.parse_args()
    if options.seconds < 1 or min(options.reads, options.updates) <= 0:
        parser.error("--seconds must be at least 1, --reads and --updates positive")
    if options.chart is not None and options.chart.suffix not in (".png", ".svg"):
        parser.error("--chart must end in .png or .svg")
    if options.chart is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--chart needs matplotlib: pip install matplotlib")
    # So that the servers are stopped however the demo ends.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _exit_on_signal)
    try:
        with tempfile.TemporaryDirectory(prefix="hotset-fleet-") as folder:
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
    """Runs all fleets; returns the exit status."""
    database = folder / "products.sqlite"
    make_database(database)
    print(f"{len(PLACES)} workers behind nginx: 4 of Django, 4 of Flask, 4 of FastAPI", flush=True)
    rows: dict[str, list[Row]] = {}
    faults: list[str] = []
    for mode in dict.fromkeys(options.fleets):
        own = folder / mode
        own.mkdir()
        # (A copy each, so that all begin with the same.)
        for path in folder.glob("products.sqlite*"):
            shutil.copy(path, own)
        run = Run(own, mode, options)
        rows[mode] = run.run()
        faults += run.faults
        shutil.rmtree(own)
    if options.figures is not None:
        options.figures.parent.mkdir(parents=True, exist_ok=True)
        options.figures.write_text(json.dumps({mode: [vars(row) for row in each] for mode, each in rows.items()}, indent=1))
    if options.chart is not None:
        options.chart.parent.mkdir(parents=True, exist_ok=True)
        draw(options.chart, rows, MAX_LAG)
        print(f"\nchart: {options.chart}")
    if faults:
        print("\nBROKEN:", *faults, sep="\n  ")
        return 1
    return 0


class Run:
    """One fleet's phases.

    Attributes:
        faults: The promises that were broken.
    """

    def __init__(self, folder: Path, mode: str, options: argparse.Namespace) -> None:
        self.faults: list[str] = []
        self._mode = mode
        self._seconds: float = options.seconds
        self._seed: int = options.seed
        self._fleet = Fleet(folder, folder / "products.sqlite", mode)
        self._checker = Checker(self._fleet.round_robin_port, options.reads, options.updates, options.seed)
        self._rows: list[Row] = []
        self._notes: list[str] = []
        self._outage: Outage | None = None
        self._counted = (0, 0)
        """Reads and updates of the checker that are in rows."""

    def run(self) -> list[Row]:
        """Runs the phases; prints and returns a row for each."""
        print(f"\n{FLEETS[self._mode][0]}\n{Row.HEADER}", flush=True)
        with self._fleet:
            self._checker.start()
            try:
                self._phases()
            finally:
                self._checker.stop()
            self._checker.check()
            if not self._fleet.are_running():
                self._promise("no server ends", False, "one has ended")
            self._judge()
            if self.faults:
                print(self._fleet.logs(), file=sys.stderr)
        return self._rows

    def _phases(self) -> None:
        fleet = self._fleet
        self._phase("warm up", self._until_whole)
        self._phase("round robin", self._pause)
        self._checker.port = fleet.least_connections_port
        self._phase("least connections", self._pause)
        self._checker.port = fleet.round_robin_port
        self._phase("worker out, back", self._out_and_back)
        self._phase("worker killed", self._kill_worker)
        self._phase("rolling restart", self._restart_all)
        if fleet.has_redis:
            self._phase("Redis killed", self._kill_redis)
            self._phase("Redis back", self._start_redis)

    def _phase(self, name: str, act: Callable[[], None]) -> None:
        """Loads the fleet while `act` runs, and prints the row."""
        fleet, checker = self._fleet, self._checker
        before, served, begin = fleet.totals(), _served(fleet), time.monotonic()
        first = self._counted
        with Wrk(checker.port, self._seed + len(self._rows)) as wrk:
            act()
            answered = wrk.stop()
        end = time.monotonic()
        checker.check()
        # (So that the counters of what was answered have been published.)
        fleet.wait_for_counters(end)
        after = fleet.totals()
        self._counted = len(checker.reads), len(checker.updates)
        row = self._row(name, answered, end - begin, {key: after[key] - before[key] for key in after}, first)
        self._rows.append(row)
        print(row, flush=True)
        if name in ("round robin", "least connections"):
            shares = sorted(_served(fleet)[place] - served[place] for place in PLACES)
            total = max(1, sum(shares))
            self._notes.append(f"{name}: a worker answered {shares[0] / total:.1%} to {shares[-1] / total:.1%} of all requests")

    def _row(self, name: str, answered: Answered, seconds: float, counted: dict[str, int], first: tuple[int, int]) -> Row:
        # (All that has been answered since the phase before: each is in one row.)
        reads = self._checker.reads[first[0] : self._counted[0]]
        updates = self._checker.updates[first[1] : self._counted[1]]
        judged = judge_all(self._checker)
        ages = [judged[read].age for read in reads if read in judged]
        return Row(
            name,
            seconds,
            answered.requests / answered.seconds,
            answered.p50,
            answered.p99,
            counted["queries"],
            ratio(counted["tier1_hits"], counted["tier1_lookups"] - counted["tier1_hits"]),
            ratio(counted["tier2_hits"], counted["tier2_lookups"] - counted["tier2_hits"]),
            len(ages),
            len(reads),
            max(ages, default=0.0),
            answered.errors + sum(bool(read.error) for read in reads) + sum(bool(update.error) for update in updates),
        )

    # --- What happens in the phases.

    def _pause(self) -> None:
        time.sleep(self._seconds)

    def _until_whole(self) -> None:
        """Waits for the phase's time, and for all workers to use Redis."""
        begin = time.monotonic()
        time.sleep(self._seconds)
        while not self._fleet.are_whole(begin):
            if time.monotonic() > begin + RECOVERY_SECONDS + self._seconds:
                self._promise("all workers use Redis, and hear its announcements", False, f"not after {RECOVERY_SECONDS:g} s")
                return
            self._checker.check()
            time.sleep(0.05)

    def _out_and_back(self) -> None:
        """Has one worker answer 503, and serve again."""
        fleet, place = self._fleet, "flask-1"
        before = fleet.workers()[place].counters
        fleet.set_out(place, True)
        time.sleep(max(1.0, self._seconds / 2))
        fleet.set_out(place, False)
        time.sleep(PUBLISHED_SECONDS)
        out = fleet.workers()[place].counters
        # (nginx tries it again after two seconds at most.)
        time.sleep(max(2.5, self._seconds / 2))
        back = fleet.workers()[place].counters
        refused, later = out["refused"] - before["refused"], back["served"] - out["served"]
        text = f"{refused} requests refused while it was out, {later} answered when it was back"
        # (Some at the same time, and then one a second.)
        is_kept = 1 <= refused <= CONNECTIONS + READERS + self._seconds and later > 0
        self._promise("nginx leaves out a worker that answers 503, and takes it back", is_kept, text)

    def _kill_worker(self) -> None:
        """Kills one worker with its requests; its master starts another."""
        begin = time.monotonic()
        killed = self._fleet.end_worker("django-2", signal.SIGKILL)
        self._fleet.wait_for_successor(killed)
        self._notes.append(f"worker killed: the next one took requests after {time.monotonic() - begin:.1f} s")
        time.sleep(max(0.0, begin + self._seconds - time.monotonic()))

    def _restart_all(self) -> None:
        """Restarts all workers, two of each program at a time.

        Each is taken out and ends, and its successor warms before it listens.
        """
        begin = time.monotonic()
        successors: list[Worker] = []
        for number in range(0, len(PLACES), 6):
            places = PLACES[number : number + 6]
            for place in places:
                self._fleet.set_out(place, True)
            time.sleep(0.2)
            ended = [self._fleet.end_worker(place, signal.SIGTERM) for place in places]
            for worker in ended:
                self._fleet.wait_for_end(worker)
                self._fleet.set_out(worker.place, False)
            successors += [self._fleet.wait_for_successor(worker) for worker in ended]
        restored = [worker.counters["restored"] for worker in successors]
        self._notes.append(f"rolling restart: {len(successors)} workers in {time.monotonic() - begin:.1f} s")
        if self._mode == "hotset":
            text = f"{sum(map(bool, restored))} of 8 workers of Flask and FastAPI, {sum(restored)} pages"
            self._promise("a worker begins with the pages that the last one saved", sum(map(bool, restored)) == 8, text)
        time.sleep(max(0.0, begin + self._seconds - time.monotonic()))

    def _kill_redis(self) -> None:
        self._outage = Outage(time.monotonic(), math.inf, math.inf)
        self._fleet.redis.kill()
        time.sleep(self._seconds)

    def _start_redis(self) -> None:
        assert self._outage is not None
        self._fleet.redis.start()
        self._outage = self._outage._replace(end=time.monotonic())
        self._until_whole()
        self._outage = self._outage._replace(whole=time.monotonic())
        # (Then what holds with Redis holds again.)
        time.sleep(MAX_LAG + 1)

    # --- Promises: hotset's alone.

    def _promise(self, text: str, is_kept: bool, detail: str) -> None:
        self._notes.append(f"{'kept' if is_kept else 'BROKEN':<8}{text}: {detail}")
        if not is_kept and self._mode == "hotset":
            self.faults.append(f"{text}: {detail}")

    def _judge(self) -> None:
        """Compares what happened with what is promised; prints that."""
        reads, updates = self._checker.reads, self._checker.updates
        late = sum(bool(read.error) for read in reads[self._counted[0] :]) + sum(bool(update.error) for update in updates[self._counted[1] :])
        # (What has begun to arrive cannot be requested of another worker.)
        begun = sum(min(row.errors, THREADS) for row in self._rows if row.phase == "worker killed")
        failed = sum(row.errors for row in self._rows) - begun + late
        errors = [read.error for read in reads if read.error] + [update.error for update in updates if update.error]
        total = sum(row.rate * row.seconds for row in self._rows) + len(reads) + len(updates)
        text = f"{failed} of {total:,.0f} failed, and {begun} of the killed worker {errors[:2] or ''}".rstrip()
        self._promise(f"every request is answered, but for at most {THREADS} that a killed worker had begun to answer", not failed, text)
        if self._mode == "hotset":
            judged = judge_all(self._checker)
            own = [stale.own_age for stale in judged.values() if stale.own_age]
            self._promise("a worker never returns what it has itself invalidated", not own, f"{len(own)} reads")
            outage = self._outage or Outage(math.inf, math.inf, math.inf)
            for kind, limit in LIMITS.items():
                ages = [(stale.age, outage.limit(read)) for read, stale in judged.items() if outage.kind(read) == kind]
                oldest = max((age for age, _ in ages), default=0.0)
                is_kept = all(age <= allowed for age, allowed in ages)
                self._promise(f"{kind}, a read is stale by at most {limit}", is_kept, f"the oldest {oldest:.2f} s")
        print("", *self._notes, sep="\n  ")


UP, DOWN, RETURNING = "with Redis", "without Redis", "while workers return to Redis"
LIMITS = {UP: f"{MAX_LAG} s", DOWN: f"{LOCAL_TTL:g} s (local_ttl)", RETURNING: "the outage, or local_ttl"}


class Outage(NamedTuple):
    """When Redis was killed, started again, and used by all workers, by the monotonic clock."""

    begin: float
    end: float
    whole: float

    def kind(self, read: Read) -> str:
        """Returns which of the promises holds for a read."""
        if self.begin <= read.sent < self.end:
            return DOWN
        # (What a worker repeats of the outage is heard by the others within the lag.)
        return RETURNING if self.end <= read.sent < self.whole + MAX_LAG else UP

    def limit(self, read: Read) -> float:
        """Returns how old what a read returns may be, if it is hotset's."""
        kind = self.kind(read)
        return MAX_LAG if kind == UP else LOCAL_TTL if kind == DOWN else max(LOCAL_TTL, read.sent - self.begin + MAX_LAG)


def _served(fleet: Fleet) -> dict[str, int]:
    """Returns how many requests the worker of each place has answered."""
    return {place: worker.counters["served"] for place, worker in fleet.workers().items()}


if __name__ == "__main__":
    sys.exit(main())
