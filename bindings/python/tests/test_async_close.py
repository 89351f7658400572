"""`cache_aclose`: ends the calls in progress in an event loop, and notifies their callers."""

import asyncio
import threading

import pytest

import hotset


def endless(**settings):
    """A coroutine function under a cache that returns only once `go` is set, and its calls."""
    calls = []
    go = asyncio.Event()

    @hotset.cached(**settings)
    async def function(x):
        calls.append(x)
        await go.wait()
        return x

    return function, calls, go


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


@pytest.mark.parametrize("settings", [{}, {"cache": hotset.Cache(100)}], ids=["own cache", "shared cache"])
def test_aclose_cancels_callers_of_a_load(settings):
    async def main():
        function, calls, _ = endless(**settings)
        tasks = [asyncio.create_task(function(1)) for _ in range(3)]
        refresh = asyncio.create_task(function.cache_refresh(2))
        await until(lambda: len(calls) == 2)
        await function.cache_aclose()
        results = await asyncio.gather(*tasks, refresh, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 4
        assert sorted(calls) == [1, 2]
        # None of the callers was cancelled itself, and the cache can be used again.
        assert not any(task.cancelling() for task in tasks)
        again = asyncio.create_task(function(1))
        await until(lambda: len(calls) == 3)
        await function.cache_aclose()
        with pytest.raises(asyncio.CancelledError):
            await again

    asyncio.run(main())


def test_aclose_cancels_load_that_has_not_begun_to_run():
    async def main():
        function, calls, _ = endless()
        task = asyncio.create_task(function(1))
        # (Runs the task until it awaits its load.)
        await asyncio.sleep(0)
        await function.cache_aclose()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls == []

    asyncio.run(main())


def test_aclose_spares_caller_that_left_the_function():
    async def main():
        calls = []
        left, go_on = asyncio.Event(), asyncio.Event()

        @hotset.cached(single_flight=False)
        async def function(x):
            calls.append(x)
            if len(calls) == 1:
                await asyncio.Event().wait()
            return x

        async def second():
            # (Runs in this task, since the key is being loaded.)
            result = await function(1)
            left.set()
            await go_on.wait()
            return result

        first = asyncio.create_task(function(1))
        await until(lambda: calls)
        other = asyncio.create_task(second())
        await left.wait()
        await function.cache_aclose()
        go_on.set()
        assert await other == 1
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())


@pytest.mark.parametrize("cancel", [True, False])
def test_aclose_from_within_a_load_spares_it(cancel):
    async def main():
        @hotset.cached
        async def outer(x):
            return await inner(x)

        @hotset.cached
        async def inner(x):
            await outer.cache_aclose(cancel=cancel)
            await inner.cache_aclose(cancel=cancel)
            return x

        assert await asyncio.wait_for(outer(1), 60) == 1

    asyncio.run(main())


def test_aclose_from_loads_that_wait_mutually_ends():
    @hotset.cached
    async def first(n):
        await asyncio.sleep(0)
        await second.cache_aclose(cancel=False)
        return n

    @hotset.cached
    async def second(n):
        await asyncio.sleep(0)
        await (second if n else first).cache_aclose(cancel=False)
        return n

    async def main():
        calls = [first(0), second(0), second(1), second(2)]
        return await asyncio.wait_for(asyncio.gather(*calls), 30)

    assert asyncio.run(main()) == [0, 0, 1, 2]


def test_aclose_that_is_cancelled_cancels_no_load():
    async def main():
        function, calls, go = endless()
        task = asyncio.create_task(function(1))
        await until(lambda: calls)
        closing = asyncio.create_task(function.cache_aclose(cancel=False))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        go.set()
        assert await task == 1 and calls == [1]

    asyncio.run(main())


def test_aclose_reaches_cache_below():
    async def main():
        calls = []

        @hotset.cached(ttl=60)
        @hotset.cached
        async def function(x):
            calls.append(x)
            await asyncio.Event().wait()

        task = asyncio.create_task(function(1))
        await until(lambda: calls)
        await function.cache_aclose()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_aclose_lets_callers_elsewhere_begin_anew():
    first = threading.Event()
    calls = []

    @hotset.cached
    async def function(x):
        calls.append(threading.current_thread())
        if len(calls) == 1:
            first.set()
            await asyncio.Event().wait()
        return x

    def elsewhere():
        first.wait()
        return asyncio.run(function(1))

    async def main():
        task = asyncio.create_task(function(1))
        other = asyncio.create_task(asyncio.to_thread(elsewhere))
        await until(lambda: function.cache_info().waits == 1)
        await function.cache_aclose()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await other == 1 and len(calls) == 2

    asyncio.run(main())
