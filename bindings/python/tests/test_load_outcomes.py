"""Every exit from a load ends it: current and later waiters do not wait forever."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time

import pytest

import hotset


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


class Raising:
    """Called, it raises the second time, and returns `result` else."""

    def __init__(self, result, error):
        self.result, self.error, self.calls = result, error, 0

    def __call__(self, *args):
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return self.result


class Key:
    """An argument whose hash, or comparison, raises the second time."""

    def __init__(self, hashes=0, equals=0):
        self.hashes, self.equals = hashes, equals

    def __hash__(self):
        self.hashes -= 1
        if self.hashes == 0:
            raise OSError("hash")
        return 1

    def __eq__(self, other):
        self.equals -= 1
        if self.equals == 0:
            raise OSError("eq")
        return self is other


async def result():
    return 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [OSError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=["OSError", "KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("setting", ["timer", "key", "weigher"])
def test_async_load_ends_if_its_completion_raises(setting, error):
    raising = Raising(1, error)
    settings = {"ttl": 10} if setting == "timer" else {"max_weight": 10} if setting == "weigher" else {}
    function = hotset.cached(**settings, **{setting: raising})(result)
    # (The weigher is called at the end only; the clock, also when the cache is made.)
    raising.calls = 1 if setting == "weigher" else 0
    loop = asyncio.new_event_loop()
    with pytest.raises(type(error)):
        loop.run_until_complete(function())
    assert raising.calls >= 2
    assert asyncio.run(function()) == 5 and function.cache_info().currsize == 1
    loop.close()


def test_aget_or_load_ends_if_the_timer_raises():
    timer = Raising(1, OSError("clock"))
    cache = hotset.Cache(10, ttl=10, timer=timer)
    timer.calls = 0

    async def load(key):
        return key

    async def main():
        with pytest.raises(OSError, match="clock"):
            await cache.aget_or_load(1, load)
        assert await cache.aget_or_load(1, load) == 1

    asyncio.run(main())


@pytest.mark.parametrize("key", [Key(hashes=2), Key(hashes=3), Key(equals=1), Key(equals=2)], ids=["hash", "hash later", "eq", "eq later"])
def test_async_load_ends_if_its_argument_raises(key):
    @hotset.cached
    async def function(key):
        return 5

    async def main():
        await function(Key())
        for _ in range(4):
            try:
                assert await function(key) == 5
            except OSError:
                pass
        assert await function(key) == 5

    asyncio.run(main())


def test_waiters_get_the_error_of_a_failed_completion():
    go = asyncio.Event()
    function_weighs = Raising(1, OSError("weigher"))
    function_weighs.calls = 1

    @hotset.cached(weigher=function_weighs, max_weight=10)
    async def function(x):
        await go.wait()
        return x

    async def main():
        tasks = [asyncio.create_task(function(1)) for _ in range(3)]
        await until(lambda: function.cache_info().waits == 2)
        go.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [OSError] * 3
        assert await function(1) == 1

    asyncio.run(main())


def test_key_changed_by_its_load_is_not_cached():
    @hotset.cached(key=lambda request: request["id"])
    async def function(request):
        request["id"] += 1
        return request["id"]

    async def main():
        assert await function({"id": 1}) == 2
        assert await function({"id": 2}) == 3
        assert function.cache_info().currsize == 0

    asyncio.run(main())


def test_equal_numbers_stay_distinct_in_async_functions():
    @hotset.cached
    async def function(x):
        return type(x)

    async def main():
        assert [await function(x) for x in (1, 1.0, 1, 1.0)] == [int, float] * 2
        assert function.cache_info()[:2] == (2, 2)

    asyncio.run(main())


def test_function_that_cancels_its_own_task_ends():
    calls = []

    @hotset.cached
    async def function(x):
        calls.append(x)
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def main():
        caller = asyncio.create_task(function(1))
        await asyncio.wait([caller])
        assert caller.cancelled() and len(calls) <= 2

    asyncio.run(main())


def test_waiters_of_a_self_cancelling_function_end():
    calls = []

    @hotset.cached
    async def function(x):
        calls.append(x)
        await asyncio.sleep(0)
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def main():
        callers = [asyncio.create_task(function(1)) for _ in range(5)]
        await asyncio.wait(callers)
        assert all(caller.cancelled() for caller in callers) and len(calls) <= 10

    asyncio.run(main())


def leave_behind(cache, *, close):
    """An event loop that has begun to load key 1 and runs no more."""

    async def load(key):
        await asyncio.Event().wait()

    async def begin():
        task = asyncio.ensure_future(cache.aget_or_load(1, load))
        await until(lambda: cache.stats().misses)
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    if close:
        loop.close()
    return loop, task


def dispose(loop, task):
    if not loop.is_closed():
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("close", [True, False], ids=["closed", "stopped"])
def test_thread_does_not_wait_for_a_loop_that_runs_no_more(close):
    cache, found = hotset.Cache(10), []
    left = leave_behind(cache, close=close)
    threads = [threading.Thread(target=lambda: found.append(cache.get_or_load(1, lambda key: "own"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["own"] * 3
    # Nor does the thread in which that loop ran.
    other = hotset.Cache(10)
    another = leave_behind(other, close=close)
    assert other.get_or_load(1, lambda key: "own") == "own"
    dispose(*left)
    dispose(*another)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("close", [True, False], ids=["closed", "stopped"])
def test_task_does_not_wait_for_a_loop_that_runs_no_more(close):
    cache = hotset.Cache(10)
    left = leave_behind(cache, close=close)

    async def load(key):
        return "own"

    async def main():
        return await asyncio.gather(*(cache.aget_or_load(1, load) for _ in range(3)))

    assert asyncio.run(main()) == ["own"] * 3
    dispose(*left)


def test_load_of_a_resumed_loop_returns_its_value():
    cache, go = hotset.Cache(10), asyncio.Event()

    async def load(key):
        await go.wait()
        return "first"

    async def begin():
        task = asyncio.ensure_future(cache.aget_or_load(1, load))
        await until(lambda: cache.stats().misses)
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    assert cache.get_or_load(1, lambda key: "second") == "second"
    go.set()
    assert loop.run_until_complete(task) == "first" and cache[1] == "second"
    loop.close()


def test_blocking_the_loop_that_loads_is_an_error():
    cache = hotset.Cache(10)

    async def load(key):
        await go.wait()
        return "loaded"

    async def main():
        global go
        go = asyncio.Event()
        task = asyncio.create_task(cache.aget_or_load(1, load))
        await until(lambda: cache.stats().misses)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="aget_or_load"):
            cache.get_or_load(1, lambda key: "own")
        go.set()
        assert await task == "loaded"

    asyncio.run(main())


def test_deadlock_of_thread_and_loop_is_an_error():
    cache = hotset.Cache(10)
    leading, met = threading.Event(), []

    async def aload(key):
        # In the loop's thread: the thread below waits for this load.
        await until(lambda: cache.stats().waits)
        try:
            cache.get_or_load("thread's", lambda key: None)
        except RuntimeError as error:
            met.append(error)
        return "task's"

    async def main():
        await asyncio.to_thread(leading.wait)
        return await cache.aget_or_load("task's", aload)

    def load(key):
        leading.set()
        # (The load must have begun.)
        while not cache.stats().misses >= 2:
            time.sleep(0.001)
        time.sleep(0)
        try:
            return cache.get_or_load("task's", lambda key: "own")
        except RuntimeError as error:
            # (Without the GIL, it may be the second to wait: it is counted as a waiter before it is
            # one.)
            met.append(error)
            return "refused"

    thread = threading.Thread(target=cache.get_or_load, args=("thread's", load))
    thread.start()
    value = asyncio.run(main())
    thread.join()
    assert value == "task's" and cache["thread's"] in ("task's", "own", "refused")
    assert len(met) <= 1


def test_next_caller_awaits_a_cancelled_reload(clock):
    begun, ended = [], []

    @hotset.cached(ttl=10, stale_while_revalidate=10**6, timer=clock)
    async def function(x):
        begun.append(x)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.append(x)
        return clock.now

    # Each call has an event loop of its own, which ends when the call returns.
    asyncio.run(function(1))
    for _ in range(5):
        clock.advance(20)
        found = [asyncio.run(function(1)) for _ in range(2)]
        assert found == [clock.now - 20, clock.now]
    assert len(begun) == 11 and len(ended) == 6


def test_next_caller_repeats_a_closed_loops_reload(clock):
    @hotset.cached(ttl=10, stale_while_revalidate=10**6, timer=clock)
    async def function(x):
        await asyncio.sleep(0)
        return clock.now

    asyncio.run(function(1))
    clock.advance(20)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(function(1)) == clock.now - 20
    loop.close()
    assert asyncio.run(function(1)) == clock.now
    gc.collect()


def test_reload_continues_in_a_restarted_loop(clock):
    @hotset.cached(ttl=10, stale_while_revalidate=10**6, timer=clock)
    async def function(x):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return clock.now

    loop = asyncio.new_event_loop()
    loop.run_until_complete(function(1))
    clock.advance(20)
    before = clock.now - 20
    while (found := loop.run_until_complete(function(1))) == before:
        pass
    assert found == clock.now and function.cache_info().misses == 1
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("queued", [False, True], ids=["running", "queued"])
def test_child_forked_during_a_reload_reloads_itself(queued):
    """In a process of its own, with one thread that reloads."""
    code = f"""
import hotset, os, threading, time, warnings
warnings.simplefilter("ignore")
hotset.set_reload_threads(1)
now, go, inside = [0.0], threading.Event(), threading.Event()
parent = os.getpid()

@hotset.cached(ttl=10, stale_while_revalidate=10**6, timer=lambda: now[0])
def f(x):
    if now[0] and os.getpid() == parent:
        inside.set()
        go.wait()
    return now[0]

key = 2 if {queued} else 1
f(1), f(2)
now[0] = 20.0
f(1)
inside.wait()
f(2)
child = os.fork()
if child == 0:
    while f(key) != 20.0:
        time.sleep(0.001)
    os._exit(0)
go.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
while (f(1), f(2)) != (20.0, 20.0):
    time.sleep(0.001)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_child_forked_during_an_async_reload_reloads_itself(clock):
    @hotset.cached(ttl=10, stale_while_revalidate=10**6, timer=clock)
    async def function(x):
        await asyncio.sleep(0)
        return clock.now

    async def main():
        await function(1)
        clock.advance(20)
        assert await function(1) == clock.now - 20
        # (The child leaves this loop, without a word to it.)
        child = os.fork()
        if child:
            return child
        os._exit(0 if in_child() == clock.now else 1)

    def in_child():
        found = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(function(1))))
        thread.start()
        thread.join()
        return found[0]

    child = asyncio.run(main())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_stacked_caches_are_the_outer_ones():
    calls = []

    @hotset.cached(ttl=1, name="outer")
    @hotset.cached(ttl=60)
    async def function(x):
        calls.append(x)
        return len(calls)

    async def main():
        assert function.cache_parameters()["ttl"] == 1
        await function(1)
        await function(1)
        assert function.cache_info()[:2] == (1, 1) and function.__wrapped__.cache_info()[:2] == (0, 1)
        function.cache_set("mine", 2)
        assert not function.__wrapped__.cache_contains(2) and function.cache_contains(2)
        assert await function(2) == "mine"
        assert function.cache_invalidate(1) is True
        assert await function(1) == 2
        function.cache_clear()
        assert function.cache_info().currsize == function.__wrapped__.cache_info().currsize == 0
        assert await function(1) == 3

    asyncio.run(main())


def test_stacked_sync_caches_are_the_outer_ones():
    calls = []

    @hotset.cached(ttl=1)
    @hotset.cached(ttl=60)
    def function(x):
        calls.append(x)
        return len(calls)

    function(1), function(1)
    assert function.cache_info()[:2] == (1, 1) and function.__wrapped__.cache_info()[:2] == (0, 1)
    assert function.cache_invalidate(1) is True and function(1) == 2
    function.cache_clear()
    assert function(1) == 3
