"""Several processes on one server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import wait_until

WORKER = Path(__file__).with_name("worker.py")
ROUNDS = int(os.environ.get("HOTSET_STRESS", "1")) * 10


class Worker:
    """A process that runs worker.py."""

    def __init__(self, server, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), server.url, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self):
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        return json.loads(line)

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def workers():
    made = []

    def make(server, *arguments):
        made.append(Worker(server, *arguments))
        return made[-1]

    yield make
    for worker in made:
        worker.end()


def test_herd_of_processes_loads_once(own_server, workers):
    herd = [workers(own_server, "herd", 16, 0.02) for _ in range(8)]
    for worker in herd:
        assert worker.line()["ready"]
    for turn in range(ROUNDS):
        for worker in herd:
            worker.tell(f"cold{turn}")
        said = [worker.line() for worker in herd]
        assert [each["errors"] for each in said] == [[]] * 8
        assert sum(each["loads"] for each in said) == 1, said
        assert len({value for each in said for value in each["values"]}) == 1
        assert sum(each["count"] for each in said) == 8 * 16


def test_leader_that_is_killed_is_followed(own_server, workers):
    leader = workers(own_server, "lead", "cold", 600)
    assert leader.line() == {"pid": leader.process.pid, "loading": "cold"}
    herd = [workers(own_server, "herd", 4, 0.02) for _ in range(3)]
    for worker in herd:
        assert worker.line()["ready"]
        worker.tell("cold")
    # They wait for it.
    time.sleep(0.5)
    os.kill(leader.process.pid, signal.SIGKILL)
    killed = time.monotonic()
    said = [worker.line() for worker in herd]
    took = time.monotonic() - killed
    assert sum(each["loads"] for each in said) == 1
    assert took < 10, took


def test_load_that_is_slower_than_its_lease_is_not_repeated(own_server, workers):
    leader = workers(own_server, "lead", "cold", 4)
    assert leader.line()["loading"] == "cold"
    herd = [workers(own_server, "herd", 4, 0.02) for _ in range(3)]
    for worker in herd:
        assert worker.line()["ready"]
        worker.tell("cold")
    said = [worker.line() for worker in herd]
    assert leader.line()["value"] == "slow"
    assert sum(each["loads"] for each in said) == 0
    assert all(each["values"] == ["slow"] for each in said)


def test_leader_that_is_stopped_fills_nothing(own_server, workers, cache):
    prices = cache(own_server)
    leader = workers(own_server, "lead", "cold", 1)
    assert leader.line()["loading"] == "cold"
    os.kill(leader.process.pid, signal.SIGSTOP)
    assert prices.get_or_load("cold", lambda key: "fresh") == "fresh"
    os.kill(leader.process.pid, signal.SIGCONT)
    assert leader.line()["value"] == "slow"
    assert cache(own_server).get("cold") == "fresh"
    assert prices.get("cold") == "fresh"


def test_process_flushes_its_journal_at_exit(own_server, cache):
    """An invalidation that was not confirmed is repeated before the process ends."""
    program = f"""
import os, signal, hotset
from hotset.tier2 import Redis
prices = hotset.TieredCache(Redis({own_server.url!r}, prefix="shop"), "prices", ttl=300)
prices.set("tea", "old")
os.kill({own_server.pid}, signal.SIGSTOP)
prices.delete("tea")
os.kill({own_server.pid}, signal.SIGCONT)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    wait_until(lambda: cache(own_server).get("tea") != "old", what="the removal")


def test_process_ends_soon_while_the_server_is_stopped(own_server):
    program = f"""
import os, signal, hotset
from hotset.tier2 import Redis
prices = hotset.TieredCache(Redis({own_server.url!r}, prefix="shop"), "prices", ttl=300)
prices.set("tea", "old")
os.kill({own_server.pid}, signal.SIGSTOP)
prices.delete("tea")
"""
    try:
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert time.monotonic() - begun < 20
    finally:
        own_server.resume()
