"""Storages in memory for hishel 2: HTTP caching for ASGI apps, httpx and requests.

hishel decides what may be stored and served. The storages here store the responses, weighed by
their bytes, with the time to live and the time to idle that hishel sets, and all variants (`Vary`)
of a URL.

    app.add_middleware(hotset.hishel.CacheMiddleware)  # a server: FastAPI, any ASGI app
    client = hishel.httpx.AsyncCacheClient(storage=HotsetStorage())  # a client

`CacheMiddleware` is that of hishel, and lets one request of a cold URL call the app while others
wait for its response to be stored.
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
# The approximate overhead of an entry beside its body, headers and URL, in bytes.
_OVERHEAD = 1000
# The number of responses of one key: a `Vary` on a header that differs for each client is
# unbounded.
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
    """A response as it is stored. Callers only get copies."""

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
        """Returns the seconds until it expires if it is used now; None if it never does."""
        limits = [] if self.deadline is None else [self.deadline - now]
        if self.tti is not None:
            limits.append(self.tti)
        return min(limits, default=None)

    def entry(self, stream: Any) -> Entry:
        request = Request(self.method, self.url, Headers(self.request_headers))
        return Entry(self.id, request, Response(self.status_code, Headers(self.response_headers), stream))


class _PendingEntry:
    """An entry whose body is being read. It may be removed, or get other headers."""

    def __init__(self, key: str, stored: _StoredResponse) -> None:
        self.key = key
        self.stored = stored
        self.removed = False


# The entries of all storages whose bodies are being read, while their streams exist.
_pending: WeakValueDictionary[UUID, _PendingEntry] = WeakValueDictionary()


def _weigh(key: Any, value: Any) -> int:
    if isinstance(value, _StoredResponse):
        return value.weight
    # The ids of a key's entries.
    return len(key) + 100 + 50 * len(value)


class _Store:
    """The entries, each by its id (bytes), and the ids of each key's entries, by the key (a str).
    """

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
        """Inserts an entry whose body is complete; returns None if it was removed or has expired.
        """
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
        # It was removed between the check of `removed` above and the insertion.
        if pending.removed:
            self.engine.delete(id_)
            return None
        _pending.pop(stored.id, None)
        return stored

    def find(self, key: str) -> list[_StoredResponse]:
        """Returns the entries of a key, oldest first."""
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
        """Removes the ids of entries that are no longer stored from those of a key."""

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
    """The chunks of a body while it is read, as long as they are small enough to be stored."""

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
    """Yields the stream unchanged, and publishes the entry once all of it was read."""
    async for chunk in stream:
        body.add(chunk)
        yield chunk
    body.complete()


def _recording(stream: Iterator[bytes], body: _Body) -> Iterator[bytes]:
    """Yields the stream unchanged, and publishes the entry once all of it was read."""
    for chunk in stream:
        body.add(chunk)
        yield chunk
    body.complete()


def _chunks_of(stored: _StoredResponse) -> tuple[bytes, ...]:
    return (stored.body,) if stored.body else ()


class _HasStore:
    """What both storages have: their cache, and its statistics."""

    _store: _Store

    @property
    def engine(self) -> Cache[Any, Any]:
        """The `hotset.Cache` that stores the responses, in a format of its own."""
        return self._store.engine

    def stats(self) -> Stats:
        """Returns the statistics of the storage (a hit counts two lookups)."""
        return self._store.engine.stats()


class HotsetStorage(_HasStore, AsyncBaseStorage):
    """Stores the responses of hishel's asynchronous clients and ASGI middleware in memory.

    It may be used in any event loop.

    Args:
        max_bytes: The capacity for all responses with their headers and URLs, in bytes; the coldest
            are evicted.
        default_ttl: Seconds until an entry expires, if hishel sets no other; None: it stays until
            it is evicted.
        default_tti: Seconds until an entry that is not used expires.
        max_stream_size: The greatest size of a body to be stored, in bytes; None for `max_bytes`.
        name: All storages of this name in the process store the same responses,
            `hotset.shared("hishel:NAME")`. None: this storage is on its own.
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
        """Returns an entry whose stream stores the body as it is read.

        Lookups find it once all of it was read.

        Args:
            request: The request.
            response: The response, with its stream.
            key: The key.
            ttl: Seconds until it expires; None for the default.
            tti: Seconds until it expires if it is not used; None for the default.

        Returns:
            The entry.
        """
        stream = _async_chunks() if response.stream is None else response.stream
        assert isinstance(stream, AsyncIterator), "the stream of a response must be an AsyncIterator here"
        ttl, tti = self.default_ttl if ttl is None else ttl, self.default_tti if tti is None else tti
        pending = self._store.begin(request, response, key, ttl, tti)
        body = _Body(self._store, pending, self.max_stream_size)
        recorded = _recording_async(stream, body)
        request_loads = _current_loads.get()
        if request_loads is not None and request_loads.store is self._store:
            # The middleware has the body in memory: store it before it is sent, so that a slow
            # client does not delay the waiting requests.
            recorded = _async_chunks(*[chunk async for chunk in recorded])
            if body.published is not None:
                request_loads.stored(key, body.published)
        return Entry(pending.stored.id, request, replace(response, stream=recorded))

    async def get_entries(self, key: str) -> list[Entry]:
        """Returns the entries under `key` that are complete and have not expired.

        Args:
            key: The key.
        """
        found = self._store.find(key)
        request_loads = _current_loads.get()
        if request_loads is not None and request_loads.store is self._store:
            while not found and (load := await request_loads.wait(key)) is not None:
                # The stored responses may have been evicted since, or not been admitted.
                found = self._store.find(key) or load.stored
        return [stored.entry(_async_chunks(*_chunks_of(stored))) for stored in found]

    async def update_headers(self, id: UUID, headers: Headers) -> None:
        """Replaces the response headers of an entry, if it is still stored.

        Args:
            id: The id of the entry.
            headers: The new headers.
        """
        self._store.update(id, headers)

    async def remove_entry(self, id: UUID) -> None:
        """Removes an entry, also one whose body is being read.

        Args:
            id: The id of the entry.
        """
        self._store.remove(id)


class SyncHotsetStorage(_HasStore, BaseStorage):
    """Stores the responses of hishel's synchronous clients, for httpx and requests, in memory.

    It may be used by any thread. It and a `HotsetStorage` of the same `name` store the same
    responses.

    Args:
        max_bytes: As of `HotsetStorage`.
        default_ttl: As of `HotsetStorage`.
        default_tti: As of `HotsetStorage`.
        max_stream_size: As of `HotsetStorage`.
        name: As of `HotsetStorage`.
        timer: As of `HotsetStorage`.
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
        """Returns an entry whose stream stores the body as it is read.

        Lookups find it once all of it was read.

        Args:
            request: The request.
            response: The response, with its stream.
            key: The key.
            ttl: Seconds until it expires; None for the default.
            tti: Seconds until it expires if it is not used; None for the default.

        Returns:
            The entry.
        """
        stream = iter(()) if response.stream is None else response.stream
        assert isinstance(stream, Iterator), "the stream of a response must be an Iterator here"
        ttl, tti = self.default_ttl if ttl is None else ttl, self.default_tti if tti is None else tti
        pending = self._store.begin(request, response, key, ttl, tti)
        recorded = _recording(stream, _Body(self._store, pending, self.max_stream_size))
        return Entry(pending.stored.id, request, replace(response, stream=recorded))

    def get_entries(self, key: str) -> list[Entry]:
        """Returns the entries under `key` that are complete and have not expired.

        Args:
            key: The key.
        """
        return [stored.entry(iter(_chunks_of(stored))) for stored in self._store.find(key)]

    def update_headers(self, id: UUID, headers: Headers) -> None:
        """Replaces the response headers of an entry, if it is still stored.

        Args:
            id: The id of the entry.
            headers: The new headers.
        """
        self._store.update(id, headers)

    def remove_entry(self, id: UUID) -> None:
        """Removes an entry, also one whose body is being read.

        Args:
            id: The id of the entry.
        """
        self._store.remove(id)


# --- One call of the app for concurrent requests of a cold key.


class _Load:
    """A request of a cold key in progress, and the responses that it stored."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.stored: list[_StoredResponse] = []


class _RequestLoads:
    """The cold keys that one request leads among the loads of a middleware."""

    def __init__(self, store: _Store, loads: dict[str, _Load], uncacheable: Cache[str, bool]) -> None:
        self.store = store
        self._loads = loads
        self._uncacheable = uncacheable
        self._led: list[str] = []

    async def wait(self, key: str) -> _Load | None:
        """Waits for the load of `key` in progress and returns it; None to call the app.

        Nothing is awaited between the check of the loads and their change, so no other request runs
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
        """Records that this request has stored a response."""
        self._uncacheable.delete(key)
        if key in self._led:
            self._loads[key].stored.append(stored)

    def end(self, completed: bool) -> None:
        """Wakes the waiting requests.

        If nothing was stored, they call the app concurrently, as do later requests for
        `uncacheable_ttl`.

        Args:
            completed: Whether the app was called. Otherwise (the request was cancelled) one of the
                waiting requests leads.
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

    The request that finds nothing stored calls the app. Others of the same URL wait, and get the
    response that it stored, if hishel allows that. If it stored none, they call the app
    concurrently, and for `uncacheable_ttl` no request of that URL waits for another.

    Args:
        app: The app to cache.
        storage: Stores the responses; one of its own by default.
        rfc: As of hishel: True for RFC 9111, options of it, or False to store all that succeeds, by
            method and URL.
        uncacheable_ttl: Seconds that a URL is recorded whose response was not stored.
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
        # One dict per event loop: an event of one loop cannot wake tasks of another.
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
            # The app was called, if it had to be, and its response is stored, if it may be.
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
    """Returns the app without this request's loads, which do not concern clients that the app uses.
    """

    async def outside(scope: _Scope, receive: _Receive, send: _Send) -> None:
        before = _current_loads.set(None)
        try:
            await app(scope, receive, send)
        finally:
            _current_loads.reset(before)

    return outside
