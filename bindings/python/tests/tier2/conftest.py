"""Fixtures of the second tier's tests: servers, and caches on them as several processes have them.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("redis", reason="the second tier needs redis-py")

import servers  # noqa: E402

import hotset  # noqa: E402
from hotset.tier2 import Redis  # noqa: E402

if not servers.HAS_REDIS:
    pytest.skip("there is no redis-server: make tools-redis", allow_module_level=True)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    with servers.Server(tmp_path_factory.mktemp("redis")) as server:
        server.is_patient = True
        yield server


@pytest.fixture
def server(shared_server):
    """A running server, empty, for tests that leave it running."""
    shared_server.ask("FLUSHALL")
    return shared_server


@pytest.fixture
def own_server(tmp_path):
    """A server of the test's own, which it may stop or kill."""
    with servers.Server(tmp_path) as server:
        yield server


@pytest.fixture
def tier2():
    """Makes a `Redis`, as another process would have it; all are closed at the end."""
    made = []

    def make(server, **settings):
        url = server if not hasattr(server, "url") else server.url
        if getattr(server, "is_patient", False):
            # (Tests that expect every operation to be confirmed must not fail on a busy machine.)
            settings = {"timeout": 5.0, "connect_timeout": 5.0, **settings}
        made.append(Redis(url, prefix=settings.pop("prefix", "shop"), **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def cache(tier2):
    """Makes a cache on a `Redis` of its own, as another process would have it."""

    def make(server, name="prices", **settings):
        own = {key: settings.pop(key) for key in list(settings) if key in _OF_REDIS}
        return hotset.TieredCache(tier2(server, **own), name, **{"ttl": 300, **settings})

    return make


_OF_REDIS = frozenset(
    ("prefix", "timeout", "connect_timeout", "bus", "max_loads", "require", "on_event", "early_reload", "lease", "lease_wait")
    + ("load_timeout", "compress_over", "sign", "max_value", "on_down", "verify")
)


def armed(*caches):
    """Waits until the buses of these caches are armed."""
    for each in caches:
        each.get("whatever")
        servers.wait_until(lambda each=each: bus_state(each) == "armed", what="bus")


def bus_state(cache):
    return cache.stats()["server"]["nodes"][0]["bus"]
