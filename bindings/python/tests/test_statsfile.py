"""The stats file of a process, written by its calls and read by another process."""

import os
import signal
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import hotset
import pytest
from hotset import _statsfile
from hotset._statsfile import ProcessStats, StatsError, read, request_clear, scan
from hypothesis import given, settings
from hypothesis import strategies as st

# What every child begins with: `step` prints a line and waits for the test, `use` makes calls on a
# cache until the file has been rewritten after this call.
_PREAMBLE = """
import os, sys, threading
import hotset
from hotset import _hotset
from hotset._statsfile import read

def step(text=""):
    print("step", text, flush=True)
    sys.stdin.readline()

def use(cache):
    path = _hotset.stats_file_path()
    while path is None:
        cache.get(-1)
        path = _hotset.stats_file_path()
    before = read(str(path)).sequence
    while read(str(path)).sequence < before + 2:
        for _ in range(100):
            cache.get(-1)

"""


class Child:
    """A process that runs a script step by step."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout

    def step(self) -> str:
        """Waits for the next step, and returns its text."""
        for line in self._out:
            if line.startswith("step "):
                return line[5:].rstrip("\n")
        raise AssertionError("the child has ended early")

    def go_on(self) -> None:
        self._in.write("\n")
        self._in.flush()

    def finish(self) -> None:
        self._in.close()
        for _ in self._out:
            pass
        assert self.process.wait() == 0


@contextmanager
def child(directory: Path, script: str, **options: str) -> Iterator[Child]:
    with subprocess.Popen(
        [sys.executable, "-c", _PREAMBLE + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOTSET_STATS": str(directory), **options},
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def only(folder: Path) -> ProcessStats:
    (process,) = scan(str(folder))
    return process


def test_file_holds_named_caches(folder: Path) -> None:
    script = """
@hotset.cached(maxsize=100, name="squares")
def square(n): return n * n
@hotset.lru_cache
def unnamed(n): return n
users = hotset.Cache(50, name="users \\ud800")
unbounded = hotset.Cache(None, name="unbounded")
[square(n % 5) for n in range(20)], unnamed(1)
try:
    users.get_or_load(1, lambda key: 1 / 0)
except ZeroDivisionError:
    pass
square.cache_clear()
use(users)
step()
"""
    with child(folder, script) as process:
        process.step()
        found = only(folder)
        assert (found.kind, found.pid, found.parent, found.alive) == ("python", process.process.pid, os.getpid(), True)
        squares, users, unbounded = found.caches
        assert [cache.name for cache in found.caches] == ["squares", "users ?", "unbounded"]
        # cache_clear does not restart the counters.
        assert (squares.hits, squares.misses, squares.loads, squares.insertions) == (15, 5, 5, 5)
        assert (squares.capacity, squares.entries, squares.weighted) == (100, 0, False)
        assert squares.load_time > 0
        assert sum(loads for _, loads in squares.buckets) == 5
        assert squares.buckets[-1][0] == float("inf")
        assert (squares.stale_hits, squares.evicted_weight, squares.tier2) == (0, 0, None)
        assert (users.loads, users.load_failures, users.capacity) == (0, 1, 50)
        assert unbounded.capacity is None
        assert len(squares.samples) >= 1
        assert stat.S_IMODE(os.stat(found.path).st_mode) == 0o600
        process.finish()
    assert os.listdir(folder) == []


def test_hits_alone_rewrite_the_file(folder: Path) -> None:
    script = """
@hotset.cached(maxsize=100, name="hot")
def hot(n): return n
hot(1)
path = str(_hotset.stats_file_path())
while read(path).caches[0].hits < 1000:
    for _ in range(100): hot(1)
step()
"""
    with child(folder, script) as process:
        process.step()
        process.finish()


def test_dropped_cache_leaves_the_file(folder: Path) -> None:
    script = """
kept, dropped = hotset.Cache(10, name="kept"), hotset.Cache(10, name="dropped")
step()
del dropped
use(kept)
step()
"""
    with child(folder, script) as process:
        process.step()
        assert [cache.name for cache in only(folder).caches] == ["kept", "dropped"]
        process.go_on()
        process.step()
        assert [cache.name for cache in only(folder).caches] == ["kept"]
        process.finish()


def test_forked_child_counts_from_the_fork_on(folder: Path) -> None:
    script = """
cache = hotset.Cache(10, name="shared")
cache["a"] = 1
[cache["a"] for _ in range(1000)]
use(cache)
pid = os.fork()
if pid == 0:
    [cache["a"] for _ in range(7)]
    use(cache)
    step(_hotset.stats_file_path())
    os._exit(0)
os.waitpid(pid, 0)
use(cache)
step()
"""
    with child(folder, script) as process:
        path = process.step()
        of_child = read(path)
        assert (of_child.alive, of_child.parent) == (True, process.process.pid)
        assert (of_child.caches[0].name, of_child.caches[0].hits, of_child.caches[0].insertions) == ("shared", 7, 0)
        assert len(scan(str(folder))) == 2
        process.go_on()
        process.step()
        # The child called os._exit, so that its file is left; the next scan removes it.
        assert only(folder).caches[0].hits == 1000
        process.finish()
    assert os.listdir(folder) == []


def test_request_clears_caches(folder: Path) -> None:
    script = """
class Value:
    def __del__(self):
        cache.get(0)  # calls the cache that is being cleared
@hotset.cached(maxsize=10, name="function")
def function(n): return n
cache, other = hotset.Cache(10, name="cache"), hotset.Cache(10, name="other")
cache["a"], other["a"] = Value(), 1
function(1)
step()
while cache.peek("a", None) is not None: cache.get(0)
use(other)
step(f"{len(other)} {function.cache_contains(1)}")
while len(other) or function.cache_contains(1): other.get(0)
use(other)
step()
"""
    with child(folder, script) as process:
        process.step()
        found = only(folder)
        number = request_clear(found, next(cache.id for cache in found.caches if cache.name == "cache"))
        assert found.answered != number
        process.go_on()
        assert process.step() == "1 True"
        assert (only(folder).answered, only(folder).answer) == (number, "done")
        number = request_clear(found)
        process.go_on()
        process.step()
        assert (only(folder).answered, only(folder).answer) == (number, "done")
        assert request_clear(found, 10**6) != number
        process.finish()
    with pytest.raises(StatsError, match="cannot be opened"):
        request_clear(found)


def test_request_for_unknown_cache_is_answered(folder: Path) -> None:
    with child(folder, "cache = hotset.Cache(10, name='a'); step(); use(cache); step()") as process:
        process.step()
        number = request_clear(only(folder), 10**6)
        process.go_on()
        process.step()
        assert (only(folder).answered, only(folder).answer) == (number, "no such cache")
        process.finish()


def test_killed_process_leaves_a_readable_file_that_scan_removes(folder: Path) -> None:
    with child(folder, "cache = hotset.Cache(10, name='a'); step()") as process:
        process.step()
        path = only(folder).path
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
        assert (read(path).alive, read(path).caches[0].name) == (False, "a")
        assert scan(str(folder), clean=False) == []
        assert os.listdir(folder) != []
        assert scan(str(folder)) == []
        assert os.listdir(folder) == []


def test_exit_beside_busy_threads_removes_the_file(folder: Path) -> None:
    script = """
cache = hotset.Cache(10, name="busy")
def work():
    while True: cache.get(1); cache[2] = 2; hotset.Cache(10, name="short")
for _ in range(4): threading.Thread(target=work, daemon=True).start()
use(cache)
step()
"""
    for _ in range(3):
        with child(folder, script) as process:
            process.step()
            process.finish()
        assert os.listdir(folder) == []


def test_unusable_directory_warns_once(folder: Path) -> None:
    missing = folder / "missing"
    script = "import hotset; hotset.Cache(10, name='a'); hotset.Cache(10, name='b')"
    env = {**os.environ, "HOTSET_STATS": str(missing)}
    result = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert result.stderr.count("RuntimeWarning: HOTSET_STATS has no effect") == 1
    assert "create the directory" in result.stderr


def test_enabling_reports_errors(folder: Path) -> None:
    script = """
import hotset, sys
def error(directory):
    try:
        hotset.enable_stats_file(directory)
    except Exception as error:
        return type(error).__name__
stats = sys.argv[1]
print(*map(error, [stats + "/missing", __file__, stats, stats, "/"]))
"""
    program = folder / "program.py"
    program.write_text(script)
    stats = folder / "stats"
    stats.mkdir(mode=0o700)
    result = subprocess.run([sys.executable, str(program), str(stats)], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["FileNotFoundError", "NotADirectoryError", "None", "None", "ValueError"]
    with pytest.raises(TypeError):
        hotset.enable_stats_file(3)  # type: ignore[arg-type]


def test_other_files_are_not_followed_or_removed(folder: Path) -> None:
    target = folder / "target"
    target.write_text("keep")
    (folder / "hotset-1-0.stats").symlink_to(target)
    os.mkfifo(folder / "hotset-2-0.stats")
    (folder / "hotset-3-0.stats").write_text("not a stats file")
    (folder / "hotset-x-0.stats").write_text("")
    before = sorted(os.listdir(folder))
    assert scan(str(folder)) == []
    assert sorted(os.listdir(folder)) == before
    for name in before:
        with pytest.raises(StatsError):
            read(str(folder / name))
    with pytest.raises(StatsError, match="does not exist"):
        scan(str(folder / "missing"))
    with pytest.raises(StatsError, match="cannot be listed"):
        scan(str(target))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("stats")
    folder.chmod(0o700)
    with child(folder, "caches = [hotset.Cache(10, name=name) for name in 'ab']; use(caches[0]); step()") as process:
        process.step()
        return Path(only(folder).path).read_bytes()


def _repair(data: bytearray) -> None:
    """Makes the checksums right again, as an attacker would."""
    data[508:512] = zlib.crc32(data[:508]).to_bytes(4, "little")
    for at in (4096, 4096 + _statsfile._SLOT):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        data[at : at + 4] = zlib.crc32(data[at + 4 : at + length]).to_bytes(4, "little")


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_hostile_bytes_raise_stats_errors_only(example: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    changed = bytearray(example)
    at = st.one_of(
        st.integers(0, 600), st.integers(4096, 4096 + 128 + 2 * 2048), st.integers(4096 + _statsfile._SLOT, len(example) - 1)
    ).filter(lambda at: at < len(example))
    for where, byte in data.draw(st.lists(st.tuples(at, st.integers(0, 255)), max_size=6)):
        changed[where] = byte
    _repair(changed)
    path = tmp_path_factory.getbasetemp() / "hotset-1-0.stats"
    path.write_bytes(changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.booleans()) else changed)
    try:
        read(str(path))
    except StatsError:
        pass
