"""Runs `python -m hotset`: a comparison with functools, or a tool by its name.

`python -m hotset` prints version and build, and compares hotset with functools on this machine for
ten seconds; `--version` prints what a report of a fault needs, and compares nothing. `python -m
hotset tier2 URL` reports what a server can do as a second tier, `python -m hotset advise script.py`
which functions of a program are worth caching, and `python -m hotset top` shows the named caches of
running processes.
"""

import argparse
import functools
import os
import platform
import random
import re
import statistics
import sys
import sysconfig
import time
import timeit
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from typing import Any

import hotset
from hotset import _hotset
from hotset._hotset import build

_Decorate = Callable[[Callable[..., Any]], Any]
_DECORATORS: dict[str, _Decorate] = {
    "functools.lru_cache": functools.lru_cache(maxsize=1000),
    "hotset.lru_cache": hotset.lru_cache(maxsize=1000),
    "hotset.cached": hotset.cached(maxsize=1000),
    "hotset.cached, ttl": hotset.cached(maxsize=1000, ttl=3600),
}
_HITS = {
    "hit, 1 int": "f(7)",
    "hit, 1 str": "f('seven')",
    "hit, 2 arguments": "f(7, 8)",
    "hit, 1 and a keyword": "f(7, b=8)",
    "hit, method": "o.m(7)",
    # No number repeats.
    "miss that evicts": "f(next(n))",
}


def _environment(decorate: _Decorate) -> dict[str, Any]:
    def function(a: object, b: object = None) -> object:
        return a

    class Class:
        @decorate
        def m(self, a: object) -> object:
            return a

    return {"f": decorate(function), "o": Class(), "n": iter(range(sys.maxsize))}


def _times(seconds: float) -> Iterator[tuple[str, list[float]]]:
    """Yields, for each kind of call, the nanoseconds by decorator: medians of interleaved rounds.
    """
    environments = [_environment(decorate) for decorate in _DECORATORS.values()]
    calls = 20_000
    for label, statement in _HITS.items():
        timers = [timeit.Timer(statement, globals=environment) for environment in environments]
        empty = timeit.Timer()
        rounds: list[list[float]] = []
        end = time.perf_counter() + seconds / len(_HITS)
        while len(rounds) < 3 or time.perf_counter() < end:
            loop = min(empty.repeat(3, calls))
            rounds.append([(timer.timeit(calls) - loop) / calls * 1e9 for timer in timers])
        yield label, [statistics.median(column) for column in zip(*rounds, strict=True)]


def _stream(length: int) -> list[int]:
    """Returns requests for 20,000 keys by Zipf's law, with runs of keys that occur only once."""
    chance = random.Random(42)
    keys = range(20_000)
    weights = list(accumulate((rank + 1) ** -0.9 for rank in keys))
    new = len(keys)
    stream: list[int] = []
    while len(stream) < length:
        stream += chance.choices(keys, cum_weights=weights, k=3000)
        stream += range(new, new + 500)
        new += 500
    return stream


def _same(key: int) -> int:
    return key


def _hit_ratios(length: int) -> list[float]:
    stream = _stream(length)
    ratios: list[float] = []
    for decorate in _DECORATORS.values():
        function = decorate(_same)
        for key in stream:
            function(key)
        hits, misses = function.cache_info()[:2]
        ratios.append(hits / (hits + misses))
    return ratios


def _print(label: str, cells: list[str]) -> None:
    print(f"{label:24}", *(f"{cell:>21}" for cell in cells))


def _extras() -> Iterator[str]:
    """Yields the packages that hotset has adapters to, and that are installed, with versions."""
    try:
        requirements = metadata.requires("hotset") or []
    except metadata.PackageNotFoundError:
        # Copied into another program, without the metadata of a wheel.
        return
    for name in dict.fromkeys(re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in requirements):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            pass


def _version() -> Iterator[str]:
    """Yields the lines of `--version`: hotset, the interpreter, the system, packages beside it."""
    yield f"hotset {hotset.__version__} ({build})"
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    profile = "with" if optimized else "without"
    yield f"{platform.python_implementation()} {sys.version.split()[0]}, built {profile} profile-guided optimization, GIL {'on' if gil else 'off'}"
    yield f"{platform.platform()}, {os.cpu_count()} processors"
    yield f"module: {Path(_hotset.__file__).name}"
    yield f"beside it: {', '.join(_extras()) or 'no package that hotset has an adapter to'}"


def main() -> None:
    """Runs the command: prints the version, and compares hotset with functools."""
    if sys.argv[1:2] == ["tier2"]:
        from hotset.tier2._check import main as check

        sys.exit(check(sys.argv[2:]))
    elif sys.argv[1:2] == ["advise"]:
        from hotset._advise.command import main as advise

        advise(sys.argv[2:])
        return
    elif sys.argv[1:2] == ["top"]:
        if not hasattr(os, "geteuid"):
            sys.exit("hotset top: this platform has no stats files: Linux and macOS have them")
        from hotset._top._command import main as top

        sys.exit(top(sys.argv[2:]))
    description = (
        "compares hotset with functools on this machine; `tier2 URL` checks a server, `advise script.py` finds what to cache, "
        "`top` shows the caches of running processes"
    )
    parser = argparse.ArgumentParser(prog="python -m hotset", description=description)
    parser.add_argument("--version", action="store_true", help="print the versions of hotset, Python, the system and packages beside it")
    parser.add_argument("--seconds", type=float, default=9.0, help="how long to measure times (%(default)s)")
    arguments = parser.parse_args()
    lines = list(_version())
    if arguments.version:
        print("\n".join(lines))
        return
    print("\n".join(lines[:2]))
    print("nanoseconds per call, and the ratio to functools\n")
    _print("", list(_DECORATORS))
    for label, times in _times(arguments.seconds):
        _print(label, [f"{times[0]:.0f}", *(f"{each:.0f} ({each / times[0]:.2f})" for each in times[1:])])
    ratios = _hit_ratios(60_000)
    _print("hit ratio, zipf + scans", [f"{ratio:.1%}" for ratio in ratios])


if __name__ == "__main__":
    main()
