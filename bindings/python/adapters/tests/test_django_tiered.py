"""`hotset.django.TieredCache`: what Django's own tests do not ask a backend, among processes and with servers that fail."""

import asyncio
import datetime
import decimal
import fractions
import io
import os
import pickle
import subprocess
import sys
import threading
import uuid
import warnings
from pathlib import Path
from unittest import mock

import django_project  # noqa: F401
import pytest
from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import RequestFactory, override_settings

pytest.importorskip("redis", reason="the second tier needs redis-py")

import servers  # noqa: E402
from servers import wait_until  # noqa: E402

from hotset.django import HotsetCache, TieredCache, ainvalidate_on_commit, invalidate_on_commit  # noqa: E402
from hotset.tier2 import Unavailable, _many, _operations  # noqa: E402

if not servers.HAS_REDIS:
    pytest.skip("there is no redis-server: make tools-redis", allow_module_level=True)

# (Tests that expect every operation to be confirmed must not fail on a busy machine.)
PATIENT = {"timeout": 5.0, "connect_timeout": 5.0}
BACKEND = "hotset.django.TieredCache"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    with servers.Server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """A running server, empty, for tests that leave it running."""
    shared_server.ask("FLUSHALL")
    return shared_server


@pytest.fixture
def backend(server):
    """Makes a backend. With another `process`, it sees what the others do as one of another process would."""
    made = []

    def make(url=server.url, process=0, patient=True, KEY_PREFIX="", **options):
        # (An option that does nothing here, and tells the connections apart.)
        options = {**(PATIENT if patient else {}), "max_loads": 1000 + process, **options}
        params = {name: options.pop(name) for name in ("TIMEOUT", "VERSION", "KEY_FUNCTION") if name in options}
        made.append(TieredCache(url, {**params, "KEY_PREFIX": KEY_PREFIX, "OPTIONS": options}))
        return made[-1]

    yield make
    for each in made:
        each.server.close()


@pytest.fixture
def cache(backend):
    return backend()


@pytest.fixture
def worker(server):
    """Starts another process with a backend; what is returned evaluates an expression there."""
    running = []

    def start():
        command = [sys.executable, str(Path(__file__).with_name("tiered_worker.py")), server.url]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)

        def send(expression):
            process.stdin.write(expression + "\n")
            process.stdin.flush()

        def receive():
            return process.stdout.readline().rstrip("\n")

        def ask(expression):
            send(expression)
            return receive()

        ask.send, ask.receive = send, receive
        assert receive() == "ready"
        return ask

    yield start
    for process in running:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def armed(*backends):
    """Waits until these backends hear the server's announcements."""
    for each in backends:
        each.get("whatever")
        wait_until(lambda each=each: each.stats()["server"]["nodes"][0]["bus"] == "armed", what="announcements")


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


def keys_of_values(server):
    """The keys of values on the server: not those of generations."""
    return [key for key in server.ask("KEYS", "django:1*")]


def left(server):
    """The milliseconds that the only value on the server lives."""
    (key,) = keys_of_values(server)
    return server.ask("PTTL", key)


# --- Instances and keys.


def test_instances_share_an_engine(backend):
    assert len({id(backend().tier) for _ in range(100)}) == 1
    engines = together(10, lambda _: id(backend().tier))
    assert set(engines) == {id(backend().tier)}


def test_tasks_share_an_engine(server):
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": server.url}}):

        async def seen(n):
            await caches["default"].aset(n, n)
            return id(caches["default"]), id(caches["default"].tier)

        async def main():
            found = await asyncio.gather(*(asyncio.create_task(seen(n)) for n in range(50)))
            return found, await caches["default"].aget_many(range(50))

        found, values = asyncio.run(main())
        assert len({engine for _, engine in found}) == 1
        assert values == {n: n for n in range(50)}
        caches["default"].server.close()


def test_prefixes_and_names_are_apart(backend):
    one, prefixed, named = backend(), backend(prefix="other"), backend(name="other")
    one.set("key", 1)
    assert prefixed.get("key") is named.get("key") is None
    prefixed.set("key", 2)
    named.set("key", 3)
    named.clear()
    assert (one.get("key"), prefixed.get("key"), named.get("key")) == (1, 2, None)


def test_aliases_with_other_tier1_settings_see_each_others_changes(backend):
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
    assert tested.top_keys() == ["1/key"]


# --- Values.


@pytest.mark.parametrize(
    "value",
    ["text", b"bytes", 2**70, 1.5, 2j, None, True, (1, ("a", None)), decimal.Decimal("1.2"), datetime.date.min, uuid.UUID(int=7)]
    + ["\ud800", float("inf"), datetime.timedelta(1), ""],
)
def test_immutable_value_comes_back(value, backend):
    one, other = backend(), backend(process=1)
    one.set("key", value)
    for each in (one, other):
        found = each.get("key")
        assert found == value and type(found) is type(value)
    assert other.get("key") is other.get("key") or type(value) is complex


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


def test_copy_none_keeps_the_object(backend):
    tested, other = backend(copy="none"), backend(copy="none", process=1)
    held = {"a": 1}
    tested.set("key", held)
    assert tested.get("key") is held
    assert other.get("key") == held and other.get("key") is other.get("key")


@pytest.mark.parametrize("codec", ["values", "json"])
def test_other_codecs(codec, backend):
    one, other = backend(codec=codec), backend(codec=codec, process=1)
    one.set("key", {"a": [1, None, "b"]})
    assert other.get("key") == {"a": [1, None, "b"]}
    for call in (one.set, one.add):
        with pytest.raises(TypeError):
            call("key", fractions.Fraction(1, 2))


def test_what_cannot_be_pickled_raises(cache):
    for call in (cache.set, cache.add):
        with pytest.raises((pickle.PickleError, AttributeError, TypeError)):
            call("key", lambda: 1)
    with pytest.raises((pickle.PickleError, AttributeError, TypeError)):
        cache.set_many({"good": 1, "key": threading.Lock()})


def test_value_that_is_too_large_stays_in_the_process(backend):
    small, other = backend(max_value=1000), backend(max_value=1000, process=1)
    small.set("key", "old")
    assert other.get("key") == "old"
    assert small.set_many({"key": "x" * 2000, "small": 1}) == ["key"]
    assert small.get("key") == "x" * 2000
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
    assert b"secret" not in everything


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


# --- Among processes.


def test_changes_are_seen_by_other_processes(worker, backend):
    other, cache = worker(), backend()
    armed(cache)
    changes = [
        ("cache.set('key', 1)", 1),
        ("cache.set('key', [2])", [2]),
        ("cache.set('key', 3)", 3),
        ("cache.incr('key')", 4),
        ("cache.decr('key', 2)", 2),
        ("cache.touch('key', 0)", None),
        ("cache.add('key', 5)", 5),
        ("cache.delete('key')", None),
        ("cache.set_many({'key': 6, 'other': 7})", 6),
        ("cache.delete_many(['key', 'other'])", None),
        ("cache.get_or_set('key', lambda: 8)", 8),
        ("cache.incr_version('key')", None),
        ("cache.set('key', 9, tags=['t'])", 9),
        ("cache.invalidate_tag('t')", None),
        ("cache.set('key', 10)", 10),
        ("cache.clear()", None),
    ]
    for change, expected in changes:
        assert "raised" not in other(change)
        wait_until(lambda expected=expected: cache.get("key") == expected, what=f"what {change} did")
        # (It is in this process, too, where it must be invalidated by the next change.)
        assert cache.get("key") == expected


def test_own_changes_are_seen_at_once(cache):
    for n in range(200):
        cache.set("key", n)
        assert cache.get("key") == n
        assert cache.incr("key") == n + 1
        assert cache.get("key") == n + 1
        cache.delete("key")
        assert cache.get("key") is None


def test_incr_of_processes_is_atomic(worker, cache):
    workers = [worker() for _ in range(3)]
    cache.set("n", 0)
    for each in workers:
        each.send("together(4, lambda _: [cache.incr('n') for _ in range(25)])")
    own = together(4, lambda _: [cache.incr("n") for _ in range(25)])
    seen = [number for each in workers for numbers in eval(each.receive()) for number in numbers]
    seen += [number for numbers in own for number in numbers]
    assert sorted(seen) == list(range(1, 401))
    assert cache.get("n") == 400


def test_add_of_processes_succeeds_once(worker, cache):
    workers = [worker() for _ in range(3)]
    for n in range(10):
        for each in workers:
            each.send(f"together(4, lambda at: cache.add('key{n}', at))")
        added = together(4, lambda at, n=n: cache.add(f"key{n}", at))
        added += [one for each in workers for one in eval(each.receive())]
        assert sum(added) == 1


def test_get_or_set_of_processes_calls_once(worker, tmp_path):
    workers = [worker() for _ in range(3)]
    file = tmp_path / "loads"
    for n in range(5):
        for each in workers:
            each.send(f"together(4, lambda _: cache.get_or_set('key{n}', lambda: counted({str(file)!r})))")
        for each in workers:
            assert eval(each.receive()) == [{"loaded": True}] * 4
    assert file.read_text() == "load\n" * 5


def test_delete_returns_whether_the_key_was_there(worker, backend):
    cache, other = backend(), worker()
    other("cache.set('key', 1)")
    assert cache.delete("key") is True
    assert cache.delete("key") is False
    assert other("cache.delete('key')") == "False"
    cache.set("key", 1)
    cache.clear()
    assert cache.delete("key") is False


def test_clear_leaves_other_keys_of_the_server(server, cache):
    server.ask("SET", "theirs", "value")
    cache.set("key", 1)
    cache.clear()
    assert cache.get("key") is None
    assert server.ask("GET", "theirs") == b"value"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_of_a_fork_sees_changes(cache):
    cache.set("key", "old")
    assert cache.get("key") == "old"
    reading, writing = os.pipe()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(ready, 1)
            os.write(writing, repr((cache.get("key"), cache.incr("n"))).encode())
        finally:
            os._exit(0)
    cache.set("key", "new")
    cache.set("n", 1)
    os.write(go, b"x")
    os.waitpid(child, 0)
    assert os.read(reading, 1000) == repr(("new", 2)).encode()
    assert cache.get("n") == 2


# --- Requests.


def test_many_keys_are_one_request(backend, monkeypatch):
    cache, other = backend(), backend(process=1)
    for each in (cache, other):
        each.set("known", 1)
        each.get_many(["known", "absent"])
    sent = []
    send = _operations.send
    monkeypatch.setattr(_many, "send", lambda session, need: sent.append(1) or send(session, need))
    data = {f"key{n}": n for n in range(100)}
    assert cache.set_many(data) == []
    assert len(sent) == 1
    assert other.get_many(data) == data
    assert len(sent) == 1
    cache.delete_many(data)
    assert len(sent) == 2
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


def test_get_or_set_raises_what_the_default_raises(cache):
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


# --- Servers that fail.


def test_outage(tmp_path, backend):
    with servers.Server(tmp_path) as failing:
        cache, other = backend(failing.url, patient=False), backend(failing.url, patient=False, process=1)
        armed(cache, other)
        wait_until(lambda: cache.set_many({"held": 1, "removed": 2, "n": 3}) == [], what="a confirmed write")
        assert cache.get_many(["held", "removed"]) == other.get_many(["held", "removed"]) == {"held": 1, "removed": 2}
        failing.stop()
        assert cache.get("absent", "default") == "default"
        assert cache.delete("removed") is False
        assert cache.get("removed") is None
        cache.set("new", 4)
        assert cache.set_many({"new": 4}) == ["new"]
        assert cache.get_or_set("made", lambda: [5]) == [5]
        cache.delete_many(["removed"])
        for call in (
            lambda: cache.add("key", 1),
            lambda: cache.incr("n"),
            lambda: cache.touch("n"),
            lambda: cache.incr_version("n"),
            lambda: cache.add("key", 1, 0),
        ):
            with pytest.raises(Unavailable):
                call()

        async def later():
            for call in (cache.aadd("key", 1), cache.aincr("n"), cache.atouch("n"), cache.aincr_version("n")):
                with pytest.raises(Unavailable):
                    await call
            assert await cache.aget("absent") is None
            assert await cache.aset_many({"new": 4}) == ["new"]
            assert await cache.adelete("removed") is False

        asyncio.run(later())
        failing.resume()
        wait_until(lambda: cache.set_many({"new": 6}) == [], what="the server")
        # What was removed during the outage is removed on the server before this process reads there again.
        assert cache.get("removed") is None
        wait_until(lambda: other.get("removed") is None, what="the removal, in the other process")
        assert cache.incr("n") == 4


def test_server_that_is_not_there(backend):
    cache = backend(f"redis://127.0.0.1:{servers.free_port()}/0", patient=False)
    assert cache.get("key") is None
    assert cache.get_or_set("key", lambda: 1) == 1
    for call in (lambda: cache.incr("key"), lambda: cache.add("other", 1), lambda: cache.touch("key")):
        with pytest.raises(Unavailable):
            call()
    with pytest.raises(CommandError, match="not cleared, since the server did not confirm it: default"):
        with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": f"redis://127.0.0.1:{servers.free_port()}/0"}}):
            call_command("hotset", "clear")


# --- Locations.


@pytest.mark.skipif(not servers.HAS_SENTINEL, reason="there is no redis-sentinel: make tools-redis")
def test_sentinels(tmp_path, backend):
    with servers.Sentinels(tmp_path) as group:
        cache = backend([f"redis://127.0.0.1:{each.port}" for each in group.sentinels], sentinel=group.service)
        cache.set("key", [1])
        assert group.master.ask("DBSIZE") > 0
        assert backend(cache.server and [f"redis://127.0.0.1:{group.sentinels[0].port}"], sentinel=group.service).get("key") == [1]


def test_cluster(tmp_path, backend):
    with servers.Cluster(tmp_path, replicas=0) as cluster:
        location = ",".join(f"redis://127.0.0.1:{each.port}" for each in cluster.servers)
        cache, other = backend(location), backend(location.split(","), process=1)
        data = {f"key{n}": n for n in range(50)}
        assert cache.set_many(data) == []
        assert other.get_many(data) == data
        assert cache.incr("key7") == 8 and cache.delete("key8") is True and cache.add("key8", "new") is True
        wait_until(lambda: other.get_many(["key7", "key8"]) == {"key7": 8, "key8": "new"}, what="the announcements")
        cache.clear()
        wait_until(lambda: other.get_many(data) == {}, what="the clear")


def client(**timeouts):
    import redis

    return redis.Redis.from_url(client.url, **timeouts)


def test_client_by_dotted_path_and_by_function(server, backend):
    client.url = server.url
    backend("", client=client).set("key", 1)
    assert backend("", client=f"{__name__}.client", process=1).get("key") == 1


# --- Settings.

URL = "redis://localhost:1/0"


@pytest.mark.parametrize(
    ("location", "params", "text"),
    [
        (7, {}, "LOCATION must be a URL, or a list of them, not 7"),
        ("", {}, "LOCATION must be the URL of a Redis or Valkey server, as redis://localhost:6379/0"),
        ("shop", {}, "URL must begin with one of redis://, rediss://, unix://"),
        ("http://localhost", {}, "URL must begin with one of"),
        ("redis://localhost/shop", {}, "URL names the database 'shop'"),
        ([URL, "nonsense"], {}, "URL must begin with one of"),
        (URL, {"OPTIONS": {"client": client}}, "OPTIONS client connects to the server: give no LOCATION"),
        (URL, {"OPTIONS": {"sentinel": ""}}, "OPTIONS sentinel must be the name of a service"),
        (URL, {"TIMEOUT": "soon"}, "TIMEOUT must be a number of seconds, or None for no end, not 'soon'"),
        (URL, {"OPTIONS": ["a"]}, "OPTIONS must be a dict"),
        (URL, {"OPTIONS": {"local_tll": 5}}, "unknown OPTIONS: local_tll; known are CULL_FREQUENCY, MAX_ENTRIES, bus"),
        (URL, {"OPTIONS": {"local_ttl": 0}}, "local_ttl must be more than 0 seconds"),
        (URL, {"OPTIONS": {"local_ttl": "5"}}, "local_ttl must be a number of seconds"),
        (URL, {"OPTIONS": {"timeout": 0}}, "timeout must be more than 0"),
        (URL, {"OPTIONS": {"prefix": ""}}, "prefix must not be empty"),
        (URL, {"OPTIONS": {"name": ""}}, "name must not be empty"),
        (URL, {"OPTIONS": {"MAX_ENTRIES": -1}}, "MAX_ENTRIES must be"),
        (URL, {"OPTIONS": {"copy": "deep"}}, "copy must be one of pickle, none"),
        (URL, {"OPTIONS": {"codec": "yaml"}}, "codec must be one of"),
        (URL, {"OPTIONS": {"codec": "no.such.module"}}, "No module named 'no'"),
        (URL, {"OPTIONS": {"sign": None}}, "codec 'pickle' needs sign"),
        (URL, {"OPTIONS": {"sign": "short"}}, "sign must have at least 16 characters, not 5"),
        (URL, {"OPTIONS": {"sign": 7}}, "sign must be a str, bytes, or None"),
        (URL, {"OPTIONS": {"schema": 1.5}}, "schema must be an int, a str or None"),
        (URL, {"OPTIONS": {"tags": "menu"}}, "tags must be a list of strings, not 'menu'"),
        (URL, {"OPTIONS": {"bus": "pubsub"}}, "bus must be 'auto' or None"),
        (URL, {"OPTIONS": {"policy": "mru"}}, "policy must be one of"),
    ],
)
def test_wrong_setting_is_an_error(location, params, text):
    with pytest.raises(ImproperlyConfigured) as error:
        TieredCache(location, params)
    assert text in str(error.value)
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location, **params}}):
        with pytest.raises(ImproperlyConfigured) as error:
            run_checks(tags=["caches"])
    assert text in str(error.value) and "CACHES['default']" in str(error.value)


def test_empty_secret_key_is_an_error():
    with override_settings(SECRET_KEY=""), pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
        TieredCache(URL, {})


def test_missing_client_library_is_an_error():
    with mock.patch("hotset.tier2._client.importlib.import_module", side_effect=ImportError):
        with pytest.raises(ImproperlyConfigured, match=r"pip install 'hotset\[redis\]'"):
            TieredCache("redis://localhost:2/0", {})


def test_setting_without_effect_is_a_warning():
    one = {"BACKEND": BACKEND, "LOCATION": URL}
    with override_settings(
        CACHES={
            "default": {**one, "MAX_ENTRIES": 5, "OPTIONS": {"CULL_FREQUENCY": 2}},
            "same": {**one, "OPTIONS": {"MAX_ENTRIES": 5, "local_ttl": 1, "name": "other"}},
            "apart": {**one, "OPTIONS": {"prefix": "other", "timeout": 1}},
            "other": {**one, "OPTIONS": {"timeout": 1}},
        }
    ):
        found = run_checks(tags=["caches"])
    assert [message.id for message in found] == ["hotset.W001", "hotset.W001", "hotset.W003"]
    assert "CACHES['other']: OPTIONS timeout differ from those of 'default'" in found[-1].msg


# --- The command.


def said(*arguments, **options):
    out, err = io.StringIO(), io.StringIO()
    call_command("hotset", *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def test_command(server, backend):
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": server.url, "OPTIONS": {**PATIENT, "max_loads": 1000}}}):
        cache, other = caches["default"], backend(process=1)
        armed(cache, other)
        cache.set("hot", 1)
        other.set("cold", 2)
        assert (cache.get("hot"), cache.get("hot"), other.get("hot"), cache.get("cold")) == (1, 1, 1, 2)
        out, err = said("stats")
        assert "default: 2 entries of 10,000, " in out
        assert "link up, announcements armed" in out
        assert f"of process {os.getpid()}: what other processes hold and have counted is not seen from here" in err
        assert said("top", "default", limit=1)[0] == "default: :1:hot\n"
        assert said("clear")[0] == "default: cleared in all processes\n"
        assert cache.get("hot") is None
        wait_until(lambda: other.get("hot") is None, what="the clear, in the other process")


# --- Transactions.


@pytest.fixture(params=["process", "tiered"])
def removable(request, backend):
    cache = HotsetCache("commits", {}) if request.param == "process" else backend()
    cache.set_many({"key": 1, "other": 2})
    return cache


def test_commit_removes(removable):
    with transaction.atomic():
        invalidate_on_commit(removable, "key", "other")
        assert removable.get_many(["key", "other"]) == {"key": 1, "other": 2}
    assert removable.get_many(["key", "other"]) == {}


def test_commit_of_a_nested_transaction_removes_at_the_end(removable):
    with transaction.atomic():
        with transaction.atomic():
            invalidate_on_commit(removable, "key")
        assert removable.get("key") == 1
    assert removable.get_many(["key", "other"]) == {"other": 2}


def test_rollback_removes_nothing(removable):
    with pytest.raises(LookupError):
        with transaction.atomic():
            invalidate_on_commit(removable, "key")
            raise LookupError
    with transaction.atomic():
        with pytest.raises(LookupError):
            with transaction.atomic():
                invalidate_on_commit(removable, "key")
                raise LookupError
        invalidate_on_commit(removable, "other")
    assert removable.get_many(["key", "other"]) == {"key": 1}


def test_without_a_transaction_removes_immediately(removable):
    invalidate_on_commit(removable, "key")
    assert removable.get_many(["key", "other"]) == {"other": 2}


def test_commit_from_a_coroutine_removes(removable):
    from asgiref.sync import sync_to_async

    async def alone():
        await ainvalidate_on_commit(removable, "key")
        return await removable.aget("key")

    @sync_to_async
    def within():
        with transaction.atomic():
            invalidate_on_commit(removable, "other")
            return removable.get("other")

    async def main():
        return await alone(), await within(), await removable.aget("other")

    assert asyncio.run(main()) == (None, 2, None)


def test_commit_of_a_version_and_of_an_alias(removable):
    removable.set("key", 3, version=2)
    invalidate_on_commit(removable, "key", version=2)
    assert removable.get("key") == 1 and removable.get("key", version=2) is None
    caches["default"].set("key", 1)
    with transaction.atomic():
        invalidate_on_commit("default", "key")
    assert caches["default"].get("key") is None


def test_commit_of_tags(cache):
    cache.set("key", 1, tags=["menu"])
    with transaction.atomic():
        invalidate_on_commit(cache, tags=["menu"])
        assert cache.get("key") == 1
    assert cache.get("key") is None
    with pytest.raises(TypeError, match="tags need a cache that has them"):
        invalidate_on_commit(HotsetCache("", {}), tags=["menu"])
    for wrong in ({}, {"tags": "menu"}):
        with pytest.raises(TypeError):
            invalidate_on_commit(cache, **wrong)


def test_commit_invalidates_loads_in_flight(backend):
    """A load that began before the commit does not bring the old value back."""
    cache, other = backend(), backend(process=1)
    inside, go_on = threading.Event(), threading.Event()

    def old():
        inside.set()
        go_on.wait()
        return "old"

    loading = threading.Thread(target=other.get_or_set, args=("key", old))
    loading.start()
    inside.wait()
    with transaction.atomic():
        invalidate_on_commit(cache, "key")
    go_on.set()
    loading.join()
    assert cache.get("key") is None
    wait_until(lambda: other.get("key") is None, what="the announcement")


# --- What stands on the cache.


def test_sessions(server):
    from django.contrib.sessions.backends.cache import SessionStore

    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": server.url, "OPTIONS": PATIENT}}):
        session = SessionStore()
        session["user"] = {"id": 7, "empty": ""}
        session.create()
        again = SessionStore(session.session_key)
        assert again["user"] == {"id": 7, "empty": ""}
        again.cycle_key()
        assert not SessionStore().exists(session.session_key)
        again.flush()
        assert not SessionStore().exists(again.session_key or "none")
        caches["default"].server.close()


def test_throttle_of_rest_framework(server):
    throttling = pytest.importorskip("rest_framework.throttling")

    class Throttle(throttling.SimpleRateThrottle):
        rate = "3/min"
        cache = CacheHandler({"default": {"BACKEND": BACKEND, "LOCATION": server.url, "OPTIONS": PATIENT}})["default"]

        def get_cache_key(self, request, view):
            return "throttle"

    request = RequestFactory().get("/")
    assert [Throttle().allow_request(request, None) for _ in range(5)] == [True, True, True, False, False]
    Throttle.cache.server.close()


def test_ratelimit(server):
    core = pytest.importorskip("django_ratelimit.core")
    request = RequestFactory().get("/")
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": server.url, "OPTIONS": PATIENT}}):
        limited = [core.is_ratelimited(request, group="g", key="ip", rate="3/m", increment=True) for _ in range(5)]
        assert limited == [False, False, False, True, True]
        assert core.get_usage(request, group="g", key="ip", rate="3/m")["count"] == 5
        caches["default"].server.close()
