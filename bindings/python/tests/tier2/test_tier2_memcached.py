"""The second tier on memcached: one steady server, and one that has the classic commands only."""

import asyncio
import threading
import time

import pytest
import servers
from memcached_classic import ClassicServer

import hotset
from hotset import _hotset
from hotset.tier2 import Memcached, Redis, _changes
from hotset.tier2._keys import wire_key
from hotset.tier2._memcached import MemcachedParser, address_of, memcached_settings, quick_value
from hotset.tier2._resp import INCOMPLETE, ProtocolError

if not servers.HAS_MEMCACHED:
    pytest.skip("there is no memcached: make tools-memcached", allow_module_level=True)


@pytest.fixture(scope="module")
def shared():
    with servers.MemcachedServer() as server:
        yield server


@pytest.fixture(params=["meta", "classic"])
def address(request, shared):
    """A server with meta commands, and one without."""
    if request.param == "meta":
        shared.ask("flush_all")
        yield shared.address
    else:
        with ClassicServer() as server:
            yield server.address


@pytest.fixture
def make():
    """Makes a cache on a `Memcached` of its own, as another process would have it."""
    made = []

    def cache(address, name="prices", *, prefix="shop", ttl=300, local_ttl=None, **settings):
        shop = Memcached(address, prefix=prefix, **{"timeout": 5.0, "connect_timeout": 5.0, **settings})
        made.append(shop)
        return hotset.TieredCache(shop, name, ttl=ttl, local_ttl=local_ttl)

    yield cache
    for each in made:
        each.close()


def test_value_set_by_one_process_is_read_by_another(address, make):
    one, two = make(address), make(address)
    assert one.set("tea", {"price": 3}) is True
    assert two.get("tea") == {"price": 3}
    assert two.stats()["tier2"]["hits"] == 1


def test_load_fills_the_second_tier(address, make):
    one, two = make(address), make(address)
    assert one.get_or_load("tea", lambda key: key + "!") == "tea!"
    assert two.get_or_load("tea", lambda key: 1 / 0) == "tea!"
    assert one.stats()["tier2"]["fills"] == 1


def test_deleted_key_is_absent_elsewhere(address, make):
    one, two = make(address), make(address)
    one.set("tea", 1)
    assert two.delete("tea") is True
    assert make(address).get("tea") is None


def test_load_begun_before_an_invalidation_is_not_stored(address, make):
    one, two = make(address), make(address)

    def load(key):
        two.delete(key)
        return "old"

    assert one.get_or_load("tea", load) == "old"
    assert one.stats()["tier2"]["fills_refused"] == 1
    assert make(address).get("tea") is None


def test_load_begun_before_a_set_is_not_stored(address, make):
    one, two = make(address), make(address)

    def load(key):
        two.set(key, "new")
        return "old"

    assert one.get_or_load("tea", load) == "old"
    assert make(address).get("tea") == "new"


def test_failed_load_releases_its_lease(address, make):
    one, two = make(address), make(address, lease=30, lease_wait=20)
    with pytest.raises(ZeroDivisionError):
        one.get_or_load("tea", lambda key: 1 / 0)
    assert two.get_or_load("tea", lambda key: "loaded") == "loaded"
    assert two.stats()["tier2"]["waits"] == 0


def test_waiter_gets_the_value_of_the_leader(address, make):
    one, two = make(address), make(address)
    is_loading, may_end, results = threading.Event(), threading.Event(), []

    def load(key):
        is_loading.set()
        assert may_end.wait(20)
        return "led"

    leader = threading.Thread(target=lambda: results.append(one.get_or_load("tea", load)))
    waiter = threading.Thread(target=lambda: results.append(two.get_or_load("tea", lambda key: 1 / 0)))
    leader.start()
    assert is_loading.wait(20)
    waiter.start()
    servers.wait_until(lambda: two.stats()["tier2"]["waits"] == 1, what="a wait")
    # Longer than a lease without renewals: its keeper replaces it under new CAS numbers.
    servers.wait_until(lambda: one.stats()["server"]["renewals"] >= 2, what="renewals")
    may_end.set()
    leader.join()
    waiter.join()
    assert results == ["led", "led"]
    assert one.stats()["tier2"]["fills"] == 1


def test_expired_value_is_loaded_again(address, make):
    one = make(address)
    one.set("tea", "old", tags=("menu",))
    assert one.expire("tea") is True
    assert make(address).get_or_load("tea", lambda key: "new") == "new"


def test_expired_value_is_served_stale_while_it_is_reloaded(shared, make):
    shop = Memcached(shared.address, prefix="stale", timeout=5.0)
    one = hotset.TieredCache(shop, "prices", ttl=300, stale_while_revalidate=60)
    other = hotset.TieredCache(Memcached(shared.address, prefix="stale", timeout=5.0), "prices", ttl=300, stale_while_revalidate=60)
    one.set("tea", "old")
    one.expire("tea")
    assert other.get_or_load("tea", lambda key: "new") == "old"
    servers.wait_until(lambda: make(shared.address, prefix="stale").get("tea") == "new", what="the reload")
    shop.close()


def test_tag_and_clear_invalidate_their_values(address, make):
    one, two = make(address), make(address)
    one.set("tea", 1, tags=("menu",))
    one.set("ice", 2)
    assert two.invalidate_tag("menu") is True
    assert make(address).get_many(["tea", "ice"]) == {"ice": 2}
    assert two.clear() is True
    assert make(address).get("ice") is None
    assert make(address).get_or_load("ice", lambda key: 3) == 3
    assert make(address).get("ice") == 3


def test_many_keys_are_written_read_and_removed(address, make):
    one, two = make(address), make(address)
    items = {f"k{n}": n for n in range(300)}
    one.set_many(items)
    assert two.get_many(items) == items
    two.delete_many(list(items)[:100])
    assert make(address).get_many(items) == dict(list(items.items())[100:])
    loaded = make(address).get_or_load_many(items, lambda keys: {key: -1 for key in keys})
    assert sum(value == -1 for value in loaded.values()) == 100


def test_touch_gives_a_new_lifetime(address, make):
    one = make(address, ttl=1000)
    one.set("tea", 1)
    assert one.touch("tea", 2000) is True
    assert make(address).get("tea") == 1
    assert one.touch("none", 2000) is False


def test_counter_counts_for_all(address, make):
    one, two = make(address), make(address)
    assert [one.incr("n"), two.incr("n", 5), one.incr("n", -2), two.incr("n", -9)] == [1, 6, 4, 0]
    assert one.incr("dated", 3, ttl=90 * 24 * 3600) == 3
    assert two.incr("dated", 1) == 4


def test_value_is_replaced_by_a_function_of_it(address, make):
    one, two = make(address), make(address, local_ttl=0.001)
    one.set("n", 1)
    assert _changes.replace(one.space, "n", lambda n: n + 1) == 2
    # The lifetime stays, however often it is replaced.
    for n in range(3, 9):
        assert _changes.replace(two.space, "n", lambda n: n + 1) == n
    value, rest = _changes.read_with_remaining(one.space, "n")
    assert value == 8 and 290 < rest <= 301
    assert _changes.replace(one.space, "nothing", lambda n: n + 1) is hotset.MISSING
    one.set("for ever", 1, ttl=None)
    assert _changes.read_with_remaining(one.space, "for ever") == (1, None)
    assert _changes.replace(one.space, "for ever", lambda n: n + 1) == 2
    assert _changes.read_with_remaining(two.space, "for ever") == (2, None)
    assert _changes.read_with_remaining(two.space, "nothing") is None
    assert _changes.take(one.space, "n") == (8, True)
    assert _changes.take(one.space, "n") == (hotset.MISSING, True)


def test_replacements_by_threads_are_all_counted(address, make):
    caches = [make(address) for _ in range(4)]
    caches[0].set("n", 0)

    def count(cache):
        for _ in range(25):
            _changes.replace(cache.space, "n", lambda n: n + 1)

    threads = [threading.Thread(target=count, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _changes.read_with_remaining(caches[0].space, "n")[0] == 100


def test_add_stores_only_what_is_absent(address, make):
    one = make(address)
    assert one.add("tea", 1) is True
    assert make(address).add("tea", 2) is False
    assert make(address).get("tea") == 1


@pytest.mark.parametrize("key", ["y" * 500, "blank and\r\nline", "ü" * 300, 10**400, b"\x00\n" * 200, "x" * 180, ("a", None, 1.5)])
def test_any_key_is_stored(address, make, key):
    assert make(address).set(key, "value") is True
    assert make(address).get(key) == "value"


def test_long_names_and_tags_are_stored(address, make):
    name, prefix = "n" * 300, "p" * 120
    one = make(address, name, prefix=prefix)
    assert one.set("tea", 1, tags=("t" * 250,)) is True
    assert make(address, name, prefix=prefix).get("tea") == 1
    assert one.invalidate_tag("t" * 250) is True
    assert make(address, name, prefix=prefix).get("tea") is None


def test_key_on_the_wire_is_itself_or_a_hash():
    assert wire_key(b"k" * 250) == b"k" * 250
    assert len(wire_key(b"k" * 251)) == 33
    assert wire_key(b"k" * 251) != wire_key(b"k" * 252)


def test_value_too_large_removes_the_old_one(address, make):
    one = make(address)
    one.set("tea", "small")
    assert one.set("tea", "x" * 2_000_000) is False
    assert one.get("tea") == "x" * 2_000_000
    assert make(address).get("tea") is None


def test_value_larger_than_the_servers_items_is_not_stored(make):
    with servers.MemcachedServer("-o", "slab_chunk_max=32768", "-I", "64k", "-m", "64") as small:
        one = make(small.address)
        one.set("tea", "small")
        assert one.set("tea", "x" * 200_000) is False
        assert make(small.address).get("tea") is None
        assert one.get_or_load("ice", lambda key: "y" * 200_000) == "y" * 200_000
        # The lease was given back: no caller waits for it.
        two = make(small.address)
        assert two.get_or_load("ice", lambda key: "small") == "small"
        assert two.stats()["tier2"]["waits"] == 0
        assert one.stats()["server"]["oom"] >= 2


def test_server_without_cas_stores_no_loads(make):
    with servers.MemcachedServer("-C") as plain:
        one = make(plain.address)
        assert one.get_or_load("tea", lambda key: "loaded") == "loaded"
        assert one.set("tea", 1) is False
        assert make(plain.address).get("tea") is None
        with pytest.raises(hotset.tier2.Unavailable, match="CAS"):
            Memcached(plain.address, prefix="shop", require="lease", timeout=5.0).check()


def test_flush_removes_all(shared, make):
    one = make(shared.address)
    one.set("tea", 1)
    shared.ask("flush_all")
    assert make(shared.address).get("tea") is None
    assert make(shared.address).get_or_load("tea", lambda key: 2) == 2


def test_short_ttl_expires_and_is_fresh_before(shared, make):
    one = make(shared.address, ttl=30)
    one.set("tea", 1)
    # Bounds of the server's clock narrow within seconds; a value then loses little of its ttl.
    clock = one._space.native()[0]
    servers.wait_until(lambda: make(shared.address, ttl=30).get("tea") == 1, what="a fresh value")
    assert clock.core.server_ms(0, hotset.tier2._clock.now()) > 0


def test_statistics_name_servers_and_commands(address, make):
    one = make(address)
    one.set("tea", 1)
    about = one.stats()["server"]
    assert about["servers"] == [address]
    assert about["commands"] in (["meta"], ["classic"])
    assert about["nodes"][0]["bus"] == "none"


def test_check_reports_the_server(shared):
    shop = Memcached([shared.address], prefix="shop", timeout=5.0)
    (about,) = shop.check().values()
    assert about["server"].startswith("memcached 1.")
    assert about["commands"] == "meta"
    assert about["cas"] is True
    assert about["item size"] == 1 << 20


def test_cached_function_shares_its_results(address):
    calls = []
    shops = [Memcached(address, prefix="fn", timeout=5.0) for _ in range(2)]

    def source(number):
        calls.append(number)
        return number * 2

    one, two = (hotset.cached(maxsize=10, ttl=60, tier2=shop, name="double")(source) for shop in shops)
    assert [one(4), two(4), one(4)] == [8, 8, 8]
    assert calls == [4]
    one.cache_invalidate(4)
    assert one(4) == 8
    assert calls == [4, 4]


def test_tasks_read_write_and_load(address, make):
    one, two = make(address), make(address)

    async def main():
        assert await one.aset("tea", 1) is True
        assert await two.aget("tea") == 1
        assert await two.aget_many(["tea", "none"]) == {"tea": 1}

        async def load(key):
            return key + "!"

        assert await one.aget_or_load("ice", load) == "ice!"
        assert await asyncio.gather(*(two.aget(key) for key in ("tea", "ice", "none") * 20)) == [1, "ice!", None] * 20
        assert await two.adelete("ice") is True
        assert await one.aincr("n", 2) == 2
        assert await one.aset("large", "x" * 500_000) is True
        assert await two.aget("large") == "x" * 500_000
        assert await one.aclear() is True
        assert await two.aget_or_load("new", load) == "new!"

    asyncio.run(main())
    assert make(address).get("tea") is None


def test_unix_socket_is_connected_to(tmp_path, make):
    with servers.MemcachedServer(path=str(tmp_path / "memcached.sock")) as server:
        assert make(server.path).set("tea", 1) is True
        assert make(f"unix:{server.path}").get("tea") == 1

        async def read():
            return await make(server.path).aget("tea")

        assert asyncio.run(read()) == 1


def test_settings_are_checked():
    with pytest.raises(ValueError, match="empty"):
        Memcached([], prefix="shop")
    with pytest.raises(ValueError, match="twice"):
        Memcached(["a:1", "a:1"], prefix="shop")
    with pytest.raises(ValueError, match="host:port"):
        Memcached(["a:b:c"], prefix="shop")
    with pytest.raises(ValueError, match="port"):
        Memcached(["a:99999"], prefix="shop")
    with pytest.raises(ValueError, match="bus"):
        Memcached(["a:1"], prefix="shop", require="bus")
    with pytest.raises(TypeError):
        Memcached(5, prefix="shop")
    with pytest.raises(TypeError, match="Memcached"):
        hotset.TieredCache(object(), "x")


def test_addresses_are_read():
    assert address_of("cache:11212") == ("cache", 11212)
    assert address_of("cache") == ("cache", 11211)
    assert address_of("[::1]:11213") == ("::1", 11213)
    assert address_of(("cache", 7)) == ("cache", 7)
    assert address_of("/run/m.sock") == address_of("unix:/run/m.sock") == ("/run/m.sock", 0)
    assert memcached_settings("memcached://a:1,[::1]:2").servers == (("a", 1), ("::1", 2))


def test_default_local_ttl_is_five_seconds(shared, make):
    assert make(shared.address)._space.settings.local_ttl == 5 * 10**9
    assert make(shared.address, local_ttl=30)._space.settings.local_ttl == 30 * 10**9
    assert make(shared.address, ttl=2)._space.settings.local_ttl == 2 * 10**9


def test_parser_takes_pieces_of_any_size():
    stream = b"VALUE k 0 5\r\nab\r\nc\r\nEND\r\nEND\r\nHD c12\r\nVA 2 c3 t-1\r\nxy\r\nSTAT a b\r\nSTAT c d\r\nEND\r\nEN\r\n12\r\nSERVER_ERROR x\r\n"
    whole = [b"VALUE k 0 5\r\nab\r\nc\r\nEND\r\n", b"END\r\n", b"HD c12\r\n", b"VA 2 c3 t-1\r\nxy\r\n"]
    whole += [b"STAT a b\r\nSTAT c d\r\nEND\r\n", b"EN\r\n", b"12\r\n", b"SERVER_ERROR x\r\n"]
    for size in (1, 2, 3, 7, 1000):
        parser, found = MemcachedParser(), []
        for at in range(0, len(stream), size):
            parser.feed(stream[at : at + size])
            while (reply := parser.next()) is not INCOMPLETE:
                found.append(reply)
        assert found == whole
        assert parser.is_empty
    assert quick_value(whole[0]) == b"ab\r\nc"
    assert quick_value(whole[1]) is None
    assert quick_value(whole[0][:-1]) is INCOMPLETE


@pytest.mark.parametrize("reply", [b"ERROR\r\n", b"VA -1\r\n", b"VA 99999999999\r\n", b"VALUE k\r\n", b"x" * 5000, b"VA 1\r\nabc\r\n", b"+OK\r\n"])
def test_hostile_reply_ends_the_connection(reply):
    parser = MemcachedParser()
    parser.feed(reply)
    with pytest.raises(ProtocolError):
        parser.next()


def test_expiration_is_rounded_up_and_may_be_a_date():
    assert [_hotset.memcached_expiration(px, 10**12) for px in (1, 1000, 1001, 1500)] == [2, 2, 3, 3]
    month = 30 * 24 * 3600
    assert _hotset.memcached_expiration((month - 1) * 1000, 10**12) == month
    assert _hotset.memcached_expiration(month * 1000, 10**12) == 10**9 + month + 1
    assert _hotset.memcached_expiration(2**63, 10**12) == 2**31 - 1


def test_servers_are_chosen_as_pymemcache_does():
    rendezvous = pytest.importorskip("pymemcache.client.rendezvous")
    names = ["10.0.0.1:11211", "10.0.0.2:11211", "cache:11212", "/run/m.sock"]
    hasher, own = rendezvous.RendezvousHash(names), _hotset.Memcached([name.encode() for name in names])
    for number in range(500):
        key = "k" * (number % 9) + str(number)
        assert names[own.node_of(key.encode())] == hasher.get_node(key)


def test_client_of_pymemcache_is_taken_over(shared, make):
    base = pytest.importorskip("pymemcache.client.base")
    hashed = pytest.importorskip("pymemcache.client.hash")
    where = ("127.0.0.1", shared.port)
    for client in (base.Client(where), base.PooledClient(where), hashed.HashClient([where])):
        assert memcached_settings(client).servers == (where,)
        assert make(client).set("tea", 1) is True
        assert make(shared.address).get("tea") == 1

    class First:
        def __init__(self, nodes=None):
            self.nodes = []

        def add_node(self, node):
            self.nodes.append(node)

        def get_node(self, key):
            return self.nodes[0]

    client = hashed.HashClient([where, ("127.0.0.1", 1)], hasher=First)
    cache = make(client)
    assert all(cache.set(f"k{n}", n) for n in range(20))


def test_tiers_of_both_kinds_serve_one_process(server, shared, make):
    redis = hotset.TieredCache(Redis(server.url, prefix="shop", timeout=5.0), "prices", ttl=60)
    memcached = make(shared.address)
    redis.set("tea", "redis")
    memcached.set("tea", "memcached")
    assert (redis.get("tea"), memcached.get("tea")) == ("redis", "memcached")


def test_first_tier_serves_for_local_ttl(shared, make):
    one, two = make(shared.address, local_ttl=0.2), make(shared.address)
    two.set("tea", "old")
    assert one.get("tea") == "old"
    two.set("tea", "new")
    begun = time.monotonic()
    servers.wait_until(lambda: one.get("tea") == "new", what="the end of local_ttl")
    assert time.monotonic() - begun < 15
