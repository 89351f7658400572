"""The demo of a fleet: a short run, runs that are interrupted or fail, and what it judges by."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
DEMO = EXAMPLES / "fleet" / "demo.py"
PATH = os.environ.get("PATH", "") + ":/usr/sbin"

# A shell's background command ignores interrupts, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

needs_servers = pytest.mark.skipif(
    any(shutil.which(program, path=PATH) is None for program in ("redis-server", "nginx", "wrk")),
    reason="needs redis-server, nginx and wrk: make tools-redis tools-wrk",
)


@pytest.fixture
def folder():
    """A folder for the demo's: a short path, since it holds sockets."""
    with tempfile.TemporaryDirectory(prefix="hotset-") as made:
        yield Path(made)


@pytest.fixture
def start(folder):
    """Starts the demo; ends what a failed test leaves running."""
    started = []

    def run(*options, **variables):
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        command = [sys.executable, str(DEMO), *map(str, options)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        )
        return started[-1]

    yield run
    for demo in started:
        if demo.poll() is None:
            demo.terminate()
            demo.communicate()


def processes(folder):
    """Returns the processes that have this folder among their variables, as all that the demo
    starts have, without the demo.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (path / "environ").read_bytes() and b"demo.py" not in (path / "cmdline").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def wait_until(condition):
    """Waits for what must happen; how long that takes decides only when the test gives up."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.05)


@needs_servers
def test_fleet_short_run_keeps_its_promises(start, folder, tmp_path):
    figures = tmp_path / "figures.json"
    demo = start("--seconds", 1, "--reads", 50, "--fleets", "hotset", "--figures", figures)
    printed, errors = demo.communicate()
    assert demo.returncode == 0, printed + errors
    for phase in ("warm up", "round robin", "least connections", "worker out, back", "worker killed", "rolling restart", "Redis killed"):
        assert f"\n{phase} " in printed
    assert "BROKEN" not in printed and printed.count("  kept ") == 7
    assert figures.exists() and list(folder.iterdir()) == [] and processes(folder) == []


@needs_servers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fleet_interrupted_stops_its_servers(start, folder, number):
    demo = start("--seconds", 1000)
    wait_until(lambda: demo.poll() is not None or any("wrk" in command for command in processes(folder)))
    assert len(processes(folder)) > 12, demo.communicate()
    demo.send_signal(number)
    _, errors = demo.communicate()
    assert demo.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], errors
    assert list(folder.iterdir()) == []
    wait_until(lambda: processes(folder) == [])


@needs_servers
def test_fleet_that_fails_to_start_stops_its_parts(start, folder):
    """Flask's workers fail: Redis and Django run by then."""
    broken = folder / "broken"
    broken.mkdir()
    (broken / "flask.py").write_text("raise RuntimeError('broken on purpose')\n")
    demo = start("--fleets", "hotset", PYTHONPATH=str(broken))
    _, errors = demo.communicate()
    assert demo.returncode == 1 and "broken on purpose" in errors
    wait_until(lambda: processes(folder) == [])
    assert list(folder.iterdir()) == [broken]


def test_fleet_wrong_options_are_errors(start):
    for options, expected in ((("--seconds", 0.5), "at least 1"), (("--chart", "chart.doc"), "must end in"), (("--fleets", "x"), "invalid choice")):
        demo = start(*options)
        _, errors = demo.communicate()
        assert demo.returncode == 2 and expected in errors


def test_fleet_bounds_of_a_read_follow_the_outage(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "fleet"))
    demo = importlib.import_module("demo")
    outage = demo.Outage(10.0, 20.0, 22.0)

    def limit(sent):
        return outage.limit(demo.Read(sent, sent + 0.01, 7, 1, 1, ""))

    assert limit(9.9) == limit(24.6) == demo.MAX_LAG
    assert limit(10.0) == limit(19.9) == demo.LOCAL_TTL
    assert limit(20.0) == 10 + demo.MAX_LAG and limit(24.4) == pytest.approx(14.4 + demo.MAX_LAG)
