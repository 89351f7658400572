"""The servers of the fleet: Redis, and nginx before twelve workers, on loopback.

The workers are those of two gunicorns and a uvicorn, four each. The parts that start and stop a
server are those of `examples/tier2`.
"""

import json
import os
import signal
import socket
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from servers import Process, StartError, accepts, free_port, nginx_command, redis_command, signals_deferred

MODES = ("hotset", "redis", "functools", "none")
LOCAL_TTL = 10.0
"""Seconds for which a worker stores a product without new confirmation: its greatest age in an
outage.
"""
WORKERS = 4
THREADS = 4
"""Threads of a worker of gunicorn."""
PROGRAMS = ("django", "flask", "fastapi")
PLACES = tuple(f"{program}-{place}" for place in range(WORKERS) for program in PROGRAMS)
"""The workers' places, in the order in which a rolling restart takes them."""
WAIT_SECONDS = 60.0


class Worker(NamedTuple):
    """A current or previous worker: its place, its process, and its last published counters."""

    place: str
    pid: int
    counters: dict[str, Any]


class Fleet:
    """All servers.

    Attributes:
        redis: The server of the second tier.
        round_robin_port, least_connections_port: nginx's ports on 127.0.0.1, by how they choose a
            worker.
    """

    def __init__(self, folder: Path, database: Path, mode: str) -> None:
        self._folder = folder
        self._mode = mode
        self.round_robin_port, self.least_connections_port, redis_port = free_port(), free_port(), free_port()
        for name in ("counters", "snapshots"):
            (folder / name).mkdir()
        environment = {
            "FLEET_CACHE": mode,
            "FLEET_DATABASE": str(database),
            "FLEET_FOLDER": str(folder),
            "FLEET_LOCAL_TTL": str(LOCAL_TTL),
            "FLEET_REDIS": f"redis://127.0.0.1:{redis_port}/0",
            "FLEET_SNAPSHOTS": str(folder / "snapshots"),
            "FLEET_THREADS": str(THREADS),
            "FLEET_WORKERS": str(WORKERS),
        }
        self.has_redis = mode in ("hotset", "redis")
        self.redis = Process("redis", redis_command(folder, redis_port), folder, lambda: accepts(redis_port), {})
        self._programs = [
            Process(program, _command(program), folder, partial(self._has_workers, program), {**environment, "FLEET_PROGRAM": program})
            for program in PROGRAMS
        ]
        http = _HTTP.format(
            servers="\n".join(f"        server unix:{folder}/{place}.sock max_fails=1 fail_timeout=1s;" for place in sorted(PLACES)),
            round_robin=self.round_robin_port,
            least_connections=self.least_connections_port,
        )
        self._nginx = Process("nginx", nginx_command(folder, http), folder, lambda: accepts(self.round_robin_port), {})

    def __enter__(self) -> "Fleet":
        try:
            for process in self._processes():
                process.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _processes(self) -> list[Process]:
        return [*([self.redis] if self.has_redis else []), *self._programs, self._nginx]

    def stop(self) -> None:
        """Stops all servers."""
        with signals_deferred():
            for process in reversed(self._processes()):
                process.stop()

    def are_running(self) -> bool:
        """Returns whether no server has ended."""
        return all(process.is_running() for process in self._processes())

    def logs(self) -> str:
        """Returns the ends of the logs."""
        return "\n".join(f"--- {process.name}\n{process.log_tail()}" for process in self._processes())

    # --- Workers.

    def all_workers(self) -> list[Worker]:
        """Returns all workers there have been, those that have ended with their last counters."""
        found: list[Worker] = []
        for path in (self._folder / "counters").glob("*.json"):
            place, pid = path.stem.split("@")
            found.append(Worker(place, int(pid), json.loads(path.read_text())))
        return found

    def workers(self) -> dict[str, Worker]:
        """Returns the worker that was last in each place."""
        found: dict[str, Worker] = {}
        for worker in self.all_workers():
            if worker.place not in found or found[worker.place].counters["at"] < worker.counters["at"]:
                found[worker.place] = worker
        return found

    def totals(self) -> dict[str, int]:
        """Returns the counters, summed over all workers there have been."""
        sums: dict[str, int] = defaultdict(int)
        for worker in self.all_workers():
            for name, value in worker.counters.items():
                if isinstance(value, int):
                    sums[name] += value
        return sums

    def are_whole(self, since: float) -> bool:
        """Returns whether all workers have reported since `since` that they are in sync with Redis.

        They reach it, get its announcements, and have no invalidation left to replay.
        """
        workers = self.workers()
        return len(workers) == len(PLACES) and all(each.counters["is_whole"] and each.counters["at"] >= since for each in workers.values())

    def set_out(self, place: str, is_out: bool) -> None:
        """Has the worker of this place answer 503, or serve again."""
        path = self._folder / f"{place}.out"
        if is_out:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def end_worker(self, place: str, number: signal.Signals) -> Worker:
        """Sends a signal to the worker of this place; returns which it was."""
        worker = self.workers()[place]
        os.kill(worker.pid, number)
        return worker

    def wait_for_end(self, worker: Worker) -> None:
        """Waits until a worker has ended.

        Raises:
            StartError: It does not.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                os.kill(worker.pid, 0)
            except ProcessLookupError:
                return
            if time.monotonic() > deadline:
                raise StartError(f"the worker {worker.place} does not end\n{self.logs()}")
            time.sleep(0.02)

    def wait_for_counters(self, since: float) -> None:
        """Waits until all workers have published their counters again, for a few seconds at most.

        (One may be starting.)
        """
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and any(each.counters["at"] < since for each in self.workers().values()):
            time.sleep(0.02)

    def wait_for_successor(self, worker: Worker) -> Worker:
        """Waits until another worker takes requests in the place of this one, and returns it.

        Raises:
            StartError: None does.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = self.workers()[worker.place]
            if found.pid != worker.pid and self._listens(worker.place):
                return found
            if time.monotonic() > deadline or not self.are_running():
                raise StartError(f"no worker took the place {worker.place}\n{self.logs()}")
            time.sleep(0.02)

    def _has_workers(self, program: str) -> bool:
        places = [place for place in PLACES if place.startswith(program)]
        return set(places) <= set(self.workers()) and all(self._listens(place) for place in places)

    def _listens(self, place: str) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._folder / f"{place}.sock"))
            except OSError:
                return False
            return True


def _command(program: str) -> list[str]:
    here = Path(__file__).parent
    if program == "fastapi":
        return [sys.executable, str(here / "fastapi_app.py")]
    return [sys.executable, "-m", "gunicorn", "--config", str(here / "gunicorn_conf.py"), "--chdir", str(here), f"{program}_app:app"]


# A worker that does not answer, or answers 503, is left out for a second, and then tried again by
# nginx's health check. Its request goes to the next worker; all requests here may be sent twice (an
# update names the version that it makes).
_HTTP = """
    upstream round_robin {{
{servers}
    }}
    upstream least_connections {{
        least_conn;
{servers}
    }}
    proxy_next_upstream error timeout http_503;
    proxy_connect_timeout 1s;
    proxy_set_header Host $host;
    server {{
        listen 127.0.0.1:{round_robin};
        location / {{ proxy_pass http://round_robin; }}
    }}
    server {{
        listen 127.0.0.1:{least_connections};
        location / {{ proxy_pass http://least_connections; }}
    }}
"""
