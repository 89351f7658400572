"""`hotset.django.TieredCache` in front of memcached servers."""

import asyncio
import datetime
import io

import django_project  # noqa: F401
import pytest
import servers
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import override_settings
from servers import wait_until

from hotset.django import TieredCache
from hotset.tier2 import Memcached, Unavailable

BACKEND = "hotset.django.TieredCache"
URL = "memcached://localhost:1"
# (Tests that expect every operation to be confirmed must not fail on a busy machine.)
PATIENT = {"timeout": 5.0, "connect_timeout": 5.0}


@pytest.fixture(scope="module")
def nodes():
    with servers.MemcachedServer() as one, servers.MemcachedServer() as two, servers.MemcachedServer() as three:
        yield [one, two, three]


@pytest.fixture
def location(nodes):
    return f"memcached://{','.join(node.address for node in nodes)}"


@pytest.fixture
def backend(location, request):
    """Makes a backend. With another `process`, it sees what the others do as one of another process
    would.
    """
    made = []

    def make(where=location, process=0, **options):
        # An option without effect here, which distinguishes the connections.
        options = {**PATIENT, "max_loads": 1000 + process, "name": request.node.name, **options}
        made.append(TieredCache(where, {"OPTIONS": options}))
        return made[-1]

    yield make
    for each in made:
        each.server.close()


def test_values_are_shared(backend):
    here, there = backend(), backend(process=1, local_ttl=0.001)
    assert type(here.server) is Memcached
    for value in ("text", 7, None, [1, {"a": datetime.date(2026, 1, 1)}], b"\0"):
        here.set("key", value)
        wait_until(lambda value=value: there.get("key", "absent") == value, what="the value")
    assert here.delete("key")
    assert not here.delete("key")
    wait_until(lambda: there.get("key") is None, what="the removal")


def test_every_method_works(backend):
    cache, there = backend(), backend(process=1)
    assert cache.add("a", 1) and not cache.add("a", 2)
    assert not there.add("a", 3)
    assert cache.get_or_set("b", lambda: 2) == 2
    assert there.get_or_set("b", lambda: 3) == 2
    assert cache.incr("a") == 2 and there.incr("a", 5) == 7 and cache.decr("a", 10) == -3
    with pytest.raises(ValueError):
        cache.incr("nothing")
    many = {f"k{n}": n for n in range(50)}
    assert cache.set_many(many) == []
    assert there.get_many([*many, "nothing"]) == many
    cache.delete_many(["k0", "k1"])
    assert "k0" not in cache and "k2" in cache
    assert cache.touch("k2", 60) and not cache.touch("k0")
    assert cache.incr_version("k3") == 2
    assert cache.get("k3", version=2) == 3 and cache.get("k3") is None
    cache.set("tagged", 1, tags=["menu"])
    cache.invalidate_tag("menu")
    assert cache.get("tagged") is None
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None
    cache.clear()
    assert cache.get_many(list(many)) == {}


def test_tasks_use_it(backend):
    cache = backend()

    async def main():
        await cache.aset("a", 1)
        assert await cache.aget("a") == 1
        assert await cache.aincr("a") == 2
        assert await cache.aadd("a", 1) is False
        assert await cache.aget_or_set("b", lambda: 3) == 3
        assert await cache.aget_many(["a", "b"]) == {"a": 2, "b": 3}
        assert await cache.adelete("a")
        await cache.aclear()
        assert await cache.aget("b") is None

    asyncio.run(main())


def test_value_too_large_stays_in_the_process(backend):
    here, there = backend(), backend(process=1)
    here.set("key", "old")
    large = "x" * (1 << 20)
    here.set("key", large)
    assert here.get("key") == large
    assert there.get("key") is None


def test_down_server_is_done_without(request):
    with servers.MemcachedServer() as node:
        cache = TieredCache(node.url, {"OPTIONS": {"name": request.node.name}})
        wait_until(lambda: (cache.set("a", 1), "a" in cache)[1], what="the server")
        node.kill()
        assert cache.get("b") is None
        assert cache.get_or_set("b", lambda: 2) == 2
        with pytest.raises(Unavailable):
            cache.add("c", 1)
        cache.delete("a")
        node.start()

        def is_used():
            cache.set("d", 4)
            return cache.tier.stats()["server"]["nodes"][0]["link"] == "up"

        wait_until(is_used, what="the server")
        cache.server.close()


def test_locations_of_the_same_servers(nodes, location):
    for where in (location, [f"memcached://{node.address}" for node in nodes], ",".join(node.url for node in nodes), f"{location}/"):
        cache = TieredCache(where, {"OPTIONS": PATIENT})
        assert repr(cache.server).endswith(f"at {', '.join(node.address for node in nodes)}>"), where
        cache.server.close()


def test_command_names_the_servers(location):
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": PATIENT}}):
        caches["default"].set("a", 1)
        out = io.StringIO()
        call_command("hotset", "stats", stdout=out, stderr=io.StringIO())
        assert "announcements none" in out.getvalue()
        call_command("hotset", "clear", stdout=out)
        assert "cleared in all processes" in out.getvalue()
        caches["default"].server.close()


@pytest.mark.parametrize(
    ("location", "options", "text"),
    [
        ("memcached://", {}, "a server must be 'host:port'"),
        ("memcached://a b", {}, "a server must be 'host:port'"),
        ("memcached://a,a", {}, "a server is there twice: a:11211"),
        ("memcached://a:0", {}, "a port must be from 1 to 65535"),
        ([URL, "redis://localhost"], {}, "LOCATION names several servers: all by memcached://, or none"),
        (URL, {"bus": None}, "OPTIONS bus: only with Redis or Valkey, not with memcached://"),
        (URL, {"sentinel": "shop", "verify": 0.1}, "OPTIONS sentinel, verify: only with Redis or Valkey"),
        (URL, {"client": "a.b"}, "OPTIONS client"),
        (URL, {"max_value": -1}, "max_value"),
    ],
)
def test_wrong_setting_is_an_error(location, options, text):
    with pytest.raises(ImproperlyConfigured) as error:
        TieredCache(location, {"OPTIONS": options})
    assert text in str(error.value)
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": options}}):
        with pytest.raises(ImproperlyConfigured, match="CACHES"):
            run_checks(tags=["caches"])
