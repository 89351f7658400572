"""`hotset.django.TieredCache` in several processes, and with servers that fail."""

import asyncio
import os

import pytest
from tiered_project import armed, backend, cache, name, server, shared_server, together, worker  # noqa: F401  # isort: skip
import servers
from django.core.management import CommandError, call_command
from django.test import override_settings
from servers import wait_until
from tiered_project import BACKEND

from hotset.tier2 import Unavailable

# --- Among processes.


def test_changes_are_seen_by_other_processes(worker, backend):
    other, cache = worker(), backend()
    armed(cache)
    changes = [
        ("cache.set('key', 1)", 1),
        ("cache.set('key', [2])", [2]),
        ("cache.set('key', 3)", 3),
        ("cache.incr('key')", 4),
        ("cache.decr('key', 2)", 2),
        ("cache.touch('key', 0)", None),
        ("cache.add('key', 5)", 5),
        ("cache.delete('key')", None),
        ("cache.set_many({'key': 6, 'other': 7})", 6),
        ("cache.delete_many(['key', 'other'])", None),
        ("cache.get_or_set('key', lambda: 8)", 8),
        ("cache.incr_version('key')", None),
        ("cache.set('key', 9, tags=['t'])", 9),
        ("cache.invalidate_tag('t')", None),
        ("cache.set('key', 10)", 10),
        ("cache.clear()", None),
    ]
    for change, expected in changes:
        assert "raised" not in other(change)
        wait_until(lambda expected=expected: cache.get("key") == expected, what=f"what {change} did")
        # (It is in this process, too, where it must be invalidated by the next change.)
        assert cache.get("key") == expected


def test_own_changes_are_visible_immediately(cache):
    for n in range(200):
        cache.set("key", n)
        assert cache.get("key") == n
        assert cache.incr("key") == n + 1
        assert cache.get("key") == n + 1
        cache.delete("key")
        assert cache.get("key") is None


def test_incr_of_processes_is_atomic(worker, cache):
    workers = [worker() for _ in range(3)]
    cache.set("n", 0)
    for each in workers:
        each.send("together(4, lambda _: [cache.incr('n') for _ in range(25)])")
    own = together(4, lambda _: [cache.incr("n") for _ in range(25)])
    seen = [number for each in workers for numbers in eval(each.receive()) for number in numbers]
    seen += [number for numbers in own for number in numbers]
    assert sorted(seen) == list(range(1, 401))
    assert cache.get("n") == 400


def test_add_of_processes_succeeds_once(worker, cache):
    workers = [worker() for _ in range(3)]
    for n in range(10):
        for each in workers:
            each.send(f"together(4, lambda at: cache.add('key{n}', at))")
        added = together(4, lambda at, n=n: cache.add(f"key{n}", at))
        added += [one for each in workers for one in eval(each.receive())]
        assert sum(added) == 1


def test_get_or_set_of_processes_calls_once(worker, tmp_path):
    workers = [worker() for _ in range(3)]
    file = tmp_path / "loads"
    for n in range(5):
        for each in workers:
            each.send(f"together(4, lambda _: cache.get_or_set('key{n}', lambda: counted({str(file)!r})))")
        for each in workers:
            assert eval(each.receive()) == [{"loaded": True}] * 4
    assert file.read_text() == "load\n" * 5


def test_delete_returns_whether_the_key_was_present(worker, backend):
    cache, other = backend(), worker()
    other("cache.set('key', 1)")
    assert cache.delete("key") is True
    assert cache.delete("key") is False
    assert other("cache.delete('key')") == "False"
    cache.set("key", 1)
    cache.clear()
    assert cache.delete("key") is False


def test_clear_leaves_other_keys_of_the_server(server, cache):
    server.ask("SET", "theirs", "value")
    cache.set("key", 1)
    cache.clear()
    assert cache.get("key") is None
    assert server.ask("GET", "theirs") == b"value"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_of_a_fork_sees_changes(cache):
    cache.set("key", "old")
    assert cache.get("key") == "old"
    reading, writing = os.pipe()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(ready, 1)
            os.write(writing, repr((cache.get("key"), cache.incr("n"))).encode())
        finally:
            os._exit(0)
    cache.set("key", "new")
    cache.set("n", 1)
    os.write(go, b"x")
    os.waitpid(child, 0)
    assert os.read(reading, 1000) == repr(("new", 2)).encode()
    assert cache.get("n") == 2


# --- Servers that fail.


def test_outage(tmp_path, backend):
    with servers.Server(tmp_path) as failing:
        cache, other = backend(failing.url, patient=False), backend(failing.url, patient=False, process=1)
        armed(cache, other)
        wait_until(lambda: cache.set_many({"held": 1, "removed": 2, "n": 3}) == [], what="a confirmed write")
        assert cache.get_many(["held", "removed"]) == other.get_many(["held", "removed"]) == {"held": 1, "removed": 2}
        failing.stop()
        assert cache.get("absent", "default") == "default"
        assert cache.delete("removed") is False
        assert cache.get("removed") is None
        cache.set("new", 4)
        assert cache.set_many({"new": 4}) == ["new"]
        assert cache.get_or_set("made", lambda: [5]) == [5]
        cache.delete_many(["removed"])
        for call in (
            lambda: cache.add("key", 1),
            lambda: cache.incr("n"),
            lambda: cache.touch("n"),
            lambda: cache.incr_version("n"),
            lambda: cache.add("key", 1, 0),
        ):
            with pytest.raises(Unavailable):
                call()

        async def later():
            for call in (cache.aadd("key", 1), cache.aincr("n"), cache.atouch("n"), cache.aincr_version("n")):
                with pytest.raises(Unavailable):
                    await call
            assert await cache.aget("absent") is None
            assert await cache.aset_many({"new": 4}) == ["new"]
            assert await cache.adelete("removed") is False

        asyncio.run(later())
        failing.resume()
        wait_until(lambda: cache.set_many({"new": 6}) == [], what="the server")
        # What was removed during the outage is removed on the server before this process reads
        # there again.
        assert cache.get("removed") is None
        wait_until(lambda: other.get("removed") is None, what="the removal, in the other process")
        assert cache.incr("n") == 4


def test_server_that_is_not_there(backend):
    cache = backend(f"redis://127.0.0.1:{servers.free_port()}/0", patient=False)
    assert cache.get("key") is None
    assert cache.get_or_set("key", lambda: 1) == 1
    for call in (lambda: cache.incr("key"), lambda: cache.add("other", 1), lambda: cache.touch("key")):
        with pytest.raises(Unavailable):
            call()
    strict = backend(f"redis://127.0.0.1:{servers.free_port()}/0", patient=False, on_down="raise")
    for call in (lambda: strict.get("key"), lambda: strict.get_or_set("key", lambda: 1), lambda: strict.get_many(["a", "b"]), lambda: strict.incr("n")):
        with pytest.raises(Unavailable):
            call()
    assert strict.delete("key") is False
    assert strict.set_many({"key": 1}) == ["key"]
    with pytest.raises(CommandError, match="not cleared, since the server did not confirm it: default"):
        with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": f"redis://127.0.0.1:{servers.free_port()}/0"}}):
            call_command("hotset", "clear")


# --- Locations.


@pytest.mark.skipif(not servers.HAS_SENTINEL, reason="there is no redis-sentinel: make tools-redis")
def test_sentinels(tmp_path, backend):
    with servers.Sentinels(tmp_path) as group:
        cache = backend([f"redis://127.0.0.1:{each.port}" for each in group.sentinels], sentinel=group.service)
        cache.set("key", [1])
        assert group.master.ask("DBSIZE") > 0
        assert backend(cache.server and [f"redis://127.0.0.1:{group.sentinels[0].port}"], sentinel=group.service).get("key") == [1]


def test_cluster(tmp_path, backend):
    with servers.Cluster(tmp_path, replicas=0) as cluster:
        location = ",".join(f"redis://127.0.0.1:{each.port}" for each in cluster.servers)
        cache, other = backend(location), backend(location.split(","), process=1)
        data = {f"key{n}": n for n in range(50)}
        assert cache.set_many(data) == []
        assert other.get_many(data) == data
        assert cache.incr("key7") == 8 and cache.delete("key8") is True and cache.add("key8", "new") is True
        wait_until(lambda: other.get_many(["key7", "key8"]) == {"key7": 8, "key8": "new"}, what="the announcements")
        cache.clear()
        wait_until(lambda: other.get_many(data) == {}, what="the clear")


def client(**timeouts):
    import redis

    return redis.Redis.from_url(client.url, **timeouts)


def test_client_by_dotted_path_and_by_function(server, backend):
    client.url = server.url
    backend("", client=client).set("key", 1)
    assert backend("", client=f"{__name__}.client", process=1).get("key") == 1
