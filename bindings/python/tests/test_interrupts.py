"""Exceptions that end a program, raised by code that a cache calls: they leave the call."""

import asyncio
import os
import signal
import sys

import pytest

import hotset


class Stop(BaseException):
    """No Exception, and none of Python's own."""


ERRORS = [KeyboardInterrupt, SystemExit, Stop]


@pytest.fixture
def ignored(monkeypatch):
    """What was reported and ignored."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: reported.append(told.exc_type))
    return reported


def raising(error, times=1):
    left = [times]

    def callback(*_):
        if left[0]:
            left[0] -= 1
            raise error
        return 1

    return callback


def fill(cache):
    for n in range(3):
        cache[n] = n


def cached_calls(function):
    for n in range(3):
        function(n)


MAPPING = {
    "set": lambda cache: fill(cache),
    "set_with_ttl": lambda cache: (cache.set_with_ttl(1, 1, 5), cache.set_with_ttl(2, 2, 5)),
    "del": lambda cache: (cache.__setitem__(1, 1), cache.__delitem__(1)),
    "pop": lambda cache: (cache.__setitem__(1, 1), cache.pop(1)),
    "clear": lambda cache: (cache.__setitem__(1, 1), cache.clear()),
    "replace": lambda cache: (cache.__setitem__(1, 1), cache.__setitem__(1, 2)),
    "compute": lambda cache: (cache.__setitem__(1, 1), cache.compute(1, lambda value: 2)),
    "get_or_load": lambda cache: [cache.get_or_load(n, lambda key: key) for n in range(3)],
    "resize": lambda cache: (cache.__setitem__(1, 1), cache.resize(0)),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", MAPPING)
def test_error_of_a_listener_leaves_the_call(call, error, ignored):
    cache = hotset.Cache(1, policy="lru", on_removal=raising(error))
    with pytest.raises(error):
        MAPPING[call](cache)
    assert not ignored
    # It is raised once, and the cache works.
    fill(cache)
    assert len(cache) <= 1


@pytest.mark.parametrize("error", ERRORS)
def test_error_of_a_function_s_listener_leaves_the_call(error, ignored):
    function = hotset.cached(maxsize=1, policy="lru", on_removal=raising(error))(lambda x: x)
    with pytest.raises(error):
        cached_calls(function)
    cached_calls(function)
    assert not ignored and function(2) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", ERRORS)
def test_interrupt_of_an_async_listener_propagates(error, ignored):
    @hotset.cached(maxsize=1, policy="lru", on_removal=raising(error))
    async def function(x):
        return x

    loop = asyncio.new_event_loop()
    with pytest.raises(error):
        for n in range(3):
            loop.run_until_complete(function(n))
    # (An event loop that such an exception has left is of no more use.)
    assert asyncio.run(function(1)) == 1 and not ignored
    loop.close()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("setting", ["weigher", "timer"])
def test_error_of_a_weigher_or_timer_leaves_the_call(setting, error, ignored):
    callback = raising(error, times=0)
    settings = {"weigher": {"max_weight": 3}, "timer": {"ttl": 5}}[setting]
    cache = hotset.Cache(**settings, **{setting: callback})
    callback.__closure__[1].cell_contents[0] = 1
    with pytest.raises(error):
        cache[1] = 1
    cache[1] = 1
    assert cache[1] == 1 and not ignored


def test_interrupt_is_raised_after_other_listeners(ignored):
    seen = []

    def listener(key, value, cause):
        seen.append(key)
        if key == 1:
            raise KeyboardInterrupt
        if key == 2:
            raise SystemExit

    cache = hotset.Cache(10, on_removal=listener)
    for n in range(5):
        cache[n] = n
    with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
        cache.clear()
    assert sorted(seen) == [0, 1, 2, 3, 4]
    # One exception is all that a call can raise.
    assert {raised.type, *ignored} == {KeyboardInterrupt, SystemExit} and len(ignored) == 1


def test_exception_of_a_listener_is_reported(ignored):
    cache = hotset.Cache(1, policy="lru", on_removal=raising(ValueError))
    fill(cache)
    assert ignored == [ValueError] and list(cache) == [2]


def test_interrupt_precedes_an_error_of_the_call(ignored):
    cache = hotset.Cache(10, on_removal=raising(KeyboardInterrupt))

    def load(key):
        del cache["other"]
        raise ValueError

    def listener_and_error():
        cache["other"] = 1
        cache.get_or_load(1, load)

    with pytest.raises(KeyboardInterrupt):
        listener_and_error()
    assert not ignored


def test_signal_during_a_listener_leaves_the_call():
    def listener(*_):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

    cache = hotset.Cache(1, policy="lru", on_removal=listener)
    cache[1] = 1
    with pytest.raises(KeyboardInterrupt):
        cache[2] = 2
