"""Wrong input: each a clear error, or handled."""

import logging
import socket
import threading

import pytest
import redis
import redis.asyncio
from servers import Server, wait_until

import hotset
from hotset.tier2 import Redis, TieredCache


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:99999/0", "redis://localhost/notadb", "mysql://x", "", "unix://"])
def test_malformed_urls_are_errors(url):
    with pytest.raises(ValueError, match="URL"):
        Redis(url, prefix="shop")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"prefix": ""}, ValueError),
        ({"prefix": 5}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"connect_timeout": -1}, ValueError),
        ({"bus": "pubsub"}, ValueError),
        ({"max_loads": 0}, ValueError),
        ({"require": "everything"}, ValueError),
        ({"on_event": 5}, TypeError),
        ({"sign": "text"}, TypeError),
        ({"sign": b"short"}, ValueError),
        ({"compress_over": -1}, ValueError),
        ({"lease": 0}, ValueError),
        ({"early_reload": -1}, ValueError),
    ],
)
def test_wrong_settings_are_errors(settings, error):
    with pytest.raises(error):
        Redis("redis://localhost", **{"prefix": "shop", **settings})


@pytest.mark.parametrize("server", [None, 5, object(), redis.ConnectionPool(), b"redis://localhost"])
def test_other_objects_as_server_are_errors(server):
    with pytest.raises(TypeError, match="server must be"):
        Redis(server, prefix="shop")


def test_wrong_settings_of_a_cache_are_errors():
    shop = Redis("redis://localhost", prefix="shop")
    for settings, error in [
        ({"ttl": 0}, ValueError),
        ({"local_ttl": -1}, ValueError),
        ({"codec": "yaml"}, ValueError),
        ({"codec": "pickle"}, ValueError),
        ({"maxsize": -1}, ValueError),
        ({"stale_if_error": 5}, TypeError),
        ({"schema": 1.5}, TypeError),
    ]:
        with pytest.raises(error):
            TieredCache(shop, "prices", **settings)
    with pytest.raises(TypeError):
        TieredCache("redis://localhost", "prices")
    with pytest.raises(ValueError, match="name"):
        TieredCache(shop, "")
    with pytest.raises(TypeError):
        TieredCache(shop, 5)


def test_wrong_arguments_are_errors(server, cache):
    prices = cache(server)
    with pytest.raises(TypeError, match="key of the second tier"):
        prices.get(object())
    with pytest.raises(TypeError):
        prices.set("a", 1, tags="menu")
    with pytest.raises(TypeError):
        prices.set("a", 1, tags=(5,))
    with pytest.raises(ValueError, match="16 tags"):
        prices.set("a", 1, tags=[str(n) for n in range(17)])
    with pytest.raises(ValueError):
        prices.set("a", 1, ttl=0)
    with pytest.raises(TypeError):
        prices.incr("a", 1.5)
    with pytest.raises(ValueError, match="codec refused"):
        prices.add("a", object())


def test_wrong_password_is_logged(tmp_path, caplog):
    with Server(tmp_path, password="right-password-123") as server, caplog.at_level(logging.WARNING, "hotset"):
        shop = Redis(f"redis://:wrong@127.0.0.1:{server.port}/0", prefix="shop")
        try:
            prices = TieredCache(shop, "prices")
            assert prices.get_or_load("tea", lambda key: 1) == 1
            assert "auth" in prices.stats()["server"]["last_failure"]
        finally:
            shop.close()
        assert "invalid username-password" in caplog.text or "WRONGPASS" in caplog.text
        right = Redis(server.url, prefix="shop")
        try:
            assert TieredCache(right, "prices").set("tea", 1)
        finally:
            right.close()


def test_server_of_another_protocol_is_logged(caplog):
    def serve(listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.recv(1000)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener, caplog.at_level(logging.WARNING, "hotset"):
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        shop = Redis(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", prefix="shop")
        try:
            prices = TieredCache(shop, "prices")
            assert prices.get_or_load("tea", lambda key: 1) == 1
            assert prices.stats()["server"]["last_failure"].startswith("protocol")
        finally:
            shop.close()
    assert "does not use the protocol of Redis" in caplog.text


@pytest.mark.parametrize("prefix", ["a b", "ä:ö", "{x}", "%", "!", "p\n", "a:b:c", "日本", "p" * 60])
def test_prefixes_and_names_with_odd_characters(server, tier2, prefix):
    one, other = (TieredCache(tier2(server, prefix=prefix), prefix + "name", ttl=60) for _ in range(2))
    one.set("tea", prefix)
    assert other.get("tea") == prefix
    one.delete("tea")
    wait_until(lambda: other.get("tea") is None, what="the removal")
    assert one.clear()


def clients(server):
    yield "client", redis.Redis(port=server.port)
    yield "decoding client", redis.Redis(port=server.port, decode_responses=True)
    yield "RESP3 client", redis.Redis(port=server.port, protocol=3)
    yield "async client", redis.asyncio.Redis(port=server.port)
    yield "async decoding client", redis.asyncio.Redis(port=server.port, decode_responses=True)
    yield "blocking pool", redis.Redis(connection_pool=redis.BlockingConnectionPool(port=server.port, max_connections=2))
    yield "unix socket", redis.Redis(unix_socket_path=server.socket_path)
    yield "unix socket's URL", f"unix://{server.socket_path}?db=0"
    yield "factory", lambda **timeouts: redis.Redis(port=server.port, **timeouts)


def test_clients_of_all_kinds(server, tier2):
    import asyncio

    for at, (kind, client) in enumerate(clients(server)):
        prices = TieredCache(tier2(client), "prices", ttl=60)
        assert prices.set(at, kind), kind
        assert TieredCache(tier2(server), "prices", ttl=60).get(at) == kind
        fresh = TieredCache(tier2(client), "prices", ttl=60)
        assert asyncio.run(fresh.aget(at)) == kind
        wait_until(lambda prices=prices: prices.stats()["server"]["nodes"][0]["bus"] == "armed", what=f"the bus of a {kind}")


def test_factory_that_raises_is_an_outage(server, tier2):
    answers = [ValueError("no configuration yet")] * 3

    def make(**timeouts):
        if answers:
            raise answers.pop()
        return redis.Redis(port=server.port, **timeouts)

    prices = TieredCache(tier2(make), "prices", ttl=60)
    assert "by a factory" in repr(prices)
    assert prices.get_or_load("tea", lambda key: 1) == 1
    assert "by a factory" in repr(prices)
    wait_until(lambda: prices.set("tea", 2), what="a confirmed write")
    assert f"127.0.0.1:{server.port}" in repr(prices) or f"localhost:{server.port}" in repr(prices)


def test_foreign_values_under_our_keys_are_misses(server, cache):
    prices = cache(server)
    prices.set("tea", 1)
    [key] = [key for key in server.ask("KEYS", "shop:1*") if b"tea" in key]
    for foreign in (b"", b"x", b"\xf1h\x02\x01" + bytes(60), b"\xf1h\x01\x01" + bytes(20), b"\xf1h" + b"\xff" * 100, b"{}" * 40):
        server.ask("SET", key, foreign)
        fresh = cache(server)
        assert fresh.get("tea") is None
        assert fresh.get_or_load("tea", lambda key: 5) == 5
        assert cache(server).get("tea") == 5
    server.ask("DEL", key)
    server.ask("RPUSH", key, "a list")
    fresh = cache(server)
    assert fresh.get("tea") is None
    assert fresh.get_or_load("tea", lambda key: 6) == 6
    assert fresh.delete("tea")


def test_signed_values_are_refused_unless_they_are_ours(server, cache):
    key = b"k" * 32
    signed, other_key, unsigned = cache(server, sign=key), cache(server, sign=b"o" * 32), cache(server)
    signed.set("tea", 1)
    assert cache(server, sign=key).get("tea") == 1
    assert other_key.get("tea") is None and unsigned.get("tea") is None
    [name] = [name for name in server.ask("KEYS", "shop:1*") if b"tea" in name]
    frame = bytearray(server.ask("GET", name))
    frame[-20] ^= 1
    server.ask("SET", name, bytes(frame))
    assert cache(server, sign=key).get("tea") is None


def test_signed_absence_cannot_be_made_up(server, cache):
    key = b"k" * 32
    one, other = (cache(server, sign=key) for _ in range(2))
    one.set("tea", b"")
    [name] = [name for name in server.ask("KEYS", "shop:1*") if b"tea" in name]
    frame = bytearray(server.ask("GET", name))
    # The kind: there is no value.
    frame[3] = 2
    server.ask("SET", name, bytes(frame))
    assert other.get_or_load("tea", lambda key: 2) == 2
    assert one.get_or_load("coffee", lambda key: hotset.MISSING, default=3) == 3
    assert other.get_or_load("coffee", lambda key: 4, default=5) == 5


def test_pickle_is_only_loaded_if_signed(server, cache):
    key = b"k" * 32
    one, other = (cache(server, sign=key, codec="pickle") for _ in range(2))
    one.set("tea", {1: range(3)})
    assert other.get("tea") == {1: range(3)}


def test_codecs_do_not_read_each_other(server, cache):
    caches = [cache(server, codec=codec) for codec in ("values", "json")] + [cache(server, schema=2)]
    for at, each in enumerate(caches):
        assert each.get("tea") is None
        each.set("tea", at)
    assert [cache(server).get("tea"), cache(server, codec="json").get("tea"), cache(server, schema=2).get("tea")] == [0, 1, 2]


def test_compressed_values(server, cache):
    one, other = (cache(server, compress_over=100) for _ in range(2))
    one.set("tea", "x" * 100_000)
    assert other.get("tea") == "x" * 100_000
    [name] = [name for name in server.ask("KEYS", "shop:1*") if b"tea" in name]
    assert server.ask("STRLEN", name) < 2000


def test_tiered_cache_is_imported_lazily():
    assert hotset.TieredCache is TieredCache
    with pytest.raises(AttributeError):
        hotset.NoSuchThing  # noqa: B018
