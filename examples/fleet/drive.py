"""The load of the fleet: wrk at full speed, and readers and an updater that detect stale reads."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from load import Client, Traffic
from servers import program_path, signals_deferred
from source import PRODUCTS

CONNECTIONS = 12


class Answered(NamedTuple):
    """What wrk counted. Latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int


class Wrk:
    """A run of wrk, until it is stopped."""

    def __init__(self, port: int, seed: int) -> None:
        command = [program_path("wrk", "wrk"), "--threads", "1", "--connections", str(CONNECTIONS), "--timeout", "20s", "--duration", "3600s"]
        command += ["--script", str(Path(__file__).with_name("pick.lua")), f"http://127.0.0.1:{port}", "--", str(PRODUCTS), str(seed)]
        self._command = command

    def __enter__(self) -> "Wrk":
        try:
            # (A signal that came while it starts would leave it running, unknown to us.)
            with signals_deferred():
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
                )
        except (KeyboardInterrupt, SystemExit):
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with signals_deferred(), self._process as process:
            if process.poll() is None:
                process.kill()

    def stop(self) -> Answered:
        """Ends the run; returns its figures."""
        self._process.send_signal(signal.SIGINT)
        printed, _ = self._process.communicate(timeout=60)
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"wrk printed no figures: {printed}")
        return Answered(**json.loads(lines[-1]))


class Checker(Traffic):
    """Reads and updates whose answers are compared.

    The updates are PUT, so that nginx repeats one whose worker died.
    """

    def __init__(self, port: int, reads_per_second: float, updates_per_second: float, seed: int) -> None:
        super().__init__(port, PRODUCTS, reads_per_second, updates_per_second, seed)
        self._versions: dict[int, int] = {}

    def _ask_update(self, client: Client, number: int) -> Any:
        version = self._versions.get(number, 1) + 1
        self._versions[number] = version
        return client.ask("PUT", f"/product/{number}?version={version}")
