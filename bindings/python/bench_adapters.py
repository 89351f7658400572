"""Measures hotset's framework adapters beside what the frameworks have built in.

    python bindings/python/bench_adapters.py [--quick] [--job django]

Each figure is the median of rounds in which the two take turns; a job whose framework is not
installed is left out. `make bench-adapters` runs all of them.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

JOBS: dict[str, tuple[str, Callable[["Rounds"], None]]] = {}


def job(name: str, needs: str) -> Callable[[Callable[["Rounds"], None]], Callable[["Rounds"], None]]:
    """Registers a function as a job that needs this module."""

    def add(function: Callable[["Rounds"], None]) -> Callable[["Rounds"], None]:
        JOBS[name] = needs, function
        return function

    return add


class Rounds:
    """How often is measured, and the table that is printed."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self._rounds = rounds
        self._seconds = seconds

    def _calls(self, call: Callable[[], object]) -> int:
        """Returns how many calls take about the time of a round."""
        calls = 1
        while True:
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            taken = time.perf_counter() - begin
            if taken > self._seconds / 4:
                return max(1, int(calls * self._seconds / taken))
            calls *= 4

    @staticmethod
    def _time(call: Callable[[], object], calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) / calls

    def compare(
        self, what: str, ours: Callable[[], object], other: str, theirs: Callable[[], object], aim: float | None = None
    ) -> None:
        """Prints microseconds per call of both, and the ratio, beside what it should be at least.
        """
        count, their_count = self._calls(ours), self._calls(theirs)
        pairs = [(self._time(ours, count), self._time(theirs, their_count)) for _ in range(self._rounds)]
        self._print(what, other, pairs, aim)

    def compare_async(
        self, what: str, ours: Callable[[], Awaitable[Any]], other: str, theirs: Callable[[], Awaitable[Any]], aim: float | None = None
    ) -> None:
        """The same for coroutines, awaited one after another in one event loop."""

        async def measure(call: Callable[[], Awaitable[Any]], calls: int) -> float:
            begin = time.perf_counter()
            for _ in range(calls):
                await call()
            return (time.perf_counter() - begin) / calls

        async def calls_of(call: Callable[[], Awaitable[Any]]) -> int:
            calls = 1
            while (taken := await measure(call, calls) * calls) < self._seconds / 4:
                calls *= 4
            return max(1, int(calls * self._seconds / taken))

        async def main() -> list[tuple[float, float]]:
            count, their_count = await calls_of(ours), await calls_of(theirs)
            return [(await measure(ours, count), await measure(theirs, their_count)) for _ in range(self._rounds)]

        self._print(what, other, asyncio.run(main()), aim)

    def _print(self, what: str, other: str, pairs: list[tuple[float, float]], aim: float | None) -> None:
        ours, theirs = (statistics.median(times) * 1e6 for times in zip(*pairs, strict=True))
        ratio = statistics.median(their / our for our, their in pairs)
        wanted = "" if aim is None else f" (aim {aim:g}: {'reached' if ratio >= aim else 'missed'})"
        print(f"{what:<42} {ours:9.2f} us   {other:<22} {theirs:9.2f} us   {ratio:6.1f} times as fast{wanted}", flush=True)


@job("django", needs="django")
def django_job(rounds: Rounds) -> None:
    """get, set, incr and get_or_set beside LocMemCache."""
    from django.conf import settings

    settings.configure(
        CACHES={
            "hotset": {"BACKEND": "hotset.django.HotsetCache"},
            "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 10_000}},
        }
    )
    from django.core.cache import caches

    ours, theirs = caches["hotset"], caches["locmem"]
    small = {"id": 7, "name": "a user", "roles": ["reader", "writer"], "active": True}
    for backend in (ours, theirs):
        backend.set("text", "a value of some thirty letters")
        backend.set("dict", small)
        backend.set("number", 0)

    def compare(what: str, call: Callable[[Any], Callable[[], object]], aim: float | None = None) -> None:
        rounds.compare(f"django: {what}", call(ours), "LocMemCache", call(theirs), aim)

    compare("get of a str", lambda backend: lambda: backend.get("text"), 8)
    compare("get of a small dict", lambda backend: lambda: backend.get("dict"), 2.5)
    compare("get of an absent key", lambda backend: lambda: backend.get("absent"))
    compare("set of a str", lambda backend: lambda: backend.set("text", "a value of some thirty letters"))
    compare("set of a small dict", lambda backend: lambda: backend.set("dict", small))
    compare("incr", lambda backend: lambda: backend.incr("number"))
    compare("get_or_set, a hit", lambda backend: lambda: backend.get_or_set("text", str))
    compare("get_many of 10", lambda backend: lambda: backend.get_many(["text", *map(str, range(9))]))
    rounds.compare_async("django: aget of a str", lambda: ours.aget("text"), "LocMemCache", lambda: theirs.aget("text"), 20)
    params: dict[str, Any] = {}
    rounds.compare("django: a new instance", lambda: type(ours)("", params), "LocMemCache", lambda: type(theirs)("", params))


@job("django-redis", needs="redis")
def django_redis_job(rounds: Rounds) -> None:
    """TieredCache beside Django's RedisCache, on one redis-server of its own."""
    sys.path.insert(0, str(Path(__file__).parent / "tests" / "tier2"))
    import servers
    from django.conf import settings
    from django.core.cache.backends.redis import RedisCache

    if not servers.HAS_REDIS:
        print("django-redis: left out, there is no redis-server (make tools-redis)")
        return
    if not settings.configured:
        settings.configure()
    settings.SECRET_KEY = "the secret key of a benchmark"
    from hotset.django import TieredCache

    with tempfile.TemporaryDirectory() as folder, servers.Server(Path(folder)) as server:
        patient = {"timeout": 5.0, "connect_timeout": 5.0}
        ours, theirs = TieredCache(server.url, {"OPTIONS": patient}), RedisCache(server.url, {})
        # (Its first tier keeps nothing: each get asks the server.)
        remote = TieredCache(server.url, {"OPTIONS": {**patient, "local_ttl": 1e-9, "name": "remote"}})
        small = {"id": 7, "name": "a user", "roles": ["reader", "writer"], "active": True}
        for backend in (ours, theirs, remote):
            backend.set("text", "a value of some thirty letters")
            backend.set("dict", small)
            backend.set("number", 0)
        ten = [f"key{n}" for n in range(10)]

        def compare(what: str, call: Callable[[Any], Callable[[], object]], by: Any = ours) -> None:
            rounds.compare(f"django-redis: {what}", call(by), "RedisCache", call(theirs))

        compare("get of a str", lambda backend: lambda: backend.get("text"))
        compare("get of a small dict", lambda backend: lambda: backend.get("dict"))
        compare("get_or_set, a hit", lambda backend: lambda: backend.get_or_set("text", str))
        compare("get of a str, from the server", lambda backend: lambda: backend.get("text"), remote)
        compare("get of a small dict, from the server", lambda backend: lambda: backend.get("dict"), remote)
        compare("get of an absent key", lambda backend: lambda: backend.get("absent"))
        compare("set of a small dict", lambda backend: lambda: backend.set("dict", small))
        compare("incr", lambda backend: lambda: backend.incr("number"))
        compare("delete", lambda backend: lambda: backend.delete("absent"))
        compare("set_many of 10", lambda backend: lambda: backend.set_many(dict.fromkeys(ten, 1)))
        compare("get_many of 10", lambda backend: lambda: backend.get_many(ten))
        compare("get_many of 10, from the server", lambda backend: lambda: backend.get_many(ten), remote)
        rounds.compare_async("django-redis: aget of a str", lambda: ours.aget("text"), "RedisCache", lambda: theirs.aget("text"))
        rounds.compare_async("django-redis: aget, from the server", lambda: remote.aget("text"), "RedisCache", lambda: theirs.aget("text"))
        for each in (ours, remote):
            each.server.close()


@job("cachelib", needs="cachelib")
def cachelib_job(rounds: Rounds) -> None:
    """get, set and inc beside SimpleCache."""
    from cachelib import SimpleCache

    from hotset.cachelib import HotsetCache

    ours, theirs = HotsetCache(), SimpleCache(threshold=10_000)
    small = {"id": 7, "name": "a user", "roles": ["reader", "writer"], "active": True}
    for cache in (ours, theirs):
        cache.set("text", "a value of some thirty letters")
        cache.set("dict", small)
        cache.set("number", 0)

    def compare(what: str, call: Callable[[Any], Callable[[], object]]) -> None:
        rounds.compare(f"cachelib: {what}", call(ours), "SimpleCache", call(theirs))

    compare("get of a str", lambda cache: lambda: cache.get("text"))
    compare("get of a small dict", lambda cache: lambda: cache.get("dict"))
    compare("set of a small dict", lambda cache: lambda: cache.set("dict", small))
    compare("inc", lambda cache: lambda: cache.inc("number"))


@job("hishel", needs="hishel")
def hishel_job(rounds: Rounds) -> None:
    """A request that is served from the cache, through the ASGI middleware, beside SQLite in
    memory.
    """
    import anysqlite
    from hishel import AsyncSqliteStorage
    from hishel.asgi import ASGICacheMiddleware

    from hotset.hishel import CacheMiddleware

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"cache-control", b"public, max-age=600"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 1000})

    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "query_string": b"", "headers": [(b"host", b"test")]}

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request"}

    ours = CacheMiddleware(app)
    theirs: list[Any] = []

    async def sqlite() -> None:
        if not theirs:
            storage = AsyncSqliteStorage(connection=await anysqlite.connect(":memory:"))
            theirs.append(ASGICacheMiddleware(app, storage))
        await theirs[0](dict(scope), nothing, nothing)

    rounds.compare_async("hishel: a request, stored", lambda: ours(dict(scope), nothing, nothing), "SQLite :memory:", sqlite)


def main() -> None:
    """Runs the jobs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--job", choices=list(JOBS), help="this one only")
    chosen = parser.parse_args()
    rounds = Rounds(*((3, 0.05) if chosen.quick else (9, 0.3)))
    for name, (needs, run) in JOBS.items():
        if chosen.job not in (None, name):
            continue
        if find_spec(needs) is None:
            print(f"{name}: left out, {needs} is not installed")
            continue
        run(rounds)


if __name__ == "__main__":
    main()
