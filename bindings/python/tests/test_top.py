"""`python -m hotset top`: sums over processes, rates, the screen and its keys, wrong input."""

import contextlib
import doctest
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_worker import StatsFile

pytest.importorskip("hotset._statsfile")

from hotset import _statsfile
from hotset._top import _command, _format, _frame, _live, _model, _plain, _source
from hotset._top._json import as_json
from hotset._top._live import keys
from hotset._top._view import View

WORKER = Path(__file__).with_name("fake_worker.py")
SAMPLES = [(1000, 90, 10)] * 10
PRODUCTS = {
    "name": "products", "capacity": 100, "entries": 80, "hits": 900, "misses": 100, "evictions": 20, "insertions": 100, "loads": 100,
    "load_time": 10**9, "samples": SAMPLES, "bytes": 4096, "stale_hits": 0, "evicted_weight": 20,
}  # fmt: skip


def cache(**other):
    return {**PRODUCTS, **other}


class Worker:
    """A process with a stats file."""

    def __init__(self, directory, caches, program="worker"):
        command = [sys.executable, WORKER, directory / "hotset-PID-0.stats", program]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.publish(caches)

    def publish(self, caches):
        self.process.stdin.write(json.dumps(caches) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def start(tmp_path):
    workers = []

    def make(*caches, program="worker"):
        workers.append(Worker(tmp_path, caches, program))
        return workers[-1]

    yield make
    for worker in workers:
        worker.end()


def snapshot_of(directory, tracker=None):
    return (tracker or _model.Tracker()).update(_source.Files(str(directory)).read())


class Done(NamedTuple):
    """What a command printed."""

    returncode: int
    stdout: str
    stderr: str


def top(*arguments, directory=None):
    """Runs the command in this process: an interpreter takes long to start on a busy machine."""
    printed = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HOTSET_STATS", raising=False)
        if directory is not None:
            patch.setenv("HOTSET_STATS", str(directory))
        with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
            try:
                status = _command.main(list(map(str, arguments)))
            except SystemExit as usage:
                status = usage.code
    for each in printed:
        each.flush()
    return Done(status, *(each.buffer.getvalue().decode() for each in printed))


@pytest.mark.parametrize("module", [_format, _live, _model, _source], ids=lambda module: module.__name__)
def test_docstrings(module):
    assert doctest.testmod(module).failed == 0


# Sums and rates.


def test_caches_of_one_name_are_summed_over_processes(tmp_path, start):
    start(cache())
    start(cache(hits=100, misses=100, loads=300, load_time=3 * 10**9))
    [row] = snapshot_of(tmp_path).rows
    assert (row.totals["hits"], row.totals["misses"], row.entries, row.capacity, row.bytes) == (1000, 200, 160, 200, 8192)
    assert row.hit_ratio == 1000 / 1200
    assert (row.fill, len(row.members)) == (0.8, 2)
    # 4 s for 400 loads: each of the 1000 hits saved 10 ms.
    assert row.mean_load == pytest.approx(0.01)
    assert row.saved == pytest.approx(10)
    # 100 lookups a second in each.
    assert row.operations == pytest.approx(200, rel=0.5)
    assert row.recent_ratio == pytest.approx(0.9)


def test_programs_are_not_mixed(tmp_path, start):
    start(cache(), program="web")
    start(cache(), program="jobs")
    assert [row.program for row in snapshot_of(tmp_path).rows] == ["jobs", "web"]


def test_a_sum_with_an_unknown_figure_is_unknown(tmp_path, start):
    start(cache())
    start(cache(bytes=2**64 - 1, evicted_weight=2**64 - 1, capacity=2**64 - 1))
    [row] = snapshot_of(tmp_path).rows
    assert row.bytes is row.totals["evicted_weight"] is row.capacity is row.fill is None


def test_rates_survive_a_reset_of_counters(tmp_path):
    now = time.monotonic()
    stats = StatsFile(tmp_path / f"hotset-{os.getpid()}-0.stats")
    tracker = _model.Tracker(lambda: now)
    stats.publish([cache(evictions=1000)], now)
    assert snapshot_of(tmp_path, tracker).rows[0].rates is None
    now += 2
    stats.publish([cache(evictions=1100)], now)
    assert snapshot_of(tmp_path, tracker).rows[0].rates["evictions"] == pytest.approx(50)
    # An unchanged file: the same figures, until it is known that the process makes no calls.
    now += 1
    assert snapshot_of(tmp_path, tracker).rows[0].rates["evictions"] == pytest.approx(50)
    now += 5
    assert snapshot_of(tmp_path, tracker).rows[0].rates["evictions"] == 0
    now += 2
    stats.publish([cache(evictions=30)], now)
    assert snapshot_of(tmp_path, tracker).rows[0].rates["evictions"] == pytest.approx(30 / 8)
    os.close(stats.file)


def test_an_idle_process_has_no_operations(tmp_path):
    now = time.monotonic()
    stats = StatsFile(tmp_path / f"hotset-{os.getpid()}-0.stats")
    stats.publish([cache()], now)
    [row] = snapshot_of(tmp_path, _model.Tracker(lambda: now)).rows
    assert row.operations == pytest.approx(100)
    [row] = snapshot_of(tmp_path, _model.Tracker(lambda: now + 30)).rows
    assert (row.operations, row.recent_ratio, row.hit_ratio) == (0, None, 0.9)
    assert row.history[-1] is None and row.history[8] == pytest.approx(0.9)
    os.close(stats.file)


def test_curves_of_equal_sizes_are_averaged_by_lookups(tmp_path, start):
    start(cache(hits=900, misses=100, curve=[(50, 0.5, 100), (100, 0.9, 200)]))
    start(cache(hits=0, misses=1000, curve=[(50, 0.1, 100), (100, 0.3, 400)]))
    [row] = snapshot_of(tmp_path).rows
    assert row.curve_members == 2
    assert row.curve == ((50, pytest.approx(0.3), 100), (100, pytest.approx(0.6), 300))


def test_curves_of_other_sizes_are_that_of_the_busiest(tmp_path, start):
    start(cache(hits=9000, curve=[(50, 0.5, None), (100, 0.9, None)]))
    start(cache(curve=[(60, 0.1, 100), (120, 0.3, 400)]))
    [row] = snapshot_of(tmp_path).rows
    assert row.curve_members == 1
    assert row.curve[0] == (50, 0.5, None)


# Text.


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\rb", "a\nb", "\u202eabc", "a\x9b31m", "a\u2028b", "a" + "\u0301" * 50])
def test_hostile_names_are_escaped(tmp_path, start, name):
    start(cache(name=name, curve=[(1, 0.1, 1), (2, 0.2, 1)]), program="\x1b]0;title\x07")
    shown = snapshot_of(tmp_path)
    view = View("/tmp/\x1b[31m")
    view.update(shown, list(shown.processes))
    view.press("enter")
    texts = _plain.plain(view.lines(120, 40))
    view.press("c")
    texts += _plain.plain(view.lines(120, 40))
    assert all(text.isprintable() for text in texts)
    assert "\u0301" * 4 not in "".join(texts)
    done = top("--once", directory=tmp_path)
    assert done.stdout.replace("\n", "").isprintable()
    assert json.loads(top("--once", "--json", directory=tmp_path).stdout)["caches"][0]["name"] == name


def test_every_line_fits_every_width(tmp_path, start):
    start(*[cache(name=name, curve=[(50, 0.5, 1000), (100, 0.9, 10**6)]) for name in ("茶" * 40, "x" * 200, "tea")])
    shown = snapshot_of(tmp_path)
    view = View(str(tmp_path))
    view.update(shown, list(shown.processes))
    for press in ("enter", "c", "n", "?"):
        view.press(press)
        for columns in (1, 39, 40, 41, 57, 80, 101, 160):
            for height in (1, 8, 24, 50):
                lines = view.lines(columns, height)
                assert len(lines) <= height
                for line in _plain.drawn(lines, columns):
                    assert _format.width(re.sub(r"\x1b\[[\d;]*m", "", line)) <= columns


def test_narrow_screens_keep_name_ratio_and_operations(tmp_path, start):
    start(cache())
    view = View("")
    shown = snapshot_of(tmp_path)
    view.update(shown, [])
    text = "\n".join(_plain.plain(view.lines(40, 10)))
    assert "products" in text and "HIT%" in text and "OPS/s" in text and "ENTRY" not in text
    assert "terminal too small: 39x10, needs 40x8" in _plain.plain(view.lines(39, 10))[0]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_can_be_printed(tmp_path, start, encoding):
    start(cache(name="茶é"))
    command = [sys.executable, "-m", "hotset", "top", "--once"]
    environment = {**os.environ, "HOTSET_STATS": str(tmp_path), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert ("茶é" if encoding == "utf-8" else "\\u8336") in done.stdout.decode(encoding)


# Keys.


@pytest.fixture
def view(tmp_path, start):
    start(cache(name="a", hits=10), cache(name="b", samples=[(1000, 500, 0)] * 5), cache(name="c"))
    view = View(str(tmp_path))
    shown = snapshot_of(tmp_path)
    view.update(shown, list(shown.processes))
    return view


def test_keys_sort_and_select(view):
    assert [row.name for row in view.rows][0] == "b"
    view.press("r")
    assert [row.name for row in view.rows][-1] == "b"
    view.press("r")
    while "CACHE" not in [cell.text.strip() for line in view.lines(100, 20) for cell in line.cells if cell.style == "key"]:
        view.press("s")
    assert [row.name for row in view.rows] == ["a", "b", "c"]
    view.press("down")
    view.press("down")
    view.press("down")
    assert view.selected.name == "c"
    view.press("k")
    assert view.selected.name == "b"
    view.press("S")
    view.press("left")
    view.press("right")
    view.press("Z")
    assert view.selected.name == "b"
    view.press("q")
    assert view.is_closed


def test_frozen_view_keeps_its_figures(view, tmp_path, start):
    view.press("f")
    start(cache(name="new"))
    shown = snapshot_of(tmp_path)
    view.update(shown, list(shown.processes))
    assert len(view.rows) == 3
    assert "FROZEN" in _plain.plain(view.lines(100, 20))[0]
    view.press(" ")
    view.update(shown, list(shown.processes))
    assert len(view.rows) == 4


def test_help_and_details(view):
    view.press("?")
    assert "clear the selected cache" in "\n".join(_plain.plain(view.lines(100, 30)))
    view.press("escape")
    view.press("enter")
    assert "stale hits" in "\n".join(_plain.plain(view.lines(100, 30)))


def test_clear_asks_first_and_follows_the_answers(tmp_path, start):
    first, second, other = start(cache(), cache(name="b")), start(cache()), start(cache(name="b"))
    view = View(str(tmp_path))
    shown = snapshot_of(tmp_path)
    view.update(shown, list(shown.processes))
    while view.selected.name != "products":
        view.press("down")

    def bottom():
        return _plain.plain(view.lines(150, 20))[-1]

    view.press("c")
    assert re.fullmatch(rf"clear products in 2 processes \(({first.pid}, {second.pid}|{second.pid}, {first.pid})\)\? y/N", bottom())
    # Any other key is no.
    view.press("enter")
    assert bottom() == "nothing was cleared"
    assert first.publish([cache(), cache(name="b")]) is None
    view.press("c")
    view.press("y")
    assert "cleared in 0 of 2; pending in" in bottom()
    assert first.publish([cache(), cache(name="b")]) == 1
    processes = _source.Files(str(tmp_path)).read()
    view.update(shown, processes)
    assert f"cleared in 1 of 2; pending in {second.pid}" in bottom()
    second.end()
    view.update(shown, _source.Files(str(tmp_path)).read())
    assert f"cleared in 1 of 2; {second.pid}: has ended" in bottom()
    assert other.publish([cache(name="b")]) is None
    view.press("f")
    assert "sort" in bottom()


def test_clear_of_a_process_that_has_ended_is_reported(tmp_path, start):
    worker = start(cache())
    view = View(str(tmp_path))
    shown = snapshot_of(tmp_path)
    view.update(shown, list(shown.processes))
    worker.end()
    view.press("c")
    view.press("y")
    assert "cleared in 0 of 1" in _plain.plain(view.lines(200, 20))[-1]
    assert "cannot be opened" in _plain.plain(view.lines(200, 20))[-1]


def test_unfinished_escape_sequences_are_no_keys():
    assert keys("\x1b[") == keys("\x1bO") == keys("\x1b[1;5") == keys("\x1bx") == []
    assert keys("\x1b[1;5Aq") == ["up", "q"]


# The command.


def test_once_prints_a_table(tmp_path, start):
    worker = start(cache())
    done = top("--once", directory=tmp_path)
    assert done.returncode == 0
    assert re.search(r"^products +1 +90\.0 .* 90\.0 +\S+ +80% +80 +20 +100 +10ms +9\.0s$", done.stdout, re.M), done.stdout
    assert top("--once", "--directory", tmp_path, worker.pid).returncode == 0


def test_json_is_one_document_or_one_per_line(tmp_path, start):
    worker = start(cache(buckets=[(10**6, 50), (None, 50)], tier2=dict(zip(("hits", "misses", "failures", "writes", "invalidations"), range(5)))))
    document = json.loads(top("--once", "--json", directory=tmp_path).stdout)
    [shown] = document["caches"]
    assert (shown["pids"], shown["hits"], shown["saved_seconds"]) == ([worker.pid], 900, 9.0)
    assert shown["load_buckets"] == [{"upper_seconds": 0.001, "loads": 50}, {"upper_seconds": None, "loads": 50}]
    assert shown["tier2"]["writes"] == 3
    command = [sys.executable, "-m", "hotset", "top", "--json", "--interval", "0.1", "--directory", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(2):
            assert json.loads(process.stdout.readline())["caches"]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == ""


def test_a_closed_pipe_ends_quietly(tmp_path, start):
    start(cache())
    command = [sys.executable, "-m", "hotset", "top", "--json", "--interval", "0.1", "--directory", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == ""


def ended_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_wrong_input_is_explained(tmp_path):
    none = top("--once")
    assert none.returncode == 2 and "Set HOTSET_STATS, or pass --directory" in none.stderr
    missing = top("--once", directory=tmp_path / "missing")
    assert missing.returncode == 2 and "does not exist" in missing.stderr
    file = tmp_path / "file"
    file.write_text("")
    assert top("--once", directory=file).returncode == 2
    empty = top("--once", directory=tmp_path)
    assert empty.returncode == 1 and f"HOTSET_STATS={tmp_path}" in empty.stderr
    ended = ended_pid()
    gone = top("--once", ended, directory=tmp_path)
    assert gone.returncode == 1 and f"there is no process {ended}" in gone.stderr
    assert f"there is no process {ended}" in top("--once", ended).stderr
    unknown = top("--once", os.getpid(), directory=tmp_path)
    assert unknown.returncode == 1 and f"process {os.getpid()} has no stats file in {tmp_path}" in unknown.stderr
    assert "enable_stats_file" in unknown.stderr
    for wrong in (["x"], ["0"], ["-1"], [str(2**40)], ["--interval", "0"], ["--interval", "nan"], ["--sort", "x"]):
        assert top(*wrong, directory=tmp_path).returncode == 2


def test_without_a_terminal_the_live_view_is_refused(tmp_path, start):
    start(cache())
    done = top(directory=tmp_path)
    assert done.returncode == 2 and "this is no terminal: use --once or --json" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_an_unreadable_directory_is_explained(tmp_path):
    tmp_path.chmod(0)
    assert "cannot be listed" in top("--once", directory=tmp_path).stderr
    tmp_path.chmod(0o700)


def test_the_directory_of_a_process_is_found(tmp_path):
    program = "import sys; print(flush=True); sys.stdin.read()"
    environment = {**os.environ, "HOTSET_STATS": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert _source.directory_of([process.pid]) == str(tmp_path)
        process.stdin.close()


# A terminal.


class Terminal:
    """The command on a pseudo-terminal, whose screen is read."""

    def __init__(self, *arguments, size=(24, 100), **environment):
        import fcntl
        import termios

        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        self.before = termios.tcgetattr(follower)
        self.follower = follower
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment}
        command = [sys.executable, "-m", "hotset", "top", "--interval", "0.1", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True)
        self.text = ""

    def wait_for(self, pattern):
        while not re.search(pattern, self.text):
            select.select([self.leader], [], [])
            read = os.read(self.leader, 65536)
            assert read, self.text
            self.text += read.decode()
        self.text = self.text[re.search(pattern, self.text).end() :]

    def press(self, text):
        os.write(self.leader, text.encode())

    def resize(self, rows, columns):
        import fcntl
        import termios

        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def end(self):
        import termios

        status = self.process.wait()
        after = termios.tcgetattr(self.follower)
        os.close(self.follower)
        os.close(self.leader)
        # (PENDIN is set by the line discipline on its own.)
        assert after[3] | 0o40000 == self.before[3] | 0o40000
        return status


@pytest.mark.parametrize("extra", [["--plain"], []], ids=["plain", "rich"])
def test_live_view_shows_sorts_and_clears(tmp_path, start, extra):
    if not extra:
        pytest.importorskip("rich")
    worker = start(cache(), cache(name="[bold]other[/bold]", hits=1))
    terminal = Terminal("--directory", tmp_path, *extra)
    terminal.wait_for(r"\x1b\[\?1049h")
    terminal.wait_for(r"\[bold\]other\[/bold\]")
    terminal.press("\r")
    terminal.wait_for("stale hits")
    terminal.press("c")
    terminal.wait_for(rf"in 1 process \({worker.pid}\)\? y/N")
    terminal.press("y")
    terminal.wait_for("pending in")
    assert worker.publish([cache(), cache(name="[bold]other[/bold]")]) in (1, 2)
    terminal.wait_for("cleared in 1 of 1")
    terminal.resize(5, 30)
    terminal.wait_for("terminal too small")
    terminal.press("q")
    terminal.wait_for(r"\x1b\[\?1049l")
    assert terminal.end() == 0


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_a_signal_restores_the_terminal(tmp_path, start, number, status):
    start(cache())
    terminal = Terminal("--directory", tmp_path, "--plain")
    terminal.wait_for("products")
    terminal.process.send_signal(number)
    terminal.wait_for(r"\x1b\[\?1049l")
    assert terminal.end() == status


def test_a_dumb_terminal_is_refused(tmp_path, start):
    start(cache())
    terminal = Terminal("--directory", tmp_path, TERM="dumb")
    terminal.wait_for("cannot move its cursor")
    assert terminal.end() == 2


def test_a_directory_that_vanishes_is_reported(tmp_path):
    directory = tmp_path / "stats"
    directory.mkdir()
    terminal = Terminal("--directory", directory, "--plain")
    terminal.wait_for("no named cache yet")
    directory.rmdir()
    terminal.wait_for("does not exist")
    terminal.press("q")
    assert terminal.end() == 0


def test_rich_draws_what_plain_draws(tmp_path, start):
    pytest.importorskip("rich")
    from hotset._top._rich import Painter, picture

    start(cache(name="[red]茶[/red] :tea:"))
    shown = snapshot_of(tmp_path)
    # (Rich wraps long lines unless it is kept from it.)
    view = View("directory " * 30)
    view.update(shown, list(shown.processes))
    view.press("enter")
    lines = view.lines(100, 30)

    def stripped(texts):
        return [re.sub(r"\x1b\[[\d;]*m", "", text).rstrip() for text in texts]

    assert stripped(Painter("truecolor")(lines, 100)) == stripped(_plain.drawn(lines, 100))
    assert any("\x1b[" in text for text in Painter("truecolor")(lines, 100))
    assert "<svg" in picture(lines, 100, "hotset top")


def test_a_process_of_another_container_is_marked(tmp_path, start):
    start(cache())
    [process] = _source.Files(str(tmp_path)).read()
    shown = _model.Tracker().update([process._replace(alive=None)])
    text = "\n".join(_plain.plain(_frame.details(shown.rows[0], shown.monotonic)))
    assert "cannot tell whether it is alive" in text
    assert as_json(shown)["processes"][0]["alive"] is None
    assert isinstance(process, _statsfile.ProcessStats)


# Real processes.

PROGRAM = """
import sys
import hotset

c = hotset.Cache(100, name="real")
c["a"] = 1
for line in sys.stdin:
    c.get("a"), c.get("b")
    print(len(c), flush=True)
"""


def test_a_real_process_is_shown_and_cleared(tmp_path):
    tmp_path.chmod(0o700)
    environment = {**os.environ, "HOTSET_STATS": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:

        def call():
            process.stdin.write("\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        def calls_until(condition):
            # (A process publishes once a second.)
            while True:
                length = call()
                rows = {row.name: row for row in snapshot_of(tmp_path).rows}
                if "real" in rows and condition(length, rows["real"]):
                    return rows["real"]

        row = calls_until(lambda length, row: row.totals["hits"] > 0)
        assert row.entries == 1 and row.capacity == 100 and row.kind == "python"
        assert row.members[0].process.pid == process.pid
        assert json.loads(top("--once", "--json", process.pid, directory=tmp_path).stdout)["caches"][0]["name"] == "real"
        # The directory comes from the environment of the process.
        assert top("--once", process.pid).returncode == 0
        clearing = _source.Clearing(row)
        calls_until(lambda length, row: length == 0)
        while not clearing.is_done:
            call()
            clearing.follow(_source.Files(str(tmp_path)).read())
        assert clearing.cleared == [process.pid]
        process.stdin.close()
