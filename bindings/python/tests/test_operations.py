"""Operations of `Cache` and `cached` beyond dict and functools, as other caches have them."""

import asyncio
import math
import threading
import time
from datetime import timedelta

import pytest

from hotset import KEEP, MISSING, Cache, cached

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
    assert cache.remaining(key="keyword") == 3
    assert cache.get_or_load("loaded", str, ttl=4) == "loaded" and cache.remaining("loaded") == 4
    assert cache.get_or_load("endless", str, ttl=None) == "endless" and cache.remaining("endless") is None


@pytest.mark.parametrize("ttl", [0, -1, 0.0, timedelta(0), timedelta(seconds=-3)])
def test_passed_ttl_removes_the_entry(clock, ttl):
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


def test_entry_expires_exactly_at_its_deadline():
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


def test_items_with_remaining(clock):
    cache = Cache(10, policy="lru", ttl=60, tti=20, timer=clock)
    cache["a"] = 1
    cache.set("b", 2, ttl=None)
    cache.set("c", 3, ttl=5)
    clock.advance(4)
    assert cache.items_with_remaining() == [("c", 3, 1), ("b", 2, 16), ("a", 1, 16)]
    clock.advance(1)
    assert cache.items_with_remaining() == [("b", 2, 15), ("a", 1, 15)]
    assert (cache.stats().hits, cache.stats().misses) == (0, 0)


def test_copy_keeps_time_to_live_of_entries_that_may_idle(clock):
    cache = Cache(10, ttl=60, tti=20, timer=clock)
    cache["a"] = 1
    clock.advance(15)
    other = cache.copy()
    # Used often, it lives as long as the entry that was copied could.
    for _ in range(4):
        assert other["a"] == 1
        clock.advance(11)
    assert other["a"] == 1
    clock.advance(2)
    assert "a" not in other


def test_remaining_of_a_cached_failure_raises(clock):
    cache = Cache(10, negative_ttl=60, timer=clock)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("a", lambda key: 1 / 0)
    assert "a" not in cache and cache.items_with_remaining() == []
    with pytest.raises(KeyError):
        cache.remaining("a")
    assert cache.get_with_remaining("a") is None


def test_get_with_remaining_pairs_value_and_time():
    """A value is never returned with the time of another, which a writer sets in between."""

    class Key:
        """Equal to any other; compared by Python code, during which another thread may write."""

        def __hash__(self):
            return 1

        def __eq__(self, other):
            comparisons.append(other)
            if len(comparisons) == at:
                cache.set(held, "later", ttl=1000)
            return True

    for at in range(1, 5):
        cache, held, comparisons = Cache(10), Key(), []
        cache.set(held, "earlier", ttl=10)
        value, left = cache.get_with_remaining(Key())
        assert (value == "later") == (left > 10)


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


def test_compute_stores_the_result(clock):
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


def test_expire_returns_the_expired_entries(clock):
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


def test_popitem_skips_expired_entries_and_failures(clock):
    cache = Cache(10, timer=clock, negative_ttl=60, policy="lru")
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("failed", lambda key: 1 / 0)
    cache.set("short", 1, ttl=1)
    cache["long"] = 2
    clock.advance(1)
    assert cache.popitem() == ("long", 2)
    with pytest.raises(KeyError):
        cache.popitem()


def test_popitem_does_not_visit_all_entries():
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
    cache.resize(maxsize=20)
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


def test_load_buckets_count_every_load():
    cache = Cache(10)
    assert sum(count for _, count in cache.stats().load_buckets) == 0
    cache.get_or_load("a", str)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("b", lambda key: 1 / 0)
    cache.get_or_load("a", str)
    stats = cache.stats()
    bounds = [bound for bound, _ in stats.load_buckets]
    assert bounds == sorted(bounds) and len(bounds) == 23
    assert bounds[:4] == [1e-05, 2.5e-05, 5e-05, 0.0001] and bounds[-2:] == [100.0, math.inf]
    assert sum(count for _, count in stats.load_buckets) == stats.loads == 2

    @cached
    async def slow():
        await asyncio.sleep(0.02)

    begun = time.perf_counter()
    asyncio.run(slow())
    longest = time.perf_counter() - begun
    (bound,) = [bound for bound, count in slow.cache_info().load_buckets if count]
    assert 0.025 <= bound and (bound == 0.025 or longest > 0.025)
    slow.cache_reset_stats()
    assert sum(count for _, count in slow.cache_info().load_buckets) == 0


def test_stale_hits_and_evicted_weight():
    now = [0.0]

    @cached(maxsize=10, ttl=10, stale_if_error=100, timer=lambda: now[0])
    def f(x):
        if now[0] > 0:
            raise OSError("down")
        return x

    assert (f(1), f(1)) == (1, 1)
    assert f.cache_info().stale_hits == 0
    now[0] = 11.0
    assert (f(1), f(1)) == (1, 1)  # a failed reload, and a hit before it is tried again
    info = f.cache_info()
    assert (info.hits, info.stale_hits, info.load_failures) == (3, 2, 1)

    weighed = Cache(max_weight=10, weigher=len, policy="lru")
    for key in range(5):
        weighed[key] = "four"
    assert (weighed.stats().evictions, weighed.stats().evicted_weight) == (3, 12)


def test_weigher_has_one_signature():
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


# --- Arguments by name.


def test_peek_pop_setdefault_accept_their_arguments_by_name():
    cache: Cache[str, int] = Cache(10)
    cache["a"] = 1
    assert cache.peek("a", default=2) == cache.peek(key="a", default=2) == cache.peek(key="a") == 1
    assert cache.peek("b", default=2) == cache.peek(default=2, key="b") == 2
    assert cache.peek(key="b") is None
    assert cache.setdefault("a", default=2) == 1 and cache.setdefault(key="b", default=2) == 2
    assert cache.pop("b", default=3) == 2 and cache.pop(key="b", default=3) == 3
    with pytest.raises(KeyError):
        cache.pop(key="b")


@pytest.mark.parametrize("name", ["peek", "pop", "setdefault"])
def test_peek_pop_setdefault_refuse_wrong_names(name):
    method = getattr(Cache(10), name)
    for args, kwargs, text in (
        ((1,), {"other": 2}, "unexpected keyword argument"),
        ((1,), {"key": 2}, "multiple values"),
        ((1, 2), {"default": 2}, "multiple values"),
        ((), {"default": 2}, "missing"),
        ((1, 2, 3), {"default": 2}, "at most 2"),
        ((1, 2, 3), {}, "got 3"),
        ((), {}, "got 0"),
    ):
        with pytest.raises(TypeError, match=text):
            method(*args, **kwargs)
