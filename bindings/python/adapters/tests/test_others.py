"""`hotset.dogpile`, `langchain`, `aiocache` and `requests_cache`: what their suites do not test."""

import asyncio
import io
import threading

import pytest

import hotset

pytestmark = pytest.mark.usefixtures("hotset_clear")


def together(count, call):
    barrier = threading.Barrier(count)

    def run(n):
        barrier.wait()
        call(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- dogpile.cache


def region(backend="hotset", **arguments):
    cache = pytest.importorskip("dogpile.cache")
    return cache.make_region().configure(backend, expiration_time=60, arguments=arguments)


def test_dogpile_entry_points_share_a_named_cache():
    first, second = region(name="r"), region(name="r")
    first.set("key", [1])
    assert second.get("key") is first.get("key")
    assert first.actual_backend.engine is hotset.shared("dogpile:r")


def test_dogpile_pickle_isolates_callers():
    pickled = region("hotset_pickle")
    pickled.set("key", [1])
    pickled.get("key").append(2)
    assert pickled.get("key") == [1]


def test_dogpile_bound_and_ttl():
    bounded = region(max_entries=10, ttl=100, policy="lru")
    bounded.set_multi({str(n): n for n in range(100)})
    engine = bounded.actual_backend.engine
    assert len(engine) == 10 and engine.ttl == 100
    assert region(max_entries=None).actual_backend.stats().capacity is None


def test_dogpile_creates_once():
    calls = []
    cached = region()
    together(8, lambda _: cached.get_or_create("key", lambda: calls.append(1) or 7))
    assert calls == [1]


# --- LangChain


def test_langchain_answers_a_model_once():
    pytest.importorskip("langchain_core")
    from langchain_core.language_models import FakeListLLM
    from langchain_core.outputs import Generation

    from hotset.langchain import HotsetCache

    answers = HotsetCache(name="answers", ttl=60)
    model = FakeListLLM(responses=["first", "second"], cache=answers)
    assert [model.invoke("a question") for _ in range(3)] == ["first"] * 3

    async def ask():
        return await model.ainvoke("a question")

    assert asyncio.run(ask()) == "first"
    assert hotset.shared("langchain:answers").stats().hits == 3
    answers.update("p", "l", [Generation(text="a", generation_info={"n": [1]})])
    answers.lookup("p", "l")[0].generation_info["n"].append(2)
    assert answers.lookup("p", "l")[0].generation_info == {"n": [1]}
    held = [Generation(text="a")]
    same = HotsetCache(copy="none", max_entries=None)
    same.update("p", "l", held)
    with pytest.raises(ValueError, match="copy must be one of pickle, none, not 'deep'"):
        HotsetCache(copy="deep")
    assert same.lookup("p", "l") is held


# --- aiocache


def test_aiocache_by_its_dotted_name():
    aiocache = pytest.importorskip("aiocache")
    aiocache.caches.set_config({"default": {"cache": "hotset.aiocache.HotsetCache", "max_entries": 10, "ttl": 60}})
    cache = aiocache.caches.get("default")

    async def main():
        for n in range(100):
            await cache.set(str(n), n)
        assert len(cache.engine) <= 10
        assert cache.engine.remaining(next(iter(cache.engine))) <= 60
        await cache.set("never", 1, ttl=None)
        assert cache.engine.remaining("never") is None
        await cache.increment("never", 2)
        assert await cache.get("never") == 3
        assert cache.engine.remaining("never") is None
        await cache.expire("never", 5)
        assert cache.engine.remaining("never") <= 5
        with pytest.raises(ValueError, match="already exists"):
            await cache.add("never", 1)

    asyncio.run(main())


def test_aiocache_swaps_and_counts_atomically():
    pytest.importorskip("aiocache")
    from hotset.aiocache import HotsetCache

    cache = HotsetCache(name="counters")
    won = []

    def run(n):
        async def main():
            for _ in range(100):
                await cache.increment("n")
            if await cache._set("swap", n, _cas_token=None if n else "first"):
                won.append(n)
            assert await cache._redlock_release("n", "another") == 0

        asyncio.run(main())

    together(8, run)

    async def main():
        assert await cache.get("n") == 800
        assert await cache._redlock_release("n", 800) == 1
        assert await cache._redlock_release("n", 800) == 0
        await cache.set("a", "one")
        assert await cache._set("a", "two", _cas_token="other") == 0
        assert await cache._set("a", "two", _cas_token="one") is True
        assert await cache.get("a") == "two"

    asyncio.run(main())
    assert 0 not in won


def test_aiocache_by_uri():
    aiocache = pytest.importorskip("aiocache")
    from hotset.aiocache import HotsetCache

    aiocache.AIOCACHE_CACHES["hotset"] = HotsetCache
    cache = aiocache.Cache.from_url("hotset:///pages")
    assert cache.engine is hotset.shared("aiocache:pages")


# --- requests-cache


class Adapter:
    """A transport that answers without a network."""

    def __init__(self):
        self.calls = 0

    def send(self, request, **_):
        from requests.adapters import HTTPAdapter
        from urllib3 import HTTPResponse

        self.calls += 1
        raw = HTTPResponse(io.BytesIO(b"body"), status=200, preload_content=False, request_url=request.url)
        return HTTPAdapter().build_response(request, raw)

    def close(self):
        pass


def session(**settings):
    requests_cache = pytest.importorskip("requests_cache")
    from hotset.requests_cache import HotsetCache

    made = requests_cache.CachedSession(backend=HotsetCache(**settings), expire_after=60)
    adapter = Adapter()
    made.mount("http://", adapter)
    return made, adapter


def test_requests_cache_serves_stored_responses():
    http, adapter = session(cache_name="api")
    assert [http.get("http://x/").text for _ in range(3)] == ["body"] * 3
    assert adapter.calls == 1
    other, unused = session(cache_name="api")
    assert other.get("http://x/").from_cache and unused.calls == 0
    engine = hotset.shared("requests-cache:api:responses")
    assert 3600 < engine.remaining(next(iter(engine))) <= 3660
    assert http.cache.stats().entries == 1
    assert [key for key, _ in http.cache.responses.items()] == list(http.cache.responses)


def test_requests_cache_bytes_are_bounded():
    http, _ = session(cache_name="small", max_bytes=20_000, ttl=False)
    for n in range(100):
        http.get(f"http://x/{n}")
    stats = http.cache.stats()
    assert 0 < stats.weight <= 20_000 and stats.entries < 100
    engine = hotset.shared("requests-cache:small:responses")
    assert engine.remaining(next(iter(engine))) is None
