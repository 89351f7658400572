"""`hotset.django`: what Django's own tests do not test in a backend."""

import asyncio
import datetime
import decimal
import enum
import fractions
import io
import os
import threading
import warnings
from unittest import mock

import django_project  # noqa: F401
import pytest
from django.core.cache import CacheHandler, cache, caches
from django.core.cache.backends.base import BaseCache
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import RequestFactory, override_settings
from django.utils.safestring import mark_safe
from hypothesis import given, settings as hypothesis_settings
from hypothesis import strategies as st

import hotset
from hotset.django import HotsetCache

pytestmark = pytest.mark.usefixtures("hotset_clear")


def backend(location="", **params):
    return HotsetCache(location, params)


def together(count, call):
    """Calls from `count` threads that begin at the same time; returns the results."""
    barrier = threading.Barrier(count)
    results = []

    def run(n):
        barrier.wait()
        results.append(call(n))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# --- Instances.


def test_instances_of_a_location_share_an_engine():
    engines = {id(backend().engine) for _ in range(1000)}
    engines.update(together(10, lambda _: id(caches["default"].engine)))
    assert len(engines) == 1


def test_tasks_share_an_engine():
    async def seen():
        await cache.aset("by", "a task")
        return id(caches["default"]), id(caches["default"].engine)

    async def main():
        return await asyncio.gather(*(asyncio.create_task(seen()) for _ in range(50)))

    seen_by = asyncio.run(main())
    assert len({engine for _, engine in seen_by}) == 1
    assert cache.get("by") == "a task"


def test_locations_are_separate():
    backend("a").set("key", 1)
    assert backend("b").get("key") is None
    assert {"django:a", "django:b"} <= set(hotset.caches())


def test_first_bound_of_a_location_decides():
    first = backend("bounded", OPTIONS={"MAX_ENTRIES": 10})
    with pytest.warns(UserWarning, match="maxsize=10"):
        second = backend("bounded", OPTIONS={"MAX_ENTRIES": 20})
    assert first.engine is second.engine
    assert second.engine.maxsize == 10


def test_bound_holds():
    bounded = backend("small", OPTIONS={"MAX_ENTRIES": 10})
    for n in range(1000):
        bounded.set(n, n)
    assert len(bounded.engine) <= 10
    assert backend("unbounded", OPTIONS={"MAX_ENTRIES": None}).engine.maxsize is None


# --- Keys.


def test_get_many_of_keys_that_are_one():
    cache.set("1", "a")
    assert cache.get_many([1, "1", 2]) == {1: "a", "1": "a"}


class Key(str, enum.Enum):
    A = "a"


@pytest.mark.parametrize("key", ["plain", 7, 1.5, b"bytes", None, Key.A, mark_safe("safe"), "with space", "tab\t", "x" * 260, "\x7f", "清"])
@pytest.mark.parametrize("version", [None, 3])
def test_keys_and_warnings_are_those_of_django(key, version):
    tested = backend(KEY_PREFIX="p")
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        made = BaseCache.make_and_validate_key(tested, key, version=version)
    for call in (lambda: tested.set(key, 1, version=version), lambda: tested.get(key, version=version)):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            call()
        assert [str(w.message) for w in found] == [str(w.message) for w in expected]
    assert list(tested.engine) == [made]


@hypothesis_settings(deadline=None)
@given(st.text(max_size=300))
def test_key_checks_agree_with_django(key):
    tested = backend()
    with mock.patch.object(tested, "validate_key") as validate:
        tested.has_key(key)
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        BaseCache.validate_key(tested, f":1:{key}")
    # (What is not printable in another way is validated too, and passes.)
    assert validate.called or not expected


def test_subclass_with_keys_of_its_own_is_heeded():
    class Upper(HotsetCache):
        def make_key(self, key, version=None):
            return super().make_key(key, version).upper()

    upper = Upper("", {})
    upper.set("key", 1)
    assert upper.get("key") == 1
    assert list(upper.engine) == [":1:KEY"]


def test_changed_prefix_version_and_function_are_heeded():
    tested = backend()
    tested.set("key", 1)
    tested.key_prefix = "other"
    assert tested.get("key") is None
    tested.key_prefix, tested.version = "", 2
    assert tested.get("key") is None
    tested.version = 1
    assert tested.get("key") == 1
    tested.key_func = lambda key, prefix, version: f":1:{key}-"
    assert tested.get("key") is None


# --- Values.


@pytest.mark.parametrize("value", ["text", b"bytes", 2**70, 1.5, 2j, None, True, (1, ("a", None)), decimal.Decimal("1.2"), datetime.date.min])
def test_immutable_value_is_stored_unchanged(value):
    cache.set("key", value)
    assert cache.get("key") is value


class Text(str):
    pass


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, ([],), (1, [2]), Text("a"), bytearray(b"a"), fractions.Fraction(1, 3)])
def test_other_value_is_copied(value):
    cache.set("key", value)
    first, second = cache.get("key"), cache.get("key")
    assert first == value and type(first) is type(value)
    assert first is not value and first is not second


def test_callers_do_not_see_changes_of_others():
    held = {"a": [1]}
    cache.set("key", held)
    held["a"].append(2)
    cache.get("key")["a"].append(3)
    cache.get_or_set("key", dict)["a"].append(4)
    cache.get_many(["key"])["key"]["a"].append(5)
    assert cache.get("key") == {"a": [1]}
    assert cache.get_or_set("made", lambda: held) is not held


def test_copy_none_returns_the_same_object():
    tested = backend("objects", OPTIONS={"copy": "none"})
    held, lock = {"a": 1}, threading.Lock()
    tested.set("key", held)
    assert tested.get("key") is held
    assert tested.get_or_set("lock", lambda: lock) is lock


# --- Timeouts.


def left(tested, key):
    return tested.engine.remaining(tested.make_key(key))


def test_timeouts():
    tested = backend("times", TIMEOUT=60)
    tested.set("default", 1)
    tested.set("given", 1, 5.5)
    tested.set("never", 1, None)
    tested.set("long", 1, 60 * 60 * 24 * 60)
    assert 50 < left(tested, "default") <= 60
    assert 5 < left(tested, "given") <= 5.5
    assert left(tested, "never") is None
    assert left(tested, "long") > 60 * 60 * 24 * 59
    assert left_of_default(None) is None
    assert left_of_default("60") <= 60


def left_of_default(timeout):
    tested = backend("times", TIMEOUT=timeout)
    tested.set("key", 1)
    return left(tested, "key")


@pytest.mark.parametrize("timeout", [0, -1, -0.5, 0.0])
def test_passed_timeout_removes(timeout):
    cache.set("key", 1)
    assert cache.add("key", 2, timeout) is False
    cache.set("key", 2, timeout)
    assert not cache.has_key("key")
    assert cache.add("key", 2, timeout) is True
    assert not cache.has_key("key")
    cache.set("key", 1)
    assert cache.touch("key", timeout) is True
    assert cache.touch("key", timeout) is False
    assert cache.get_or_set("key", lambda: 7, timeout) == 7
    assert not cache.has_key("key")


@pytest.mark.parametrize("timeout", ["5", object(), float("nan")])
def test_wrong_timeout_raises(timeout):
    for call in (cache.set, cache.add, lambda key, _, timeout: cache.touch(key, timeout)):
        with pytest.raises((TypeError, ValueError), match="ttl must be a number"):
            call("key", 1, timeout)


def test_touch_without_a_timeout_gives_the_default():
    tested = backend("touched", TIMEOUT=60)
    tested.set("key", [1], None)
    assert tested.touch("key")
    assert left(tested, "key") <= 60
    assert tested.get("key") == [1]


def test_incr_keeps_the_timeout():
    tested = backend("counters")
    tested.set("n", 1, 20)
    tested.set("never", fractions.Fraction(1, 2), None)
    assert tested.incr("n", 5) == 6
    assert left(tested, "n") <= 20
    assert tested.decr("never") == fractions.Fraction(-1, 2)
    assert left(tested, "never") is None


def test_incr_is_atomic():
    cache.set("n", 0)
    together(8, lambda _: [cache.incr("n") for _ in range(200)])
    assert cache.get("n") == 1600


def test_incr_version_keeps_the_timeout():
    tested = backend("versions")
    tested.set("key", [1], 20)
    assert tested.incr_version("key") == 2
    tested.version = 2
    assert left(tested, "key") <= 20
    assert tested.incr_version("key", 0) == 2
    assert tested.get("key") == [1]


# --- Loads.


def test_get_or_set_of_threads_calls_once():
    calls = []
    inside = threading.Event()

    def default():
        calls.append(1)
        inside.wait()
        return {"a": 1}

    def call(n):
        if n == 0:
            # The others are in their calls, or will find the value.
            threading.Timer(0.05, inside.set).start()
        return cache.get_or_set("key", default)

    results = together(16, call)
    assert results == [{"a": 1}] * 16
    assert len({id(result) for result in results}) == 16
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_aget_or_set_of_tasks_calls_once(kind):
    calls = []

    def function():
        calls.append(1)
        return [1]

    async def coroutine():
        await asyncio.sleep(0)
        return function()

    async def main():
        default = function if kind == "function" else coroutine
        return await asyncio.gather(*(cache.aget_or_set("key", default) for _ in range(50)))

    assert asyncio.run(main()) == [[1]] * 50
    assert len(calls) == 1


def test_get_or_set_raises_the_defaults_exception():
    def fail():
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        cache.get_or_set("key", fail)
    assert cache.get_or_set("key", lambda: 1) == 1


def test_async_methods_are_native():
    async def main():
        with mock.patch("asgiref.sync.SyncToAsync.__call__", side_effect=AssertionError):
            assert await cache.aadd("a", 1) is True
            await cache.aset("b", 2)
            assert await cache.aget("b") == 2
            assert await cache.atouch("b") is True
            assert await cache.ahas_key("b") is True
            assert await cache.aget_many(["a", "b"]) == {"a": 1, "b": 2}
            assert await cache.aset_many({"c": 3}) == []
            assert await cache.aincr("c") == 4
            assert await cache.adecr("c") == 3
            assert await cache.aincr_version("c") == 2
            assert await cache.adecr_version("c", version=2) == 1
            assert await cache.aget_or_set("d", 4) == 4
            assert await cache.adelete("d") is True
            await cache.adelete_many(["c"])
            await cache.aclear()
            await cache.aclose()

    asyncio.run(main())
    own = {name for name in vars(BaseCache) if name[0] == "a" and name[1:] in vars(BaseCache)}
    assert own <= set(vars(HotsetCache))


def test_profile_advises():
    profiled = backend("advised", OPTIONS={"MAX_ENTRIES": 100, "profile": True})
    for n in range(10_000):
        profiled.get_or_set(str(n % 150), n)
    advice = profiled.advise()
    assert advice.capacity == 100 and advice.doubt is None and str(advice).startswith("Make it larger")
    with pytest.raises(RuntimeError, match="not profiled"):
        backend("not advised").advise()


def test_autosize_follows_the_traffic():
    sized = backend("autosized", OPTIONS={"autosize": [50, 5_000, 0.95], "MAX_ENTRIES": 100})
    for n in range(60_000):
        sized.get_or_set(str(n % 800), n)
    assert 700 <= sized.engine.stats().capacity <= 5_000
    assert backend("autosized small", OPTIONS={"autosize": [50, 500, 0.95]}).engine.stats().capacity == 500


# --- Settings.


@pytest.mark.parametrize(
    ("location", "params", "text"),
    [
        (["a"], {}, "LOCATION must be a string"),
        ("redis://localhost", {}, "no server is used"),
        ("", {"TIMEOUT": "soon"}, "TIMEOUT must be a number of seconds, or None for no expiration, not 'soon'"),
        ("", {"TIMEOUT": True}, "TIMEOUT must be"),
        ("", {"TIMEOUT": float("nan")}, "TIMEOUT must be"),
        ("", {"OPTIONS": ["a"]}, "OPTIONS must be a dict"),
        ("", {"OPTIONS": {"MAX_ENTRYS": 5}}, "unknown OPTIONS: MAX_ENTRYS; known are CULL_FREQUENCY, MAX_ENTRIES, autosize, copy, jitter, policy, profile"),
        ("", {"OPTIONS": {"MAX_ENTRIES": -1}}, "MAX_ENTRIES must be"),
        ("", {"OPTIONS": {"MAX_ENTRIES": 1.5}}, "MAX_ENTRIES must be"),
        ("", {"OPTIONS": {"copy": "deep"}}, "copy must be one of pickle, none"),
        ("", {"OPTIONS": {"policy": "mru"}}, "policy must be one of"),
        ("", {"OPTIONS": {"jitter": 2}}, "jitter must be"),
        ("", {"OPTIONS": {"profile": "yes"}}, "OPTIONS profile must be a bool, not str"),
        ("", {"OPTIONS": {"profile": True, "MAX_ENTRIES": None}}, "profile needs a bound"),
        ("", {"OPTIONS": {"autosize": [1, 2]}}, "OPTIONS autosize must be (low, high, target)"),
        ("", {"OPTIONS": {"autosize": [1, 20, 0.9], "MAX_ENTRIES": 50}}, "within its bounds, 1 and 20, not 50"),
    ],
)
def test_wrong_setting_is_an_error(location, params, text):
    with pytest.raises(ImproperlyConfigured) as error:
        HotsetCache(location, params)
    assert text in str(error.value)
    assert "a hotset backend at LOCATION" in str(error.value)
    with override_settings(CACHES={"default": {"BACKEND": "hotset.django.HotsetCache", "LOCATION": location, **params}}):
        with pytest.raises(ImproperlyConfigured) as error:
            run_checks(tags=["caches"])
    assert text in str(error.value) and "CACHES['default']" in str(error.value)


@pytest.mark.filterwarnings("ignore:the shared cache")
def test_setting_without_effect_is_a_warning():
    with override_settings(
        CACHES={
            "default": {"BACKEND": "hotset.django.HotsetCache", "MAX_ENTRIES": 5, "OPTIONS": {"CULL_FREQUENCY": 2}},
            "other": {"BACKEND": "hotset.django.HotsetCache", "OPTIONS": {"MAX_ENTRIES": 5}},
            "third": {"BACKEND": "hotset.django.HotsetCache", "LOCATION": "third", "OPTIONS": {"MAX_ENTRIES": 5}},
            "dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        }
    ):
        found = run_checks(tags=["caches"])
    assert [message.id for message in found] == ["hotset.W001", "hotset.W001", "hotset.W002"]


def test_good_settings_pass_the_checks():
    assert run_checks() == []


# --- The command.


def said(*arguments, **options):
    out = io.StringIO()
    call_command("hotset", *arguments, stdout=out, **options)
    return out.getvalue()


def test_command():
    for _ in range(5):
        cache.get_or_set("hot", lambda: 1)
    cache.set("cold", 2)
    assert "default: 2 entries of 10,000, 4 hits, 1 misses (hit ratio 80.0%)" in said("stats")
    assert said("top", "default", limit=1) == "default: :1:hot\n"
    assert said("clear") == f"default: cleared in process {os.getpid()}; other processes have caches of their own\n"
    assert cache.get("hot") is None
    with pytest.raises(CommandError, match="no alias of hotset: other; there are: default"):
        said("stats", "other")


# --- What stands on the cache.


def test_clear_all_empties_backends():
    cache.set("key", 1)
    hotset.clear_all()
    assert cache.get("key") is None


def test_throttle_of_rest_framework():
    throttling = pytest.importorskip("rest_framework.throttling")

    class Throttle(throttling.SimpleRateThrottle):
        rate = "3/min"
        cache = CacheHandler({"default": {"BACKEND": "hotset.django.HotsetCache"}})["default"]

        def get_cache_key(self, request, view):
            return "throttle"

    request = RequestFactory().get("/")
    assert [Throttle().allow_request(request, None) for _ in range(5)] == [True, True, True, False, False]


def test_ratelimit():
    core = pytest.importorskip("django_ratelimit.core")
    request = RequestFactory().get("/")
    limited = [core.is_ratelimited(request, group="g", key="ip", rate="3/m", increment=True) for _ in range(5)]
    assert limited == [False, False, False, True, True]
    assert core.get_usage(request, group="g", key="ip", rate="3/m")["count"] == 5
