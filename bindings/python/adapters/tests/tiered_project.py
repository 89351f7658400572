"""Fixtures of the tests of `hotset.django.TieredCache`: a redis-server, backends, other processes.
"""

import subprocess
import sys
import threading
from pathlib import Path

import django_project  # noqa: F401
import pytest
from django.core.cache import caches
from django.test import override_settings

pytest.importorskip("redis", reason="the second tier needs redis-py")

import servers  # noqa: E402
from servers import wait_until  # noqa: E402

from hotset.django import TieredCache  # noqa: E402

if not servers.HAS_REDIS:
    pytest.skip("there is no redis-server: make tools-redis", allow_module_level=True)

# (Tests that expect every operation to be confirmed must not fail on a busy machine.)
PATIENT = {"timeout": 5.0, "connect_timeout": 5.0}
BACKEND = "hotset.django.TieredCache"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    with servers.Server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """A running server, empty, for tests that leave it running."""
    shared_server.ask("FLUSHALL")
    return shared_server


@pytest.fixture
def name(request):
    """Returns a name for a test's cache, different from those of previous tests."""
    return request.node.name


@pytest.fixture
def backend(server, name):
    """Makes a backend. With another `process`, it sees what the others do as one of another process
    would.
    """
    made = []

    def make(url=server.url, process=0, patient=True, KEY_PREFIX="", **options):
        # An option without effect here, which distinguishes the connections.
        options = {**(PATIENT if patient else {}), "max_loads": 1000 + process, "name": name, **options}
        params = {name: options.pop(name) for name in ("TIMEOUT", "VERSION", "KEY_FUNCTION") if name in options}
        made.append(TieredCache(url, {**params, "KEY_PREFIX": KEY_PREFIX, "OPTIONS": options}))
        return made[-1]

    yield make
    for each in made:
        each.server.close()


@pytest.fixture
def cache(backend):
    return backend()


@pytest.fixture
def worker(server, name):
    """Starts another process with a backend; what is returned evaluates an expression there."""
    running = []

    def start():
        command = [sys.executable, str(Path(__file__).with_name("tiered_worker.py")), server.url, name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)

        def send(expression):
            process.stdin.write(expression + "\n")
            process.stdin.flush()

        def receive():
            return process.stdout.readline().rstrip("\n")

        def ask(expression):
            send(expression)
            return receive()

        ask.send, ask.receive = send, receive
        assert receive() == "ready"
        return ask

    yield start
    for process in running:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def armed(*backends):
    """Waits until these backends hear the server's announcements."""
    for each in backends:
        each.has_key("whatever")
        wait_until(lambda each=each: each.stats()["server"]["nodes"][0]["bus"] == "armed", what="announcements")


def together(count, call):
    """Calls from `count` threads that begin at the same time; returns the results."""
    barrier = threading.Barrier(count)
    results = []

    def run(n):
        barrier.wait()
        results.append(call(n))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def default(server, name):
    """A backend as the default cache of the settings."""
    options = {**PATIENT, "max_loads": 1000, "name": name}
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": server.url, "OPTIONS": options}}):
        yield caches["default"]
        caches["default"].server.close()


def keys_of_values(server):
    """The keys of values on the server: not those of generations."""
    return [key for key in server.ask("KEYS", "django:1*")]


def left(server):
    """The milliseconds that the only value on the server lives."""
    (key,) = keys_of_values(server)
    return server.ask("PTTL", key)
