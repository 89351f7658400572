"""Features beyond functools: statistics, sharing, expiration per result, the registry of caches."""

import asyncio
import functools
import gc
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from datetime import timedelta

import pytest

import hotset
from hotset import KEEP, MISSING, Cache, WithTtl, _types, cached

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


def test_result_with_its_own_ttl(clock):
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


def test_repr_describes_the_cache():
    @cached
    def f():
        return 1

    assert "test_repr_describes_the_cache.<locals>.f" in repr(f) and "hotset.cached" in repr(f)
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


def test_child_creates_caches_whatever_threads_did():
    """In a process of its own, with a thread that is making a cache at the fork."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    code = """
import os, signal, threading
import hotset
from hotset import _registry

inside, done = threading.Event(), threading.Event()

def hold():
    with _registry._lock:
        inside.set()
        done.wait()

threading.Thread(target=hold).start()
inside.wait()
child = os.fork()
if child == 0:
    # (Ends a child that waits for the lock.)
    signal.alarm(30)
    cache = hotset.Cache(1, name="made in the child")
    os._exit(0 if hotset.caches()["made in the child"] is cache else 1)
print(os.waitpid(child, 0)[1])
done.set()
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert ended.stdout == "0\n", ended


def test_destructor_within_the_registry_creates_a_cache():
    """In a process of its own: the same thread waited for itself."""
    code = """
import signal
import hotset
from hotset import _registry

signal.alarm(30)
with _registry._lock:
    # As a destructor does that the collector runs here.
    cache = hotset.Cache(1, name="made in a destructor")
    print(hotset.caches()["made in a destructor"] is cache)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "True\n", ended


def test_raising_timer_spoils_neither_clear_all_nor_repr():
    def timer():
        raise ZeroDivisionError

    broken = Cache(5, timer=timer)
    good = [Cache(5), cached(lambda: 1), Cache(6)]
    good[0]["a"] = good[2]["a"] = good[1]()
    with pytest.raises(ZeroDivisionError):
        hotset.clear_all()
    assert [len(good[0]), good[1].cache_info().currsize, len(good[2])] == [0, 0, 0]
    assert repr(broken) == "<hotset.Cache entries=?, capacity=5>"


def test_name_of_a_dropped_cache_is_free():
    first = Cache(1, name="used twice")
    second = Cache(1, name="used twice")
    del first
    gc.collect()
    assert hotset.caches()["used twice"] is second
    del second
    gc.collect()
    assert "used twice" not in hotset.caches()


# --- One Cache under several functions.


def test_keys_and_items_of_functions_that_share_a_cache():
    cache = Cache(100, policy="lru")

    @cached(cache=cache)
    def f(x, y=2):
        return x + y

    @cached(cache=cache, key=lambda x: x % 10)
    def g(x):
        return x

    @cached(cache=cache, typed=True)
    def h(x):
        return x

    assert (f(1), f(1, y=3), g(13), h(1.0)) == (3, 4, 13, 1.0)
    cache["other"] = cache[()] = 1
    assert f.cache_items() == [(((1,), {"y": 3}), 4), (((1,), {}), 3)]
    assert f.cache_keys() == [((1,), {"y": 3}), ((1,), {})]
    assert g.cache_items() == [(((3,), {}), 13)] and h.cache_items() == [(((1.0,), {}), 1.0)]
    f.cache_clear()
    assert f.cache_keys() == [] and len(cache) == 4


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
    with pytest.raises(TypeError, match="ttl and cache exclude each other"):
        cached(cache=cache, ttl=3)
    with pytest.raises(TypeError, match="hotset.Cache"):
        cached(cache={})(len)
    with pytest.raises(TypeError, match="method=False"):

        class Wrong:
            @cached(cache=cache)
            def method(self):
                return 1


def test_types_of_decorated_functions_match_them():
    def f(x):
        return x

    async def g(x):
        return x

    cache = Cache(10)
    for promised, function in (
        (_types.Cached, cached(f)),
        (_types.AsyncCached, cached(g)),
        (_types.SharedCached, cached(cache=cache)(f)),
        (_types.SharedAsyncCached, cached(cache=cache)(g)),
    ):
        names = {name for protocol in promised.__mro__ for name in vars(protocol) if not name.startswith("_")}
        assert "cache_info" in names and [name for name in names if not hasattr(function, name)] == []


def test_two_caches_of_a_function_are_invalidated_together():
    calls = []

    class Shop:
        @cached(ttl=60)
        @cached
        def method(self, x):
            calls.append(x)

        @cached(ttl=60)
        @cached
        async def coroutine(self, x):
            calls.append(x)

        @cached(cache=Cache(10))
        @cached
        @staticmethod
        def static(x):
            calls.append(x)

        @cached(cache=Cache(10))
        @cached
        @staticmethod
        async def static_coroutine(x):
            calls.append(x)

    async def use():
        shop = Shop()
        for name in ("method", "coroutine", "static", "static_coroutine"):
            function = getattr(shop, name)

            async def call(function=function):
                result = function(1)
                if result is not None:
                    await result

            calls.clear()
            await call()
            await call()
            assert len(calls) == 1, name
            assert function.cache_invalidate(1) and not function.cache_invalidate(1)
            await call()
            assert len(calls) == 2, name
            function.cache_clear()
            await call()
            assert len(calls) == 3, name

    asyncio.run(use())
    # (This is the outer cache's: a Cache of the user's is resized itself.)
    assert Shop.static_coroutine.cache_keys() == [((1,), {})] and not hasattr(Shop.static_coroutine, "cache_resize")


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


def test_adapters_are_imported_by_their_names_only():
    adapters = ("aiocache", "cachelib", "django", "dogpile", "hishel", "langchain", "requests_cache")
    program = f"import sys, hotset; assert not [name for name in {adapters} if name in sys.modules or f'hotset.{{name}}' in sys.modules]"
    subprocess.run([sys.executable, "-c", program], check=True)
