"""`TieredCache` against a real server: reads, writes, invalidations, by threads and by tasks."""

import asyncio
import threading
import time

import pytest
from conftest import armed
from servers import wait_until

import hotset
from hotset.tier2 import Unavailable


def test_get_of_absent_key_returns_default(server, cache):
    assert cache(server).get("tea") is None
    assert cache(server).get("tea", 5) == 5


def test_get_or_load_loads_once_over_caches(server, cache):
    one, other = cache(server), cache(server)
    loads = []
    assert one.get_or_load("tea", lambda key: loads.append(key) or 3.2) == 3.2
    assert other.get_or_load("tea", lambda key: loads.append(key) or 4.1) == 3.2
    assert loads == ["tea"]


def test_hit_in_first_tier_sends_nothing(server, cache):
    prices = cache(server)
    armed(prices)
    prices.set("tea", 3.2)
    wait_until(lambda: prices.get("tea") == 3.2 and prices.stats()["tier1"]["entries"] == 1, what="an entry that stays")
    time.sleep(0.05)
    prices.get("tea")
    before = int(server.info("commandstats")["cmdstat_get"].split("=")[1].split(",")[0])
    for _ in range(100):
        assert prices.get("tea") == 3.2
    assert int(server.info("commandstats")["cmdstat_get"].split("=")[1].split(",")[0]) == before


def test_set_is_seen_by_other_caches(server, cache):
    one, other = cache(server), cache(server)
    armed(one, other)
    assert one.set("tea", 1)
    assert other.get("tea") == 1
    assert one.set("tea", 2)
    assert one.get("tea") == 2
    wait_until(lambda: other.get("tea") == 2, what="the new value")


def test_set_invalidates_reads_that_began_after_its_load_was_invalidated(server, cache):
    prices = cache(server, bus=None)
    prices.set("tea", 1)
    first = prices.space.first
    begin = first.mark

    def begin_and_lose(args, kwargs):
        mark = begin(args, kwargs)
        # Without announcements, all loads in flight are invalidated periodically.
        first.invalidate_loads()
        reads.append(begin(args, kwargs))
        return mark

    reads = []
    first.mark = begin_and_lose
    assert prices.set("tea", 2)
    # What another thread read before the server had the new value.
    reads[0].finish(1)
    assert prices.get("tea") == 2


def test_delete_is_seen_by_other_caches(server, cache):
    one, other = cache(server), cache(server)
    armed(one, other)
    one.set("tea", 1)
    assert other.get("tea") == 1
    assert one.delete("tea")
    assert one.get("tea") is None
    wait_until(lambda: other.get("tea") is None, what="the removal")


def test_read_after_own_delete_loads_anew(server, cache):
    prices = cache(server)
    for turn in range(200):
        assert prices.get_or_load("tea", lambda key, turn=turn: turn) == turn
        assert prices.delete("tea")


def test_read_after_own_set_returns_it(server, cache):
    prices = cache(server)
    armed(prices)
    for turn in range(300):
        prices.set("tea", turn)
        assert prices.get("tea") == turn


def test_loader_error_reaches_the_caller_uncached(server, cache):
    prices = cache(server)
    with pytest.raises(ZeroDivisionError):
        prices.get_or_load("tea", lambda key: 1 // 0)
    assert prices.get_or_load("tea", lambda key: 5) == 5


def test_load_is_refused_after_a_delete_in_another_cache(server, cache):
    """The stale set: a load that began before an invalidation is kept nowhere."""
    one, other = cache(server), cache(server)
    armed(one, other)

    def load(key):
        other.delete(key)
        return "old"

    assert one.get_or_load("tea", load) == "old"
    assert other.get("tea") is None
    assert one.get("tea") is None


def test_waiters_of_another_cache_get_the_loaded_value(server, cache):
    one, other = cache(server), cache(server)
    armed(one, other)
    begun, release = threading.Event(), threading.Event()

    def load(key):
        begun.set()
        release.wait(20)
        return "one"

    results = []
    leader = threading.Thread(target=lambda: results.append(one.get_or_load("tea", load)))
    leader.start()
    begun.wait(20)
    waiters = [threading.Thread(target=lambda: results.append(other.get_or_load("tea", lambda key: "other"))) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    wait_until(lambda: other.stats()["tier2"]["waits"] >= 1, what="a waiter")
    release.set()
    for thread in (leader, *waiters):
        thread.join(20)
    assert results == ["one"] * 5


def test_loader_that_fails_hands_over_to_a_waiter(server, cache):
    one, other = cache(server), cache(server)
    begun, release = threading.Event(), threading.Event()

    def load(key):
        begun.set()
        release.wait(20)
        raise ValueError("no source")

    errors, results = [], []

    def lead():
        try:
            one.get_or_load("tea", load)
        except ValueError as error:
            errors.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    begun.wait(20)
    waiter = threading.Thread(target=lambda: results.append(other.get_or_load("tea", lambda key: "other")))
    waiter.start()
    wait_until(lambda: other.stats()["tier2"]["waits"] >= 1, what="a waiter")
    release.set()
    leader.join(20)
    waiter.join(20)
    assert len(errors) == 1 and results == ["other"]


def test_value_expires_in_both_tiers(server, cache):
    prices = cache(server, ttl=0.3)
    prices.get_or_load("tea", lambda key: 1)
    wait_until(lambda: prices.get("tea") is None, what="the end of the lifetime")
    assert prices.get_or_load("tea", lambda key: 2) == 2


def test_ttl_of_a_value_is_its_own(server, cache):
    prices = cache(server)
    prices.get_or_load("tea", lambda key: hotset.WithTtl(1, 0.3))
    prices.set("ice", 1, ttl=0.3)
    wait_until(lambda: prices.get("tea") is None and prices.get("ice") is None, what="the end of the lifetimes")


def test_absent_in_the_source_is_remembered(server, cache):
    one, other = cache(server), cache(server)
    loads = []

    def load(key):
        loads.append(key)
        return hotset.MISSING

    assert one.get_or_load("tea", load, default="none") == "none"
    assert other.get_or_load("tea", load, default="none") == "none"
    assert other.get("tea", 7) == 7
    assert loads == ["tea"]


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "a", b"b", [1, (2,)], {"a": {1, 2}}, frozenset("ab")])
def test_values_are_restored_exactly(server, cache, value):
    one, other = cache(server), cache(server)
    one.set("k", value)
    found = other.get("k", "absent")
    assert found == value and type(found) is type(value)


def test_keys_differ_by_type_as_in_a_dict(server, cache):
    one, other = cache(server), cache(server)
    one.set(1, "one")
    assert other.get(1.0) == "one" and other.get("1") is None and other.get((1,)) is None


def test_long_keys_are_hashed_and_invalidated(server, cache):
    one, other = cache(server), cache(server)
    armed(one, other)
    key = "k" * 5000
    one.set(key, 1)
    assert other.get(key) == 1
    one.delete(key)
    wait_until(lambda: other.get(key) is None, what="the removal")
    assert max(len(name) for name in server.ask("KEYS", "*")) <= 200


def test_expire_serves_stale_while_reloading(server, cache):
    prices = cache(server, stale_while_revalidate=60)
    prices.get_or_load("tea", lambda key: 1)
    assert prices.expire("tea")
    assert prices.get_or_load("tea", lambda key: 2) in (1, 2)
    wait_until(lambda: prices.get_or_load("tea", lambda key: 2) == 2, what="the reload")


def test_expire_without_grace_loads_anew(server, cache):
    prices = cache(server)
    prices.get_or_load("tea", lambda key: 1)
    prices.expire("tea")
    assert prices.get_or_load("tea", lambda key: 2) == 2


def test_stale_value_is_served_if_the_loader_raises(server, cache):
    prices = cache(server, ttl=0.2, stale_if_error=60)
    prices.get_or_load("tea", lambda key: 1)
    wait_until(lambda: prices.get("tea") is None, what="the end of the lifetime")
    assert prices.get_or_load("tea", lambda key: 1 // 0) == 1


def test_clear_invalidates_all_keys_everywhere(server, cache):
    one, other = cache(server), cache(server)
    armed(one, other)
    for key in "abc":
        one.set(key, key)
        assert other.get(key) == key
    assert one.clear()
    assert [one.get(key) for key in "abc"] == [None] * 3
    wait_until(lambda: [other.get(key) for key in "abc"] == [None] * 3, what="the clear")
    assert other.get_or_load("a", lambda key: "new") == "new"
    assert one.get("a") == "new"


def test_invalidate_tag_invalidates_tagged_values(server, cache):
    one, other = cache(server), cache(server)
    armed(one, other)
    one.set("tea", 1, tags=("menu", "drinks"))
    one.set("ice", 2, tags=("menu",))
    one.set("rum", 3)
    assert other.get_many(["tea", "ice", "rum"]) == {"tea": 1, "ice": 2, "rum": 3}
    assert one.invalidate_tag("drinks")
    assert one.get_many(["tea", "ice", "rum"]) == {"ice": 2, "rum": 3}
    wait_until(lambda: other.get_many(["tea", "ice", "rum"]) == {"ice": 2, "rum": 3}, what="the tag")
    assert one.get_or_load("tea", lambda key: 9, tags=("drinks",)) == 9
    assert other.get("tea") == 9


def test_many_keys_in_one_call(server, cache):
    one, other = cache(server), cache(server)
    assert one.set_many({f"k{n}": n for n in range(50)})
    assert other.get_many(f"k{n}" for n in range(60)) == {f"k{n}": n for n in range(50)}
    assert one.delete_many([f"k{n}" for n in range(0, 50, 2)])
    assert one.get_many(f"k{n}" for n in range(50)) == {f"k{n}": n for n in range(1, 50, 2)}


def test_get_or_load_many_loads_the_missing_keys(server, cache):
    one, other = cache(server), cache(server)
    one.set("b", "B")
    asked = []

    def load(keys):
        asked.append(list(keys))
        return {key: key.upper() for key in keys if key != "none"}

    assert one.get_or_load_many(["a", "b", "c", "none"], load) == {"a": "A", "b": "B", "c": "C"}
    assert asked == [["a", "c", "none"]]
    assert other.get_or_load_many(["a", "b", "c", "none"], load) == {"a": "A", "b": "B", "c": "C"}
    assert len(asked) == 1


def test_overlapping_bulk_loads_do_not_wait_in_a_circle(server, cache):
    caches = [cache(server), cache(server)]
    gate = threading.Barrier(2)

    def load(keys):
        return {key: key for key in keys}

    def run(at):
        gate.wait()
        keys = ["a", "b", "c", "d"] if at else ["d", "c", "b", "a"]
        for turn in range(30):
            assert len(caches[at].get_or_load_many([f"{key}{turn}" for key in keys], load)) == 4

    threads = [threading.Thread(target=run, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_add_sets_once(server, cache):
    one, other = cache(server), cache(server)
    assert one.add("tea", 1) is True
    assert other.add("tea", 2) is False
    assert other.get("tea") == 1


def test_counters_count_over_caches(server, cache):
    one, other = cache(server), cache(server)
    assert [one.incr("hits"), other.incr("hits", 5), one.incr("hits", -2)] == [1, 6, 4]
    one.incr("brief", ttl=0.2)
    wait_until(lambda: server.ask("KEYS", "shop:n:*brief*") == [], what="the counter's end")


def test_touch_gives_another_lifetime(server, cache):
    prices = cache(server)
    prices.set("tea", 1, ttl=5)
    assert prices.touch("tea", 1000) is True
    assert server.ask("PTTL", next(key for key in server.ask("KEYS", "shop:1*"))) > 100_000
    assert prices.touch("none", 1000) is False
    assert prices.get("tea") == 1


def test_values_too_large_stay_in_the_process(server, cache):
    one, other = cache(server, max_value=1000), cache(server, max_value=1000)
    one.set("k", "small")
    assert other.get("k") == "small"
    big = "x" * 5000
    assert one.get_or_load("big", lambda key: big) is big
    assert other.get_or_load("big", lambda key: "other's") == "other's"
    one.set("k", big)
    assert one.stats()["tier2"]["not_encodable"] == 2
    wait_until(lambda: other.get("k") is None, what="the old value's removal")


def test_values_that_cannot_be_encoded_stay_in_the_process(server, cache):
    one = cache(server)
    thing = object()
    assert one.get_or_load("k", lambda key: thing) is thing
    assert one.stats()["tier2"]["not_encodable"] == 1


def test_strict_delete_raises_when_unconfirmed(own_server, cache):
    prices = cache(own_server)
    prices.set("tea", 1)
    own_server.kill()
    with pytest.raises(Unavailable):
        prices.delete("tea", strict=True)
    assert prices.delete("tea") is False
    with pytest.raises(Unavailable):
        prices.incr("n")


def test_async_operations(server, cache):
    one, other = cache(server), cache(server)

    async def load(key):
        await asyncio.sleep(0)
        return key.upper()

    async def main():
        assert await one.aget("a") is None
        assert await one.aget_or_load("a", load) == "A"
        assert await other.aget("a") == "A"
        assert await one.aset("b", 2)
        assert await other.aget("b") == 2
        assert await one.adelete("b")
        assert await one.aget("b") is None
        assert await one.aset_many({"x": 1, "y": 2})
        assert await other.aget_many(["x", "y", "z"]) == {"x": 1, "y": 2}
        assert await one.aadd("x", 5) is False and await one.aadd("w", 5) is True
        assert await one.aincr("n", 3) == 3
        assert await one.atouch("x", 1000) is True

        async def load_many(keys):
            return {key: key * 2 for key in keys}

        assert await one.aget_or_load_many(["p", "q"], load_many) == {"p": "pp", "q": "qq"}
        assert await one.aexpire("p")
        assert await one.aget_or_load("p", load) == "P"
        assert await one.aset("t", 1, tags=("tag",))
        assert await one.ainvalidate_tag("tag")
        assert await one.aget("t") is None
        assert await one.adelete_many(["p", "q"])
        assert await one.aclear()
        assert await one.aget("a") is None

    asyncio.run(main())


def test_tasks_share_one_load(server, cache):
    one, other = cache(server), cache(server)
    loads = []

    async def load(key):
        loads.append(key)
        await asyncio.sleep(0.05)
        return key

    async def main():
        results = await asyncio.gather(*(each.aget_or_load("a", load) for each in [one, other] * 20))
        assert results == ["a"] * 40

    asyncio.run(main())
    assert loads == ["a"]


def test_task_that_is_cancelled_leaves_the_connection_good(server, cache):
    one = cache(server)

    async def main():
        await one.aset("a", 1)
        for _ in range(50):
            task = asyncio.create_task(one.aget_many(["x", "y", "a"]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            other = cache(server)
            assert await other.aget("a") == 1

    asyncio.run(main())
    connections = server.info("clients")["connected_clients"]
    assert int(connections) < 400


def test_event_loops_one_after_another(server, cache):
    one = cache(server)
    for turn in range(5):
        asyncio.run(one.aset("a", turn))
        assert asyncio.run(one.aget("a")) == turn
    assert one.get("a") == 4


def test_counters_go_on_when_the_first_tier_is_cleared(server, cache):
    one = cache(server)
    armed(one)
    one.set("a", 1)
    for _ in range(50):
        one.get("a")
    hits = one.stats()["tier1"]["hits"]
    assert hits > 0
    server.ask("FLUSHALL")
    wait_until(lambda: one.get("a") is None, what="the flush")
    assert one.stats()["tier1"]["hits"] >= hits


def test_named_caches_include_it_and_clear_all_does_not_clear_it(server, cache):
    prices = cache(server, name="listed")
    assert hotset.caches()["listed"] is prices and hotset.stats()["listed"].capacity == 1024
    # Reading its counters connects to no server.
    assert prices.__hotset_tier2__() == {}
    prices.get_or_load("tea", lambda key: 3.2)
    assert hotset.stats()["listed"].misses == 1
    counters = prices.__hotset_tier2__()
    assert (counters["misses"], counters["loads"], counters["fills"]) == (1, 1, 1)
    # A lookup in both tiers is one miss of the first.
    assert (prices.get("coffee"), hotset.stats()["listed"].misses) == (None, 2)
    hotset.clear_all()
    assert cache(server, name="listed").get("tea") == 3.2
