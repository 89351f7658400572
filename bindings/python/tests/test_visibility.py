"""What profilers, tracers, coverage and memory tools see of a cache: what they see of functools."""

import cProfile
import functools
import gc
import inspect
import io
import pstats
import sys
import tracemalloc

import pytest

import hotset

CACHED = {
    "lru_cache": hotset.lru_cache(maxsize=2000),
    "cached": hotset.cached(maxsize=2000),
    "cached with ttl": hotset.cached(maxsize=2000, ttl=60),
    "cached with stale results": hotset.cached(maxsize=2000, ttl=60, stale_if_error=60),
}
cached_by = pytest.mark.parametrize("decorator", CACHED.values(), ids=CACHED.keys())


def in_python(function):
    """A cache written in Python, of whose hits the tools see more: the tests notice that."""
    results = {}

    @functools.wraps(function)
    def wrapper(x):
        if x not in results:
            results[x] = function(x)
        return results[x]

    return wrapper


def check(see, decorator):
    expected = see(functools.lru_cache(maxsize=2000))
    assert expected
    assert see(decorator) == expected
    assert see(in_python) != expected


def profile_of(decorator):
    @decorator
    def function(x):
        return [x]

    profile = cProfile.Profile()
    profile.enable()
    function(1), function(1), function(2)
    profile.disable()
    stats = pstats.Stats(profile, stream=io.StringIO()).stats
    return sorted((name, calls[1]) for (_, _, name), calls in stats.items())


@cached_by
def test_cprofile_counts_misses_only(decorator):
    assert ("function", 2) in profile_of(decorator)
    check(profile_of, decorator)


def traced_by(install, remove):
    def see(decorator):
        events = []

        def trace(frame, event, arg):
            events.append((event, frame.f_code.co_name))
            return trace

        @decorator
        def function(x):
            return [x]

        install(trace)
        try:
            function(1), function(1), function(2)
        finally:
            remove()
        return [event for event in events if event[1] != "see"]

    return see


@cached_by
def test_settrace_sees_lines_of_misses_only(decorator):
    previous = sys.gettrace()
    check(traced_by(sys.settrace, lambda: sys.settrace(previous)), decorator)


@cached_by
def test_setprofile_sees_calls_of_misses_only(decorator):
    previous = sys.getprofile()
    check(traced_by(sys.setprofile, lambda: sys.setprofile(previous)), decorator)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
@cached_by
def test_monitoring_sees_calls_and_lines_as_of_functools(decorator):
    monitoring = sys.monitoring
    events = monitoring.events
    tool = next(tool for tool in range(6) if monitoring.get_tool(tool) is None)

    def see(decorator):
        seen = []

        @decorator
        def function(x):
            return [x]

        def name(callee):
            return "the cache" if callee is function else getattr(callee, "__name__", "?")

        monitoring.use_tool_id(tool, "test_visibility")
        try:
            monitoring.register_callback(tool, events.CALL, lambda code, at, callee, arg: seen.append(("call", name(callee))))
            monitoring.register_callback(tool, events.PY_START, lambda code, at: seen.append(("start", code.co_name)))
            monitoring.register_callback(tool, events.LINE, lambda code, line: seen.append(("line", code.co_name)))
            monitoring.set_events(tool, events.CALL | events.PY_START | events.LINE)
            function(1), function(1), function(2)
            monitoring.set_events(tool, 0)
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)
        return [event for event in seen if event[1] not in ("see", "set_events")]

    check(see, decorator)
    assert see(decorator).count(("call", "the cache")) == 3


@cached_by
def test_tools_find_the_code_of_the_function(decorator):
    @decorator
    def function(x):
        return [x]

    assert inspect.unwrap(function).__code__.co_name == "function"
    assert inspect.getsource(function) == inspect.getsource(function.__wrapped__)


# --- Memory.


def allocated_by(decorator):
    """The bytes and blocks that tracemalloc attributes to the line of the function."""

    @decorator
    def function(x):
        return bytes(1000)

    function(-1)
    line = inspect.getsourcelines(function)[1] + 2
    keys = list(range(10_000, 11_000))
    tracemalloc.start()
    try:
        for key in keys:
            function(key)
        held = tracemalloc.take_snapshot()
        function.cache_clear()
        gc.collect()
        cleared = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()

    def of(snapshot):
        here = [stat for stat in snapshot.statistics("lineno") if (stat.traceback[0].filename, stat.traceback[0].lineno) == (__file__, line)]
        return [(stat.size, stat.count) for stat in here]

    return of(held), of(cleared)


@cached_by
def test_tracemalloc_attributes_results_to_the_function(decorator):
    held, cleared = allocated_by(decorator)
    assert (held, cleared) == allocated_by(functools.lru_cache(maxsize=2000))
    assert held[0][1] == 1000 and cleared == []


class Thing:
    pass


@cached_by
def test_referrers_of_a_result_lead_to_the_cache(decorator):
    @decorator
    def function(key):
        return Thing()

    key = Thing()
    thing = function(key)
    # objgraph's chains and graphs are made of these two.
    assert function in gc.get_referrers(thing) and function in gc.get_referrers(key)
    held = gc.get_referents(function)
    assert any(one is thing for one in held) and any(one is key for one in held)
    assert gc.is_tracked(function)
    function.cache_clear()
    assert function not in gc.get_referrers(thing)
    assert not any(one is thing for one in gc.get_referents(function))


def test_referrers_of_a_value_lead_to_the_mapping():
    cache, thing = hotset.Cache(100), Thing()
    cache["key"] = thing
    assert any(referrer is cache for referrer in gc.get_referrers(thing))
    assert any(held is thing for held in gc.get_referents(cache))
    del cache["key"]
    assert not any(held is thing for held in gc.get_referents(cache))


def test_referents_are_those_that_are_held():
    things = [Thing() for _ in range(100)]
    for decorate in (functools.lru_cache, hotset.lru_cache):

        @decorate(maxsize=10)
        def function(n):
            return things[n]

        for n in range(100):
            function(n)
        held = [one for one in gc.get_referents(function) if isinstance(one, Thing)]
        assert len(held) == 10 and set(held) == set(things[90:])
