"""`cached` on plain functions."""

import copy
import inspect
import logging
import pickle
import sys
import threading
import weakref
from datetime import timedelta

import pytest

import hotset


@hotset.cached
def module_level(x):
    """Documented."""
    return [x]


def counting(**settings):
    calls = []

    @hotset.cached(**settings)
    def function(*args, **kwargs):
        calls.append((args, kwargs))
        return len(calls)

    return function, calls


def test_a_call_is_made_once():
    function, calls = counting()
    assert [function(1, b=2), function(1, b=2), function(2, b=1)] == [1, 1, 2]
    assert calls == [((1,), {"b": 2}), ((2,), {"b": 1})]
    assert function.cache_info()[:4] == (1, 2, 1024, 2)


def test_bare_and_with_settings():
    assert hotset.cached(len)("abc") == 3
    assert hotset.cached()(len)("abc") == 3
    assert hotset.cached(maxsize=3)(len).cache_info().maxsize == 3
    assert hotset.cached(maxsize=None)(len).cache_info().maxsize is None


def test_wrapper_has_the_functions_metadata():
    assert module_level.__name__ == "module_level"
    assert module_level.__doc__ == "Documented."
    assert module_level.__module__ == __name__
    assert module_level.__wrapped__(3) == [3]
    assert str(inspect.signature(module_level)) == "(x)"
    assert callable(module_level)


def test_copies_and_pickles_are_the_function_itself():
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.copy(module_level) is module_level
    assert copy.deepcopy(module_level) is module_level
    assert weakref.ref(module_level)() is module_level


def test_cache_info_fields():
    info = module_level.cache_info()
    assert info._fields[:4] == ("hits", "misses", "maxsize", "currsize")
    assert {"evictions", "expirations", "loads", "waits", "weight"} <= set(info._fields)


def test_cache_clear_removes_results_and_resets_counts():
    function, calls = counting()
    function(1), function(1)
    function.cache_clear()
    assert function.cache_info()[:4] == (0, 0, 1024, 0)
    function(1)
    assert len(calls) == 2


def test_invalidate_contains_set_refresh():
    function, calls = counting()
    assert not function.cache_contains(1, a=2)
    assert not function.cache_invalidate(1, a=2)
    assert function(1, a=2) == 1
    assert function.cache_contains(1, a=2)
    assert not function.cache_contains(1, a=3)
    assert function.cache_refresh(1, a=2) == 2
    assert function(1, a=2) == 2
    function.cache_set("given", 1, a=2)
    assert function(1, a=2) == "given"
    assert function.cache_invalidate(1, a=2)
    assert not function.cache_contains(1, a=2)
    assert function(1, a=2) == 3
    assert len(calls) == 3


def test_parameters():
    function, _ = counting(maxsize=7, ttl=timedelta(minutes=1), typed=True, name="parameters")
    parameters = function.cache_parameters()
    assert parameters["maxsize"] == 7
    assert parameters["ttl"] == 60.0
    assert parameters["typed"] is True
    assert parameters["policy"] == "tinylfu"
    assert parameters["name"] == "parameters"
    parameters["maxsize"] = 8
    assert function.cache_parameters()["maxsize"] == 7


def test_typed():
    function, _ = counting(typed=True)
    assert function(3) != function(3.0)
    untyped, _ = counting()
    assert untyped(3, "x") == untyped(3.0, "x")


def test_key():
    function, calls = counting(key=lambda text, **_: text.lower())
    assert function("TEA", asked="now") == function("tea") == 1
    assert function([].__class__.__name__) == 2
    assert len(calls) == 2


def test_unhashable_arguments():
    function, calls = counting()
    with pytest.raises(TypeError, match="unhashable"):
        function([])
    assert calls == []
    by_tuple, _ = counting(key=tuple)
    assert by_tuple([1, 2]) == by_tuple([1, 2])


def test_exceptions_are_not_cached():
    calls = []

    @hotset.cached
    def function(x):
        calls.append(x)
        raise LookupError(x)

    for _ in range(2):
        with pytest.raises(LookupError):
            function(1)
    assert calls == [1, 1]
    assert function.cache_info().currsize == 0


def test_negative_ttl(clock):
    calls = []

    @hotset.cached(negative_ttl=5, timer=clock)
    def function(x):
        calls.append(x)
        raise LookupError(x)

    for _ in range(3):
        with pytest.raises(LookupError):
            function(1)
    assert calls == [1]
    clock.advance(6)
    with pytest.raises(LookupError):
        function(1)
    assert calls == [1, 1]


def test_ttl(clock):
    function, _ = counting(ttl=10, timer=clock)
    assert function(1) == 1
    clock.advance(9)
    assert function(1) == 1
    clock.advance(2)
    assert not function.cache_contains(1)
    assert function(1) == 2


def test_tti(clock):
    function, _ = counting(tti=10, timer=clock)
    assert function(1) == 1
    for _ in range(3):
        clock.advance(8)
        assert function(1) == 1
    clock.advance(11)
    assert function(1) == 2


def test_stale_if_error(clock):
    fails = []

    @hotset.cached(ttl=10, stale_if_error=100, timer=clock)
    def function():
        if fails:
            raise ConnectionError
        return "good"

    assert function() == "good"
    fails.append(True)
    clock.advance(50)
    assert function() == "good"
    clock.advance(100)
    with pytest.raises(ConnectionError):
        function()


def failing_after(clock, **settings):
    fails = []

    @hotset.cached(ttl=10, stale_if_error=1000, timer=clock, **settings)
    def function():
        if fails:
            raise ConnectionError("no route")
        return "good"

    return function, fails


def test_stale_result_is_logged_once_per_spell(clock, caplog):
    function, fails = failing_after(clock)
    assert function() == "good"
    assert not caplog.records
    for spell in range(1, 3):
        fails.append(True)
        for _ in range(3):
            clock.advance(60)
            assert function() == "good"
        assert [record.name for record in caplog.records] == ["hotset"] * spell
        last = caplog.records[-1]
        assert "function failed" in last.getMessage()
        assert last.exc_info and last.exc_info[0] is ConnectionError
        fails.clear()
        clock.advance(60)
        assert function() == "good"
    assert len(caplog.records) == 2


def test_stale_results_of_one_key_are_logged_once(clock, caplog):
    @hotset.cached(ttl=10, stale_if_error=100, timer=clock)
    def function(key):
        if key in failing:
            raise ConnectionError(key)
        return key

    failing = set()
    for key in "abc":
        function(key)
    failing.update("ab")
    for _ in range(5):
        clock.advance(11)
        assert [function(key) for key in "abc"] == ["a", "b", "c"]
        assert len(caplog.records) == 1
    # The key with which the spell began is good again: the next failure begins another.
    failing.remove("a")
    clock.advance(11)
    assert function("a") == "a" and len(caplog.records) == 1
    assert function("b") == "b" and len(caplog.records) == 2
    failing.clear()
    clock.advance(11)
    function("b")
    # A spell ends, too, when no call has failed for as long as expired results are served.
    failing.add("c")
    clock.advance(11)
    assert function("c") == "c" and len(caplog.records) == 3
    clock.advance(101)
    with pytest.raises(ConnectionError):
        function("c")
    assert function("d") == "d"
    failing.add("d")
    clock.advance(11)
    assert function("d") == "d" and len(caplog.records) == 4


def test_stale_result_is_returned_if_logging_raises(clock, monkeypatch):
    class Broken(logging.Filter):
        def filter(self, record):
            raise self.error

    function, fails = failing_after(clock)
    function()
    fails.append(True)
    clock.advance(60)
    logger, broken = logging.getLogger("hotset"), Broken()
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    logger.addFilter(broken)
    try:
        broken.error = ValueError("a filter's")
        assert function() == "good"
        assert [unraisable.exc_type for unraisable in reported] == [ValueError]
        fails.clear()
        clock.advance(60)
        function()
        fails.append(True)
        clock.advance(60)
        broken.error = KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            function()
    finally:
        logger.removeFilter(broken)
    assert function() == "good"


def test_stale_while_revalidate(clock):
    calls = []
    reloading = threading.Event()

    @hotset.cached(ttl=10, stale_while_revalidate=100, timer=clock)
    def function():
        calls.append(threading.current_thread())
        if len(calls) > 1:
            assert reloading.wait(60)
        return len(calls)

    assert function() == 1
    clock.advance(20)
    assert [function() for _ in range(5)] == [1] * 5
    reloading.set()
    while function() == 1:
        pass
    assert function() == 2
    assert len(calls) == 2
    assert calls[1].name == "hotset-refresh" and calls[1].daemon


def test_a_failing_reload_is_logged_and_the_old_value_stays(clock, caplog):
    fails = []

    @hotset.cached(ttl=10, stale_while_revalidate=100, timer=clock)
    def function():
        if fails:
            raise ConnectionError("the backend is down")
        return "good"

    function()
    fails.append(True)
    clock.advance(20)
    while "the backend is down" not in caplog.text:
        assert function() == "good"


def test_weigher():
    @hotset.cached(weigher=len, max_weight=100)
    def function(n):
        return "x" * n

    for n in range(1, 50):
        assert function(n) == "x" * n
    info = function.cache_info()
    assert info.maxsize is None
    assert info.max_weight == 100
    assert 0 < info.weight <= 112


def test_on_removal():
    seen = []
    function, _ = counting(on_removal=lambda args, kwargs, value, cause: seen.append((args, kwargs, value, cause)))
    function(1, a=2)
    function.cache_invalidate(1, a=2)
    function(2)
    function.cache_set("new", 2)
    assert seen == [((1,), {"a": 2}, 1, "explicit"), ((2,), {}, 2, "replaced")]


@pytest.mark.parametrize("policy", ["tinylfu", "lru", "lfu", "fifo", "random"])
def test_policies_keep_to_the_bound(policy):
    function, _ = counting(maxsize=50, policy=policy)
    for n in range(500):
        function(n)
    info = function.cache_info()
    assert 0 < info.currsize <= 50
    assert info.misses == 500


def test_maxsize_0_keeps_nothing():
    function, calls = counting(maxsize=0)
    function(1), function(1)
    assert len(calls) == 2
    assert function.cache_info().currsize == 0


def test_recursion_and_the_same_key_from_inside_itself():
    @hotset.cached
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(60) == 1548008755920

    @hotset.cached
    def circular(n):
        return circular(n)

    with pytest.raises(RuntimeError):
        circular(1)


def test_named_caches_are_listed_while_alive():
    function, _ = counting(name="listed", maxsize=10)
    function(1), function(1)
    stats = hotset.stats()["listed"]
    assert (stats.hits, stats.misses, stats.entries, stats.capacity) == (1, 1, 1, 10)
    assert stats.hit_ratio == 0.5
    again, _ = counting(name="listed", maxsize=20)
    assert hotset.stats()["listed"].capacity == 20
    del function, again
    import gc

    gc.collect()
    assert "listed" not in hotset.caches()


def test_non_functions_are_errors():
    with pytest.raises(TypeError, match=r"cached\(maxsize=100\)"):
        hotset.cached(100)
    with pytest.raises(TypeError, match="not str"):
        hotset.cached("x")

    def numbers():
        yield 1

    async def more():
        yield 1

    for generator in (numbers, more):
        with pytest.raises(TypeError, match="generator"):
            hotset.cached(generator)
