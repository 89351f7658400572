"""What `Cache` and `cached` offer beyond a dict and functools: operations for adapters and for who comes from another cache."""

import asyncio
import copy
import functools
import logging
import pickle
import threading
import time
import warnings
from datetime import timedelta

import pytest

import hotset
from hotset import KEEP, MISSING, Cache, WithTtl, cached

# --- Times to live of entries.


def test_a_ttl_of_an_entry_in_all_ways(clock):
    cache = Cache(100, ttl=10, timer=clock)
    cache.set("default", 1)
    cache.set("own", 1, ttl=5)
    cache.set("delta", 1, timedelta(seconds=7))
    cache.set("never", 1, ttl=None)
    cache.set("infinite", 1, ttl=float("inf"))
    assert [cache.remaining(key) for key in ("default", "own", "delta", "never", "infinite")] == [10, 5, 7, None, None]
    clock.advance(2)
    cache.set("own", 2, ttl=KEEP)
    cache.set("new", 2, ttl=KEEP)
    cache.set("never", 2, ttl=...)
    assert [cache.remaining(key) for key in ("own", "new", "never")] == [3, 10, 10]
    cache.set_with_ttl("keyword", 1, ttl=3)
    assert cache.remaining("keyword") == 3
    assert cache.get_or_load("loaded", str, ttl=4) == "loaded" and cache.remaining("loaded") == 4
    assert cache.get_or_load("endless", str, ttl=None) == "endless" and cache.remaining("endless") is None


@pytest.mark.parametrize("ttl", [0, -1, 0.0, timedelta(0), timedelta(seconds=-3)])
def test_a_ttl_that_is_over_means_gone_at_once(clock, ttl):
    for cache in (Cache(10, timer=clock), Cache(10), Cache(10, ttl=60)):
        cache["a"] = cache["b"] = cache["c"] = cache["d"] = 1
        cache.set("a", 2, ttl=ttl)
        assert "a" not in cache and cache.get("a") is None
        assert cache.touch("b", ttl) and "b" not in cache
        cache.compute("c", lambda value: value + 1, 0, ttl)
        assert "c" not in cache
        assert cache.add("new", 1, ttl) and "new" not in cache
        cache.set_many({"d": 3}, ttl)
        assert cache.get_or_load("e", str, ttl) == "e" and "e" not in cache
        assert len(cache) == 0 and list(cache) == []


def test_an_entry_is_gone_for_all_at_its_very_end():
    for start in (0.0, 1000.5, 1.7e9 + 0.1):
        now = [start]
        cache = Cache(1000, ttl=60, timer=lambda: now[0])
        for n in range(500):
            cache[n] = n
        now[0] = start + 59.999
        assert len(cache) == len(list(cache)) == 500
        now[0] = start + 60
        assert (0 in cache, len(cache), list(cache), cache.stats().entries) == (False, 0, [], 0)
        assert cache.stats().expirations == 500


def test_remaining_with_the_value(clock):
    cache = Cache(10, ttl=10, timer=clock)
    cache["a"] = None
    cache.set("b", 2, None)
    clock.advance(4)
    assert cache.get_with_remaining("a") == (None, 6)
    assert cache.get_with_remaining("b") == (2, None)
    assert cache.get_with_remaining("c") is None
    assert cache.get_with_remaining("c", "default") == "default"


# --- One entry.


def test_add_touch_delete(clock):
    told = []
    cache = Cache(10, ttl=10, timer=clock, on_removal=lambda *removed: told.append(removed))
    value = object()
    assert cache.add("a", value)
    assert not cache.add("a", 2)
    clock.advance(6)
    assert cache.touch("a") and cache.remaining("a") == 10
    assert cache.touch("a", ttl=100) and cache.remaining("a") == 100
    assert cache.touch("a", ttl=5) and cache.remaining("a") == 5
    assert cache.touch("a", ttl=None) and cache.remaining("a") is None
    assert not cache.touch("b")
    assert cache["a"] is value and told == []
    assert cache.delete("a") and not cache.delete("a")
    assert told == [("a", value, "explicit")]
    cache.set("a", 1, ttl=1)
    clock.advance(1)
    assert cache.add("a", 2) and cache["a"] == 2  # what has expired is absent


def test_peek_counts_nothing_and_moves_nothing():
    cache = Cache(2, policy="lru")
    cache["a"], cache["b"] = 1, 2
    assert (cache.peek("a"), cache.peek("c"), cache.peek("c", 3)) == (1, None, 3)
    assert cache.stats()[:2] == (0, 0)
    cache["c"] = 3
    assert "a" not in cache


def test_compute_keeps_what_is_returned(clock):
    cache = Cache(10, timer=clock)
    assert cache.compute("n", lambda n: n + 0, 0) == 0 and cache["n"] == 0
    default = object()
    assert cache.compute("d", lambda value: value, default) is default and cache["d"] is default
    assert cache.compute("none", lambda value: None, 0) is None and "none" in cache
    # Without a default, None is absence, both ways.
    assert cache.compute("none", lambda value: None) is None and "none" not in cache
    assert cache.compute("n", lambda n: MISSING, "gone") == "gone" and "n" not in cache


def test_compute_keeps_the_time_to_live(clock):
    cache = Cache(10, ttl=50, timer=clock)
    cache.set("a", 1, ttl=60)
    clock.advance(10)
    cache.compute("a", lambda n: n + 1, 0)
    assert cache.remaining("a") == 50
    cache.compute("a", lambda n: n + 1, 0, ttl=5)
    assert cache.remaining("a") == 5
    cache.compute("a", lambda n: n + 1, 0, ttl=...)
    assert cache.remaining("a") == 50
    cache.compute("a", lambda n: n + 1, 0, ttl=None)
    assert cache.remaining("a") is None
    cache.compute("b", lambda n: n + 1, 0)
    assert cache.remaining("b") == 50


def test_counters(clock):
    cache = Cache(10, timer=clock)
    assert (cache.incr("n"), cache.incr("n", 5), cache.decr("n", 2), cache.decr("m")) == (1, 6, 4, -1)
    assert cache.incr("f", 0.5, default=1) == 1.5
    with pytest.raises(KeyError, match="absent"):
        cache.incr("absent", default=None)
    assert cache.incr("minute", ttl=60) == 1 and cache.remaining("minute") == 60
    clock.advance(20)
    assert cache.incr("minute") == 2 and cache.remaining("minute") == 40
    cache["s"] = "text"
    with pytest.raises(TypeError):
        cache.incr("s")
    assert cache["s"] == "text"


def test_counters_are_atomic():
    cache = Cache(10)
    threads = [threading.Thread(target=lambda: [cache.incr("n") for _ in range(2000)]) for _ in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert cache["n"] == 8000


# --- Many entries.


def test_many():
    cache = Cache(10)
    cache.set_many({"a": 1, "b": None}, ttl=60)
    cache.set_many([("c", 3)])
    assert cache.get_many(["c", "x", "a"]) == [3, None, 1]
    assert cache.get_many(iter(["c", "x", "b"]), as_dict=True) == {"c": 3, "b": None}
    assert cache.remaining("a") <= 60 and cache.remaining("c") is None
    assert cache.delete_many(["a", "x", "c"]) == 2
    assert dict(cache) == {"b": None}


def test_expire_returns_what_ended(clock):
    told = []
    cache = Cache(10, timer=clock, on_removal=lambda *removed: told.append(removed))
    cache.set("a", 1, ttl=5), cache.set("b", 2, ttl=5), cache.set("c", 3, ttl=6)
    assert cache.expire() == []
    clock.advance(5)
    assert sorted(cache.expire()) == [("a", 1), ("b", 2)]
    assert sorted(told) == [("a", 1, "expired"), ("b", 2, "expired")]
    assert cache.expire() == [] and dict(cache) == {"c": 3}
    assert cache.stats().expirations == 2


@pytest.mark.parametrize("policy", ["tinylfu", "lru", "lfu", "fifo", "random"])
def test_popitem_empties_a_cache(policy):
    cache = Cache(None, policy=policy)
    for n in range(3000):
        cache[n] = -n
        cache.get(n % 50)
    popped = [cache.popitem() for _ in range(3000)]
    assert sorted(popped) == [(n, -n) for n in range(3000)]
    for last in (True, False):
        with pytest.raises(KeyError):
            cache.popitem(last=last)
    assert len(cache) == 0


def test_popitem_takes_an_end():
    cache = Cache(10, policy="lru")
    cache.update(a=1, b=2, c=3)
    assert list(cache) == ["c", "b", "a"]
    assert cache.popitem(last=False) == ("c", 3)
    assert cache.popitem() == ("a", 1)


def test_popitem_skips_what_expired_and_failures(clock):
    cache = Cache(10, timer=clock, negative_ttl=60, policy="lru")
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("failed", lambda key: 1 / 0)
    cache.set("short", 1, ttl=1)
    cache["long"] = 2
    clock.advance(1)
    assert cache.popitem() == ("long", 2)
    with pytest.raises(KeyError):
        cache.popitem()


def test_popitem_does_not_look_at_all_entries():
    def cost(size):
        cache = Cache(None)
        cache.update((n, n) for n in range(size))
        counted = []
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(100):
                cache.popitem()
            counted.append(time.perf_counter() - begin)
        return min(counted)

    # (Looking at all, it is a hundred times as much.)
    assert cost(100_000) < 20 * cost(1000)


# --- The whole.


def test_attributes(clock):
    cache = Cache(10, ttl=timedelta(seconds=5), timer=clock, name="attributes")
    cache["a"] = 1
    assert (cache.maxsize, cache.currsize, cache.ttl, cache.timer, cache.name) == (10, 1, 5.0, clock, "attributes")
    cache.resize(20)
    assert cache.maxsize == 20
    weighing = Cache(max_weight=100, weigher=len)
    weighing["a"] = "four"
    assert (weighing.maxsize, weighing.currsize, weighing.ttl, weighing.timer) == (100, 4, None, None)
    assert Cache(None).maxsize is None


def test_copy_and_union(clock):
    class Sub(Cache):
        pass

    cache = Sub(10, ttl=10, timer=clock, policy="lru")
    cache.update(a=1, b=2)
    cache.set("c", 3, ttl=None)
    clock.advance(4)
    other = cache.copy()
    assert type(other) is Sub and other == cache and list(other) == list(cache)
    assert (other.remaining("a"), other.remaining("c"), other.ttl) == (6, None, 10)
    other["a"] = 5
    assert cache["a"] == 1
    assert dict(cache | {"a": 9}) == {"a": 9, "b": 2, "c": 3}
    assert dict({"a": 9, "z": 0} | cache) == {"a": 1, "b": 2, "c": 3, "z": 0}
    same = cache
    cache |= {"d": 4}
    assert same is cache and cache["d"] == 4
    with pytest.raises(TypeError):
        cache | 3


def test_missing_of_a_subclass():
    class Squares(Cache):
        def __missing__(self, key):
            if key is None:
                raise KeyError(key)
            self[key] = value = key * key
            return value

    cache = Squares(10)
    assert (cache[3], cache[3], cache.get(4)) == (9, 9, None)
    assert cache.stats().hits == 1
    with pytest.raises(KeyError):
        cache[None]


def test_counters_are_reset():
    cache = Cache(1)
    cache["a"] = cache["b"] = 1
    cache.get("x"), cache.get_or_load("y", str)
    assert cache.stats().insertions >= 3
    cache.reset_stats()
    assert cache.stats()[:9] == (0,) * 9 and cache.stats().load_time == 0
    cache.get("y")
    assert sum(cache.stats()[:2]) == 1

    @cached
    def f(x):
        return x

    f(1), f(1)
    f.cache_reset_stats()
    assert f.cache_info() == (0, 0, 1024, 1) and f.cache_info().loads == 0


def test_load_time():
    cache = Cache(10)
    cache.get_or_load("a", lambda key: time.sleep(0.02))
    assert 0.02 <= cache.stats().load_time < 10

    @cached
    async def f():
        await asyncio.sleep(0.02)

    asyncio.run(f())
    assert 0.02 <= f.cache_info().load_time < 10


def test_a_weigher_has_one_signature():
    def by_value(value):
        return len(value)

    for weigher in (by_value, len, lambda value: len(value)):
        cache = Cache(max_weight=100, weigher=weigher)
        cache["key"] = "four"
        assert cache.stats().weight == 4

        @cached(max_weight=100, weigher=weigher)
        def f():
            return "four"

        f()
        assert f.cache_info().weight == 4
    cache = Cache(max_weight=100, weigher=lambda key, value: len(key) + len(value))
    cache["key"] = "four"
    assert cache.stats().weight == 7


# --- Functions.


def test_cache_info_is_functools():
    @cached(maxsize=10)
    def f(x):
        return x

    @functools.lru_cache(maxsize=10)
    def g(x):
        return x

    for function in (f, g):
        function(1), function(1), function(2)
    hits, misses, maxsize, currsize = f.cache_info()
    assert (hits, misses, maxsize, currsize) == (1, 2, 10, 2)
    assert f.cache_info() == g.cache_info() and len(f.cache_info()) == 4
    info = f.cache_info()
    assert (info.loads, info.waits, info.weight, info.max_weight) == (2, 0, 2, None)
    assert info.hit_ratio == pytest.approx(1 / 3)
    assert "loads=2" in repr(info) and pickle.loads(pickle.dumps(info)).loads == 2


def test_waiters_are_no_misses():
    begun, go = threading.Event(), threading.Event()

    @cached
    def slow(x):
        begun.set()
        assert go.wait(60)
        return x

    cache = Cache(10)
    for call, stats in (
        (lambda: slow(1), lambda: slow.cache_info()),
        (lambda: cache.get_or_load(1, lambda key: begun.set() or go.wait(60)), cache.stats),
    ):
        begun.clear(), go.clear()
        threads = [threading.Thread(target=call) for _ in range(8)]
        threads[0].start()
        assert begun.wait(60)
        [thread.start() for thread in threads[1:]]
        while stats().waits < 7:
            time.sleep(0.001)
        go.set()
        [thread.join() for thread in threads]
        assert (stats().hits, stats().misses, stats().waits, stats().loads) == (0, 1, 7, 1)


def test_async_waiters_are_no_misses():
    @cached
    async def slow(x):
        await asyncio.sleep(0.01)
        return x

    cache = Cache(10)

    async def load(key):
        await asyncio.sleep(0.01)
        return key

    async def herd():
        await asyncio.gather(*(slow(1) for _ in range(8)))
        await asyncio.gather(*(cache.aget_or_load(1, load) for _ in range(8)))

    asyncio.run(herd())
    for stats in (slow.cache_info(), cache.stats()):
        assert (stats.hits, stats.misses, stats.waits, stats.loads) == (0, 1, 7, 1)


def test_keys_and_items_of_a_function():
    @cached(policy="lru")
    def f(x, y=0):
        return x + y

    f(1), f(1, y=2), f(3, 4)
    assert f.cache_keys() == [((3, 4), {}), ((1,), {"y": 2}), ((1,), {})]
    assert f.cache_items() == [(((3, 4), {}), 7), (((1,), {"y": 2}), 3), (((1,), {}), 1)]
    assert f.cache_info().hits == 0

    class Shop:
        @cached
        def m(self, n):
            return n

    shop = Shop()
    shop.m(3)
    assert Shop.m.cache_keys() == [((shop, 3), {})]


def test_resize_of_a_function():
    @cached(maxsize=10)
    def f(x):
        return x

    [f(n) for n in range(10)]
    f.cache_resize(3)
    assert f.cache_info()[2:] == (3, 3) and f.cache_parameters()["maxsize"] == 3
    with pytest.raises(ValueError, match="maxsize"):
        f.cache_resize(-1)


def test_a_result_that_says_its_ttl(clock):
    @cached(timer=clock, ttl=100)
    def f(x):
        return WithTtl([x], x)

    assert f(5) == [5] and f(5) is f(5)
    assert f(0) == [0] and f(0) is not f(0)
    clock.advance(5)
    assert not f.cache_contains(5)

    @cached(timer=clock)
    async def g(x):
        return WithTtl([x], timedelta(seconds=x))

    async def use():
        assert await g(5) == [5] and await g(5) is await g(5)
        assert [await result for result in [g(7), g(7)]] == [[7], [7]]

    asyncio.run(use())
    clock.advance(5)
    assert not g.cache_contains(5) and g.cache_contains(7)
    cache = Cache(10, timer=clock)
    assert cache.get_or_load("a", lambda key: WithTtl(1, 3)) == 1 and cache.remaining("a") == 3

    async def load(key):
        return WithTtl(2, None)

    assert asyncio.run(cache.aget_or_load("b", load, 5)) == 2 and cache.remaining("b") is None
    with pytest.raises(TypeError, match="ttl"):
        WithTtl(1, "x")


def test_a_repr_tells_what_it_is():
    @cached
    def f():
        return 1

    assert "test_a_repr_tells_what_it_is.<locals>.f" in repr(f) and "hotset.cached" in repr(f)
    assert repr(Cache(10, ttl=5)) == "<hotset.Cache entries=0, capacity=10, ttl=5>"
    assert (repr(KEEP), repr(MISSING)) == ("KEEP", "MISSING")


def test_lru_cache_takes_a_named_tuple_for_an_equal_tuple():
    from collections import namedtuple

    pair = namedtuple("pair", "x y")
    for decorate in (functools.lru_cache, hotset.lru_cache, hotset.cached):
        f = decorate(lambda a: object())
        assert f(pair(1, 2)) is f((1, 2)) is f(pair(1, 2)), decorate
        assert f((3, 4)) is f(pair(3, 4)), decorate
        assert f(pair(1, 3)) is not f((1, 2))
        g = decorate(typed=True)(lambda a: object())
        assert g(pair(1, 2)) is not g((1, 2)), decorate


# --- The process.


def test_caches_and_their_statistics(caplog):
    broken = False

    def timer():
        if broken:
            raise OSError("clock")
        return 1.0

    one = Cache(3, name="one of two", ttl=3, timer=timer)
    two = Cache(3, name="two of two")

    @cached(name="a function")
    def f():
        return 1

    f()
    broken = True
    assert hotset.caches()["one of two"] is one and hotset.caches()["two of two"] is two
    assert hotset.caches()["a function"] is f
    with caplog.at_level(logging.WARNING, "hotset"):
        stats = hotset.stats()
    assert "one of two" not in stats and stats["two of two"].entries == 0 and stats["a function"].misses == 1
    assert "one of two" in caplog.text


def test_clear_all():
    cache = Cache(10)
    cache["a"] = 1
    functions = [decorate(lambda x: object()) for decorate in (cached, hotset.lru_cache, hotset.cache)]
    kept = [f(1) for f in functions]
    hotset.clear_all()
    assert len(cache) == 0 and cache.stats().insertions == 0
    assert all(f(1) is not before for f, before in zip(functions, kept, strict=True))
    assert functions[0].cache_info().loads == 1


def test_shared():
    first = hotset.shared("test shared", maxsize=10, ttl=timedelta(seconds=60))
    assert type(first) is Cache and first.maxsize == 10 and first.name == "test shared"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hotset.shared("test shared") is first
        assert hotset.shared("test shared", maxsize=10, ttl=60) is first
        first.resize(20)
        assert hotset.shared("test shared", maxsize=10) is first
    with pytest.warns(UserWarning, match="test shared.*maxsize=10") as caught:
        assert hotset.shared("test shared", maxsize=11) is first
    assert caught[0].filename == __file__
    assert hotset.caches()["test shared"] is first
    with pytest.raises(TypeError, match="name"):
        hotset.shared(3)
    with pytest.raises(TypeError):
        hotset.shared("test shared", nonsense=1)
    found = []
    threads = [threading.Thread(target=lambda: found.append(hotset.shared("test shared by threads"))) for _ in range(8)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert len({id(cache) for cache in found}) == 1
    assert hotset.caches()["test shared by threads"] is found[0]


def test_a_cache_can_not_be_copied_as_an_object():
    with pytest.raises(TypeError, match=r"cache\.copy\(\)"):
        copy.copy(Cache(1))


# --- One Cache under several functions.


def test_one_cache_under_several_functions():
    cache = Cache(100, ttl=60)

    @cached(cache=cache)
    def f(x, y=2):
        return ["f", x]

    @cached(cache=cache, key=lambda x: x % 2)
    def g(x):
        return ["g", x]

    @cached(cache=cache, typed=True)
    async def h(x):
        return ["h", x]

    class Shop:
        @cached(cache=cache)
        @staticmethod
        def static(x):
            return ["static", x]

        @cached(cache=cache, method=False, key=lambda self, x: x)
        def method(self, x):
            return ["method", x]

    assert f(1) is f(1) and f(1) == ["f", 1] and f(1) is not f(x=1)
    assert g(1) is g(3) and g(2) == ["g", 2]

    async def use():
        assert await h(1) is await h(1) and await h(1) is not await h(1.0)
        assert h.cache_invalidate(1) and await h.cache_refresh(1) == ["h", 1]

    asyncio.run(use())
    assert Shop.static(1) is Shop().static(1)
    assert Shop().method(1) is Shop().method(1)
    assert f.cache is cache and len(cache) == 8 and f.cache_info().currsize == 8
    assert f.cache_contains(1) and f.cache_invalidate(1, 2) and not f.cache_contains(1)
    f.cache_set("set", 5)
    assert f(5) == "set" and f.cache_refresh(5) == ["f", 5]
    f.cache_clear()
    assert not f.cache_contains(5) and g.cache_contains(1) and len(cache) == 6
    assert f.cache_parameters()["cache"] is cache
    with pytest.raises(TypeError, match="ttl is a setting of the cache"):
        cached(cache=cache, ttl=3)
    with pytest.raises(TypeError, match="hotset.Cache"):
        cached(cache={})(len)
    with pytest.raises(TypeError, match="method=False"):

        class Wrong:
            @cached(cache=cache)
            def method(self):
                return 1


def test_a_coroutine_function_is_closed():
    @cached
    async def f(x):
        begun.append(x)
        await asyncio.sleep(x)
        return x

    begun = []

    async def use():
        calls = [asyncio.ensure_future(f(x)) for x in (100, 200)]
        while len(begun) < 2:
            await asyncio.sleep(0)
        calls[0].cancel(), calls[1].cancel()
        await f.cache_aclose()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task not in calls]
        call = asyncio.ensure_future(f(0.01))
        while len(begun) < 3:
            await asyncio.sleep(0)
        await f.cache_aclose(cancel=False)
        assert f.cache_contains(0.01) and not f.cache_contains(100)
        await call

    asyncio.run(use())
    assert f.__wrapped__.__name__ == "f"


# --- Tests of users.


def test_the_fixture_clears(hotset_clear):
    assert kept_between_tests.cache_info().currsize == 0
    assert kept_between_tests() == 1


@cached
def kept_between_tests():
    return 1


kept_between_tests()


def test_frozen_time():
    freezegun = pytest.importorskip("freezegun")

    @cached(ttl=60, timer=lambda: time.time())
    def f():
        return object()

    with freezegun.freeze_time("2026-01-01") as frozen:
        kept = f()
        frozen.tick(59)
        assert f() is kept
        frozen.tick(1)
        assert f() is not kept


def test_time_machine():
    time_machine = pytest.importorskip("time_machine")

    @cached(ttl=60, timer=lambda: time.time())
    def f():
        return object()

    with time_machine.travel(0, tick=False) as traveller:
        kept = f()
        traveller.shift(59)
        assert f() is kept
        traveller.shift(1)
        assert f() is not kept
