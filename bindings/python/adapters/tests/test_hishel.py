"""`hotset.hishel`: capacity and expiration of its storages, and one call per cold URL."""

import gc
import threading

import pytest

pytest.importorskip("hishel")

import anyio  # noqa: E402
import httpx  # noqa: E402
from hishel import Headers, Request, Response  # noqa: E402

import hotset.hishel  # noqa: E402
from hotset.hishel import CacheMiddleware, HotsetStorage, SyncHotsetStorage  # noqa: E402

pytestmark = pytest.mark.usefixtures("hotset_clear")
BOTH_LOOPS = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
CACHEABLE = [(b"cache-control", b"public, max-age=60")]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def request(url="http://x/"):
    return Request("GET", url, Headers({"accept": ["a", "b"]}))


def response(*chunks, **headers):
    return Response(200, Headers(headers), iter(chunks))


def store(storage, body=b"body", key="key", **times):
    entry = storage.create_entry(request(), response(body), key, **times)
    assert b"".join(entry.response.stream) == body
    return entry


def bodies(storage, key="key"):
    return [b"".join(entry.response.stream) for entry in storage.get_entries(key)]


# --- Storages.


def test_entry_is_found_when_its_body_is_complete():
    storage = SyncHotsetStorage()
    entry = storage.create_entry(request(), response(b"a", b"b"), "key")
    assert next(entry.response.stream) == b"a"
    assert bodies(storage) == []
    assert list(entry.response.stream) == [b"b"]
    assert bodies(storage) == [b"ab"]


def test_entry_equals_the_stored_response():
    storage = SyncHotsetStorage()
    stored = store(storage)
    (found,) = storage.get_entries("key")
    assert (found.id, found.request, found.response.status_code) == (stored.id, request(), 200)
    found.request.headers["accept"] = "changed"
    found.response.headers["x"] = "changed"
    assert storage.get_entries("key")[0].request == request()
    assert "x" not in storage.get_entries("key")[0].response.headers


def test_abandoned_stream_leaves_nothing():
    storage = SyncHotsetStorage()
    before = len(hotset.hishel._pending)
    entry = storage.create_entry(request(), response(b"a", b"b"), "key")
    next(entry.response.stream)
    del entry
    gc.collect()
    assert len(storage.engine) == 0
    assert len(hotset.hishel._pending) == before


def test_bytes_are_bounded():
    storage = SyncHotsetStorage(max_bytes=100_000)
    for n in range(100):
        store(storage, b"x" * 10_000, f"key {n}")
    assert storage.stats().weight <= 100_000
    assert sum(len(bodies(storage, f"key {n}")) for n in range(100)) > 4
    store(storage, b"x" * 100_001, "large")
    assert bodies(storage, "large") == []


def test_large_body_is_served_but_not_stored():
    storage = SyncHotsetStorage(max_stream_size=3)
    store(storage, b"1234")
    assert bodies(storage) == []
    store(storage, b"123")
    assert bodies(storage) == [b"123"]


def test_ttl_counts_from_the_creation():
    clock = Clock()
    storage = SyncHotsetStorage(default_ttl=10, timer=clock)
    entry = storage.create_entry(request(), response(b"slow"), "key")
    clock.now += 6
    list(entry.response.stream)
    assert bodies(storage) == [b"slow"]
    clock.now += 5
    assert bodies(storage) == []
    entry = storage.create_entry(request(), response(b"too slow"), "key", ttl=1)
    clock.now += 1
    assert list(entry.response.stream) == [b"too slow"]
    assert bodies(storage) == []


def test_tti_counts_from_the_last_use_up_to_the_ttl():
    clock = Clock()
    storage = SyncHotsetStorage(timer=clock)
    store(storage, ttl=10, tti=4)
    for _ in range(3):
        clock.now += 3
        assert bodies(storage) == [b"body"]
    clock.now += 2
    assert bodies(storage) == []
    store(storage, ttl=10, tti=4)
    clock.now += 4.1
    assert bodies(storage) == []
    assert len(storage.engine) == 0


def test_headers_are_updated_and_entries_removed():
    clock = Clock()
    storage = SyncHotsetStorage(timer=clock)
    entry = store(storage, ttl=10)
    clock.now += 6
    storage.update_headers(entry.id, Headers({"x": "1"}))
    assert storage.get_entries("key")[0].response.headers == Headers({"x": "1"})
    clock.now += 6
    assert bodies(storage) == []
    entry = store(storage)
    storage.remove_entry(entry.id)
    storage.remove_entry(entry.id)
    storage.update_headers(entry.id, Headers({"x": "1"}))
    assert bodies(storage) == [] and len(storage.engine) == 0


def test_entry_that_is_being_written_is_updated_and_removed():
    storage = SyncHotsetStorage()
    entry = storage.create_entry(request(), response(b"a"), "key")
    storage.update_headers(entry.id, Headers({"x": "1"}))
    list(entry.response.stream)
    assert storage.get_entries("key")[0].response.headers == Headers({"x": "1"})
    entry = storage.create_entry(request(), response(b"a"), "other")
    storage.remove_entry(entry.id)
    assert list(entry.response.stream) == [b"a"]
    assert bodies(storage, "other") == []


def test_entry_is_removed_by_another_storage_of_its_name():
    first, second = SyncHotsetStorage(name="removed"), SyncHotsetStorage(name="removed")
    entry = first.create_entry(request(), response(b"a"), "key")
    second.remove_entry(entry.id)
    list(entry.response.stream)
    assert bodies(first) == []


def test_variants_of_a_key_are_bounded():
    storage = SyncHotsetStorage()
    for n in range(100):
        store(storage, str(n).encode())
    assert bodies(storage) == [str(n).encode() for n in range(36, 100)]
    assert len(storage.engine) == 65


def test_variants_expire_separately():
    clock = Clock()
    storage = SyncHotsetStorage(timer=clock)
    for n in range(3):
        store(storage, str(n).encode(), ttl=10 + 10 * (n != 1))
    clock.now += 15
    assert bodies(storage) == [b"0", b"2"]
    assert len(storage.engine) == 3


def test_storages_of_a_name_hold_the_same():
    store(SyncHotsetStorage(name="pages"))
    assert bodies(SyncHotsetStorage(name="pages")) == [b"body"]
    assert bodies(SyncHotsetStorage()) == []

    async def read():
        (entry,) = await HotsetStorage(name="pages").get_entries("key")
        return [chunk async for chunk in entry.response.stream]

    assert anyio.run(read) == [b"body"]


def test_threads_store_variants_together():
    storage = SyncHotsetStorage()
    barrier = threading.Barrier(8)

    def run(n):
        barrier.wait()
        for m in range(5):
            store(storage, f"{n} {m}".encode())

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies(storage)) == 40


# --- The middleware.


class App:
    """An app whose calls wait until the test releases them."""

    def __init__(self, headers=(), fails=False):
        self.headers = list(headers)
        self.calls = 0
        self.running = 0
        self.most = 0
        self.fails = fails
        self.gate = anyio.Event()

    async def __call__(self, scope, receive, send):
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            # (Others begin in between.)
            await anyio.lowlevel.checkpoint()
        finally:
            self.running -= 1
        if self.fails:
            raise OSError("the app is down")
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"body"})


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def settle():
    """Lets all tasks run until they wait."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


async def get_many(app, middleware, count, url="/", method="GET", **headers):
    """Makes `count` concurrent requests, of which the app answers none before all of them wait."""
    results = []

    async def get():
        async with client(middleware) as http:
            try:
                results.append((await http.request(method, url, headers=headers)).text)
            except OSError as error:
                results.append(str(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(get)
        await settle()
        app.gate.set()
    app.gate = anyio.Event()
    return results


@BOTH_LOOPS
@pytest.mark.anyio
@pytest.mark.parametrize("rfc", [True, False])
async def test_cold_requests_call_the_app_once(rfc, anyio_backend):
    app = App(CACHEABLE)
    middleware = CacheMiddleware(app, rfc=rfc)
    assert await get_many(app, middleware, 50) == ["body"] * 50
    assert app.calls == 1
    assert await get_many(app, middleware, 50, "/other") == ["body"] * 50
    assert app.calls == 2
    assert await get_many(app, middleware, 50) == ["body"] * 50
    assert app.calls == 2


@BOTH_LOOPS
@pytest.mark.anyio
async def test_cold_requests_get_a_response_not_admitted(anyio_backend):
    app = App(CACHEABLE)
    middleware = CacheMiddleware(app, HotsetStorage(max_bytes=10))
    assert await get_many(app, middleware, 50) == ["body"] * 50
    assert app.calls == 1
    assert len(middleware.storage.engine) == 0


@BOTH_LOOPS
@pytest.mark.anyio
async def test_uncacheable_requests_wait_for_one_call_once(anyio_backend):
    app = App([(b"cache-control", b"no-store")])
    middleware = CacheMiddleware(app)
    app.gate.set()
    assert await get_many(app, middleware, 50) == ["body"] * 50
    assert app.calls == 50
    app.most = 0
    assert await get_many(app, middleware, 50) == ["body"] * 50
    assert app.most == 50


@BOTH_LOOPS
@pytest.mark.anyio
async def test_cacheable_after_uncacheable_is_called_once_again(anyio_backend):
    app = App([(b"cache-control", b"no-store")])
    middleware = CacheMiddleware(app)
    await get_many(app, middleware, 2)
    app.headers = CACHEABLE
    await get_many(app, middleware, 1)
    middleware.storage.engine.clear()
    app.calls = 0
    # That the URL was not cacheable is forgotten when a response is stored for it.
    await get_many(app, middleware, 1)
    middleware.storage.engine.clear()
    await get_many(app, middleware, 50)
    assert app.calls == 2


@BOTH_LOOPS
@pytest.mark.anyio
async def test_failure_of_the_app_is_not_shared(anyio_backend):
    app = App(CACHEABLE, fails=True)
    assert await get_many(app, CacheMiddleware(app), 10) == ["the app is down"] * 10
    assert app.calls == 10


@BOTH_LOOPS
@pytest.mark.anyio
async def test_cancelled_request_hands_on_its_turn(anyio_backend):
    app = App(CACHEABLE)
    middleware = CacheMiddleware(app)
    results = []

    async def get():
        async with client(middleware) as http:
            results.append((await http.get("/")).text)

    async with anyio.create_task_group() as tasks:
        leader = anyio.CancelScope()

        async def lead():
            with leader:
                await get()

        tasks.start_soon(lead)
        await settle()
        for _ in range(10):
            tasks.start_soon(get)
        await settle()
        assert app.calls == 1
        leader.cancel()
        await settle()
        app.gate.set()
    assert results == ["body"] * 10
    assert app.calls == 2


@BOTH_LOOPS
@pytest.mark.anyio
async def test_slow_client_does_not_hold_up_others(anyio_backend):
    app = App(CACHEABLE)
    app.gate.set()
    middleware = CacheMiddleware(app)
    stalled = anyio.Event()

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        await stalled.wait()

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"test")], "scheme": "http", "query_string": b""}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(middleware, scope, receive, send)
        await settle()
        async with client(middleware) as http:
            assert (await http.get("/")).text == "body"
        stalled.set()
    assert app.calls == 1


@BOTH_LOOPS
@pytest.mark.anyio
async def test_variants_are_not_mixed(anyio_backend):
    app = App([*CACHEABLE, (b"vary", b"accept-language")])
    middleware = CacheMiddleware(app)
    await get_many(app, middleware, 10, **{"accept-language": "en"})
    await get_many(app, middleware, 10, **{"accept-language": "fr"})
    calls = app.calls
    assert 2 <= calls <= 11
    await get_many(app, middleware, 10, **{"accept-language": "en"})
    await get_many(app, middleware, 10, **{"accept-language": "fr"})
    assert app.calls == calls


@BOTH_LOOPS
@pytest.mark.anyio
async def test_posts_do_not_wait_and_invalidate(anyio_backend):
    app = App(CACHEABLE)
    middleware = CacheMiddleware(app)
    await get_many(app, middleware, 2)
    await get_many(app, middleware, 5, method="POST")
    assert app.most == 5
    await get_many(app, middleware, 5)
    assert app.calls == 1 + 5 + 1


@BOTH_LOOPS
@pytest.mark.anyio
async def test_client_in_the_app_may_use_the_same_storage(anyio_backend):
    storage = HotsetStorage()

    async def app(scope, receive, send):
        entry = await storage.create_entry(request(), Response(200, Headers({}), chunks()), "inner")
        assert await storage.get_entries("inner") == []
        body = b"".join([chunk async for chunk in entry.response.stream])
        await send({"type": "http.response.start", "status": 200, "headers": CACHEABLE})
        await send({"type": "http.response.body", "body": body})

    async def chunks():
        yield b"inner body"

    async with client(CacheMiddleware(app, storage)) as http:
        assert (await http.get("/")).text == "inner body"
    assert len(await storage.get_entries("inner")) == 1


def test_middleware_serves_several_event_loops():
    middleware = CacheMiddleware(App(CACHEABLE))

    async def main():
        app = App(CACHEABLE)
        middleware.app = app
        app.gate.set()
        async with client(middleware) as http:
            return (await http.get("/")).text

    assert [anyio.run(main, backend=backend) for backend in ("asyncio", "trio", "asyncio")] == ["body"] * 3


def test_fastapi():
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("starlette.testclient")
    from hishel.fastapi import cache

    calls = []
    app = fastapi.FastAPI()
    app.add_middleware(CacheMiddleware, storage=HotsetStorage(name="api"))

    @app.get("/items/{item}", dependencies=[cache(max_age=60, public=True)])
    async def item(item: int):
        calls.append(item)
        return {"item": item}

    with testclient.TestClient(app) as http:
        assert [http.get("/items/5").json() for _ in range(3)] == [{"item": 5}] * 3
    assert calls == [5]
