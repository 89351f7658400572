"""What hotset costs beside functools, dict and, if it is installed, cachebox, on this interpreter.

Every job takes its contestants in turn, round by round, in this process and thread, by the thread's
processor time; printed are medians, and the medians of each round's ratio to the first contestant.
`python bench.py [--quick] [--job NAME]`; `--memory` runs in processes of its own.
"""

import argparse
import functools
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import hotset
from hotset import _hotset

CALLS = 20_000
Loop = Callable[[], float]


def is_pgo() -> bool:
    """Returns whether the interpreter was built with profile-guided optimization."""
    args = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "--enable-optimizations" in args or "-fprofile-use" in (sysconfig.get_config_var("PY_CORE_CFLAGS") or "")


def cached(maxsize: int | None, **options: Any) -> Callable[[Any], Any]:
    return lambda function: _hotset.Memo(function, maxsize=maxsize, **options)


DECORATORS: dict[str, Callable[[int], Any]] = {
    "functools.lru_cache": functools.lru_cache,
    "hotset.lru_cache": hotset.lru_cache,
    "hotset.cached": cached,
    "cached, ttl": lambda maxsize: cached(maxsize, ttl=3600),
}


def loop(call: str, calls: int = CALLS, clock: Callable[[], float] = time.thread_time, **names: Any) -> Loop:
    """Times `calls` calls, ten per iteration, so that the loop itself counts little."""
    body = "".join(f"        {call}\n" for _ in range(10))
    source = f"def run({', '.join(f'{name}={name}' for name in names)}):\n    start = now()\n    for _ in rounds:\n{body}    return now() - start\n"
    namespace = dict(names, now=clock, rounds=range(calls // 10))
    exec(source, namespace)
    return namespace["run"]


def one_int(decorator: Any) -> Loop:
    f = decorator(128)(lambda x: x)
    for i in range(100):
        f(i)
    return loop("f(17)", f=f)


def one_str(decorator: Any) -> Loop:
    f = decorator(128)(lambda x: x)
    for i in range(100):
        f(str(i))
    return loop("f(k)", f=f, k="17")


def two_positional(decorator: Any) -> Loop:
    f = decorator(128)(lambda x, y: x)
    for i in range(100):
        f(i, i + 1)
    return loop("f(17, 18)", f=f)


def one_keyword(decorator: Any) -> Loop:
    f = decorator(128)(lambda x, y: x)
    for i in range(100):
        f(i, y=i + 1)
    return loop("f(17, y=18)", f=f)


def method(decorator: Any) -> Loop:
    class Class:
        @decorator(128)
        def method(self, x: int) -> int:
            return x

    instance = Class()
    for i in range(100):
        instance.method(i)
    return loop("o.method(17)", o=instance)


def evicting(decorator: Any) -> Loop:
    f = decorator(1000)(lambda x: x)
    keys = iter(range(10**12))

    def run() -> float:
        start = time.thread_time()
        for key, _ in zip(keys, range(CALLS)):
            f(key)
        return time.thread_time() - start

    run()
    return run


def mapping(make: Callable[[], Any]) -> Loop:
    c = make()
    for i in range(1000):
        c[i] = i
    return loop("c[17]", c=c)


MAPPINGS: dict[str, Callable[[], Any]] = {
    "dict": dict,
    "hotset.Cache": lambda: hotset.Cache(10_000),
    "Cache, ttl": lambda: hotset.Cache(10_000, ttl=3600),
}
if find_spec("cachebox"):
    import cachebox

    MAPPINGS["cachebox.LRUCache"] = lambda: cachebox.LRUCache(10_000)
    MAPPINGS["cachebox.TTLCache"] = lambda: cachebox.TTLCache(10_000, global_ttl=3600)

JOBS: dict[str, dict[str, Callable[[], Loop]]] = {
    **{
        f"hit, {name}": {peer: functools.partial(job, decorator) for peer, decorator in DECORATORS.items()}
        for name, job in {
            "1 int": one_int,
            "1 str": one_str,
            "2 positional": two_positional,
            "1 positional, 1 keyword": one_keyword,
            "method": method,
        }.items()
    },
    "miss and evict": {peer: functools.partial(evicting, decorator) for peer, decorator in DECORATORS.items()},
    "c[k]": {peer: functools.partial(mapping, make) for peer, make in MAPPINGS.items()},
}


def measure(contestants: dict[str, Callable[[], Loop]], rounds: int) -> None:
    loops = {peer: make() for peer, make in contestants.items()}
    times: dict[str, list[float]] = {peer: [] for peer in loops}
    for _ in range(rounds):
        for peer, run in loops.items():
            times[peer].append(run())
    first = next(iter(times.values()))
    for peer, taken in times.items():
        ratio = statistics.median(t / f for t, f in zip(taken, first, strict=True))
        print(f"    {peer:22} {statistics.median(taken) / CALLS * 1e9:7.1f} ns  {ratio:5.2f}")


def parallel_rate(count: int, call: str, function: Any) -> float:
    """Returns calls per microsecond of `count` threads, each on a processor, by the wall clock."""
    start, spans = threading.Barrier(count), []
    processors = sorted(os.sched_getaffinity(0))

    def work(number: int) -> None:
        os.sched_setaffinity(0, {processors[number % len(processors)]})
        # A loop each, so that they share what they call and nothing else.
        run = loop(call, 2 * CALLS, time.perf_counter, f=function)
        start.wait()
        begun = time.perf_counter()
        run()
        spans.append((begun, time.perf_counter()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count * 2 * CALLS / (max(end for _, end in spans) - min(begun for begun, _ in spans)) / 1e6


def of_module(decorator: Any) -> Any:
    """A decorated function as one of a module's own: not nested in another."""
    namespace = {"decorated": decorator}
    exec("@decorated\ndef function(x):\n    return x", namespace)
    return namespace["function"]


def scaling(rounds: int) -> None:
    """What two threads get done beside one. What a free-threaded interpreter spares a module's
    functions, the counting of references to them, begins with the first thread."""
    functions = {
        "no cache": of_module(lambda function: function),
        **{peer: of_module(decorator(128)) for peer, decorator in DECORATORS.items()},
        "cached, nested": cached(128)(lambda x: x),
    }
    for function in functions.values():
        for i in range(100):
            function(i)
    # What the machine can do just now.
    calls = {"an empty loop": ("f", len), **{peer: ("f(17)", function) for peer, function in functions.items()}}
    rates: dict[str, dict[int, list[float]]] = {peer: {1: [], 2: []} for peer in calls}
    for _ in range(rounds):
        for peer, (call, function) in calls.items():
            for count, seen in rates[peer].items():
                seen.append(parallel_rate(count, call, function))
    for peer, seen in rates.items():
        one, two = (statistics.median(sorted(seen[count])[-(rounds // 4) :]) for count in (1, 2))
        print(f"    {peer:22} {one:6.1f} {two:6.1f} calls/us  {two / one:5.2f}")


def zipf_with_scans(length: int = 300_000) -> list[int]:
    """Zipf 0.9 over 100,000 keys, and now and then a scan of keys that never come again."""
    rng = random.Random(1)
    weights = [1 / (rank + 1) ** 0.9 for rank in range(100_000)]
    drawn = iter(rng.choices(range(100_000), weights, k=length))
    stream: list[int] = []
    once = 10**9
    while len(stream) < length:
        stream.extend(key for key, _ in zip(drawn, range(4000)))
        stream.extend(range(once, once + 2000))
        once += 2000
    return stream[:length]


def hit_ratios() -> None:
    stream = zipf_with_scans()
    for peer in ("functools.lru_cache", "hotset.cached"):
        calls = 0

        def function(_: int) -> None:
            nonlocal calls
            calls += 1

        f = DECORATORS[peer](1000)(function)
        for key in stream:
            f(key)
        print(f"    {peer:22} {100 - 100 * calls / len(stream):5.1f} % hits")


MEMORY = """
import functools, sys, resource, os
import hotset
from hotset import _hotset
n = 1_000_000
kind = sys.argv[1]
def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()
make = {
    "dict": dict,
    "functools.lru_cache": lambda: functools.lru_cache(n)(lambda x: x + 1_000_000),
    "hotset.lru_cache": lambda: hotset.lru_cache(n)(lambda x: x + 1_000_000),
    "hotset.cached": lambda: _hotset.Memo(lambda x: x + 1_000_000, maxsize=n),
    "hotset.Cache": lambda: hotset.Cache(n),
    "cachebox.LRUCache": lambda: __import__("cachebox").LRUCache(n),
}[kind]
before = rss()
c = make()
if kind in ("dict", "hotset.Cache", "cachebox.LRUCache"):
    for i in range(1000, n + 1000):
        c[i] = i + 1_000_000
else:
    for i in range(1000, n + 1000):
        c(i)
print((rss() - before) / n)
"""


def memory() -> None:
    contestants = ["dict", "functools.lru_cache", "hotset.lru_cache", "hotset.cached", "hotset.Cache"]
    if "cachebox.LRUCache" in MAPPINGS:
        contestants.append("cachebox.LRUCache")
    for peer in contestants:
        answer = subprocess.run([sys.executable, "-c", MEMORY, peer], check=True, capture_output=True, text=True)
        print(f"    {peer:22} {float(answer.stdout):6.1f} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--job", action="append", help="only jobs whose names contain this")
    options = parser.parse_args()
    print(f"CPython {sys.version.split()[0]}, {'a' if is_pgo() else 'not a'} PGO build; hotset {_hotset.build}")
    wanted = options.job or [""]

    def chosen(name: str) -> bool:
        return any(part in name for part in wanted)

    for name, contestants in JOBS.items():
        if chosen(name):
            print(f"  {name}")
            measure(contestants, 15 if options.quick else 51)
    if chosen("two threads") and sys.platform == "linux" and not getattr(sys, "_is_gil_enabled", lambda: True)():
        print("  two threads beside one, hit, 1 int (the best quarter of the rounds)")
        scaling(60 if options.quick else 200)
    if chosen("hit ratio"):
        print("  hit ratio, zipf 0.9 with scans, 1,000 entries")
        hit_ratios()
    if chosen("memory") and sys.platform == "linux":
        print("  memory per int-to-int entry, RSS, 1,000,000 entries")
        memory()


if __name__ == "__main__":
    main()
