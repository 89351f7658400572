"""The second tier with servers that answer, but refuse temporarily: replicas, and loading servers.
"""

import asyncio

from conftest import armed
from servers import Server, wait_until


def load(key):
    return f"loaded {key}"


def test_replica_is_an_outage_until_it_is_a_master(tmp_path, own_server, cache):
    writer = cache(own_server)
    armed(writer)
    writer.set("tea", 1)
    with Server(tmp_path, "--replicaof", f"127.0.0.1 {own_server.port}") as replica:
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", what="the replica")
        prices = cache(replica)
        # (It may be behind its master.)
        assert prices.get("tea") is None
        assert prices.get_or_load("ice", load) == "loaded ice"
        assert prices.set("tea", 2) is False and prices.delete("tea") is False
        assert asyncio.run(prices.aset("rum", 2)) is False
        assert "replica" in prices.stats()["server"]["last_failure"]
        # What it could not remove is removed once it is a master.
        replica.ask("REPLICAOF", "NO", "ONE")
        wait_until(lambda: prices.set("rum", 3), what="a confirmed write")
        wait_until(lambda: prices.stats()["server"]["journal"] == 0, what="the journal")
        assert prices.get("tea") is None and prices.get("rum") == 3


def test_server_that_loads_its_data_is_an_outage(tmp_path, cache):
    with Server(tmp_path) as server:
        prices = cache(server)
        armed(prices)
        assert prices.set_many({f"key{n}": n for n in range(2000)})
        server.ask("SAVE")
        server.kill()
        assert prices.delete("key1") is False
        # A millisecond for each key: some 2 s of LOADING.
        server._settings = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
        server.start()
        seen = []

        def is_loading():
            try:
                server.ask("GET", "x")
            except RuntimeError as error:
                seen.append(str(error))
            return bool(seen)

        wait_until(is_loading, what="LOADING")
        assert seen[0].startswith("LOADING")
        assert prices.get_or_load("new", load) == "loaded new"
        assert asyncio.run(prices.aget("key1")) is None
        wait_until(lambda: prices.set("rum", 3), what="a confirmed write")
        wait_until(lambda: prices.stats()["server"]["journal"] == 0, what="the journal")
        # What was removed during the outage stays removed, as does what was set in the 30 s before
        # it (guarantee G7).
        assert prices.get("key1") is None and prices.get("key2") is None


def test_server_that_refuses_writes_for_now_is_no_outage(own_server, cache):
    """READONLY amid the connections of a master that has become a replica."""
    prices = cache(own_server, timeout=5.0, connect_timeout=5.0)
    armed(prices)
    assert prices.set("tea", 1) and prices.get("tea") == 1
    own_server.ask("REPLICAOF", "127.0.0.1", 1)
    assert prices.set("tea", 2) is False and prices.delete("rum") is False
    assert prices.get_or_load("ice", load) == "loaded ice"
    own_server.ask("REPLICAOF", "NO", "ONE")
    wait_until(lambda: prices.set("rum", 3), what="a confirmed write")
    wait_until(lambda: prices.stats()["server"]["journal"] == 0, what="the journal")
    assert prices.get("tea") is None and prices.get("rum") == 3
    assert prices.stats()["server"]["readonly"] > 0
