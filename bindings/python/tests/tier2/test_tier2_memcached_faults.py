"""The second tier on memcached servers that fail, and over several processes."""

import asyncio
import os
import socket
import threading
import time

import pytest
import race
import servers
from servers import free_port, wait_until
from test_tier2_processes import Worker

import hotset
from hotset.tier2 import Memcached, Unavailable

if not servers.HAS_MEMCACHED:
    pytest.skip("there is no memcached: make tools-memcached", allow_module_level=True)


@pytest.fixture
def nodes():
    """Three servers of the test's own."""
    made = []
    try:
        made += [servers.MemcachedServer() for _ in range(3)]
        yield made
    finally:
        for node in made:
            node.kill()


@pytest.fixture
def make():
    made = []

    def cache(nodes, name="prices", *, ttl=300, local_ttl=None, **settings):
        made.append(Memcached([node.address for node in nodes], prefix="shop", **settings))
        return hotset.TieredCache(made[-1], name, ttl=ttl, local_ttl=local_ttl)

    yield cache
    for each in made:
        each.close()


def load(key):
    return f"loaded {key}"


def keys_of(cache, number, count=20):
    """Keys that are on this server."""
    session = cache._space.native()[0]
    names = (f"k{n}" for n in range(10_000))
    mine = (name for name in names if session.topology.node_of(cache._space.key_of((name,), {})[0]) == number)
    return [next(mine) for _ in range(count)]


def is_up(cache, number):
    return cache.stats()["server"]["nodes"][number]["link"] == "up"


def test_values_are_loaded_while_nothing_listens():
    shop = Memcached(f"127.0.0.1:{free_port()}", prefix="shop")
    prices = hotset.TieredCache(shop, "prices", ttl=300)
    try:
        assert prices.get_or_load("tea", load) == "loaded tea"
        assert prices.get("ice") is None
        assert prices.set("rum", 1) is False
        assert prices.delete("rum") is False
        assert prices.get_many(["a", "b"]) == {}
        assert asyncio.run(prices.aget_or_load("x", lambda key: asyncio.sleep(0, "async"))) == "async"
        assert prices.stats()["server"]["last_failure"].startswith("refused")
        with pytest.raises(Unavailable):
            prices.incr("n")
    finally:
        shop.close()


def test_server_that_is_down_keeps_its_keys(nodes, make):
    one, two = make(nodes, local_ttl=0.01), make(nodes, local_ttl=0.01)
    (*mine, unused), others = keys_of(one, 0), keys_of(one, 1)
    one.set_many(dict.fromkeys(mine + others, "old"))
    nodes[0].kill()
    assert two.get_many(others) == dict.fromkeys(others, "old")
    assert two.get_or_load(mine[0], load) == load(mine[0])
    wait_until(lambda: not is_up(two, 0), what="the breaker")
    # Not on another server, where nothing would invalidate it.
    assert two.set(mine[1], "new") is False
    wait_until(lambda: one.get(mine[1]) is None, what="the end of local_ttl")
    assert is_up(two, 1) and is_up(two, 2)
    nodes[0].start()
    wait_until(lambda: is_up(two, 0) and two.stats()["server"]["journal"] == 0, what="the server's return")
    # (A key that `one` has not changed: its changes of the last 30 s are repeated as removals.)
    assert two.set(unused, "back") is True
    wait_until(lambda: one.get(unused) == "back", what="the server's return elsewhere")


def test_restarted_server_is_empty_and_fills_again(nodes, make):
    one = make(nodes)
    key = keys_of(one, 2)[0]
    one.set(key, "old")
    nodes[2].kill()
    nodes[2].start()
    two = make(nodes)
    assert two.get(key) is None
    assert two.get_or_load(key, load) == load(key)
    wait_until(lambda: make(nodes).get(key) == load(key), what="a value on the restarted server")


def test_fill_after_a_restart_is_refused(nodes, make):
    """The first CAS numbers of the new process are those of the old one."""
    one, two = make(nodes), make(nodes)
    key = keys_of(one, 0)[0]

    def restart(_):
        nodes[0].kill()
        nodes[0].start()
        two.stats()
        wait_until(lambda: two.set(key, "new"), what="the restarted server")
        return "old"

    assert one.get_or_load(key, restart) == "old"
    wait_until(lambda: make(nodes).get(key) == "new", what="the newer value")


def test_requests_are_fast_while_a_server_is_stopped(nodes, make):
    prices = make(nodes)
    mine = keys_of(prices, 1, 200)
    prices.set(mine[0], 1)
    nodes[1].stop()
    try:
        begun = time.monotonic()
        assert prices.get_or_load(mine[1], load) == load(mine[1])
        first = time.monotonic() - begun
        begun = time.monotonic()
        for key in mine[2:]:
            assert prices.get_or_load(key, load) == load(key)
        rest = time.monotonic() - begun
        assert first < 2.5, first
        assert rest < 10, rest
    finally:
        nodes[1].resume()
    wait_until(lambda: is_up(prices, 1), what="the server's return")


def test_set_that_a_stopped_server_executes_late_is_harmless(nodes, make):
    """What was given up lies in the socket's buffer, and is executed when the server continues."""
    one, two = make(nodes[:1], local_ttl=0.01), make(nodes[:1], local_ttl=0.01)
    for turn in range(5):
        key = f"k{turn}"
        one.set(key, "first")
        nodes[0].stop()
        try:
            assert one.set(key, "late") is False
        finally:
            nodes[0].resume()
        wait_until(lambda: is_up(one, 0) and one.stats()["server"]["journal"] == 0, what="the replay")
        assert one.set(key, "newest") is True
        wait_until(lambda: is_up(two, 0), what="the other's connection")
        wait_until(lambda key=key: two.get(key) == "newest", what="the newest value")
        assert one.get(key) == "newest"
        assert one.stats()["server"]["fences"] == 0


def test_invalidation_during_an_outage_is_replayed(nodes, make):
    one, two = make(nodes, local_ttl=0.01), make(nodes, local_ttl=0.01)
    key = keys_of(one, 0)[0]
    one.set(key, "old")
    assert two.get(key) == "old"
    nodes[0].stop()
    try:
        assert one.delete(key) is False
        assert one.get(key) is None
    finally:
        nodes[0].resume()
    wait_until(lambda: two.get(key) is None, what="the replay")


def test_clear_during_an_outage_is_replayed(nodes, make):
    one, two = make(nodes, local_ttl=0.01), make(nodes, local_ttl=0.01)
    items = {f"k{n}": n for n in range(30)}
    one.set_many(items)
    nodes[1].stop()
    try:
        assert one.clear() is False
        assert one.get_many(items) == {}
    finally:
        nodes[1].resume()
    wait_until(lambda: two.get_many(items) == {}, what="the replay")


def test_flushed_server_loses_nothing_but_values(nodes, make):
    one = make(nodes)

    def flush(_):
        for node in nodes:
            node.ask("flush_all")
        return "loaded"

    # The lease was flushed, so the value is stored nowhere.
    assert one.get_or_load("tea", flush) == "loaded"
    assert one.stats()["tier2"]["fills_refused"] == 1
    assert make(nodes).get("tea") is None


class Hostile:
    """Accepts connections, and answers all requests with the same bytes."""

    def __init__(self, reply, greeting=True):
        self._reply = reply
        self._greeting = greeting
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected):
        with connected:
            while data := connected.recv(1 << 16):
                if self._greeting and data.startswith(b"version"):
                    connected.sendall(b"VERSION 1.6.18\r\nSTAT pid 7\r\nSTAT uptime 5\r\nSTAT time 1000000000\r\nEND\r\n")
                else:
                    connected.sendall(self._reply)

    def close(self):
        self._listening.close()


@pytest.mark.parametrize(
    "reply",
    [
        *(b"ERROR\r\n", b"\x00" * 100, b"VALUE k 0 99\r\nabc\r\nEND\r\n", b"VA 3 c1 t1\r\nabc\r\n" * 9, b"HD\r\nHD\r\nHD\r\n", b"HD c\r\n"),
        *(b"SERVER_ERROR out of memory\r\n", b"CLIENT_ERROR bad\r\n", b"VALUE a 0 3 0\r\nabc\r\nEND\r\n", b"END\r\n", b"EX\r\n", b"STORED\r\nEND\r\n"),
    ],
)
@pytest.mark.parametrize("greeting", [True, False])
def test_hostile_replies_raise_nothing(reply, greeting):
    hostile = Hostile(reply, greeting)
    shop = Memcached(hostile.address, prefix="shop", timeout=0.05)
    prices = hotset.TieredCache(shop, "prices", ttl=300)
    try:
        for turn in range(3):
            assert prices.get(f"a{turn}") in (None, "abc")
            assert prices.get_or_load(f"b{turn}", load) == f"loaded b{turn}"
            prices.set(f"c{turn}", 1)
            prices.delete(f"c{turn}")
            prices.expire(f"d{turn}")
            prices.clear()
            assert asyncio.run(prices.aget_or_load(f"e{turn}", lambda key: asyncio.sleep(0, key))) == f"e{turn}"
    finally:
        shop.close()
        hostile.close()


def test_child_of_a_fork_connects_for_itself(nodes, make):
    prices = make(nodes)
    prices.set("tea", 1)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writer, repr((prices.get("tea"), prices.set("ice", 2))).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"(1, True)"
    assert os.waitpid(pid, 0)[1] == 0
    assert prices.get("ice") == 2


def test_herd_of_processes_loads_once(nodes):
    url = "memcached://" + ",".join(node.address for node in nodes)

    class Named:
        pass

    named = Named()
    named.url = url
    herd = [Worker(named, "herd", 16, 0.02) for _ in range(8)]
    try:
        for worker in herd:
            assert worker.line()["ready"]
        for turn in range(5):
            for worker in herd:
                worker.tell(f"cold{turn}")
            lines = [worker.line() for worker in herd]
            assert sum(line["loads"] for line in lines) == 1, lines
            assert all(line["count"] == 16 and not line["errors"] for line in lines)
            assert len({value for line in lines for value in line["values"]}) == 1
    finally:
        for worker in herd:
            worker.end()


def test_race_with_faults_reads_nothing_too_old():
    outcome = race.race(20, faults=race.FAULTS_OF_MEMCACHED, memcached=True)
    assert [text for report in outcome["processes"] for text in report["wrong"]] == [], outcome


@pytest.mark.parametrize("broken", ["keep", "stale fill"])
def test_race_detects_deliberate_faults(broken):
    outcome = race.race(10, faults=(), broken=broken, memcached=True)
    assert [text for report in outcome["processes"] for text in report["wrong"]] != []
