"""Sentinel, clusters, TLS, Valkey."""

import asyncio
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial

import pytest
import redis
import redis.asyncio
import redis.sentinel
import servers
from servers import Cluster, Sentinels, Server, wait_until

import hotset
from hotset.tier2 import TieredCache

# For tests that expect every operation to be confirmed, also on a busy machine.
PATIENT = {"timeout": 5.0, "connect_timeout": 5.0}


def bus_states(cache):
    return [node["bus"] for node in cache.stats()["server"]["nodes"].values()]


@pytest.mark.skipif(not servers.HAS_SENTINEL, reason="there is no redis-sentinel: make tools-redis")
def test_sentinel_failover(tmp_path, tier2):
    """A confirmed invalidation that the replica had not seen is repeated at the new master."""
    with Sentinels(tmp_path) as group:
        addresses = [("127.0.0.1", each.port) for each in group.sentinels]

        def client():
            return redis.sentinel.Sentinel(addresses, socket_timeout=1).master_for(group.service)

        one, other = (TieredCache(tier2(client()), "prices", ttl=300) for _ in range(2))
        assert one.set("tea", "old")
        assert one.set("ice", "ice")
        assert other.get("tea") == "old"
        wait_until(lambda: bus_states(one) == bus_states(other) == ["armed"], what="the buses")
        wait_until(lambda: group.replica.info("replication")["slave_repl_offset"] == group.master.info("replication")["master_repl_offset"], what="replication")
        group.replica.stop()
        assert one.delete("tea")
        assert one.get("tea") is None
        group.master.kill()
        group.replica.resume()
        wait_until(lambda: group.replica.info("replication")["role"] == "master", seconds=60, what="the failover")
        # Never the old one in the process that removed it, from the first read at the new master
        # on.
        wait_until(lambda: (one.get("tea") != "old" or pytest.fail("old value")) and one.set("ice", "new"), seconds=60, what="a confirmed write")
        assert one.get("tea") is None
        wait_until(lambda: other.get("tea") is None and other.get("ice") == "new", seconds=60, what="the new master's values")
        assert TieredCache(tier2(client()), "prices", ttl=300).get("tea") is None
        assert asyncio.run(one.aget("ice")) == "new"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def test_cluster_first_get_many_asks_all_masters(cluster, tier2):
    """A process's first call needs each master probed, and has the keys of all."""

    def fresh():
        return TieredCache(tier2(redis.RedisCluster(port=cluster.servers[0].port, host="127.0.0.1"), **PATIENT), "first", ttl=300)

    keys = [f"k{n}" for n in range(100)]
    assert fresh().set_many({key: key for key in keys})
    for turn in range(20):
        cache = fresh()
        found = cache.get_many(keys) if turn % 2 == 0 else asyncio.run(cache.aget_many(keys))
        assert found == {key: key for key in keys}


def test_cluster(cluster, tier2):
    port = cluster.servers[0].port
    one, other = (TieredCache(tier2(redis.RedisCluster(port=port, host="127.0.0.1"), **PATIENT), "prices", ttl=300) for _ in range(2))
    keys = [f"k{n}" for n in range(100)]
    for key in keys:
        assert one.set(key, key)
    assert other.get_many(keys) == {key: key for key in keys}
    assert [other.get(key) for key in keys] == keys
    wait_until(lambda: bus_states(one) == bus_states(other) == ["armed"] * 3, what="a bus for each master")
    for key in keys[::2]:
        assert one.delete(key)
    wait_until(lambda: other.get_many(keys) == {key: key for key in keys[1::2]}, what="the removals")
    assert one.get_or_load_many(keys, lambda some: {key: key + "!" for key in some}) == {
        key: key + "!" if at % 2 == 0 else key for at, key in enumerate(keys)
    }
    assert one.set("tagged", 1, tags=("tag",)) and one.set("k5", 5, tags=("tag",))
    assert one.invalidate_tag("tag")
    assert one.get("tagged") is None and one.get("k5") is None
    assert one.clear()
    assert one.get_many(keys) == {}
    wait_until(lambda: other.get_many(keys) == {}, what="the clear")
    assert one.incr("n") == 1 and other.incr("n") == 2


def test_cluster_by_tasks(cluster, tier2):
    async def main():
        client = redis.asyncio.RedisCluster(port=cluster.servers[0].port, host="127.0.0.1")
        one = TieredCache(tier2(client), "tasks", ttl=300)
        assert await one.aset_many({f"k{n}": n for n in range(50)})
        assert await one.aget_many(f"k{n}" for n in range(50)) == {f"k{n}": n for n in range(50)}
        other = TieredCache(tier2(lambda **timeouts: redis.RedisCluster(port=cluster.servers[1].port, host="127.0.0.1", **timeouts)), "tasks", ttl=300)
        assert [await other.aget(f"k{n}") for n in range(50)] == list(range(50))
        await (client.aclose if hasattr(client, "aclose") else client.close)()

    asyncio.run(main())


@contextmanager
def moving_slot(admin, slot):
    """Moves a slot to another master; its keys move at the end."""
    source = admin.nodes_manager.get_node_from_slot(slot)
    target = next(node for node in admin.get_primaries() if node.name != source.name)
    ids = {node.name: admin.cluster_myid(node).decode() for node in (source, target)}
    admin.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source.name], target_nodes=target)
    admin.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target.name], target_nodes=source)
    yield
    for name in admin.execute_command("CLUSTER GETKEYSINSLOT", slot, 100, target_nodes=source):
        admin.execute_command("MIGRATE", target.host, target.port, name, 0, 5000, target_nodes=source)
    for node in (source, target):
        admin.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target.name], target_nodes=node)


def test_cluster_whose_slot_moves(cluster, tier2):
    port = cluster.servers[0].port
    one, other = (TieredCache(tier2(redis.RedisCluster(port=port, host="127.0.0.1")), "moving", ttl=300) for _ in range(2))
    keys = [f"k{n}" for n in range(30)]
    for key in keys:
        assert one.set(key, 0)
        assert other.get(key) == 0
    admin = redis.RedisCluster(port=port, host="127.0.0.1")
    names = [name for name in admin.keys("shop:1*moving*", target_nodes="primaries")]
    with moving_slot(admin, admin.keyslot(names[0])):
        for key in keys:
            assert one.get_or_load(key, lambda key: 1) in (0, 1)
            one.set(key, 1)
    for key in keys:
        # (What was not confirmed before is repeated, which may remove the value once more.)
        wait_until(lambda key=key: one.set(key, 2) and one.get(key) == 2, what="a confirmed write")
    wait_until(lambda: other.get_many(keys) == {key: 2 for key in keys}, what="the new values")
    admin.close()


def test_cluster_whose_generation_moves(cluster, tier2):
    port = cluster.servers[0].port

    def fresh():
        return TieredCache(tier2(redis.RedisCluster(port=port, host="127.0.0.1"), **PATIENT), "generations", ttl=300)

    one, keys = fresh(), [f"k{n}" for n in range(60)]
    assert one.set_many({key: 1 for key in keys}, tags=["all"])
    admin = redis.RedisCluster(port=port, host="127.0.0.1")
    # The first slot of a master has what its values depend on.
    with moving_slot(admin, 0):
        assert fresh().get_many(keys) == {key: 1 for key in keys}
    late = fresh()
    assert late.get_many(keys) == {key: 1 for key in keys}
    assert one.clear()
    assert one.get_many(keys) == {}
    wait_until(lambda: late.get_many(keys) == {}, what="the clear")
    assert late.set_many({key: 2 for key in keys}, tags=["all"])
    wait_until(lambda: one.get_many(keys) == {key: 2 for key in keys}, what="the new values")
    assert late.invalidate_tag("all")
    wait_until(lambda: one.get_many(keys) == {}, what="the tag's end")
    admin.close()


def test_cluster_reloads_expired_values_once(cluster, tier2):
    client = partial(redis.RedisCluster, port=cluster.servers[0].port, host="127.0.0.1")
    caches = [TieredCache(tier2(client(), **PATIENT), "stale", ttl=0.3, stale_while_revalidate=300) for _ in range(2)]
    keys, loads = [f"k{n}" for n in range(30)], []

    def load(key):
        loads.append(key)
        return 2

    assert caches[0].set_many({key: 1 for key in keys})
    for key in keys:
        wait_until(lambda key=key: [each.get_or_load(key, load, ttl=300) for each in caches] == [2, 2], what="the reload")
    assert sorted(loads) == sorted(keys)


def test_cluster_whose_master_is_replaced_is_trusted_again(tmp_path, tier2):
    with Cluster(tmp_path) as own:
        one = TieredCache(tier2(redis.RedisCluster(port=own.servers[0].port, host="127.0.0.1"), **PATIENT), "prices", ttl=300)
        keys = [f"k{n}" for n in range(30)]
        wait_until(lambda: all([one.set(key, 1) for key in keys]), what="writes")
        replica = next(server for server in own.servers if server.info("replication")["role"] == "slave")
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        links = lambda: sorted(node["link"] for node in one.stats()["server"]["nodes"].values())  # noqa: E731

        def is_settled():
            one.get_many(keys)
            return links() == ["idle", "up", "up", "up"]

        wait_until(is_settled, seconds=60, what="the replica to be the master")
        wait_until(lambda: all([one.set(key, 2) for key in keys]), what="confirmed writes")

        def hits():
            return one.stats()["tier1"]["hits"]

        def all_hit():
            before = hits()
            assert one.get_many(keys) == {key: 2 for key in keys}
            return hits() - before == len(keys)

        wait_until(all_hit, what="hits in the first tier")


def test_cluster_whose_master_dies(tmp_path, tier2):
    with Cluster(tmp_path) as own:
        one = TieredCache(tier2(redis.RedisCluster(port=own.servers[0].port, host="127.0.0.1")), "prices", ttl=300)
        keys = [f"k{n}" for n in range(60)]
        for key in keys:
            assert one.set(key, 1)
        own.masters[1].kill()
        for key in keys:
            assert one.get_or_load(key, lambda key: 2) in (1, 2)
        wait_until(lambda: all([one.set(key, 3) for key in keys]), seconds=60, what="the failover")
        wait_until(lambda: one.stats()["server"]["journal"] == 0, what="the journal's end")
        wait_until(lambda: all([one.set(key, 4) for key in keys]), what="confirmed writes")
        assert one.get_many(keys) == {key: 4 for key in keys}


def test_tls(tmp_path, tier2):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1", *subject]
    subprocess.run(command, check=True, capture_output=True)
    port = servers.free_port()
    settings = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    with Server(tmp_path, *settings):
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
        one, other = (TieredCache(tier2(url), "prices", ttl=300) for _ in range(2))
        assert one.set("tea", "x" * 100_000)
        assert other.get("tea") == "x" * 100_000
        wait_until(lambda: bus_states(other) == ["armed"], what="the bus")
        assert asyncio.run(other.aset("tea", 2))
        assert asyncio.run(other.aget("tea")) == 2
        wait_until(lambda: one.get("tea") == 2, what="the new value")
        untrusted = TieredCache(tier2(f"rediss://127.0.0.1:{port}/0"), "prices", ttl=300)
        assert untrusted.get_or_load("tea", lambda key: 5) == 5
        assert "CERTIFICATE_VERIFY_FAILED" in untrusted.stats()["server"]["last_failure"]


@pytest.mark.skipif(servers.VALKEY is None, reason="there is no valkey-server")
def test_valkey(tmp_path, cache):
    with Server(tmp_path, program="valkey-server") as server:
        one, other = cache(server), cache(server)
        assert one.get_or_load("tea", lambda key: 1) == 1
        assert other.get("tea") == 1
        assert one.delete("tea")
        wait_until(lambda: other.get("tea") is None, what="the removal")


def test_valkey_client(server, tier2):
    valkey = pytest.importorskip("valkey")
    prices = TieredCache(tier2(valkey.Valkey(port=server.port)), "prices", ttl=300)
    assert prices.set("tea", 1)
    assert hotset.TieredCache(tier2(server), "prices", ttl=300).get("tea") == 1
    assert asyncio.run(prices.aget("tea")) == 1
