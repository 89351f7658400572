"""The second tier beside redis-py, side by side in one run: medians, and ratios of each round.

    bench_tier2.py [--quick] [--job NAME]

Starts a redis-server of its own. On a shared machine trust the ratios.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "tests" / "tier2"))

import redis
import redis.asyncio
from servers import Server, wait_until

import hotset
from hotset.tier2 import Redis

VALUE = {"id": 12345, "name": "tea", "price": 3.2, "tags": ["drinks", "menu"]}
Contender = Callable[[], object]


def tier(server: Server, name: str = "prices", **settings: Any) -> Any:
    prices = hotset.TieredCache(Redis(server.url, prefix="bench", **settings), name, ttl=3600)
    prices.get("warm")
    return prices


def armed(prices: Any) -> Any:
    wait_until(lambda: prices.stats()["server"]["nodes"][0]["bus"] == "armed", what="bus")
    return prices


def in_turns(contenders: dict[str, Contender], calls: int, rounds: int, target: float | None) -> dict[str, float]:
    """Prints the median time of each, and of the ratios of each round to the last one; returns the
    median times, in microseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            begun = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - begun) / calls * 1e6)
    report(times, target)
    return {name: statistics.median(each) for name, each in times.items()}


def report(times: dict[str, list[float]], target: float | None) -> None:
    *_, base = times
    for name, each in times.items():
        ratios = sorted(one / other for one, other in zip(each, times[base], strict=True))
        quartiles = f"{ratios[len(ratios) // 4]:.2f} .. {ratios[len(ratios) * 3 // 4]:.2f}"
        wanted = f"  (at most {target})" if target and name == next(iter(times)) else ""
        print(f"  {name:44} {statistics.median(each):10.3f} us   {statistics.median(ratios):7.3f}  {quartiles}{wanted}")


def job_hit(server: Server, quick: bool) -> None:
    """A hit in tier 1 with tier2= against one without, and what it is beside redis-py."""

    def product(number: int) -> dict[str, Any]:
        return VALUE

    tiered = hotset.cached(ttl=3600, local_ttl=3600, tier2=Redis(server.url, prefix="bench"), name="hit")(product)
    plain = hotset.cached(ttl=3600)(product)
    for _ in range(3):
        tiered(7), plain(7)
        time.sleep(0.2)
    assert tiered(7) is tiered(7)
    many = range(1000)
    in_turns(
        {
            "1000 hits with tier2=": lambda: [tiered(7) for _ in many],
            "1000 hits without": lambda: [plain(7) for _ in many],
        },
        20,
        10 if quick else 100,
        1.05,
    )
    client = redis.Redis(port=server.port)
    client.set("tea", json.dumps(VALUE))
    contenders: dict[str, Contender] = {"redis-py: GET": lambda: client.get("tea")}
    try:
        from redis.cache import CacheConfig

        tracking = redis.Redis(port=server.port, protocol=3, cache_config=CacheConfig())
        tracking.get("tea")
        contenders["redis-py: hit of its client-side cache"] = lambda: tracking.get("tea")
    except (ImportError, redis.ConnectionError) as refused:
        print(f"  (no client-side cache of redis-py: {refused})")
    prices = tier(server)
    prices.set("tea", VALUE)
    for _ in range(3):
        prices.get("tea")
        time.sleep(0.2)
    # A thousand per iteration, so that the loop itself counts little.
    contenders["1000 hits of TieredCache.get"] = lambda: [prices.get("tea") for _ in many]
    contenders["1000 hits with tier2="] = lambda: [tiered(7) for _ in many]
    medians = in_turns(contenders, 20, 10 if quick else 50, None)
    for name in list(contenders)[:-2]:
        with_tier2, get = (medians[name] / medians[hits] * 1000 for hits in ("1000 hits with tier2=", "1000 hits of TieredCache.get"))
        print(f"  {name} takes {with_tier2:.0f} times a hit with tier2= (at least 1000), {get:.0f} times a hit of TieredCache.get")


def job_tier2_hit(server: Server, quick: bool) -> None:
    """A hit in tier 2 against GET and json.loads."""
    prices = armed(tier(server))
    prices.set("tea", VALUE)
    client = redis.Redis(port=server.port)
    client.set("tea", json.dumps(VALUE))

    def tiered() -> object:
        prices._local.delete("tea")
        return prices.get("tea")

    in_turns({"hit in tier 2": tiered, "redis-py: GET, json.loads": lambda: json.loads(client.get("tea"))}, 300, 10 if quick else 50, 1.15)

    async def both() -> None:
        tasks = redis.asyncio.Redis(port=server.port)
        times: dict[str, list[float]] = {"hit in tier 2, async": [], "redis.asyncio: GET, json.loads": []}
        for _ in range(10 if quick else 50):
            begun = time.perf_counter()
            for _ in range(300):
                prices._local.delete("tea")
                await prices.aget("tea")
            times["hit in tier 2, async"].append((time.perf_counter() - begun) / 300 * 1e6)
            begun = time.perf_counter()
            for _ in range(300):
                json.loads(await tasks.get("tea"))
            times["redis.asyncio: GET, json.loads"].append((time.perf_counter() - begun) / 300 * 1e6)
        report(times, 1.2)
        await tasks.aclose()

    asyncio.run(both())


def job_miss(server: Server, quick: bool) -> None:
    """A miss, a load and a fill against GET and SET by hand."""
    prices = armed(tier(server))
    client = redis.Redis(port=server.port)
    number = iter(range(10**9))

    def by_hand() -> None:
        key = f"hand{next(number)}"
        if client.get(key) is None:
            client.set(key, json.dumps(VALUE), px=300_000)

    in_turns(
        {"miss and fill": lambda: prices.get_or_load(next(number), lambda key: VALUE), "redis-py: GET, SET": by_hand},
        300,
        10 if quick else 50,
        1.6,
    )


def job_many(server: Server, quick: bool) -> None:
    """get_many of 100 keys in tier 2 against MGET."""
    prices = armed(tier(server))
    keys = [f"k{number}" for number in range(100)]
    prices.set_many({key: VALUE for key in keys})
    client = redis.Redis(port=server.port)
    client.mset({key: json.dumps(VALUE) for key in keys})

    def tiered() -> object:
        prices._local.clear()
        return prices.get_many(keys)

    in_turns({"get_many(100) in tier 2": tiered, "redis-py: MGET(100)": lambda: [json.loads(each) for each in client.mget(keys)]}, 30, 10 if quick else 50, 1.3)


def job_invalidation(server: Server, quick: bool) -> None:
    """How long until four other processes act on an invalidation; and what one costs that concerns
    one of 10,000 entries.
    """
    rounds = 100 if quick else 1000
    readers: list[tuple[int, Any]] = []
    for _ in range(4):
        here, there = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(here)
                mine = armed(tier(server))
                applied = mine._space.first.invalidate

                def note(args: Any, kwargs: Any, applied: Any = applied, there: int = there) -> None:
                    applied(args, kwargs)
                    os.write(there, b"%d %d\n" % (args[0], time.monotonic_ns()))

                mine._space.first.invalidate = note
                os.write(there, b"ready\n")
                time.sleep(600)
            finally:
                os._exit(0)
        os.close(there)
        readers.append((pid, os.fdopen(here, "rb")))
    try:
        for _, pipe in readers:
            assert pipe.readline() == b"ready\n"
        prices = armed(tier(server))
        late: list[float] = []
        for number in range(rounds):
            time.sleep(0.005)
            prices.delete(number)
            returned = time.monotonic_ns()
            for _, pipe in readers:
                key, when = map(int, pipe.readline().split())
                assert key == number
                late.append((when - returned) / 1e3)
        late.sort()
        print(f"  handled elsewhere after delete() returned    p50 {statistics.median(late):.0f} us (at most 500)   p99 {late[len(late) * 99 // 100]:.0f} us (at most 10000)")
    finally:
        for pid, pipe in readers:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            pipe.close()
    for number in range(10_000):
        prices._local[number] = VALUE
    name = prices._space.key_of((7,), {})[0]
    session = prices._space.native()[0]
    in_turns({"one invalidation, 10,000 entries held": lambda: session.apply(name), "the same of a key that is not held": lambda: session.apply(name + b"x")}, 1000, 20, None)


def job_herd(server: Server, quick: bool) -> None:
    """Eight processes of 16 threads on one cold key."""
    worker = Path(__file__).parent / "tests" / "tier2" / "worker.py"
    herd = [
        subprocess.Popen([sys.executable, str(worker), server.url, "herd", "16", "0.02"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    try:
        for each in herd:
            each.stdout.readline()
        loads: list[int] = []
        for turn in range(20 if quick else 100):
            for each in herd:
                each.stdin.write(f"bench{turn}\n")
                each.stdin.flush()
            loads.append(sum(json.loads(each.stdout.readline())["loads"] for each in herd))
        print(f"  loads for each of {len(loads)} cold keys: {sorted(set(loads))} (at most 1)")
    finally:
        for each in herd:
            each.kill()
            each.wait()


def job_outage(server: Server, quick: bool) -> None:
    """Requests while the server is stopped, while nothing listens, and the way back."""
    prices = armed(tier(server))
    server.stop()
    times: list[float] = []
    for number in range(300):
        begun = time.perf_counter()
        prices.get_or_load(f"stopped{number}", lambda key: VALUE)
        times.append((time.perf_counter() - begun) * 1e3)
    print(f"  stopped: first {times[0]:.1f} ms (at most 250), second {times[1]:.1f}, later p50 {statistics.median(times[5:]):.3f} ms, greatest {max(times[5:]):.1f}")
    server.resume()
    begun = time.perf_counter()
    wait_until(lambda: prices.set("back", 1), what="a confirmed write")
    wait_until(lambda: prices.stats()["server"]["nodes"][0]["bus"] == "armed", what="bus")
    print(f"  back after {time.perf_counter() - begun:.2f} s (at most 2.5)")
    server.kill()
    begun = time.perf_counter()
    prices.get_or_load("refused", lambda key: VALUE)
    print(f"  refused: {(time.perf_counter() - begun) * 1e3:.2f} ms (at most 5)")
    server.start()
    begun = time.perf_counter()
    wait_until(lambda: prices.set("back", 1) and prices.stats()["server"]["nodes"][0]["bus"] == "armed", what="a confirmed write")
    print(f"  back after {time.perf_counter() - begun:.2f} s (at most 2.5)")


def job_messages(server: Server, quick: bool) -> None:
    """What 20,000 invalidations of keys that are not held cost a process, in processor time."""
    prices = armed(tier(server))
    writer = redis.Redis(port=server.port)
    stop = threading.Event()

    code = f"""
import socket, time
connected = socket.create_connection(("127.0.0.1", {server.port}))
command = b"".join(b"*3\\r\\n$3\\r\\nSET\\r\\n$%d\\r\\n%b\\r\\n$1\\r\\nx\\r\\n" % (len(k), k) for k in [b'bench:1abebdb69:other:["%d"]' % n for n in range(200)])
while True:
    begun = time.monotonic()
    connected.sendall(command)
    got = 0
    while got < 200 * 5:
        got += len(connected.recv(65536))
    time.sleep(max(0, 0.01 - (time.monotonic() - begun)))
"""
    flood = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(1)
        seconds = 3 if quick else 10
        before, messages = time.process_time(), prices.stats()["server"]["messages"]
        time.sleep(seconds)
        spent = time.process_time() - before
        rate = (prices.stats()["server"]["messages"] - messages) / seconds
        print(f"  {rate:.0f} messages/s cost {spent / seconds:.1%} of a processor: {spent / seconds / max(rate, 1) * 20_000:.1%} for 20,000 (at most 15%)")
    finally:
        flood.kill()
        flood.wait()
        stop.set()
        writer.close()


def job_import(server: Server, quick: bool) -> None:
    """What importing the package takes, and the size of the installed package."""

    def imports(program: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return (time.perf_counter() - begun) * 1e6

    in_turns({"import hotset": lambda: imports("import hotset"), "nothing": lambda: imports("pass")}, 1, 10 if quick else 30, None)
    package = Path(hotset.__file__).parent
    size = sum(file.stat().st_size for file in (package / "tier2").glob("*.py"))
    print(f"  the package's Python of the second tier: {size / 1e3:.0f} KB unpacked")


JOBS: dict[str, Callable[[Server, bool], None]] = {name.removeprefix("job_"): job for name, job in list(globals().items()) if name.startswith("job_")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--job", choices=JOBS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, job in JOBS.items():
            if arguments.job in (None, name):
                with Server(Path(folder) / name) as server:
                    print(f"{name}: {job.__doc__}")
                    job(server, arguments.quick)


if __name__ == "__main__":
    main()
