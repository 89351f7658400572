"""Greenlets share the stack of a thread: waiting for another greenlet's load must not block it."""

import asyncio
import subprocess
import sys
import threading

import pytest

import hotset

greenlet = pytest.importorskip("greenlet")


@pytest.fixture
def paused():
    """A function that switches to the first greenlet while it runs, and the greenlets in which it
    does.
    """
    first = greenlet.getcurrent()
    calls = []

    def function(key):
        calls.append(key)
        first.switch()
        return len(calls)

    return function, calls


def begin(function, *args):
    """A greenlet that has begun to call the function."""
    started = greenlet.greenlet(lambda: function(*args))
    started.switch()
    return started


WAYS = {
    "cached": lambda function: hotset.cached(function),
    "cached, key": lambda function: hotset.cached(key=lambda key: key)(function),
    "get_or_load": lambda function: (lambda cache: lambda key: cache.get_or_load(key, function))(hotset.Cache(10)),
}


@pytest.mark.parametrize("way", WAYS)
def test_second_greenlet_loads_for_itself(paused, way):
    function, calls = paused
    cached = WAYS[way](function)
    one = begin(cached, 1)
    two = begin(cached, 1)
    assert calls == [1, 1]
    assert two.switch() == 2
    assert one.switch() == 2
    # The load that began first is the one that is kept.
    assert begin(cached, 1).dead and calls == [1, 1]


@pytest.mark.parametrize("way", WAYS)
def test_first_greenlet_loads_beside_another_ones_load(paused, way):
    function, calls = paused
    cached = WAYS[way](lambda key: function(key) if greenlet.getcurrent().parent else "main's")
    one = begin(cached, 1)
    assert cached(1) == "main's" and calls == [1]
    one.switch()
    assert one.dead


@pytest.mark.parametrize("way", WAYS)
def test_greenlet_load_of_its_own_key_is_an_error(way):
    cached = WAYS[way](lambda key: cached(key))
    found = []

    def run():
        try:
            cached(1)
        except RuntimeError as error:
            found.append(str(error))

    begin(run)
    run()
    assert len(found) == 2


def test_load_begun_before_greenlets_is_the_first_ones():
    """In a process of its own, where nothing has imported greenlet."""
    code = """
import hotset

@hotset.cached
def f(x):
    import greenlet
    return f(x)

try:
    f(1)
except RuntimeError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "called itself" in ended.stdout, ended


def test_greenlet_is_noticed_in_place_of_another_module():
    """In a process of its own: there are as many modules as at the last miss."""
    code = """
import sys
import greenlet, hotset

@hotset.cached
def f(x):
    return main.switch() if x == 2 else x

main = greenlet.getcurrent()
module = sys.modules.pop("greenlet")
f(0)
sys.modules["another"] = sys
f(1)
del sys.modules["another"]
sys.modules["greenlet"] = module
for _ in range(2):
    greenlet.greenlet(lambda: f(2)).switch()
print("two greenlets load")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "two greenlets load\n", ended


@pytest.mark.parametrize("way", WAYS)
def test_greenlet_does_not_wait_for_another_thread(way):
    inside, go = threading.Event(), threading.Event()

    def function(key):
        if threading.current_thread() is leader:
            inside.set()
            go.wait()
        return threading.current_thread() is leader

    cached = WAYS[way](function)
    leader = threading.Thread(target=cached, args=(1,))
    leader.start()
    inside.wait()
    # Would block the hub, if this thread had one.
    assert greenlet.greenlet(lambda: cached(1)).switch() is False
    go.set()
    leader.join()
    assert cached(1) is True


HUBS = {
    "gevent": """
import gevent
gevent.get_hub()
""",
    "eventlet": """
import warnings
warnings.simplefilter("ignore")
import eventlet
eventlet.sleep(0)
""",
    "no hub": "import greenlet",
}

# A thread loads, until the first greenlet of another thread has looked up the same key.
FIRST_GREENLET = """
import hotset, sys, threading

inside, looked_up = threading.Event(), threading.Event()

def load(key):
    if threading.current_thread() is leader:
        inside.set()
        # (Where that waits for this load, it is not notified.)
        looked_up.wait(2)
        return "of the thread"
    return "its own"

cached = hotset.cached(load)
cache = hotset.Cache(10)
for call in (cached, lambda key: cache.get_or_load(key, load)):
    inside.clear(), looked_up.clear()
    leader = threading.Thread(target=call, args=(1,))
    leader.start()
    inside.wait()
    print(call(1))
    looked_up.set()
    leader.join()
"""


@pytest.mark.parametrize("library", HUBS)
def test_first_greenlet_without_a_hub_waits_for_a_thread(library):
    """In a process of its own, since a hub stays with its thread."""
    if library != "no hub":
        pytest.importorskip(library)
    ended = subprocess.run([sys.executable, "-c", HUBS[library] + FIRST_GREENLET], capture_output=True, text=True)
    found = "of the thread" if library == "no hub" else "its own"
    assert ended.stdout == f"{found}\n" * 2, ended


def test_greenlet_that_is_killed_abandons_its_load(paused):
    function, calls = paused
    cached = hotset.cached(function)
    begin(cached, 1).throw()
    two = begin(cached, 1)
    assert two.switch() == 2 and calls == [1, 1]


def test_failed_load_of_a_greenlet_is_its_own(paused):
    function, calls = paused

    @hotset.cached
    def cached(key):
        function(key)
        raise ValueError(len(calls))

    def call():
        try:
            cached(1)
        except ValueError as error:
            return error

    one, two = begin(call), begin(call)
    assert two.switch() is not one.switch()


def test_gevent_workers_share_a_cache():
    """In a process of its own, since gevent replaces what others use."""
    pytest.importorskip("gevent")
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, hotset, time

calls = []

@hotset.cached(ttl=60)
def f(x):
    calls.append(x)
    time.sleep(0.01)
    return x

cache = hotset.Cache(10)

def load(key):
    gevent.sleep(0.01)
    return key

def work(n):
    return f(n % 3), cache.get_or_load(n % 3, load)

jobs = [gevent.spawn(work, n) for n in range(30)]
gevent.joinall(jobs, raise_error=True)
assert [job.value for job in jobs] == [(n % 3, n % 3) for n in range(30)]
before = len(calls)
assert work(1) == (1, 1) and len(calls) == before
pool = gevent.get_hub().threadpool
assert pool.apply(work, (4,)) == (1, 1)
print("fine")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.stdout == "fine\n", ended


def test_sqlalchemy_greenlets_share_a_cache():
    concurrency = pytest.importorskip("sqlalchemy.util.concurrency")
    spawn, await_only = concurrency.greenlet_spawn, concurrency.await_only
    calls = []

    @hotset.cached
    def f(x):
        calls.append(x)
        await_only(asyncio.sleep(0.01))
        return x

    async def main():
        assert await asyncio.gather(*(spawn(f, 1) for _ in range(5))) == [1] * 5
        before = len(calls)
        assert await spawn(f, 1) == 1 and len(calls) == before

    asyncio.run(main())


def test_advice_counts_calls_that_switch_greenlets():
    def switching(n):
        parent.switch(n)
        return n

    parent = greenlet.getcurrent()
    with hotset.advise() as advice:
        for _ in range(30):
            others = [greenlet.greenlet(switching) for _ in range(5)]
            for n, other in enumerate(others):
                other.switch(n)
            for other in others:
                other.switch()
    [found] = [finding for finding in advice.findings if finding.function.endswith("switching")]
    assert (found.calls, found.distinct, found.same) == (150, 5, found.repeats)
    assert found.repeats > 0
