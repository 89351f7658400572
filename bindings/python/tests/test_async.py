"""`cached` on `async def`, and Cache.aget_or_load."""

import asyncio
import inspect
import threading
import weakref

import pytest

import hotset


def slow(**settings):
    """A coroutine function under a cache, its calls, and the event that lets them end."""
    calls = []
    go = asyncio.Event()

    @hotset.cached(**settings)
    async def function(x):
        calls.append(x)
        await go.wait()
        return [x]

    return function, calls, go


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


def test_wrapper_is_a_coroutine_function():
    @hotset.cached
    async def function(x):
        """Documented."""
        return x

    assert inspect.iscoroutinefunction(function)
    assert function.__doc__ == "Documented."
    assert str(inspect.signature(function)) == "(x)"
    assert asyncio.run(function.__wrapped__(1)) == 1
    assert weakref.ref(function)() is function


def test_a_hundred_tasks_one_call():
    async def main():
        function, calls, go = slow()
        tasks = [asyncio.create_task(function(1)) for _ in range(100)]
        await until(lambda: calls)
        go.set()
        results = await asyncio.gather(*tasks)
        assert all(result is results[0] for result in results)
        assert calls == [1]
        assert await function(1) is results[0]
        assert function.cache_info().waits == 99

    asyncio.run(main())


def test_without_single_flight_each_calls():
    async def main():
        function, calls, go = slow(single_flight=False)
        tasks = [asyncio.create_task(function(1)) for _ in range(5)]
        await until(lambda: len(calls) == 5)
        go.set()
        assert await asyncio.gather(*tasks) == [[1]] * 5

    asyncio.run(main())


@pytest.mark.parametrize("victims", [[0], [1], [0, 1, 2], range(1, 10)])
def test_cancelled_waiter_leaves_the_load_alone(victims):
    async def main():
        function, calls, go = slow()
        tasks = [asyncio.create_task(function(1)) for _ in range(10)]
        await until(lambda: calls)
        for victim in victims:
            tasks[victim].cancel()
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number in victims:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == [1]
        assert calls == [1]

    asyncio.run(main())


def test_load_continues_when_all_callers_are_cancelled():
    async def main():
        function, calls, go = slow()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(function(1), 0.01)
        go.set()
        assert await function(1) == [1]
        assert calls == [1]

    asyncio.run(main())


def test_waiter_of_a_cancelled_load_begins_anew():
    async def main():
        function, calls, go = slow()
        waiting = [asyncio.create_task(function(1)) for _ in range(3)]
        await until(lambda: calls)
        (load,) = asyncio.all_tasks() - {asyncio.current_task(), *waiting}
        load.cancel()
        await until(lambda: len(calls) == 2)
        go.set()
        assert await asyncio.gather(*waiting) == [[1]] * 3

    asyncio.run(main())


def test_a_function_that_raises_cancelled_error_itself():
    async def main():
        @hotset.cached
        async def function():
            raise asyncio.CancelledError

        task = asyncio.create_task(function())
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())


def test_exceptions_reach_all_waiters_uncached():
    async def main():
        calls = []

        @hotset.cached
        async def function(x):
            calls.append(x)
            await asyncio.sleep(0)
            raise LookupError(x)

        results = await asyncio.gather(*(function(1) for _ in range(10)), return_exceptions=True)
        assert [type(result) for result in results] == [LookupError] * 10
        assert calls == [1]
        with pytest.raises(LookupError):
            await function(1)
        assert calls == [1, 1]

    asyncio.run(main())


def test_negative_ttl_and_stale_if_error(clock):
    async def main():
        state = {"fails": True, "calls": 0}

        @hotset.cached(ttl=10, negative_ttl=5, stale_if_error=100, timer=clock)
        async def function():
            state["calls"] += 1
            if state["fails"]:
                raise ConnectionError
            return "good"

        for _ in range(3):
            with pytest.raises(ConnectionError):
                await function()
        assert state["calls"] == 1
        clock.advance(6)
        state["fails"] = False
        assert await function() == "good"
        state["fails"] = True
        clock.advance(20)
        assert await function() == "good"

    asyncio.run(main())


def test_stale_result_is_logged_once_per_spell(clock, caplog):
    async def main():
        fails = []

        @hotset.cached(ttl=10, stale_if_error=1000, timer=clock)
        async def function():
            if fails:
                raise ConnectionError
            return "good"

        assert await function() == "good"
        for spell in range(1, 3):
            fails.append(True)
            for _ in range(3):
                clock.advance(60)
                assert await asyncio.gather(function(), function()) == ["good", "good"]
            assert [record.name for record in caplog.records] == ["hotset"] * spell
            fails.clear()
            clock.advance(60)
            assert await function() == "good"
        assert len(caplog.records) == 2

    asyncio.run(main())


def test_stale_while_revalidate(clock):
    async def main():
        function, calls, go = slow(ttl=10, stale_while_revalidate=100, timer=clock)
        go.set()
        old = await function(1)
        go.clear()
        clock.advance(20)
        assert [await function(1) for _ in range(5)] == [old] * 5
        await until(lambda: len(calls) == 2)
        assert await function(1) is old
        go.set()
        while await function(1) is old:
            await asyncio.sleep(0)
        assert calls == [1, 1]

    asyncio.run(main())


def test_a_failing_reload_is_logged_and_the_old_value_stays(clock, caplog):
    async def main():
        fails = []

        @hotset.cached(ttl=10, stale_while_revalidate=100, timer=clock)
        async def function():
            if fails:
                raise ConnectionError("the backend is down")
            return "good"

        await function()
        fails.append(True)
        clock.advance(20)
        while "the backend is down" not in caplog.text:
            assert await function() == "good"
            await asyncio.sleep(0)

    asyncio.run(main())


def test_the_rest_of_its_methods():
    async def main():
        function, calls, go = slow(maxsize=5)
        go.set()
        first = await function(1)
        assert function.cache_contains(1)
        assert await function.cache_refresh(1) is not first
        assert function.cache_invalidate(1)
        function.cache_set("given", 1)
        assert await function(1) == "given"
        assert function.cache_parameters()["maxsize"] == 5
        function.cache_clear()
        assert function.cache_info()[:4] == (0, 0, 5, 0)

    asyncio.run(main())


def test_an_invalidation_beats_a_load():
    async def main():
        function, calls, go = slow()
        task = asyncio.create_task(function(1))
        await until(lambda: calls)
        function.cache_invalidate(1)
        go.set()
        assert await task == [1]
        assert not function.cache_contains(1)

    asyncio.run(main())


def test_a_load_that_awaits_itself_is_an_error():
    @hotset.cached
    async def direct(x):
        return await direct(x)

    @hotset.cached
    async def ping(x):
        return await pong(x)

    @hotset.cached
    async def pong(x):
        return (await asyncio.gather(ping(x)))[0]

    for function in (direct, ping):
        with pytest.raises(RuntimeError, match="itself"):
            asyncio.run(function(1))


def test_recursion():
    @hotset.cached
    async def fib(n):
        return n if n < 2 else await fib(n - 1) + await fib(n - 2)

    assert asyncio.run(fib(50)) == 12586269025


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="new in 3.12")
def test_tasks_that_are_started_eagerly():
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

        @hotset.cached
        async def at_once(x):
            return [x]

        assert await at_once(1) is await at_once(1)

        @hotset.cached
        async def direct(x):
            return await direct(x)

        with pytest.raises(RuntimeError, match="itself"):
            await direct(1)
        function, calls, go = slow()
        tasks = [asyncio.create_task(function(1)) for _ in range(10)]
        go.set()
        assert await asyncio.gather(*tasks) == [[1]] * 10
        assert calls == [1]

    asyncio.run(main())


def test_two_event_loops_share_a_load():
    calls = []
    loading = threading.Event()
    go = threading.Event()

    @hotset.cached
    async def function(x):
        calls.append(threading.get_ident())
        loading.set()
        while not go.is_set():
            await asyncio.sleep(0.001)
        return [x]

    results = []

    def run():
        async def main():
            return await asyncio.gather(*(function(1) for _ in range(10)))

        results.extend(asyncio.run(main()))

    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert loading.wait(60)
    threads[1].start()
    while function.cache_info().waits < 19:
        pass
    go.set()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    assert all(result is results[0] for result in results)
    assert len(calls) == 1


def test_load_of_an_ended_loop_is_begun_anew():
    loading = threading.Event()
    leave = threading.Event()
    calls = []

    @hotset.cached
    async def function():
        calls.append(threading.current_thread())
        if len(calls) == 1:
            loading.set()
            await asyncio.Event().wait()
        return "by the second"

    def lead():
        async def main():
            asyncio.create_task(function())
            while not leave.is_set():
                await asyncio.sleep(0.001)

        asyncio.run(main())

    leader = threading.Thread(target=lead)
    leader.start()
    assert loading.wait(60)

    async def follow():
        task = asyncio.create_task(function())
        while function.cache_info().waits == 0:
            await asyncio.sleep(0)
        leave.set()
        return await task

    assert asyncio.run(follow()) == "by the second"
    leader.join()
    assert calls[1] is threading.current_thread()


def test_load_of_a_closed_loop_is_abandoned():
    calls = []

    @hotset.cached
    async def function():
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "anew"

    async def begin():
        asyncio.create_task(function())
        while not calls:
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    assert asyncio.run(function()) == "anew"


def test_aget_or_load():
    async def main():
        cache = hotset.Cache(maxsize=100)
        calls = []

        async def loader(key):
            calls.append(key)
            await asyncio.sleep(0)
            return key * 2

        assert await asyncio.gather(*(cache.aget_or_load("k", loader) for _ in range(100))) == ["kk"] * 100
        assert calls == ["k"]
        assert await cache.aget_or_load("l", loader, 50) == "ll"
        assert 49 < cache.remaining("l") <= 50
        assert cache.remaining("k") is None

    asyncio.run(main())


def test_threads_and_tasks_share_a_load():
    cache = hotset.Cache(maxsize=100)
    loading, go = threading.Event(), threading.Event()

    def loader(key):
        loading.set()
        assert go.wait(60)
        return "by the thread"

    async def never(key):
        raise AssertionError("the thread loads")

    results = []
    thread = threading.Thread(target=lambda: results.append(cache.get_or_load(1, loader)))
    thread.start()
    assert loading.wait(60)

    async def main():
        task = asyncio.create_task(cache.aget_or_load(1, never))
        while cache.stats().waits == 0:
            await asyncio.sleep(0)
        go.set()
        return await task

    assert asyncio.run(main()) == "by the thread"
    thread.join()
    assert results == ["by the thread"]
