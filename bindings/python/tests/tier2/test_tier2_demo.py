"""The demo of the second tier: a short run, an interrupted one, and its criteria."""

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from servers import wait_until

FOLDER = Path(__file__).parents[4] / "examples" / "tier2"
MODULES = ("load", "report", "servers", "demo")

needs_servers = pytest.mark.skipif(
    shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") is None
    or any(importlib.util.find_spec(name) is None for name in ("flask", "gunicorn")),
    reason="needs nginx, Flask and gunicorn: make demo-tier2 installs them",
)


@pytest.fixture
def parts():
    """The demo's modules, which have the names of others here."""
    hidden = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


@pytest.fixture
def start():
    """Starts the demo; ends what a failed test leaves running."""
    started = []

    def run(folder, *options):
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(FOLDER / "demo.py"), *map(str, options)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        )
        return started[-1]

    yield run
    for demo in started:
        if demo.poll() is None:
            demo.terminate()
            demo.communicate()


def left_behind(folder):
    """Command lines of processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.fixture
def folder():
    """A folder for the demo's: a short path, since it holds a socket."""
    with tempfile.TemporaryDirectory(prefix="hotset-test-") as made:
        yield Path(made)


@needs_servers
def test_demo_short_run_keeps_its_promises(start, folder, tmp_path):
    has_chart = importlib.util.find_spec("matplotlib") is not None
    chart = tmp_path / "chart.svg"
    demo = start(folder, "--seconds", 2, "--reads", 100, *(("--chart", chart) if has_chart else ()))
    printed, errors = demo.communicate()
    assert demo.returncode == 0, printed + errors
    for phase in ("warm up", "steady", "Redis stopped", "continued", "Redis killed", "started again"):
        assert f"\n{phase} " in printed
    assert printed.count("\n  kept ") == 8
    assert chart.exists() == has_chart
    assert list(folder.iterdir()) == [] and left_behind(folder) == []


@needs_servers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_interrupted_stops_its_servers(start, folder, number):
    demo = start(folder, "--seconds", 1000)
    assert demo.stdout is not None
    assert "workers behind nginx" in demo.stdout.readline()
    assert len(left_behind(folder)) >= 2
    demo.send_signal(number)
    _, errors = demo.communicate()
    assert demo.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], errors
    assert list(folder.iterdir()) == []
    wait_until(lambda: left_behind(folder) == [], what="the end of the servers")


def test_demo_wrong_options_are_errors(start, folder):
    for options, expected in ((("--seconds", 0), "must be positive"), (("--chart", "chart.doc"), "must end in")):
        demo = start(folder, *options)
        _, errors = demo.communicate()
        assert demo.returncode == 2 and expected in errors


def read(parts, sent, version, worker=1):
    return parts["load"].Read(sent, sent + 0.01, 7, version, worker, "")


def update(parts, received, version, worker=1):
    return parts["load"].Update(received - 0.01, received, 7, version, worker, True, "")


def test_read_before_the_update_returned_is_not_stale(parts):
    history = parts["load"].History([update(parts, 10.0, 2)])
    assert history.judge(read(parts, 9.999, 1)) is None
    assert history.judge(read(parts, 11.0, 2)) is None


def test_stale_read_is_as_old_as_the_first_update_it_misses(parts):
    history = parts["load"].History([update(parts, 10.0, 2), update(parts, 12.0, 3, worker=2), update(parts, 14.0, 4)])
    stale = history.judge(read(parts, 15.0, 2, worker=3))
    assert (stale.age, stale.own_age) == (3.0, 0.0)
    stale = history.judge(read(parts, 15.0, 2, worker=1))
    assert (stale.age, stale.own_age) == (3.0, 1.0)
    assert history.judge(read(parts, 13.0, 2, worker=1)).own_age == 0


def sample(parts, at, *, up=4, armed=4, journal=0, losses=0):
    return parts["load"].Sample(at, at, 0, 0, 0, 0, 0, losses, journal, up, armed, ("1", "2", "3", "4"))


def test_bound_of_a_read_follows_the_workers_knowledge(parts):
    samples = [sample(parts, at) for at in range(11)]
    samples += [sample(parts, at, up=0, armed=0, journal=3, losses=1) for at in range(11, 21)]
    samples += [sample(parts, at, losses=1) for at in range(22, 31)]
    phases = [parts["report"].Phase("", 0, 10, True), parts["report"].Phase("", 10, 20, False), parts["report"].Phase("", 20, 30, True)]
    demo = parts["demo"]
    bounds = demo.Bounds(phases, samples)
    assert bounds.limit(read(parts, 9.0, 1)) == demo.MAX_LAG
    assert bounds.limit(read(parts, 15.0, 1)) == demo.LOCAL_TTL
    # The workers return: one may have read what another had invalidated in the outage.
    assert bounds.limit(read(parts, 21.0, 1)) == 11 + demo.MAX_LAG
    assert bounds.limit(read(parts, 26.0, 1)) == demo.MAX_LAG
