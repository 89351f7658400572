"""`hotset.cachelib`: what cachelib's and Flask-Caching's suites do not test, and their settings."""

import threading
from datetime import timedelta

import pytest

pytest.importorskip("cachelib")

from cachelib.serializers import JSONSerializer  # noqa: E402

import hotset  # noqa: E402
from hotset.cachelib import HotsetCache  # noqa: E402

pytestmark = pytest.mark.usefixtures("hotset_clear")


def test_values_are_copied_unless_immutable():
    cache = HotsetCache()
    held = {"a": [1]}
    text = "".join(["a", "b"])
    cache.set_many({"dict": held, "text": text})
    held["a"].append(2)
    cache.get("dict")["a"].append(3)
    assert cache.get("dict") == {"a": [1]}
    assert cache.get("text") is text


def test_timeouts():
    cache = HotsetCache(default_timeout=60)
    for key, timeout in {"default": None, "never": 0, "given": 5, "delta": timedelta(seconds=7)}.items():
        assert cache.set(key, 1, timeout)
    left = {key: cache.engine.remaining(key) for key in cache.engine}
    assert 50 < left["default"] <= 60 and left["never"] is None
    assert 4 < left["given"] <= 5 and 6 < left["delta"] <= 7
    assert cache.set("given", 2, -1) and not cache.has("given")
    assert cache.add("given", 2, -1) and not cache.has("given")
    assert cache.add("never", 2, -1) is False
    assert HotsetCache(default_timeout=0).engine.ttl is None


def test_number_keeps_its_timeout():
    cache = HotsetCache(default_timeout=60)
    cache.set("n", 1, timeout=0)
    assert cache.inc("n", 2) == 3
    assert cache.engine.remaining("n") is None
    assert cache.dec("new", 2) == -2
    assert cache.engine.remaining("new") <= 60
    cache.set("none", None)
    assert cache.inc("none") == 1


def test_number_with_a_passed_default_timeout():
    cache = HotsetCache(default_timeout=-1)
    assert cache.inc("n") == 1
    assert not cache.has("n")


def test_inc_is_atomic():
    cache = HotsetCache()
    barrier = threading.Barrier(8)

    def run():
        barrier.wait()
        for _ in range(200):
            cache.inc("n")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 1600


def test_value_refused_by_the_serializer_is_not_stored(caplog):
    cache = HotsetCache()
    cache.serializer = JSONSerializer()
    assert cache.set("key", object()) is False
    assert cache.add("key", object()) is False
    assert cache.inc("n", 1j) is None
    cache.set("n", 1)
    assert cache.inc("n", 1j) is None
    assert cache.get("n") == 1 and not cache.has("key")
    assert "exception" in caplog.text


@pytest.mark.parametrize("value", [lambda: 1, threading.Lock(), [threading.Lock()]], ids=["function", "lock", "list"])
def test_unpicklable_value_is_not_stored(value, caplog):
    cache = HotsetCache()
    cache.set("key", 1)
    assert cache.set("key", value) is False
    assert cache.add("other", value) is False
    assert cache.get("key") == 1 and cache.get("other") is None
    assert cache.set_many({"key": 2, "other": value}) == ["key"]
    assert "pickle" in caplog.text


def test_caches_of_a_name_are_one():
    first, second = HotsetCache(name="pages"), HotsetCache(name="pages")
    assert first.engine is second.engine is hotset.shared("cachelib:pages")
    assert HotsetCache().engine is not HotsetCache().engine


def test_threshold_is_a_bound():
    cache = HotsetCache(threshold=10)
    for n in range(100):
        cache.set(str(n), n)
    assert cache.stats().entries <= 10
    assert HotsetCache(threshold=0).engine.maxsize == 10_000


def test_profile_advises_and_autosize_follows_the_traffic():
    profiled, sized = HotsetCache(100, profile=True), HotsetCache(autosize=(50, 500, 0.95))
    assert sized.engine.stats().capacity == 500
    for n in range(40_000):
        for cache in (profiled, sized):
            if cache.get(str(n % 150)) is None:
                cache.set(str(n % 150), n)
    assert profiled.advise().doubt is None and profiled.advise().capacity == 100
    for n in range(20_000):
        sized.set(str(n), n)
    assert 50 <= sized.engine.stats().capacity < 300


def test_flask_caching_by_its_dotted_name():
    flask = pytest.importorskip("flask")
    flask_caching = pytest.importorskip("flask_caching")
    app = flask.Flask(__name__)
    app.config.update(
        CACHE_TYPE="hotset.cachelib.HotsetCache",
        CACHE_DEFAULT_TIMEOUT=60,
        CACHE_OPTIONS={"threshold": 100, "name": "flask"},
    )
    cache = flask_caching.Cache(app)
    calls = []

    @app.route("/")
    @cache.cached(timeout=50)
    def page():
        calls.append(1)
        return "a page"

    @cache.memoize()
    def double(n):
        calls.append(n)
        return 2 * n

    client = app.test_client()
    assert [client.get("/").text for _ in range(3)] == ["a page"] * 3
    with app.app_context():
        assert [double(5) for _ in range(3)] == [10] * 3
        cache.delete_memoized(double)
        double(5)
    assert calls == [1, 5, 5]
    engine = hotset.shared("cachelib:flask")
    assert len(engine) > 0 and engine.maxsize == 100


def test_flask_session():
    flask = pytest.importorskip("flask")
    flask_session = pytest.importorskip("flask_session")
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=HotsetCache(name="sessions"))
    flask_session.Session(app)

    @app.route("/")
    def count():
        flask.session["count"] = flask.session.get("count", 0) + 1
        return str(flask.session["count"])

    first, second = app.test_client(), app.test_client()
    assert [first.get("/").text for _ in range(3)] == ["1", "2", "3"]
    assert second.get("/").text == "1"
    assert hotset.shared("cachelib:sessions").stats().entries == 2
