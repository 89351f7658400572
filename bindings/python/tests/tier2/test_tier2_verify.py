"""How the second tier reports problems: `verify`, `on_down`, and servers that evict leases."""

import asyncio
import logging

import pytest
from conftest import armed
from servers import free_port, wait_until

import hotset
from hotset.tier2 import Redis, Unavailable


def counted(cache, name):
    return cache.stats()["tier2"][name]


def test_entry_unlike_the_servers_counts_as_inconsistent(server, cache, caplog):
    events = []
    prices = cache(server, verify=1.0, on_event=lambda name, details: events.append((name, details)))
    armed(prices)
    prices.set("tea", 1)
    assert prices.get("tea") == 1

    def is_noticed():
        # Past the second tier, as no user can; again where a late canary has emptied tier 1.
        if prices.get("tea") != 2:
            prices._local["tea"] = 2
        # (The event comes after the count.)
        return [details["cache"] for name, details in events if name == "inconsistent"]

    with caplog.at_level(logging.WARNING, "hotset"):
        wait_until(is_noticed, seconds=90, what="the comparison")
    assert is_noticed()[0] == "prices" and counted(prices, "inconsistent") > 0
    assert "no longer has" in caplog.text
    # The server's value is the one to keep.
    prices.delete("tea")
    assert prices.get("tea") is None


def test_entries_equal_to_the_servers_are_consistent(server, cache, tier2):
    prices = cache(server, verify=1.0)
    other = cache(server)
    calls = []

    @hotset.cached(tier2=tier2(server, verify=1.0), name="f", ttl=300)
    def f(x, y=1):
        calls.append(x)
        return {"x": [x, y]}

    @hotset.cached(tier2=tier2(server, verify=1.0), name="g", ttl=300, key=lambda x: x % 10)
    def g(x):
        return x % 10

    armed(prices, other)
    for n in range(20):
        prices.set(n, {"price": n})

    def used():
        for n in range(20):
            other.set(n, {"price": n + 1})
            prices.get(n), f(n), f(x=n), g(n)
        counts = counted(prices, "verified"), *(each.cache_tier2_stats()["tier2"]["verified"] for each in (f, g))
        return min(counts) >= 5

    wait_until(used, what="comparisons")
    assert counted(prices, "inconsistent") == 0
    assert [each.cache_tier2_stats()["tier2"]["inconsistent"] for each in (f, g)] == [0, 0]


def test_inconsistent_result_of_a_function_is_counted(server, tier2):
    @hotset.cached(tier2=tier2(server, verify=1.0), name="f", ttl=300)
    def f(x):
        return x

    assert f(1) == 1
    wait_until(lambda: f.cache_tier2_stats()["server"]["nodes"][0]["bus"] == "armed", what="bus")
    assert f(1) == 1

    def is_noticed():
        if f(1) != 2:
            hotset._hotset.Memo.set(f, (1,), {}, 2)
        return f.cache_tier2_stats()["tier2"]["inconsistent"] > 0

    wait_until(is_noticed, seconds=90, what="the comparison")


def test_without_verify_nothing_is_compared(server, cache):
    prices = cache(server)
    armed(prices)
    prices.set("tea", 1)
    assert prices.get("tea") == 1 and counted(prices, "verified") == 0
    assert "hotset-tier2-verify" not in [thread.name for thread in __import__("threading").enumerate()]


@pytest.mark.parametrize("is_first", [True, False])
def test_on_down_raise_raises_while_the_server_is_down(is_first):
    shop = Redis(f"redis://127.0.0.1:{free_port()}/0", prefix="shop", on_down="raise")
    prices = hotset.TieredCache(shop, "prices", ttl=300)
    calls = []

    def load(key):
        calls.append(key)
        return 1

    async def aload(key):
        return load(key)

    @hotset.cached(tier2=shop, name="f")
    def f(x):
        return load(x)

    reads = [
        lambda: prices.get("tea"),
        lambda: prices.get_or_load("tea", load),
        lambda: prices.get_many(["a", "b"]),
        lambda: prices.get_or_load_many(["a", "b"], lambda keys: {key: load(key) for key in keys}),
        lambda: asyncio.run(prices.aget("tea")),
        lambda: asyncio.run(prices.aget_or_load("tea", aload)),
        lambda: asyncio.run(prices.aget_many(["a", "b"])),
        lambda: prices.add("tea", 1),
        lambda: f(1),
    ]
    try:
        for read in reads if is_first else reads[::-1]:
            with pytest.raises(Unavailable):
                read()
        assert calls == [] and prices.set("tea", 1) is False
    finally:
        shop.close()


def test_on_down_raise_returns_hits_of_tier_1(own_server, cache):
    # (A busy machine must not pass for a server that is down.)
    # (Without announcements: the one of the fill itself might drop the entry after it was read.)
    prices = cache(own_server, on_down="raise", timeout=5.0, connect_timeout=5.0, bus=None, local_ttl=60)
    assert prices.get_or_load("tea", lambda key: "loaded") == "loaded"
    assert prices.get("tea") == "loaded" and prices.get("ice") is None
    own_server.kill()
    with pytest.raises(Unavailable):
        prices.get("ice")
    assert prices.get("tea") == "loaded"
    with pytest.raises(Unavailable):
        prices.get_or_load("ice", lambda key: "loaded")


def test_server_that_evicts_leases_is_warned_of_once(own_server, cache, caplog):
    events = []
    own_server.ask("CONFIG", "SET", "maxmemory", "100mb")
    own_server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    with caplog.at_level(logging.WARNING, "hotset"):
        prices = cache(own_server, on_event=lambda name, details: events.append(name))
        armed(prices)
    assert caplog.text.count("evicts leases first") == 1 and events.count("evicts leases") == 1


def test_server_with_another_policy_is_not_warned_of(own_server, cache, caplog):
    own_server.ask("CONFIG", "SET", "maxmemory", "100mb")
    own_server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with caplog.at_level(logging.WARNING, "hotset"):
        armed(cache(own_server))
    assert "evicts" not in caplog.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"verify": 2}, "from 0 to 1"), ({"verify": "much"}, "number"), ({"verify": True}, "number"), ({"on_down": "die"}, "'load' or 'raise'")],
)
def test_wrong_setting_is_refused(setting, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Redis("redis://127.0.0.1/0", prefix="shop", **setting)
