"""Released objects are freed: references, cycles, memory."""

import asyncio
import gc
import sys
import tracemalloc
import weakref

import pytest

import hotset


class Thing:
    pass


def functions():
    def function(x, **kwargs):
        return x

    yield hotset.cached(function)
    yield hotset.cached(ttl=3600, typed=True)(function)
    yield hotset.lru_cache(maxsize=100)(function)
    yield hotset.cache(function)


@pytest.mark.parametrize("kind", range(4))
def test_arguments_and_results_are_released(kind):
    function = list(functions())[kind]
    thing = Thing()
    gone = weakref.ref(thing)
    assert function(thing, a=thing) is thing
    del thing
    gc.collect()
    assert gone() is not None
    function.cache_clear()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", range(4))
def test_cycles_through_a_function_are_collected(kind):
    function = list(functions())[kind]
    thing = Thing()
    thing.function = function
    gone = weakref.ref(thing)
    function(thing)
    del thing, function
    gc.collect()
    assert gone() is None


def test_a_function_that_refers_to_itself_is_collected():
    def make():
        @hotset.cached
        def function(n):
            return function

        function(1)
        return weakref.ref(function)

    gone = make()
    gc.collect()
    assert gone() is None


def test_an_async_function_is_collected():
    def make():
        @hotset.cached
        async def function(n):
            return function

        asyncio.run(function(1))
        return weakref.ref(function)

    gone = make()
    gc.collect()
    assert gone() is None


def test_cycles_through_a_mapping_are_collected():
    class Cache(hotset.Cache):
        pass

    thing = Thing()
    cache = Cache(maxsize=10, on_removal=lambda *_: cache)
    thing.cache = cache
    cache[thing] = thing
    gone = weakref.ref(thing), weakref.ref(cache)
    del thing, cache
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_evicted_values_are_freed():
    cache = hotset.Cache(maxsize=10)
    alive = []
    for n in range(1000):
        thing = Thing()
        alive.append(weakref.ref(thing))
        cache[n] = thing
        del thing
    cache.run_pending()
    gc.collect()
    assert sum(reference() is not None for reference in alive) == len(cache) <= 10


def test_a_hit_keeps_no_reference():
    argument, result = object(), object()
    for function in (hotset.cached(lambda x: result), hotset.lru_cache(lambda x: result)):
        function(argument)
        before = sys.getrefcount(argument), sys.getrefcount(result), sys.getrefcount(function)
        for _ in range(1000):
            function(argument)
        assert (sys.getrefcount(argument), sys.getrefcount(result), sys.getrefcount(function)) == before


def grown(action):
    """How many bytes of Python's memory are left behind by a call: the least of three counts, since
    the interpreter's own caches grow, too, but not always."""
    for _ in range(3):
        action()
    return min(counted(action) for _ in range(3))


def counted(action):
    gc.collect()
    tracemalloc.start()
    try:
        # For some rounds, traced objects replace untraced ones in what the interpreter keeps for
        # reuse.
        for _ in range(30):
            action()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            action()
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / 5
    finally:
        tracemalloc.stop()


def test_nothing_leaks():
    def fail(_):
        raise LookupError

    def every_way():
        function = hotset.cached(maxsize=10, negative_ttl=5, ttl=3600)(lambda x: [x])
        cache = hotset.Cache(maxsize=10, ttl=3600)
        for n in range(200):
            function(n), function(n)
            function.cache_invalidate(n)
            function.cache_set([n], n)
            function.cache_refresh(n)
            cache[n] = [n]
            cache.get_or_load(-n, lambda key: [key])
            cache.compute(n, lambda old: [old], None)
            cache.pop(n, None)
            cache.get_many([n, n + 1])
            try:
                cache.get_or_load(str(n), fail)
            except LookupError:
                pass
        function.cache_clear()
        cache.clear()

    assert grown(every_way) < 2000


def test_nothing_leaks_from_tasks():
    @hotset.cached(maxsize=10)
    async def function(n):
        await asyncio.sleep(0)
        return [n]

    async def main():
        await asyncio.gather(*(function(n % 50) for n in range(200)))

    assert grown(lambda: asyncio.run(main())) < 2000
