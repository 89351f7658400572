"""The recipe of a rate limiter across processes: its bounds, with four processes and a server."""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

RECIPE = Path(__file__).parents[4] / "examples" / "recipes" / "shared_rate_limiter.py"
MANY = 100_000
ONE_WINDOW = 10**9
"""Seconds of a window that does not end while the tests run."""

# A process that executes commands: "N" calls `allow` N times, or until it is refused, and prints
# how many were allowed.
PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from shared_rate_limiter import SharedRateLimiter
from redis import Redis
limit, window, batch = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
limiter = SharedRateLimiter(Redis.from_url(sys.argv[2]), limit=limit, window=window, batch=batch)
for line in sys.stdin:
    count = 0
    while count < int(line) and limiter.allow("a"):
        count += 1
    print(count, flush=True)
"""


@pytest.fixture
def recipe(monkeypatch):
    """The recipe as a module."""
    spec = importlib.util.spec_from_file_location("shared_rate_limiter", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "shared_rate_limiter", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client():
    """Makes a client of redis-py; all are closed at the end."""
    made = []

    def make(server, timeout=5.0):
        made.append(redis.Redis.from_url(server.url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)))
        return made[-1]

    yield make
    for each in made:
        each.close()


class Worker:
    """One of four processes with a limiter each."""

    def __init__(self, server, limit, batch):
        command = [sys.executable, "-c", PROCESS, RECIPE.parent, server.url, limit, ONE_WINDOW, batch]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, told):
        assert self.process.stdin is not None
        self.process.stdin.write(f"{told}\n")
        self.process.stdin.flush()

    def allowed(self):
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def ask(self, told):
        self.begin(told)
        return self.allowed()


@pytest.fixture
def workers():
    """Starts four processes; ends them."""
    started = []

    def start(*arguments):
        started.extend(Worker(*arguments) for _ in range(4))
        return started

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.communicate()


def test_four_processes_admit_exactly_the_limit(server, workers):
    four = workers(server, 1003, 10)
    for worker in four:
        worker.begin(MANY)
    assert sum(worker.allowed() for worker in four) == 1003


@pytest.mark.parametrize("batch", [1, 10])
def test_first_refusal_is_at_the_limit_less_unspent_leases(server, workers, batch):
    *others, last = workers(server, 100, batch)
    # As bad as it gets: each of the others has leased a batch for one call.
    spent = [worker.ask(1) for worker in others]
    assert sum(spent) + last.ask(MANY) == 100 - 3 * (batch - 1)
    # What they leased is theirs; nothing is beyond the limit.
    assert sum(spent) + sum(worker.ask(MANY) for worker in others) == 3 + 3 * (batch - 1)


def test_each_window_admits_at_most_the_limit(server, client, recipe):
    window, limit = 0.05, 20

    def current():
        seconds, micros = map(int, server.ask("TIME"))
        return (seconds * 1000 + micros // 1000) // round(window * 1000)

    limiters = [recipe.SharedRateLimiter(client(server), limit=limit, window=window, batch=3) for _ in range(4)]
    admitted = [0] * 4
    has_ended = threading.Event()

    def spend(number):
        while not has_ended.is_set():
            admitted[number] += limiters[number].allow("a")

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(4)]
    first = current()
    for thread in threads:
        thread.start()
    while current() < first + 10:
        pass
    has_ended.set()
    for thread in threads:
        thread.join()
    assert limit <= sum(admitted) <= limit * (current() - first + 1)


def test_lease_lapses_before_the_servers_window(server, client, recipe):
    """The time that is left is counted from before the request: a slow answer only shortens it."""
    now = [100.0]
    limiter = recipe.SharedRateLimiter(client(server), limit=10, window=60, batch=10, timer=lambda: now[0])

    def slow(**arguments):
        now[0] += 3
        return [10, 2000]

    limiter._script = slow
    assert limiter.allow("a")
    # The lease was for two seconds, three of which the answer took.
    assert limiter._leases.get("a").until == 102.0
    limiter._script = lambda **arguments: [0, 58000]
    assert not limiter.allow("a")


def test_client_beyond_its_limit_costs_no_request(server, client, recipe):
    limiter = recipe.SharedRateLimiter(client(server), limit=7, window=ONE_WINDOW, batch=5)
    assert [limiter.allow("a") for _ in range(9)] == [True] * 7 + [False] * 2
    before = int(server.info("stats")["total_commands_processed"])
    assert not any(limiter.allow("a") for _ in range(100))
    # (INFO itself.)
    assert int(server.info("stats")["total_commands_processed"]) - before <= 1
    assert limiter.allow("b")


def test_outage_allows_leased_and_configured_requests(own_server, client, recipe):
    now = [0.0]
    limiters = [
        recipe.SharedRateLimiter(client(own_server, 0.1), limit=100, window=60, batch=10, when_down=when_down, retry=5, timer=lambda: now[0])
        for when_down in (0, 4)
    ]
    assert all(limiter.allow("a") for limiter in limiters)
    own_server.kill()
    assert [sum(limiter.allow("a") for _ in range(50)) for limiter in limiters] == [9, 9 + 4]
    assert [sum(limiter.allow("new") for _ in range(50)) for limiter in limiters] == [0, 4]
    # A window later, the process has as many again.
    now[0] += 60
    assert [sum(limiter.allow("a") for _ in range(50)) for limiter in limiters] == [0, 4]
    own_server.start()
    # No request is sent for `retry` seconds after a failure.
    assert not any(limiter.allow("a") for limiter in limiters)
    now[0] += 5
    assert all(limiter.allow("a") for limiter in limiters)


def test_outage_is_waited_for_once(own_server, client, recipe):
    now = [0.0]
    limiter = recipe.SharedRateLimiter(client(own_server), limit=100, window=60, retry=5, timer=lambda: now[0])
    own_server.kill()
    asked = []
    script = limiter._script

    def count(**arguments):
        asked.append(arguments)
        return script(**arguments)

    limiter._script = count
    assert not any(limiter.allow(f"client {number}") for number in range(100))
    assert len(asked) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_does_not_spend_its_parents_lease(server, client, recipe):
    limiter = recipe.SharedRateLimiter(client(server), limit=10, window=ONE_WINDOW, batch=10)
    assert limiter.allow("a")
    child = os.fork()
    if child == 0:
        os._exit(10 if limiter.allow("a") else 20)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 20
    assert sum(limiter.allow("a") for _ in range(20)) == 9


def test_wrong_settings_are_errors(client, server, recipe):
    for settings in ({"batch": 0}, {"batch": 11}, {"window": 0}):
        with pytest.raises(ValueError, match="must be"):
            recipe.SharedRateLimiter(client(server), **{"limit": 10, "window": 60, **settings})
