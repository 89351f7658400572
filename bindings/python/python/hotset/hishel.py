"""Storages in memory for hishel 2: HTTP caching for ASGI apps, httpx and requests.

hishel decides what may be stored and served; the storages here hold the responses, weighed by their
bytes, with the time to live and the time to idle that hishel gives them, and all variants (`Vary`)
of a URL.

    app.add_middleware(hotset.hishel.CacheMiddleware)                        # a server: FastAPI, Starlette, any ASGI app
    client = hishel.httpx.AsyncCacheClient(storage=HotsetStorage())          # a client

`CacheMiddleware` is hishel's, and lets one request of a cold URL call the app, while others wait
for its response to be stored.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import anyio
from anyio.lowlevel import RunVar

from hishel import AsyncBaseStorage, BaseStorage, CacheOptions, Entry, Headers, Request, Response
from hishel.asgi import ASGICacheMiddleware
from hotset._adapters import engine_of
from hotset._hotset import MISSING
from hotset._mapping import Cache
from hotset._stats import Stats

__all__ = ["CacheMiddleware", "HotsetStorage", "SyncHotsetStorage"]

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
# What an entry takes beside the bytes of its body, headers and URL, about.
_OVERHEAD = 1000
# How many responses of one key are held: a `Vary` on what differs for each client would have no
# end.
_MAX_VARIANTS = 64

_Lists = Mapping[str, list[str]]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def _lists(headers: Headers) -> _Lists:
    return {name: list(headers.get_list(name) or ()) for name in headers}


def _size(lists: _Lists) -> int:
    return sum(len(name) + len(value) for name, values in lists.items() for value in values)


@dataclass(frozen=True, slots=True)
class _StoredResponse:
    """A response as it is held. Nothing of it is handed out but by a copy."""

    id: UUID
    method: str
    url: str
    request_headers: _Lists
    status_code: int
    response_headers: _Lists
    body: bytes
    deadline: float | None
    tti: float | None

    @property
    def weight(self) -> int:
        return _OVERHEAD + len(self.url) + len(self.body) + _size(self.request_headers) + _size(self.response_headers)

    def left(self, now: float) -> float | None:
        """Returns the seconds until it expires if it is used now."""
        limits = [] if self.deadline is None else [self.deadline - now]
        if self.tti is not None:
            limits.append(self.tti)
        return min(limits, default=None)

    def entry(self, stream: Any) -> Entry:
        request = Request(self.method, self.url, Headers(self.request_headers))
        return Entry(self.id, request, Response(self.status_code, Headers(self.response_headers), stream))


class _PendingEntry:
    """An entry whose body is being read. It may be removed, or given other headers."""

    def __init__(self, key: str, stored: _StoredResponse) -> None:
        self.key = key
        self.stored = stored
        self.removed = False


# The entries of all storages whose bodies are being read, as long as their streams live.
_pending: WeakValueDictionary[UUID, _PendingEntry] = WeakValueDictionary()


def _weigh(key: Any, value: Any) -> int:
    if isinstance(value, _StoredResponse):
        return value.weight
    # The ids of a key's entries.
    return len(key) + 100 + 50 * len(value)


class _Store:
    """The entries, each by its id (bytes), and the ids of each key's entries (a str)."""

    def __init__(self, max_bytes: int, name: str | None, timer: Callable[[], float] | None) -> None:
        self.engine = engine_of("hishel", name, max_weight=max_bytes, weigher=_weigh, timer=timer)
        self.now = time.monotonic if timer is None else timer
        self.limit = max_bytes

    def begin(self, request: Request, response: Response, key: str, ttl: float | None, tti: float | None) -> _PendingEntry:
        """Returns an entry that lookups do not find before `publish`."""
        stored = _StoredResponse(
            id=uuid4(),
            method=request.method,
            url=request.url,
            request_headers=_lists(request.headers),
            status_code=response.status_code,
            response_headers=_lists(response.headers),
            body=b"",
            deadline=None if ttl is None else self.now() + ttl,
            tti=tti,
        )
        pending = _PendingEntry(key, stored)
        _pending[stored.id] = pending
        return pending

    def publish(self, pending: _PendingEntry, body: bytes) -> _StoredResponse | None:
        """Inserts an entry whose body is complete; returns it, or None if it was removed or expired."""
        stored = replace(pending.stored, body=body)
        left = stored.left(self.now())
        if pending.removed or (left is not None and left <= 0):
            return None
        id_ = stored.id.bytes
        self.engine.set(id_, stored, left)
        dropped: tuple[bytes, ...] = ()

        def add(ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
            nonlocal dropped
            dropped = ids[: 1 - _MAX_VARIANTS] if len(ids) >= _MAX_VARIANTS else ()
            return (*ids[len(dropped) :], id_)

        self.engine.compute(pending.key, add, ())
        self.engine.delete_many(dropped)
        # (A removal between the look at `removed` and the insertion.)
        if pending.removed:
            self.engine.delete(id_)
            return None
        _pending.pop(stored.id, None)
        return stored

    def find(self, key: str) -> list[_StoredResponse]:
        """Returns the entries of the key, the oldest first."""
        ids = self.engine.get(key)
        if ids is None:
            return []
        values = self.engine.get_many(ids)
        found = [stored for stored in values if stored is not None]
        if len(found) < len(values):
            self._forget(key, {id_ for id_, stored in zip(ids, values, strict=True) if stored is None})
        now = None
        for stored in found:
            if stored.tti is not None:
                now = self.now() if now is None else now
                self.engine.touch(stored.id.bytes, stored.left(now))
        return found

    def _forget(self, key: str, gone: set[bytes]) -> None:
        """Removes ids of entries that have expired, or were evicted or removed, from a key's."""

        def remaining(ids: Any) -> Any:
            if ids is MISSING:
                return MISSING
            return tuple(id_ for id_ in ids if id_ not in gone) or MISSING

        self.engine.compute(key, remaining, MISSING)

    def update(self, id_: UUID, headers: Headers) -> None:
        lists = _lists(headers)
        pending = _pending.get(id_)
        if pending is not None:
            pending.stored = replace(pending.stored, response_headers=lists)

        def change(stored: Any) -> Any:
            return MISSING if stored is MISSING else replace(stored, response_headers=lists)

        self.engine.compute(id_.bytes, change, MISSING)

    def remove(self, id_: UUID) -> None:
        pending = _pending.get(id_)
        if pending is not None:
            pending.removed = True
        self.engine.delete(id_.bytes)


class _Body:
    """The chunks of a body while it is read, as long as they are few enough to be stored."""

    def __init__(self, store: _Store, pending: _PendingEntry, max_stream_size: int | None) -> None:
        self.published: _StoredResponse | None = None
        self._store = store
        self._pending = pending
        self._limit = store.limit if max_stream_size is None else min(store.limit, max_stream_size)
        self._chunks: list[bytes] | None = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        if self._chunks is not None:
            self._size += len(chunk)
            if self._size > self._limit:
                self._chunks = None
            else:
                self._chunks.append(bytes(chunk))

    def complete(self) -> None:
        if self._chunks is not None:
            self.published = self._store.publish(self._pending, b"".join(self._chunks))


async def _async_chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _recording_async(stream: AsyncIterator[bytes], body: _Body) -> AsyncIterator[bytes]:
    """Yields the stream unchanged; the entry is published when all of it was read."""
    async for chunk in stream:
        body.add(chunk)
        yield chunk
    body.complete()


def _recording(stream: Iterator[bytes], body: _Body) -> Iterator[bytes]:
    for chunk in stream:
        body.add(chunk)
        yield chunk
    body.complete()


def _chunks_of(stored: _StoredResponse) -> tuple[bytes, ...]:
    return (stored.body,) if stored.body else ()


class HotsetStorage(AsyncBaseStorage):
    """Holds the responses of hishel's asynchronous clients and ASGI middleware in memory.

    It may be used in any event loop.

    Args:
        max_bytes: How many bytes all responses may have, with their headers and URLs; the coldest
            are evicted for others.
        default_ttl: Seconds until an entry expires, if hishel gives no other; None: it stays until
            it is evicted.
        default_tti: Seconds until an entry expires that is not used.
        max_stream_size: How many bytes a body may have to be stored; None: as many as `max_bytes`.
        name: All storages of this name in the process hold the same responses,
            `hotset.shared("hishel:NAME")`. None: this one is on its own.
        timer: A clock, for tests: a function that returns seconds.
    """

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        default_ttl: float | None = None,
        default_tti: float | None = None,
        max_stream_size: int | None = None,
        name: str | None = None,
        timer: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(default_ttl=default_ttl, default_tti=default_tti, max_stream_size=max_stream_size)
        self._store = _Store(max_bytes, name, timer)

    async def create_entry(
        self, request: Request, response: Response, key: str, *, ttl: float | None = None, tti: float | None = None
    ) -> Entry:
        """Returns an entry whose stream stores the body as it is read. It is found when all of it was read."""
        stream = _async_chunks() if response.stream is None else response.stream
        assert isinstance(stream, AsyncIterator), "the stream of a response must be an AsyncIterator here"
        ttl, tti = self.default_ttl if ttl is None else ttl, self.default_tti if tti is None else tti
        pending = self._store.begin(request, response, key, ttl, tti)
        body = _Body(self._store, pending, self.max_stream_size)
        recorded = _recording_async(stream, body)
        request_loads = _current_loads.get()
        if request_loads is not None and request_loads.store is self._store:
            # The middleware has the body in memory: it is stored before it is sent, however slow
            # the client is.
            recorded = _async_chunks(*[chunk async for chunk in recorded])
            if body.published is not None:
                request_loads.stored(key, body.published)
        return Entry(pending.stored.id, request, replace(response, stream=recorded))

    async def get_entries(self, key: str) -> list[Entry]:
        """Returns the entries under `key` that are complete and have not expired."""
        found = self._store.find(key)
        request_loads = _current_loads.get()
        if request_loads is not None and request_loads.store is self._store:
            while not found and (load := await request_loads.wait(key)) is not None:
                # (What was stored may have been evicted since, or not been admitted.)
                found = self._store.find(key) or load.stored
        return [stored.entry(_async_chunks(*_chunks_of(stored))) for stored in found]

    async def update_headers(self, id: UUID, headers: Headers) -> None:
        """Replaces the response headers of an entry, if it is still there."""
        self._store.update(id, headers)

    async def remove_entry(self, id: UUID) -> None:
        """Removes an entry, also one that is being written."""
        self._store.remove(id)

    @property
    def engine(self) -> Cache[Any, Any]:
        """The `hotset.Cache` that holds the responses, in a form of its own."""
        return self._store.engine

    def stats(self) -> Stats:
        """Returns what was counted (two lookups for a hit), and what is held."""
        return self._store.engine.stats()


class SyncHotsetStorage(BaseStorage):
    """Holds the responses of hishel's synchronous clients, for httpx and requests, in memory. For any threads.

    Arguments: as `HotsetStorage`; of one name, both hold the same responses.
    """

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        default_ttl: float | None = None,
        default_tti: float | None = None,
        max_stream_size: int | None = None,
        name: str | None = None,
        timer: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(default_ttl=default_ttl, default_tti=default_tti, max_stream_size=max_stream_size)
        self._store = _Store(max_bytes, name, timer)

    def create_entry(
        self, request: Request, response: Response, key: str, *, ttl: float | None = None, tti: float | None = None
    ) -> Entry:
        """Returns an entry whose stream stores the body as it is read. It is found when all of it was read."""
        stream = iter(()) if response.stream is None else response.stream
        assert isinstance(stream, Iterator), "the stream of a response must be an Iterator here"
        ttl, tti = self.default_ttl if ttl is None else ttl, self.default_tti if tti is None else tti
        pending = self._store.begin(request, response, key, ttl, tti)
        recorded = _recording(stream, _Body(self._store, pending, self.max_stream_size))
        return Entry(pending.stored.id, request, replace(response, stream=recorded))

    def get_entries(self, key: str) -> list[Entry]:
        """Returns the entries under `key` that are complete and have not expired."""
        return [stored.entry(iter(_chunks_of(stored))) for stored in self._store.find(key)]

    def update_headers(self, id: UUID, headers: Headers) -> None:
        """Replaces the response headers of an entry, if it is still there."""
        self._store.update(id, headers)

    def remove_entry(self, id: UUID) -> None:
        """Removes an entry, also one that is being written."""
        self._store.remove(id)

    @property
    def engine(self) -> Cache[Any, Any]:
        """The `hotset.Cache` that holds the responses, in a form of its own."""
        return self._store.engine

    def stats(self) -> Stats:
        """Returns what was counted (two lookups for a hit), and what is held."""
        return self._store.engine.stats()


# --- One call of the app for concurrent requests of a cold key.


class _Load:
    """A request of a cold key that is in progress, and what it stored."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.stored: list[_StoredResponse] = []


class _RequestLoads:
    """A request's part in the loads of a middleware: the cold keys that it leads."""

    def __init__(self, store: _Store, loads: dict[str, _Load], uncacheable: Cache[str, bool]) -> None:
        self.store = store
        self._loads = loads
        self._uncacheable = uncacheable
        self._led: list[str] = []

    async def wait(self, key: str) -> _Load | None:
        """Waits for the load of `key` in progress and returns it; None if the caller must call the app.

        Between the look at the loads and their change nothing is awaited, so no other request comes
        in between.
        """
        load = self._loads.get(key)
        if load is None:
            if key not in self._uncacheable:
                self._loads[key] = _Load()
                self._led.append(key)
            return None
        if key in self._led:
            return None
        await load.ended.wait()
        return load

    def stored(self, key: str, stored: _StoredResponse) -> None:
        """Called when this request has stored a response."""
        self._uncacheable.delete(key)
        if key in self._led:
            self._loads[key].stored.append(stored)

    def end(self, completed: bool) -> None:
        """Wakes the requests that wait.

        If nothing was stored, they call the app concurrently, as do later requests for a while.

        Args:
            completed: Whether the app was called. Otherwise (the request was cancelled) one of
                those that wait leads.
        """
        for key in self._led:
            load = self._loads.pop(key)
            if completed and not load.stored:
                self._uncacheable[key] = True
            load.ended.set()
        self._led.clear()


_current_loads: ContextVar[_RequestLoads | None] = ContextVar("hotset.hishel", default=None)


class CacheMiddleware(ASGICacheMiddleware):
    """hishel's ASGI middleware, with one call of the app for concurrent requests of a cold URL.

    The request that finds nothing stored calls the app; others of the same URL wait, and are served
    what it stored, if hishel says that they may be. If it stored nothing, they call the app
    themselves, at the same time; and for `uncacheable_ttl` no request of that URL waits for
    another.

    Args:
        app: The app to be cached.
        storage: Where responses are held; one of its own by default.
        rfc: As of hishel: True for RFC 9111, options of it, or False to store all that succeeds, by
            method and URL.
        uncacheable_ttl: Seconds that a URL is remembered whose response was not stored.
    """

    def __init__(
        self,
        app: _App,
        storage: HotsetStorage | None = None,
        rfc: bool | CacheOptions = True,
        *,
        uncacheable_ttl: float = 10.0,
    ) -> None:
        storage = HotsetStorage() if storage is None else storage
        super().__init__(_without_loads(app), storage, rfc)
        self._store = storage._store  # pyright: ignore[reportPrivateUsage]
        # Of each event loop: an event of one cannot wake tasks of another.
        self._loads: RunVar[dict[str, _Load]] = RunVar("loads of hotset.hishel.CacheMiddleware")
        self._uncacheable: Cache[str, bool] = Cache(10_000, ttl=uncacheable_ttl)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serves a request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await super().__call__(scope, receive, send)
            return
        try:
            loads = self._loads.get()
        except LookupError:
            loads = dict[str, _Load]()
            self._loads.set(loads)
        request_loads = _RequestLoads(self._store, loads, self._uncacheable)

        async def send_and_end(message: MutableMapping[str, Any]) -> None:
            # The app was called, if it had to be, and what may be stored is.
            request_loads.end(completed=True)
            await send(message)

        before = _current_loads.set(request_loads)
        try:
            await super().__call__(scope, receive, send_and_end)
        except Exception:
            request_loads.end(completed=True)
            raise
        finally:
            request_loads.end(completed=False)
            _current_loads.reset(before)


def _without_loads(app: _App) -> _App:
    """Returns the app without this request's turn, which is of no concern to clients that the app uses."""

    async def outside(scope: _Scope, receive: _Receive, send: _Send) -> None:
        before = _current_loads.set(None)
        try:
            await app(scope, receive, send)
        finally:
            _current_loads.reset(before)

    return outside
