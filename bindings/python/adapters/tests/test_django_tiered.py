"""`hotset.django.TieredCache`: what Django's own tests do not test in a backend."""

import asyncio
import datetime
import decimal
import fractions
import pickle
import sys
import threading
import uuid
import warnings
from unittest import mock

import pytest
from tiered_project import armed, backend, cache, default, keys_of_values, left, name, server, shared_server, together  # noqa: F401  # isort: skip
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.test import RequestFactory, override_settings
from servers import wait_until

from hotset.django import TieredCache, _tier
from hotset.tier2 import _many, _run

# --- Instances and keys.


def test_instances_share_an_engine(backend):
    assert len({id(backend().tier) for _ in range(100)}) == 1
    engines = together(10, lambda _: id(backend().tier))
    assert set(engines) == {id(backend().tier)}



def test_tasks_share_an_engine(default):
    async def seen(n):
        await caches["default"].aset(n, n)
        return id(caches["default"]), id(caches["default"].tier)

    async def main():
        found = await asyncio.gather(*(asyncio.create_task(seen(n)) for n in range(50)))
        return found, await caches["default"].aget_many(range(50))

    found, values = asyncio.run(main())
    assert len({engine for _, engine in found}) == 1
    assert values == {n: n for n in range(50)}


def test_prefixes_and_names_are_separate(backend):
    one, prefixed, named = backend(), backend(prefix="other"), backend(name="other")
    one.set("key", 1)
    assert prefixed.get("key") is named.get("key") is None
    prefixed.set("key", 2)
    named.set("key", 3)
    named.clear()
    assert (one.get("key"), prefixed.get("key"), named.get("key")) == (1, 2, None)


def test_aliases_of_other_settings_see_changes(backend):
    """They have one connection, so a change is seen as soon as the call has returned."""
    large, small = backend(MAX_ENTRIES=1000), backend(MAX_ENTRIES=5, local_ttl=1)
    assert large.tier is not small.tier and large.server is small.server
    large.set("key", 1)
    assert small.get("key") == 1
    large.set("key", 2)
    assert small.get("key") == 2
    small.delete("key")
    assert large.get("key") is None


@pytest.mark.parametrize("key", ["plain", 7, 1.5, b"bytes", None, "with space", "tab\t", "x" * 260, "\x7f", "清", "a{b}c%"])
@pytest.mark.parametrize("version", [None, 3])
def test_keys_and_warnings_are_those_of_django(key, version, backend):
    tested, other = backend(KEY_PREFIX="p"), backend(KEY_PREFIX="p", process=1)
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        BaseCache.make_and_validate_key(tested, key, version=version)
    calls = [
        lambda: tested.set(key, 1, version=version),
        lambda: tested.get(key, version=version),
        lambda: tested.incr(key, version=version),
        lambda: other.get_many([key], version=version),
        lambda: tested.delete(key, version=version),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            result = call()
        assert [str(w.message) for w in found] == [str(w.message) for w in expected]
        if isinstance(result, dict):
            assert result == {key: 2}


def test_key_function_is_heeded(backend):
    tested = backend(KEY_FUNCTION=lambda key, prefix, version: f"{version}/{key}")
    tested.set("key", 1)
    wait_until(lambda: tested.get("key") == 1 and tested.top_keys() == ["1/key"], what="a value in the first tier")


# --- Values.


@pytest.mark.parametrize(
    "value",
    ["text", b"bytes", 2**70, 1.5, 2j, None, True, (1, ("a", None)), decimal.Decimal("1.2"), datetime.date.min, uuid.UUID(int=7)]
    + ["\ud800", float("inf"), datetime.timedelta(1), ""],
)
def test_immutable_value_round_trips(value, backend):
    one, other = backend(), backend(process=1)
    one.set("key", value)
    for each in (one, other):
        found = each.get("key")
        assert found == value and type(found) is type(value)
    if type(value) is not complex:
        wait_until(lambda: other.get("key") is other.get("key"), what="a value in the first tier")


class Text(str):
    pass


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, ([],), (1, [2]), Text("a"), bytearray(b"a"), fractions.Fraction(1, 3)])
def test_other_value_is_copied(value, backend):
    one, other = backend(), backend(process=1)
    one.set("key", value)
    for each in (one, other):
        first, second = each.get("key"), each.get("key")
        assert first == value and type(first) is type(value)
        assert first is not value and first is not second


def test_callers_do_not_see_changes_of_others(cache):
    held = {"a": [1]}
    cache.set("key", held)
    held["a"].append(2)
    cache.get("key")["a"].append(3)
    cache.get_or_set("key", dict)["a"].append(4)
    cache.get_many(["key"])["key"]["a"].append(5)
    assert cache.get("key") == {"a": [1]}
    assert cache.get_or_set("made", lambda: held) is not held


def test_copy_none_returns_the_same_object(backend):
    tested, other = backend(copy="none"), backend(copy="none", process=1)
    held = {"a": 1}
    tested.set("key", held)
    for each in (tested, other):
        assert each.get("key") == held
        wait_until(lambda each=each: each.get("key") is each.get("key"), what="a value in the first tier")


def test_first_tier_is_profiled_and_sized(backend):
    sized = backend(autosize=[50, 500, 0.95])
    for n in range(6_000):
        sized.get_or_set(str(n % 40), n)
    assert sized.advise().capacity == 500


@pytest.mark.parametrize("codec", ["values", "json"])
def test_other_codecs(codec, backend):
    one, other = backend(codec=codec), backend(codec=codec, process=1)
    one.set("key", {"a": [1, None, "b"]})
    assert other.get("key") == {"a": [1, None, "b"]}
    for call in (one.set, one.add):
        with pytest.raises(TypeError):
            call("key", fractions.Fraction(1, 2))


def test_unpicklable_value_raises(cache):
    for call in (cache.set, cache.add):
        with pytest.raises((pickle.PickleError, AttributeError, TypeError)):
            call("key", lambda: 1)
    with pytest.raises((pickle.PickleError, AttributeError, TypeError)):
        cache.set_many({"good": 1, "key": threading.Lock()})


def test_value_that_is_too_large_stays_in_the_process(backend):
    small, other = backend(max_value=1000), backend(max_value=1000, process=1)
    small.set("key", "old")
    assert other.get("key") == "old"

    def is_kept() -> bool:
        assert small.set_many({"key": "x" * 2000, "small": 1}) == ["key"]
        # The server announces the removal of the old value to this process, too. An announcement
        # that arrives after the call removes the value that the call has kept.
        return small.get("key") == "x" * 2000

    wait_until(is_kept, what="a value that is kept")
    wait_until(lambda: other.get("key") is None, what="the announcement")
    assert other.get("small") == 1
    with pytest.raises(ValueError, match="max_value is 1000"):
        small.add("large", "x" * 2000)


# --- Signatures.


class Trap:
    """A value whose pickle runs code."""

    sprung = 0

    def __reduce__(self):
        return setattr, (Trap, "sprung", 1)


def test_planted_value_is_not_decoded(server, backend):
    one, other = backend(), backend(process=1)
    one.set("key", ["value"])
    (key,) = keys_of_values(server)
    frame = server.ask("GET", key)
    at = frame.index(pickle.dumps(["value"], 5))
    planted = frame[:at] + pickle.dumps(Trap(), 5) + frame[-16:]
    for bad in (planted, planted[:-16], frame[:-1] + bytes((frame[-1] ^ 1,)), b"", b"\x80\x05}."):
        server.ask("SET", key, bad)
        assert other.get("key") is None
        with pytest.raises(ValueError):
            other.incr("key")
    assert Trap.sprung == 0
    server.ask("SET", key, frame)
    assert other.get("key") == ["value"]


def test_value_of_another_key_is_not_taken(server, backend):
    one, other = backend(), backend(process=1)
    one.set_many({"mine": 1, "yours": 2})
    mine, yours = (key for name in (b"mine", b"yours") for key in keys_of_values(server) if name in key)
    server.ask("SET", mine, server.ask("GET", yours))
    assert other.get("mine") is None


def test_programs_with_other_secrets_keep_their_own_values(server, backend):
    one = backend()
    one.set("key", "one's")
    with override_settings(SECRET_KEY="the secret key of another program"):
        other = backend()
        assert other.get("key") is None
        other.set("key", "the other's")
    assert one.get("key") == backend(process=1).get("key") == "one's"
    shared = "a secret that both know"
    backend(sign=shared).set("key", "both's")
    with override_settings(SECRET_KEY="the secret key of another program"):
        assert backend(sign=shared.encode(), process=1).get("key") == "both's"


def test_secret_is_not_on_the_server(server, cache):
    cache.set("key", [1])
    everything = b"".join(server.ask("GET", key) + key for key in server.ask("KEYS", "*"))
    assert settings.SECRET_KEY.encode() not in everything
    assert _tier._derive_key(settings.SECRET_KEY, "sign") not in everything


def test_value_of_a_missing_class_counts_as_absent(backend, caplog):
    one, other = backend(), backend(process=1)
    with mock.patch.object(sys.modules[__name__], "Text", Text):
        one.set("key", Text("a"))
    with mock.patch.object(sys.modules[__name__], "Text", None):
        assert other.get("key", "default") == "default"
        assert other.get_many(["key"]) == {}
        assert other.get_or_set("key", lambda: "made") == "made"
    assert other.get("key") == "made"
    assert "cannot be decoded" in caplog.text


# --- Timeouts.


def test_timeouts(server, backend):
    tested = backend(TIMEOUT=60)
    for timeout, least, most in (
        ((), 50_000, 60_000),
        ((5.5,), 4_000, 5_500),
        ((60 * 60 * 24 * 60,), 60 * 60 * 24 * 59_000, 60 * 60 * 24 * 60_000),
        ((None,), 10**11, 10**12),
    ):
        tested.set("key", 1, *timeout)
        assert least < left(server) <= most
    tested.delete("key")
    backend(TIMEOUT=None).set("key", 1)
    assert left(server) > 10**11
    tested.touch("key")
    assert left(server) <= 60_000
    tested.touch("key", None)
    assert left(server) > 10**11


@pytest.mark.parametrize("timeout", [0, -1, -0.5, 0.0])
def test_passed_timeout_removes(timeout, cache, server):
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
    cache.set_many({"key": 1}, timeout)
    assert keys_of_values(server) == []


@pytest.mark.parametrize("timeout", ["5", object(), float("nan")])
def test_wrong_timeout_raises(timeout, cache):
    for call in (cache.set, cache.add, lambda key, _, timeout: cache.touch(key, timeout)):
        with pytest.raises((TypeError, ValueError), match="ttl must be a number"):
            call("key", 1, timeout)


def test_incr_keeps_the_timeout(server, cache):
    cache.set("n", 1, 20)
    assert cache.incr("n", 5) == 6
    assert left(server) <= 20_000
    assert cache.decr("n", 7) == -1
    assert left(server) <= 20_000
    cache.set("n", fractions.Fraction(1, 2), None)
    assert cache.decr("n") == fractions.Fraction(-1, 2)
    assert left(server) > 10**11


def test_incr_version_keeps_the_timeout(server, cache):
    cache.set("key", [1], 20)
    assert cache.incr_version("key") == 2
    assert cache.get("key") is None and cache.get("key", version=2) == [1]
    assert 10_000 < left(server) <= 20_000
    assert cache.incr_version("key", 0, version=2) == 2
    assert cache.get("key", version=2) == [1]
    cache.set("ever", 1, None)
    cache.incr_version("ever")
    cache.delete("key", version=2)
    assert left(server) > 10**11
    with pytest.raises(ValueError, match="Key 'absent' not found"):
        cache.incr_version("absent")


# --- Requests.


def test_many_keys_are_one_request(backend, monkeypatch):
    cache, other = backend(), backend(process=1)
    armed(cache, other)
    for each in (cache, other):
        # (Generations are known from here on, as are scripts to the server.)
        each.delete_many(["known"])
        each.set("known", 1)
        each.get_many(["known", "absent"])
    sent = []
    send = _run.send
    monkeypatch.setattr(_many, "send", lambda session, need: sent.append(1) or send(session, need))
    data = {f"key{n}": n for n in range(100)}
    assert cache.set_many(data) == []
    # (Generations that are known no longer, as after a pause of the process, are read by one more.)
    assert len(sent) <= 2
    sent.clear()
    assert other.get_many(data) == data
    assert len(sent) <= 1
    sent.clear()
    cache.delete_many(data)
    assert len(sent) == 1
    assert other.get_many([]) == {} and other.set_many({}) == []


def test_set_many_of_much_is_several_requests(cache, backend):
    data = {f"key{n}": "x" * 10_000 for n in range(600)}
    assert cache.set_many(data) == []
    assert backend(process=1).get_many(data) == data


def test_aset_many_and_others_are_native(backend):
    cache = backend()

    async def main():
        with mock.patch("asgiref.sync.SyncToAsync.__call__", side_effect=AssertionError):
            assert await cache.aadd("a", 1) is True
            assert await cache.aadd("a", 1) is False
            assert await cache.aadd("zero", 1, 0) is True
            await cache.aset("b", 2)
            await cache.aset("b", 2, 0)
            assert await cache.aget("b") is None
            await cache.aset("b", 2, tags=["t"])
            assert await cache.aget("b") == 2
            assert await cache.atouch("b") is True
            assert await cache.atouch("absent") is False
            assert await cache.ahas_key("b") is True
            assert await cache.aget_many(["a", "b"]) == {"a": 1, "b": 2}
            assert await cache.ainvalidate_tag("t") is True
            assert await cache.aget("b") is None
            assert await cache.aset_many({"c": 3, "d": [4]}) == []
            assert await cache.aset_many({"d": 4}, 0) == []
            assert await cache.aincr("c") == 4
            assert await cache.adecr("c") == 3
            with pytest.raises(ValueError):
                await cache.aincr("absent")
            assert await cache.aincr_version("c") == 2
            assert await cache.adecr_version("c", version=2) == 1
            with pytest.raises(ValueError):
                await cache.aincr_version("absent")
            assert await cache.aget_or_set("d", 4) == 4
            assert await cache.aget_or_set("none", lambda: None) is None
            assert await cache.aget_or_set("zero", lambda: 5, 0) == 5
            assert await cache.atouch("d", 0) is True
            assert await cache.adelete("d") is False
            assert await cache.adelete("c") is True
            await cache.adelete_many(["a"])
            await cache.aclear()
            await cache.aclose()
        await cache.server.aclose()

    asyncio.run(main())
    own = {name for name in vars(BaseCache) if name[0] == "a" and name[1:] in vars(BaseCache)}
    assert own <= set(vars(TieredCache))


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_aget_or_set_of_tasks_calls_once(kind, cache):
    calls = []

    def function():
        calls.append(1)
        return [1]

    async def coroutine():
        await asyncio.sleep(0)
        return function()

    async def main():
        default = function if kind == "function" else coroutine
        found = await asyncio.gather(*(cache.aget_or_set("key", default) for _ in range(50)))
        await cache.server.aclose()
        return found

    assert asyncio.run(main()) == [[1]] * 50
    assert len(calls) == 1


def test_get_or_set_raises_the_defaults_exception(cache):
    def fail():
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        cache.get_or_set("key", fail)
    assert cache.get_or_set("key", lambda: None) is None
    assert cache.get_or_set("key", lambda: 1) is None


def test_tags(backend):
    cache, tagged = backend(), backend(tags=["all"])
    cache.set("one", 1, tags=["menu"])
    cache.set_many({"two": 2}, tags=("menu", "week"))
    assert cache.get_or_set("three", lambda: 3, tags=["menu"]) == 3
    assert cache.add("four", 4, tags=["week"])
    tagged.set("five", 5, tags=["week"])
    tagged.set("six", 6)
    names = ["one", "two", "three", "four", "five", "six"]
    assert cache.get_many(names) == dict(zip(names, range(1, 7), strict=True))
    assert cache.incr("one") == 2
    assert cache.invalidate_tag("menu")
    assert cache.get_many(names) == {"four": 4, "five": 5, "six": 6}
    assert cache.invalidate_tag("week")
    assert cache.get_many(names) == {"six": 6}
    assert cache.invalidate_tag("all")
    assert cache.get_many(names) == {}
    with pytest.raises(TypeError, match="several strings"):
        cache.set("key", 1, tags="menu")


# --- What stands on the cache.


def test_sessions(default):
    from django.contrib.sessions.backends.cache import SessionStore

    session = SessionStore()
    session["user"] = {"id": 7, "empty": ""}
    session.create()
    again = SessionStore(session.session_key)
    assert again["user"] == {"id": 7, "empty": ""}
    again.cycle_key()
    assert not SessionStore().exists(session.session_key)
    key = again.session_key
    assert SessionStore().exists(key)
    again.flush()
    assert not SessionStore().exists(key)


def test_throttle_of_rest_framework(default):
    throttling = pytest.importorskip("rest_framework.throttling")

    class Throttle(throttling.SimpleRateThrottle):
        rate = "3/min"
        cache = default

        def get_cache_key(self, request, view):
            return "throttle"

    request = RequestFactory().get("/")
    assert [Throttle().allow_request(request, None) for _ in range(5)] == [True, True, True, False, False]


def test_ratelimit(default):
    core = pytest.importorskip("django_ratelimit.core")
    request = RequestFactory().get("/")
    limited = [core.is_ratelimited(request, group="g", key="ip", rate="3/m", increment=True) for _ in range(5)]
    assert limited == [False, False, False, True, True]
    assert core.get_usage(request, group="g", key="ip", rate="3/m")["count"] == 5
