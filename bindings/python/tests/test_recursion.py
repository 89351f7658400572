"""Infinite recursion through a cache is a RecursionError, for any stack size of the thread."""

import functools
import subprocess
import sys
import textwrap
import threading

import pytest

import hotset

WAYS = {
    "lru_cache": "f = hotset.lru_cache(maxsize=None)(lambda n: f(n + 1))",
    "cached": "f = hotset.cached(maxsize=None)(lambda n: f(n + 1))",
    "cached, two arguments": "g = hotset.cached(maxsize=None)(lambda n, m: g(n + 1, m))\ndef f(n): return g(n, 1)",
    "cached, ttl": "f = hotset.cached(maxsize=None, ttl=60)(lambda n: f(n + 1))",
    "cached, key": "f = hotset.cached(maxsize=None, key=lambda n: n)(lambda n: f(n + 1))",
    "cached, reloaded": "f = hotset.cached(maxsize=None, ttl=60, stale_if_error=60)(lambda n: f(n + 1))",
    "cached, not shared": "f = hotset.cached(maxsize=None, single_flight=False)(lambda n: f(n + 1))",
    "cached method": """
        class Shop:
            @hotset.cached
            def total(self, n): return self.total(n + 1)
        f = Shop().total
        """,
    "cache_refresh": "g = hotset.cached(maxsize=None)(lambda n: g.cache_refresh(n + 1))\nf = g.cache_refresh",
    "get_or_load": "c = hotset.Cache(None)\ndef f(n): return c.get_or_load(n, lambda n: f(n + 1))",
}

CODE = """
import hotset, sys, threading
{setup}
def run():
    try:
        f(0)
    except RecursionError:
        print("RecursionError")
{limit}
{start}
"""
THREAD = "threading.stack_size({0} << 10)\nthread = threading.Thread(target=run)\nthread.start()\nthread.join()"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("limit", "start"),
    [
        ("", THREAD.format(1024)),
        ("", THREAD.format(256)),
        ("sys.setrecursionlimit(10**6)", THREAD.format(1024)),
        ("sys.setrecursionlimit(10**6)", "run()"),
    ],
    ids=["thread of 1 MB", "thread of 256 KB", "thread, raised limit", "main thread, raised limit"],
)
def test_endless_recursion_is_a_recursion_error(way, limit, start):
    code = CODE.format(setup=textwrap.dedent(WAYS[way]), limit=limit, start=start)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "RecursionError\n"), (ended.returncode, ended.stderr[-500:])


@pytest.mark.parametrize("decorate", [hotset.lru_cache(maxsize=None), hotset.cached(maxsize=None)], ids=["lru_cache", "cached"])
def test_recursion_goes_as_deep_as_with_functools(decorate):
    def depth(decorate):
        @decorate
        def f(n):
            deepest[0] = n
            return f(n + 1)

        deepest = [0]
        with pytest.raises(RecursionError):
            f(0)
        return deepest[0]

    depths = []
    thread = threading.Thread(target=lambda: depths.extend([depth(functools.lru_cache(maxsize=None)), depth(decorate)]))
    thread.start()
    thread.join()
    assert depths[1] >= depths[0]


def test_cache_works_after_a_recursion_error():
    @hotset.cached(maxsize=None)
    def f(n):
        return f(n + 1) if n < 10**9 else n

    for _ in range(3):
        with pytest.raises(RecursionError):
            f(0)
    assert f(10**9) == 10**9 and f(10**9 - 1) == 10**9
